"""What is remembered of one path: whether it answers its probes, how well, since when, and how often it flapped.

A `Track` is frozen; each observation returns a new one. The states and their changes are those of `TRANSITIONS`;
a change that is not in the table raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from mobikectl.policy.settings import ProbeSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.model import Path

MAX_FLAPS = 16.0
FORGOTTEN_FLAPS = 0.1
"""Below this a path's flaps are not worth remembering."""
LATE_S = 1.0
"""A probe whose result is later than its deadline by this much was lost by whoever carried it out."""


class ProbeError(Enum):
    """Why a probe round got no (or not enough) answers."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    """The kernel or an ICMP error says that there is no way there."""
    NO_ADDRESS = "no-address"
    """The local address is not on this host (any more)."""
    NO_LINK = "no-link"
    """The link is gone or down."""
    NOT_PERMITTED = "not-permitted"
    """This process may not probe like that: says nothing about the path."""
    LOCAL = "local"
    """Another local fault, such as no more file descriptors: says nothing about the path."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe round of one path found."""

    path: Path
    sent: int
    received: int
    rtts_s: tuple[float, ...]
    """Round trip times of the answers, seconds."""
    at: float
    """When the round ended (CLOCK_MONOTONIC)."""
    answered: int = 0
    """How many targets answered at least once."""
    error: ProbeError | None = None
    """What kept answers away; None when every packet was answered."""
    detail: str = ""
    """The same for people."""

    @property
    def conclusive(self) -> bool:
        """Whether it says anything about the path."""
        return self.error not in {ProbeError.NOT_PERMITTED, ProbeError.LOCAL}


class TrackState(Enum):
    """What the probes say about a path."""

    UNKNOWN = "unknown"
    """Not checked since it became usable."""
    UP = "up"
    FAILING = "failing"
    """Was up; the last checks were bad, not yet enough of them."""
    DOWN = "down"
    RECOVERING = "recovering"
    """Was down; the last checks were good, not yet enough of them."""


class TrackEvent(Enum):
    """What can happen to a path's state."""

    GOOD = "good"
    """A good round, not enough to bring a path that was down up."""
    BAD = "bad"
    """A bad round, not enough to bring a path that was up down."""
    ENOUGH_GOOD = "enough-good"
    """The `ProbeSettings.up`-th good round in a row of a path that was down."""
    ENOUGH_BAD = "enough-bad"
    """The `ProbeSettings.down`-th bad round in a row of a path that was up or unknown."""
    LOST = "lost"
    """The path is no longer usable (link, address or route gone): what was known of it is void."""


class UndefinedTransitionError(ValueError):
    """A state change that is not in the table: a defect of the caller."""


_S, _E = TrackState, TrackEvent
TRANSITIONS: Mapping[tuple[TrackState, TrackEvent], TrackState] = MappingProxyType(
    {
        (_S.UNKNOWN, _E.GOOD): _S.UP,
        (_S.UNKNOWN, _E.BAD): _S.FAILING,
        (_S.UNKNOWN, _E.ENOUGH_BAD): _S.DOWN,
        (_S.UNKNOWN, _E.LOST): _S.UNKNOWN,
        (_S.UP, _E.GOOD): _S.UP,
        (_S.UP, _E.BAD): _S.FAILING,
        (_S.UP, _E.ENOUGH_BAD): _S.DOWN,
        (_S.UP, _E.LOST): _S.UNKNOWN,
        (_S.FAILING, _E.GOOD): _S.UP,
        (_S.FAILING, _E.BAD): _S.FAILING,
        (_S.FAILING, _E.ENOUGH_BAD): _S.DOWN,
        (_S.FAILING, _E.LOST): _S.UNKNOWN,
        (_S.DOWN, _E.GOOD): _S.RECOVERING,
        (_S.DOWN, _E.ENOUGH_GOOD): _S.UP,
        (_S.DOWN, _E.BAD): _S.DOWN,
        (_S.DOWN, _E.LOST): _S.UNKNOWN,
        (_S.RECOVERING, _E.GOOD): _S.RECOVERING,
        (_S.RECOVERING, _E.ENOUGH_GOOD): _S.UP,
        (_S.RECOVERING, _E.BAD): _S.DOWN,
        (_S.RECOVERING, _E.LOST): _S.UNKNOWN,
    }
)


