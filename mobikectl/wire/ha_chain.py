"""A chain: the HA messages that make one IKE_SA with its CHILD_SAs appear in another charon.

A CHILD_SA's keys come from the IKE_SA under which it was made, so that a chain holds every generation of
the IKE_SA that a living CHILD_SA needs: each is an IKE_ADD, an IKE_UPDATE and CHILD_ADDs; the next one's
IKE_ADD names it (IKE_REKEY_ID) and charon hands its CHILD_SAs on. Message IDs of the last one end the chain.

As octets: the magic ``mHA1``, then each message with its length in two octets. The octets are key material.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from mobikectl.wire.ha import HaAttribute, HaMessage, HaType, Host, Identity, IkeId, Selector
from mobikectl.wire.reader import Reader, impossible, malformed
from mobikectl.wire.secret import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from mobikectl.model import IpAddress

MAGIC: Final = b"mHA1"
MAX_CHAIN: Final = 1 << 20
"""Octets of a chain: an IKE_SA with 1,000 CHILD_SAs has less."""
_ALLOWED: Final = frozenset(
    {
        HaType.IKE_ADD,
        HaType.IKE_UPDATE,
        HaType.CHILD_ADD,
        HaType.IKE_MID_INITIATOR,
        HaType.IKE_MID_RESPONDER,
    }
)


class IkeSpis(NamedTuple):
    """What names an IKE_SA on every node: its initiator's and its responder's SPI."""

    initiator: int
    responder: int

    def __str__(self) -> str:
        return f"{self.initiator:016x}_i {self.responder:016x}_r"

    @classmethod
    def of(cls, ike_id: IkeId) -> Self:
        """Given charon's id of an IKE_SA, return its SPIs."""
        return cls(ike_id.initiator_spi, ike_id.responder_spi)

    @property
    def hex(self) -> str:
        """Both SPIs as 32 hexadecimal digits: so notes and the journal name an IKE_SA."""
        return f"{self.initiator:016x}{self.responder:016x}"

    @classmethod
    def from_hex(cls, digits: str) -> Self:
        """Given what `hex` returned, return the SPIs. Raise ValueError: it is none such."""
        octets = bytes.fromhex(digits)
        if len(octets) != 16:
            raise ValueError(f"{len(octets)} octets are not two SPIs")
        return cls(int.from_bytes(octets[:8], "big"), int.from_bytes(octets[8:], "big"))


class Flow(NamedTuple):
    """What a CHILD_SA carries: of one node's SAs for a flow the kernel sends by the one that was installed last."""

    peer: Identity
    local: Selector
    remote: Selector


def flows_of(update: HaMessage | None, child: HaMessage) -> frozenset[Flow]:
    """Given the IKE_UPDATE of an IKE_SA (None: not told yet) and a CHILD_ADD of it, return what that carries.

    Nothing where the peer is not told.
    """
    if update is None:
        return frozenset()
    peer = update.get(HaAttribute.REMOTE_EAP_ID, Identity) or update.get(HaAttribute.REMOTE_ID, Identity)
    if peer is None:
        return frozenset()
    return frozenset(
        Flow(peer, local, remote)
        for local in child.all(HaAttribute.LOCAL_TS, Selector)
        for remote in child.all(HaAttribute.REMOTE_TS, Selector)
    )


MIDS: Final = (HaType.IKE_MID_INITIATOR, HaType.IKE_MID_RESPONDER)
"""What tells the message IDs of the next requests, ours and the peer's."""


def mid_messages(ike_id: IkeId, ours: int | None, theirs: int | None) -> tuple[HaMessage, ...]:
    """Given an IKE_SA and message IDs of its next requests, ours and the peer's, return the messages that tell them.

    None: of that nothing is told.
    """
    return tuple(
        HaMessage.of(kind, (HaAttribute.IKE_ID, ike_id), (HaAttribute.MID, mid))
        for kind, mid in zip(MIDS, (ours, theirs), strict=True)
        if mid is not None
    )


def mids_of(told: Mapping[HaType, HaMessage]) -> tuple[int | None, int | None]:
    """Given messages by their types, return the message IDs that they tell, ours and the peer's; None: none does."""
    ours, theirs = (told[kind].need(HaAttribute.MID, int) if kind in told else None for kind in MIDS)
    return ours, theirs


