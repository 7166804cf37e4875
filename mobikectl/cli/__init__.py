"""The command line. One file per command group; each is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from mobikectl import __version__
from mobikectl.errors import MobikectlError

COMMANDS: dict[str, str] = {
    "apply": "mobikectl.cli.plan:apply",
    "bridge": "mobikectl.cli.bridge:bridge",
    "cluster": "mobikectl.cli.certificates:cluster",
    "config": "mobikectl.cli.config:config",
    "decode": "mobikectl.cli.decode:decode",
    "disconnect": "mobikectl.cli.disconnect:disconnect",
    "doctor": "mobikectl.cli.doctor:doctor",
    "drain": "mobikectl.cli.drain:drain",
    "encode": "mobikectl.cli.decode:encode",
    "explain": "mobikectl.cli.explain:explain",
    "history": "mobikectl.cli.history:history",
    "lab": "mobikectl.cli.lab:lab",
    "leases": "mobikectl.cli.leases:leases",
    "links": "mobikectl.cli.links:links",
    "monitor": "mobikectl.cli.monitor:monitor",
    "move": "mobikectl.cli.move:move",
    "nodes": "mobikectl.cli.nodes:nodes",
    "paths": "mobikectl.cli.paths:paths",
    "pause": "mobikectl.cli.intents:pause",
    "pin": "mobikectl.cli.pin:pin",
    "plan": "mobikectl.cli.plan:plan",
    "plugin": "mobikectl.cli.plugin:plugin",
    "redirect": "mobikectl.cli.redirect:redirect",
    "resume": "mobikectl.cli.intents:resume",
    "run": "mobikectl.cli.run:run",
    "sas": "mobikectl.cli.sas:sas",
    "simulate": "mobikectl.cli.simulate:simulate",
    "status": "mobikectl.cli.status:status",
    "switch": "mobikectl.cli.switch:switch",
    "timeline": "mobikectl.cli.timeline:timeline",
    "top": "mobikectl.cli.top:top",
    "undrain": "mobikectl.cli.drain:undrain",
    "unpin": "mobikectl.cli.pin:unpin",
    "weight": "mobikectl.cli.intents:weight",
}
"""Command -> "module:attribute" that holds it."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for.

    `mobikectl sas` should not pay for the lab's imports.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return every command's name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Given a command's name, return the command, or None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mobikectl")
def root() -> None:
    """Traffic control for IKEv2 VPN gateways and clients.

    Watches links, addresses and routes, talks to strongSwan's charon over VICI, and moves IKE_SAs
    to the best path without re-establishing anything (RFC 4555).
    """


def main() -> NoReturn:
    """Run the command line and exit with a documented code (`mobikectl.errors.EXIT_CODES`)."""
    try:
        code = root.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mobikectl: stopped", err=True)
        sys.exit(130)
    except MobikectlError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: MobikectlError) -> None:
    click.echo(f"mobikectl: {error.message}", err=True)
    if error.hint:
        click.echo(f"  what to do: {error.hint}", err=True)
