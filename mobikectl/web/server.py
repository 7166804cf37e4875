"""Serves the page and what it polls, over HTTP. Read-only: there is nothing here that changes anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from mobikectl.errors import MobikectlError, NotFoundError
from mobikectl.observe.http import Answers, Standing, json_answer, listening
from mobikectl.observe.plain import plain
from mobikectl.watch.view import Choice
from mobikectl.web.guard import Guard
from mobikectl.web.page import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobikectl.model import IpAddress
    from mobikectl.watch.rows import View
    from mobikectl.watch.sa import SaHistory

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COOKIE = "mobikectl"
AT_ONCE = 32
"""Requests that are answered at the same time; others are told to come again."""
ANSWER_S = 10.0
MAX_BODY = 4096
DOTS = 600
"""IKE_SAs whose place is told one by one; where there are more, the nodes' numbers must do."""
ROWS = 200
"""IKE_SAs of one list."""
MOVES, EVENTS = 40, 100
LONGEST = 300
"""Characters of a text to search for, or of a key."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class WebApi(Standing, Protocol):
    """What a sidecar shows."""

    async def view(self) -> View:
        """Return what there is to see; in a second at most, however dead a source may be."""

    def sa(self, key: str) -> SaHistory:
        """Given an IKE_SA's name in the cluster, return what is known of it. Raise NotFoundError."""


@contextlib.asynccontextmanager
async def serve_web(api: WebApi, address: IpAddress, port: int, token: str | None) -> AsyncIterator[int]:
    """Serve the page at ``address`` while the context lasts; give the port. Raise SidecarError.

    ``token``: what a reader must show; None: only readers at a loopback name are answered.
    """
    site = _Site(api, Guard(token))
    app = web.Application(client_max_size=MAX_BODY, middlewares=[site.guarded])
    app.router.add_get("/", site.page)
    app.router.add_post("/login", site.login)
    for path, handler in (
        ("/api/view", site.view),
        ("/api/sas", site.sas),
        ("/api/sa", site.sa),
        ("/healthz", site.healthz),
        ("/state", site.state),
        ("/metrics", site.metrics),
    ):
        app.router.add_get(path, handler)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True, keepalive_timeout=15.0
    )
    async with listening(runner, address, port, what="the web page", table="web") as chosen:
        yield chosen


class _Site(Answers):
    def __init__(self, api: WebApi, guard: Guard) -> None:
        super().__init__(api)
        self._api = api
        self._guard = guard
        self._busy = 0

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may; bound how many at once and for how long; add the headers to every answer."""
        if self._busy >= AT_ONCE:
            return web.Response(status=503, text="busy", headers={**HEADERS, "Retry-After": "1"})
        self._busy += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._answer(request, handler)
        except web.HTTPException as error:
            error.headers.extend(HEADERS)
            raise
        except NotFoundError as error:
            answer = web.json_response({"message": error.message}, status=404)
        except MobikectlError as error:
            answer = web.json_response({"message": error.message, "hint": error.hint}, status=503)
        except TimeoutError:
            answer = web.Response(status=503, text="no answer in time")
        finally:
            self._busy -= 1
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/login":
            return await handler(request)
        # In an address a plus sign stands for a blank, and a token has no blanks: whoever copied it meant the sign.
        shown = request.query.get("token", "").replace(" ", "+")
        if request.path == "/" and shown and self._guard.is_token(shown):
            return self._welcome()
        if self._guard.admits(
            host=request.host,
            authorization=request.headers.get("Authorization", ""),
            cookie=request.cookies.get(COOKIE, ""),
        ):
            return await handler(request)
        if not self._guard.wants_token:
            return web.json_response({"message": "ask by the name localhost"}, status=403)
        if request.path == "/":
            return _html("login.html", status=401)
        return web.json_response({"message": "show the token"}, status=401)

    def _welcome(self) -> web.Response:
        """Give a cookie for the token, and a page without it in its address."""
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(COOKIE, self._guard.enter(), httponly=True, samesite="Strict", path="/")
        return answer

    async def login(self, request: web.Request) -> web.Response:
        """Take the token from the form."""
        form = await request.post()
        shown = form.get("token", "")
        if isinstance(shown, str) and self._guard.is_token(shown.strip()):
            return self._welcome()
        return _html("login.html", status=401)

    async def page(self, _request: web.Request) -> web.Response:
        """Give the page."""
        return _html("page.html")

    async def view(self, _request: web.Request) -> web.Response:
        """Give what is shown at a glance."""
        view = await self._api.view()
        cluster = view.cluster
        body: dict[str, Any] = {
            "now": time.time(),
            "cluster": None,
            "local": plain(view.local),
            "events": plain(view.events[-EVENTS:]),
            "fresh": plain(view.fresh),
        }
        if cluster is not None:
            body["cluster"] = {
                **{
                    name: plain(getattr(cluster, name))
                    for name in (
                        "name",
                        "leader",
                        "paused",
                        "paused_by",
                        "even_level",
                        "nodes",
                        "moving",
                        "notes",
                    )
                },
                "moves": plain(Choice().moves(cluster.moves)[:MOVES]),
                "total": len(cluster.sas),
                "dots": [[sa.peer_id, sa.key, sa.node, sa.moving_to] for sa in cluster.sas]
                if len(cluster.sas) <= DOTS
                else None,
            }
        return json_answer(body)

    async def sas(self, request: web.Request) -> web.Response:
        """Give the IKE_SAs that hold a text, the busiest first."""
        view = await self._api.view()
        choice = Choice(text=request.query.get("q", "")[:LONGEST])
        found = choice.sas(view.cluster.sas if view.cluster else (), request.query.get("node", ""))
        return json_answer({"total": len(found), "rows": plain(found[:ROWS])})

    async def sa(self, request: web.Request) -> web.Response:
        """Give all that is known of one IKE_SA."""
        return json_answer(plain(self._api.sa(request.query.get("key", "")[:LONGEST])))


def _html(name: str, status: int = 200) -> web.Response:
    made = page(name)
    return web.Response(
        body=made.html,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": made.policy},
    )
