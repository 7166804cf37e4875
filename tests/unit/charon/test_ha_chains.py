"""What is kept of charon's HA messages, and the chains that come out of it."""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.charon.ha_chains import ChainIncompleteError, HaChains, Limits
from mobikectl.errors import DecodeError, NotFoundError
from mobikectl.wire.ha import (
    HaAttribute,
    HaMessage,
    HaType,
    HaValue,
    Host,
    Identity,
    IkeId,
    SecretBytes,
    Selector,
)
from mobikectl.wire.ha_chain import MAX_CHAIN, HaChain, IkeSpis

A, T = HaAttribute, HaType
SESSIONS = {
    each["name"]: [HaMessage.from_bytes(bytes.fromhex(octets)) for _, octets in each["messages"]]
    for each in tomllib.loads((Path(__file__).parents[2] / "vectors" / "ha-5.9.8.toml").read_text())[
        "session"
    ]
}
VIP = Host(IPv4Address("198.19.7.1"))


def ike(number: int) -> IkeId:
    return IkeId(number, number, initiator=False)


def spis(number: int) -> IkeSpis:
    return IkeSpis(number, number)


def keys(text: str) -> SecretBytes:
    return SecretBytes(text.encode())


def add(number: int, old: int | None = None) -> HaMessage:
    rekeyed = ((A.IKE_REKEY_ID, ike(old)), (A.OLD_SKD, keys("skd"))) if old is not None else ()
    return HaMessage.of(
        T.IKE_ADD, (A.IKE_ID, ike(number)), *rekeyed,
        (A.NONCE_I, keys("i")), (A.NONCE_R, keys("r")), (A.SECRET, keys(f"secret {number}")),
    )  # fmt: skip


def update(number: int, *more: tuple[HaAttribute, HaValue]) -> HaMessage:
    return HaMessage.of(T.IKE_UPDATE, (A.IKE_ID, ike(number)), (A.CONFIG_NAME, "vpn"), *more)


def vips(number: int) -> HaMessage:
    return HaMessage.of(T.IKE_UPDATE, (A.IKE_ID, ike(number)), (A.REMOTE_VIP, VIP))


def child(number: int, spi: int) -> HaMessage:
    return HaMessage.of(
        T.CHILD_ADD, (A.IKE_ID, ike(number)), (A.INITIATOR, 0), (A.INBOUND_SPI, spi), (A.OUTBOUND_SPI, spi + 1),
        (A.CONFIG_NAME, "net"), (A.NONCE_I, keys("i")), (A.NONCE_R, keys("r")),
    )  # fmt: skip


def child_gone(number: int, spi: int) -> HaMessage:
    return HaMessage.of(T.CHILD_DELETE, (A.IKE_ID, ike(number)), (A.INBOUND_SPI, spi))


def mid(number: int, value: int, kind: HaType = T.IKE_MID_RESPONDER) -> HaMessage:
    return HaMessage.of(kind, (A.IKE_ID, ike(number)), (A.MID, value))


def delete(number: int) -> HaMessage:
    return HaMessage.of(T.IKE_DELETE, (A.IKE_ID, ike(number)))


RESYNC = HaMessage.of(T.RESYNC, (A.SEGMENT, 1))


def fed(*messages: HaMessage, limits: Limits | None = None) -> HaChains:
    chains = HaChains(limits or Limits())
    for message in messages:
        chains.feed(message, 0.0)
    return chains


def established(number: int = 1, old: int | None = None) -> list[HaMessage]:
    return [add(number, old), update(number), child(number, 10 * number)]


def rekeyed(old: int, new: int) -> list[HaMessage]:
    return [add(new, old), delete(old), update(new)]


# --- one IKE_SA -------------------------------------------------------------------------------------


def test_a_chain_has_the_keys_then_who_it_is_then_its_children_then_the_message_ids() -> None:
    chain = fed(*established(), mid(1, 2), mid(1, 3), mid(1, 7, T.IKE_MID_INITIATOR)).chain_of(spis(1))
    assert [each.kind for each in chain.messages] == [
        T.IKE_ADD, T.IKE_UPDATE, T.CHILD_ADD, T.IKE_MID_RESPONDER, T.IKE_MID_INITIATOR,
    ]  # fmt: skip
    assert chain.messages[3] == mid(1, 3)
    assert (chain.spis, chain.children, chain.connections) == (spis(1), frozenset({10}), frozenset({"vpn"}))


def test_virtual_addresses_told_later_are_in_the_one_update() -> None:
    chain = fed(*established(), vips(1)).chain_of(spis(1))
    assert chain.remote_vips == (VIP,)
    assert chain.connections == {"vpn"}
    assert sum(each.kind is T.IKE_UPDATE for each in chain.messages) == 1


