"""Responder-initiated address updates (draft-smyslov-ipsecme-ikev2-r-mobike-09), on top of MOBIKE.

Each role has MOBIKE's table and, beside it, a small table of its own for the switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.protocol.exchange import Endpoint, Message, Pair, Payload, Request
from mobikectl.protocol.machine import (
    Blame,
    Event,
    Input,
    RemoteProtocolError,
    TransitionTable,
)
from mobikectl.protocol.mobike import Kind, MobikePolicy
from mobikectl.protocol.mobike_initiator import MobikeInitiator
from mobikectl.protocol.mobike_initiator import State as InitiatorState
from mobikectl.protocol.mobike_responder import MobikeResponder
from mobikectl.wire.mobike import RESPONDER_INITIATED, MobikeSupported
from mobikectl.wire.rmobike import SwitchToIpAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress

AWAIT_UPDATE_S = 30.0
"""How long after its acknowledgement the responder waits for the update that a switch asks for."""


def refuse_unknown(ip: IpAddress) -> bool:
    """Refuse every address that the responder did not announce: the default policy of section 4.2."""
    del ip
    return False


# --- the initiator -------------------------------------------------------------------------------


class Following(Enum):
    """Where the initiator is with the responder's wish."""

    READY = "no switch is under way"
    MOVING = "the update to the wished address is under way"
    RETURNING = "the wished address does not answer: going back"
    REFUSED = "the wish was refused: the liveness check runs"


class FollowCause(Input):
    """What moves the initiator's half."""

    WISH = ("SWITCH_TO_IP_ADDRESS with an appropriate address", Blame.REMOTE)
    WISH_REFUSED = ("SWITCH_TO_IP_ADDRESS with an inappropriate address", Blame.REMOTE)
    SILENT = ("the wished address does not answer", Blame.LOCAL)
    SETTLED = ("an update was answered", Blame.REMOTE)
    ALIVE = ("the liveness check was answered", Blame.REMOTE)
    OVERRULED = ("update() by local policy", Blame.LOCAL)


F, FC = Following, FollowCause
FOLLOW_TABLE: TransitionTable[Following, FollowCause] = TransitionTable(
    "r-mobike initiator",
    {
        **{(s, FC.WISH): F.MOVING for s in Following},
        **{(s, FC.OVERRULED): F.READY for s in Following},
        (F.READY, FC.WISH_REFUSED): F.REFUSED,
        (F.REFUSED, FC.WISH_REFUSED): F.REFUSED,
        (F.MOVING, FC.WISH_REFUSED): F.MOVING,
        (F.RETURNING, FC.WISH_REFUSED): F.RETURNING,
        (F.MOVING, FC.SILENT): F.RETURNING,
        (F.MOVING, FC.SETTLED): F.READY,
        (F.RETURNING, FC.SETTLED): F.READY,
        (F.REFUSED, FC.ALIVE): F.READY,
    },
)


@dataclass(frozen=True, slots=True)
class SwitchFollowed(Event):
    """The responder's wish was carried out."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class SwitchDeclined(Event):
    """The responder's wish was not carried out; the address was inappropriate or does not answer."""

    address: IpAddress
    appropriate: bool


