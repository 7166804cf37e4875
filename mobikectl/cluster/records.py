"""What the store's values say: who is there, how loaded, what is wanted, and what is moved.

Times that are compared are never in here: nodes have no common clock. A report says how old its numbers were when
it was written, and its readers count from when they first saw it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from mobikectl.model import IpAddress  # noqa: TC001 (the codec reads the annotations)
from mobikectl.policy.cluster import (
    Capability,
    Capacity,
    Health,
    Load,
    Mechanism,
    Reason,
    ServingAddress,
)

T = TypeVar("T")


def peer_of(key: str) -> str:
    """Given the name of an IKE_SA (``NODE/PEER-ID#N``), return its peer's identity; empty: it is no such name.

    A node that takes an IKE_SA over gives it a name of its own: the identity is what stays.
    """
    return key.partition("/")[2].rpartition("#")[0]


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A value and the revision of the commit that wrote it: what a compare-and-swap needs. 0: never written."""

    value: T
    revision: int


@dataclass(frozen=True, slots=True)
class Member:
    """A node that is there: its key lives under its lease."""

    name: str
    instance: str
    """Of the process, made anew at each start: tells a node from its own predecessor."""
    addresses: tuple[ServingAddress, ...] = ()
    capacity: Capacity = field(default_factory=Capacity)
    weight: float = 1.0
    overload_limit: float = 0.9
    carries: bool = False
    site: str = ""
    pools: frozenset[str] | None = None
    version: str = ""
    """Of its mobikectl."""
    transfer: str = ""
    """host:port where it takes IKE_SAs over from other nodes; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """How loaded and how healthy a node is, smoothed by itself."""

    node: str
    instance: str
    sequence: int
    """Grows with each report of an instance."""
    age_s: float = 0.0
    """How old the numbers were when this was written."""
    health: Health = Health.HEALTHY
    maintenance: bool = False
    """A local file or command on the node says: drain me."""
    down: tuple[IpAddress, ...] = ()
    """Serving addresses whose uplink does not work."""
    ike_sas: int = 0
    half_open: int = 0
    child_sas: int = 0
    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    copies: int = 0
    """Passive copies of other nodes' IKE_SAs that it stands by for."""
    note: str = ""
    """Why it is not healthy, in words."""

    def load(self, at: float) -> Load:
        """Given when it was measured (by the reader's clock), return it as the policy's load."""
        return Load(
            at=at,
            ike_sas=self.ike_sas,
            half_open=self.half_open,
            child_sas=self.child_sas,
            bytes_per_s=self.bytes_per_s,
            packets_per_s=self.packets_per_s,
            cpu=self.cpu,
            memory=self.memory,
        )


@dataclass(frozen=True, slots=True)
class SaRow:
    """One IKE_SA that a node serves. Times are those at the moment when its part was written."""

    key: str
    """``NODE/PEER-ID#N``: names it in the whole cluster and survives rekeys."""
    peer_id: str
    peer: str
    """The peer's outer address."""
    address: IpAddress
    """The address of the node that it is served at."""
    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0
    capability: Capability = Capability.NONE
    behind_nat: bool = False
    pool: str = ""
    site: str = ""
    moved_ago_s: float | None = None
    """Seconds since it was moved; None: not lately."""
    redirects: int = 0
    """How often this client was redirected in the last 300 s."""
    refused_for_s: float = 0.0
    """Seconds for which it is to be left alone: it refused a move."""


MAX_ROWS = 500
"""IKE_SAs of one part."""


@dataclass(frozen=True, slots=True)
class SaPart:
    """Some of the IKE_SAs that a node serves: so many as one value of the store takes."""

    node: str
    instance: str
    sequence: int
    """Grows with each writing of an instance, over all of its parts."""
    part: int
    parts: int
    """How many parts there were when this one was written."""
    rows: tuple[SaRow, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeIntent:
    """What operators want of one node. Stays when the node is away."""

    drained: bool = False
    weight: float | None = None
    """Instead of the node's own; None: its own counts."""
    mechanisms: frozenset[Mechanism] = frozenset()
    """What its drain may use; empty: what the settings allow."""
    rate_per_s: float | None = None
    """IKE_SAs that its drain may move in a second; None: what the settings allow."""
    by: str = ""
    note: str = ""

    @property
    def wants(self) -> bool:
        """Whether anything is wanted: a node that was drained and given back is as any other."""
        return self.drained or self.weight is not None


@dataclass(frozen=True, slots=True)
class ClusterIntent:
    """What operators want of the whole cluster."""

    paused: bool = False
    apply: int = 0
    """Counts the operators' orders to plan and carry out now (``balance = "manual"``)."""
    by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """An IKE_SA that is not to be moved."""

    sa: str
    node: str = ""
    """Where it should be; empty: where it is."""
    by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator wants one IKE_SA to be moved now. The leader answers in it; who ordered removes it."""

    name: str
    """Of its own for each order."""
    sa: str
    """The IKE_SA's key."""
    node: str
    """Where to."""
    mechanism: Mechanism | None = None
    """None: the best that there is."""
    by: str = ""
    note: str = ""
    move: int = 0
    """The answer: the number of the move in the journal."""
    refused: str = ""
    """The answer: why there is none."""

    @property
    def answered(self) -> bool:
        """Whether the leader has answered."""
        return bool(self.move or self.refused)


@dataclass(frozen=True, slots=True)
class Leader:
    """Who decides."""

    node: str
    instance: str
    token: int = 0
    """The fencing token: the revision at which it was elected. Not part of the stored value."""


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A copy that a node wants to serve."""

    spis: str
    """The IKE_SA's initiator's and responder's SPI, 32 hexadecimal digits."""
    key: str
    """What its node called it."""
    source_address: IpAddress
    target_address: IpAddress


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node that stands by wants to serve, as their node is dead: its own finding, with what it saw."""

    node: str
    source: str
    evidence: str
    rows: tuple[ClaimRow, ...] = ()
    lost: bool = False
    """The source says itself that its charon lost them; it may be a member."""


class MoveState(Enum):
    """Where a move of the journal is in its life."""

    PLANNED = "planned"
    REQUESTED = "requested"
    ACKNOWLEDGED = "acknowledged"
    """The peer (or charon) took note of the request; that is no success yet."""
    MOVED = "moved"
    VERIFIED = "verified"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    CANCELLED = "cancelled"
    """Never begun: its leader was replaced, or somebody changed their mind."""


_S = MoveState
TRANSITIONS: dict[MoveState, frozenset[MoveState]] = {
    _S.PLANNED: frozenset({_S.REQUESTED, _S.REFUSED, _S.CANCELLED}),
    _S.REQUESTED: frozenset({_S.ACKNOWLEDGED, _S.MOVED, _S.REFUSED, _S.TIMED_OUT, _S.ROLLING_BACK}),
    _S.ACKNOWLEDGED: frozenset({_S.MOVED, _S.REFUSED, _S.TIMED_OUT, _S.ROLLING_BACK}),
    _S.MOVED: frozenset({_S.VERIFIED, _S.TIMED_OUT, _S.ROLLING_BACK}),
    _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK, _S.TIMED_OUT}),
    _S.VERIFIED: frozenset(),
    _S.REFUSED: frozenset(),
    _S.TIMED_OUT: frozenset(),
    _S.ROLLED_BACK: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""State -> states that may follow."""
FINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


@dataclass(frozen=True, slots=True)
class MoveStep:
    """One transition of a move."""

    state: MoveState
    at: float
    """Seconds since 1970 by the clock of who wrote it: for people, never compared."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """One move as the journal keeps it. ``source`` carries it out; of a failover, where that is dead, ``target``."""

    token: int
    """The fencing token of the leader that planned it."""
    sas: tuple[str, ...]
    source: str
    target: str
    mechanism: Mechanism
    reason: Reason
    source_address: IpAddress
    target_address: IpAddress
    steps: tuple[MoveStep, ...]
    number: int = 0
    """Its place in the journal; given by the store."""
    spis: str = ""
    """Of a failover: what names the IKE_SA at both nodes, 32 hexadecimal digits."""

    @property
    def by(self) -> str:
        """The node that carries it out."""
        return self.target if self.reason is Reason.FAILOVER else self.source

    @property
    def state(self) -> MoveState:
        """The state it is in."""
        return self.steps[-1].state

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in FINAL

    def to(self, state: MoveState, *, at: float, note: str = "") -> MoveRecord:
        """Given the next state, return the record with that step. Raise ValueError: no such transition."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a move cannot go from {self.state.value} to {state.value}")
        return replace(self, steps=(*self.steps, MoveStep(state, at, note[:200])))