@dataclass(frozen=True, slots=True)
class HaChain:
    """The messages of one IKE_SA in the order in which a charon must get them."""

    messages: tuple[HaMessage, ...]

    def __post_init__(self) -> None:
        known: list[IkeSpis] = []
        for message in self.messages:
            ike_id = message.ike_id
            if message.kind not in _ALLOWED or ike_id is None:
                raise impossible("a message of a chain", message.kind.name)
            spis = IkeSpis.of(ike_id)
            if message.kind is HaType.IKE_ADD:
                old = message.get(HaAttribute.IKE_REKEY_ID, IkeId)
                if spis in known or (known and (old is None or IkeSpis.of(old) != known[-1])):
                    raise impossible(f"the IKE_SA that follows {known[-1]}", str(spis))
                known.append(spis)
            elif not known or spis != known[-1]:
                raise impossible("a message about the IKE_SA added last", f"{message.kind.name} of {spis}")
        if not known:
            raise impossible("a chain with an IKE_ADD", "none")

    @property
    def ike_id(self) -> IkeId:
        """The IKE_SA that it makes (the last generation)."""
        return next(found for found in reversed(self._ids()) if found is not None)

    def _ids(self) -> list[IkeId | None]:
        return [each.ike_id for each in self.messages if each.kind is HaType.IKE_ADD]

    @property
    def spis(self) -> IkeSpis:
        """The SPIs of that IKE_SA."""
        return IkeSpis.of(self.ike_id)

    @property
    def generations(self) -> tuple[IkeSpis, ...]:
        """The SPIs of every generation, the oldest first."""
        return tuple(IkeSpis.of(found) for found in self._ids() if found is not None)

    @property
    def children(self) -> frozenset[int]:
        """The inbound SPIs of its CHILD_SAs, as the node has them that it comes from."""
        return frozenset(
            message.need(HaAttribute.INBOUND_SPI, int)
            for message in self.messages
            if message.kind is HaType.CHILD_ADD
        )

    @property
    def flows(self) -> frozenset[Flow]:
        """What its CHILD_SAs carry."""
        found: set[Flow] = set()
        update = None
        for message in self.messages:
            if message.kind is HaType.IKE_UPDATE:
                update = message
            elif message.kind is HaType.CHILD_ADD:
                found |= flows_of(update, message)
        return frozenset(found)

    @property
    def connections(self) -> frozenset[str]:
        """The names of the connections that the other charon must have."""
        found = (each.get(HaAttribute.CONFIG_NAME, str) for each in self.updates())
        return frozenset(name for name in found if name is not None)

    def updates(self) -> Iterator[HaMessage]:
        """Yield its IKE_UPDATEs."""
        return (each for each in self.messages if each.kind is HaType.IKE_UPDATE)

    @property
    def remote_vips(self) -> tuple[Host, ...]:
        """The virtual addresses of the peer."""
        last = [each.all(HaAttribute.REMOTE_VIP, Host) for each in self.updates()]
        return last[-1] if last else ()

    def with_remote_vips(self, vips: Collection[IpAddress]) -> Self:
        """Given the peer's virtual addresses, return the chain with them, unless it has any.

        charon tells them once, after IKE_AUTH: of an IKE_SA that was rekeyed since, a RESYNC does not tell them.
        """
        if not vips or self.remote_vips:
            return self
        items = [(HaAttribute.REMOTE_VIP, Host(vip)) for vip in vips]
        return self.with_updates(lambda update: update.having(items))

    def with_updates(self, change: Callable[[HaMessage], HaMessage]) -> Self:
        """Given what to make of an IKE_UPDATE, return the chain with each of them changed so."""
        return type(self)(
            tuple(change(each) if each.kind is HaType.IKE_UPDATE else each for each in self.messages)
        )

    def at(self, local: Host, remote: Host) -> Self:
        """Given outer addresses, return the chain with these: MOBIKE changes them without an HA message."""
        items = ((HaAttribute.LOCAL_ADDR, local), (HaAttribute.REMOTE_ADDR, remote))
        return self.with_updates(lambda update: update.having(items))

    def counting(self, ours: int | None, theirs: int | None) -> Self:
        """Given the message IDs of the next requests, ours and the peer's (None: as it says), return the chain so."""
        said = mid_messages(self.ike_id, ours, theirs)
        kinds = {each.kind for each in said}
        return type(self)((*(each for each in self.messages if each.kind not in kinds), *said))

    @property
    def counts(self) -> tuple[int | None, int | None]:
        """The message IDs of the next requests, ours and the peer's; None: it does not say."""
        return mids_of({each.kind: each for each in self.messages if each.kind in MIDS})

    def to_secret(self) -> SecretBytes:
        """Return the octets. Raise DecodeError when there are more than `MAX_CHAIN`."""
        parts = [MAGIC]
        for message in self.messages:
            octets = message.to_bytes()
            parts += [len(octets).to_bytes(2, "big"), octets]
        whole = b"".join(parts)
        if len(whole) > MAX_CHAIN:
            raise impossible(f"a chain of at most {MAX_CHAIN} octets", str(len(whole)))
        return SecretBytes(whole)

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given what `to_secret` returned, return the chain. Raise DecodeError for anything else."""
        octets = secret.reveal()
        if len(octets) > MAX_CHAIN:
            raise malformed(MAX_CHAIN, f"at most {MAX_CHAIN} octets", str(len(octets)))
        reader = Reader(octets)
        if reader.take(len(MAGIC), "magic") != MAGIC:
            raise malformed(0, "a chain of HA messages", "something else")
        messages = []
        while reader.left:
            messages.append(HaMessage.from_bytes(reader.take(reader.number(2, "length"), "HA message")))
        return cls(tuple(messages))
