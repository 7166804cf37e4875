"""Where a node sends its new clients."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mobikectl.charon.rmobike import RedirectAnswer, RedirectExchange
from mobikectl.cluster.node_settings import AddressSettings, ClusterSettings, Placement
from mobikectl.cluster.records import Member, NodeIntent, NodeReport, Versioned
from mobikectl.cluster.state import ClusterState
from mobikectl.cluster.view import Seen
from mobikectl.errors import CharonUnreachableError, StoreUnreachableError
from mobikectl.node import placement as module
from mobikectl.node.placement import Placer, answer_of, close, place_at
from mobikectl.policy.cluster import Capacity, ServingAddress
from mobikectl.policy.cluster_settings import BalanceSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.cluster.store import Store

POLICY = BalanceSettings(stale_after_s=5.0, interval_s=1.0)


def ip(node: int) -> Any:
    return ip_address(f"198.18.0.{node}")


def state(sequence: int = 1, *, loads: tuple[int, ...] = (80, 20), **more: Any) -> ClusterState:
    names = [f"gw{n}" for n in range(1, len(loads) + 1)]
    return ClusterState(
        1,
        members={
            name: Versioned(
                Member(name, "one", (ServingAddress(ip(n)),), Capacity(bytes_per_s=1000.0, sas=100.0)), 1
            )
            for n, name in enumerate(names, 1)
        },
        reports={
            name: Versioned(NodeReport(name, "one", sequence, ike_sas=load, bytes_per_s=load * 10.0), 1)
            for name, load in zip(names, loads, strict=True)
        },
        **more,
    )


def placed(found: ClusterState, *, now: float = 10.0, seen_at: float = 10.0, anycast: bool = False) -> Any:
    seen = {name: Seen("one", report.value.sequence, seen_at) for name, report in found.reports.items()}
    return place_at("gw1", found, seen, POLICY, now=now, anycast=anycast)


def test_a_node_with_more_than_its_share_sends_clients_to_one_with_less() -> None:
    found = placed(state())
    assert [(share.node, share.address) for share in found.shares] == [("gw2", ip(2))]
    assert 0 < found.keep_percent < 100
    answer = answer_of(found)
    assert answer is not None
    assert answer.targets == ((ip(2), 100 - found.keep_percent),)


def test_a_node_with_its_share_keeps_its_clients() -> None:
    assert answer_of(placed(state(loads=(50, 50)))) is None


def test_a_drained_node_keeps_none() -> None:
    found = placed(state(intents={"gw1": Versioned(NodeIntent(drained=True), 1)}))
    assert found.keep_percent == 0


def test_nobody_is_sent_to_a_node_that_was_not_heard_of_for_long() -> None:
    assert answer_of(placed(state(), now=10.0 + POLICY.stale_after_s + 1)) is None


def test_behind_an_anycast_address_everybody_is_sent_on_also_when_only_this_node_is_known() -> None:
    found = placed(state(), anycast=True)
    assert found.keep_percent == 0
    assert {share.node for share in found.shares} == {"gw1", "gw2"}
    alone = placed(state(), now=1000.0, anycast=True)
    assert [(share.address, share.percent) for share in alone.shares] == [(ip(1), 100)]


def test_a_cluster_that_serves_nobody_and_a_node_that_is_no_member_redirect_nobody() -> None:
    assert answer_of(placed(state(loads=(0, 0)))) is None
    assert answer_of(place_at("gw9", state(), {}, POLICY, now=0.0, anycast=False)) is None


def answer(*shares: tuple[int, int]) -> RedirectAnswer:
    return RedirectAnswer(shares=tuple((ip(node), percent) for node, percent in shares))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (None, None, True),
        (None, answer((2, 10)), False),
        (answer((2, 10)), None, False),
        (answer((2, 10)), answer((2, 12)), True),
        (answer((2, 10)), answer((2, 13)), False),
        (answer((2, 10)), answer((3, 10)), False),
    ],
)
def test_shares_that_hardly_differ_stay_as_they_are(
    old: RedirectAnswer | None, new: RedirectAnswer | None, same: bool
) -> None:
    assert close(old, new) is same


class Plugin:
    """The plugin's end: what is set in it, and whether it answers."""

    def __init__(self) -> None:
        self.up = True
        self.plugin = self
        self.session = SimpleNamespace(status=SimpleNamespace(since=1.0))
        self.answers = True
        self.set: dict[RedirectExchange, RedirectAnswer] = {}

    async def set_redirect(
        self, exchange: RedirectExchange, answer: RedirectAnswer, *, lifetime_s: int
    ) -> None:
        self._ask()
        self.set[exchange] = answer

    async def clear_redirect(self, exchange: RedirectExchange) -> None:
        self._ask()
        self.set.pop(exchange, None)

    def _ask(self) -> None:
        if not self.answers:
            raise CharonUnreachableError("away")


class World:
    """A placer, its plugin, a store that answers or does not, and a clock that the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mode: Placement = Placement.INIT) -> None:
        self.plugin, self.now, self.away, self.sequence = Plugin(), 100.0, False, 0
        self.loads: tuple[int, ...] = (80, 20)
        monkeypatch.setattr(module, "TICK_S", 0.001)
        settings = ClusterSettings("gw1", (AddressSettings(ip(1)),), placement=mode, policy=POLICY)
        self.placer = Placer(settings, cast("PluginLink", self.plugin), clock=self.clock)
        self.task: asyncio.Task[None] | None = None

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    async def state(self) -> ClusterState:
        if self.away:
            raise StoreUnreachableError("away")
        self.sequence += 1
        return state(self.sequence, loads=self.loads)

    async def until(self, true: Callable[[], bool]) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self.placer.run(cast("Store", self)))
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 (the placer tells nobody)
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_the_placement_is_set_and_at_the_end_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.until(lambda: RedirectExchange.IKE_SA_INIT in world.plugin.set)
    await world.end()
    assert not world.plugin.set


async def test_after_authentication_is_another_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Placement.AUTH)
    await world.until(lambda: RedirectExchange.IKE_AUTH in world.plugin.set)
    await world.end()


async def test_without_the_store_redirects_end_when_what_was_heard_is_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await world.until(lambda: bool(world.plugin.set))
    world.away = True
    lost_at = world.now
    await world.until(lambda: not world.plugin.set)
    assert world.now - lost_at > POLICY.stale_after_s - 1
    world.away = False
    await world.until(lambda: bool(world.plugin.set))
    await world.end()


async def test_a_charon_that_was_restarted_gets_its_redirects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.until(lambda: bool(world.plugin.set))
    world.plugin.up = False
    world.plugin.set.clear()
    await asyncio.sleep(0.02)
    assert not world.plugin.set
    world.plugin.up = True
    await world.until(lambda: bool(world.plugin.set))
    world.plugin.set.clear()
    world.plugin.session.status.since = 2.0  # so fast that nobody saw it away
    await world.until(lambda: bool(world.plugin.set))
    await world.end()


async def test_a_plugin_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.plugin.answers = False
    await world.until(lambda: world.placer.placement is not None and bool(world.placer.placement.shares))
    assert not world.plugin.set
    world.plugin.answers = True
    await world.until(lambda: bool(world.plugin.set))
    world.plugin.answers = False
    await world.end()


async def test_when_the_load_is_even_nobody_is_redirected_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.until(lambda: bool(world.plugin.set))
    world.loads = (50, 50)
    await world.until(lambda: not world.plugin.set)
    await world.end()
