"""The cluster as a reader of the store sees it: from what the nodes wrote to what the balance policy looks at.

Shared by the decider and by the commands that show what it would do. `read_view` reads, `put_together` is pure. What
cannot be read from one look alone (when a report was new, when a move began) is in `Observed`, which a reader that
looks again hands in again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from mobikectl.cluster.records import FINAL, MoveState
from mobikectl.cluster.view import RecentMoves, Seen, look, nodes
from mobikectl.policy.cluster import Capability, ClusterSa, ClusterView, Mechanism

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mobikectl.cluster.records import Member, MoveRecord, NodeIntent, SaPart, SaRow, Versioned
    from mobikectl.cluster.state import ClusterSas, ClusterState, Journal
    from mobikectl.cluster.store import Store
    from mobikectl.errors import StoreValueError
    from mobikectl.policy.cluster import Node, Reason
    from mobikectl.policy.cluster_settings import BalanceSettings

STUCK_S = 120.0
"""A move in whose record nothing happened for this long is not waited for: its node is gone, or hangs."""
RETRY_S = 30.0
"""An IKE_SA of which a move failed is left alone for this long, whatever its node says."""
FAILED = frozenset({MoveState.REFUSED, MoveState.TIMED_OUT, MoveState.ROLLED_BACK})
NEEDED = {
    Mechanism.NOTIFY: Capability.SWITCH,
    Mechanism.IMPLICIT: Capability.MOBIKE,
    Mechanism.REDIRECT: Capability.REDIRECT,
}
"""What a peer must support for a mechanism."""


@dataclass(frozen=True, slots=True)
class SeenMove:
    """A move of the journal as this reader saw it; times by its clock."""

    state: MoveState
    since: float
    """When it was seen in this state first."""
    first_at: float
    """When it was seen at all first; -inf: it had ended before this reader began to look."""
    source: str
    target: str
    reason: Reason
    sas: int
    rows: tuple[SaRow, ...] = ()
    """Its IKE_SAs as their node told of them last."""

    def counts(self, policy: BalanceSettings, now: float) -> bool:
        """Return whether it uses up the budget of the present window."""
        return self.state is not MoveState.CANCELLED and now - self.first_at < policy.window_s


@dataclass(frozen=True, slots=True)
class Observed:
    """What a reader knows from its earlier looks. A fresh one (the default) has not looked yet."""

    looked: bool = False
    reports: Mapping[str, Seen] = field(default_factory=dict)
    parts: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Key of a part -> its revision, and when that was seen first."""
    moves: Mapping[int, SeenMove] = field(default_factory=dict)
    sas: ClusterSas | None = None
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the store."""

    at: float
    """By the reader's clock, as every time in the view."""
    state: ClusterState
    journal: Journal
    rows: Mapping[str, tuple[str, SaRow]]
    """Key of an IKE_SA -> the node that serves it, and what that tells of it."""
    view: ClusterView
    pending: tuple[Versioned[MoveRecord], ...]
    """Moves that are under way or still to be begun."""
    unreadable: tuple[StoreValueError, ...]
    """Values that could not be read: who has any of them does not plan."""
    notes: tuple[str, ...]
    """What was left out of the view, and why."""
    observed: Observed
    """For the next look."""

    def find(self, name: str) -> tuple[str, ...]:
        """Given a key or a peer's identity, return the keys of the IKE_SAs that it names."""
        if name in self.rows:
            return (name,)
        return tuple(key for key, (_, row) in self.rows.items() if row.peer_id == name)


async def read_view(
    store: Store,
    policy: BalanceSettings,
    *,
    now: float,
    observed: Observed | None = None,
    relieving: frozenset[str] = frozenset(),
    wary: bool = False,
) -> Reading:
    """Given the store, the policy's settings and the time by the reader's clock, return what is there.

    ``observed``: of the reader's last `Reading`; None: it never looked. ``relieving``: `Plan.relieving` of the plan
    before. ``wary``: a report counts only when it was seen to change: one that was there at the first look may have
    been written long ago. Raise what `Store.state` raises.
    """
    observed = observed or Observed()
    state = await store.state()
    sas = await store.sas(observed.sas)
    journal = await store.journal(known=observed.journal)
    return put_together(
        state, sas, journal, policy, now=now, observed=observed, relieving=relieving, wary=wary
    )


