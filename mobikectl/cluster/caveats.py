"""Why nothing (or not all) that is wanted of a cluster will be done now, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobikectl.cluster.records import ClusterIntent, NodeIntent, Pin
    from mobikectl.cluster.state import ClusterState


def caveats(state: ClusterState) -> list[str]:
    """Given the state, return why nothing (or not all) that is wanted will be done now, one line each."""
    found = [f"the store holds what cannot be read, so nothing is planned: {error}" for error in state.broken]
    if state.leader is None:
        found.append("nobody leads the cluster: nothing is planned until a sidecar does")
    if state.cluster.value.paused:
        found.append(f"the cluster is paused{signed(state.cluster.value)}: no move is begun until `resume`")
    return found


def signed(intent: ClusterIntent | NodeIntent | Pin) -> str:
    """Given what an operator wanted, return who and why, to be put behind it."""
    said = ", ".join(part for part in (intent.by and f"by {intent.by}", intent.note) if part)
    return f" ({said})" if said else ""
