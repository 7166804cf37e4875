"""Probes against real sockets on the loopback: what counts as an answer, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.model import Path
from mobikectl.policy.settings import ProbeMethod, ProbeSettings
from mobikectl.policy.state import ProbePath
from mobikectl.policy.track import ProbeError
from mobikectl.probe import ike, probe
from mobikectl.probe.icmp import checksum, echo_request, is_reply

HERE = ip_address("127.0.0.1")
SPI = b"\x11" * 8
ANSWER = ike.HEADER.pack(SPI, bytes(8), 41, 0x20, 34, 0x20, 0, 36) + bytes([0, 0, 0, 8, 0, 0, 0, 5])


def request(settings: ProbeSettings, *, within_s: float = 30.0) -> ProbePath:
    return ProbePath(Path(HERE, HERE), "", settings, time.monotonic() + within_s)


def open_files() -> int:
    return len(list(File("/proc/self/fd").iterdir()))


Answer = Callable[[bytes, int], list[bytes]]
"""Given a datagram and its number from 1, what comes back."""


class Peer(asyncio.DatagramProtocol):
    """Answers each datagram with what a function makes of it; nothing when that is empty."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.heard.append(data)
        for answer in self.answer(data, len(self.heard)):
            assert self.transport is not None
            self.transport.sendto(answer, addr)


async def listen(answer: Answer) -> tuple[Peer, int]:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(lambda: Peer(answer), local_addr=("127.0.0.1", 0))
    return peer, transport.get_extra_info("sockname")[1]


def ike_answer(data: bytes) -> bytes:
    assert data[:4] == ike.NON_ESP_MARKER
    return data[:4] + data[4:12] + ANSWER[8:]


async def test_an_ike_daemon_that_answers_is_there() -> None:
    peer, port = await listen(lambda data, _: [ike_answer(data)])
    found = await probe(request(ProbeSettings(port=port, count=3)))
    assert (found.sent, found.received, found.answered, found.error) == (3, 3, 1, None)
    assert len(found.rtts_s) == 3
    assert peer.heard[0][4 + 17] == 0x30
    assert len({data[4:12] for data in peer.heard}) == 3, "each request has its own SPI"


async def test_an_answer_to_somebody_else_is_no_answer() -> None:
    _, port = await listen(lambda data, _: [ANSWER, b"", b"x" * 3000, data[:10]])
    found = await probe(request(ProbeSettings(port=port, timeout_s=0.2)))
    assert (found.answered, found.error) == (0, ProbeError.TIMEOUT)


async def test_noise_before_the_answer_does_not_matter() -> None:
    _, port = await listen(lambda data, _: [b"noise", ANSWER, ike_answer(data)])
    assert (await probe(request(ProbeSettings(port=port)))).answered == 1


async def test_lost_packets_are_counted() -> None:
    _, port = await listen(lambda data, n: [ike_answer(data)] if n != 2 else [])
    found = await probe(request(ProbeSettings(port=port, count=3, timeout_s=0.5)))
    assert (found.sent, found.received, found.answered, found.error) == (3, 2, 1, ProbeError.TIMEOUT)


async def test_a_closed_ike_port_is_no_ike_daemon() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    found = await probe(request(ProbeSettings(port=port)))
    assert (found.answered, found.error) == (0, ProbeError.UNREACHABLE)


async def test_a_closed_udp_port_is_a_host_that_is_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert (await probe(request(ProbeSettings(method=ProbeMethod.UDP, port=port)))).answered == 1


@pytest.mark.parametrize("accepting", [True, False])
async def test_tcp_accepted_or_refused_are_both_answers(accepting: bool) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if accepting:
            server.listen()
        found = await probe(
            request(ProbeSettings(method=ProbeMethod.TCP, port=server.getsockname()[1], timeout_s=5))
        )
    assert (found.answered, found.error) == (1, None)


async def test_all_targets_are_asked_and_counted() -> None:
    targets = tuple(ip_address(f"127.0.0.{i}") for i in (1, 2, 3))
    _, port = await listen(lambda data, _: [ike_answer(data)])
    settings = ProbeSettings(port=port, targets=targets, reliability=1)
    found = await probe(request(settings))
    assert (found.sent, found.received, found.answered) == (3, 1, 1)
    assert found.error is ProbeError.UNREACHABLE


async def test_the_deadline_ends_a_round_whatever_its_settings() -> None:
    _, port = await listen(lambda *_: [])
    settings = ProbeSettings(port=port, count=100, timeout_s=60)
    async with asyncio.timeout(30):
        found = await probe(request(settings, within_s=0.3))
    assert (found.answered, found.error) == (0, ProbeError.TIMEOUT)


async def test_a_deadline_already_over_says_nothing_about_the_path() -> None:
    found = await probe(request(ProbeSettings(), within_s=-1.0))
    assert (found.sent, found.conclusive) == (0, False)


async def test_a_cancelled_probe_leaves_no_socket_open() -> None:
    _, port = await listen(lambda *_: [])
    before = open_files()
    for settings in (ProbeSettings(port=port), ProbeSettings(method=ProbeMethod.UDP, port=port)):
        probes = [asyncio.create_task(probe(request(settings))) for _ in range(20)]
        await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert open_files() > before
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        assert open_files() <= before


async def test_probes_leave_no_socket_open_however_they_end() -> None:
    _, port = await listen(lambda data, n: [ike_answer(data)] if n % 2 else [])
    before = open_files()
    for _ in range(10):
        await probe(request(ProbeSettings(port=port, count=2, timeout_s=0.05)))
    assert open_files() <= before


async def test_a_local_address_that_is_not_here_is_a_result() -> None:
    nowhere = Path(ip_address("198.18.77.77"), HERE)
    found = await probe(ProbePath(nowhere, "", ProbeSettings(), time.monotonic() + 5))
    assert (found.answered, found.error) == (0, ProbeError.NO_ADDRESS)


async def test_the_method_none_sends_nothing() -> None:
    with pytest.raises(ValueError, match="none"):
        await probe(request(ProbeSettings(method=ProbeMethod.NONE)))


def test_the_ike_request_is_a_bare_header_of_a_higher_major_version() -> None:
    assert ike.request(SPI) == SPI + bytes(8) + bytes([0, 0x30, 34, 0x08]) + bytes(4) + (28).to_bytes(
        4, "big"
    )


def test_an_ike_answer_carries_our_spi_and_its_true_length() -> None:
    assert ike.is_answer(ANSWER, SPI)
    assert not ike.is_answer(ANSWER, b"\x22" * 8)
    assert not ike.is_answer(ANSWER + b"\0", SPI)
    for cut in range(len(ANSWER)):
        assert not ike.is_answer(ANSWER[:cut], SPI)


@given(st.binary(max_size=100))
def test_no_octets_make_the_parsers_raise(data: bytes) -> None:
    assert not ike.is_answer(data, SPI) or SPI in data
    for version in (4, 6):
        for raw in (True, False):
            is_reply(version, data, b"12345678", raw=raw)


@given(st.binary(max_size=64))
def test_an_echo_request_has_a_checksum_that_adds_up(payload: bytes) -> None:
    assert checksum(echo_request(4, 7, payload)) == 0
