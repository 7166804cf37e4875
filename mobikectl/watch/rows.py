"""The rows of a live view, the same for terminal and web page: frozen, JSON-able by `mobikectl.observe.plain`."""

from __future__ import annotations

from dataclasses import dataclass, field

AWAY = "away"
"""The health of a node that is no member: listed because somebody wants something of it."""


@dataclass(frozen=True, slots=True)
class AddressRow:
    """One of a node's addresses."""

    ip: str
    up: bool


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node of the cluster. Utilisations are shares of its capacity, what is on its way to it included."""

    node: str
    there: bool
    leader: bool = False
    health: str = AWAY
    health_note: str = ""
    drained: bool = False
    maintenance: bool = False
    by: str = ""
    note: str = ""
    used: float = 0.0
    """The fullest of the three below."""
    used_sas: float = 0.0
    used_bytes: float = 0.0
    used_packets: float = 0.0
    headroom: float = 0.0
    """What it still takes before ``overload_limit``; none while it is drained or not healthy."""
    overload_limit: float = 0.0
    weight: float | None = None
    ike_sas: int = 0
    standby: int = 0
    carries: bool = False
    half_open: int = 0
    child_sas: int = 0
    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    addresses: tuple[AddressRow, ...] = ()
    site: str = ""
    pools: tuple[str, ...] | None = None
    version: str = ""
    arriving: int = 0
    """IKE_SAs on their way to it."""
    leaving: int = 0
    """IKE_SAs on their way from it."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a move."""

    state: str
    wall: float
    """Seconds since 1970, by the clock of the node that took it."""
    after_s: float | None
    """Since the step before; None: the first."""
    note: str


@dataclass(frozen=True, slots=True)
class MoveRow:
    """A move of the journal."""

    number: int
    sas: tuple[str, ...]
    peers: tuple[str, ...]
    """The identities of ``sas``, which other nodes name otherwise."""
    source: str
    target: str
    source_address: str
    target_address: str
    mechanism: str
    reason: str
    state: str
    done: bool
    steps: tuple[StepRow, ...]
    took_s: float | None = None
    """From its beginning at the source to its end; None: it has not both."""

    @property
    def wall(self) -> float:
        """When its last step was."""
        return self.steps[-1].wall


@dataclass(frozen=True, slots=True)
class SaViewRow:
    """An IKE_SA of the cluster."""

    key: str
    peer_id: str
    peer: str
    node: str
    address: str
    bytes_per_s: float
    packets_per_s: float
    can: tuple[str, ...]
    behind_nat: bool
    pinned: bool
    pool: str
    site: str
    moving_to: str
    """The node that it is on its way to; empty: it stays."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened: an event of this sidecar, or a step of a move of any node."""

    wall: float
    source: str
    """netlink, charon, ... of this sidecar; for a move, the node that took the step."""
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PathRow:
    """A candidate path of an IKE_SA of this sidecar."""

    path: str
    link: str
    state: str
    rtt_s: float | None
    loss: float | None
    in_use: bool
    target: bool
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """An IKE_SA of this sidecar's own charon."""

    uniqueid: int
    name: str
    peer_id: str
    state: str
    path: str
    initiator: bool
    behind_nat: bool
    children: tuple[str, ...]
    established_s: float | None
    verdict: str
    """What the path policy says of it; empty: its path is not ours to choose."""
    paths: tuple[PathRow, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnMoveRow:
    """A move that this sidecar made itself, within its own host."""

    sa: str
    before: str
    after: str
    cause: str
    state: str
    took_s: float


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """The cluster, as one look at the store showed it."""

    name: str
    leader: str
    paused: bool
    paused_by: str
    even_level: float
    nodes: tuple[NodeRow, ...]
    moves: tuple[MoveRow, ...]
    """Of the journal: the newest last."""
    moving: int
    """IKE_SAs on their way."""
    sas: tuple[SaViewRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalPart:
    """This host's sidecar and charon."""

    version: str
    role: str
    node: str
    """Its name in its cluster; empty: it is in none."""
    charon: str
    problems: tuple[str, ...]
    connections: tuple[ConnectionRow, ...]
    moves: tuple[OwnMoveRow, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a source of the view is doing."""

    age_s: float | None
    """Seconds since it last answered; None: it never did."""
    error: str = ""
    """Why the last try failed; empty: it did not."""


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown at one moment. A part that was never read is None; one that cannot be read now is old."""

    cluster: ClusterPart | None = None
    local: LocalPart | None = None
    events: tuple[EventRow, ...] = ()
    """Oldest first."""
    fresh: dict[str, Freshness] = field(default_factory=dict)
    """``store`` and ``sidecar``, where there is such a source."""
