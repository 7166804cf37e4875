"""What the plugin writes into copies of SAs: what either copy has seen is not accepted again, no number is sent twice.

Its C functions are called as they are, with messages as the kernel sends them (linux/xfrm.h).
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .lab import PLUGIN

LIBRARIES = ("/usr/lib/ipsec/libstrongswan.so.0", "/usr/lib/ipsec/libcharon.so.0")
HEADER, SA, ATTRIBUTE = 16, 224, 4
XFRM_MSG_NEWSA, REPLAY_VAL, REPLAY_ESN_VAL = 16, 10, 23

pytestmark = [
    pytest.mark.charon,  # no daemon, but its libraries and the built plugin: what is there when those tests run
    pytest.mark.skipif(not PLUGIN.exists(), reason="needs the plugin: make plugin"),
]


class Chunk(ctypes.Structure):
    """strongSwan's chunk_t."""

    _fields_ = (("ptr", ctypes.c_void_p), ("len", ctypes.c_size_t))


class Receiver(NamedTuple):
    """An inbound SA: its window and the numbers that it has received."""

    window: int
    received: frozenset[int]

    def refuses(self, number: int) -> bool:
        """Whether the packet with this number is dropped (RFC 4303, section 3.4.3)."""
        return number + self.window <= max(self.received, default=0) or number in self.received


@pytest.fixture(scope="module")
def plugin() -> ctypes.CDLL:
    for library in LIBRARIES:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(PLUGIN))
    loaded.rmobike_xfrm_merge.argtypes = (Chunk, Chunk)
    loaded.rmobike_xfrm_merge.restype = None
    loaded.rmobike_xfrm_advance.argtypes = (Chunk, ctypes.c_uint32)
    loaded.rmobike_xfrm_advance.restype = None
    return loaded


def message(kind: int, state: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return an SA as the kernel sends it, with a replay state."""
    attribute = struct.pack("=HH", ATTRIBUTE + len(state), kind) + state
    body = bytes(SA) + attribute
    return ctypes.create_string_buffer(
        struct.pack("=IHHII", HEADER + len(body), XFRM_MSG_NEWSA, 0, 0, 0) + body, HEADER + len(body)
    )


def chunk(buffer: ctypes.Array[ctypes.c_char]) -> Chunk:
    return Chunk(ctypes.addressof(buffer), len(buffer))


def state_of(buffer: ctypes.Array[ctypes.c_char]) -> bytes:
    return buffer.raw[HEADER + SA + ATTRIBUTE :]


def short(receiver: Receiver) -> ctypes.Array[ctypes.c_char]:
    """Return an SA with struct xfrm_replay_state."""
    top = max(receiver.received, default=0)
    bitmap = sum(1 << (top - number) for number in receiver.received if top - number < 32)
    return message(REPLAY_VAL, struct.pack("=III", 0, top, bitmap))


def long(receiver: Receiver) -> ctypes.Array[ctypes.c_char]:
    """Return an SA with struct xfrm_replay_state_esn."""
    top, words = max(receiver.received, default=0), -(-receiver.window // 32)
    bitmap = [0] * words
    for number in receiver.received:
        if top - number < receiver.window:
            place = position(top, top - number, receiver.window)
            bitmap[place // 32] |= 1 << (place % 32)
    head = (words, 0, top & 0xFFFFFFFF, 0, top >> 32, receiver.window)
    return message(REPLAY_ESN_VAL, struct.pack(f"=6I{words}I", *head, *bitmap))


def position(top: int, behind: int, window: int) -> int:
    """Return where the bit of a number is, so far behind the highest (net/xfrm/xfrm_replay.c)."""
    return (((top & 0xFFFFFFFF) - 1 & 0xFFFFFFFF) % window - behind) % window


def refuses_short(state: bytes, number: int) -> bool:
    _, top, bitmap = struct.unpack("=III", state)
    behind = top - number
    return behind >= 32 or (behind >= 0 and bool(bitmap >> behind & 1))


def refuses_long(state: bytes, number: int) -> bool:
    words, _, low, _, high, window = struct.unpack_from("=6I", state)
    behind = (high << 32 | low) - number
    if behind < 0:
        return False
    place = position(low, behind, window)
    bits: int = struct.unpack_from(f"={words}I", state, 24)[place // 32]
    return behind >= window or bool(bits >> place % 32 & 1)


def numbers(base: int) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.integers(base + 1, base + 300), max_size=60)


@given(one=numbers(0), other=numbers(0))
def test_a_short_window_refuses_what_either_copy_received(
    plugin: ctypes.CDLL, one: frozenset[int], other: frozenset[int]
) -> None:
    copy, original = short(Receiver(32, one)), short(Receiver(32, other))
    plugin.rmobike_xfrm_merge(chunk(copy), chunk(original))
    both = Receiver(32, one | other)
    for number in range(1, 340):
        assert refuses_short(state_of(copy), number) == both.refuses(number), number


@given(
    data=st.data(),
    window=st.sampled_from((33, 64, 100, 128, 256)),
    base=st.sampled_from((0, 1 << 20, (1 << 32) - 150, 3 << 32)),
)
def test_a_long_window_refuses_what_either_copy_received(
    plugin: ctypes.CDLL, data: st.DataObject, window: int, base: int
) -> None:
    one, other = data.draw(numbers(base)), data.draw(numbers(base))
    copy, original = long(Receiver(window, one)), long(Receiver(window, other))
    plugin.rmobike_xfrm_merge(chunk(copy), chunk(original))
    both = Receiver(window, one | other)
    for number in range(base + 1, base + 340):
        assert refuses_long(state_of(copy), number) == both.refuses(number), number


@given(sent=st.integers(0, 0xFFFFFFFF), gap=st.integers(1, 65536))
def test_a_copy_goes_on_after_what_was_sent(plugin: ctypes.CDLL, sent: int, gap: int) -> None:
    copy = message(REPLAY_VAL, struct.pack("=III", sent, 0, 0))
    plugin.rmobike_xfrm_advance(chunk(copy), gap)
    after = struct.unpack("=III", state_of(copy))[0]
    assert after == (sent + gap if sent + gap <= 0xFFFFFFFF else sent)


@given(sent=st.integers(0, (1 << 64) - 65537), gap=st.integers(1, 65536))
def test_an_extended_number_is_carried_over(plugin: ctypes.CDLL, sent: int, gap: int) -> None:
    head = (4, sent & 0xFFFFFFFF, 0, sent >> 32, 0, 128)
    copy = message(REPLAY_ESN_VAL, struct.pack("=6I4I", *head, 0, 0, 0, 0))
    plugin.rmobike_xfrm_advance(chunk(copy), gap)
    _, low, _, high, _, _ = struct.unpack_from("=6I", state_of(copy))
    assert high << 32 | low == sent + gap
