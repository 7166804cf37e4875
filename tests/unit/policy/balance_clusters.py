"""Small clusters for the tests of the balance policy, and drawn ones."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from mobikectl.policy.cluster import (
    Capability,
    Capacity,
    ClusterSa,
    ClusterView,
    Health,
    Load,
    Mechanism,
    Node,
    ServingAddress,
)
from mobikectl.policy.cluster_settings import BalanceSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobikectl.policy.cluster import Plan

NOW = 1000.0
FULL = Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT
CAPACITY = Capacity(bytes_per_s=1000.0, sas=1000.0)


def node(number: int, **more: Any) -> Node:
    """A gateway of 1,000 bytes/s named g<number>."""
    fields: dict[str, Any] = {
        "name": f"g{number}",
        "addresses": (ServingAddress(ip_address(f"198.18.0.{number}")),),
        "load": Load(at=NOW),
        "capacity": CAPACITY,
        "carries": True,
    }
    return Node(**fields | more)


def sas(owner: str, rates: Iterable[float], **more: Any) -> list[ClusterSa]:
    """IKE_SAs of these rates at a node, each with its own peer, which supports everything."""
    fields: dict[str, Any] = {"capability": FULL} | more
    return [
        ClusterSa(key=f"{owner}-{i:03}", owner=owner, bytes_per_s=rate, **{"peer": f"{owner}/{i}"} | fields)
        for i, rate in enumerate(rates)
    ]


def levels(nodes: Sequence[Node], rows: Iterable[ClusterSa], plan: Plan | None = None) -> dict[str, float]:
    """Utilisation of each node by bytes and IKE_SAs, after the plan where one is given."""
    to = {key: move.target for move in plan.moves for key in move.sas} if plan else {}
    loads = {each.name: [0.0, 0.0] for each in nodes}
    for row in rows:
        load = loads[to.get(row.key, row.owner)]
        load[0] += row.bytes_per_s
        load[1] += 1
    return {
        each.name: max(
            loads[each.name][0] / each.capacity.bytes_per_s, loads[each.name][1] / each.capacity.sas
        )
        for each in nodes
    }


def carried_out(rows: Iterable[ClusterSa], plan: Plan, now: float) -> list[ClusterSa]:
    """The rows as they are when every move of the plan worked."""
    moves = {key: move for move in plan.moves for key in move.sas}
    done = []
    for row in rows:
        move = moves.get(row.key)
        if move is None:
            done.append(row)
            continue
        redirects = row.recent_redirects + (move.mechanism is Mechanism.REDIRECT)
        done.append(replace(row, owner=move.target, last_moved_at=now, recent_redirects=redirects))
    return done


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Node], list[ClusterSa]]:
    """Clusters of 2 to 6 nodes in any state, with up to 60 IKE_SAs of any kind."""
    count = draw(st.integers(2, 6))
    nodes = [
        node(
            i,
            capacity=Capacity(bytes_per_s=draw(st.sampled_from([500.0, 1000.0, 4000.0])), sas=60.0),
            weight=draw(st.sampled_from([0.5, 1.0, 1.0, 2.0])),
            overload_limit=draw(st.sampled_from([0.6, 0.9, 1.0])),
            drained=draw(st.integers(0, 5)) == 0,
            health=draw(
                st.sampled_from([Health.HEALTHY] * 6 + [Health.IMPAIRED, Health.DEAD, Health.UNKNOWN])
            ),
            carries=draw(st.booleans()),
            site=draw(st.sampled_from(["", "east", "west"])),
            pools=draw(st.sampled_from([None, frozenset({"a"}), frozenset({"a", "b"})])),
            recent_moves=draw(st.integers(0, 10)),
        )
        for i in range(1, count + 1)
    ]
    rows = [
        ClusterSa(
            key=f"sa-{i:03}",
            owner=draw(st.sampled_from(nodes)).name,
            peer=f"p{draw(st.integers(0, 30))}",
            bytes_per_s=draw(st.sampled_from([0.0, 1.0, 10.0, 40.0, 200.0, 700.0])),
            capability=Capability(draw(st.integers(0, 7))),
            behind_nat=draw(st.booleans()),
            pinned=draw(st.integers(0, 7)) == 0,
            last_moved_at=draw(st.sampled_from([float("-inf"), NOW - 100, NOW - 10])),
            recent_redirects=draw(st.integers(0, 5)),
            refused_until=draw(st.sampled_from([float("-inf"), NOW + 50])),
            pool=draw(st.sampled_from(["", "a", "b"])),
            site=draw(st.sampled_from(["", "east", "west"])),
        )
        for i in range(draw(st.integers(0, 60)))
    ]
    return nodes, rows


def settings(**more: Any) -> BalanceSettings:
    """Settings for tests: the defaults but for what is named."""
    return BalanceSettings(**more)


def view(nodes: Iterable[Node], rows: Iterable[ClusterSa], **more: Any) -> ClusterView:
    """The view of nodes and rows."""
    return ClusterView.of(nodes, rows, **more)
