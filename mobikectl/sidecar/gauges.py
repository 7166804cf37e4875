"""What the sidecar's metrics say at a scrape, put together from what its parts know."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mobikectl import __version__
from mobikectl.model import IkeState
from mobikectl.observe import measures
from mobikectl.observe.metrics import Snapshot
from mobikectl.policy.cluster import Health
from mobikectl.policy.track import TrackState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from mobikectl.charon.rmobike_link import Peer
    from mobikectl.model import IkeSa
    from mobikectl.netlink.watcher import WatcherCounters
    from mobikectl.observe.measures import Measure
    from mobikectl.policy.cluster import Capacity
    from mobikectl.policy.state import Explanation

Rows = dict[tuple[str, ...], float]
Gauges = dict["Measure", Rows]
LIVE = {IkeState.ESTABLISHED, IkeState.REKEYING}
UP = {TrackState.UP: 1.0, TrackState.FAILING: 1.0, TrackState.DOWN: 0.0, TrackState.RECOVERING: 0.0}
"""As the path policy takes them; a path that was never checked is neither."""


def snapshot(*parts: Gauges) -> Snapshot:
    """Given gauges of several parts, return them as one snapshot."""
    return Snapshot({measure: rows for part in parts for measure, rows in part.items()})


def of_sidecar(role: str, *, charon_up: bool, in_step: bool, steering: int) -> Gauges:
    """Given the role and how the sidecar stands, return its gauges."""
    return {
        measures.INFO: {(__version__, role): 1.0},
        measures.CHARON_UP: {(): float(charon_up)},
        measures.IN_STEP: {(): float(in_step)},
        measures.STEERING: {(): float(steering)},
    }


def of_sas(sas: Iterable[IkeSa], peers: Iterable[Peer], connections: Iterable[str]) -> Gauges:
    """Given charon's IKE_SAs, what peers support, and the connections that should be up, return their gauges."""
    ike: Counter[tuple[str, ...]] = Counter()
    children: Counter[tuple[str, ...]] = Counter()
    up = set()
    for sa in sas:
        ike[sa.state.value, "initiator" if sa.original_initiator else "responder"] += 1
        children.update((child.state.value,) for child in sa.children)
        if sa.state in LIVE:
            up.add(sa.name)
    able: Counter[str] = Counter()
    for peer in peers:
        able.update({"mobike": int(peer.mobike), "switch": int(peer.r), "redirect": int(bool(peer.redirect))})
    return {
        measures.IKE_SAS: {key: float(count) for key, count in ike.items()},
        measures.CHILD_SAS: {key: float(count) for key, count in children.items()},
        measures.PEERS: {(word,): float(count) for word, count in able.items()},
        measures.CONNECTION_UP: {(name,): float(name in up) for name in connections},
    }


def of_paths(explanations: Iterable[Explanation], now: float) -> Gauges:
    """Given what the path policy says of the client's paths, return their gauges."""
    found: Gauges = {
        measure: {}
        for measure in (
            measures.PATH_UP,
            measures.PATH_USED,
            measures.PATH_SECONDS,
            measures.PATH_LOSS,
            measures.PATH_FLAPS,
        )
    }
    for explanation in explanations:
        for candidate in explanation.candidates:
            key = (str(candidate.path.local), str(candidate.path.remote), candidate.link)
            used = found[measures.PATH_USED]
            used[key] = max(used.get(key, 0.0), float(candidate.in_use))
            track = candidate.track
            if track is None:
                continue
            found[measures.PATH_FLAPS][key] = track.flaps_now(now)
            if track.state in UP and candidate.usable:
                found[measures.PATH_UP][key] = UP[track.state]
            if track.srtt_s is not None:
                found[measures.PATH_SECONDS][key] = track.srtt_s
            if track.loss is not None:
                found[measures.PATH_LOSS][key] = track.loss
    return found


def of_netlink(counters: WatcherCounters) -> Gauges:
    """Given what the watcher met, return it."""
    return {
        measures.OVERRUNS: {
            ("links",): float(counters.overruns),
            ("routes",): float(counters.route_overruns),
        }
    }


def of_node(state: Mapping[str, Any], capacity: Capacity) -> Gauges:
    """Given how this node stands in its cluster (`ClusterNode.state`) and its capacity, return its gauges."""
    who = (str(state["cluster"]), str(state["node"]))
    found: Gauges = {
        measures.MEMBER: {who: float(state["member"])},
        measures.LEADER: {who: float(state["role"] == "leader")},
        measures.CARRIES: {(): float(not state["carries_not"])},
        measures.UNDER_WAY: {(): float(state["moves_under_way"])},
    }
    report = state["report"]
    if report is None:
        return found
    used = max(
        report["ike_sas"] / capacity.sas,
        report["bytes_per_s"] / capacity.bytes_per_s,
        report["packets_per_s"] / capacity.packets_per_s,
    )
    return {
        **found,
        measures.HEALTH: {(one.value,): float(one.value == report["health"]) for one in Health},
        measures.NODE_SAS: {(): float(report["ike_sas"])},
        measures.NODE_BYTES: {(): report["bytes_per_s"]},
        measures.NODE_PACKETS: {(): report["packets_per_s"]},
        measures.NODE_USED: {(): used},
        measures.MAINTENANCE: {(): float(report["maintenance"])},
        measures.REPORT_AGE: {(): report["ago_s"]},
    }
