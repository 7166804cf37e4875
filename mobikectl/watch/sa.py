"""One IKE_SA of the cluster looked at closely: where it is, why it is there, and where it was. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.errors import NotFoundError
from mobikectl.policy.explain import explain
from mobikectl.watch.cluster import sa_row
from mobikectl.watch.moves import move_row, peer_of

if TYPE_CHECKING:
    from mobikectl.cluster.reading import Reading
    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.watch.rows import MoveRow, SaViewRow

MOVES = 50


@dataclass(frozen=True, slots=True)
class SaHistory:
    """An IKE_SA and what became of its peer's IKE_SAs lately."""

    key: str
    peer_id: str
    now: SaViewRow | None
    """As its node tells of it; None: nobody tells of it now."""
    why: tuple[str, ...]
    """Why it is where it is, in lines."""
    moves: tuple[MoveRow, ...]
    """The newest last. Nodes name an IKE_SA differently, so all of the same peer are here."""


def sa_history(reading: Reading, policy: BalanceSettings, key: str) -> SaHistory:
    """Given a look at the store and an IKE_SA's name, return what is known of it. Raise NotFoundError."""
    peer = peer_of(key)
    moves = tuple(
        move_row(move.value) for move in reading.journal.moves if peer in map(peer_of, move.value.sas)
    )[-MOVES:]
    heading = {name: move.value.target for move in reading.pending for name in move.value.sas}
    if key not in reading.rows:
        if not moves:
            raise NotFoundError(f"no IKE_SA {key[:200]!r} in the cluster", hint="it may be gone")
        return SaHistory(key, peer, None, (), moves)
    node, row = reading.rows[key]
    return SaHistory(
        key,
        row.peer_id,
        sa_row(node, row, reading, heading),
        explain(reading.view, policy, reading.at, key),
        moves,
    )
