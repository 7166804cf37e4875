"""What the leader makes of the claims of nodes that stand by: which IKE_SAs of dead nodes are served where. Pure.

A node claims what it has copies of when it has seen that their node is dead. The leader sees to it that each IKE_SA is
given to one node only, that a node which is a member keeps its own, and that it happens under the leader's token. No
operator's pause holds it up: their clients have nobody until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, peer_of
from mobikectl.policy.cluster import Health, Mechanism, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mobikectl.cluster.records import Claim, ClaimRow
    from mobikectl.cluster.state import ClusterState, Journal

MAX_FAILOVERS = 1_000
"""Failovers under way at once."""


def grants(state: ClusterState, journal: Journal, *, at: float) -> tuple[MoveRecord, ...]:
    """Given the state, the journal's end and the wall clock's time, return the failovers to append.

    Where several nodes claim an IKE_SA, the one that serves least comes first.
    """
    taken: set[str] = set()
    open_moves = 0
    moves = [versioned.value for versioned in journal.moves]
    came = last_arrivals(moves)
    for move in moves:
        if move.reason is not Reason.FAILOVER or move.state is MoveState.CANCELLED:
            continue
        open_moves += not move.done
        # What ended is not begun again: that copy is used up. An IKE_SA that came back since is another matter; it has
        # another name there, unless charon was restarted and counts from the start.
        if not move.done:
            taken.add(move.spis)
        elif not returned_to_source(move, came):
            taken.add(move.spis + move.sas[0])
    found: list[MoveRecord] = []
    for claim, row in _by_load(state):
        if open_moves + len(found) >= MAX_FAILOVERS:
            break
        if {row.spis, row.spis + row.key} & taken:
            continue
        taken.add(row.spis)
        found.append(_record(claim, row, at))
    return tuple(found)


def is_dead(state: ClusterState, node: str) -> bool:
    """Given the state and a node, return whether nobody speaks for its IKE_SAs: it is away, or its charon is."""
    report = state.reports.get(node)
    return node not in state.members or (report is not None and report.value.health is Health.DEAD)


def returned_to_source(failover: MoveRecord, came: Mapping[tuple[str, str], int]) -> bool:
    """Given a failover and the `last_arrivals`, return whether its client came to the node that died, since."""
    return came.get((failover.source, peer_of(failover.sas[0])), -1) > failover.number


def last_arrivals(moves: Iterable[MoveRecord]) -> Mapping[tuple[str, str], int]:
    """Given moves, return the number of the last verified one of each client to each node, by node and client."""
    return {
        (move.target, peer_of(name)): move.number
        for move in sorted(moves, key=lambda move: move.number)
        if move.state is MoveState.VERIFIED
        for name in move.sas
    }


def _by_load(state: ClusterState) -> Iterator[tuple[Claim, ClaimRow]]:
    claims = [versioned.value for versioned in state.claims.values()]
    claims.sort(key=lambda claim: (_load(state, claim.node), claim.node))
    for claim in claims:
        if claim.node in state.members and (claim.lost or is_dead(state, claim.source)):
            for row in claim.rows:
                yield claim, row


def _load(state: ClusterState, node: str) -> int:
    report = state.reports.get(node)
    return report.value.ike_sas if report is not None else 0


def _record(claim: Claim, row: ClaimRow, at: float) -> MoveRecord:
    return MoveRecord(
        token=0,
        sas=(row.key,),
        source=claim.source,
        target=claim.node,
        mechanism=Mechanism.NOTIFY,
        reason=Reason.FAILOVER,
        source_address=row.source_address,
        target_address=row.target_address,
        steps=(MoveStep(MoveState.PLANNED, at, claim.evidence[:200]),),
        spis=row.spis,
    )
