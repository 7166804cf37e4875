"""Which paths an IKE_SA could use, how they rank, and why each of them is or is not to be used.

A candidate is a usable local address with a gateway address (RFC 4555 section 3.5: all combinations). Whether the
kernel can send that way is asked beforehand, for each of `paths_to_ask`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.model import Path
from mobikectl.policy.settings import ProbeMethod
from mobikectl.policy.track import TrackState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.model import Address, IkeSa, IpAddress, Link, NetState
    from mobikectl.policy.settings import PathSettings
    from mobikectl.policy.state import PathState
    from mobikectl.policy.track import Track

RT_SCOPE_SITE = 200


class ObjectionKind(Enum):
    """Why a path cannot be used now."""

    ADDRESS_GONE = "address-gone"
    ADDRESS_UNFIT = "address-unfit"
    LINK_DOWN = "link-down"
    LINK_IGNORED = "link-ignored"
    FAMILY = "family"
    NO_ROUTE = "no-route"
    ROUTE_UNKNOWN = "route-unknown"


@dataclass(frozen=True, slots=True)
class Objection:
    """One reason why a path cannot be used now."""

    kind: ObjectionKind
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """How good a path is: smaller is better, field by field from the top."""

    degraded: bool = False
    """It answers, but worse than the quality limits allow."""
    family: int = 0
    gateway: int = 0
    """Place of the gateway address in the configured ones, when the first is to be preferred; else 0."""
    priority: int = 0
    """The configured priority, negated."""
    metric: int = 0
    cost: int = 0
    deprecated: bool = False
    """Its local address is to go away (RFC 4862)."""
    share: float = 0.0
    """Which of equal links the weights give this SA; counts for a preference only when not sticky."""
    other_gateway: bool = False
    """It would change the gateway address."""
    order: int = 0
    """The order of the gateway addresses."""
    temporary: bool = False
    """A privacy address (RFC 8981)."""

    def better_than(self, other: Rank, *, sticky: bool) -> bool:
        """Given another rank, return whether a working path of that rank is worth leaving for this one."""
        mine, theirs = self._main(), other._main()
        if mine != theirs or sticky:
            return mine < theirs
        return self.share < other.share

    def _main(self) -> tuple[float, ...]:
        return (
            self.degraded,
            self.family,
            self.gateway,
            self.priority,
            self.metric,
            self.cost,
            self.deprecated,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """One path that an IKE_SA could use."""

    path: Path
    link: str
    """The name of the link that has the local address; empty when the address is gone."""
    rank: Rank
    objections: tuple[Objection, ...] = ()
    in_use: bool = False
    unbound: bool = False
    """Its local address is on the loopback: packets leave by whatever link the routes say."""
    track: Track | None = None
    """What the probes say; None when nothing is remembered."""
    trusted: bool = True
    """Whether probes of this gateway say anything: some path's probe was answered by it."""
    note: str = ""
    """Why it is chosen or not, for people."""

    @property
    def usable(self) -> bool:
        """Whether packets can be sent that way; what the probes say is not in it."""
        return not self.objections

    @property
    def gone(self) -> bool:
        """Whether it is known that packets cannot be sent that way: a direct indication for who uses it."""
        return any(o.kind is not ObjectionKind.ROUTE_UNKNOWN for o in self.objections)

    @property
    def probed(self) -> bool:
        """Whether its checks count."""
        return self.track is not None and self.track.settings.method is not ProbeMethod.NONE and self.trusted

    @property
    def failed(self) -> bool:
        """Whether its last check failed: usable only after one succeeds."""
        if self.track is None or self.track.answered is not False:
            return False
        return self.track.move_failed or self.probed

    @property
    def down(self) -> bool:
        """Whether its probes say that it does not work."""
        return self.probed and self.failed and self.track is not None and self.track.state is TrackState.DOWN

    @property
    def eligible(self) -> bool:
        """Whether an SA may be moved there without a further check."""
        return self.usable and not self.failed

    def fresh(self, now: float) -> bool:
        """Given the time, return whether a check of late found it working well."""
        track = self.track
        if not self.probed or track is None or track.checked_at is None:
            return False
        age = now - track.checked_at
        return (
            track.state is TrackState.UP and age <= track.settings.interval_s + track.settings.round_s + 1.0
        )

    def good_since(self) -> float | None:
        """Return since when it has been good without a break (CLOCK_MONOTONIC), or None when it is not."""
        if not self.eligible or self.track is None or self.track.usable_since is None:
            return None
        if not self.probed:
            return self.track.usable_since
        up_since = self.track.up_since
        return None if up_since is None else max(self.track.usable_since, up_since)

    def hold_down_s(self, settings: PathSettings, now: float) -> float:
        """Given the settings, return for how long it must have been good: doubled for each flap but the first."""
        flaps = self.track.flaps_now(now) if self.track is not None else 0.0
        doubled = settings.hold_down_s * 2.0 ** max(0.0, flaps - 1.0)
        return float(min(settings.hold_down_max_s, doubled))


