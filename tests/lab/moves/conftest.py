"""The lab of the moves: real charons and brokers, made anew for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..rmobike.lab import missing
from .lab import MoveLab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[MoveLab]:
    """Everything is built and nothing is started."""
    if reason := missing():
        pytest.skip(reason)
    lab = MoveLab(tmp_path)
    try:
        lab.build()
        yield lab
        await lab.stop()
    finally:
        await lab.demolish()


@pytest.fixture
async def ring(lab: MoveLab) -> MoveLab:
    """The same, with everything started and the client connected to gw1."""
    await lab.start()
    await lab.connect()
    return lab
