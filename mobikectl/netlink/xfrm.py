"""IPsec SAs of the kernel (NETLINK_XFRM): where they lead and how far they counted. Reading only.

A move has succeeded when its CHILD_SA is on the new pair of addresses; on kernel ESP the kernel is who knows.
Where charon does ESP itself (kernel-libipsec) the kernel has no SAs: dumps are empty, `get` finds nothing.

Key material never leaves the kernel's datagram: the attributes XFRMA_ALG_AUTH, XFRMA_ALG_CRYPT, XFRMA_ALG_COMP,
XFRMA_ALG_AEAD and XFRMA_ALG_AUTH_TRUNC are stepped over unread, the datagram is dropped as soon as it is decoded and
is in no error or log.

Source: the kernel's include/uapi/linux/xfrm.h; RFC 4303 section 2.2 (sequence numbers, ESN).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Self

from mobikectl.errors import DecodeError, NetlinkError, NotFoundError, PrivilegeError
from mobikectl.model import Family, family_of
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, NETLINK_XFRM, Requests, kernel_error

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

XFRM_MSG_NEWSA, XFRM_MSG_GETSA = 0x10, 0x12
XFRM_MSG_GETSADINFO = 0x23
IPPROTO_ESP = 50

_XFRMA_ENCAP, _XFRMA_REPLAY_VAL, _XFRMA_MARK, _XFRMA_REPLAY_ESN_VAL = 4, 10, 21, 23
_READ = frozenset({_XFRMA_ENCAP, _XFRMA_REPLAY_VAL, _XFRMA_REPLAY_ESN_VAL})
_XFRMA_SAD_CNT = 1
_XFRM_STATE_ESN = 128

# Offsets in struct xfrm_usersa_info.
_SA_SIZE = 224
_DADDR, _SPI, _PROTO, _SADDR = 56, 72, 76, 80
_CURRENT = struct.Struct("=QQ")
_CURRENT_AT = 160
_TAIL = struct.Struct("=IHBBB")
_TAIL_AT = 208
_ENCAP = struct.Struct("=H2s2s")
_REPLAY = struct.Struct("=III")
_REPLAY_ESN = struct.Struct("=IIIIII")
_U32 = struct.Struct("=I")
_SA_ID = struct.Struct("=16s4sHBx")
_MARK = struct.Struct("=II")


class SaMode(IntEnum):
    """XFRM_MODE_*."""

    TRANSPORT = 0
    TUNNEL = 1
    ROUTE_OPTIMISATION = 2
    IN_TRIGGER = 3
    BEET = 4


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """ESP in UDP (RFC 3948): the ports of the outer header."""

    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of an SA (struct xfrm_mark; charon's ``mark_in`` and ``mark_out``): part of its name."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReplayState:
    """Sequence numbers of an SA: last sent, highest received, and which of the last ones came."""

    oseq: int
    """Last sequence number sent; 64 bits with ESN."""
    seq: int
    """Highest sequence number received; 64 bits with ESN."""
    bitmap: int
    """Which of the last ``window`` were received, as the kernel keeps it: bit n stands for ``seq - n``, but in
    the extended structure (``words``) for the sequence numbers that are n + 1 modulo the window."""
    window: int
    """Size of the window in packets."""
    esn: bool = False
    """Sequence numbers are of 64 bits."""
    words: int = 0
    """Length of the bitmap, in words of 32 bits, where the kernel keeps the extended structure (ESN, or a window
    of more than 32); 0: the plain one."""


@dataclass(frozen=True, slots=True)
class KernelSa:
    """One SA of the kernel, without its keys."""

    saddr: IpAddress
    daddr: IpAddress
    spi: int
    proto: int
    reqid: int
    mode: SaMode
    bytes: int
    """Bytes processed since it was installed."""
    packets: int
    encap: Encapsulation | None = None
    replay: ReplayState | None = None


def decode_sa(buf: rtnl.Buffer, msg: rtnl.Message) -> KernelSa:
    """Given an XFRM_MSG_NEWSA, return the SA. Raise DecodeError when it is not one."""
    base = msg.start
    if msg.type != XFRM_MSG_NEWSA or msg.end - base < _SA_SIZE:
        raise DecodeError(f"xfrm message {msg.type} of {msg.end - base} bytes is no SA")
    reqid, family, mode, window, flags = _TAIL.unpack_from(buf, base + _TAIL_AT)
    octets, packets = _CURRENT.unpack_from(buf, base + _CURRENT_AT)
    attrs = {k: v for k, v in rtnl.attributes(buf, base + _SA_SIZE, msg.end).items() if k in _READ}
    try:
        sa_mode = SaMode(mode)
    except ValueError:
        raise DecodeError(f"xfrm mode {mode} is unknown") from None
    return KernelSa(
        saddr=_ip(buf, base + _SADDR, family),
        daddr=_ip(buf, base + _DADDR, family),
        spi=int.from_bytes(buf[base + _SPI : base + _SPI + 4], "big"),
        proto=buf[base + _PROTO],
        reqid=reqid,
        mode=sa_mode,
        bytes=octets,
        packets=packets,
        encap=_encapsulation(buf, attrs),
        replay=_replay(buf, attrs, window, bool(flags & _XFRM_STATE_ESN)),
    )


def _ip(buf: rtnl.Buffer, at: int, family: int) -> IpAddress:
    if family == Family.INET:
        return IPv4Address(bytes(buf[at : at + 4]))
    if family == Family.INET6:
        return IPv6Address(bytes(buf[at : at + 16]))
    raise DecodeError(f"an xfrm SA of address family {family}")


def _value(layout: struct.Struct, buf: rtnl.Buffer, bounds: tuple[int, int]) -> tuple[Any, ...]:
    if bounds[1] - bounds[0] < layout.size:
        raise DecodeError(f"xfrm attribute of {bounds[1] - bounds[0]} bytes, not {layout.size}")
    return layout.unpack_from(buf, bounds[0])


def _encapsulation(buf: rtnl.Buffer, attrs: dict[int, tuple[int, int]]) -> Encapsulation | None:
    if _XFRMA_ENCAP not in attrs:
        return None
    _type, source, destination = _value(_ENCAP, buf, attrs[_XFRMA_ENCAP])
    return Encapsulation(int.from_bytes(source, "big"), int.from_bytes(destination, "big"))


def _replay(
    buf: rtnl.Buffer, attrs: dict[int, tuple[int, int]], window: int, esn: bool
) -> ReplayState | None:
    if found := attrs.get(_XFRMA_REPLAY_ESN_VAL):
        words, oseq, seq, oseq_hi, seq_hi, size = _value(_REPLAY_ESN, buf, found)
        start = found[0] + _REPLAY_ESN.size
        if start + words * 4 > found[1]:
            raise DecodeError(f"xfrm replay bitmap of {words} words in {found[1] - found[0]} bytes")
        bitmap = sum(
            word << 32 * place for place, word in enumerate(struct.unpack_from(f"={words}I", buf, start))
        )
        return ReplayState(oseq | oseq_hi << 32, seq | seq_hi << 32, bitmap, size, esn, words)
    if found := attrs.get(_XFRMA_REPLAY_VAL):
        oseq, seq, bitmap = _value(_REPLAY, buf, found)
        return ReplayState(oseq, seq, bitmap, window)
    return None


def encode_sa_id(daddr: IpAddress, spi: int, proto: int) -> bytes:
    """Return a struct xfrm_usersa_id: what an XFRM_MSG_GETSA asks for."""
    return _SA_ID.pack(daddr.packed.ljust(16, b"\0"), spi.to_bytes(4, "big"), family_of(daddr), proto)


def encode_mark(mark: Mark | None) -> bytes:
    """Return the attribute by which a request names an SA that has a mark; none for None."""
    return b"" if mark is None else rtnl.attribute(_XFRMA_MARK, _MARK.pack(mark.value, mark.mask))


class KernelSas:
    """Reads the kernel's SAs (async context manager).

    Given the network namespace's name (None: the caller's) and the deadline of each request in seconds. Methods
    raise PrivilegeError without CAP_NET_ADMIN and NetlinkError where the kernel has no xfrm or fails: see `available`.
    """

    def __init__(self, *, netns: str | None = None, deadline: float = DEADLINE) -> None:
        self._requests = Requests(NETLINK_XFRM, netns=netns, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)

    async def dump(self) -> tuple[KernelSa, ...]:
        """Return all SAs, of every protocol."""
        found = await self._requests.dump_all(XFRM_MSG_GETSA, b"")
        return tuple(decode_sa(buf, msg) for buf, msg in found if msg.type == XFRM_MSG_NEWSA)

    async def get(
        self, daddr: IpAddress, spi: int, proto: int = IPPROTO_ESP, *, mark: Mark | None = None
    ) -> KernelSa:
        """Given an SA's destination, SPI, protocol and mark, return it. Raise NotFoundError: the kernel has none."""
        answer = await self._requests.ask(XFRM_MSG_GETSA, encode_sa_id(daddr, spi, proto) + encode_mark(mark))
        if isinstance(answer, rtnl.KernelError):
            if answer.errno == errno.ESRCH:
                raise NotFoundError(
                    f"the kernel has no SA {spi:#010x} to {daddr}",
                    hint="see `ip xfrm state`; it has none where charon does ESP itself (kernel-libipsec)",
                )
            raise kernel_error(f"SA {spi:#010x} to {daddr}", answer.errno, answer.text)
        return decode_sa(answer, next(rtnl.messages(answer)))

    async def count(self) -> int:
        """Return how many SAs the kernel has, without dumping them (XFRM_MSG_GETSADINFO)."""
        answer = await self._requests.ask(XFRM_MSG_GETSADINFO, bytes(4))
        if isinstance(answer, rtnl.KernelError):
            raise kernel_error("number of SAs", answer.errno, answer.text)
        msg = next(rtnl.messages(answer))
        attrs = rtnl.attributes(answer, msg.start + 4, msg.end)
        if _XFRMA_SAD_CNT not in attrs:
            raise DecodeError("XFRM_MSG_NEWSADINFO without a count")
        value: int = _value(_U32, answer, attrs[_XFRMA_SAD_CNT])[0]
        return value


async def available(*, netns: str | None = None) -> bool:
    """Return whether this kernel lets us read SAs: it has xfrm, and we have the capability.

    It does not say that the kernel can do ESP, nor that charon uses it: a kernel may have the interface and no
    ``esp4`` module.
    """
    try:
        async with KernelSas(netns=netns) as sas:
            await sas.count()
    except (NetlinkError, PrivilegeError):
        return False
    return True
