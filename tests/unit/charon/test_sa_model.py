"""How the model follows charon's events and listings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.charon import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaPathChanged,
    SaPortsChanged,
    SaRekeyed,
    SaUp,
    sas,
)
from mobikectl.charon.sa_model import Step, observe, resync
from mobikectl.model import ChildSa, ChildState, IkeSa, IkeState, Path

Model = dict[int, IkeSa]
OLD = Path(ip_address("198.18.0.1"), ip_address("198.18.0.2"))
NEW = Path(ip_address("198.18.0.9"), ip_address("198.18.0.2"))


def sa(uniqueid: int = 1, **more: Any) -> IkeSa:
    return IkeSa(
        **{"name": "home", "state": IkeState.ESTABLISHED, "path": OLD, "initiator_spi": uniqueid,
           "responder_spi": uniqueid, "uniqueid": uniqueid, **more}
    )  # fmt: skip


def net(uniqueid: int = 1, **more: Any) -> ChildSa:
    return ChildSa(**{"uniqueid": uniqueid, "name": "net", "state": ChildState.INSTALLED, **more})


def after(model: Model, step: Step) -> Model:
    model = {**model, **{k: v for k, v in step.changes.items() if v is not None}}
    return {k: v for k, v in model.items() if step.changes.get(k, v) is not None}


def test_an_sa_comes_up_gets_a_child_loses_it_and_goes_down() -> None:
    model: Model = {}
    told = []
    for seen in (
        sas.IkeUpDown(True, sa()),
        sas.ChildUpDown(True, sa(children=(net(5),))),
        sas.ChildUpDown(False, sa(children=(net(5, state=ChildState.DELETING),))),
        sas.IkeUpDown(False, sa(state=IkeState.DELETING)),
        sas.ChildUpDown(False, sa(children=(net(6),))),
    ):
        step = observe(model, seen)
        model = after(model, step)
        told += step.events
    with_child = sa(children=(net(5),))
    assert told == [SaUp(sa()), ChildUp(with_child, net(5)), ChildDown(sa(), net(5)), SaDown(sa())]
    assert model == {}


def test_a_rekeyed_sa_keeps_its_children_vips_and_original_role_under_its_new_number() -> None:
    vip = (ip_address("198.19.0.1"),)
    known = sa(1, original_initiator=True, children=(net(5),), local_vips=vip)
    flipped = sa(2, original_initiator=False, state=IkeState.CREATED)
    step = observe({1: known}, sas.IkeRekey(replace(known, children=()), flipped))
    kept = sa(2, original_initiator=True, children=(net(5),), local_vips=vip)
    assert after({1: known}, step) == {2: kept}
    assert step.events == [SaRekeyed(1, kept)]


def test_after_a_rekey_of_an_sa_never_seen_the_new_one_is_known_with_the_old_ones_role() -> None:
    step = observe({}, sas.IkeRekey(sa(1, original_initiator=True), sa(2, original_initiator=False)))
    assert step.events == [SaUp(sa(2, original_initiator=True))]
    assert step.doubtful == {2}


def test_an_update_takes_the_announced_addresses_and_asks_what_it_does_not_tell() -> None:
    step = observe({1: sa(children=(net(),))}, sas.IkeUpdate(sa(), NEW, 4500, 4500))
    moved = sa(path=NEW, local_port=4500, remote_port=4500, children=(net(),))
    assert step.events == [SaPathChanged(moved, OLD, NEW)]
    assert step.doubtful == {1}


def test_a_change_of_ports_alone_is_not_a_change_of_path() -> None:
    step = observe({1: sa()}, sas.IkeUpdate(sa(), OLD, 500, 1024))
    assert step.events == [SaPortsChanged(sa(remote_port=1024), (500, 500), (500, 1024))]


def test_an_update_of_an_unknown_sa_changes_nothing() -> None:
    assert observe({}, sas.IkeUpdate(sa(), NEW, 1, 1)) == Step()


def test_a_rekeyed_child_takes_the_place_of_the_old_one() -> None:
    known = sa(children=(net(5), net(6)))
    step = observe({1: known}, sas.ChildRekey(sa(), ((net(5), net(7)),)))
    assert step.events == [ChildRekeyed(sa(children=(net(6), net(7))), 5, net(7))]
    assert step.doubtful == set()


def test_a_child_rekeyed_by_both_ends_at_once_is_asked_about() -> None:
    step = observe({1: sa(children=(net(7),))}, sas.ChildRekey(sa(), ((net(5), net(8)),)))
    assert step.doubtful == {1}


def test_a_passive_sa_that_begins_to_be_served_is_asked_about_as_nobody_told_of_its_children() -> None:
    model = {1: sa(state=IkeState.PASSIVE, children=(net(5),))}  # of which 5 was rekeyed since
    assert observe(model, sas.IkeUpDown(True, sa())).doubtful == {1}
    assert observe(model, sas.ChildUpDown(True, sa(children=(net(6),)))).doubtful == {1}
    assert not observe({1: sa()}, sas.ChildUpDown(True, sa(children=(net(6),)))).doubtful


def test_retransmits_are_told_also_for_sas_that_are_not_known() -> None:
    assert observe({}, sas.RetransmitSeen(9, 2)).events == [Retransmit(9, 2)]
    assert observe({}, sas.RetransmitSeen(9, 5, given_up=True)).events == [PeerUnresponsive(9, 5)]


def test_a_number_used_again_by_another_sa_is_a_down_and_an_up() -> None:
    other = sa(1, initiator_spi=77)
    assert observe({1: sa()}, sas.IkeUpDown(True, other)).events == [SaDown(sa()), SaUp(other)]
    step = resync({1: sa()}, [other], with_children=True)
    assert step.events == [SaDown(sa()), SaUp(other)]
    assert [d.kind for d in step.differences] == ["missing"]


def test_a_late_down_of_an_earlier_sa_does_not_take_the_one_with_its_number() -> None:
    assert observe({1: sa(1, initiator_spi=77)}, sas.IkeUpDown(False, sa(1))) == Step()


def test_a_listing_adds_removes_and_corrects_and_says_so() -> None:
    listed = [sa(2, path=NEW), sa(3, children=(net(1),)), sa(4, state=IkeState.CONNECTING)]
    step = resync({1: sa(1), 2: sa(2)}, listed, with_children=True)
    assert after({1: sa(1), 2: sa(2)}, step) == {2: sa(2, path=NEW), 3: sa(3, children=(net(1),))}
    assert [(d.kind, d.uniqueid) for d in step.differences] == [("extra", 1), ("changed", 2), ("missing", 3)]
    assert [type(event) for event in step.events] == [SaDown, SaPathChanged, SaUp, ChildUp]


def test_what_grows_by_itself_is_no_difference() -> None:
    listed = sa(established_s=99.0, state=IkeState.REKEYING, children=(net(state=ChildState.REKEYING),))
    step = resync({1: sa(established_s=5.0, children=(net(),))}, [listed], with_children=True)
    assert (step.differences, step.events) == ([], [])
    assert step.changes[1] == listed


def test_a_listing_without_children_keeps_those_known_and_doubts_sas_not_known() -> None:
    known = sa(1, children=(net(5),))
    step = resync({1: known}, [sa(1), sa(2)], with_children=False)
    assert after({1: known}, step) == {1: known, 2: sa(2)}
    assert step.doubtful == {2}


@pytest.mark.parametrize("listed", [[], [sa(1, path=NEW)]])
def test_what_events_touched_while_the_list_was_read_is_not_taken_from_the_list(listed: list[IkeSa]) -> None:
    step = resync({1: sa(1)}, listed, with_children=True, touched={1})
    assert (step.changes, step.events) == ({}, [])


def test_children_replaced_or_going_away_are_not_in_the_model() -> None:
    listed = sa(children=(net(1, state=ChildState.REKEYED), net(2), net(3, state=ChildState.DELETED)))
    step = resync({}, [listed], with_children=True)
    assert after({}, step) == {1: sa(children=(net(2),))}


@pytest.mark.parametrize(
    ("more", "role"),
    [
        ({"original_initiator": False, "local_vips": (ip_address("198.19.0.1"),)}, True),
        ({"original_initiator": True, "remote_vips": (ip_address("198.19.0.1"),)}, False),
        ({"original_initiator": True}, True),
    ],
)
def test_of_an_sa_found_later_a_virtual_ip_tells_the_original_initiator(
    more: dict[str, Any], role: bool
) -> None:
    (found,) = after({}, resync({}, [sa(**more)], with_children=True)).values()
    assert found.original_initiator is role


SAS = st.builds(
    sa,
    st.integers(1, 4),
    initiator_spi=st.integers(1, 2),
    path=st.sampled_from([OLD, NEW]),
    state=st.sampled_from(IkeState),
    children=st.lists(st.builds(net, st.integers(1, 4), state=st.sampled_from(ChildState)), max_size=3).map(
        lambda found: tuple({child.uniqueid: child for child in found}.values())
    ),
)
NETS = st.builds(net, st.integers(1, 4))
OBSERVATIONS = st.one_of(
    st.builds(sas.IkeUpDown, st.booleans(), SAS),
    st.builds(sas.IkeUpdate, SAS, st.sampled_from([OLD, NEW]), st.just(4500), st.just(4500)),
    st.builds(sas.IkeRekey, SAS, SAS),
    st.builds(sas.ChildUpDown, st.booleans(), SAS),
    st.builds(
        sas.ChildRekey,
        SAS,
        st.tuples(st.tuples(st.builds(net, st.integers(1, 4)), st.builds(net, st.integers(1, 4)))),
    ),
)


@given(st.lists(OBSERVATIONS, max_size=20), st.lists(SAS, max_size=4))
def test_after_any_events_a_listing_puts_the_model_right_and_the_events_alone_rebuild_it(
    seen: list[sas.Observation], listed: list[IkeSa]
) -> None:
    listed = list({one.uniqueid: one for one in listed}.values())
    model: Model = {}
    rebuilt: Model = {}
    for step_of in [
        *(partial(observe, seen=one) for one in seen),
        partial(resync, listed=listed, with_children=True),
    ]:
        step = step_of(model)
        model = after(model, step)
        for event in step.events:
            match event:
                case SaDown(sa=gone):
                    rebuilt.pop(gone.uniqueid)
                case SaRekeyed(old_id=old, sa=now):
                    rebuilt.pop(old)
                    rebuilt[now.uniqueid] = now
                case (
                    SaUp(sa=now)
                    | SaPathChanged(sa=now)
                    | ChildUp(sa=now)
                    | ChildDown(sa=now)
                    | ChildRekeyed(sa=now)
                ):
                    rebuilt[now.uniqueid] = now
        assert {k: (v.path, v.initiator_spi) for k, v in rebuilt.items()} == {
            k: (v.path, v.initiator_spi) for k, v in model.items()
        }
        assert all(key == value.uniqueid for key, value in model.items())
    live = {one.uniqueid: one for one in listed if one.state in sas.LIVE_IKE}
    assert {k: (v.path, v.initiator_spi) for k, v in model.items()} == {
        k: (v.path, v.initiator_spi) for k, v in live.items()
    }
    for uniqueid, one in model.items():
        wanted = {c.uniqueid for c in live[uniqueid].children if c.state in sas.LIVE_CHILD}
        assert {c.uniqueid for c in one.children} == wanted
