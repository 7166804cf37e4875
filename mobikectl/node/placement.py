"""Where this node sends its new clients: it sets the redirect provider of its own charon, through the plugin.

Each node decides for itself, from the reports of all: no leader is needed. Reports that grow old, because the store or
a node is away, stop counting, so nobody is redirected to a node that nobody hears of.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.charon.rmobike import RedirectAnswer, RedirectExchange
from mobikectl.cluster.backend import lease_clock
from mobikectl.cluster.node_settings import Placement as Mode
from mobikectl.cluster.view import Seen, look, nodes
from mobikectl.errors import CharonError, StoreError
from mobikectl.policy.cluster import ClusterView, SaTable
from mobikectl.policy.placement import Placement, place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.policy.cluster import Node
    from mobikectl.policy.cluster_settings import BalanceSettings

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How soon a charon that was restarted gets its redirects again."""
CLOSE = 3
"""Percent by which no share differs from what is set: then that stays."""
REPEAT_S = 10.0
"""What is set is set again after this time, whatever happened to it meanwhile."""
LIFETIME_S = 30
"""The plugin forgets what is not set again within this time: a sidecar that was killed cannot clear it."""
CLEAR_S = 1.0
"""How long clearing may take at the end."""
EXCHANGES = {
    Mode.INIT: RedirectExchange.IKE_SA_INIT,
    Mode.AUTH: RedirectExchange.IKE_AUTH,
    Mode.ANYCAST: RedirectExchange.IKE_SA_INIT,
}


def view_of_reports(found: Sequence[Node]) -> ClusterView:
    """Given nodes, return a view in which each serves as many equal IKE_SAs as it reports, with the load it reports."""
    able = [i for i, node in enumerate(found) if node.addresses and node.load.ike_sas]
    counts = np.array([found[i].load.ike_sas for i in able], dtype=np.int64)
    total = int(counts.sum())

    def column(values: list[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.repeat(np.array(values, dtype=np.float64) / np.maximum(counts, 1), counts)

    sas = SaTable(
        keys=range(total),  # type: ignore[arg-type]  # nobody asks for the names of what is only counted
        owner=np.repeat(np.array(able, dtype=np.int32), counts),
        address=np.zeros(total, dtype=np.int16),
        peer=np.arange(total, dtype=np.int32),
        bytes_per_s=column([found[i].load.bytes_per_s for i in able]),
        packets_per_s=column([found[i].load.packets_per_s for i in able]),
        capability=np.zeros(total, dtype=np.uint8),
        behind_nat=np.zeros(total, dtype=np.bool_),
        pinned=np.zeros(total, dtype=np.bool_),
        last_moved_at=np.full(total, -inf),
        recent_redirects=np.zeros(total, dtype=np.int16),
        refused_until=np.full(total, -inf),
        pool=np.full(total, -1, dtype=np.int16),
        site=np.full(total, -1, dtype=np.int16),
    )
    return ClusterView(tuple(found), sas)


def place_at(
    node: str,
    state: ClusterState,
    seen: Mapping[str, Seen],
    policy: BalanceSettings,
    *,
    now: float,
    anycast: bool,
) -> Placement | None:
    """Given a node and what the store says, return what it should answer to new clients; None: it is no member."""
    found = nodes(state, seen, {}, now=now, stale_after_s=policy.stale_after_s)
    reachable = tuple(each for each in found if each.addresses)
    answers = place(view_of_reports(reachable), policy, now, anycast=anycast)
    return next((answer for answer in answers if answer.node == node), None)


def answer_of(placement: Placement | None) -> RedirectAnswer | None:
    """Given a placement, return what the plugin is told; None: redirect nobody."""
    if placement is None or not placement.shares:
        return None
    return RedirectAnswer(shares=tuple((share.address, share.percent) for share in placement.shares))


def close(old: RedirectAnswer | None, new: RedirectAnswer | None) -> bool:
    """Given two answers, return whether the new one is not worth to be set."""
    if old is None or new is None:
        return old is new
    before, after = dict(old.shares), dict(new.shares)
    return before.keys() == after.keys() and all(
        abs(before[gateway] - after[gateway]) < CLOSE for gateway in after
    )


@dataclass(frozen=True, slots=True)
class _Set:
    """What was set last, in which life of the plugin, and when."""

    answer: RedirectAnswer | None
    life: float
    at: float


class Placer:
    """Keeps the redirect provider of one charon. ``run`` it; `placement` says what it does and why."""

    def __init__(
        self, settings: ClusterSettings, plugin: PluginLink, *, clock: Callable[[], float] = lease_clock
    ) -> None:
        self.placement: Placement | None = None
        """What this node answers to new clients, as decided last."""
        self._settings = settings
        self._plugin = plugin
        self._clock = clock
        self._state: ClusterState | None = None
        self._seen: dict[str, Seen] = {}
        self._set: _Set | None = None

    async def run(self, store: Store) -> None:
        """Given the store, place new clients until cancelled; then place nobody any more."""
        exchange = EXCHANGES[self._settings.placement]
        read_at = -inf
        try:
            while True:
                if self._clock() - read_at >= min(self._settings.policy.interval_s, REPEAT_S):
                    read_at = self._clock()
                    await self._read(store)
                await self._apply(exchange, self._decide())
                await asyncio.sleep(TICK_S)
        finally:
            await self._end(exchange)

    async def _read(self, store: Store) -> None:
        try:
            state = await store.state()
        except StoreError as error:
            log.debug("placement: %s", error)  # what was read last counts until it is too old
            return
        seen = look(self._seen, state, self._clock())
        if self._state is None:
            # What was there before we looked may have been written long ago.
            seen = {name: replace(one, at=-inf) for name, one in seen.items()}
        self._state, self._seen = state, seen

    def _decide(self) -> RedirectAnswer | None:
        self.placement = None
        if self._state is not None and not self._state.broken:
            self.placement = place_at(
                self._settings.node,
                self._state,
                self._seen,
                self._settings.policy,
                now=self._clock(),
                anycast=self._settings.placement is Mode.ANYCAST,
            )
        return answer_of(self.placement)

    async def _apply(self, exchange: RedirectExchange, answer: RedirectAnswer | None) -> None:
        """Tell the plugin what is new to it: a charon that was restarted knows nothing."""
        if not self._plugin.up:
            self._set = None
            return
        now, life = self._clock(), self._plugin.plugin.session.status.since
        before = self._set
        current = before is not None and before.life == life and now - before.at < REPEAT_S
        if before is not None and current and close(before.answer, answer):
            return
        try:
            if answer is not None:
                await self._plugin.plugin.set_redirect(exchange, answer, lifetime_s=LIFETIME_S)
            else:
                await self._plugin.plugin.clear_redirect(exchange)
        except CharonError as error:
            log.debug("placement: %s", error)
            self._set = None
            return
        self._set = _Set(answer, life, now)

    async def _end(self, exchange: RedirectExchange) -> None:
        """Redirect nobody any more: nobody is left to look whether the others still live."""
        if self._set is None or self._set.answer is None:
            return
        try:
            async with asyncio.timeout(CLEAR_S):
                await self._plugin.plugin.clear_redirect(exchange)
        except (CharonError, TimeoutError) as error:
            log.warning("the redirects of new clients stay set: %s", error)
