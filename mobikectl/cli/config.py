"""`mobikectl config`: check a configuration file, show what holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.common import Settings, settings_options
from mobikectl.cli.output import console, json_option, print_json, print_table
from mobikectl.config import DEFAULT_FILE
from mobikectl.observe.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.group()
def config() -> None:
    """Check the configuration, or show it."""


@config.command()
@settings_options
@json_option
def check(settings: Settings, as_json: bool) -> None:
    """Check the configuration file: exit code 0 when it can be used, 3 when not."""
    file = settings.file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if as_json:
        print_json({"ok": True, "file": file})
    else:
        console.print(
            f"{file}: good" if file else f"no {DEFAULT_FILE}: every key has its default, which works"
        )


@config.command()
@settings_options
@json_option
def show(settings: Settings, as_json: bool) -> None:
    """Show every key with the value that holds."""
    tree = plain(settings.config)
    if as_json:
        print_json(tree)
    else:
        print_table(["key", "value"], list(_flat(tree)))


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for number, value in enumerate(tree):
            yield from _flat(value, f"{prefix}[{number}]")
    else:
        yield (
            prefix,
            " ".join(map(str, tree)) if isinstance(tree, list) else "" if tree is None else str(tree),
        )
