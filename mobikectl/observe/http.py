"""An HTTP application at an address and a port, for as long as it is wanted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from mobikectl.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.model import IpAddress


@contextlib.asynccontextmanager
async def listening(
    runner: web.AppRunner, address: IpAddress, port: int, *, what: str, table: str
) -> AsyncIterator[int]:
    """Serve an application over TCP while the context lasts; give the port (0 was any). Raise SidecarError.

    ``what`` is served, and ``table`` of the configuration says where: both are named when it cannot be.
    """
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, str(address), port).start()
        except OSError as error:
            raise SidecarError(
                f"{what} cannot be served at {address} port {port}: {error.strerror}",
                hint=f"change [{table}] address or port",
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
