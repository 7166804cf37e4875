"""From what was recorded to numbers: pure functions over pings, packets and SA lists.

A scenario is judged by these numbers alone, never by what the controller says about itself.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobikectl.lab.packets import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobikectl.lab.capture import Ping
    from mobikectl.lab.packets import Packet
    from mobikectl.model import Path


@dataclass(frozen=True, slots=True)
class Interval:
    """Something that held for a while; times are seconds of CLOCK_MONOTONIC."""

    start: float
    end: float
    label: str


def ping_metrics(pings: Sequence[Ping]) -> dict[str, float]:
    """Given the pings of a run in the order they were sent, return what they say.

    ``sent``, ``lost``; ``longest_gap_ms``: the longest time between the sendings of two consecutive
    answered pings (the interval itself when none is lost; a loss at the end counts up to the last ping);
    ``longest_outage_ms``: the longest time from a lost ping to the next answered one; ``longest_silence_ms``: the
    longest time between two replies that came one after the other, whether pings were lost or only late or never sent;
    ``lost_in_a_row``: the most that were lost one after the other;
    ``spacing_median_ms`` and ``spacing_p99_ms``: how evenly they were really sent; ``rtt_median_ms``.
    """
    if not pings:
        return {
            "sent": 0,
            "lost": 0,
            "longest_gap_ms": 0.0,
            "longest_outage_ms": 0.0,
            "longest_silence_ms": 0.0,
        }
    answered = [p.sent for p in pings if p.received is not None]
    edges = [pings[0].sent, *answered, pings[-1].sent]
    spacing = sorted(b.sent - a.sent for a, b in itertools.pairwise(pings)) or [0.0]
    rtt = sorted(p.received - p.sent for p in pings if p.received is not None) or [0.0]
    replies = sorted(p.received for p in pings if p.received is not None)
    return {
        "sent": len(pings),
        "lost": len(pings) - len(answered),
        "longest_gap_ms": ms(max(b - a for a, b in itertools.pairwise(edges))),
        "spacing_median_ms": ms(spacing[len(spacing) // 2]),
        "spacing_p99_ms": ms(spacing[int(len(spacing) * 0.99)]),
        "rtt_median_ms": ms(rtt[len(rtt) // 2]),
        "longest_outage_ms": ms(_longest_outage(pings)),
        "lost_in_a_row": max(_runs_of_lost(pings), default=0),
        "longest_silence_ms": ms(max((b - a for a, b in itertools.pairwise(replies)), default=0.0)),
    }


def _runs_of_lost(pings: Sequence[Ping]) -> list[int]:
    """Return how many pings were lost one after the other, each time that happened."""
    runs = itertools.groupby(pings, key=lambda ping: ping.received is None)
    return [len(list(run)) for lost, run in runs if lost]


def _longest_outage(pings: Sequence[Ping]) -> float:
    """Return the longest time from a lost ping to the next answered one: 0 when none is lost."""
    longest, lost_since = 0.0, None
    for ping in pings:
        if ping.received is None:
            lost_since = ping.sent if lost_since is None else lost_since
        elif lost_since is not None:
            longest, lost_since = max(longest, ping.sent - lost_since), None
    return longest if lost_since is None else max(longest, pings[-1].sent - lost_since)


def ms(seconds: float) -> float:
    """Given seconds, return milliseconds rounded to a hundredth."""
    return round(seconds * 1000, 2)


def ike_metrics(packets: Sequence[Packet]) -> dict[str, float]:
    """Given packets, return how many IKE messages they hold: in all, and ``ike.EXCHANGE`` for each type.

    ``ike_sa_init`` counts IKE_SA_INIT messages of both directions (`ike_sa_inits`).
    ``ike_probes`` are stateless probes and their answers, counted apart: requests of a major version that nobody
    speaks make no IKE_SA (RFC 7296 section 2.5); an answer carries the SPI of its request.
    """
    ike = [p for p in packets if p.kind is Kind.IKE]
    probes = {p.spi for p in ike if not p.response and p.version != 2}
    counts = Counter(p.exchange for p in ike if p.spi not in probes)
    numbers: dict[str, float] = {
        "ike_messages": counts.total(),
        "ike_sa_init": ike_sa_inits(p for p in ike if p.spi not in probes),
        "ike_probes": sum(p.spi in probes for p in ike),
    }
    return numbers | {f"ike.{exchange}": count for exchange, count in sorted(counts.items())}


def ike_sa_inits(packets: Iterable[Packet]) -> int:
    """Given packets, return how many IKE_SA_INIT messages they hold: not zero means that an IKE_SA was made anew.

    A request is counted once for each initiator SPI and path, and so is its response: on a busy machine they are
    retransmitted (RFC 7296 section 2.1), and no IKE_SA is made by that.
    """
    return len({(p.spi, p.path, p.response) for p in packets if p.exchange == "IKE_SA_INIT"})


def path_intervals(packets: Iterable[Packet], *, until: float) -> list[Interval]:
    """Given packets, return over which path ESP *arrived*, from when to when.

    An interval ends where the next begins; the last ends at `until`.
    """
    changes: list[tuple[float, Path]] = []
    for packet in packets:
        served = packet.kind is Kind.ESP and not packet.outgoing
        if served and (not changes or changes[-1][1] != packet.path):
            changes.append((packet.time, packet.path))
    ends = [at for at, _ in changes[1:]] + [until]
    return [Interval(at, end, str(path)) for (at, path), end in zip(changes, ends, strict=True)]


def is_served(packet: Packet, after: float, path: Path) -> bool:
    """Whether a packet shows that traffic is served over a path: ESP came in over it after a moment."""
    return packet.kind is Kind.ESP and not packet.outgoing and packet.time >= after and packet.path == path


def sa_keys(listed: Iterable[tuple[str, dict[str, Any]]]) -> frozenset[tuple[str, str, str]]:
    """Given listed IKE_SAs, return (connection, initiator SPI, responder SPI) of the established ones."""
    return frozenset(
        (name, sa["initiator-spi"], sa["responder-spi"])
        for name, sa in listed
        if sa.get("state") in {"ESTABLISHED", "REKEYING"}
    )


def child_spis(listed: Iterable[tuple[str, dict[str, Any]]]) -> frozenset[tuple[str, str]]:
    """Given listed IKE_SAs, return (inbound SPI, outbound SPI) of the installed CHILD_SAs."""
    return frozenset(
        (child["spi-in"], child["spi-out"])
        for _, sa in listed
        for child in sa.get("child-sas", {}).values()
        if child.get("state") == "INSTALLED"
    )


def path_of(listed: Iterable[tuple[str, dict[str, Any]]], connection: str) -> str:
    """Given listed IKE_SAs and a connection's name, return the path that its newest SA uses; empty: none."""
    paths = [f"{sa['local-host']} -> {sa['remote-host']}" for name, sa in listed if name == connection]
    return paths[-1] if paths else ""


def lost_at(pings: Iterable[Ping]) -> list[float]:
    """Given pings, return when those without a reply were sent."""
    return [p.sent for p in pings if p.received is None]
