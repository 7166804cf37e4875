"""Seeing a node's packets (AF_PACKET) and pinging through its tunnel, each in a thread of its own.

The sockets are opened inside the node's network namespace and used from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from pyroute2 import netns

from mobikectl.errors import LabError
from mobikectl.lab.packets import Packet, read_packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path as FilePath

    from mobikectl.model import IpAddress

T = TypeVar("T")

ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)
"""Of a pcap file with nanoseconds and raw IP packets (LINKTYPE_RAW)."""
MAX_PACKETS = 200_000
"""A scenario has about 10,000; this bounds the memory of one that floods."""
SO_ATTACH_FILTER = 26
ESP_OR_UDP = (
    (0x30, 0, 0, 0),  # ldb [0]
    (0x74, 0, 0, 4),  # rsh #4: the IP version
    (0x15, 0, 2, 4),  # jeq #4, next, +2
    (0x30, 0, 0, 9),  # ldb [9]: IPv4's protocol
    (0x05, 0, 0, 1),  # ja +1
    (0x30, 0, 0, 6),  # ldb [6]: IPv6's next header
    (0x15, 1, 0, 50),  # jeq ESP, accept
    (0x15, 0, 1, 17),  # jeq UDP, accept, reject
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)
"""A socket filter (bpf(4)): the pings inside of the tunnel need not wake anybody."""
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 8 << 20
"""Octets: what comes while a guest stands still for a moment is not to be taken for lost."""
IGNORED_DEVICES = {"lo", "ipsec0"}
TICK = 0.01
"""Seconds between two looks of a thread that sends: what came meanwhile is taken at once, and the kernel has written
down when each packet came. In user-mode-linux a look at each packet costs more than the packet does."""
LOOK = 0.05
"""As many for one that only records."""


def measure_undisturbed() -> None:
    """Let the calling thread run as soon as it has something to do: a late ping measures the machine, not the path.

    Without the capability for it the thread measures as well as it can.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def open_in(namespace: str, factory: Callable[[], T]) -> T:
    """Given a namespace and what to open, open it there: a socket stays in the namespace it was made in."""

    def work() -> T:
        netns.setns(namespace)
        return factory()

    # setns changes one thread; this one ends with it.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=10)


class Capture:
    """Records a node's IKE and ESP packets, also into a pcap file. A context manager."""

    def __init__(self, namespace: str, pcap: FilePath) -> None:
        self.kernel_drops = 0
        self._packets: list[Packet] = []
        self._unread: list[tuple[bytes, float, bool]] = []
        """What nobody has asked for yet: packet, CLOCK_MONOTONIC, whether it left."""
        self._count = 0
        self._sock = open_in(namespace, _packet_socket)
        self._pcap = pcap.open("wb")
        self._pcap.write(PCAP_HEADER)
        self._stop = threading.Event()
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"capture-{namespace}", daemon=True)

    @property
    def packets(self) -> list[Packet]:
        """Every IKE and ESP packet so far, in order."""
        with self._new:
            return self._read()

    def _read(self) -> list[Packet]:
        for data, at, outgoing in self._unread:
            packet = read_packet(data, time=at, outgoing=outgoing)
            if packet is not None:
                self._packets.append(packet)
        self._unread.clear()
        return self._packets

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        stats = self._sock.getsockopt(263, 6, 8)  # SOL_PACKET, PACKET_STATISTICS
        self.kernel_drops = struct.unpack("II", stats)[1]
        self._sock.close()
        self._pcap.close()

    def wait_for(self, wanted: Callable[[Packet], bool], *, start: int, deadline: float) -> Packet | None:
        """Given a test, return the first packet from index `start` on that passes; None at the deadline.

        `deadline` is a time of CLOCK_MONOTONIC. Blocks: call it in a thread.
        """
        at = start
        with self._new:
            while True:
                packets = self._read()
                while at < len(packets):
                    if wanted(packets[at]):
                        return packets[at]
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0 or not self._new.wait(left):
                    return None

    def _run(self) -> None:
        offset = _wall_clock_offset()
        last = False
        while not last:
            last = self._stop.wait(LOOK)
            if found := list(self._take(offset)):
                with self._new:
                    self._unread += found
                    self._new.notify_all()

    def _take(self, offset: float) -> Iterator[tuple[bytes, float, bool]]:
        while True:
            try:
                data, ancillary, _, source = self._sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if source[0] in IGNORED_DEVICES or self._count >= MAX_PACKETS:
                continue
            self._count += 1
            seconds, nanos = _timestamp(ancillary)
            self._pcap.write(struct.pack("<IIII", seconds, nanos, len(data), len(data)) + data)
            yield data, seconds + nanos / 1e9 - offset, source[2] == socket.PACKET_OUTGOING


def _wall_clock_offset() -> float:
    """Return how far the clock of the kernel's stamps is ahead of CLOCK_MONOTONIC: a run is too short for drift."""
    return time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()


def _packet_socket() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    _prepare(sock, ESP_OR_UDP)
    return sock


