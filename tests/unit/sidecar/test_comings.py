"""What a gateway can know of the redirects that a client followed lately."""

from __future__ import annotations

import pytest

from mobikectl.sidecar import comings
from mobikectl.sidecar.comings import Comings

PEER = "alice.example"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Comings:
    return Comings(clock)


def test_of_two_gateways_that_send_a_client_to_and_fro_each_knows_how_many_it_followed(clock: Clock) -> None:
    first, second = Comings(clock), Comings(clock)
    first.came(PEER)
    clock.now += 400
    for followed in range(6):
        here, there = (first, second) if followed % 2 == 0 else (second, first)
        assert here.redirects(PEER) == (followed if followed > 1 else 0), (
            "who never sent it away counts nothing"
        )
        here.sent(PEER)
        clock.now += 2
        there.came(PEER)


def test_a_client_that_comes_again_and_again_by_itself_followed_no_redirect(known: Comings) -> None:
    for _ in range(9):
        known.came(PEER)
    assert known.redirects(PEER) == 0
    known.sent(PEER)
    assert known.redirects(PEER) == 3, "sent once: at most one that brought it, and one that brought it back"


def test_what_is_older_than_the_period_of_rfc_5685_counts_no_more(known: Comings, clock: Clock) -> None:
    known.came(PEER)
    known.sent(PEER)
    clock.now += 301
    assert known.redirects(PEER) == 0


def test_it_remembers_a_bounded_number_of_clients(known: Comings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comings, "MOST", 2)
    for peer in ("a", "b", "c"):
        known.sent(peer)
    assert [known.redirects(peer) for peer in ("a", "b", "c")] == [0, 1, 1]
