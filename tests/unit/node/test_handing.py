"""A handover, seen from both gateways: every step, every refusal, every death."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import DecodeError, MoveError
from mobikectl.node.handing import _Work
from mobikectl.protocol.handover import Handover
from mobikectl.protocol.handover import SourceState as S
from mobikectl.wire.ha import SecretBytes
from mobikectl.wire.handover import OFFER, RECALL, START, Offer, Recall, Standing, Stands, Start

from .two_gateways import CLIENT, HERE, SPIS, THERE, Client, World, chain, order, replay, within

if TYPE_CHECKING:
    from mobikectl.node.control import HeldSa
    from mobikectl.node.watching import Step
    from mobikectl.wire.ha_chain import IkeSpis


@pytest.fixture
def world() -> World:
    return World()


# --- it works ---------------------------------------------------------------------------------------


async def test_the_target_serves_it_and_the_source_has_dropped_it_silently(world: World) -> None:
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.serving
    assert world.here.sa is None
    assert world.here.did == ["freeze", "drop"]
    assert world.there.did == ["replay", "activate roam=True peer_r=False own_r=False"]


async def test_message_ids_are_those_of_the_frozen_source(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    assert world.there.sa is not None
    assert (world.there.sa.mid_initiator, world.there.sa.mid_responder) == (5, 9)


async def test_who_stands_by_for_the_target_learns_the_message_ids_that_it_begins_with(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    assert world.there.counted == (4, 9)


async def test_a_peer_with_r_is_asked_first_and_then_comes_by_itself(world: World) -> None:
    ended = await within(5, world.handing.hand_over(order(r=True)))
    assert ended.state is S.HANDED_OVER
    assert world.here.did == [f"switch {THERE.address}", "freeze", "drop"]
    assert world.there.did == ["replay", "activate roam=False peer_r=True own_r=True"]


async def test_esp_numbers_go_on_behind_what_the_source_may_still_send(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    assert world.there.kernel[101].oseq >= 700 + 16
    assert world.there.kernel[100].seq == 500
    assert world.there.rekeyed == []


async def test_a_busy_source_gets_more_numbers_reserved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handing = world.handing
    offering = world.intake.offer

    async def busy(offer: Offer) -> Standing:
        answer = await offering(offer)
        await asyncio.sleep(0.05)
        world.here.kernel[101] = replay(oseq=750)  # 50 packets in about 50 ms
        return answer

    monkeypatch.setattr(world.intake, "offer", busy)
    await within(5, handing.hand_over(order()))
    assert world.there.kernel[101].oseq > 750 + 1_000


async def test_a_source_that_sent_more_than_was_reserved_has_the_child_rekeyed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = world.intake.start

    async def flood(start: Start, source: str = "") -> Standing:
        answer = await starting(start, source)
        world.here.kernel[101] = replay(oseq=1_000_000)
        return answer

    monkeypatch.setattr(world.intake, "start", flood)
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.rekeyed == [100]


async def test_without_numbers_the_children_are_rekeyed_at_the_target(world: World) -> None:
    world.here.userland = world.there.userland = True
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.rekeyed == [100]


async def test_an_exchange_under_way_is_waited_for(world: World) -> None:
    world.here.busy_times = 3
    assert (await within(5, world.handing.hand_over(order()))).state is S.HANDED_OVER


# --- it is refused or undone ------------------------------------------------------------------------


async def kept(world: World) -> str:
    ended = await within(5, world.handing.hand_over(order(r=True)))
    assert ended.state is S.KEPT
    assert world.here.serving
    assert world.there.sa is None
    return ended.why


async def test_a_target_without_the_connection_refuses_and_nothing_happened_here(world: World) -> None:
    world.there.knows = frozenset()
    assert "no connection vpn" in await kept(world)
    assert world.here.did == []


async def test_a_target_without_the_address_refuses(world: World) -> None:
    world.intake._is_ours = lambda _: False
    assert "no address of this node" in await kept(world)


async def test_a_target_that_has_it_already_refuses(world: World) -> None:
    world.there.serve()
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert "here already" in ended.why
    assert world.there.serving  # whatever that is: it is not touched


async def test_a_copy_that_the_target_kept_is_replaced(world: World) -> None:
    await world.there.replay(chain())
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.did[:3] == ["replay", "remove", "replay"]


async def test_a_charon_that_does_not_take_the_chain_is_a_refusal(world: World) -> None:
    world.there.takes_chains = False
    assert "did not take it" in await kept(world)


async def test_an_unreachable_target_costs_nothing(world: World) -> None:
    world.wire.troubles[OFFER] = ["unreachable"]
    await kept(world)
    assert world.wire.asked == [OFFER]


async def test_a_peer_that_does_not_answer_the_request_to_switch_stays(world: World) -> None:
    world.here.switch_fails = True
    assert "does not answer" in await kept(world)
    assert "freeze" not in world.here.did


async def test_an_exchange_that_does_not_end_stops_it(world: World) -> None:
    world.here.busy_times = 10_000
    assert "exchange is under way" in await kept(world)


async def test_a_client_that_answers_and_does_not_come_stays(world: World) -> None:
    world.there.client_answers = False
    assert "did not come" in await kept(world)
    assert world.here.did[-4:-1] == ["freeze", "thaw", "call back"]
    assert world.here.did[-1] == "switch 198.18.11.10"
    assert world.there.did[-1] == "remove"


async def test_a_client_that_heard_the_target_and_is_not_heard_there_hears_the_source_again(
    world: World,
) -> None:
    world.there.client_answers = False
    world.here.expected = 5  # the target sent it a request with our message ID, 4
    ended = await within(8, world.handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert world.here.did == ["freeze", "thaw", "call back", "renumber 5", "call back"]


async def test_what_was_served_and_is_given_back_leaves_nothing_in_the_targets_model(world: World) -> None:
    world.there.client_answers = False
    await kept(world)
    assert world.heard == [5]  # charon tells nobody of what the HA broker ends


async def test_a_child_that_is_made_meanwhile_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offering = world.intake.offer

    async def rekeying(offer: Offer) -> Standing:
        answer = await offering(offer)
        from dataclasses import replace

        assert world.here.sa is not None
        world.here.sa = replace(world.here.sa, children=((200, 201),))
        return answer

    monkeypatch.setattr(world.intake, "offer", rekeying)
    assert "rekeyed meanwhile" in await kept(world)


# --- answers are lost and processes die ---------------------------------------------------------------


@pytest.mark.parametrize("verb", [OFFER, START])
@pytest.mark.parametrize("trouble", ["request lost", "answer lost", "unreachable"])
async def test_whatever_gets_lost_one_serves_it(world: World, verb: str, trouble: str) -> None:
    world.wire.troubles[verb] = [trouble]
    ended = await within(5, world.handing.hand_over(order()))
    assert world.served == 1
    assert (world.here.sa is None) != (world.there.sa is None)
    # What was done all the same is found out by the recall.
    done = verb == START and trouble == "answer lost"
    assert ended.state is (S.HANDED_OVER if done else S.KEPT)


async def test_a_recall_is_repeated_until_it_is_answered(world: World) -> None:
    world.wire.troubles = {START: ["request lost"], RECALL: ["request lost", "answer lost", "unreachable"]}
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert world.served == 1
    assert world.wire.asked.count(RECALL) == 4


async def test_a_target_that_leaves_the_cluster_serves_nothing_so_that_the_source_goes_on(
    world: World,
) -> None:
    world.wire.troubles = {START: ["request lost"], RECALL: ["unreachable"] * 1000}
    world.wire.out = True
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert world.here.serving


STEPS = ["asking", "freezing", "starting", "holding", "dropping", "recalling", "thawing"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("answers", [True, False])
async def test_killed_at_any_step_the_source_settles_it_after_its_restart(
    world: World, step: str, answers: bool
) -> None:
    world.there.client_answers = answers
    handing = world.handing
    reached = asyncio.Event()
    handing._told = lambda _, handover: reached.set() if handover.state.value == step else None
    running = asyncio.create_task(handing._run(_Work(order()), Handover()))
    done, _ = await asyncio.wait(
        {running, asyncio.create_task(reached.wait())}, return_when=asyncio.FIRST_COMPLETED, timeout=5
    )
    assert done
    running.cancel()  # as SIGKILL: nothing is done any more
    await asyncio.gather(running, return_exceptions=True)
    ended = await within(5, world.handing.settle(order()))
    assert ended.state in {S.HANDED_OVER, S.KEPT}
    assert world.served == 1
    assert (world.here.sa is None) != (world.there.sa is None)


@pytest.mark.parametrize("step", STEPS)
async def test_a_target_that_restarts_at_any_step_still_knows_whether_it_serves_it(
    world: World, step: str
) -> None:
    handing = world.handing
    handing._told = lambda _, handover: world.restart_target() if handover.state.value == step else None
    await within(5, handing.hand_over(order()))
    assert world.served == 1
    assert (world.here.sa is None) != (world.there.sa is None)


@pytest.mark.parametrize("step", ["asking", "freezing", "starting"])
async def test_a_source_whose_charon_dies_has_it_served_by_the_target(world: World, step: str) -> None:
    handing = world.handing

    def die(_: object, handover: Handover) -> None:
        if handover.state.value == step:
            world.here.sa = None

    handing._told = die
    ended = await within(5, handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.serving


@pytest.mark.parametrize("step", ["asking", "freezing", "starting"])
async def test_what_who_stands_by_takes_over_is_begun_nowhere_else(world: World, step: str) -> None:
    """Its charon died, and its sidecar, which hands it over, was asked by who has a copy of it."""
    handing = world.handing
    answers = []

    def die(_: object, handover: Handover) -> None:
        if handover.state.value == step:
            world.here.sa = None
            answers.append(handing.cede(frozenset({SPIS})))

    handing._told = die
    assert (await within(5, handing.hand_over(order()))).state is S.LOST
    assert answers == [frozenset()]
    assert START not in world.wire.asked
    assert world.there.sa is None, "what was offered is taken back"


async def test_a_handover_that_waits_for_its_charon_ends_when_another_takes_it_over(world: World) -> None:
    handing = world.handing

    def die(_: object, handover: Handover) -> None:
        if handover.state is S.FREEZING:
            world.here.down = True
            asyncio.get_running_loop().call_later(0.05, handing.cede, frozenset({SPIS}))
        if handover.state is S.THAWING:
            world.here.down, world.here.sa = False, None

    handing._told = die
    assert (await within(5, handing.hand_over(order()))).state is S.LOST
    assert START not in world.wire.asked


@pytest.mark.parametrize("left", [True, False])
async def test_a_source_that_restarts_without_it_has_it_begun_only_where_nobody_stands_by(
    world: World, left: bool
) -> None:
    """Its charon and its sidecar were killed together."""
    handing = world.handing
    offered = asyncio.Event()

    async def hold(step: Step) -> None:
        if step.what is S.FREEZING:
            offered.set()
            await asyncio.Event().wait()

    handing._watch = hold
    running = asyncio.create_task(handing._run(_Work(order()), Handover()))
    await within(5, offered.wait())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.here.sa = None
    world.left = {SPIS} if left else set()
    ended = await within(5, world.handing.settle(order()))
    assert ended.state is (S.LOST if left else S.HANDED_OVER)
    assert world.there.serving is not left


@pytest.mark.parametrize("comes", [True, False])
async def test_while_the_target_may_have_begun_nobody_else_may(world: World, comes: bool) -> None:
    world.there.client_answers = comes
    handing, begin = world.handing, world.intake.start
    answers = []

    async def begun(start: Start, source: str = "") -> Standing:
        answers.append(handing.cede(frozenset({SPIS})))
        return await begin(start, source)

    def told(_: object, handover: Handover) -> None:
        if handover.state in {S.RECALLING, S.THAWING, S.HANDED_OVER}:
            answers.append(handing.cede(frozenset({SPIS})))

    world.intake.start = begun  # type: ignore[method-assign]
    handing._told = told
    ended = await within(5, handing.hand_over(order()))
    assert ended.state is (S.HANDED_OVER if comes else S.KEPT)
    assert world.served == 1
    undecided = {SPIS}
    assert answers == ([undecided, undecided] if comes else [undecided, undecided, set()])
    assert handing.cede(frozenset({SPIS})) == frozenset(), "nothing is under way"


async def test_after_the_sources_charon_died_the_target_goes_on_behind_the_request_to_switch(
    world: World,
) -> None:
    handing = world.handing

    def die(_: object, handover: Handover) -> None:
        if handover.state is S.FREEZING:
            world.here.sa = None

    handing._told = die
    assert (await within(5, handing.hand_over(order(r=True)))).state is S.HANDED_OVER
    assert world.there.counted == (5, 9), "4 was the request to switch"
    assert world.there.rekeyed == [100]


@pytest.mark.parametrize("step", ["asking", "freezing"])
async def test_what_was_deleted_or_rekeyed_meanwhile_is_not_brought_back_to_life_by_the_target(
    world: World, step: str
) -> None:
    handing = world.handing
    handing._told = lambda _, handover: world.here.end() if handover.state.value == step else None
    ended = await within(5, handing.hand_over(order(r=True)))
    assert ended.state is S.OVER
    assert "deleted or rekeyed" in ended.why
    assert world.there.sa is None
    assert START not in world.wire.asked


async def test_what_is_over_before_it_is_offered_is_not_offered(world: World) -> None:
    world.here.end()
    assert (await within(5, world.handing.hand_over(order()))).state is S.OVER
    assert world.wire.asked == []


@pytest.mark.parametrize("trouble", ["request lost", "unreachable"])
async def test_a_target_that_served_it_before_does_not_say_that_it_serves_it_now(
    world: World, trouble: str
) -> None:
    earlier = replace(order(), move=order().move - 1)
    assert (await within(5, world.handing.hand_over(earlier))).state is S.HANDED_OVER
    world.there.sa = None
    world.here.serve()  # it went back since, with the same SPIs
    world.wire.troubles[OFFER] = [trouble]
    assert (await within(5, world.handing.hand_over(order()))).state is S.KEPT
    assert (await within(5, world.handing.settle(order()))).state is S.KEPT
    assert world.here.serving


@pytest.mark.parametrize("came", [False, True])
async def test_a_target_that_restarts_after_it_began_to_serve_knows_whether_the_client_came(
    world: World, came: bool
) -> None:
    world.there.client_answers = came
    world.wire.troubles = {START: ["answer lost"]}
    starting = world.intake.start

    async def killed(start: Start, source: str = "") -> Standing:
        world.intake._times = replace(world.intake._times, answer_s=60.0)
        running = asyncio.create_task(starting(start))
        while not world.there.serving:  # noqa: ASYNC110 (charon tells nobody)
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        world.restart_target()
        return Standing(Stands.STARTED)

    world.intake.start = killed  # type: ignore[method-assign]
    ended = await within(5, world.handing.hand_over(order(r=True)))
    assert ended.state is (S.HANDED_OVER if came else S.KEPT)
    assert (world.here.serving, world.there.serving) == (not came, came)


async def test_what_was_frozen_when_its_charon_died_is_started_at_the_target(world: World) -> None:
    handing = world.handing

    async def kill(step: Step) -> None:
        if step.what is S.STARTING:
            world.here.down, world.here.sa = True, None
            asyncio.get_running_loop().call_later(0.2, setattr, world.here, "down", False)

    handing._watch = kill
    ended = await within(5, handing.hand_over(order()))
    assert ended.state is S.HANDED_OVER
    assert world.there.serving
    assert world.there.rekeyed == [100]


# --- a target that says nothing ---------------------------------------------------------------------


def silent(world: World, start: str, silences: int) -> None:
    """The request to start has that trouble, and so many that ask for it back are not answered."""
    world.wire.troubles = {START: [start], RECALL: ["unreachable"] * silences}


async def test_what_the_target_was_never_reached_to_start_is_served_here_while_it_is_asked_back(
    world: World,
) -> None:
    silent(world, "unreachable", 3)
    ended = await within(5, world.handing.hand_over(order(r=True)))
    assert ended.state is S.KEPT
    assert world.here.did[1:] == ["freeze", "thaw", "thaw", f"switch {HERE.address}"]


async def test_what_the_target_may_have_started_stays_frozen_until_it_says_so(world: World) -> None:
    silent(world, "request lost", 3)
    ended = await within(5, world.handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert world.here.did == ["freeze", "thaw", "call back"]


@pytest.mark.parametrize("start", ["request lost", "answer lost"])
async def test_a_client_that_was_asked_to_go_is_answered_here_before_it_gives_up(
    world: World, start: str
) -> None:
    silent(world, start, 6)
    handing = world.handing
    handing._times = replace(handing._times, meanwhile_s=0.05)
    ended = await within(5, handing.hand_over(order(r=True)))
    assert world.here.did[1:3] == ["freeze", "thaw"]
    assert world.served == 1
    assert ended.state is (S.KEPT if start == "request lost" else S.HANDED_OVER)
    if ended.state is S.HANDED_OVER:  # its client was there all the time
        assert world.here.did[3:] == ["freeze", "drop"]


@pytest.mark.parametrize("whose", ["ours", "theirs"])
async def test_message_ids_that_the_source_used_meanwhile_are_not_used_by_the_target_again(
    world: World, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """charon looks after its client by itself, and answers what that asks: the client would drop the target's next."""
    client = world.here.client = world.there.client = Client()
    thawing = world.here.thaw

    async def thaw(spis: IkeSpis) -> bool:
        had = await thawing(spis)
        assert world.here.sa is not None
        if whose == "ours":
            await world.here.call_back(1)
        elif client.comes(
            world.here.sa.mid_responder + 1
        ):  # it knows of the request that the target answered
            world.here.sa = replace(world.here.sa, mid_responder=client.sends)
        return had

    monkeypatch.setattr(world.here, "thaw", thaw)
    silent(world, "answer lost", 6)
    handing = world.handing
    handing._times = replace(handing._times, meanwhile_s=0.05)
    assert (await within(5, handing.hand_over(order(r=True)))).state is S.HANDED_OVER
    assert world.there.sa is not None
    assert (world.there.sa.mid_initiator, world.there.sa.mid_responder) == (client.takes, client.sends)


