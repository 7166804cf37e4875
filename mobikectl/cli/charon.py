"""How commands reach charon directly."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mobikectl.charon.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.cli.common import Settings


@contextlib.asynccontextmanager
async def charon_session(settings: Settings) -> AsyncIterator[Session]:
    """Given the settings, give a session with charon while the context lasts."""
    session = Session(settings.config.charon.socket, timeout=settings.config.charon.timeout_s)
    try:
        yield session
    finally:
        await session.aclose()
