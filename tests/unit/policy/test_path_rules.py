"""The rules by which a client's IKE_SA is moved: draft-kivinen-mobike-protocol-00 section 2, each by name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from mobikectl.model import Address, IkeState, Path
from mobikectl.policy.paths import decide
from mobikectl.policy.settings import (
    EndOfPaths,
    InterfaceRule,
    PathSettings,
    ProbeMethod,
    ProbeSettings,
    QualityLimits,
)
from mobikectl.policy.state import (
    IndicationKind,
    MoveKind,
    MoveSa,
    PathState,
    ProbePath,
    ReportNoPath,
    TerminateSa,
)

from .path_world import (
    GATEWAY,
    NEW,
    PREFER_WIRED,
    RADIO,
    SECOND_GATEWAY,
    WIRED,
    A,
    B,
    World,
    result,
    sa_on,
)

DETECTION_S = 5.0 + 2 * 0.5 + 0.1
"""The longest until PREFER_WIRED's probes declare a silent path down, with probes that answer at once."""


def kinds(world: World) -> list[MoveKind]:
    return [m.kind for m in world.moves]


def settled(**more: Any) -> World:
    world = World(**more)
    world.run(60)
    assert world.moves == []
    return world


def note(world: World, path: Path) -> str:
    assert world.decision is not None
    return next(c.note for c in world.decision.explanations[0].candidates if c.path == path)


# direct indications


def test_a_link_down_moves_at_once_without_asking_anybody() -> None:
    world = settled()
    world.up.discard(2)
    first = world.decide()
    (move,) = (a for a in first.actions if isinstance(a, MoveSa))
    assert (move.path, move.kind, move.origin, move.link) == (B, MoveKind.DIRECT, A, "up1")
    assert move.verify_by == world.now + world.settings.verify_timeout_s
    assert "up0" in move.cause


def test_an_address_that_goes_moves_at_once() -> None:
    world = settled()
    world.addresses.discard(Address(2, WIRED, 24))
    world.step()
    assert (world.path, kinds(world)) == (B, [MoveKind.DIRECT])


def test_a_route_that_goes_moves_at_once() -> None:
    world = settled()
    world.no_route.add(A)
    world.step()
    assert (world.path, kinds(world)) == (B, [MoveKind.DIRECT])


def test_a_route_that_was_not_asked_yet_is_no_indication() -> None:
    world = settled()
    state = replace(world.state(), routes={})
    decision = decide(state, world.settings, world.now)
    assert decision.actions == ()
    assert decision.memory.tracks[A].usable_since is not None


def test_a_direct_move_goes_to_a_path_never_checked_and_verifies_it_after() -> None:
    world = World()
    world.up.discard(3)
    world.run(30)
    world.up = {1, 3}
    decision = world.decide()
    assert [a.path for a in decision.actions if isinstance(a, MoveSa)] == [B]


def test_a_direct_move_that_does_not_verify_goes_on_to_the_next_path() -> None:
    world = settled(settings=replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY)))
    world.silent.add(B)
    world.up.discard(2)
    world.step()
    assert [m.path for m in world.moves] == [B, Path(RADIO, SECOND_GATEWAY)]
    assert world.path == Path(RADIO, SECOND_GATEWAY)


def test_an_address_whose_last_check_failed_is_used_only_after_a_check_succeeds() -> None:
    world = settled()
    world.silent.add(B)
    world.run(10)
    world.up.discard(2)
    decision = world.decide()
    assert not [a for a in decision.actions if isinstance(a, MoveSa)]
    assert [a.path for a in decision.actions if isinstance(a, ProbePath)] == [B]
    world.silent.discard(B)
    world.memory = world.memory.with_probe(result(B, True, world.now), world.now)
    world.step()
    assert world.path == B


def test_a_new_path_is_taken_at_once_when_there_was_none() -> None:
    world = settled()
    world.up = {1}
    world.run(300)
    assert [type(a) for a in world.others] == [ReportNoPath]
    world.up = {1, 3}
    world.step()
    assert world.path == B


