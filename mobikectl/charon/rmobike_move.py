"""The plugin's move helper: who serves an IKE_SA, and handing it over (charon-plugin/rmobike_move.c, docs/moves.md).

Of two nodes that have an IKE_SA at most one may serve it. What the plugin sees to is that one charon alone does nothing
against that: it serves no IKE_SA that it did not freeze or was not asked to activate, and ends none that it serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from mobikectl.charon.rmobike_events import address, flag, number, spi, word
from mobikectl.errors import DecodeError
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import Collection

    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.charon.transport import Message
    from mobikectl.model import IpAddress

BUSY: Final = "busy"
UNKNOWN: Final = "unknown-ike-sa"
"""Codes of PluginRefusedError: an exchange is under way, try again in a moment; charon does not have the IKE_SA."""
AHEAD: Final = 16
"""How far ahead a request may be at most."""


class Standing(Enum):
    """Who serves an IKE_SA, as far as a node knows."""

    ACTIVE = "active"
    """This node."""
    FROZEN = "frozen"
    """This node until it was frozen."""
    PASSIVE = "passive"
    """Another node."""
    OTHER = "other"
    """It is being made, deleted, or replaced."""


@dataclass(frozen=True, slots=True)
class MoveChild:
    """A CHILD_SA. ``state`` is charon's name of it: INSTALLED for a living one."""

    name: str
    state: str
    spi_in: int
    spi_out: int


@dataclass(frozen=True, slots=True)
class MoveSa:
    """An IKE_SA as the plugin has it. Message IDs are those of the next requests, ours and the peer's.

    ``busy``: an exchange or a change of a CHILD_SA is under way (``why_busy``). ``thaws``: of a frozen one, whether
    it does so by itself. ``changed``: of the answer to a command, whether it changed anything. ``ahead``: how much
    greater than expected the message ID of the peer's next request may be.
    """

    spis: IkeSpis
    ike_id: int
    name: str
    standing: Standing
    state: str
    original_initiator: bool
    mobike: bool
    nat_local: bool
    nat_remote: bool
    mid_initiator: int
    mid_responder: int
    local: Host
    remote: Host
    busy: bool
    why_busy: str
    thaws: bool
    changed: bool
    ahead: int
    children: tuple[MoveChild, ...]

    @property
    def steady(self) -> bool:
        """Whether every CHILD_SA is INSTALLED, but for those that charon keeps for late packets after a rekeying."""
        return all(child.state in {"INSTALLED", "DELETED"} for child in self.children)


Named = IkeSpis | int
"""What names an IKE_SA: its SPIs, or this charon's number of it."""


