"""Route lookup: the kernel is asked, so that ``ip rule``, marks, metrics and next hop objects all count."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import RouteAnswer
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, Requests, kernel_error

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

_REFUSING = {
    rtnl.RTN_BLACKHOLE: "a blackhole route",
    rtnl.RTN_UNREACHABLE: "an unreachable route, or none",
    rtnl.RTN_PROHIBIT: "a prohibit route",
}
_NO_ROUTE = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "an unreachable route",
    errno.EACCES: "a prohibit route",
}


def read_answer(dst: IpAddress, answer: bytes) -> RouteAnswer:
    """Given the kernel's message for a lookup of ``dst``, return the way.

    Raise NoRouteError when it is a route that refuses (kernels before 4.13 answer so for IPv6, later ones with an
    errno) or leads to no link, NetlinkError when it is no answer.
    """
    route = next((rtnl.decode_route(answer, msg) for msg in rtnl.messages(answer)), None)
    if route is None:
        raise NetlinkError(f"route to {dst}: the kernel's answer is none", hint="please report this")
    if route.type in _REFUSING:
        raise NoRouteError(f"{dst}: {_REFUSING[route.type]}", hint=f"see `ip route get {dst}` and `ip rule`")
    hop = route.nexthops[0] if route.nexthops else None
    if hop is None or hop.oif is None:
        raise NoRouteError(f"{dst}: a route that leads to no link", hint=f"see `ip route get {dst}`")
    return RouteAnswer(dst=dst, gateway=hop.gateway, oif=hop.oif, prefsrc=route.prefsrc)


class RouteLookup:
    """Asks the kernel how packets would go, over one socket kept open (async context manager).

    Given the network namespace's name (None: the caller's) and the deadline of each lookup in seconds.
    """

    def __init__(self, *, netns: str | None = None, deadline: float = DEADLINE) -> None:
        self._requests = Requests(netns=netns, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)

    async def lookup(
        self, dst: IpAddress, *, src: IpAddress | None = None, oif: int | None = None, mark: int = 0
    ) -> RouteAnswer:
        """Given where to, and optionally from which local address, link index and mark, return the way.

        Raise NoRouteError when there is none (no route, unreachable, prohibit, blackhole, the link is down),
        NetlinkError when the question itself is refused (``src`` is not on this host: EINVAL; no such link).
        Source: rtnetlink(7), RTM_GETROUTE.
        """
        if src is not None and src.version != dst.version:
            raise ValueError(f"{src} and {dst} are of two families")
        answer = await self._requests.ask(rtnl.RTM_GETROUTE, rtnl.encode_lookup(dst, src, oif, mark))
        if isinstance(answer, rtnl.KernelError):
            raise self._refusal(dst, src, answer)
        return read_answer(dst, answer)

    @staticmethod
    def _refusal(dst: IpAddress, src: IpAddress | None, answer: rtnl.KernelError) -> Exception:
        if answer.errno in _NO_ROUTE:
            hint = f"see `ip route get {dst}` and `ip rule`"
            return NoRouteError(f"{dst}: {_NO_ROUTE[answer.errno]}", hint=hint)
        if answer.errno == errno.EINVAL and src is None:
            return NoRouteError(f"{dst}: a blackhole route", hint=f"see `ip route get {dst}` and `ip rule`")
        return kernel_error(f"route to {dst}" + (f" from {src}" if src else ""), answer.errno, answer.text)


async def lookup(
    dst: IpAddress | str,
    *,
    src: IpAddress | None = None,
    oif: int | None = None,
    mark: int = 0,
    netns: str | None = None,
    deadline: float = DEADLINE,
) -> RouteAnswer:
    """One lookup over a socket of its own; see `RouteLookup.lookup`. Who asks often keeps a `RouteLookup`."""
    async with RouteLookup(netns=netns, deadline=deadline) as asking:
        return await asking.lookup(ip_address(dst), src=src, oif=oif, mark=mark)