def test_a_target_that_goes_while_moving_there_is_replaced_at_once() -> None:
    world = settled(settings=replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY)))
    world.carry_out = False
    world.up.discard(2)
    world.decide()
    world.no_route.add(B)
    decision = world.decide()
    assert [a.path for a in decision.actions if isinstance(a, MoveSa)] == [Path(RADIO, SECOND_GATEWAY)]


# indirect indications


@pytest.mark.parametrize("kind", list(IndicationKind))
def test_an_indirect_indication_first_probes_the_current_path(kind: IndicationKind) -> None:
    world = settled()
    world.indicate(kind)
    decision = world.decide()
    assert [a.path for a in decision.actions if isinstance(a, ProbePath)] == [A]
    assert len(decision.actions) == 1
    world.perform(decision.actions[0])
    world.step()
    assert world.moves == []
    assert world.decision is not None
    assert world.memory.sas[1].round is None


def test_the_current_path_is_tried_first_although_a_better_one_answers() -> None:
    world = World(sas=[sa_on(B)])
    world.run(10)
    world.indicate()
    decision = world.decide()
    (first,) = decision.actions
    assert isinstance(first, ProbePath)
    assert first.path == B


def test_a_path_that_is_silent_is_left_when_its_probes_say_so() -> None:
    world = settled()
    world.silent.add(A)
    world.run(DETECTION_S)
    assert (world.path, kinds(world)) == (B, [MoveKind.INDIRECT])


def test_one_lost_probe_moves_nothing() -> None:
    world = settled()
    world.silent.add(A)
    world.indicate()
    world.step()
    world.silent.discard(A)
    world.run(30)
    assert world.moves == []


def test_an_indication_shortens_the_time_to_find_a_silent_path() -> None:
    world = settled()
    world.silent.add(A)
    world.indicate()
    world.run(1.01)
    assert world.path == B


def test_an_indication_is_taken_up_once() -> None:
    world = settled()
    world.indicate()
    world.step()
    asked = len(world.probed)
    world.step()
    assert len(world.probed) == asked


def test_an_indication_of_a_path_already_left_is_void() -> None:
    world = settled()
    world.indicate()
    world.sas = [sa_on(B)]
    world.run(0.0)
    assert world.memory.sas[1].round is None


def test_paths_are_tried_from_the_current_one_then_by_preference_each_once() -> None:
    gateways = tuple(ip_address(f"198.19.0.{i}") for i in (1, 2, 3))
    world = settled(settings=replace(PREFER_WIRED, gateways=gateways))
    everything = {Path(local, remote) for local in (WIRED, RADIO) for remote in gateways}
    world.silent = everything
    world.run(30)
    world.probed.clear()
    start = world.memory.sas[1].not_before
    tried: list[Path] = []
    for _ in range(200):
        world.step()
        running = world.memory.sas[1].round
        if running is not None and running.waiting is not None and running.waiting not in tried:
            tried.append(running.waiting)
        assert world.decision is not None
        assert world.decision.next_deadline is not None
        if world.now > start + 60:
            break
        world.now = world.decision.next_deadline
    assert world.moves == []
    (report,) = (a for a in world.others if isinstance(a, ReportNoPath))
    wired = [Path(WIRED, g) for g in gateways]
    radio = [Path(RADIO, g) for g in gateways]
    assert list(report.tried) == [*wired, *radio]


def test_a_path_that_answers_of_late_needs_no_second_check() -> None:
    world = settled()
    world.silent.add(A)
    world.run(DETECTION_S)
    assert world.path == B
    before = [t for t, p in world.probed if p == B and t > world.now - 0.2]
    assert not before


def test_a_gateway_that_never_answers_probes_does_not_cost_an_sa_its_path() -> None:
    world = World(mute_gateway=True)
    world.run(600)
    assert world.moves == []
    assert world.others == []
    world.up.discard(2)
    world.step()
    assert (world.path, kinds(world)) == (B, [MoveKind.DIRECT])


def test_without_probing_an_indirect_indication_is_left_to_charon() -> None:
    settings = replace(PREFER_WIRED, probe=ProbeSettings(method=ProbeMethod.NONE))
    world = World(settings=settings)
    world.indicate()
    world.run(100)
    assert (world.moves, world.probed) == ([], [])


