"""What two sidecars say to each other when an IKE_SA is handed over: the payloads of the transfer's verbs.

Each is a JSON object; an offer has the chain's octets behind it. All of them travel as `SecretBytes`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self

from mobikectl.errors import DecodeError
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import HaChain, IkeSpis
from mobikectl.wire.reader import Reader, impossible
from mobikectl.wire.secret import SecretBytes

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

OFFER, START, RECALL = "sa-offer", "sa-start", "sa-recall"
"""The verbs."""
MAX_CHILDREN: Final = 1_000
MAX_NOTE: Final = 200
_HEAD: Final = 4


class Stands(Enum):
    """What a node has of an IKE_SA (`mobikectl.protocol.handover.TargetState` has what may follow)."""

    NONE = "none"
    PASSIVE = "passive"
    STARTED = "started"
    SERVED = "served"


@dataclass(frozen=True, slots=True)
class Offer:
    """An IKE_SA to take over.

    ``name``: what the cluster calls it. ``address``: the target's, where the peer is to find it. ``local`` and
    ``remote``: the path that it uses now. ``peer_r`` and ``own_r``: who announced SWITCH_TO_IP_ADDRESS.
    ``children``: inbound and outbound SPIs at the source.
    """

    move: int
    name: str
    chain: HaChain
    address: IpAddress
    local: Host
    remote: Host
    peer_r: bool
    own_r: bool
    children: tuple[tuple[int, int], ...]

    @property
    def spis(self) -> IkeSpis:
        """What names the IKE_SA."""
        return self.chain.spis

    @property
    def there(self) -> HaChain:
        """The chain as the target's charon is to have it: with the target's address."""
        return self.chain.at(Host(self.address, self.local.port), self.remote)

    def to_secret(self) -> SecretBytes:
        """Return the payload. Raise DecodeError when the chain is too long."""
        head = _dump(
            {
                "move": self.move,
                "name": self.name,
                "address": _host(Host(self.address)),
                "local": _host(self.local),
                "remote": _host(self.remote),
                "peer_r": self.peer_r,
                "own_r": self.own_r,
                "children": [list(child) for child in self.children],
            }
        )
        return SecretBytes(len(head).to_bytes(_HEAD, "big") + head + self.chain.to_secret().reveal())

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return the offer. Raise DecodeError, which shows nothing of it."""
        reader = Reader(secret.reveal())
        fields = _Fields(reader.take(reader.number(_HEAD, "length"), "offer"))
        offer = cls(
            fields.number("move"),
            fields.text("name"),
            HaChain.from_secret(SecretBytes(reader.rest())),
            fields.host("address").address,
            fields.host("local"),
            fields.host("remote"),
            fields.flag("peer_r"),
            fields.flag("own_r"),
            tuple((row[0], row[1]) for row in fields.rows("children", 2)),
        )
        if {spi for spi, _ in offer.children} != offer.chain.children:
            raise impossible("a chain of the CHILD_SAs that the offer names", "others")
        return offer


