"""This node's part in standing by, put together: copies of others' IKE_SAs here, and of its own at others."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from mobikectl.charon.session import LinkState
from mobikectl.cluster.failovers import is_dead
from mobikectl.errors import CharonError, MobikectlError, StoreError
from mobikectl.model import ChildState
from mobikectl.node.copies import Copies
from mobikectl.node.failover import Failover
from mobikectl.node.replicator import Replicator, Served
from mobikectl.node.rows import is_served
from mobikectl.policy.cluster import Health
from mobikectl.policy.settings import ProbeSettings
from mobikectl.policy.standby import Candidate
from mobikectl.probe import ike
from mobikectl.probe.sockets import ProbeFailedError
from mobikectl.taskgroup import TaskGroup
from mobikectl.transfer import Verb
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.standby import STANDBY, STANDBY_ASK, Batch, Inquiry, Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from mobikectl.charon.ha_broker import HaBroker
    from mobikectl.charon.tracker import SaTracker
    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.node.control import Ended, SaControl, Sequences
    from mobikectl.node.intake import Came, Intake
    from mobikectl.node.reporter import Beside, Reporter
    from mobikectl.observe.events import EventLog
    from mobikectl.transfer import Request, TransferClient
    from mobikectl.wire.secret import SecretBytes

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""The members are looked at so often."""
LEAVE_S: Final = 5.0
"""How long a node that is back waits, before it acts as a member, until what others took over is dropped."""


def introduce(
    intake: Intake, copies: Copies, came: Came, *, arriving: Container[IkeSpis] = frozenset()
) -> None:
    """Have what is offered to this node, and the copies that it has, know of each other, before either is used.

    ``came``: told what came from which node. ``arriving``: of which IKE_SAs offers are on their way to the intake.
    """
    intake.stand_by(copies, came)
    copies.mind(intake, arriving)


class StandingBy:
    """Stands by, and has others do it. Given what the node is made of; ``lease`` as of `Failover`."""

    def __init__(
        self,
        settings: ClusterSettings,
        control: SaControl,
        broker: HaBroker,
        client: TransferClient,
        sequences: Sequences | None,
        store: Store,
        beside: Beside,
        reporter: Reporter,
        events: EventLog,
        *,
        lease: Callable[[], int | None],
    ) -> None:
        self._settings = settings
        self._beside = beside
        self._reporter = reporter
        self._store = store
        self._state: ClusterState | None = None
        self.copies = Copies(
            control,
            broker,
            sequences,
            address_for=self._address_for,
            notes=broker,
            ended=in_step(beside.tracker),
        )
        self.failover = Failover(
            settings.node,
            store,
            self.copies,
            client,
            _Dropper(control, broker),
            broker,
            events,
            probe=self._probe,
            lease=lease,
            address_for=self._address_for,
            gone=beside.tracker.refresh,
        )
        self.replicator = Replicator(
            settings.node,
            broker,
            client,
            served=self.served,
            exists=self._exists,
            candidates=self._candidates,
            standbys=settings.standbys,
            sequences=sequences,
        )

    async def run(self) -> None:
        """Do it until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._look(), name="members")
            tasks.create_task(self.failover.run(), name="failover")
            tasks.create_task(self.replicator.run(), name="replication")

    def verbs(self) -> Mapping[str, Verb]:
        """Return the requests of other nodes that are answered. They act on copies only, so no token is needed."""

        async def tell(request: Request) -> SecretBytes:
            batch = Batch.from_secret(request.payload)
            answer = await self.copies.take(request.peer.node, batch)
            if any(isinstance(item, Lost) for item in batch.items):
                self.failover.wake()
            return answer.to_secret()

        async def ask(request: Request) -> SecretBytes:
            return (await self.failover.testify(Inquiry.from_secret(request.payload))).to_secret()

        return {
            STANDBY: Verb(tell, fenced=False, deadline_s=14.0),
            STANDBY_ASK: Verb(ask, fenced=False, deadline_s=2.0),
        }

    async def leave(self) -> None:
        """Before this node acts as a member: drop what others took over. What cannot be dropped now, is later."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.failover.leave()
        except (StoreError, CharonError, TimeoutError) as error:
            log.warning("what others took over cannot be dropped yet: %s", error)

    def state(self) -> Mapping[str, int]:
        """Return how many copies of others' IKE_SAs are here, and of ours elsewhere that are not up to date."""
        return {"copies": len(self.copies), "behind": self.replicator.behind}

    # --- what is there --------------------------------------------------------------------------

    def _address_for(self, peer: IpAddress) -> IpAddress | None:
        return next((each.ip for each in self._settings.addresses if each.ip.version == peer.version), None)

    def _known(self) -> bool:
        return self._beside.session.status.state is LinkState.UP and self._beside.tracker.in_step

    def served(self) -> list[Served] | None:
        """Return the IKE_SAs that this node serves now; None: charon cannot be asked, and nothing is concluded."""
        if not self._known():
            return None
        return [self._told(sa) for sa in self._beside.tracker.sas.values() if is_served(sa)]

    def _exists(self, spis: IkeSpis) -> bool:
        return any((sa.initiator_spi, sa.responder_spi) == spis for sa in self._beside.tracker.sas.values())

    def _told(self, sa: IkeSa) -> Served:
        row = self._reporter.row(sa)
        peer = self._beside.plugin.peer(sa.uniqueid)
        return Served(
            row.key,
            IkeSpis(sa.initiator_spi, sa.responder_spi),
            Host(sa.path.local, sa.local_port),
            Host(sa.path.remote, sa.remote_port),
            tuple(
                (child.spi_in, child.spi_out) for child in sa.children if child.state is ChildState.INSTALLED
            ),
            peer_r=peer.r if peer is not None else False,
            own_r=True,
            pool=row.pool,
            site=row.site,
            vips=sa.remote_vips,
        )

    async def _look(self) -> None:
        while True:
            try:
                self._state = await self._store.state()
                self.replicator.wake()
            except StoreError as error:
                log.debug("the members are not known now: %s", error)
            await asyncio.sleep(LOOK_S)

    def _candidates(self) -> list[Candidate]:
        state = self._state
        if state is None:
            return []
        found = []
        for name, versioned in state.members.items():
            member = versioned.value
            report = state.reports.get(name)
            if name == self._settings.node or not member.transfer or is_dead(state, name):
                continue
            if report is not None and report.value.health is Health.IMPAIRED:
                continue
            serves = report.value.ike_sas if report is not None else 0
            found.append(
                Candidate(
                    name,
                    room=member.weight * (member.capacity.sas - serves),
                    site=member.site,
                    pools=member.pools,
                    families=frozenset(address.ip.version for address in member.addresses),
                )
            )
        return found

    async def _probe(self, address: IpAddress) -> bool:
        local = self._address_for(address)
        if local is None:
            return False
        try:
            await ike.exchange(local, address, "", ProbeSettings())
        except ProbeFailedError:
            return False
        return True


def in_step(tracker: SaTracker) -> Ended:
    """Given the model of the IKE_SAs, return what has it look whether one of them is gone."""

    async def ended(ike_id: int) -> None:
        try:
            await tracker.refresh(ike_id)
        except MobikectlError as error:
            log.info("IKE_SA %d cannot be asked for: %s", ike_id, error)

    return ended


class _Dropper:
    """Ends IKE_SAs of this charon silently."""

    def __init__(self, control: SaControl, broker: HaBroker) -> None:
        self.look = control.look
        self.remove = broker.remove
