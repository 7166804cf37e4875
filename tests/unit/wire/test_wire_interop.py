"""What two real charons put on the wire decodes to what they were configured with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tomllib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import LabError, MobikectlError
from mobikectl.lab import vici
from mobikectl.lab.capture import Capture
from mobikectl.lab.instance import Lab
from mobikectl.lab.requirements import require_lab
from mobikectl.lab.topology import parse_topology
from mobikectl.wire.ike import ExchangeType, Message, Payload, typed_notifies
from mobikectl.wire.mobike import (
    AdditionalIp4Address,
    AdditionalIp6Address,
    Cookie2,
    MobikeSupported,
    NatDetectionDestinationIp,
    NatDetectionSourceIp,
    NoAdditionalAddresses,
    UpdateSaAddresses,
)
from mobikectl.wire.pcap import Datagram, read_capture
from mobikectl.wire.redirect import RedirectSupported

from .charon_log import LoggedMessage, read_log

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.wire.notify import NotifyData

pytestmark = [
    pytest.mark.charon,
    pytest.mark.netns,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("wire_interop"),
]

TOPOLOGY = """
[nodes.client]
role = "client"
inside = ["198.18.100.1/32"]
strongswan = '''
charon {
  filelog {
    wire {
      path = /run/wire.log
      enc = 3
      ike = 0
      flush_line = yes
    }
  }
}
'''
routes = [
  { dst = "default", via = "198.18.1.254", dev = "wan1", metric = 100 },
  { dst = "default", via = "198.18.2.254", dev = "wan2", metric = 200 },
]

[nodes.router]
role = "router"

[nodes.gateway]
role = "gateway"
inside = ["198.18.200.1/32"]
routes = [{ dst = "default", via = "198.18.9.254", dev = "wan1" }]

[[links]]
client = { dev = "wan1", addresses = ["198.18.1.1/24"] }
router = { dev = "client1", addresses = ["198.18.1.254/24"] }

[[links]]
client = { dev = "wan2", addresses = ["198.18.2.1/24"] }
router = { dev = "client2", addresses = ["198.18.2.254/24"] }

[[links]]
gateway = { dev = "wan1", addresses = ["198.18.9.1/24"] }
router = { dev = "gateway1", addresses = ["198.18.9.254/24"] }

[[links]]
gateway = { dev = "wan2", addresses = ["198.18.8.1/24", "2001:db8:8::1/64"] }
router = { dev = "gateway2", addresses = ["198.18.8.254/24"] }

[tunnels.office]
client = "client"
gateway = "gateway"
remote = ["198.18.9.1"]
"""
CLIENT1, CLIENT2, GATEWAY = (IPv4Address(ip) for ip in ("198.18.1.1", "198.18.2.1", "198.18.9.1"))
NOTIFY = 41


@dataclass(frozen=True)
class Seen:
    datagrams: list[Datagram]
    logged: list[LoggedMessage]

    @property
    def spis(self) -> tuple[int, int]:
        # A request is retransmitted where the machine is busy, so that the response need not be the second message.
        messages = (Message.from_bytes(datagram.message) for datagram in self.datagrams)
        response = next(message for message in messages if message.responder_spi)
        return response.initiator_spi, response.responder_spi

    def notifies(self, exchange: str, *, sent: bool, response: bool) -> list[tuple[NotifyData, ...]]:
        """The typed notifies of each message of that kind that has any."""
        found = [
            typed_notifies(tuple(message.notifies))
            for message in self.logged
            if (message.exchange, message.sent, message.response) == (exchange, sent, response)
        ]
        return [typed for typed in found if typed]


def new_lab(esp: str) -> Lab:
    topology = parse_topology(tomllib.loads(TOPOLOGY), where="the test's topology")
    return Lab.new(f"wire{secrets.token_hex(4)}", "wire", topology, esp=esp)


def updated(lab: Lab) -> bool:
    """Whether charon finished the address update, as its log says."""
    log = (lab.record.node_dir("client") / "wire.log").read_text(errors="replace")
    return any(
        message.exchange == "INFORMATIONAL" and not message.sent and message.response and message.notifies
        for message in read_log(log)
    )


async def move(directory: Path) -> Seen:
    """Connect two charons, take the client's first uplink down, and see what they said."""
    lab = new_lab("userland")
    pcap = directory / "wire.pcap"
    try:
        await lab.up()
        with Capture(lab.namespace("client"), pcap):
            await asyncio.to_thread(vici.initiate, lab.vici_socket("client"), "office")
            await lab.run_in("client", "ip", "link", "set", "wan1", "down")
            async with asyncio.timeout(30):
                while not updated(lab):  # noqa: ASYNC110 (a log has no event to wait for)
                    await asyncio.sleep(0.2)
        log = (lab.record.node_dir("client") / "wire.log").read_text(errors="replace")
    finally:
        await lab.down()
    return Seen(list(read_capture(pcap.read_bytes())), read_log(log))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    try:
        require_lab()
    except MobikectlError as error:
        pytest.skip(str(error))
    return asyncio.run(move(tmp_path_factory.mktemp("wire")))


