"""What happened to the IKE_SAs of a charon: the frozen values that `SaTracker` hands out.

`sa` is always the IKE_SA after the event (for SaDown: the last that was known of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mobikectl.model import ChildSa, IkeSa, Path


@dataclass(frozen=True, slots=True)
class SaUp:
    """An IKE_SA was established, or was found."""

    sa: IkeSa


@dataclass(frozen=True, slots=True)
class SaDown:
    """An IKE_SA went away, its CHILD_SAs (`sa.children`) with it."""

    sa: IkeSa


@dataclass(frozen=True, slots=True)
class SaPathChanged:
    """An IKE_SA uses another pair of addresses. charon tells it just before it does it."""

    sa: IkeSa
    before: Path
    after: Path


@dataclass(frozen=True, slots=True)
class SaPortsChanged:
    """An IKE_SA uses the same addresses with other UDP ports (local, remote): a NAT's mapping changed."""

    sa: IkeSa
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SaRekeyed:
    """An IKE_SA was rekeyed: the number `old_id` is now `sa.uniqueid`, the CHILD_SAs are kept."""

    old_id: int
    sa: IkeSa


@dataclass(frozen=True, slots=True)
class ChildUp:
    """A CHILD_SA was installed, or was found."""

    sa: IkeSa
    child: ChildSa


@dataclass(frozen=True, slots=True)
class ChildDown:
    """A CHILD_SA went away while its IKE_SA stays."""

    sa: IkeSa
    child: ChildSa


@dataclass(frozen=True, slots=True)
class ChildRekeyed:
    """A CHILD_SA was rekeyed: the number `old_id` is now `child.uniqueid`."""

    sa: IkeSa
    old_id: int
    child: ChildSa


@dataclass(frozen=True, slots=True)
class Retransmit:
    """A request of an IKE_SA was not answered and was sent again, `count` times so far.

    An indirect sign that its path may have failed. `probing`: it was a path probe of MOBIKE.
    """

    uniqueid: int
    count: int
    probing: bool = False


@dataclass(frozen=True, slots=True)
class PeerUnresponsive:
    """charon gave up on a request (or path probe) of an IKE_SA after `count` retransmits."""

    uniqueid: int
    count: int
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a listing and the model were not the same.

    ``missing``: the model lacked it; ``extra``: charon lacks it; ``changed``: something in it differs.
    """

    kind: Literal["missing", "extra", "changed"]
    uniqueid: int
    before: IkeSa | None
    after: IkeSa | None


@dataclass(frozen=True, slots=True)
class SaModelResynced:
    """The model was compared with charon's listing and is in step. Events for `differences` came before it."""

    reason: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class SaEventsDropped:
    """A reader was too slow and `count` events were dropped for it: read `SaTracker.sas` anew."""

    count: int


SaEvent = (
    SaUp
    | SaDown
    | SaPathChanged
    | SaPortsChanged
    | SaRekeyed
    | ChildUp
    | ChildDown
    | ChildRekeyed
    | Retransmit
    | PeerUnresponsive
    | SaModelResynced
    | SaEventsDropped
)
