"""How long a client was really interrupted, in a lab that stands still at times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.lab.capture import Ping
from mobikectl.lab.interruptions import common, interruption, lost_alone, standstills, union, waits

APART, RTT = 0.05, 0.002
END = 4.0


def client(number: int = 0, *, lost: tuple[float, float] | None = None) -> list[Ping]:
    """Pings of four seconds, each answered, but those sent within ``lost``."""
    found = []
    for n in range(60):
        at = number * APART / 20 + n * APART
        gone = lost is not None and lost[0] <= at < lost[1]
        found.append(Ping(at, None if gone else at + RTT))
    return found


def held_up(pings: list[Ping], start: float, end: float) -> list[Ping]:
    """The same where everything that would be sent or received within a time is so at its end."""

    def at(moment: float | None) -> float | None:
        return end if moment is not None and start < moment < end else moment

    return [Ping(at(ping.sent) or 0.0, at(ping.received)) for ping in pings]


def fleet(**more: tuple[float, float]) -> list[list[Ping]]:
    return [client(0, **more), *(client(number) for number in range(1, 20))]


def measured(clients: list[list[Ping]]) -> list[float]:
    still = standstills(clients, apart=APART, until=END)
    return [interruption(pings, still, END) for pings in clients]


def test_where_all_is_answered_an_interruption_is_a_round_trip() -> None:
    assert measured(fleet()) == pytest.approx([RTT] * 20)


@pytest.mark.parametrize(
    ("lost", "seconds"), [((1.0, 1.01), 0.052), ((1.0, 1.06), 0.102), ((1.0, 1.5), 0.502)]
)
def test_what_is_lost_interrupts_until_the_next_answer(lost: tuple[float, float], seconds: float) -> None:
    assert measured(fleet(lost=lost))[0] == pytest.approx(seconds, abs=1e-6)


def test_what_is_never_answered_again_is_counted_to_the_end() -> None:
    assert measured(fleet(lost=(2.0, 9.0)))[0] == pytest.approx(END - 2.0)


def test_that_the_lab_stands_still_interrupts_nobody() -> None:
    clients = [held_up(pings, 1.0, 1.4) for pings in fleet()]
    assert standstills(clients, apart=APART, until=END)
    assert max(measured(clients)) < 0.06


def test_that_who_sends_stands_still_interrupts_nobody() -> None:
    """The kernel answers; only one ping was under way, and it is lost."""
    clients = fleet(lost=(0.99, 1.01))
    for pings in clients:
        pings[:] = [ping for ping in pings if not 1.01 < ping.sent < 1.5]
    assert measured(clients)[0] < 0.1


def test_a_client_that_is_interrupted_while_the_lab_stands_still_is_told_from_it() -> None:
    clients = [held_up(pings, 1.0, 1.4) for pings in fleet(lost=(1.1, 1.8))]
    found = measured(clients)
    assert found[0] == pytest.approx(0.402, abs=0.06)
    assert max(found[1:]) < 0.06


def test_what_is_lost_while_the_lab_stands_still_is_not_counted_as_lost_by_one() -> None:
    """While it stands still all lose what they send; before and after that one client does."""
    clients = [client(0, lost=(0.5, 0.6)), *(client(number) for number in range(1, 20))]
    clients = [[p if not 1.0 <= p.sent < 1.4 else Ping(p.sent) for p in pings] for pings in clients]
    still = standstills(clients, apart=APART, until=END)
    assert lost_alone(clients[0], still, END) == 2
    assert sum(lost_alone(pings, still, END) for pings in clients[1:]) == 0


def test_with_few_clients_nothing_is_taken_off() -> None:
    clients = [held_up(pings, 1.0, 1.4) for pings in fleet()[:4]]
    assert max(measured(clients)) > 0.3


def test_when_a_third_of_them_is_interrupted_that_is_no_standstill() -> None:
    clients = [client(n, lost=(1.0, 1.5) if n < 7 else None) for n in range(20)]
    assert min(measured(clients)[:7]) > 0.4


def test_of_no_pings_nothing_is_said() -> None:
    assert interruption([], [], END) == 0.0
    assert standstills([[] for _ in range(20)], apart=APART, until=END) == []


spans = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 10)).map(lambda s: (float(s[0]), float(s[0] + s[1]))),
    max_size=10,
)


@given(spans)
def test_a_union_covers_what_the_spans_cover_in_order_and_apart(found: list[tuple[float, float]]) -> None:
    whole = union(found)
    assert all(a[1] < b[0] for a, b in pairwise(whole))
    for at in (number + 0.5 for number in range(60)):
        assert any(a <= at < b for a, b in found) == any(a <= at < b for a, b in whole)


@given(st.lists(spans, min_size=1, max_size=5), st.integers(0, 4))
def test_what_is_common_is_where_more_than_so_many_are(
    clients: list[list[tuple[float, float]]], more_than: int
) -> None:
    apart = [union(found) for found in clients]
    whole = common(apart, more_than)
    for at in (number + 0.5 for number in range(60)):
        count = sum(any(a <= at < b for a, b in found) for found in apart)
        assert (count > more_than) == any(a <= at < b for a, b in whole)


@given(st.lists(st.tuples(st.floats(0, 3), st.none() | st.floats(0, 1)), max_size=30))
def test_each_wait_ends_with_the_first_answer_to_it_or_to_a_later_ping(
    sent: list[tuple[float, float | None]],
) -> None:
    pings = [
        Ping(at, None if after is None else at + after) for at, after in sorted(sent, key=lambda s: s[0])
    ]
    for number, (start, end) in enumerate(waits(pings, END)):
        answers = [ping.received for ping in pings[number:] if ping.received is not None]
        assert start == pings[number].sent
        assert end == max(min([*answers, END]), start)
