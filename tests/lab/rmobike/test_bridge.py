"""Any notify: sent, watched, preset."""

from __future__ import annotations

import re
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

TOKEN = "bridge-1"  # noqa: S105 - a name for the answer, no secret


async def send(lab: Lab, *notifies: str) -> None:
    number = (await lab.client.sa())["uniqueid"]
    await lab.client.command("send-notify", ike_id=number, token=TOKEN, notifies=list(notifies))


async def test_a_sent_notify_is_seen_by_a_peer_that_watches_its_type(pair: Lab) -> None:
    await pair.gateway.command("watch", types=["50001", "50002"])
    await send(pair, "50001:c0ffee", "50002", "50003:00")
    seen = await pair.gateway.event("notify", type="50001")
    assert (seen["data"], seen["exchange"], seen["request"]) == ("c0ffee", "INFORMATIONAL", "yes")
    assert (await pair.gateway.event("notify", type="50002"))["data"] == ""
    await pair.client.event("notify-answered", token=TOKEN)
    assert not [e for e in pair.gateway.events if e.message.get("type") == b"50003"]


async def test_a_rule_echoes_a_cookie_in_the_response(pair: Lab) -> None:
    await pair.gateway.command(
        "add-rule", name="echo", exchange="INFORMATIONAL", direction="response", when="50010", echo="yes",
        notify="50011",
    )  # fmt: skip
    await send(pair, "50010:1122334455667788")
    answer = await pair.client.event("notify-answered", token=TOKEN)
    assert answer["notify0"]["type"] == "50011"
    assert answer["notify0"]["data"] == "1122334455667788"


async def test_rules_add_notifies_to_ike_auth_in_both_directions(lab: Lab) -> None:
    await lab.gateway.start()
    await lab.client.start()
    await lab.client.command(
        "add-rule", name="ask", exchange="IKE_AUTH", direction="request", notify="50020:aa", count="1"
    )
    await lab.gateway.command(
        "add-rule", name="answer", exchange="IKE_AUTH", direction="response", when="50020", notify="50021:bb"
    )
    await lab.gateway.command("watch", types=["50020"])
    await lab.client.command("watch", types=["50021"])
    await lab.connect()
    assert (await lab.gateway.event("notify", type="50020"))["data"] == "aa"
    answer = await lab.client.event("notify", type="50021")
    assert (answer["exchange"], answer["data"], answer["request"]) == ("IKE_AUTH", "bb", "no")
    assert (await lab.client.command("list-rules"))["rules"] == {}, "it was for one message"


async def test_a_rule_for_one_ike_sa_follows_its_rekeying(pair: Lab) -> None:
    number = (await pair.gateway.sa())["uniqueid"]
    await pair.gateway.command(
        "add-rule",
        name="own",
        exchange="INFORMATIONAL",
        direction="response",
        notify="50030:01",
        ike_id=number,
    )
    async with pair.gateway.vici as session:
        await session.request("rekey", {"ike": "vpn"})
    await pair.client.event("ike-rekey")
    await send(pair, "50031:00")
    answer = await pair.client.event("notify-answered", token=TOKEN)
    assert answer["notify0"]["type"] == "50030"


async def test_a_removed_rule_has_no_effect(pair: Lab) -> None:
    await pair.gateway.command(
        "add-rule", name="gone", exchange="INFORMATIONAL", direction="response", notify="50040:01"
    )
    await pair.gateway.command("remove-rule", name="gone")
    await send(pair, "50041:00")
    assert "notify0" not in await pair.client.event("notify-answered", token=TOKEN)
    with pytest.raises(CharonRefusedError, match="unknown-rule"):
        await pair.gateway.command("remove-rule", name="gone")


async def test_a_notify_that_is_never_answered_ends_in_an_event(pair: Lab) -> None:
    pair.block("198.18.2.10")
    await send(pair, "50050:00")
    async with pair.client.vici as session:
        await session.request("terminate", {"ike": "vpn", "force": "yes", "timeout": "-1"})
    await pair.client.event("notify-failed", token=TOKEN)