def test_only_the_children_that_live_are_in_the_chain() -> None:
    chains = fed(*established(), child(1, 20), child(1, 30), child_gone(1, 10))
    assert chains.chain_of(spis(1)).children == {20, 30}
    assert chains.chain_of(spis(1), {30}).children == {30}
    assert chains.chain_of(spis(1), set()).children == set()


def test_an_ike_sa_that_is_not_established_has_no_chain() -> None:
    with pytest.raises(NotFoundError):
        fed(add(1), mid(1, 1)).chain_of(spis(1))


def test_an_unknown_ike_sa_has_no_chain_and_the_error_says_what_to_do() -> None:
    with pytest.raises(NotFoundError, match="rekey it"):
        fed().chain_of(spis(1))


def test_a_child_that_nobody_told_about_makes_the_chain_incomplete() -> None:
    with pytest.raises(ChainIncompleteError, match="1 CHILD_SAs are not known"):
        fed(*established()).chain_of(spis(1), {10, 99})


def test_it_is_known_what_is_missing_for_a_chain() -> None:
    assert fed().untold(spis(1), {10}) is None
    assert fed(add(1)).untold(spis(1), {10}) is None
    assert fed(*established()).untold(spis(1), {10, 99}) == frozenset({99})
    assert fed(*established()).untold(spis(1), {10}) == frozenset()


def test_a_child_of_a_generation_that_is_not_known_whole_is_missing() -> None:
    first, second = established(), rekeyed(1, 2)
    whole = fed(*first, *second)
    assert whole.untold(spis(2), {10}) == frozenset()
    without = fed(*(message for message in first if message.kind is not T.IKE_UPDATE), *second)
    assert without.untold(spis(2), {10}) == frozenset({10})
    with pytest.raises(ChainIncompleteError):
        without.chain_of(spis(2), {10})


def test_a_deleted_ike_sa_is_forgotten() -> None:
    chains = fed(*established(), delete(1))
    assert (len(chains), spis(1) in chains) == (0, False)


# --- rekeyed ----------------------------------------------------------------------------------------


def test_after_a_rekeying_the_chain_has_the_ike_sa_that_the_childs_keys_come_from() -> None:
    chain = fed(*established(1), *rekeyed(1, 2)).chain_of(spis(2))
    assert chain.generations == (spis(1), spis(2))
    assert [each.kind for each in chain.messages] == [
        T.IKE_ADD, T.IKE_UPDATE, T.CHILD_ADD, T.IKE_ADD, T.IKE_UPDATE,
    ]  # fmt: skip


def test_the_old_ike_sa_leaves_the_chain_with_its_last_child() -> None:
    chains = fed(*established(1), *rekeyed(1, 2), child(2, 20), child_gone(2, 10))
    assert chains.chain_of(spis(2)).generations == (spis(2),)
    assert spis(1) not in chains


def test_a_chain_is_only_as_long_as_the_children_asked_for_need() -> None:
    chains = fed(*established(1), *rekeyed(1, 2), child(2, 20), *rekeyed(2, 3), child(3, 30))
    assert chains.chain_of(spis(3)).generations == (spis(1), spis(2), spis(3))
    assert chains.chain_of(spis(3), {20, 30}).generations == (spis(2), spis(3))
    assert chains.chain_of(spis(3), {30}).generations == (spis(3),)


def test_a_rekeyed_ike_sa_keeps_the_virtual_addresses() -> None:
    chains = fed(*established(1), vips(1), *rekeyed(1, 2), *rekeyed(2, 3))
    assert chains.chain_of(spis(3)).remote_vips == (VIP,)


def test_a_rekeying_that_is_not_finished_leaves_the_old_one_movable() -> None:
    chains = fed(*established(1), add(2, 1))
    assert chains.chain_of(spis(1)).generations == (spis(1),)


def test_of_two_rekeyings_at_once_the_one_that_wins_counts() -> None:
    chains = fed(*established(1), add(2, 1), add(3, 1), delete(1), update(3), delete(2))
    assert chains.chain_of(spis(3)).generations == (spis(1), spis(3))
    assert len(chains) == 1


def test_an_ike_sa_deleted_while_it_is_rekeyed_goes_with_its_heir() -> None:
    chains = fed(*established(1), add(2, 1), delete(1), delete(2))
    assert spis(1) not in chains
    assert spis(2) not in chains


def test_deleting_the_last_generation_forgets_all() -> None:
    chains = fed(*established(1), *rekeyed(1, 2), delete(2))
    assert not list(chains.snapshot())


