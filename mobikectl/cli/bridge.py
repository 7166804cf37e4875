"""`mobikectl bridge`: speak the historical protocols on behalf of this charon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING

import click

from mobikectl.bridge.bridge import Bridge
from mobikectl.bridge.claim import speaking_for
from mobikectl.bridge.speakers import DAY_S, BridgeSettings
from mobikectl.charon.rmobike import DEFAULT_SOCKET, Rmobike
from mobikectl.cli.charon import charon_session
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import json_option
from mobikectl.wire.bridge import Spoken

if TYPE_CHECKING:
    from mobikectl.bridge.events import Told


@click.command()
@settings_options
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice([spoken.name.lower() for spoken in Spoken]),
    multiple=True,
    default=["kivinen"],
    show_default=True,
    help="What to speak; may be given twice.",
)
@click.option(
    "--most-silence",
    type=click.IntRange(0, 2**32 - 1),
    default=DAY_S,
    show_default=True,
    help="Allow planned silences of up to so many seconds.",
)
@click.option("--allow-nat", is_flag=True, help="Speak dupont where NAT traversal is active, too.")
@click.option("--plugin", default=str(DEFAULT_SOCKET), show_default=True, help="The plugin's socket.")
@json_option
@run_async
async def bridge(
    settings: Settings,
    protocols: tuple[str, ...],
    most_silence: int,
    allow_nat: bool,
    plugin: str,
    as_json: bool,
) -> None:
    """Answer what peers announce, until interrupted: planned silences, address lists, address updates.

    Runs on gateways that are to keep the IKE_SAs of sleeping clients (`mobikectl disconnect`). Prints what happens.
    """

    def tell(told: Told) -> None:
        click.echo(json.dumps(told.as_dict(), separators=(",", ":"), default=str) if as_json else str(told))

    speak = frozenset(Spoken[name.upper()] for name in protocols)
    wanted = BridgeSettings(speak=speak, most_silence_s=most_silence, allow_nat=allow_nat)
    async with charon_session(settings) as charon, Rmobike(plugin) as control:
        await control.status()
        with speaking_for(plugin):
            running = asyncio.ensure_future(Bridge(charon, control, wanted, tell=tell).run())
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, running.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await running
