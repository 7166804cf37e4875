"""What this node can still do: from charon's link, the uplinks and the probe. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.charon.sas import printable
from mobikectl.charon.session import LinkState
from mobikectl.policy.cluster import Health

if TYPE_CHECKING:
    from collections.abc import Collection

    from mobikectl.charon.session import Status
    from mobikectl.cluster.node_settings import AddressSettings
    from mobikectl.model import IpAddress, NetState


@dataclass(frozen=True, slots=True)
class Verdict:
    """A node's health, and why it is not better."""

    health: Health
    note: str = ""


def down(addresses: Collection[AddressSettings], net: NetState) -> tuple[IpAddress, ...]:
    """Given the serving addresses and the host's network, return those that cannot serve.

    The address must be on some interface, and the uplink must work: the interface named in the configuration, or else
    the one that has the address.
    """
    usable = {index: link.usable for index, link in net.links.items()}
    by_name = {link.name: link.usable for link in net.links.values()}
    holders: dict[IpAddress, bool] = {}
    for address in net.addresses:
        works = usable.get(address.index, False) and not address.tentative
        holders[address.ip] = holders.get(address.ip, False) or works
    found = []
    for wanted in addresses:
        there = wanted.ip in holders
        works = by_name.get(wanted.dev, False) if wanted.dev else holders.get(wanted.ip, False)
        if not (there and works):
            found.append(wanted.ip)
    return tuple(found)


def judge(
    charon: Status,
    *,
    in_step: bool,
    measured: bool,
    addresses: int,
    down: Collection[IpAddress],
    probe: bool | None,
) -> Verdict:
    """Given what is known, return the node's health.

    ``in_step``: whether the IKE_SAs are known. ``measured``: whether it is known what goes through them.
    ``addresses``: how many can serve at best. ``probe``: whether what is behind the gateway answers; None: that is
    not probed.
    """
    if charon.state is LinkState.HUNG:
        return Verdict(Health.DEAD, f"charon does not answer: {printable(charon.detail)}")
    if charon.state is LinkState.DOWN:
        return Verdict(Health.DEAD, f"charon is away: {printable(charon.detail)}")
    if len(down) >= addresses:
        return Verdict(Health.DEAD, "no uplink works")
    if not in_step:
        return Verdict(Health.UNKNOWN, "its IKE_SAs are not known yet")
    if probe is False:
        return Verdict(Health.IMPAIRED, "what is behind the gateway does not answer")
    if not measured:
        # It would look empty, and be filled up for the moment until it is.
        return Verdict(Health.UNKNOWN, "what goes through its IKE_SAs was not measured yet")
    return Verdict(Health.HEALTHY)
