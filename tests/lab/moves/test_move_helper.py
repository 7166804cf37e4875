"""The plugin's move helper with real charons: an IKE_SA has one node that serves it, and that can be another one."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.charon.rmobike import PluginRefusedError, Rmobike
from mobikectl.charon.rmobike_move import AHEAD, BUSY, UNKNOWN, Mover, Standing
from mobikectl.lab.capture import open_in
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType
from mobikectl.wire.ha_chain import HaChain

from ..rmobike.lab import run
from .lab import children_of, spis_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from mobikectl.charon.rmobike_move import MoveSa
    from mobikectl.wire.ha_chain import IkeSpis

    from ..rmobike.lab import Node
    from .lab import MoveLab

AGAIN = "again"
pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.timeout(180)]


@pytest.fixture
async def ring(lab: MoveLab) -> MoveLab:
    """The gateways have taken their segment, as they do a moment after their start with all that is passive then."""
    await lab.start()
    await taken(lab)
    await lab.connect()
    return lab


async def taken(lab: MoveLab) -> None:
    for node in lab.gateways.values():
        await logged(node, "HA segment 1 activated")


async def logged(node: Node, text: str, since: int = 0) -> None:
    async with asyncio.timeout(20):
        while True:
            if text in node.log[since:]:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def mover(node: Node) -> AsyncIterator[Mover]:
    async with Rmobike(node.directory / "rmobike", timeout=20.0) as plugin:
        yield Mover(plugin)


async def refused(command: Awaitable[Any]) -> str:
    with pytest.raises(PluginRefusedError) as caught:
        await command
    return caught.value.code


async def imported(lab: MoveLab, source: str = "gw1", target: str = "gw2") -> IkeSpis:
    """Have the target import what the source serves, and wait until it is whole there."""
    here = await lab.gateways[source].sa()
    chain = await lab.brokers[source].wait_for(spis_of(here), children_of(here), timeout=5)
    await lab.brokers[target].replay(chain)
    async with mover(lab.gateways[target]) as there, asyncio.timeout(20):
        while True:
            try:
                sa = await there.status(chain.spis)
            except PluginRefusedError as error:
                assert error.code == UNKNOWN  # noqa: PT017 - the loop goes on
            else:
                if len(sa.children) == len(children_of(here)):
                    return chain.spis
            await asyncio.sleep(0.02)


async def until(mover: Mover, spis: IkeSpis, **wanted: Any) -> MoveSa:
    async with asyncio.timeout(20):
        while True:
            sa = await mover.status(spis)
            if all(getattr(sa, key) == value for key, value in wanted.items()):
                return sa
            await asyncio.sleep(0.02)


# --- what is told -----------------------------------------------------------------------------------


async def test_an_ike_sa_is_described_alike_by_its_spis_and_its_number(ring: MoveLab) -> None:
    listed = await ring.gateways["gw1"].sa()
    async with mover(ring.gateways["gw1"]) as here:
        sa = await until(here, spis_of(listed), busy=False)
        assert await here.status(sa.ike_id) == sa
    assert (sa.standing, sa.state, sa.name) == (Standing.ACTIVE, "ESTABLISHED", "vpn")
    assert (sa.mid_initiator, sa.mid_responder) == (0, 2)
    assert (str(sa.local.address), str(sa.remote.address)) == ("198.18.11.10", "198.18.1.2")
    assert {child.spi_in for child in sa.children} == children_of(listed)
    assert sa.steady
    assert not sa.original_initiator


async def test_an_imported_ike_sa_is_passive(ring: MoveLab) -> None:
    spis = await imported(ring)
    async with mover(ring.gateways["gw1"]) as source, mover(ring.gateways["gw2"]) as target:
        here, there = await source.status(spis), await target.status(spis)
    assert there.standing is Standing.PASSIVE
    assert (there.mid_initiator, there.mid_responder) == (here.mid_initiator, here.mid_responder)
    assert [child.spi_in for child in there.children] == [child.spi_in for child in here.children]


# --- moving -----------------------------------------------------------------------------------------


async def test_an_ike_sa_moves_to_another_node_and_its_client_follows(ring: MoveLab) -> None:
    spis = await imported(ring)
    gw1, gw2 = ring.gateways["gw1"], ring.gateways["gw2"]
    async with mover(gw1) as source, mover(gw2) as target:
        frozen = await source.freeze(spis)
        assert (frozen.standing, frozen.thaws, frozen.changed) == (Standing.FROZEN, True, True)
        assert not (await source.passivate(spis)).thaws
        there = await target.activate(
            spis,
            mids=(frozen.mid_initiator, frozen.mid_responder),
            address=ip_address("198.18.12.10"),
            announce=True,
            children=[child.spi_in for child in frozen.children],
            peer_r=True,
            own_r=False,
        )
        assert there.standing is Standing.ACTIVE
        client = await ring.client.sa(remote_host="198.18.12.10")
        assert spis_of(client) == spis
        await source.drop(spis)
        assert await refused(source.status(spis)) == UNKNOWN
        await until(target, spis, busy=False)
    sent, answered = await (await ring.ping(50)).result()
    assert answered >= sent - 2
    assert await gw1.sas() == []
    assert "received DELETE for IKE_SA" not in ring.client.log
    assert ring.client.log.count("IKE_SA_INIT request") == 1
    assert [event.name for event in gw2.events if event.name in {"ike-updown", "capability"}] != []
    capability = await gw2.event("capability")
    assert (capability["peer-r"], capability["mobike"]) == ("yes", "yes")


async def test_after_a_move_both_sides_can_rekey_and_the_peer_can_be_switched_again(ring: MoveLab) -> None:
    """Exact message IDs: the very next exchange of either side is understood."""
    ring.gateways["gw2"].shell("ip", "addr", "add", "198.18.12.11/24", "dev", "up3")
    await moved(ring)
    for node, what in (
        (ring.client, {"ike": "vpn"}),
        (ring.gateways["gw2"], {"child": "net"}),
        (ring.gateways["gw2"], {"ike": "vpn"}),
    ):
        mark = len(node.events)
        async with node.vici as session:
            await session.request("rekey", what)
        await node.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)
    number = (await ring.gateways["gw2"].sa())["uniqueid"]
    await ring.client.command("set-policy", accept="any")
    await ring.gateways["gw2"].command("switch-address", ike_id=number, address="198.18.12.11", token=AGAIN)
    await ring.gateways["gw2"].event("switch-done", token=AGAIN)
    sent, answered = await (await ring.ping(20)).result()
    assert answered >= sent - 2


async def test_an_ike_sa_goes_round_three_nodes_twice(ring: MoveLab) -> None:
    names = ("gw1", "gw2", "gw3", "gw1", "gw2", "gw3", "gw1")
    for source, target in pairwise(names):
        await moved(ring, source, target)
        serving = [name for name in ring.gateways if await ring.sas(name)]
        assert serving == [target]
    assert ring.client.log.count("IKE_SA_INIT request") == 1
    sent, answered = await (await ring.ping(20)).result()
    assert answered >= sent - 2


async def moved(lab: MoveLab, source_name: str = "gw1", target_name: str = "gw2") -> IkeSpis:
    spis = await imported(lab, source_name, target_name)
    async with mover(lab.gateways[source_name]) as source, mover(lab.gateways[target_name]) as target:
        await until(source, spis, busy=False)
        frozen = await source.freeze(spis, timeout_s=None)
        await target.activate(
            spis,
            mids=(frozen.mid_initiator, frozen.mid_responder),
            address=ip_address(lab.address(target_name)),
            announce=True,
            peer_r=True,
            own_r=False,
        )
        await lab.client.sa(remote_host=lab.address(target_name))
        await source.drop(spis)
        lab.brokers[source_name].forget(spis)
        await until(target, spis, busy=False)
    return spis


# --- freezing ---------------------------------------------------------------------------------------


async def test_a_frozen_ike_sa_forwards_and_exchanges_nothing(ring: MoveLab) -> None:
    gateway = ring.gateways["gw1"]
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        before = await here.freeze(spis, timeout_s=None)
        mark = len(gateway.log)
        async with gateway.vici as session:
            await session.request("rekey", {"ike": "vpn"})
            await session.request("rekey", {"child": "net"})
        async with ring.client.vici as session:
            await session.request("rekey", {"child": "net"})
        sent, answered = await (await ring.ping(100)).result()
        assert sent == answered
        after = await here.status(spis)
        assert (after.mid_initiator, after.mid_responder) == (before.mid_initiator, before.mid_responder)
        assert "sending packet" not in gateway.log[mark:]
        await here.thaw(spis)
        await ring.client.event("child-rekey")
        await until(here, spis, busy=False)
    sent, answered = await (await ring.ping(20)).result()
    assert sent == answered


async def test_a_frozen_ike_sa_thaws_by_itself_when_nobody_comes(ring: MoveLab) -> None:
    gateway = ring.gateways["gw1"]
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        await here.freeze(spis, timeout_s=0.5)
        thawed = await gateway.event("thawed")
        assert int(thawed["spi-i"], 16) == spis.initiator
        assert (await here.status(spis)).standing is Standing.ACTIVE
        mark = len(ring.client.events)
        async with ring.client.vici as session:
            await session.request("rekey", {"ike": "vpn"})
        await ring.client.event("ike-rekey", since=mark)


async def test_freezing_again_begins_the_time_anew_and_passivating_ends_it(ring: MoveLab) -> None:
    gateway = ring.gateways["gw1"]
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        await here.freeze(spis, timeout_s=0.5)
        again = await here.freeze(spis, timeout_s=60)
        assert (again.changed, again.thaws) == (False, True)
        await asyncio.sleep(0.8)
        assert (await here.status(spis)).standing is Standing.FROZEN
        await here.freeze(spis, timeout_s=0.5)
        await here.passivate(spis)
        assert not (await here.freeze(spis, timeout_s=0.5)).thaws, "a passivated one stays so"
        await asyncio.sleep(0.8)
        assert (await here.status(spis)).standing is Standing.FROZEN
        assert (await here.thaw(spis)).standing is Standing.ACTIVE
        assert not (await here.thaw(spis)).changed
    assert "thawed" not in gateway.names()


async def test_what_came_due_during_the_freeze_is_made_up_for(lab: MoveLab) -> None:
    await lab.start()
    await taken(lab)
    gateway = lab.gateways["gw1"]
    await gateway.load(
        "gateway", "client", "%any", "198.19.2.1/32", "198.19.1.1/32", rekey_time="3", rand_time="0"
    )
    await lab.connect()
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        await here.freeze(spis, timeout_s=None)
        await asyncio.sleep(4)
        assert "ike-rekey" not in gateway.names()
        await here.thaw(spis)
        await gateway.event("ike-rekey")


async def test_a_child_sa_that_is_kept_for_late_packets_is_no_reason_to_wait(ring: MoveLab) -> None:
    """For five seconds after a rekeying. The job that ends it does nothing to a frozen IKE_SA: thawing does."""
    gateway = ring.gateways["gw1"]
    async with gateway.vici as session:
        await session.request("rekey", {"child": "net"})
    await gateway.event("child-rekey")
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        kept = await until(here, spis, busy=False)
        assert sorted(child.state for child in kept.children) == ["DELETED", "INSTALLED"]
        frozen = await here.freeze(spis)
        assert len(frozen.children) == 2
        thawed = await here.thaw(spis)
        assert [child.state for child in thawed.children] == ["INSTALLED"]
    sent, answered = await (await ring.ping(20)).result()
    assert sent == answered


async def test_an_ike_sa_with_an_exchange_under_way_is_not_frozen(ring: MoveLab) -> None:
    gateway = ring.gateways["gw1"]
    spis = spis_of(await gateway.sa())
    rules = "table ip dead {\nchain passing {\ntype filter hook forward priority -10\nip daddr 198.18.1.2 drop\n}\n}"
    run("ip", "netns", "exec", ring.router, "nft", rules)
    async with mover(gateway) as here:
        await gateway.command(
            "send-notify", ike_id=(await here.status(spis)).ike_id, token=AGAIN, notifies=["50001"]
        )
        busy = await until(here, spis, busy=True)
        assert "not answered" in busy.why_busy
        assert await refused(here.freeze(spis)) == BUSY
        assert (await here.status(spis)).standing is Standing.ACTIVE


async def test_freezing_while_the_client_rekeys_is_refused_or_comes_between_the_exchanges(
    ring: MoveLab,
) -> None:
    gateway = ring.gateways["gw1"]
    codes = set()
    async with mover(gateway) as here:
        for number in range(6):
            what = {"ike": "vpn"} if number % 2 else {"child": "net"}
            mark = len(ring.client.events)
            async with ring.client.vici as session:
                rekey = asyncio.create_task(session.request("rekey", what))
                for _ in range(20):
                    (listed, *others) = await gateway.sas()
                    try:
                        frozen = await here.freeze(int(listed["uniqueid"]))
                    except PluginRefusedError as error:
                        codes.add(error.code)
                    else:
                        assert frozen.steady
                        assert [child.state for child in frozen.children].count("INSTALLED") == 1
                        # What came of the rekeying is served by itself: its predecessor only waits for its delete.
                        assert {other["state"] for other in others} <= {"REKEYED"}
                        await here.thaw(frozen.ike_id)
                await rekey
            await ring.client.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)
            await gateway.sa()
    assert codes <= {BUSY, UNKNOWN, "not-active"}
    sent, answered = await (await ring.ping(20)).result()
    assert answered >= sent - 1


async def test_a_frozen_ike_sa_stays_frozen_when_the_ha_plugin_takes_its_segment(lab: MoveLab) -> None:
    """As it does a moment after charon's start, with all IKE_SAs that are passive then."""
    await lab.start(brokers=False)
    gateway = lab.gateways["gw1"]
    await lab.connect()
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        await here.freeze(spis, timeout_s=None)
        await logged(gateway, "HA segment 1 activated")
        await until(here, spis, standing=Standing.FROZEN)
        await here.thaw(spis)


