"""A gateway's steering routes: there while they hold a client, and gone with it, after any number of moves."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mobikectl.model import Address, IkeSa, IkeState, Link, NetState, NextHop, Path, Route, RouteAnswer
from mobikectl.observe.events import EventLog
from mobikectl.policy.settings import PathSettings
from mobikectl.sidecar.pilot import Pilot
from mobikectl.switch.executor import MoveExecutor, MoveOrder
from mobikectl.switch.moves import Mechanism, MoveState
from mobikectl.switch.steering import Steering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress
    from mobikectl.switch.moves import Move

WAN = ip_address("198.18.1.1"), ip_address("198.18.1.2")
NET = NetState(
    MappingProxyType({1: Link(1, "wan1", up=True, carrier=True)}),
    frozenset(Address(1, ip, 24) for ip in WAN),
)
CLIENTS = 1000


class Gateway:
    """A kernel with routes, and a charon that follows them (`Routes`, `Choice`, `SaView` and `Surroundings` in one)."""

    def __init__(self) -> None:
        self.routes: dict[IpAddress, IpAddress] = {}
        self.sas: dict[int, IkeSa] = {}
        self.charon_there = True
        self.changed = asyncio.Event()

    # The kernel

    async def replace(
        self, dst: IpAddress, gateway: Any, oif: int, prefsrc: IpAddress | None, table: int
    ) -> None:
        assert prefsrc is not None
        self.routes[dst] = prefsrc
        for number, sa in self.sas.items():
            if sa.path.remote == dst:
                self.sas[number] = replace(sa, path=Path(prefsrc, dst))
        self.tell()

    async def remove(self, dst: IpAddress, table: int) -> bool:
        return self.routes.pop(dst, None) is not None

    async def list_own(self) -> tuple[Route, ...]:
        return tuple(
            Route(ip_network(dst), 109, (NextHop(None, 1),), src, protocol=109)
            for dst, src in self.routes.items()
        )

    async def flush(self) -> int:
        self.routes.clear()
        return 0

    async def through(self, dst: IpAddress, *, src: IpAddress, oif: int) -> tuple[RouteAnswer, int]:
        return RouteAnswer(dst, None, oif, src), 0

    # charon

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def find(self, uniqueid: int) -> IkeSa | None:
        return self.sas.get(uniqueid)

    def shared(self, remote: IpAddress, uniqueid: int) -> bool:
        return False

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        return self.sas.get(uniqueid)

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        async with asyncio.timeout(timeout):
            while not predicate():
                await self.changed.wait()
        return True

    # What the pilot sees

    def net(self) -> NetState:
        return NET

    def own_sas(self) -> Iterable[IkeSa]:
        return ()

    def all_sas(self) -> Iterable[IkeSa]:
        return self.sas.values()

    def learnt(self) -> dict[int, tuple[IpAddress, ...]]:
        return {}

    def in_step(self) -> bool:
        return self.charon_there


def clients(first: int) -> dict[int, IkeSa]:
    base = ip_address("198.19.0.1")
    return {
        number: IkeSa(
            number, "c", IkeState.ESTABLISHED, Path(WAN[0], base + number), original_initiator=False
        )
        for number in range(first, first + CLIENTS)
    }


async def test_no_route_is_left_after_a_thousand_moves_of_clients_that_leave_and_a_charon_that_restarts() -> (
    None
):
    gateway = Gateway()
    steering = Steering(gateway, gateway, gateway.net)
    executor = MoveExecutor(gateway, steering, EventLog(), data_plane_s=0.01)
    pilot = Pilot(
        PathSettings(),
        gateway,
        choice=gateway,
        steering=steering,
        executor=executor,
        probe=None,  # type: ignore[arg-type]
        terminate=None,  # type: ignore[arg-type]
        events=EventLog(),
    )
    running = asyncio.create_task(pilot.run())

    async def settled(routes: int) -> None:
        pilot.wake()
        async with asyncio.timeout(10):
            while len(gateway.routes) != routes:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(steering.steers) == routes

    async def move_all() -> None:
        orders = [
            MoveOrder(sa.uniqueid, Path(WAN[1], sa.path.remote), "a test", mechanism=Mechanism.ROUTE)
            for sa in gateway.sas.values()
        ]
        places = asyncio.Semaphore(64)

        async def move(order: MoveOrder) -> Move:
            async with places:
                return await executor.move(order)

        moves = await asyncio.gather(*map(move, orders))
        assert {move.state for move in moves} == {MoveState.VERIFIED}

    gateway.sas = clients(1)
    await move_all()
    await settled(CLIENTS)
    for number in list(gateway.sas)[: CLIENTS // 2]:
        del gateway.sas[number]
    await settled(CLIENTS // 2)
    gateway.charon_there = False  # it is silent: nothing is known to be gone
    pilot.wake()
    await asyncio.sleep(0.05)
    assert len(gateway.routes) == CLIENTS // 2
    gateway.charon_there, gateway.sas = (
        True,
        clients(1),
    )  # it is back: they came again, where they come by themselves
    await settled(0)
    assert not len(executor._turns._places), "nobody's turn is remembered"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
