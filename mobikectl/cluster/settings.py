"""Which store a cluster uses and how long its nodes are waited for.

Apart from the backends, so that who uses one of them does not import the other's client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from mobikectl.cluster.backend import Backend
    from mobikectl.cluster.store import Store
    from mobikectl.cluster.timed import Timing


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """Where the file is and how it is used."""

    path: Path = Path("/var/lib/mobikectl/cluster.db")
    """The file: the same for all nodes of the machine, on a local disk."""
    timeout_s: float = 3.0
    """Every call ends within this time."""
    poll_min_s: float = 0.02
    """How soon a watch looks again right after a change."""
    poll_max_s: float = 0.25
    """How often a watch looks for changes: often right after one, seldom when nothing happens."""
    history: int = 10_000
    """Changes kept for watches that fell behind."""

    def __post_init__(self) -> None:
        if not (
            0 < self.timeout_s <= 60 and 0 < self.poll_min_s <= self.poll_max_s <= 10 and self.history > 0
        ):
            raise ConfigError(
                "the sqlite store's times or history are out of range",
                hint="timeout_s up to 60, poll_min_s <= poll_max_s up to 10, history above 0",
            )


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where etcd is and who we are to it."""

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    """host:port of each member."""
    timeout_s: float = 3.0
    """Every call ends within this time, whatever number of endpoints was tried."""
    tls: bool = False
    """Needed for a password, unless etcd is on this machine."""
    ca: Path | None = None
    """Certificates (PEM) that sign etcd's; None: the system's."""
    certificate: Path | None = None
    """Our own certificate (PEM), where etcd asks for one."""
    key: Path | None = None
    """The certificate's key (PEM)."""
    user: str = ""
    """Whom etcd knows us as; empty: etcd asks for no password."""
    password_file: Path | None = None
    """A file whose first line is the password."""

    def __post_init__(self) -> None:
        if not self.endpoints or not 0 < self.timeout_s <= 60:
            raise ConfigError("etcd: an endpoint and a timeout_s up to 60 are needed", hint="127.0.0.1:2379")
        for endpoint in self.endpoints:
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
                raise ConfigError(
                    f"etcd: {endpoint!r} is not host:port", hint="without https://; set tls = true for TLS"
                )
        if not self.tls and (self.ca or self.certificate or self.key):
            raise ConfigError("etcd: certificates are named but TLS is off", hint="set tls = true")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(
                "etcd: a certificate needs its key, and a key its certificate", hint="name both"
            )
        if bool(self.user) != (self.password_file is not None):
            raise ConfigError("etcd: a user needs a password_file, and that a user", hint="set both")
        if self.user and not self.tls and not all(_is_loopback(endpoint) for endpoint in self.endpoints):
            raise ConfigError(
                "etcd: the password would cross the network in the clear", hint="set tls = true"
            )


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """How long a node or a leader is taken to be there without a sign of life."""

    ttl_s: int = 10
    """A dead one is replaced after this time; an etcd that is away for less goes unnoticed."""

    def __post_init__(self) -> None:
        if not 2 <= self.ttl_s <= 300:
            raise ConfigError(f"ttl_s {self.ttl_s} must be in 2..300", hint="10 s suits most clusters")


class StoreKind(Enum):
    """Where the cluster's state is kept."""

    SQLITE = "sqlite"
    """A file: all nodes on one machine."""
    ETCD = "etcd"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store of a cluster."""

    kind: StoreKind = StoreKind.SQLITE
    cluster: str = "default"
    """The cluster's name: several can share one store."""
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    lease: LeaseSettings = field(default_factory=LeaseSettings)


def open_store(settings: StoreSettings, timing: Timing | None = None) -> Store:
    """Given the settings, return the store; close it. To be called inside a running loop.

    ``timing`` is told how long each call took. Nothing is connected yet. Raise ConfigError: a certificate or password
    file cannot be read; StoreValueError: the cluster's name cannot be used.
    """
    from mobikectl.cluster.store import Store
    from mobikectl.cluster.timed import TimedBackend

    backend = _open_backend(settings)
    return Store(backend if timing is None else TimedBackend(backend, timing), settings.cluster)


def _open_backend(settings: StoreSettings) -> Backend:
    if settings.kind is StoreKind.SQLITE:
        from mobikectl.cluster.sqlite import SqliteBackend

        return SqliteBackend(settings.sqlite)
    from mobikectl.cluster.etcd import EtcdBackend

    return EtcdBackend(settings.etcd)
