"""A session between its machine and a plugin that fails in every way."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.bridge.events import (
    Delivered,
    NotBridged,
    NotSent,
    PeerBack,
    PeerFault,
    Refused,
    Restarted,
    Told,
)
from mobikectl.bridge.session import INBOX, BridgeSession, Reset, SaNow
from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.bridge.translate import Heard, later, read_mark, to_notifies, to_payloads
from mobikectl.charon.rmobike import PluginRefusedError
from mobikectl.charon.rmobike_events import NotifyAnswered, NotifyFailed, UpdateDone, UpdateFailed
from mobikectl.errors import CharonUnreachableError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.protocol.addrnotify import DisconnectAllowed, Moved, PeerAway, change
from mobikectl.protocol.exchange import Delete
from mobikectl.protocol.machine import LocalProtocolError
from mobikectl.wire.bridge import BridgeMark, Part, Spoken
from mobikectl.wire.kivinen import DisconnectNotify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.wire.notify import Notify

HERE, THERE, OTHER = (ip_address(text) for text in ("198.18.1.2", "198.18.2.10", "198.18.3.2"))
SA = IkeSa(1, "vpn", IkeState.ESTABLISHED, Path(HERE, THERE))


@dataclass
class Plugin:
    """Takes commands, and refuses what it is told to refuse."""

    sent: asyncio.Queue[tuple[str, tuple[Notify, ...]]] = field(default_factory=asyncio.Queue)
    moves: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    send_error: Exception | None = None
    move_error: Exception | None = None

    async def send_notify(self, ike_id: int, notifies: tuple[Notify, ...], *, token: str) -> None:
        if self.send_error:
            raise self.send_error
        self.sent.put_nowait((token, notifies))

    async def update_addresses(self, ike_id: int, *, local: Any, remote: Any, token: str) -> None:
        if self.move_error:
            raise self.move_error
        self.moves.put_nowait(token)


class Ends:
    def __init__(self, spoken: Spoken, sa: IkeSa, keepable: int) -> None:
        self.plugin = Plugin()
        self.told: asyncio.Queue[Any] = asyncio.Queue()

        async def keep(_: IkeSa) -> int:
            return keepable

        def tell(told: Told) -> None:
            self.told.put_nowait(told.event)

        self.session = BridgeSession(
            spoken,
            sa,
            self.plugin,  # type: ignore[arg-type]
            BridgeSettings(),
            name="t",
            keepable=keep,
            tell=tell,
        )

    async def next(self, kind: type) -> Any:
        async with asyncio.timeout(10):
            while not isinstance(event := await self.told.get(), kind):
                pass
            return event

    async def sent(self) -> tuple[str, tuple[Notify, ...]]:
        return await asyncio.wait_for(self.plugin.sent.get(), 10)

    def hear(self, *payloads: Any, number: int = 7, mark: BridgeMark | None = None) -> None:
        mark = mark or BridgeMark(self.session.spoken, Part.REQUEST)
        notifies = to_notifies(self.session.spoken, payloads, mark)
        path = self.session.sa.path
        self.session.put(Heard(1, number, path, self.session.spoken, notifies, mark))


@asynccontextmanager
async def running(
    spoken: Spoken = Spoken.KIVINEN, *, initiator: bool = True, keepable: int = 3600
) -> AsyncIterator[Ends]:
    ends = Ends(spoken, replace(SA, original_initiator=initiator), keepable)
    task = asyncio.create_task(ends.session.run())
    try:
        yield ends
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def leave(ends: Ends, seconds: int = 60) -> str:
    await ends.session.ask(lambda machine, now: machine.disconnect(seconds, now))
    token, notifies = await ends.sent()
    assert to_payloads(Spoken.KIVINEN, notifies) == (DisconnectNotify(seconds),)
    return token


def answer(number: int) -> BridgeMark:
    return BridgeMark(Spoken.KIVINEN, Part.ANSWER, number)


@pytest.mark.parametrize("early", [False, True], ids=["in order", "overtaking the response"])
async def test_an_answer_that_comes_later_is_the_answer(early: bool) -> None:
    async with running() as ends:
        token = await leave(ends)
        acknowledged = NotifyAnswered(1, token, 9, (later(Spoken.KIVINEN),))
        if early:
            ends.hear(mark=answer(9))
            ends.session.put(acknowledged)
        else:
            ends.session.put(acknowledged)
            ends.hear(mark=answer(9))
        await ends.next(DisconnectAllowed)


async def test_a_refusal_says_what_would_be_kept() -> None:
    async with running() as ends:
        ends.session.put(NotifyAnswered(1, await leave(ends), 9, (later(Spoken.KIVINEN),)))
        ends.hear(Delete(), DisconnectNotify(30), mark=answer(9))
        assert (await ends.next(Refused)).most_s == 30
        await ends.next(Restarted)
        await leave(ends, 30)


async def test_an_acknowledgement_without_a_mark_is_no_consent() -> None:
    async with running() as ends:
        ends.session.put(NotifyAnswered(1, await leave(ends), 9, ()))
        await ends.next(NotBridged)


async def test_the_answer_to_another_request_changes_nothing() -> None:
    async with running() as ends:
        ends.session.put(NotifyAnswered(1, await leave(ends), 9, (later(Spoken.KIVINEN),)))
        ends.hear(mark=answer(8))
        ends.session.put(NotifyAnswered(1, "somebody else's", 8, ()))
        ends.hear(mark=answer(9))
        await ends.next(DisconnectAllowed)


async def test_what_is_to_go_over_another_path_waits_for_the_move() -> None:
    async with running() as ends:
        await ends.session.ask(lambda machine, now: machine.notify([OTHER], now))
        token = await asyncio.wait_for(ends.plugin.moves.get(), 10)
        assert ends.plugin.sent.empty()
        ends.session.put(UpdateDone(1, token, "command", Path(OTHER, THERE)))
        _, notifies = await ends.sent()
        assert to_payloads(Spoken.KIVINEN, notifies) == (change(OTHER),)


async def test_an_initiator_follows_to_an_address_that_it_knows_to_work_already() -> None:
    second = ip_address("198.18.2.11")
    async with running() as ends:
        ends.hear(change(second), change(THERE))
        ends.session.put(UpdateDone(1, await moving(ends), "command", Path(HERE, second)))
        token, _ = await ends.sent()
        ends.session.put(NotifyAnswered(1, token, 8, ()))
        await ends.next(Delivered)
        ends.hear(change(THERE), change(second), number=8)
        await ends.next(Moved)
        token = await moving(ends)
        ends.session.put(UpdateFailed(1, token, "command", "no-answer", Path(HERE, second)))
        assert (await ends.next(Restarted)).reason == "the move failed: no-answer"
        assert ends.session.machine.pair.path == Path(HERE, second), "it is where the IKE_SA is"


async def test_an_ike_sa_that_somebody_else_moved_is_not_moved_back() -> None:
    async with running() as ends:
        ends.session.put(SaNow(replace(ends.session.sa, path=Path(OTHER, THERE))))
        await leave(ends)
        assert ends.plugin.moves.empty()


async def moving(ends: Ends) -> str:
    return await asyncio.wait_for(ends.plugin.moves.get(), 10)


async def test_a_move_that_fails_leaves_everything_as_it_was() -> None:
    async with running() as ends:
        await ends.session.ask(lambda machine, now: machine.notify([OTHER], now))
        token = await asyncio.wait_for(ends.plugin.moves.get(), 10)
        ends.session.put(UpdateFailed(1, token, "command", "no-answer", SA.path))
        assert "no-answer" in (await ends.next(Restarted)).reason
        assert ends.plugin.sent.empty()
        assert ends.session.machine.pair.path == SA.path


async def test_an_ike_sa_that_is_there_already_need_not_move() -> None:
    async with running() as ends:
        ends.plugin.move_error = PluginRefusedError("there", code="already-there")
        await ends.session.ask(lambda machine, now: machine.notify([OTHER], now))
        await ends.sent()


@pytest.mark.parametrize(
    "error", [PluginRefusedError("gone", code="unknown-ike-id"), CharonUnreachableError("no socket")]
)
async def test_a_plugin_that_refuses_or_is_away_ends_what_was_under_way(error: Exception) -> None:
    async with running() as ends:
        ends.plugin.send_error = error
        await ends.session.ask(lambda machine, now: machine.disconnect(60, now))
        await ends.next(Restarted)
        ends.plugin.send_error = None
        await leave(ends)


async def test_a_request_that_is_never_answered_ends_what_was_under_way() -> None:
    async with running() as ends:
        ends.session.put(NotifyFailed(1, await leave(ends)))
        await ends.next(Restarted)


@pytest.mark.parametrize(("seconds", "payloads"), [(60, ()), (61, (Delete(), DisconnectNotify(60)))])
async def test_a_responder_answers_later_what_depends_on_the_request(
    seconds: int, payloads: tuple[object, ...]
) -> None:
    async with running(initiator=False, keepable=60) as ends:
        ends.hear(DisconnectNotify(seconds), number=42)
        _, notifies = await ends.sent()
        assert read_mark(notifies) == answer(42)
        assert to_payloads(Spoken.KIVINEN, notifies) == payloads


async def test_a_peer_that_moves_is_not_away_any_more() -> None:
    async with running(initiator=False) as ends:
        ends.hear(DisconnectNotify(60))
        await ends.next(PeerAway)
        ends.session.put(SaNow(replace(ends.session.sa, path=Path(HERE, OTHER))))
        await ends.next(PeerBack)


async def test_a_responder_sends_no_check_over_a_path_that_it_cannot_choose() -> None:
    async with running(initiator=False) as ends:
        ends.hear(change(OTHER))
        assert (await ends.next(NotSent)).path == Path(HERE, OTHER)
        assert ends.plugin.sent.empty()
        assert ends.plugin.moves.empty()


async def test_what_breaks_the_draft_is_told_and_the_next_request_is_served() -> None:
    async with running(initiator=False) as ends:
        ends.hear(DisconnectNotify(60), change(OTHER))
        await ends.next(PeerFault)
        ends.hear(DisconnectNotify(60))
        await ends.next(PeerAway)


async def test_a_flood_is_bounded_and_refuses_who_waited() -> None:
    ends = Ends(Spoken.KIVINEN, SA, 60)
    waiting = asyncio.create_task(ends.session.ask(lambda machine, now: machine.disconnect(60, now)))
    await asyncio.sleep(0)
    for _ in range(INBOX):
        ends.hear()
    with pytest.raises(LocalProtocolError):
        await waiting
    task = asyncio.create_task(ends.session.run())
    assert (await ends.next(Restarted)).reason == "too much waited"
    task.cancel()


async def test_who_asks_a_session_that_ended_is_told_so() -> None:
    async with running() as ends:
        await leave(ends)
    with pytest.raises(LocalProtocolError, match="over"):
        await ends.session.ask(lambda machine, now: machine.disconnect(60, now))


async def test_a_restart_of_charon_begins_anew() -> None:
    async with running() as ends:
        await leave(ends)
        ends.session.put(Reset("the connection was lost"))
        await ends.next(Restarted)
        token = await leave(ends)
        ends.session.put(NotifyAnswered(1, token, 9, (later(Spoken.KIVINEN),)))
        ends.hear(mark=answer(9))
        await ends.next(Delivered)
        await ends.next(DisconnectAllowed)
