"""The page's server over real HTTP: what it answers whom, with which headers, and that it can only be read."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from mobikectl.config import parse
from mobikectl.errors import ConfigError, NotFoundError, SidecarError
from mobikectl.watch.rows import View
from mobikectl.watch.sa import SaHistory
from mobikectl.web import serve_web
from mobikectl.web.page import page

from ..watch.rows_made import cluster, event, local, move, sa, view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOPBACK = ip_address("127.0.0.1")
TOKEN = "a-token-of-enough-characters"  # noqa: S105


class Api:
    def __init__(self, seen: View) -> None:
        self.seen = seen
        self.ok = True

    def healthy(self) -> dict[str, Any]:
        return {"ok": self.ok}

    def state(self) -> dict[str, Any]:
        return {"sas": []}

    def metrics(self) -> bytes:
        return b"mobikectl_charon_up 1.0\n"

    async def view(self) -> View:
        return self.seen

    def sa(self, key: str) -> SaHistory:
        if key != "gw1/alice#1":
            raise NotFoundError("no such IKE_SA")
        return SaHistory(key, "alice", sa("alice"), ("it stays",), (move(1),))


@contextlib.asynccontextmanager
async def client(api: Api, token: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        serve_web(api, LOOPBACK, 0, token) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", cookie_jar=jar) as session,
    ):
        yield session


@pytest.fixture
def api() -> Api:
    return Api(view(cluster(moves=(move(1),)), local()))


async def test_the_view_holds_nodes_dots_moves_events_and_how_fresh_all_is(api: Api) -> None:
    async with client(api) as session, session.get("/api/view") as answer:
        told = await answer.json()
    assert [node["node"] for node in told["cluster"]["nodes"]] == ["gw1", "gw2"]
    assert told["cluster"]["dots"] == [
        ["alice@example.org", "gw1/alice@example.org#1", "gw1", ""],
        ["bob@example.org", "gw2/bob@example.org#1", "gw2", ""],
    ]
    assert told["cluster"]["moves"][0]["peers"] == ["peer1@example.org"]
    assert told["local"]["connections"][0]["name"] == "office"
    assert told["fresh"]["store"]["age_s"] == 0.2


async def test_however_much_there_is_an_answer_is_bounded(api: Api) -> None:
    many = tuple(sa(f"peer{n}") for n in range(3000))
    events = tuple(event(float(n)) for n in range(1000))
    api.seen = View(cluster(sas=many, moves=tuple(move(n) for n in range(1, 400))), None, events, {})
    async with client(api) as session:
        async with session.get("/api/view") as answer:
            told = await answer.json()
        assert told["cluster"]["dots"] is None
        assert told["cluster"]["total"] == 3000
        assert (len(told["cluster"]["moves"]), len(told["events"])) == (40, 100)
        async with session.get("/api/sas", params={"q": "peer1"}) as answer:
            told = await answer.json()
        assert len(told["rows"]) == 200
        assert told["total"] == 1111


async def test_one_ike_sa_is_told_or_said_to_be_unknown(api: Api) -> None:
    async with client(api) as session:
        async with session.get("/api/sa", params={"key": "gw1/alice#1"}) as answer:
            assert (await answer.json())["why"] == ["it stays"]
        async with session.get("/api/sa", params={"key": "gw1/<b>#1"}) as answer:
            assert answer.status == 404
            assert await answer.json() == {"message": "no such IKE_SA"}


async def test_health_state_and_metrics_are_there_as_on_the_control_socket(api: Api) -> None:
    async with client(api) as session:
        async with session.get("/metrics") as answer:
            assert b"charon_up" in await answer.read()
        async with session.get("/state") as answer:
            assert await answer.json() == {"sas": []}
        api.ok = False
        async with session.get("/healthz") as answer:
            assert answer.status == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/view", "/api/sa", "/state", "/switch"])
async def test_nothing_can_be_changed(api: Api, method: str, path: str) -> None:
    async with client(api) as session, session.request(method, path, json={}) as answer:
        assert answer.status in {404, 405}


@pytest.mark.parametrize("path", ["/", "/api/view", "/healthz", "/nowhere"])
async def test_every_answer_forbids_to_load_run_or_frame_anything_else(api: Api, path: str) -> None:
    async with client(api) as session, session.get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_request_under_another_name_is_not_answered(api: Api) -> None:
    async with client(api) as session:
        for path in ("/", "/api/view", "/state", "/metrics"):
            async with session.get(path, headers={"Host": "evil.example.org"}) as answer:
                assert answer.status == 403
                assert "alice" not in await answer.text()


async def test_a_token_in_the_address_becomes_a_cookie_and_vanishes_from_the_address(api: Api) -> None:
    async with client(api, TOKEN) as session:
        async with session.get("/api/view") as answer:
            assert answer.status == 401
        async with session.get("/", params={"token": TOKEN}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        async with session.get("/api/view") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("shown", ["", "x", TOKEN + "x", TOKEN[:-1], "\u20ac"])
async def test_a_wrong_token_gets_the_form_and_no_cookie(api: Api, shown: str) -> None:
    async with client(api, TOKEN) as session:
        async with session.post("/login", data={"token": shown}) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
        async with session.get("/api/view", headers={"Authorization": "Bearer nonsense"}) as answer:
            assert answer.status == 401


async def test_programs_show_the_token_as_a_bearer(api: Api) -> None:
    async with client(api, TOKEN) as session:
        async with session.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    async with client(api, TOKEN) as session:
        async with session.post("/login", data={"token": "x" * 100_000}) as answer:
            assert answer.status == 413


async def test_an_address_that_is_not_ours_is_an_error_with_what_to_do(api: Api) -> None:
    with pytest.raises(SidecarError, match="cannot be served"):
        async with serve_web(api, ip_address("198.51.100.1"), 0, TOKEN):
            pass


def test_the_page_allows_just_its_own_script_and_style_and_names_no_other_place() -> None:
    for name in ("page.html", "login.html"):
        made = page(name)
        assert made.policy.count("sha256-") == made.html.count(b"<style>") + made.html.count(b"<script>")
        for word in (b"http://", b"https://", b"src=", b"innerHTML", b"eval(", b"style="):
            assert word not in made.html, word


def test_beyond_loopback_the_configuration_wants_a_token() -> None:
    with pytest.raises(ConfigError, match=r"web\.token_file|token_file"):
        parse('[web]\nport = 9110\naddress = "198.18.30.11"\n', where="x")
    assert parse('[web]\nport = 9110\naddress = "::1"\n', where="x").web.port == 9110
    told = parse(
        '[web]\nport = 9110\naddress = "0.0.0.0"\ntoken_file = "/etc/mobikectl/web.token"\n', where="x"
    )
    assert str(told.web.token_file) == "/etc/mobikectl/web.token"
    assert parse("", where="x").web.port == 0


async def test_a_token_with_plus_signs_works_in_an_address_as_it_is_written(api: Api) -> None:
    token = "QTRgJvhjCaEX9+j9mnKH+fIWH1jAMnkD"  # noqa: S105
    async with client(api, token) as session:
        address = URL(f"/?token={token}", encoded=True)
        async with session.get(address, allow_redirects=False) as answer:
            assert answer.status == 303
        async with session.get("/api/view") as answer:
            assert answer.status == 200
