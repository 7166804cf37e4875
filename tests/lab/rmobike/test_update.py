"""update-addresses: the initiator moves an IKE_SA to a given path, and no route is touched (RFC 4555 section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import CharonRefusedError

if TYPE_CHECKING:
    from .lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]

TOKEN = "move-1"  # noqa: S105 - a name for the answer, no secret


async def update(lab: Lab, **args: str) -> None:
    number = (await lab.client.sa())["uniqueid"]
    await lab.client.command("update-addresses", ike_id=number, token=TOKEN, **args)


async def test_an_update_moves_both_ends_to_the_given_path(pair: Lab) -> None:
    routes = pair.client.shell("ip", "route", "show", "table", "main")
    ping = await pair.ping(300)
    await update(pair, local="198.18.3.2", remote="198.18.2.11")
    done = await pair.client.event("update-done", token=TOKEN)
    assert (done["local"], done["remote"], done["cause"]) == ("198.18.3.2", "198.18.2.11", "command")
    gateway = await pair.gateway.sa()
    assert (gateway["local-host"], gateway["remote-host"]) == ("198.18.2.11", "198.18.3.2")
    sent, answered = await ping.result()
    assert sent - answered <= 1
    assert pair.client.shell("ip", "route", "show", "table", "main") == routes


async def test_an_update_of_the_local_address_alone_keeps_the_remote_one(pair: Lab) -> None:
    await update(pair, local="198.18.3.2")
    done = await pair.client.event("update-done", token=TOKEN)
    assert (done["local"], done["remote"]) == ("198.18.3.2", "198.18.2.10")


async def test_a_path_that_does_not_answer_leaves_the_ike_sa_where_it_is(pair: Lab) -> None:
    pair.block("198.18.2.12")
    ping = await pair.ping(900)
    await update(pair, local="198.18.3.2", remote="198.18.2.12")
    failed = await pair.client.event("update-failed", token=TOKEN)
    assert failed["reason"] == "no-answer"
    sent, answered = await ping.result()
    assert sent == answered


async def test_a_path_without_a_route_is_told_at_once(pair: Lab) -> None:
    pair.client.shell("ip", "-6", "route", "flush", "default")
    await update(pair, remote="2001:db8:ffff::1")
    assert (await pair.client.event("update-failed", token=TOKEN))["reason"] == "no-route"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"local": "198.18.99.1"}, "not-local"),
        ({"local": "198.18.3.2", "remote": "2001:db8:2::10"}, "bad-address"),
        ({"remote": "example.org"}, "bad-address"),
        ({"remote": "0.0.0.0"}, "bad-address"),  # noqa: S104 - an address, nothing is bound
        ({}, "bad-address"),
    ],
)
async def test_an_impossible_path_is_refused(pair: Lab, args: dict[str, str], code: str) -> None:
    with pytest.raises(CharonRefusedError, match=code):
        await update(pair, **args)


async def test_a_responder_may_not_update(pair: Lab) -> None:
    number = (await pair.gateway.sa())["uniqueid"]
    with pytest.raises(CharonRefusedError, match="not-initiator"):
        await pair.gateway.command("update-addresses", ike_id=number, local="198.18.2.11")
