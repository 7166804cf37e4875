"""The lab of the plugin, with bridges beside its charons."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.charon.rmobike import Rmobike
from mobikectl.lab import speaking
from mobikectl.lab.speaking import PATIENT
from mobikectl.lab.speaking import Speaker as Ends

from ..rmobike.conftest import lab, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.wire.bridge import Spoken

    from ..rmobike.lab import Lab, Node

__all__ = ["Ends", "beside", "flows", "lab", "pair", "patient"]


def patient(*spoken: Spoken, **options: Any) -> BridgeSettings:
    """Settings with a machine that looks for another address soon."""
    return BridgeSettings(
        speak=frozenset(spoken),
        retransmission=PATIENT,
        **options,
    )


async def flows(lab: Lab) -> None:
    """Wait until all of a few pings are answered: ESP in userland rekeys the CHILD_SA after each move."""
    for _ in range(10):
        sent, answered = await (await lab.ping(20)).result()
        if sent == answered:
            return
    raise AssertionError(f"{answered} of {sent} pings are answered")


@asynccontextmanager
async def beside(node: Node, settings: BridgeSettings) -> AsyncIterator[Ends]:
    """Run a bridge beside a node's charon."""
    async with (
        node.vici as charon,
        Rmobike(node.directory / "rmobike", timeout=20) as plugin,
        speaking.beside(node.name, charon, plugin, settings) as ends,
    ):
        yield ends
