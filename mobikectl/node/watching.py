"""Who looks on while IKE_SAs are handed over: is told each step just before it is taken, and is waited for.

In a gateway that is nobody. Tests and the lab put somebody there who kills a process at exactly that step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.protocol.handover import SourceState

if TYPE_CHECKING:
    from mobikectl.wire.ha_chain import IkeSpis


class TargetStep(Enum):
    """What a target is about to do."""

    IMPORT = "import"
    """An offer is there, and charon does not have the IKE_SA yet."""
    ACCEPT = "accept"
    """charon has it, passive, and the source does not know."""
    ACTIVATE = "activate"
    """The source does not serve it any more and asks for it to be served here."""
    HEAR = "hear"
    """charon serves it; its client was not heard."""
    ANSWER = "answer"
    """Its client was heard, and the source does not know."""
    END = "end"
    """The source wants it back, and it is still here."""
    GIVE_BACK = "give back"
    """It is gone here, and the source does not know."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is about to be done to an IKE_SA."""

    what: SourceState | TargetStep
    spis: IkeSpis

    def __str__(self) -> str:
        side = "source" if isinstance(self.what, SourceState) else "target"
        return f"{side}: {self.what.value}"


Watch = Callable[[Step], Awaitable[None]]
"""Given a step, return when it may be taken."""


async def nobody(_: Step) -> None:
    """Look on without a word."""
