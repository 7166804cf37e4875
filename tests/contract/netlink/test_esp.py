"""Sequence numbers of real kernel SAs: what the kernel makes of numbers that are set, and what its peer then takes."""

from __future__ import annotations

import asyncio
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NetlinkError, NotFoundError
from mobikectl.netlink.esp import EspSequences, Received, reserve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Namespace

pytestmark = pytest.mark.netns
KEY = "0x" + "5a" * 36
SOURCE, PEER, TARGET = ip_address("198.18.0.1"), ip_address("198.18.0.2"), ip_address("198.18.1.1")
OUT, IN = 0x1001, 0x2002


async def test_where_the_kernel_has_no_such_sa_the_numbers_are_unknown(ns: Namespace) -> None:
    async with EspSequences(netns=ns.name) as esp:
        try:
            assert await esp.read(PEER, OUT) is None
        except NetlinkError:
            pytest.skip("this kernel has no NETLINK_XFRM")
        with pytest.raises(NotFoundError):
            await esp.start_after(PEER, OUT, 100)


class Nodes:
    """A source and a target that have the same SA, and the peer that both send to: three namespaces."""

    def __init__(self, ns: Namespace, esn: bool) -> None:
        self.source, self.peer, self.target = (f"{ns.name}{end}" for end in "spt")
        self.window = "replay-window 64 flag esn" if esn else "replay-window 32"

    def ip(self, space: str, command: str) -> str:
        argv = ["ip", "-n", space, *command.split()]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout

    def build(self) -> None:
        for space in (self.source, self.peer, self.target):
            subprocess.run(["ip", "netns", "add", space], check=True, timeout=30)
            self.ip(space, "link set lo up")
        for place, (space, address) in enumerate(((self.source, SOURCE), (self.target, TARGET))):
            self.ip(self.peer, f"link add p{place} type veth peer name wan netns {space}")
            self.ip(self.peer, f"addr add 198.18.{place}.2/24 dev p{place}")
            self.ip(self.peer, f"link set p{place} up")
            self.ip(space, f"addr add {address}/24 dev wan")
            self.ip(space, "link set wan up")
            self.ip(space, f"route add default via 198.18.{place}.2")
            self.sa(space, address, PEER, OUT)
            self.sa(space, PEER, address, IN)
            self.ip(
                space,
                f"xfrm policy add dir out src 198.18.9.1 dst 198.18.9.2 tmpl src {address} dst {PEER} "
                "proto esp mode tunnel reqid 7",
            )
            self.ip(space, "addr add 198.18.9.1/32 dev lo")
            self.ip(space, "route add 198.18.9.2 dev wan src 198.18.9.1")
        self.sa(self.peer, SOURCE, PEER, OUT)
        self.ip(
            self.peer,
            f"xfrm policy add dir in src 198.18.9.1 dst 198.18.9.2 tmpl src {SOURCE} dst {PEER} "
            "proto esp mode tunnel reqid 7 level use",
        )
        self.ip(self.peer, "addr add 198.18.9.2/32 dev lo")

    def sa(self, space: str, src: object, dst: object, spi: int) -> None:
        self.ip(
            space,
            f"xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 7 mode tunnel {self.window} "
            f"aead rfc4106(gcm(aes)) {KEY} 128",
        )

    def send(self, space: str, count: int) -> None:
        """Send echo requests through the SA; the peer has no way to answer, which is not its task here."""
        argv = [
            "ip",
            "netns",
            "exec",
            space,
            "ping",
            "-q",
            "-n",
            "-i",
            "0.01",
            "-c",
            str(count),
            "-W",
            "0.1",
            "198.18.9.2",
        ]
        subprocess.run(argv, check=False, capture_output=True, timeout=30)

    async def taken(self) -> int:
        """Return how many packets the peer has accepted."""
        async with EspSequences(netns=self.peer) as esp:
            sa = await esp._sas.get(PEER, OUT)  # its packet counter, which EspSequences does not tell
        return sa.packets

    def remove(self) -> None:
        for space in (self.source, self.peer, self.target):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True, timeout=30)


@pytest.fixture(params=[False, True], ids=["plain", "esn"])
def nodes(ns: Namespace, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    made = Nodes(ns, request.param)
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as refused:
            if "xfrm" not in refused.cmd:
                raise
            pytest.skip(f"this kernel has no ESP: {refused.stderr.strip()}")
        yield made
    finally:
        made.remove()


@pytest.mark.kernel_esp
async def test_a_target_that_begins_at_zero_sends_only_replays_to_the_peer(nodes: Nodes) -> None:
    await asyncio.to_thread(nodes.send, nodes.source, 60)
    before = await nodes.taken()
    assert before == 60
    await asyncio.to_thread(nodes.send, nodes.target, 20)
    assert await nodes.taken() == before


@pytest.mark.kernel_esp
async def test_a_target_that_goes_on_behind_the_reservation_loses_nothing_and_neither_does_the_source(
    nodes: Nodes,
) -> None:
    await asyncio.to_thread(nodes.send, nodes.source, 60)
    async with EspSequences(netns=nodes.source) as source, EspSequences(netns=nodes.target) as target:
        numbers = await source.read(PEER, OUT)
        assert numbers is not None
        assert numbers.oseq == 60
        reservation = reserve(numbers.oseq, packets_per_s=100, still_sends_s=0.05)
        now = await target.start_after(PEER, OUT, reservation.last)
        assert now.oseq == reservation.last
    await asyncio.to_thread(nodes.send, nodes.target, 1)
    # The window has moved on: what the source sends under its reservation is late, but is taken.
    await asyncio.to_thread(nodes.send, nodes.source, reservation.packets)
    await asyncio.to_thread(nodes.send, nodes.target, 20)
    assert await nodes.taken() == 60 + 1 + reservation.packets + 20


@pytest.mark.kernel_esp
async def test_numbers_are_never_lowered(nodes: Nodes) -> None:
    async with EspSequences(netns=nodes.target) as target:
        await target.start_after(PEER, OUT, 500)
        with pytest.raises(NetlinkError, match="beyond 499"):
            await target.start_after(PEER, OUT, 499)
        state = await target.read(PEER, OUT)
    assert state is not None
    assert state.oseq == 500


@pytest.mark.kernel_esp
async def test_numbers_of_64_bits_are_for_esn_only(nodes: Nodes) -> None:
    async with EspSequences(netns=nodes.target) as target:
        state = await target.read(PEER, OUT)
        assert state is not None
        if state.esn:
            assert (await target.start_after(PEER, OUT, (1 << 32) + 7)).oseq == (1 << 32) + 7
        else:
            with pytest.raises(NetlinkError, match="no ESN"):
                await target.start_after(PEER, OUT, (1 << 32) + 7)


@pytest.mark.kernel_esp
async def test_what_the_source_took_the_target_refuses_when_it_is_told(nodes: Nodes) -> None:
    async with EspSequences(netns=nodes.target) as target:
        now = await target.mark_received(TARGET, IN, Received(highest=1000, seen=0b1011, window=32))
        received = Received.of(now)
    assert received.highest == 1000
    assert [received.has(number) for number in (1001, 1000, 999, 998, 997, 968, 900)] == [
        False, True, True, False, True, True, True,
    ]  # fmt: skip
