"""The sidecar's side of the control socket."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from mobikectl.control.sockets import bound, claim
from mobikectl.errors import MobikectlError
from mobikectl.observe.http import Answers, Standing, json_answer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mobikectl.model import IpAddress
    from mobikectl.observe.events import EventLog

MAX_BODY = 64 * 1024
MAX_BACKLOG = 10_000
MAX_FOLLOWERS = 32
"""Readers of events at the same time; each keeps a queue of its own."""


class ControlApi(Standing, Protocol):
    """What the sidecar offers on its control socket."""

    events: EventLog

    async def switch(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Given a switch request, carry it out and return its outcome. Raise MobikectlError."""


@contextlib.asynccontextmanager
async def serve(api: ControlApi, path: Path) -> AsyncIterator[None]:
    """Serve ``api`` on the unix socket ``path`` while the context lasts. Raise SidecarError."""
    claim(path)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors_as_json])
    handlers = _Handlers(api)
    app.router.add_get("/healthz", handlers.healthz)
    app.router.add_get("/metrics", handlers.metrics)
    app.router.add_get("/state", handlers.state)
    app.router.add_get("/events", handlers.events)
    app.router.add_post("/switch", handlers.switch)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.SockSite(runner, bound(path)).start()
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def serve_metrics(api: ControlApi, address: IpAddress, port: int) -> AsyncIterator[int]:
    """Serve metrics and health alone over TCP while the context lasts; give the port. Raise SidecarError.

    Whoever reaches the address may read them: nothing else is served there.
    """
    app = web.Application(client_max_size=MAX_BODY)
    answers = Answers(api)
    app.router.add_get("/healthz", answers.healthz)
    app.router.add_get("/metrics", answers.metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    async with listening(runner, address, port, what="metrics", table="metrics") as chosen:
        yield chosen


@web.middleware
async def _errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except MobikectlError as error:
        body = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        return web.json_response(body, status=409)
    return response


class _Handlers(Answers):
    def __init__(self, api: ControlApi) -> None:
        super().__init__(api)
        self._api = api
        self._followers = 0

    async def switch(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except (ValueError, RecursionError) as error:  # of json: no JSON, a number too long, nested too deep
            raise web.HTTPBadRequest(text=f"not JSON: {str(error)[:200]}") from error
        if not isinstance(body, dict):
            raise web.HTTPBadRequest(text="expected a JSON object")
        return json_answer(dict(await self._api.switch(body)))

    async def events(self, request: web.Request) -> web.StreamResponse:
        try:
            backlog = min(max(int(request.query.get("backlog", "0")), 0), MAX_BACKLOG)
        except ValueError as error:
            raise web.HTTPBadRequest(text="backlog: expected a whole number") from error
        if self._followers >= MAX_FOLLOWERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_FOLLOWERS} readers follow the events already")
        self._followers += 1
        try:
            return await self._follow(request, backlog)
        finally:
            self._followers -= 1

    async def _follow(self, request: web.Request, backlog: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with contextlib.aclosing(self._api.events.follow(backlog=backlog)) as following:
            async for event in following:
                await response.write(event.as_json().encode() + b"\n")
        return response
