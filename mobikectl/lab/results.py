"""What a run leaves: numbers, verdicts and a timeline, as one JSON document for each scenario.

The document (``schema`` 1; all times are seconds of CLOCK_MONOTONIC of the kernel that ran the lab):

- ``scenario``, ``description``, ``esp`` (``userland`` or ``kernel``), ``sidecar`` (bool), ``passed`` (bool),
  ``error`` (text or null: why the run did not come to its end), ``seconds`` (wall time), ``logs`` (directory);
- ``metrics``: name -> number or text (`mobikectl.lab.measure`); with several tunnels each name has the
  tunnel's as a prefix (``office.lost``);
- ``checks``: ``{metric, operator, limit, value, passed, why}``;
- ``exchanges``: title -> the IKE messages of an exchange as a charon logged them, a text for each;
- ``failures``: what is wrong, one line each; ``starved`` (bool: a busy machine may be to blame for all of it);
- ``tries`` (number), ``missed`` (what each try before the last missed, as lists of text);
- ``timeline``: ``{from, to, tracks}``; a track is ``{name, kind, intervals}`` with ``{from, to, label}`` or
  ``{name, kind, points}`` with ``{at, label}``. Kinds: ``path`` (intervals: over which path ESP arrived, as seen
  on the wire), ``charon`` (intervals: the path that charon says it uses), ``cause``, ``decision``, ``move``,
  ``event`` (points, as told by the sidecar; ``event`` is charon's own), ``lost`` (points: when a lost ping was sent).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobikectl.lab.checks import Verdict
    from mobikectl.lab.measure import Interval

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Point:
    """A moment with a name."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Track:
    """One line of the timeline."""

    name: str
    kind: str
    intervals: tuple[Interval, ...] = ()
    points: tuple[Point, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the track as JSON can hold it."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind in {"path", "charon"}:
            data["intervals"] = [{"from": i.start, "to": i.end, "label": i.label} for i in self.intervals]
        else:
            data["points"] = [{"at": p.at, "label": p.label} for p in self.points]
        return data


@dataclass(slots=True)
class Result:
    """What came out of one scenario."""

    scenario: str
    description: str
    esp: str
    sidecar: bool
    start: float = 0.0
    end: float = 0.0
    seconds: float = 0.0
    metrics: dict[str, float | str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    exchanges: dict[str, list[str]] = field(default_factory=dict)
    """Title -> messages that the scenario shows."""
    error: str | None = None
    logs: str = ""

    @property
    def passed(self) -> bool:
        """Whether it came to its end and every check that applies is met."""
        return self.error is None and bool(self.verdicts) and all(v.passed for v in self.verdicts)

    @property
    def only_starved(self) -> bool:
        """Whether a busy machine may be to blame: it did not come to its end, or only missed limits."""
        failed = [v for v in self.verdicts if not v.passed]
        return self.error is not None or (bool(failed) and all(v.over_its_limit for v in failed))

    @property
    def failures(self) -> list[str]:
        """What is wrong, one line each."""
        failed = [
            str(v) + (f" ({v.check.why})" if v.check.why else "") for v in self.verdicts if not v.passed
        ]
        return ([self.error] if self.error else []) + failed

    def as_json(self) -> dict[str, Any]:
        """Return the document described above."""
        return {
            "schema": SCHEMA,
            "scenario": self.scenario,
            "description": self.description,
            "esp": self.esp,
            "sidecar": self.sidecar,
            "passed": self.passed,
            "error": self.error,
            "failures": self.failures,
            "starved": self.only_starved,
            "seconds": round(self.seconds, 2),
            "logs": self.logs,
            "metrics": self.metrics,
            "checks": [
                {
                    "metric": v.check.metric,
                    "operator": v.check.operator,
                    "limit": v.check.limit,
                    "value": v.value,
                    "passed": v.passed,
                    "why": v.check.why,
                }
                for v in self.verdicts
            ],
            "exchanges": self.exchanges,
            "timeline": {"from": self.start, "to": self.end, "tracks": [t.as_json() for t in self.tracks]},
        }
