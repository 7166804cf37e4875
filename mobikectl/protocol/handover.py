"""Handing an IKE_SA over from one gateway to another: who may serve it, at every moment. Sans-IO.

Two machines. The **target** is the arbiter: it alone says whether it serves the IKE_SA. The **source** gives up
serving (freezes) before it asks the target to start, and serves again (thaws) only after the target has said that it
does not and never will, so that never two serve and, after everybody is back, one does:

    source                                                        target
    offering   --- offer: keys, CHILD_SAs ------------------->    passive
    asking     (peers with 'R': SWITCH_TO_IP_ADDRESS, answered)
    freezing   (charon here stops serving it)
    starting   --- start: message IDs, sequence numbers ----->    started (charon there serves it)
               <-- served: the client has answered -----------    served
    holding    (packets under way arrive)
    dropping   (silently)
    recalling  --- recall ------------------------------------>   gone, or: served, it is too late
    thawing    (charon here serves it again)

Whatever goes wrong leads to *recalling*, and so does a restart of the source at any step. A target that does not answer
is asked until it does, or is known to serve nothing (`mobikectl.node.fence`). An IKE_SA that is not at the
source any more when the target is still passive is not recalled but started there: the source's charon died. Unless
charon told of its end: then it was deleted, or a rekeying took its place, and nobody may serve what the target has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class SourceState(Enum):
    """What the source is doing."""

    OFFERING = "offering"
    ASKING = "asking"
    FREEZING = "freezing"
    STARTING = "starting"
    HOLDING = "holding"
    DROPPING = "dropping"
    RECALLING = "recalling"
    THAWING = "thawing"
    HANDED_OVER = "handed over"
    KEPT = "kept"
    LOST = "lost"
    """Neither node has it: the client makes a new one."""
    OVER = "over"
    """It ended here as IKE_SAs do: it was deleted, or a rekeying took its place."""


DID_NOT_COME: Final = "its client did not come"
DID_NOT_ANSWER: Final = "its client did not answer the request to switch"
BY_THE_CLIENT: Final = (DID_NOT_COME, DID_NOT_ANSWER)
"""Why a handover can fail that says something of the client. All else is of the nodes, and of the moment."""


class Event(Enum):
    """What happened at the source."""

    DONE = "done"
    """What the state says was done, or answered as wished."""
    REFUSED = "refused"
    """It was not done and will not be; nothing has changed."""
    UNCLEAR = "unclear"
    """No answer: whether it was done is not known."""
    SERVED = "served"
    """The target serves it: to a recall, that it is too late."""
    ABSENT = "absent"
    """The IKE_SA is not here any more, and charon told of no end of it: charon died."""
    OVER = "over"
    """The IKE_SA is not here any more, because it was deleted or rekeyed."""


_S, _E = SourceState, Event
SOURCE: Final[dict[SourceState, dict[Event, SourceState]]] = {
    _S.OFFERING: {
        _E.DONE: _S.ASKING,
        _E.REFUSED: _S.KEPT,
        _E.UNCLEAR: _S.RECALLING,
        _E.ABSENT: _S.LOST,
        _E.OVER: _S.OVER,
    },
    _S.ASKING: {
        _E.DONE: _S.FREEZING,
        _E.REFUSED: _S.RECALLING,
        _E.UNCLEAR: _S.RECALLING,
        _E.ABSENT: _S.STARTING,
        _E.OVER: _S.RECALLING,
    },
    _S.FREEZING: {
        _E.DONE: _S.STARTING,
        _E.REFUSED: _S.RECALLING,
        _E.UNCLEAR: _S.RECALLING,
        _E.ABSENT: _S.STARTING,
        _E.OVER: _S.RECALLING,
    },
    _S.STARTING: {_E.SERVED: _S.HOLDING, _E.REFUSED: _S.RECALLING, _E.UNCLEAR: _S.RECALLING},
    _S.HOLDING: {_E.DONE: _S.DROPPING},
    _S.DROPPING: {_E.DONE: _S.HANDED_OVER, _E.ABSENT: _S.HANDED_OVER, _E.UNCLEAR: _S.DROPPING},
    _S.RECALLING: {_E.DONE: _S.THAWING, _E.SERVED: _S.HOLDING, _E.UNCLEAR: _S.RECALLING},
    _S.THAWING: {_E.DONE: _S.KEPT, _E.ABSENT: _S.LOST, _E.OVER: _S.OVER, _E.UNCLEAR: _S.THAWING},
    _S.HANDED_OVER: {},
    _S.KEPT: {},
    _S.LOST: {},
    _S.OVER: {},
}
"""State -> event -> state. What is not there cannot happen."""
ENDED: Final = frozenset(state for state, following in SOURCE.items() if not following)
FROZEN: Final = frozenset({_S.STARTING, _S.HOLDING, _S.DROPPING})
"""In these the source must not serve it; in RECALLING and THAWING it must not until it is thawed."""


@dataclass(frozen=True, slots=True)
class Handover:
    """The source's machine. ``why``: the first thing that went wrong."""

    state: SourceState = SourceState.OFFERING
    why: str = ""
    seen: tuple[SourceState, ...] = ()
    """The states before this one, without repetitions."""

    @classmethod
    def resumed(cls, *, present: bool) -> Handover:
        """Return the machine of a source that found a handover of an earlier life of its own.

        ``present``: the IKE_SA is still here, served or frozen, or it ended here as IKE_SAs do.
        """
        state = SourceState.RECALLING if present else SourceState.STARTING
        return cls(state, "the source was restarted")

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    def on(self, event: Event, why: str = "") -> Handover:
        """Given what happened and, when it went wrong, why, return what follows. Raise ValueError: impossible here."""
        following = SOURCE[self.state].get(event)
        if following is None:
            raise ValueError(f"{event.value} cannot happen to a source that is {self.state.value}")
        failed = event in {Event.REFUSED, Event.UNCLEAR, Event.ABSENT, Event.OVER}
        seen = self.seen if following is self.state else (*self.seen, self.state)
        return replace(self, state=following, why=self.why or (why if failed else ""), seen=seen)


