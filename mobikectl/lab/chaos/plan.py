"""What happens in a chaos run, round after round, drawn from a seed. Pure: no clock, no I/O.

A round names clients to move and what goes wrong meanwhile. It says "the next gateway but one", never "gateway3": who
serves a client depends on how the rounds before ended, and so does not change what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class What(Enum):
    """What goes wrong."""

    NOTHING = "nothing"
    SIDECAR = "the sidecar is killed"
    KEEPER = "the keeper of the broker's memory is killed"
    BROKER = "broker and keeper are killed"
    CHARON = "charon is killed"
    TRANSFER = "its way to the other gateways is cut"
    STORE = "the store stands still for all"


class Whom(Enum):
    """To which gateway it happens, seen from the round's first move."""

    SOURCE = "source"
    TARGET = "target"
    OTHER = "third gateway"


WEIGHTS = {
    What.NOTHING: 3,
    What.SIDECAR: 8,
    What.KEEPER: 1,
    What.BROKER: 2,
    What.CHARON: 3,
    What.TRANSFER: 3,
    What.STORE: 3,
}
WHOM = {Whom.SOURCE: 5, Whom.TARGET: 5, Whom.OTHER: 1}
MOST_AT_ONCE = 5
STEPS = (
    "source: offering",
    "source: asking",
    "source: freezing",
    "source: starting",
    "source: holding",
    "source: dropping",
    "source: handed over",
    "target: import",
    "target: accept",
    "target: activate",
    "target: hear",
    "target: answer",
)
"""Of a handover that nothing disturbs (`mobikectl.node.watching`)."""
STEPS_BACK = ("source: recalling", "source: thawing", "source: kept", "target: end", "target: give back")
"""Of one whose client does not come to the target."""
ASTRAY = 0.1
"""The share of the rounds in which the client cannot come."""
AT_A_STEP = 0.75
"""The share of the faults that happen exactly at one of them; the others at some moment."""
LATEST_S = 0.6
"""A handover takes some 0.5 s, of which 0.3 s are waiting for late packets."""
LASTS_S = (0.2, 2.0)
"""How long somebody is away, or cut off."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in a round."""

    what: What
    whom: Whom
    at: str
    """The step of the first move at which it happens, one of `STEPS`; empty: at some moment."""
    after_s: float
    """Seconds after the source has begun, where ``at`` is empty."""
    lasts_s: float
    """Seconds until what was killed is started again, or what was cut is mended."""
    astray: bool = False
    """Whether the first move's client cannot reach the target, so that the move has to be taken back."""

    def __str__(self) -> str:
        astray = "its client cannot reach the target; " if self.astray else ""
        if self.what is What.NOTHING:
            return f"{astray}nothing"
        when = f"at {self.at!r}" if self.at else f"after {self.after_s:.2f} s"
        return f"{astray}{self.whom.value}: {self.what.value} {when}, for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Order:
    """A client goes to another gateway: ``steps`` (1 or 2) further than who serves it."""

    client: str
    steps: int


@dataclass(frozen=True, slots=True)
class Round:
    """Moves that are ordered together, and what goes wrong meanwhile."""

    number: int
    orders: tuple[Order, ...]
    fault: Fault


def rounds(seed: int, clients: Sequence[str]) -> Iterator[Round]:
    """Given a seed and the clients' names, yield rounds for ever: the same for the same seed."""
    random = Random(seed)  # noqa: S311 (to be repeated, not to be secret)
    number = 0
    while True:
        number += 1
        chosen = random.sample(list(clients), random.randint(1, min(MOST_AT_ONCE, len(clients))))
        orders = tuple(Order(client, random.randint(1, 2)) for client in chosen)
        what = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        whom = random.choices(list(WHOM), list(WHOM.values()))[0]
        astray = random.random() < ASTRAY
        at = random.choice(STEPS + STEPS_BACK if astray else STEPS) if random.random() < AT_A_STEP else ""
        after, lasts = random.uniform(0, LATEST_S), random.uniform(*LASTS_S)
        yield Round(number, orders, Fault(what, whom, at, after, lasts, astray))


def every_step(clients: Sequence[str]) -> Iterator[Round]:
    """Given the clients' names, yield a round for each process that is killed at each step, at source and target."""
    number = 0
    for what in (What.SIDECAR, What.BROKER, What.CHARON):
        for at in STEPS + STEPS_BACK:
            for whom in (Whom.SOURCE, Whom.TARGET):
                number += 1
                order = Order(clients[number % len(clients)], 1 + number // len(clients) % 2)
                yield Round(number, (order,), Fault(what, whom, at, 0.0, 0.3, at in STEPS_BACK))