async def test_after_a_restart_what_is_over_is_not_brought_back_to_life_either(world: World) -> None:
    await world.intake.offer(an_offer())
    world.here.end()
    assert (await within(5, world.handing.settle(order()))).state is S.OVER
    assert world.there.sa is None
    assert START not in world.wire.asked


async def test_an_exchange_that_is_under_way_is_over_before_anything_is_offered(world: World) -> None:
    from dataclasses import replace

    assert world.here.sa is not None
    quiet = world.here.sa
    world.here.sa = replace(quiet, busy=True)
    running = asyncio.create_task(world.handing.hand_over(order()))
    await asyncio.sleep(0.03)
    assert world.wire.asked == []
    world.here.sa = quiet
    assert (await within(5, running)).state is S.HANDED_OVER


@pytest.mark.parametrize("step", ["asking", "freezing", "starting"])
async def test_a_target_whose_charon_dies_leaves_it_with_the_source(world: World, step: str) -> None:
    handing = world.handing

    def die(_: object, handover: Handover) -> None:
        if handover.state.value == step:
            world.there.sa = None

    handing._told = die
    ended = await within(5, handing.hand_over(order()))
    assert ended.state is S.KEPT
    assert world.here.serving


@pytest.mark.parametrize("step", ["asking", "freezing", "starting", "holding"])
async def test_a_source_that_is_told_to_stop_leaves_no_doubt_behind(world: World, step: str) -> None:
    handing = world.handing
    reached = asyncio.Event()
    handing._told = lambda _, handover: reached.set() if handover.state.value == step else None
    running = asyncio.create_task(handing.hand_over(order()))
    await within(5, reached.wait())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert world.served == 1
    assert (world.here.sa is None) != (world.there.sa is None)


