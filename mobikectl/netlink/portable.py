"""The host's addresses where there is no netlink (macOS, the BSDs): one read-only picture, no events."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from types import MappingProxyType

import netifaces

from mobikectl.errors import NetlinkError
from mobikectl.model import Address, Link, NetState


def snapshot() -> NetState:
    """Return links and addresses as the `netifaces` module tells them. Raise NetlinkError when it cannot.

    It knows no flags: a link is shown as up with carrier when it has an address, no address as tentative, and there
    are no rules and routes. Good enough to show to a person; the controller itself needs `Watcher`.
    """
    links: dict[int, Link] = {}
    addresses: set[Address] = set()
    try:
        names = netifaces.interfaces()
        for name in names:
            try:
                index = socket.if_nametoindex(name)
            except OSError:
                continue
            found = _addresses(index, netifaces.ifaddresses(name))
            addresses |= found
            loopback = any(address.ip.is_loopback for address in found)
            links[index] = Link(index, name, up=bool(found), carrier=bool(found), loopback=loopback)
    except (OSError, ValueError) as exc:
        raise NetlinkError(
            f"the system's interfaces cannot be listed: {exc}", hint="try `ifconfig -a`"
        ) from exc
    return NetState(links=MappingProxyType(links), addresses=frozenset(addresses), generation=1)


def _addresses(index: int, families: dict[int, list[dict[str, str]]]) -> set[Address]:
    found: set[Address] = set()
    for family in (netifaces.AF_INET, netifaces.AF_INET6):
        for entry in families.get(family, []):
            if "addr" not in entry:
                continue
            ip = ip_address(entry["addr"].split("%", 1)[0])
            scope = 254 if ip.is_loopback else 253 if ip.is_link_local else 0
            found.add(Address(index, ip, _prefixlen(entry, ip.max_prefixlen), scope))
    return found


def _prefixlen(entry: dict[str, str], most: int) -> int:
    """Return the length of a mask such as ``255.255.255.0``, ``ffff:ffff::`` or ``ffff:ffff::/64``."""
    mask = entry.get("netmask") or entry.get("mask") or ""
    if "/" in mask:
        return int(mask.rsplit("/", 1)[1])
    if not mask:
        return most
    return int(ip_address(mask)).bit_count()