async def test_an_imported_ike_sa_stays_passive_when_the_ha_plugin_takes_its_segment(ring: MoveLab) -> None:
    """Another node serves it. What is served here goes on when the plugin gives a segment up and takes it again."""
    spis = await imported(ring)
    for name, standing in (("gw2", Standing.PASSIVE), ("gw1", Standing.ACTIVE)):
        gateway = ring.gateways[name]
        mark = len(gateway.log)
        ring.brokers[name]._port.send(HaMessage.of(HaType.SEGMENT_TAKE, (HaAttribute.SEGMENT, 1)).to_bytes())
        await logged(gateway, "HA segment 1 activated", since=mark)
        async with mover(gateway) as here:
            await until(here, spis, standing=standing)
    assert "is not to be served here" in ring.gateways["gw2"].log
    sent, answered = await (await ring.ping(20)).result()
    assert answered >= sent - 1


# --- guards -----------------------------------------------------------------------------------------


async def test_one_node_serves_it_whatever_is_asked_of_the_others(ring: MoveLab) -> None:
    spis = await imported(ring)
    async with mover(ring.gateways["gw1"]) as source, mover(ring.gateways["gw2"]) as target:
        assert await refused(source.activate(spis)) == "not-passive"
        assert await refused(source.drop(spis)) == "not-passive"
        assert await refused(source.passivate(spis)) == "not-frozen"
        assert await refused(target.freeze(spis)) == "not-active"
        assert await refused(target.thaw(spis)) == "not-frozen"
        assert await refused(target.passivate(spis)) == "not-frozen"
        await source.freeze(spis)
        assert await refused(source.activate(spis)) == "frozen"
        await source.thaw(spis)
        await target.drop(spis)
        assert await refused(target.drop(spis)) == UNKNOWN
    sent, answered = await (await ring.ping(20)).result()
    assert sent == answered


