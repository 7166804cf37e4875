"""Copies of other nodes' IKE_SAs at this node, and which of them is served here because its node died.

The copies follow what their node tells (`mobikectl.node.replicator`). This node's charon is what counts: a copy is
there when charon has it, and served when its client answered from there. docs/moves.md says when it may be served.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from mobikectl.errors import CharonError, MobikectlError, MoveError, NetlinkError, NotFoundError
from mobikectl.node.control import unheard
from mobikectl.node.doubts import Doubts
from mobikectl.node.passive import CopyTimes, Passive
from mobikectl.node.takeover import Takeover
from mobikectl.switch.turns import OneByOne
from mobikectl.taskgroup import TaskGroup
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis, mid_messages
from mobikectl.wire.handover import Offer
from mobikectl.wire.standby import All, Gone, Lost, Touch, Wants

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from mobikectl.model import IpAddress
    from mobikectl.node.control import Ended, Notes, SaControl, Sequences
    from mobikectl.node.intake import Hosts
    from mobikectl.node.passive import CopyKeeper
    from mobikectl.wire.ha_chain import HaChain
    from mobikectl.wire.standby import Batch, Numbers

log = logging.getLogger(__name__)

_COPY: Final = "copy/"
MAX_COPIES: Final = 50_000


@dataclass(slots=True)
class Copy:
    """One of them. ``source``: the node that serves it."""

    source: str
    offer: Offer
    numbers: dict[int, tuple[float, Numbers]] = field(default_factory=dict)
    """By inbound SPI: when they were told, and what."""
    lost: bool = False
    """Its node says that its charon has lost it."""
    starting: bool = False
    """It is about to be served here."""
    waiting: bool = False
    """The IKE_SA was handed over from here and is frozen until it is dropped: charon gets the copy then."""
    over: bool = False
    """Another node serves it since its own died."""


class Offers(Protocol):
    """What other nodes offer to this one (`mobikectl.node.intake.Intake`)."""

    @property
    def taken(self) -> frozenset[IkeSpis]:
        """What is here of that, and is not served yet."""

    def taken_over(self, spis: IkeSpis, *, served: bool) -> None:
        """A copy was to be served because its node is dead, and is or is not: an offer of it is void."""


class Copies:
    """All copies of this node.

    ``address_for``: given a peer's address, ours at which it would be served; None: there is none of that family.
    """

    def __init__(
        self,
        control: SaControl,
        broker: CopyKeeper,
        sequences: Sequences | None,
        *,
        address_for: Callable[[IpAddress], IpAddress | None],
        notes: Notes | None = None,
        hosts: Hosts | None = None,
        times: CopyTimes | None = None,
        ended: Ended = unheard,
    ) -> None:
        times = times or CopyTimes()
        self._passive = Passive(control, broker, times, ended)
        self._takeover = Takeover(control, broker, self._passive, sequences, hosts, times)
        self._broker = broker
        self._address_for = address_for
        self._notes = notes
        self._offers: Offers | None = None
        self._arriving: Container[IkeSpis] = frozenset()
        self._copies: dict[IkeSpis, Copy] = {}
        self._handed: set[IkeSpis] = set()
        """Handed over from here, and not dropped yet."""
        self._doubts = Doubts(broker, self._passive, self._copies)
        self.turns: OneByOne[IkeSpis] = OneByOne()
        """Who deals with an IKE_SA: also who takes it over here (`mobikectl.node.intake`)."""

    def mind(self, offers: Offers, arriving: Container[IkeSpis]) -> None:
        """Given what other nodes offer to this one, and of which IKE_SAs offers are ``arriving``: leave those alone.

        Before anything is copied (`mobikectl.node.standing.introduce`).
        """
        self._offers, self._arriving = offers, arriving

    def __len__(self) -> int:
        return len(self._copies)

    def of(self, source: str) -> dict[IkeSpis, Copy]:
        """Given a node, return the copies of its IKE_SAs."""
        return {spis: copy for spis, copy in self._copies.items() if copy.source == source}

    def all(self) -> frozenset[IkeSpis]:
        """Return what there are copies of."""
        return frozenset(self._copies)

    def sources(self) -> frozenset[str]:
        """Return the nodes that this one has copies of."""
        return frozenset(copy.source for copy in self._copies.values())

    def find(self, spis: IkeSpis) -> Copy | None:
        """Given an IKE_SA, return the copy of it."""
        return self._copies.get(spis)

    # --- what its node tells --------------------------------------------------------------------

    async def take(self, source: str, batch: Batch) -> Wants:
        """Given a node and what it tells, have the copies follow; return what is missing or cannot be taken."""
        missing: set[IkeSpis] = set()
        refused: set[IkeSpis] = set()
        offers = [item for item in batch.items if isinstance(item, Offer)]
        async with TaskGroup() as tasks:
            taking = [(offer.spis, tasks.create_task(self._offered(source, offer))) for offer in offers]
        refused |= {spis for spis, task in taking if not task.result()}
        for item in batch.items:
            match item:
                case Touch(spis=spis):
                    if spis not in refused and not await self._touched(source, item):
                        missing.add(spis)
                case Gone(spis=spis):
                    if self._is_of(source, spis):
                        await self.give_up(spis)
                case Lost(spis=spis):
                    if self._is_of(source, spis):
                        self._copies[spis].lost = True
                    else:
                        refused.add(spis)
                case All():
                    missing |= await self._compared(source, item)
        return Wants(frozenset(missing - refused), frozenset(refused))

    def _is_of(self, source: str, spis: IkeSpis) -> bool:
        copy = self._copies.get(spis)
        return copy is not None and copy.source == source

    async def _compared(self, source: str, listed: All) -> set[IkeSpis]:
        copies = {spis: copy for spis, copy in self.of(source).items() if listed.about(spis)}
        held = copies.keys()
        for spis in held - listed.spis:
            if copies[spis].lost:
                continue  # its node has it no more than before
            await self.give_up(spis)
        return {spis for spis in listed.spis if spis not in held}

    async def _offered(self, source: str, offer: Offer) -> bool:
        """Take a whole copy; return whether it is here then."""
        address = self._address_for(offer.remote.address)
        if address is None or (len(self._copies) >= MAX_COPIES and offer.spis not in self._copies):
            return False
        wanted = offer.chain.at(Host(address, offer.local.port), offer.remote)
        try:
            if self._is_coming(offer.spis):
                return False  # and its turn is not waited for: what is told with it waits, too
            async with self.turns.alone(offer.spis):
                held = await self._passive.look(offer.spis)
                before = self._copies.get(offer.spis)
                if held is not None and held.serving:
                    return False
                if self._is_coming(offer.spis) or (before is not None and before.starting):
                    return False
                if offer.spis in self._handed or (held is not None and held.frozen):
                    # Its new node tells what it made of what we gave it.
                    self._put_by(source, offer)
                    return True
                if (other := await self._passive.rival(wanted)) is not None:
                    log.info("no copy of %s of %s: its client has %s here", offer.name, source, other)
                    await self._discard(offer.spis)
                    return False
                if not (held is not None and await self._passive.changed(held, wanted)):
                    await self._make(wanted)
                copy = Copy(source, offer)
                if before is not None and before.source == source:
                    copy.numbers = before.numbers
                self._copies[offer.spis] = copy
                self._note(offer.spis, copy)
                self._doubts.made(offer.spis)
        except (MobikectlError, TimeoutError) as error:
            log.warning("no copy of %s of %s: %s", offer.name, source, error)
            await self._discard(offer.spis)
            return False
        return True

    def _is_coming(self, spis: IkeSpis) -> bool:
        """Whether it is being moved to this node: then it is none of ours to make."""
        return spis in self._arriving or self._is_offered(spis)

    def _is_offered(self, spis: IkeSpis) -> bool:
        """Whether its node has offered it to this one: then it is none of ours to end."""
        return self._offers is not None and spis in self._offers.taken

    async def _make(self, wanted: HaChain) -> None:
        for spis in wanted.generations:
            if spis != wanted.spis:
                self.forget(spis)
        await self._passive.make(wanted)

    async def _touched(self, source: str, touch: Touch) -> bool:
        copy = self._copies.get(touch.spis)
        if copy is None or copy.source != source:
            return False
        now = time.monotonic()
        for numbers in touch.numbers:
            copy.numbers[numbers.spi_in] = (now, numbers)
        if copy.starting:
            return True  # charon counts for itself
        messages = mid_messages(copy.offer.chain.ike_id, *touch.mids)
        try:
            async with self.turns.alone(touch.spis):
                if self._copies.get(touch.spis) is not copy or copy.starting:
                    return False
                if copy.waiting:
                    copy.offer = replace(copy.offer, chain=copy.offer.chain.counting(*touch.mids))
                    return True
                await self._broker.follow(touch.spis, messages)
        except (NotFoundError, CharonError) as error:
            log.info("%s cannot follow: %s", copy.offer.name, error)
            return False
        return True

    # --- what was handed over from here --------------------------------------------------------------

    def _put_by(self, target: str, offer: Offer, numbers: Iterable[Numbers] = ()) -> None:
        now = time.monotonic()
        copy = Copy(target, offer, {each.spi_in: (now, each) for each in numbers}, waiting=True)
        before = self._copies.get(offer.spis)
        if before is not None and before.source == target:
            copy.numbers, copy.lost = before.numbers | copy.numbers, before.lost
        self._copies[offer.spis] = copy

    def handed(self, target: str, offer: Offer, numbers: Iterable[Numbers] = ()) -> None:
        """Given what was handed over and is frozen here, and ESP numbers that the target is not below, put it by.

        It is a copy of the target's as soon as it is `dropped`, unless the target says before that it has a standby.
        What the target told already is later, and counts.
        """
        self._handed.add(offer.spis)
        if not self._is_of(target, offer.spis):
            self._put_by(target, offer, numbers)

    async def dropped(self, spis: IkeSpis) -> None:
        """Given an IKE_SA that was `handed` over, and that charon has dropped: have charon take the copy of it.

        Nothing happens when the target has its standby. A copy that cannot be made is said in the log.
        """
        async with self.turns.alone(spis):
            self._handed.discard(spis)
            copy = self._copies.get(spis)
            if copy is None or not copy.waiting:
                return
            address = self._address_for(copy.offer.remote.address)
            try:
                if address is None:
                    raise MoveError("this node has no such address", hint="its node chooses another")
                if (other := await self._passive.rival(copy.offer.chain)) is not None:
                    raise MoveError(f"its client has {other} here", hint="its node chooses another")
                await self._make(copy.offer.chain.at(Host(address, copy.offer.local.port), copy.offer.remote))
                copy.waiting = False
                self._note(spis, copy)
                self._doubts.made(spis)
            except MobikectlError as error:
                log.warning("no copy of %s, which was handed over: %s", copy.offer.name, error)
                await self._discard(spis)

    def kept(self, spis: IkeSpis) -> None:
        """Given an IKE_SA that may have been `handed` over and is served here after all, have no copy of it."""
        self._handed.discard(spis)
        copy = self._copies.get(spis)
        if copy is not None and copy.waiting:
            del self._copies[spis]

    def taken_over(self, spis: IkeSpis, source: str) -> Copy | None:
        """Given what another node took over from one that died, return our copy, which is never to be served."""
        copy = self._copies.get(spis)
        if copy is None or copy.source != source or copy.starting:
            return None
        copy.over = True
        return copy

    # --- what is offered to this node, which stands by for it (the caller has the turn) ---------------

    async def lend(self, source: str, offer: Offer) -> bool:
        """Given what a node offers, return whether charon has it, passive, because this node stands by for it.

        It is brought up to date. Raise what charon raises.
        """
        copy = self._lent(offer.spis)
        held = await self._passive.look(offer.spis)
        if copy is None or copy.source != source or held is None or held.serving or held.frozen:
            return False
        if not await self._passive.changed(held, offer.there):
            return False
        self.lent(source, offer)
        return True

    def lent(self, source: str, offer: Offer) -> None:
        """Given what charon has of an offer now, passive: it is the copy of it, if there was one."""
        copy = self._lent(offer.spis)
        if copy is None:
            return
        if copy.source != source:
            self.forget(offer.spis)
            return
        copy.offer = offer
        self._note(offer.spis, copy)

    def keeps(self, spis: IkeSpis) -> bool:
        """Return whether what is passive stays here when its node takes its offer back: it is the copy of it."""
        copy = self._lent(spis)
        return copy is not None and not copy.over

    def begun(self, spis: IkeSpis) -> None:
        """It is about to be served here, as its node wishes."""
        if (copy := self._lent(spis)) is not None:
            copy.starting = True

    async def again(self, spis: IkeSpis) -> None:
        """What was begun comes to nothing: have charon drop it, and take the copy of it again.

        Raise MoveError: it is still served here, and what charon raises. A copy that cannot be made is said in the log.
        """
        copy = self._copies[spis]
        chain = self._chain_of(copy)
        await self._passive.end(spis)
        copy.starting = False
        try:
            await self._make(chain or copy.offer.there)
            self._doubts.made(spis)
        except MobikectlError as error:
            log.warning(
                "no copy of %s, which was not to be served here after all: %s", copy.offer.name, error
            )
            self.forget(spis)
            self._broker.remove(spis)

    def forget(self, spis: IkeSpis) -> None:
        """There is no copy of it any more. charon is told nothing."""
        self._copies.pop(spis, None)
        self._note(spis, None)

    def _chain_of(self, copy: Copy) -> HaChain | None:
        try:
            return self._broker.chain_of(copy.offer.spis, copy.offer.chain.children)
        except NotFoundError:
            return None

    def _lent(self, spis: IkeSpis) -> Copy | None:
        copy = self._copies.get(spis)
        return None if copy is None or copy.waiting else copy

    # --- giving up ------------------------------------------------------------------------------

    async def give_up(self, spis: IkeSpis, only: Copy | None = None) -> None:
        """Given an IKE_SA, end the copy of it (``only`` this one), without a word to its peer.

        Nothing happens when it is served here.
        """
        async with self.turns.alone(spis):
            copy = self._copies.get(spis)
            if copy is None or copy.starting or (only is not None and copy is not only):
                return
            await self._discard(spis)

    async def _discard(self, spis: IkeSpis) -> None:
        self.forget(spis)
        if self._is_offered(spis):
            return
        try:
            held = await self._passive.look(spis)
            if held is not None and not held.serving and not held.frozen:
                await self._passive.end(spis)
        except MobikectlError as error:
            log.info("the copy of %s cannot be dropped: %s", spis, error)

    # --- serving --------------------------------------------------------------------------------

    async def serving(self, spis: Iterable[IkeSpis]) -> frozenset[IkeSpis]:
        """Given IKE_SAs, return those that this node's charon serves, or served until they were frozen just now."""
        found = set()
        for each in spis:
            held = await self._passive.look(each)
            if held is not None and (held.serving or (held.frozen and each not in self._handed)):
                found.add(each)
        return frozenset(found)

    async def start(self, spis: IkeSpis, begun: Callable[[], None] = lambda: None) -> str | None:
        """Given an IKE_SA whose node is dead, serve it. Return None when its client answered, or why it is not served.

        ``begun`` is called when its client was told, and is waited for.
        Then the copy is dropped. Raise what charon raises.
        """
        async with self.turns.alone(spis):
            copy = self._copies.get(spis)
            if copy is None or copy.waiting or copy.over:
                held = await self._passive.look(spis)
                return None if held is not None and held.serving else "it is not here any more"
            copy.starting = True
            try:
                other = await self._passive.rival(spis)
                if other is None:
                    why = await self._takeover.serve(copy, begun)
                else:
                    why = f"its client has {other} here"
            except (MoveError, NetlinkError, NotFoundError) as error:
                why = str(error)
            finally:
                copy.starting = False
            self.forget(spis)
            if self._offers is not None:
                self._offers.taken_over(spis, served=why is None)
            if why is not None:
                await self._passive.drop(spis)
            return why

    async def run(self) -> None:
        """Rekey the CHILD_SAs of what was started, and give up copies whose clients have come anew, for ever."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._takeover.renew(), name="new keys")
            tasks.create_task(self._doubts.run(self.give_up), name="copies beside IKE_SAs")

    # --- memory ---------------------------------------------------------------------------------

    def _note(self, spis: IkeSpis, copy: Copy | None) -> None:
        if self._notes is None:
            return
        value = None
        if copy is not None:
            offer = copy.offer
            hosts = [str(offer.local.address), offer.local.port, str(offer.remote.address), offer.remote.port]
            value = json.dumps([copy.source, offer.name, offer.peer_r, offer.own_r, *hosts])
        try:
            self._notes.note(_COPY + spis.hex, value)
        except MoveError as error:
            log.info("%s: %s", spis, error)

    async def remember(self) -> int:
        """After a restart of this process: take up the copies that charon still has. Return how many."""
        found = 0
        for key, value in list((self._notes.notes if self._notes is not None else {}).items()):
            if not key.startswith(_COPY):
                continue
            spis = IkeSpis.from_hex(key.removeprefix(_COPY))
            try:
                copy = await self._remembered(spis, value)
            except (MobikectlError, ValueError) as error:
                log.info("the copy of %s is not known any more: %s", spis, error)
                copy = None
            if copy is None:
                self._note(spis, None)
            elif spis not in self._copies:
                self._copies[spis] = copy
                self._doubts.made(spis)
                found += 1
        return found

    async def _remembered(self, spis: IkeSpis, value: str) -> Copy | None:
        held = await self._passive.look(spis)
        if held is None or held.serving or held.frozen:
            return None
        source, name, peer_r, own_r, local, local_port, remote, remote_port = json.loads(value)
        chain = self._broker.chain_of(spis, held.inbound)
        here, there = Host(ip_address(local), local_port), Host(ip_address(remote), remote_port)
        return Copy(source, Offer(0, name, chain, here.address, here, there, peer_r, own_r, held.children))
