"""What holds for the path policy whatever happens: links flap, paths fall silent, charon moves by itself."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mobikectl.model import Path
from mobikectl.policy.paths import decide
from mobikectl.policy.settings import EndOfPaths
from mobikectl.policy.state import Decision, IndicationKind, MoveKind, MoveSa, ProbePath, TerminateSa

from .path_world import GATEWAY, PREFER_WIRED, RADIO, SECOND_GATEWAY, WIRED, A, B, World, sa_on

LOCALS = {2: WIRED, 3: RADIO}
PATHS = [Path(local, remote) for local in LOCALS.values() for remote in (GATEWAY, SECOND_GATEWAY)]
CALM = replace(
    PREFER_WIRED,
    gateways=(GATEWAY, SECOND_GATEWAY),
    probe=replace(PREFER_WIRED.probe, interval_s=20.0),
    hold_down_max_s=100.0,
)
"""Probes seldom, so that much time passes in few decisions."""


class Watched(World):
    """A world that checks each decision as it is made."""

    def decide(self) -> Decision:
        before = self.state()
        again = decide(before, self.settings, self.now)
        decision = super().decide()
        assert decision == again, "the same input must give the same decision"
        assert decision.next_deadline is None or decision.next_deadline > self.now
        known = before.memory.tracks
        spoke = {t.path.remote for t in known.values() if t.ever_answered}
        moves = [a for a in decision.actions if isinstance(a, MoveSa)]
        assert len({m.sa_uniqueid for m in moves}) == len(moves)
        for move in moves:
            present = any(a.ip == move.path.local and a.index in self.up for a in self.addresses)
            assert present, "moved to an address or link that is not there"
            assert move.path not in self.no_route, "moved to a path without a route"
            track = decision.memory.tracks[move.path]
            if track.move_failed or move.path.remote in spoke:
                assert track.answered is not False, "moved to a path whose last check failed"
            if move.kind is MoveKind.DIRECT:
                assert not self.works(move.origin) or self.carry_out is False
        if self.settings.end is EndOfPaths.KEEP:
            assert not [a for a in decision.actions if isinstance(a, TerminateSa)]
        return decision


class Machine(RuleBasedStateMachine):
    """Anything can happen in any order; the checks of `Watched` hold at every decision."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Watched(settings=CALM)
        self.world.step()

    @rule(index=st.sampled_from([2, 3]))
    def a_link_changes(self, index: int) -> None:
        self.world.up ^= {index}
        self.world.step()

    @rule(path=st.sampled_from(PATHS))
    def a_route_changes(self, path: Path) -> None:
        self.world.no_route ^= {path}
        self.world.step()

    @rule(path=st.sampled_from(PATHS))
    def a_path_falls_silent_or_speaks_again(self, path: Path) -> None:
        self.world.silent ^= {path}

    @rule()
    def the_gateway_stops_or_starts_to_answer_probes(self) -> None:
        self.world.mute_gateway = not self.world.mute_gateway

    @rule(kind=st.sampled_from(list(IndicationKind)))
    def an_indication_comes(self, kind: IndicationKind) -> None:
        self.world.indicate(kind)
        self.world.step()

    @precondition(lambda self: any(self.world.works(p) for p in PATHS))
    @rule(path=st.sampled_from(PATHS))
    def charon_moves_by_itself(self, path: Path) -> None:
        if self.world.works(path):
            self.world.sas = [sa_on(path)]
            self.world.step()

    @rule(how=st.sampled_from(["", "path", "here"]))
    def moves_start_or_stop_to_fail(self, how: str) -> None:
        self.world.moves_fail = how

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 30.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @invariant()
    def the_sa_lives(self) -> None:
        assert not [a for a in self.world.others if isinstance(a, TerminateSa)]
        assert len(self.world.memory.tracks) <= 300

    def teardown(self) -> None:
        """Whatever happened: when all is well again, the SA comes to the best path and stays there."""
        world = self.world
        world.up, world.no_route, world.silent = {1, 2, 3}, set(), set()
        world.mute_gateway, world.moves_fail = False, ""
        world.run(2 * world.settings.hold_down_max_s)
        assert world.path.local == WIRED
        moved = len(world.moves)
        world.run(300)
        assert len(world.moves) == moved


