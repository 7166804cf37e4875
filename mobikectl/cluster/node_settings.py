"""What a node says of itself and does in its cluster: the table ``[cluster]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from math import inf, isfinite
from pathlib import Path

from mobikectl.cluster.codec import check_name
from mobikectl.cluster.leases import MAX_BLOCK, PoolNetwork
from mobikectl.cluster.records import Member
from mobikectl.cluster.settings import StoreSettings
from mobikectl.errors import ConfigError, StoreValueError
from mobikectl.model import ROUTE_PROTOCOL, IpAddress
from mobikectl.policy.cluster import Capacity, ServingAddress
from mobikectl.policy.cluster_settings import BalanceSettings

MAX_ADDRESSES = 64
"""Serving addresses of one node."""


class Balance(Enum):
    """Who lets the decider's plans be carried out."""

    AUTO = "auto"
    """Nobody needs to: every plan is carried out."""
    MANUAL = "manual"
    """An operator, by `mobikectl apply`. Drains, impaired nodes and dead uplinks need none."""


class Placement(Enum):
    """How new clients are sent to the node that they should be at (RFC 5685)."""

    OFF = "off"
    INIT = "init"
    """REDIRECT in the answer to IKE_SA_INIT: cheapest, but an attacker's packets can ask for it, too."""
    AUTH = "auth"
    """REDIRECT in the answer to IKE_AUTH: the client has been authenticated. **Not with stock strongSwan 5.9.8 as
    clients**: their charon frees memory twice at such a redirect and aborts, with all its tunnels. Clients with the
    rmobike plugin, or with ``charon.follow_redirects = no``, are safe."""
    ANYCAST = "anycast"
    """In IKE_SA_INIT, of every client: all nodes are behind one address, and each sends to a unicast one."""


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """One unicast address of this node that clients can be served at."""

    ip: IpAddress
    """The address. Clients must be able to reach it."""
    dev: str = ""
    """Its interface: the uplink is down when that is. Empty: it is down when no interface has the address."""
    bytes_per_s: float = inf
    """The uplink's capacity; infinite when it never is the bottleneck."""

    def __post_init__(self) -> None:
        if not self.bytes_per_s > 0:
            raise ConfigError(f"bytes_per_s: expected a number above 0, got {self.bytes_per_s!r}")


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """Where IKE_SAs are taken over from other nodes, and by what the nodes know each other (TLS 1.3, both sides)."""

    address: IpAddress
    """Where to listen, and what the other nodes connect to. Best on a network of the cluster's own."""
    port: int = 4518
    """TCP."""
    certificate: Path = Path("/etc/mobikectl/tls/node.pem")
    """Of this node (PEM), its name as DNS name in the subjectAltName; intermediate ones behind it."""
    key: Path = Path("/etc/mobikectl/tls/node.key")
    """Of the certificate (PEM). Only its owner may read it."""
    ca: Path = Path("/etc/mobikectl/tls/ca.pem")
    """What signs the nodes' certificates (PEM). Whatever it signs is believed, so it should sign nothing else."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise ConfigError(f"port: expected 1 to 65535, got {self.port!r}")
        if self.address.is_unspecified or self.address.is_multicast:
            raise ConfigError(f"address: expected one that other nodes can reach, got {self.address}")

    @property
    def endpoint(self) -> str:
        """host:port, as the other nodes are told."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool of virtual IPs that the nodes share."""

    name: str
    """What connections name in `pools`. charon itself has no pool of that name."""
    network: str
    """Where the addresses are: the same at all nodes. The first one, and the last of IPv4, are never given out."""
    block: int = 32
    """Addresses that a node leases at a time."""
    stock: int = 16
    """Free addresses that charon has in hand, for peers that come while the store or this program is away."""

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
        except StoreValueError as error:
            raise ConfigError(f"name: {error.message}", hint=error.hint) from error
        try:
            ip_network(self.network)
        except ValueError as error:
            raise ConfigError(f"network: {error}", hint='like "198.19.0.0/22"') from error
        if not 1 <= self.block <= MAX_BLOCK:
            raise ConfigError(f"block: expected 1 to {MAX_BLOCK} addresses, got {self.block!r}")
        if not 1 <= self.stock <= 4096:
            raise ConfigError(f"stock: expected 1 to 4096 addresses, got {self.stock!r}")

    @property
    def pool(self) -> PoolNetwork:
        """The pool as the store knows it."""
        return PoolNetwork(self.name, str(ip_network(self.network)), self.block)


