"""Many redirects by few commands, and never one of somebody who was not meant."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import CharonRefusedError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.switch.redirects import Redirects, Selector, selectors

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

GATEWAY = ip_address("198.18.2.1")


def an_sa(number: int, remote: str) -> IkeSa:
    return IkeSa(number, "c", IkeState.ESTABLISHED, Path(ip_address("198.18.1.1"), ip_address(remote)))


def selected(selector: Selector, everybody: list[IkeSa]) -> set[int]:
    """What charon takes a selector to mean."""
    if selector.peer_ip is None:
        return set(selector.sas)
    first, _, last = selector.peer_ip.partition("-")
    low, high = ip_address(first), ip_address(last or first)
    return {
        sa.uniqueid
        for sa in everybody
        if sa.path.remote.version == low.version and int(low) <= int(sa.path.remote) <= int(high)
    }


@given(
    hosts=st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=20),
    chosen=st.sets(st.integers(0, 19)),
)
def test_exactly_those_that_are_meant_are_selected_once(
    hosts: list[tuple[bool, int]], chosen: set[int]
) -> None:
    nets = ip_network("198.19.0.0/24"), ip_network("2001:db8::/64")
    everybody = [an_sa(number, str(nets[six][host])) for number, (six, host) in enumerate(hosts)]
    wanted = {number for number in chosen if number < len(everybody)}
    found = selectors(wanted, everybody)
    told = [uniqueid for selector in found for uniqueid in selector.sas]
    assert sorted(told) == sorted(wanted)
    for selector in found:
        assert selected(selector, everybody) == set(selector.sas)


def test_all_of_a_drained_gateway_are_one_command() -> None:
    everybody = [an_sa(number, f"198.19.0.{number}") for number in range(1, 101)]
    (only,) = selectors(range(1, 101), everybody)
    assert only.peer_ip == "198.19.0.1-198.19.0.100"


async def test_those_that_come_together_go_together_and_each_hears_of_it() -> None:
    everybody = [an_sa(number, f"198.19.0.{number}") for number in range(1, 6)]
    sent: list[tuple[int | None, str | None]] = []

    async def command(ike_id: int | None, peer_ip: str | None, gateway: IpAddress) -> None:
        assert gateway == GATEWAY
        sent.append((ike_id, peer_ip))
        if ike_id is not None:
            raise CharonRefusedError("no matching SAs to redirect found")

    redirects = Redirects(lambda: everybody, command)
    outcomes = await asyncio.gather(
        *(redirects.redirect(number, GATEWAY) for number in (1, 2, 4)), return_exceptions=True
    )
    assert sorted(sent, key=str) == [(4, None), (None, "198.19.0.1-198.19.0.2")]
    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], CharonRefusedError)
    with pytest.raises(CharonRefusedError):
        await redirects.redirect(5, GATEWAY)
