"""The executor against a small world whose charon follows steering routes, or fails to in a chosen way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import CharonTimeoutError, MoveError, NetlinkError, NoRouteError, NotFoundError
from mobikectl.model import ChildSa, ChildState, Counters, IkeSa, IkeState, Path
from mobikectl.observe.events import EventLog
from mobikectl.switch.executor import MoveExecutor, MoveOrder
from mobikectl.switch.moves import Blame, DataPlane, MoveState
from mobikectl.switch.steering import Steer, Steering

if TYPE_CHECKING:
    from collections.abc import Callable

GATEWAY = ip_address("198.18.9.1")
A, B = ip_address("198.18.1.2"), ip_address("198.18.2.2")
VIA_A, VIA_B = Path(A, GATEWAY), Path(B, GATEWAY)


class World(Steering):
    """Steering and charon in one: a route to a path moves the SA there, unless the world is broken."""

    def __init__(self) -> None:
        self.sa: IkeSa | None = IkeSa(
            7, "home", IkeState.ESTABLISHED, VIA_A, children=(ChildSa(1, "net", ChildState.INSTALLED),)
        )
        self.routes: dict[object, Path] = {}
        self.no_route = self.follows_not = self.dies = self.hangs = False
        self.children_lost = self.child_elsewhere = False
        self.traffic: Callable[[Path], bool] = lambda _path: True
        self.led_to: Callable[[Path], Path] = lambda path: path
        """Where charon goes when it is shown a path."""
        self.used_by_others: set[object] = set()
        self.slow = 0.0
        """Seconds that the kernel takes to answer after it has changed a route."""
        self.packets = 100
        self.sent = 100
        self.changed = asyncio.Event()
        self.charon = Charon(self)

    def _set(self, sa: IkeSa | None) -> None:
        self.sa = sa
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def steers(self) -> tuple[Steer, ...]:
        return tuple(Steer(path, None, 1) for path in self.routes.values())

    def steer_to(self, remote: object) -> Steer | None:
        return Steer(self.routes[remote], None, 1) if remote in self.routes else None

    async def point(self, path: Path) -> Steer | None:
        if self.no_route:
            raise NoRouteError("no route", hint="add one")
        before = self.routes.get(path.remote)
        self.routes[path.remote] = path
        asyncio.get_running_loop().call_later(0.01, self._follow, path)
        await asyncio.sleep(self.slow)
        return Steer(before, None, 1) if before else None

    async def restore(self, remote: object, before: Steer | None) -> None:
        await asyncio.sleep(self.slow)
        if before is None:
            self.routes.pop(remote, None)
        else:
            self.routes[remote] = before.path
        asyncio.get_running_loop().call_later(0.01, self._follow, before.path if before else VIA_A)

    def _follow(self, path: Path) -> None:
        path = self.led_to(path)
        if self.dies:
            self._set(None)
        elif self.sa is not None and not self.follows_not:
            lost = self.children_lost and path == VIA_B
            state = ChildState.DELETING if lost else ChildState.INSTALLED
            self._set(replace(self.sa, path=path, children=(replace(self.sa.children[0], state=state),)))

    async def kernel_check(self, sa: IkeSa, path: Path) -> str | None:
        return "CHILD_SA net is still on the old pair" if self.child_elsewhere else None


class Charon:
    """What the executor asks charon of a world's SA."""

    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, uniqueid: int) -> IkeSa | None:
        return self.world.sa if self.world.sa is not None and uniqueid == 7 else None

    def shared(self, remote: object, uniqueid: int) -> bool:
        return remote in self.world.used_by_others

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        if self.world.hangs:
            raise CharonTimeoutError("charon does not answer")
        if self.world.sa is None:
            return None
        self.world.sent += 1
        self.world.packets += self.world.traffic(self.world.sa.path)
        counters = Counters(packets_in=self.world.packets, packets_out=self.world.sent, idle_in_s=0.0)
        return replace(
            self.world.sa, children=tuple(replace(c, counters=counters) for c in self.world.sa.children)
        )

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await self.world.changed.wait()
        except TimeoutError:
            return predicate()
        return True


def executor(world: World) -> MoveExecutor:
    return MoveExecutor(world.charon, world, EventLog(), child_check=world.kernel_check, data_plane_s=0.1)


