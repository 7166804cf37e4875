"""What kind of charon this is: version, plugins, how ESP is done; and its settings, read from files.

VICI has no command that reads strongswan.conf's settings back (5.9.8 and 6.0 were looked at): what
`settings` returns is what the files say, which charon follows after a start or `reload-settings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.charon import commands
from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.charon.commands import Stats, Version
    from mobikectl.charon.session import Session

STRONGSWAN_CONF = Path("/etc/strongswan.conf")

_MAX_FILES = 200
_MAX_SIZE = 1024 * 1024
_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}=])|(?P<word>[^\s{}="#]+)|(?P<bad>.)'
)


class EspPath(Enum):
    """Where ESP packets are made."""

    KERNEL = "kernel"
    USERLAND = "userland"
    """The kernel-libipsec plugin: a TUN device, always in UDP; address updates rekey the CHILD_SAs."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A charon as it answers over VICI."""

    version: Version
    stats: Stats
    esp: EspPath

    def has_plugin(self, name: str) -> bool:
        """Whether a plugin is loaded."""
        return name in self.stats.plugins


async def inspect(session: Session) -> Daemon:
    """Ask charon what it is. Raises what `Session.request` raises."""
    version = await commands.version(session)
    stats = await commands.stats(session)
    return Daemon(version, stats, esp_path(stats.plugins))


def esp_path(plugins: tuple[str, ...]) -> EspPath:
    """Given the plugins in the order of loading, return who does ESP: the first that offers it."""
    for name in plugins:
        if name == "kernel-libipsec":
            return EspPath.USERLAND
        if name in ("kernel-netlink", "kernel-pfkey", "kernel-wfp"):
            return EspPath.KERNEL
    return EspPath.NONE


def settings(path: Path = STRONGSWAN_CONF) -> dict[str, str]:
    """Given strongswan.conf, return its settings as dotted keys (``charon.prefer_best_path``), includes followed.

    Later values replace earlier ones, as charon does it. References between sections are not
    followed. Raise ConfigError when a file cannot be read or parsed.
    """
    return dict(_read(path, [0]))


def enabled(found: dict[str, str], key: str, *, default: bool) -> bool:
    """Given settings, return one that is yes or no, in the words that strongSwan takes for them."""
    value = found.get(key, "").lower()
    if value in ("1", "yes", "true", "enabled"):
        return True
    return False if value in ("0", "no", "false", "disabled") else default


def _read(path: Path, count: list[int], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    count[0] += 1
    if count[0] > _MAX_FILES:
        raise ConfigError(f"{path}: more than {_MAX_FILES} files are included", hint="is there a circle?")
    try:
        if path.stat().st_size > _MAX_SIZE:
            raise ConfigError(f"{path}: larger than {_MAX_SIZE} bytes")
        source = path.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", hint="name the file that charon uses"
        ) from error
    sections = list(prefix)
    for line, words, mark in _statements(source):
        if mark == "{":
            sections.append(words[0].split(":")[0].rstrip() if words else "")
        elif mark == "}":
            if len(sections) == len(prefix):
                raise ConfigError(f"{path}:{line}: a section ends that did not begin")
            sections.pop()
        elif words[0] == "include" and len(words) == 2 and mark == "":
            for included in _included(path, words[1]):
                yield from _read(included, count, tuple(sections))
        elif mark == "=":
            yield ".".join([*sections, words[0]]), " ".join(words[1:])
        else:
            raise ConfigError(f"{path}:{line}: {' '.join(words)[:60]!r} is neither a section nor a value")
    if len(sections) != len(prefix):
        raise ConfigError(f"{path}: the section {'.'.join(sections)} does not end")


def _included(path: Path, pattern: str) -> list[Path]:
    base = Path("/") if pattern.startswith("/") else path.parent
    return sorted(base.glob(pattern.lstrip("/")))


def _statements(source: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield (line, words, mark): `name {`, `}`, `key = words...`, or words without a mark."""
    words: list[str] = []
    value = False
    line = start = 1
    for match in _TOKEN.finditer(source):
        text, kind = match[0], match.lastgroup
        if kind is None:
            if "\n" in text and (value or (words and words[0] == "include")):
                yield start, words, "=" if value else ""
                words, value = [], False
        elif kind == "mark":
            if text == "=" and len(words) == 1 and not value:
                value = True
            elif text == "=":
                words.append(text)
            else:
                if text == "}" and words:
                    yield start, words, "=" if value else ""
                    words, value = [], False
                yield start, words, text
                words, value = [], False
        else:
            start = start if words else line
            words.append(text[1:-1] if kind == "string" else text)
        line += text.count("\n")
    if words:
        yield start, words, "=" if value else ""
