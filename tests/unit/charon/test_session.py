"""A session never mixes up answers, never waits for ever, and always comes back."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vici.protocol import FiniteStream
from vici.protocol import Message as ViciMessage

from mobikectl.charon import Backoff, Event, EventGap, EventLost, LinkState, Session
from mobikectl.charon.transport import MAX_FRAME, decode, encode
from mobikectl.errors import (
    CharonProtocolError,
    CharonRefusedError,
    CharonTimeoutError,
    CharonUnreachableError,
)

from .fake_vici import FakeVici, Peer, event, frame, ike, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUICK = Backoff(first=0.01, most=0.05)


@asynccontextmanager
async def session_to(fake: FakeVici, **options: Any) -> AsyncIterator[Session]:
    async with Session(fake.path, **{"timeout": 2.0, "backoff": QUICK, **options}) as session:
        yield session


def echo(fake: FakeVici) -> None:
    async def answer(peer: Peer, args: dict[str, Any]) -> None:
        await asyncio.sleep(float(args.get("after", b"0")))
        await peer.send(response({"said": args["say"]}))

    fake.commands["echo"] = answer


async def test_a_request_returns_the_answer_on_a_connection_that_is_used_again(fake: FakeVici) -> None:
    async with session_to(fake) as session:
        for _ in range(3):
            assert (await session.request("version"))["daemon"] == b"fake"
        assert len(fake.peers) == 1
        assert session.status.state is LinkState.UP


async def test_requests_at_once_each_get_their_own_answer(fake: FakeVici) -> None:
    echo(fake)
    async with session_to(fake) as session:
        answers = await asyncio.gather(*(session.request("echo", {"say": n}) for n in range(50)))
    assert [int(answer["said"]) for answer in answers] == list(range(50))


async def test_after_a_slow_answer_the_next_request_does_not_read_it(fake: FakeVici) -> None:
    echo(fake)
    async with session_to(fake) as session:
        await session.request("version")
        with pytest.raises(CharonTimeoutError, match=r"did not answer echo within 0\.05 s"):
            await session.request("echo", {"say": "late", "after": 0.1}, timeout=0.05)
        late = session.status
        assert late.state is LinkState.HUNG
        await asyncio.sleep(0.1)
        assert (await session.request("echo", {"say": "now"}))["said"] == b"now"
        assert session.status.state is LinkState.UP


async def test_after_a_cancelled_request_the_next_one_does_not_read_its_answer(fake: FakeVici) -> None:
    echo(fake)
    async with session_to(fake) as session:
        task = asyncio.create_task(session.request("echo", {"say": "cancelled", "after": 0.05}))
        async with asyncio.timeout(2):
            await fake.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.06)
        assert (await session.request("echo", {"say": "now"}))["said"] == b"now"


async def test_half_a_frame_and_then_silence_is_a_timeout(fake: FakeVici) -> None:
    async def half(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(response({"a": "b" * 100})[:50])

    fake.commands["half"] = half
    async with session_to(fake) as session:
        with pytest.raises(CharonTimeoutError):
            await session.request("half", timeout=0.05)
        assert (await session.request("version"))["daemon"] == b"fake"


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0x48545450, 0xFFFFFFFF])
async def test_a_length_that_cannot_be_is_refused_before_anything_is_stored(
    fake: FakeVici, length: int
) -> None:
    async def garbage(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(struct.pack("!I", length) + b"x" * 100)

    fake.commands["garbage"] = garbage
    async with session_to(fake) as session:
        with pytest.raises(CharonProtocolError, match="announced"):
            await session.request("garbage")
        assert (await session.request("version"))["daemon"] == b"fake"


@pytest.mark.parametrize(
    "packet", [b"\x05", b"\x07\x05ab", b"\x09", b"\x01\x03\x05ab", b"\x01\x02", b"\x01\x01\x01a"]
)
async def test_a_packet_that_is_no_answer_is_an_error_and_the_connection_is_dropped(
    fake: FakeVici, packet: bytes
) -> None:
    async def wrong(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(frame(packet))

    fake.commands["wrong"] = wrong
    async with session_to(fake) as session:
        with pytest.raises(CharonProtocolError):
            await session.request("wrong")
        assert (await session.request("version"))["daemon"] == b"fake"
        assert len(fake.peers) == 2


async def test_a_refusal_carries_charons_reason(fake: FakeVici) -> None:
    async def no(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(response({"success": "no", "errmsg": "not today"}))

    fake.commands["no"] = no
    async with session_to(fake) as session:
        with pytest.raises(CharonRefusedError, match="charon refused no: not today"):
            await session.request("no")
        with pytest.raises(CharonRefusedError, match="does not know the command absent"):
            await session.request("absent")
        assert session.status.state is LinkState.UP
        assert len(fake.peers) == 1, "a refusal is a whole answer: the connection is still good"


async def test_a_stream_yields_each_message_and_then_ends(fake: FakeVici) -> None:
    fake.sas = [{"uniqueid": n} for n in range(5)]
    async with session_to(fake) as session:
        found = [message async for message in session.stream("list-sas", "list-sa")]
    assert [int(message["home"]["uniqueid"]) for message in found] == [0, 1, 2, 3, 4]


async def test_a_stream_closed_in_its_middle_is_an_error_after_what_came(fake: FakeVici) -> None:
    async def dies(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(event("list-sa", {"home": {"uniqueid": 1}}))
        peer.writer.close()

    fake.commands["list-sas"] = dies
    async with session_to(fake) as session:
        stream = session.stream("list-sas", "list-sa")
        assert (await anext(stream))["home"]["uniqueid"] == b"1"
        with pytest.raises(CharonUnreachableError, match="closed"):
            await anext(stream)
        assert session.status.state is LinkState.DOWN


async def test_a_slow_reader_of_a_stream_is_not_taken_for_a_slow_charon(fake: FakeVici) -> None:
    fake.sas = [{"uniqueid": n} for n in range(3)]
    async with session_to(fake, timeout=0.05) as session:
        count = 0
        async for _ in session.stream("list-sas", "list-sa"):
            await asyncio.sleep(0.06)
            count += 1
    assert count == 3


async def test_a_stream_left_early_does_not_disturb_the_next(fake: FakeVici) -> None:
    fake.sas = [{"uniqueid": n} for n in range(100)]
    async with session_to(fake) as session:
        async with aclosing(session.stream("list-sas", "list-sa")) as stream:
            async for _ in stream:
                break
        assert len([m async for m in session.stream("list-sas", "list-sa")]) == 100


async def test_streams_and_requests_use_the_same_connections_again(fake: FakeVici) -> None:
    fake.sas = [ike(n) for n in range(3)]
    async with session_to(fake) as session:
        for _ in range(3):
            assert len([m async for m in session.stream("list-sas", "list-sa")]) == 3
            await session.request("version")
    assert len(fake.peers) == 1
    assert fake.peers[0].events == set(), "no event comes where nobody waits for it"


async def test_however_many_streams_come_at_once_few_connections_are_made(fake: FakeVici) -> None:
    fake.sas = [ike(n) for n in range(3)]

    async def listed() -> int:
        return len([m async for m in session.stream("list-sas", "list-sa")])

    async with session_to(fake) as session:
        assert await asyncio.gather(*(listed() for _ in range(100))) == [3] * 100
    assert len(fake.peers) <= 8


async def test_of_many_new_connections_one_at_a_time_waits_to_be_accepted(tmp_path: Any) -> None:
    """charon's queue takes four, and more would be refused, those of other programs, too."""
    path = tmp_path / "slow"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        listener.listen(100)
        async with Session(path, timeout=0.3) as session:
            asking = [asyncio.create_task(session.request("version")) for _ in range(8)]
            await asyncio.sleep(0.1)
            listener.accept()[0].close()
            with pytest.raises(BlockingIOError):
                listener.accept()
            for task in asking:
                with pytest.raises((CharonTimeoutError, CharonUnreachableError)):
                    await task


