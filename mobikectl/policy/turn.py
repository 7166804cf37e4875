"""One IKE_SA's part of a decision: the rules of draft-kivinen-mobike-protocol-00 section 2, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mobikectl.policy.settings import EndOfPaths, ProbeMethod
from mobikectl.policy.state import (
    Action,
    Explanation,
    Indication,
    MoveKind,
    MoveSa,
    ReportNoPath,
    Round,
    SaMemory,
    TerminateSa,
)
from mobikectl.policy.track import LATE_S, TrackState

if TYPE_CHECKING:
    from mobikectl.model import IkeSa, Path
    from mobikectl.policy.candidates import Candidate
    from mobikectl.policy.settings import PathSettings

OVERDUE_S = 1.0
"""A move whose outcome is later than its `MoveSa.verify_by` by this much is taken as failed."""


@dataclass(slots=True)
class Turn:
    """The turn of one IKE_SA: filled in by `take`, used for one decision, then dropped."""

    sa: IkeSa
    candidates: tuple[Candidate, ...]
    indications: tuple[Indication, ...]
    memory: SaMemory
    settings: PathSettings
    now: float
    actions: list[Action] = field(default_factory=list)
    wanted: set[Path] = field(default_factory=set)
    """Paths to be probed now, whatever their interval."""
    wakes: list[float] = field(default_factory=list)
    verdict: str = ""
    notes: dict[Path, str] = field(default_factory=dict)

    @property
    def current(self) -> Candidate:
        """The path in use."""
        return next(c for c in self.candidates if c.in_use)

    def find(self, path: Path | None) -> Candidate | None:
        """Given a path, return its candidate, or None."""
        return next((c for c in self.candidates if c.path == path), None)

    def take(self) -> None:
        """Decide what this SA needs now."""
        if self.memory.terminated:
            self.verdict = "being terminated: no path answered"
            return
        if self.memory.move is not None and self._move_under_way(self.memory.move):
            return
        self._drop_round_without_need()
        self._clear_no_path()
        running = self.memory.round
        if running is None and (running := self._new_round()) is not None:
            self.memory = replace(self.memory, move_failed=False)
        if running is not None:
            self._go_on(running)
        elif not self.current.gone and self.memory.no_path_since is None:
            self._prefer()
        self._end_of_paths()

    def explanation(self) -> Explanation:
        """Return why it is where it is."""
        move = self.memory.move
        target = move.path if move is not None else None
        noted = tuple(replace(c, note=self._note(c, target)) for c in self.candidates)
        return Explanation(self.sa.uniqueid, self.sa.path, target, self.verdict, noted)

    # a move under way

    def _move_under_way(self, move: MoveSa) -> bool:
        """Return whether to wait for it. A target that is gone is not waited for when nothing else works."""
        target = self.find(move.path)
        overdue = move.verify_by + OVERDUE_S
        if self.now >= overdue:
            failed = replace(self.memory, move=None, move_failed=True)
            self.memory = failed.failed(self.settings, self.now)
            return False
        target_gone = target is None or target.gone
        if target_gone and (self.current.gone or self.sa.path == move.path):
            self.memory = replace(self.memory, move=None)
            return False
        self.wakes.append(overdue)
        self.verdict = f"moving to {move.path}: {move.cause}"
        return True

    def _move(self, to: Candidate, kind: MoveKind, cause: str) -> None:
        verify_by = self.now + self.settings.verify_timeout_s
        move = MoveSa(self.sa.uniqueid, to.path, self.sa.path, to.link, cause, kind, verify_by)
        self.actions.append(move)
        self.memory = replace(self.memory, move=move)
        self.wakes.append(verify_by + OVERDUE_S)
        self.verdict = f"moving to {to.path}: {cause}"

    # rounds: the current path is gone or does not answer

    def _drop_round_without_need(self) -> None:
        """End a round when the path that it is about works again or charon has left it by itself."""
        running, current = self.memory.round, self.current
        if running is None or current.gone:
            return
        if running.kind is MoveKind.DIRECT or running.origin != self.sa.path:
            self.memory = replace(self.memory, round=None)

    def _clear_no_path(self) -> None:
        if self.memory.no_path_since is not None and not self.current.gone and not self.current.down:
            self.memory = replace(self.memory, no_path_since=None, failures=0)

    def _new_round(self) -> Round | None:
        current = self.current
        if current.gone:
            cause = "; ".join(o.text for o in current.objections)
            found = Round(MoveKind.DIRECT, cause, self.sa.path, (self.sa.path,))
        elif current.down:
            note = current.track.note if current.track is not None else ""
            cause = f"{self.sa.path} does not answer" + (f": {note}" if note else "")
            found = Round(MoveKind.INDIRECT, cause, self.sa.path, (self.sa.path,))
        else:
            return self._indicated_round()
        if not self._may_try():
            self.verdict = f"no path works: {cause}"
            return None
        return found

    def _indicated_round(self) -> Round | None:
        """Take up the newest indirect indication: the path in use is tried first."""
        fresh = [
            i
            for i in self.indications
            if i.sa_uniqueid == self.sa.uniqueid
            and i.path == self.sa.path
            and i.at > self.memory.indicated_at
            and i.at >= self.memory.failed_at
        ]
        track = self.current.track
        if not fresh or not self.current.usable or track is None:
            return None
        newest = max(fresh, key=lambda i: i.at)
        self.memory = replace(self.memory, indicated_at=newest.at)
        if track.settings.method is ProbeMethod.NONE:
            self.notes[self.sa.path] = f"in use; {newest.kind.value}, but probing is off: left to charon"
            return None
        cause = f"{newest.kind.value} on {self.sa.path}" + (f": {newest.detail}" if newest.detail else "")
        return Round(MoveKind.INDIRECT, cause, self.sa.path)

    def _may_try(self) -> bool:
        """Whether a round now makes sense: the pause after a failure is over, or there is news of a path."""
        others = [c for c in self.candidates if c.usable and not c.in_use]
        if not others and self.memory.no_path_since is not None:
            return False
        if self.now >= self.memory.not_before or any(self._news(c) for c in others):
            return True
        self.wakes.append(self.memory.not_before)
        return False

    def _news(self, candidate: Candidate) -> bool:
        track = candidate.track
        if track is None or not candidate.eligible:
            return False
        answers_since = track.since if track.answered and not self.memory.move_failed else None
        times = (track.usable_since, answers_since)
        return any(t is not None and t > self.memory.failed_at for t in times)

    def _go_on(self, running: Round) -> None:
        """Carry a round on: from the path whose check is waited for to the next that is untried."""
        if running.waiting is not None:
            heard = self._heard(running)
            if heard is None:
                return
            running = heard
        while (candidate := self._next(running)) is not None:
            if self._ready(running, candidate):
                self.memory = replace(self.memory, round=_tried(running, candidate.path))
                self._move(candidate, running.kind, running.cause)
                return
            if candidate.track is not None and candidate.track.settings.method is not ProbeMethod.NONE:
                self._wait_for(running, candidate)
                return
            running = _tried(running, candidate.path)
        self._no_path(running)

    def _next(self, running: Round) -> Candidate | None:
        """The path in use first, then from the most to the least preferred, those that failed last, each once."""
        left = [c for c in self.candidates if c.usable and c.path not in running.tried]
        return min(left, key=lambda c: (not c.in_use, c.failed), default=None)

    def _ready(self, running: Round, candidate: Candidate) -> bool:
        """Whether the SA may go there without a further check."""
        if candidate.in_use or not candidate.eligible:
            return False
        track = candidate.track
        if running.kind is MoveKind.DIRECT or (track and track.settings.method is ProbeMethod.NONE):
            return True
        return candidate.fresh(self.now)

    def _wait_for(self, running: Round, candidate: Candidate) -> None:
        track = candidate.track
        heard, longest = 0, LATE_S
        if track is not None:
            probe = track.settings
            heard, longest = track.heard, probe.round_s + LATE_S
            if candidate.in_use:
                longest = probe.down * (probe.round_s + probe.failure_interval_s) + LATE_S
        until = self.now + longest
        waiting = replace(running, waiting=candidate.path, heard=heard, wait_until=until)
        self.memory = replace(self.memory, round=waiting)
        self.wanted.add(candidate.path)
        self.wakes.append(until)
        self.verdict = f"{running.cause}; checking {candidate.path}"

    def _heard(self, running: Round) -> Round | None:
        """Look at the path that is waited for: return the round to go on with, or None when that was all."""
        candidate = self.find(running.waiting)
        track = candidate.track if candidate is not None else None
        if candidate is None or track is None or not candidate.usable or running.waiting is None:
            return _tried(running, running.waiting)
        heard = track.heard > running.heard
        if heard and track.answered:
            self._answered(running, candidate)
            return None
        settled = heard and (not candidate.in_use or track.state is TrackState.DOWN)
        if not settled and self.now < running.wait_until:
            self.memory = replace(self.memory, round=running)
            self.wakes.append(running.wait_until)
            self.verdict = f"{running.cause}; checking {candidate.path}"
            return None
        if candidate.in_use and not heard:
            self.memory = replace(self.memory, round=None).failed(self.settings, self.now)
            self.verdict = f"{running.cause}; {candidate.path} could not be checked: {track.note}"
            return None
        return _tried(running, candidate.path)

    def _answered(self, running: Round, candidate: Candidate) -> None:
        if candidate.in_use:
            self.memory = replace(self.memory, round=None, failures=0, no_path_since=None)
            self.verdict = f"{candidate.path} answers: stays"
            return
        self.memory = replace(self.memory, round=_tried(running, candidate.path))
        self._move(candidate, running.kind, running.cause)

    # the end of paths

    def _no_path(self, running: Round) -> None:
        first = self.memory.no_path_since is None
        since = self.now if self.memory.no_path_since is None else self.memory.no_path_since
        done = replace(self.memory, round=None, no_path_since=since).failed(self.settings, self.now)
        self.memory = done
        self.verdict = f"no path works: {running.cause}"
        if first:
            self.actions.append(ReportNoPath(self.sa.uniqueid, running.tried, running.cause))
        if any(c.usable and not c.in_use for c in self.candidates):
            self.wakes.append(done.not_before)

    def _end_of_paths(self) -> None:
        """Terminate the SA when that is configured and nothing has answered for long enough."""
        since = self.memory.no_path_since
        if since is None or self.settings.end is not EndOfPaths.DELETE or self.memory.move is not None:
            return
        if not self.current.gone and not self.current.down:
            return
        end = since + self.settings.end_grace_s
        if self.now < end:
            self.wakes.append(end)
            return
        cause = f"no path answered for {self.settings.end_grace_s:g} s"
        self.actions.append(TerminateSa(self.sa.uniqueid, cause))
        self.memory = replace(self.memory, terminated=True)
        self.verdict = cause

    # preference: the current path works, another is better

    def _prefer(self) -> None:
        if self.memory.pinned == self.sa.path:
            self.verdict = self.verdict or "kept where the operator put it"
            return
        if self.memory.pinned is not None and self.now < self.memory.pinned_by:
            self.verdict = self.verdict or "on its way to where the operator put it"
            self.wakes.append(self.memory.pinned_by)
            return
        self.memory = replace(self.memory, pinned=None)
        current, sticky = self.current, self.settings.sticky
        better = [c for c in self.candidates if c.usable and c.rank.better_than(current.rank, sticky=sticky)]
        self.verdict = self.verdict or (
            "on the best path" if not better else "a better path is not ready yet"
        )
        if not better or not current.usable:
            return
        if self.now < self.memory.not_before:
            self.wakes.append(self.memory.not_before)
            return
        for candidate in better:
            if self._worth_it(candidate):
                self._move(candidate, MoveKind.PREFERENCE, self._why_better(candidate))
                return
            if (
                self._leaves_soon(candidate)
                and candidate.track is not None
                and candidate.track.answered is None
            ):
                # Its first check is under way: going to the second best now would mean two moves.
                return

    def _leaves_soon(self, candidate: Candidate) -> bool:
        """Whether the current path is to be left for that one without any hold-down."""
        rank = self.current.rank
        return rank.degraded or (rank.deprecated and candidate.link == self.current.link)

    def _worth_it(self, candidate: Candidate) -> bool:
        """Whether the hold-down of a better path is over. One that must be left soon is left at once."""
        if candidate.failed:
            return False
        since = candidate.good_since()
        if since is None:
            self.notes[candidate.path] = "better, but not found up yet"
            return False
        if self._leaves_soon(candidate):
            return True
        ready = since + candidate.hold_down_s(self.settings, self.now)
        if self.now >= ready:
            return True
        self.wakes.append(ready)
        self.notes[candidate.path] = f"better, held down for {ready - self.now:.1f} s more"
        return False

    def _why_better(self, candidate: Candidate) -> str:
        mine, theirs = self.current.rank, candidate.rank
        for name in ("degraded", "family", "gateway", "priority", "metric", "cost", "deprecated", "share"):
            if getattr(mine, name) != getattr(theirs, name):
                words = {
                    "degraded": "the current path is too bad",
                    "deprecated": "the current local address is deprecated",
                    "family": "its address family is preferred",
                    "gateway": "its gateway address is preferred",
                    "share": "the weights say so",
                }
                return words.get(name, f"{candidate.link} has the better {name}")
        return "it is better"

    def _note(self, candidate: Candidate, target: Path | None) -> str:
        if candidate.path == target:
            return "being moved to"
        if candidate.objections:
            return "; ".join(o.text for o in candidate.objections)
        if candidate.path in self.notes:
            return self.notes[candidate.path]
        if candidate.in_use:
            return "in use"
        if candidate.failed:
            why = candidate.track.note if candidate.track is not None else ""
            return "its last check failed" + (f": {why}" if why else "")
        better = candidate.rank.better_than(self.current.rank, sticky=self.settings.sticky)
        return "better" if better else "not better than the path in use"


def _tried(running: Round, path: Path | None) -> Round:
    tried = running.tried if path is None or path in running.tried else (*running.tried, path)
    return replace(running, tried=tried, waiting=None)
