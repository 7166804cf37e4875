"""The kernel's SAs from bytes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.netlink import rtnl, xfrm

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

KEY = b"SECRETKEYMATERIAL"


def sa(
    saddr: IpAddress, daddr: IpAddress, *attrs: bytes, flags: int = 0, mode: int = 1, window: int = 32
) -> bytes:
    """struct xfrm_usersa_info of include/uapi/linux/xfrm.h, field by field."""
    family = 2 if saddr.version == 4 else 10
    payload = bytes(56) + daddr.packed.ljust(16, b"\0") + bytes.fromhex("c0ffee01") + bytes([50, 0, 0, 0])
    payload += saddr.packed.ljust(16, b"\0") + bytes(64)
    payload += struct.pack("=QQQQ", 84_000, 1_000, 0, 0) + bytes(12)
    payload += struct.pack("=IIHBBB", 0, 7, family, mode, window, flags)
    payload += bytes(224 - len(payload)) + b"".join(attrs)
    return rtnl.message(xfrm.XFRM_MSG_NEWSA, 0, 1, payload)


def decoded(buf: bytes) -> xfrm.KernelSa:
    return xfrm.decode_sa(buf, next(rtnl.messages(buf)))


HERE, THERE = IPv4Address("198.18.0.1"), IPv4Address("198.18.1.1")


def test_an_sa_tells_where_it_leads_and_what_it_carried() -> None:
    encap = rtnl.attribute(4, struct.pack("=H", 2) + struct.pack("!HH", 4500, 41000) + bytes(18))
    replay = rtnl.attribute(10, struct.pack("=III", 17, 25, 0b1011))
    assert decoded(sa(HERE, THERE, encap, replay)) == xfrm.KernelSa(
        saddr=HERE,
        daddr=THERE,
        spi=0xC0FFEE01,
        proto=50,
        reqid=7,
        mode=xfrm.SaMode.TUNNEL,
        bytes=84_000,
        packets=1_000,
        encap=xfrm.Encapsulation(4500, 41000),
        replay=xfrm.ReplayState(oseq=17, seq=25, bitmap=0b1011, window=32),
    )


def test_extended_sequence_numbers_have_64_bits_and_a_bitmap_of_words() -> None:
    state = struct.pack("=IIIIII2I", 2, 5, 6, 1, 2, 64, 0x1, 0x80000000)
    replay = decoded(sa(HERE, THERE, rtnl.attribute(23, state), flags=128)).replay
    assert replay == xfrm.ReplayState(
        oseq=(1 << 32) + 5, seq=(2 << 32) + 6, bitmap=(1 << 63) + 1, window=64, esn=True, words=2
    )


def test_an_sa_of_ipv6_without_anything_else_is_read() -> None:
    found = decoded(sa(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")))
    assert (found.saddr, found.daddr) == (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
    assert (found.encap, found.replay) == (None, None)


@pytest.mark.parametrize("algorithm", [1, 2, 3, 18, 20])
def test_keys_are_stepped_over(algorithm: int) -> None:
    replay = rtnl.attribute(10, struct.pack("=III", 17, 25, 0))
    found = decoded(sa(HERE, THERE, rtnl.attribute(algorithm, KEY), replay))
    assert found.replay is not None
    assert found.replay.oseq == 17
    assert "SECRET" not in repr(found)


def test_a_replay_bitmap_longer_than_its_attribute_is_refused_without_showing_bytes() -> None:
    state = struct.pack("=IIIIII", 200, 5, 6, 1, 2, 64)
    with pytest.raises(DecodeError, match="bitmap of 200 words"):
        decoded(sa(HERE, THERE, rtnl.attribute(1, KEY), rtnl.attribute(23, state), flags=128))


@pytest.mark.parametrize("damage", [{"mode": 99}])
def test_what_is_no_sa_is_refused(damage: dict[str, int]) -> None:
    with pytest.raises(DecodeError):
        decoded(sa(HERE, THERE, **damage))


@given(st.integers(16, 300), st.integers(0, 255), st.integers(16, 300))
def test_no_damaged_sa_does_more_than_raise_a_decode_error(place: int, value: int, size: int) -> None:
    raw = bytearray(sa(HERE, THERE, rtnl.attribute(10, struct.pack("=III", 1, 2, 3)))[:size])
    raw[:4] = struct.pack("=I", len(raw))
    raw[place % len(raw) if place % len(raw) >= 16 else 16 % len(raw)] = value
    try:
        decoded(bytes(raw))
    except DecodeError:
        return


def test_an_sa_is_asked_for_by_destination_spi_and_protocol() -> None:
    payload = xfrm.encode_sa_id(THERE, 0xC0FFEE01, 50)
    assert payload == THERE.packed + bytes(12) + bytes.fromhex("c0ffee01") + struct.pack("=HB", 2, 50) + b"\0"