async def test_a_long_stream_lets_the_event_loop_run(fake: FakeVici, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(b"".join(event("list-sa", {"n": n}) for n in range(3000)) + response())

    monkeypatch.setattr("mobikectl.charon.session._SLICE_S", 0.0)
    fake.commands["list-sas"] = at_once
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with session_to(fake) as session:
        task = asyncio.create_task(others())
        assert len([m async for m in session.stream("list-sas", "list-sa")]) == 3000
        task.cancel()
    assert turns > 2500


async def test_nobody_listening_is_said_with_what_to_do(tmp_path: Any) -> None:
    session = Session(tmp_path / "absent")
    with pytest.raises(CharonUnreachableError, match="start charon"):
        await session.request("version")
    assert session.status.state is LinkState.DOWN


async def test_events_begin_with_a_gap_and_after_a_restart_there_is_another(fake: FakeVici) -> None:
    async with (
        session_to(fake) as session,
        aclosing(session.events(["child-rekey"], optional=["new"])) as events,
    ):
        assert await anext(events) == EventGap("subscribed", frozenset({"new"}))
        await fake.raise_event("child-rekey", {"n": 1})
        assert await anext(events) == Event("child-rekey", {"n": b"1"})

        await fake.stop()
        lost = await anext(events)
        assert isinstance(lost, EventLost)
        without = session.status
        assert without.state is LinkState.DOWN
        pending = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        await fake.start()
        assert isinstance(await pending, EventGap)
        assert session.status.state is LinkState.UP
        await fake.raise_event("child-rekey", {"n": 2})
        assert await anext(events) == Event("child-rekey", {"n": b"2"})


async def test_an_event_during_registration_is_dropped_because_a_resync_follows(
    fake: FakeVici, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session_to(fake) as session:
        events = session.events(["ike-updown", "child-rekey"])
        original = fake._packet

        async def packet(peer: Peer, data: bytes) -> None:
            await original(peer, data)
            if b"ike-updown" in data:
                await peer.send(event("ike-updown", {"up": "yes"}))

        monkeypatch.setattr(fake, "_packet", packet)
        async with aclosing(events):
            assert isinstance(await anext(events), EventGap)
            await fake.raise_event("child-rekey", {"n": 1})
            assert await anext(events) == Event("child-rekey", {"n": b"1"})


async def test_requests_go_on_while_events_pour_in(fake: FakeVici) -> None:
    async with session_to(fake) as session, aclosing(session.events(["child-rekey"])) as events:
        await anext(events)

        async def pour() -> None:
            for n in range(10_000):
                await fake.raise_event("child-rekey", {"n": n})

        async def count() -> list[int]:
            found: list[int] = []
            async for item in events:
                assert isinstance(item, Event)
                found.append(int(item.message["n"]))
                if len(found) == 10_000:
                    break
            return found

        pouring, counting = asyncio.create_task(pour()), asyncio.create_task(count())
        answers = 0
        while not counting.done():
            assert (await session.request("version"))["daemon"] == b"fake"
            answers += 1
        await pouring
        assert await counting == list(range(10_000))
        assert answers > 1


async def test_half_an_event_and_then_silence_drops_the_subscription_and_begins_anew(fake: FakeVici) -> None:
    async with session_to(fake, timeout=0.05) as session, aclosing(session.events(["child-rekey"])) as events:
        await anext(events)
        for peer in fake.peers:
            await peer.send(event("child-rekey", {"n": 1})[:3])
        lost = await anext(events)
        assert isinstance(lost, EventLost)
        assert "a part of a message" in lost.reason
        assert isinstance(await anext(events), EventGap)


async def test_filtered_events_are_not_even_decoded(fake: FakeVici) -> None:
    async with (
        session_to(fake) as session,
        aclosing(session.events(["log", "child-rekey"], keep=lambda packet: packet.name != "log")) as events,
    ):
        await anext(events)
        for peer in fake.peers:
            await peer.send(frame(b"\x07\x03log\xff\xff not a message"))
        await fake.raise_event("child-rekey", {"n": 1})
        assert await anext(events) == Event("child-rekey", {"n": b"1"})


async def test_the_heartbeat_notices_a_hang_and_its_end(fake: FakeVici) -> None:
    answering = fake.commands["version"]

    async def silent(_peer: Peer, _args: dict[str, Any]) -> None:
        return

    async with session_to(fake, timeout=0.05) as session:
        watch = asyncio.create_task(session.watch(0.01))
        async with asyncio.timeout(5):
            status = await session.status_after(session.status)
            assert status.state is LinkState.UP
            fake.commands["version"] = silent
            status = await session.status_after(status)
            assert status.state is LinkState.HUNG
            fake.commands["version"] = answering
            assert (await session.status_after(status)).state is LinkState.UP
        watch.cancel()


def test_the_backoff_grows_to_its_limit_and_is_never_the_same_for_all() -> None:
    backoff = Backoff(first=0.1, most=5.0, jitter=0.5)
    for attempt, full in ((0, 0.1), (1, 0.2), (5, 3.2), (6, 5.0), (1000, 5.0)):
        delays = {backoff.delay(attempt) for _ in range(50)}
        assert all(full * 0.5 <= delay <= full for delay in delays)
        assert len(delays) > 1


@pytest.mark.parametrize("args", [{"k" * 256: 1}, {"": 1}, {"k": "x" * 65536}, {"k": ["x" * 65536]}])
def test_what_does_not_fit_into_a_message_is_refused_before_it_is_sent(args: dict[str, Any]) -> None:
    with pytest.raises(CharonRefusedError):
        encode(args)


def test_a_request_larger_than_a_frame_is_refused() -> None:
    assert len(encode({str(n): "x" * 60_000 for n in range(9)})) > MAX_FRAME


KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
TREES = st.recursive(
    st.dictionaries(KEYS, st.binary(max_size=50) | st.lists(st.binary(max_size=20), max_size=4), max_size=5),
    lambda inner: st.dictionaries(KEYS, inner | st.binary(max_size=20), max_size=4),
    max_leaves=20,
)


@given(TREES)
def test_what_is_encoded_is_decoded_again_and_as_the_vici_package_does(tree: dict[str, Any]) -> None:
    assert decode(encode(tree)) == tree == ViciMessage.deserialize(FiniteStream(encode(tree)))


@given(TREES.filter(bool), st.data())
def test_a_message_cut_short_is_never_taken_for_whole(tree: dict[str, Any], data: Any) -> None:
    whole = encode(tree)
    boundaries = {0}
    for count in range(1, len(tree)):
        boundaries.add(len(encode(dict(list(tree.items())[:count]))))
    cut = data.draw(st.integers(0, len(whole) - 1))
    if cut in boundaries:
        assert len(decode(whole[:cut])) < len(tree)
    else:
        with pytest.raises(CharonProtocolError):
            decode(whole[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(payload: bytes) -> None:
    with suppress(CharonProtocolError):
        assert isinstance(decode(payload), dict)


def test_booleans_are_sent_as_charon_reads_them() -> None:
    assert ViciMessage.serialize({"a": "yes", "b": "no"}) == encode({"a": True, "b": False})


async def test_how_long_charon_took_is_told_for_each_request(fake: FakeVici) -> None:
    told: list[tuple[str, bool]] = []
    echo(fake)
    timing = lambda command, seconds, answered: told.append((command, answered and seconds >= 0.05))  # noqa: E731
    async with session_to(fake, timing=timing, timeout=0.3) as session:
        await session.request("echo", {"say": "x", "after": "0.05"})
        with pytest.raises(CharonTimeoutError):
            await session.request("echo", {"say": "x", "after": "9"})
    assert told == [("echo", True), ("echo", False)]
