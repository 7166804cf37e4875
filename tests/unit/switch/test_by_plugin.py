"""Moves that the plugin carries out: the executor against a plugin that answers as it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.charon.rmobike_events import (
    SwitchAcked,
    SwitchDone,
    SwitchSuperseded,
    SwitchTimeout,
    UpdateFailed,
)
from mobikectl.charon.rmobike_link import Peer, PluginLink
from mobikectl.errors import CharonRefusedError, MoveError
from mobikectl.model import Path
from mobikectl.observe.events import EventLog
from mobikectl.switch.executor import MoveExecutor, MoveOrder
from mobikectl.switch.moves import Mechanism, Move, MoveState
from tests.unit.switch.test_executor import VIA_A, VIA_B, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.model import IkeSa, IpAddress


class Plugin:
    """In the place of the typed client: remembers what it was asked, and does as the test says."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.reaction: Callable[[str, IpAddress], object] = lambda _token, _address: None
        self.refuses = False

    async def switch_address(self, ike_id: int, address: IpAddress, *, token: str, timeout_s: int) -> None:
        self._ask((ike_id, address), token, address)

    async def update_addresses(self, ike_id: int, *, local: IpAddress, remote: IpAddress, token: str) -> None:
        self._ask((ike_id, local, remote), token, local)

    def _ask(self, what: object, token: str, address: IpAddress) -> None:
        if self.refuses:
            raise CharonRefusedError("refused: not-local")
        self.asked.append(what)
        self.reaction(token, address)


class Scene:
    """A world with a plugin beside its charon."""

    def __init__(self, *, initiator: bool) -> None:
        self.world = World()
        assert self.world.sa is not None
        self.world.sa = replace(self.world.sa, original_initiator=initiator)
        self.plugin = Plugin()
        self.link = PluginLink("/nowhere")
        self.link.plugin = self.plugin  # type: ignore[assignment]
        self.link._peers[7] = Peer(7, mobike=True, r=True)
        self.redirects: list[object] = []

    def answer(self, event: PluginEvent) -> None:
        async def take() -> None:
            await self.link._take(event)

        self._task = asyncio.get_running_loop().create_task(take())

    def follow(self, path: Path) -> None:
        asyncio.get_running_loop().call_later(0.01, self.world._follow, path)

    async def redirect(self, ike_id: int, gateway: IpAddress) -> None:
        self.redirects.append((ike_id, gateway))

    async def move(self, mechanism: Mechanism | None = None, **more: Any) -> Move:
        executor = MoveExecutor(
            self.world.charon,
            self.world,
            EventLog(),
            data_plane_s=0.1,
            plugin=self.link,
            redirect=self.redirect,
        )
        order = MoveOrder(7, VIA_B, "a test", timeout_s=0.6, mechanism=mechanism, **more)
        return await executor.move(order)


async def test_a_peer_that_follows_is_verified_and_then_held_by_a_route() -> None:
    scene = Scene(initiator=False)
    scene.plugin.reaction = lambda _token, _address: scene.follow(VIA_B)
    move = await scene.move()
    assert (move.mechanism, move.state) == (Mechanism.NOTIFY, MoveState.VERIFIED)
    assert scene.plugin.asked == [(7, VIA_B.local)]
    assert scene.world.routes == {VIA_B.remote: VIA_B}


async def test_a_peer_that_also_moved_itself_is_taken_where_it_is() -> None:
    scene = Scene(initiator=False)
    elsewhere = Path(VIA_B.local, ip_address("198.18.9.77"))
    scene.plugin.reaction = lambda _token, _address: scene.follow(elsewhere)
    move = await scene.move()
    assert (move.after, move.state) == (elsewhere, MoveState.VERIFIED)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda token: SwitchTimeout(7, token, "no-update"), "does not follow"),
        (lambda token: SwitchTimeout(7, token, "no-answer"), "did not answer"),
        (lambda token: SwitchSuperseded(7, token), "newer request"),
    ],
)
async def test_what_the_peer_does_not_follow_fails_with_the_reason_and_changes_nothing(
    answer: Callable[[str], PluginEvent], said: str
) -> None:
    scene = Scene(initiator=False)
    scene.plugin.reaction = lambda token, _address: scene.answer(answer(token))
    move = await scene.move()
    assert (move.state, scene.world.routes) == (MoveState.FAILED, {})
    assert said in move.reason
    assert scene.world.sa is not None
    assert scene.world.sa.path == VIA_A


async def test_an_acknowledgement_is_no_success() -> None:
    scene = Scene(initiator=False)
    scene.plugin.reaction = lambda token, _address: scene.answer(SwitchAcked(7, token))
    move = await scene.move()
    assert (move.state, move.reason) == (MoveState.FAILED, "the peer did not switch in time")


