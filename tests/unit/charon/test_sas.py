"""What charon's trees are parsed into, and that nothing a peer chooses can disturb it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.charon import sas
from mobikectl.charon.transport import decode, encode
from mobikectl.model import ChildState, Counters, IkeSa, IkeState, Path

from .fake_vici import child, ike


def tree(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it comes from the wire."""
    return decode(encode(message))


def parsed(**keys: Any) -> IkeSa:
    (sa,) = sas.parse_list_sa(tree({"home": ike(**keys)}))
    return sa


def test_an_ike_sa_is_parsed_with_its_children_in_order() -> None:
    first = child(
        7, **{"encap": "yes", "local-ts": ["198.19.0.1/32"], "bytes-in": 5, "packets-out": 2, "use-in": 3}
    )
    sa = parsed(
        uniqueid=3,
        **{"nat-remote": "yes", "remote-vips": ["198.19.0.1"], "child-sas": {"b": child(9), "a": first}},
    )
    assert (sa.uniqueid, sa.name, sa.state) == (3, "home", IkeState.ESTABLISHED)
    assert sa.path == Path(ip_address("198.18.0.1"), ip_address("198.18.0.2"))
    assert (sa.initiator_spi, sa.responder_spi) == (3, 0x1003)
    assert (sa.nat_local, sa.nat_remote, sa.established_s) == (False, True, 10.0)
    assert sa.remote_vips == (ip_address("198.19.0.1"),)
    assert [c.uniqueid for c in sa.children] == [7, 9]
    assert sa.children[0].encap
    assert sa.children[0].counters == Counters(bytes_in=5, packets_out=2, idle_in_s=3.0)
    assert sa.children[1].counters is None


@pytest.mark.parametrize(
    "keys",
    [
        {"uniqueid": "0"},
        {"uniqueid": "-1"},
        {"uniqueid": "1_0"},
        {"state": "DREAMING"},
        {"local-host": "%any"},
        {"remote-host": "198.18.0.256"},
        {"remote-host": {"a": "b"}},
    ],
)
def test_an_sa_without_what_the_model_needs_is_left_out(keys: dict[str, Any]) -> None:
    assert sas.parse_list_sa(tree({"home": {**ike(), **keys}, "other": ike(2)})) == [
        sas.parse_ike("other", tree(ike(2)))
    ]


def test_an_identity_is_one_line_of_printable_text_whatever_the_peer_sends() -> None:
    assert parsed(**{"remote-id": "a\n\x1b[2Jb\u202ec"}).remote_id == r"a\n\x1b[2Jb\u202ec"
    assert parsed(**{"remote-id": b"\xff\xfe"}).remote_id == "\ufffd\ufffd"
    assert len(parsed(**{"remote-id": "x" * 60_000}).remote_id) == sas.TEXT_MAX
    assert len(parsed(**{"remote-id": "\x1b" * 60_000}).remote_id) == sas.TEXT_MAX


def test_ports_out_of_range_and_spis_that_are_none_take_their_defaults() -> None:
    sa = parsed(
        **{"local-port": "65536", "remote-port": "x", "initiator-spi": "zz", "responder-spi": "f" * 17}
    )
    assert (sa.local_port, sa.remote_port, sa.initiator_spi, sa.responder_spi) == (500, 500, 0, 0)


def test_an_update_names_the_new_addresses_beside_the_old_sa() -> None:
    message = {"local-host": "198.18.0.9", "local-port": "4500", "remote-host": "198.18.0.2", "home": ike()}
    (seen,) = sas.parse_event("ike-update", tree(message))
    assert isinstance(seen, sas.IkeUpdate)
    assert str(seen.sa.path.local) == "198.18.0.1"
    assert str(seen.path.local) == "198.18.0.9"
    assert (seen.local_port, seen.remote_port) == (4500, 4500)


def test_a_child_rekey_names_both_children() -> None:
    message = {"home": {**ike(), "child-sas": {"net": {"old": child(1, state="REKEYED"), "new": child(2)}}}}
    (seen,) = sas.parse_event("child-rekey", tree(message))
    assert isinstance(seen, sas.ChildRekey)
    ((old, new),) = seen.pairs
    assert (old.uniqueid, old.state, new.uniqueid) == (1, ChildState.REKEYED, 2)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("retransmit 2 of request with message ID 7", sas.RetransmitSeen(4, 2)),
        ("path probing attempt 3", sas.RetransmitSeen(4, 3, probing=True)),
        ("giving up after 5 retransmits", sas.RetransmitSeen(4, 5, given_up=True)),
        ("giving up after 5 path probings", sas.RetransmitSeen(4, 5, probing=True, given_up=True)),
    ],
)
def test_the_log_tells_of_retransmits(line: str, seen: sas.RetransmitSeen) -> None:
    message = {"group": "IKE", "level": "1", "ikesa-uniqueid": "4", "msg": line}
    assert sas.log_matters(encode(message))
    assert sas.parse_event("log", tree(message)) == [seen]


def test_a_peer_cannot_fake_a_retransmit_through_text_that_is_logged() -> None:
    line = "peer requested EAP identity 'retransmit 2 of request with message ID 7'"
    assert sas.parse_event("log", tree({"group": "IKE", "ikesa-uniqueid": "4", "msg": line})) == []
    assert not sas.log_matters(encode({"group": "IKE", "msg": "received NAT-T vendor ID"}))


KEYS = st.sampled_from([*ike(), *child(), "child-sas", "nat-local", "local-vips", "old", "new", "up", "x"])
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"1", b"ESTABLISHED", b"INSTALLED", b"198.18.0.1", b"2001:db8::1", b"yes", b"9" * 20]),
    st.lists(st.binary(max_size=20), max_size=3),
)
TREES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=12),
    lambda inner: st.dictionaries(KEYS, inner | VALUES, max_size=12),
    max_leaves=30,
)


@given(
    TREES,
    st.sampled_from(["ike-updown", "ike-update", "ike-rekey", "child-updown", "child-rekey", "log", "?"]),
)
def test_no_tree_raises_and_what_is_parsed_is_bounded_and_printable(
    message: dict[str, Any], name: str
) -> None:
    sas.parse_event(name, message)
    for sa in sas.parse_list_sa({"home": {**tree(ike()), **message}}):
        for value in (sa.name, sa.local_id, sa.remote_id, *(c.name for c in sa.children)):
            assert value.isprintable()
            assert len(value) <= sas.TEXT_MAX
        assert 0 < sa.uniqueid < 2**64
        assert 0 <= sa.local_port <= 65535
