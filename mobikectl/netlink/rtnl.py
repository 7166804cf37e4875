"""rtnetlink messages to and from bytes: no socket, no clock.

Only what `mobikectl.model` knows is decoded. That is why this exists beside pyroute2, whose parser builds every
attribute of every message: a route costs it 70 microseconds, here 15 when it is decoded and 2 when it is only looked
at, which is what happens to most (benchmarks/netlink.py); a full table is 100,000 of them. The contract tests hold
both decoders against each other on the kernel's own bytes.

Source: rtnetlink(7), netlink(7), and the kernel's include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,fib_rules}.h.
Numbers are in host byte order, addresses in network byte order.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, NamedTuple

from mobikectl.errors import DecodeError
from mobikectl.model import Address, Family, IpAddress, IpNetwork, Link, NextHop, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNEXTHOP, RTM_DELNEXTHOP = 104, 105

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE = 1, 5, 7, 8
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP = 9, 11, 19, 32

RT_TABLE_MAIN = 254
RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 253, 255
RTN_UNICAST, RTN_LOCAL, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 2, 6, 7, 8
RTM_F_CLONED = 0x200

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH = 1, 2, 4, 5, 6, 7, 9
RTA_TABLE, RTA_MARK, RTA_VIA = 15, 16, 18

_IFF_UP, _IFF_LOOPBACK, _IFF_LOWER_UP = 0x1, 0x8, 0x10000
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_INFO_KIND = 3, 4, 10, 18, 29, 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_TEMPORARY, _IFA_F_DADFAILED, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = 15, 16, 17
_FIB_RULE_INVERT = 0x2

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBxxBI")
_NEXTHOP = struct.Struct("=HBBi")
_TYPE_MASK = 0x3FFF

HEADER_SIZE = _HEADER.size

Buffer = bytes | bytearray | memoryview


class Message(NamedTuple):
    """Where one netlink message lies in a datagram: its header's fields, its payload's bounds."""

    type: int
    flags: int
    seq: int
    start: int
    end: int


class KernelError(NamedTuple):
    """An NLMSG_ERROR: ``errno`` (positive; 0 is an acknowledgement) and the kernel's own words, if any."""

    errno: int
    text: str


def messages(buf: Buffer) -> Iterator[Message]:
    """Given a datagram, yield the messages in it. Raise DecodeError where a length leads outside."""
    offset, size = 0, len(buf)
    while size - offset >= HEADER_SIZE:
        length, kind, flags, seq, _pid = _HEADER.unpack_from(buf, offset)
        end = offset + length
        if length < HEADER_SIZE or end > size:
            raise DecodeError(f"netlink message of {length} bytes at {offset} in a datagram of {size}")
        yield Message(kind, flags, seq, offset + HEADER_SIZE, end)
        offset = (end + 3) & ~3


