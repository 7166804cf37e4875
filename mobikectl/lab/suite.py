"""Several scenarios one after the other, here or in user-mode-linux, and their results on disk."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError
from mobikectl.lab import uml
from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import kernel_has_esp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from mobikectl.lab.results import Result
    from mobikectl.lab.scenario import Scenario

GUEST_BOOT = 30.0
BESIDES_STEPS = 20.0
"""Seconds of a scenario around its steps at most: building, tunnels, sidecars, tearing down."""
GUEST_PATIENCE = 4.0
"""Starting programs in user-mode-linux takes some ten times as long as here; packets do not."""


def choose_esp(wanted: str) -> tuple[str, bool]:
    """Given ``auto``, ``userland`` or ``kernel``, return the ESP to use and whether that needs the guest.

    ``auto`` is the kernel's own ESP where it has one, userland ESP otherwise.
    """
    has = kernel_has_esp()
    if wanted == "auto":
        return ("kernel" if has else "userland"), False
    return wanted, wanted == "kernel" and not has


async def run_suite(
    scenarios: Sequence[Scenario],
    *,
    esp: str,
    out: Path,
    sidecar: bool,
    tell: Callable[[str, str], None],
    done: Callable[[dict[str, Any]], None],
    patience: float = 1.0,
    tries: int = 1,
) -> list[dict[str, Any]]:
    """Given scenarios, run them in order and return their results as JSON documents.

    A scenario that only missed limits (milliseconds, lost pings) or did not come to its end is run again, ``tries``
    times in all, because a shared machine can be too busy for a moment; its document says how many tries it took
    and what the others missed. What is a matter of right or wrong (an SA lost, a wrong path) fails at once.

    ``tell(scenario, line)`` gets progress, ``done(document)`` each result as it comes. Each document is also
    written to ``out/SCENARIO/result.json``, all of them to ``out/results.json``.
    """
    chosen, guest = choose_esp(esp)
    out.mkdir(parents=True, exist_ok=True)
    if guest:
        documents = await _in_guest(scenarios, out=out, sidecar=sidecar, tell=tell, done=done, tries=tries)
    else:
        documents = []
        for scenario in scenarios:
            progress = partial(tell, scenario.name)
            once = partial(
                run_scenario, scenario, esp=chosen, out=out, sidecar=sidecar, patience=patience, tell=progress
            )
            documents.append(await _with_tries(once, tries, progress))
            (out / scenario.name / "result.json").write_text(json.dumps(documents[-1], indent=1))
            done(documents[-1])
    (out / "results.json").write_text(json.dumps(documents, indent=1))
    return documents


async def _with_tries(
    once: Callable[[], Awaitable[Result]], tries: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    missed: list[list[str]] = []
    while True:
        result = await once()
        if result.passed or not result.only_starved or len(missed) + 1 >= tries:
            return {**result.as_json(), "tries": len(missed) + 1, "missed": missed}
        missed.append(result.failures)
        tell(f"not met ({'; '.join(result.failures)}): once more")


async def _in_guest(
    scenarios: Sequence[Scenario],
    *,
    out: Path,
    sidecar: bool,
    tries: int,
    tell: Callable[[str, str], None],
    done: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    for scenario in scenarios:
        (out / scenario.name / "result.json").unlink(missing_ok=True)
    finished: list[str] = []

    def line(text: str) -> None:
        name, _, rest = text.partition("\t")
        if name not in {s.name for s in scenarios}:
            tell("guest", text)
        elif rest == "done":
            finished.append(name)
            done(json.loads((out / name / "result.json").read_text()))
        else:
            tell(name, rest)

    deadline = GUEST_BOOT + tries * GUEST_PATIENCE * sum(s.deadline + BESIDES_STEPS for s in scenarios)
    argv = [*uml.own_command(), "lab", "run", "--esp", "kernel", "--out", str(out.resolve()), "--plain"]
    argv += ["--patience", str(GUEST_PATIENCE), "--tries", str(tries)]
    argv += [] if sidecar else ["--no-sidecar"]
    argv += [s.argument for s in scenarios]
    await uml.run_in_guest(argv, deadline=deadline, environment=("PYTHONPATH", "VIRTUAL_ENV"), tell=line)
    if missing := [s.name for s in scenarios if s.name not in finished]:
        raise LabError(f"no result from the guest for {', '.join(missing)}", hint="its lines above say why")
    return [json.loads((out / s.name / "result.json").read_text()) for s in scenarios]
