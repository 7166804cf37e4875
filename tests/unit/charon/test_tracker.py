"""The tracker keeps in step through gaps, races with listings, and slow readers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.charon import (
    Backoff,
    ChildUp,
    SaDown,
    SaEvent,
    SaEventsDropped,
    SaFeed,
    SaModelResynced,
    SaPathChanged,
    SaTracker,
    SaUp,
    Session,
    TrackerConfig,
)
from mobikectl.errors import CharonRefusedError, CharonTimeoutError

from .fake_vici import FakeVici, Peer, child, event, ike, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE = 5.0


@asynccontextmanager
async def tracking(
    fake: FakeVici, *, roles: dict[int, bool] | None = None, **options: Any
) -> AsyncIterator[SaTracker]:
    config = TrackerConfig(**{"heartbeat_s": 60.0, "retry_s": 0.02, "list_timeout_s": 1.0, **options})
    async with Session(fake.path, timeout=1.0, backoff=Backoff(0.01, 0.02)) as session:
        tracker = SaTracker(session, config, role_of=roles.get if roles is not None else None)
        task = asyncio.create_task(tracker.run())
        try:
            yield tracker
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def in_step(tracker: SaTracker, number: int) -> None:
    await tracker.until(lambda t: t.in_step and len(t.sas) == number, DEADLINE)


async def until_event(feed: SaFeed, kind: type[SaEvent]) -> list[SaEvent]:
    """Return the events up to the first of a kind."""
    found: list[SaEvent] = []
    async with asyncio.timeout(DEADLINE):
        async for one in feed:
            found.append(one)
            if isinstance(one, kind):
                return found
    raise AssertionError(f"the feed ended after {found}")


async def test_what_charon_has_already_is_found_with_its_children(fake: FakeVici) -> None:
    fake.sas = [{**ike(n), "child-sas": {"net": child(n)}} for n in (1, 2)]
    async with tracking(fake) as tracker:
        await tracker.until(lambda t: len(t.sas) == 2 and all(sa.children for sa in t.sas.values()), DEADLINE)
        assert tracker.in_step


async def test_nothing_is_listed_again_while_events_tell_what_happens(fake: FakeVici) -> None:
    async with tracking(fake) as tracker:
        await in_step(tracker, 0)
        await tracker.resync()
        fake.asked.clear()
        for n in range(1, 201):
            await fake.raise_event("ike-updown", {"up": "yes", "home": ike(n)})
            await fake.raise_event(
                "child-updown", {"up": "yes", "home": {**ike(n), "child-sas": {"net": child(n)}}}
            )
        await tracker.until(
            lambda t: len(t.sas) == 200 and all(sa.children for sa in t.sas.values()), DEADLINE
        )
        assert fake.asked == []


async def test_a_snapshot_does_not_change_under_its_reader(fake: FakeVici) -> None:
    async with tracking(fake) as tracker:
        await in_step(tracker, 0)
        before = tracker.sas
        await fake.raise_event("ike-updown", {"up": "yes", "home": ike(1)})
        await in_step(tracker, 1)
        assert (len(before), len(tracker.sas)) == (0, 1)
        assert tracker.sas is tracker.sas
        with pytest.raises(TypeError):
            tracker.sas[1] = tracker.sas[1]  # type: ignore[index]


async def test_after_a_restart_the_model_is_what_the_new_charon_has(fake: FakeVici) -> None:
    fake.sas = [ike(1), ike(2)]
    async with tracking(fake) as tracker:
        await in_step(tracker, 2)
        with tracker.subscribe() as feed:
            await fake.stop()
            await tracker.until(lambda t: not t.in_step, DEADLINE)
            assert set(tracker.sas) == {1, 2}
            fake.sas = [ike(2)]
            await fake.start()
            await in_step(tracker, 1)
            told = await until_event(feed, SaModelResynced)
        assert [type(one) for one in told] == [SaDown, SaModelResynced]


async def test_a_listing_that_fails_is_tried_again_and_the_reason_is_kept(fake: FakeVici) -> None:
    working = fake.commands["list-sas"]

    async def dies(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(event("list-sa", {"home": ike(1)}))
        peer.writer.close()

    fake.commands["list-sas"] = dies
    async with tracking(fake) as tracker:
        async with asyncio.timeout(DEADLINE):
            while tracker.last_error is None:  # noqa: ASYNC110 - nothing tells of a failed try
                await asyncio.sleep(0.005)
        assert not tracker.in_step
        assert tracker.sas == {}, "half a list is not a list"
        fake.sas = [ike(1)]
        fake.commands["list-sas"] = working
        await in_step(tracker, 1)
        assert tracker.last_error is None


async def test_an_sa_that_goes_down_while_the_list_is_read_stays_down(fake: FakeVici) -> None:
    fake.sas = [ike(1), ike(2)]
    async with tracking(fake) as tracker:
        await in_step(tracker, 2)
        await tracker.resync()

        async def races(peer: Peer, _args: dict[str, Any]) -> None:
            for n in (1, 2):
                await peer.send(event("list-sa", {"home": ike(n)}))
            await fake.raise_event("ike-updown", {"home": ike(1, state="DELETING")})
            await tracker.until(lambda t: 1 not in t.sas, DEADLINE)
            await peer.send(response())

        fake.commands["list-sas"] = races
        resynced = await tracker.resync()
        assert set(tracker.sas) == {2}
        assert resynced.differences == ()


async def test_after_an_update_the_sa_is_asked_for_what_the_event_does_not_tell(fake: FakeVici) -> None:
    fake.known_events.add("ike-update")
    fake.sas = [ike(1)]
    async with tracking(fake) as tracker:
        await in_step(tracker, 1)
        await tracker.resync()
        with tracker.subscribe() as feed:
            fake.sas = [ike(1, **{"local-host": "198.18.0.9", "nat-remote": "yes"})]
            addresses = {"local-host": "198.18.0.9", "local-port": 4500, "remote-host": "198.18.0.2",
                         "remote-port": 4500}  # fmt: skip
            await fake.raise_event("ike-update", {**addresses, "home": ike(1)})
            told = await until_event(feed, SaPathChanged)
        assert [type(one) for one in told] == [SaPathChanged]
        await tracker.until(lambda t: t.sas[1].nat_remote, DEADLINE)
        assert fake.asked[-1] == ("list-sas", {"ike-id": b"1"})


async def test_many_updates_at_once_are_asked_about_in_one_listing(fake: FakeVici) -> None:
    fake.known_events.add("ike-update")
    fake.sas = [{**ike(n), "child-sas": {"net": child(n)}} for n in range(1, 101)]
    async with tracking(fake) as tracker:
        await tracker.until(lambda t: len(t.sas) == 100 and all(s.children for s in t.sas.values()), DEADLINE)
        await tracker.resync()
        fake.asked.clear()
        for n in range(1, 101):
            await fake.raise_event(
                "ike-update", {"local-host": "198.18.0.9", "remote-host": "198.18.0.2", "home": ike(n)}
            )
        fake.sas = [
            {**ike(n, **{"local-host": "198.18.0.9", "nat-remote": "yes"}), "child-sas": {"net": child(n)}}
            for n in range(1, 101)
        ]
        await tracker.until(lambda t: all(sa.nat_remote for sa in t.sas.values()), DEADLINE)
        assert [name for name, _ in fake.asked].count("list-sas") <= 3


async def test_a_reader_too_slow_is_told_how_much_it_missed_and_the_others_are_not_held_up(
    fake: FakeVici,
) -> None:
    async with tracking(fake, feed_limit=10) as tracker:
        await in_step(tracker, 0)
        await tracker.resync()
        with tracker.subscribe() as slow:
            for n in range(1, 21):
                await fake.raise_event("ike-updown", {"up": "yes", "home": ike(n)})
            await in_step(tracker, 20)
            first = await anext(slow)
            assert isinstance(first, SaEventsDropped)
            rest = []
            slow.close()
            async for one in slow:
                rest.append(one)  # noqa: PERF401 - what is left after close
        assert first.count + len(rest) == 20


async def test_asking_for_one_sa_afresh_corrects_it_and_only_it(fake: FakeVici) -> None:
    fake.sas = [ike(1), ike(2)]
    async with tracking(fake) as tracker:
        await in_step(tracker, 2)
        await tracker.resync()
        fake.sas = [{**ike(1), "child-sas": {"net": child(5)}}]
        with tracker.subscribe() as feed:
            sa = await tracker.refresh(1)
            assert sa is not None
            assert [one.uniqueid for one in sa.children] == [5]
            assert isinstance((await until_event(feed, ChildUp))[-1], ChildUp)
        assert set(tracker.sas) == {1, 2}
        assert await tracker.refresh(2) is None
        assert set(tracker.sas) == {1}


async def test_who_knows_the_original_initiator_is_believed_before_the_flag_that_a_rekeying_flips(
    fake: FakeVici,
) -> None:
    """An IKE_SA that its responder rekeyed, carried over to this gateway: charon says that it was initiated here."""
    fake.sas = [ike(1)]
    async with tracking(fake, roles={1: False, 2: False, 3: False}) as tracker:
        await in_step(tracker, 1)
        await fake.raise_event("ike-updown", {"up": "yes", "home": ike(2)})
        await fake.raise_event("ike-rekey", {"home": {"old": ike(3), "new": ike(4)}})
        await tracker.until(lambda t: len(t.sas) == 3, DEADLINE)
        assert not any(sa.original_initiator for sa in tracker.sas.values())


async def test_the_original_initiator_may_be_told_after_the_ike_sa_is_known(fake: FakeVici) -> None:
    async with tracking(fake) as tracker:
        await in_step(tracker, 0)
        await fake.raise_event("ike-updown", {"up": "yes", "home": ike(1)})
        await in_step(tracker, 1)
        corrected = tracker.know_role(1, original_initiator=False)
        assert corrected is not None
        assert tracker.sas[1] is corrected
        assert not corrected.original_initiator
        assert tracker.know_role(1, original_initiator=False) is None
        assert tracker.know_role(2, original_initiator=False) is None
        await tracker.refresh(1)
        await in_step(tracker, 0)


async def test_the_slow_verification_finds_what_no_event_told(fake: FakeVici) -> None:
    async with tracking(fake, verify_s=0.05, children_every=1) as tracker:
        with tracker.subscribe() as feed:
            await in_step(tracker, 0)
            fake.sas = [ike(1)]
            assert isinstance((await until_event(feed, SaUp))[-1], SaUp)


async def test_waiting_has_a_deadline(fake: FakeVici) -> None:
    async with tracking(fake) as tracker:
        with pytest.raises(CharonTimeoutError, match="within"):
            await tracker.until(lambda t: len(t.sas) == 1, 0.05)


async def test_a_charon_without_the_events_that_are_needed_is_refused_not_retried(fake: FakeVici) -> None:
    fake.known_events.remove("child-rekey")
    async with Session(fake.path) as session:
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(SaTracker(session).run(), DEADLINE)
    assert caught.group_contains(CharonRefusedError, match="child-rekey")
