"""A bench for each test, gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import NotFoundError
from mobikectl.lab import record as records
from mobikectl.lab.instance import tear_down

from .bench import Bench, missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Makes the test's bench, with tunnels and charon's configuration as the test wants them."""
    if reason := missing():
        pytest.skip(reason)
    name = f"chaos-{secrets.token_hex(4)}"
    made: list[Bench] = []

    async def make(**how: Any) -> Bench:
        made.append(Bench(name, tmp_path, **how))
        await made[0].up()
        return made[0]

    try:
        yield make
    finally:
        try:
            for bench in made:
                await bench.down()
        finally:
            with contextlib.suppress(NotFoundError):
                tear_down(records.load(name))


@pytest.fixture
async def bench(make_bench: Callable[..., Awaitable[Bench]]) -> Bench:
    """One tunnel that is up, with pings; no sidecar yet."""
    return await make_bench()
