"""What is remembered of peers that were moved: how lately, how often they were redirected, and what they refused.

It is made from the journal, so every node of the cluster remembers the same, whoever carried a move out, and a restart
forgets nothing that still matters. The journal's steps carry the clock of who wrote them, which is for people: ages are
counted by this node's own clock, from when a step was first seen here. What a start finds in the journal counts as
having happened just then: it may be older, never younger, so that nobody is redirected or asked again too early.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from mobikectl.cluster.backend import lease_clock
from mobikectl.cluster.records import MoveState, peer_of
from mobikectl.policy.cluster import CARRIED, Capability, Mechanism
from mobikectl.policy.cluster_settings import MAX_REDIRECTS, REDIRECT_PERIOD_S
from mobikectl.protocol.handover import BY_THE_CLIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.records import MoveRecord

T = TypeVar("T")

FIRST_S = 20.0
"""How long a peer is left alone after its first move that failed; doubled with each further one."""
LONGEST_S = 3600.0
"""The longest that a peer is left alone."""
AVOIDED_S = 600.0
"""A mechanism that failed with an IKE_SA is avoided for at least so long, so that another one is tried next."""
NODES_MAY_FAIL = 2
"""So often in a row a move may fail between its nodes (one restarts) before an IKE_SA that has to leave leaves by what
needs no other node's help."""
MOVED_S = 3600.0
"""How long it is remembered that a peer was moved."""
MOST = 250_000
"""Moves, peers and IKE_SAs that are remembered; the oldest are forgotten."""

NEEDS: dict[Mechanism, Capability] = {
    Mechanism.NOTIFY: Capability.SWITCH,
    Mechanism.IMPLICIT: Capability.MOBIKE,
    Mechanism.REDIRECT: Capability.REDIRECT,
}
"""What a peer has to support for each mechanism."""


@dataclass(slots=True)
class _Peer:
    moved_at: float | None = None
    redirected_at: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_REDIRECTS + 3))


@dataclass(slots=True)
class _Failures:
    """Of one IKE_SA since it was last moved."""

    count: int = 0
    rest_until: float = 0.0
    nodes: int = 0
    """How many of them say nothing of the client, but that the two nodes did not get it done."""
    nodes_until: float = 0.0
    avoided_until: dict[Mechanism, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Told:
    """Of one move: what was counted already."""

    redirected: bool = False
    ended: bool = False


class Memory:
    """One node's memory of the moves of the whole cluster. Given a clock (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float] = lease_clock) -> None:
        self._clock = clock
        self._told: OrderedDict[int, _Told] = OrderedDict()
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def take(self, move: MoveRecord) -> None:
        """Given a move of the journal, of any node and in any state, remember what it says. Twice says no more."""
        told = _at(self._told, move.number, _Told)
        asked = any(step.state is MoveState.REQUESTED for step in move.steps)
        if asked and move.mechanism is Mechanism.REDIRECT and not told.redirected:
            told.redirected = True
            for key in move.sas:
                self.redirected(peer_of(key))
        if move.done and not told.ended:
            told.ended = True
            self._end(move)

    def redirected(self, peer: str) -> None:
        """Given a client's identity: it is redirected now (by whomever, also outside of the journal)."""
        _at(self._peers, peer, _Peer).redirected_at.append(self._clock())

    def _end(self, move: MoveRecord) -> None:
        now = self._clock()
        for key in move.sas:
            if move.state is MoveState.VERIFIED:
                _at(self._peers, peer_of(key), _Peer).moved_at = now
                self._failures.pop(key, None)
            elif move.state is not MoveState.CANCELLED:
                self._fail(key, move, now)

    def _fail(self, key: str, move: MoveRecord, now: float) -> None:
        failures = _at(self._failures, key, _Failures)
        failures.count += 1
        rest_s = min(FIRST_S * 2 ** min(failures.count - 1, 20), LONGEST_S)
        avoided_until = now + max(AVOIDED_S, 4 * rest_s)
        of_the_nodes = _of_the_nodes(move)
        if of_the_nodes:
            failures.nodes += 1
            failures.nodes_until = avoided_until
        elif move.mechanism in NEEDS:
            failures.avoided_until[move.mechanism] = avoided_until
        if of_the_nodes or move.state is not MoveState.REFUSED or move.mechanism not in NEEDS:
            # Not the peer's no to this mechanism, but a path or a peer that does not work: no other one helps now.
            failures.rest_until = now + rest_s

    def moved_ago(self, peer: str) -> float | None:
        """Given a client's identity, return for how many seconds it was not moved; None: not lately."""
        known = self._peers.get(peer)
        if known is None or known.moved_at is None:
            return None
        ago = self._clock() - known.moved_at
        return ago if ago < MOVED_S else None

    def redirects(self, peer: str) -> int:
        """Given a client's identity, return how often it was redirected within RFC 5685's REDIRECT_LOOP_DETECT_PERIOD.

        Counted over all nodes, so that a client that is sent from one to another and back is protected, too.
        """
        known = self._peers.get(peer)
        since = self._clock() - REDIRECT_PERIOD_S
        return sum(1 for at in known.redirected_at if at > since) if known else 0

    def refused_for(self, key: str) -> float:
        """Given an IKE_SA, return for how many seconds it is to be left alone; 0: it need not be."""
        failures = self._failures.get(key)
        return max(0.0, failures.rest_until - self._clock()) if failures else 0.0

    def capability(self, key: str, seen: Capability, *, leaving: bool = False) -> Capability:
        """Given an IKE_SA and what its peer was seen to support, return that without what failed with it lately.

        The next plan then falls back to another mechanism, as far as the settings allow one. What failed between the
        nodes takes nothing from a client, which would lose an IKE_SA that lives: it is tried again after a rest. Only
        where it has to leave this node (``leaving``), and being carried over failed again and again, another way is
        taken.
        """
        failures = self._failures.get(key)
        if failures is None:
            return seen
        now = self._clock()
        if leaving and failures.nodes > NODES_MAY_FAIL and failures.nodes_until > now:
            seen &= ~CARRIED
        for mechanism, until in failures.avoided_until.items():
            if until > now:
                seen &= ~NEEDS[mechanism]
        return seen


def _of_the_nodes(move: MoveRecord) -> bool:
    """Whether a move failed between its nodes, and not because of its client."""
    if move.source == move.target or move.mechanism not in {Mechanism.NOTIFY, Mechanism.IMPLICIT}:
        return False
    failed = (MoveState.ROLLING_BACK, MoveState.REFUSED, MoveState.TIMED_OUT)
    why = next((step.note for step in move.steps if step.state in failed), "")
    return not any(of_the_client in why for of_the_client in BY_THE_CLIENT)


_K = TypeVar("_K")


def _at(known: OrderedDict[_K, T], key: _K, make: Callable[[], T]) -> T:
    """Return what is known under a key, made if it is not; what was not wanted for longest goes first."""
    if key not in known:
        known[key] = make()
        while len(known) > MOST:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]
