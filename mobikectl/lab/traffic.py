"""Traffic of a whole fleet of clients in one namespace: pings through every tunnel, and load through chosen ones.

One socket and one thread each, whatever the number of tunnels: IP_PKTINFO chooses each packet's source address.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mobikectl.lab.capture import EchoTrain, Ping, icmp_socket, open_in

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
IDLE = 0.1
"""How often it looks whether there is any."""


def _from(source: str) -> list[tuple[int, int, bytes]]:
    """Given an IPv4 address, return the ancillary data that makes it a packet's source (ip(7))."""
    return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4)))]


class FleetPinger(EchoTrain):
    """Sends an ICMP echo request through each tunnel every `interval` seconds, evenly spread. A context manager.

    Leaving it waits up to `tail` seconds for the last replies.
    """

    def __init__(
        self,
        namespace: str,
        tunnels: Sequence[Tunnel],
        *,
        interval: float = 0.2,
        tail: float = 1.0,
        undisturbed: bool = True,
    ) -> None:
        ways = [(_from(str(tunnel.client_inside)), str(tunnel.gateway_inside)) for tunnel in tunnels]
        super().__init__(
            namespace, icmp_socket, ways, spacing=interval / len(ways), tail=tail, undisturbed=undisturbed
        )
        self.interval = interval
        self._names = [tunnel.name for tunnel in tunnels]

    @property
    def pings(self) -> dict[str, list[Ping]]:
        """The requests sent so far through each tunnel, in order."""
        return {name: self._all[i :: len(self._names)] for i, name in enumerate(self._names)}


@dataclass(slots=True)
class _Stream:
    source: list[tuple[int, int, bytes]]
    target: str
    bytes_per_s: float
    owed: float = 0.0


class Load:
    """Sends UDP through chosen tunnels at set rates. A context manager.

    Its thread begins with the first rates: few scenarios set any, and in a guest each look for some costs.
    """

    def __init__(self, namespace: str, tunnels: Sequence[Tunnel]) -> None:
        self._tunnels = {tunnel.name: tunnel for tunnel in tunnels}
        self._streams: dict[str, _Stream] = {}
        self._sock = open_in(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"load-{namespace}", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
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
        if self._streams and not self._thread.is_alive():
            self._thread.start()

    def _run(self) -> None:
        payload = bytes(PAYLOAD)
        last = time.monotonic()
        while not self._stop.wait(TICK if self._streams else IDLE):
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
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # each fleet has one
        sock.bind((address, DISCARD))
        return sock

    return open_in(namespace, make)
