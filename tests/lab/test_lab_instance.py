"""Labs on this machine: what is built is real, and what is torn down is gone."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import LabError, NotFoundError
from mobikectl.lab import record as records
from mobikectl.lab import vici
from mobikectl.lab.instance import Lab, tear_down
from mobikectl.lab.processes import MARK, end_all, identify, marked
from mobikectl.lab.requirements import CHARON
from mobikectl.lab.scenario import load_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]

TOPOLOGY = load_scenario("client-link-down").topology


@pytest.fixture
def name() -> Iterator[str]:
    """A name of its own for a lab that is gone afterwards whatever happens."""
    unique = f"test-{secrets.token_hex(4)}"
    yield unique
    try:
        tear_down(records.load(unique))
    except NotFoundError:
        return


def left_of(name: str) -> list[str]:
    """Everything of a lab that can still be found on this machine."""
    namespaces = [e.name for e in Path("/run/netns").iterdir()] if Path("/run/netns").is_dir() else []
    left = [n for n in namespaces if n.startswith(f"{records.NAMESPACE_PREFIX}-{name}-")]
    left += [f"process {who.pid}" for who in marked(name)]
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
    if (records.labs_dir() / name).exists():
        left.append("its directory")
    return left


async def established(lab: Lab) -> str:
    """Bring the tunnel up and return the path that the client's charon uses."""
    await asyncio.to_thread(vici.initiate, lab.vici_socket("client"), "office")
    _, sa = vici.list_sas(lab.vici_socket("client"))[0]
    return f"{sa['state']} {sa['local-host']} -> {sa['remote-host']}"


async def test_a_lab_has_a_tunnel_that_carries_packets_and_leaves_nothing_behind(name: str) -> None:
    lab = Lab.new(name, "client-link-down", TOPOLOGY, esp="userland")
    await lab.up()
    assert await established(lab) == "ESTABLISHED 198.18.1.1 -> 198.18.9.1"
    await lab.run_in("client", "ping", "-c2", "-i0.1", "-W2", "-I198.18.100.1", "198.18.200.1")
    charon = lab.charon("client")
    assert left_of(name)
    await lab.down()
    assert left_of(name) == []
    assert identify(charon.pid) != charon


async def test_two_labs_of_one_topology_run_side_by_side(name: str) -> None:
    labs = [Lab.new(f"{name}-{n}", "client-link-down", TOPOLOGY, esp="userland") for n in (1, 2)]
    try:
        await asyncio.gather(*(lab.up() for lab in labs))
        paths = await asyncio.gather(*(established(lab) for lab in labs))
        assert paths == ["ESTABLISHED 198.18.1.1 -> 198.18.9.1"] * 2
        await labs[0].down()
        assert len(vici.list_sas(labs[1].vici_socket("client"))) == 1, "the end of one disturbs the other"
    finally:
        for lab in labs:
            await lab.down()
    assert left_of(f"{name}-1") == left_of(f"{name}-2") == []


async def test_a_name_is_given_once(name: str) -> None:
    Lab.new(name, "client-link-down", TOPOLOGY, esp="userland")
    with pytest.raises(LabError, match="already"):
        Lab.new(name, "client-link-down", TOPOLOGY, esp="userland")


CRASHING = """
import asyncio, os, sys
from mobikectl.lab.instance import Lab
from mobikectl.lab.scenario import load_scenario
lab = Lab.new(sys.argv[1], "client-link-down", load_scenario("client-link-down").topology, esp="userland")
moment = sys.argv[2]
if moment == "charon":
    start = lab.start
    def start_and_die(node, what, argv):
        # Die between the start of a charon and its record: only its mark tells whose it is.
        lab.record.__class__.add_process = lambda *_: os.kill(os.getpid(), 9)
        return start(node, what, argv)
    lab.start = start_and_die
else:
    async def die(node):
        os.kill(os.getpid(), 9)
    lab._setup_node = die
asyncio.run(lab.up())
"""


@pytest.mark.parametrize("moment", ["namespaces", "charon"])
def test_a_crash_in_the_middle_of_building_is_cleaned_up_by_down(name: str, moment: str) -> None:
    crashed = subprocess.run([sys.executable, "-c", CRASHING, name, moment], check=False, timeout=60)
    assert crashed.returncode == -signal.SIGKILL
    assert left_of(name), "the crash came too early to show anything"
    done = subprocess.run(
        [sys.executable, "-m", "mobikectl", "lab", "down", name], check=False, timeout=60, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert left_of(name) == []


def test_a_pid_that_belongs_to_another_process_now_is_left_alone(name: str) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        who = identify(bystander.pid)
        assert who is not None
        record = Lab.new(name, "client-link-down", TOPOLOGY, esp="userland").record
        record.add_process("client", "charon", type(who)(who.pid, who.start - 1))
        tear_down(record)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_that_ignores_sigterm_is_killed(name: str) -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        env=os.environ | {MARK: name},
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    assert stubborn.stdout.readline() == b"ready\n"
    end_all(marked(name), grace=0.2)
    assert stubborn.wait(timeout=5) == -signal.SIGKILL
    stubborn.stdout.close()
