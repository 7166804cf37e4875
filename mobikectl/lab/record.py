"""What a lab made, on disk before it is made, so that `mobikectl lab down` works after any crash."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import LabError, NotFoundError
from mobikectl.lab.processes import ProcessId

if TYPE_CHECKING:
    from collections.abc import Mapping

LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
NAMESPACE_PREFIX = "mobikectl"
SHARED = "cluster"
"""Below the /run of a cluster's nodes: a directory that they share."""


def labs_dir() -> Path:
    """Return the directory of all labs: ``$MOBIKECTL_LAB_DIR`` or /run/mobikectl-lab."""
    return Path(os.environ.get("MOBIKECTL_LAB_DIR", "/run/mobikectl-lab"))


@dataclass(frozen=True, slots=True)
class Record:
    """A lab's record: its directory holds everything that it has on disk."""

    name: str
    scenario: str
    esp: str
    namespaces: Mapping[str, str]
    """Node -> network namespace."""

    @property
    def directory(self) -> Path:
        """The lab's own directory."""
        return labs_dir() / self.name

    def node_dir(self, node: str) -> Path:
        """Given a node, return the directory that it sees as /run."""
        return self.directory / node

    @property
    def shared_dir(self) -> Path:
        """The directory that the nodes of a cluster see as /run/cluster; its name can be no node's."""
        return self.directory / f".{SHARED}"

    def create(self) -> None:
        """Make the directory and write the record. Raise LabError when a lab has the name already."""
        if not LAB_NAME.fullmatch(self.name):
            raise LabError(f"{self.name!r} is no lab name", hint="1-24 of a-z, 0-9 and '-', a letter first")
        labs_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.directory.mkdir(mode=0o700)
        except FileExistsError:
            raise LabError(
                f"there is a lab {self.name!r} already", hint=f"mobikectl lab down {self.name}"
            ) from None
        data = {
            "name": self.name,
            "scenario": self.scenario,
            "esp": self.esp,
            "namespaces": dict(self.namespaces),
        }
        temporary = self.directory / "lab.json.new"
        temporary.write_text(json.dumps(data, indent=1))
        temporary.rename(self.directory / "lab.json")

    def add_process(self, node: str, what: str, who: ProcessId) -> None:
        """Write down a process that was started."""
        line = json.dumps({"node": node, "what": what, "pid": who.pid, "start": who.start})
        with (self.directory / "processes.jsonl").open("a") as file:
            file.write(line + "\n")

    def processes(self) -> list[tuple[str, str, ProcessId]]:
        """Return (node, what, process) of all that were written down, dead ones included, oldest first."""
        path = self.directory / "processes.jsonl"
        if not path.exists():
            return []
        found = []
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a crashed writer
                continue
            found.append((entry["node"], entry["what"], ProcessId(entry["pid"], entry["start"])))
        return found

    def remove(self) -> None:
        """Remove the lab's directory; the directory of all labs too when this was the last."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if labs_dir().is_dir() and not any(labs_dir().iterdir()):
            labs_dir().rmdir()


def load(name: str) -> Record:
    """Given a lab's name, return its record. Raise NotFoundError when there is none.

    A lab that crashed before its record was written has made nothing but its directory.
    """
    if not LAB_NAME.fullmatch(name) or not (labs_dir() / name).is_dir():
        raise NotFoundError(f"there is no lab {name!r}", hint="mobikectl lab status lists them")
    path = labs_dir() / name / "lab.json"
    if not path.exists():
        return Record(name, "", "", {})
    try:
        data = json.loads(path.read_text())
        return Record(data["name"], data["scenario"], data["esp"], data["namespaces"])
    except (ValueError, KeyError) as error:
        raise LabError(
            f"{path} cannot be read: {error}", hint="remove the lab's namespaces by hand"
        ) from None


def all_names() -> list[str]:
    """Return the names of all labs on this machine."""
    if not labs_dir().is_dir():
        return []
    return sorted(entry.name for entry in labs_dir().iterdir() if entry.is_dir())