def order(path: Path = VIA_B, *, give_back: bool = True, sa: int = 7) -> MoveOrder:
    return MoveOrder(sa, path, "a test", timeout_s=0.3, give_back=give_back)


async def test_a_move_that_charon_and_data_plane_confirm_is_verified() -> None:
    world = World()
    move = await executor(world).move(order())
    assert [step.state for step in move.steps] == [
        MoveState.PLANNED,
        MoveState.REQUESTED,
        MoveState.MOVED,
        MoveState.VERIFIED,
    ]
    assert move.data_plane is DataPlane.FLOWING
    assert world.routes == {GATEWAY: VIA_B}


async def test_without_a_route_nothing_is_changed() -> None:
    world = World()
    world.no_route = True
    move = await executor(world).move(order())
    assert (move.state, move.blame, world.routes) == (MoveState.FAILED, Blame.PATH, {})


async def test_a_charon_that_does_not_follow_gets_its_old_way_back() -> None:
    world = World()
    world.follows_not = True
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert "did not move the IKE_SA in time" in move.reason
    assert world.routes == {GATEWAY: VIA_A}, "the kernel's own choice may be the path that failed"


async def test_a_silent_new_path_is_undone_and_the_sa_is_back_where_packets_flow() -> None:
    world = World()
    world.traffic = lambda path: path == VIA_A
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert move.data_plane is DataPlane.SILENT
    assert world.sa is not None
    assert world.sa.path == VIA_A


async def test_a_child_that_does_not_follow_undoes_the_move() -> None:
    world = World()
    world.children_lost = True
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert "CHILD_SA net is not installed" in move.reason


async def test_an_esp_state_on_the_old_pair_undoes_the_move() -> None:
    world = World()
    world.child_elsewhere = True
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert "still on the old pair" in move.reason


async def test_the_earlier_steering_route_is_what_an_undo_gives_back() -> None:
    world = World()
    works = executor(world)
    await works.move(order(VIA_B))
    world.follows_not = True
    await works.move(order(VIA_A))
    assert world.routes == {GATEWAY: VIA_B}


async def test_an_old_path_that_is_gone_is_not_waited_for() -> None:
    world = World()
    world.follows_not = True
    move = await executor(world).move(order(give_back=False))
    assert move.state is MoveState.FAILED


SECOND_ADDRESS = ip_address("198.18.9.2")


async def test_an_sa_that_goes_to_another_address_of_the_peer_is_moved_there() -> None:
    world = World()

    def stray(path: Path) -> Path:
        astray = world.sa is not None and world.sa.path == VIA_A
        return Path(A, SECOND_ADDRESS) if astray else path

    world.led_to = stray
    move = await executor(world).move(order())
    assert (move.state, move.after) == (MoveState.VERIFIED, Path(B, SECOND_ADDRESS)), move.reason
    assert world.routes == {GATEWAY: VIA_B, SECOND_ADDRESS: Path(B, SECOND_ADDRESS)}


async def test_an_address_of_the_peer_that_other_sas_use_is_not_steered_for_one_that_went_there() -> None:
    world = World()
    world.used_by_others = {SECOND_ADDRESS}
    world.led_to = lambda _path: Path(A, SECOND_ADDRESS)
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert "other IKE_SAs" in move.reason
    assert SECOND_ADDRESS not in world.routes


async def test_an_sa_that_went_to_another_address_of_the_peer_and_no_further_is_given_everything_back() -> (
    None
):
    world = World()
    world.led_to = lambda _path: Path(A, SECOND_ADDRESS)
    move = await executor(world).move(order())
    assert move.state is MoveState.UNDONE
    assert world.routes == {GATEWAY: VIA_A}
    assert world.sa is not None
    assert world.sa.path == Path(A, SECOND_ADDRESS)


async def test_an_sa_that_dies_during_the_move_is_reported_as_gone() -> None:
    world = World()
    world.dies = True
    move = await executor(world).move(order())
    assert move.state is MoveState.FAILED
    assert "went away" in move.reason
    assert VIA_B not in world.routes.values()


