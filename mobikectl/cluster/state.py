"""What was read from the store, put together: the cluster's state and its journal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mobikectl.cluster.codec import check_name, from_json
from mobikectl.cluster.records import (
    Claim,
    ClusterIntent,
    Leader,
    Member,
    MoveRecord,
    NodeIntent,
    NodeReport,
    Order,
    Pin,
    SaPart,
    SaRow,
    Versioned,
)
from mobikectl.errors import StoreValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.cluster.backend import Entry, Snapshot

DIGITS = 12
"""Of a move's number in its key: as text, keys are then in the order of the numbers."""
NOTHING_WANTED = Versioned(ClusterIntent(), 0)


def place(number: int) -> str:
    """Given a move's number, return the last part of its key."""
    return f"{number:0{DIGITS}d}"


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All that the nodes of a cluster tell each other, at one moment."""

    revision: int
    leader: Leader | None = None
    members: Mapping[str, Versioned[Member]] = field(default_factory=dict)
    reports: Mapping[str, Versioned[NodeReport]] = field(default_factory=dict)
    intents: Mapping[str, Versioned[NodeIntent]] = field(default_factory=dict)
    cluster: Versioned[ClusterIntent] = field(default=NOTHING_WANTED)
    pins: Mapping[str, Versioned[Pin]] = field(default_factory=dict)
    claims: Mapping[str, Versioned[Claim]] = field(default_factory=dict)
    """By place: who claims, of whom, and a number."""
    orders: Mapping[str, Versioned[Order]] = field(default_factory=dict)
    broken: tuple[StoreValueError, ...] = ()
    """Values that could not be read. One of them may have said "drain": a decider with any does not plan."""

    def intent(self, node: str) -> Versioned[NodeIntent]:
        """Given a node, return what operators want of it; version 0 when they never said."""
        return self.intents.get(node, Versioned(NodeIntent(), 0))


@dataclass(frozen=True, slots=True)
class Changed:
    """Something below ``state/`` changed: its kind (members, reports, ...) and name."""

    kind: str
    name: str
    revision: int


@dataclass(frozen=True, slots=True)
class Journal:
    """The last moves, in their order."""

    revision: int
    moves: tuple[Versioned[MoveRecord], ...]
    broken: tuple[StoreValueError, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterSas:
    """The IKE_SAs that the nodes tell of, at one moment."""

    revision: int
    parts: Mapping[str, Versioned[SaPart]] = field(default_factory=dict)
    """By key."""
    broken: tuple[StoreValueError, ...] = ()

    def by_node(self) -> dict[str, tuple[SaRow, ...]]:
        """Return the IKE_SAs of each node."""
        found: dict[str, list[SaRow]] = {}
        for part in self.parts.values():
            found.setdefault(part.value.node, []).extend(part.value.rows)
        return {node: tuple(rows) for node, rows in found.items()}


def sas_of(prefix: str, snapshot: Snapshot, known: ClusterSas | None) -> ClusterSas:
    """Given what was read below ``sas/`` and what was known before, return it; only what changed is decoded."""
    parts: dict[str, Versioned[SaPart]] = {}
    broken: list[StoreValueError] = []
    for entry in snapshot.entries:
        before = known.parts.get(entry.key) if known is not None else None
        if before is not None and before.revision == entry.revision:
            parts[entry.key] = before
            continue
        try:
            part = from_json(entry.key, entry.value, SaPart)
            node, _, number = entry.key.removeprefix(prefix).partition("/")
            _same(entry.key, check_name(part.node), node)
            _same(entry.key, part_place(part.part), number)
        except StoreValueError as error:
            broken.append(error)
        else:
            parts[entry.key] = Versioned(part, entry.revision)
    return ClusterSas(snapshot.revision, parts, tuple(broken))


def part_place(part: int) -> str:
    """Given a part's number, return the last part of its key."""
    return f"{part:05d}"


class StateReader:
    """Puts the entries below ``state/`` where they belong."""

    def __init__(self, prefix: str, revision: int) -> None:
        self._prefix = prefix
        self._members: dict[str, Versioned[Member]] = {}
        self._reports: dict[str, Versioned[NodeReport]] = {}
        self._intents: dict[str, Versioned[NodeIntent]] = {}
        self._pins: dict[str, Versioned[Pin]] = {}
        self._orders: dict[str, Versioned[Order]] = {}
        self._claims: dict[str, Versioned[Claim]] = {}
        self._broken: list[StoreValueError] = []
        self._state = ClusterState(
            revision,
            members=self._members,
            reports=self._reports,
            intents=self._intents,
            pins=self._pins,
            orders=self._orders,
            claims=self._claims,
        )

    @property
    def state(self) -> ClusterState:
        """What was taken so far."""
        return replace(self._state, broken=tuple(self._broken))

    def take(self, entry: Entry) -> None:
        """Given an entry, put its value where it belongs, or say that it is broken."""
        kind, _, name = entry.key.removeprefix(self._prefix).partition("/")
        try:
            self._take(kind, unquote(name), entry)
        except StoreValueError as error:
            self._broken.append(error)

    def _take(self, kind: str, name: str, entry: Entry) -> None:
        if kind == "members":
            member = from_json(entry.key, entry.value, Member)
            self._members[_same(entry.key, check_name(member.name), name)] = Versioned(member, entry.revision)
        elif kind == "reports":
            report = from_json(entry.key, entry.value, NodeReport)
            self._reports[_same(entry.key, check_name(report.node), name)] = Versioned(report, entry.revision)
        elif kind == "intents":
            intent = from_json(entry.key, entry.value, NodeIntent)
            self._intents[check_name(name)] = Versioned(intent, entry.revision)
        elif kind == "pins":
            pin = from_json(entry.key, entry.value, Pin)
            self._pins[_same(entry.key, pin.sa, name)] = Versioned(pin, entry.revision)
        elif kind == "claims":
            claim = from_json(entry.key, entry.value, Claim)
            part = name.rpartition("~")[2]
            _same(entry.key, claim_place(claim, int(part) if part.isdecimal() else 0), name)
            self._claims[name] = Versioned(claim, entry.revision)
        elif kind == "orders":
            order = from_json(entry.key, entry.value, Order)
            self._orders[_same(entry.key, check_name(order.name), name)] = Versioned(order, entry.revision)
        elif (kind, name) == ("leader", ""):
            self._state = replace(self._state, leader=leader_of(entry))
        elif (kind, name) == ("cluster", ""):
            cluster = from_json(entry.key, entry.value, ClusterIntent)
            self._state = replace(self._state, cluster=Versioned(cluster, entry.revision))
        # Other kinds are those of a newer version: nothing that this one could misunderstand.


def claim_place(claim: Claim, part: int) -> str:
    """Given a claim and its number, return the last part of its key."""
    return f"{check_name(claim.node)}~{check_name(claim.source)}~{part}"


def _same(key: str, said: str, named: str) -> str:
    if said != named:
        raise StoreValueError(f"{key!r} speaks of another: {said!r}", hint="delete the key")
    return said


def leader_of(entry: Entry) -> Leader:
    """Given the leader's entry, return who leads. Raise StoreValueError."""
    leader = from_json(entry.key, entry.value, Leader)
    return Leader(check_name(leader.node), leader.instance, entry.revision)


def move_of(key: str, value: bytes) -> MoveRecord:
    """Given a key of the journal and its value, return the move. Raise StoreValueError."""
    move = from_json(key, value, MoveRecord)
    if key.rpartition("/")[2] != place(move.number):
        raise StoreValueError(f"{key!r} is another move's place", hint="delete the key")
    return move
