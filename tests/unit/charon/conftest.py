from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .fake_vici import FakeVici, fake_vici

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeVici]:
    async with fake_vici(tmp_path / "vici") as server:
        yield server