def hashes_of(payloads: tuple[Payload, ...]) -> tuple[NatDetectionSourceIp, NatDetectionDestinationIp]:
    typed = typed_notifies(payloads)
    (source,) = [one for one in typed if isinstance(one, NatDetectionSourceIp)]
    (destination,) = [one for one in typed if isinstance(one, NatDetectionDestinationIp)]
    return source, destination


def test_every_message_of_two_charons_is_read_and_written_back(seen: Seen) -> None:
    exchanges = []
    for datagram in seen.datagrams:
        message = Message.from_bytes(datagram.message)
        assert message.to_bytes() == datagram.message
        exchanges.append(ExchangeType(message.exchange))
    assert exchanges[:2] == [ExchangeType.IKE_SA_INIT] * 2
    assert {ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL} <= set(exchanges)


def test_nat_detection_destination_hashes_are_those_of_the_addresses_in_the_ip_header(seen: Seen) -> None:
    for datagram in seen.datagrams[:2]:
        message = Message.from_bytes(datagram.message)
        _, destination = hashes_of(message.payloads)
        spis = message.initiator_spi, message.responder_spi
        assert destination.matches(*spis, datagram.destination, datagram.destination_port)


def test_charon_with_userland_esp_fakes_its_source_hash_so_that_esp_goes_in_udp(seen: Seen) -> None:
    datagram = seen.datagrams[0]
    message = Message.from_bytes(datagram.message)
    source, _ = hashes_of(message.payloads)
    assert not source.matches(message.initiator_spi, 0, datagram.source, datagram.source_port)


def test_the_log_and_the_capture_agree_about_ike_sa_init(seen: Seen) -> None:
    in_capture = [p for p in Message.from_bytes(seen.datagrams[0].message).payloads if p.type == NOTIFY]
    (logged,) = [m for m in seen.logged if m.exchange == "IKE_SA_INIT" and m.sent]
    assert logged.notifies == in_capture
    assert RedirectSupported() in typed_notifies(tuple(in_capture))


def test_additional_addresses_are_the_configured_ones(seen: Seen) -> None:
    (from_client,) = seen.notifies("IKE_AUTH", sent=True, response=False)
    (from_gateway,) = seen.notifies("IKE_AUTH", sent=False, response=True)
    assert from_client[:1] == from_gateway[:1] == (MobikeSupported(),)
    assert not any(typed.responder_initiated for typed in from_client if isinstance(typed, MobikeSupported))
    assert set(from_client[1:]) == {AdditionalIp4Address(CLIENT2)}
    assert set(from_gateway[1:]) == {
        AdditionalIp4Address(IPv4Address("198.18.8.1")),
        AdditionalIp6Address(IPv6Address("2001:db8:8::1")),
    }


def test_the_address_update_of_a_move_is_what_rfc_4555_section_3_5_says(seen: Seen) -> None:
    request = next(
        typed
        for typed in seen.notifies("INFORMATIONAL", sent=True, response=False)
        if UpdateSaAddresses() in typed
    )
    response = seen.notifies("INFORMATIONAL", sent=False, response=True)[-1]
    (cookie,) = [one for one in request if isinstance(one, Cookie2)]
    assert cookie in response, "the responder copies COOKIE2"
    assert NoAdditionalAddresses() in request, "the only other address went down"
    (towards_gateway,) = [one for one in request if isinstance(one, NatDetectionDestinationIp)]
    (towards_client,) = [one for one in response if isinstance(one, NatDetectionDestinationIp)]
    assert towards_gateway.matches(*seen.spis, GATEWAY, 4500)
    assert towards_client.matches(*seen.spis, CLIENT2, 4500)
    assert not towards_client.matches(*seen.spis, CLIENT1, 4500)


async def first_exchange(directory: Path) -> list[Datagram]:
    """Let two charons that count on the kernel's ESP begin: IKE_SA_INIT needs none."""
    lab = new_lab("kernel")
    pcap = directory / "wire.pcap"
    try:
        await lab.up()
        with Capture(lab.namespace("client"), pcap):
            with contextlib.suppress(LabError):  # where the kernel has no ESP the CHILD_SA fails
                await asyncio.to_thread(vici.initiate, lab.vici_socket("client"), "office")
    finally:
        await lab.down()
    return list(read_capture(pcap.read_bytes()))


def test_without_userland_esp_both_nat_detection_hashes_are_those_of_the_ip_header(tmp_path: Path) -> None:
    try:
        require_lab()
    except MobikectlError as error:
        pytest.skip(str(error))
    datagrams = asyncio.run(first_exchange(tmp_path))
    for datagram in datagrams[:2]:
        message = Message.from_bytes(datagram.message)
        assert message.exchange == ExchangeType.IKE_SA_INIT
        source, destination = hashes_of(message.payloads)
        spis = message.initiator_spi, message.responder_spi
        assert source.matches(*spis, datagram.source, datagram.source_port)
        assert destination.matches(*spis, datagram.destination, datagram.destination_port)
    assert len(datagrams) >= 2
