"""Which pool an inside address is of."""

from __future__ import annotations

from ipaddress import ip_address

from mobikectl.node.pools import Pools

POOLS = Pools()
POOLS.take(
    {
        "small": {"base": b"10.0.0.0", "size": b"14"},
        "next": {"base": b"10.0.0.16", "size": b"14"},
        "six": {"base": b"2001:db8::", "size": b"100"},
        "broken": {"base": b"nothing", "size": b"1"},
        "worse": b"no pool",
    }
)


def test_the_first_inside_address_that_is_in_a_pool_tells() -> None:
    assert POOLS.of([ip_address("10.0.0.5")]) == "small"
    assert POOLS.of([ip_address("10.0.0.15")]) == "small"
    assert POOLS.of([ip_address("10.0.0.16")]) == "next"
    assert POOLS.of([ip_address("10.9.9.9"), ip_address("2001:db8::7")]) == "six"


def test_an_address_of_no_pool_or_none_at_all_is_in_none() -> None:
    assert POOLS.of([ip_address("10.0.0.40")]) == ""
    assert POOLS.of([]) == ""