def test_generations_are_limited_and_the_children_of_the_oldest_are_then_unknown() -> None:
    messages = established(1)
    for number in range(2, 8):
        messages += [*rekeyed(number - 1, number), child(number, 10 * number)]
    chains = fed(*messages, limits=Limits(depth=4))
    assert chains.chain_of(spis(7)).generations == tuple(spis(number) for number in (4, 5, 6, 7))
    with pytest.raises(ChainIncompleteError):
        chains.chain_of(spis(7), {10, 70})


# --- bounds and restarts ----------------------------------------------------------------------------


def test_no_more_is_kept_than_allowed_and_what_is_missed_is_counted() -> None:
    chains = fed(*established(1), *established(2), *established(3), limits=Limits(generations=2))
    assert len(chains) == 2
    assert chains.missed == 3


def test_children_are_limited() -> None:
    chains = fed(*established(1), child(1, 20), child(1, 30), limits=Limits(children=2))
    assert chains.chain_of(spis(1)).children == {10, 20}
    assert chains.missed == 1


def test_what_never_gets_established_is_forgotten_in_time() -> None:
    chains = fed(add(1), *established(2))
    assert chains.prune(179.0) == 0
    assert chains.prune(181.0) == 1
    assert spis(1) not in chains
    assert len(chains) == 1


def test_a_charon_that_has_just_started_has_none_of_the_old_ike_sas() -> None:
    chains = fed(*established(1))
    chains.feed(add(2), 99.5)
    chains.feed(update(2), 99.5)
    chains.feed(RESYNC, 100.0)
    assert list(chains.current()) == [spis(2)]


def test_what_charon_does_not_have_any_more_can_be_forgotten() -> None:
    chains = fed(*established(1), *established(2))
    assert chains.keep_only({spis(2)}, 10.0) == 1
    assert list(chains.current()) == [spis(2)]
    assert chains.keep_only(set(), 1.0) == 0


def test_told_again_at_a_resync_nothing_changes() -> None:
    chains = fed(*established(1), vips(1), mid(1, 5))
    before = chains.chain_of(spis(1))
    for message in (add(1), update(1), mid(1, 5)):
        chains.feed(message, 9.0)
    assert chains.chain_of(spis(1)) == before


# --- captured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SESSIONS)
def test_a_captured_session_can_be_moved_at_every_moment_after_it_is_established(name: str) -> None:
    chains, moments = HaChains(), 0
    for message in SESSIONS[name]:
        chains.feed(message, 0.0)
        for current in chains.current():
            moments += 1
            chain = chains.chain_of(current)
            assert HaChain.from_secret(chain.to_secret()) == chain
        again = fed(*chains.snapshot())
        assert [again.chain_of(each) for each in again.current()] == [
            chains.chain_of(each) for each in chains.current()
        ]
    assert moments > 15
    assert len(chains) == 0
    assert chains.missed == 0


numbers = st.integers(1, 4)
anything = st.one_of(
    st.builds(add, numbers, st.one_of(st.none(), numbers)),
    st.builds(update, numbers),
    st.builds(vips, numbers),
    st.builds(child, numbers, st.integers(1, 3)),
    st.builds(child_gone, numbers, st.integers(1, 3)),
    st.builds(mid, numbers, st.integers(0, 9)),
    st.builds(delete, numbers),
    st.just(RESYNC),
)


@given(st.lists(anything, max_size=60))
def test_whatever_is_told_every_chain_is_a_chain_and_a_snapshot_makes_it_again(told: list[HaMessage]) -> None:
    chains = HaChains(Limits(depth=3, generations=6, children=2))
    for message in told:
        chains.feed(message, 0.0)
        assert len(list(chains.snapshot())) < 200
    again = fed(*chains.snapshot())
    assert set(again.current()) == set(chains.current())
    for current in chains.current():
        try:
            chain = chains.chain_of(current)
        except ChainIncompleteError:
            continue
        assert chain.spis == current
        assert HaChain.from_secret(chain.to_secret()) == chain
        assert again.chain_of(current) == chain


# --- chains as octets -------------------------------------------------------------------------------


def test_the_addresses_of_a_chain_can_be_replaced_by_the_living_ones() -> None:
    chain = fed(*established(1), *rekeyed(1, 2)).chain_of(spis(2))
    local, remote = Host(IPv4Address("198.18.9.1"), 4500), Host(IPv4Address("198.18.7.7"), 31000)
    for each in chain.at(local, remote).updates():
        assert each.need(A.LOCAL_ADDR, Host) == local
        assert each.need(A.REMOTE_ADDR, Host) == remote


