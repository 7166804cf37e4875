"""What a node tells those that stand by for it, both ways, cut short and changed."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.secret import SecretBytes
from mobikectl.wire.standby import All, Batch, Gone, Inquiry, Lost, Numbers, Touch, Wants
from mobikectl.wire.standby import Testimony as Answer

numbers64 = st.integers(0, 2**64 - 1)
spis = st.builds(IkeSpis, numbers64, numbers64)
many = st.frozensets(spis.filter(any), max_size=5)
touches = st.builds(
    Touch,
    spis,
    st.tuples(st.none() | st.integers(0, 2**32), st.none() | st.integers(0, 2**32)),
    st.lists(st.builds(Numbers, *[st.integers(0, 2**32)] * 5), max_size=3).map(tuple),
)
items = st.one_of(touches, st.builds(Gone, spis), st.builds(Lost, spis), st.builds(All, many))


@given(st.lists(items, max_size=4).map(tuple))
def test_a_batch_comes_back_as_it_was(told: tuple[Touch | Gone | Lost | All, ...]) -> None:
    batch = Batch(told)
    assert Batch.from_secret(batch.to_secret()) == batch


@given(many, many)
def test_answers_and_questions_come_back_as_they_were(
    one: frozenset[IkeSpis], two: frozenset[IkeSpis]
) -> None:
    assert Wants.from_secret(Wants(one, two).to_secret()) == Wants(one, two)
    asked = Inquiry((ip_address("198.18.9.1"), ip_address("2001:db8::1")), one)
    assert Inquiry.from_secret(asked.to_secret()) == asked
    assert Answer.from_secret(Answer(True, two).to_secret()) == Answer(True, two)
    assert Answer.from_secret(Answer(False, one, two).to_secret()) == Answer(False, one, two)


def test_what_is_cut_short_is_refused() -> None:
    octets = Batch((Gone(IkeSpis(1, 2)), Touch(IkeSpis(3, 4), (5, None)))).to_secret().reveal()
    whole = 5 + 16
    for length in range(1, len(octets)):
        if length != whole:
            with pytest.raises(DecodeError):
                Batch.from_secret(SecretBytes(octets[:length]))


@given(spis)
def test_an_ike_sa_is_named_by_32_digits_and_found_by_them(one: IkeSpis) -> None:
    assert len(one.hex) == 32
    assert IkeSpis.from_hex(one.hex) == one


@pytest.mark.parametrize("digits", ["", "0" * 30, "0" * 34, "0" * 31 + "x", "-" + "0" * 31, "é" * 32])
def test_no_other_digits_name_one(digits: str) -> None:
    with pytest.raises(ValueError, match=r"octets|hexadecimal"):
        IkeSpis.from_hex(digits)


@given(st.binary(max_size=80))
def test_anything_else_is_a_decode_error_or_a_batch(octets: bytes) -> None:
    for kind in (Batch, Wants, Inquiry, Answer):
        with contextlib.suppress(DecodeError):
            kind.from_secret(SecretBytes(octets))
