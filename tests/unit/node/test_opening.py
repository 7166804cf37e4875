"""A node that cannot carry IKE_SAs over goes on without, whatever was open already; it tries again for the HA port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mobikectl.charon.ha_port import HaPortTakenError
from mobikectl.cluster.backend import Backoff
from mobikectl.errors import ConfigError, innermost
from mobikectl.node.main import ClusterNode
from mobikectl.node.opening import AGAIN_MOST_S, CLOSED, Opening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from mobikectl.node.carriage import Carriage

TAKEN = HaPortTakenError("another process has it", hint="find it")
CERTIFICATE = ConfigError("node.pem: No such file", hint="make it")
WAITS = "another process has it (find it); it is tried again until the port is free"


class Tries:
    """What the node is made of, failing as it is told, one failure a try; then it opens."""

    def __init__(self, *failures: Exception) -> None:
        self.left = list(failures)
        self.count = 0
        self.closed = 0
        self.broke = asyncio.Event()

    def open(self) -> AbstractAsyncContextManager[Carriage]:
        opened: Any = self._open()
        return cast("AbstractAsyncContextManager[Carriage]", opened)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[str]:
        self.count += 1
        async with asyncio.TaskGroup() as tasks:  # as the HA broker's
            if self.left:
                failure = self.left.pop(0)
                raise failure
            breaks = tasks.create_task(self._break())
            try:
                yield "carriage"
            finally:
                self.closed += 1
                breaks.cancel()

    async def _break(self) -> None:
        await self.broke.wait()
        raise KeyError("ours")


class Told:
    def __init__(self) -> None:
        self.off: list[str] = []
        self.opened: list[object] = []

    async def on(self, carriage: object) -> None:
        self.opened.append(carriage)


def an_opening(tries: Tries, told: Told, pauses: Callable[[], float] = lambda: 0.0) -> Opening:
    wait: Any = SimpleNamespace(next=pauses)
    return Opening(tries.open, opened=told.on, off=told.off.append, wait=wait)


async def until(seen: Callable[[], bool]) -> None:
    for _ in range(1000):
        if seen():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_certificate_that_cannot_be_used_is_told_and_the_node_goes_on() -> None:
    tries, told = Tries(CERTIFICATE), Told()
    opening = an_opening(tries, told)
    await opening.run()
    await opening.tried()
    assert told.off == [opening.why_not] == ["node.pem: No such file (make it)"]
    assert (opening.carriage, tries.count) == (None, 1)


async def test_while_the_ha_port_is_anothers_it_is_told_once_and_tried_again_until_it_is_free() -> None:
    tries, told = Tries(TAKEN, TAKEN, TAKEN), Told()
    pauses: list[str] = []

    def pause() -> float:
        pauses.append(opening.why_not)
        return 0.0

    opening = an_opening(tries, told, pause)
    task = asyncio.create_task(opening.run())
    await until(lambda: opening.carriage is not None)
    assert told.off == [WAITS]
    assert pauses == [WAITS] * 3  # what `doctor` is told meanwhile
    assert (opening.why_not, told.opened, tries.count) == ("", ["carriage"], 4)
    await ended(task)
    assert (opening.carriage, opening.why_not, tries.closed) == (None, CLOSED, 1)


async def test_the_rest_of_the_node_waits_for_the_first_try_only() -> None:
    tries, told = Tries(TAKEN), Told()
    opening = an_opening(tries, told, lambda: 3600.0)
    task = asyncio.create_task(opening.run())
    async with asyncio.timeout(5):
        await opening.tried()
    assert (tries.count, opening.carriage) == (1, None)
    await ended(task)


async def test_another_reason_than_before_is_told_and_ends_the_tries() -> None:
    tries, told = Tries(TAKEN, CERTIFICATE), Told()
    opening = an_opening(tries, told)
    await opening.run()
    assert told.off == [WAITS, "node.pem: No such file (make it)"]
    assert opening.why_not == told.off[-1]


async def test_nothing_is_used_before_it_was_told_that_it_is_open() -> None:
    tries = Tries()
    seen: list[object] = []

    async def opened(_: object) -> None:
        seen.append(opening.carriage)

    opening = Opening(tries.open, opened=opened, off=lambda _: None)
    task = asyncio.create_task(opening.run())
    await until(lambda: opening.carriage is not None)
    assert seen == [None]
    await ended(task)


async def test_a_fault_of_our_own_is_not_hidden() -> None:
    opening = an_opening(Tries(KeyError("ours")), Told())
    with pytest.raises(ExceptionGroup):
        await opening.run()
    async with asyncio.timeout(5):
        await opening.tried()  # nobody waits for it for ever


async def test_what_breaks_while_it_is_open_ends_it() -> None:
    tries = Tries()
    opening = an_opening(tries, Told())
    task = asyncio.create_task(opening.run())
    await until(lambda: opening.carriage is not None)
    tries.broke.set()
    with pytest.raises(ExceptionGroup) as failed:
        await task
    assert isinstance(innermost(failed.value), KeyError)
    assert opening.carriage is None


def test_the_pauses_grow_and_are_bounded() -> None:
    wait = Opening(cast("Any", None), opened=cast("Any", None), off=lambda _: None)._wait
    assert isinstance(wait, Backoff)
    pauses = [wait.next() for _ in range(20)]
    assert pauses[0] <= 1.0 < pauses[4]
    assert max(pauses) <= AGAIN_MOST_S


# --- what the node makes of it ------------------------------------------------------------------------


def test_the_node_tells_once_that_it_is_off_and_once_that_it_is_on() -> None:
    told: list[str] = []
    node: Any = SimpleNamespace(
        _told_carries=None, _tell=lambda kind, text, _: told.append(f"{kind}: {text}")
    )
    for why in (WAITS, WAITS, "", "", "charon's rmobike plugin is not there", ""):
        ClusterNode._tell_carries(node, why)
    assert told == [
        f"carries-nothing: IKE_SAs are not carried over to or from here: {WAITS}",
        "carries: IKE_SAs are carried over to and from here",
        "carries-nothing: IKE_SAs are not carried over to or from here: charon's rmobike plugin is not there",
        "carries: IKE_SAs are carried over to and from here",
    ]


async def test_who_is_a_member_already_when_it_opens_gives_up_first_what_others_took_over() -> None:
    done: list[str] = []

    async def leave() -> None:
        done.append("left")

    tries = Tries(TAKEN)
    carriage: Any = SimpleNamespace(standing=SimpleNamespace(leave=leave), carrier="carrier")
    node: Any = SimpleNamespace(
        settings=None, _instance="", _beside=None, _reporter=None, _events=None, _lease=None, _watch=None,
        _names=SimpleNamespace(find=None), _tell_carries=done.append, _presence=object(),
        _executor=SimpleNamespace(carry_with=done.append),
    )  # fmt: skip
    opening = ClusterNode._make_opening(node, cast("Any", None), cast("Any", None))
    opening._open_it = lambda: cast("Any", nullcontext(carriage)) if tries.count else tries.open()
    opening._wait = cast("Any", SimpleNamespace(next=lambda: 0.0))
    task = asyncio.create_task(opening.run())
    await until(lambda: opening.carriage is not None)
    assert done == [WAITS, "left", "carrier"]
    await ended(task)
