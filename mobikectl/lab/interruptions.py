"""How long the traffic of each client was really interrupted, in a lab that itself stands still at times. Pure.

A guest with one processor stands still for some hundred milliseconds at a time, for all its clients at once, and so
does who sends the pings. That is no fault of a move. It is told from one by the clients that are not moved at that
moment: while more than half of all wait for an answer, or nobody sends anything, the lab stood still.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobikectl.lab.capture import Ping

Span = tuple[float, float]
"""From, to: CLOCK_MONOTONIC, seconds."""

LEAST_CLIENTS = 8
"""With fewer nothing can be told from the others."""


def waits(pings: Sequence[Ping], until: float) -> list[Span]:
    """Given a client's pings in order, return for each from when to when no answer came: its own, or a later one's.

    ``until``: where no answer came until then, it is counted up to then.
    """
    found: list[Span] = []
    answered = until
    for ping in reversed(pings):
        if ping.received is not None:
            answered = min(answered, ping.received)
        found.append((ping.sent, max(answered, ping.sent)))
    return found[::-1]


def union(spans: Iterable[Span]) -> list[Span]:
    """Given spans, return what they cover, as spans apart from each other in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def common(clients: Sequence[Sequence[Span]], more_than: float) -> list[Span]:
    """Given spans of each client, apart from each other, return when more than so many of them were in one."""
    edges = sorted(
        (at, step) for spans in clients for span in spans for at, step in zip(span, (1, -1), strict=True)
    )
    found: list[Span] = []
    count, since = 0, 0.0
    for at, step in edges:
        before, count = count, count + step
        if before <= more_than < count:
            since = at
        elif count <= more_than < before:
            found.append((since, at))
    return found


def standstills(clients: Sequence[Sequence[Ping]], *, apart: float, until: float) -> list[Span]:
    """Given the pings of all clients, one each ``apart`` seconds of each, return when the lab itself stood still."""
    if len(clients) < LEAST_CLIENTS:
        return []
    waiting = common([union(waits(pings, until)) for pings in clients], len(clients) / 2)
    sent = sorted(ping.sent for pings in clients for ping in pings)
    return union([*waiting, *((a, b) for a, b in pairwise(sent) if b - a > apart)])


def interruption(pings: Sequence[Ping], stood_still: Sequence[Span], until: float) -> float:
    """Given a client's pings and when the lab stood still, return for how long its traffic was interrupted, seconds.

    That is the longest time that nothing came back to it although something was sent, less what the lab stood still.
    """
    longest = 0.0
    for start, end in waits(pings, until):
        if end - start > longest:
            longest = max(longest, end - start - _within(stood_still, start, end))
    return longest


def lost_alone(pings: Sequence[Ping], stood_still: Sequence[Span], until: float) -> int:
    """Given a client's pings and when the lab stood still, return how many were lost and not for that reason.

    That is its reason where it stood still for at least half of the time until something came back.
    """
    return sum(
        ping.received is None and 2 * _within(stood_still, start, end) < end - start
        for ping, (start, end) in zip(pings, waits(pings, until), strict=True)
    )


def _within(spans: Sequence[Span], start: float, end: float) -> float:
    return sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans)
