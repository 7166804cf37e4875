"""Handing an IKE_SA over: never two gateways serve it, and in the end one does."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobikectl.protocol.handover import (
    ENDED,
    SOURCE,
    TARGET,
    Ask,
    Event,
    Handover,
    SourceState,
    TargetState,
    asked,
)

S, E, T = SourceState, Event, TargetState


def after(*events: Event) -> Handover:
    handover = Handover()
    for event in events:
        handover = handover.on(event)
    return handover


def test_when_all_goes_well_it_is_handed_over() -> None:
    handover = after(E.DONE, E.DONE, E.DONE, E.SERVED, E.DONE, E.DONE)
    assert handover.state is S.HANDED_OVER
    assert handover.why == ""
    assert handover.seen == (S.OFFERING, S.ASKING, S.FREEZING, S.STARTING, S.HOLDING, S.DROPPING)


def test_a_target_that_refuses_the_offer_costs_nothing() -> None:
    assert after(E.REFUSED).state is S.KEPT


@pytest.mark.parametrize("before", [(), (E.DONE,), (E.DONE, E.DONE), (E.DONE, E.DONE, E.DONE)])
def test_when_an_answer_is_missing_it_is_recalled_before_anything_else(before: tuple[Event, ...]) -> None:
    handover = after(*before).on(E.UNCLEAR, "no answer")
    assert handover.state is S.RECALLING
    assert handover.why == "no answer"
    assert handover.on(E.DONE).state is S.THAWING
    assert handover.on(E.DONE).on(E.DONE).state is S.KEPT


def test_a_recall_that_comes_too_late_ends_in_the_source_giving_it_up() -> None:
    handover = after(E.DONE, E.DONE, E.DONE, E.UNCLEAR, E.SERVED, E.DONE, E.DONE)
    assert handover.state is S.HANDED_OVER


def test_a_recall_is_asked_until_it_is_answered() -> None:
    handover = after(E.DONE, E.DONE, E.DONE, E.UNCLEAR, E.UNCLEAR, E.UNCLEAR)
    assert handover.state is S.RECALLING
    assert handover.seen.count(S.RECALLING) == 0


def test_an_ike_sa_that_the_sources_charon_lost_is_started_at_the_target() -> None:
    assert after(E.DONE, E.DONE, E.ABSENT).state is S.STARTING
    assert Handover.resumed(present=False).state is S.STARTING
    assert Handover.resumed(present=True).state is S.RECALLING


@pytest.mark.parametrize("state", SourceState)
@pytest.mark.parametrize("event", Event)
def test_what_the_table_does_not_have_cannot_happen(state: SourceState, event: Event) -> None:
    if event in SOURCE[state]:
        assert Handover(state).on(event).state is SOURCE[state][event]
    else:
        with pytest.raises(ValueError, match="cannot happen"):
            Handover(state).on(event)


def test_a_target_that_serves_is_not_recalled_and_one_that_has_nothing_does_not_start() -> None:
    assert asked(T.SERVED, Ask.RECALL) is T.SERVED
    assert asked(T.NONE, Ask.START) is None
    assert asked(T.SERVED, Ask.OFFER) is None
    assert set(TARGET) == set(TargetState)


# --- everything that can happen ---------------------------------------------------------------------


@dataclass
class World:
    """Two gateways with their charons, which live longer than the processes that control them."""

    here: str = "serving"
    """The source's charon: serving, frozen or absent."""
    there: TargetState = T.NONE
    handover: Handover = field(default_factory=Handover)
    reachable: bool = True
    client_hears_target: bool = True

    def check(self) -> None:
        serving = (self.here == "serving") + (self.there in {T.STARTED, T.SERVED})
        assert serving <= 1, self

    def ask(self, ask: Ask) -> bool:
        """Carry an ask out at the target; return whether it was taken."""
        following = asked(self.there, ask)
        if following is not None:
            self.there = following
        self.check()
        return following is not None

    def step(self, trouble: str) -> None:
        """Do what the source's state says; trouble may hit the request, the answer or the source."""
        event = self._act(trouble)
        self.check()
        if trouble == "source dies":
            self.handover = Handover.resumed(present=self.here != "absent")
        elif event is not None:
            self.handover = self.handover.on(event)

    def _act(self, trouble: str) -> Event | None:
        state = self.handover.state
        asking = {S.OFFERING: Ask.OFFER, S.STARTING: Ask.START, S.RECALLING: Ask.RECALL}
        if state in asking:
            if trouble == "request lost" or not self.reachable:
                return E.UNCLEAR
            taken = self.ask(asking[state])
            if state is S.STARTING and taken and self.client_hears_target:
                self.ask(Ask.HEARD)
            if trouble == "answer lost":
                return E.UNCLEAR
            return self._answer(state, taken)
        match state:
            case S.ASKING:
                return {"client silent": E.UNCLEAR, "client refuses": E.REFUSED}.get(trouble, E.DONE)
            case S.FREEZING:
                if self.here == "absent":
                    return E.ABSENT
                if trouble == "exchange under way":
                    return E.REFUSED
                self.here = "frozen"
            case S.DROPPING:
                self.here = "absent"
            case S.THAWING:
                if self.here == "absent":
                    return E.ABSENT
                self.here = "serving"
        return E.DONE

    def _answer(self, state: SourceState, taken: bool) -> Event:
        if state is S.OFFERING:
            return E.DONE if taken else E.REFUSED
        if state is S.STARTING:
            return E.SERVED if self.there is T.SERVED else E.UNCLEAR if taken else E.REFUSED
        return E.SERVED if self.there is T.SERVED else E.DONE


TROUBLES = st.sampled_from(
    [
        "",
        "",
        "",
        "request lost",
        "answer lost",
        "source dies",
        "client silent",
        "client refuses",
        "exchange under way",
    ]
)
BETWEEN = st.sampled_from(
    ["", "", "", "", "target expires", "source's charon dies", "target's charon dies", "heard"]
)


@settings(max_examples=1500)
@given(st.lists(st.tuples(TROUBLES, BETWEEN), max_size=40), st.booleans(), st.randoms(use_true_random=False))
def test_never_two_serve_and_in_the_end_one_does_unless_a_charon_died(
    story: list[tuple[str, str]], client_hears: bool, rnd: object
) -> None:
    world = World(client_hears_target=client_hears)
    charons_died = False
    for trouble, between in story:
        if world.handover.ended:
            break
        world.step(trouble)
        if between == "target expires":
            world.ask(Ask.EXPIRED)
        elif between == "heard" and world.there is T.STARTED:
            world.ask(Ask.HEARD)
        elif between == "source's charon dies":
            world.here, charons_died = "absent", True
        elif between == "target's charon dies":
            charons_died = True
            world.ask(Ask.GONE)
        world.check()
    for _ in range(20):  # then nothing goes wrong any more
        if world.handover.ended:
            break
        world.step("")
    assert world.handover.state in ENDED
    if world.handover.state is S.KEPT:
        assert world.here == "serving" or charons_died
        assert world.there is T.NONE
    if world.handover.state is S.HANDED_OVER:
        assert world.here == "absent"
        assert world.there is T.SERVED or charons_died
    if world.handover.state is S.LOST:
        assert charons_died
