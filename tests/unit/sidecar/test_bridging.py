"""The bridge beside the sidecar: when it serves, and what an operator hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from mobikectl.bridge.claim import speaking_for
from mobikectl.bridge.events import Delivered, Ready, Refused, Told
from mobikectl.charon.rmobike import Rmobike
from mobikectl.charon.session import Session
from mobikectl.config import BridgeTable
from mobikectl.observe.events import EventLog, Source
from mobikectl.protocol.addrnotify import PeerAway
from mobikectl.sidecar import bridging
from mobikectl.sidecar.bridging import Bridging, report_bridge
from mobikectl.wire.bridge import Spoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def make(path: Path, events: EventLog) -> Bridging:
    table = BridgeTable(enabled=True)
    return Bridging(table, Session(path / "vici"), Rmobike(path / "plugin"), events)


@contextlib.asynccontextmanager
async def running(one: Bridging) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_serving(one: Bridging, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while one.describe()["serving"] is not wanted:  # noqa: ASYNC110 - it tells nobody else
            await asyncio.sleep(0.01)


async def test_it_serves_from_the_start_and_waits_for_charon_and_the_plugin_itself(tmp_path: Path) -> None:
    events = EventLog()
    one = make(tmp_path, events)
    assert one.describe() == {"serving": False, "sessions": []}
    async with running(one):
        await until_serving(one, True)
    assert one.describe() == {"serving": False, "sessions": []}
    assert events.recent() == []


async def test_while_another_bridge_serves_it_waits_says_so_once_and_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridging, "AGAIN_S", 0.01)
    events = EventLog()
    one = make(tmp_path, events)
    with speaking_for(tmp_path / "plugin"):
        async with running(one):
            told = events.follow()
            async with asyncio.timeout(10):
                first = await anext(told)
            await asyncio.sleep(0.1)  # several attempts
            assert not one.describe()["serving"]
    assert (first.source, first.name) == (Source.BRIDGE, "bridge-waits")
    assert len(events.recent()) == 1
    async with running(one):
        await until_serving(one, True)


async def test_two_sidecars_for_one_charon_do_not_both_answer(tmp_path: Path) -> None:
    first, second = make(tmp_path, EventLog()), make(tmp_path, EventLog())
    async with running(first):
        await until_serving(first, True)
        async with running(second):
            await asyncio.sleep(0)
            assert (first.describe()["serving"], second.describe()["serving"]) == (True, False)


def test_what_a_peer_announced_is_an_event_with_a_name_for_programs() -> None:
    events = EventLog()
    report_bridge(Told(7, Spoken.KIVINEN, PeerAway(60)), events)
    (event,) = events.recent()
    assert (event.source, event.name) == (Source.BRIDGE, "peer-away")
    assert event.text == "IKE_SA 7 kivinen: PeerAway seconds=60"
    assert event.data == {"ike_sa": 7, "protocol": "kivinen", "event": "PeerAway", "seconds": 60}


@pytest.mark.parametrize("routine", [Ready(), Delivered()])
def test_what_every_ike_sa_and_every_request_has_is_no_news(routine: Ready | Delivered) -> None:
    events = EventLog()
    report_bridge(Told(7, Spoken.KIVINEN, routine), events)
    report_bridge(Told(7, Spoken.KIVINEN, Refused(30)), events)
    assert [event.name for event in events.recent()] == ["refused"]
