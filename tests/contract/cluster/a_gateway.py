"""Gateways without charon: IKE_SAs that go where they are sent, and counters that run. The cluster's part is real."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from mobikectl.charon.rmobike_link import Peer
from mobikectl.charon.sa_events import SaDown, SaPathChanged, SaUp
from mobikectl.charon.session import LinkState, Status
from mobikectl.charon.tracker import SaFeed
from mobikectl.cluster.node_settings import AddressSettings, ClusterSettings
from mobikectl.errors import CharonTimeoutError
from mobikectl.model import Address, ChildSa, ChildState, IkeSa, IkeState, Link, NetState, Path
from mobikectl.netlink import KernelSa
from mobikectl.netlink.xfrm import SaMode
from mobikectl.node.main import ClusterNode
from mobikectl.node.reporter import Beside
from mobikectl.observe.events import EventLog
from mobikectl.policy.cluster import Capacity
from mobikectl.switch import moves as switch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path as FilePath

    from mobikectl.cluster.settings import StoreSettings
    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.switch.course import MoveOrder

DEADLINE_S = 60.0


async def until(true: Callable[[], Any], what: str = "") -> None:
    """Wait until something (a coroutine function, or a function) is true."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"never: {what or true}") from error


@dataclass
class Client:
    """A client, and how much it sends."""

    name: str
    bytes_per_s: float
    redirects: bool = True
    began: float = field(default_factory=time.monotonic)

    @property
    def octets(self) -> int:
        return int((time.monotonic() - self.began) * self.bytes_per_s)


class Gateway:
    """What a sidecar sees of its charon and its kernel, and what its executor does to them."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.name = world, number, f"gw{number}"
        self.addresses = tuple(ip_address(f"198.18.{number}.{n}") for n in (1, 2))
        self.sas: dict[int, IkeSa] = {}
        self.clients: dict[int, Client] = {}
        self.feeds: set[SaFeed] = set()
        self.in_step = True
        self.status = Status(LinkState.UP, 0.0)
        self.lost: set[Any] = set()
        self.events = EventLog()
        self.orders: list[MoveOrder] = []
        self.node: ClusterNode | None = None
        self._task: asyncio.Task[None] | None = None

    # What the sidecar sees

    def subscribe(self) -> SaFeed:
        return SaFeed(self.feeds, 1000)

    async def request(self, command: str, args: Any = None) -> dict[str, Any]:
        if self.status.state is not LinkState.UP:
            raise CharonTimeoutError("no answer")
        return {"ikesas": {"total": b"0", "half-open": b"3"}} if command == "stats" else {}

    async def dump(self) -> tuple[KernelSa, ...]:
        return tuple(
            KernelSa(
                sa.path.local, sa.path.remote, number, 50, 1, SaMode.TUNNEL, self.clients[number].octets, 0
            )
            for number, sa in self.sas.items()
        )

    def peer(self, uniqueid: int) -> Peer:
        return Peer(uniqueid, mobike=True, r=False, redirect=self.clients[uniqueid].redirects)

    def net(self) -> NetState:
        there = frozenset(Address(2, ip, 24) for ip in self.addresses if ip not in self.lost)
        return NetState(MappingProxyType({2: Link(2, "wan1", True, True)}), there)

    # What happens to its IKE_SAs

    def tell(self, event: Any) -> None:
        for feed in self.feeds:
            feed.put([event])

    def up(self, client: Client, local: Any) -> None:
        number = next(self.world.numbers)
        child = ChildSa(number, "net", ChildState.INSTALLED, spi_in=number + 1_000_000, spi_out=number)
        sa = IkeSa(
            number,
            "net",
            IkeState.ESTABLISHED,
            Path(local, ip_address("198.19.0.0") + number),
            remote_id=client.name,
            original_initiator=False,
            initiator_spi=number,
            children=(child,),
        )
        self.sas[number], self.clients[number] = sa, client
        self.tell(SaUp(sa))

    def down(self, number: int) -> None:
        self.tell(SaDown(self.sas.pop(number)))
        del self.clients[number]

    async def move(self, order: MoveOrder) -> switch.Move:
        self.orders.append(order)
        sa, client, at = self.sas[order.sa], self.clients[order.sa], time.monotonic()
        assert order.mechanism is not None
        move = switch.plan_move(
            1,
            sa=sa.uniqueid,
            name=sa.name,
            before=sa.path,
            after=order.path,
            mechanism=order.mechanism,
            cause=order.cause,
            at=at,
        ).to(switch.MoveState.REQUESTED, at=at)
        await asyncio.sleep(0.02)
        if order.mechanism is switch.Mechanism.REDIRECT:
            self.down(order.sa)
            self.world.gateway_of(order.path.local).up(client, order.path.local)
        else:
            self.sas[order.sa] = replace(sa, path=order.path)
            self.tell(SaPathChanged(self.sas[order.sa], sa.path, order.path))
        return move.to(switch.MoveState.MOVED, at=at).to(switch.MoveState.VERIFIED, at=at)

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        return

    # Its sidecar's part in the cluster

    def start(self, store: StoreSettings, policy: BalanceSettings, **more: Any) -> None:
        settings = ClusterSettings(
            self.name,
            tuple(AddressSettings(ip) for ip in self.addresses),
            capacity=Capacity(bytes_per_s=100_000.0),
            maintenance_file=self.world.path / f"{self.name}.maintenance",
            report_s=0.2,
            half_life_s=0.2,
            cpu=False,
            store=store,
            policy=policy,
            **more,
        )
        plugin = SimpleNamespace(up=False, peer=self.peer)
        self.node = ClusterNode(
            settings,
            Beside(cast("Any", self), cast("Any", self), cast("Any", plugin), self.net, cast("Any", self)),
            sas=cast("Any", self),
            mover=self,
            events=self.events,
            in_step=lambda: self.in_step,
        )
        self._task = asyncio.create_task(self.node.run())

    def state(self) -> dict[str, Any]:
        assert self.node is not None
        return dict(self.node.state())

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        return predicate()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            assert self._task.cancelled()
            self._task = None

    @property
    def load(self) -> float:
        return sum(client.bytes_per_s for client in self.clients.values())


class World:
    """Some gateways, and clients that each are at one of them."""

    def __init__(self, path: FilePath, gateways: int) -> None:
        self.path = path
        self.numbers = itertools.count(1)
        self.gateways = [Gateway(self, number) for number in range(1, gateways + 1)]

    def gateway_of(self, ip: Any) -> Gateway:
        return next(gateway for gateway in self.gateways if ip in gateway.addresses)

    @property
    def leader(self) -> Gateway | None:
        return next((one for one in self.gateways if one.node and one.state()["role"] == "leader"), None)

    async def stop(self) -> None:
        await asyncio.gather(*(gateway.stop() for gateway in self.gateways))


@asynccontextmanager
async def a_world(path: FilePath, gateways: int = 2) -> AsyncIterator[World]:
    """Make gateways; whatever of them runs at the end is stopped."""
    world = World(path, gateways)
    try:
        yield world
    finally:
        await world.stop()
