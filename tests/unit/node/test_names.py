"""Names of IKE_SAs for the whole cluster."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

from mobikectl.charon.sa_events import SaDown, SaRekeyed, SaUp
from mobikectl.charon.tracker import SaFeed
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.node.names import SaNames

if TYPE_CHECKING:
    from mobikectl.charon.sa_events import SaEvent
    from mobikectl.charon.tracker import SaTracker

HERE, THERE = ip_address("198.18.0.1"), ip_address("198.18.0.2")


def an_sa(uniqueid: int, peer: str = "client", **more: Any) -> IkeSa:
    spis = {"initiator_spi": uniqueid * 10, "responder_spi": uniqueid * 10 + 1}
    return IkeSa(
        uniqueid,
        "gateway",
        IkeState.ESTABLISHED,
        Path(HERE, THERE),
        remote_id=peer,
        **(spis | more),
    )


class Tracker:
    """The SAs as a test sets them; events are told as by the real tracker."""

    def __init__(self) -> None:
        self.sas: dict[int, IkeSa] = {}
        self.feeds: set[SaFeed] = set()

    def subscribe(self) -> SaFeed:
        return SaFeed(self.feeds, 1000)

    def tell(self, event: SaEvent) -> None:
        for feed in self.feeds:
            feed.put([event])

    def up(self, sa: IkeSa) -> IkeSa:
        self.sas[sa.uniqueid] = sa
        self.tell(SaUp(sa))
        return sa

    def down(self, sa: IkeSa) -> None:
        del self.sas[sa.uniqueid]
        self.tell(SaDown(sa))

    def rekey(self, old: IkeSa, new: IkeSa) -> IkeSa:
        del self.sas[old.uniqueid]
        self.sas[new.uniqueid] = new
        self.tell(SaRekeyed(old.uniqueid, new))
        return new


def names(tracker: Tracker) -> SaNames:
    return SaNames("gw1", cast("SaTracker", tracker))


def test_a_name_says_node_peer_and_number_and_finds_the_sa_again() -> None:
    tracker = Tracker()
    named = names(tracker)
    sa = tracker.up(an_sa(3, "C=CH, O=a/b#c, CN=x"))
    assert named.key_of(sa) == "gw1/C=CH, O=a/b#c, CN=x#3"
    assert named.find(named.key_of(sa)) == sa


def test_a_name_survives_rekeys_also_one_that_nobody_asked_for_before() -> None:
    tracker = Tracker()
    named = names(tracker)
    first = tracker.up(an_sa(3))
    second = tracker.rekey(first, an_sa(7))
    third = tracker.rekey(second, an_sa(9))
    assert named.key_of(third) == "gw1/client#3"
    assert named.find("gw1/client#3") == third
    assert named.find("gw1/client#7") is None
    assert named.find("gw1/client#9") is None


def test_what_is_gone_is_not_found_and_its_name_is_not_given_to_the_next() -> None:
    tracker = Tracker()
    named = names(tracker)
    sa = tracker.rekey(tracker.up(an_sa(3)), an_sa(7))
    assert named.find("gw1/client#3") == sa
    tracker.down(sa)
    assert named.find("gw1/client#3") is None
    assert named.key_of(tracker.up(an_sa(8))) == "gw1/client#8"
    assert named.find("gw1/client#3") is None


def test_after_a_restart_of_charon_a_number_that_begins_anew_is_another_sa() -> None:
    tracker = Tracker()
    named = names(tracker)
    old = tracker.rekey(tracker.up(an_sa(3)), an_sa(7))
    assert named.key_of(old) == "gw1/client#3"
    tracker.sas[7] = an_sa(7, initiator_spi=99)  # the events were lost
    assert named.key_of(tracker.sas[7]) == "gw1/client#7"
    assert named.find("gw1/client#3") is None


def test_names_of_other_nodes_peers_and_forms_find_nothing() -> None:
    tracker = Tracker()
    named = names(tracker)
    sa = tracker.up(an_sa(3))
    for name in ("gw2/client#3", "gw1/other#3", "client", "gw1/client#", "gw1/client#x", "", "gw1/client#٣"):
        assert named.find(name) is None
    assert named.find("gw1/client#3") == replace(sa)
