"""`mobikectl run`: the sidecar, in the foreground."""

from __future__ import annotations

import click

from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.errors import PrivilegeError


@click.command()
@settings_options
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Overrides [log] level."
)
@run_async
async def run(settings: Settings, log_level: str | None) -> None:
    """Run the sidecar beside charon until it is stopped (SIGTERM, SIGINT).

    It follows the network and charon, moves IKE_SAs, and serves the control socket. It tells systemd when it is
    ready. Stopping it leaves every tunnel as it is.
    """
    from mobikectl.sidecar.logs import set_up_logging
    from mobikectl.sidecar.main import Sidecar

    set_up_logging(log_level or settings.config.log.level, settings.config.log.format)
    try:
        await Sidecar(settings.config).run()
    except PermissionError as error:
        raise PrivilegeError(str(error), hint="run as root, or with CAP_NET_ADMIN and CAP_NET_RAW") from error
