"""What can be measured, under which name: one table for the exposition, the reference and the dashboards.

Names follow Prometheus' rules (prometheus.io/docs/practices/naming): base units in the name, ``_total`` on what only
grows. Labels are bounded: they name states, mechanisms, connections and paths of this host, never single peers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a measure is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Measure:
    """One family of metrics."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


_PATH = ("local", "remote", "link")
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PACKETS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
_MOVE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

INFO = Measure("mobikectl_build_info", Kind.GAUGE, "Always 1; what runs.", ("version", "role"))
EVENTS = Measure(
    "mobikectl_events_total",
    Kind.COUNTER,
    "Events, as docs/reference/events.md names them.",
    ("source", "event"),
)

CHARON_UP = Measure("mobikectl_charon_up", Kind.GAUGE, "1: charon answers.")
IN_STEP = Measure("mobikectl_charon_in_step", Kind.GAUGE, "1: the model of the IKE_SAs is what charon has.")
IKE_SAS = Measure("mobikectl_ike_sas", Kind.GAUGE, "IKE_SAs.", ("state", "role"))
CHILD_SAS = Measure("mobikectl_child_sas", Kind.GAUGE, "CHILD_SAs.", ("state",))
PEERS = Measure(
    "mobikectl_capable_ike_sas",
    Kind.GAUGE,
    "IKE_SAs whose peer was seen to support it (mobike, switch: the 'R', redirect). Needs the charon plugin.",
    ("capability",),
)
CONNECTION_UP = Measure(
    "mobikectl_connection_up",
    Kind.GAUGE,
    "0: configured with a peer's address, and without an established IKE_SA.",
    ("connection",),
)
RETRANSMITS = Measure("mobikectl_retransmits_total", Kind.COUNTER, "IKE requests that charon sent again.")
VICI_SECONDS = Measure(
    "mobikectl_vici_request_duration_seconds", Kind.HISTOGRAM, "How long charon took to answer.", ("command",)
)
VICI_FAILURES = Measure(
    "mobikectl_vici_failures_total", Kind.COUNTER, "Requests to charon without an answer.", ("command",)
)

MOVES = Measure(
    "mobikectl_moves_total",
    Kind.COUNTER,
    "Moves of IKE_SAs that this sidecar ended. cause: direct, indirect, preference (of a client's path policy),"
    " operator, cluster; outcome: verified, undone, failed.",
    ("cause", "mechanism", "outcome"),
)
MOVE_SECONDS = Measure(
    "mobikectl_move_duration_seconds",
    Kind.HISTOGRAM,
    "From planned to the end of a move.",
    ("mechanism", "outcome"),
)
MOVE_LOSS = Measure(
    "mobikectl_move_lost_packets",
    Kind.HISTOGRAM,
    "Packets of the peer that did not arrive around a move, by ESP's sequence numbers. Of moves within this host, on"
    " kernel ESP, with traffic; of others it is not known.",
    ("mechanism", "outcome"),
)
MOVE_DATA = Measure(
    "mobikectl_verified_moves_data_plane_total",
    Kind.COUNTER,
    "Verified moves by what the data plane showed: flowing, answered (a probe through the tunnel), idle, unknown.",
    ("data_plane",),
)
STEERING = Measure("mobikectl_steering_routes", Kind.GAUGE, "Steering routes in place.")
REDIRECTS = Measure(
    "mobikectl_redirected_clients_total",
    Kind.COUNTER,
    "Clients redirected to another gateway while they connected (RFC 5685 sections 3 and 6).",
    ("exchange",),
)

PATH_UP = Measure("mobikectl_path_up", Kind.GAUGE, "1: the probes find the path up; 0: down.", _PATH)
PATH_USED = Measure("mobikectl_path_in_use", Kind.GAUGE, "1: an IKE_SA of this host uses it.", _PATH)
PATH_SECONDS = Measure(
    "mobikectl_path_latency_seconds", Kind.GAUGE, "Smoothed round trip time of its probes.", _PATH
)
PATH_LOSS = Measure(
    "mobikectl_path_loss_ratio", Kind.GAUGE, "Share of its last probes that were lost, 0 to 1.", _PATH
)
PATH_FLAPS = Measure(
    "mobikectl_path_flaps", Kind.GAUGE, "How often it flapped, older flaps counting less (RFC 2439).", _PATH
)

