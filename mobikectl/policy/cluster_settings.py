"""What an operator can set about the balance of a cluster, with defaults that are safe to start with."""

from __future__ import annotations

from dataclasses import dataclass

from mobikectl.errors import ConfigError
from mobikectl.policy.cluster import Mechanism

REDIRECT_PERIOD_S = 300.0
"""REDIRECT_LOOP_DETECT_PERIOD, RFC 5685 section 7."""
MAX_REDIRECTS = 5
"""MAX_REDIRECTS, RFC 5685 section 7: strongSwan's client drops its IKE_SA at the one after these."""


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """Watermarks are relative to the level at which every node would be equally full."""

    high: float = 0.04
    """A node this much above the even level starts to give IKE_SAs away..."""
    low: float = 0.015
    """...until it is only this much above. The gap is what keeps small changes from moving anything."""
    min_gain: float = 0.01
    """Where no move ends inside the band (few, heavy IKE_SAs): how much of the even level the peak must win."""
    idle: float = 0.05
    """Up to this utilisation a node, or an uplink, is not relieved for being fuller than the others."""
    relief: float = 0.95
    """An overloaded node is brought down to this share of its limit, and no target is filled above it."""
    cooldown_s: float = 60.0
    """How long an IKE_SA is left alone after a move, except for drains, impaired nodes and dead uplinks."""
    window_s: float = 60.0
    """The window in which `node_moves` and `cluster_moves` (and the view's recent moves) are counted."""
    node_moves: int = 600
    """IKE_SAs that may leave or enter one node in the window."""
    cluster_moves: int = 50_000
    """IKE_SAs that may move in the whole cluster in the window."""
    plan_moves: int = 5_000
    """IKE_SAs in one plan: what is planned far ahead is planned on stale numbers."""
    redirects: int = MAX_REDIRECTS - 1
    """Redirects of one client in 300 s."""
    mechanisms: frozenset[Mechanism] = frozenset({Mechanism.NOTIFY, Mechanism.IMPLICIT, Mechanism.REDIRECT})
    """What may be used; `Mechanism.RECONNECT` interrupts and must be asked for."""
    stay_in_site: bool = True
    """Balance inside an IKE_SA's site only; drains and overload may leave it when the site is full."""
    stale_after_s: float = 30.0
    """A node whose report is older counts as unknown."""
    settle_s: float = 5.0
    """A CPU reading counts only when it was taken this long after the node's last move."""
    interval_s: float = 1.0
    """How soon to plan again while something is left to do."""
    placement_targets: int = 16
    """How many gateways one gateway names to its new clients at most."""

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ConfigError(
                f"watermarks: low {self.low} must be at least 0 and below high {self.high}",
                hint="for instance low = 0.015, high = 0.04",
            )
        if not 0 < self.relief <= 1 or self.min_gain <= 0:
            raise ConfigError(
                f"relief {self.relief} must be in (0, 1] and min_gain {self.min_gain} above 0",
                hint="the defaults are 0.95 and 0.01",
            )
        if not 0 <= self.idle < 1:
            raise ConfigError(
                f"idle {self.idle} must be in [0, 1)", hint="0.05 leaves nearly idle nodes alone"
            )
        if not 0 <= self.redirects < MAX_REDIRECTS:
            raise ConfigError(
                f"redirects {self.redirects} must be in 0..{MAX_REDIRECTS - 1}",
                hint="RFC 5685 clients drop their IKE_SA when redirected more often in 300 s",
            )
        if (
            min(self.node_moves, self.cluster_moves, self.plan_moves) < 0
            or not 1 <= self.placement_targets <= 100
        ):
            raise ConfigError(
                "move budgets must not be negative, and placement_targets is 1 to 100",
                hint="0 forbids every move; pausing the cluster does that for a while",
            )
        if (
            min(self.cooldown_s, self.settle_s) < 0
            or min(self.window_s, self.stale_after_s, self.interval_s) <= 0
        ):
            raise ConfigError(
                "periods must be above zero seconds", hint="remove the setting to get its default"
            )
