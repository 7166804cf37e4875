"""A probe inside the tunnel: somebody behind the gateway is asked for an echo through the SA that was moved."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from mobikectl.policy.settings import ProbeSettings
from mobikectl.probe.icmp import exchange
from mobikectl.probe.sockets import ProbeFailedError

if TYPE_CHECKING:
    from mobikectl.model import IkeSa, IpAddress

ONE_ECHO_S = 0.1
"""How long one echo is waited for before the next is sent."""

SETTINGS = ProbeSettings()


class EchoThroughTunnel:
    """Sends ICMP echo requests from an SA's inside address to ``target`` until one is answered."""

    def __init__(self, target: IpAddress) -> None:
        self._target = target

    async def __call__(self, sa: IkeSa, timeout: float) -> bool:
        """Given an SA, return whether an answer came through it within ``timeout`` seconds.

        False also when the SA has no inside address of the target's family.
        """
        source = inside_address(sa, self._target)
        if source is None:
            return False
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(ONE_ECHO_S, left)):
                    await exchange(source, self._target, "", SETTINGS)
                    return True
            except TimeoutError:
                continue
            except ProbeFailedError:
                await asyncio.sleep(min(ONE_ECHO_S, max(0.0, left)))
        return False


def inside_address(sa: IkeSa, target: IpAddress) -> IpAddress | None:
    """Given an SA and whom to reach through it, return the source address to use, or None.

    That is its virtual IP (RFC 7296 section 2.19), or the single address that a CHILD_SA's local
    traffic selector names.
    """
    vips = [vip for vip in sa.local_vips if vip.version == target.version]
    if vips:
        return vips[0]
    for child in sa.children:
        for selector in child.local_ts:
            try:
                network = ip_network(selector.partition("[")[0])
            except ValueError:
                continue  # a range, or "dynamic"
            if network.version == target.version and network.prefixlen == network.max_prefixlen:
                return ip_address(str(network.network_address))
    return None
