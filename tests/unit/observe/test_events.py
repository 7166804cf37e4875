"""The event log: bounded, followed, and never held up by a slow reader."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mobikectl.observe.events import FOLLOWER_QUEUE, Event, EventLog, Source


async def collect(log: EventLog, count: int, *, backlog: int = 0) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(5), contextlib.aclosing(log.follow(backlog=backlog)) as following:
        async for event in following:
            events.append(event)
            if len(events) == count:
                break
    return events


def test_the_ring_keeps_the_newest_events_only() -> None:
    log = EventLog(ring=3)
    for number in range(5):
        log.record(Source.SIDECAR, "tick", str(number))
    assert [event.text for event in log.recent()] == ["2", "3", "4"]
    assert [event.text for event in log.recent(2)] == ["3", "4"]
    assert log.recent(0) == []


async def test_a_follower_sees_the_backlog_and_then_the_news_in_order() -> None:
    log = EventLog()
    log.record(Source.NETLINK, "link-down", "eth0 went down")
    task = asyncio.create_task(collect(log, 2, backlog=10))
    await asyncio.sleep(0)
    log.record(Source.ACTION, "move", "moved")
    assert [event.name for event in await task] == ["link-down", "move"]


async def test_a_slow_follower_is_told_how_many_events_it_lost() -> None:
    log = EventLog()
    task = asyncio.create_task(collect(log, 3))
    await asyncio.sleep(0)
    for number in range(FOLLOWER_QUEUE + 7):
        log.record(Source.SIDECAR, "tick", str(number))
    events = await task
    assert events[0].name == "events-lost"
    assert events[0].data == {"lost": 7}
    assert events[1].text == "7"


async def test_a_follower_that_left_is_forgotten() -> None:
    log = EventLog()
    task = asyncio.create_task(collect(log, 1))
    await asyncio.sleep(0)
    log.record(Source.SIDECAR, "tick", "")
    await task
    assert not log._followers


def test_an_event_keeps_the_moment_it_was_given() -> None:
    log = EventLog()
    early = log.record(Source.CHARON, "ike-updown", "", at=5.0)
    now = log.record(Source.CHARON, "ike-updown", "")
    assert early.at == 5.0
    assert now.wall - early.wall == pytest.approx(now.at - 5.0, abs=0.5)
    assert early.as_dict()["source"] == "charon"
