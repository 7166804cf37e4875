"""What the peers of charon's IKE_SAs can do, from the sidecar that watched them come, or from the plugin itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.charon.rmobike import Rmobike
from mobikectl.cli.common import sidecar_runs
from mobikectl.control import ControlClient
from mobikectl.errors import CharonError, DecodeError, SidecarError

if TYPE_CHECKING:
    from mobikectl.cli.common import Settings

Known = Mapping[int, Mapping[str, Any]]
"""By an IKE_SA's unique id: ``mobike``, ``r``, and ``redirect``, which is None when nobody saw it."""

WORDS = {"mobike": "MOBIKE", "r": "R", "redirect": "redirect"}


async def peers_known(settings: Settings) -> Known:
    """Return what the peers can do; empty where no plugin is there to tell."""
    if sidecar_runs(settings):
        try:
            async with ControlClient(settings.control) as client:
                told = (await client.state()).get("plugin", {})
        except SidecarError:
            told = {}  # of another version, or just stopping
        if told.get("up"):
            return {peer["ike_id"]: {word: peer[word] for word in WORDS} for peer in told["peers"]}
    charon = settings.config.charon
    if not Path(charon.plugin_socket).exists():
        return {}
    try:
        async with Rmobike(charon.plugin_socket, timeout=charon.timeout_s) as plugin:
            peers = await plugin.peers()
    except (CharonError, DecodeError):
        return {}  # `mobikectl plugin status` says why
    return {peer.ike_id: {"mobike": peer.mobike, "r": peer.peer_r, "redirect": None} for peer in peers}


def can_do(peer: Mapping[str, Any] | None) -> str:
    """Given what is known of a peer, return it in words."""
    if peer is None:
        return "?"
    return " ".join(text for word, text in WORDS.items() if peer[word]) or "-"
