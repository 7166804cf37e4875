"""charon's trees of IKE_SAs and events, parsed into `mobikectl.model` values.

The keys are those of strongSwan's `src/libcharon/plugins/vici/README.md` (list-sa, ike-updown, ...).
Unknown keys are ignored. What peers can choose (identities, traffic selectors) is made printable
and short; a value that cannot be parsed takes its default, and an SA without what the model needs
(number, state, addresses) is left out. Nothing here raises.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mobikectl.model import ChildSa, ChildState, Counters, IkeSa, IkeState, IpAddress, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.charon.transport import Message

TEXT_MAX = 256
"""Longest text in characters taken from a tree (identities, names, traffic selectors)."""

_IKE_STATES = {state.value.encode(): state for state in IkeState}
_CHILD_STATES = {state.value.encode(): state for state in ChildState}

LIVE_IKE = frozenset({IkeState.ESTABLISHED, IkeState.PASSIVE, IkeState.REKEYING})
"""States of an IKE_SA that the model holds: not those still negotiated, replaced, or being deleted."""
LIVE_CHILD = frozenset({ChildState.INSTALLED, ChildState.UPDATING, ChildState.REKEYING})
"""States of a CHILD_SA that the model holds."""


# --- what an event says ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IkeUpDown:
    """ike-updown: an IKE_SA was established, or goes away."""

    up: bool
    sa: IkeSa


@dataclass(frozen=True, slots=True)
class IkeUpdate:
    """ike-update: an IKE_SA is about to change its addresses; `sa` is still the one before."""

    sa: IkeSa
    path: Path
    local_port: int
    remote_port: int


@dataclass(frozen=True, slots=True)
class IkeRekey:
    """ike-rekey: `new` takes the place of `old`."""

    old: IkeSa
    new: IkeSa


@dataclass(frozen=True, slots=True)
class ChildUpDown:
    """child-updown: `sa.children` were installed, or go away."""

    up: bool
    sa: IkeSa


@dataclass(frozen=True, slots=True)
class ChildRekey:
    """child-rekey: of `sa`, each pair's second CHILD_SA takes the place of the first."""

    sa: IkeSa
    pairs: tuple[tuple[ChildSa, ChildSa], ...]


@dataclass(frozen=True, slots=True)
class RetransmitSeen:
    """log: a request was sent again (`count` times so far); with `given_up` it will not be any more.

    `probing`: it was a path probe of MOBIKE (RFC 4555 section 3.10).
    """

    uniqueid: int
    count: int
    probing: bool = False
    given_up: bool = False


Observation = IkeUpDown | IkeUpdate | IkeRekey | ChildUpDown | ChildRekey | RetransmitSeen


# --- values ---------------------------------------------------------------------------------------


def text(value: object, default: str = "") -> str:
    """Given a VICI value, return it as one line of printable text of at most TEXT_MAX characters."""
    if not isinstance(value, bytes):
        return default
    return printable(value[: 4 * TEXT_MAX].decode("utf-8", "replace"))


def printable(name: str) -> str:
    """Given text, return it cut to TEXT_MAX with control and formatting characters escaped."""
    name = name[:TEXT_MAX]
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)[
        :TEXT_MAX
    ]


def number(value: object, default: int = 0, *, base: int = 10) -> int:
    """Given a VICI value, return the number that its digits spell (at most 64 bits), else `default`."""
    if not isinstance(value, bytes) or not 0 < len(value) <= 20 or not value.isalnum():
        return default
    try:
        parsed = int(value, base)
    except ValueError:
        return default
    return parsed if parsed < 2**64 else default


@lru_cache(maxsize=8192)
def _address(value: bytes) -> IpAddress | None:
    try:
        return ipaddress.ip_address(value.decode("ascii"))
    except ValueError:
        return None


def address(value: object) -> IpAddress | None:
    """Given a VICI value, return the IP address it spells, or None (`%any` is none)."""
    return _address(value) if isinstance(value, bytes) and len(value) <= 64 else None


