"""A look at the store as rows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.cluster.caveats import caveats, signed
from mobikectl.policy.balance_places import Places, health_now
from mobikectl.policy.cluster import Capability, Health
from mobikectl.watch.moves import move_row
from mobikectl.watch.rows import AddressRow, ClusterPart, NodeRow, SaViewRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.cluster.reading import Reading
    from mobikectl.cluster.records import SaRow
    from mobikectl.policy.cluster import Node
    from mobikectl.policy.cluster_settings import BalanceSettings


def cluster_part(reading: Reading, policy: BalanceSettings, name: str, *, moves: int = 100) -> ClusterPart:
    """Given a look at the store and the policy's settings, return the cluster ``name`` as rows.

    ``moves``: how many of the journal's last ones, beside those that are under way.
    """
    state, places = reading.state, Places(reading.view, policy, reading.at)
    pending = {move.value.number for move in reading.pending}
    last = {move.value.number for move in reading.journal.moves[-moves:]}
    heading = {key: move.value.target for move in reading.pending for key in move.value.sas}
    return ClusterPart(
        name=name,
        leader=state.leader.node if state.leader else "",
        paused=state.cluster.value.paused,
        paused_by=signed(state.cluster.value).strip(" ()") if state.cluster.value.paused else "",
        even_level=round(places.even_level(places.load), 6),
        nodes=node_rows(reading, policy, places),
        moves=tuple(
            move_row(move.value)
            for move in reading.journal.moves
            if move.value.number in pending or move.value.number in last
        ),
        moving=sum(len(move.value.sas) for move in reading.pending),
        sas=tuple(sa_row(node, row, reading, heading) for _, (node, row) in sorted(reading.rows.items())),
        notes=(*caveats(state), *places.notes, *reading.notes),
    )


def node_rows(reading: Reading, policy: BalanceSettings, places: Places) -> tuple[NodeRow, ...]:
    """Given a look at the store, return its nodes: the members, and those that are away and wanted something of."""
    found = [_node(number, reading, policy, places) for number in range(len(reading.view.nodes))]
    for name in sorted(reading.state.intents.keys() - reading.state.members.keys()):
        intent = reading.state.intent(name).value
        if intent.wants:
            found.append(
                NodeRow(
                    name, False, drained=intent.drained, weight=intent.weight, by=intent.by, note=intent.note
                )
            )
    return tuple(found)


def _node(number: int, reading: Reading, policy: BalanceSettings, places: Places) -> NodeRow:
    node, state = reading.view.nodes[number], reading.state
    intent = state.intent(node.name).value
    said = state.reports.get(node.name)
    report = said.value if said else None
    health = health_now(node, policy, reading.at)
    used_bytes, used_packets, used_sas = (
        round(float(share), 6) for share in places.load[number] / places.capacity[number]
    )
    used = max(used_bytes, used_packets, used_sas)
    takes = health is Health.HEALTHY and not node.drained
    arriving, leaving = _under_way(reading, node)
    return NodeRow(
        node=node.name,
        there=True,
        leader=state.leader is not None and state.leader.node == node.name,
        health=health.value,
        health_note=report.note if report else "it did not report yet",
        drained=intent.drained,
        maintenance=bool(report and report.maintenance),
        by=intent.by,
        note=intent.note,
        used=used,
        used_sas=used_sas,
        used_bytes=used_bytes,
        used_packets=used_packets,
        headroom=round(max(node.overload_limit - used, 0.0), 6) if takes else 0.0,
        overload_limit=node.overload_limit,
        weight=node.weight,
        ike_sas=node.load.ike_sas,
        standby=report.copies if report else 0,
        carries=node.carries,
        half_open=node.load.half_open,
        child_sas=node.load.child_sas,
        bytes_per_s=node.load.bytes_per_s,
        packets_per_s=node.load.packets_per_s,
        cpu=node.load.cpu,
        memory=node.load.memory,
        addresses=tuple(AddressRow(str(address.ip), address.usable) for address in node.addresses),
        site=node.site,
        pools=tuple(sorted(node.pools)) if node.pools is not None else None,
        version=state.members[node.name].value.version,
        arriving=arriving,
        leaving=leaving,
    )


def _under_way(reading: Reading, node: Node) -> tuple[int, int]:
    """Return how many IKE_SAs are on their way to a node, and from it; those that stay in the node are neither."""
    moves = [move.value for move in reading.pending if move.value.source != move.value.target]
    return (
        sum(len(move.sas) for move in moves if move.target == node.name),
        sum(len(move.sas) for move in moves if move.source == node.name),
    )


def sa_row(node: str, row: SaRow, reading: Reading, heading: Mapping[str, str]) -> SaViewRow:
    """Given an IKE_SA, its node and where IKE_SAs are on their way to, return its row."""
    pins = reading.state.pins
    return SaViewRow(
        key=row.key,
        peer_id=row.peer_id,
        peer=row.peer,
        node=node,
        address=str(row.address),
        bytes_per_s=row.bytes_per_s,
        packets_per_s=row.packets_per_s,
        can=tuple((one.name or "").lower() for one in Capability if one in row.capability),
        behind_nat=row.behind_nat,
        pinned=row.key in pins or row.peer_id in pins,
        pool=row.pool,
        site=row.site,
        moving_to=heading.get(row.key, ""),
    )
