"""The HA broker without a charon: what it hears, keeps, tells and refuses to tell."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon import ha_broker
from mobikectl.charon.ha_broker import HaBroker, open_broker
from mobikectl.charon.ha_log import HaLog
from mobikectl.charon.ha_port import HaPort, HaPortTakenError
from mobikectl.errors import CharonUnreachableError, MoveError, NotFoundError
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType

from .test_ha_chains import SESSIONS, delete, established, fed, rekeyed, spis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

EMPTY, SERVING = bytes.fromhex("030a"), bytes.fromhex("030a220001")


class Port:
    """The HA port with a charon that does nothing behind it."""

    def __init__(self) -> None:
        self.sock, self.charon = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.charon.setblocking(False)
        self.lost = 0
        self.down = False

    def receive(self) -> Iterator[bytes]:
        with suppress(BlockingIOError):
            while True:
                yield self.sock.recv(65536)

    def send(self, octets: bytes) -> None:
        if self.down:
            raise CharonUnreachableError("nobody there")
        self.sock.send(octets)

    def close(self) -> None:
        self.sock.close()

    def said(self) -> list[HaMessage]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(HaMessage.from_bytes(self.charon.recv(65536)))
        return [message for message in found if message.kind is not HaType.STATUS]

    def tell(self, *messages: HaMessage | bytes) -> None:
        for message in messages:
            self.charon.send(message if isinstance(message, bytes) else message.to_bytes())


class Kept:
    """A holder in this process."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}

    def take(self) -> dict[str, int]:
        return {name: os.dup(fd) for name, fd in self.fds.items()}

    def put(self, name: str, fd: int) -> None:
        if name != "port":
            self.fds[name] = os.dup(fd)

    def close(self) -> None:
        return


def opened(kept: Kept, port: Port, owner: int | None = 0) -> AbstractAsyncContextManager[HaBroker]:
    return open_broker(kept, protect=False, bind=lambda: port, owner=lambda: owner)  # type: ignore[arg-type,return-value]


async def heard(broker: HaBroker, *known: int) -> None:
    async with asyncio.timeout(5):
        while broker.current() != {spis(number) for number in known}:  # noqa: ASYNC110 - the broker works on its own
            await asyncio.sleep(0.005)


async def test_a_try_while_another_has_the_port_leaves_nothing_open() -> None:
    def bind() -> HaPort:
        raise HaPortTakenError("another process has it", hint="find it")

    kept = Kept()
    async with opened(kept, Port()):
        pass  # the logs are kept, and no port
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(HaPortTakenError):
        async with open_broker(kept, protect=False, bind=bind):
            raise AssertionError("it has no port")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


async def test_what_charon_tells_can_be_told_to_another_charon() -> None:
    first, second = Port(), Port()
    async with opened(Kept(), first) as here, opened(Kept(), second) as there:
        first.tell(*established())
        second.tell(SERVING)
        await heard(here, 1)
        second.said()
        await there.replay(here.chain_of(spis(1)))
        assert second.said() == list(here.chain_of(spis(1)).messages)
        assert there.current() == {spis(1)}


async def test_message_ids_that_an_ike_sa_is_started_with_are_told_and_outlive_the_broker() -> None:
    kept, port, told = Kept(), Port(), []
    async with opened(kept, port) as broker:
        port.tell(*established(1))
        await heard(broker, 1)
        broker.listen(lambda each, ended: told.append((each, ended)))
        broker.count_from(spis(1), 7, 3)
        broker.count_from(spis(2), 7, 3)
        assert told == [(spis(1), False)]
    async with opened(kept, Port()) as broker:
        counts = {
            message.kind: message.need(HaAttribute.MID, int)
            for message in broker.chain_of(spis(1)).messages
            if message.kind in {HaType.IKE_MID_INITIATOR, HaType.IKE_MID_RESPONDER}
        }
        assert counts == {HaType.IKE_MID_INITIATOR: 7, HaType.IKE_MID_RESPONDER: 3}


async def test_a_broker_without_memory_has_charon_tell_all_again_and_one_with_memory_has_not() -> None:
    kept = Kept()
    for wanted in ([HaType.RESYNC], []):
        port = Port()
        async with opened(kept, port):
            assert [message.kind for message in port.said()] == wanted


async def test_the_next_broker_knows_what_the_one_before_knew_and_its_notes() -> None:
    kept, port = Kept(), Port()
    async with opened(kept, port) as broker:
        port.tell(*established(1), *rekeyed(1, 2), *established(3))
        await heard(broker, 2, 3)
        before = broker.chain_of(spis(2))
        broker.note("out/1", "something")
        broker.note("out/2", "struck out again")
        broker.note("out/2", None)
    async with opened(kept, Port()) as broker:
        assert broker.chain_of(spis(2)) == before
        assert broker.notes == {"out/1": "something"}
        assert broker.status.taken_over == 2


