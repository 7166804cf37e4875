"""Netlink requests: a socket of its own, one request at a time, every wait with a deadline.

The kernel answers an rtnetlink request while it is being sent, so an answer is normally there before the event
loop is asked to wait for it; waiting is for what is left of a long dump.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Self

from pyroute2 import IPRSocket
from pyroute2 import netns as pyroute2_netns

from mobikectl.errors import MobikectlError, NetlinkError, NoRouteError, PrivilegeError
from mobikectl.netlink import rtnl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

NETLINK_ROUTE = 0
NETLINK_XFRM = 6
DEADLINE = 5.0
"""Seconds a request may take when its caller does not say."""

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 1, 10, 11, 12
_DATAGRAM = 1 << 16
_BATCH = 128
"""Messages sent in one datagram: their acknowledgements must fit the receive buffer."""
_DUMP_TRIES = 5


def kernel_error(what: str, code: int, text: str = "") -> MobikectlError:
    """Given what was asked, an errno and the kernel's words, return the error to raise, its hint included."""
    name = f"{os.strerror(code)}{': ' + text if text else ''}"
    if code in (errno.EPERM, errno.EACCES):
        return PrivilegeError(f"{what}: {name}", hint="run as root or with CAP_NET_ADMIN")
    if code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return NoRouteError(
            f"{what}: {name}", hint="see `ip route get`: the next hop must be on a link that is up"
        )
    if code == errno.EINVAL:
        return NetlinkError(f"{what}: {name}", hint="is the source address on this host, and not tentative?")
    if code == errno.ENOENT:
        return NetlinkError(f"{what}: {name}", hint="see `ip netns` and `ip route` for what there is")
    if code in (errno.ENODEV, errno.ENETDOWN):
        return NetlinkError(f"{what}: {name}", hint="the link is gone or down: see `ip link`")
    if code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        return NetlinkError(f"{what}: {name}", hint="the system is short of memory or file descriptors")
    return NetlinkError(f"{what}: {name}", hint="try the same with `ip` to see whether the kernel allows it")


class KernelSocket:
    """A non-blocking netlink socket, owned by who made it.

    Given the netlink protocol, the multicast groups to join, the receive buffer's size in bytes and the name of a
    network namespace (None: the caller's). rtnetlink sockets are pyroute2's `IPRSocket`, without its ``bind``: that
    tries 180 port numbers whatever the error, where the kernel picks a free one by itself. Raise NetlinkError or
    PrivilegeError when it cannot be had.
    """

    def __init__(
        self,
        protocol: int = NETLINK_ROUTE,
        *,
        groups: Sequence[int] = (),
        rcvbuf: int = 1 << 20,
        netns: str | None = None,
    ) -> None:
        self._pyroute2: IPRSocket | None = None
        try:
            if protocol == NETLINK_ROUTE:
                self._pyroute2 = IPRSocket(groups=0, rcvbuf=rcvbuf, netns=netns, flags=0)
                self.socket: socket.socket = self._pyroute2.socket
            else:
                self.socket = pyroute2_netns.create_socket(
                    netns, socket.AF_NETLINK, socket.SOCK_RAW, protocol, flags=0
                )
            self.socket.bind((0, 0))
            self.socket.setblocking(False)
            self.fd = self.socket.fileno()
            """Its file descriptor; kept, because an event loop must forget it even when somebody closed it."""
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._try_option(option)
            for group in groups:
                self.socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as exc:
            self.close()
            where = f" in the network namespace {netns!r}" if netns else ""
            raise kernel_error(f"netlink socket{where}", exc.errno or errno.EIO) from exc

    def _try_option(self, option: int) -> None:
        try:
            self.socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError as exc:
            if exc.errno != errno.ENOPROTOOPT:
                raise

    def close(self) -> None:
        """Close it; closing twice does no harm."""
        if self._pyroute2 is not None:
            self._pyroute2.close()
        elif hasattr(self, "socket"):
            self.socket.close()


