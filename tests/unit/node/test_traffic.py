"""How much goes through each IKE_SA."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.model import ChildSa, ChildState, Counters, IkeSa, IkeState, Path
from mobikectl.netlink import KernelSa
from mobikectl.netlink.xfrm import SaMode
from mobikectl.node.traffic import FORGET_S, Rate, Reading, Traffic, from_charon, from_kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE, THERE, ELSEWHERE = (ip_address(f"198.18.0.{n}") for n in (1, 2, 3))


def traffic(*samples: tuple[float, Mapping[Any, Reading]], half_life_s: float = 0.001) -> Traffic:
    found = Traffic(half_life_s)
    for at, readings in samples:
        found.take(readings, at)
    return found


def test_a_rate_needs_two_readings() -> None:
    one = traffic((10.0, {"c": Reading(1, 1000, 10)}))
    assert one.rate(1) == Rate()
    assert not one.measured
    one.take({"c": Reading(1, 3000, 30)}, 12.0)
    assert one.rate(1).bytes_per_s == pytest.approx(1000)
    assert one.rate(1).packets_per_s == pytest.approx(10)
    assert one.rate(2) == Rate()
    assert one.measured


def test_a_node_without_any_ike_sa_is_measured_too() -> None:
    assert traffic((1.0, {}), (2.0, {})).measured
    assert not traffic((1.0, {}), (1.0, {})).measured


def test_all_counters_of_an_ike_sa_are_added_up() -> None:
    found = traffic(
        (0.0, {"a": Reading(1, 0, 0), "b": Reading(1, 0, 0), "c": Reading(2, 0, 0)}),
        (1.0, {"a": Reading(1, 10, 1), "b": Reading(1, 20, 2), "c": Reading(2, 5, 1)}),
    )
    assert found.rate(1).bytes_per_s == pytest.approx(30)
    assert found.rate(2).bytes_per_s == pytest.approx(5)


def test_the_counter_of_a_rekeyed_child_begins_at_nothing() -> None:
    found = traffic((0.0, {"old": Reading(1, 9000, 9)}), (1.0, {"new": Reading(1, 100, 1)}))
    assert found.rate(1).bytes_per_s == pytest.approx(100)


def test_a_counter_that_began_anew_counts_from_nothing() -> None:
    found = traffic((0.0, {"c": Reading(1, 9000, 9)}), (1.0, {"c": Reading(1, 100, 1)}))
    assert found.rate(1).bytes_per_s == pytest.approx(100)


def test_all_that_a_new_ike_sa_has_is_no_rate() -> None:
    found = traffic((0.0, {}), (1.0, {"c": Reading(1, 9_000_000, 9)}), (2.0, {"c": Reading(1, 9_000_100, 9)}))
    assert found.rate(1).bytes_per_s == pytest.approx(100)


def test_a_counter_that_one_look_misses_is_no_burst_afterwards() -> None:
    both = {"a": Reading(1, 9000, 9), "b": Reading(1, 9000, 9)}
    found = traffic((0.0, both), (1.0, {"a": both["a"]}), (2.0, both))
    assert found.rate(1).bytes_per_s == pytest.approx(0)
    found.take({"a": both["a"]}, 2.0 + FORGET_S)
    assert found.rate(1).bytes_per_s == pytest.approx(0)


def test_a_rekeyed_ike_sa_keeps_its_rate() -> None:
    found = traffic((0.0, {"c": Reading(1, 0, 0)}), (1.0, {"c": Reading(1, 100, 1)}))
    found.rekeyed(1, 5)
    assert found.rate(5).bytes_per_s == pytest.approx(100)
    found.take({"c": Reading(5, 200, 2)}, 2.0)
    assert found.rate(5).bytes_per_s == pytest.approx(100)


def test_a_rate_fades_with_the_half_life() -> None:
    found = traffic(
        (0.0, {"c": Reading(1, 0, 0)}),
        (1.0, {"c": Reading(1, 800, 1)}),
        (2.0, {"c": Reading(1, 800, 1)}),
        half_life_s=1.0,
    )
    assert found.rate(1).bytes_per_s == pytest.approx(400)


CHILD = ChildSa(7, "net", ChildState.INSTALLED, spi_in=0x11, spi_out=0x22, counters=Counters(1, 2, 30, 40))
SA = IkeSa(1, "gw", IkeState.ESTABLISHED, Path(HERE, THERE), children=(CHILD,))


def test_charons_counters_are_of_both_directions() -> None:
    assert list(from_charon([SA]).values()) == [Reading(1, 31, 42)]
    assert not from_charon([replace(SA, children=(replace(CHILD, counters=None),))])


def kernel_sa(spi: int, daddr: object, octets: int, proto: int = 50) -> KernelSa:
    return KernelSa(HERE, daddr, spi, proto, 1, SaMode.TUNNEL, octets, 1)  # type: ignore[arg-type]


def test_the_kernels_counters_keep_their_names_when_the_addresses_change() -> None:
    states = [kernel_sa(0x11, HERE, 10), kernel_sa(0x22, THERE, 20), kernel_sa(0x22, ELSEWHERE, 99)]
    before = from_kernel(states, [SA])
    assert sorted(reading.octets for reading in before.values()) == [10, 20]
    moved = replace(SA, path=Path(HERE, ELSEWHERE))
    after = from_kernel(states, [moved])
    assert before.keys() == after.keys()


def test_what_is_not_charons_or_not_esp_is_not_counted() -> None:
    assert not from_kernel([kernel_sa(0x33, HERE, 1), kernel_sa(0x11, HERE, 1, proto=51)], [SA])
