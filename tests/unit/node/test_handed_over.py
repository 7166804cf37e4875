"""Nobody is alone with an IKE_SA that was just moved: its source can go on with it until a standby has it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import MobikectlError, TransferRefusedError, TransferUnreachableError
from mobikectl.node.calling import CallTimes
from mobikectl.node.copies import LEAST_JUMP, Copies, CopyTimes
from mobikectl.node.handing import Handing, HandingTimes
from mobikectl.node.intake import Intake, IntakeTimes
from mobikectl.node.replicator import Replicator, ReplicatorTimes, Served
from mobikectl.node.watching import Step, TargetStep
from mobikectl.policy.standby import Candidate
from mobikectl.protocol.handover import SourceState
from mobikectl.wire.ha import Host
from mobikectl.wire.handover import Offer, Recall, Start
from mobikectl.wire.standby import STANDBY, Batch

from .two_gateways import HERE, SPIS, THERE, Client, Gateway, Notes, order, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobikectl.model import IpAddress
    from mobikectl.wire.secret import SecretBytes

THIRD = Host(type(HERE.address)("198.18.13.10"), 4500)
SENT = 700
"""The source's last ESP number."""


class Node:
    """A gateway's charon, and what its sidecar does of moves and of standing by."""

    def __init__(self, name: str, host: Host, world: World) -> None:
        self.name = name
        self.world = world
        self.charon = Gateway(host, client=world.client)
        self.cut = False
        self.seen = True
        """The model of the IKE_SAs knows what charon serves."""
        self.copies = Copies(
            self.charon, self.charon, self.charon,
            address_for=lambda _: host.address,
            notes=Notes(),
            times=CopyTimes(appear_s=0.3, answer_s=0.03, give_up_s=0.6, look_s=0.002, heard_s=0.002),
        )  # fmt: skip
        self.replicator = Replicator(
            name, self.charon, self,
            served=self.served,
            candidates=lambda: [Candidate(each) for each in sorted(world.fit)],
            times=ReplicatorTimes(
                together_s=0.001, look_s=0.02, came_s=0.01, settle_s=0.2, rest_s=0.05, compare_s=0.1
            ),
        )  # fmt: skip
        self.intake = Intake(
            self.charon, self.charon, self.charon,
            is_ours=lambda address: address == host.address,
            notes=Notes(),
            times=IntakeTimes(appear_s=0.2, answer_s=0.1, look_s=0.005),
            watch=world.watch,
            came=self.replicator.came,
        )  # fmt: skip
        self.handing = Handing(
            self.charon, self.charon, self.charon, self,
            is_out=self.is_out,
            keeper=self.copies,
            watch=world.watch,
            times=HandingTimes(
                chain_s=0.1, end_s=0.02, quiet_s=0.2, freeze_s=0.1, start_s=1.0, hold_s=0.05,
                again_s=(0.01, 0.05), recall_s=0.5,
                call=CallTimes(answer_s=0.03, renumbered_s=0.03, look_s=0.002, come_s=(0.03, 0.03)),
            ),
        )  # fmt: skip

    async def is_out(self, node: str, _address: IpAddress) -> bool:
        return self.world.nodes[node].charon.down

    def served(self) -> list[Served] | None:
        if self.charon.down:
            return None
        sa = self.charon.sa
        if sa is None or not sa.serving or not self.seen:
            return []
        return [
            Served(f"{self.name}/client#{sa.ike_id}", sa.spis, sa.local, sa.remote, sa.children, peer_r=True)
        ]

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        there = self.world.nodes[node]
        if self.cut or there.cut:
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True)
        try:
            answer = await there.answer(self.name, verb, payload)
        except MobikectlError as error:
            raise TransferRefusedError(f"{node}: {error}", kind=type(error).__name__) from error
        if self.cut or there.cut:
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True)
        return answer

    async def answer(self, source: str, verb: str, payload: SecretBytes) -> SecretBytes:
        match verb:
            case "sa-offer":
                return (await self.intake.offer(Offer.from_secret(payload))).to_secret()
            case "sa-start":
                return (await self.intake.start(Start.from_secret(payload), source)).to_secret()
            case "sa-recall":
                return (await self.intake.recall(Recall.from_secret(payload), source)).to_secret()
            case _:
                assert verb == STANDBY
                return (await self.copies.take(source, Batch.from_secret(payload))).to_secret()

    def charon_dies(self) -> None:
        """It is started again at once, and has nothing."""
        self.charon.sa = None

    def dies(self) -> None:
        """Its charon, and its sidecar: nobody hears it any more."""
        self.cut = self.charon.down = True
        self.charon.sa = None


