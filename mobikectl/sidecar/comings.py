"""How often a client lately came to this gateway, and was redirected away from it.

A client follows five redirects in 300 s (RFC 5685 section 7) and is lost at the next one. Who else redirected it is not
known here, but every time that it was sent away and is here again something brought it back: taken as a redirect, so
that two gateways between which a client is sent to and fro see the same number.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.policy.cluster_settings import MAX_REDIRECTS, REDIRECT_PERIOD_S

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 100_000
"""Clients that are remembered; those that were longest not heard of are forgotten."""


def _few() -> deque[float]:
    return deque(maxlen=MAX_REDIRECTS)


@dataclass(slots=True)
class _Client:
    came_at: deque[float] = field(default_factory=_few)
    sent_at: deque[float] = field(default_factory=_few)


class Comings:
    """One gateway's memory of the comings and goings of its clients. Given a clock (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def came(self, peer: str) -> None:
        """Given a client's identity: it has established an IKE_SA here."""
        self._of(peer).came_at.append(self._clock())

    def sent(self, peer: str) -> None:
        """Given a client's identity: it is redirected away from here."""
        self._of(peer).sent_at.append(self._clock())

    def redirects(self, peer: str) -> int:
        """Given a client's identity, return how many redirects it may have followed in the last 300 s."""
        client = self._clients.get(peer)
        if client is None:
            return 0
        since = self._clock() - REDIRECT_PERIOD_S
        sent = sum(1 for at in client.sent_at if at > since)
        came = sum(1 for at in client.came_at if at > since)
        # Who comes again and again without being sent away is not redirected, but has a bad line.
        return sent + min(came, sent + 1) if sent else 0

    def _of(self, peer: str) -> _Client:
        client = self._clients.setdefault(peer, _Client())
        self._clients.move_to_end(peer)
        while len(self._clients) > MOST:
            self._clients.popitem(last=False)
        return client