@dataclass(frozen=True, slots=True)
class InsideRoutesSettings:
    """Host routes to the virtual IPs of the IKE_SAs that this node serves, for a routing daemon to export."""

    dev: str
    """The interface of the routes: `ipsec0` where charon's kernel-libipsec does ESP, else the uplink's."""
    via: IpAddress | None = None
    """The next hop there; None: on-link."""
    table: int = 254
    """The routing table: 254 is `main`."""
    protocol: int = 110
    """The number that marks the routes (`rtm_protocol`), by which a routing daemon picks them."""
    priority: int = 50
    """The metric."""

    def __post_init__(self) -> None:
        if not 0 < len(self.dev) < 16:
            raise ConfigError(f"dev: expected the name of an interface, got {self.dev!r}")
        if not 0 < self.table < 1 << 32:
            raise ConfigError(f"table: expected a number above 0, got {self.table!r}")
        if not 4 < self.protocol < 256 or self.protocol == ROUTE_PROTOCOL:
            raise ConfigError(
                f"protocol: expected 5 to 255 and not {ROUTE_PROTOCOL}, got {self.protocol!r}",
                hint="one that nobody else uses: see /etc/iproute2/rt_protos",
            )
        if not 0 < self.priority < 1 << 32:
            raise ConfigError(f"priority: expected a metric above 0, got {self.priority!r}")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """This node's part in a cluster of gateways."""

    node: str
    """Its name, of its own in the cluster."""
    addresses: tuple[AddressSettings, ...]
    weight: float = 1.0
    """Its share of the load relative to its capacity."""
    overload_limit: float = 0.9
    """The utilisation that must not be exceeded."""
    site: str = ""
    """Where it is: IKE_SAs of a site are kept in it where there is room."""
    pools: frozenset[str] | None = None
    """Names of the virtual IP pools routed to it; None: all."""
    address_pools: tuple[PoolSettings, ...] = ()
    """Virtual IPs that the nodes lease of the store."""
    inside_routes: InsideRoutesSettings | None = None
    """None: no route is touched."""
    capacity: Capacity = field(default_factory=Capacity)
    maintenance_file: Path = Path("/run/mobikectl/maintenance")
    """While it exists the node is to be emptied."""
    report_s: float = 1.0
    """How often the load is reported."""
    half_life_s: float = 5.0
    """How fast the past of a rate fades in the reports."""
    cpu: bool = True
    """Whether the processors' load counts. Not where several nodes share them."""
    probe: IpAddress | None = None
    """An address behind this gateway that answers ICMP echo; when it does not, the node is impaired."""
    assume_mobike: bool = True
    """Whether a peer is taken to support MOBIKE that nobody saw to (only the rmobike plugin sees it)."""
    assume_redirect: bool = True
    """The same for redirects (RFC 5685)."""
    balance: Balance = Balance.AUTO
    placement: Placement = Placement.OFF
    transfer: TransferSettings | None = None
    """None: no IKE_SA is carried over to or from this node; other mechanisms move its clients."""
    standbys: int = 1
    """How many other nodes have a copy of each IKE_SA, to serve it when this one dies; 0: none. Needs `transfer`."""
    store: StoreSettings = field(default_factory=StoreSettings)
    policy: BalanceSettings = field(default_factory=BalanceSettings)

    def __post_init__(self) -> None:
        try:
            check_name(self.node)
        except StoreValueError as error:
            raise ConfigError(f"node: {error.message}", hint=error.hint) from error
        ips = [address.ip for address in self.addresses]
        if not 0 < len(ips) <= MAX_ADDRESSES or len(set(ips)) != len(ips):
            raise ConfigError(f"addresses: expected 1 to {MAX_ADDRESSES} different ones, got {len(ips)}")
        if not (self.weight > 0 and isfinite(self.weight)):
            raise ConfigError(
                f"weight: expected a number above 0, got {self.weight!r}; to empty it, drain it"
            )
        if not 0 < self.overload_limit <= 1:
            raise ConfigError(f"overload_limit: expected a share in (0, 1], got {self.overload_limit!r}")
        if not 0 <= self.standbys <= 4:
            raise ConfigError(f"standbys: expected 0 to 4, got {self.standbys!r}")
        if not 0.1 <= self.report_s <= 60 or not 0.1 <= self.half_life_s <= 600:
            raise ConfigError("report_s is 0.1 to 60 seconds, and half_life_s 0.1 to 600")
        names = [pool.name for pool in self.address_pools]
        if len(set(names)) != len(names):
            raise ConfigError(f"address_pools: expected pools of different names, got {', '.join(names)}")
        if self.policy.stale_after_s < 2 * self.report_s:
            raise ConfigError("policy.stale_after_s: expected at least two times report_s")

    def member(self, instance: str, version: str, *, carries: bool = False) -> Member:
        """Given this process's mark, its version and whether IKE_SAs can be carried, return the node as a member."""
        return Member(
            name=self.node,
            instance=instance,
            addresses=tuple(
                ServingAddress(address.ip, bytes_per_s=address.bytes_per_s) for address in self.addresses
            ),
            capacity=self.capacity,
            weight=self.weight,
            overload_limit=self.overload_limit,
            carries=carries,
            site=self.site,
            pools=self.pools,
            version=version,
            transfer=self.transfer.endpoint if self.transfer is not None else "",
        )
