"""What the client path policy is given and what it gives back: frozen values.

Its owner (the sidecar) keeps one `Memory`, takes over `Decision.memory` after each decision, and feeds what came
back with `Memory.with_probe`, `Memory.with_outcome` and `Memory.with_rekey`. The rest of `PathState` is what was
observed elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.model import IkeSa, IpAddress, NetState, Path, RouteAnswer
    from mobikectl.policy.candidates import Candidate
    from mobikectl.policy.settings import PathSettings, ProbeSettings
    from mobikectl.policy.track import ProbeResult, Track


class MoveKind(Enum):
    """Why an IKE_SA is moved, in the terms of draft-kivinen-mobike-protocol-00 section 2."""

    DIRECT = "direct"
    """Netlink says that the current path is gone: moved at once, verified after."""
    INDIRECT = "indirect"
    """The current path does not answer (well enough); the new one did."""
    PREFERENCE = "preference"
    """The current path works; the new one is better. Make before break: keep the old until verified."""


@dataclass(frozen=True, slots=True)
class MoveSa:
    """Move an IKE_SA to a path. It takes the place of a move of the same SA that is still under way."""

    sa_uniqueid: int
    path: Path
    origin: Path
    """The path it is on."""
    link: str
    """The link of the new path."""
    cause: str
    """For people and the journal."""
    kind: MoveKind
    verify_by: float
    """A move not verified by then has failed and is to be undone (CLOCK_MONOTONIC)."""


@dataclass(frozen=True, slots=True)
class ProbePath:
    """Probe a path once (one round), bound to its local address and its link."""

    path: Path
    link: str
    settings: ProbeSettings
    deadline: float
    """When the round must have ended (CLOCK_MONOTONIC)."""


@dataclass(frozen=True, slots=True)
class ReportNoPath:
    """Tell the operator that an IKE_SA has no path that works. Given once, until one does again."""

    sa_uniqueid: int
    tried: tuple[Path, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class TerminateSa:
    """Terminate an IKE_SA that has no path. Only ever given with `EndOfPaths.DELETE`."""

    sa_uniqueid: int
    cause: str


Action = MoveSa | ProbePath | ReportNoPath | TerminateSa


class IndicationKind(Enum):
    """An indirect indication that a path might not work."""

    SILENCE = "silence"
    """Nothing was received although something was sent."""
    RETRANSMIT = "retransmit"
    """charon retransmits a request."""
    ICMP = "icmp"
    """An ICMP error about it came in."""


@dataclass(frozen=True, slots=True)
class Indication:
    """An indirect indication about the path that an IKE_SA uses."""

    sa_uniqueid: int
    kind: IndicationKind
    path: Path
    at: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """How a move ended."""

    sa_uniqueid: int
    path: Path
    ok: bool
    path_failed: bool = True
    """When not ok: whether the path did not work (True) or this host or charon failed to move (False)."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One go through the paths of an SA whose current path is gone or does not answer: each once."""

    kind: MoveKind
    cause: str
    origin: Path
    tried: tuple[Path, ...] = ()
    waiting: Path | None = None
    """The path whose check is waited for."""
    heard: int = 0
    """`Track.heard` of that path when the wait began."""
    wait_until: float = 0.0


