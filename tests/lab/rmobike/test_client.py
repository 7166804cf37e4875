"""The typed client and the real plugin understand each other."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.rmobike import (
    Accept,
    NotifyRule,
    PluginRefusedError,
    RedirectAnswer,
    RedirectExchange,
    Rmobike,
    SwitchPolicy,
)
from mobikectl.charon.rmobike_events import (
    NotifyAnswered,
    NotifySeen,
    SwitchAcked,
    SwitchDone,
    SwitchReceived,
    UpdateDone,
)
from mobikectl.charon.session import EventGap
from mobikectl.wire.notify import Notify
from mobikectl.wire.rmobike import SWITCH_TO_IP_ADDRESS

if TYPE_CHECKING:
    from .lab import Lab, Node

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]

NEW = ip_address("198.18.2.11")
TOKEN = "client:1"  # noqa: S105 - a name for the answer, no secret


def client_of(node: Node) -> Rmobike:
    return Rmobike(node.directory / "rmobike", timeout=20)


async def collect(plugin: Rmobike, last: type, seen: list[object], ready: asyncio.Event) -> None:
    async with asyncio.timeout(60), aclosing(plugin.events()) as events:
        async for event in events:
            if isinstance(event, EventGap):
                ready.set()
            else:
                seen.append(event)
            if isinstance(event, last):
                return


async def test_a_switch_is_told_in_typed_events_on_both_sides(pair: Lab) -> None:
    gateway_id = int((await pair.gateway.sa())["uniqueid"])
    at_gateway: list[object] = []
    at_client: list[object] = []
    both = (asyncio.Event(), asyncio.Event())
    async with (
        client_of(pair.gateway) as gateway,
        client_of(pair.client) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(collect(gateway, SwitchDone, at_gateway, both[0]))
        group.create_task(collect(client, UpdateDone, at_client, both[1]))
        for ready in both:
            await asyncio.wait_for(ready.wait(), 20)
        await gateway.switch_address(gateway_id, NEW, token=TOKEN)
    acked, done = at_gateway
    received, updated = at_client
    assert acked == SwitchAcked(gateway_id, TOKEN)
    assert isinstance(done, SwitchDone)
    assert (done.token, done.path.local, done.path.remote) == (TOKEN, NEW, ip_address("198.18.1.2"))
    assert isinstance(received, SwitchReceived)
    assert received.address == NEW
    assert isinstance(updated, UpdateDone)
    assert (updated.cause, updated.path.remote) == ("switch", NEW)


async def test_status_peers_policies_and_redirects_go_through(pair: Lab) -> None:
    async with client_of(pair.client) as client, client_of(pair.gateway) as gateway:
        status = await client.status()
        assert status.notify_type == SWITCH_TO_IP_ADDRESS
        assert (status.peers, status.accept) == (1, Accept.ADDITIONAL)
        await client.set_policy(SwitchPolicy(accept=Accept.LISTED, allow=(ip_network("2001:db8::/32"),)))
        assert (await client.status()).accept is Accept.LISTED
        (peer,) = await gateway.peers()
        assert (peer.original_initiator, peer.mobike, peer.peer_r, peer.own_r) == (False, True, True, False)
        await gateway.set_peer(peer.ike_id, peer_r=False, own_r=False)
        with pytest.raises(PluginRefusedError) as caught:
            await gateway.switch_address(peer.ike_id, NEW)
        assert caught.value.code == "peer-without-r"
        for exchange in RedirectExchange:
            await gateway.set_redirect(
                exchange, RedirectAnswer(NEW, 10, (ip_network("198.18.0.0/15"), "*@a.example"))
            )
            await gateway.clear_redirect(exchange)


async def test_notifies_go_and_come_back(pair: Lab) -> None:
    client_id = int((await pair.client.sa())["uniqueid"])
    seen: list[object] = []
    answered: list[object] = []
    both = (asyncio.Event(), asyncio.Event())
    async with (
        client_of(pair.gateway) as gateway,
        client_of(pair.client) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(collect(gateway, NotifySeen, seen, both[0]))
        group.create_task(collect(client, NotifyAnswered, answered, both[1]))
        for ready in both:
            await asyncio.wait_for(ready.wait(), 20)
        await gateway.watch([50001])
        await gateway.add_rule(
            NotifyRule("echo", "INFORMATIONAL", request=False, notify=Notify(50002), when=50001, echo=True)
        )
        assert await gateway.rules() == ("echo",)
        await client.send_notify(client_id, [Notify(50001, b"\xc0\xff\xee")], token=TOKEN)
    (notify,) = seen
    assert isinstance(notify, NotifySeen)
    assert (notify.notify, notify.exchange) == (Notify(50001, b"\xc0\xff\xee"), "INFORMATIONAL")
    (answer,) = answered
    assert isinstance(answer, NotifyAnswered)
    assert (answer.token, answer.notifies) == (TOKEN, (Notify(50002, b"\xc0\xff\xee"),))