class Requests:
    """Requests to the kernel over one socket: an async context manager; calls from several tasks take turns.

    Given the netlink protocol, the network namespace's name (None: the caller's) and the deadline of each request
    in seconds. Methods raise NetlinkError (the socket failed, the deadline passed) or PrivilegeError.
    """

    def __init__(
        self, protocol: int = NETLINK_ROUTE, *, netns: str | None = None, deadline: float = DEADLINE
    ) -> None:
        self._protocol = protocol
        self._netns = netns
        self._deadline = deadline
        self._kernel: KernelSocket | None = None
        self._seq = 0
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._kernel = KernelSocket(self._protocol, netns=self._netns)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def ask(self, kind: int, payload: bytes) -> bytes | rtnl.KernelError:
        """Given a request that has one answer, return that message (header included) or the kernel's refusal."""
        async with self._turn, self._limit(kind):
            seq = self._next()
            await self._send(rtnl.message(kind, rtnl.NLM_F_REQUEST, seq, payload))
            while True:
                buf = await self._receive()
                for msg in rtnl.messages(buf):
                    if msg.seq != seq:
                        continue
                    if msg.type == rtnl.NLMSG_ERROR:
                        return rtnl.decode_error(buf, msg)
                    return buf[msg.start - rtnl.HEADER_SIZE : msg.end]

    async def order(self, orders: Sequence[tuple[int, int, bytes]]) -> list[rtnl.KernelError]:
        """Given (type, flags, payload) of changes, have them carried out in turn; return the answer to each.

        An errno of 0 is success. One refusal does not stop those behind it.
        """
        answers: list[rtnl.KernelError] = []
        async with self._turn:
            for first in range(0, len(orders), _BATCH):
                answers += await self._order_batch(orders[first : first + _BATCH])
        return answers

    async def _order_batch(self, batch: Sequence[tuple[int, int, bytes]]) -> list[rtnl.KernelError]:
        base = self._seq
        flags_of_all = rtnl.NLM_F_REQUEST | rtnl.NLM_F_ACK
        data = b"".join(rtnl.message(k, flags_of_all | flags, self._next(), p) for k, flags, p in batch)
        found: dict[int, rtnl.KernelError] = {}
        async with self._limit(batch[0][0]):
            await self._send(data)
            while len(found) < len(batch):
                buf = await self._receive()
                for msg in rtnl.messages(buf):
                    place = (msg.seq - base - 1) & 0xFFFFFFFF
                    if msg.type == rtnl.NLMSG_ERROR and place < len(batch):
                        found[place] = rtnl.decode_error(buf, msg)
        return [found[place] for place in range(len(batch))]

    async def dump(self, kind: int, payload: bytes) -> AsyncIterator[tuple[bytes, rtnl.Message]]:
        """Given a dump request, yield (datagram, message) for each object as it comes.

        Raise NetlinkError when the table changed under the dump (NLM_F_DUMP_INTR): see `dump_all`.
        """
        async with self._turn:
            seq = self._next()
            async with self._limit(kind):
                await self._send(rtnl.message(kind, rtnl.NLM_F_REQUEST | rtnl.NLM_F_DUMP, seq, payload))
            interrupted, done = False, False
            while not done:
                async with self._limit(kind):
                    buf = await self._receive()
                    await asyncio.sleep(0)
                for msg in rtnl.messages(buf):
                    if msg.seq != seq:
                        continue
                    interrupted |= bool(msg.flags & rtnl.NLM_F_DUMP_INTR)
                    if msg.type in (rtnl.NLMSG_DONE, rtnl.NLMSG_ERROR):
                        refusal = rtnl.decode_error(buf, msg)
                        if refusal.errno:
                            raise kernel_error(f"netlink dump {kind}", refusal.errno, refusal.text)
                        done = True
                        break
                    yield buf, msg
        if interrupted:
            raise InterruptedDumpError(f"netlink dump {kind} was interrupted by a change")

    async def dump_all(self, kind: int, payload: bytes) -> list[tuple[bytes, rtnl.Message]]:
        """Given a dump request, return all (datagram, message), asked again when the table changed under it."""
        for _ in range(_DUMP_TRIES):
            try:
                return [item async for item in self.dump(kind, payload)]
            except InterruptedDumpError:
                continue
        raise NetlinkError(f"netlink dump {kind}: the table never stood still", hint="try again in a moment")

    def _next(self) -> int:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        return self._seq

    def _limit(self, kind: int) -> _Deadline:
        return _Deadline(self._deadline, f"netlink request {kind}")

    def _socket(self) -> socket.socket:
        if self._kernel is None:
            raise NetlinkError("netlink socket is closed", hint="use it inside `async with`")
        return self._kernel.socket

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket(), data)
        except OSError as exc:
            raise kernel_error("netlink request", exc.errno or errno.EIO) from exc

    async def _receive(self) -> bytes:
        """Return the next datagram that the kernel itself sent."""
        sock = self._socket()
        loop = asyncio.get_running_loop()
        while True:
            try:
                try:
                    buf, (port, _groups) = sock.recvfrom(_DATAGRAM)
                except BlockingIOError:
                    buf, (port, _groups) = await loop.sock_recvfrom(sock, _DATAGRAM)
            except OSError as exc:
                raise kernel_error("netlink answer", exc.errno or errno.EIO) from exc
            if port == 0:
                return buf


class InterruptedDumpError(NetlinkError):
    """A table changed while it was dumped: the result may lack what was there all the time."""


class _Deadline:
    """`asyncio.timeout` whose expiry is a NetlinkError."""

    def __init__(self, seconds: float, what: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._text = f"{what}: no answer from the kernel within {seconds:g} s"

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, trace)  # type: ignore[arg-type]
        except TimeoutError as late:
            raise NetlinkError(
                self._text, hint="another program may hold the kernel's network lock"
            ) from late
