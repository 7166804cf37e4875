"""`mobikectl timeline`: draw what happened."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mobikectl.cli.output import console
from mobikectl.errors import DecodeError
from mobikectl.observe.scenario import timeline_of
from mobikectl.observe.timeline import draw

MAX_SIZE = 64 << 20


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("timeline.svg"),
    show_default=True,
    help="The picture's file.",
)
def timeline(results: tuple[Path, ...], out: Path) -> None:
    """Draw scenarios' results (result.json files, or folders that hold them) as SVG, PNG or PDF.

    Which path was in use when, what caused it to change, what was decided and done, and which packets were lost.
    """
    files = [file for given in results for file in _files(given)]
    if not files:
        raise DecodeError(
            f"no result.json in {', '.join(map(str, results))}", hint="run `mobikectl lab run` first"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(tuple(timeline_of(_read(file)) for file in files), out)
    console.print(f"drawn: {out}", markup=False)


def _files(given: Path) -> list[Path]:
    return sorted(given.rglob("result.json")) if given.is_dir() else [given]


def _read(file: Path) -> dict[str, object]:
    if file.stat().st_size > MAX_SIZE:
        raise DecodeError(f"{file}: larger than {MAX_SIZE} bytes", hint="that is no scenario's result")
    try:
        document = json.loads(file.read_text())
    except ValueError as error:
        raise DecodeError(
            f"{file}: not JSON: {error}", hint="give a result.json of `mobikectl lab run`"
        ) from error
    if not isinstance(document, dict):
        raise DecodeError(f"{file}: expected a JSON object", hint="give a result.json of `mobikectl lab run`")
    return document
