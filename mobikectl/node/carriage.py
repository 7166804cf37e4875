"""Everything that a node needs to carry IKE_SAs over, put together: broker, transfer, the two sides of a handover."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from mobikectl.charon.ha_broker import open_broker
from mobikectl.charon.ha_holder import open_holder
from mobikectl.netlink.esp import EspSequences
from mobikectl.node.carry import Courses, HandoverCarrier
from mobikectl.node.charon_control import CharonControl
from mobikectl.node.charon_user import CharonUser
from mobikectl.node.fence import Fence
from mobikectl.node.handing import Handing
from mobikectl.node.intake import Intake
from mobikectl.node.standing import StandingBy, in_step, introduce
from mobikectl.node.untold import RekeyUntold
from mobikectl.node.watching import nobody
from mobikectl.taskgroup import TaskGroup
from mobikectl.transfer import StoreGuard, Tls, TransferClient, Verb, locate_by, serving
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.handover import OFFER, RECALL, START, Offer, Recall, Start
from mobikectl.wire.transfer import Greeting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from mobikectl.charon.ha_broker import HaBroker
    from mobikectl.cluster.node_settings import ClusterSettings, TransferSettings
    from mobikectl.cluster.store import Store
    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.node.copies import Copies
    from mobikectl.node.reporter import Beside, Reporter
    from mobikectl.node.watching import Watch
    from mobikectl.observe.events import EventLog
    from mobikectl.transfer import Request
    from mobikectl.wire.secret import SecretBytes

log = logging.getLogger(__name__)

TIDY_S: Final = 60.0


class Carriage:
    """What `carriage` yields: the executor's carrier, the HA broker, and this node's part in standing by."""

    def __init__(self, carrier: HandoverCarrier, broker: HaBroker, standing: StandingBy) -> None:
        self.carrier = carrier
        self.broker = broker
        self.standing = standing


@asynccontextmanager
async def carriage(
    settings: ClusterSettings,
    transfer: TransferSettings,
    instance: str,
    store: Store,
    beside: Beside,
    reporter: Reporter,
    events: EventLog,
    *,
    lease: Callable[[], int | None],
    find: Callable[[str], IkeSa | None],
    watch: Watch = nobody,
) -> AsyncIterator[Carriage]:
    """Given the node's settings and what runs beside, yield what carries IKE_SAs over while the context lasts.

    ``lease``: returns the lease under which this node is a member; None: it is none. ``find``: returns the IKE_SA that
    has a name in the cluster. ``watch``: is told each step.

    Raise MobikectlError when this node cannot: the HA port is taken, a certificate cannot be used, and so on.
    """
    async with AsyncExitStack() as stack:
        # A keeper may have to be started; a lease must not end meanwhile.
        holder = await asyncio.to_thread(open_holder)
        stack.callback(holder.close)
        # It is there before charon is, so that nobody else can be its peer.
        broker = await stack.enter_async_context(open_broker(holder, charon_uid=CharonUser(beside.session)))
        sequences = await stack.enter_async_context(EspSequences()) if beside.kernel is not None else None
        ours = frozenset(address.ip for address in settings.addresses)
        control = CharonControl(beside.plugin, beside.session, ours)
        tls = Tls(transfer)
        me = Greeting(settings.store.cluster, settings.node, instance)
        client = await stack.enter_async_context(TransferClient(me, tls, locate_by(store)))
        courses = Courses()

        async def heard(node: str, address: IpAddress) -> bool:
            return await standing.failover.anybody_hears(node, address)

        def r_of(sa: IkeSa) -> tuple[bool, bool]:
            peer = beside.plugin.peer(sa.uniqueid)
            return (peer.r, True) if peer is not None else (False, True)

        standing = StandingBy(
            settings, control, broker, client, sequences, store, beside, reporter, events, lease=lease
        )
        intake = Intake(
            control,
            broker,
            sequences,
            is_ours=ours.__contains__,
            notes=broker,
            watch=watch,
            ended=in_step(beside.tracker),
        )
        handing = Handing(
            control,
            broker,
            sequences,
            client,
            is_out=Fence(store, heard).is_out,
            told=courses.told,
            watch=watch,
            keeper=standing.copies if settings.standbys else None,
            is_left=standing.failover.is_left,
        )
        standing.failover.mind(handing.cede)
        carrier = HandoverCarrier(
            handing, broker, r_of=r_of, gone=beside.tracker.refresh, courses=courses, find=find
        )
        arriving: set[IkeSpis] = set()
        introduce(intake, standing.copies, standing.replicator.came, arriving=arriving)
        reporter.copies = standing.copies.__len__
        verbs = {**_verbs(intake, standing.copies, arriving), **standing.verbs()}
        await stack.enter_async_context(
            serving(me, tls, StoreGuard(store), verbs, host=str(transfer.address), port=transfer.port)
        )
        tasks = await stack.enter_async_context(TaskGroup())
        rekeying = RekeyUntold(
            control, broker, events, served=standing.served, coming=lambda spis: spis in intake.taken
        )
        works = (
            intake.expire(),
            _tidy(broker, intake, standing.copies, beside),
            standing.run(),
            rekeying.run(),
        )
        running = [tasks.create_task(work) for work in works]
        try:
            yield Carriage(carrier, broker, standing)
        finally:
            for task in running:
                task.cancel()


def _verbs(intake: Intake, copies: Copies, arriving: set[IkeSpis]) -> Mapping[str, Verb]:
    async def offer(request: Request) -> SecretBytes:
        wanted = Offer.from_secret(request.payload)
        # We may be the one that stands by for what it was before a rekeying: that has the same CHILD_SAs.
        generations = set(wanted.chain.generations)
        arriving.update(generations)
        try:
            for spis in generations - {wanted.spis}:
                await copies.give_up(spis)
            return (await intake.offer(wanted, request.peer.node)).to_secret()
        finally:
            arriving.difference_update(generations)

    async def start(request: Request) -> SecretBytes:
        return (await intake.start(Start.from_secret(request.payload), request.peer.node)).to_secret()

    async def recall(request: Request) -> SecretBytes:
        recalled = Recall.from_secret(request.payload)
        return (await intake.recall(recalled, request.peer.node)).to_secret()

    return {
        OFFER: Verb(offer, deadline_s=8.0),
        START: Verb(start, deadline_s=8.0),
        RECALL: Verb(recall, fenced=False, deadline_s=8.0),
    }


async def _tidy(broker: HaBroker, intake: Intake, copies: Copies, beside: Beside) -> None:
    """Forget what charon has not had for a while, and so will not have again."""
    before: frozenset[IkeSpis] = frozenset()
    while True:
        await asyncio.sleep(TIDY_S)
        if not beside.tracker.in_step:
            continue
        living = {IkeSpis(sa.initiator_spi, sa.responder_spi) for sa in beside.tracker.sas.values()}
        absent = broker.current() - living - intake.taken - copies.all()
        if gone := absent & before:
            broker.keep_only(broker.current() - gone)
            log.info("the HA broker forgot %d IKE_SAs that charon does not have any more", len(gone))
        before = absent
