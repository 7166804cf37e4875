"""ESP sequence numbers that go on where the source stopped, when an SA is carried to another node.

A node that takes over an SA begins to count at zero: its peer drops every packet as a replay until the count has caught
up. So the target continues behind the source's count. Three rules:

- No sequence number is sent twice. The source keeps sending while the SA is under way, so it gets a `Reservation`: the
  numbers that follow its count, of which the target begins behind the last. Two nodes that use one number would at best
  lose one of two packets; with a counter mode cipher they may use one nonce twice (RFC 4106 section 2). This rule is
  above the next one.
- The peer's window should still take what the source has under way when the target begins (RFC 4303 section 3.4.3), so
  a reservation is no longer than the window where the packet rate allows it.
- What the source received counts as received at the target, so that nobody can replay it there.

Where the numbers are unknown (userland ESP: charon counts for itself) or nearly used up, a carried SA must be rekeyed.

`continuity`, `Reservation` and `Received` are pure; `EspSequences` reads and sets the kernel's numbers.

Source: RFC 4303 sections 2.2, 3.3.3, 3.4.3 and appendix A; the kernel's net/xfrm/xfrm_replay.c and
include/uapi/linux/xfrm.h (XFRM_MSG_NEWAE).
"""

from __future__ import annotations

import errno
import math
import struct
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Self

from mobikectl.errors import NetlinkError, NotFoundError
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, NETLINK_XFRM, Requests, kernel_error
from mobikectl.netlink.xfrm import IPPROTO_ESP, KernelSas, ReplayState, encode_mark, encode_sa_id

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.netlink.xfrm import Mark

XFRM_MSG_NEWAE = 0x1E

DEFAULT_WINDOW = 32
"""Packets of a peer's window when it is not known: what strongSwan and the kernel have unless told otherwise."""
MIN_WINDOW = 32
"""What RFC 4303 section 3.4.3 obliges every receiver to have."""
RATE_FACTOR = 2.0
"""How much faster than measured the source may get while the SA is under way."""
BURST = 8
"""Packets that even a quiet SA may send in that time."""
EXHAUSTION = 1 << 24
"""An SA with fewer numbers left than this is rekeyed instead of carried."""

_REPLAY_VAL, _REPLAY_ESN_VAL = 10, 23
_AEVENT_TAIL = struct.Struct("=16sII")
_REPLAY = struct.Struct("=III")
_REPLAY_ESN = struct.Struct("=IIIIII")
_LOW = 0xFFFFFFFF


class Standing(Enum):
    """How far a source is with its reservation."""

    WITHIN = "within"
    NEAR = "near"
    """Over three quarters: hand over now, or move the target's beginning on first (`Reservation.after`)."""
    EXCEEDED = "exceeded"
    """It sent a number that the target may send too: the target must begin behind it, or the SA must be rekeyed."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The sequence numbers that the source may still send. The target begins at ``last + 1``."""

    oseq: int
    """The source's last number sent when this was made."""
    packets: int
    """How many it may send from then on."""
    fits_window: bool
    """Whether a peer with that window accepts all that the source has under way when the target begins."""

    @property
    def last(self) -> int:
        """The last number that is the source's: what the target's ``oseq`` is set to."""
        return self.oseq + self.packets

    def standing(self, oseq: int) -> Standing:
        """Given the source's last number sent by now, return how far it is."""
        if oseq > self.last:
            return Standing.EXCEEDED
        return Standing.NEAR if (oseq - self.oseq) * 4 > self.packets * 3 else Standing.WITHIN

    def after(self, oseq: int) -> Reservation:
        """Given the source's last number sent by now, return a reservation of the same length from there on.

        For a target that has not begun to send: set its numbers to the new `last` before the source goes on.
        """
        return Reservation(max(oseq, self.oseq), self.packets, self.fits_window)


@dataclass(frozen=True, slots=True)
class Rekey:
    """The sequence numbers cannot be continued: the CHILD_SA is to be rekeyed after the move."""

    why: str


