"""Which mechanism moves an IKE_SA: the best one that its peer was seen to support, or the one asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.errors import INSTALL_PLUGIN, MoveError
from mobikectl.switch.moves import Mechanism

if TYPE_CHECKING:
    from mobikectl.charon.rmobike_link import Peer
    from mobikectl.model import IkeSa


def choose(sa: IkeSa, peer: Peer | None, wanted: Mechanism | None, *, nat_known: bool = True) -> Mechanism:
    """Given an IKE_SA, what its peer supports (None: no plugin tells) and what is asked for, return the mechanism.

    ``wanted`` None is the best: as initiator an update through the plugin, else by a steering route; as responder
    SWITCH_TO_IP_ADDRESS for peers that announced it, else an address list from the new address, which a NAT would
    drop. A redirect costs the peer a new IKE_SA, and is used only when asked for. Without ``nat_known`` a NAT that was
    detected may be one that the peer only pretends, as every charon with ESP in userland does.

    Raise MoveError: it cannot be moved that way, or in no way at all.
    """
    if wanted is Mechanism.REDIRECT:
        return _redirect(sa, peer)
    if wanted is Mechanism.RECONNECT:
        return wanted
    if peer is not None and not peer.mobike:
        raise MoveError(
            f"IKE_SA {sa.uniqueid}: its peer does not support MOBIKE",
            hint="enable it on both sides, or use --mechanism redirect",
        )
    if wanted is not None:
        return _asked_for(sa, peer, wanted)
    if sa.original_initiator:
        return Mechanism.ROUTE if peer is None else Mechanism.UPDATE
    if peer is not None and peer.r:
        return Mechanism.NOTIFY
    if sa.nat_remote and nat_known:
        raise MoveError(
            f"IKE_SA {sa.uniqueid}: its peer is behind a NAT, which would drop what comes from another address",
            hint="with the rmobike plugin on both sides it can be asked to switch; --mechanism implicit tries anyway",
        )
    return Mechanism.ROUTE


def _asked_for(sa: IkeSa, peer: Peer | None, wanted: Mechanism) -> Mechanism:
    if wanted is Mechanism.ROUTE:
        return wanted
    if peer is None:
        raise MoveError(f"IKE_SA {sa.uniqueid}: {wanted.value} needs the rmobike plugin", hint=INSTALL_PLUGIN)
    if wanted is Mechanism.NOTIFY:
        if sa.original_initiator:
            raise MoveError(
                f"IKE_SA {sa.uniqueid} was initiated here: only its responder may ask for a switch",
                hint="leave out --mechanism: an initiator moves its IKE_SA itself",
            )
        if not peer.r:
            raise MoveError(
                f"IKE_SA {sa.uniqueid}: its peer did not announce that it can be asked to switch",
                hint="a client needs the rmobike plugin; --mechanism implicit works for any client without a NAT",
            )
    elif not sa.original_initiator:
        raise MoveError(f"IKE_SA {sa.uniqueid}: only its initiator updates addresses", hint="use notify")
    return wanted


def _redirect(sa: IkeSa, peer: Peer | None) -> Mechanism:
    if sa.original_initiator:
        raise MoveError(
            f"IKE_SA {sa.uniqueid} was initiated here: only a gateway redirects its clients",
            hint="initiate a new IKE_SA to the other gateway",
        )
    if peer is not None and peer.redirect is False:
        raise MoveError(
            f"IKE_SA {sa.uniqueid}: its peer did not announce that it follows redirects (RFC 5685 section 3)",
            hint="set charon.follow_redirects = yes there, or use another mechanism",
        )
    return Mechanism.REDIRECT
