"""What is known: frozen values shared by every part of mobikectl.

Nothing here does I/O or reads a clock. Times are seconds of CLOCK_MONOTONIC as floats; addresses are
``ipaddress`` objects; names are those of RFC 7296, RFC 4555, strongSwan and rtnetlink.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

ROUTE_PROTOCOL = 109
"""The rtnetlink protocol number (``rtm_protocol``) of every route that mobikectl installs: 'm' in
ASCII, free in iproute2's ``rt_protos``. It makes the routes recognisable and cleanable after a crash."""


class Family(IntEnum):
    """Address families with the kernel's numbers (AF_INET, AF_INET6)."""

    INET = 2
    INET6 = 10


def family_of(ip: IpAddress | IpNetwork) -> Family:
    """Given an address or network, return its family."""
    return Family.INET if ip.version == 4 else Family.INET6


# --- the host's network, as rtnetlink tells it -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface (RTM_NEWLINK)."""

    index: int
    name: str
    up: bool
    """IFF_UP: the administrator enabled it."""
    carrier: bool
    """IFF_LOWER_UP: the layer below says that it works."""
    kind: str = ""
    """IFLA_INFO_KIND (``veth``, ``bridge``, ``wireguard``, ...); empty for hardware and loopback."""
    mtu: int = 1500
    loopback: bool = False
    master: int | None = None

    @property
    def usable(self) -> bool:
        """Whether packets can leave through it."""
        return self.up and self.carrier


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link (RTM_NEWADDR)."""

    index: int
    """The link's index."""
    ip: IpAddress
    prefixlen: int
    scope: int = 0
    """RT_SCOPE_*: 0 universe, 253 link, 254 host."""
    tentative: bool = False
    """IPv6 duplicate address detection still runs or failed: not usable as a source."""
    deprecated: bool = False
    """Usable by what has it already, not to be chosen anew (RFC 4862)."""
    temporary: bool = False
    """A privacy address (RFC 8981)."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """One way of a route: the gateway (None when on-link) and the outgoing link's index."""

    gateway: IpAddress | None
    oif: int | None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route (RTM_NEWROUTE)."""

    dst: IpNetwork
    table: int
    nexthops: tuple[NextHop, ...]
    prefsrc: IpAddress | None = None
    priority: int = 0
    """The metric; smaller wins."""
    protocol: int = 0
    scope: int = 0
    type: int = 1
    """RTN_*: 1 unicast, 6 blackhole, 7 unreachable, ..."""
    tos: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule (RTM_NEWRULE)."""

    family: Family
    priority: int
    table: int
    action: int = 1
    src: IpNetwork | None = None
    dst: IpNetwork | None = None
    iif: str = ""
    oif: str = ""
    fwmark: int = 0
    fwmask: int = 0


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """What the kernel answers to "how would you send to ``dst``?" (RTM_GETROUTE)."""

    dst: IpAddress
    gateway: IpAddress | None
    oif: int
    prefsrc: IpAddress | None


# --- paths --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """A pair of outer addresses that an IKE_SA can use (RFC 4555 section 2: 'path')."""

    local: IpAddress
    remote: IpAddress

    def __str__(self) -> str:
        return f"{self.local} -> {self.remote}"

    @property
    def family(self) -> Family:
        """The family of both addresses."""
        return family_of(self.local)


# --- what charon has ----------------------------------------------------------------------------


class IkeState(Enum):
    """An IKE_SA's state, in charon's words."""

    CREATED = "CREATED"
    CONNECTING = "CONNECTING"
    ESTABLISHED = "ESTABLISHED"
    PASSIVE = "PASSIVE"
    REKEYING = "REKEYING"
    REKEYED = "REKEYED"
    DELETING = "DELETING"
    DESTROYING = "DESTROYING"


class ChildState(Enum):
    """A CHILD_SA's state, in charon's words."""

    CREATED = "CREATED"
    ROUTED = "ROUTED"
    INSTALLING = "INSTALLING"
    INSTALLED = "INSTALLED"
    UPDATING = "UPDATING"
    REKEYING = "REKEYING"
    REKEYED = "REKEYED"
    RETRYING = "RETRYING"
    DELETING = "DELETING"
    DELETED = "DELETED"
    DESTROYING = "DESTROYING"


@dataclass(frozen=True, slots=True)
class Counters:
    """Traffic of a CHILD_SA, in bytes and packets since it was installed."""

    bytes_in: int = 0
    packets_in: int = 0
    bytes_out: int = 0
    packets_out: int = 0
    idle_in_s: float | None = None
    """Seconds since the last inbound packet (charon's ``use-in``); None: there was none."""
    idle_out_s: float | None = None
    """Seconds since the last outbound packet (``use-out``)."""


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A CHILD_SA as charon lists it. Counters are None when it was listed without them."""

    uniqueid: int
    name: str
    state: ChildState
    reqid: int = 0
    protocol: str = "ESP"
    mode: str = "TUNNEL"
    spi_in: int = 0
    spi_out: int = 0
    encap: bool = False
    """ESP in UDP."""
    local_ts: tuple[str, ...] = ()
    remote_ts: tuple[str, ...] = ()
    counters: Counters | None = None


@dataclass(frozen=True, slots=True)
class IkeSa:
    """An IKE_SA as charon lists it.

    ``uniqueid`` is charon's ``ike-id`` and changes with a rekey; the model of `mobikectl.charon`
    follows it. ``original_initiator`` does not flip with a rekey (RFC 4555's 'initiator').
    """

    uniqueid: int
    name: str
    state: IkeState
    path: Path
    local_port: int = 500
    remote_port: int = 500
    local_id: str = ""
    remote_id: str = ""
    initiator_spi: int = 0
    responder_spi: int = 0
    original_initiator: bool = True
    nat_local: bool = False
    nat_remote: bool = False
    local_vips: tuple[IpAddress, ...] = ()
    remote_vips: tuple[IpAddress, ...] = ()
    established_s: float | None = None
    """Seconds since it was established, when charon told."""
    children: tuple[ChildSa, ...] = ()

    @property
    def behind_nat(self) -> bool:
        """Whether a NAT was detected on either side."""
        return self.nat_local or self.nat_remote


@dataclass(frozen=True, slots=True)
class NetState:
    """The host's network at one moment.

    Maps are read-only; `generation` grows with each change, so that two states can be compared
    without looking inside. Routes are not in it (a full table may be 100,000); `route_generation`
    grows whenever a route or rule changed, and who needs a route asks the kernel (RTM_GETROUTE).
    """

    links: Mapping[int, Link] = field(default_factory=lambda: MappingProxyType({}))
    addresses: frozenset[Address] = frozenset()
    rules: frozenset[Rule] = frozenset()
    generation: int = 0
    route_generation: int = 0
