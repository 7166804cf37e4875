"""What is known of a cluster of gateways, and what a plan for it says: frozen values, no behaviour.

Rates are per second, times are seconds of one clock shared by the whole view (the decider's), and a
utilisation of 1.0 is a node at its configured capacity. The IKE_SAs are columns (`SaTable`), because a
cluster may have a million of them; a handful is written as rows (`ClusterSa`) and turned into the same
table, so there is one code path for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from math import inf
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobikectl.errors import ConfigError
from mobikectl.model import IpAddress  # noqa: TC001 (the store's codec reads the annotations)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DEFAULT_SAS_PER_NODE = 10_000.0
"""IKE_SAs that a node is taken to carry when nobody configured its capacity."""


class Mechanism(IntEnum):
    """How a switch is carried out, best first (docs/architecture.md, 'Mechanisms of a switch')."""

    NOTIFY = 1
    """SWITCH_TO_IP_ADDRESS to this one IKE_SA; works through NAT."""
    IMPLICIT = 2
    """MOBIKE's address list, sent from the new address (RFC 4555 section 3.6): all behind the peer's address."""
    REDIRECT = 3
    """REDIRECT (RFC 5685 section 5): the client makes a new IKE_SA at the target."""
    RECONNECT = 4
    """Terminate and let the peer come back: an interruption."""

    @property
    def word(self) -> str:
        """The name as configuration and output spell it."""
        return self.name.lower()


class Capability(IntFlag):
    """What a peer was seen to support."""

    NONE = 0
    MOBIKE = 1
    """MOBIKE_SUPPORTED (RFC 4555 section 4.2.1)."""
    SWITCH = 2
    """The 'R' in MOBIKE_SUPPORTED: it obeys SWITCH_TO_IP_ADDRESS."""
    REDIRECT = 4
    """REDIRECT_SUPPORTED (RFC 5685 section 9.1)."""


LEAVING = frozenset({Mechanism.REDIRECT, Mechanism.RECONNECT})
"""By these a client ends its IKE_SA and makes a new one."""
CARRIED = Capability.SWITCH | Capability.MOBIKE
"""One of these a peer needs to keep its IKE_SA at another node."""


class Health(Enum):
    """What a node can still do, as seen by the others."""

    HEALTHY = "healthy"
    IMPAIRED = "impaired"
    """charon answers but the node should not carry traffic: it can still ask its peers to go."""
    DEAD = "dead"
    """charon is gone or hung: nobody can speak for its IKE_SAs, the peers come back by themselves."""
    UNKNOWN = "unknown"
    """Nothing was heard from it lately: neither give to it nor take from it."""


class Reason(Enum):
    """Which goal a move serves, in the order of the goals."""

    IMPAIRED = "impaired"
    DRAIN = "drain"
    UPLINK = "uplink"
    OVERLOAD = "overload"
    SPREAD = "spread"
    UPLINK_SPREAD = "uplink-spread"
    ORDER = "order"
    """No goal: an operator wants this one IKE_SA to be there."""
    FAILOVER = "failover"
    """Its node is dead. No goal of the balance: a node that stands by claims it, and carries it out itself."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node carries at a utilisation of 1.0. A dimension that does not limit it is infinite."""

    bytes_per_s: float = inf
    """Of all CHILD_SAs, in and out together."""
    packets_per_s: float = inf
    """Of all CHILD_SAs, in and out together."""
    sas: float = DEFAULT_SAS_PER_NODE
    """IKE_SAs."""

    def __post_init__(self) -> None:
        if not (self.bytes_per_s > 0 and self.packets_per_s > 0 and self.sas > 0):
            raise ConfigError("a capacity must be above zero", hint="to take a node out of use, drain it")


@dataclass(frozen=True, slots=True)
class Load:
    """A node's load report, smoothed by the reporter."""

    at: float
    """When it was measured."""
    ike_sas: int = 0
    half_open: int = 0
    child_sas: int = 0
    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0
    cpu: float = 0.0
    """Share of the node's processors in use, 0 to 1."""
    memory: float = 0.0
    """Share of the node's memory in use, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ServingAddress:
    """One of a node's unicast addresses that clients can be served at."""

    ip: IpAddress
    usable: bool = True
    """Its uplink works."""
    bytes_per_s: float = inf
    """The uplink's capacity; infinite when it never is the bottleneck."""


