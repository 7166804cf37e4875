"""IKE_SAs that the HA broker cannot tell to another node are rekeyed, and only those, and only while they are quiet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import CharonRefusedError
from mobikectl.node.control import HeldSa
from mobikectl.node.replicator import Served
from mobikectl.node.untold import LOOKS, RekeyUntold
from mobikectl.observe.events import EventLog
from mobikectl.policy.untold import Pace
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import Collection

HERE, THERE = Host(ip_address("198.18.11.1"), 4500), Host(ip_address("198.18.1.1"), 4500)
AFTER_S = 3.0


@dataclass
class Gateway:
    """One charon with some IKE_SAs, and what its broker knows of them."""

    has: dict[IkeSpis, HeldSa] = field(default_factory=dict)
    told: dict[IkeSpis, set[int]] = field(default_factory=dict)
    coming: set[IkeSpis] = field(default_factory=set)
    rekeyed: list[tuple[Any, ...]] = field(default_factory=list)
    heard_s: float | None = 0.5
    in_step: bool = True
    refuses: set[int] = field(default_factory=set)
    now: float = 100.0
    events: EventLog = field(default_factory=EventLog)

    def __post_init__(self) -> None:
        self.rule = RekeyUntold(
            self,
            self,
            self.events,
            served=self.served,
            coming=self.coming.__contains__,
            pace=Pace(after_s=AFTER_S, at_once=2),
            clock=lambda: self.now,
        )

    def serve(self, number: int, *, told: Collection[int] | None) -> IkeSpis:
        spis = IkeSpis(number, number + 1000)
        self.has[spis] = HeldSa(
            spis, number, serving=True, frozen=False, busy=False, mid_initiator=0, mid_responder=0,
            local=HERE, remote=THERE, children=((10 * number, 1),),
        )  # fmt: skip
        if told is not None:
            self.told[spis] = set(told)
        return spis

    async def looks(self, seconds: float) -> list[tuple[Any, ...]]:
        """Look each second for so long; return what was rekeyed meanwhile."""
        before = len(self.rekeyed)
        for _ in range(int(seconds)):
            self.now += 1.0
            await self.rule.look()
        return self.rekeyed[before:]

    # What it is asked

    @property
    def status(self) -> Any:
        return SimpleNamespace(heard_s=self.heard_s)

    def served(self) -> list[Served] | None:
        if not self.in_step:
            return None
        return [
            Served(f"gw1/client#{held.ike_id}", spis, HERE, THERE, held.children)
            for spis, held in self.has.items()
        ]

    def untold(self, spis: IkeSpis, children: Collection[int]) -> frozenset[int] | None:
        return frozenset(children) - self.told[spis] if spis in self.told else None

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        return self.has.get(spis)

    async def rekey_ike_sa(self, ike_id: int) -> None:
        self.rekeyed.append(("ike", ike_id))

    async def rekey_children(self, ike_id: int, children: Collection[int]) -> None:
        if ike_id in self.refuses:
            raise CharonRefusedError("no", hint="another time")
        self.rekeyed.append(("child", ike_id, *children))


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


async def test_what_can_be_moved_is_left_alone(gateway: Gateway) -> None:
    gateway.serve(1, told=[10])
    assert await gateway.looks(100) == []


async def test_an_unknown_child_sa_is_rekeyed_after_a_few_seconds_and_an_event_tells_of_it(
    gateway: Gateway,
) -> None:
    gateway.serve(1, told=[])
    assert await gateway.looks(AFTER_S) == []
    assert await gateway.looks(1) == [("child", 1, 10)]
    event = gateway.events.recent()[-1]
    assert event.name == "cluster-untold"
    assert event.data == {"sa": "gw1/client#1", "what": "CHILD_SAs", "times": 1}


async def test_of_an_unknown_ike_sa_its_child_sas_are_rekeyed_when_it_is_known(gateway: Gateway) -> None:
    spis = gateway.serve(1, told=None)
    assert await gateway.looks(AFTER_S + 1) == [("ike", 1)]
    gateway.told[spis] = set()
    assert await gateway.looks(AFTER_S + 1) == [("child", 1, 10)]
    gateway.told[spis] = {10}
    assert await gateway.looks(100) == []


@pytest.mark.parametrize(
    "state", [{"serving": False, "frozen": True}, {"busy": True}, {"steady": False}], ids=str
)
async def test_an_ike_sa_with_which_something_is_under_way_is_left_alone_until_it_is_quiet(
    gateway: Gateway, state: dict[str, Any]
) -> None:
    spis = gateway.serve(1, told=[])
    quiet = gateway.has[spis]
    gateway.has[spis] = replace(quiet, **state)
    assert await gateway.looks(100) == []
    gateway.has[spis] = quiet
    assert await gateway.looks(1) == [("child", 1, 10)]


async def test_of_many_that_are_busy_none_keeps_a_quiet_one_waiting(gateway: Gateway) -> None:
    for number in range(1, LOOKS + 3):
        spis = gateway.serve(number, told=[])
        gateway.has[spis] = replace(gateway.has[spis], busy=True)
    *_, last = sorted(gateway.has, key=lambda spis: f"gw1/client#{spis.initiator}")
    gateway.has[last] = replace(gateway.has[last], busy=False)
    assert await gateway.looks(AFTER_S + 2) == [("child", last.initiator, 10 * last.initiator)]


async def test_one_that_charon_refuses_to_rekey_is_tried_after_the_pause_and_others_meanwhile(
    gateway: Gateway,
) -> None:
    gateway.serve(1, told=[])
    gateway.serve(2, told=[])
    gateway.refuses.add(1)
    assert await gateway.looks(AFTER_S + 1) == [("child", 2, 20)]
    gateway.told[IkeSpis(2, 1002)] = {20}
    gateway.refuses.clear()
    assert await gateway.looks(9) == []
    assert await gateway.looks(1) == [("child", 1, 10)]


async def test_one_that_is_just_taken_over_is_left_alone(gateway: Gateway) -> None:
    gateway.coming.add(gateway.serve(1, told=None))
    assert await gateway.looks(100) == []


async def test_nothing_is_concluded_while_charon_is_not_heard_or_cannot_be_asked(gateway: Gateway) -> None:
    gateway.serve(1, told=None)
    gateway.heard_s = None
    assert await gateway.looks(50) == []
    gateway.heard_s = 60.0
    assert await gateway.looks(50) == []
    gateway.heard_s, gateway.in_step = 0.5, False
    assert await gateway.looks(50) == []


async def test_who_is_busy_does_not_keep_others_waiting_and_only_so_many_are_rekeyed_at_once(
    gateway: Gateway,
) -> None:
    for number in range(1, 6):
        spis = gateway.serve(number, told=[])
        if number <= 2:
            gateway.has[spis] = replace(gateway.has[spis], busy=True)
    assert await gateway.looks(AFTER_S + 1) == [("child", 3, 30), ("child", 4, 40)]
    assert await gateway.looks(1) == []
    gateway.told[IkeSpis(3, 1003)] = {30}
    assert await gateway.looks(1) == [("child", 5, 50)]