def reserve(
    oseq: int, packets_per_s: float, still_sends_s: float, window: int = DEFAULT_WINDOW
) -> Reservation:
    """Given the source's last number, its rate, seconds that it still sends and the peer's window, make a reservation.

    The seconds include every retry. It is never of fewer than `RATE_FACTOR` times what the rate predicts plus `BURST`,
    whatever the window, and of half a window at least, which leaves the other half for packets that overtake each
    other. Raise ValueError: a negative or endless rate or time.
    """
    if not (0 <= packets_per_s < math.inf and 0 <= still_sends_s < math.inf and oseq >= 0):
        raise ValueError(f"a source at {oseq} with {packets_per_s} packets/s for {still_sends_s} s")
    needed = math.ceil(packets_per_s * still_sends_s * RATE_FACTOR) + BURST
    packets = max(needed, max(window, MIN_WINDOW) // 2)
    return Reservation(oseq, packets, packets < max(window, MIN_WINDOW))


def continuity(
    source: ReplayState | None,
    *,
    packets_per_s: float,
    still_sends_s: float,
    window: int = DEFAULT_WINDOW,
) -> Reservation | Rekey:
    """Given the source's outbound numbers (None: unknown) and as `reserve`, return how its numbers go on.

    A `Reservation` that ends too near the last number there is (2^32 or, with ESN, 2^64) is a `Rekey`.
    """
    if source is None:
        return Rekey("the sequence numbers are unknown: the kernel does not do this ESP")
    reservation = reserve(source.oseq, packets_per_s, still_sends_s, window)
    if reservation.last > (1 << (64 if source.esn else 32)) - EXHAUSTION:
        return Rekey(f"the sequence numbers are nearly used up at {source.oseq}")
    return reservation


@dataclass(frozen=True, slots=True)
class Received:
    """What an inbound SA took, whatever the structure in which its kernel keeps it."""

    highest: int
    seen: int
    """Bit n: ``highest - n`` was received."""
    window: int
    """How many bits of `seen` are known; older numbers count as received."""

    @classmethod
    def of(cls, state: ReplayState) -> Received:
        """Given a kernel's numbers, return what was received."""
        if not state.words:
            return cls(state.seq, state.bitmap & ((1 << state.window) - 1), state.window)
        newest = _place(state.seq, state.window)
        backs = (back for back in range(state.window) if state.bitmap >> (newest - back) % state.window & 1)
        return cls(state.seq, sum(1 << back for back in backs), state.window)

    def has(self, number: int) -> bool:
        """Whether a packet with that number would be taken for a replay."""
        back = self.highest - number
        return back >= 0 and (back >= self.window or bool(self.seen >> back & 1))

    def merged(self, other: Received) -> Received:
        """Given what another node received of the same SA, return what either of them did."""
        highest, window = max(self.highest, other.highest), max(self.window, other.window)
        backs = range(min(window, highest))
        seen = (back for back in backs if self.has(highest - back) or other.has(highest - back))
        return Received(highest, sum(1 << back for back in seen), window)

    def into(self, state: ReplayState) -> ReplayState:
        """Given a kernel's numbers, return them with what was received here; its structure and window stay."""
        backs = [back for back in range(min(state.window, self.highest)) if self.has(self.highest - back)]
        if state.words:
            newest = _place(self.highest, state.window)
            backs = [(newest - back) % state.window for back in backs]
        return replace(state, seq=self.highest, bitmap=sum(1 << place for place in backs))


def _place(seq: int, window: int) -> int:
    """Given the highest number received, return its bit in the extended structure (a ring of ``window`` bits)."""
    return ((seq - 1) & _LOW) % window if window else 0


def encode_replay(daddr: IpAddress, spi: int, mark: Mark | None, state: ReplayState) -> bytes:
    """Given an SA's name and numbers, return the payload of the XFRM_MSG_NEWAE that sets them."""
    if state.words:
        words = [state.bitmap >> 32 * place & _LOW for place in range(state.words)]
        head = (
            state.words,
            state.oseq & _LOW,
            state.seq & _LOW,
            state.oseq >> 32,
            state.seq >> 32,
            state.window,
        )
        numbers = rtnl.attribute(
            _REPLAY_ESN_VAL, _REPLAY_ESN.pack(*head) + struct.pack(f"={state.words}I", *words)
        )
    else:
        numbers = rtnl.attribute(_REPLAY_VAL, _REPLAY.pack(state.oseq, state.seq, state.bitmap))
    aevent = encode_sa_id(daddr, spi, IPPROTO_ESP) + _AEVENT_TAIL.pack(bytes(16), 0, 0)
    return aevent + numbers + encode_mark(mark)


class EspSequences:
    """Reads and sets the sequence numbers of the kernel's ESP SAs (async context manager).

    Given the network namespace's name (None: the caller's) and the deadline of each request in seconds. An SA is named
    by its destination (the peer's address for the outbound one), SPI and mark. Methods raise PrivilegeError without
    CAP_NET_ADMIN and NetlinkError where the kernel fails.
    """

    def __init__(self, *, netns: str | None = None, deadline: float = DEADLINE) -> None:
        self._sas = KernelSas(netns=netns, deadline=deadline)
        self._requests = Requests(NETLINK_XFRM, netns=netns, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self._sas.__aenter__()
        try:
            await self._requests.__aenter__()
        except BaseException:
            await self._sas.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)
        await self._sas.__aexit__(*exc)

    async def read(self, daddr: IpAddress, spi: int, *, mark: Mark | None = None) -> ReplayState | None:
        """Given an SA's name, return its numbers; None: the kernel has no such SA (or none at all: userland ESP)."""
        try:
            return (await self._sas.get(daddr, spi, mark=mark)).replay
        except NotFoundError:
            return None

    async def start_after(
        self, daddr: IpAddress, spi: int, last: int, *, mark: Mark | None = None
    ) -> ReplayState:
        """Given an outbound SA and the last number that is not its own (`Reservation.last`), have it begin behind that.

        Return its numbers as the kernel then has them. Numbers are never lowered: raise NetlinkError when it has sent
        beyond ``last`` already, when the kernel refuses, or when 64 bits are asked of an SA without ESN; NotFoundError
        when there is no such SA.
        """
        state = await self._present(daddr, spi, mark)
        if state.oseq > last:
            raise NetlinkError(
                f"SA {spi:#010x} to {daddr} has sent number {state.oseq}, beyond {last}",
                hint="it is active already: two nodes may have sent with the same numbers; rekey the CHILD_SA",
            )
        if last > _LOW and not state.esn:
            raise NetlinkError(
                f"SA {spi:#010x} to {daddr} has no ESN, so it cannot continue at {last}",
                hint="source and target disagree about the SA: rekey the CHILD_SA",
            )
        return await self._set(daddr, spi, mark, replace(state, oseq=last))

    async def mark_received(
        self, daddr: IpAddress, spi: int, received: Received, *, mark: Mark | None = None
    ) -> ReplayState:
        """Given an inbound SA (``daddr`` is our own address) and what another node received of it, refuse that here.

        What was received here stays. Return the numbers as the kernel then has them. A packet that arrives between the
        reading and the setting may be taken a second time: call this before the peer sends to this node. Raise
        NotFoundError when there is no such SA, NetlinkError when the kernel refuses.
        """
        state = await self._present(daddr, spi, mark)
        return await self._set(daddr, spi, mark, Received.of(state).merged(received).into(state))

    async def _present(self, daddr: IpAddress, spi: int, mark: Mark | None) -> ReplayState:
        sa = await self._sas.get(daddr, spi, mark=mark)
        if sa.replay is None:
            raise NetlinkError(
                f"the kernel tells no sequence numbers of SA {spi:#010x} to {daddr}",
                hint="rekey the CHILD_SA after the move",
            )
        return sa.replay

    async def _set(self, daddr: IpAddress, spi: int, mark: Mark | None, state: ReplayState) -> ReplayState:
        order = (XFRM_MSG_NEWAE, rtnl.NLM_F_REPLACE, encode_replay(daddr, spi, mark, state))
        [answer] = await self._requests.order([order])
        if answer.errno == errno.EINVAL:
            raise NetlinkError(
                f"sequence numbers of SA {spi:#010x} to {daddr}: refused: {answer.text or 'the SA is not valid now'}",
                hint="it may just be going away: see `ip -s xfrm state`",
            )
        if answer.errno:
            raise kernel_error(f"sequence numbers of SA {spi:#010x} to {daddr}", answer.errno, answer.text)
        now = await self._present(daddr, spi, mark)
        if now.oseq < state.oseq or now.seq < state.seq:
            raise NetlinkError(
                f"SA {spi:#010x} to {daddr} is at {now.oseq}/{now.seq}, not at {state.oseq}/{state.seq} as set",
                hint="something else sets its sequence numbers too: is a second move under way?",
            )
        return now
