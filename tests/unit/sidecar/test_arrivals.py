"""New IKE_SAs of a gateway stay at the address where they came in."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import IkeSa, IkeState, IpAddress, Path, RouteAnswer
from mobikectl.observe.events import EventLog
from mobikectl.sidecar.arrivals import Arrivals
from mobikectl.switch.steering import Steer

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, SECOND = ip_address("198.18.9.1"), ip_address("198.18.10.1")
CLIENTS = [ip_address(f"198.18.64.{n}") for n in range(1, 5)]


def arriving(number: int, local: IpAddress, remote: IpAddress, *, ours: bool = False) -> IkeSa:
    return IkeSa(number, "fleet", IkeState.ESTABLISHED, Path(local, remote), original_initiator=ours)


class Gateway:
    """Its kernel sends everything from its first address."""

    def __init__(self, *sas: IkeSa) -> None:
        self.sas = list(sas)
        self.held: dict[IpAddress, Steer] = {}
        self.asked: list[IpAddress] = []
        self.failing: Exception | None = None

    async def best(self, dst: IpAddress) -> RouteAnswer:
        self.asked.append(dst)
        if self.failing is not None:
            raise self.failing
        return RouteAnswer(dst, None, 1, FIRST)

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        if still():
            self.held[path.remote] = Steer(path, None, 2)


async def held_by(gateway: Gateway, events: EventLog | None = None, *, addresses: int = 2) -> set[Path]:
    arrivals = Arrivals(
        (FIRST, SECOND)[:addresses],
        gateway,
        gateway,
        sas=lambda: gateway.sas,
        held=gateway.held.get,
        events=events or EventLog(),
    )
    for sa in gateway.sas:
        arrivals.arrived(sa)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await arrivals.run()
    return {steer.path for steer in gateway.held.values()}


async def test_one_that_came_in_at_another_address_than_the_kernels_choice_is_held_there() -> None:
    gateway = Gateway(arriving(1, FIRST, CLIENTS[0]), arriving(2, SECOND, CLIENTS[1]))
    assert await held_by(gateway) == {Path(SECOND, CLIENTS[1])}


async def test_what_a_steering_route_holds_already_is_left_to_it() -> None:
    gateway = Gateway(arriving(1, SECOND, CLIENTS[0]))
    gateway.held[CLIENTS[0]] = Steer(Path(FIRST, CLIENTS[0]), None, 1)
    assert await held_by(gateway) == {Path(FIRST, CLIENTS[0])}
    assert not gateway.asked


async def test_one_is_not_held_against_another_of_the_same_peer_address() -> None:
    gateway = Gateway(arriving(1, SECOND, CLIENTS[0]), arriving(2, FIRST, CLIENTS[0]))
    assert await held_by(gateway) == set()


async def test_a_gateway_with_one_address_does_not_ask_the_kernel() -> None:
    gateway = Gateway(arriving(1, FIRST, CLIENTS[0]))
    assert await held_by(gateway, addresses=1) == set()
    assert not gateway.asked


async def test_what_this_host_initiated_is_the_pilots() -> None:
    gateway = Gateway(arriving(1, SECOND, CLIENTS[0], ours=True))
    assert await held_by(gateway) == set()


async def test_a_failure_is_told_once_and_the_next_is_looked_at() -> None:
    gateway, events = Gateway(*(arriving(n, SECOND, client) for n, client in enumerate(CLIENTS))), EventLog()
    gateway.failing = NetlinkError("no buffer")
    assert await held_by(gateway, events) == set()
    assert gateway.asked == CLIENTS
    assert [event.name for event in events.recent(100)] == ["hold-failed"]
    gateway.failing = NoRouteError("no way")
    assert await held_by(gateway, silent := EventLog()) == set()
    assert not silent.recent(100)
