"""What the leader grants of what nodes claim."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from mobikectl.cluster.failovers import grants
from mobikectl.cluster.records import Claim, ClaimRow, Member, MoveRecord, MoveState, NodeReport, Versioned
from mobikectl.cluster.state import ClusterState, Journal
from mobikectl.policy.cluster import Health, Reason

A, B = ip_address("198.18.11.1"), ip_address("198.18.12.1")


def row(number: int) -> ClaimRow:
    return ClaimRow(f"{number:032x}", f"gw1/client#{number}", A, B)


def state(*claims: Claim, members: tuple[str, ...] = ("gw2", "gw3"), **reports: NodeReport) -> ClusterState:
    return ClusterState(
        1,
        members={name: Versioned(Member(name, "x"), 1) for name in members},
        reports={name: Versioned(report, 1) for name, report in reports.items()},
        claims={str(number): Versioned(claim, 1) for number, claim in enumerate(claims)},
    )


def claim(node: str = "gw2", *numbers: int, lost: bool = False) -> Claim:
    return Claim(node, "gw1", "silent", tuple(map(row, numbers)), lost)


def journal(*moves: MoveRecord) -> Journal:
    return Journal(1, tuple(Versioned(move, 1) for move in moves))


def test_what_a_dead_node_left_is_granted_to_who_claims_it() -> None:
    [one, two] = grants(state(claim("gw2", 1, 2)), journal(), at=5.0)
    assert (one.source, one.target, one.by, one.reason) == ("gw1", "gw2", "gw2", Reason.FAILOVER)
    assert (one.sas, one.spis, two.sas) == (("gw1/client#1",), row(1).spis, ("gw1/client#2",))


def test_a_member_keeps_its_own_unless_its_charon_is_dead_or_lost_them() -> None:
    members = ("gw1", "gw2")
    assert not grants(state(claim("gw2", 1), members=members), journal(), at=5.0)
    assert grants(state(claim("gw2", 1, lost=True), members=members), journal(), at=5.0)
    dead = NodeReport("gw1", "x", 1, health=Health.DEAD)
    assert grants(state(claim("gw2", 1), members=members, gw1=dead), journal(), at=5.0)


def test_an_ike_sa_that_several_claim_goes_to_the_one_that_serves_least() -> None:
    busy = NodeReport("gw2", "x", 1, ike_sas=10)
    [move] = grants(state(claim("gw2", 1), claim("gw3", 1), gw2=busy), journal(), at=5.0)
    assert move.target == "gw3"


def test_what_a_node_claims_that_is_away_itself_is_not_granted() -> None:
    assert not grants(state(claim("gw2", 1), members=("gw3",)), journal(), at=5.0)


def test_what_was_granted_is_not_granted_again_until_it_was_cancelled() -> None:
    known = state(claim("gw2", 1))
    [move] = grants(known, journal(), at=5.0)
    assert not grants(known, journal(move), at=5.0)
    done = move.to(MoveState.REQUESTED, at=6.0).to(MoveState.MOVED, at=6.0).to(MoveState.VERIFIED, at=6.0)
    assert not grants(known, journal(done), at=5.0)
    assert grants(known, journal(move.to(MoveState.CANCELLED, at=6.0)), at=5.0)


def test_an_ike_sa_that_came_back_under_another_name_is_granted_again() -> None:
    [move] = grants(state(claim("gw2", 1)), journal(), at=5.0)
    done = move.to(MoveState.REQUESTED, at=6.0).to(MoveState.MOVED, at=6.0).to(MoveState.VERIFIED, at=6.0)
    again = replace(claim("gw2"), rows=(replace(row(1), key="gw1/client#7"),))
    assert grants(state(again), journal(done), at=9.0)


def test_an_ike_sa_that_came_back_under_the_same_name_is_granted_again() -> None:
    """A charon that was restarted counts its IKE_SAs from the start."""
    known = state(claim("gw2", 1))
    [move] = grants(known, journal(), at=5.0)
    done = move.to(MoveState.REQUESTED, at=6.0).to(MoveState.MOVED, at=6.0).to(MoveState.VERIFIED, at=6.0)
    done = replace(done, number=5)
    there = replace(
        done, number=6, sas=("gw2/client#1",), source="gw2", target="gw1", reason=Reason.SPREAD, spis=""
    )
    assert grants(known, journal(done, there), at=9.0)
    assert not grants(known, journal(done, replace(there, number=4)), at=9.0)
    assert not grants(known, journal(done, replace(there, sas=("gw2/other#1",))), at=9.0)
    assert not grants(known, journal(done, replace(there, target="gw3")), at=9.0)