def test_a_path_that_is_too_slow_is_left_for_one_that_is_good() -> None:
    quality = QualityLimits(failure_latency_s=0.1)
    world = settled(settings=replace(PREFER_WIRED, probe=replace(PREFER_WIRED.probe, quality=quality)))
    for _ in range(30):
        world.memory = world.memory.with_probe(result(A, True, world.now, 0.5), world.now)
    world.step()
    assert world.path == B
    assert "too bad" in world.moves[0].cause


# when nothing answers


def silent_world(**settings: Any) -> World:
    world = settled(settings=replace(PREFER_WIRED, **settings))
    world.silent = {A, B}
    return world


def test_when_nothing_answers_it_is_reported_once_and_the_sa_is_kept() -> None:
    world = silent_world()
    world.run(1000)
    assert [type(a) for a in world.others] == [ReportNoPath]
    assert world.moves == []


def test_a_path_that_answers_again_ends_the_report_and_is_used() -> None:
    world = silent_world()
    world.run(100)
    world.silent = {A}
    world.run(20)
    assert world.path == B
    world.silent = {A, B}
    world.run(100)
    assert [type(a) for a in world.others] == [ReportNoPath, ReportNoPath]


def test_the_current_path_that_answers_again_is_stayed_on() -> None:
    world = silent_world()
    world.run(100)
    world.silent = {B}
    world.run(60)
    assert (world.path, world.moves) == (A, [])


def test_with_end_delete_the_sa_is_terminated_once_after_the_grace() -> None:
    world = silent_world(end=EndOfPaths.DELETE, end_grace_s=60.0)
    world.run(DETECTION_S + 5)
    assert [type(a) for a in world.others] == [ReportNoPath]
    world.run(50.0)
    assert [type(a) for a in world.others] == [ReportNoPath]
    world.run(500.0)
    assert [type(a) for a in world.others] == [ReportNoPath, TerminateSa]


def test_with_end_delete_a_path_that_comes_back_in_time_saves_the_sa() -> None:
    world = settled(settings=replace(PREFER_WIRED, end=EndOfPaths.DELETE, end_grace_s=60.0))
    world.up = {1}
    world.run(50)
    world.up = {1, 3}
    world.run(500)
    assert [type(a) for a in world.others] == [ReportNoPath]
    assert world.path == B


def test_a_gateway_that_never_answers_probes_does_not_get_its_sa_terminated() -> None:
    world = World(mute_gateway=True, settings=replace(PREFER_WIRED, end=EndOfPaths.DELETE, end_grace_s=1.0))
    for _ in range(10):
        world.indicate()
        world.run(100)
    assert not [a for a in world.others if isinstance(a, TerminateSa)]


# preference and hold-down


def test_a_better_path_is_gone_back_to_only_after_the_hold_down() -> None:
    world = settled()
    world.up.discard(2)
    world.step()
    world.run(100)
    world.up.add(2)
    world.run(19.9)
    assert world.path == B
    assert "held down" in note(world, A)
    world.run(0.2)
    assert (world.path, kinds(world)) == (A, [MoveKind.DIRECT, MoveKind.PREFERENCE])


def test_the_hold_down_starts_again_when_the_better_path_fails_in_between() -> None:
    world = settled(sas=[sa_on(A)])
    world.up.discard(2)
    world.step()
    world.run(300)
    world.up.add(2)
    world.run(12)
    world.memory = world.memory.with_probe(result(A, False, world.now), world.now)
    world.run(15)
    assert world.path == B
    world.run(10)
    assert world.path == A


def test_a_better_path_that_was_never_found_up_is_not_gone_to() -> None:
    world = World(sas=[sa_on(B)], silent={A})
    world.run(1000)
    assert world.moves == []


def test_a_preference_that_fails_is_tried_again_ever_more_rarely() -> None:
    world = World(sas=[sa_on(B)], moves_fail="path")
    world.run(2000)
    gaps = [b - a for a, b in pairwise(world.moved_at)]
    assert len(gaps) >= 3
    assert gaps[0] < gaps[1] < gaps[2]