def test_virtual_addresses_that_charon_does_not_tell_again_are_added_to_a_chain_without() -> None:
    chain = fed(*rekeyed(1, 2)).chain_of(spis(2))
    assert chain.remote_vips == ()
    assert chain.with_remote_vips(()) is chain
    assert chain.with_remote_vips([VIP.address]).remote_vips == (VIP,)
    told = fed(*established(1), vips(1)).chain_of(spis(1))
    assert told.with_remote_vips([IPv4Address("198.19.7.7")]) is told


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (update(1),),
        (add(1), update(2)),
        (add(1), add(2)),
        (add(1), add(2, 1), update(1)),
        (add(1), add(1)),
        (add(1), delete(1)),
        (add(1), RESYNC),
    ],
)
def test_messages_that_are_no_chain_of_one_ike_sa_are_refused(messages: tuple[HaMessage, ...]) -> None:
    with pytest.raises(DecodeError):
        HaChain(messages)


@given(st.binary(max_size=200))
def test_octets_are_a_chain_or_a_decode_error(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        HaChain.from_secret(SecretBytes(b"mHA1" + octets))


def test_a_chain_cut_short_is_refused_without_showing_its_keys() -> None:
    whole = fed(*established(1)).chain_of(spis(1)).to_secret().reveal()
    told = []
    for length in range(len(whole)):
        try:
            HaChain.from_secret(SecretBytes(whole[:length]))
        except DecodeError as error:
            told.append(f"{error!r}{error}")
    assert len(told) >= len(whole) - 3  # it may end after any of its messages
    assert not any("secret 1" in text for text in told)
    with pytest.raises(DecodeError, match="at most"):
        HaChain.from_secret(SecretBytes(bytes(MAX_CHAIN + 1)))


def test_a_chain_shows_no_keys() -> None:
    assert "secret 1" not in repr(fed(*established(1)).chain_of(spis(1)))


PEER, OTHER_PEER = Identity(2, b"client"), Identity(2, b"another")
SERVICE, INSIDE = (Selector(IPv4Address(each), IPv4Address(each)) for each in ("198.19.2.1", "198.19.1.1"))
ELSEWHERE = Selector(IPv4Address("198.19.1.2"), IPv4Address("198.19.1.2"))


def tunnel(number: int, spi: int, peer: Identity = PEER, inside: Selector = INSIDE) -> list[HaMessage]:
    """An IKE_SA of a peer, with a CHILD_SA for one flow."""
    carrying = child(number, spi).having([(A.LOCAL_TS, SERVICE), (A.REMOTE_TS, inside)])
    return [add(number), update(number, (A.REMOTE_ID, peer)), carrying]


def test_rivals_are_other_ike_sas_of_the_same_peer_with_the_same_selectors() -> None:
    chains = fed(*tunnel(1, 10), *tunnel(2, 20), *tunnel(3, 30, OTHER_PEER), *tunnel(4, 40, PEER, ELSEWHERE))
    assert chains.rivals(spis(1)) == {spis(2)}
    assert chains.rivals(chains.chain_of(spis(2))) == {spis(1)}
    assert chains.rivals(HaChain(tuple(tunnel(9, 90)))) == {spis(1), spis(2)}
    assert not chains.rivals(spis(3))
    assert not chains.rivals(spis(4))
    assert not chains.rivals(spis(5))


def test_a_peer_that_is_known_by_its_eap_identity_is_the_same_by_that() -> None:
    a, b = tunnel(1, 10), tunnel(2, 20)
    a[1] = a[1].having([(A.REMOTE_EAP_ID, PEER)])
    b[1] = b[1].having([(A.REMOTE_EAP_ID, OTHER_PEER)])
    assert not fed(*a, *b).rivals(spis(1))


def test_the_generations_of_one_ike_sa_are_no_rivals_of_each_other() -> None:
    again = add(2, 1), update(2, (A.REMOTE_ID, PEER)), *tunnel(2, 20)[2:]
    chains = fed(*tunnel(1, 10), *again)
    assert not chains.rivals(spis(2))
    assert chains.rivals(HaChain(tuple(tunnel(1, 10)))) == {spis(2)}  # a copy from before the rekeying
    assert chains.rivals(HaChain(tuple(tunnel(9, 90)))) == {spis(2)}


def test_what_ended_is_no_rival() -> None:
    chains = fed(*tunnel(1, 10), *tunnel(2, 20), *tunnel(3, 30), child_gone(1, 10), delete(2))
    assert not chains.rivals(spis(3))
    assert not chains._carriers.keys() - chains.chain_of(spis(3)).flows
    chains.feed(HaMessage.of(T.RESYNC), 100.0)
    assert not chains._carriers
