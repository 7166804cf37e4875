"""What a node can do to one IKE_SA of its charon, and what is told of it: the seam between handovers and charon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import MoveError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mobikectl.model import IpAddress
    from mobikectl.netlink.esp import Received
    from mobikectl.netlink.xfrm import ReplayState
    from mobikectl.wire.ha import Host
    from mobikectl.wire.ha_chain import HaChain, IkeSpis


Ended = Callable[[int], Awaitable[object]]
"""Told the unique id of an IKE_SA that was served here and was ended by the HA broker: charon tells nobody of that."""


async def unheard(_: int) -> None:
    """Nobody keeps a model of the IKE_SAs."""


class BusyError(MoveError):
    """An exchange is under way, or a rekeying: it cannot be frozen at this moment."""


@dataclass(frozen=True, slots=True)
class HeldSa:
    """An IKE_SA as charon has it. Message IDs are those of the next requests, ours and the peer's."""

    spis: IkeSpis
    ike_id: int
    serving: bool
    """It is served: neither passive nor frozen."""
    frozen: bool
    """It was served here, and is not at the moment."""
    busy: bool
    """A request of ours waits for its answer, or a task is under way."""
    mid_initiator: int
    mid_responder: int
    local: Host
    remote: Host
    children: tuple[tuple[int, int], ...]
    """Inbound and outbound SPIs of the CHILD_SAs that are INSTALLED."""
    steady: bool = True
    """No CHILD_SA is in any other state."""

    @property
    def inbound(self) -> frozenset[int]:
        """The inbound SPIs."""
        return frozenset(spi for spi, _ in self.children)


class SaControl(Protocol):
    """The charon of this node. Every method may raise CharonError; all take a bounded time."""

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        """Given an IKE_SA, return it as it is now; None: charon does not have it."""

    async def freeze(self, spis: IkeSpis) -> HeldSa | None:
        """Stop serving an IKE_SA; return it as it is then; None: charon does not have it. Raise BusyError."""

    async def passivate(self, spis: IkeSpis) -> bool:
        """Have a frozen IKE_SA stay so whatever happens here. Return whether charon has it. Raise when it is served."""

    async def thaw(self, spis: IkeSpis) -> bool:
        """Serve a frozen IKE_SA again (again: nothing happens). Return whether charon has it.

        The peer's first request may be ahead of what is expected: another node may have taken those between.
        """

    async def activate(
        self,
        held: HeldSa,
        *,
        mids: tuple[int, int] | None,
        roam: bool,
        peer_r: bool,
        own_r: bool,
    ) -> int:
        """Serve a passive IKE_SA, its next requests (ours, the peer's) having these message IDs.

        ``roam``: tell the peer our address. ``peer_r``, ``own_r``: who announced SWITCH_TO_IP_ADDRESS. Return how far
        ahead the peer's first request may be, as another node may have taken those between; 0: charon's plugin is too
        old for that. Raise MoveError.
        """

    async def drop(self, spis: IkeSpis) -> bool:
        """End an IKE_SA without a word to the peer. Return whether charon had it."""

    async def ask_to_switch(self, ike_id: int, address: IpAddress, *, timeout: float) -> None:
        """Ask the peer to use another node's ``address``; return when it has answered. Raise MoveError: it has not."""

    async def call_back(self, ike_id: int) -> None:
        """Begin to send the peer a request that it ignores and answers (`mobikectl.node.calling`)."""

    async def rekey_children(self, ike_id: int, children: Collection[int]) -> None:
        """Begin to rekey the CHILD_SAs with these inbound SPIs."""

    async def connections(self) -> frozenset[str]:
        """Return the names of the connections that charon knows."""


class ChainKeeper(Protocol):
    """The HA broker (`mobikectl.charon.ha_broker.HaBroker`)."""

    async def wait_for(self, spis: IkeSpis, children: Collection[int], *, timeout: float) -> HaChain:
        """Return an IKE_SA's chain. Raise NotFoundError."""

    def rivals(self, ike_sa: HaChain) -> frozenset[IkeSpis]:
        """Return the other IKE_SAs of its peer that have a CHILD_SA of the same traffic selectors."""

    async def replay(self, chain: HaChain) -> None:
        """Tell a chain to charon. Raise MoveError, CharonUnreachableError."""

    def count_from(self, spis: IkeSpis, ours: int, theirs: int) -> None:
        """Remember the message IDs of the next requests of one that is about to be served."""

    def counts(self, spis: IkeSpis) -> tuple[int | None, int | None]:
        """Return the message IDs of its next requests, ours and the peer's, as charon told last; None: it did not."""

    def renumber(self, spis: IkeSpis, ours: int | None = None, theirs: int | None = None) -> None:
        """Have our next request, or the one that waits for its answer, and the peer's have these message IDs.

        None: as it is. Raise CharonUnreachableError.
        """

    def remove(self, spis: IkeSpis) -> None:
        """Have charon drop an IKE_SA silently. Raise CharonUnreachableError."""

    def forget(self, spis: IkeSpis) -> None:
        """Forget an IKE_SA."""

    def has_ended(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA, return whether charon told that it was deleted, or that a rekeying took its place."""


class Sequences(Protocol):
    """The kernel's ESP numbers (`mobikectl.netlink.esp.EspSequences`)."""

    async def read(self, daddr: IpAddress, spi: int) -> ReplayState | None:
        """Return an SA's numbers; None: the kernel has no such SA."""

    async def start_after(self, daddr: IpAddress, spi: int, last: int) -> ReplayState:
        """Have an outbound SA begin behind a number."""

    async def mark_received(self, daddr: IpAddress, spi: int, received: Received) -> ReplayState:
        """Have an inbound SA refuse what was received elsewhere."""


class Notes(Protocol):
    """What outlives this process (`mobikectl.charon.ha_broker.HaBroker`)."""

    @property
    def notes(self) -> Mapping[str, str]:
        """By key."""

    def note(self, key: str, value: str | None) -> None:
        """Note something, or strike it out. Raise MoveError."""
