"""Enforced transition tables, events and blame: what every state machine here is made of."""

from __future__ import annotations

from collections import deque
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn, TypeVar

from mobikectl.errors import MobikectlError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVENTS = 1024
"""Events kept for an owner that does not fetch them; the oldest go first."""


class Blame(Enum):
    """Who caused an input, and so whose fault it is when the input is not defined."""

    LOCAL = "local"
    REMOTE = "remote"


class ProtocolError(MobikectlError):
    """A rule of one of the protocols was broken. The machine that raises it has not changed its state."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow now."""


class RemoteProtocolError(ProtocolError):
    """The authenticated peer sent something that the protocol does not allow."""


class UndefinedTransitionError(ProtocolError):
    """The transition table has no row for this state and input."""


class LocalTransitionError(UndefinedTransitionError, LocalProtocolError):
    """An undefined transition caused by a call of this side."""


class RemoteTransitionError(UndefinedTransitionError, RemoteProtocolError):
    """An undefined transition caused by a message of the peer."""


class Input(Enum):
    """The base of every machine's inputs: a description and who causes it."""

    def __init__(self, text: str, blame: Blame) -> None:
        self.text = text
        self.blame = blame


StateT = TypeVar("StateT", bound=Enum)
InputT = TypeVar("InputT", bound=Input)


class TransitionTable(Generic[StateT, InputT]):
    """Which state follows which state on which input; everything else is an error."""

    def __init__(self, name: str, rows: Mapping[tuple[StateT, InputT], StateT]) -> None:
        self.name = name
        self.rows: Mapping[tuple[StateT, InputT], StateT] = MappingProxyType(dict(rows))

    def next(self, state: StateT, cause: InputT) -> StateT:
        """Given a state and an input, return the next state. Raise UndefinedTransitionError (by blame)."""
        try:
            return self.rows[state, cause]
        except KeyError:
            self._refuse(state, cause)

    def defines(self, state: StateT, cause: InputT) -> bool:
        """Whether the table has a row for this state and input."""
        return (state, cause) in self.rows

    def _refuse(self, state: StateT, cause: InputT) -> NoReturn:
        message = f"{self.name}: '{cause.text}' is not defined in state {state.name}"
        if cause.blame is Blame.REMOTE:
            raise RemoteTransitionError(message, hint="the peer is out of step or hostile: consider closing")
        raise LocalTransitionError(message, hint="look at the machine's state before calling")


class Event:
    """The base of what a machine reports."""

    __slots__ = ()


class Machine(Generic[StateT, InputT]):
    """A state with its enforced table, and the events that wait for the owner."""

    table: ClassVar[TransitionTable]  # type: ignore[type-arg]  # each machine names its own enums

    def __init__(self, initial: StateT) -> None:
        self._state = initial
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)

    @property
    def state(self) -> StateT:
        """The current state."""
        return self._state

    def next_event(self) -> Event | None:
        """Return the oldest event not yet fetched, or None."""
        return self._events.popleft() if self._events else None

    def _go(self, cause: InputT) -> None:
        self._state = self.table.next(self._state, cause)

    def _tell(self, event: Event) -> None:
        self._events.append(event)