@dataclass(frozen=True, slots=True)
class Start:
    """Serve it from now on.

    ``mids``: the next message IDs of requests, ours and the peer's; None: those that the target knows (the source has
    lost it). ``roam``: tell the peer our address; without, it comes by itself. ``numbers``: by outbound SPI, the last
    ESP sequence number that is the source's. ``received``: by inbound SPI, the highest number received, the bits
    of those before, and how many bits count. ``rekey``: CHILD_SAs (inbound SPIs) whose numbers are unknown.
    """

    move: int
    spis: IkeSpis
    mids: tuple[int, int] | None
    roam: bool
    numbers: tuple[tuple[int, int], ...] = ()
    received: tuple[tuple[int, int, int, int], ...] = ()
    rekey: tuple[int, ...] = ()

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        return SecretBytes(
            _dump(
                {
                    **_begun(self),
                    "numbers": [list(row) for row in self.numbers],
                    "received": [list(row) for row in self.received],
                    "rekey": [[spi] for spi in self.rekey],
                }
            )
        )

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return it. Raise DecodeError."""
        fields = _Fields(secret.reveal())
        return cls(
            fields.number("move"),
            IkeSpis(*fields.numbers("spis", 2)),
            fields.pair("mids"),
            fields.flag("roam"),
            tuple((row[0], row[1]) for row in fields.rows("numbers", 2)),
            tuple((row[0], row[1], row[2], row[3]) for row in fields.rows("received", 4)),
            tuple(row[0] for row in fields.rows("rekey", 1)),
        )


@dataclass(frozen=True, slots=True)
class Recall:
    """Give it back, or say that it is served.

    ``mids`` and ``roam``: of the `Start` that may have arrived, so that a target that forgot it can tell whether the
    peer came; None: the source does not know. ``since``: the message IDs of the next requests, ours and the peer's,
    after the source served it while the target was silent; None: it did not.
    """

    move: int
    spis: IkeSpis
    mids: tuple[int, int] | None = None
    roam: bool = False
    since: tuple[int, int] | None = None

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        return SecretBytes(_dump({**_begun(self), "since": list(self.since or ())}))

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return it. Raise DecodeError."""
        fields = _Fields(secret.reveal())
        move, spis = fields.number("move"), IkeSpis(*fields.numbers("spis", 2))
        if not fields.has("mids"):
            return cls(move, spis)  # of a node that is not upgraded yet
        return cls(move, spis, fields.pair("mids"), fields.flag("roam"), fields.pair("since"))


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to all of them: what the node has of it now. ``note``: for people."""

    stands: Stands
    note: str = ""

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        return SecretBytes(_dump({"stands": self.stands.value, "note": self.note[:MAX_NOTE]}))

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return it. Raise DecodeError."""
        fields = _Fields(secret.reveal())
        try:
            stands = Stands(fields.text("stands"))
        except ValueError:
            raise impossible("none, passive, started or served", "something else") from None
        return cls(stands, fields.text("note"))


def _begun(said: Start | Recall) -> dict[str, Any]:
    """Return which IKE_SA it is about, and with what the target begins, or may have begun, to serve it."""
    return {
        "move": said.move,
        "spis": list(said.spis),
        "mids": list(said.mids or ()),
        "roam": said.roam,
    }


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _host(host: Host) -> list[str | int]:
    return [str(host.address), host.port]


class _Fields:
    """A JSON object whose values are checked when they are taken. Errors name the key, never the value."""

    def __init__(self, octets: bytes) -> None:
        try:
            value = json.loads(octets)
        except (ValueError, RecursionError):
            raise DecodeError("not JSON", expected="a JSON object") from None
        if not isinstance(value, dict):
            raise impossible("a JSON object", type(value).__name__)
        self._value: dict[str, Any] = value

    def _take(self, key: str, kind: type) -> Any:
        value = self._value.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise impossible(f"{key}: {kind.__name__}", type(value).__name__)
        return value

    def number(self, key: str) -> int:
        return _unsigned(key, self._take(key, int))

    def text(self, key: str) -> str:
        found: str = self._take(key, str)
        if len(found) > MAX_NOTE:
            raise impossible(f"{key}: at most {MAX_NOTE} characters", f"{len(found)}")
        return found

    def flag(self, key: str) -> bool:
        found: bool = self._take(key, bool)
        return found

    def numbers(self, key: str, count: int) -> list[int]:
        return _row(key, self._take(key, list), count)

    def has(self, key: str) -> bool:
        return key in self._value

    def pair(self, key: str) -> tuple[int, int] | None:
        """Return two numbers; None: the list is empty."""
        if not self._take(key, list):
            return None
        first, second = self.numbers(key, 2)
        return first, second

    def rows(self, key: str, width: int) -> list[list[int]]:
        found = self._take(key, list)
        if len(found) > MAX_CHILDREN:
            raise impossible(f"{key}: at most {MAX_CHILDREN}", f"{len(found)}")
        return [_row(key, row, width) for row in found]

    def host(self, key: str) -> Host:
        found = self._take(key, list)
        if len(found) != 2 or not isinstance(found[0], str) or not isinstance(found[1], int):
            raise impossible(f"{key}: an address and a port", "something else")
        try:
            return Host(ip_address(found[0]), int(found[1]))
        except ValueError:
            raise impossible(f"{key}: an address", "something else") from None


def _row(key: str, row: Any, width: int) -> list[int]:
    if not isinstance(row, list) or len(row) != width:
        raise impossible(f"{key}: {width} numbers", "something else")
    return [_unsigned(key, each) for each in row]


def _unsigned(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 4096:
        raise impossible(f"{key}: a number", "something else")
    return value
