"""What charon has told about its IKE_SAs, kept so that each can be told again to another charon.

Pure bookkeeping: messages in, chains out. `HaBroker` does the I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.errors import NotFoundError
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType, Host, IkeId
from mobikectl.wire.ha_chain import Flow, HaChain, IkeSpis, flows_of, mid_messages, mids_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_INHERITED = (HaAttribute.LOCAL_VIP, HaAttribute.REMOTE_VIP, HaAttribute.PEER_ADDR)
"""A rekeyed IKE_SA keeps them, but charon tells a new IKE_SA's virtual addresses only after IKE_AUTH."""
A = HaAttribute


class ChainIncompleteError(NotFoundError):
    """Not everything is known that another charon needs: messages were missed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be kept at most; seconds for the times."""

    generations: int = 100_000
    """IKE_SAs, those kept for the CHILD_SAs of a later one included."""
    depth: int = 16
    """Generations of one IKE_SA."""
    children: int = 1_000
    """CHILD_SAs of one generation."""
    pending_s: float = 180.0
    """An IKE_SA that is not established after this is forgotten."""
    restart_s: float = 3.0
    """charon asks for a RESYNC this long after its start at most: what is older is of the charon before."""


@dataclass(slots=True)
class _Generation:
    add: HaMessage
    spis: IkeSpis
    born: float
    parent: IkeSpis | None = None
    successor: IkeSpis | None = None
    """The confirmed IKE_SA that replaced this one."""
    heirs: set[IkeSpis] = field(default_factory=set)
    """Those that may: a rekeying can be tried again, and from both sides at once."""
    update: HaMessage | None = None
    deleted: bool = False
    mids: dict[HaType, HaMessage] = field(default_factory=dict)
    children: dict[int, HaMessage] = field(default_factory=dict)
    flows: dict[int, frozenset[Flow]] = field(default_factory=dict)
    """What they carry."""


