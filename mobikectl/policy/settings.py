"""What a client can set about its paths: which links it may use, how it rates and probes them.

All values are frozen and validated when made; a client works with `PathSettings()`. Durations are seconds
(``_s``), losses are fractions from 0 to 1. The probe settings offer what OpenWrt's mwan3track offers, under
the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mobikectl.errors import ConfigError
from mobikectl.model import Family, IpAddress

if TYPE_CHECKING:
    from mobikectl.model import Link


class ProbeMethod(Enum):
    """How a path is probed."""

    IKE = "ike"
    """A stateless IKE request that every IKEv2 daemon should answer (RFC 7296 section 2.5)."""
    ICMP = "icmp"
    """ICMP or ICMPv6 echo."""
    UDP = "udp"
    """A datagram: an answer or an ICMP port unreachable says that the target is there."""
    TCP = "tcp"
    """A connect: accepted or refused, both say that the target is there."""
    NONE = "none"
    """No probing: only netlink and charon tell about the path."""


class FamilyPreference(Enum):
    """Which address family paths may have, and which comes first."""

    ANY = "any"
    PREFER_IPV4 = "prefer-ipv4"
    PREFER_IPV6 = "prefer-ipv6"
    ONLY_IPV4 = "only-ipv4"
    ONLY_IPV6 = "only-ipv6"

    def allows(self, family: Family) -> bool:
        """Given a family, return whether paths of it may be used at all."""
        only = {FamilyPreference.ONLY_IPV4: Family.INET, FamilyPreference.ONLY_IPV6: Family.INET6}
        return only.get(self, family) == family

    def rank(self, family: Family) -> int:
        """Given a family, return 0 when it is preferred or nothing is, else 1."""
        preferred = {FamilyPreference.PREFER_IPV4: Family.INET, FamilyPreference.PREFER_IPV6: Family.INET6}
        return int(preferred.get(self, family) != family)


class EndOfPaths(Enum):
    """What happens to an IKE_SA when no path answers (draft-kivinen-mobike-protocol-00 section 2)."""

    KEEP = "keep"
    """Report it and go on trying; charon's own retransmits and DPD decide about the SA."""
    DELETE = "delete"
    """Terminate the SA once nothing has answered for `PathSettings.end_grace_s`."""


