"""How operators name an IKE_SA of the cluster: its key, the peer's identity or address, or its unique id."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.cluster.records import SaRow
    from mobikectl.cluster.state import ClusterSas


@dataclass(frozen=True, slots=True)
class ServedSa:
    """An IKE_SA and the node that serves it."""

    node: str
    row: SaRow


def served(sas: ClusterSas) -> list[ServedSa]:
    """Given what the nodes tell, return every IKE_SA, by key."""
    found = [ServedSa(node, row) for node, rows in sas.by_node().items() for row in rows]
    return sorted(found, key=lambda sa: sa.row.key)


def chosen(everything: Iterable[ServedSa], name: str, *, home: str) -> list[ServedSa]:
    """Given every IKE_SA, a name and this host's node, return those that are meant.

    A key is taken first, then a peer's identity, then a peer's outer address. A number is the unique id under which a
    sidecar saw the IKE_SA first (``#N`` of its key): on this node, or where only one node has it.

    Raise NotFoundError: none, or a number that several other nodes have.
    """
    sas = list(everything)
    exact = [sa for sa in sas if sa.row.key == name]
    by_peer = [sa for sa in sas if sa.row.peer_id == name] or [sa for sa in sas if sa.row.peer == name]
    if exact or by_peer:
        return exact or by_peer
    number = name.removeprefix("#")
    if number.isdecimal():
        numbered = [sa for sa in sas if sa.row.key.endswith(f"#{number}")]
        here = [sa for sa in numbered if sa.node == home]
        if here or len(numbered) == 1:
            return here or numbered
        if numbered:
            keys = ", ".join(sa.row.key for sa in numbered[:5])
            raise NotFoundError(f"the number {number} is on several nodes", hint=f"name one of {keys}")
    raise NotFoundError(f"no IKE_SA {name!r} in the cluster", hint=_near(name, sas))


def _near(name: str, sas: list[ServedSa]) -> str:
    if not sas:
        return "no node tells of any IKE_SA: `mobikectl nodes` shows whether they report"
    known = sorted({sa.row.peer_id for sa in sas} | {sa.row.key for sa in sas})
    near = difflib.get_close_matches(name, known[:10_000], n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return (
        "name a key (NODE/PEER-ID#N), a peer's identity or address, or a unique id; `sas` lists this node's"
    )
