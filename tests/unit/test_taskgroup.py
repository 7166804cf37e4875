"""A task goes on after its task group as if there had been none."""

# ruff: noqa: PT012 - what the group raises comes at the end of its block

from __future__ import annotations

import asyncio

import pytest

from mobikectl.taskgroup import TaskGroup


class LostError(Exception):
    """What a task of a group fails with."""


def requests() -> int:
    """How often the task that runs is asked to be cancelled."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def fail(after: asyncio.Event | None = None) -> None:
    if after is not None:
        await after.wait()
    raise LostError


async def stubborn(until: asyncio.Event) -> None:
    """Ends only then, however often it is cancelled."""
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


async def assert_timeouts_work() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_after_a_failure_while_it_was_waited_for_a_timeout_is_a_timeout() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tasks:
            tasks.create_task(fail())
    assert requests() == 0
    await assert_timeouts_work()


async def test_after_a_failure_while_something_else_was_done_a_timeout_is_a_timeout() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.Event().wait()
    assert requests() == 0
    await assert_timeouts_work()


async def test_after_a_failure_of_its_own_block_a_timeout_is_a_timeout() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())
            raise LostError
    assert requests() == 0
    await assert_timeouts_work()


async def test_after_two_groups_failed_at_once_one_in_the_other_a_timeout_is_a_timeout() -> None:
    lost = asyncio.Event()
    with pytest.raises(ExceptionGroup) as failed:
        async with TaskGroup() as outer:
            outer.create_task(fail(lost))
            async with TaskGroup() as inner:
                inner.create_task(fail(lost))
                asyncio.get_running_loop().call_soon(lost.set)
    assert failed.group_contains(LostError)
    assert requests() == 0
    await assert_timeouts_work()


async def test_who_is_cancelled_while_its_group_fails_is_cancelled() -> None:
    """As a leader is whose lease is lost in the moment in which it is to stop."""
    lost, ended, went_on = asyncio.Event(), asyncio.Event(), False

    async def lead() -> None:
        nonlocal went_on
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tasks:
                tasks.create_task(fail(lost))
                tasks.create_task(stubborn(ended))
        went_on = True

    leader = asyncio.create_task(lead())
    await asyncio.sleep(0)
    lost.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.sleep(0)
    ended.set()
    await asyncio.wait([leader])
    assert leader.cancelled()
    assert not went_on


async def test_a_timeout_around_a_group_that_fails_late_is_a_timeout() -> None:
    ended = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), TaskGroup() as tasks:
            tasks.create_task(stubborn(ended))
            asyncio.get_running_loop().call_later(0.03, ended.set)
    assert requests() == 0


async def test_a_group_that_goes_well_changes_nothing() -> None:
    async with TaskGroup() as tasks:
        done = tasks.create_task(asyncio.sleep(0, "done"))
    assert done.result() == "done"
    assert requests() == 0