class TargetState(Enum):
    """What the target has of an IKE_SA."""

    NONE = "none"
    PASSIVE = "passive"
    """charon has it and serves it not."""
    STARTED = "started"
    """charon serves it; the client has not been heard yet."""
    SERVED = "served"


class Ask(Enum):
    """What the source asks of the target, and what happens there."""

    OFFER = "offer"
    START = "start"
    RECALL = "recall"
    HEARD = "heard"
    """The client answered, or asked something of its own."""
    EXPIRED = "expired"
    """Nothing was heard from the source for long."""
    GONE = "gone"
    """charon does not have it any more."""


_T, _A = TargetState, Ask
TARGET: Final[dict[TargetState, dict[Ask, TargetState]]] = {
    _T.NONE: {_A.OFFER: _T.PASSIVE, _A.RECALL: _T.NONE, _A.GONE: _T.NONE},
    # A copy that is kept for the case that the source dies is brought up to date, and stays when it is recalled.
    _T.PASSIVE: {
        _A.OFFER: _T.PASSIVE,
        _A.START: _T.STARTED,
        _A.RECALL: _T.NONE,
        _A.EXPIRED: _T.NONE,
        _A.GONE: _T.NONE,
    },
    _T.STARTED: {_A.START: _T.STARTED, _A.RECALL: _T.NONE, _A.HEARD: _T.SERVED, _A.GONE: _T.NONE},
    _T.SERVED: {_A.START: _T.SERVED, _A.RECALL: _T.SERVED, _A.HEARD: _T.SERVED, _A.GONE: _T.NONE},
}
"""State -> what is asked -> state. What is not there is refused and changes nothing."""


def asked(state: TargetState, ask: Ask) -> TargetState | None:
    """Given what the target has and what is asked of it, return what it has then; None: it refuses."""
    return TARGET[state].get(ask)
