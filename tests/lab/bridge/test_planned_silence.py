"""disconnect-planned: a client announces that it will be silent, and its IKE_SA is there afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.bridge.events import Delivered, Over, PeerBack, PeerFault
from mobikectl.bridge.planned import Outcome, Planned, disconnect, end
from mobikectl.bridge.translate import MOST_SENT
from mobikectl.charon.rmobike import Rmobike
from mobikectl.errors import NotFoundError
from mobikectl.protocol.addrnotify import PeerAway, State
from mobikectl.wire.bridge import Spoken

from ..rmobike.lab import ROOT
from .conftest import beside, patient

if TYPE_CHECKING:
    from ..rmobike.lab import Lab, Node

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]
KIVINEN = patient(Spoken.KIVINEN)
TOKEN = "hostile"  # noqa: S105 - a name for the answer, no secret
HOOK = ROOT / "packaging" / "systemd" / "mobikectl-sleep"
MOBIKECTL = (sys.executable, "-m", "mobikectl")


async def announce(lab: Lab, seconds: int, *, timeout_s: float = 20.0) -> Planned:
    async with lab.client.vici as charon, Rmobike(lab.client.directory / "rmobike", timeout=20) as plugin:
        (found,) = await disconnect(charon, plugin, seconds, only=lambda _: True, timeout_s=timeout_s)
        return found


async def wake(lab: Lab) -> Planned:
    async with lab.client.vici as charon, Rmobike(lab.client.directory / "rmobike", timeout=20) as plugin:
        (found,) = await end(charon, plugin, only=lambda _: True, timeout_s=20)
        return found


def sockets(node: Node) -> tuple[str, ...]:
    return ("--charon", str(node.directory / "vici"), "--plugin", str(node.directory / "rmobike"))


async def command(node: Node, *args: str) -> tuple[int, str, str]:
    """Run mobikectl beside a node and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *MOBIKECTL, *args, *sockets(node), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_an_announced_silence_leaves_the_ike_sa_as_it_was(pair: Lab) -> None:
    before = await pair.gateway.sa()
    async with beside(pair.gateway, KIVINEN) as gateway:
        assert (await announce(pair, 3600)).outcome is Outcome.KEPT
        assert (await gateway.until(PeerAway)).seconds == 3600
        pair.block("198.18.1.2")
        sent, answered = await (await pair.ping(100)).result()
        assert (sent, answered) == (100, 0), "the client is silent"
        pair.nft("delete table ip dead")
        assert (await wake(pair)).outcome is Outcome.BACK
        await gateway.until(PeerBack)
    after = await pair.gateway.sa()
    assert after["initiator-spi"] == before["initiator-spi"]
    sent, answered = await (await pair.ping(20)).result()
    assert sent == answered


async def test_a_peer_that_is_silent_for_longer_than_it_said_is_checked_and_let_go(pair: Lab) -> None:
    async with beside(pair.gateway, KIVINEN) as gateway:
        assert (await announce(pair, 2)).outcome is Outcome.KEPT
        pair.block("198.18.1.2")
        await pair.gateway.event("ike-updown", since=1, timeout=90)
        assert (await gateway.until(Over)).reason == "the IKE_SA is gone"
    assert await pair.gateway.sas() == []


async def test_a_peer_that_is_back_in_time_without_a_word_is_found_by_the_check(pair: Lab) -> None:
    async with beside(pair.gateway, KIVINEN) as gateway:
        assert (await announce(pair, 2)).outcome is Outcome.KEPT
        since = len(gateway.told)
        await gateway.until(Delivered, since=since)
        assert gateway.only(Spoken.KIVINEN).machine.state is State.SETTLED
    await pair.gateway.sa()


async def test_the_sleep_hook_announces_the_silence_and_its_end(pair: Lab) -> None:
    defaults = pair.directory / "defaults"
    arguments = " ".join(sockets(pair.client))
    defaults.write_text(
        f"MOBIKECTL='{' '.join(MOBIKECTL)}'\nSILENCE=900\nARGUMENTS='{arguments}'\n", encoding="ascii"
    )

    async def hook(when: str) -> None:
        environment = {**os.environ, "MOBIKECTL_SLEEP_DEFAULTS": str(defaults)}
        process = await asyncio.create_subprocess_exec(HOOK, when, "suspend", env=environment)
        assert await asyncio.wait_for(process.wait(), 60) == 0

    async with beside(pair.gateway, KIVINEN) as gateway:
        await hook("pre")
        assert (await gateway.until(PeerAway)).seconds == 900
        await hook("post")
        await gateway.until(PeerBack)


async def test_a_gateway_says_no_to_a_silence_that_is_too_long_for_it(pair: Lab) -> None:
    async with beside(pair.gateway, patient(Spoken.KIVINEN, most_silence_s=600)) as gateway:
        refused = await announce(pair, 601)
        assert (refused.outcome, refused.most_s) == (Outcome.REFUSED, 600)
        assert (await announce(pair, 600)).outcome is Outcome.KEPT
        await gateway.until(PeerAway)
    await pair.client.sa()
    sent, answered = await (await pair.ping(20)).result()
    assert sent == answered, "a refusal costs nothing"


