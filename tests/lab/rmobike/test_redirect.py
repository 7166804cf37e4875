"""Redirects in IKE_SA_INIT and IKE_AUTH, whose answer is set at run time (RFC 5685 sections 3 and 6)."""

from __future__ import annotations

import asyncio
import ipaddress
import tomllib
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.rmobike import (
    PluginRefusedError,
    RedirectAnswer,
    RedirectExchange,
    RedirectReason,
    RedirectVerdict,
    Rmobike,
)
from mobikectl.policy.placement import Placement, Share

from .lab import ROOT

if TYPE_CHECKING:
    from .lab import Lab

INIT, AUTH = RedirectExchange.IKE_SA_INIT, RedirectExchange.IKE_AUTH

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]


@pytest.fixture
async def started(lab: Lab) -> Lab:
    await lab.gateway.start()
    await lab.client.start()
    return lab


async def test_a_new_client_is_redirected_in_ike_sa_init_and_stays_there(started: Lab) -> None:
    """The other gateway is the same one at another address: it must not redirect again who was redirected."""
    await started.gateway.command("set-redirect", exchange="IKE_SA_INIT", gateway="198.18.2.11")
    await started.connect()
    told = await started.gateway.event("redirected")
    assert (told["exchange"], told["remote"], told["gateway"]) == ("IKE_SA_INIT", "198.18.1.2", "198.18.2.11")
    assert "remote-id" not in told
    assert (await started.client.sa())["remote-host"] == "198.18.2.11"
    assert started.gateway.names().count("redirected") == 1


async def test_a_new_client_is_redirected_in_ike_auth_by_its_identity(started: Lab) -> None:
    """The client has the plugin: without it, charon 5.9.8 aborts as client (docs/rmobike.md)."""
    await started.gateway.command("set-redirect", exchange="IKE_AUTH", gateway="198.18.2.11")
    await started.connect()
    told = await started.gateway.event("redirected")
    assert (told["exchange"], told["remote-id"], told["gateway"]) == ("IKE_AUTH", "client", "198.18.2.11")
    await started.client.sa(remote_host="198.18.2.11")
    assert started.gateway.names().count("redirected") == 1
    sent, answered = await (await started.ping(20)).result()
    assert sent == answered


async def test_an_excepted_client_is_not_redirected(started: Lab) -> None:
    await started.gateway.command(
        "set-redirect", exchange="IKE_AUTH", gateway="198.18.2.11", **{"except": ["198.18.99.0/24", "client"]}
    )
    await started.gateway.command(
        "set-redirect", exchange="IKE_SA_INIT", gateway="198.18.2.11", **{"except": ["198.18.1.0/24"]}
    )
    await started.connect()
    assert (await started.client.sa())["remote-host"] == "198.18.2.10"


async def test_a_share_of_nothing_redirects_nobody(started: Lab) -> None:
    await started.gateway.command("set-redirect", exchange="IKE_SA_INIT", gateway="198.18.2.11", percent="0")
    await started.connect()
    assert (await started.client.sa())["remote-host"] == "198.18.2.10"


async def test_a_cleared_redirect_redirects_nobody(started: Lab) -> None:
    for exchange in ("IKE_SA_INIT", "IKE_AUTH"):
        await started.gateway.command("set-redirect", exchange=exchange, gateway="198.18.2.11")
        await started.gateway.command("clear-redirect", exchange=exchange)
    await started.connect()
    assert (await started.client.sa())["remote-host"] == "198.18.2.10"


async def test_a_client_is_redirected_to_a_name(started: Lab) -> None:
    """The name cannot be resolved here: what counts is that the client was told it."""
    await started.client.command("watch", types=["16407"])
    await started.gateway.command("set-redirect", exchange="IKE_SA_INIT", gateway="gw2.example.org")
    await started.load_pair()
    async with started.client.vici as session:
        await session.request("initiate", {"child": "net", "ike": "vpn", "timeout": "-1"})
    seen = await started.client.event("notify", type="16407")
    data = bytes.fromhex(seen["data"])
    assert data[:2] == bytes([3, len("gw2.example.org")])
    assert data[2:].startswith(b"gw2.example.org")


async def test_a_client_is_redirected_to_an_ipv6_gateway(started: Lab) -> None:
    await started.gateway.command("set-redirect", exchange="IKE_SA_INIT", gateway="2001:db8:2::10")
    await started.connect()
    assert ipaddress.ip_address((await started.client.sa())["remote-host"]).version == 6


async def test_a_share_splits_clients_by_their_address_and_always_alike(started: Lab) -> None:
    await started.gateway.command("set-redirect", exchange="IKE_SA_INIT", gateway="198.18.2.11", percent="50")
    outcomes = set()
    for number in range(20, 32):
        started.client.shell("ip", "addr", "add", f"198.18.1.{number}/24", "dev", "a0")
    for number in (*range(20, 32), *range(20, 32)):
        since = len(started.client.events)
        await started.load_pair(local_addrs=[f"198.18.1.{number}"])
        async with started.client.vici as session:
            await session.request("initiate", {"child": "net", "ike": "vpn", "timeout": "-1"})
            await started.client.event("ike-updown", since=since, up="yes")
            outcomes.add((number, (await started.client.sa())["remote-host"]))
            await session.request("terminate", {"ike": "vpn", "timeout": "20000"})
    assert len(outcomes) == 12, "a client got two answers"
    assert {remote for _, remote in outcomes} == {"198.18.2.10", "198.18.2.11"}


