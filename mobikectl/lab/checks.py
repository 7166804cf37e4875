"""What a scenario demands of its measurements. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATORS = ("at_most", "at_least", "equals")
SIGNS = {"at_most": "<=", "at_least": ">=", "equals": "="}
KEYS = {"metric", "esp", "sidecar", "why", *OPERATORS}


@dataclass(frozen=True, slots=True)
class Check:
    """One demand: a metric, an operator and a limit."""

    metric: str
    operator: str
    limit: float | str
    esp: str = ""
    """Only judged with this ESP (``kernel`` or ``userland``); empty: with both."""
    sidecar: bool | None = None
    """Only judged with (true) or without (false) the sidecar; None: with both."""
    why: str = ""

    def applies(self, *, esp: str, sidecar: bool) -> bool:
        """Whether it is judged in such a run."""
        return self.esp in {"", esp} and self.sidecar in {None, sidecar}

    def __str__(self) -> str:
        return f"{self.metric} {SIGNS[self.operator]} {self.limit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check and what was measured."""

    check: Check
    value: float | str | None
    """None: it was not measured, which fails every check."""

    @property
    def passed(self) -> bool:
        """Whether the demand is met."""
        value, limit = self.value, self.check.limit
        if value is None:
            return False
        if self.check.operator == "equals":
            return value == limit
        if isinstance(value, str) or isinstance(limit, str):
            return False
        return value <= limit if self.check.operator == "at_most" else value >= limit

    @property
    def over_its_limit(self) -> bool:
        """Whether it was measured and is too large: a matter of measure, not of right or wrong."""
        return not self.passed and self.check.operator == "at_most" and isinstance(self.value, int | float)

    def __str__(self) -> str:
        got = "not measured" if self.value is None else f"got {self.value}"
        return f"{self.check}: {got}"


def parse_checks(entries: object, *, where: str) -> tuple[Check, ...]:
    """Given the ``[[checks]]`` of a scenario file, return them. Raise LabError for one that is malformed."""
    if not isinstance(entries, list) or not entries:
        raise LabError(f"{where}: expected [[checks]]", hint="a scenario without checks proves nothing")
    return tuple(_parse(entry, f"{where}: check {number}") for number, entry in enumerate(entries, 1))


def _parse(entry: Mapping[str, Any], where: str) -> Check:
    hint = f"a check has metric, one of {', '.join(OPERATORS)}, and maybe esp, sidecar, why"
    operators = [key for key in OPERATORS if key in entry]
    if set(entry) - KEYS or "metric" not in entry or len(operators) != 1:
        raise LabError(f"{where} is malformed: {dict(entry)}", hint=hint)
    operator = operators[0]
    limit = entry[operator]
    if isinstance(limit, bool) or not isinstance(limit, (int, float, str)):
        raise LabError(f"{where}: {operator} is a number or a text, got {limit!r}", hint=hint)
    if operator != "equals" and isinstance(limit, str):
        raise LabError(f"{where}: {operator} needs a number, got {limit!r}", hint=hint)
    if entry.get("esp", "") not in {"", "kernel", "userland"}:
        raise LabError(f"{where}: esp is kernel or userland", hint=hint)
    return Check(
        str(entry["metric"]),
        operator,
        limit,
        esp=str(entry.get("esp", "")),
        sidecar=entry.get("sidecar"),
        why=str(entry.get("why", "")),
    )


def judge(
    checks: tuple[Check, ...], metrics: Mapping[str, float | str], *, esp: str, sidecar: bool
) -> list[Verdict]:
    """Given checks and measurements, return a verdict for each check that applies."""
    return [Verdict(c, metrics.get(c.metric)) for c in checks if c.applies(esp=esp, sidecar=sidecar)]
