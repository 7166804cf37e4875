"""A move's life: its states, the transitions that exist, and the record of what happened.

planned -> requested -> moved -> verified, or undoing -> undone when it does not verify, or failed when
nothing was changed. A transition that is not in `TRANSITIONS` is a bug and raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobikectl.model import Path


class Mechanism(Enum):
    """How a switch is carried out, best first."""

    UPDATE = "update"
    """UPDATE_SA_ADDRESSES to a given pair, through the charon plugin (RFC 4555 section 3.5)."""
    NOTIFY = "notify"
    """SWITCH_TO_IP_ADDRESS through the charon plugin (draft-smyslov-ipsecme-ikev2-r-mobike)."""
    ROUTE = "route"
    """A steering route, which stock charon follows; on a responder this is the implicit switch."""
    REDIRECT = "redirect"
    """A redirect of the established IKE_SA (RFC 5685 section 5): its client makes a new one at another gateway."""
    RECONNECT = "reconnect"
    """The IKE_SA is ended, and its client left to come back: an interruption."""


class MoveState(Enum):
    """Where a move is in its life."""

    PLANNED = "planned"
    REQUESTED = "requested"
    """charon was asked (a steering route is installed, a command was accepted)."""
    MOVED = "moved"
    """charon's IKE_SA is on the new path."""
    VERIFIED = "verified"
    """IKE_SA, CHILD_SAs and the data plane were seen on the new path."""
    UNDOING = "undoing"
    UNDONE = "undone"
    """It did not verify; the old path was given back."""
    FAILED = "failed"
    """It did not verify and there was nothing to give back, or nothing was changed at all."""


TRANSITIONS: dict[MoveState, frozenset[MoveState]] = {
    MoveState.PLANNED: frozenset({MoveState.REQUESTED, MoveState.MOVED, MoveState.FAILED}),
    MoveState.REQUESTED: frozenset({MoveState.MOVED, MoveState.UNDOING, MoveState.FAILED}),
    MoveState.MOVED: frozenset({MoveState.VERIFIED, MoveState.UNDOING, MoveState.FAILED}),
    MoveState.UNDOING: frozenset({MoveState.UNDONE, MoveState.FAILED}),
    MoveState.VERIFIED: frozenset(),
    MoveState.UNDONE: frozenset(),
    MoveState.FAILED: frozenset(),
}
"""State -> states that may follow. PLANNED -> MOVED: charon was there already."""

FINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


class DataPlane(Enum):
    """What the data plane said about a move."""

    UNKNOWN = "unknown"
    FLOWING = "flowing"
    """Packets came in over the new path."""
    ANSWERED = "answered"
    """A probe inside the tunnel was answered."""
    IDLE = "idle"
    """There was no traffic before and none after: nothing to judge by."""
    SILENT = "silent"
    """There was traffic before and none came after."""


class Blame(Enum):
    """What a move that did not verify says about its path."""

    NOBODY = "nobody"
    PATH = "path"
    """The path did not carry the SA: not to be tried again without a check."""
    PEER = "peer"
    """The peer was asked, and does not do it."""
    HOST = "host"
    """This host or its charon could not do it: the path may be as good as any."""


@dataclass(frozen=True, slots=True)
class Step:
    """One transition of a move: when (monotonic seconds), to which state, and why."""

    at: float
    state: MoveState
    note: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """The record of one move."""

    number: int
    sa: int
    """The IKE_SA's unique id when the move was planned."""
    name: str
    """The connection's name."""
    before: Path
    after: Path
    mechanism: Mechanism
    cause: str
    steps: tuple[Step, ...]
    data_plane: DataPlane = DataPlane.UNKNOWN
    blame: Blame = Blame.NOBODY

    @property
    def state(self) -> MoveState:
        """The state it is in."""
        return self.steps[-1].state

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in FINAL

    @property
    def reason(self) -> str:
        """What the last step said."""
        return self.steps[-1].note

    @property
    def duration_s(self) -> float:
        """Seconds from planned to the last step."""
        return self.steps[-1].at - self.steps[0].at

    def to(self, state: MoveState, *, at: float, note: str = "") -> Move:
        """Given the next state, return the record with that step. Raise ValueError: no such transition."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a move cannot go from {self.state.value} to {state.value}")
        return replace(self, steps=(*self.steps, Step(at, state, note)))


def plan_move(
    number: int, *, sa: int, name: str, before: Path, after: Path, mechanism: Mechanism, cause: str, at: float
) -> Move:
    """Given what is to be moved and why, return the record of a planned move."""
    return Move(number, sa, name, before, after, mechanism, cause, (Step(at, MoveState.PLANNED, cause),))
