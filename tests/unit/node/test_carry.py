"""Moves of the journal that are handovers: what is recorded of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep
from mobikectl.errors import MoveError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.node import carry
from mobikectl.node.carry import Courses, HandoverCarrier, told
from mobikectl.node.handing import Order
from mobikectl.node.room import Room
from mobikectl.policy.cluster import Mechanism, Reason
from mobikectl.policy.pace import Pace
from mobikectl.protocol.handover import Handover, SourceState
from mobikectl.wire.ha_chain import IkeSpis

from .two_gateways import SPIS, World, within

M, S = MoveState, SourceState


def move(*states: MoveState, mechanism: Mechanism = Mechanism.NOTIFY, sas: int = 1) -> MoveRecord:
    return MoveRecord(
        token=5,
        sas=tuple(f"gw1/client#{number}" for number in range(sas)),
        source="gw1",
        target="gw2",
        mechanism=mechanism,
        reason=Reason.DRAIN,
        source_address=ip_address("198.18.11.10"),
        target_address=ip_address("198.18.12.10"),
        steps=tuple(MoveStep(state, 1.0) for state in (M.PLANNED, M.REQUESTED, *states)),
        number=3,
    )


SA = IkeSa(
    1, "vpn", IkeState.ESTABLISHED, Path(ip_address("198.18.11.10"), ip_address("198.18.1.2")),
    initiator_spi=SPIS.initiator, responder_spi=SPIS.responder, original_initiator=False,
)  # fmt: skip


class Notes:
    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.full = False

    def note(self, key: str, value: str | None) -> None:
        if self.full:
            raise MoveError("too many handovers are under way")
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def notes() -> Notes:
    return Notes()


def carrier(
    world: World,
    notes: Notes,
    *,
    r: bool = True,
    now: list[IkeSa] | None = None,
    asked: list[int] | None = None,
) -> HandoverCarrier:
    """``now``: what the IKE_SA is at each look for it, the last one again and again; ``asked``: who was waited for."""
    coming = now or []

    def find(_: str) -> IkeSa | None:
        return coming.pop(0) if len(coming) > 1 else coming[0] if coming else None

    async def gone(uniqueid: int) -> None:
        if asked is not None:
            asked.append(uniqueid)

    return HandoverCarrier(world.handing, notes, r_of=lambda _: (r, r), gone=gone, find=find)


async def test_a_handover_is_moved_and_verified_in_the_journal(world: World, notes: Notes) -> None:
    asked: list[int] = []
    carrying = carrier(world, notes, asked=asked)
    steps = await within(5, carrying.carry(move(), [SA]))
    assert [state for state, _ in steps] == [M.MOVED, M.VERIFIED]
    assert world.there.serving
    assert notes.notes == {}
    assert asked == [1]


async def test_a_move_by_the_address_list_does_not_ask_the_peer(world: World, notes: Notes) -> None:
    await within(5, carrier(world, notes).carry(move(mechanism=Mechanism.IMPLICIT), [SA]))
    assert world.here.did == ["freeze", "drop"]
    assert "activate roam=True peer_r=True own_r=True" in world.there.did, "it can be asked to switch later"


OLD = IkeSpis(5, 6)
OLDER = replace(SA, uniqueid=9, initiator_spi=OLD.initiator, responder_spi=OLD.responder)


async def test_an_ike_sa_that_is_rekeyed_as_its_move_begins_goes_with_its_new_spis(
    world: World, notes: Notes
) -> None:
    world.here.ended = {OLD}
    steps = await within(5, carrier(world, notes, now=[OLDER, OLDER, SA]).carry(move(), [OLDER]))
    assert [state for state, _ in steps] == [M.MOVED, M.VERIFIED]
    assert world.there.serving
    assert notes.notes == {}


async def test_an_ike_sa_that_ends_by_itself_says_so(
    world: World, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "SUCCESSOR_S", 0.05)
    world.here.end()
    [(state, note)] = await within(5, carrier(world, notes).carry(move(), [SA]))
    assert state is M.TIMED_OUT
    assert "ended here by itself" in note


async def test_an_ike_sa_that_is_rekeyed_again_and_again_stays(world: World, notes: Notes) -> None:
    generations = [replace(SA, initiator_spi=number) for number in (20, 21, 22, 23)]
    world.here.ended = {IkeSpis(each.initiator_spi, each.responder_spi) for each in generations}
    [(state, note)] = await within(
        5, carrier(world, notes, now=generations[1:]).carry(move(), generations[:1])
    )
    assert state is M.REFUSED
    assert "again and again" in note


async def test_after_a_restart_one_that_was_rekeyed_is_served_here(world: World, notes: Notes) -> None:
    world.here.ended = {OLD}
    notes.notes["out/3"] = f'[[3, 5, "gw1/client#0", {OLD[0]}, {OLD[1]}, "gw2", "198.18.12.10"]]'
    steps = await within(5, carrier(world, notes).settle(move(), [SA]))
    assert [state for state, _ in steps] == [M.ROLLING_BACK, M.ROLLED_BACK]


async def test_what_the_target_refuses_is_refused(world: World, notes: Notes) -> None:
    world.there.knows = frozenset()
    [(state, note)] = await within(5, carrier(world, notes).carry(move(), [SA]))
    assert state is M.REFUSED
    assert "no connection" in note


async def test_what_is_undone_is_rolled_back(world: World, notes: Notes) -> None:
    world.there.client_answers = False
    steps = await within(5, carrier(world, notes).carry(move(), [SA]))
    assert [state for state, _ in steps] == [M.ROLLING_BACK, M.ROLLED_BACK]
    assert "did not come" in steps[0][1]


async def test_without_room_for_a_note_nothing_is_begun(world: World, notes: Notes) -> None:
    notes.full = True
    [(state, _)] = await within(5, carrier(world, notes).carry(move(), [SA]))
    assert state is M.REFUSED
    assert world.here.did == []


async def test_after_a_restart_the_note_says_which_ike_sa_it_was(world: World, notes: Notes) -> None:
    first = carrier(world, notes)
    await within(5, first.carry(move(), [SA]))
    notes.notes["out/3"] = f'[[3, 5, "gw1/client#0", {SPIS[0]}, {SPIS[1]}, "gw2", "198.18.12.10"]]'
    steps = await within(5, carrier(world, notes).settle(move(), [None]))
    assert [state for state, _ in steps] == [M.MOVED, M.VERIFIED]
    assert notes.notes == {}


async def test_after_a_restart_an_ike_sa_that_was_not_started_is_served_here_again(
    world: World, notes: Notes
) -> None:
    await world.here.freeze(SPIS)
    steps = await within(5, carrier(world, notes).settle(move(), [SA]))
    assert [state for state, _ in steps] == [M.ROLLING_BACK, M.ROLLED_BACK]
    assert world.here.serving


async def test_a_move_that_nothing_is_known_of_timed_out(world: World, notes: Notes) -> None:
    [(state, _)] = await within(5, carrier(world, notes).settle(move(), [None]))
    assert state is M.TIMED_OUT


ORDER = Order(3, 5, "gw1/client#0", SPIS, "gw2", ip_address("198.18.12.10"))


@pytest.mark.parametrize(
    ("states", "inside", "best_s", "epoch"),
    [
        ((), 1, 1.0, 0),
        ((S.ASKING,), 1, 0.5, 0),
        ((S.ASKING, S.FREEZING, S.STARTING), 1, 0.5, 0),
        ((S.ASKING, S.FREEZING, S.STARTING, S.HOLDING), 0, 0.5, 0),
        ((S.KEPT,), 1, 1.0, 0),
        ((S.OVER,), 1, 1.0, 0),
    ],
)
async def test_a_handover_makes_room_when_its_client_has_come_and_its_offer_tells_how_crowded_it_is(
    states: tuple[SourceState, ...], inside: int, best_s: float, epoch: int
) -> None:
    now = 10.0
    room, courses = Room(Pace(best_s=1.0)), Courses(lambda: now)
    async with room.place() as place:
        courses.begin(ORDER, place)
        for state in states:
            now += 0.5
            courses.told(ORDER, Handover(state))
        assert (room.inside, room.pace.best_s, room.pace.epoch) == (inside, best_s, epoch)
    assert room.inside == 0


@pytest.mark.parametrize(("state", "epoch"), [(S.RECALLING, 1), (S.KEPT, 1), (S.OVER, 0)])
async def test_an_offer_that_is_waited_for_in_vain_says_that_it_is_crowded(
    state: SourceState, epoch: int
) -> None:
    now = 10.0
    room, courses = Room(Pace(best_s=1.0)), Courses(lambda: now)
    async with room.place() as place:
        courses.begin(ORDER, place)
        now += 5.0
        courses.told(ORDER, Handover(state))
    assert room.pace.epoch == epoch


@pytest.mark.parametrize("before", [(), (M.ACKNOWLEDGED,), (M.MOVED,), (M.ROLLING_BACK,)])
@pytest.mark.parametrize("state", [S.HANDED_OVER, S.KEPT, S.LOST, S.OVER])
@pytest.mark.parametrize("count", [1, 2])
def test_every_end_can_be_recorded_wherever_the_journal_is(
    before: tuple[MoveState, ...], state: SourceState, count: int
) -> None:
    found = move(*before)
    for each in (
        [Handover(state, "why", (S.OFFERING, S.ASKING))] * count,
        [Handover(S.HANDED_OVER), Handover(state)],
    ):
        record = found
        for following, note in told(found, each):
            record = record.to(following, at=2.0, note=note)
        assert record.done
