"""Reading captured packets."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.lab.packets import Kind, read_packet
from mobikectl.model import Path

HERE, THERE = ip_address("198.18.1.1"), ip_address("198.18.9.1")
HERE6, THERE6 = ip_address("2001:db8:1::1"), ip_address("2001:db8:9::1")


def ip(payload: bytes, protocol: int = 17) -> bytes:
    return bytes(dpkt.ip.IP(src=HERE.packed, dst=THERE.packed, p=protocol, data=payload))


def ip6(payload: bytes, protocol: int = 17) -> bytes:
    packet = dpkt.ip6.IP6(src=HERE6.packed, dst=THERE6.packed, nxt=protocol, plen=len(payload))
    return bytes(packet)[:40] + payload


def udp(data: bytes, port: int) -> bytes:
    return struct.pack("!HHHH", port, port, 8 + len(data), 0) + data


def ike(exchange: int, *, flags: int = 8, version: int = 0x20) -> bytes:
    return struct.pack("!QQBBBBII", 7, 8, 0, version, exchange, flags, 5, 28)


def test_an_ike_request_on_port_500() -> None:
    packet = read_packet(ip(udp(ike(34), 500)), time=1.5, outgoing=True)
    assert packet is not None
    assert (packet.kind, packet.exchange, packet.response, packet.message_id) == (
        Kind.IKE,
        "IKE_SA_INIT",
        False,
        5,
    )
    assert packet.path == Path(HERE, THERE)
    assert packet.spi == 7
    assert packet.version == 2


def test_an_ike_response_behind_the_non_esp_marker() -> None:
    packet = read_packet(ip(udp(bytes(4) + ike(37, flags=0x20), 4500)), time=0, outgoing=False)
    assert packet is not None
    assert packet.exchange == "INFORMATIONAL"
    assert packet.response
    assert packet.path == Path(THERE, HERE), "the path is seen from this node"


def test_esp_in_udp_and_bare_esp_have_their_spi() -> None:
    esp = struct.pack("!II", 0xC0FFEE01, 1) + bytes(40)
    for data in (ip(udp(esp, 4500)), ip(esp, 50), ip6(udp(esp, 4500)), ip6(esp, 50)):
        packet = read_packet(data, time=0, outgoing=True)
        assert packet is not None
        assert (packet.kind, packet.spi) == (Kind.ESP, 0xC0FFEE01)


def test_a_nat_keepalive_is_neither_ike_nor_esp() -> None:
    packet = read_packet(ip(udp(b"\xff", 4500)), time=0, outgoing=True)
    assert packet is not None
    assert packet.kind is Kind.KEEPALIVE


@pytest.mark.parametrize("data", [b"", b"\x45", ip(udp(b"dns", 53)), ip(udp(b"\0" * 7, 4500)), ip(b"", 50)])
def test_anything_else_is_no_packet_of_ours(data: bytes) -> None:
    assert read_packet(data, time=0, outgoing=True) is None


@given(st.binary(max_size=120))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    read_packet(data, time=0, outgoing=True)


@given(st.binary(max_size=60), st.sampled_from([50, 17]))
def test_no_payload_makes_it_fail(data: bytes, protocol: int) -> None:
    read_packet(ip(data, protocol), time=0, outgoing=True)
