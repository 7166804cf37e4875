"""What each HTTP server of a sidecar has: its answers about health, state and metrics, and an address and a port."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from mobikectl.errors import SidecarError
from mobikectl.observe.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mobikectl.model import IpAddress


class Standing(Protocol):
    """How a sidecar stands."""

    def healthy(self) -> Mapping[str, Any]:
        """Return ``{"ok": bool, ...}`` with what is wrong."""

    def state(self) -> Mapping[str, Any]:
        """Return the whole state, JSON-able."""

    def metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""


class Answers:
    """Handlers that tell how a sidecar stands, wherever it is asked."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def healthz(self, _request: web.Request) -> web.Response:
        """Answer 200, or 503 when something is wrong."""
        health = self._standing.healthy()
        return json_answer(dict(health), status=200 if health.get("ok") else 503)

    async def state(self, _request: web.Request) -> web.Response:
        """Answer the whole state."""
        return json_answer(dict(self._standing.state()))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer the metrics."""
        return web.Response(body=self._standing.metrics(), headers={"Content-Type": CONTENT_TYPE})


def json_answer(body: Any, *, status: int = 200) -> web.Response:
    """Given what is to be told, return it as JSON; what JSON has no word for goes as text."""
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, default=str))


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