class RMobikeInitiator(MobikeInitiator):
    """A MOBIKE initiator that also follows SWITCH_TO_IP_ADDRESS.

    ``acceptable_switch``: local policy for addresses that the responder did not announce (section 4.2).
    ``willing``: whether to advertise the 'R'.
    """

    def __init__(
        self,
        own: Iterable[IpAddress],
        policy: MobikePolicy | None = None,
        *,
        spi: int = 1,
        acceptable_switch: Callable[[IpAddress], bool] = refuse_unknown,
        willing: bool = True,
    ) -> None:
        super().__init__(own, policy, spi=spi)
        self.acceptable_switch = acceptable_switch
        self.willing = willing
        self.following = Following.READY
        self._before: Pair | None = None
        self._wished: IpAddress | None = None
        self._tries_at_move = 0

    def _capability(self) -> bytes:
        return RESPONDER_INITIATED if self.willing else b""

    def update(self, pair: Pair, now: float, *, suspect_nat: bool = False) -> None:
        """Given the new pair, move to it as local policy wants; it overrules a switch under way."""
        super().update(pair, now, suspect_nat=suspect_nat)
        self.following = FOLLOW_TABLE.next(self.following, FollowCause.OVERRULED)

    def _answer_more(self, message: Message, now: float) -> list[Payload]:
        wish = message.first(SwitchToIpAddress)
        if wish is None or not self.willing:
            return []
        if self._state is InitiatorState.UNSUPPORTED:
            raise RemoteProtocolError(
                "SWITCH_TO_IP_ADDRESS without MOBIKE",
                hint="the responder must not send it (r-mobike-09 section 4.2)",
            )
        target = self._appropriate(wish.address)
        if target is None:
            self.following = FOLLOW_TABLE.next(self.following, FollowCause.WISH_REFUSED)
            self._tell(SwitchDeclined(wish.address, appropriate=False))
            self._liveness_due = True
            return []
        self.following = FOLLOW_TABLE.next(self.following, FollowCause.WISH)
        if self._before is None:
            self._before = self._agreed
        self._wished = wish.address
        super().update(target, now)
        return []

    def _appropriate(self, ip: IpAddress) -> Pair | None:
        """Given the wished address, return the pair to use, or None when it is not appropriate (section 4.2)."""
        known = ip in self.peer_addresses or ip == self.pair.remote.ip
        if not known and not self.acceptable_switch(ip):
            return None
        mine = [self.pair.local.ip, *self.own]
        local = next((own for own in mine if own.version == ip.version), None)
        if local is None:
            return None
        return Pair(Endpoint(local, self.pair.local.port), Endpoint(ip, self.pair.remote.port))

    def _suspect(self, now: float) -> None:
        limit = self.policy.retransmission.suspect_after
        silent = any(r.next_at <= now and r.transmissions == limit for r in self._exchanger.outstanding)
        super()._suspect(now)
        if silent and self.following is Following.MOVING:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """Go back to the address that worked: a wished address that is dead must not end the IKE_SA."""
        if self._before is None or self._wished is None:
            return
        self.following = FOLLOW_TABLE.next(self.following, FollowCause.SILENT)
        self._tell(SwitchDeclined(self._wished, appropriate=True))
        super().update(self._before, now)
        super()._fill(now)

    def _answered(self, request: Request[Kind], message: Message, now: float) -> None:
        settled_before = self._state
        super()._answered(request, message, now)
        if request.kind is Kind.UPDATE and self._state is not settled_before:
            self._update_ended(now)
        if request.kind is Kind.LIVENESS and self.following is Following.REFUSED:
            self.following = FOLLOW_TABLE.next(self.following, FollowCause.ALIVE)

    def _update_ended(self, now: float) -> None:
        if self.following not in {Following.MOVING, Following.RETURNING}:
            return
        if self._state is InitiatorState.STABLE:
            followed = self.following is Following.MOVING
            self.following = FOLLOW_TABLE.next(self.following, FollowCause.SETTLED)
            self._before = self._wished = None
            if followed:
                self._tell(SwitchFollowed(self.pair))
        elif self._state is InitiatorState.REFUSED and self.following is Following.MOVING:
            self._give_up(now)


# --- the responder -------------------------------------------------------------------------------


class Asking(Enum):
    """Where the responder is with its wish."""

    INCAPABLE = "the initiator did not advertise 'R'"
    READY = "no switch is under way"
    WANTED = "the wish waits for the request window"
    ASKED = "SWITCH_TO_IP_ADDRESS was sent"
    AWAITING = "it was acknowledged: the update should follow"


class AskCause(Input):
    """What moves the responder's half."""

    CAPABLE = ("MOBIKE_SUPPORTED with 'R'", Blame.REMOTE)
    SWITCH = ("switch()", Blame.LOCAL)
    SENT = ("the window allows the wish", Blame.LOCAL)
    ACKNOWLEDGED = ("the wish was acknowledged", Blame.REMOTE)
    UPDATED = ("UPDATE_SA_ADDRESSES to the wished address", Blame.REMOTE)
    UPDATED_ELSEWHERE = ("UPDATE_SA_ADDRESSES to another address", Blame.REMOTE)
    UNHEARD = ("no update followed in time", Blame.LOCAL)