BAD_REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("send-notify", {"ike_id": "1", "notifies": []}),
    ("send-notify", {"ike_id": "1", "notifies": ["70000:00"]}),
    ("send-notify", {"ike_id": "1", "notifies": ["50000:0"]}),
    ("send-notify", {"ike_id": "1", "notifies": ["50000:zz"]}),
    ("send-notify", {"ike_id": "1", "notifies": ["50000:" + "00" * 9000]}),
    ("send-notify", {"ike_id": "1", "notifies": ["50000"] * 33}),
    ("send-notify", {"ike_id": "999", "notifies": ["50000"]}),
    ("send-notify", {"ike_id": "-1", "notifies": ["50000"]}),
    ("send-notify", {"notifies": ["50000"]}),
    ("watch", {"types": ["0"]}),
    ("watch", {"types": ["x"]}),
    ("add-rule", {}),
    ("add-rule", {"name": "a", "exchange": "IKE_AUTH", "direction": "request"}),
    ("add-rule", {"name": "a b", "exchange": "IKE_AUTH", "direction": "request", "notify": "50000"}),
    ("add-rule", {"name": "a", "exchange": "CREATE_CHILD_SA", "direction": "request", "notify": "50000"}),
    ("add-rule", {"name": "a", "exchange": "IKE_AUTH", "direction": "up", "notify": "50000"}),
    (
        "add-rule",
        {"name": "a", "exchange": "IKE_AUTH", "direction": "request", "notify": "5", "when": "7"},
    ),
    (
        "add-rule",
        {"name": "a", "exchange": "IKE_AUTH", "direction": "response", "notify": "5", "echo": "yes"},
    ),
    (
        "add-rule",
        {"name": "a", "exchange": "IKE_AUTH", "direction": "request", "notify": "5", "ike_id": "99"},
    ),
    ("switch-address", {}),
    ("switch-address", {"ike_id": "1"}),
    ("switch-address", {"ike_id": "99", "address": "198.18.2.11"}),
    ("switch-address", {"ike_id": "4294967296", "address": "198.18.2.11"}),
    ("switch-address", {"ike_id": "1", "address": "198.18.2.11", "token": "x" * 65}),
    ("switch-address", {"ike_id": "1", "address": "198.18.2.11", "token": "a\x01b"}),
    ("switch-address", {"ike_id": "1", "address": "198.18.2.11", "timeout": "0"}),
    ("switch-address", {"ike_id": "1", "address": "198.18.2.77"}),
    ("switch-address", {"ike_id": "1", "address": "198.18.2.10"}),
    ("switch-address", {"ike_id": "1", "address": "%any"}),
    ("switch-address", {"ike_id": "1", "address": "224.0.0.1"}),
    ("switch-address", {"ike_id": "1", "address": "%s%n%H"}),
    ("update-addresses", {"ike_id": "99", "local": "198.18.2.11"}),
    ("set-peer", {"ike_id": "99", "peer_r": "yes"}),
    ("set-peer", {}),
    ("set-policy", {"accept": "everything"}),
    ("set-policy", {"allow": "198.18.0.0/99"}),
    ("set-policy", {"burst": "0"}),
    ("set-redirect", {}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateway": "a@b"}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateway": "198.18.2.11", "percent": "101"}),
    ("set-redirect", {"exchange": "INFORMATIONAL", "gateway": "198.18.2.11"}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateway": "198.18.2.11", "except": ["x" * 300]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": []}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["198.18.2.11"]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["x:198.18.2.11"]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["5:a@b"]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["60:198.18.2.11", "41:198.18.2.12"]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["0:198.18.2.11"] * 101}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateways": ["5:" + "x" * 300]}),
    ("set-redirect", {"exchange": "IKE_AUTH", "gateway": "198.18.2.11", "gateways": ["1:198.18.2.12"]}),
    ("explain-redirect", {}),
    ("explain-redirect", {"exchange": "IKE_SA_INIT", "address": "x"}),
    ("explain-redirect", {"exchange": "IKE_SA_INIT", "address": "198.18.1.2", "identity": "a"}),
    ("explain-redirect", {"exchange": "IKE_AUTH", "address": "198.18.1.2"}),
    ("clear-redirect", {"exchange": "?"}),
]


async def test_bad_requests_are_refused_with_a_reason_and_charon_lives(pair: Lab) -> None:
    accepted = []
    for command, args in BAD_REQUESTS:
        try:
            await pair.gateway.command(command, **args)
        except CharonRefusedError as error:
            assert re.search(r"[a-z-]+: \S", error.message)  # noqa: PT017 - the loop goes on
        else:
            accepted.append((command, args))
    assert accepted == []
    assert (await pair.gateway.command("status"))["plugin"] == b"rmobike"
    sent, answered = await (await pair.ping(20)).result()
    assert sent == answered


@pytest.mark.parametrize("notifies", [["50001:aa"] * 20, ["50001:" + "aa" * 1100]], ids=["20", "1100 octets"])
async def test_the_most_that_may_be_sent_is_answered(pair: Lab, notifies: list[str]) -> None:
    await send(pair, *notifies)
    await pair.client.event("notify-answered", token=TOKEN)
    assert await pair.client.sa()


@pytest.mark.parametrize(
    "notifies",
    [["50001:aa"] * 21, ["50001:" + "aa" * 1101], ["50001:" + "aa" * 600] * 2],
    ids=["21", "1101", "2x600"],
)
async def test_what_would_cost_the_ike_sa_is_refused(pair: Lab, notifies: list[str]) -> None:
    with pytest.raises(CharonRefusedError, match="1 to 20 items"):
        await send(pair, *notifies)
    assert await pair.client.sa()