async def test_an_activation_that_cannot_work_changes_nothing(ring: MoveLab) -> None:
    spis = await imported(ring)
    async with mover(ring.gateways["gw2"]) as target:
        address = ip_address(ring.address("gw2"))
        assert await refused(target.activate(spis)) == "not-local"
        assert await refused(target.activate(spis, address=ip_address("198.18.12.99"))) == "not-local"
        assert await refused(target.activate(spis, address=ip_address("::1"))) == "bad-address"
        assert await refused(target.activate(spis, address=address, children=[1])) == "children-differ"
        assert await refused(target.activate(spis, address=address, mids=(-1, 2))) == "bad-request"
        assert await refused(target.activate(spis, address=address, ahead=AHEAD + 1)) == "bad-request"
        sa = await target.status(spis)
    assert (sa.standing, str(sa.local.address)) == (Standing.PASSIVE, "198.18.11.10")


@pytest.mark.parametrize(("most", "heard"), [(2, False), (3, True)])
async def test_a_client_is_heard_that_is_ahead_by_no_more_than_was_said(
    ring: MoveLab, most: int, heard: bool
) -> None:
    await ask(ring.client, 3)
    spis = await imported(ring)
    async with mover(ring.gateways["gw1"]) as source, mover(ring.gateways["gw2"]) as target:
        before = await source.freeze(spis)
        expected = before.mid_responder - 3
        sa = await target.activate(
            spis,
            mids=(before.mid_initiator, expected),
            address=ip_address(ring.address("gw2")),
            announce=True,
            ahead=most,
        )
        assert sa.ahead == most
        await logged(ring.gateways["gw2"], f"received message ID {before.mid_responder}, expected {expected}")
        forged(ring, spis, expected + 1)
        await logged(
            ring.gateways["gw2"], "going on with this one" if heard else "could not decrypt payloads"
        )
        sa = await until(target, spis, busy=False)
    assert (sa.mid_responder > before.mid_responder) == heard
    assert sa.ahead == (0 if heard else most)
    if heard:
        await ring.flows()


