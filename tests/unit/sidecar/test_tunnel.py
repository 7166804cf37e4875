"""Which source address goes through a tunnel."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mobikectl.model import ChildSa, ChildState, IkeSa, IkeState, IpAddress, Path
from mobikectl.sidecar.tunnel import EchoThroughTunnel, inside_address

TARGET = ip_address("198.18.200.1")


def sa(*selectors: str, vips: tuple[IpAddress, ...] = ()) -> IkeSa:
    path = Path(ip_address("198.18.1.1"), ip_address("198.18.9.1"))
    child = ChildSa(1, "net", ChildState.INSTALLED, local_ts=selectors)
    return IkeSa(1, "home", IkeState.ESTABLISHED, path, local_vips=vips, children=(child,))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (sa(vips=(ip_address("198.18.100.7"),)), "198.18.100.7"),
        (sa("198.18.100.1/32"), "198.18.100.1"),
        (sa("198.18.100.1/32[icmp]"), "198.18.100.1"),
        (sa("2001:db8::1/128", "198.18.100.1/32"), "198.18.100.1"),
        (sa("198.18.100.0/24"), None),
        (sa("198.18.100.1-198.18.100.9"), None),
        (sa("2001:db8::1/128"), None),
    ],
)
def test_the_virtual_ip_or_the_one_address_of_the_selector_is_used(
    given: IkeSa, expected: str | None
) -> None:
    found = inside_address(given, TARGET)
    assert (str(found) if found else None) == expected


async def test_without_an_inside_address_there_is_no_answer() -> None:
    assert not await EchoThroughTunnel(TARGET)(sa("198.18.100.0/24"), 5.0)


async def test_an_answer_on_the_way_back_is_seen() -> None:
    loopback = ip_address("127.0.0.1")
    assert await EchoThroughTunnel(loopback)(sa(vips=(loopback,)), 5.0)
