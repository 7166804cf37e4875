"""IKE_SAs of other nodes that charon has, passive: made of what the HA broker is told, kept up to date, and ended.

charon does not answer HA messages: what became of them is looked up (`mobikectl.node.imported`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import MobikectlError, MoveError, NotFoundError
from mobikectl.node import imported
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType
from mobikectl.wire.ha_chain import MIDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from mobikectl.node.control import Ended, HeldSa, SaControl
    from mobikectl.wire.ha_chain import HaChain, IkeSpis

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyTimes:
    """Seconds."""

    appear_s: float = 3.0
    """charon has made the IKE_SA and its CHILD_SAs of the messages."""
    answer_s: float = 1.0
    """The client answers, before other message IDs are tried."""
    give_up_s: float = 12.0
    """A client that has not answered until then is not there; its copy is dropped."""
    look_s: float = 0.03
    heard_s: float = 0.06
    """Whether a client has answered is looked at so often."""
    renew_s: float = 1.0
    """The CHILD_SAs of what was started are rekeyed so long after that, one after the other."""


class CopyKeeper(Protocol):
    """The HA broker (`mobikectl.charon.ha_broker.HaBroker`)."""

    def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
        """Return an IKE_SA's chain. Raise NotFoundError."""

    def rivals(self, ike_sa: HaChain | IkeSpis) -> frozenset[IkeSpis]:
        """Return the other IKE_SAs of its peer that have a CHILD_SA of the same traffic selectors."""

    def listen(self, listener: Callable[[IkeSpis, bool], None]) -> Callable[[], None]:
        """Have the listener told of each IKE_SA that changed, and whether it ended."""

    async def replay(self, chain: HaChain) -> None:
        """Tell a chain to charon. Raise MoveError, CharonUnreachableError."""

    async def follow(self, spis: IkeSpis, messages: Sequence[HaMessage]) -> None:
        """Tell charon what changed of a replayed one. Raise NotFoundError, CharonUnreachableError."""

    def count_from(self, spis: IkeSpis, ours: int, theirs: int) -> None:
        """Remember the message IDs of the next requests of one that is about to be served."""

    def remove(self, spis: IkeSpis) -> None:
        """Have charon drop an IKE_SA silently. Raise CharonUnreachableError."""

    def forget(self, spis: IkeSpis) -> None:
        """Forget an IKE_SA."""


class Passive:
    """charon's passive IKE_SAs. The caller has the turn of the one that it deals with."""

    def __init__(self, control: SaControl, broker: CopyKeeper, times: CopyTimes, ended: Ended) -> None:
        self._control = control
        self._broker = broker
        self._times = times
        self._ended = ended

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        """Return what charon has of an IKE_SA; None: nothing, or it is just being made."""
        return await imported.find(self._control, spis)

    async def rival(self, ike_sa: HaChain | IkeSpis) -> IkeSpis | None:
        """Return an IKE_SA that is served here, whose traffic a copy would take: of the same peer, the same selectors.

        What is installed last is what the kernel sends by, passive or not, and the peer may have left the one copied.
        """
        return await imported.served(self.look, self._broker.rivals(ike_sa))

    async def changed(self, held: HeldSa, wanted: HaChain) -> bool:
        """Bring a copy that charon has up to date, if only CHILD_SAs came or went; return whether it is."""
        try:
            known = self._broker.chain_of(held.spis, held.inbound)
        except NotFoundError:
            return False
        if _frame(known) != _frame(wanted):
            return False
        there, here = _children(wanted), _children(known)
        if any(here[spi] != there[spi] for spi in here.keys() & there.keys()):
            return False
        messages = [there[spi] for spi in there.keys() - here.keys()]
        messages += [_child_delete(here[spi]) for spi in here.keys() - there.keys()]
        if messages:
            await self._broker.follow(held.spis, [*messages, *_mids(wanted)])
            await self.appeared(held.spis, wanted.children)
        return True

    async def make(self, wanted: HaChain) -> None:
        """Have charon make it. What it has of earlier generations is ended: the kernel takes their CHILD_SAs once.

        Raise MoveError, and what charon raises.
        """
        for spis in wanted.generations:
            await self.end(spis)
        await imported.require(self._control, wanted)
        await self._broker.replay(wanted)
        await self.appeared(wanted.spis, wanted.children)

    async def appeared(self, spis: IkeSpis, children: Collection[int]) -> HeldSa:
        """Return it as soon as charon has it with these CHILD_SAs. Raise MoveError."""
        return await imported.appeared(
            self.look,
            spis,
            lambda held: held.inbound == frozenset(children),
            name="it",
            children=len(children),
            within=self._times.appear_s,
            every=self._times.look_s,
        )

    async def end(self, spis: IkeSpis) -> None:
        """Have charon drop it and see that it is gone. Raise MoveError: it is not."""
        await imported.end(
            self._control,
            self._broker,
            spis,
            self._ended,
            within=self._times.appear_s,
            every=self._times.look_s,
        )

    async def again(self, spis: IkeSpis, chain: HaChain) -> HeldSa:
        """Have charon drop it, and take it again. Raise MoveError, and what charon raises."""
        await self.drop(spis)
        await self._broker.replay(chain)
        return await self.appeared(spis, chain.children)

    async def drop(self, spis: IkeSpis) -> None:
        """Have charon drop it. What cannot be dropped is said in the log."""
        try:
            await self.end(spis)
        except MobikectlError as error:
            log.warning("%s cannot be dropped: %s", spis, error)


def _frame(chain: HaChain) -> tuple[HaMessage, ...]:
    """Return what of a chain cannot change without being made anew."""
    return tuple(message for message in chain.messages if message.kind in {HaType.IKE_ADD, HaType.IKE_UPDATE})


def _children(chain: HaChain) -> dict[int, HaMessage]:
    return {
        message.need(HaAttribute.INBOUND_SPI, int): message
        for message in chain.messages
        if message.kind is HaType.CHILD_ADD
    }


def _child_delete(added: HaMessage) -> HaMessage:
    ike_id = added.ike_id
    spi = added.need(HaAttribute.INBOUND_SPI, int)
    if ike_id is None:
        raise MoveError("a CHILD_SA without an IKE_SA", hint="this is a fault of mobikectl")
    return HaMessage.of(HaType.CHILD_DELETE, (HaAttribute.IKE_ID, ike_id), (HaAttribute.INBOUND_SPI, spi))


def _mids(chain: HaChain) -> list[HaMessage]:
    return [message for message in chain.messages if message.kind in MIDS]
