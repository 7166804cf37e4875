"""The control socket, served and used over a real unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from mobikectl.control import ControlClient, serve, serve_metrics
from mobikectl.control.server import MAX_FOLLOWERS
from mobikectl.control.sockets import bound
from mobikectl.errors import MoveError, SidecarError
from mobikectl.observe.events import EventLog, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Api:
    def __init__(self) -> None:
        self.events = EventLog()
        self.ok = True
        self.requests: list[Mapping[str, Any]] = []

    def healthy(self) -> dict[str, Any]:
        return {"ok": self.ok}

    def state(self) -> dict[str, Any]:
        return {"sas": [], "address": "198.18.0.1"}

    def metrics(self) -> bytes:
        return b"mobikectl_charon_up 1.0\n"

    async def switch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        if request["to"] == "slow":
            await asyncio.sleep(60)
        if request["to"] == "bad":
            raise MoveError("the peer did not follow", hint="look at its log")
        return {"outcome": "verified"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def test_state_health_and_switch_come_back(path: Path) -> None:
    api = Api()
    async with serve(api, path), ControlClient(path) as client:
        assert (await client.state())["address"] == "198.18.0.1"
        assert await client.health() == {"ok": True}
        assert await client.switch({"to": "198.18.0.2"}, timeout=5) == {"outcome": "verified"}
    assert api.requests == [{"to": "198.18.0.2"}]


async def test_an_unhealthy_sidecar_still_answers_and_says_so_by_its_status(path: Path) -> None:
    api = Api()
    api.ok = False
    async with serve(api, path), ControlClient(path) as client:
        assert await client.health() == {"ok": False}
        async with client._session.get("/healthz") as answer:
            assert answer.status == 503


async def test_a_refusal_arrives_as_the_same_error_with_its_hint(path: Path) -> None:
    async with serve(Api(), path), ControlClient(path) as client:
        with pytest.raises(MoveError) as caught:
            await client.switch({"to": "bad"}, timeout=5)
    assert caught.value.hint == "look at its log"


async def test_an_answer_that_does_not_come_ends_at_the_deadline(path: Path) -> None:
    async with serve(Api(), path), ControlClient(path) as client:
        with pytest.raises(SidecarError, match="in time"):
            await client.switch({"to": "slow"}, timeout=0.05)


async def test_events_are_followed_from_the_backlog_on(path: Path) -> None:
    api = Api()
    api.events.record(Source.NETLINK, "link-down", "eth0")
    async with asyncio.timeout(5), serve(api, path), ControlClient(path) as client:
        async with contextlib.aclosing(client.events(backlog=5)) as events:
            assert (await anext(events))["name"] == "link-down"
            api.events.record(Source.ACTION, "move", "moved")
            assert (await anext(events))["source"] == "action"


@pytest.mark.parametrize("body", ["{", "[]", '"text"'])
async def test_a_body_that_is_no_object_is_refused(path: Path, body: str) -> None:
    async with serve(Api(), path), ControlClient(path) as client:
        async with client._session.post("/switch", data=body) as answer:
            assert answer.status == 400


async def test_a_body_beyond_the_limit_is_refused(path: Path) -> None:
    async with serve(Api(), path), ControlClient(path) as client:
        async with client._session.post("/switch", data=json.dumps({"to": "x" * 100_000})) as answer:
            assert answer.status == 413


async def test_the_socket_is_closed_to_others_and_goes_with_the_sidecar(path: Path) -> None:
    async with serve(Api(), path):
        assert path.stat().st_mode & 0o777 == 0o660
        assert path.parent.stat().st_mode & 0o007 == 0
    assert not path.exists()


def test_the_socket_never_was_open_to_others_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with bound(tmp_path / "sock"):
            assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o660
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_readers_of_events_are_bounded_and_a_place_that_is_left_is_free(path: Path) -> None:
    api = Api()
    api.events.record(Source.NETLINK, "link-down", "eth0")
    async with asyncio.timeout(20), serve(api, path), ControlClient(path) as client:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_FOLLOWERS):
                following = await stack.enter_async_context(ControlClient(path))
                events = await stack.enter_async_context(contextlib.aclosing(following.events(backlog=1)))
                assert (await anext(events))["name"] == "link-down"
            with pytest.raises(SidecarError, match="readers follow the events already"):
                await anext(client.events(backlog=1))
            assert (await client.health())["ok"]
        while True:
            with contextlib.suppress(SidecarError):
                assert (await anext(client.events(backlog=1)))["name"] == "link-down"
                break


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serve(Api(), path):
        with pytest.raises(SidecarError, match="another sidecar"):
            async with serve(Api(), path):
                pass
        async with ControlClient(path) as client:
            assert (await client.health())["ok"]


async def test_a_file_in_the_way_is_not_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(SidecarError, match="not a socket"):
        async with serve(Api(), path):
            pass
    assert path.read_text() == "precious"


async def test_without_a_sidecar_the_error_says_how_to_start_one(path: Path) -> None:
    with pytest.raises(SidecarError) as caught:
        async with ControlClient(path):
            pass
    assert "mobikectl run" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a socket away needs root")
async def test_a_socket_of_another_user_is_not_trusted(path: Path) -> None:
    async with serve(Api(), path):
        os.chown(path, 12345, 12345)
        with pytest.raises(SidecarError, match="belongs to user 12345"):
            async with ControlClient(path):
                pass


async def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(SidecarError, match="107 bytes"):
        async with serve(Api(), tmp_path / ("x" * 120)):
            pass


async def test_metrics_are_served_on_the_socket_as_prometheus_wants_them(path: Path) -> None:
    async with serve(Api(), path), ControlClient(path) as client:
        async with client._session.get("/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert await answer.text() == "mobikectl_charon_up 1.0\n"


async def test_over_tcp_there_are_metrics_and_health_and_nothing_else() -> None:
    async with (
        serve_metrics(Api(), ip_address("127.0.0.1"), 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        statuses = {}
        for target in ("/metrics", "/healthz", "/state", "/events"):
            async with session.get(target) as answer:
                statuses[target] = answer.status
        async with session.post("/switch", json={"to": "198.18.0.2"}) as answer:
            statuses["/switch"] = answer.status
    assert statuses == {"/metrics": 200, "/healthz": 200, "/state": 404, "/events": 404, "/switch": 404}


async def test_a_port_that_is_taken_is_one_clear_error() -> None:
    async with serve_metrics(Api(), ip_address("127.0.0.1"), 0) as port:
        with pytest.raises(SidecarError, match=f"127.0.0.1 port {port}"):
            async with serve_metrics(Api(), ip_address("127.0.0.1"), port):
                pass