async def test_a_client_that_another_node_answered_meanwhile_is_heard_once_its_ike_sa_is_thawed(
    ring: MoveLab,
) -> None:
    gateway = ring.gateways["gw1"]
    await ask(ring.client, 2)
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        expected = (await here.freeze(spis)).mid_responder - 2
        ring.brokers["gw1"].renumber(spis, theirs=expected)
        await until(here, spis, mid_responder=expected)
        assert (await here.thaw(spis, ahead=AHEAD)).ahead == AHEAD
        await ask(ring.client, 2)
        await until(here, spis, mid_responder=expected + 4, ahead=0)


async def ask(client: Node, times: int) -> None:
    """Have a client send requests that the gateway answers and that change nothing."""
    sa = await client.sa()
    for _ in range(times):
        mark = len(client.events)
        await client.command("send-notify", ike_id=sa["uniqueid"], notifies=["50000:00"])
        await client.event("notify-answered", since=mark)


def forged(lab: MoveLab, spis: IkeSpis, mid: int) -> None:
    """Send what anybody could: requests with this message ID and the client's SPIs, protected by nothing or noise."""
    noise = os.urandom(80)
    protected = struct.pack("!BBH", 0, 0, 4 + len(noise)) + noise
    with open_in(lab.client.ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for first, body in ((0, b""), (46, protected)):
            for exchange in (36, 37):
                head = struct.pack(
                    "!QQBBBBII", spis.initiator, spis.responder, first, 0x20, exchange, 8, mid, 28 + len(body)
                )
                sock.sendto(bytes(4) + head + body, (lab.address("gw2"), 4500))


async def test_a_frozen_ike_sa_that_is_dropped_is_gone_and_its_deadline_does_nothing(
    ring: MoveLab,
) -> None:
    gateway = ring.gateways["gw1"]
    spis = spis_of(await gateway.sa())
    async with mover(gateway) as here:
        await here.freeze(spis, timeout_s=0.3)
        await here.drop(spis)
        await asyncio.sleep(0.6)
        assert (await gateway.command("status"))["plugin"] == b"rmobike"
    assert "thawed" not in gateway.names()
    assert "generating INFORMATIONAL request" not in gateway.log


async def test_a_job_left_from_before_does_no_harm_to_what_is_being_imported(lab: MoveLab) -> None:
    """They name an IKE_SA by its SPIs. This one finds it as it comes back: begun, and without a configuration."""
    await lab.start()
    await taken(lab)
    gateway = lab.gateways["gw1"]
    await gateway.load("gateway", "client", "%any", "198.19.2.1/32", "198.19.1.1/32", dpd_delay="2")
    await lab.connect()
    here = await gateway.sa()
    spis = spis_of(here)
    chain = await lab.brokers["gw1"].wait_for(spis, children_of(here), timeout=5)
    async with mover(gateway) as helper:
        await helper.freeze(spis, timeout_s=None)
        await helper.drop(spis)
    lab.brokers["gw1"].forget(spis)
    mark = len(gateway.log)
    await lab.brokers["gw1"].replay(HaChain(chain.messages[:1]))
    async with asyncio.timeout(20):
        while True:
            if [sa["state"] for sa in await lab.sas("gw1")] == ["CONNECTING"]:
                break
            await asyncio.sleep(0.02)
    await asyncio.sleep(2.5)  # the job for dead peer detection comes due
    assert gateway.process is not None
    assert gateway.process.poll() is None, gateway.log[-3000:]
    assert "DPD" not in gateway.log[mark:]
    await lab.brokers["gw1"].follow(spis, chain.messages[1:])
    async with mover(gateway) as helper:
        await until(helper, spis, standing=Standing.PASSIVE, name="vpn", busy=False)


@pytest.mark.parametrize("command", ["move-status", "freeze", "thaw", "passivate", "activate", "drop"])
async def test_nonsense_is_refused_with_a_reason(ring: MoveLab, command: str) -> None:
    nonsense: tuple[dict[str, str], ...] = (
        {},
        {"ike_id": "0"},
        {"ike_id": "x"},
        {"spi_i": "1" * 16},
        {"spi_i": "0" * 16, "spi_r": "1" * 16},
        {"spi_i": "1" * 17, "spi_r": "1" * 16},
        {"spi_i": "g" * 16, "spi_r": "1" * 16},
    )
    for args in nonsense:
        with pytest.raises(Exception, match="bad-request"):
            await ring.gateways["gw1"].command(command, **args)
    for unknown in ({"ike_id": "4000"}, {"spi_i": "1" * 16, "spi_r": "2" * 16}):
        with pytest.raises(Exception, match=UNKNOWN):
            await ring.gateways["gw1"].command(command, **unknown)


# --- with the switch --------------------------------------------------------------------------------

STRICT_NAT = """
table ip nat {
  chain post {
    type nat hook postrouting priority 100
    ip saddr 198.18.1.2 masquerade
  }
}
table ip guard {
  chain passing {
    type filter hook forward priority 0
    ip saddr 198.18.1.2 accept
    ct state { established, related } accept
    drop
  }
}
"""


async def test_a_client_behind_a_nat_moves_by_itself_when_it_was_asked_to_switch(lab: MoveLab) -> None:
    """The source asks it over the path that works; its update goes to the target, which never speaks first."""
    run("ip", "netns", "exec", lab.router, "nft", STRICT_NAT)
    await lab.start()
    await taken(lab)
    await lab.client.command("set-policy", accept="listed", allow="198.18.0.0/16")
    await lab.connect()
    spis = await imported(lab)
    gw1, gw2 = lab.gateways["gw1"], lab.gateways["gw2"]
    async with mover(gw1) as source, mover(gw2) as target:
        sa = await until(source, spis, busy=False)
        assert sa.nat_remote
        ping = await lab.ping(300)
        await gw1.command(
            "switch-address", ike_id=sa.ike_id, address=lab.address("gw2"), token=AGAIN, foreign="yes"
        )
        await gw1.event("switch-acked", token=AGAIN)
        frozen = await source.freeze(spis)
        await source.passivate(spis)
        await asyncio.sleep(0.2)  # another node is not asked in no time
        there = await target.activate(
            spis,
            mids=(frozen.mid_initiator, frozen.mid_responder),
            address=ip_address(lab.address("gw2")),
            peer_r=True,
            own_r=False,
        )
        assert there.standing is Standing.ACTIVE
        await lab.client.event("update-done", cause="switch", remote=lab.address("gw2"))
        await until(target, spis, busy=False)
        await source.drop(spis)
    sent, answered = await ping.result()
    assert answered >= sent - 30
    assert "path probing attempt" not in lab.client.log, "the client asked again before charon would have"
    assert spis_of(await lab.client.sa(remote_host=lab.address("gw2"))) == spis