def _require(good: bool, setting: str, expected: str, value: object) -> None:
    if not good:
        raise ConfigError(
            f"{setting}: expected {expected}, got {value!r}", hint=f"set {setting} to {expected}"
        )


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """When a path that answers is still too bad.

    Worse than a failure limit it is bad, and it stays bad until it is within the recovery limits.
    """

    failure_latency_s: float | None = None
    """Bad above this smoothed round trip time. None: latency does not matter."""
    recovery_latency_s: float | None = None
    """Good again at or below this. None: the failure limit itself."""
    failure_loss: float | None = None
    """Bad above this share of lost packets in the window. None: loss does not matter."""
    recovery_loss: float | None = None
    """Good again at or below this. None: the failure limit itself."""

    def __post_init__(self) -> None:
        for name in ("failure_latency_s", "recovery_latency_s"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"quality.{name}", "seconds above 0", value)
        for name in ("failure_loss", "recovery_loss"):
            value = getattr(self, name)
            _require(
                value is None or 0 <= value < 1, f"quality.{name}", "a fraction from 0 to below 1", value
            )
        for recovery, failure in (
            ("recovery_latency_s", "failure_latency_s"),
            ("recovery_loss", "failure_loss"),
        ):
            low, high = getattr(self, recovery), getattr(self, failure)
            _require(
                low is None or (high is not None and low <= high),
                f"quality.{recovery}",
                f"at most quality.{failure}, which must be set too",
                low,
            )

    @property
    def active(self) -> bool:
        """Whether any limit is set."""
        return self.failure_latency_s is not None or self.failure_loss is not None


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How one path is probed. A round, which counts as one check, is ``count`` packets to each target."""

    method: ProbeMethod = ProbeMethod.IKE
    targets: tuple[IpAddress, ...] = ()
    """Whom to probe through the path's local address and link. Empty: the path's gateway address itself.
    Targets of another family than the path are left out; when none is left, the gateway is probed."""
    port: int | None = None
    """Destination port of ike, udp and tcp. None: 500 and 4500 side by side (ike), 33434 (udp), 443 (tcp)."""
    count: int = 1
    """Packets per target and round."""
    size: int = 56
    """Payload bytes of an ICMP echo."""
    timeout_s: float = 2.0
    """How long one packet's answer is waited for."""
    interval_s: float = 10.0
    """From one round to the next while the path is up or, after it was declared down, down."""
    failure_interval_s: float = 1.0
    """From one round to the next while the path is failing and not yet declared down."""
    recovery_interval_s: float = 2.0
    """From one round to the next while the path is recovering and not yet declared up."""
    keep_failure_interval: bool = False
    """Keep to ``failure_interval_s`` also after the path was declared down."""
    reliability: int = 1
    """How many targets must answer for the round to be good."""
    down: int = 3
    """Bad rounds in a row until the path is declared down."""
    up: int = 3
    """Good rounds in a row until a path that was down is declared up."""
    window: int = 10
    """How many rounds the loss is computed over."""
    latency_smoothing: float = 0.125
    """Weight of a new round trip time in the smoothed one (RFC 6298 section 2: alpha = 1/8)."""
    quality: QualityLimits = field(default_factory=QualityLimits)

    def __post_init__(self) -> None:
        for name in ("timeout_s", "interval_s", "failure_interval_s", "recovery_interval_s"):
            value = getattr(self, name)
            _require(0 < value <= 86400, f"probe.{name}", "seconds above 0 and up to a day", value)
        for name, most in (
            ("count", 100),
            ("down", 1000),
            ("up", 1000),
            ("window", 1000),
            ("reliability", 16),
        ):
            value = getattr(self, name)
            _require(1 <= value <= most, f"probe.{name}", f"a number from 1 to {most}", value)
        _require(
            self.port is None or 1 <= self.port <= 65535, "probe.port", "a port from 1 to 65535", self.port
        )
        _require(0 <= self.size <= 1400, "probe.size", "bytes from 0 to 1400", self.size)
        _require(len(self.targets) <= 16, "probe.targets", "at most 16 addresses", len(self.targets))
        _require(
            self.reliability <= max(1, len(self.targets)),
            "probe.reliability",
            "at most the number of targets",
            self.reliability,
        )
        _require(
            0 < self.latency_smoothing <= 1,
            "probe.latency_smoothing",
            "a weight above 0 and up to 1",
            self.latency_smoothing,
        )

    def targets_for(self, remote: IpAddress) -> tuple[IpAddress, ...]:
        """Given a path's gateway address, return whom to probe, of the same family; never empty."""
        return tuple(t for t in self.targets if t.version == remote.version) or (remote,)

    def needed(self, remote: IpAddress) -> int:
        """Given a path's gateway address, return how many targets must answer."""
        return min(self.reliability, len(self.targets_for(remote)))

    @property
    def round_s(self) -> float:
        """The longest that a round can take: targets are probed side by side, packets one after the other."""
        return self.count * self.timeout_s


@dataclass(frozen=True, slots=True)
class InterfaceRule:
    """What holds for the links whose name matches ``pattern`` (shell style, as fnmatch).

    Paths are compared by priority first, then metric, then cost; weight only decides between equals.
    """

    pattern: str
    """As a shell writes it: ``wwan*``, ``eth[0-3]``."""
    use: bool | None = None
    """True: use the link although it would be ignored by default. False: never use it. None: the default."""
    priority: int = 0
    """Larger is better."""
    metric: int | None = None
    """Smaller is better. None: the metric of the kernel's route out of the link."""
    cost: int = 0
    """What traffic over the link costs, in any unit: smaller is better."""
    weight: int = 1
    """The share of SAs that the link gets among equals."""
    probe: ProbeSettings | None = None
    """How paths through the link are probed. None: `PathSettings.probe`."""

    def __post_init__(self) -> None:
        _require(bool(self.pattern), "interface.pattern", "a pattern such as 'wlan*'", self.pattern)
        _require(
            self.metric is None or 0 <= self.metric < 2**32,
            "interface.metric",
            "a number from 0 to 4294967295",
            self.metric,
        )
        _require(1 <= self.weight <= 1000, "interface.weight", "a number from 1 to 1000", self.weight)
        _require(self.cost >= 0, "interface.cost", "a number from 0", self.cost)


DEFAULT_RULE = InterfaceRule("*")