def put_together(
    state: ClusterState,
    sas: ClusterSas,
    journal: Journal,
    policy: BalanceSettings,
    *,
    now: float,
    observed: Observed,
    relieving: frozenset[str] = frozenset(),
    wary: bool = False,
) -> Reading:
    """Given what was read, return it as a `Reading`; the rest is as of `read_view`. Pure."""
    reports = look(observed.reports, state, now)
    if wary and not observed.looked:
        reports = {name: replace(seen, at=-inf) for name, seen in reports.items()}
    parts = {
        key: (part.revision, before[1])
        if (before := observed.parts.get(key)) is not None and before[0] == part.revision
        else (part.revision, now)
        for key, part in sas.parts.items()
    }
    builder = _Builder(state, policy, now)
    for key, part in sorted(sas.parts.items()):
        builder.take(part, parts[key][1])
    moves = _seen_moves(journal, observed, builder.rows, policy, now)
    builder.put_moves(journal, moves)
    recent = _recent(moves, policy, now)
    view = ClusterView.of(
        nodes(state, reports, recent, now=now, stale_after_s=policy.stale_after_s),
        builder.sas.values(),
        recent_moves=sum(seen.sas for seen in moves.values() if seen.counts(policy, now)),
        relieving=relieving & state.members.keys(),
        paused=state.cluster.value.paused,
    )
    return Reading(
        at=now,
        state=state,
        journal=journal,
        rows=builder.rows,
        view=view,
        pending=tuple(
            move
            for move in journal.moves
            if move.value.source in state.members and _is_pending(move.value, moves, now)
        ),
        unreadable=(*state.broken, *sas.broken, *journal.broken),
        notes=tuple(builder.notes),
        observed=Observed(True, reports, parts, moves, sas, journal),
    )


class _Builder:
    """Collects the rows of a view."""

    def __init__(self, state: ClusterState, policy: BalanceSettings, now: float) -> None:
        self._members = {name: member.value for name, member in state.members.items()}
        self._intents = {name: state.intent(name).value for name in self._members}
        self._pins = state.pins.keys()
        self._policy = policy
        self._now = now
        self.rows: dict[str, tuple[str, SaRow]] = {}
        self.sas: dict[str, ClusterSa] = {}
        self.notes: list[str] = []
        self._told: dict[str, int] = {}
        """Key of an IKE_SA -> the revision of the part that tells of it."""

    def take(self, versioned: Versioned[SaPart], at: float) -> None:
        """Given a part and when it was seen first, add its rows."""
        part = versioned.value
        member = self._members.get(part.node)
        if member is None or member.instance != part.instance or not member.addresses:
            return
        for row in part.rows:
            if row.key in self.rows:
                self.notes.append(f"{row.key}: told of twice, by {self.rows[row.key][0]} and {part.node}")
                continue
            self.rows[row.key] = (part.node, row)
            self._told[row.key] = versioned.revision
            self.sas[row.key] = self._sa(member, row, at)

    def _sa(self, member: Member, row: SaRow, at: float) -> ClusterSa:
        return ClusterSa(
            key=row.key,
            owner=member.name,
            peer=row.peer,
            address=_index(member, row),
            bytes_per_s=row.bytes_per_s,
            packets_per_s=row.packets_per_s,
            capability=_usable(row.capability, self._intents[member.name]),
            behind_nat=row.behind_nat,
            pinned=row.key in self._pins or row.peer_id in self._pins,
            last_moved_at=-inf if row.moved_ago_s is None else at - row.moved_ago_s,
            recent_redirects=row.redirects,
            refused_until=at + row.refused_for_s if row.refused_for_s > 0 else -inf,
            pool=row.pool,
            site=row.site,
        )

    def put_moves(self, journal: Journal, moves: Mapping[int, SeenMove]) -> None:
        """Count what is on its way as if it had arrived, and let nobody plan for it."""
        at_target: dict[str, set[str]] = {}
        for node, row in self.rows.values():
            at_target.setdefault(node, set()).add(row.peer_id)
        for versioned in journal.moves:
            move, seen = versioned.value, moves[versioned.value.number]
            keys = move.sas
            if move.done and seen.first_at == -inf:
                # It may have ended long ago: who told of an IKE_SA since knew, or tells of another of that name.
                keys = tuple(key for key in keys if not self._is_newer(key, versioned))
            if move.state in FAILED and self._now - seen.since < RETRY_S:
                self._rest(keys, seen.since + RETRY_S)
            arrived = move.state is MoveState.VERIFIED and self._now - seen.since < self._policy.settle_s
            if arrived or _is_pending(move, moves, self._now):
                self._shift(move, keys, seen, at_target.get(move.target, set()))

    def _is_newer(self, key: str, ended: Versioned[MoveRecord]) -> bool:
        """Whether what is told of an IKE_SA was told after a move of that name ended, or is what that led to."""
        node, row = self.rows.get(key, ("", None))
        arrived = row is not None and (node, row.address) == (ended.value.target, ended.value.target_address)
        return arrived or self._told.get(key, 0) > ended.revision

    def _rest(self, keys: Iterable[str], until: float) -> None:
        for key in keys:
            if (sa := self.sas.get(key)) is not None:
                self.sas[key] = replace(sa, refused_until=max(sa.refused_until, until))

    def _shift(self, move: MoveRecord, keys: Iterable[str], seen: SeenMove, at_target: set[str]) -> None:
        target = self._members.get(move.target)
        known = {row.key: row for row in seen.rows}
        for key in keys:
            sa = self.sas.get(key)
            awaited = move.source in self._members or move.state is MoveState.VERIFIED
            if sa is None and awaited and key in known and target is not None and target.addresses:
                if known[key].peer_id in at_target:
                    continue
                sa = self._sa(
                    target, known[key], self._now
                )  # it left, and its target does not tell of it yet
            if sa is None:
                continue
            if target is not None and target.addresses:
                sa = replace(sa, owner=move.target, address=_index_of(target, move))
            self.sas[key] = replace(sa, pinned=True)


