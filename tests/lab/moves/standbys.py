"""Gateways that stand by for each other: replicators and copies, with calls instead of the transfer between them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.errors import MobikectlError, TransferRefusedError, TransferUnreachableError
from mobikectl.node.copies import Copies
from mobikectl.node.passive import CopyTimes
from mobikectl.node.replicator import Replicator, ReplicatorTimes, Served
from mobikectl.node.standing import introduce
from mobikectl.policy.standby import Candidate
from mobikectl.wire.ha import Host
from mobikectl.wire.standby import STANDBY, STANDBY_ASK, Batch, Inquiry

from .lab import spis_of
from .sites import Sites, sites_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from mobikectl.model import IpAddress
    from mobikectl.node.failover import Failover
    from mobikectl.wire.ha_chain import IkeSpis
    from mobikectl.wire.secret import SecretBytes

    from .lab import MoveLab


@dataclass
class StandbySite:
    """What a gateway's sidecar does about standing by."""

    name: str
    copies: Copies
    replicator: Replicator
    served: list[Served] | None
    failover: Failover | None = None


class Standbys:
    """All of them. ``cut``: nodes that cannot be reached; ``fit``: nodes that may be chosen."""

    def __init__(self, lab: MoveLab, sites: Sites) -> None:
        self.lab = lab
        self.sites = sites
        self.cut: set[str] = set()
        self.fit = set(lab.gateways)
        self.of: dict[str, StandbySite] = {}
        self.batches: list[tuple[str, Batch]] = []

    def caller(self, source: str) -> _Caller:
        return _Caller(self, source)

    async def call(self, source: str, node: str, verb: str, payload: SecretBytes) -> SecretBytes:
        if node in self.cut or source in self.cut:
            raise TransferUnreachableError(f"{node} is cut off")
        site = self.of[node]
        try:
            if verb == STANDBY:
                batch = Batch.from_secret(payload)
                self.batches.append((node, batch))
                return (await site.copies.take(source, batch)).to_secret()
            assert verb == STANDBY_ASK
            assert site.failover is not None
            return (await site.failover.testify(Inquiry.from_secret(payload))).to_secret()
        except MobikectlError as error:
            raise TransferRefusedError(str(error)) from error

    def make(self, name: str, **more: Any) -> StandbySite:
        site = self.sites.sites[name]
        broker = self.lab.brokers[name]
        own = ip_address(self.lab.address(name))

        def address_for(_: IpAddress) -> IpAddress:
            return own

        copies = Copies(
            site.control, broker, None, address_for=address_for, notes=broker,
            times=CopyTimes(appear_s=15, give_up_s=more.pop("give_up_s", 30)),
        )  # fmt: skip
        made = StandbySite(name, copies, None, [])  # type: ignore[arg-type]
        made.replicator = Replicator(
            name,
            broker,
            self.caller(name),
            served=lambda: made.served,
            candidates=lambda: [Candidate(each) for each in sorted(self.fit)],
            times=ReplicatorTimes(look_s=0.1, call_s=40, rest_s=0.5, compare_s=1.0),
        )
        self.of[name] = made
        site.handing._keeper = copies
        introduce(site.intake, copies, made.replicator.came)
        return made

    async def look(self) -> None:
        """Have every gateway know what it serves, for ever."""
        while True:
            for name, site in self.of.items():
                site.served = await self.served(name)
            await asyncio.sleep(0.05)

    async def served(self, name: str) -> list[Served] | None:
        """Return what a gateway serves; None: its charon cannot be asked."""
        process = self.lab.gateways[name].process
        if process is None or process.poll() is not None:
            return None
        try:
            sas = await self.lab.sas(name)
        except (MobikectlError, OSError):
            return None
        return [
            Served(
                f"{name}/client#{sa['uniqueid']}",
                spis_of(sa),
                Host(ip_address(sa["local-host"]), int(sa["local-port"])),
                Host(ip_address(sa["remote-host"]), int(sa["remote-port"])),
                tuple(
                    (int(child["spi-in"], 16), int(child["spi-out"], 16))
                    for child in sa["child-sas"].values()
                    if child["state"] == "INSTALLED"
                ),
            )
            for sa in sas
            if sa["state"] == "ESTABLISHED"
        ]

    async def standby_of(self, source: str, spis: IkeSpis, *, timeout: float = 30) -> str:
        """Wait until the IKE_SA's present state has been confirmed by a standby; return which."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            held = [name for name, site in self.of.items() if spis in site.copies.of(source)]
            if len(held) == 1 and not self.of[source].replicator.behind:
                return held[0]
            assert asyncio.get_running_loop().time() < deadline, (held, self.batches[-5:])
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class _Caller:
    all: Standbys
    source: str

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        try:
            async with asyncio.timeout(deadline):
                return await self.all.call(self.source, node, verb, payload)
        except TimeoutError:
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True) from None


@asynccontextmanager
async def standbys_of(lab: MoveLab) -> AsyncIterator[Standbys]:
    async with sites_of(lab) as sites, AsyncExitStack() as stack:
        standbys = Standbys(lab, sites)
        for name in lab.gateways:
            standbys.make(name)
        sites_of_all = standbys.of.values()
        works = [site.replicator.run() for site in sites_of_all] + [
            site.copies.run() for site in sites_of_all
        ]
        for work in (standbys.look(), *works):
            stack.callback(asyncio.create_task(work).cancel)
        yield standbys
