"""The control socket under attack, and a charon that will not follow: whatever the sidecar is told, the SA lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import MobikectlError, MoveError

from .bench import FIRST, GW, WAN1, WAN2, Bench, told, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.slow]

GROWTH_MB = 60.0


def _post(body: bytes, *, length: int | None = None) -> bytes:
    head = (
        "POST /switch HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {length or len(body)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


GARBAGE = [
    b"\x00\xff" * 5000,
    b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"GET /events?backlog=" + b"9" * 8000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    _post(b"{" * 60_000),
    _post(b"[" * 60_000),
    _post(b'{"a":' * 10_000),
    _post(b"x" * 1_000_000),
    _post(b"{}", length=10_000_000_000),
    _post(b'{"sa": ' + b"9" * 20_000 + b', "to": "198.18.2.1"}'),
    b"POST /switch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
    + b"z" * 70_000,
]

HOSTILE: list[dict[str, Any]] = [
    {},
    {"sa": True, "to": WAN2},
    {"sa": 1.0, "to": WAN2},
    {"sa": [1], "to": WAN2},
    {"sa": {"$gt": 0}, "to": WAN2},
    {"sa": -1, "to": WAN2},
    {"sa": 2**70, "to": WAN2},
    {"peer": ["office"], "to": WAN2},
    {"peer": {"a": 1}, "to": WAN2},
    {"peer": "", "to": WAN2},
    {"peer": "office", "to": ["auto"]},
    {"peer": "office", "to": 3323068417},
    {"peer": "office", "to": "198.18.2.1/32"},
    {"peer": "office", "to": "fe80::1%wan2"},
    {"peer": "office", "to": "::ffff:198.18.2.1"},
    {"peer": "office", "to": "x" * 50_000},
    {"peer": "office", "to": "198.18.2.1; rm -rf /"},
    {"peer": "office", "to": WAN2, "timeout_s": -1},
    {"peer": "office", "to": WAN2, "timeout_s": "1"},
    {"peer": "office", "to": WAN2, "timeout_s": True},
    {"peer": "office", "to": WAN2, "timeout_s": float("nan")},
    {"peer": "office", "to": WAN2, "timeout_s": float("inf")},
    {"peer": "office", "to": WAN2, "from": {"x": 1}},
    {"peer": "office", "to": WAN2, "from": "198.18.7.7"},
]


async def _answer(bench: Bench, request: bytes) -> bytes:
    """Send bytes to the control socket and return what comes back, until it closes or falls silent."""
    reader, writer = await asyncio.open_unix_connection(str(bench.control_socket))
    got = b""
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2.0):
                await writer.drain()
                while chunk := await reader.read(65536):
                    got += chunk
    finally:
        writer.close()
    return got


async def test_garbage_and_hostile_values_are_refused_and_change_nothing(bench: Bench) -> None:
    await bench.start()
    before = bench.rss_mb()
    answers = await asyncio.gather(*(_answer(bench, garbage) for garbage in GARBAGE))
    for garbage, answer in zip(GARBAGE, answers, strict=True):
        assert answer[9:12] in (b"", b"400", b"404", b"413", b"431"), (garbage[:80], answer[:200])
    for request in HOSTILE:
        answer = await _answer(bench, _post(json.dumps(request).encode()))
        assert answer[9:12] in (b"400", b"409"), (request, answer[:300])
    assert "/mobikectl/" not in bench.log(), bench.log()[-3000:]  # as in a traceback through our own code
    await bench.healthy()
    assert bench.rss_mb() - before < GROWTH_MB
    assert bench.path() == FIRST
    assert not (await bench.state())["moves"]
    await bench.lives()
    await bench.leaves_nothing()


async def test_followers_that_never_read_hold_nobody_up(bench: Bench) -> None:
    await bench.start()
    before = bench.rss_mb()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(bench.control_socket))
            sock.sendall(b"GET /events?backlog=10000 HTTP/1.1\r\nHost: x\r\n\r\n")
        for to in (WAN2, WAN1, WAN2, WAN1):
            assert told(await bench.switch(to)) == "verified"
        for n in range(300):
            await bench.ip("client", f"addr add 198.19.0.{n % 250}/32 dev wan2")
            await bench.ip("client", f"addr del 198.19.0.{n % 250}/32 dev wan2")
        await bench.healthy()
        assert bench.rss_mb() - before < 200
        await bench.lives()
        took = await bench.leaves_nothing()
        assert took < 3.0, f"{took:.1f} s to end with followers that do not read"
    await bench.lives()


async def test_a_hundred_switches_that_contradict_each_other_end_in_one_place(bench: Bench) -> None:
    await bench.start()
    dice = random.Random(3)
    targets = [dice.choice([WAN1, WAN2, WAN1, WAN2, "198.18.77.7", GW]) for _ in range(100)]

    async def one(to: str) -> str:
        try:
            return str((await bench.switch(to, timeout=2.0))["state"])
        except MobikectlError as error:
            return type(error).__name__

    async with asyncio.timeout(40):
        ends = await asyncio.gather(*map(one, targets))
    assert ends.count("verified") >= 1
    assert set(ends) <= {"verified", "failed", "undone", "MoveError"}, ends
    await bench.healthy()
    await bench.lives()
    assert bench.path() in {FIRST, f"{WAN2} -> {GW}"}
    path = bench.path()
    assert told(await bench.switch(WAN2 if path == FIRST else WAN1)) == "verified"
    await bench.lives()
    await bench.leaves_nothing()


async def test_an_operator_who_goes_away_in_the_middle_of_a_switch_undoes_it(bench: Bench) -> None:
    await bench.start()
    await bench.silence("wan2")
    switching = asyncio.create_task(bench.switch(WAN2, timeout=20.0))

    async def under_way() -> bool:
        return any(WAN2 in route for route in await bench.steering())

    await until(under_way, what="the steering route of the move", every=0.01)
    switching.cancel()
    await asyncio.wait([switching])

    async def restored() -> bool:
        routes = await bench.steering()
        return not any(WAN2 in route for route in routes)

    await until(restored, what="the old route is back")
    await bench.lives()
    move = (await bench.state())["moves"][-1]
    assert move["state"] in {"undone", "failed"}, move


async def test_a_misspelt_dry_run_moves_nothing(bench: Bench) -> None:
    await bench.start()
    with pytest.raises(MoveError, match="dryrun"):
        await bench.switch(WAN2, dryrun=True)
    assert bench.path() == FIRST


async def test_where_the_operator_puts_an_idle_sa_the_policy_leaves_it_from_the_first_moment(
    bench: Bench,
) -> None:
    """wan1 is better and has been good for long: the policy would go back while the switch is being verified."""
    for pinger in bench.pingers.values():
        await asyncio.to_thread(pinger.__exit__)
    await bench.start()
    await asyncio.sleep(1.0)  # more than the hold-down
    assert told(await bench.switch(WAN2)) == "verified"
    await asyncio.sleep(1.5)
    moves = (await bench.state())["moves"]
    assert [m["state"] for m in moves] == ["verified"], moves
    assert bench.path() == f"{WAN2} -> {GW}"


async def test_without_prefer_best_path_a_switch_fails_clearly_and_doctor_says_why(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(strongswan="charon {\n  prefer_best_path = no\n}\n")
    await bench.start()
    move = await bench.switch(WAN2, timeout=1.0)
    assert told(move).startswith("undone"), told(move)
    assert "prefer_best_path" in move["reason"]
    assert bench.path() == FIRST
    await bench.lives()
    doctor = (sys.executable, "-m", "mobikectl", "doctor", "--json", "--config", "/run/mobikectl.toml")
    said = await bench.lab.run_in("client", *doctor, check=False)
    assert "prefer_best_path" in said
    assert "reload-settings" in said
    await bench.leaves_nothing()
