"""The notify of responder-initiated MOBIKE (draft-smyslov-ipsecme-ikev2-r-mobike-09 section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mobikectl.wire.mobike import check_no_zone, unpack_address
from mobikectl.wire.notify import NotifyCodec, Source
from mobikectl.wire.reader import malformed

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

DOCUMENT = "draft-smyslov-ipsecme-ikev2-r-mobike-09"

SWITCH_TO_IP_ADDRESS = 41042
"""The default message type of SWITCH_TO_IP_ADDRESS: the draft leaves the number to IANA, which has given
none. 40960, the first of the private-use status types, plus 0x52 ('R', the draft's own octet)."""


@dataclass(frozen=True, slots=True)
class SwitchToIpAddress:
    """SWITCH_TO_IP_ADDRESS (section 5.2): the responder's new address, which the initiator should use."""

    address: IpAddress

    def __post_init__(self) -> None:
        check_no_zone(self.address)

    def to_data(self) -> bytes:
        """Return the address's 4 or 16 octets."""
        return self.address.packed

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 4 or 16 octets, return the notify. Raise DecodeError for any other length."""
        if len(data) not in {4, 16}:
            raise malformed(at, "an IPv4 (4 octets) or IPv6 (16 octets) address", f"{len(data)} octets")
        return cls(unpack_address(data))


CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec(
        "SWITCH_TO_IP_ADDRESS",
        SWITCH_TO_IP_ADDRESS,
        Source(DOCUMENT, "5.2"),
        "the responder asks the initiator to move the IKE_SA and its CHILD_SAs to this address",
        SwitchToIpAddress,
    ),
)
"""The draft's own row; the 'R' of MOBIKE_SUPPORTED (section 5.1) is in `mobikectl.wire.mobike`."""