class Mover:
    """The move helper of one charon's plugin.

    Every command raises PluginRefusedError with the plugin's code when it says no (docs/moves.md lists them),
    DecodeError when its answer cannot be understood, and what `Session.request` raises.
    """

    def __init__(self, plugin: Rmobike) -> None:
        self._plugin = plugin

    async def status(self, sa: Named) -> MoveSa:
        """Return an IKE_SA as it is now."""
        return decode_sa(await self._plugin.request("move-status", _named(sa)))

    async def freeze(self, sa: Named, *, timeout_s: float | None = 5.0) -> MoveSa:
        """Stop serving an IKE_SA that is quiet; charon goes on to forward its ESP. Return it as it is then.

        It starts no exchange and answers none. After ``timeout_s`` seconds (at most 600) it is served again by
        itself, and the event Thawed comes; None: only `thaw` does that. Of one that is frozen already the time begins
        anew, unless it has none. Refused with BUSY while an exchange is under way.
        """
        ms = 0 if timeout_s is None else max(1, round(timeout_s * 1000))
        return decode_sa(await self._plugin.request("freeze", {**_named(sa), "timeout-ms": ms}))

    async def passivate(self, sa: Named) -> MoveSa:
        """Have a frozen IKE_SA stay so: from now on another node may serve it. `thaw` undoes that."""
        return decode_sa(await self._plugin.request("passivate", _named(sa)))

    async def thaw(self, sa: Named, *, ahead: int = 0) -> MoveSa:
        """Serve a frozen IKE_SA again. ``ahead``: as `activate`."""
        return decode_sa(await self._plugin.request("thaw", _named(sa) | _ahead(ahead)))

    async def activate(
        self,
        sa: Named,
        *,
        mids: tuple[int, int] | None = None,
        address: IpAddress | None = None,
        announce: bool = False,
        children: Collection[int] = (),
        peer_r: bool | None = None,
        own_r: bool | None = None,
        ahead: int = 0,
    ) -> MoveSa:
        """Serve a passive IKE_SA that another node has frozen. Return it as it is then.

        ``mids``: message IDs of the next requests, ours and the peer's; None: those that it was imported with.
        ``address``: ours, from now on; None: the one that it has. ``announce``: tell the peer our addresses, from this
        one (MOBIKE): a client without NAT follows. ``children``: the inbound SPIs that are expected. ``peer_r``,
        ``own_r``: who announced SWITCH_TO_IP_ADDRESS. ``ahead``: how much greater than expected the message ID of the
        peer's first request may be (at most `AHEAD`); an older plugin takes no notice of it, and answers with none.
        """
        args: dict[str, object] = {**_named(sa), **_ahead(ahead), "announce": announce}
        if mids is not None:
            args |= {"mid-initiator": mids[0], "mid-responder": mids[1]}
        optional = {"address": address, "peer-r": peer_r, "own-r": own_r}
        args |= {key: value for key, value in optional.items() if value is not None}
        if children:
            args["children"] = [f"{spi:08x}" for spi in children]
        return decode_sa(await self._plugin.request("activate", args))

    async def drop(self, sa: Named) -> None:
        """End a passive or frozen IKE_SA, its CHILD_SAs with it, without a word to the peer."""
        await self._plugin.request("drop", _named(sa))


def decode_sa(message: Message) -> MoveSa:
    """Given the plugin's description of an IKE_SA, return it. Raise DecodeError when there is something else."""
    children = message.get("children", {})
    if not isinstance(children, dict):
        raise DecodeError("the rmobike plugin's field children is no section")
    try:
        standing = Standing(word(message, "standing"))
    except ValueError as error:
        raise DecodeError(f"the rmobike plugin's field standing: {error}") from error
    return MoveSa(
        spis=IkeSpis(spi(message, "spi-i"), spi(message, "spi-r")),
        ike_id=number(message, "ike-id"),
        name=word(message, "name"),
        standing=standing,
        state=word(message, "state"),
        original_initiator=flag(message, "initiator"),
        mobike=flag(message, "mobike"),
        nat_local=flag(message, "nat-local"),
        nat_remote=flag(message, "nat-remote"),
        mid_initiator=number(message, "mid-initiator"),
        mid_responder=number(message, "mid-responder"),
        local=_host(message, "local"),
        remote=_host(message, "remote"),
        busy=flag(message, "busy"),
        why_busy=word(message, "why-busy", ""),
        thaws="thaws" in message and flag(message, "thaws"),
        changed="changed" in message and flag(message, "changed"),
        ahead=number(message, "ahead") if "ahead" in message else 0,
        children=tuple(_child(child) for child in children.values() if isinstance(child, dict)),
    )


def _child(message: Message) -> MoveChild:
    return MoveChild(
        word(message, "name"), word(message, "state"), spi(message, "spi-in"), spi(message, "spi-out")
    )


def _named(sa: Named) -> dict[str, object]:
    if isinstance(sa, int):
        return {"ike-id": sa}
    return {"spi-i": f"{sa.initiator:016x}", "spi-r": f"{sa.responder:016x}"}


def _ahead(most: int) -> dict[str, object]:
    return {"ahead": most} if most else {}


def _host(message: Message, key: str) -> Host:
    return Host(address(message, key), number(message, f"{key}-port"))