# fmt: off
IGNORED_NAMES = (
    "lo", "tun*", "tap*", "ipsec*", "xfrm*", "vti*", "ip_vti*", "ip6_vti*", "wg*", "gre*", "sit*",
    "ip6tnl*", "tailscale*", "zt*", "docker*", "podman*", "br-*", "virbr*", "veth*", "vnet*",
    "cni*", "cali*", "flannel*", "lxc*", "lxdbr*", "kube*", "dummy*", "ifb*",
)
IGNORED_KINDS = frozenset((
    "tun", "bridge", "wireguard", "xfrm", "vti", "vti6", "gre", "gretap", "ip6gre", "ip6gretap",
    "erspan", "ip6erspan", "ipip", "sit", "ip6tnl", "vxlan", "geneve", "dummy", "ifb", "nlmon",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class PathSettings:
    """The settings of the client's path policy; ``PathSettings()`` holds without any configuration."""

    interfaces: tuple[InterfaceRule, ...] = ()
    """The first rule whose pattern matches a link's name holds for it."""
    ignored_names: tuple[str, ...] = IGNORED_NAMES
    """Patterns of links that carry no path of their own: tunnels, containers, virtual machines."""
    ignored_kinds: frozenset[str] = IGNORED_KINDS
    """Link kinds (IFLA_INFO_KIND) that carry no path of their own."""
    gateways: tuple[IpAddress, ...] = ()
    """Gateway addresses that any SA of this client may use, the preferred one first. What the peer itself
    announced (ADDITIONAL_IP4_ADDRESS, ...) and where the SA is now come in addition."""
    prefer_first_gateway: bool = False
    """Go back to the first of ``gateways`` that works. False: stay at the gateway address that works, which
    leaves the choice to a gateway that moves its SAs on purpose."""
    family: FamilyPreference = FamilyPreference.ANY
    """Which address family paths may have, and which comes first."""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    hold_down_s: float = 15.0
    """A better path is gone back to only after it was good for this long without a break. A path that went
    down is left at once."""
    hold_down_max_s: float = 600.0
    """A path that flaps has its hold-down doubled at each flap, up to this."""
    flap_half_life_s: float = 300.0
    """In this time the memory of flaps halves."""
    sticky: bool = True
    """Stay on a path when another is only better by its weight. False: go where the weights say."""
    verify_timeout_s: float = 5.0
    """A move that is not verified after this long has failed."""
    retry_s: float = 2.0
    """After a failure here (not on the path) or a round in which no path answered: when to try again. Doubles
    each time, up to ``retry_max_s``."""
    retry_max_s: float = 60.0
    """The longest pause between two tries."""
    end: EndOfPaths = EndOfPaths.KEEP
    end_grace_s: float = 60.0
    """With `EndOfPaths.DELETE`: how long no path must have answered before the SA is terminated."""
    max_paths: int = 32
    """At most so many candidate paths of an SA are considered: the best ranked."""

    def __post_init__(self) -> None:
        for name in ("hold_down_s", "end_grace_s"):
            value = getattr(self, name)
            _require(value >= 0, name, "seconds from 0", value)
        for name in ("flap_half_life_s", "verify_timeout_s", "retry_s"):
            value = getattr(self, name)
            _require(value > 0, name, "seconds above 0", value)
        _require(
            self.hold_down_max_s >= self.hold_down_s,
            "hold_down_max_s",
            "at least hold_down_s",
            self.hold_down_max_s,
        )
        _require(self.retry_max_s >= self.retry_s, "retry_max_s", "at least retry_s", self.retry_max_s)
        _require(1 <= self.max_paths <= 1024, "max_paths", "a number from 1 to 1024", self.max_paths)

    def rule_for(self, name: str) -> InterfaceRule:
        """Given a link's name, return the first rule that matches it, else the default rule."""
        return next((r for r in self.interfaces if fnmatchcase(name, r.pattern)), DEFAULT_RULE)

    def probe_for(self, name: str) -> ProbeSettings:
        """Given a link's name, return how paths through it are probed."""
        return self.rule_for(name).probe or self.probe

    def why_ignored(self, link: Link) -> str | None:
        """Given a link, return why it carries no paths, or None when it may."""
        rule = self.rule_for(link.name)
        if rule.use is not None:
            return None if rule.use else f"the rule for {rule.pattern!r} says not to use it"
        if link.loopback:
            return "it is the loopback"
        pattern = next((p for p in self.ignored_names if fnmatchcase(link.name, p)), None)
        if pattern is not None:
            return f"its name matches {pattern!r}, which is ignored unless a rule says use"
        if link.kind in self.ignored_kinds:
            return f"it is a {link.kind}, which is ignored unless a rule says use"
        return None
