"""The configuration: one TOML file into frozen, validated settings.

Every key has a default: a client works without any file. Errors name the file, the key and what was
expected there, all of them at once.
"""

from __future__ import annotations

import difflib
import functools
import operator
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import cattrs
from cattrs.gen import make_dict_structure_fn

from mobikectl.cluster.node_settings import ClusterSettings  # noqa: TC001 (cattrs reads the annotations)
from mobikectl.errors import ConfigError
from mobikectl.model import IpAddress
from mobikectl.policy.cluster import Mechanism
from mobikectl.policy.settings import PathSettings

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_FILE = Path("/etc/mobikectl/mobikectl.toml")
MAX_SIZE = 1 << 20
"""Bytes of a configuration file that are read at most."""


class Role(Enum):
    """What this charon is to its peers."""

    AUTO = "auto"
    """Initiator of the IKE_SAs that it initiated, responder of the others: decided per IKE_SA."""
    CLIENT = "client"
    GATEWAY = "gateway"
    """Never decides about paths by itself: only carries out what it is told."""


def _require(good: bool, name: str, expected: str, value: object) -> None:
    if not good:
        raise ConfigError(f"{name}: expected {expected}, got {value!r}")


@dataclass(frozen=True, slots=True)
class CharonSettings:
    """How to reach charon."""

    socket: str = "/run/charon.vici"
    """Path of charon's VICI socket."""
    plugin_socket: str = "/run/charon.rmobike"
    """Path of the rmobike plugin's socket. Nothing there: charon is taken as it comes from the distribution."""
    timeout_s: float = 5.0
    """A charon that does not answer a command for this long hangs."""
    resync_s: float = 60.0
    """How often the model of the SAs is verified by a full list."""

    def __post_init__(self) -> None:
        _require(0 < self.timeout_s <= 3600, "timeout_s", "seconds above 0 and up to an hour", self.timeout_s)
        _require(1 <= self.resync_s <= 86400, "resync_s", "seconds from 1 to a day", self.resync_s)


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The sidecar's own socket."""

    socket: str = "/run/mobikectl/control.sock"
    """Path of the control socket."""


LOOPBACK: IpAddress = ip_address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Prometheus metrics over TCP. The control socket has them in any case."""

    port: int = 0
    """Where ``/metrics`` and ``/healthz`` are served; 0: nowhere."""
    address: IpAddress = LOOPBACK
    """Whoever reaches it may read them: loopback, or an address of a management network."""

    def __post_init__(self) -> None:
        _require(0 <= self.port < 1 << 16, "port", "a TCP port, or 0 for none", self.port)


@dataclass(frozen=True, slots=True)
class WebSettings:
    """A read-only web page of what this sidecar, and its cluster, is doing."""

    port: int = 0
    """Where it is served; 0: nowhere."""
    address: IpAddress = LOOPBACK
    """Loopback, or an address of a management network: there a reader must show the token."""
    token_file: Path | None = None
    """Holds the token that a reader must show, of mode 600; needed where ``address`` is not loopback."""

    def __post_init__(self) -> None:
        _require(0 <= self.port < 1 << 16, "port", "a TCP port, or 0 for none", self.port)
        _require(
            not self.port or self.address.is_loopback or self.token_file is not None,
            "token_file",
            f"the file of a token, as whoever reaches {self.address} could read the page",
            None,
        )


@dataclass(frozen=True, slots=True)
class NetlinkSettings:
    """How links, addresses and routes are followed."""

    coalesce_s: float = 0.05
    """Changes that follow a first one within this time are delivered together; the first is never delayed."""

    def __post_init__(self) -> None:
        _require(0 <= self.coalesce_s <= 10, "coalesce_s", "seconds from 0 to 10", self.coalesce_s)


class OnExit(Enum):
    """What happens to steering routes when the sidecar stops."""

    CLEAN = "clean"
    """They are removed; charon goes back to the kernel's own choice."""
    KEEP = "keep"
    """They stay, so that nothing moves; the next start takes them over."""


@dataclass(frozen=True, slots=True)
class MoveSettings:
    """How a move is carried out and verified."""

    data_plane_s: float = 1.0
    """How long inbound packets are waited for after a move of an SA that had traffic."""
    tunnel_probe: IpAddress | None = None
    """An address behind the tunnel that answers ICMP echo: probed after each move. None: counters only."""
    on_exit: OnExit = OnExit.CLEAN
    """What happens to the steering routes when the sidecar stops."""

    def __post_init__(self) -> None:
        _require(
            0 < self.data_plane_s <= 60, "data_plane_s", "seconds above 0 and up to 60", self.data_plane_s
        )


class Dialect(Enum):
    """A draft from before RFC 4555 that a bridge speaks."""

    KIVINEN = "kivinen"
    """draft-kivinen-mobike-protocol-00: address lists, planned silences."""
    DUPONT = "dupont"
    """draft-dupont-ikev2-addrmgmt-06: peer address notifications and updates."""