@dataclass(frozen=True, slots=True)
class Node:
    """A gateway of the cluster."""

    name: str
    addresses: tuple[ServingAddress, ...]
    load: Load
    capacity: Capacity = field(default_factory=Capacity)
    weight: float = 1.0
    """Its share of the cluster's load relative to its capacity: 0.5 is to be half as full as the others."""
    overload_limit: float = 0.9
    """The utilisation that must not be exceeded."""
    health: Health = Health.HEALTHY
    drained: bool = False
    carries: bool = False
    """Whether an IKE_SA's state can be carried in and out, so that it can move without a new IKE_SA."""
    site: str = ""
    pools: frozenset[str] | None = None
    """Virtual IP pools routed to it; None: all of them."""
    recent_moves: int = 0
    """IKE_SAs that left or entered it within the settings' rate window."""
    last_move_at: float = -inf

    def __post_init__(self) -> None:
        if not (self.weight > 0 and np.isfinite(self.weight)):
            raise ConfigError(
                f"node {self.name}: weight {self.weight} is not a number above zero",
                hint="to take a node out of use, drain it",
            )
        if not 0 < self.overload_limit <= 1:
            raise ConfigError(
                f"node {self.name}: overload limit {self.overload_limit} is not in (0, 1]",
                hint="it is a share of the node's capacity, for instance 0.9",
            )


@dataclass(frozen=True, slots=True)
class ClusterSa:
    """One IKE_SA as the cluster sees it: a row of `SaTable`."""

    key: str
    """Names it in the whole cluster and survives rekeys; says nothing to the policy."""
    owner: str
    """The node that serves it."""
    peer: str
    """The peer's outer address: what an implicit switch moves as a whole."""
    address: int = 0
    """Which of the owner's addresses serves it: an index into `Node.addresses`."""
    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0
    capability: Capability = Capability.NONE
    behind_nat: bool = False
    pinned: bool = False
    last_moved_at: float = -inf
    recent_redirects: int = 0
    """How often this client was redirected in the last 300 s (RFC 5685 section 7's loop guard)."""
    refused_until: float = -inf
    """The peer refused a move; it is left alone until then."""
    pool: str = ""
    """The virtual IP pool it has an address of; empty: none, any node will do."""
    site: str = ""
    """The site it should stay in; empty: any."""


_Column = TypeVar("_Column", bound=np.generic)


def _column(values: Iterable[object], dtype: type[_Column]) -> NDArray[_Column]:
    return np.array(list(values), dtype=dtype)