def attributes(buf: Buffer, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Given a run of attributes, return type -> bounds of the value. Raise DecodeError when cut short."""
    found: dict[int, tuple[int, int]] = {}
    while end - start >= 4:
        length, kind = _ATTR.unpack_from(buf, start)
        if length < 4 or start + length > end:
            raise DecodeError(f"netlink attribute {kind} of {length} bytes where {end - start} are left")
        found[kind & _TYPE_MASK] = (start + 4, start + length)
        start += (length + 3) & ~3
    return found


def _fixed(layout: struct.Struct, buf: Buffer, msg: Message) -> tuple[int, ...]:
    if msg.end - msg.start < layout.size:
        raise DecodeError(f"rtnetlink message {msg.type} of {msg.end - msg.start} bytes, not {layout.size}")
    return layout.unpack_from(buf, msg.start)


def _u32(buf: Buffer, bounds: tuple[int, int]) -> int:
    if bounds[1] - bounds[0] < 4:
        raise DecodeError(f"netlink attribute of {bounds[1] - bounds[0]} bytes, not 4")
    value: int = _U32.unpack_from(buf, bounds[0])[0]
    return value


def _text(buf: Buffer, bounds: tuple[int, int]) -> str:
    return bytes(buf[bounds[0] : bounds[1]]).split(b"\0", 1)[0].decode("utf-8", "replace")


def _ip(raw: bytes) -> IpAddress:
    if len(raw) == 4:
        return IPv4Address(raw)
    if len(raw) == 16:
        return IPv6Address(raw)
    raise DecodeError(f"an IP address of {len(raw)} bytes")


def _network(family: int, raw: bytes, prefixlen: int) -> IpNetwork:
    if family == Family.INET and prefixlen <= 32 and len(raw) in (0, 4):
        return IPv4Network((raw or bytes(4), prefixlen), strict=False)
    if family == Family.INET6 and prefixlen <= 128 and len(raw) in (0, 16):
        return IPv6Network((raw or bytes(16), prefixlen), strict=False)
    raise DecodeError(f"a prefix of {len(raw)} bytes, length {prefixlen}, family {family}")


# --- decoding -----------------------------------------------------------------------------------


def decode_link(buf: Buffer, msg: Message) -> Link | None:
    """Given an RTM_NEWLINK or RTM_DELLINK, return the link.

    None for what is not about a link as such: bridge port messages (AF_BRIDGE; their RTM_DELLINK means "left the
    bridge") and wireless events, which carry no more than a name.
    """
    family, _type, index, flags, _change = _fixed(_IFINFO, buf, msg)
    attrs = attributes(buf, msg.start + _IFINFO.size, msg.end)
    if family != 0 or _IFLA_IFNAME not in attrs or _IFLA_MTU not in attrs:
        return None
    kind = ""
    if info := attrs.get(_IFLA_LINKINFO):
        nested = attributes(buf, *info)
        kind = _text(buf, nested[_IFLA_INFO_KIND]) if _IFLA_INFO_KIND in nested else ""
    master = attrs.get(_IFLA_MASTER)
    return Link(
        index=index,
        name=_text(buf, attrs[_IFLA_IFNAME]),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        kind=kind,
        mtu=_u32(buf, attrs[_IFLA_MTU]),
        loopback=bool(flags & _IFF_LOOPBACK),
        master=_u32(buf, master) if master else None,
    )


def decode_address(buf: Buffer, msg: Message) -> tuple[bytes, Address] | None:
    """Given an RTM_NEWADDR or RTM_DELADDR, return the kernel's identity of the address, and the address.

    On a point-to-point link several addresses may differ by the peer's only: the identity tells them apart.
    None for another family than IPv4 and IPv6.
    """
    family, prefixlen, flags, scope, index = _fixed(_IFADDR, buf, msg)
    attrs = attributes(buf, msg.start + _IFADDR.size, msg.end)
    if family not in (Family.INET, Family.INET6) or not (
        where := attrs.get(_IFA_LOCAL, attrs.get(_IFA_ADDRESS))
    ):
        return None
    if _IFA_FLAGS in attrs:
        flags = _u32(buf, attrs[_IFA_FLAGS])
    local = bytes(buf[where[0] : where[1]])
    peer = attrs.get(_IFA_ADDRESS, where)
    return (
        _IFADDR.pack(family, prefixlen, 0, 0, index) + local + bytes(buf[peer[0] : peer[1]]),
        Address(
            index=index,
            ip=_ip(local),
            prefixlen=prefixlen,
            scope=scope,
            tentative=bool(flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)) and family == Family.INET6,
            deprecated=bool(flags & _IFA_F_DEPRECATED),
            temporary=bool(flags & _IFA_F_TEMPORARY) and family == Family.INET6,
        ),
    )


def decode_rule(buf: Buffer, msg: Message) -> tuple[bytes, Rule] | None:
    """Given an RTM_NEWRULE or RTM_DELRULE, return the rule's identity and the rule (None: not IPv4 or IPv6).

    The identity is the whole message without the flags that the kernel changes by itself, so that rules which
    differ only in something that `Rule` does not know stay apart.
    """
    family, dst_len, src_len, tos, table, action, flags = _fixed(_RULE, buf, msg)
    if family not in (Family.INET, Family.INET6):
        return None
    start = msg.start + _RULE.size
    attrs = attributes(buf, start, msg.end)

    def number(kind: int, otherwise: int = 0) -> int:
        return _u32(buf, attrs[kind]) if kind in attrs else otherwise

    def text(kind: int) -> str:
        return _text(buf, attrs[kind]) if kind in attrs else ""

    def prefix(kind: int, length: int) -> IpNetwork | None:
        if kind not in attrs:
            return None
        first, last = attrs[kind]
        return _network(family, bytes(buf[first:last]), length)

    identity = _RULE.pack(family, dst_len, src_len, tos, table, action, flags & _FIB_RULE_INVERT)
    return identity + bytes(buf[start : msg.end]), Rule(
        family=Family(family),
        priority=number(_FRA_PRIORITY),
        table=number(_FRA_TABLE, table),
        action=action,
        src=prefix(_FRA_SRC, src_len),
        dst=prefix(_FRA_DST, dst_len),
        iif=text(_FRA_IIFNAME),
        oif=text(_FRA_OIFNAME),
        fwmark=number(_FRA_FWMARK),
        fwmask=number(_FRA_FWMASK),
    )


def route_brief(buf: Buffer, msg: Message) -> tuple[int, int, int]:
    """Given an RTM_NEWROUTE or RTM_DELROUTE, return (prefix length, protocol, flags) without decoding the rest."""
    fields = _fixed(_RTMSG, buf, msg)
    return fields[1], fields[5], fields[8]


def decode_route(buf: Buffer, msg: Message) -> Route | None:
    """Given an RTM_NEWROUTE or RTM_DELROUTE, return the route (None: not IPv4 or IPv6)."""
    family, dst_len, _src_len, tos, table, protocol, scope, kind, _flags = _fixed(_RTMSG, buf, msg)
    if family not in (Family.INET, Family.INET6):
        return None
    attrs = attributes(buf, msg.start + _RTMSG.size, msg.end)
    get = attrs.get
    dst, prefsrc = get(RTA_DST), get(RTA_PREFSRC)
    return Route(
        dst=_network(family, bytes(buf[dst[0] : dst[1]]) if dst else b"", dst_len),
        table=_u32(buf, attrs[RTA_TABLE]) if RTA_TABLE in attrs else table,
        nexthops=_nexthops(buf, attrs),
        prefsrc=_ip(bytes(buf[prefsrc[0] : prefsrc[1]])) if prefsrc else None,
        priority=_u32(buf, attrs[RTA_PRIORITY]) if RTA_PRIORITY in attrs else 0,
        protocol=protocol,
        scope=scope,
        type=kind,
        tos=tos,
    )


def _nexthops(buf: Buffer, attrs: dict[int, tuple[int, int]]) -> tuple[NextHop, ...]:
    if not (many := attrs.get(RTA_MULTIPATH)):
        oif = _u32(buf, attrs[RTA_OIF]) if RTA_OIF in attrs else None
        gateway = _gateway(buf, attrs)
        return () if gateway is None and oif is None else (NextHop(gateway, oif),)
    start, end = many
    hops: list[NextHop] = []
    while end - start >= _NEXTHOP.size:
        length, _flags, weight, oif = _NEXTHOP.unpack_from(buf, start)
        if length < _NEXTHOP.size or start + length > end:
            raise DecodeError(f"a next hop of {length} bytes where {end - start} are left")
        inner = attributes(buf, start + _NEXTHOP.size, start + length)
        hops.append(NextHop(_gateway(buf, inner), oif, weight + 1))
        start += (length + 3) & ~3
    return tuple(hops)


def _gateway(buf: Buffer, attrs: dict[int, tuple[int, int]]) -> IpAddress | None:
    if found := attrs.get(RTA_GATEWAY):
        return _ip(bytes(buf[found[0] : found[1]]))
    if found := attrs.get(RTA_VIA):
        return _ip(bytes(buf[found[0] + 2 : found[1]]))
    return None


def decode_error(buf: Buffer, msg: Message) -> KernelError:
    """Given an NLMSG_ERROR or NLMSG_DONE, return what the kernel says (netlink(7); NETLINK_EXT_ACK)."""
    if msg.end - msg.start < 4:
        return KernelError(0, "")
    code = struct.unpack_from("=i", buf, msg.start)[0]
    text = ""
    if msg.type == NLMSG_ERROR and msg.flags & NLM_F_ACK_TLVS and msg.end - msg.start >= 20:
        echoed = HEADER_SIZE if msg.flags & NLM_F_CAPPED else _U32.unpack_from(buf, msg.start + 4)[0]
        attrs = attributes(buf, msg.start + 4 + ((echoed + 3) & ~3), msg.end)
        text = _text(buf, attrs[1]) if 1 in attrs else ""
    return KernelError(-code, text)


# --- encoding -----------------------------------------------------------------------------------


def message(kind: int, flags: int, seq: int, payload: bytes) -> bytes:
    """Given a message's type, flags, sequence number and payload, return it with header and padding."""
    return _HEADER.pack(HEADER_SIZE + len(payload), kind, flags, seq, 0) + payload + bytes(-len(payload) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """Given an attribute's type and value, return it with header and padding."""
    return _ATTR.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """Given an attribute's type and a number, return it as an unsigned attribute of 32 bits."""
    return _ATTR.pack(8, kind) + _U32.pack(value)


def encode_dump(kind: int, family: int, protocol: int = 0) -> bytes:
    """Return the payload of a dump request: RTM_GETLINK, RTM_GETADDR, RTM_GETRULE or RTM_GETROUTE.

    ``protocol`` (routes only): the kernel is asked for routes of this protocol, which older ones do not honour.
    """
    if kind == RTM_GETLINK:
        return _IFINFO.pack(family, 0, 0, 0, 0) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    if kind == RTM_GETADDR:
        return _IFADDR.pack(family, 0, 0, 0, 0)
    if kind == RTM_GETRULE:
        return _RULE.pack(family, 0, 0, 0, 0, 0, 0)
    return _RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0)


def encode_lookup(dst: IpAddress, src: IpAddress | None, oif: int | None, mark: int) -> bytes:
    """Return the payload of an RTM_GETROUTE that asks how ``dst`` is reached."""
    family, bits = (Family.INET, 32) if dst.version == 4 else (Family.INET6, 128)
    parts = [_RTMSG.pack(family, bits, bits if src else 0, 0, 0, 0, 0, 0, 0), attribute(RTA_DST, dst.packed)]
    if src is not None:
        parts.append(attribute(RTA_SRC, src.packed))
    if oif is not None:
        parts.append(number(RTA_OIF, oif))
    if mark:
        parts.append(number(RTA_MARK, mark))
    return b"".join(parts)


def encode_route(route: Route) -> bytes:
    """Given a route with at most one next hop, return the payload of an RTM_NEWROUTE or RTM_DELROUTE.

    Raise ValueError for more next hops: mobikectl installs none such.
    """
    if len(route.nexthops) > 1:
        raise ValueError("a route of several next hops")
    family = Family.INET if route.dst.version == 4 else Family.INET6
    table = route.table if route.table < 256 else 0
    fields = (route.dst.prefixlen, 0, route.tos, table, route.protocol, route.scope, route.type, 0)
    parts = [
        _RTMSG.pack(family, *fields),
        attribute(RTA_DST, route.dst.network_address.packed),
        number(RTA_TABLE, route.table),
    ]
    if route.priority:
        parts.append(number(RTA_PRIORITY, route.priority))
    if route.prefsrc is not None:
        parts.append(attribute(RTA_PREFSRC, route.prefsrc.packed))
    for hop in route.nexthops:
        if hop.gateway is not None:
            parts.append(attribute(RTA_GATEWAY, hop.gateway.packed))
        if hop.oif is not None:
            parts.append(number(RTA_OIF, hop.oif))
    return b"".join(parts)
