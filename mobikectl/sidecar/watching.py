"""What the web page shows: the sidecar itself, and its cluster's store, looked at while somebody watches."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.settings import open_store
from mobikectl.errors import NotFoundError
from mobikectl.watch.eyes import StoreEye
from mobikectl.watch.local import local_part
from mobikectl.watch.rows import EventRow, Freshness
from mobikectl.watch.sa import sa_history
from mobikectl.watch.view import DEAD_S, EVENTS, compose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.control import ControlApi
    from mobikectl.watch.rows import View
    from mobikectl.watch.sa import SaHistory

log = logging.getLogger(__name__)

AGAIN_S = 5.0
WAIT_S = 0.8
"""A reader waits so long for a new look at the store where the last one is old; then it gets the old one."""
RECENT_S = 2.0


class Watching:
    """What a `WebApi` is to give, of a sidecar. ``run`` it while it is served."""

    def __init__(self, sidecar: ControlApi, settings: ClusterSettings | None) -> None:
        self._sidecar = sidecar
        self._settings = settings
        self._eye: StoreEye | None = None

    async def run(self) -> None:
        """Look at the store whenever somebody watches, until cancelled."""
        if self._settings is None:
            return
        while True:
            try:
                await self._run(self._settings)
            except Exception:
                # Who only watches must not end what keeps tunnels going.
                log.exception("the web page's look at the store failed")
            await asyncio.sleep(AGAIN_S)

    async def _run(self, settings: ClusterSettings) -> None:
        store = open_store(settings.store)
        try:
            self._eye = StoreEye(store, settings.policy, settings.store.cluster)
            await self._eye.run()
        finally:
            self._eye = None
            await store.close()

    def healthy(self) -> Mapping[str, Any]:
        """Return whether all is well."""
        return self._sidecar.healthy()

    def state(self) -> Mapping[str, Any]:
        """Return everything that is known, JSON-able."""
        return self._sidecar.state()

    def metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return self._sidecar.metrics()

    async def view(self) -> View:
        """Return what there is to see."""
        fresh = {"sidecar": Freshness(0.0)}
        if (eye := self._eye) is not None:
            age = eye.fresh().age_s
            if age is None or RECENT_S < age < DEAD_S:
                await eye.wanted_within(WAIT_S)
            eye.want()
            fresh["store"] = eye.fresh()
        events = (
            EventRow(event.wall, event.source.value, event.name, event.text)
            for event in self._sidecar.events.recent(EVENTS)
        )
        part = eye.part if eye is not None else None
        return compose(part, local_part(self._sidecar.state()), events, fresh)

    def sa(self, key: str) -> SaHistory:
        """Given an IKE_SA's name in the cluster, return what is known of it. Raise NotFoundError."""
        reading = self._eye.reading if self._eye is not None else None
        if reading is None or self._settings is None:
            raise NotFoundError("nothing is known of the cluster", hint="is [cluster] configured?")
        return sa_history(reading, self._settings.policy, key)