async def test_a_peer_that_charon_asked_back_before_anybody_saw_it_is_asked_again_with_a_route_in_place() -> (
    None
):
    scene = Scene(initiator=False)
    routes: list[object] = []

    def react(token: str, _address: IpAddress) -> None:
        routes.append(dict(scene.world.routes))
        scene.answer(SwitchDone(7, token, VIA_B, 20))
        if len(routes) == 2:
            scene.follow(VIA_B)

    scene.plugin.reaction = react
    move = await scene.move()
    assert move.state is MoveState.VERIFIED
    assert scene.plugin.asked == [(7, VIA_B.local)] * 2
    assert routes == [{}, {VIA_B.remote: VIA_B}]


async def test_a_peer_that_is_asked_back_again_and_again_fails_and_leaves_no_route() -> None:
    scene = Scene(initiator=False)
    scene.world.follows_not = True
    scene.plugin.reaction = lambda token, _address: scene.answer(SwitchDone(7, token, VIA_B, 20))
    move = await scene.move()
    assert (move.state, scene.world.routes) == (MoveState.FAILED, {})
    assert "asked it back" in move.reason
    assert len(scene.plugin.asked) == 2


async def test_a_switch_that_no_event_told_of_is_seen_when_charon_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(initiator=False)
    refresh = scene.world.charon.refresh

    async def find_it_there(uniqueid: int) -> IkeSa | None:
        if scene.plugin.asked and scene.link.peer(7) is None:
            scene.world._follow(VIA_B)
        return await refresh(uniqueid)

    def moved_silently(token: str, _address: IpAddress) -> None:
        scene.answer(SwitchTimeout(7, token, "no-update"))
        scene.link.forget(7)

    monkeypatch.setattr(scene.world.charon, "refresh", find_it_there)
    scene.plugin.reaction = lambda *told: asyncio.get_running_loop().call_later(0.05, moved_silently, *told)
    assert (await scene.move()).state is MoveState.VERIFIED


async def test_a_plugin_that_refuses_the_switch_fails_the_move() -> None:
    scene = Scene(initiator=False)
    scene.plugin.refuses = True
    move = await scene.move()
    assert (move.state, "not-local" in move.reason) == (MoveState.FAILED, True)


async def test_a_switch_whose_data_plane_stays_silent_is_asked_back() -> None:
    scene = Scene(initiator=False)
    scene.world.traffic = lambda path: path == VIA_A
    paths = {VIA_A.local: VIA_A, VIA_B.local: VIA_B}
    scene.plugin.reaction = lambda _token, address: scene.follow(paths[address])
    move = await scene.move()
    assert move.state is MoveState.UNDONE
    assert scene.plugin.asked == [(7, VIA_B.local), (7, VIA_A.local)]
    assert scene.world.routes == {}


async def test_an_initiator_updates_by_the_plugin_over_a_steering_route() -> None:
    scene = Scene(initiator=True)
    move = await scene.move()
    assert (move.mechanism, move.state) == (Mechanism.UPDATE, MoveState.VERIFIED)
    assert scene.plugin.asked == [(7, VIA_B.local, VIA_B.remote)]
    assert scene.world.routes == {VIA_B.remote: VIA_B}


async def test_a_plugin_that_refuses_an_update_leaves_it_to_the_route() -> None:
    scene = Scene(initiator=True)
    scene.plugin.refuses = True
    move = await scene.move()
    assert (move.mechanism, move.state) == (Mechanism.UPDATE, MoveState.VERIFIED)


async def test_an_update_that_gets_no_answer_is_undone_at_once() -> None:
    scene = Scene(initiator=True)
    scene.world.follows_not = True
    scene.plugin.reaction = lambda token, _address: scene.answer(
        UpdateFailed(7, token, "command", "no-answer", VIA_A)
    )
    move = await scene.move()
    assert move.state is MoveState.UNDONE
    assert "did not answer" in move.reason
    assert scene.world.routes == {VIA_A.remote: VIA_A}


async def test_an_update_that_charons_own_reaction_overtook_still_arrives() -> None:
    scene = Scene(initiator=True)
    scene.plugin.reaction = lambda token, _address: scene.answer(
        UpdateFailed(7, token, "command", "superseded", VIA_A)
    )
    assert (await scene.move()).state is MoveState.VERIFIED


async def test_a_redirected_peer_that_leaves_is_a_success() -> None:
    scene = Scene(initiator=False)
    asyncio.get_running_loop().call_later(0.05, scene.world._set, None)
    move = await scene.move(Mechanism.REDIRECT)
    assert (move.state, scene.redirects) == (MoveState.VERIFIED, [(7, VIA_B.local)])


async def test_a_redirected_peer_that_stays_is_a_failure_without_harm() -> None:
    scene = Scene(initiator=False)
    move = await scene.move(Mechanism.REDIRECT)
    assert move.state is MoveState.FAILED
    assert "stays" in move.reason
    assert scene.world.routes == {}


async def test_without_the_peers_word_it_is_not_asked() -> None:
    scene = Scene(initiator=False)
    scene.link.forget(7)
    with pytest.raises(MoveError, match="plugin"):
        await scene.move(Mechanism.NOTIFY)