def addresses(value: object) -> tuple[IpAddress, ...]:
    """Given a VICI list, return the IP addresses in it; what is none is left out."""
    if not isinstance(value, list):
        return ()
    return tuple(ip for ip in map(address, value) if ip is not None)


def texts(value: object) -> tuple[str, ...]:
    """Given a VICI list, return its items as printable text."""
    return tuple(text(item) for item in value) if isinstance(value, list) else ()


def _seconds(value: object) -> float | None:
    return float(number(value)) if isinstance(value, bytes) else None


def _port(value: object, default: int) -> int:
    port = number(value, default)
    return port if port <= 65535 else default


def _sections(tree: object) -> Iterator[tuple[str, Message]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield name, value


# --- SAs ------------------------------------------------------------------------------------------


def parse_child(tree: Message) -> ChildSa | None:
    """Given a CHILD_SA's section, return it, or None without a number or a known state."""
    uniqueid = number(tree.get("uniqueid"))
    state = _CHILD_STATES.get(_key(tree.get("state")))
    if uniqueid == 0 or state is None:
        return None
    counters = None
    if "bytes-in" in tree:
        counters = Counters(
            bytes_in=number(tree.get("bytes-in")),
            packets_in=number(tree.get("packets-in")),
            bytes_out=number(tree.get("bytes-out")),
            packets_out=number(tree.get("packets-out")),
            idle_in_s=_seconds(tree.get("use-in")),
            idle_out_s=_seconds(tree.get("use-out")),
        )
    return ChildSa(
        uniqueid=uniqueid,
        name=text(tree.get("name")),
        state=state,
        reqid=number(tree.get("reqid")),
        protocol=text(tree.get("protocol"), "ESP"),
        mode=text(tree.get("mode"), "TUNNEL"),
        spi_in=number(tree.get("spi-in"), base=16),
        spi_out=number(tree.get("spi-out"), base=16),
        encap=tree.get("encap") == b"yes",
        local_ts=texts(tree.get("local-ts")),
        remote_ts=texts(tree.get("remote-ts")),
        counters=counters,
    )


def parse_ike(name: str, tree: Message) -> IkeSa | None:
    """Given an IKE_SA's name and section, return it with its CHILD_SAs ordered by number.

    None when it has no number, no known state, or no addresses yet. `original_initiator` is what
    the section says (it flips with a rekey by the responder: `sa_model` corrects it).
    """
    uniqueid = number(tree.get("uniqueid"))
    state = _IKE_STATES.get(_key(tree.get("state")))
    local, remote = address(tree.get("local-host")), address(tree.get("remote-host"))
    if uniqueid == 0 or state is None or local is None or remote is None:
        return None
    children = (parse_child(section) for _, section in _sections(tree.get("child-sas")))
    return IkeSa(
        uniqueid=uniqueid,
        name=printable(name),
        state=state,
        path=Path(local, remote),
        local_port=_port(tree.get("local-port"), 500),
        remote_port=_port(tree.get("remote-port"), 500),
        local_id=text(tree.get("local-id")),
        remote_id=text(tree.get("remote-id")),
        initiator_spi=number(tree.get("initiator-spi"), base=16),
        responder_spi=number(tree.get("responder-spi"), base=16),
        original_initiator=tree.get("initiator") == b"yes",
        nat_local=tree.get("nat-local") == b"yes",
        nat_remote=tree.get("nat-remote") == b"yes",
        local_vips=addresses(tree.get("local-vips")),
        remote_vips=addresses(tree.get("remote-vips")),
        established_s=_seconds(tree.get("established")),
        children=tuple(sorted((c for c in children if c), key=_uniqueid)) if "child-sas" in tree else (),
    )


def parse_list_sa(message: Message) -> list[IkeSa]:
    """Given a list-sa event, return its IKE_SAs (charon sends one in each)."""
    return [sa for name, tree in _sections(message) if (sa := parse_ike(name, tree))]


def _uniqueid(child: ChildSa) -> int:
    return child.uniqueid


def _key(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


# --- events ---------------------------------------------------------------------------------------

EVENTS = ("ike-updown", "ike-rekey", "child-updown", "child-rekey")
"""The events that the model needs."""
OPTIONAL_EVENTS = ("ike-update",)
"""Events that not every version has; without ike-update only a listing finds a change of addresses."""


def parse_event(name: str, message: Message) -> list[Observation]:
    """Given an event's name and message, return what it says about SAs: nothing when it is another event."""
    parser = _PARSERS.get(name)
    return parser(message) if parser else []


def _ike_updown(message: Message) -> list[Observation]:
    up = message.get("up") == b"yes"
    return [IkeUpDown(up, sa) for sa in parse_list_sa(message)]


def _ike_update(message: Message) -> list[Observation]:
    local, remote = address(message.get("local-host")), address(message.get("remote-host"))
    if local is None or remote is None:
        return []
    return [
        IkeUpdate(
            sa,
            Path(local, remote),
            _port(message.get("local-port"), sa.local_port),
            _port(message.get("remote-port"), sa.remote_port),
        )
        for sa in parse_list_sa(message)
    ]


def _ike_rekey(message: Message) -> list[Observation]:
    found: list[Observation] = []
    for name, tree in _sections(message):
        old, new = (
            parse_ike(name, section) if isinstance(section := tree.get(which), dict) else None
            for which in ("old", "new")
        )
        if old and new:
            found.append(IkeRekey(old, new))
    return found


def _child_updown(message: Message) -> list[Observation]:
    up = message.get("up") == b"yes"
    return [ChildUpDown(up, sa) for sa in parse_list_sa(message)]


def _child_rekey(message: Message) -> list[Observation]:
    found: list[Observation] = []
    for name, tree in _sections(message):
        sa = parse_ike(name, {key: value for key, value in tree.items() if key != "child-sas"})
        if sa is None:
            continue
        pairs = [
            (parse_child(old), parse_child(new))
            for _, section in _sections(tree.get("child-sas"))
            if isinstance(old := section.get("old"), dict) and isinstance(new := section.get("new"), dict)
        ]
        found.append(ChildRekey(sa, tuple((old, new) for old, new in pairs if old and new)))
    return found


_RETRANSMIT = re.compile(rb"retransmit (\d{1,3}) of request with message ID \d{1,10}")
_PROBE = re.compile(rb"path probing attempt (\d{1,3})")
_GIVEN_UP = re.compile(rb"giving up after (\d{1,3}) (?:retransmits|path probings)")
_LOG_WORDS = (b"retransmit", b"path prob")


def log_matters(payload: bytes) -> bool:
    """Given an undecoded log event, return whether `parse_event` may find something in it (cheap)."""
    return any(word in payload for word in _LOG_WORDS)


def _log(message: Message) -> list[Observation]:
    line, uniqueid = message.get("msg"), number(message.get("ikesa-uniqueid"))
    if message.get("group") != b"IKE" or not isinstance(line, bytes) or uniqueid == 0:
        return []
    if match := _RETRANSMIT.fullmatch(line):
        return [RetransmitSeen(uniqueid, int(match[1]))]
    if match := _PROBE.fullmatch(line):
        return [RetransmitSeen(uniqueid, int(match[1]), probing=True)]
    if match := _GIVEN_UP.fullmatch(line):
        return [RetransmitSeen(uniqueid, int(match[1]), probing=b"probings" in line, given_up=True)]
    return []


_PARSERS: dict[str, Any] = {
    "ike-updown": _ike_updown,
    "ike-update": _ike_update,
    "ike-rekey": _ike_rekey,
    "child-updown": _child_updown,
    "child-rekey": _child_rekey,
    "log": _log,
}