def transition(state: TrackState, event: TrackEvent) -> TrackState:
    """Given a state and an event, return the next state.

    Raise UndefinedTransitionError when the table has none.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise UndefinedTransitionError(f"{event.value} is not possible in {state.value}") from None


@dataclass(frozen=True, slots=True)
class Track:
    """What is remembered of one path. Times are CLOCK_MONOTONIC, durations seconds."""

    path: Path
    settings: ProbeSettings = field(default_factory=ProbeSettings)
    state: TrackState = TrackState.UNKNOWN
    since: float = 0.0
    """When it entered the state."""
    usable_since: float | None = None
    """Since when link, address and route allow it without a break. None: they do not."""
    successes: int = 0
    """Good rounds in a row."""
    failures: int = 0
    """Bad rounds in a row."""
    srtt_s: float | None = None
    """Smoothed round trip time."""
    window: tuple[tuple[int, int], ...] = ()
    """(sent, received) of the last rounds, the newest last."""
    degraded: bool = False
    """It answers, but worse than the quality limits allow."""
    answered: bool | None = None
    """Whether the last check (probe or verified move) found it working; None before the first."""
    move_failed: bool = False
    """The last check was a move that did not verify."""
    ever_answered: bool = False
    """Whether a probe was answered here ever: then the gateway does answer such probes."""
    checked_at: float | None = None
    heard: int = 0
    """How many probe results came in that say something about the path."""
    waiting_until: float | None = None
    """Until when the result of a probe under way is waited for."""
    next_due: float = 0.0
    """When the next probe round is due."""
    flaps: float = 0.0
    flaps_at: float = 0.0
    flap_half_life_s: float = 300.0
    note: str = ""
    """The last error, for people."""

    @property
    def loss(self) -> float | None:
        """The share of packets lost in the window, or None before the first round."""
        sent = sum(s for s, _ in self.window)
        return 1 - sum(r for _, r in self.window) / sent if sent else None

    @property
    def up_since(self) -> float | None:
        """Since when the probes find it up without a break, or None."""
        return self.since if self.state is TrackState.UP else None

    def flaps_now(self, now: float) -> float:
        """Return how often it flapped, older flaps counting less (RFC 2439 section 4.2)."""
        return float(self.flaps * 2.0 ** (-max(0.0, now - self.flaps_at) / self.flap_half_life_s))

    def observe(self, result: ProbeResult, now: float) -> Track:
        """Given the result of a probe round, return what is known then."""
        if not result.conclusive:
            return replace(
                self,
                waiting_until=None,
                next_due=now + self.settings.interval_s,
                note=result.detail or str(result.error),
            )
        answered = result.answered >= self.settings.needed(self.path.remote)
        measured = self._measured(result)
        good = answered and not measured.degraded
        changed = measured._changed(measured._event(good), now)
        changed = replace(
            changed,
            successes=self.successes + 1 if good else 0,
            failures=0 if good else self.failures + 1,
            answered=answered,
            move_failed=False if answered else self.move_failed,
            ever_answered=self.ever_answered or answered,
            checked_at=now,
            heard=self.heard + 1,
            waiting_until=None,
            note="" if good else result.detail or measured._why_degraded(),
        )
        return replace(changed, next_due=now + changed.pause_s())

    def pause_s(self) -> float:
        """Return how long after a round the next one is due."""
        match self.state:
            case TrackState.FAILING:
                return self.settings.failure_interval_s
            case TrackState.DOWN if self.settings.keep_failure_interval:
                return self.settings.failure_interval_s
            case TrackState.RECOVERING:
                return self.settings.recovery_interval_s
            case _:
                return self.settings.interval_s

    def asked(self, now: float) -> Track:
        """Return it with a probe under way."""
        return replace(self, waiting_until=now + self.settings.round_s + LATE_S)

    def lost_probe(self, now: float) -> Track:
        """Return it after a probe whose result never came: to be asked again."""
        return replace(self, waiting_until=None, next_due=now)

    def usable(self, is_usable: bool, settings: ProbeSettings, now: float) -> Track:
        """Given whether link, address and route allow the path, return what is known then."""
        if is_usable:
            if self.usable_since is None:
                return replace(self, settings=settings, usable_since=now, next_due=now)
            return self if settings == self.settings else replace(self, settings=settings, next_due=now)
        if self.usable_since is None:
            return self
        lost = self._flapped(now)._changed(TrackEvent.LOST, now)
        return replace(
            lost,
            usable_since=None,
            successes=0,
            failures=0,
            srtt_s=None,
            window=(),
            degraded=False,
            answered=None,
            move_failed=False,
            checked_at=None,
            waiting_until=None,
            note="",
        )

    def move_verified(self, now: float) -> Track:
        """Return it after a verified move there, which is a successful check too."""
        state = self.state
        if state is TrackState.UNKNOWN:
            state = transition(state, TrackEvent.GOOD)
        since = now if state is not self.state else self.since
        return replace(self, state=state, since=since, answered=True, move_failed=False, checked_at=now)

    def move_failed_there(self, reason: str, now: float) -> Track:
        """Return it after a move there that did not verify, which is a failed check and a flap."""
        event = self._event(good=False)
        failed = self._flapped(now)._changed(event, now)
        return replace(
            failed,
            successes=0,
            failures=self.failures + 1,
            answered=False,
            move_failed=True,
            checked_at=now,
            next_due=now,
            note=reason,
        )

    def _event(self, good: bool) -> TrackEvent:
        was_down = self.state in {TrackState.DOWN, TrackState.RECOVERING}
        if good:
            enough = was_down and self.successes + 1 >= self.settings.up
            return TrackEvent.ENOUGH_GOOD if enough else TrackEvent.GOOD
        enough = not was_down and self.failures + 1 >= self.settings.down
        return TrackEvent.ENOUGH_BAD if enough else TrackEvent.BAD

    def _changed(self, event: TrackEvent, now: float) -> Track:
        state = transition(self.state, event)
        if state is self.state:
            return self
        fell = state is TrackState.DOWN and self.state in {TrackState.UP, TrackState.FAILING}
        return replace(self._flapped(now) if fell else self, state=state, since=now)

    def _flapped(self, now: float) -> Track:
        flaps = min(MAX_FLAPS, self.flaps_now(now) + 1.0)
        return replace(self, flaps=flaps, flaps_at=now)

    def _measured(self, result: ProbeResult) -> Track:
        srtt = self.srtt_s
        for rtt in result.rtts_s:
            alpha = self.settings.latency_smoothing
            srtt = rtt if srtt is None else (1 - alpha) * srtt + alpha * rtt
        window = (*self.window, (result.sent, result.received))[-self.settings.window :]
        measured = replace(self, srtt_s=srtt, window=window)
        return replace(measured, degraded=measured._too_bad())

    def _too_bad(self) -> bool:
        """Apply the quality limits with their hysteresis."""
        limits = self.settings.quality
        loss, srtt = self.loss, self.srtt_s
        if not self.degraded:
            return (limits.failure_latency_s is not None and (srtt or 0.0) > limits.failure_latency_s) or (
                limits.failure_loss is not None and (loss or 0.0) > limits.failure_loss
            )
        latency_limit = limits.recovery_latency_s or limits.failure_latency_s
        loss_limit = limits.failure_loss if limits.recovery_loss is None else limits.recovery_loss
        return (latency_limit is not None and (srtt or 0.0) > latency_limit) or (
            loss_limit is not None and (loss or 0.0) > loss_limit
        )

    def _why_degraded(self) -> str:
        srtt = "?" if self.srtt_s is None else f"{self.srtt_s * 1000:.0f} ms"
        return (
            f"answers, but too badly: {srtt}, {100 * (self.loss or 0.0):.0f} % lost" if self.degraded else ""
        )