def plugin_of(lab: Lab) -> Rmobike:
    return Rmobike(lab.gateway.directory / "rmobike", timeout=20.0)


async def test_the_plugin_divides_clients_by_the_same_hash_as_the_placement_policy(started: Lab) -> None:
    vectors = tomllib.loads((ROOT / "tests" / "vectors" / "buckets.toml").read_text())
    async with plugin_of(started) as gateway:
        for vector in vectors["address"]:
            address = ipaddress.ip_address(vector["address"])
            verdict = await gateway.explain_redirect(INIT, address)
            assert verdict == RedirectVerdict(vector["bucket"], RedirectReason.OFF), vector
        for vector in vectors["identity"]:
            verdict = await gateway.explain_redirect(
                AUTH, ipaddress.ip_address("198.18.1.2"), vector["identity"]
            )
            assert verdict.bucket == vector["bucket"], vector


async def test_the_plugin_answers_each_client_what_the_placement_policy_says(started: Lab) -> None:
    """Kept ones first, then the shares in their order; an edge of a share is the edge of a bucket."""
    shares = [("gw2", "198.18.2.11", 20), ("gw3", "2001:db8:2::10", 0), ("gw4", "2001:db8:2::11", 45)]
    placement = Placement(
        "gw1", 35, tuple(Share(node, ipaddress.ip_address(ip), part) for node, ip, part in shares), "a test"
    )
    async with plugin_of(started) as gateway:
        answer = RedirectAnswer(shares=tuple((share.address, share.percent) for share in placement.shares))
        await gateway.set_redirect(INIT, answer)
        seen = set()
        for number in range(250):
            client = ipaddress.ip_address(f"198.18.1.{number + 1}")
            verdict = await gateway.explain_redirect(INIT, client)
            share = placement.target(client.packed)
            assert verdict.gateway == (str(share.address) if share else None)
            assert verdict.reason is (RedirectReason.REDIRECTED if share else RedirectReason.KEPT)
            seen.add(verdict.gateway)
    assert seen == {None, "198.18.2.11", "2001:db8:2::11"}


async def test_an_exception_is_explained(started: Lab) -> None:
    async with plugin_of(started) as gateway:
        await gateway.set_redirect(
            INIT, RedirectAnswer("gw2.example.org", except_for=(ipaddress.ip_network("198.18.1.0/24"),))
        )
        for address, reason, target in (
            ("198.18.1.2", RedirectReason.EXCEPTED, None),
            ("198.18.3.2", RedirectReason.REDIRECTED, "gw2.example.org"),
        ):
            verdict = await gateway.explain_redirect(INIT, ipaddress.ip_address(address))
            assert (verdict.reason, verdict.gateway) == (reason, target)


async def test_who_does_not_set_a_redirect_again_redirects_nobody_any_more(started: Lab) -> None:
    """A controller that was killed must not send clients to a gateway that died after it."""
    client = ipaddress.ip_address("198.18.1.2")
    async with plugin_of(started) as gateway:
        await gateway.set_redirect(INIT, RedirectAnswer("gw2.example.org"), lifetime_s=2)
        assert (await gateway.explain_redirect(INIT, client)).reason is RedirectReason.REDIRECTED
        async with asyncio.timeout(10):
            while (await gateway.explain_redirect(INIT, client)).reason is not RedirectReason.OFF:  # noqa: ASYNC110 (it tells no event)
                await asyncio.sleep(0.1)
        await gateway.set_redirect(INIT, RedirectAnswer("gw2.example.org"))
        assert (await gateway.explain_redirect(INIT, client)).reason is RedirectReason.REDIRECTED
        with pytest.raises(PluginRefusedError, match="lifetime"):
            await gateway.set_redirect(INIT, RedirectAnswer("gw2.example.org"), lifetime_s=100_000)


async def test_new_clients_are_spread_over_several_gateways(started: Lab) -> None:
    """The client's address has bucket 87 (tests/vectors): its answer follows the edge of the shares."""
    for first, expected in ((87, "198.18.2.12"), (88, "198.18.2.11")):
        async with plugin_of(started) as gateway:
            answer = RedirectAnswer(
                shares=(
                    (ipaddress.ip_address("198.18.2.11"), first),
                    (ipaddress.ip_address("198.18.2.12"), 100 - first),
                )
            )
            await gateway.set_redirect(INIT, answer)
        since = len(started.client.events)
        await started.load_pair()
        async with started.client.vici as session:
            await session.request("initiate", {"child": "net", "ike": "vpn", "timeout": "-1"})
            await started.client.event("ike-updown", since=since, up="yes")
            assert (await started.client.sa())["remote-host"] == expected
            await session.request("terminate", {"ike": "vpn", "timeout": "20000"})
