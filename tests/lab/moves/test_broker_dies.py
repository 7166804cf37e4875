"""A broker that is killed: charon notices nothing, nobody gets its port, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.charon.ha_broker import open_broker
from mobikectl.charon.ha_holder import Keeper
from mobikectl.charon.ha_port import HaPort, HaPortTakenError
from mobikectl.lab.capture import open_in
from mobikectl.node.untold import RekeyUntold
from mobikectl.observe.events import EventLog
from mobikectl.policy.untold import Pace
from mobikectl.protocol.handover import SourceState

from .lab import children_of, spis_of
from .sites import sites_of
from .standbys import Standbys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.node.replicator import Served

    from .lab import MoveLab
    from .sites import Sites

pytestmark = [pytest.mark.netns, pytest.mark.charon]
SCRIPT = Path(__file__).with_name("broker_process.py")


class Broker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, "the broker ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask_until(self, **wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while True:
            answer = await self.ask()
            if all(answer[key] == value for key, value in wanted.items()):
                return answer
            assert time.monotonic() < deadline, (answer, wanted)
            await asyncio.sleep(0.05)

    async def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def broker_of(lab: MoveLab, gateway: str) -> AsyncIterator[Broker]:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", lab.gateways[gateway].ns, sys.executable, str(SCRIPT), keeper_path(lab, gateway),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=lab.directory,
    )  # fmt: skip
    try:
        yield Broker(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def keeper_path(lab: MoveLab, gateway: str) -> str:
    return str(lab.directory / f"{gateway}.killed")


@pytest.fixture
async def connected(lab: MoveLab) -> AsyncIterator[tuple[MoveLab, Broker]]:
    async with broker_of(lab, "gw1") as broker:
        await broker.ask()
        await lab.start(brokers=False)
        await lab.connect()
        yield lab, broker
    Keeper(Path(keeper_path(lab, "gw1"))).end()


async def test_a_killed_broker_knows_all_again_and_what_charon_did_meanwhile(
    connected: tuple[MoveLab, Broker],
) -> None:
    lab, broker = connected
    gateway = lab.gateways["gw1"]
    before = await gateway.sa()
    await broker.ask_until(known={str(spis_of(before)): sorted(children_of(before))})
    await broker.kill()
    mark = len(gateway.events)
    for what in ({"child": "net"}, {"ike": "vpn"}):
        async with gateway.vici as session:
            await session.request("rekey", what)
        await gateway.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)
    after = await gateway.sa()
    assert spis_of(after) != spis_of(before)
    rekeyings = gateway.names(mark).count("child-rekey")
    async with broker_of(lab, "gw1") as second:
        answer = await second.ask_until(healthy=True)
        assert children_of(after) <= set(answer["known"][str(spis_of(after))])
        assert answer["taken_over"] == 1
        assert answer["lost"] == 0
        await asyncio.sleep(2.5)  # longer than charon waits for its peer
        assert gateway.names(mark).count("child-rekey") == rekeyings
        assert "resync" not in gateway.log


async def test_killed_again_and_again_it_still_knows_the_ike_sa(connected: tuple[MoveLab, Broker]) -> None:
    lab, broker = connected
    sa = await lab.gateways["gw1"].sa()
    known = {str(spis_of(sa)): sorted(children_of(sa))}
    await broker.ask_until(known=known)
    await broker.kill()
    for _ in range(4):
        async with broker_of(lab, "gw1") as again:
            await again.ask_until(known=known, taken_over=1)
            await again.kill()


async def test_an_ike_sa_that_was_frozen_when_all_was_forgotten_is_rekeyed_and_can_be_moved(
    lab: MoveLab,
) -> None:
    gateway, keeper = lab.gateways["gw1"], Keeper(lab.directory / "gw1.first")
    for name in ("gw2", "gw3"):
        lab.brokers[name] = await lab.open_broker(name)
    async with open_broker(keeper, protect=False, bind=lab.bind("gw1"), owner=lab.owner("gw1")) as first:
        await lab.start(brokers=False)
        await lab.connect()
        sa = await gateway.sa()
        spis, children = spis_of(sa), children_of(sa)
        await first.wait_for(spis, children, timeout=5)
        await gateway.command("freeze", ike_id=sa["uniqueid"])
        await gateway.command("passivate", ike_id=sa["uniqueid"])
    keeper.end()
    lab.brokers["gw1"] = second = await lab.open_broker("gw1")
    await second.wait_for(spis, (), timeout=10)
    await gateway.command("thaw", ike_id=sa["uniqueid"])
    assert second.untold(spis, children) == frozenset(children)
    async with sites_of(lab) as sites:
        refused = await sites.move("gw1", "gw2")
        assert refused.state is SourceState.KEPT
        assert "CHILD_SAs are not known" in refused.why
        await rekeyed(sites, "gw1")
        assert spis_of(await gateway.sa()) == spis
        assert (await sites.move("gw1", "gw2")).state is SourceState.HANDED_OVER


async def test_an_ike_sa_of_which_nothing_is_known_is_rekeyed_with_its_child_sa_and_can_be_moved(
    ring: MoveLab,
) -> None:
    before = await ring.gateways["gw1"].sa()
    ring.brokers["gw1"].forget(spis_of(before))
    async with sites_of(ring) as sites:
        await rekeyed(sites, "gw1")
        after = await ring.gateways["gw1"].sa()
        assert spis_of(after) != spis_of(before)
        assert not children_of(after) & children_of(before)
        assert (await sites.move("gw1", "gw2")).state is SourceState.HANDED_OVER
    sent, answered = await (await ring.ping(50)).result()
    assert sent == answered


async def rekeyed(sites: Sites, name: str) -> None:
    """Have a gateway rekey what its broker does not know, until nothing is left of that."""
    gateway, broker = sites.lab.gateways[name], sites.lab.brokers[name]
    seen: list[Served] | None = None
    rule = RekeyUntold(
        sites.sites[name].control, broker, EventLog(),
        served=lambda: seen, coming=lambda _: False, pace=Pace(after_s=0.2),
    )  # fmt: skip
    async with asyncio.timeout(20):
        while True:
            sa = await gateway.sa()
            if broker.untold(spis_of(sa), children_of(sa)) == frozenset():
                return
            seen = await Standbys(sites.lab, sites).served(name)
            await rule.look()
            await asyncio.sleep(0.05)


async def test_while_it_is_dead_nobody_gets_the_port(connected: tuple[MoveLab, Broker]) -> None:
    lab, broker = connected
    await broker.kill()
    with pytest.raises(HaPortTakenError, match="keys of every IKE_SA"):
        open_in(lab.gateways["gw1"].ns, HaPort.bind)

    def thief() -> str:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken = []
        for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - what a thief would try
            try:
                sock.bind((address, 4510))
                taken.append(address)
            except OSError:
                continue
        sock.close()
        return ",".join(taken)

    assert open_in(lab.gateways["gw1"].ns, thief) == ""


async def test_nothing_that_others_send_to_the_port_is_heard(connected: tuple[MoveLab, Broker]) -> None:
    lab, broker = connected
    sa = await lab.gateways["gw1"].sa()
    known = {str(spis_of(sa)): sorted(children_of(sa))}
    await broker.ask_until(known=known)

    def liar() -> None:
        spis = spis_of(sa)
        delete = (
            bytes.fromhex("03050102") + spis.initiator.to_bytes(8, "big") + spis.responder.to_bytes(8, "big")
        )
        for source in (("127.0.0.1", 0), ("127.0.0.2", 0), ("127.0.0.3", 4510)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(source)
                sock.sendto(delete + b"\0", ("127.0.0.1", 4510))

    open_in(lab.gateways["gw1"].ns, liar)
    await asyncio.sleep(0.5)
    assert (await broker.ask())["known"] == known


async def test_a_broker_that_crashes_leaves_no_core_and_its_memory_is_locked(
    connected: tuple[MoveLab, Broker],
) -> None:
    lab, broker = connected
    assert (await broker.ask())["unprotected"] == []
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    assert int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmLck:"))) > 10_000
    resource.prlimit(
        broker.process.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    assert await dumped_core(broker.process, lab.directory) is False
    control = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=asyncio.subprocess.PIPE, cwd=lab.directory
    )
    resource.prlimit(control.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if not await dumped_core(control, lab.directory):
        pytest.skip("this machine writes no cores at all")


async def dumped_core(process: asyncio.subprocess.Process, directory: Path) -> bool:
    before = set(directory.iterdir())
    process.send_signal(signal.SIGABRT)
    await asyncio.wait_for(process.wait(), 60)
    cores = [path for path in set(directory.iterdir()) - before if "core" in path.name]
    for path in cores:
        path.unlink()
    return bool(cores)
