"""IKE messages out of a capture (pcap or pcapng), read by dpkt (the ``pcap`` extra)."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.errors import ConfigError, DecodeError
from mobikectl.wire.ike import NON_ESP_MARKER

try:
    import dpkt
except ImportError:  # only who reads captures needs it
    dpkt = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.model import IpAddress

IKE_PORT = 500
NAT_T_PORT = 4500

MAGICS = (
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
)
"""First octets of pcap files (both octet orders, micro- and nanoseconds) and pcapng files."""

MAX_FRAME = 262144
"""Octets; what a capture claims beyond that (tcpdump's largest snapshot length) is refused."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram that holds an IKE message."""

    time: float
    """When it was captured, in seconds since 1970."""
    source: IpAddress
    source_port: int
    destination: IpAddress
    destination_port: int
    message: bytes
    """The IKE message, without the non-ESP marker."""


def is_capture(data: bytes) -> bool:
    """Whether the octets start like a pcap or pcapng file."""
    return data[:4] in MAGICS


def read_capture(data: bytes) -> Iterator[Datagram]:
    """Given a pcap or pcapng file's octets, yield the datagrams that hold IKE messages, in order.

    ESP in UDP, NAT keepalives, IP fragments and everything else are passed over. Raise DecodeError when the
    file is not a capture or is cut short, ConfigError when dpkt is not installed.
    """
    if dpkt is None:
        raise ConfigError(
            "reading captures needs the Python package dpkt",
            hint="install mobikectl with its extra: mobikectl[pcap]",
        )
    if not is_capture(data):
        raise DecodeError("not a capture: neither a pcap nor a pcapng file", offset=0, expected="a capture")
    number = 0
    try:
        reader = dpkt.pcap.UniversalReader(io.BytesIO(data))
        link = reader.datalink()
        for time, frame in reader:
            number += 1
            if len(frame) <= MAX_FRAME and (datagram := _ike_of(link, float(time), frame)) is not None:
                yield datagram
    except (dpkt.Error, ValueError, struct.error, IndexError, OverflowError) as error:
        raise DecodeError(
            f"capture broken after frame {number}: {error}", hint="capture again with tcpdump -w"
        ) from error


def _ike_of(link: int, time: float, frame: bytes) -> Datagram | None:
    try:
        ip = _ip_of(link, frame)
        udp = None if ip is None else ip.data
    except (dpkt.Error, ValueError, struct.error, IndexError):
        return None
    if not isinstance(udp, dpkt.udp.UDP):
        return None
    payload = bytes(udp.data)
    ports = {udp.sport, udp.dport}
    if NAT_T_PORT in ports:
        if not payload.startswith(NON_ESP_MARKER):
            return None
        payload = payload[len(NON_ESP_MARKER) :]
    elif IKE_PORT not in ports:
        return None
    return Datagram(time, ip_address(ip.src), udp.sport, ip_address(ip.dst), udp.dport, payload)


def _ip_of(link: int, frame: bytes) -> Any:
    if link in {dpkt.pcap.DLT_RAW, 101, dpkt.pcap.DLT_IPV4, dpkt.pcap.DLT_IPV6}:
        ip = dpkt.ip6.IP6(frame) if frame[:1] and frame[0] >> 4 == 6 else dpkt.ip.IP(frame)
    elif link == dpkt.pcap.DLT_LINUX_SLL:
        ip = dpkt.sll.SLL(frame).data
    elif link == dpkt.pcap.DLT_LINUX_SLL2:
        ip = dpkt.sll2.SLL2(frame).data
    elif link in {dpkt.pcap.DLT_NULL, dpkt.pcap.DLT_LOOP}:
        ip = dpkt.loopback.Loopback(frame).data
    else:
        ip = dpkt.ethernet.Ethernet(frame).data
    return ip if isinstance(ip, (dpkt.ip.IP, dpkt.ip6.IP6)) else None
