"""What a node does with the requests of another one that hands IKE_SAs over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobikectl.node.carriage import _verbs
from mobikectl.transfer import Request
from mobikectl.wire.ha import HaAttribute as A
from mobikectl.wire.ha import HaMessage, HaType, IkeId, SecretBytes
from mobikectl.wire.ha_chain import HaChain, IkeSpis
from mobikectl.wire.handover import OFFER, Offer, Standing, Stands
from mobikectl.wire.transfer import Greeting

from .two_gateways import CLIENT, HERE, SPIS, THERE, chain

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = IkeSpis(5, 6)


class Copies:
    def __init__(self) -> None:
        self.given_up: list[IkeSpis] = []

    async def give_up(self, spis: IkeSpis) -> None:
        self.given_up.append(spis)


class Intake:
    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    async def offer(self, _: Offer, source: str) -> Standing:
        assert source == "gw1"
        self._look()
        return Standing(Stands.PASSIVE)


def rekeyed_once() -> HaChain:
    """Return the chain of an IKE_SA whose CHILD_SA was made before it was rekeyed."""
    old, secret = IkeId(*OLD, initiator=False), SecretBytes(b"s" * 32)
    before = [
        message.having([(A.IKE_ID, old)])
        for message in chain().messages
        if message.kind in {HaType.IKE_ADD, HaType.IKE_UPDATE, HaType.CHILD_ADD}
    ]
    new = IkeId(*SPIS, initiator=False)
    add = HaMessage.of(
        HaType.IKE_ADD, (A.IKE_ID, new), (A.IKE_REKEY_ID, old), (A.NONCE_I, secret), (A.NONCE_R, secret),
        (A.SECRET, secret),
    )  # fmt: skip
    update = HaMessage.of(HaType.IKE_UPDATE, (A.IKE_ID, new), (A.CONFIG_NAME, "vpn"))
    return HaChain((*before, add, update))


async def test_copies_of_earlier_generations_of_an_ike_sa_make_room_for_its_offer() -> None:
    """They have the same CHILD_SAs, which the kernel takes once."""
    copies, arriving, seen = Copies(), set[IkeSpis](), []
    intake: Any = Intake(lambda: seen.extend([list(copies.given_up), set(arriving)]))
    offer = Offer(3, "gw1/client#1", rekeyed_once(), THERE.address, HERE, CLIENT, True, False, ((100, 101),))
    request = Request(Greeting("lab", "gw1", "one"), OFFER, 5, offer.to_secret())
    await _verbs(intake, copies, arriving)[OFFER].handle(request)  # type: ignore[arg-type]
    given_up, coming = seen
    assert set(given_up) == {OLD}  # the copy of what it is now stays one
    assert coming == {OLD, SPIS}
    assert arriving == set()