def remotes_of(
    sa: IkeSa, settings: PathSettings, learnt: tuple[IpAddress, ...] = ()
) -> tuple[IpAddress, ...]:
    """Given an IKE_SA and what its peer announced, return the gateway addresses in order of preference."""
    return tuple(dict.fromkeys((*settings.gateways, sa.path.remote, *learnt)))


def paths_to_ask(
    net: NetState, sa: IkeSa, settings: PathSettings, learnt: tuple[IpAddress, ...] = ()
) -> tuple[Path, ...]:
    """Given the network, an IKE_SA and what its peer announced, return the paths whose route is to be asked.

    Ask the kernel how it would send from `Path.local`, bound to the link that has it, to `Path.remote`.
    """
    found = (_physical(net, a, r, sa, settings) for a, r in _pairs(net, sa, settings, learnt))
    return tuple(dict.fromkeys(c.path for c in found if c.usable))


def candidates(sa: IkeSa, state: PathState, settings: PathSettings) -> tuple[Candidate, ...]:
    """Given an IKE_SA and the state, return its candidate paths, the best ranked first.

    The path in use is always among them, even when its address is gone.
    """
    learnt = state.learnt.get(sa.uniqueid, ())
    found: dict[Path, Candidate] = {}
    for address, remote in _pairs(state.net, sa, settings, learnt):
        candidate = _routed(_physical(state.net, address, remote, sa, settings), state)
        previous = found.get(candidate.path)
        if previous is None or (candidate.usable and not previous.usable):
            found[candidate.path] = _ranked(candidate, address, sa, state, settings)
    if sa.path not in found:
        gone = Objection(ObjectionKind.ADDRESS_GONE, f"{sa.path.local} is no address of this host")
        found[sa.path] = Candidate(sa.path, "", Rank(), (gone,), in_use=True)
    best_first = sorted(found.values(), key=lambda c: (not c.usable, c.rank, c.path.family, c.path))
    kept = best_first[: settings.max_paths]
    if not any(c.in_use for c in kept):
        kept.extend(c for c in best_first if c.in_use)
    return tuple(kept)


def assessed(
    found: tuple[Candidate, ...], tracks: Mapping[Path, Track], speaking: frozenset[IpAddress]
) -> tuple[Candidate, ...]:
    """Given candidates, what is remembered of paths and which gateways answer probes, return them with it."""
    judged = []
    for candidate in found:
        track = tracks.get(candidate.path)
        trusted = candidate.path.remote in speaking
        bad = track is not None and track.degraded and track.state in {TrackState.DOWN, TrackState.RECOVERING}
        rank = replace(candidate.rank, degraded=bad)
        judged.append(replace(candidate, track=track, trusted=trusted, rank=rank))
    return tuple(sorted(judged, key=lambda c: (not c.usable, c.rank, c.path.family, c.path)))


def _pairs(
    net: NetState, sa: IkeSa, settings: PathSettings, learnt: tuple[IpAddress, ...]
) -> list[tuple[Address, IpAddress]]:
    """Every local address that could be an outer one, with every gateway address of its family."""
    own = set(sa.local_vips)
    outer = (a for a in net.addresses if a.ip not in own and not a.ip.is_loopback)
    addresses = sorted(outer, key=lambda a: (a.ip.version, int(a.ip), a.index))
    remotes = remotes_of(sa, settings, learnt)
    return [(a, r) for a in addresses for r in remotes if a.ip.version == r.version]