async def test_what_charon_tells_to_have_ended_is_known_from_what_a_restarted_charon_does_not_have() -> None:
    kept, port = Kept(), Port()
    async with opened(kept, port) as broker:
        port.tell(*established(1), *rekeyed(1, 2), *established(3), *established(4), delete(4))
        await heard(broker, 2, 3)
        assert [number for number in (1, 2, 3, 4, 5) if broker.has_ended(spis(number))] == [1, 4]
        port.tell(*established(4))
        await heard(broker, 2, 3, 4)
        assert not broker.has_ended(spis(4))
        port.tell(delete(4))
        await heard(broker, 2, 3)
    async with opened(kept, Port()) as broker:
        assert [number for number in (1, 2, 3, 4, 5) if broker.has_ended(spis(number))] == [1, 4]


async def test_the_log_does_not_grow_with_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_broker, "_SPARE", 10_000)
    port = Port()
    async with opened(Kept(), port) as broker:
        for round_ in range(60):
            port.tell(*established(1))
            await heard(broker, 1)
            port.tell(delete(1))
            await heard(broker)
            broker.note("in/x", str(round_))
        assert broker.status.log_octets < 30_000
        assert broker.notes == {"in/x": "59"}


async def test_a_full_log_is_told_and_moves_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from mobikectl.charon.ha_log import LogFullError

    port = Port()
    async with opened(Kept(), port) as broker:

        def full(self: HaLog, record: bytes) -> None:
            raise LogFullError("no room")

        monkeypatch.setattr(HaLog, "append", full)
        port.tell(*established(1))
        await heard(broker, 1)
        assert broker.chain_of(spis(1)).spis == spis(1)


async def test_notes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_broker, "MAX_NOTES", 2)
    async with opened(Kept(), Port()) as broker:
        broker.note("a", "1")
        broker.note("b", "1")
        broker.note("b", "2")
        with pytest.raises(MoveError, match="too many"):
            broker.note("c", "1")


async def test_nonsense_is_counted_and_nothing_of_it_is_kept() -> None:
    port = Port()
    async with opened(Kept(), port) as broker:
        port.tell(b"nonsense", b"", *established(1), b"\x03\xff")
        await heard(broker, 1)
        async with asyncio.timeout(5):
            while broker.status.refused < 3:  # noqa: ASYNC110 - the broker works on its own
                await asyncio.sleep(0.005)


async def test_no_ike_sa_is_told_before_charon_has_its_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_broker, "SEGMENT_S", 0.2)
    chain = fed(*established(1)).chain_of(spis(1))
    port = Port()
    async with opened(Kept(), port) as broker:
        port.tell(EMPTY)
        with pytest.raises(CharonUnreachableError, match="segment"):
            await broker.replay(chain)
        assert HaType.IKE_ADD not in [message.kind for message in port.said()]
        telling = asyncio.create_task(broker.replay(chain))
        port.tell(SERVING)
        await telling
        assert port.said()[0].kind is HaType.IKE_ADD


@pytest.mark.parametrize(("owner", "words"), [(None, "nobody"), (65534, "user 65534")])
async def test_keys_go_to_charons_user_only(owner: int | None, words: str) -> None:
    port = Port()
    async with opened(Kept(), port, owner) as broker:
        port.tell(SERVING)
        with pytest.raises(CharonUnreachableError, match=words):
            await broker.replay(fed(*established(1)).chain_of(spis(1)))
        assert HaType.IKE_ADD not in [message.kind for message in port.said()]


async def test_what_could_not_be_told_to_its_end_is_forgotten() -> None:
    port = Port()
    async with opened(Kept(), port) as broker:
        port.tell(SERVING)
        await asyncio.sleep(0.05)
        port.down = True
        with pytest.raises(CharonUnreachableError):
            await broker.replay(fed(*established(1)).chain_of(spis(1)))
        assert not broker.knows(spis(1))


async def test_waiting_for_a_chain_ends_when_charon_has_told_of_it_or_in_time() -> None:
    port = Port()
    async with opened(Kept(), port) as broker:
        waiting = asyncio.create_task(broker.wait_for(spis(1), {10}, timeout=5))
        await asyncio.sleep(0.02)
        port.tell(*established(1))
        assert (await waiting).children == {10}
        with pytest.raises(NotFoundError):
            await broker.wait_for(spis(9), (), timeout=0.05)


async def test_captured_sessions_leave_nothing_behind() -> None:
    for messages in SESSIONS.values():
        port = Port()
        async with opened(Kept(), port) as broker:
            port.tell(*messages)
            async with asyncio.timeout(5):
                while broker.status.heard_s is None:  # noqa: ASYNC110 - the broker works on its own
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            assert broker.current() == frozenset()
            assert (broker.status.missed, broker.status.refused) == (0, 0)