Machine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPathPolicy = Machine.TestCase


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(min_value=0.5, max_value=19.0), min_size=1, max_size=40))
def test_a_link_that_never_holds_for_the_hold_down_never_gets_the_sa_back(holds: list[float]) -> None:
    world = World(settings=CALM)
    world.run(60)
    for hold in holds:
        world.up.discard(2)
        world.run(1.0)
        world.up.add(2)
        world.run(hold)
    assert {m.kind for m in world.moves} == {MoveKind.DIRECT}
    assert world.path.local == RADIO


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(min_value=20.0, max_value=60.0), min_size=8, max_size=30))
def test_a_link_that_flaps_slower_than_the_hold_down_gets_the_sa_back_ever_more_rarely(
    holds: list[float],
) -> None:
    world = World(settings=CALM)
    world.run(60)
    for hold in holds:
        world.up.discard(2)
        world.run(1.0)
        world.up.add(2)
        world.run(hold)
    back = [m for m in world.moves if m.kind is MoveKind.PREFERENCE]
    assert len(back) <= 2 + len(holds) // 5


@settings(max_examples=25, deadline=None)
@given(st.floats(min_value=0.0, max_value=300.0), st.floats(min_value=0.0, max_value=300.0))
def test_a_longer_hold_down_never_brings_the_sa_back_sooner(one: float, other: float) -> None:
    def back_after(hold_down_s: float) -> float:
        world = World(settings=replace(CALM, hold_down_s=hold_down_s, hold_down_max_s=600.0), sas=[sa_on(B)])
        world.run(400)
        return world.moved_at[0]

    short, long = sorted((one, other))
    assert back_after(short) <= back_after(long)


@settings(max_examples=15, deadline=None)
@given(st.floats(min_value=0.0, max_value=300.0), st.integers(min_value=0, max_value=20))
def test_a_down_is_never_delayed_whatever_the_hold_down_and_the_flaps(hold_down_s: float, flaps: int) -> None:
    world = World(settings=replace(PREFER_WIRED, hold_down_s=hold_down_s))
    world.run(30)
    for _ in range(flaps):
        world.up ^= {2}
        world.run(0.5)
    world.up = {1, 2, 3}
    world.sas = [sa_on(A)]
    world.step()
    world.moves.clear()
    world.up.discard(2)
    world.step()
    assert [(m.path, m.kind) for m in world.moves] == [(B, MoveKind.DIRECT)]


@settings(max_examples=25, deadline=None)
@given(st.permutations([2, 3]), st.permutations(PATHS))
def test_the_order_of_what_is_given_changes_nothing(links: list[int], paths: list[Path]) -> None:
    world = World(settings=replace(PREFER_WIRED, gateways=(GATEWAY, SECOND_GATEWAY)))
    state = world.state()
    routes = {p: state.routes[p] for p in paths}
    shuffled = replace(state, routes=routes, net=replace(state.net, addresses=frozenset(world.addresses)))
    plain = replace(state, routes={p: state.routes[p] for p in PATHS})
    assert decide(shuffled, world.settings, 1.0) == decide(plain, world.settings, 1.0)


@pytest.mark.parametrize("count", [1, 50])
def test_probes_are_bounded_by_the_paths_and_not_by_the_sas(count: int) -> None:
    world = World(sas=[sa_on(A, i + 1) for i in range(count)])
    probes = [a for a in world.decide().actions if isinstance(a, ProbePath)]
    assert len(probes) == 2


def test_a_host_with_very_many_addresses_considers_only_so_many() -> None:
    world = World()
    template = next(a for a in world.addresses if a.ip == WIRED)
    world.addresses |= {replace(template, ip=ip_address(f"198.18.1.{i}")) for i in range(3, 200)}
    decision = world.decide()
    assert len(decision.explanations[0].candidates) <= world.settings.max_paths + 1
