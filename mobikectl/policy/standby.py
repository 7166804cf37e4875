"""Which nodes stand by for an IKE_SA: they have it, passive, and serve it when its node dies. Pure.

Each IKE_SA ranks the nodes for itself (weighted rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings
to increase hit rates", 1998; with weights: Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005), so
that the standbys of one node's IKE_SAs are spread over all others by their headroom, and whoever asks gets the same
answer. A standby that is still fit stays: nothing is copied anew because a load changed or a node came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_HEADROOM = 0.01
"""A node that is full takes copies when no other can: they cost memory, and are served only when a node dies."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may stand by. ``room``: IKE_SAs that it could serve besides those it does, weighted."""

    name: str
    room: float = 1.0
    site: str = ""
    pools: frozenset[str] | None = None
    """Virtual IP pools routed to it; None: all of them."""
    families: frozenset[int] = frozenset({4, 6})
    """IP versions of the addresses that it serves at."""


@dataclass(frozen=True, slots=True)
class Ward:
    """An IKE_SA that needs standbys. ``key``: names it for as long as it lives."""

    key: str
    pool: str = ""
    site: str = ""
    """It should stay there; empty: anywhere."""
    family: int = 4


def choose(
    own: str, ward: Ward, candidates: Iterable[Candidate], *, count: int, present: Sequence[str] = ()
) -> tuple[str, ...]:
    """Given the node that serves an IKE_SA, the others, and those that stand by now, return who is to, best first.

    Never the own node, never more than ``count``; fewer, also none, where fewer are fit.
    """
    fit = {each.name: each for each in candidates if each.name != own and _fits(each, ward)}
    kept = [name for name in present if name in fit][:count]
    others = sorted(fit.keys() - set(kept), key=lambda name: (-_score(ward.key, fit[name]), name))
    return (*kept, *others[: count - len(kept)])


def _fits(node: Candidate, ward: Ward) -> bool:
    return (
        (not ward.pool or node.pools is None or ward.pool in node.pools)
        and (not ward.site or node.site == ward.site)
        and ward.family in node.families
    )


def _score(key: str, node: Candidate) -> float:
    digest = hashlib.blake2b(f"{key}\0{node.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 1) / ((1 << 64) + 2)
    return max(node.room, LEAST_HEADROOM) / -log(share)
