"""What is written can be read back, and what was read is written the same: for every type, in both forms."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.wire import json as wire_json
from mobikectl.wire.dialects import CURRENT, DIALECTS, DUPONT_06, EVERY, KIVINEN_00, REDIRECT_01
from mobikectl.wire.dupont import PeerAddressUpdate
from mobikectl.wire.ike import Delete, Message, Payload, decode_chain, encode_chain
from mobikectl.wire.notify import Dialect, Notify, NotifyData
from mobikectl.wire.pfkey import AddressUpdate
from mobikectl.wire.redirect import Redirect

from . import wire_strategies as strategies

KINDS = [
    pytest.param(dialect, codec.kind, id=f"{dialect.name}-{codec.name}")
    for dialect in (CURRENT, REDIRECT_01, KIVINEN_00, DUPONT_06, EVERY)
    for codec in dialect.codecs
    if codec.kind is not None
]


def spoken(dialect: Dialect, kind: type[NotifyData]) -> st.SearchStrategy[Any]:
    """Values of a class that the dialect can say (the redirect draft has no nonce)."""
    values = strategies.BY_KIND[kind]
    if dialect is REDIRECT_01 and kind is Redirect:
        return values.map(lambda redirect: Redirect(redirect.gateway))
    return values


def test_every_typed_notify_of_every_dialect_is_tested() -> None:
    kinds = {codec.kind for dialect in DIALECTS.values() for codec in dialect.codecs} - {None}
    assert kinds == set(strategies.BY_KIND)


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
def test_a_typed_notify_comes_back_from_its_octets(dialect: Dialect, kind: type[NotifyData]) -> None:
    @given(spoken(dialect, kind))
    def check(typed: NotifyData) -> None:
        body = dialect.encode(typed).to_body()
        notify = Notify.from_body(body)
        assert notify.to_body() == body
        back = dialect.decode(notify)
        assert back is not None
        assert back == typed
        assert type(back) is kind
        assert dialect.encode(back).to_body() == body

    check()


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
def test_any_data_that_is_accepted_is_written_back_octet_for_octet(
    dialect: Dialect, kind: type[NotifyData]
) -> None:
    number = dialect.number_of(kind)

    @given(st.binary(max_size=90))
    def check(data: bytes) -> None:
        try:
            typed = dialect.decode(Notify(number, data))
        except DecodeError:
            return
        assert typed is not None
        assert dialect.encode(typed).data == data

    check()


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
def test_a_typed_notify_comes_back_from_its_json(dialect: Dialect, kind: type[NotifyData]) -> None:
    @given(spoken(dialect, kind))
    def check(typed: NotifyData) -> None:
        notify = dialect.encode(typed)
        text = json.dumps(wire_json.notify_to_json(notify, dialect))
        assert '"value"' in text
        assert wire_json.notify_from_json(json.loads(text), dialect) == notify
        fields = json.loads(json.dumps(wire_json.fields_to_json(typed)))
        assert wire_json.fields_from_json(kind, fields) == typed

    check()


@given(strategies.notifies)
def test_a_notify_of_any_type_comes_back_from_its_octets(notify: Notify) -> None:
    assert Notify.from_body(notify.to_body()) == notify


@given(strategies.deletes)
def test_a_delete_payload_comes_back_from_its_octets(delete: Delete) -> None:
    assert Delete.from_body(delete.to_body()) == delete


@given(strategies.updates)
def test_a_peer_address_update_comes_back_from_its_octets(update: PeerAddressUpdate) -> None:
    assert PeerAddressUpdate.from_body(update.to_body()) == update


@given(strategies.chains)
def test_a_payload_chain_comes_back_from_its_octets(chain: tuple[Payload, ...]) -> None:
    first = chain[0].type if chain else 0
    assert decode_chain(encode_chain(chain), first) == chain


@given(strategies.messages)
def test_a_message_comes_back_from_its_octets(message: Message) -> None:
    assert Message.from_bytes(message.to_bytes()) == message


@given(strategies.messages, st.sampled_from(list(DIALECTS.values())))
def test_a_message_comes_back_from_its_json_whatever_its_payloads_hold(
    message: Message, dialect: Dialect
) -> None:
    text = json.dumps(wire_json.message_to_json(message, dialect))
    assert wire_json.message_from_json(json.loads(text), dialect).to_bytes() == message.to_bytes()


@given(strategies.address_updates, st.sampled_from(["little", "big"]))
def test_a_pf_key_update_comes_back_from_its_octets_and_its_json(
    update: AddressUpdate, order: Literal["little", "big"]
) -> None:
    data = update.to_bytes(order)
    assert len(data) % 8 == 0
    assert AddressUpdate.from_bytes(data, order) == update
    assert wire_json.pfkey_from_json(json.loads(json.dumps(wire_json.pfkey_to_json(update)))) == update


@given(st.binary(max_size=200), st.integers(0, 255))
def test_any_octets_are_a_chain_or_a_decode_error(data: bytes, first: int) -> None:
    try:
        chain = decode_chain(data, first)
    except DecodeError as error:
        where = error.offset
    else:
        where = 0
        assert encode_chain(chain) == data
        wire_json.chain_to_json(chain, EVERY)
    assert where is not None
    assert 0 <= where <= len(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "message",
                        "payload",
                        "payloads",
                        "notify",
                        "name",
                        "number",
                        "value",
                        "data",
                        "flags",
                        "exchange",
                        "message_id",
                        "initiator_spi",
                        "spi",
                        "version",
                        "delete",
                        "peer_address_update",
                        "first_inside",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_message_or_a_decode_error(value: object) -> None:
    for read in (
        wire_json.message_from_json,
        wire_json.chain_from_json,
        wire_json.payload_from_json,
        wire_json.notify_from_json,
    ):
        try:
            read(value, EVERY)
        except DecodeError:
            continue
