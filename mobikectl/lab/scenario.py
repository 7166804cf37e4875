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
KEYS = {"description", "deadline", "kernel", "nodes", "links", "tunnels", "fleets", "cluster", "checks"}
VARIANT = "+"
"""Between a scenario's name and its store: ``cluster-balance+etcd``. Without it: the first store that it runs with."""


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
    kernel: bool = True
    """Whether it is run with kernel ESP when all scenarios are: what shows nothing more there costs time."""

    @property
    def argument(self) -> str:
        """What `load_scenario` takes for this very scenario, wherever it is."""
        store = self.name.partition(VARIANT)[2]
        return str(self.folder.resolve()) + (VARIANT + store if store else "")

    @property
    def lab_name(self) -> str:
        """The beginning of the names of its labs."""
        return self.name.replace(VARIANT, "-")[:17].rstrip("-")

    def steps(self) -> Callable[[Any], Awaitable[None]]:
        """Return the coroutine function ``steps(run)`` of its ``steps.py``. Raise LabError without one."""
        path = self.folder / "steps.py"
        spec = importlib.util.spec_from_file_location(
            f"mobikectl_scenario_{self.folder.name.replace('-', '_')}", path
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
    """Given a scenario's name (or the path of its folder), return it; ``NAME+STORE`` is a cluster's with that store.

    Raise NotFoundError when there is none, LabError when its file is wrong.
    """
    name, _, store = name.partition(VARIANT)
    folder = Path(name) if "/" in name else root / name
    path = folder / "scenario.toml"
    if not path.exists():
        known = ", ".join(sorted(path.parent.name for path in root.glob("*/scenario.toml")))
        raise NotFoundError(f"there is no scenario {name!r}", hint=f"there are: {known}")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path}: {error}", hint="mend the TOML") from None
    if unknown := sorted(set(data) - KEYS):
        raise LabError(f"{path}: unknown {', '.join(unknown)}", hint=f"known are {', '.join(sorted(KEYS))}")
    topology = parse_topology(data, where=str(path), store=store)
    for node in topology.nodes.values():
        if node.sidecar and not (folder / node.sidecar).exists():
            raise LabError(f"{path}: nodes.{node.name}: {node.sidecar} is missing", hint="put it beside it")
    return Scenario(
        name=f"{folder.name}{VARIANT}{store}" if store else folder.name,
        folder=folder,
        description=" ".join(str(data.get("description", "")).split()),
        topology=topology,
        checks=parse_checks(data.get("checks"), where=str(path)),
        deadline=float(data.get("deadline", 30)),
        kernel=bool(data.get("kernel", True)),
    )


def scenario_names(*, root: Path = SCENARIOS, esp: str = "") -> list[str]:
    """Return the names of all scenarios, sorted; a cluster's once for each store that it runs with.

    With ``esp`` those that are run when all are run with that ESP.
    """
    names = []
    for path in sorted(root.glob("*/scenario.toml")):
        name = path.parent.name
        scenario = load_scenario(name, root=root)
        cluster = scenario.topology.cluster
        if cluster is None:
            names += [name] if scenario.kernel or esp != "kernel" else []
            continue
        stores = cluster.kernel if esp == "kernel" else cluster.stores
        names += [name if store == cluster.stores[0] else with_store(name, store) for store in stores]
    return names


def with_store(name: str, store: str) -> str:
    """Given a scenario's name (with or without a store) and a kind of store, return the name with that store."""
    return f"{name.partition(VARIANT)[0]}{VARIANT}{store}"
