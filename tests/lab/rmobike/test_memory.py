"""A charon with the plugin does its work under valgrind: no error in the plugin, and nothing that it lost."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from .lab import PLUGIN, run

if TYPE_CHECKING:
    from pathlib import Path

    from .lab import Lab, Node

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(420),
]

PLUGIN_ASAN = PLUGIN.parent / "asan" / PLUGIN.name
FIRST, SECOND, THIRD, FOURTH = "one", "two", "three", "four"


def under_valgrind(node: Node) -> Path:
    """Let a node's charon run under valgrind. Return where the report will be."""
    report = node.directory / "valgrind.txt"
    node.wrapper = (
        "valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible", "--num-callers=30",
        "--keep-debuginfo=yes", f"--log-file={report}",
    )  # fmt: skip
    return report


def blamed(report: Path) -> list[str]:
    """Return the paragraphs of a report that name a function of the plugin."""
    text = re.sub(r"(?m)^==\d+== ?", "", report.read_text())
    assert "ERROR SUMMARY" in text, text[-2000:]
    return [
        part for part in text.split("\n\n") if re.search(r"\(rmobike_\w+\.c:|libstrongswan-rmobike", part)
    ]


async def exercise(lab: Lab) -> None:
    """Use all that the plugin has: commands good and bad, switches, updates, rules, redirects, rekeyings."""
    gateway, client = lab.gateway, lab.client
    await gateway.command("watch", types=["50001"])
    await gateway.command(
        "add-rule", name="echo", exchange="INFORMATIONAL", direction="response", when="50001", echo="yes",
        notify="50002", count="1",
    )  # fmt: skip
    await gateway.command(
        "set-redirect", exchange="IKE_SA_INIT", gateway="198.18.2.11", **{"except": ["client"]}
    )
    await client.command("set-policy", allow="198.18.2.0/24", interval_ms="0")
    await lab.connect()
    number = (await gateway.sa())["uniqueid"]
    own = (await client.sa())["uniqueid"]
    await client.command("send-notify", ike_id=own, token=FIRST, notifies=["50001:0011", "50001"])
    await client.event("notify-answered", token=FIRST, timeout=60)
    await gateway.command("switch-address", ike_id=number, address="198.18.2.12", token=FIRST)
    await gateway.event("switch-done", token=FIRST, timeout=60)
    for data in ("", "ff", "c612020b00"):
        await gateway.command("send-notify", ike_id=number, token=SECOND, notifies=[f"41042:{data}"])
    async with gateway.vici as session:
        await session.request("rekey", {"ike": "vpn"})
    await gateway.event("ike-rekey", timeout=60)
    number = (await gateway.sa())["uniqueid"]
    await gateway.command("switch-address", ike_id=number, address="198.18.2.10", token=SECOND)
    await gateway.command("switch-address", ike_id=number, address="198.18.2.11", token=THIRD, foreign="yes")
    await gateway.event("switch-done", token=THIRD, timeout=60)
    own = (await client.sa())["uniqueid"]
    await client.command("update-addresses", ike_id=own, local="198.18.3.2", token=FOURTH)
    await client.event("update-done", token=FOURTH, timeout=60)
    async for _ in gateway.control.stream("list-peers", "list-peer"):
        pass
    await gateway.command("list-rules")
    await gateway.command("status")
    # left behind at the end: a switch that is not answered, a notify that is not sent
    number = (await gateway.sa())["uniqueid"]
    lab.block("198.18.3.2")
    await gateway.command("switch-address", ike_id=number, address="198.18.2.12", token=FIRST)
    await gateway.command("send-notify", ike_id=number, token=SECOND, notifies=["50005:00"])


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
@pytest.mark.parametrize("side", ["gateway", "client"])
async def test_valgrind_finds_nothing_to_blame_the_plugin_for(lab: Lab, side: str) -> None:
    report = under_valgrind(getattr(lab, side))
    await lab.gateway.start()
    await lab.client.start()
    await exercise(lab)
    await lab.stop()
    assert blamed(report) == []


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
async def test_a_client_that_is_redirected_in_ike_auth_frees_nothing_twice(lab: Lab) -> None:
    """charon 5.9.8 does so by itself: the plugin keeps it from it."""
    report = under_valgrind(lab.client)
    await lab.gateway.start()
    await lab.client.start()
    await lab.gateway.command("set-redirect", exchange="IKE_AUTH", gateway="198.18.2.11")
    await lab.connect()
    await lab.client.sa(remote_host="198.18.2.11")
    await lab.stop()
    assert blamed(report) == []
    assert "Invalid" not in report.read_text()


@pytest.mark.skipif(
    not PLUGIN_ASAN.exists(), reason="needs the plugin with AddressSanitizer: make plugin-asan"
)
async def test_the_address_sanitizer_finds_nothing(lab: Lab) -> None:
    libasan = run("gcc", "-print-file-name=libasan.so").strip()
    for node in (lab.gateway, lab.client):
        node.plugin_file = PLUGIN_ASAN
        node.preload = libasan
        await node.start()
    await exercise(lab)
    await lab.stop()
    for node in (lab.gateway, lab.client):
        assert "ERROR: AddressSanitizer" not in node.output
        assert "runtime error" not in node.output