async def test_a_gateway_promises_no_more_than_its_own_timers_allow(lab: Lab) -> None:
    await lab.gateway.start()
    await lab.client.start()
    await lab.gateway.load("gateway", "client", "%any", "198.19.2.1/32", "198.19.1.1/32", dpd_delay="100s")
    await lab.client.load("client", "gateway", "198.18.2.10", "198.19.1.1/32", "198.19.2.1/32")
    await lab.client.initiate()
    async with beside(lab.gateway, KIVINEN):
        refused = await announce(lab, 3600)
        assert (refused.outcome, refused.most_s) == (Outcome.REFUSED, 100)


async def test_a_gateway_without_a_bridge_is_not_mistaken_for_one_that_agrees(pair: Lab) -> None:
    assert (await announce(pair, 60)).outcome is Outcome.NOT_UNDERSTOOD
    await pair.client.sa()


async def test_a_bridge_that_was_killed_is_not_mistaken_for_one_that_agrees(pair: Lab) -> None:
    killed = await asyncio.create_subprocess_exec(
        *MOBIKECTL, "bridge", "--json", *sockets(pair.gateway), stdout=asyncio.subprocess.PIPE
    )
    assert killed.stdout is not None
    first = json.loads(await asyncio.wait_for(killed.stdout.readline(), 30))
    assert first["event"] == "Ready"
    killed.kill()
    await asyncio.wait_for(killed.wait(), 10)
    assert "bridge-kivinen" in (await pair.gateway.command("list-rules"))["rules"]
    assert (await announce(pair, 60, timeout_s=3)).outcome is Outcome.NO_ANSWER
    async with beside(pair.gateway, KIVINEN):
        assert (await announce(pair, 60)).outcome is Outcome.KEPT


async def test_malformed_data_of_the_peer_changes_nothing(pair: Lab) -> None:
    number = (await pair.client.sa())["uniqueid"]
    async with beside(pair.gateway, KIVINEN) as gateway:
        for bad in (
            ["42000:00", "41043:010100000000"],
            ["42000:" + "ff" * 1024, "41043:010100000000"],
            ["42000:0000003c", "42004:c6120102", "41043:010100000000"],
            ["42004:c612", "41043:010100000000"],
            ["42006:00", "41043:010300000007"],
            ["41044:2a", "41043:010100000000"],
        ):
            seen = len(gateway.told)
            await pair.client.command("send-notify", ike_id=number, token=TOKEN, notifies=bad)
            async with asyncio.timeout(20):
                while not any(isinstance(told.event, PeerFault) for told in gateway.told[seen:]):
                    gateway.news.clear()
                    await gateway.news.wait()
        for odd in (["41043:ff"], ["41043:010200000000"], ["42000"] * MOST_SENT, ["41043:010300000001"]):
            await pair.client.command("send-notify", ike_id=number, token=TOKEN, notifies=odd)
        assert (await announce(pair, 60)).outcome is Outcome.KEPT, "it serves on"
    await pair.gateway.sa()


async def test_there_must_be_an_ike_sa_to_speak_of(lab: Lab) -> None:
    await lab.client.start()
    with pytest.raises(NotFoundError):
        await announce(lab, 60)


async def test_the_rules_go_with_the_bridge(pair: Lab) -> None:
    async with beside(pair.gateway, patient(Spoken.KIVINEN, Spoken.DUPONT)):
        rules = (await pair.gateway.command("list-rules"))["rules"]
        assert set(rules) == {"bridge-kivinen", "bridge-dupont", "bridge-cookie"}
    assert (await pair.gateway.command("list-rules"))["rules"] == {}


async def test_the_command_tells_people_and_programs_what_the_gateway_said(pair: Lab) -> None:
    async with beside(pair.gateway, patient(Spoken.KIVINEN, most_silence_s=600)):
        code, out, _ = await command(pair.client, "disconnect", "--for", "300", "--json")
        assert (code, json.loads(out)[0]["outcome"]) == (0, "kept")
        code, out, _ = await command(pair.client, "disconnect", "--end")
        assert code == 0
        assert "back" in out
        code, out, err = await command(pair.client, "disconnect", "--for", "700")
        assert code == 4
        assert "up to 600 s" in out
        assert "did not agree" in err
        code, out, _ = await command(pair.client, "disconnect", "--for", "700", "--peer", "gateway", "--json")
        assert (code, json.loads(out)[0]["most_s"]) == (4, 600)
    code, _, err = await command(pair.client, "disconnect", "--for", "60", "--sa", "999")
    assert code == 6
    assert "no such IKE_SA" in err
    code, _, err = await command(pair.client, "disconnect", "--for", "60", "--end")
    assert code == 2


async def test_a_host_without_the_plugin_is_told_so(lab: Lab) -> None:
    lab.client.plugin = False
    await lab.client.start()
    code, _, err = await command(lab.client, "disconnect", "--for", "60")
    assert code == 4
    assert "rmobike" in err
