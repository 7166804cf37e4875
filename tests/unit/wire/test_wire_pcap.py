"""IKE messages are found in captures of all kinds, and nothing else is."""

from __future__ import annotations

import io
import struct
from ipaddress import ip_address

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import ConfigError, DecodeError
from mobikectl.model import IpAddress
from mobikectl.wire import pcap
from mobikectl.wire.ike import Message, Payload
from mobikectl.wire.pcap import Datagram, is_capture, read_capture

from .wire_vectors import DIRECTORY, load

Ends = tuple[IpAddress, IpAddress]

CHARON = (DIRECTORY / "charon-5.9.8.pcap").read_bytes()
MESSAGE = Message(1, 2, 37, 8, 3, (Payload(43, b"hello"),)).to_bytes()
V4 = (ip_address("198.18.0.1"), ip_address("198.18.1.1"))
V6 = (ip_address("2001:db8::1"), ip_address("2001:db8::2"))


def packet(payload: bytes, *, port: int = 500, ips: Ends = V4) -> dpkt.Packet:
    udp = dpkt.udp.UDP(sport=port, dport=port, data=payload, ulen=8 + len(payload))
    source, destination = (ip.packed for ip in ips)
    if ips[0].version == 4:
        return dpkt.ip.IP(src=source, dst=destination, p=17, data=udp, len=28 + len(payload))
    return dpkt.ip6.IP6(src=source, dst=destination, nxt=17, plen=8 + len(payload), hlim=64, data=udp)


def capture(*frames: bytes, link: int = dpkt.pcap.DLT_RAW, ng: bool = False) -> bytes:
    file = io.BytesIO()
    if ng:
        idb = dpkt.pcapng.InterfaceDescriptionBlockLE(linktype=link, snaplen=262144)
        writer = dpkt.pcapng.Writer(file, idb=idb)
    else:
        writer = dpkt.pcap.Writer(file, linktype=link)
    for number, frame in enumerate(frames):
        writer.writepkt(frame, ts=1000 + number)
    return file.getvalue()


def ethernet(inner: dpkt.Packet) -> bytes:
    kind = 0x0800 if isinstance(inner, dpkt.ip.IP) else 0x86DD
    return b"\x02" * 12 + struct.pack(">H", kind) + bytes(inner)


def cooked(inner: dpkt.Packet) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800) + bytes(inner)


def test_the_messages_of_real_charons_are_found_with_their_addresses_and_without_the_marker() -> None:
    found = list(read_capture(CHARON))
    vectors = [vector.octets for vector in load("charon-5.9.8") if vector.form == "message"]
    assert [datagram.message for datagram in found[:2]] == vectors
    assert [(str(d.source), d.source_port) for d in found[:3]] == [
        ("198.18.1.1", 500),
        ("198.18.9.1", 500),
        ("198.18.1.1", 4500),
    ]
    for datagram in found:
        assert Message.from_bytes(datagram.message).to_bytes() == datagram.message


@pytest.mark.parametrize("ips", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("ng", [False, True], ids=["pcap", "pcapng"])
def test_raw_ip_and_ethernet_are_read(ips: Ends, ng: bool) -> None:
    inner = packet(MESSAGE, ips=ips)
    wanted = [Datagram(1000.0, ips[0], 500, ips[1], 500, MESSAGE)]
    assert list(read_capture(capture(bytes(inner), ng=ng, link=101))) == wanted
    assert list(read_capture(capture(ethernet(inner), link=dpkt.pcap.DLT_EN10MB, ng=ng))) == wanted


def test_linux_cooked_captures_of_any_interface_are_read() -> None:
    (found,) = read_capture(capture(cooked(packet(MESSAGE)), link=dpkt.pcap.DLT_LINUX_SLL))
    assert found.message == MESSAGE


def test_on_port_4500_only_what_has_the_non_esp_marker_is_ike() -> None:
    esp = packet(b"\xc0\0\0\1" + bytes(40), port=4500)
    keepalive = packet(b"\xff", port=4500)
    ike = packet(bytes(4) + MESSAGE, port=4500)
    (found,) = read_capture(capture(*(bytes(p) for p in (esp, keepalive, ike))))
    assert found.message == MESSAGE
    assert found.time == 1002.0


def test_other_traffic_is_passed_over() -> None:
    dns = packet(MESSAGE, port=53)
    tcp = dpkt.ip.IP(src=V4[0].packed, dst=V4[1].packed, p=6, data=dpkt.tcp.TCP(sport=500, dport=500), len=40)
    fragment = packet(MESSAGE)
    fragment.offset = 8
    frames = [bytes(dns), bytes(tcp), bytes(fragment), b"", b"\x45", b"\x60" + bytes(20), bytes(64)]
    assert list(read_capture(capture(*frames))) == []


def test_a_capture_cut_short_gives_what_was_whole_and_then_tells() -> None:
    data = capture(bytes(packet(MESSAGE)), bytes(packet(MESSAGE)))
    reader = read_capture(data[: -1 - len(MESSAGE) - 28 - 8])
    assert next(reader).message == MESSAGE
    with pytest.raises(DecodeError, match="after frame 1"):
        next(reader)


def test_what_is_no_capture_is_told() -> None:
    assert is_capture(CHARON)
    for data in (b"", b"abc", MESSAGE, CHARON[1:]):
        assert not is_capture(data)
        with pytest.raises(DecodeError, match="not a capture"):
            list(read_capture(data))


def test_without_dpkt_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap, "dpkt", None)
    with pytest.raises(ConfigError) as caught:
        list(read_capture(CHARON))
    assert "mobikectl[pcap]" in caught.value.hint


@given(st.integers(0, len(CHARON) - 1), st.integers(1, 255))
def test_a_capture_with_any_octet_changed_is_read_or_told(where: int, change: int) -> None:
    data = bytearray(CHARON)
    data[where] ^= change
    try:
        for datagram in read_capture(bytes(data)):
            assert len(datagram.message) < 65536
    except DecodeError:
        return
