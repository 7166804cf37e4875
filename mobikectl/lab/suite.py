"""Several scenarios, one after the other or side by side, here or in user-mode-linux, and their results on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mobikectl.errors import LabError
from mobikectl.lab import uml
from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import kernel_has_esp
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from mobikectl.lab.results import Result
    from mobikectl.lab.scenario import Scenario

    Elsewhere = Callable[[Sequence[Scenario], "Way", "Progress", int | None], Awaitable[list[dict[str, Any]]]]

GUEST_BOOT = 30.0
BESIDES_STEPS = 20.0
"""Seconds of a scenario around its steps at most: building, tunnels, sidecars, tearing down."""
ENDING = 30.0
"""Seconds for a process that was interrupted to remove its lab."""
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


@dataclass(frozen=True, slots=True)
class Way:
    """How scenarios are run: whose ESP, where the results go, with a sidecar or without, how patiently, how often."""

    esp: str
    out: Path
    sidecar: bool = True
    patience: float = 1.0
    tries: int = 1

    def deadline(self, scenarios: Sequence[Scenario]) -> float:
        """Return how many seconds the scenarios may take in all."""
        return self.tries * self.patience * sum(s.deadline + BESIDES_STEPS for s in scenarios)

    def options(self) -> list[str]:
        """Return the same as options of ``mobikectl lab run``, in another process."""
        words = ["--esp", self.esp, "--out", str(self.out.resolve()), "--plain"]
        words += ["--patience", str(self.patience), "--tries", str(self.tries)]
        return words if self.sidecar else [*words, "--no-sidecar"]


class Progress(Protocol):
    """Who is told how a suite goes on."""

    def tell(self, scenario: str, line: str) -> None:
        """Take a line about a scenario."""

    def done(self, document: dict[str, Any]) -> None:
        """Take a scenario's result."""


async def run_suite(
    scenarios: Sequence[Scenario], way: Way, progress: Progress, *, jobs: int = 1
) -> list[dict[str, Any]]:
    """Given scenarios, run them and return their results as JSON documents, in the same order.

    A scenario that only missed limits (milliseconds, lost pings) or did not come to its end is run again,
    ``way.tries`` times in all, because a shared machine can be too busy for a moment; its document says how many
    tries it took and what the others missed. What is a matter of right or wrong (an SA lost, a wrong path) fails at
    once, when it had the machine to itself.

    With ``jobs`` greater than one that many run at a time, the longest first, each in a process or guest of its own;
    whatever failed then is run again alone: where two take the processors from each other, a second is over before
    an answer comes, and peers do what they are to do about that.
    Each document is also written to ``out/SCENARIO/result.json``, all of them to ``out/results.json``.
    Raise LabError when a process or guest ended without a result.
    """
    chosen, guest = choose_esp(way.esp)
    way = replace(way, esp=chosen, patience=GUEST_PATIENCE if guest else way.patience)
    way.out.mkdir(parents=True, exist_ok=True)
    if jobs > 1:
        elsewhere = _in_guest if guest else _in_process
        documents = await _side_by_side(scenarios, way, progress, elsewhere, min(jobs, len(scenarios)))
    elif guest:
        documents = await _in_guest(scenarios, way, progress, None)
    else:
        documents = [await _here(scenario, way, progress) for scenario in scenarios]
    (way.out / "results.json").write_text(json.dumps(documents, indent=1))
    return documents


async def _here(scenario: Scenario, way: Way, progress: Progress) -> dict[str, Any]:
    tell = partial(progress.tell, scenario.name)
    once = partial(
        run_scenario,
        scenario,
        esp=way.esp,
        out=way.out,
        sidecar=way.sidecar,
        patience=way.patience,
        tell=tell,
    )
    document = await _with_tries(once, way.tries, tell)
    _result(way, scenario).write_text(json.dumps(document, indent=1))
    progress.done(document)
    return document


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


