"""A stage for each test, gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import NotFoundError
from mobikectl.lab import record as records
from mobikectl.lab.instance import tear_down

from .stage import Stage, missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture
async def make_stage() -> AsyncIterator[Callable[..., Awaitable[Stage]]]:
    """Makes the test's stage, with clients as the test wants them."""
    if reason := missing():
        pytest.skip(reason)
    name = f"moves-{secrets.token_hex(4)}"
    made: list[Stage] = []

    async def make(**how: Any) -> Stage:
        made.append(Stage(name, **how))
        await made[0].up()
        return made[0]

    try:
        yield make
    finally:
        try:
            for stage in made:
                await stage.down()
        finally:
            with contextlib.suppress(NotFoundError):
                tear_down(records.load(name))
