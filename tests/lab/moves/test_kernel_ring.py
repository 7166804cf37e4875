"""On kernel ESP a move keeps every SPI, uses no sequence number twice, and costs at most a packet in three moves."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from mobikectl.lab import uml

from ..rmobike.lab import missing

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.slow, pytest.mark.timeout(300)]


async def around(way: str, interval: str, count: int) -> dict[str, Any]:
    if os.geteuid() != 0 or not uml.available():
        pytest.skip("needs root and user-mode-linux")
    if reason := missing():
        pytest.skip(reason)
    said: list[str] = []
    command = [sys.executable, "-m", "tests.lab.moves.kernel_ring", str(count), interval, way]
    code = await uml.run_in_guest(command, deadline=280, tell=said.append)
    found = [json.loads(line[5:]) for line in said if line.startswith("SEEN ")]
    assert code == 0, said[-40:]
    seen: dict[str, Any] = found[0]
    return seen


MOST_LOST = {"switch": 1, "list": 3}
"""Of 800 pings. charon 5.9.8 changes the addresses of a client's SAs in the kernel by deleting and adding them."""


@pytest.mark.parametrize("way", ["list", "switch"])
async def test_around_the_ring_nothing_is_made_anew_and_next_to_no_ping_is_lost(way: str) -> None:
    seen = await around(way, "0.01", 800)
    assert [end[0] for end in seen["ends"]] == ["handed over"] * 3, seen
    assert seen["same_ike_sa"]
    assert seen["same_children"]
    assert seen["ike_sas_made"] == 1
    assert seen["sent"] - seen["answered"] <= MOST_LOST[way], seen