A, AC = Asking, AskCause
ASK_TABLE: TransitionTable[Asking, AskCause] = TransitionTable(
    "r-mobike responder",
    {
        (A.INCAPABLE, AC.CAPABLE): A.READY,
        (A.READY, AC.SWITCH): A.WANTED,
        (A.WANTED, AC.SWITCH): A.WANTED,
        (A.AWAITING, AC.SWITCH): A.WANTED,
        (A.WANTED, AC.SENT): A.ASKED,
        (A.ASKED, AC.ACKNOWLEDGED): A.AWAITING,
        (A.WANTED, AC.UPDATED): A.READY,
        (A.ASKED, AC.UPDATED): A.READY,
        (A.AWAITING, AC.UPDATED): A.READY,
        (A.WANTED, AC.UPDATED_ELSEWHERE): A.WANTED,
        (A.ASKED, AC.UPDATED_ELSEWHERE): A.ASKED,
        (A.AWAITING, AC.UPDATED_ELSEWHERE): A.READY,
        (A.AWAITING, AC.UNHEARD): A.READY,
    },
)


@dataclass(frozen=True, slots=True)
class SwitchDone(Event):
    """The initiator moved the IKE_SA to the wished address."""

    address: IpAddress


@dataclass(frozen=True, slots=True)
class SwitchFailed(Event):
    """The initiator acknowledged the wish but stayed (or went elsewhere)."""

    address: IpAddress


class RMobikeResponder(MobikeResponder):
    """A MOBIKE responder that can ask the initiator to move to another of its addresses."""

    def __init__(
        self,
        own: Iterable[IpAddress],
        policy: MobikePolicy | None = None,
        *,
        spi: int = 2,
        await_update_s: float = AWAIT_UPDATE_S,
    ) -> None:
        super().__init__(own, policy, spi=spi)
        self.asking = Asking.INCAPABLE
        self.await_update_s = await_update_s
        self._wish: IpAddress | None = None
        self._give_up_at: float | None = None

    def _note_capability(self, message: Message) -> None:
        supported = message.first(MobikeSupported)
        if supported is not None and supported.responder_initiated:
            self.asking = ASK_TABLE.next(self.asking, AskCause.CAPABLE)

    def switch(self, address: IpAddress, now: float) -> None:
        """Given one of this side's addresses, ask the initiator to move there (section 4.2).

        Nothing changes here until its UPDATE_SA_ADDRESSES arrives. Raise LocalProtocolError when the
        initiator did not advertise 'R', or while an earlier wish is not acknowledged.
        """
        del now
        self._require_mobike()
        self.asking = ASK_TABLE.next(self.asking, AskCause.SWITCH)
        self._wish, self._give_up_at = address, None

    def _fill(self, now: float) -> None:
        if self._give_up_at is not None and now >= self._give_up_at and self._wish is not None:
            self.asking = ASK_TABLE.next(self.asking, AskCause.UNHEARD)
            self._fail()
        super()._fill(now)
        if self.asking is Asking.WANTED and self._exchanger.free and self._wish is not None:
            self.asking = ASK_TABLE.next(self.asking, AskCause.SENT)
            self._exchanger.open(Kind.SWITCH, (SwitchToIpAddress(self._wish),), now)

    def _fail(self) -> None:
        if self._wish is not None:
            self._tell(SwitchFailed(self._wish))
        self._wish = self._give_up_at = None

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        deadline = super().next_deadline()
        if self._give_up_at is None or self.closed:
            return deadline
        return self._give_up_at if deadline is None else min(deadline, self._give_up_at)

    def _answered(self, request: Request[Kind], message: Message, now: float) -> None:
        super()._answered(request, message, now)
        if request.kind is Kind.SWITCH and self.asking is Asking.ASKED:
            self.asking = ASK_TABLE.next(self.asking, AskCause.ACKNOWLEDGED)
            self._give_up_at = now + self.await_update_s

    def _update_requested(self, message: Message, now: float) -> bool:
        accepted = super()._update_requested(message, now)
        wish = self._wish
        if wish is None or not accepted or self._last_update_id != message.message_id:
            return accepted
        done = message.destination.ip == wish
        waited = self.asking is Asking.AWAITING
        self.asking = ASK_TABLE.next(self.asking, AskCause.UPDATED if done else AskCause.UPDATED_ELSEWHERE)
        if done:
            self._wish = self._give_up_at = None
            self._tell(SwitchDone(wish))
        elif waited:
            self._fail()
        return accepted
