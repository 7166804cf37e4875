"""The HA broker with real charons: what it keeps can be told to another charon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import CharonUnreachableError, MoveError

from .lab import children_of, spis_of

if TYPE_CHECKING:
    from .lab import MoveLab

pytestmark = [pytest.mark.netns, pytest.mark.charon]


async def until_passive(lab: MoveLab, gateway: str, children: int = 1) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        found = await lab.sas(gateway)
        if len(found) == 1 and found[0]["state"] == "PASSIVE" and len(children_of(found[0])) == children:
            return found[0]
        assert time.monotonic() < deadline, f"{found}\n{lab.gateways[gateway].log[-3000:]}"
        await asyncio.sleep(0.05)


async def until_gone(lab: MoveLab, gateway: str) -> None:
    deadline = time.monotonic() + 20
    while await lab.sas(gateway):
        assert time.monotonic() < deadline, lab.gateways[gateway].log[-3000:]
        await asyncio.sleep(0.05)


async def test_an_ike_sa_told_to_another_charon_is_passive_there_with_the_same_spis(ring: MoveLab) -> None:
    here = (await ring.sas("gw1"))[0]
    chain = await ring.brokers["gw1"].wait_for(spis_of(here), children_of(here), timeout=5)
    await ring.brokers["gw2"].replay(chain)
    there = await until_passive(ring, "gw2")
    assert spis_of(there) == spis_of(here)
    assert children_of(there) == children_of(here)
    assert ring.brokers["gw2"].chain_of(chain.spis).children == chain.children


async def test_after_rekeyings_of_both_kinds_by_both_sides_it_still_can(ring: MoveLab) -> None:
    gateway, client = ring.gateways["gw1"], ring.client
    for node, what in (
        (client, {"ike": "vpn"}),
        (gateway, {"child": "net"}),
        (gateway, {"ike": "vpn"}),
        (client, {"ike": "vpn"}),
    ):
        mark = len(node.events)
        async with node.vici as session:
            await session.request("rekey", what)
        await node.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)
        await gateway.sa()
    here = await gateway.sa()
    chain = await ring.brokers["gw1"].wait_for(spis_of(here), children_of(here), timeout=5)
    assert len(chain.generations) >= 2
    await ring.brokers["gw2"].replay(chain)
    there = await until_passive(ring, "gw2")
    assert spis_of(there) == spis_of(here)
    assert children_of(there) == children_of(here)


async def test_removed_it_is_gone_without_a_word_to_the_peer(ring: MoveLab) -> None:
    here = (await ring.sas("gw1"))[0]
    chain = await ring.brokers["gw1"].wait_for(spis_of(here), children_of(here), timeout=5)
    for gateway in ("gw2", "gw1"):
        if gateway == "gw2":
            await ring.brokers["gw2"].replay(chain)
            await until_passive(ring, "gw2")
        ring.brokers[gateway].remove(chain.spis)
        await until_gone(ring, gateway)
        assert not ring.brokers[gateway].knows(chain.spis)
    assert "received DELETE" not in ring.client.log
    assert len(await ring.client.sas()) == 1


async def test_the_same_ike_sa_is_not_told_twice(ring: MoveLab) -> None:
    here = (await ring.sas("gw1"))[0]
    chain = await ring.brokers["gw1"].wait_for(spis_of(here), children_of(here), timeout=5)
    with pytest.raises(MoveError, match="exist twice"):
        await ring.brokers["gw1"].replay(chain)
    await ring.brokers["gw2"].replay(chain)
    with pytest.raises(MoveError, match="exist twice"):
        await ring.brokers["gw2"].replay(chain)


async def test_keys_are_sent_to_nobody_but_charons_user(ring: MoveLab) -> None:
    here = (await ring.sas("gw1"))[0]
    chain = await ring.brokers["gw1"].wait_for(spis_of(here), children_of(here), timeout=5)
    broker = ring.brokers["gw2"]
    broker._charon_uid = lambda: 65534
    with pytest.raises(CharonUnreachableError, match="no keys are sent"):
        await broker.replay(chain)
    broker._charon_uid = lambda: 0
    await ring.gateways["gw2"].stop()
    with pytest.raises(CharonUnreachableError, match="nobody has"):
        await broker.replay(chain)


async def test_charon_hears_its_peer_and_asks_for_nothing(ring: MoveLab) -> None:
    await asyncio.sleep(3)
    log = ring.gateways["gw1"].log
    assert "no heartbeat received" not in log
    assert "resync" not in log.replace("resync = no", "")
    assert ring.brokers["gw1"].status.healthy
