"""What the charon plugin says, in the event log and in the sidecar's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobikectl.charon.rmobike_events import (
    Capability,
    Redirected,
    SwitchReceived,
    SwitchRefused,
    SwitchTimeout,
    UpdateFailed,
)
from mobikectl.charon.session import EventGap, EventLost
from mobikectl.observe.events import Source
from mobikectl.observe.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.observe.events import EventLog


def report_plugin(event: PluginEvent | EventGap | EventLost, events: EventLog) -> None:
    """Given what the plugin said, tell it in the log of events, as far as it is news to an operator."""
    found = _text(event)
    if found is not None:
        name, text = found
        events.record(Source.CHARON, name, text, data=plain(event))


def _text(event: PluginEvent | EventGap | EventLost) -> tuple[str, str] | None:
    match event:
        case EventGap():
            return "plugin-up", "the rmobike plugin is there"
        case EventLost(reason=reason):
            return "plugin-down", f"the rmobike plugin is gone: {reason}"
        case Capability(ike_id=sa):
            return "capability", f"IKE_SA {sa}: its peer supports {_supported(event)}"
        case SwitchReceived(ike_id=sa, address=address):
            return "switch-received", f"IKE_SA {sa}: the gateway asks to be reached at {address}"
        case SwitchRefused(ike_id=sa, address=address, reason=reason):
            where = f" to {address}" if address else ""
            return (
                "switch-refused",
                f"IKE_SA {sa}: the gateway's request to switch{where} is refused: {reason}",
            )
        case SwitchTimeout(ike_id=sa, reason=reason):
            return "switch-timeout", f"IKE_SA {sa}: the switch is given up: {reason}"
        case UpdateFailed(ike_id=sa, reason=reason):
            return "update-failed", f"IKE_SA {sa}: the update of its addresses failed: {reason}"
        case Redirected(remote=remote, gateway=gateway, exchange=exchange):
            return "redirected", f"the client at {remote} was redirected to {gateway} in {exchange}"
        case _:
            return None


def _supported(peer: Capability) -> str:
    words = [("MOBIKE", peer.mobike), ("switches (R)", peer.peer_r), ("redirects", peer.redirect)]
    return ", ".join(word for word, there in words if there) or "none of MOBIKE, switches and redirects"


def describe_plugin(link: PluginLink, socket: str) -> Mapping[str, Any]:
    """Return where the plugin is looked for, whether it is there, and what the peers support, JSON-able."""
    return {"socket": socket, "up": link.up, "peers": [plain(peer) for peer in link.peers.values()]}