def test_a_preference_keeps_the_old_path_until_verified() -> None:
    world = World(sas=[sa_on(B)])
    world.run(30)
    (move,) = world.moves
    assert (move.kind, move.origin, move.path) == (MoveKind.PREFERENCE, B, A)


def test_the_kernels_metric_decides_when_nothing_is_configured() -> None:
    world = World(settings=PathSettings(), sas=[sa_on(B)], metrics={A: 100, B: 200})
    world.run(30)
    assert world.path == A
    assert "metric" in world.moves[0].cause


def test_equal_paths_are_not_swapped() -> None:
    for path in (A, B):
        world = World(settings=PathSettings(), sas=[sa_on(path)])
        world.run(300)
        assert world.moves == []


def test_weights_move_an_sa_only_when_it_is_not_to_stick() -> None:
    rules = (InterfaceRule("up0", weight=1), InterfaceRule("up1", weight=1000))
    sticky = World(settings=PathSettings(interfaces=rules))
    sticky.run(100)
    assert sticky.path == A
    loose = World(settings=PathSettings(interfaces=rules, sticky=False))
    loose.run(100)
    assert loose.path == B
    loose.run(300)
    assert len(loose.moves) == 1


def test_a_gateway_that_moved_the_sa_on_purpose_is_not_fought() -> None:
    settings = replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY))
    world = World(settings=settings, sas=[sa_on(Path(WIRED, SECOND_GATEWAY))])
    world.run(300)
    assert world.moves == []


def test_the_first_gateway_is_gone_back_to_when_that_is_configured() -> None:
    settings = replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY), prefer_first_gateway=True)
    world = World(settings=settings, sas=[sa_on(Path(WIRED, SECOND_GATEWAY))])
    world.run(300)
    assert world.path == A


# planned changes


def test_a_deprecated_address_is_left_for_the_new_one_before_it_goes_without_hold_down() -> None:
    world = settled()
    world.addresses.discard(Address(2, WIRED, 24))
    world.addresses |= {Address(2, WIRED, 24, deprecated=True), Address(2, NEW, 24)}
    world.step()
    assert world.path == Path(NEW, GATEWAY)
    assert kinds(world) == [MoveKind.PREFERENCE]


def test_a_deprecated_address_is_not_left_for_a_worse_link() -> None:
    world = settled()
    world.addresses.discard(Address(2, WIRED, 24))
    world.addresses.add(Address(2, WIRED, 24, deprecated=True))
    world.run(300)
    assert world.moves == []


def test_an_address_added_beside_the_old_one_takes_over_when_the_old_goes() -> None:
    world = settled()
    world.addresses.add(Address(2, NEW, 24))
    world.run(10)
    assert world.moves == []
    world.addresses.discard(Address(2, WIRED, 24))
    world.step()
    assert (world.path, kinds(world)) == (Path(NEW, GATEWAY), [MoveKind.DIRECT])


# charon moves too


def test_a_move_by_charon_itself_to_an_equal_path_is_accepted() -> None:
    world = World(settings=PathSettings())
    world.run(60)
    world.sas = [sa_on(B)]
    world.run(300)
    assert world.moves == []


def test_when_charon_went_to_a_worse_path_the_better_one_is_gone_to_by_the_rules() -> None:
    world = settled()
    world.sas = [sa_on(B)]
    world.step()
    assert kinds(world) == [MoveKind.PREFERENCE]
    assert world.path == A


def test_a_round_ends_when_charon_has_moved_by_itself() -> None:
    world = settled()
    world.silent.add(A)
    world.indicate()
    world.step()
    assert world.memory.sas[1].round is not None
    world.sas = [sa_on(B)]
    world.step()
    assert world.memory.sas[1].round is None
    assert world.moves == []


@pytest.mark.parametrize("change", [{"original_initiator": False}, {"state": IkeState.CONNECTING}])
def test_an_sa_that_is_not_ours_to_move_is_left_alone(change: dict[str, Any]) -> None:
    world = World(sas=[replace(sa_on(A), **change)])
    world.up.discard(2)
    assert world.decide().actions == ()


# moves under way


