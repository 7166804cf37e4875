"""This node's charon as handovers see it: the plugin's move helper, VICI, and the plugin's switch."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from mobikectl.charon import commands
from mobikectl.charon.rmobike import PluginRefusedError
from mobikectl.charon.rmobike_events import SwitchAcked, SwitchSuperseded, SwitchTimeout
from mobikectl.charon.rmobike_move import AHEAD, BUSY, UNKNOWN, Mover, MoveSa, Standing
from mobikectl.errors import MoveError
from mobikectl.model import ChildState
from mobikectl.node.connections import Connections
from mobikectl.node.control import BusyError, HeldSa
from mobikectl.protocol.handover import DID_NOT_ANSWER
from mobikectl.wire.dialects import CURRENT
from mobikectl.wire.mobike import AdditionalIp4Address, AdditionalIp6Address, NoAdditionalAddresses

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.charon.session import Session
    from mobikectl.model import IpAddress
    from mobikectl.wire.ha_chain import IkeSpis

FREEZE_S: Final = 5.0
"""A frozen IKE_SA is served again by itself after this time, unless it was made lasting meanwhile."""
_MOST_ADDRESSES: Final = 8
"""As charon tells at most."""
_INSTALLED: Final = "INSTALLED"


class CharonControl:
    """Given the plugin and charon's VICI session, implements `mobikectl.node.control.SaControl`.

    ``addresses``: those at which this node serves clients.
    """

    def __init__(self, link: PluginLink, session: Session, addresses: Iterable[IpAddress] = ()) -> None:
        self._addresses = frozenset(addresses)
        self._link = link
        self._session = session
        self._mover = Mover(link.plugin)
        self._connections = Connections(self._list_connections)

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        """As `SaControl`."""
        try:
            return _held(await self._mover.status(spis))
        except PluginRefusedError as error:
            if error.code == UNKNOWN:
                return None
            raise

    async def freeze(self, spis: IkeSpis) -> HeldSa | None:
        """As `SaControl`."""
        try:
            return _held(await self._mover.freeze(spis, timeout_s=FREEZE_S))
        except PluginRefusedError as error:
            if error.code == BUSY:
                raise BusyError(
                    f"it cannot be frozen now: {error.message}", hint="try again in a moment"
                ) from error
            if error.code == UNKNOWN:
                return None
            raise

    async def passivate(self, spis: IkeSpis) -> bool:
        """As `SaControl`."""
        return await self._did(self._mover.passivate(spis), absent=UNKNOWN)

    async def thaw(self, spis: IkeSpis) -> bool:
        """As `SaControl`. One that is passive was never served here: it is not ours to serve."""
        try:
            return await self._did(self._mover.thaw(spis, ahead=AHEAD), absent=UNKNOWN)
        except PluginRefusedError as error:
            if error.code == "not-frozen":
                return False
            raise

    async def activate(
        self,
        held: HeldSa,
        *,
        mids: tuple[int, int] | None,
        roam: bool,
        peer_r: bool,
        own_r: bool,
    ) -> int:
        """As `SaControl`."""
        try:
            served = await self._mover.activate(
                held.spis,
                mids=mids,
                announce=roam,
                children=held.inbound,
                peer_r=peer_r,
                own_r=own_r,
                ahead=AHEAD,
            )
        except PluginRefusedError as error:
            raise MoveError(f"charon cannot serve it: {error.message}", hint=error.hint) from error
        return served.ahead

    async def drop(self, spis: IkeSpis) -> bool:
        """As `SaControl`."""
        try:
            await self._mover.drop(spis)
        except PluginRefusedError as error:
            if error.code == UNKNOWN:
                return False
            raise
        return True

    async def ask_to_switch(self, ike_id: int, address: IpAddress, *, timeout: float) -> None:
        """As `SaControl`."""
        with self._link.asking() as (token, answers):
            await self._link.plugin.switch_address(
                ike_id, address, token=token, timeout_s=max(1, int(timeout)), foreign=True
            )
            try:
                async with asyncio.timeout(timeout):
                    while True:
                        match await answers.get():
                            case SwitchAcked():
                                return
                            case SwitchTimeout(reason=reason):
                                raise MoveError(
                                    f"the client was not asked to switch: {reason}", hint="try again"
                                )
                            case SwitchSuperseded():
                                raise MoveError("another switch took its place", hint="try again")
            except TimeoutError:
                raise MoveError(f"{DID_NOT_ANSWER} within {timeout:g} s", hint="try again") from None

    async def call_back(self, ike_id: int) -> None:
        """As `SaControl`: the list of our addresses, from the one that it has now.

        An initiator takes the address that this comes from for that of its peer (RFC 4555 section 3.6, as strongSwan
        does it); from any other request it does not.
        """
        local = (await self._mover.status(ike_id)).local.address
        others = sorted(ip for ip in self._addresses if ip != local and ip.version == local.version)
        told = [CURRENT.encode(_additional(ip)) for ip in others[:_MOST_ADDRESSES]]
        await self._link.plugin.send_notify(ike_id, told or [CURRENT.encode(NoAdditionalAddresses())])

    async def rekey_children(self, ike_id: int, children: Collection[int]) -> None:
        """As `SaControl`."""
        for sa in await commands.list_sas(self._session, ike_id=ike_id):
            for child in sa.children:
                # Where ESP is in userland charon has begun that by itself, for the new address.
                if child.spi_in in children and child.state is ChildState.INSTALLED:
                    await commands.rekey(self._session, child_id=child.uniqueid)

    async def rekey_ike_sa(self, ike_id: int) -> None:
        """Begin to rekey an IKE_SA (charon's number of it)."""
        await commands.rekey(self._session, ike_id=ike_id)

    async def connections(self) -> frozenset[str]:
        """As `SaControl`."""
        return await self._connections.names()

    async def _list_connections(self) -> frozenset[str]:
        return frozenset(each.name for each in await commands.list_conns(self._session))

    async def _did(self, work: object, *, absent: str) -> bool:
        try:
            await work  # type: ignore[misc]
        except PluginRefusedError as error:
            if error.code == absent:
                return False
            raise
        return True


def _additional(ip: IpAddress) -> AdditionalIp4Address | AdditionalIp6Address:
    return AdditionalIp4Address(ip) if isinstance(ip, IPv4Address) else AdditionalIp6Address(ip)


def _held(sa: MoveSa) -> HeldSa:
    return HeldSa(
        spis=sa.spis,
        ike_id=sa.ike_id,
        serving=sa.standing is Standing.ACTIVE,
        frozen=sa.standing is Standing.FROZEN,
        busy=sa.busy,
        mid_initiator=sa.mid_initiator,
        mid_responder=sa.mid_responder,
        local=sa.local,
        remote=sa.remote,
        children=tuple((child.spi_in, child.spi_out) for child in sa.children if child.state == _INSTALLED),
        steady=sa.steady,
    )