@dataclass(frozen=True, slots=True)
class SaMemory:
    """What is remembered of one IKE_SA."""

    move: MoveSa | None = None
    """The move under way."""
    round: Round | None = None
    indicated_at: float = float("-inf")
    """The newest indication that was taken up."""
    failures: int = 0
    """Failed moves and rounds without an answer in a row."""
    failed_at: float = float("-inf")
    not_before: float = float("-inf")
    """No new round or preference before this, unless something changed for the better."""
    move_failed: bool = False
    """A move failed in the last round: probes that are answered are no news then."""
    no_path_since: float | None = None
    terminated: bool = False
    pinned: Path | None = None
    """Where the operator put it: no better path is gone to until it has left this one."""
    pinned_by: float = float("-inf")
    """Until then it may still be on its way there."""
    last_outcome: MoveOutcome | None = None

    def failed(self, settings: PathSettings, now: float) -> SaMemory:
        """Return it after one more failure, with the time of the next try backed off."""
        pause = min(settings.retry_max_s, settings.retry_s * 2.0 ** min(self.failures, 16))
        return replace(self, failures=self.failures + 1, failed_at=now, not_before=now + pause)


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the policy remembers from one decision to the next."""

    tracks: Mapping[Path, Track] = field(default_factory=lambda: MappingProxyType({}))
    sas: Mapping[int, SaMemory] = field(default_factory=lambda: MappingProxyType({}))

    def with_probe(self, result: ProbeResult, now: float) -> Memory:
        """Given the result of a probe, return what is known then. Results of forgotten paths are dropped."""
        track = self.tracks.get(result.path)
        if track is None or track.usable_since is None:
            return self
        return self._with_track(track.observe(result, now))

    def with_outcome(self, outcome: MoveOutcome, settings: PathSettings, now: float) -> Memory:
        """Given how a move ended, return what is known then.

        The outcome of a move that was superseded says something about its path only.
        """
        memory = self
        track = self.tracks.get(outcome.path)
        if track is not None and track.usable_since is not None:
            if outcome.ok:
                memory = memory._with_track(track.move_verified(now))
            elif outcome.path_failed:
                memory = memory._with_track(track.move_failed_there(outcome.reason or "the move failed", now))
        sa = self.sas.get(outcome.sa_uniqueid)
        if sa is None or sa.move is None or sa.move.path != outcome.path:
            return memory
        done = replace(sa, move=None, last_outcome=outcome)
        at_rest = replace(done, round=None, failures=0, no_path_since=None)
        failed = replace(done, move_failed=True).failed(settings, now)
        return memory._with_sa(outcome.sa_uniqueid, at_rest if outcome.ok else failed)

    def with_rekey(self, old_uniqueid: int, new_uniqueid: int) -> Memory:
        """Given that a rekey gave an IKE_SA a new unique id, return what is known then."""
        if old_uniqueid not in self.sas:
            return self
        sas = dict(self.sas)
        memory = sas.pop(old_uniqueid)
        if memory.move is not None:
            memory = replace(memory, move=replace(memory.move, sa_uniqueid=new_uniqueid))
        sas[new_uniqueid] = memory
        return replace(self, sas=MappingProxyType(sas))

    def with_move(self, move: MoveSa) -> Memory:
        """Given a move that somebody else ordered and that is under way, return what is known then."""
        remembered = self.sas.get(move.sa_uniqueid, SaMemory())
        return self._with_sa(move.sa_uniqueid, replace(remembered, move=move, round=None))

    def without_move(self, uniqueid: int) -> Memory:
        """Given an IKE_SA whose ordered move ended and says nothing about its path, return what is known then."""
        remembered = self.sas.get(uniqueid)
        if remembered is None or remembered.move is None:
            return self
        return self._with_sa(uniqueid, replace(remembered, move=None))

    def with_pin(self, uniqueid: int, path: Path | None, by: float = float("-inf")) -> Memory:
        """Given that the operator put an IKE_SA on a path (None: gives it free), return what is known then.

        ``by``: until when it may still be on its way there (CLOCK_MONOTONIC).
        """
        known = self.sas.get(uniqueid, SaMemory())
        return self._with_sa(uniqueid, replace(known, pinned=path, pinned_by=by))

    def _with_track(self, track: Track) -> Memory:
        return replace(self, tracks=MappingProxyType({**self.tracks, track.path: track}))

    def _with_sa(self, uniqueid: int, memory: SaMemory) -> Memory:
        return replace(self, sas=MappingProxyType({**self.sas, uniqueid: memory}))


@dataclass(frozen=True, slots=True)
class PathState:
    """All that a decision is made from."""

    net: NetState
    sas: tuple[IkeSa, ...]
    """charon's IKE_SAs; those that the peer initiated are left alone."""
    routes: Mapping[Path, RouteAnswer | None] = field(default_factory=lambda: MappingProxyType({}))
    """For each of `candidates.paths_to_ask`: how the kernel would send from the local address, bound to its link,
    to the remote one. None: there is no route. Not in the map: not asked yet, and so not usable yet."""
    route_metrics: Mapping[Path, int] = field(default_factory=lambda: MappingProxyType({}))
    """The metric of that route, mobikectl's own routes left out. Not in the map: 0."""
    learnt: Mapping[int, tuple[IpAddress, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By unique id: further addresses that the peer announced (ADDITIONAL_IP4_ADDRESS, ADDITIONAL_IP6_ADDRESS;
    RFC 4555 section 3.2)."""
    indications: tuple[Indication, ...] = ()
    """Indirect indications; each is taken up once, so older ones may stay in."""
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an IKE_SA is where it is, and what about each of its candidate paths."""

    sa_uniqueid: int
    current: Path
    target: Path | None
    """Where it is being moved to, if it is."""
    verdict: str
    """One line for people."""
    candidates: tuple[Candidate, ...]
    """The best ranked first."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, when to ask again, and why."""

    actions: tuple[Action, ...]
    next_deadline: float | None
    """When to decide again if nothing is observed before (CLOCK_MONOTONIC); None: not needed."""
    explanations: tuple[Explanation, ...]
    memory: Memory
    """To be given back with the next `PathState`."""
