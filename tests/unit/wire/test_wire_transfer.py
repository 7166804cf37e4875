"""Frames between sidecars: round trips, byte by byte, damaged, and nothing of a payload in an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.wire.secret import SecretBytes
from mobikectl.wire.transfer import (
    MAX_FRAME,
    MAX_GREETING,
    Deframer,
    Frame,
    Greeting,
    Kind,
    Refusal,
    decode,
    decode_greeting,
    decode_refusal,
    encode,
    encode_greeting,
    encode_refusal,
)

frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    number=st.integers(0, (1 << 32) - 1),
    verb=st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True) | st.just(""),
    token=st.integers(0, (1 << 64) - 1),
    payload=st.binary(max_size=200).map(SecretBytes),
)
names = st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True)


def test_a_frame_has_the_octets_that_are_drawn() -> None:
    frame = Frame(Kind.REQUEST, 7, "import", 0x0102, SecretBytes(b"\xaa\xbb"))
    expected = "00000017010300000007000000000000010206696d706f7274aabb"
    assert encode(frame).hex() == expected


@given(st.lists(frames, max_size=5), st.integers(1, 50))
def test_a_stream_cut_anywhere_gives_the_frames_that_were_sent(sent: list[Frame], size: int) -> None:
    octets = b"".join(encode(frame) for frame in sent)
    deframer, found = Deframer(MAX_FRAME), []
    for at in range(0, len(octets), size):
        deframer.feed(octets[at : at + size])
        while frame := deframer.take():
            found.append(frame)
    assert found == sent
    assert not deframer.partial


@given(frames)
def test_a_frame_cut_short_is_not_taken(frame: Frame) -> None:
    deframer = Deframer(MAX_FRAME)
    deframer.feed(encode(frame)[:-1])
    assert deframer.take() is None
    assert deframer.partial


@pytest.mark.parametrize("limit", [MAX_GREETING, MAX_FRAME])
def test_a_frame_above_the_limit_is_refused_when_its_length_is_seen(limit: int) -> None:
    deframer = Deframer(limit)
    deframer.feed((limit + 1).to_bytes(4, "big"))
    with pytest.raises(DecodeError, match=f"{limit + 1}"):
        deframer.take()


def test_a_frame_too_long_is_not_sent() -> None:
    with pytest.raises(DecodeError, match="at most"):
        encode(Frame(Kind.ANSWER, payload=SecretBytes(bytes(MAX_FRAME))))


@given(st.binary(max_size=80))
def test_garbage_is_a_decode_error_or_a_frame_that_encodes_to_it(octets: bytes) -> None:
    try:
        frame = decode(octets)
    except DecodeError:
        return
    assert encode(frame)[4:] == octets


@pytest.mark.parametrize("verb", ["Import", "a b", "-a", "a" * 32, "\n"])
def test_a_verb_that_is_none_is_refused_on_both_sides(verb: str) -> None:
    with pytest.raises(DecodeError):
        encode(Frame(Kind.REQUEST, 1, verb))
    raw = verb.encode()
    with pytest.raises(DecodeError):
        decode(bytes([1, 3]) + bytes(12) + bytes([len(raw)]) + raw)


@given(names, names)
def test_a_greeting_says_cluster_node_and_process(cluster: str, node: str) -> None:
    greeting = Greeting(cluster, node, "abc/1")
    assert decode_greeting(encode_greeting(greeting)) == greeting


@pytest.mark.parametrize("payload", [b"", b"a\nb", b"a\nb\nc\nd", b"a\n\nc", b"a\nb c\nd", b"\xff\nb\nc"])
def test_a_greeting_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_greeting(SecretBytes(payload))


def test_a_refusal_carries_an_errors_class_words_and_hint() -> None:
    refusal = Refusal("FencedError", "an old token", "plan anew")
    assert decode_refusal(encode_refusal(refusal)) == refusal


def test_a_refusal_cannot_write_on_the_operators_terminal() -> None:
    found = decode_refusal(SecretBytes(b'["E", "\\u001b[2J' + b"x" * 400 + b'", ""]'))
    assert found.message.startswith("?[2Jxxx")
    assert len(found.message) == 300


@pytest.mark.parametrize("payload", [b"", b"[1,2,3]", b'["a"]', b"{}", b"[" * 5000, b"\xff"])
def test_a_refusal_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_refusal(SecretBytes(payload))


def test_what_a_frame_carries_is_not_in_its_text() -> None:
    assert "KEYMAT" not in repr(Frame(Kind.REQUEST, payload=SecretBytes(b"KEYMAT")))
