"""What a bridge tells besides the machines' own events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mobikectl.observe.plain import plain
from mobikectl.protocol.machine import Event

if TYPE_CHECKING:
    from mobikectl.model import Path
    from mobikectl.wire.bridge import Spoken


@dataclass(frozen=True, slots=True)
class Told:
    """An event of one session: of its machine, or one of those below."""

    ike_id: int
    spoken: Spoken
    event: Event

    def as_dict(self) -> dict[str, Any]:
        """Return it JSON-able: ``ike_sa``, ``protocol``, ``event`` (its name) and what the event holds."""
        details = plain(self.event)
        return {
            "ike_sa": self.ike_id,
            "protocol": self.spoken.name.lower(),
            "event": type(self.event).__name__,
            **(details if isinstance(details, dict) else {}),
        }

    def __str__(self) -> str:
        body = self.as_dict()
        head = f"IKE_SA {body.pop('ike_sa')} {body.pop('protocol')}: {body.pop('event')}"
        return head + "".join(f" {key}={value}" for key, value in body.items())


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The plugin reports what the peer sends; requests can be made."""


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """The peer has answered a request; what it means to the machine, the machine tells."""


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The peer does not keep the IKE_SA for so long; it would for ``most_s`` seconds (0: not at all)."""

    most_s: int


@dataclass(frozen=True, slots=True)
class NotBridged(Event):
    """The peer's charon answered, but no bridge is behind it: nobody there has understood."""

    REASON: ClassVar[str] = "there is no bridge at the peer"


@dataclass(frozen=True, slots=True)
class PeerFault(Event):
    """The peer sent what the protocol does not allow; it was answered by charon and ignored otherwise."""

    reason: str


@dataclass(frozen=True, slots=True)
class PeerBack(Event):
    """The peer that announced a silence is heard again."""


@dataclass(frozen=True, slots=True)
class NotSent(Event):
    """The machine wants a path tested that this side cannot send over: only the initiator moves an IKE_SA."""

    path: Path


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """What was under way is given up; the machine begins anew on the IKE_SA, which is as it was."""

    reason: str


@dataclass(frozen=True, slots=True)
class Over(Event):
    """The IKE_SA is gone, or the bridge ends."""

    reason: str
