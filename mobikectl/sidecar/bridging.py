"""The bridge beside the sidecar's charon, where the configuration wants it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from mobikectl.bridge.bridge import Bridge
from mobikectl.bridge.claim import BridgeBusyError, speaking_for
from mobikectl.bridge.events import Delivered, Over, Ready, Told
from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.errors import CharonRefusedError, DecodeError, innermost
from mobikectl.observe.events import Source
from mobikectl.wire.bridge import Spoken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.charon.session import Session
    from mobikectl.config import BridgeTable
    from mobikectl.observe.events import EventLog

AGAIN_S = 5.0
"""A charon that another bridge serves, or a plugin that could not be understood, is tried again after so long."""
ROUTINE = (Ready, Delivered, Over)
"""Each request and each IKE_SA has one of these: no news to an operator."""


def report_bridge(told: Told, events: EventLog) -> None:
    """Given what a session told, record it as an event, as far as it is news to an operator."""
    if not isinstance(told.event, ROUTINE):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(told.event).__name__).lower()
        events.record(Source.BRIDGE, name, str(told), data=told.as_dict())


class Bridging:
    """Runs a bridge while the sidecar runs. The plugin may come and go."""

    def __init__(self, table: BridgeTable, charon: Session, plugin: Rmobike, events: EventLog) -> None:
        self._charon, self._plugin, self._events = charon, plugin, events
        self._settings = BridgeSettings(
            speak=frozenset(Spoken[dialect.name] for dialect in table.speak),
            most_silence_s=table.most_silence_s,
            allow_nat=table.allow_nat,
        )
        self._bridge: Bridge | None = None

    async def run(self) -> None:
        """Serve until cancelled; wait while another bridge does, and while what has the socket is no plugin."""
        last = ""
        while True:
            why = await self._serve()
            if why != last:
                self._events.record(Source.BRIDGE, "bridge-waits", f"the bridge does not serve: {why}")
            last = why
            await asyncio.sleep(AGAIN_S)

    async def _serve(self) -> str:
        """Serve as long as possible; return why it was not possible any longer."""
        try:
            with speaking_for(self._plugin.session.path):
                self._bridge = Bridge(self._charon, self._plugin, self._settings, tell=self._tell)
                await self._bridge.run()
        except* (BridgeBusyError, CharonRefusedError, DecodeError) as group:
            why = str(innermost(group))
        else:
            why = "it ended"
        finally:
            self._bridge = None
        return why

    def _tell(self, told: Told) -> None:
        report_bridge(told, self._events)

    def describe(self) -> Mapping[str, Any]:
        """Return whether it serves, and its sessions, JSON-able."""
        bridge = self._bridge
        return {
            "serving": bridge is not None,
            "sessions": [
                {
                    "ike_sa": session.sa.uniqueid,
                    "protocol": session.spoken.name.lower(),
                    "state": session.machine.state.name.lower(),
                }
                for session in (bridge.sessions if bridge is not None else ())
            ],
        }