async def test_a_charon_that_hangs_gets_its_old_way_back_and_no_path_is_blamed() -> None:
    world = World()
    world.hangs = True
    move = await executor(world).move(order())
    assert (move.state, move.blame, world.routes) == (MoveState.UNDONE, Blame.HOST, {GATEWAY: VIA_A})


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.05])
async def test_a_cancelled_move_puts_back_what_was_in_force_and_is_remembered(moment: float) -> None:
    world = World()
    world.follows_not = True
    world.slow = 0.02
    works = executor(world)
    task = asyncio.create_task(works.move(order()))
    await asyncio.sleep(moment)
    await asyncio.sleep(0)
    assert world.routes == {GATEWAY: VIA_B}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.routes == {GATEWAY: VIA_A}
    assert [(move.state, "given up" in move.reason) for move in works.history] == [(MoveState.FAILED, True)]


async def test_a_move_that_is_cancelled_twice_puts_back_what_was_in_force_all_the_same() -> None:
    world = World()
    works = executor(world)
    await works.move(order(VIA_B))
    world.follows_not = True
    world.slow = 0.05
    task = asyncio.create_task(works.move(order(VIA_A)))
    await asyncio.sleep(0.02)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.routes == {GATEWAY: VIA_B}
    assert not works.busy(GATEWAY)


async def test_a_cancelled_move_whose_undoing_fails_is_cancelled_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    works = executor(world)
    await works.move(order(VIA_B))
    world.follows_not = True

    async def broken(_remote: object, _before: object) -> None:
        raise NetlinkError("no answer from the kernel")

    monkeypatch.setattr(world, "restore", broken)
    task = asyncio.create_task(works.move(order(VIA_A)))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "no answer from the kernel" in works.history[-1].reason


async def test_a_charon_that_never_answers_does_not_hold_a_move_beyond_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    async def stuck(_uniqueid: int) -> IkeSa | None:
        await asyncio.sleep(60)
        return None

    monkeypatch.setattr(world.charon, "refresh", stuck)
    async with asyncio.timeout(2):
        move = await executor(world).move(order())
    assert (move.state, move.blame) == (MoveState.UNDONE, Blame.HOST)


async def test_who_waits_too_long_for_the_moves_of_others_is_told_so() -> None:
    world = World()
    world.follows_not = True
    works = executor(world)
    first = asyncio.create_task(works.move(replace(order(), timeout_s=0.5)))
    await asyncio.sleep(0)
    with pytest.raises(MoveError, match="under way"):
        await works.move(replace(order(VIA_A), timeout_s=0.05))
    assert (await first).state is MoveState.UNDONE
    assert not works.busy(GATEWAY)


async def test_a_hold_does_not_fall_into_the_middle_of_a_move() -> None:
    world = World()
    works = executor(world)
    moving = asyncio.create_task(works.move(order(VIA_B)))
    await asyncio.sleep(0.005)
    await works.hold(VIA_A, lambda: True)
    await works.let_go(GATEWAY, lambda: True)
    assert (await moving).state is MoveState.VERIFIED
    assert world.routes == {GATEWAY: VIA_B}


async def test_a_move_that_comes_while_an_sa_is_being_held_waits_for_that() -> None:
    world = World()
    world.slow = 0.02
    works = executor(world)
    holding = asyncio.create_task(works.hold(VIA_A, lambda: True))
    await asyncio.sleep(0.005)
    move = await works.move(order(VIA_B))
    await holding
    assert move.state is MoveState.VERIFIED
    assert world.routes == {GATEWAY: VIA_B}


async def test_what_is_no_longer_so_is_not_held() -> None:
    world = World()
    await executor(world).hold(VIA_A, lambda: False)
    assert world.routes == {}


async def test_an_unknown_sa_is_named() -> None:
    with pytest.raises(NotFoundError, match="no IKE_SA 99"):
        await executor(World()).move(order(sa=99))


async def test_only_an_established_sa_can_be_moved() -> None:
    world = World()
    assert world.sa is not None
    world.sa = replace(world.sa, state=IkeState.CONNECTING)
    with pytest.raises(MoveError, match="CONNECTING"):
        await executor(world).move(order())


async def test_moves_to_one_peer_come_one_after_the_other() -> None:
    world = World()
    works = executor(world)
    first, second = await asyncio.gather(works.move(order(VIA_B)), works.move(order(VIA_A)))
    assert first.done
    assert second.done
    assert second.steps[0].at >= first.steps[-1].at
    assert [move.number for move in works.history] == [1, 2]
