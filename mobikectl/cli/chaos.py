"""`mobikectl lab chaos`: many moves of IKE_SAs while processes are killed, as a seed says."""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from mobikectl.cli.output import json_option, print_json
from mobikectl.errors import LabError
from mobikectl.lab import uml
from mobikectl.lab.chaos.scenario import chaos_scenario
from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import require_lab
from mobikectl.lab.suite import GUEST_BOOT, GUEST_PATIENCE, choose_esp

if TYPE_CHECKING:
    from mobikectl.lab.chaos.scenario import ChaosScenario

errors = Console(stderr=True, highlight=False)


@click.command()
@click.option("--moves", type=click.IntRange(1, 100_000), default=300, show_default=True, help="How many.")
@click.option("--every-step", is_flag=True, help="No dice: kill each process once at each step of a move.")
@click.option(
    "--seed", type=int, help="Draw the same moves and faults as the run that told it (default: a new one)."
)
@click.option(
    "--esp",
    type=click.Choice(["auto", "userland", "kernel"]),
    default="auto",
    show_default=True,
    help="Who does ESP: charon itself, or the kernel (in user-mode-linux when this kernel cannot).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/chaos"),
    show_default=True,
    help="Folder of the result and of the logs.",
)
@click.option("--patience", type=float, default=1.0, help="Stretch deadlines on a slow machine.")
@json_option
def chaos(
    moves: int, every_step: bool, seed: int | None, esp: str, out: Path, patience: float, as_json: bool
) -> None:
    """Move clients around three gateways, again and again, while processes are killed and ways are cut.

    What is killed when is drawn from the seed, which is told. In the end each IKE_SA must be served by one gateway,
    each client must ping, and none may have made a new IKE_SA but those whose charon was killed and who are behind a
    NAT, or were rekeyed in the two seconds before. Exit code 0: all that holds.
    """
    require_lab()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    moves = 0 if every_step else moves
    errors.print(
        f"{moves} moves; the same again with --seed {seed}" if moves else "each process at each step"
    )
    scenario = chaos_scenario(moves=moves, seed=seed, patience=patience)
    chosen, guest = choose_esp(esp)
    document = asyncio.run((_in_guest if guest else _here)(scenario, chosen, out))
    if as_json:
        print_json(document)
    else:
        _show(document)
    if not document["passed"]:
        raise LabError(
            f"the chaos run failed: {'; '.join(_failures(document))}",
            hint=f"logs are in {document['logs']}; the same again with --seed {seed}",
        )


def _tell(line: str) -> None:
    errors.print(line, markup=False, soft_wrap=True)


async def _here(scenario: ChaosScenario, esp: str, out: Path) -> dict[str, Any]:
    result = await run_scenario(scenario, esp=esp, out=out, patience=scenario.patience, tell=_tell)
    document = result.as_json()
    path = out / scenario.name / "result.json"
    path.write_text(json.dumps(document, indent=1))
    return document


async def _in_guest(scenario: ChaosScenario, esp: str, out: Path) -> dict[str, Any]:
    path = out / scenario.name / "result.json"
    path.unlink(missing_ok=True)
    patience = GUEST_PATIENCE * scenario.patience
    argv = [*uml.own_command(), "lab", "chaos", "--esp", esp, "--out", str(out.resolve())]
    argv += ["--moves", str(scenario.moves)] if scenario.moves else ["--every-step"]
    argv += ["--seed", str(scenario.seed), "--patience", str(patience)]
    deadline = GUEST_BOOT + patience * scenario.deadline
    await uml.run_in_guest(
        argv, deadline=deadline, environment=("PYTHONPATH", "VIRTUAL_ENV"), tell=partial(_tell)
    )
    if not path.exists():
        raise LabError("no result from the guest", hint="its lines above say why")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _failures(document: dict[str, Any]) -> list[str]:
    failed = [check for check in document["checks"] if not check["passed"]]
    lines = [f"{check['metric']} is {check['value']}, not {check['limit']}" for check in failed]
    return [document["error"], *lines] if document["error"] else lines


def _show(document: dict[str, Any]) -> None:
    numbers = document["metrics"]

    def of(name: str) -> str:
        return f"{numbers.get(name, '-')}"

    click.echo(
        f"{of('moves')} moves in {document['seconds']:.0f} s, {document['esp']} ESP, seed {of('seed')}:"
    )
    ended = {name.partition(".")[2]: value for name, value in numbers.items() if name.startswith("moves.")}
    click.echo(
        "  " + ", ".join(f"{value:g} {name}" for name, value in ended.items()) + f", {of('moves_open')} open"
    )
    faults = {name.partition(".")[2]: value for name, value in numbers.items() if name.startswith("faults.")}
    click.echo("  faults: " + ", ".join(f"{name} {value:g}" for name, value in faults.items()))
    click.echo(
        f"  served by exactly one gateway: {of('owned_once')}; strays: {of('strays')}; answered: {of('answered')}"
    )
    click.echo(
        f"  IKE_SAs made anew after charon was killed: {of('made_anew.nat')} behind a NAT, "
        f"{of('made_anew.rekeyed')} rekeyed just before; others: {of('unexplained')}"
    )