OVERRUNS = Measure(
    "mobikectl_netlink_overruns_total",
    Kind.COUNTER,
    "Netlink subscriptions that lost messages; each is mended by reading everything anew.",
    ("subscription",),
)

MEMBER = Measure(
    "mobikectl_cluster_member", Kind.GAUGE, "1: this node is a member of its cluster.", ("cluster", "node")
)
LEADER = Measure("mobikectl_cluster_leader", Kind.GAUGE, "1: this node leads.", ("cluster", "node"))
HEALTH = Measure(
    "mobikectl_cluster_node_health",
    Kind.GAUGE,
    "1 for the health that the node reports, 0 for the others.",
    ("health",),
)
NODE_SAS = Measure("mobikectl_cluster_node_ike_sas", Kind.GAUGE, "IKE_SAs that the node reports to serve.")
NODE_BYTES = Measure(
    "mobikectl_cluster_node_bytes_per_second", Kind.GAUGE, "Bytes of its CHILD_SAs in and out, smoothed."
)
NODE_PACKETS = Measure(
    "mobikectl_cluster_node_packets_per_second", Kind.GAUGE, "Packets of its CHILD_SAs, smoothed."
)
NODE_USED = Measure(
    "mobikectl_cluster_node_used_ratio",
    Kind.GAUGE,
    "The fullest of IKE_SAs, bytes and packets against the capacity.",
)
MAINTENANCE = Measure(
    "mobikectl_cluster_node_maintenance", Kind.GAUGE, "1: the node itself asks to be emptied."
)
REPORT_AGE = Measure(
    "mobikectl_cluster_report_age_seconds", Kind.GAUGE, "Since the store took the last report."
)
CARRIES = Measure(
    "mobikectl_cluster_carries", Kind.GAUGE, "1: IKE_SAs can be carried over to and from this node now."
)
UNDER_WAY = Measure(
    "mobikectl_cluster_moves_under_way", Kind.GAUGE, "Moves of the cluster that this node carries out."
)
CLUSTER_MOVES = Measure(
    "mobikectl_cluster_moves_total",
    Kind.COUNTER,
    "Moves of the cluster that this node ended: as their source, or (reason failover, mechanism standby) as the node"
    " that stood by. reason: that of the plan; outcome: verified, refused, timed-out, rolled-back.",
    ("reason", "mechanism", "outcome"),
)
CLUSTER_SECONDS = Measure(
    "mobikectl_cluster_move_duration_seconds",
    Kind.HISTOGRAM,
    "From requested to the end of a move of the cluster.",
    ("mechanism", "outcome"),
)
STORE_SECONDS = Measure(
    "mobikectl_store_request_duration_seconds",
    Kind.HISTOGRAM,
    "How long the store took to answer.",
    ("call",),
)
STORE_FAILURES = Measure(
    "mobikectl_store_failures_total", Kind.COUNTER, "Calls without an answer.", ("call",)
)
STORE_AGE = Measure("mobikectl_store_age_seconds", Kind.GAUGE, "Since the store answered last.")

BUCKETS = {
    VICI_SECONDS: _QUICK,
    STORE_SECONDS: _QUICK,
    MOVE_SECONDS: _MOVE,
    CLUSTER_SECONDS: _MOVE,
    MOVE_LOSS: _PACKETS,
}
"""Upper bounds of a histogram's buckets, in the unit that its name ends with."""

MEASURES: tuple[Measure, ...] = tuple(
    value for name, value in list(globals().items()) if isinstance(value, Measure) and name.isupper()
)
"""All of them, in the order of this file."""
