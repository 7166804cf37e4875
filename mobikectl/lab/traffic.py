"""Traffic of a whole fleet of clients in one namespace: pings through every tunnel, and load through chosen ones.

One socket and one thread each, whatever the number of tunnels: IP_PKTINFO chooses each packet's source address.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mobikectl.lab.capture import Ping, checksum, measure_undisturbed, open_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobikectl.lab.topology import Tunnel

DISCARD = 9
"""The UDP port that the load goes to (RFC 863)."""
PAYLOAD = 1000
"""Octets of UDP payload in a packet of load."""
IP_PKTINFO = 8
"""From linux/in.h: Python 3.11 has no name for it."""
TICK = 0.01
"""How often the load's sender looks what is due."""


def _from(source: str) -> list[tuple[int, int, bytes]]:
    """Given an IPv4 address, return the ancillary data that makes it a packet's source (ip(7))."""
    return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4)))]


class FleetPinger:
    """Sends an ICMP echo request through each tunnel every `interval` seconds, evenly spread. A context manager.

    Leaving it waits up to `tail` seconds for the last replies.
    """

    def __init__(
        self, namespace: str, tunnels: Sequence[Tunnel], *, interval: float = 0.2, tail: float = 1.0
    ) -> None:
        self.pings: dict[str, list[Ping]] = {tunnel.name: [] for tunnel in tunnels}
        self.interval = interval
        self._ways = [
            (tunnel.name, _from(str(tunnel.client_inside)), str(tunnel.gateway_inside)) for tunnel in tunnels
        ]
        self._tail = tail
        self._ident = threading.get_native_id() & 0xFFFF
        self._all: list[Ping] = []
        self._sock = open_in(namespace, _icmp_socket)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pings-{namespace}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._tail + 5)
        self._sock.close()

    def _run(self) -> None:
        measure_undisturbed()
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        due = time.monotonic()
        end: float | None = None
        while True:
            now = time.monotonic()
            if end is None and self._stop.is_set():
                end = now + self._tail
            if end is not None and (now >= end or all(p.received or p.refused for p in self._all[-200:])):
                return
            if end is None and now >= due:
                self._send(len(self._all))
                step = self.interval / len(self._ways)
                due = max(due + step, now + step / 2)
            next_wake = due if end is None else end
            if poller.poll(max(0.0, next_wake - time.monotonic()) * 1000):
                self._receive()

    def _send(self, sequence: int) -> None:
        name, source, target = self._ways[sequence % len(self._ways)]
        head = struct.pack("!BBHHH", 8, 0, 0, self._ident, sequence & 0xFFFF)
        packet = bytearray(head + struct.pack("!I", sequence) + bytes(44))
        struct.pack_into("!H", packet, 2, checksum(bytes(packet)))
        ping = Ping(time.monotonic())
        self._all.append(ping)
        self.pings[name].append(ping)
        try:
            self._sock.sendmsg([packet], source, 0, (target, 0))
        except OSError:
            ping.refused = True

    def _receive(self) -> None:
        while True:
            try:
                data = self._sock.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error queued on the socket: the missing reply counts
            now = time.monotonic()
            body = data[(data[0] & 15) * 4 :]
            if len(body) < 12 or body[0] != 0:
                continue
            ident, _, sequence = struct.unpack_from("!HHI", body, 4)
            if ident == self._ident and sequence < len(self._all) and self._all[sequence].received is None:
                self._all[sequence].received = now


def _icmp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    return sock


@dataclass(slots=True)
class _Stream:
    source: list[tuple[int, int, bytes]]
    target: str
    bytes_per_s: float
    owed: float = 0.0


class Load:
    """Sends UDP through chosen tunnels at set rates. A context manager."""

    def __init__(self, namespace: str, tunnels: Sequence[Tunnel]) -> None:
        self._tunnels = {tunnel.name: tunnel for tunnel in tunnels}
        self._streams: dict[str, _Stream] = {}
        self._sock = open_in(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"load-{namespace}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._sock.close()

    def set(self, rates: Mapping[str, float]) -> None:
        """Given bytes/s of UDP payload by tunnel, send that much from now on through these, nothing through others."""
        self._streams = {
            name: _Stream(
                _from(str(self._tunnels[name].client_inside)), str(self._tunnels[name].gateway_inside), rate
            )
            for name, rate in rates.items()
            if rate > 0
        }

    def _run(self) -> None:
        payload = bytes(PAYLOAD)
        last = time.monotonic()
        while not self._stop.wait(TICK):
            now = time.monotonic()
            # After a pause of the machine no burst: what was not sent then is not sent at all.
            passed, last = min(now - last, 5 * TICK), now
            for stream in self._streams.values():
                stream.owed += stream.bytes_per_s * passed
                while stream.owed >= PAYLOAD:
                    stream.owed -= PAYLOAD
                    self._send(payload, stream)

    def _send(self, payload: bytes, stream: _Stream) -> None:
        try:
            self._sock.sendmsg([payload], stream.source, socket.MSG_DONTWAIT, (stream.target, DISCARD))
        except OSError:
            return  # no way at this moment: it is not load then


def open_sink(namespace: str, address: str) -> socket.socket:
    """Given a namespace and an address there, return a socket that swallows the load; close it at the end.

    Nobody reads from it: the kernel drops what does not fit, and sends no ICMP errors.
    """

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.bind((address, DISCARD))
        return sock

    return open_in(namespace, make)