@dataclass(slots=True)
class HaChains:
    """Every IKE_SA that charon told about.

    `feed` it with each message in order, `prune` it now and then. `missed` counts messages that could not
    be placed: about an unknown IKE_SA, or beyond a limit.
    """

    limits: Limits = field(default_factory=Limits)
    missed: int = 0
    _generations: dict[IkeSpis, _Generation] = field(default_factory=dict)
    _carriers: dict[Flow, set[tuple[IkeSpis, int]]] = field(default_factory=dict)
    """The CHILD_SAs of a flow, each by its IKE_SA and its inbound SPI."""

    def __len__(self) -> int:
        return sum(1 for each in self._generations.values() if self._is_current(each))

    def __contains__(self, spis: IkeSpis) -> bool:
        return spis in self._generations

    def current(self) -> Iterator[IkeSpis]:
        """Yield the SPIs of every established IKE_SA."""
        return (spis for spis, each in self._generations.items() if self._is_current(each))

    @staticmethod
    def _is_current(generation: _Generation) -> bool:
        return generation.update is not None and generation.successor is None and not generation.deleted

    def replaced(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA, return whether a rekeying took its place."""
        known = self._generations.get(spis)
        return known is not None and known.successor is not None

    # --- messages in ----------------------------------------------------------------------------

    def feed(self, message: HaMessage, now: float) -> bool:
        """Given a message of charon's and the time, take it in. Return whether anything is known now that was not.

        Status and segment messages say nothing about an IKE_SA; a RESYNC says that charon has just started.
        """
        ike_id = message.ike_id
        if ike_id is None:
            return message.kind is HaType.RESYNC and self._restarted(now)
        spis = IkeSpis.of(ike_id)
        if message.kind is HaType.IKE_ADD:
            return self._added(spis, message, now)
        generation = self._generations.get(spis)
        if generation is None:
            self.missed += message.kind in {HaType.IKE_UPDATE, HaType.CHILD_ADD}
            return False
        match message.kind:
            case HaType.IKE_UPDATE:
                self._updated(generation, message)
            case HaType.IKE_MID_INITIATOR | HaType.IKE_MID_RESPONDER:
                generation.mids[message.kind] = message
            case HaType.IKE_DELETE:
                self._deleted(generation)
            case HaType.CHILD_ADD:
                return self._child_added(generation, message)
            case HaType.CHILD_DELETE:
                self._child_deleted(generation, message.need(A.INBOUND_SPI, int))
            case _:
                return False
        return True

    def count_from(self, spis: IkeSpis, ours: int, theirs: int) -> tuple[HaMessage, ...]:
        """Given an IKE_SA and the message IDs of its next requests, ours and the peer's, take them in.

        Return the messages that say so; none when the IKE_SA is not known.
        """
        generation = self._generations.get(spis)
        if generation is None or generation.add.ike_id is None:
            return ()
        messages = mid_messages(generation.add.ike_id, ours, theirs)
        generation.mids.update((message.kind, message) for message in messages)
        return messages

    def counts(self, spis: IkeSpis) -> tuple[int | None, int | None]:
        """Given an IKE_SA, return the message IDs of the next requests, ours and the peer's; None: not told."""
        generation = self._generations.get(spis)
        return mids_of({} if generation is None else generation.mids)

    def _added(self, spis: IkeSpis, message: HaMessage, now: float) -> bool:
        old = message.get(A.IKE_REKEY_ID, IkeId)
        parent = IkeSpis.of(old) if old is not None else None
        if (known := self._generations.get(spis)) is not None:
            known.add = message
            return True
        if len(self._generations) >= self.limits.generations:
            self.missed += 1
            return False
        generation = _Generation(message, spis, now)
        if parent is not None and parent in self._generations:
            generation.parent = parent
            self._generations[parent].heirs.add(spis)
        self._generations[spis] = generation
        return True

    def _updated(self, generation: _Generation, message: HaMessage) -> None:
        parent = self._generations.get(generation.parent) if generation.parent is not None else None
        if generation.update is not None:
            generation.update = _merged(generation.update, message)
        elif message.get(A.CONFIG_NAME, str) is None:
            self.missed += 1
        else:
            generation.update = message
            if parent is not None and parent.update is not None:
                generation.update = _inheriting(message, parent.update)
        if generation.update is not None and parent is not None and parent.successor is None:
            parent.successor = generation.spis
            self._shorten(generation)

    def _deleted(self, generation: _Generation) -> None:
        generation.deleted = True
        if not generation.heirs:
            self.forget(generation.spis)

    def _child_added(self, generation: _Generation, message: HaMessage) -> bool:
        if len(generation.children) >= self.limits.children:
            self.missed += 1
            return False
        spi = message.need(A.INBOUND_SPI, int)
        self._take_child(generation, spi)
        generation.children[spi] = message
        generation.flows[spi] = flows_of(generation.update, message)
        for flow in generation.flows[spi]:
            self._carriers.setdefault(flow, set()).add((generation.spis, spi))
        return True

    def _child_deleted(self, generation: _Generation, spi: int) -> None:
        for each in self._lineage(self._newest(generation)):
            self._take_child(each, spi)
        self._shorten(self._newest(generation))

    def _take_child(self, generation: _Generation, spi: int) -> None:
        generation.children.pop(spi, None)
        for flow in generation.flows.pop(spi, ()):
            self._carriers[flow].discard((generation.spis, spi))
            if not self._carriers[flow]:
                del self._carriers[flow]

    def _take(self, spis: IkeSpis) -> _Generation | None:
        generation = self._generations.pop(spis, None)
        if generation is not None:
            for spi in list(generation.children):
                self._take_child(generation, spi)
        return generation

    def _restarted(self, now: float) -> bool:
        old = [each for each in self._generations.values() if now - each.born > self.limits.restart_s]
        for each in old:
            self._take(each.spis)
        return bool(old)

    # --- order ----------------------------------------------------------------------------------

    def _newest(self, generation: _Generation) -> _Generation:
        while generation.successor is not None and generation.successor in self._generations:
            generation = self._generations[generation.successor]
        return generation

    def _lineage(self, generation: _Generation) -> list[_Generation]:
        """Return it and those before it, the oldest first."""
        found = [generation]
        while (parent := found[-1].parent) is not None and parent in self._generations:
            found.append(self._generations[parent])
        return found[::-1]

    def _shorten(self, newest: _Generation) -> None:
        """Forget the oldest generations while no CHILD_SA needs them, and those that are too many."""
        line = self._lineage(newest)
        while len(line) > 1 and (not line[0].children or len(line) > self.limits.depth):
            gone = line.pop(0)
            self._take(gone.spis)
            line[0].parent = None

    def forget(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA, forget it and the generations kept for it alone. Return whether it was known."""
        generation = self._take(spis)
        if generation is None:
            return False
        parent = self._generations.get(generation.parent) if generation.parent is not None else None
        if parent is not None:
            parent.heirs.discard(spis)
            if parent.successor == spis or (parent.deleted and not parent.heirs):
                self.forget(parent.spis)
        return True

    def prune(self, now: float) -> int:
        """Given the time, forget what never got established. Return how many generations that were."""
        late = [
            each
            for each in self._generations.values()
            if each.update is None and now - each.born > self.limits.pending_s
        ]
        for each in late:
            self.forget(each.spis)
        return len(late)

    def keep_only(self, living: Collection[IkeSpis], now: float) -> int:
        """Given the IKE_SAs that charon has, forget the others (but not what is younger than a listing takes).

        Return how many were forgotten.
        """
        gone = [
            spis
            for spis in self.current()
            if spis not in living and now - self._generations[spis].born > self.limits.restart_s
        ]
        for spis in gone:
            self.forget(spis)
        return len(gone)

    # --- chains out -----------------------------------------------------------------------------

    def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
        """Given an IKE_SA and the inbound SPIs of its living CHILD_SAs (None: all known), return its chain.

        Raise NotFoundError when the IKE_SA is unknown, ChainIncompleteError when a message was missed.
        """
        newest = self._generations.get(spis)
        if newest is None or not self._is_current(newest):
            raise NotFoundError(
                f"no IKE_SA {spis} is known from charon's HA messages",
                hint="it was established while nobody listened: rekey it and its CHILD_SAs once",
            )
        line = self._lineage(newest)
        wanted = {spi for each in line for spi in each.children} if children is None else set(children)
        if missing := wanted - {spi for each in line for spi in each.children}:
            raise ChainIncompleteError(
                f"of IKE_SA {spis} {len(missing)} CHILD_SAs are not known from charon's HA messages",
                hint="they were made while nobody listened: rekey them once",
            )
        while len(line) > 1 and not wanted & line[0].children.keys():
            line.pop(0)
        messages: list[HaMessage] = []
        for each in line:
            if each.update is None:
                raise ChainIncompleteError(
                    f"of IKE_SA {spis} a generation is not known from charon's HA messages",
                    hint="rekey its CHILD_SAs once",
                )
            messages += [each.add, each.update]
            messages += [message for spi, message in each.children.items() if spi in wanted]
        return HaChain((*messages, *newest.mids.values()))

    def untold(self, spis: IkeSpis, children: Collection[int]) -> frozenset[int] | None:
        """Given an IKE_SA and the inbound SPIs of its living CHILD_SAs, return those without which it has a chain.

        None: the IKE_SA itself is unknown, and so has none.
        """
        newest = self._generations.get(spis)
        if newest is None or not self._is_current(newest):
            return None
        told: set[int] = set()
        for each in reversed(self._lineage(newest)):
            if each.update is None:
                break  # what was made under it, or before, is of no use without it
            told |= each.children.keys()
        return frozenset(children) - told

    def rivals(self, ike_sa: HaChain | IkeSpis) -> frozenset[IkeSpis]:
        """Given an IKE_SA, return all others that have a CHILD_SA for the same flow: of the same peer, same selectors.

        Of one that is unknown there are none.
        """
        if isinstance(ike_sa, HaChain):
            line, flows = set(ike_sa.generations), ike_sa.flows
        else:
            known = self._generations.get(ike_sa)
            generations = [] if known is None else self._lineage(self._newest(known))
            line = {each.spis for each in generations}
            flows = frozenset(flow for each in generations for found in each.flows.values() for flow in found)
        found = {
            self._newest(self._generations[spis]).spis
            for flow in flows
            for spis, _ in self._carriers.get(flow, ())
        }
        return frozenset(found - line)

    def snapshot(self) -> Iterator[HaMessage]:
        """Yield messages which, fed in this order, make all of this again."""
        for newest in list(self._generations.values()):
            if newest.successor is not None and newest.successor in self._generations:
                continue
            for each in self._lineage(newest):
                yield each.add
                parent = self._generations.get(each.parent) if each.parent is not None else None
                if parent is not None and parent.deleted:
                    yield HaMessage.of(HaType.IKE_DELETE, parent.add.items[_index(parent.add)])
                if each.update is not None:
                    yield each.update
                yield from each.children.values()
                yield from each.mids.values()


def _index(message: HaMessage) -> int:
    return next(number for number, (name, _) in enumerate(message.items) if name is A.IKE_ID)


def _merged(before: HaMessage, after: HaMessage) -> HaMessage:
    """Given two IKE_UPDATEs, return the one that says both, the later one's values counting."""
    return before.having(item for item in after.items if item[0] is not A.IKE_ID)


def _inheriting(update: HaMessage, parent: HaMessage) -> HaMessage:
    """Given the first IKE_UPDATE of a rekeyed IKE_SA and that before, return it with what it keeps from there."""
    kept = [
        (name, host) for name in _INHERITED if not update.all(name, Host) for host in parent.all(name, Host)
    ]
    return update.having(kept)