def test_a_move_under_way_is_waited_for() -> None:
    world = settled()
    world.up.discard(2)
    world.decide()
    decision = world.decide()
    assert not [a for a in decision.actions if isinstance(a, MoveSa)]
    assert decision.explanations[0].target == B


def test_a_move_whose_outcome_never_comes_is_taken_as_failed() -> None:
    world = settled()
    world.up.discard(2)
    world.decide()
    world.now += world.settings.verify_timeout_s + 10
    world.step()
    assert world.memory.sas[1].failures >= 1
    world.run(200)
    assert world.path == B


def test_a_failure_of_this_host_is_retried_with_growing_pauses() -> None:
    world = settled()
    world.moves_fail = "here"
    world.up.discard(2)
    world.run(300)
    gaps = [b - a for a, b in pairwise(world.moved_at)]
    assert len(gaps) >= 3
    assert gaps[0] >= world.settings.retry_s
    assert gaps == sorted(gaps)
    world.moves_fail = ""
    world.run(world.settings.retry_max_s)
    assert world.path == B


def test_paths_that_answer_probes_and_yet_fail_every_move_are_retried_with_growing_pauses() -> None:
    world = settled(settings=replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY)))
    world.moves_fail = "path"
    world.up.discard(2)
    world.run(300)
    assert len(world.moves) <= 24
    world.moves_fail = ""
    world.run(world.settings.retry_max_s)
    assert world.path.local == RADIO


def test_the_memory_of_an_sa_follows_its_rekey() -> None:
    world = settled()
    world.up.discard(2)
    world.carry_out = False
    world.decide()
    world.sas = [sa_on(A, uniqueid=2)]
    world.memory = world.memory.with_rekey(1, 2)
    decision = world.decide()
    assert not [a for a in decision.actions if isinstance(a, MoveSa)]
    assert set(decision.memory.sas) == {2}


def test_two_sas_share_the_probes_of_a_path() -> None:
    world = World(sas=[sa_on(A, 1), sa_on(A, 2)])
    decision = world.decide()
    probed = [a.path for a in decision.actions if isinstance(a, ProbePath)]
    assert sorted(probed) == sorted({A, B})


def test_no_sas_means_nothing_to_do() -> None:
    decision = decide(PathState(World().net(), ()), PathSettings(), 1.0)
    assert (decision.actions, decision.next_deadline, decision.memory.tracks) == ((), None, {})


# the operator's pin


def pinned_on_b() -> World:
    world = settled()
    world.sas = [sa_on(B)]
    world.memory = world.memory.with_pin(1, B)
    return world


def test_an_sa_that_the_operator_moved_stays_although_a_better_path_works() -> None:
    world = pinned_on_b()
    world.run(10 * world.settings.hold_down_s)
    assert world.moves == []
    assert world.decision is not None
    assert world.decision.explanations[0].verdict == "kept where the operator put it"


def test_a_pin_ends_with_the_path_that_it_was_for() -> None:
    world = pinned_on_b()
    world.step()
    world.up.discard(3)
    world.step()
    assert [move.path for move in world.moves] == [A]
    world.up.add(3)
    world.run(1.0)
    assert world.memory.sas[1].pinned is None


def test_a_pin_that_is_taken_away_gives_the_sa_back_to_the_policy() -> None:
    world = pinned_on_b()
    world.run(world.settings.hold_down_s)
    world.memory = world.memory.with_pin(1, None)
    world.run(2 * world.settings.hold_down_s)
    assert [move.path for move in world.moves] == [A]


def test_an_sa_that_is_taken_along_has_its_time_to_arrive_where_it_is_pinned() -> None:
    world = settled()
    world.sas = [sa_on(A)]
    world.memory = world.memory.with_pin(1, B, world.now + 3.0)
    world.run(1.0)
    assert world.memory.sas[1].pinned == B
    world.sas = [sa_on(B)]
    world.run(10 * world.settings.hold_down_s)
    assert world.moves == []


def test_a_pin_that_is_never_reached_is_forgotten_in_time() -> None:
    world = settled()
    world.memory = world.memory.with_pin(1, B, world.now + 3.0)
    world.run(5.0)
    assert world.memory.sas[1].pinned is None