def _index(member: Member, row: SaRow) -> int:
    """Return which of its node's addresses serves an IKE_SA: one that is none of them (anycast) counts as the first."""
    same_family = 0
    for number, address in reversed(list(enumerate(member.addresses))):
        if address.ip == row.address:
            return number
        if address.ip.version == row.address.version:
            same_family = number
    return same_family


def _index_of(member: Member, move: MoveRecord) -> int:
    ips = [address.ip for address in member.addresses]
    return ips.index(move.target_address) if move.target_address in ips else 0


def _usable(capability: Capability, intent: NodeIntent) -> Capability:
    """Leave out what the operator who drains the node does not want to be used."""
    if not (intent.drained and intent.mechanisms):
        return capability
    kept = Capability.NONE
    for mechanism, needed in NEEDED.items():
        if mechanism in intent.mechanisms:
            kept |= needed
    return capability & kept


def _seen_moves(
    journal: Journal,
    observed: Observed,
    rows: Mapping[str, tuple[str, SaRow]],
    policy: BalanceSettings,
    now: float,
) -> dict[int, SeenMove]:
    # The journal is only looked at from its end: what a budget counts is kept when it is no longer there.
    found = {
        number: replace(seen, rows=()) for number, seen in observed.moves.items() if seen.counts(policy, now)
    }
    for versioned in journal.moves:
        move = versioned.value
        before = observed.moves.get(move.number)
        told = tuple(rows[key][1] for key in move.sas if key in rows)
        since = first_at = now
        if before is None:
            first_at = -inf if move.done and not observed.looked else now
        else:
            since, first_at = (before.since if before.state is move.state else now), before.first_at
            told = told if len(told) >= len(before.rows) else before.rows
        found[move.number] = SeenMove(
            move.state, since, first_at, move.source, move.target, move.reason, len(move.sas), told
        )
    return found


def _is_pending(move: MoveRecord, moves: Mapping[int, SeenMove], now: float) -> bool:
    return move.state not in FINAL and now - moves[move.number].since < STUCK_S


def _recent(moves: Mapping[int, SeenMove], policy: BalanceSettings, now: float) -> dict[str, RecentMoves]:
    found: dict[str, RecentMoves] = {}
    for seen in moves.values():
        if seen.counts(policy, now):
            for node in {seen.source, seen.target}:
                before = found.get(node, RecentMoves())
                found[node] = RecentMoves(before.count + seen.sas, max(before.last_at, seen.since))
    return found


def served(view: ClusterView) -> Iterator[tuple[Node, int]]:
    """Given a view, yield each node and how many IKE_SAs it serves, those on their way to it included."""
    counts = [0] * len(view.nodes)
    for owner in view.sas.owner.tolist():
        counts[owner] += 1
    yield from zip(view.nodes, counts, strict=True)