class World:
    """gw1 serves, gw2 is to; gw3 may stand by."""

    def __init__(self) -> None:
        self.client = Client()
        self.steps: dict[object, Callable[[], None]] = {}
        self.fit = {"gw1", "gw2", "gw3"}
        self.nodes: dict[str, Node] = {}
        for name, host in (("gw1", HERE), ("gw2", THERE), ("gw3", THIRD)):
            self.nodes[name] = Node(name, host, self)
        self.gw1, self.gw2, self.gw3 = self.nodes.values()
        self.gw1.charon.serve()

    async def watch(self, step: Step) -> None:
        if (happens := self.steps.pop(step.what, None)) is not None:
            happens()
        await asyncio.sleep(0)

    @asynccontextmanager
    async def standing_by(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.nodes[name].replicator.run()) for name in ("gw2", "gw3")]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def serving(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.charon.serving]

    def with_copy(self) -> list[str]:
        return [
            name
            for name, node in self.nodes.items()
            if (copy := node.copies.find(SPIS)) is not None and not copy.waiting
        ]

    def client_goes_on(self, at: str) -> bool:
        """Whether what it and its gateway ask of each other next has the message IDs that they expect."""
        sa = self.nodes[at].charon.sa
        return sa is not None and (sa.mid_initiator, sa.mid_responder) == (
            self.client.takes,
            self.client.sends,
        )


@pytest.fixture
def world() -> World:
    return World()


async def until(true: Callable[[], bool], why: Callable[[], object] = lambda: "") -> None:
    try:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 - the world has no events
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(why()) from None


async def move(world: World, *, r: bool = True) -> SourceState:
    ended = await within(5, world.gw1.handing.hand_over(order(r=r)))
    state: SourceState = ended.state
    return state


async def test_the_source_has_a_copy_until_the_targets_standby_has_one(world: World) -> None:
    world.gw3.cut = True
    world.fit = {"gw3"}
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        await asyncio.sleep(0.3)
        assert world.with_copy() == ["gw1"]
        world.gw3.cut = False
        await until(lambda: world.with_copy() == ["gw3"], world.with_copy)
        assert world.gw1.charon.sa is None
    assert world.serving == ["gw2"]


async def test_a_source_that_is_told_of_the_standby_in_time_makes_no_copy(world: World) -> None:
    world.fit = {"gw3"}

    async def watch(step: Step) -> None:
        if step.what is SourceState.DROPPING:
            await until(lambda: world.with_copy() == ["gw3"] and not len(world.gw1.copies))

    world.gw1.handing._watch = watch
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw3"]
        assert "replay" not in world.gw1.charon.did


async def test_a_source_that_is_the_standby_keeps_its_copy(world: World) -> None:
    world.fit = {"gw1"}
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER

        def is_told() -> bool:
            copy = world.gw1.copies.find(SPIS)
            return copy is not None and copy.offer.name.startswith("gw2/")

        await until(is_told)
        await asyncio.sleep(0.1)
        assert world.with_copy() == ["gw1"]
    assert world.gw1.charon.did.count("replay") == 1


async def test_no_copy_is_left_of_what_ended_at_the_target(world: World) -> None:
    world.fit = set()
    world.gw2.seen = False
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        world.gw2.replicator._heard(SPIS, True)
        await until(lambda: world.with_copy() == [])
        assert world.gw1.charon.sa is None


async def test_no_copy_is_left_of_what_its_client_ends_as_it_comes(world: World) -> None:
    world.steps[TargetStep.ANSWER] = world.gw2.charon.end
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        await until(lambda: not len(world.gw1.copies))
    assert world.gw1.charon.sa is None


