"""Who has the HA port, at which charon's key material arrives. The port itself is not touched.

Source: proc(5), /proc/net/udp and /proc/PID/fd.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.charon.ha_port import BROKER
from mobikectl.wire.ha import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

HA_PORT = f"{BROKER} port {PORT}"
MANAGER = 1
"""systemd keeps the port for the unit (FileDescriptorStoreMax=)."""
KEEPER = ("-m", "mobikectl.charon.ha_keeper")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the port: process numbers with their command lines; none where that cannot be seen."""

    processes: tuple[tuple[int, str], ...]

    @property
    def ours(self) -> bool:
        """Whether that is a sidecar, or what keeps the port for one."""
        return any(_ours(pid, command) for pid, command in self.processes)


def holder(proc: Path = Path("/proc")) -> Holder | None:
    """Given /proc, return who has the broker's port in this network namespace, or who keeps others from it."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(proc / "thread-self" / "net")}
    if not inodes:
        return None
    return Holder(tuple((pid, _command(proc / str(pid))) for pid in _with_sockets(proc, inodes)))


def _inodes(tables: Path) -> Iterator[str]:
    # The kernel shows an address as it is in memory, read as a number of the machine's byte order.
    ours = f"{int.from_bytes(BROKER.packed, 'little'):08X}"
    for table, addresses in (("udp", {ours, "0" * 8}), ("udp6", {"0" * 32})):
        try:
            lines = (tables / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _, port = fields[1].partition(":") if len(fields) > 9 else ("", "", "")
            if address in addresses and port == f"{PORT:04X}":
                yield fields[9]


def _with_sockets(proc: Path, sockets: set[str]) -> Iterator[int]:
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):  # it ended, or is not ours to look at
            if any(_points_to(link) in sockets for link in (folder / "fd").iterdir()):
                yield int(folder.name)


def _points_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


def _command(folder: Path) -> str:
    try:
        line = (folder / "cmdline").read_bytes()
    except OSError:
        return ""
    text = line.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)


def _ours(pid: int, command: str) -> bool:
    words = tuple(command.split())
    keeps = any(pair == KEEPER for pair in itertools.pairwise(words))
    serves = "run" in words and any(Path(word).name == "mobikectl" for word in words[: words.index("run")])
    return pid == MANAGER or keeps or serves
