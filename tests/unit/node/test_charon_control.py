"""What this node's charon is asked for, where a handover wants something of a client."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mobikectl.node.charon_control import CharonControl
from mobikectl.wire.ha import Host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobikectl.wire.notify import Notify

HERE = ip_address("198.18.11.1")
NO_ADDITIONAL_ADDRESSES, ADDITIONAL_IP4_ADDRESS = 16399, 16397


class Plugin:
    """Has one IKE_SA, served at `HERE`; remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Sequence[Notify]]] = []

    async def send_notify(self, ike_id: int, notifies: Sequence[Notify]) -> None:
        self.sent.append((ike_id, notifies))


class Mover:
    async def status(self, _: int) -> Any:
        return SimpleNamespace(local=Host(HERE, 4500))


async def called(*addresses: str) -> list[tuple[int, bytes]]:
    plugin = Plugin()
    link = cast("Any", SimpleNamespace(plugin=plugin))
    control = CharonControl(link, cast("Any", None), map(ip_address, addresses))
    control._mover = cast("Any", Mover())
    await control.call_back(7)
    [(ike_id, notifies)] = plugin.sent
    assert ike_id == 7
    return [(notify.type, notify.data) for notify in notifies]


@pytest.mark.parametrize("addresses", [(), (str(HERE),), (str(HERE), "2001:db8::1")])
async def test_a_client_is_called_back_by_an_address_list_for_it_follows_nothing_else(
    addresses: tuple[str, ...],
) -> None:
    assert await called(*addresses) == [(NO_ADDITIONAL_ADDRESSES, b"")]


async def test_our_other_addresses_are_told_with_it() -> None:
    assert await called(str(HERE), "198.18.11.2") == [(ADDITIONAL_IP4_ADDRESS, bytes([198, 18, 11, 2]))]