async def test_no_copy_is_left_where_the_move_came_to_nothing(world: World) -> None:
    world.client.sends = 77  # it does not come
    async with world.standing_by():
        assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert not any(len(node.copies) for node in world.nodes.values())


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize(
    "step", [TargetStep.ANSWER, SourceState.HOLDING, SourceState.DROPPING, SourceState.HANDED_OVER]
)
async def test_wherever_the_targets_charon_dies_after_its_client_came_the_source_goes_on(
    world: World, step: TargetStep | SourceState, r: bool
) -> None:
    world.fit = {"gw3"}
    world.gw3.cut = True  # it has no copy yet
    world.gw2.seen = False  # nor did anybody see it at the target
    world.steps[step] = world.gw2.charon_dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.serving == []
        await until(lambda: world.with_copy() == ["gw1"], world.with_copy)

        def lost() -> bool:
            copy = world.gw1.copies.find(SPIS)
            return copy is not None and copy.lost

        await until(lost)
        assert await world.gw1.copies.start(SPIS) is None
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert world.gw1.charon.kernel[101].oseq >= SENT + LEAST_JUMP


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize("step", [SourceState.HOLDING, SourceState.DROPPING, SourceState.HANDED_OVER])
async def test_wherever_the_target_dies_after_its_client_came_the_source_goes_on(
    world: World, step: SourceState, r: bool
) -> None:
    world.fit = {"gw3"}
    world.gw3.cut = True
    world.steps[step] = world.gw2.dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw1"]
        assert await world.gw1.copies.start(SPIS) is None
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert world.gw1.charon.kernel[101].oseq >= SENT + LEAST_JUMP


@pytest.mark.parametrize("r", [True, False])
async def test_a_target_whose_charon_is_away_says_that_its_client_came(world: World, r: bool) -> None:
    def goes() -> None:
        world.gw2.charon_dies()
        world.gw2.charon.down = True

    world.steps[TargetStep.ANSWER] = goes
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw1"]


async def test_a_client_that_did_not_get_the_targets_request_is_found_all_the_same(world: World) -> None:
    """charon tells of a request when it sends it."""
    world.fit = {"gw3"}
    world.gw3.cut = True
    world.gw2.seen = False

    def dies() -> None:
        world.gw2.charon.told = 5, 9
        world.gw2.charon_dies()

    world.client.takes = 4
    world.steps[TargetStep.HEAR] = dies
    world.gw2.charon.client = Client(takes=77)
    async with world.standing_by():
        assert await move(world, r=False) is SourceState.HANDED_OVER
        await until(lambda: world.with_copy() == ["gw1"], world.with_copy)
        assert await world.gw1.copies.start(SPIS) is None
    assert world.client_goes_on("gw1")


async def test_a_target_whose_charon_dies_before_anything_was_said_gives_it_back(world: World) -> None:
    world.steps[TargetStep.ACTIVATE] = world.gw2.charon_dies
    async with world.standing_by():
        assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize("step", [TargetStep.ACTIVATE, TargetStep.HEAR, TargetStep.ANSWER])
async def test_a_target_that_dies_without_a_word_leaves_the_client_with_the_source(
    world: World, step: TargetStep, r: bool
) -> None:
    """Whether the client came, and what it asked there, nobody says but the client."""
    world.steps[step] = world.gw2.dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert not len(world.gw1.copies)


async def test_what_is_frozen_and_not_handed_over_yet_is_served_here_to_all_who_ask(world: World) -> None:
    asked: list[frozenset[object]] = []

    def ask() -> None:
        asked.append(frozenset())

    async def look(step: Step) -> None:
        if step.what in {SourceState.STARTING, SourceState.DROPPING}:
            asked.append(await world.gw1.copies.serving([SPIS]))

    world.gw1.handing._watch = look
    async with world.standing_by():
        await move(world)
    assert asked == [{SPIS}, frozenset()]


async def test_a_copy_is_used_up_when_another_node_took_it_over(world: World) -> None:
    world.fit = {"gw1"}
    async with world.standing_by():
        await move(world)
        await until(lambda: world.with_copy() == ["gw1"])
    world.gw2.dies()
    copy = world.gw1.copies.taken_over(SPIS, "gw2")
    assert copy is not None
    assert await world.gw1.copies.start(SPIS) is not None
    await world.gw1.copies.give_up(SPIS, copy)
    assert world.gw1.charon.sa is None
    assert world.gw1.copies.taken_over(SPIS, "gw2") is None
