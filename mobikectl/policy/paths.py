"""The client's path policy: which path each IKE_SA should use, decided from what is known.

Pure and deterministic: the same state, settings and time give the same decision. The rules are those of
draft-kivinen-mobike-protocol-00 section 2 with RFC 4555 section 3; `mobikectl.policy.turn` has them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mobikectl.model import IkeState
from mobikectl.policy.candidates import assessed, candidates, remotes_of
from mobikectl.policy.settings import ProbeMethod
from mobikectl.policy.state import Action, Decision, Memory, PathState, ProbePath, SaMemory
from mobikectl.policy.track import FORGOTTEN_FLAPS, Track
from mobikectl.policy.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.model import IkeSa, IpAddress, Path
    from mobikectl.policy.candidates import Candidate
    from mobikectl.policy.settings import PathSettings

OURS = frozenset({IkeState.ESTABLISHED, IkeState.REKEYING})
"""States in which an IKE_SA's addresses can be updated."""
MAX_GONE = 256
"""How many paths that are not usable now are remembered at most."""


def decides_about(sa: IkeSa) -> bool:
    """Given an IKE_SA, return whether its path is this policy's to choose.

    Only the original initiator updates addresses (RFC 4555 section 3.5).
    """
    return sa.original_initiator and sa.state in OURS


def decide(state: PathState, settings: PathSettings, now: float) -> Decision:
    """Given what is known, the settings and the time (CLOCK_MONOTONIC), return what to do and when to ask again.

    Giving the returned memory back at the same time gives no further actions.
    """
    mine = sorted((sa for sa in state.sas if decides_about(sa)), key=lambda sa: sa.uniqueid)
    found = {sa.uniqueid: candidates(sa, state, settings) for sa in mine}
    remotes = {r for sa in mine for r in remotes_of(sa, settings, state.learnt.get(sa.uniqueid, ()))}
    tracks = _tracks(state.memory.tracks, found, remotes, settings, now)
    speaking = frozenset(t.path.remote for t in tracks.values() if t.ever_answered)
    turns = []
    for sa in mine:
        judged = assessed(found[sa.uniqueid], tracks, speaking)
        remembered = state.memory.sas.get(sa.uniqueid, SaMemory())
        turn = Turn(sa, judged, state.indications, remembered, settings, now)
        turn.take()
        turns.append(turn)
    wanted = {path for turn in turns for path in turn.wanted}
    probes, tracks = _probes(tracks, found, wanted, now)
    listed = {sa.uniqueid for sa in state.sas}
    kept = {k: v for k, v in state.memory.sas.items() if k in listed}
    kept.update({turn.sa.uniqueid: turn.memory for turn in turns})
    actions: list[Action] = [action for turn in turns for action in turn.actions]
    wakes = [w for turn in turns for w in turn.wakes]
    return Decision(
        actions=(*actions, *probes),
        next_deadline=_next_deadline(wakes, tracks, now),
        explanations=tuple(turn.explanation() for turn in turns),
        memory=Memory(MappingProxyType(tracks), MappingProxyType(kept)),
    )


def _tracks(
    known: Mapping[Path, Track],
    found: Mapping[int, tuple[Candidate, ...]],
    remotes: set[IpAddress],
    settings: PathSettings,
    now: float,
) -> dict[Path, Track]:
    """Bring what is remembered of paths up to date with what links, addresses and routes allow."""
    usable: dict[Path, Candidate] = {}
    undecided: set[Path] = set()
    for candidate in (c for group in found.values() for c in group):
        if candidate.usable:
            usable.setdefault(candidate.path, candidate)
        elif not candidate.gone:
            undecided.add(candidate.path)
    tracks = {path: track for path, track in known.items() if path in undecided and path not in usable}
    for path, candidate in usable.items():
        fresh = Track(path, since=now, next_due=now, flap_half_life_s=settings.flap_half_life_s)
        track = known.get(path, fresh).usable(True, settings.probe_for(candidate.link), now)
        late = track.waiting_until is not None and now >= track.waiting_until
        tracks[path] = track.lost_probe(now) if late else track
    gone = [
        track.usable(False, track.settings, now)
        for path, track in known.items()
        if path not in tracks and path.remote in remotes
    ]
    worth = [t for t in gone if t.ever_answered or t.flaps_now(now) > FORGOTTEN_FLAPS]
    worth.sort(key=lambda t: (-t.flaps_now(now), t.path.family, t.path))
    tracks.update({t.path: t for t in worth[:MAX_GONE]})
    return tracks


def _probes(
    tracks: dict[Path, Track], found: Mapping[int, tuple[Candidate, ...]], wanted: set[Path], now: float
) -> tuple[list[ProbePath], dict[Path, Track]]:
    """Ask for the probes that are due or wanted now and not under way."""
    usable = {c.path: c for group in found.values() for c in group if c.usable}
    asked = dict(tracks)
    probes = []
    for path in sorted(usable, key=lambda p: (p.family, p)):
        track = tracks[path]
        due = track.next_due <= now or path in wanted
        if track.settings.method is ProbeMethod.NONE or track.waiting_until is not None or not due:
            continue
        link = "" if usable[path].unbound else usable[path].link
        probes.append(ProbePath(path, link, track.settings, now + track.settings.round_s))
        asked[path] = track.asked(now)
    return probes, asked


def _next_deadline(wakes: list[float], tracks: Mapping[Path, Track], now: float) -> float | None:
    probed = (
        t for t in tracks.values() if t.usable_since is not None and t.settings.method is not ProbeMethod.NONE
    )
    times = [*wakes, *(t.next_due if t.waiting_until is None else t.waiting_until for t in probed)]
    return min((t for t in times if t > now), default=None)
