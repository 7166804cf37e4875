"""The kernel's own choice: how it would send if there were no steering routes, and with which metric.

The kernel is asked with `BYPASS_MARK`, so that ``ip rule`` and every table but ours count, and for the
matching table entry itself (RTM_F_FIB_MATCH): bound to a link, it would otherwise answer for a link
without any route as if the whole world were on it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Self

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import RouteAnswer
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, Requests, kernel_error
from mobikectl.netlink.rules import BYPASS_MARK

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

_RTM_F_FIB_MATCH = 0x2000
_FLAGS_OFFSET = 8
_RTN_UNICAST, _RTN_LOCAL = 1, 2


class KernelChoice:
    """Asks the kernel for its own choice, over one socket kept open (async context manager).

    Given the network namespace's name (None: the caller's) and the deadline of each request in seconds.
    """

    def __init__(self, *, netns: str | None = None, deadline: float = DEADLINE) -> None:
        self._requests = Requests(netns=netns, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)

    async def best(self, dst: IpAddress) -> RouteAnswer:
        """Given where to, return the way and the source address that the kernel would choose by itself.

        Raise NoRouteError, NetlinkError.
        """
        answer = await self._ask(dst, rtnl.encode_lookup(dst, None, None, BYPASS_MARK))
        route = rtnl.decode_route(answer, next(rtnl.messages(answer)))
        hop = route.nexthops[0] if route is not None and route.nexthops else None
        if route is None or hop is None or hop.oif is None or route.type not in (_RTN_UNICAST, _RTN_LOCAL):
            raise _none(dst)
        return RouteAnswer(dst, hop.gateway, hop.oif, route.prefsrc)

    async def through(self, dst: IpAddress, *, src: IpAddress, oif: int) -> tuple[RouteAnswer, int]:
        """Given where to, from which local address and through which link, return the way and its metric.

        Raise NoRouteError: no table has a route through that link. Raise NetlinkError.
        Source: rtnetlink(7), RTM_GETROUTE; RTM_F_FIB_MATCH.
        """
        payload = bytearray(rtnl.encode_lookup(dst, src, oif, BYPASS_MARK))
        struct.pack_into("=I", payload, _FLAGS_OFFSET, _RTM_F_FIB_MATCH)
        answer = await self._ask(dst, bytes(payload))
        route = rtnl.decode_route(answer, next(rtnl.messages(answer)))
        hops = [hop for hop in route.nexthops if hop.oif == oif] if route is not None else []
        if route is None or not hops or route.type != _RTN_UNICAST:
            raise _none(dst)
        return RouteAnswer(dst, hops[0].gateway, oif, src), route.priority

    async def _ask(self, dst: IpAddress, payload: bytes) -> bytes:
        answer = await self._requests.ask(rtnl.RTM_GETROUTE, payload)
        if isinstance(answer, rtnl.KernelError):
            error = kernel_error(f"route to {dst}", answer.errno, answer.text)
            raise error if isinstance(error, NetlinkError) else _none(dst)
        return answer


def _none(dst: IpAddress) -> NoRouteError:
    return NoRouteError(f"{dst}: no route there", hint=f"see `ip route get {dst}` and `ip rule`")
