"""The probe tracker: its states, thresholds, intervals, quality limits, and the memory of flaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.settings import ProbeSettings, QualityLimits
from mobikectl.policy.track import (
    TRANSITIONS,
    ProbeError,
    ProbeResult,
    Track,
    TrackEvent,
    TrackState,
    UndefinedTransitionError,
    transition,
)

from .path_world import A, result

SETTINGS = ProbeSettings(
    down=3, up=2, interval_s=10, failure_interval_s=1, recovery_interval_s=2, timeout_s=0.5, window=4
)


def track(settings: ProbeSettings = SETTINGS) -> Track:
    return Track(A).usable(True, settings, 0.0)


def fed(found: Track, verdicts: str, start: float = 1.0) -> Track:
    """Feed rounds: '+' is answered, '-' is not; one per second."""
    for i, verdict in enumerate(verdicts):
        found = found.observe(result(A, verdict == "+", start + i), start + i)
    return found


@pytest.mark.parametrize(("state", "event"), list(product(TrackState, TrackEvent)))
def test_every_transition_is_in_the_table_or_raises(state: TrackState, event: TrackEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(UndefinedTransitionError):
            transition(state, event)


def test_the_undefined_transitions_are_exactly_those_that_make_no_sense() -> None:
    undefined = {key for key in product(TrackState, TrackEvent) if key not in TRANSITIONS}
    calm = (TrackState.UNKNOWN, TrackState.UP, TrackState.FAILING)
    assert undefined == {
        *((state, TrackEvent.ENOUGH_GOOD) for state in calm),
        *((state, TrackEvent.ENOUGH_BAD) for state in (TrackState.DOWN, TrackState.RECOVERING)),
    }


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ("", TrackState.UNKNOWN),
        ("+", TrackState.UP),
        ("-", TrackState.FAILING),
        ("+-", TrackState.FAILING),
        ("+--", TrackState.FAILING),
        ("+--+", TrackState.UP),
        ("+--+--", TrackState.FAILING),
        ("---", TrackState.DOWN),
        ("+---", TrackState.DOWN),
        ("+----", TrackState.DOWN),
        ("---+", TrackState.RECOVERING),
        ("---+-", TrackState.DOWN),
        ("---+-+", TrackState.RECOVERING),
        ("---++", TrackState.UP),
    ],
)
def test_thresholds_decide_what_is_up_and_down(verdicts: str, state: TrackState) -> None:
    assert fed(track(), verdicts).state is state


@pytest.mark.parametrize(
    ("verdicts", "pause"),
    [("+", 10), ("+-", 1), ("---", 10), ("---+", 2), ("---++", 10)],
    ids=["up", "failing", "down", "recovering", "up-again"],
)
def test_each_state_has_its_interval(verdicts: str, pause: float) -> None:
    found = fed(track(), verdicts)
    assert found.next_due == len(verdicts) + pause


def test_a_path_that_is_down_can_be_probed_as_often_as_a_failing_one() -> None:
    found = fed(track(replace(SETTINGS, keep_failure_interval=True)), "---")
    assert found.next_due == 3 + 1


def test_latency_is_smoothed_and_has_hysteresis() -> None:
    limits = QualityLimits(failure_latency_s=0.2, recovery_latency_s=0.1)
    found = track(replace(SETTINGS, quality=limits, latency_smoothing=0.5))

    def hear(rtt_s: float) -> None:
        nonlocal found
        found = found.observe(result(A, True, 1.0, rtt_s), 1.0)

    hear(0.1)
    hear(0.2)
    assert found.srtt_s == pytest.approx(0.15)
    assert not found.degraded
    hear(0.4)
    assert found.degraded
    assert (found.state, found.answered) == (TrackState.FAILING, True)
    hear(0.05)
    assert found.srtt_s == pytest.approx(0.1625)
    assert found.degraded, "below the failure limit but above the recovery limit"
    hear(0.01)
    assert not found.degraded
    assert found.state is TrackState.UP


def test_loss_is_taken_over_the_window_and_has_hysteresis() -> None:
    limits = QualityLimits(failure_loss=0.4, recovery_loss=0.25)
    found = track(replace(SETTINGS, quality=limits))
    found = fed(found, "+++-")
    assert found.loss == pytest.approx(0.25)
    assert not found.degraded
    found = fed(found, "-")
    assert found.degraded
    found = fed(found, "++")
    assert found.loss == pytest.approx(0.5)
    assert found.degraded
    found = fed(found, "+")
    assert found.loss == pytest.approx(0.25)
    assert not found.degraded


def test_a_round_is_good_when_enough_targets_answer() -> None:
    targets = ProbeSettings(targets=(A.remote, A.local), reliability=2)
    found = track(targets)
    one = ProbeResult(A, 2, 1, (0.1,), 1.0, answered=1, error=ProbeError.TIMEOUT)
    both = ProbeResult(A, 2, 2, (0.1, 0.1), 1.0, answered=2)
    assert found.observe(one, 1.0).answered is False
    assert found.observe(both, 1.0).answered is True


@pytest.mark.parametrize("error", [ProbeError.NOT_PERMITTED, ProbeError.LOCAL])
def test_what_this_host_could_not_do_says_nothing_about_the_path(error: ProbeError) -> None:
    up = fed(track(), "+")
    after = up.observe(ProbeResult(A, 1, 0, (), 2.0, error=error, detail="no"), 2.0)
    assert (after.state, after.answered, after.failures) == (TrackState.UP, True, 0)
    assert after.note == "no"
    assert after.next_due > 2.0


def test_a_lost_link_voids_what_was_known_and_counts_as_a_flap() -> None:
    lost = fed(track(), "+").usable(False, SETTINGS, 5.0)
    assert (lost.state, lost.answered, lost.usable_since) == (TrackState.UNKNOWN, None, None)
    assert lost.flaps == 1.0
    assert lost.ever_answered
    assert lost.usable(False, SETTINGS, 6.0) is lost


def test_a_path_back_is_probed_at_once() -> None:
    back = fed(track(), "+").usable(False, SETTINGS, 5.0).usable(True, SETTINGS, 7.0)
    assert (back.usable_since, back.next_due) == (7.0, 7.0)


def test_flaps_are_forgotten_by_half_in_each_half_life() -> None:
    lost = replace(track(), flap_half_life_s=100.0).usable(False, SETTINGS, 0.0)
    assert lost.flaps_now(100.0) == pytest.approx(0.5)
    assert lost.flaps_now(300.0) == pytest.approx(0.125)


def test_a_move_that_does_not_verify_is_a_failed_check() -> None:
    after = fed(track(), "+").move_failed_there("no traffic", 5.0)
    assert (after.answered, after.move_failed, after.state) == (False, True, TrackState.FAILING)
    assert after.next_due == 5.0
    assert fed(after, "+").move_failed is False


def test_a_verified_move_is_a_successful_check() -> None:
    after = track().move_verified(5.0)
    assert (after.answered, after.state) == (True, TrackState.UP)


@given(st.text(alphabet="+-", max_size=60))
def test_it_is_never_up_right_after_a_bad_round_nor_down_after_a_good_one(verdicts: str) -> None:
    found = track()
    for i, verdict in enumerate(verdicts):
        found = fed(found, verdict, start=float(i + 1))
        if verdict == "-":
            assert found.state is not TrackState.UP
            assert found.up_since is None
        else:
            assert found.state is not TrackState.DOWN
        assert found.next_due > i + 1
        assert len(found.window) <= SETTINGS.window


@given(st.text(alphabet="+-", max_size=60))
def test_up_since_never_lies_before_the_last_bad_round(verdicts: str) -> None:
    found = fed(track(), verdicts)
    last_bad = max((i + 1 for i, v in enumerate(verdicts) if v == "-"), default=0)
    assert found.up_since is None or found.up_since > last_bad


@given(st.lists(st.sampled_from(["+", "-", "lost", "back", "failed", "verified"]), max_size=60))
def test_no_sequence_of_events_meets_an_undefined_transition(events: list[str]) -> None:
    found = track()
    for now, event in enumerate(events, start=1):
        if event in "+-":
            found = fed(found, event, start=float(now))
        elif event in {"lost", "back"}:
            found = found.usable(event == "back", SETTINGS, float(now))
        elif event == "failed":
            found = found.move_failed_there("no", float(now))
        else:
            found = found.move_verified(float(now))
