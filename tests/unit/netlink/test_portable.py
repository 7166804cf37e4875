"""The picture without netlink."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import netifaces
import pytest

from mobikectl.errors import NetlinkError
from mobikectl.model import Address, Link
from mobikectl.netlink import portable


def test_this_hosts_loopback_is_in_the_picture() -> None:
    state = portable.snapshot()
    (loopback,) = (link for link in state.links.values() if link.loopback)
    assert loopback.name == socket.if_indextoname(loopback.index)
    assert Address(loopback.index, ip_address("127.0.0.1"), 8, 254) in state.addresses


@pytest.mark.parametrize(
    ("entry", "prefixlen"),
    [
        ({"addr": "198.18.0.1", "netmask": "255.255.254.0"}, 23),
        ({"addr": "2001:db8::1%em0", "netmask": "ffff:ffff:ffff:ffff::"}, 64),
        ({"addr": "2001:db8::1", "netmask": "ffff:ffff:ffff::/48"}, 48),
        ({"addr": "2001:db8::1"}, 128),
    ],
)
def test_masks_are_read_in_every_form_that_systems_give(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, str], prefixlen: int
) -> None:
    family = netifaces.AF_INET6 if ":" in entry["addr"] else netifaces.AF_INET
    monkeypatch.setattr(netifaces, "interfaces", lambda: ["em0"])
    monkeypatch.setattr(netifaces, "ifaddresses", lambda name: {family: [entry]})
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: 3)
    state = portable.snapshot()
    assert state.links[3] == Link(3, "em0", up=True, carrier=True)
    assert {a.prefixlen for a in state.addresses} == {prefixlen}


def test_a_system_that_refuses_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[str]:
        raise OSError("no")

    monkeypatch.setattr(netifaces, "interfaces", refuse)
    with pytest.raises(NetlinkError) as caught:
        portable.snapshot()
    assert caught.value.hint