def _physical(
    net: NetState, address: Address, remote: IpAddress, sa: IkeSa, settings: PathSettings
) -> Candidate:
    """One pair with the objections that links and addresses give."""
    path = Path(address.ip, remote)
    in_use = path == sa.path
    link = net.links.get(address.index)
    objections = [*_link_objections(link, address, sa, settings), *_address_objections(address, sa)]
    if not settings.family.allows(path.family) and not in_use:
        objections.append(Objection(ObjectionKind.FAMILY, f"the setting family is {settings.family.value}"))
    return Candidate(
        path,
        link.name if link else "",
        Rank(),
        tuple(objections),
        in_use,
        unbound=link is not None and link.loopback,
    )


def _link_objections(
    link: Link | None, address: Address, sa: IkeSa, settings: PathSettings
) -> list[Objection]:
    if link is None:
        return [Objection(ObjectionKind.LINK_DOWN, f"link {address.index} is gone")]
    found = []
    ignored = settings.why_ignored(link)
    if ignored is not None and address.ip != sa.path.local:
        found.append(Objection(ObjectionKind.LINK_IGNORED, f"{link.name}: {ignored}"))
    if not link.usable:
        why = "has no carrier" if link.up else "is down"
        found.append(Objection(ObjectionKind.LINK_DOWN, f"{link.name} {why}"))
    return found


def _address_objections(address: Address, sa: IkeSa) -> list[Objection]:
    ip = address.ip
    if address.tentative:
        return [Objection(ObjectionKind.ADDRESS_UNFIT, f"{ip} is tentative: duplicate address detection")]
    unfit = ip.is_link_local or ip.is_multicast or ip.is_unspecified
    if (unfit or address.scope > RT_SCOPE_SITE) and ip != sa.path.local:
        return [Objection(ObjectionKind.ADDRESS_UNFIT, f"{ip} is valid on its link or host only")]
    return []


def _routed(candidate: Candidate, state: PathState) -> Candidate:
    """The same with the objections that the kernel's routes give."""
    if not candidate.usable or candidate.unbound:
        return candidate
    if candidate.path not in state.routes:
        text = "the kernel was not asked yet for a route"
        return replace(candidate, objections=(Objection(ObjectionKind.ROUTE_UNKNOWN, text),))
    answer = state.routes[candidate.path]
    link = state.net.links.get(answer.oif) if answer is not None else None
    if answer is None:
        text = f"there is no route from {candidate.path.local} out of {candidate.link}"
    elif link is None or link.name != candidate.link:
        text = f"the route leaves by {link.name if link else answer.oif}, not by {candidate.link}"
    else:
        return candidate
    return replace(candidate, objections=(Objection(ObjectionKind.NO_ROUTE, text),))


def _ranked(
    candidate: Candidate, address: Address, sa: IkeSa, state: PathState, settings: PathSettings
) -> Candidate:
    rule = settings.rule_for(candidate.link)
    remote = candidate.path.remote
    order = remotes_of(sa, settings, state.learnt.get(sa.uniqueid, ())).index(remote)
    metric = state.route_metrics.get(candidate.path, 0) if rule.metric is None else rule.metric
    rank = Rank(
        deprecated=address.deprecated,
        family=settings.family.rank(candidate.path.family),
        gateway=order if settings.prefer_first_gateway else 0,
        priority=-rule.priority,
        metric=metric,
        cost=rule.cost,
        share=_share(sa, candidate.link, rule.weight),
        other_gateway=remote != sa.path.remote,
        order=order,
        temporary=address.temporary,
    )
    return replace(candidate, rank=rank)


def _share(sa: IkeSa, link: str, weight: int) -> float:
    """Give each SA its own order of the links by weighted rendezvous hashing.

    It is the same at every decision and after every rekey, and over many SAs each link comes first in
    proportion to its weight.
    """
    name = f"{sa.name}\x00{sa.local_id}\x00{sa.remote_id}\x00{link}".encode()
    drawn = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")
    return -math.log((drawn + 1) / (2**56 + 1)) / weight
