"""The move parts of each gateway, in one process, with the transfer between them replaced by calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.charon.rmobike_link import PluginLink
from mobikectl.errors import MobikectlError, TransferRefusedError, TransferUnreachableError
from mobikectl.node.charon_control import CharonControl
from mobikectl.node.handing import Handing, HandingTimes, Order
from mobikectl.node.intake import Intake, IntakeTimes
from mobikectl.wire.handover import OFFER, RECALL, START, Offer, Recall, Start

from .lab import spis_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.model import IpAddress
    from mobikectl.protocol.handover import Handover
    from mobikectl.wire.secret import SecretBytes

    from .lab import MoveLab


@dataclass
class Site:
    """One gateway's sidecar, as far as moves go."""

    name: str
    control: CharonControl
    intake: Intake
    handing: Handing
    link: PluginLink
    states: list[str] = field(default_factory=list)


class Sites:
    """All of them. ``cut``: nodes that cannot be reached."""

    def __init__(self, lab: MoveLab) -> None:
        self.lab = lab
        self.sites: dict[str, Site] = {}
        self.cut: set[str] = set()
        self.out: set[str] = set()
        self.lose_answers = 0
        self.moves = 0

    async def call(
        self, source: str, node: str, verb: str, payload: SecretBytes, *, deadline: float
    ) -> SecretBytes:
        if node in self.cut:
            raise TransferUnreachableError(f"{node} is cut off", maybe_done=verb != OFFER)
        intake = self.sites[node].intake
        handlers: dict[str, Any] = {
            OFFER: (Offer, partial(intake.offer, source=source)),
            START: (Start, partial(intake.start, source=source)),
            RECALL: (Recall, partial(intake.recall, source=source)),
        }
        kind, handle = handlers[verb]
        try:
            async with asyncio.timeout(deadline):
                answer = await handle(kind.from_secret(payload))
        except MobikectlError as error:
            raise TransferRefusedError(f"{node}: {error}", kind=type(error).__name__) from error
        except TimeoutError:
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True) from None
        if self.lose_answers:
            self.lose_answers -= 1
            raise TransferUnreachableError(f"{node}: the answer is lost", maybe_done=True)
        secret: SecretBytes = answer.to_secret()
        return secret

    async def is_out(self, node: str, address: IpAddress) -> bool:
        return node in self.out

    def make(self, name: str, sequences: Any = None) -> Site:
        gateway = self.lab.gateways[name]
        link = PluginLink(gateway.directory / "rmobike", timeout=10)
        control = CharonControl(link, gateway.vici)
        broker = self.lab.brokers[name]
        intake = Intake(
            control,
            broker,
            sequences,
            is_ours=lambda address: str(address) == self.lab.address(name),
            notes=broker,
            times=IntakeTimes(appear_s=10, answer_s=5),
        )
        states: list[str] = []
        handing = Handing(
            control,
            broker,
            sequences,
            _Caller(self, name),
            is_out=self.is_out,
            told=lambda _, handover: states.append(handover.state.value),
            times=HandingTimes(offer_s=15, start_s=15, recall_s=5),
        )
        site = Site(name, control, intake, handing, link, states)
        self.sites[name] = site
        return site

    async def order(self, source: str, target: str, *, r: bool = False) -> Order:
        self.moves += 1
        sa = next(sa for sa in await self.lab.sas(source) if sa["state"] in {"ESTABLISHED", "PASSIVE"})
        return Order(
            self.moves, 1, f"{source}/client#1", spis_of(sa), target, ip_address(self.lab.address(target)),
            peer_r=r, own_r=r,
        )  # fmt: skip

    async def move(self, source: str, target: str, *, r: bool = False) -> Handover:
        return await self.sites[source].handing.hand_over(await self.order(source, target, r=r))


@dataclass(frozen=True)
class _Caller:
    all: Sites
    source: str

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        return await self.all.call(self.source, node, verb, payload, deadline=deadline)


@asynccontextmanager
async def sites_of(lab: MoveLab, sequences: dict[str, Any] | None = None) -> AsyncIterator[Sites]:
    sites = Sites(lab)
    async with AsyncExitStack() as stack:
        for name in lab.gateways:
            site = sites.make(name, (sequences or {}).get(name))
            following = asyncio.create_task(site.link.run(lambda _: None))
            stack.push_async_callback(site.link.aclose)
            stack.callback(following.cancel)
        deadline = asyncio.get_running_loop().time() + 20
        while not all(site.link.up for site in sites.sites.values()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        yield sites
