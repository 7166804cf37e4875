"""Imports point one way: this test is the fence between the rooms of the house (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mobikectl"

GROUND = {"model", "errors", "taskgroup"}
ADAPTERS = {"netlink", "charon", "probe", "cluster", "transfer"}
ALLOWED: dict[str, set[str]] = {
    "model": set(),
    "errors": set(),
    "taskgroup": set(),
    "wire": GROUND,
    "protocol": GROUND | {"wire"},
    "policy": GROUND,
    "netlink": GROUND,
    "charon": GROUND | {"wire"},
    "probe": GROUND | {"wire", "policy"},
    "cluster": GROUND | {"policy"},
    "transfer": GROUND | {"wire", "cluster"},
    "observe": GROUND,
    "doctor": GROUND | {"policy", "config"} | ADAPTERS,
    "config": GROUND | {"policy"} | ADAPTERS,
    "switch": GROUND | {"wire", "protocol", "policy", "observe"} | ADAPTERS,
    "bridge": GROUND | {"wire", "protocol", "charon", "observe"},
    "sim": GROUND | {"policy", "observe"},
    "sidecar": GROUND
    | {
        "wire",
        "protocol",
        "policy",
        "observe",
        "config",
        "switch",
        "control",
        "bridge",
        "node",
        "watch",
        "web",
    }
    | ADAPTERS,
    "node": GROUND | {"wire", "protocol", "policy", "observe", "config", "switch"} | ADAPTERS,
    "control": GROUND | {"observe"},
    "web": GROUND | {"observe", "watch"},
    "watch": GROUND | {"policy", "cluster", "observe", "control"},
    "lab": GROUND
    | {"wire", "protocol", "observe", "config", "netlink", "charon", "cluster", "control", "bridge"}
    | {"node", "sidecar"},
}
"""Room -> rooms that it may import. `cli` may import everything; nothing imports `cli`."""

PURE = {"model", "errors", "wire", "protocol", "policy", "sim"}
IMPURE_MODULES = {
    "asyncio",
    "socket",
    "subprocess",
    "time",
    "os",
    "threading",
    "selectors",
    "pyroute2",
    "vici",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute dotted names imported by a module, those only for type checking included."""
    names: set[str] = set()
    package = ["mobikectl", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__", "cli"}:
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("mobikectl.")} - {
        room,
        "__version__",
    }
    assert room in ALLOWED, f"{room} is a new room: give it its place in ALLOWED"
    assert used <= ALLOWED[room], f"{path.name} reaches up into {sorted(used - ALLOWED[room])}"


@pytest.mark.parametrize(
    "path", [p for p in modules() if room_of(p) in PURE], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_a_pure_room_does_no_io_and_reads_no_clock(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & IMPURE_MODULES
