"""`mobikectl plugin`: the rmobike plugin of charon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobikectl.charon.rmobike import Rmobike
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import console, json_option, print_json, print_table
from mobikectl.errors import INSTALL_PLUGIN, CharonUnreachableError
from mobikectl.observe.plain import plain

if TYPE_CHECKING:
    from mobikectl.charon.rmobike import PeerCapabilities, PluginStatus


@click.group()
def plugin() -> None:
    """Look at the charon plugin rmobike: responder-initiated MOBIKE, and redirects of new clients."""


@plugin.command()
@settings_options
@json_option
@run_async
async def status(settings: Settings, as_json: bool) -> None:
    """Say whether the plugin runs, its version and policy, and what each peer can do."""
    charon = settings.config.charon
    async with Rmobike(charon.plugin_socket, timeout=charon.timeout_s) as client:
        try:
            found = await client.status()
            peers = await client.peers()
        except CharonUnreachableError as error:
            raise CharonUnreachableError(
                error.message,
                hint=f"{INSTALL_PLUGIN}; [charon] plugin_socket names another socket",
            ) from error
    if as_json:
        print_json({**plain(found), "socket": charon.plugin_socket, "list": [plain(peer) for peer in peers]})
    else:
        _show(found, peers)


def _show(found: PluginStatus, peers: list[PeerCapabilities]) -> None:
    announce = "announces R" if found.announce else "does not announce R"
    console.print(
        f"rmobike {found.version} for strongSwan {found.strongswan}, notify type {found.notify_type}"
    )
    console.print(f"as initiator it {announce}, and accepts switches to addresses: {found.accept.value}")
    if not peers:
        console.print("no IKE_SA")
        return
    print_table(
        ["IKE_SA", "role", "MOBIKE", "peer announced R", "we announced R", "switch under way"],
        [
            [
                peer.ike_id,
                "initiator" if peer.original_initiator else "responder",
                _word(peer.mobike),
                _word(peer.peer_r),
                _word(peer.own_r),
                peer.pending_token or "-",
            ]
            for peer in peers
        ],
    )


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
