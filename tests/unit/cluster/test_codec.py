"""Records survive the way through the store, and nothing else gets out of it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.cluster.backend import MAX_VALUE
from mobikectl.cluster.codec import MAX_ITEMS, MAX_TEXT, from_json, to_json
from mobikectl.cluster.records import (
    TRANSITIONS,
    ClusterIntent,
    Leader,
    Member,
    MoveRecord,
    MoveState,
    MoveStep,
    NodeIntent,
    NodeReport,
    Pin,
    SaPart,
    SaRow,
)
from mobikectl.errors import StoreValueError
from mobikectl.policy.cluster import Capability, Capacity, Health, Mechanism, Reason, ServingAddress

KINDS = (Member, NodeReport, NodeIntent, ClusterIntent, Pin, Leader, MoveRecord, SaPart)

texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)
addresses = st.ip_addresses().filter(lambda ip: getattr(ip, "scope_id", None) is None)
shares = st.floats(0, 1)
amounts = st.floats(0, 1e15)
counts = st.integers(0, 1 << 40)
positive = st.floats(min_value=1e-6, max_value=1e15)
reports = st.builds(
    NodeReport,
    node=texts,
    instance=texts,
    sequence=counts,
    age_s=amounts,
    health=st.sampled_from(Health),
    maintenance=st.booleans(),
    down=st.lists(addresses, max_size=3).map(tuple),
    ike_sas=counts,
    half_open=counts,
    child_sas=counts,
    bytes_per_s=amounts,
    packets_per_s=amounts,
    cpu=shares,
    memory=shares,
    note=texts,
)
members = st.builds(
    Member,
    name=texts,
    instance=texts,
    addresses=st.lists(
        st.builds(ServingAddress, addresses, st.booleans(), st.one_of(positive, st.just(float("inf")))),
        max_size=3,
    ).map(tuple),
    capacity=st.builds(Capacity, positive, positive, positive),
    weight=positive,
    overload_limit=st.floats(0.01, 1),
    carries=st.booleans(),
    site=texts,
    pools=st.none() | st.frozensets(texts, max_size=3),
    version=texts,
)
intents = st.builds(
    NodeIntent,
    drained=st.booleans(),
    weight=st.none() | positive,
    mechanisms=st.frozensets(st.sampled_from(Mechanism)),
    rate_per_s=st.none() | positive,
    by=texts,
    note=texts,
)
moves = st.builds(
    MoveRecord,
    token=counts,
    sas=st.lists(texts, min_size=1, max_size=4).map(tuple),
    source=texts,
    target=texts,
    mechanism=st.sampled_from(Mechanism),
    reason=st.sampled_from(Reason),
    source_address=addresses,
    target_address=addresses,
    steps=st.lists(
        st.builds(MoveStep, st.sampled_from(MoveState), amounts, texts), min_size=1, max_size=4
    ).map(tuple),
    number=counts,
)
sas = st.builds(
    SaRow,
    key=texts,
    peer_id=texts,
    peer=texts,
    address=addresses,
    bytes_per_s=amounts,
    packets_per_s=amounts,
    capability=st.integers(0, 7).map(Capability),
    behind_nat=st.booleans(),
    pool=texts,
    site=texts,
    moved_ago_s=st.none() | amounts,
    redirects=st.integers(0, 100),
    refused_for_s=amounts,
)
parts = st.builds(
    SaPart,
    node=texts,
    instance=texts,
    sequence=counts,
    part=st.integers(0, 5),
    parts=st.integers(6, 9),
    rows=st.lists(sas, max_size=3).map(tuple),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(octets: bytes, kind: type) -> object:
    """Return the record, or the error that says why there is none."""
    try:
        return from_json("k", octets, kind)
    except StoreValueError as error:
        return error if str(error).isprintable() else str(error)


@given(st.one_of(reports, members, intents, moves, parts))
def test_what_is_written_is_read_again(record: object) -> None:
    assert from_json("k", to_json(record), type(record)) == record


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_octets_are_a_record_or_a_typed_error(octets: bytes, kind: type) -> None:
    found = read(octets, kind)
    assert isinstance(found, (StoreValueError, kind))


@given(
    st.data(),
    st.sampled_from(
        [
            (Member, members),
            (NodeReport, reports),
            (NodeIntent, intents),
            (MoveRecord, moves),
            (SaPart, parts),
        ]
    ),
)
def test_a_record_of_which_one_value_is_anything_is_a_record_or_a_typed_error(
    data: st.DataObject, kind: tuple[type, st.SearchStrategy[Any]]
) -> None:
    tree = json.loads(to_json(data.draw(kind[1])))
    place = tree
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    octets = json.dumps(tree).encode()
    record = read(octets, kind[0])
    if not isinstance(record, StoreValueError):
        assert from_json("k", to_json(record), kind[0]) == record


def test_keys_of_a_newer_version_are_passed_over() -> None:
    assert from_json("k", b'{"drained":true,"colour":"blue"}', NodeIntent) == NodeIntent(drained=True)


def test_capabilities_of_a_newer_version_are_passed_over() -> None:
    row = from_json(
        "k", b'{"key":"a","peer_id":"b","peer":"c","address":"198.18.0.1","capability":4099}', SaRow
    )
    assert row.capability == Capability.MOBIKE | Capability.SWITCH


def test_what_is_infinite_is_left_out_and_comes_back() -> None:
    member = Member("gw1", "x", (ServingAddress(ip_address("198.18.0.1")),))
    assert b"inf" not in to_json(member).lower()
    assert from_json("k", to_json(member), Member) == member


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Member, '{"instance":"x"}', "name is missing"),
        (Member, '{"name":"gw1","instance":"x","weight":true}', "expected a number, got True"),
        (Member, '{"name":"gw1","instance":"x","weight":0}', "out of range"),
        (Member, '{"name":"gw1","instance":"x","overload_limit":2}', "out of range"),
        (Member, '{"name":"gw1","instance":"x","addresses":[{"ip":"nowhere"}]}', "nowhere"),
        (Member, '{"name":"gw1","instance":"x","addresses":[{"ip":"fe80::1%eth0"}]}', "IP address"),
        (Member, '{"name":"gw1","instance":"x","capacity":{"sas":-1}}', "above zero"),
        (Member, '{"name":"gw1","instance":"x","pools":"abc"}', "expected a list"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1,"cpu":1e999}', "expected a number, got inf"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1,"cpu":1.5}', "out of range"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1.0}', "whole number"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1,"ike_sas":-1}', "out of range"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1180591620717411303424}', "whole number"),
        (NodeReport, '{"node":"a","instance":"x","sequence":1,"cpu":' + "9" * 400 + "}", "a number"),
        (NodeIntent, '{"mechanisms":["NOTIFY"]}', "one of notify"),
        (NodeIntent, '{"mechanisms":[1]}', "one of notify"),
        (NodeIntent, '{"rate_per_s":0}', "out of range"),
        (NodeIntent, '{"note":"\\u001b[31m"}', "printable"),
        (NodeIntent, '{"note":"' + "x" * (MAX_TEXT + 1) + '"}', "printable text of at most"),
        (Pin, '{"sa":["x"]}', "printable text"),
        (Pin, '{"sa":null}', "printable text"),
        (MoveRecord, "[]", "expected an object"),
        (SaPart, '{"node":"a","instance":"x","sequence":1,"part":1,"parts":1}', "out of range"),
        (SaPart, '{"node":"a","instance":"x","sequence":1,"part":0,"parts":1,"rows":{}}', "a list"),
        (SaRow, '{"key":"a","peer_id":"b","peer":"c","address":"x"}', "IPv4 or IPv6"),
        (SaRow, '{"key":"a","peer_id":"b","peer":"c","address":"::1","capability":-1}', "as a number"),
        (SaRow, '{"key":"a","peer_id":"b","peer":"c","address":"::1","capability":true}', "as a number"),
        (SaRow, '{"key":"a","peer_id":"b","peer":"c","address":"::1","moved_ago_s":-1}', "out of range"),
        (SaRow, '{"key":"a","peer_id":"b","peer":"c","address":"::1","redirects":40000}', "out of range"),
        (ClusterIntent, '{"apply":-1}', "out of range"),
        (Member, '{"name":"gw1","instance":"x","pools":[' + '"",' * MAX_ITEMS + '""]}', "a list of"),
    ],
)
def test_what_does_not_fit_is_named(kind: type, text: str, said: str) -> None:
    with pytest.raises(StoreValueError) as broken:
        from_json("/mobikectl/x/state/k", text.encode(), kind)
    assert said in broken.value.message
    assert "/mobikectl/x/state/k" in broken.value.message
    assert broken.value.hint


def test_too_much_is_neither_read_nor_written() -> None:
    with pytest.raises(StoreValueError):
        from_json("k", b'"' + b"x" * MAX_VALUE + b'"', Pin)
    with pytest.raises(StoreValueError):
        to_json(Pin("x" * MAX_VALUE))


@pytest.mark.parametrize(
    "record",
    [
        NodeIntent(weight=0.0),
        NodeIntent(weight=float("nan")),
        Member("gw1", "x", weight=-1.0),
        NodeIntent(rate_per_s=-1),
        ClusterIntent(apply=-1),
        SaPart("gw1", "x", 1, 2, 2),
    ],
)
def test_what_no_reader_could_use_is_not_written(record: object) -> None:
    with pytest.raises(StoreValueError):
        to_json(record)


def test_a_move_goes_only_where_the_table_lets_it() -> None:
    here = ip_address("198.18.0.1")
    for state in MoveState:
        move = MoveRecord(
            1, ("a",), "gw1", "gw2", Mechanism.NOTIFY, Reason.DRAIN, here, here, (MoveStep(state, 0.0),)
        )
        for following in MoveState:
            if following in TRANSITIONS[state]:
                assert move.to(following, at=1.0).state is following
            else:
                with pytest.raises(ValueError, match="cannot go"):
                    move.to(following, at=1.0)


def test_every_move_can_end() -> None:
    ended = {state for state, following in TRANSITIONS.items() if not following}
    for _ in MoveState:
        ended |= {state for state, following in TRANSITIONS.items() if following & ended}
    assert ended == set(MoveState)
