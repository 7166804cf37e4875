"""Three gateways without charons: what is handed over between them, and who stands by for whom, with one client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mobikectl.errors import MobikectlError, TransferRefusedError, TransferUnreachableError
from mobikectl.node.calling import CallTimes
from mobikectl.node.copies import Copies
from mobikectl.node.handing import Handing, HandingTimes
from mobikectl.node.intake import Intake, IntakeTimes
from mobikectl.node.passive import CopyTimes
from mobikectl.node.replicator import Replicator, ReplicatorTimes, Served
from mobikectl.node.standing import introduce
from mobikectl.policy.standby import Candidate
from mobikectl.wire.ha import Host
from mobikectl.wire.handover import Offer, Recall, Start
from mobikectl.wire.standby import STANDBY, Batch

from .two_gateways import HERE, SPIS, THERE, Client, Gateway, Notes, order, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobikectl.model import IpAddress
    from mobikectl.node.watching import Step
    from mobikectl.protocol.handover import SourceState
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
            times=IntakeTimes(appear_s=0.2, answer_s=0.1, expire_s=0.2, look_s=0.005),
            watch=world.watch,
        )  # fmt: skip
        introduce(self.intake, self.copies, self.replicator.came)
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
                return (await self.intake.offer(Offer.from_secret(payload), source)).to_secret()
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
    async def standing_by(self, *names: str) -> AsyncIterator[None]:
        """These, or gw2 and gw3, have others stand by for them."""
        told = names or ("gw2", "gw3")
        tasks = [asyncio.create_task(self.nodes[name].replicator.run()) for name in told]
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