@dataclass(frozen=True, slots=True)
class BridgeTable:
    """Whether and how the sidecar is the bridge of its charon; without it, `mobikectl bridge` can be."""

    enabled: bool = False
    """Be the bridge."""
    speak: tuple[Dialect, ...] = (Dialect.KIVINEN,)
    """The drafts that are spoken with peers that speak them, too."""
    most_silence_s: int = 86_400
    """The longest planned silence that is allowed, if charon's timers allow it."""
    allow_nat: bool = False
    """Speak dupont where NAT traversal is active, which its section 3.2 rules out."""

    def __post_init__(self) -> None:
        _require(bool(self.speak), "speak", "at least one of kivinen, dupont", list(self.speak))
        _require(
            0 <= self.most_silence_s < 2**32,
            "most_silence_s",
            "seconds from 0 to 2^32 - 1",
            self.most_silence_s,
        )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the sidecar writes to standard error (the journal, under systemd)."""

    level: str = "info"
    """debug, info, warning or error."""
    format: str = "text"
    """text or json."""

    def __post_init__(self) -> None:
        _require(
            self.level in {"debug", "info", "warning", "error"},
            "level",
            "debug, info, warning or error",
            self.level,
        )
        _require(self.format in {"text", "json"}, "format", "text or json", self.format)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    role: Role = Role.AUTO
    """What this charon is to its peers."""
    charon: CharonSettings = field(default_factory=CharonSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    web: WebSettings = field(default_factory=WebSettings)
    netlink: NetlinkSettings = field(default_factory=NetlinkSettings)
    paths: PathSettings = field(default_factory=PathSettings)
    move: MoveSettings = field(default_factory=MoveSettings)
    bridge: BridgeTable = field(default_factory=BridgeTable)
    log: LogSettings = field(default_factory=LogSettings)
    cluster: ClusterSettings | None = None
    """This node's part in a cluster of gateways; None: it is in none."""


def load(path: Path | None = None) -> Config:
    """Given a file, return its configuration; without one, `DEFAULT_FILE`'s, or else the defaults.

    Raise ConfigError: the file cannot be read, is not TOML, or holds keys or values that do not fit.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return Config()
        path = DEFAULT_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a readable file with --config") from error
    if len(raw) > MAX_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_SIZE} bytes", hint="that is no configuration file")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str) -> Config:
    """Given TOML text and a name for it in errors, return the configuration. Raise ConfigError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}", hint="mend the syntax there") from error
    try:
        config: Config = _converter.structure(tree, Config)
    except (cattrs.ClassValidationError, cattrs.IterableValidationError) as error:
        problems = cattrs.transform_error(error, path="", format_exception=_explain)
        lines = [f"{where}: {_tidy(problem)}" for problem in problems]
        raise ConfigError(
            "\n".join(lines), hint="`mobikectl config show` prints every key with its value"
        ) from error
    return config


def _explain(error: BaseException, kind: type | None) -> str:
    """Given an error of a key, return what was expected there."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = [f.name for f in fields(error.cl)]
        said = []
        for key in sorted(error.extra_fields):
            near = difflib.get_close_matches(key, known, n=1)
            said.append(
                f"unknown key {key!r}"
                + (f", did you mean {near[0]!r}?" if near else f", known: {', '.join(known)}")
            )
        return "; ".join(said)
    if isinstance(error, ConfigError):
        return error.message
    if isinstance(error, KeyError):
        return f"this key is missing: {error.args[0]}"
    if isinstance(error, (ValueError, TypeError)):
        return str(error)
    return f"expected {getattr(kind, '__name__', kind)}"


def _tidy(problem: str) -> str:
    text, _, path = problem.rpartition(" @ ")
    key = path.lstrip(".")
    last = key.rpartition(".")[2]
    text = text.removeprefix(f"{last}: ") if last else text
    return f"{key}: {text}" if key else text


def _strict(expected: str, *kinds: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _kind: Any) -> Any:
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            raise TypeError(f"expected {expected}, got {value!r}")
        return value

    return structure


_text = _strict("a text", str)


def _address(value: Any, _kind: Any) -> IpAddress:
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"expected an IPv4 or IPv6 address, got {value!r}") from None


def _enum(value: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if member.value == value and isinstance(value, str):
            return member
    words = ", ".join(str(member.value) for member in kind)
    raise ValueError(f"expected one of {words}, got {value!r}")


def _mechanism(value: Any, _kind: Any) -> Mechanism:
    for mechanism in Mechanism:
        if mechanism.word == value:
            return mechanism
    raise ValueError(f"expected one of {', '.join(one.word for one in Mechanism)}, got {value!r}")


def _optional(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Structure hook for X | None, where X may be a union itself (an address)."""
    inner: Any = functools.reduce(operator.or_, (arg for arg in get_args(kind) if arg is not NoneType))
    return lambda value, _kind: None if value is None else converter.structure(value, inner)


def _list(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Structure hooks for tuple[X, ...] and frozenset[X]: a TOML array, never a string's letters."""
    inner = get_args(kind)[0]
    many = converter.get_structure_hook(list[inner])  # type: ignore[valid-type]

    def structure(value: Any, _kind: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"expected an array, got {value!r}")
        return get_origin(kind)(many(value, list[inner]))  # type: ignore[valid-type]

    return structure


def _table(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Structure hooks for the settings: a TOML table with known keys only."""
    inner = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def structure(value: Any, _kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected a table, got {value!r}")
        return inner(value, kind)

    return structure


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) is tuple or get_origin(kind) is frozenset


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) is UnionType and NoneType in get_args(kind)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook_factory(_is_sequence, lambda kind: _list(converter, kind))
    converter.register_structure_hook_factory(is_dataclass, lambda kind: _table(converter, kind))
    converter.register_structure_hook_factory(_is_optional, lambda kind: _optional(converter, kind))
    converter.register_structure_hook_func(lambda kind: kind == IpAddress, _address)
    converter.register_structure_hook(bool, _strict("true or false", bool))
    converter.register_structure_hook(int, _strict("a whole number", int))
    converter.register_structure_hook(float, _strict("a number", int, float))
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Path, lambda value, _kind: Path(_text(value, str)))
    converter.register_structure_hook(Mechanism, _mechanism)
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, type) and issubclass(kind, Enum), _enum
    )
    return converter


_converter = _make_converter()