async def expired(world: World) -> None:
    """The target drops what it has."""
    expiring = asyncio.create_task(world.intake.expire())
    try:
        async with asyncio.timeout(5):
            while world.there.sa is not None:  # noqa: ASYNC110 - the world has no events
                await asyncio.sleep(0.01)
    finally:
        expiring.cancel()


async def test_what_is_offered_and_never_started_is_dropped_in_time(world: World) -> None:
    await world.intake.offer(an_offer())
    await expired(world)
    assert world.intake.taken == frozenset()


async def test_what_cannot_be_dropped_for_a_moment_is_dropped_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """charon is just making it, so that what it lists of it is not whole."""
    await world.intake.offer(an_offer())
    look, troubles = world.there.look, [DecodeError("no state")]

    async def half_made(spis: IkeSpis) -> HeldSa | None:
        if troubles:
            raise troubles.pop()
        return await look(spis)

    monkeypatch.setattr(world.there, "look", half_made)
    await expired(world)


async def test_what_is_offered_and_never_started_is_dropped_after_a_restart_too(world: World) -> None:
    await world.intake.offer(an_offer())
    world.notes.notes = dict.fromkeys(world.notes.notes, "1000")  # long ago
    world.restart_target()
    await expired(world)


async def test_what_was_served_and_rekeyed_since_is_not_given_back(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    world.there.sa = None  # it has other SPIs now
    assert (await world.intake.recall(Recall(3, SPIS))).stands is Stands.SERVED


async def test_what_is_served_is_never_dropped_for_its_age(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    expiring = asyncio.create_task(world.intake.expire())
    await asyncio.sleep(0.5)
    expiring.cancel()
    assert world.there.serving


@pytest.mark.parametrize("came", [True, False])
@pytest.mark.parametrize("r", [True, False])
async def test_a_target_that_forgot_all_asks_the_message_ids_whether_the_client_came(
    world: World, came: bool, r: bool
) -> None:
    """Its sidecar and its memory were killed together after it began to serve: the source knows with what it began."""
    world.there.client_answers = came
    world.wire.troubles[START] = ["answer lost"]

    def forget(_: object, handover: Handover) -> None:
        if handover.state is S.RECALLING:
            world.notes.notes.clear()
            world.there.counted = None
            world.restart_target()

    handing = world.handing
    handing._told = forget
    ended = await within(5, handing.hand_over(order(r=r)))
    assert ended.state is (S.HANDED_OVER if came else S.KEPT)
    assert world.served == 1


async def test_a_target_that_was_never_told_to_start_has_no_message_ids_to_ask(world: World) -> None:
    world.wire.troubles[OFFER] = ["answer lost"]
    ended = await within(5, world.handing.hand_over(order(r=True)))
    assert ended.state is S.KEPT


async def test_what_is_on_its_way_to_a_third_node_is_not_given_back_to_the_first(world: World) -> None:
    await within(5, world.handing.hand_over(order()))
    await world.there.freeze(SPIS)
    assert (await world.intake.recall(Recall(3, SPIS))).stands is Stands.SERVED
    with pytest.raises(MoveError, match="not offered"):
        await world.intake.start(Start(3, SPIS, (1, 1), roam=True))


async def test_the_same_offer_again_is_answered_and_not_done_again(world: World) -> None:
    await world.intake.offer(an_offer())
    await world.intake.offer(an_offer())
    assert world.there.did.count("replay") == 1


# --- what they say ------------------------------------------------------------------------------------


def an_offer() -> Offer:
    return Offer(3, "gw1/client#1", chain(), THERE.address, HERE, CLIENT, True, False, ((100, 101),))


SAID = [
    an_offer(),
    Start(
        3, SPIS, (4, 9), roam=True, numbers=((101, 2**40),), received=((100, 5, 2**100, 128),), rekey=(1, 2)
    ),
    Start(3, SPIS, None, roam=False),
    Recall(3, SPIS),
    Recall(3, SPIS, (4, 9), roam=True),
    Recall(3, SPIS, (4, 9), since=(6, 9)),
    Standing(Stands.PASSIVE, "all well"),
]


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_what_is_said_is_understood(said: Offer | Start | Recall | Standing) -> None:
    assert type(said).from_secret(said.to_secret()) == said


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_what_is_cut_short_or_changed_is_a_decode_error_or_something_that_could_be_said(
    said: Offer | Start | Recall | Standing,
) -> None:
    octets, told = said.to_secret().reveal(), []
    for at in range(len(octets)):
        for changed in (octets[:at], octets[:at] + bytes([octets[at] ^ 0x11]) + octets[at + 1 :]):
            try:
                type(said).from_secret(SecretBytes(changed))
            except DecodeError as error:
                told.append(str(error))
    assert told
    assert not any("ssssss" in text for text in told)


def test_a_recall_of_a_node_that_is_not_upgraded_yet_is_understood() -> None:
    before = SecretBytes(b'{"move":3,"spis":[%d,%d]}' % SPIS)
    assert Recall.from_secret(before) == Recall(3, SPIS)


def test_an_offer_whose_chain_is_of_other_children_is_refused() -> None:
    bad = Offer(3, "x", chain({100, 102}), THERE.address, HERE, CLIENT, True, False, ((100, 101),))
    with pytest.raises(DecodeError, match="CHILD_SAs"):
        Offer.from_secret(bad.to_secret())


def test_an_offer_shows_no_keys() -> None:
    assert "ssss" not in repr(an_offer())
    assert "ssss" not in repr(an_offer().to_secret())
