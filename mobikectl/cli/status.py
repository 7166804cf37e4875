"""`mobikectl status`: is all well, in one screen."""

from __future__ import annotations

from typing import Any

import click

from mobikectl.charon import commands
from mobikectl.cli.charon import charon_session
from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_runs
from mobikectl.cli.output import console, human_seconds, json_option, print_json, print_table
from mobikectl.errors import CharonError, SidecarError


@click.command()
@settings_options
@json_option
@run_async
async def status(settings: Settings, as_json: bool) -> None:
    """Show whether sidecar and charon run, and the IKE_SAs in short.

    Exit code 0 when all is well, 4 without charon, 10 when the sidecar says that something is wrong.
    """
    known = await _sidecar(settings) if sidecar_runs(settings) else None
    charon = await _charon(settings)
    problems = [*(known["health"]["problems"] if known else []), *charon.get("problems", [])]
    report = {
        "ok": not problems,
        "problems": problems,
        "sidecar": _short(known) if known else None,
        "charon": charon,
    }
    if as_json:
        print_json(report)
    else:
        _show(report)
    if "problems" in charon:
        raise click.exceptions.Exit(CharonError.exit_code)
    if problems:
        raise click.exceptions.Exit(SidecarError.exit_code)


async def _sidecar(settings: Settings) -> dict[str, Any]:
    from mobikectl.control import ControlClient

    async with ControlClient(settings.control) as client:
        return await client.state()


async def _charon(settings: Settings) -> dict[str, Any]:
    socket = settings.config.charon.socket
    try:
        async with charon_session(settings) as session:
            version, stats = await commands.version(session), await commands.stats(session)
    except CharonError as error:
        return {"socket": socket, "problems": [str(error)]}
    return {
        "socket": socket,
        "daemon": version.daemon,
        "version": version.version,
        "running": stats.running,
        "ike_sas": stats.ike_sas,
        "half_open": stats.half_open,
    }


def _short(known: dict[str, Any]) -> dict[str, Any]:
    keys = ("version", "pid", "role", "health", "netlink", "steering")
    moves = [
        {key: move[key] for key in ("sa", "name", "before", "after", "cause", "state", "steps")}
        for move in known["moves"][-5:]
    ]
    sas = [
        {"sa": one["sa_uniqueid"], "path": one["current"], "verdict": one["verdict"]}
        for one in known["paths"]
    ]
    return {**{key: known[key] for key in keys}, "moves": moves, "own_sas": sas}


def _show(report: dict[str, Any]) -> None:
    charon, sidecar = report["charon"], report["sidecar"]
    if "problems" not in charon:
        console.print(
            f"{charon['daemon']} {charon['version']}, up {charon['running']}:"
            f" {charon['ike_sas']} IKE_SAs, {charon['half_open']} half-open"
        )
    if sidecar is None:
        console.print("no sidecar runs here (`mobikectl run`): nothing is moved by itself")
    else:
        console.print(
            f"sidecar {sidecar['version']}, pid {sidecar['pid']}, role {sidecar['role']},"
            f" {len(sidecar['steering'])} steering routes"
        )
        print_table(
            ["IKE_SA", "path", "state"],
            [[one["sa"], _path(one["path"]), one["verdict"]] for one in sidecar["own_sas"]],
        )
        if sidecar["moves"]:
            print_table(
                ["IKE_SA", "from", "to", "outcome", "took", "cause"],
                [_move(move) for move in sidecar["moves"]],
                title="last moves",
            )
    for problem in report["problems"]:
        console.print(f"problem: {problem}", style="red", markup=False)


def _move(move: dict[str, Any]) -> list[object]:
    took = move["steps"][-1]["at"] - move["steps"][0]["at"]
    name = f"{move['name']}[{move['sa']}]"
    return [
        name,
        _path(move["before"]),
        _path(move["after"]),
        move["state"],
        human_seconds(took),
        move["cause"],
    ]


def _path(path: dict[str, str]) -> str:
    return f"{path['local']} -> {path['remote']}"
