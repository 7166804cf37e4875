"""Which gateway new IKE_SAs should go to: shares per gateway, decided by a hash of the client.

A gateway may be asked more than once about the same client (a retransmitted or repeated IKE_SA_INIT), so
the answer must not be random: the client's bucket (0..99) falls into one target's share.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import log
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy.balance_places import Places

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.policy.cluster import Bools, ClusterView, Floats, Node
    from mobikectl.policy.cluster_settings import BalanceSettings

BUCKETS = 100


@dataclass(frozen=True, slots=True)
class Share:
    """So many percent of a gateway's new clients go to this node and address."""

    node: str
    address: IpAddress
    percent: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What one gateway answers to new clients: REDIRECT in IKE_SA_INIT (RFC 5685 section 3), or nothing."""

    node: str
    keep_percent: int
    """Clients that are not redirected."""
    shares: tuple[Share, ...]
    """Where the others are redirected to, in the order of their buckets after those that are kept."""
    reason: str

    def target(self, client: bytes) -> Share | None:
        """Given what names a client (its identity or address), return where it is redirected, None: kept."""
        left = bucket(client) - self.keep_percent
        if left < 0:
            return None
        for share in self.shares:
            left -= share.percent
            if left < 0:
                return share
        return None


def bucket(client: bytes) -> int:
    """Given what names a client, return its bucket, 0 to 99: the same at every gateway and every time."""
    return int.from_bytes(sha256(client).digest()[:8], "big") % BUCKETS


def place(
    view: ClusterView, settings: BalanceSettings, now: float, *, anycast: bool = False
) -> tuple[Placement, ...]:
    """Given the cluster, return what each node should answer to new clients of IPv4 and IPv6.

    A node inside the band keeps its clients, as a redirect costs them a round trip; above the band it keeps
    less the fuller it is, and at its overload limit, drained or impaired it keeps none. The rest is shared among
    the nodes below the even level by their headroom, same site first. With ``anycast`` every gateway is behind
    one address and clients must be sent on to a unicast one in any case (RFC 5685 section 4): what would be
    kept is redirected to the node's own address.
    """
    places = Places(view, settings, now)
    used = (places.load / places.capacity).max(axis=1)
    relative = used / places.weight
    even = places.even_level(places.load)
    headroom = np.where(places.live, np.maximum(places.limit - used, 0.0) * places.weight, 0.0)
    below = np.where(relative <= even, headroom, 0.0)
    answers = []
    for i, node in enumerate(view.nodes):
        kept, reason = _kept(places, i, float(used[i]), float(relative[i]), even, settings)
        shares: tuple[Share, ...] = ()
        if kept < BUCKETS:
            shares = _shares(view, i, _candidates(view, i, below, headroom), BUCKETS - kept, settings)
        if not shares and kept < BUCKETS:
            kept, reason = BUCKETS, f"{reason}, but no other gateway has room"
        if anycast and kept:
            own = _address(node)
            if own is not None:
                shares = (Share(node.name, own, kept), *shares)
                kept, reason = 0, f"{reason}; sent on from the anycast address"
        answers.append(Placement(node.name, kept, shares, reason))
    return tuple(answers)


def _kept(
    places: Places, node: int, used: float, relative: float, even: float, settings: BalanceSettings
) -> tuple[int, str]:
    if places.impaired[node] or places.draining[node]:
        return 0, "impaired" if places.impaired[node] else "drained"
    if not places.live[node]:
        return BUCKETS, "not heard from"
    band, limit = even * (1 + settings.high), float(places.limit[node] / places.weight[node])
    if used >= places.limit[node]:
        return 0, f"at its overload limit ({used:.1%})"
    if relative <= band:
        return BUCKETS, f"inside the band ({used:.1%})"
    return int(BUCKETS * (limit - relative) / (limit - band)), f"above the band ({used:.1%})"


def _candidates(view: ClusterView, node: int, below: Floats, headroom: Floats) -> Floats:
    """Return the weight of each possible target: same site first, then below the even level, then any room."""
    same_site: Bools = np.array([other.site == view.nodes[node].site for other in view.nodes], dtype=np.bool_)
    for weights in (np.where(same_site, below, 0.0), np.where(same_site, headroom, 0.0), below, headroom):
        found: Floats = weights.copy()
        found[node] = 0.0
        if found.any():
            return found
    return np.zeros(len(view.nodes))


def _shares(
    view: ClusterView, node: int, weights: Floats, percent: int, settings: BalanceSettings
) -> tuple[Share, ...]:
    """Divide ``percent`` by weight, in whole percents that add up (largest remainder).

    Of more candidates than one gateway names, each gateway takes its own sample (weighted rendezvous
    hashing), so that together they use all of them and none is overrun.
    """
    name = view.nodes[node].name
    able = [
        (other, address)
        for other in np.flatnonzero(weights > 0)
        if (address := _address(view.nodes[other])) is not None
    ]
    able.sort(key=lambda pair: log(_uniform(name, view.nodes[pair[0]].name)) / weights[pair[0]], reverse=True)
    chosen = able[: settings.placement_targets]
    if not chosen or percent <= 0:
        return ()
    exact = np.array([weights[other] for other, _ in chosen])
    exact *= percent / exact.sum()
    whole = np.floor(exact).astype(int)
    for i in np.argsort(whole - exact, kind="stable")[: percent - int(whole.sum())]:
        whole[i] += 1
    return tuple(
        Share(view.nodes[other].name, address, int(count))
        for (other, address), count in zip(chosen, whole, strict=True)
        if count
    )


def _uniform(*names: str) -> float:
    digest = sha256("\0".join(names).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)


def _address(node: Node) -> IpAddress | None:
    """Return where a node's new clients should come to: its first address whose uplink works."""
    return next((address.ip for address in node.addresses if address.usable), None)
