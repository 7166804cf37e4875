"""Sequence numbers of a carried SA: reservations, replay windows, and the bytes for the kernel."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.netlink import rtnl
from mobikectl.netlink.esp import (
    BURST,
    RATE_FACTOR,
    Received,
    Rekey,
    Reservation,
    Standing,
    continuity,
    encode_replay,
    reserve,
)
from mobikectl.netlink.xfrm import Mark, ReplayState

HERE = IPv4Address("198.18.0.1")
rates = st.floats(0, 1e6)
times = st.floats(0, 10)
windows = st.integers(0, 4096)


# --- reservations --------------------------------------------------------------------------------


@given(st.integers(0, 1 << 32), rates, times, windows)
def test_a_reservation_holds_whatever_the_source_is_expected_to_send_and_more(
    oseq: int, rate: float, seconds: float, window: int
) -> None:
    made = reserve(oseq, rate, seconds, window)
    assert made.last >= oseq + rate * seconds * RATE_FACTOR
    assert made.last > oseq
    assert made.standing(oseq + int(rate * seconds)) is not Standing.EXCEEDED


@given(rates, times, windows)
def test_a_reservation_that_fits_the_window_loses_no_packet_sent_under_it(
    rate: float, seconds: float, window: int
) -> None:
    made = reserve(1000, rate, seconds, window)
    oldest, targets_first = 1001, made.last + 1
    assert made.fits_window == (targets_first - oldest < max(window, 32))


def test_a_quiet_sa_gets_half_a_window_so_that_the_rest_is_for_reordering() -> None:
    assert reserve(500, 0.0, 0.05).packets == 16
    assert reserve(500, 0.0, 0.05, window=1024).packets == 512


def test_a_busy_sa_gets_more_than_the_window_rather_than_too_little() -> None:
    made = reserve(500, 10_000.0, 0.1)
    assert made.packets == 2000 + BURST
    assert not made.fits_window


@pytest.mark.parametrize("wrong", [(-1, 0.0, 0.0), (0, -1.0, 0.0), (0, 1.0, -0.1), (0, float("inf"), 1.0)])
def test_what_can_be_no_rate_or_time_is_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="packets/s"):
        reserve(*wrong)


def test_a_source_is_within_then_near_then_beyond_its_reservation() -> None:
    made = Reservation(oseq=100, packets=16, fits_window=True)
    assert [made.standing(n) for n in (100, 112, 113, 116, 117)] == [
        Standing.WITHIN,
        Standing.WITHIN,
        Standing.NEAR,
        Standing.NEAR,
        Standing.EXCEEDED,
    ]


@given(st.integers(0, 100))
def test_a_renewed_reservation_never_begins_earlier_and_never_ends_earlier(sent: int) -> None:
    made = Reservation(oseq=50, packets=16, fits_window=True)
    renewed = made.after(sent)
    assert renewed.last >= made.last
    assert renewed.oseq >= sent


def test_unknown_numbers_mean_a_rekeying() -> None:
    assert isinstance(continuity(None, packets_per_s=10, still_sends_s=0.1), Rekey)


def test_known_numbers_go_on_behind_the_reservation() -> None:
    source = ReplayState(oseq=700, seq=0, bitmap=0, window=0)
    assert continuity(source, packets_per_s=100, still_sends_s=0.05) == Reservation(700, 18, True)


@pytest.mark.parametrize(
    ("oseq", "esn", "goes_on"), [(2**32 - 2**20, False, False), (2**32 - 2**20, True, True)]
)
def test_numbers_nearly_used_up_mean_a_rekeying_unless_there_are_64_bits(
    oseq: int, esn: bool, goes_on: bool
) -> None:
    source = ReplayState(oseq, 0, 0, 32, esn, 1 if esn else 0)
    found = continuity(source, packets_per_s=0, still_sends_s=0)
    assert isinstance(found, Reservation) == goes_on


# --- what was received ---------------------------------------------------------------------------


class KernelWindow:
    """The kernel's own arithmetic (net/xfrm/xfrm_replay.c), packet by packet."""

    def __init__(self, window: int, *, extended: bool) -> None:
        self.state = ReplayState(0, 0, 0, window, extended, (window + 31) // 32 if extended else 0)

    def receive(self, number: int) -> bool:
        state = self.state
        ahead = number - state.seq
        bits, seq = state.bitmap, max(state.seq, number)
        if not state.words:
            if ahead <= 0 and (-ahead >= state.window or bits >> -ahead & 1):
                return False
            if ahead > 0:
                bits = (bits << ahead | 1) & 0xFFFFFFFF if ahead < state.window else 1
            else:
                bits |= 1 << -ahead
        else:
            place = (state.seq - 1) & 0xFFFFFFFF
            if ahead <= 0 and (-ahead >= state.window or bits >> (place + ahead) % state.window & 1):
                return False
            if ahead > 0:
                for step in range(1, min(ahead, state.window + 1)):
                    bits &= ~(1 << (place + step) % state.window)
                if ahead >= state.window:
                    bits = 0
            bits |= 1 << (place + ahead) % state.window
        self.state = ReplayState(0, seq, bits, state.window, state.esn, state.words)
        return True


numbers = st.lists(st.integers(1, 300), max_size=60)
kernels = st.tuples(st.sampled_from([1, 8, 32, 64, 128, 256]), st.booleans()).map(
    lambda pair: KernelWindow(min(pair[0], 32) if not pair[1] else pair[0], extended=pair[1])
)


@given(kernels, numbers)
def test_what_a_kernel_would_refuse_is_read_from_either_structure(
    kernel: KernelWindow, sent: list[int]
) -> None:
    for number in sent:
        kernel.receive(number)
    received = Received.of(kernel.state)
    for number in range(1, 310):
        kept = kernel.state
        assert received.has(number) == (not kernel.receive(number))
        kernel.state = kept


@given(kernels, numbers)
def test_numbers_written_back_are_the_numbers_that_were_read(kernel: KernelWindow, sent: list[int]) -> None:
    for number in sent:
        kernel.receive(number)
    received = Received.of(kernel.state)
    assert Received.of(received.into(kernel.state)) == received


@given(kernels, numbers, kernels, numbers)
def test_a_target_takes_nothing_that_either_node_took(
    source: KernelWindow, first: list[int], target: KernelWindow, second: list[int]
) -> None:
    taken = [n for n in first if source.receive(n)] + [n for n in second if target.receive(n)]
    merged = Received.of(target.state).merged(Received.of(source.state))
    target.state = merged.into(target.state)
    for number in taken:
        assert not target.receive(number)
    assert target.receive(max([0, *taken]) + 1)


def test_a_source_that_received_nothing_closes_nothing_at_the_target() -> None:
    fresh = ReplayState(0, 0, 0, 32)
    assert Received.of(fresh).merged(Received.of(fresh)).into(fresh) == fresh


# --- bytes -----------------------------------------------------------------------------------------


def test_plain_numbers_are_one_attribute_of_three_words() -> None:
    payload = encode_replay(HERE, 0xC0FFEE01, None, ReplayState(oseq=7, seq=9, bitmap=0b101, window=32))
    name = HERE.packed + bytes(12) + bytes.fromhex("c0ffee01") + struct.pack("=HBx", 2, 50)
    assert payload == name + bytes(24) + rtnl.attribute(10, struct.pack("=III", 7, 9, 5))


def test_extended_numbers_are_split_and_carry_their_ring_of_bits() -> None:
    state = ReplayState((1 << 32) + 5, (2 << 32) + 6, (1 << 63) + 1, 64, True, 2)
    payload = encode_replay(IPv6Address("2001:db8::1"), 1, Mark(3, 0xFF), state)
    attributes = rtnl.attribute(23, struct.pack("=IIIIII2I", 2, 5, 6, 1, 2, 64, 1, 0x80000000))
    assert payload[48:] == attributes + rtnl.attribute(21, struct.pack("=II", 3, 0xFF))
    assert payload[20:22] == struct.pack("=H", 10)
