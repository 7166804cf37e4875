"""The lab of the plugin: real charons, made anew for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .lab import Lab, missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Namespaces and a router; the test configures and starts the charons itself."""
    if reason := missing():
        pytest.skip(reason)
    lab = Lab(tmp_path)
    try:
        lab.build()
        yield lab
        await lab.stop()
    finally:
        lab.demolish()


@pytest.fixture
async def pair(lab: Lab) -> Lab:
    """The same, with the plugin in both charons and an IKE_SA between them."""
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    return lab
