"""Which mechanism moves an IKE_SA."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mobikectl.charon.rmobike_link import Peer
from mobikectl.errors import MoveError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.switch.mechanism import choose
from mobikectl.switch.moves import Mechanism

PATH = Path(ip_address("198.18.9.1"), ip_address("198.18.1.1"))


def sa(*, initiator: bool = False, nat: bool = False) -> IkeSa:
    return IkeSa(7, "home", IkeState.ESTABLISHED, PATH, original_initiator=initiator, nat_remote=nat)


def peer(*, mobike: bool = True, r: bool = True, redirect: bool | None = True) -> Peer:
    return Peer(7, mobike, r, redirect)


def test_a_peer_that_announced_it_is_asked_to_switch_also_behind_a_nat() -> None:
    assert choose(sa(), peer(), None) is Mechanism.NOTIFY
    assert choose(sa(nat=True), peer(), None) is Mechanism.NOTIFY


def test_a_peer_that_did_not_announce_it_gets_an_address_list() -> None:
    assert choose(sa(), peer(r=False), None) is Mechanism.ROUTE
    assert choose(sa(), None, None) is Mechanism.ROUTE


@pytest.mark.parametrize("seen", [None, peer(r=False)])
def test_behind_a_nat_an_address_list_is_not_tried_unless_asked_for(seen: Peer | None) -> None:
    with pytest.raises(MoveError, match="behind a NAT"):
        choose(sa(nat=True), seen, None)
    assert choose(sa(nat=True), seen, Mechanism.ROUTE) is Mechanism.ROUTE


def test_where_a_nat_may_be_pretended_an_address_list_is_tried() -> None:
    assert choose(sa(nat=True), None, None, nat_known=False) is Mechanism.ROUTE


def test_an_initiator_updates_by_the_plugin_where_it_is_and_by_a_route_elsewhere() -> None:
    assert choose(sa(initiator=True), peer(r=False), None) is Mechanism.UPDATE
    assert choose(sa(initiator=True), None, None) is Mechanism.ROUTE


def test_a_peer_without_mobike_is_not_moved_but_may_be_redirected() -> None:
    with pytest.raises(MoveError, match="MOBIKE"):
        choose(sa(), peer(mobike=False, r=False), None)
    assert choose(sa(), peer(mobike=False, r=False), Mechanism.REDIRECT) is Mechanism.REDIRECT


def test_a_switch_must_not_be_asked_of_a_peer_that_did_not_announce_it() -> None:
    with pytest.raises(MoveError, match="did not announce"):
        choose(sa(), peer(r=False), Mechanism.NOTIFY)


def test_a_notify_needs_the_plugin_and_a_responder() -> None:
    with pytest.raises(MoveError, match="plugin"):
        choose(sa(), None, Mechanism.NOTIFY)
    with pytest.raises(MoveError, match="initiated here"):
        choose(sa(initiator=True), peer(), Mechanism.NOTIFY)
    with pytest.raises(MoveError, match="initiator"):
        choose(sa(), peer(), Mechanism.UPDATE)


def test_a_redirect_is_for_a_gateway_and_for_clients_that_follow_it() -> None:
    assert choose(sa(), None, Mechanism.REDIRECT) is Mechanism.REDIRECT
    assert choose(sa(), peer(redirect=None), Mechanism.REDIRECT) is Mechanism.REDIRECT
    with pytest.raises(MoveError, match="redirects"):
        choose(sa(), peer(redirect=False), Mechanism.REDIRECT)
    with pytest.raises(MoveError, match="initiated here"):
        choose(sa(initiator=True), peer(), Mechanism.REDIRECT)
