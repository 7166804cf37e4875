"""How many handovers are under way at once. Pure.

More at once are faster only while there is something to wait for. As soon as a processor is what they wait for, each
takes longer and none is done sooner, while its client is served by nobody for longer. How long one takes
tells: the bound grows while that stays near the shortest time seen of late, and shrinks when it does not (additive
increase, multiplicative decrease: Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", 1989; time as the sign of a queue: Brakmo and Peterson, "TCP Vegas", 1995).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """Between which bounds, and what is too long."""

    first: int = 1
    most: int = 32
    short_s: float = 0.2
    """What takes no longer than this is not too long, however short others were: clocks and schedulers are coarse."""
    factor: float = 2.0
    """What takes more than so many times the shortest seen of late is too long."""
    shrink: float = 0.5
    """At most one by ``factor``: after it shrank they are as short as the shortest, which is seen again so."""
    forget: float = 0.05
    """By this share the shortest time grows with each round, so that a lucky one does not count for ever."""

    def __post_init__(self) -> None:
        if not (
            1 <= self.first <= self.most
            and self.short_s >= 0
            and self.factor > 1
            and 0 < self.shrink * self.factor <= 1
            and self.forget >= 0
        ):
            raise ValueError("a pace whose bounds, times or factors are out of range")


@dataclass(frozen=True, slots=True)
class Pace:
    """The bound as it is now."""

    settings: PaceSettings = field(default_factory=PaceSettings)
    bound: float = 0.0
    """Fractions of one count until they are a whole."""
    best_s: float | None = None
    """The shortest time seen of late."""
    epoch: int = 0
    """How often it shrank. What began before says nothing of the bound of now."""

    def __post_init__(self) -> None:
        if not self.bound:
            object.__setattr__(self, "bound", float(self.settings.first))

    @property
    def at_once(self) -> int:
        """How many may be under way; at least one."""
        return int(self.bound)

    @property
    def limit_s(self) -> float | None:
        """What takes longer is too long; None: nothing is known yet."""
        if self.best_s is None:
            return None
        return max(self.settings.short_s, self.settings.factor * self.best_s)

    def took(self, seconds: float, *, began: int, full: bool) -> Pace:
        """Given how long one took that began in an epoch, return the pace from now on.

        ``full``: as many as may be were under way: only then is it known that so many are not too many.
        """
        limit = self.limit_s
        best = self.best_s
        if best is None or seconds < best:
            best = seconds
        else:
            best = min(seconds, best * (1 + self.settings.forget / self.bound))
        now = replace(self, best_s=best)
        if limit is not None and seconds > limit:
            return now.failed(began=began)
        if not full or began != self.epoch:
            return now
        # Doubled with each round until the first time that it was too much, then one more with each round.
        more = 1.0 if self.epoch == 0 else 1.0 / self.bound
        return replace(now, bound=min(float(self.settings.most), self.bound + more))

    def failed(self, *, began: int) -> Pace:
        """Given the epoch in which one began that took too long, return the pace from now on."""
        if began != self.epoch:
            return self
        return replace(self, bound=max(1.0, self.bound * self.settings.shrink), epoch=self.epoch + 1)