@dataclass(frozen=True, slots=True, eq=False)
class SaTable:
    """Every IKE_SA of the cluster in columns of one length; row i of each column is the same IKE_SA.

    The order of the rows breaks ties, so who wants the same plan for the same cluster keeps an order
    (`of` sorts by key).
    """

    keys: Sequence[str]
    owner: NDArray[np.int32]
    """Index into `ClusterView.nodes`."""
    address: NDArray[np.int16]
    peer: NDArray[np.int32]
    """Equal numbers: the same outer address."""
    bytes_per_s: Floats
    packets_per_s: Floats
    capability: NDArray[np.uint8]
    behind_nat: Bools
    pinned: Bools
    last_moved_at: Floats
    recent_redirects: NDArray[np.int16]
    refused_until: Floats
    pool: NDArray[np.int16]
    """Index into `pools`, or -1."""
    site: NDArray[np.int16]
    """Index into `sites`, or -1."""
    pools: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.owner)

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name)) for name in self.__slots__ if name not in {"pools", "sites"}
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")

    @classmethod
    def of(cls, rows: Iterable[ClusterSa], nodes: Sequence[Node]) -> SaTable:
        """Given rows and the view's nodes, return the table, sorted by key. Raise KeyError for an unknown owner."""
        ordered = sorted(rows, key=lambda row: row.key)
        index = {node.name: i for i, node in enumerate(nodes)}
        peers = {peer: i for i, peer in enumerate(sorted({row.peer for row in ordered}))}
        pools = tuple(sorted({row.pool for row in ordered} - {""}))
        sites = tuple(sorted({row.site for row in ordered} - {""}))
        pool_index = {"": -1} | {pool: i for i, pool in enumerate(pools)}
        site_index = {"": -1} | {site: i for i, site in enumerate(sites)}
        return cls(
            keys=tuple(row.key for row in ordered),
            owner=_column((index[row.owner] for row in ordered), np.int32),
            address=_column((row.address for row in ordered), np.int16),
            peer=_column((peers[row.peer] for row in ordered), np.int32),
            bytes_per_s=_column((row.bytes_per_s for row in ordered), np.float64),
            packets_per_s=_column((row.packets_per_s for row in ordered), np.float64),
            capability=_column((int(row.capability) for row in ordered), np.uint8),
            behind_nat=_column((row.behind_nat for row in ordered), np.bool_),
            pinned=_column((row.pinned for row in ordered), np.bool_),
            last_moved_at=_column((row.last_moved_at for row in ordered), np.float64),
            recent_redirects=_column((row.recent_redirects for row in ordered), np.int16),
            refused_until=_column((row.refused_until for row in ordered), np.float64),
            pool=_column((pool_index[row.pool] for row in ordered), np.int16),
            site=_column((site_index[row.site] for row in ordered), np.int16),
            pools=pools,
            sites=sites,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ClusterView:
    """The cluster at one moment: all that `mobikectl.policy.balance.plan` looks at."""

    nodes: tuple[Node, ...]
    sas: SaTable
    recent_moves: int = 0
    """IKE_SAs moved anywhere within the settings' rate window."""
    relieving: frozenset[str] = frozenset()
    """`Plan.relieving` of the plan before: nodes that are to be brought down to the low watermark."""
    paused: bool = False

    def __post_init__(self) -> None:
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ValueError("two nodes have the same name")
        if not len(self.sas):
            return
        if self.sas.owner.min() < 0 or self.sas.owner.max() >= len(self.nodes):
            raise ValueError("an IKE_SA is owned by a node that is not in the view")
        addresses = np.array([len(node.addresses) for node in self.nodes])
        if (self.sas.address < 0).any() or (self.sas.address >= addresses[self.sas.owner]).any():
            raise ValueError("an IKE_SA is served at an address that its node does not have")

    @classmethod
    def of(cls, nodes: Iterable[Node], rows: Iterable[ClusterSa], **more: object) -> ClusterView:
        """Given nodes and rows, return the view (``more``: the other fields)."""
        kept = tuple(nodes)
        return cls(kept, SaTable.of(rows, kept), **more)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a move is expected to do: utilisations before and after, of the node (or uplink) left and entered."""

    source_before: float
    source_after: float
    target_before: float
    target_after: float


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One switch to be carried out: of one IKE_SA, or of all behind a peer's address (implicit)."""

    sas: tuple[str, ...]
    source: str
    source_address: IpAddress
    target: str
    target_address: IpAddress
    mechanism: Mechanism
    reason: Reason
    effect: Effect

    @property
    def within_node(self) -> bool:
        """Whether only the address changes."""
        return self.source == self.target

    def explain(self) -> str:
        """Return one line for people: what, how, why and what it is expected to do."""
        what = (
            self.sas[0]
            if len(self.sas) == 1
            else f"{self.sas[0]} and {len(self.sas) - 1} more behind its address"
        )
        why = {
            Reason.IMPAIRED: f"{self.source} is impaired",
            Reason.DRAIN: f"{self.source} is drained",
            Reason.UPLINK: f"the uplink of {self.source_address} is down",
            Reason.OVERLOAD: f"{self.source} is over its limit",
            Reason.SPREAD: f"{self.source} has more than its share",
            Reason.UPLINK_SPREAD: f"the uplink of {self.source_address} has more than its share",
            Reason.FAILOVER: f"{self.source} is dead",
            Reason.ORDER: "an operator wants it",
        }[self.reason]
        e = self.effect
        return (
            f"{what}: {self.source} ({self.source_address}) -> {self.target} ({self.target_address}) "
            f"by {self.mechanism.word}: {why}; {e.source_before:.1%} -> {e.source_after:.1%}, "
            f"target {e.target_before:.1%} -> {e.target_after:.1%}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now, in order, and what is not done and why."""

    moves: tuple[PlannedMove, ...] = ()
    notes: tuple[str, ...] = ()
    next_deadline: float | None = None
    """When a new plan could say something else although nothing was observed; None: only then."""
    relieving: frozenset[str] = frozenset()
    """Nodes whose relief is not complete; belongs into the next view."""

    @property
    def sa_count(self) -> int:
        """How many IKE_SAs it moves."""
        return sum(len(move.sas) for move in self.moves)
