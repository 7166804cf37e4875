"""`mobikectl top`: the cluster and this host's sidecar on one screen, as they change."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from mobikectl.cli.cluster import open_cluster
from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_runs
from mobikectl.cli.output import console
from mobikectl.cli.top_frame import frame
from mobikectl.cli.wishes import want_drained, want_paused, want_undrained
from mobikectl.cluster.caveats import caveats
from mobikectl.control.sockets import check_trusted
from mobikectl.watch.eyes import SidecarEye, StoreEye
from mobikectl.watch.view import Choice, compose

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mobikectl.cluster.store import Store
    from mobikectl.watch.rows import View

NOTE = "mobikectl top"
FIRST_S = 3.0
"""How long one frame waits for what it is to show."""


@click.command()
@settings_options
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("--filter", "text", default="", metavar="TEXT", help="Only rows that hold this.")
@run_async
async def top(settings: Settings, once: bool, text: str) -> None:
    """Watch on one screen: nodes with their loads, moves as they happen, and the last events.

    With [cluster] configured it looks at the cluster's store; without, at this host's sidecar: its IKE_SAs, their paths
    and moves. Keys: s sort, / filter, Enter the IKE_SAs of a node, d drain or give back, p pause or resume (both ask
    first), ? help, q quit. A store or sidecar that does not answer makes what is shown old, and that is said.
    """
    async with AsyncExitStack() as stack:
        eyes = await _open(settings, stack)
        following = [asyncio.create_task(work) for work in eyes.works()]
        stack.push_async_callback(_end, following)
        choice = Choice(text=text)
        if once:
            await eyes.first(FIRST_S)
            console.print(frame(eyes.look(), choice), soft_wrap=True)
        else:
            await _full_screen(eyes, choice)


async def _full_screen(eyes: Eyes, choice: Choice) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is no terminal: `mobikectl top --once` prints one frame")
    from mobikectl.cli.top_app import TopApp

    await TopApp(eyes.look, eyes.wishes, choice).run_async()


class Eyes:
    """What this command looks at: the cluster's store and this host's sidecar, as far as there are such."""

    def __init__(
        self, store: StoreEye | None, sidecar: SidecarEye | None, wishes: StoreWishes | None
    ) -> None:
        self._store = store
        self._sidecar = sidecar
        self.wishes = wishes

    def works(self) -> list[Coroutine[object, object, None]]:
        """Return what must run while somebody watches."""
        found = [eye.run() for eye in (self._store, self._sidecar) if eye is not None]
        return [*found, self._sidecar.follow()] if self._sidecar is not None else found

    async def first(self, seconds: float) -> None:
        """Wait until each source was looked at once, or for so many seconds."""
        eyes = [eye for eye in (self._store, self._sidecar) if eye is not None]
        await asyncio.gather(*(eye.wanted_within(seconds) for eye in eyes))

    def look(self) -> View:
        """Return what there is, and have it looked at again."""
        fresh = {}
        if self._store is not None:
            self._store.want()
            fresh["store"] = self._store.fresh()
        if self._sidecar is not None:
            self._sidecar.want()
            fresh["sidecar"] = self._sidecar.fresh()
        return compose(
            self._store.part if self._store is not None else None,
            self._sidecar.part if self._sidecar is not None else None,
            self._sidecar.events if self._sidecar is not None else (),
            fresh,
        )


async def _open(settings: Settings, stack: AsyncExitStack) -> Eyes:
    """Raise SidecarError: no cluster is configured, and no sidecar runs here."""
    if settings.config.cluster is None:
        check_trusted(settings.control)
        return Eyes(None, SidecarEye(settings.control), None)
    cluster = await stack.enter_async_context(open_cluster(settings))
    eye = StoreEye(cluster.store, cluster.settings.policy, cluster.settings.store.cluster)
    sidecar = SidecarEye(settings.control) if sidecar_runs(settings) else None
    return Eyes(eye, sidecar, StoreWishes(cluster.store))


async def _end(works: list[asyncio.Task[None]]) -> None:
    for work in works:
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*works, return_exceptions=True)


class StoreWishes:
    """Writes what an operator wants into the store, as the commands do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def drain(self, node: str) -> str:
        """Given a node, want it drained; return what to tell. Raise StoreError."""
        await want_drained(self._store, node, note=NOTE)
        return await self._told(f"{node} is drained")

    async def undrain(self, node: str) -> str:
        """Given a node, want it back; return what to tell. Raise StoreError."""
        await want_undrained(self._store, node)
        return await self._told(f"{node} takes IKE_SAs again")

    async def pause(self, paused: bool) -> str:
        """Given whether moves are to stop, want that; return what to tell. Raise StoreError."""
        await want_paused(self._store, paused, note=NOTE if paused else "")
        return "the cluster is paused" if paused else await self._told("the cluster goes on")

    async def _told(self, done: str) -> str:
        return "\n".join([done, *caveats(await self._store.state())])
