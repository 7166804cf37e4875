"""Which moves begin when."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.records import Versioned
from mobikectl.node.queue import Limits, Queue
from mobikectl.policy.cluster import Mechanism, Reason
from tests.unit.node.test_memory import a_move

if TYPE_CHECKING:
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.model import IpAddress

HERE, THERE = ip_address("198.19.0.1"), ip_address("198.19.0.2")


def put(queue: Queue, *numbers: int, **more: Any) -> None:
    for number in numbers:
        queue.put(Versioned(replace(a_move(number), **more), 1))


def take(queue: Queue, now: float = 0.0, *, peer: IpAddress = HERE, rate: float | None = None) -> list[int]:
    def steers(move: MoveRecord) -> bool:
        return move.mechanism is not Mechanism.REDIRECT

    begun, _ = queue.take(now, lambda _: peer, steers, rate)
    return [move.value.number for move in begun]


def test_they_begin_in_the_order_of_the_plan_whatever_order_they_came_in() -> None:
    queue = Queue(Limits(moves=3))
    put(queue, 5, 2, 9, 1)
    assert take(queue) == [1, 2, 5]
    queue.done(1)
    assert take(queue) == [9]


def test_who_steers_an_address_is_alone_there() -> None:
    queue = Queue()
    put(queue, 1, 2, mechanism=Mechanism.NOTIFY)
    put(queue, 3)
    assert take(queue) == [1]
    assert take(queue) == []
    assert take(queue, peer=THERE) == [2]
    queue.done(1)
    assert take(queue) == [3]


def test_redirects_of_one_address_are_so_many_at_a_time() -> None:
    queue = Queue(Limits(redirects_of_one_address=2))
    put(queue, 1, 2, 3)
    assert take(queue) == [1, 2]
    queue.done(2)
    assert take(queue) == [3]


def test_a_drain_is_paced_and_the_rest_is_not() -> None:
    queue = Queue()
    put(queue, 1, 2, 4, reason=Reason.DRAIN)
    put(queue, 3)
    assert take(queue, 10.0, rate=2.0) == [1, 3]
    assert take(queue, 10.4, rate=2.0) == []
    assert queue.take(10.4, lambda _: None, lambda _: False, 2.0) == ([], 10.5)
    assert take(queue, 10.5, rate=2.0) == [2]
    assert take(queue, 10.6) == [4], "an operator who names no pace any more"


def test_what_was_dropped_does_not_begin() -> None:
    queue = Queue()
    put(queue, 1, 2)
    queue.drop(1)
    assert take(queue) == [2]
    assert (len(queue), queue.running) == (0, 1)
