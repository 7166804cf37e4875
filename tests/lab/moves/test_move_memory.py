"""The move helper under AddressSanitizer and valgrind: no error in the plugin, and nothing that it lost."""

from __future__ import annotations

import shutil
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.rmobike import PluginRefusedError
from mobikectl.charon.rmobike_move import AHEAD

from ..rmobike.lab import run
from ..rmobike.test_memory import PLUGIN_ASAN, blamed, under_valgrind
from .lab import spis_of
from .test_move_helper import imported, mover, taken, until

if TYPE_CHECKING:
    from .lab import MoveLab

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.slow, pytest.mark.timeout(420)]


async def exercise(lab: MoveLab) -> None:
    """Move an IKE_SA there and back, commands good and bad, and leave a frozen one behind at the end."""
    await taken(lab)
    await lab.connect()
    for source, target in (("gw1", "gw2"), ("gw2", "gw1")):
        spis = await imported(lab, source, target)
        async with mover(lab.gateways[source]) as here, mover(lab.gateways[target]) as there:
            await until(here, spis, busy=False)
            await here.freeze(spis, timeout_s=0.2)
            await until(here, spis, busy=False, thaws=False)
            frozen = await here.freeze(spis)
            await here.passivate(spis)
            for refused in (
                here.activate(spis),
                there.thaw(spis),
                there.activate(spis, children=[5]),
                there.activate(spis, address=ip_address("2001:db8::1")),
            ):
                with pytest.raises(PluginRefusedError):
                    await refused
            await there.activate(
                spis,
                mids=(frozen.mid_initiator, frozen.mid_responder - 1),  # the client is one ahead of that
                address=ip_address(lab.address(target)),
                announce=True,
                children=[child.spi_in for child in frozen.children],
                peer_r=True,
                own_r=False,
                ahead=AHEAD,
            )
            await lab.client.sa(remote_host=lab.address(target))
            await here.drop(spis)
            await until(there, spis, busy=False)
            lab.brokers[source].forget(spis)
    async with lab.client.vici as session:
        await session.request("rekey", {"ike": "vpn"})
    await lab.client.event("ike-rekey", timeout=60)
    async with mover(lab.gateways["gw1"]) as here:
        last = spis_of(await lab.gateways["gw1"].sa())
        await until(here, last, busy=False)
        await here.freeze(last, timeout_s=60)


@pytest.mark.skipif(
    not PLUGIN_ASAN.exists(), reason="needs the plugin with AddressSanitizer: make plugin-asan"
)
async def test_the_address_sanitizer_finds_nothing(lab: MoveLab) -> None:
    libasan = run("gcc", "-print-file-name=libasan.so").strip()
    for node in lab.gateways.values():
        node.plugin_file = PLUGIN_ASAN
        node.preload = libasan
    await lab.start()
    await exercise(lab)
    await lab.stop()
    for node in lab.gateways.values():
        assert "ERROR: AddressSanitizer" not in node.output
        assert "runtime error" not in node.output


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
async def test_valgrind_finds_nothing_to_blame_the_plugin_for(lab: MoveLab) -> None:
    reports = [under_valgrind(lab.gateways[name]) for name in ("gw1", "gw2")]
    await lab.start()
    await exercise(lab)
    await lab.stop()
    for report in reports:
        assert blamed(report) == []
