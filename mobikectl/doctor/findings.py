"""A finding: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """Works, but not always or not as well as it could."""
    PROBLEM = "problem"
    """Moves will not work until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding."""

    level: Level
    subject: str
    """What was looked at, in a word or two."""
    text: str
    """How it is."""
    mend: str = ""
    """What to do; empty for what is good."""
