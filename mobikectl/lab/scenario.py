"""A scenario is a folder: ``scenario.toml`` (what is there, what is demanded) and ``steps.py`` (what happens)."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError, NotFoundError
from mobikectl.lab.checks import Check, parse_checks
from mobikectl.lab.topology import Topology, parse_topology

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SCENARIOS = Path(__file__).parent / "scenarios"
KEYS = {"description", "deadline", "nodes", "links", "tunnels", "checks"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A parsed scenario."""

    name: str
    folder: Path
    description: str
    topology: Topology
    checks: tuple[Check, ...]
    deadline: float
    """Seconds after which its steps are given up."""

    def steps(self) -> Callable[[Any], Awaitable[None]]:
        """Return the coroutine function ``steps(run)`` of its ``steps.py``. Raise LabError without one."""
        path = self.folder / "steps.py"
        spec = importlib.util.spec_from_file_location(
            f"mobikectl_scenario_{self.name.replace('-', '_')}", path
        )
        if not path.exists() or spec is None or spec.loader is None:
            raise LabError(
                f"{path} is missing", hint="a scenario is a folder with scenario.toml and steps.py"
            )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        steps: Callable[[Any], Awaitable[None]] = module.steps
        return steps


def load_scenario(name: str, *, root: Path = SCENARIOS) -> Scenario:
    """Given a scenario's name (or the path of its folder), return it.

    Raise NotFoundError when there is none, LabError when its file is wrong.
    """
    folder = Path(name) if "/" in name else root / name
    path = folder / "scenario.toml"
    if not path.exists():
        known = ", ".join(scenario_names(root=root))
        raise NotFoundError(f"there is no scenario {name!r}", hint=f"there are: {known}")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path}: {error}", hint="mend the TOML") from None
    if unknown := sorted(set(data) - KEYS):
        raise LabError(f"{path}: unknown {', '.join(unknown)}", hint=f"known are {', '.join(sorted(KEYS))}")
    topology = parse_topology(data, where=str(path))
    for node in topology.nodes.values():
        if node.sidecar and not (folder / node.sidecar).exists():
            raise LabError(f"{path}: nodes.{node.name}: {node.sidecar} is missing", hint="put it beside it")
    return Scenario(
        name=folder.name,
        folder=folder,
        description=" ".join(str(data.get("description", "")).split()),
        topology=topology,
        checks=parse_checks(data.get("checks"), where=str(path)),
        deadline=float(data.get("deadline", 30)),
    )


def scenario_names(*, root: Path = SCENARIOS) -> list[str]:
    """Return the names of all scenarios, sorted."""
    return sorted(path.parent.name for path in root.glob("*/scenario.toml"))