async def _side_by_side(
    scenarios: Sequence[Scenario], way: Way, progress: Progress, elsewhere: Elsewhere, jobs: int
) -> list[dict[str, Any]]:
    """Run each once beside others; what failed then has the machine to itself."""
    waiting = sorted(scenarios, key=lambda s: s.deadline)
    processors = uml.processors()
    documents: dict[str, dict[str, Any]] = {}
    once, first = replace(way, tries=1), _First(progress) if way.tries > 1 else progress

    async def take(job: int) -> None:
        while waiting:
            scenario = waiting.pop()
            (documents[scenario.name],) = await elsewhere(
                [scenario], once, first, processors[job % len(processors)]
            )

    async with TaskGroup() as group:
        for job in range(jobs):
            group.create_task(take(job))
    if way.tries > 1:
        for scenario in (s for s in scenarios if not documents[s.name]["passed"]):
            documents[scenario.name] = await _alone(
                scenario, documents[scenario.name], way, progress, elsewhere
            )
    return [documents[scenario.name] for scenario in scenarios]


class _First:
    """Progress of first tries: what is tried again has no result yet."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.tell = progress.tell

    def done(self, document: dict[str, Any]) -> None:
        if not document["passed"]:
            missed = "; ".join(document["failures"])
            self.tell(document["scenario"], f"not met ({missed}): once more when it is alone")
        else:
            self._progress.done(document)


async def _alone(
    scenario: Scenario, first: dict[str, Any], way: Way, progress: Progress, elsewhere: Elsewhere
) -> dict[str, Any]:
    (document,) = await elsewhere([scenario], replace(way, tries=way.tries - 1), progress, None)
    document |= {"tries": document["tries"] + 1, "missed": [first["failures"], *document["missed"]]}
    _result(way, scenario).write_text(json.dumps(document, indent=1))
    return document


def _command(scenarios: Sequence[Scenario], way: Way) -> list[str]:
    return [*uml.own_command(), "lab", "run", *way.options(), *(s.argument for s in scenarios)]


async def _in_guest(
    scenarios: Sequence[Scenario], way: Way, progress: Progress, cpu: int | None
) -> list[dict[str, Any]]:
    hear = _Hearer(scenarios, way, progress)
    await uml.run_in_guest(
        _command(scenarios, way),
        deadline=GUEST_BOOT + way.deadline(scenarios),
        environment=("PYTHONPATH", "VIRTUAL_ENV"),
        cpu=cpu,
        tell=hear.line,
    )
    return hear.documents()


async def _in_process(
    scenarios: Sequence[Scenario], way: Way, progress: Progress, _: int | None
) -> list[dict[str, Any]]:
    hear = _Hearer(scenarios, way, progress)
    # It is to be interrupted by _end even where this process ignores that, as one in the background of a shell does.
    argv = ["env", "--default-signal=INT", *_command(scenarios, way)]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    if process.stdout is None:
        raise LabError("the scenario's process has no output", hint="please report it")
    try:
        async with asyncio.timeout(way.deadline(scenarios)):
            async for line in process.stdout:
                hear.line(line.decode(errors="replace").rstrip())
            await process.wait()
    except TimeoutError:
        raise LabError(f"not at their end in time: {hear.missing()}", hint="see the lines above") from None
    finally:
        await _end(process)
    return hear.documents()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that may have a lab: what is interrupted removes it."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.returncode is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await process.wait()


class _Hearer:
    """Understands the lines of ``mobikectl lab run --plain`` elsewhere, and has its results."""

    def __init__(self, scenarios: Sequence[Scenario], way: Way, progress: Progress) -> None:
        self._results = {scenario.name: _result(way, scenario) for scenario in scenarios}
        self._finished: set[str] = set()
        self._progress = progress
        for path in self._results.values():
            path.unlink(missing_ok=True)

    def line(self, text: str) -> None:
        """Take a line: ``SCENARIO<tab>progress``, ``SCENARIO<tab>done``, or something else."""
        name, _, rest = text.partition("\t")
        if name not in self._results:
            self._progress.tell(next(iter(self._results)) if len(self._results) == 1 else "guest", text)
        elif rest == "done":
            self._finished.add(name)
            self._progress.done(json.loads(self._results[name].read_text()))
        else:
            self._progress.tell(name, rest)

    def missing(self) -> str:
        """Name the scenarios without a result."""
        return ", ".join(name for name in self._results if name not in self._finished)

    def documents(self) -> list[dict[str, Any]]:
        """Return all results. Raise LabError when one is missing."""
        if missing := self.missing():
            raise LabError(f"no result for {missing}", hint="its lines above say why")
        return [json.loads(path.read_text()) for path in self._results.values()]


def _result(way: Way, scenario: Scenario) -> Path:
    return way.out / scenario.name / "result.json"