def _prepare(sock: socket.socket, steps: Sequence[tuple[int, int, int, int]]) -> None:
    """Have a socket take what a filter (bpf(4)) lets through, stamped, and not block."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filter_ = struct.pack("HL", len(steps), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.setblocking(False)


def _timestamp(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanos = struct.unpack("qq", data[:16])
            return seconds, nanos
    raise LabError("the kernel gives no packet timestamps", hint="is SO_TIMESTAMPNS missing here?")


@dataclass(slots=True)
class Ping:
    """One echo request: when it was sent, and when its reply came (CLOCK_MONOTONIC, seconds)."""

    sent: float
    received: float | None = None
    refused: bool = False
    """The kernel did not take it (no route, link down): lost before it left."""


Way = tuple[list[tuple[int, int, bytes]], str]
"""Ancillary data that chooses a packet's source (empty: the socket's), and where it goes to."""


IDENTIFIERS = itertools.count(os.getpid())
"""Of trains of echo requests: two of them in one namespace each want their own answers."""
LATEST = 200
"""So many requests at most are waited for in the end."""


class EchoTrain:
    """Sends ICMP echo requests over some ways in turn, from a thread, and takes their replies. A context manager.

    ``make`` makes the socket, in the namespace; ``spacing``: seconds between two requests, on average: what is due
    within `TICK` is sent together, and what was not sent while the machine stood still is not made up for. Leaving it
    waits up to ``tail`` seconds for the last replies. ``undisturbed``: its thread goes before all others.
    """

    def __init__(
        self,
        namespace: str,
        make: Callable[[], socket.socket],
        ways: Sequence[Way],
        *,
        spacing: float,
        tail: float,
        v6: bool = False,
        undisturbed: bool = True,
    ) -> None:
        self._all: list[Ping] = []
        self._undisturbed = undisturbed
        self._ways = ways
        self._together = max(1, round(TICK / spacing))
        self._step = spacing * self._together
        self._tail = tail
        self._v6 = v6
        self._ident = next(IDENTIFIERS) & 0xFFFF
        self._sock = open_in(namespace, make)
        _prepare(self._sock, _answers_to(self._ident, v6=v6))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ping-{namespace}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._tail + 5)
        self._sock.close()

    def _run(self) -> None:
        if self._undisturbed:
            measure_undisturbed()
        offset = _wall_clock_offset()
        due = time.monotonic()
        while not self._stop.is_set():
            self._receive(offset)
            now = time.monotonic()
            for _ in range(self._together):
                self._send(len(self._all), now)
            # Never catch up with a burst: each packet is a sample of its own moment, and no queue has room for many.
            due = max(due + self._step, now + self._step / 2)
            time.sleep(max(0.0, due - now))
        end = time.monotonic() + self._tail
        while not self._settled() and time.monotonic() < end:
            time.sleep(TICK)
            self._receive(offset)

    def _settled(self) -> bool:
        # All of a long run would be looked at each time: what is older than these is lost by now.
        return all(ping.received or ping.refused for ping in self._all[-LATEST:])

    def _send(self, sequence: int, now: float) -> None:
        head = struct.pack("!BBHHH", 128 if self._v6 else 8, 0, 0, self._ident, sequence & 0xFFFF)
        packet = bytearray(head + struct.pack("!I", sequence) + bytes(44))
        if not self._v6:  # for ICMPv6 the kernel does it
            struct.pack_into("!H", packet, 2, checksum(bytes(packet)))
        source, target = self._ways[sequence % len(self._ways)]
        ping = Ping(now)
        self._all.append(ping)
        try:
            self._sock.sendmsg([packet], source, 0, (target, 0))
        except OSError:
            ping.refused = True

    def _receive(self, offset: float) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error queued on the socket: the missing reply counts
            body = data if self._v6 else data[(data[0] & 15) * 4 :]
            if len(body) < 12 or body[0] != (129 if self._v6 else 0):
                continue
            ident, _, sequence = struct.unpack_from("!HHI", body, 4)
            if ident == self._ident and sequence < len(self._all) and self._all[sequence].received is None:
                seconds, nanos = _timestamp(ancillary)
                self._all[sequence].received = seconds + nanos / 1e9 - offset


class Pinger(EchoTrain):
    """Sends an ICMP echo request every `interval` seconds from one inside address to the other.

    A context manager; leaving it waits up to `tail` seconds for the last replies.
    """

    def __init__(
        self,
        namespace: str,
        source: IpAddress,
        target: IpAddress,
        *,
        interval: float = 0.01,
        tail: float = 1.0,
    ) -> None:
        v6 = target.version == 6

        def make() -> socket.socket:
            sock = icmp_socket(v6=v6)
            sock.bind((str(source), 0))
            return sock

        super().__init__(namespace, make, [([], str(target))], spacing=interval, tail=tail, v6=v6)

    @property
    def pings(self) -> list[Ping]:
        """Every request sent so far, in order."""
        return self._all


def icmp_socket(*, v6: bool = False) -> socket.socket:
    """Return a raw socket for ICMP (or ICMPv6)."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)


def _answers_to(ident: int, *, v6: bool) -> tuple[tuple[int, int, int, int], ...]:
    """Return the filter of a raw socket for echo messages with an identifier: each such socket gets those of all."""
    load = ((0x28, 0, 0, 4),) if v6 else ((0xB1, 0, 0, 0), (0x48, 0, 0, 4))  # ldh [4], after the IPv4 header
    return (*load, (0x15, 0, 1, ident), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))


def checksum(data: bytes) -> int:
    """Given bytes of even length, return their Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
