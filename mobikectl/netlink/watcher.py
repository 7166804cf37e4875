"""The watcher: links, addresses, rules and routes as they change, and no change lost.

Two subscriptions, because a full table of routes loaded or flushed overruns any buffer: routes have a socket of
their own, so that 100,000 of them cannot push a link's going down out of the queue. Overrun (ENOBUFS) is normal:

- routes: nothing of them is kept, so nothing need be dumped: the next change says ``routes.uncertain``;
- the rest: a new socket is opened and subscribed, then everything is dumped, then what the new socket received
  meanwhile is taken in on top. What differs from the state known before is handed on as any other change.

Every ``verify_every`` seconds the state is held against a dump (three small ones): that finds what an error of the
kernel or of this program may have hidden, and a socket that somebody closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mobikectl.errors import DecodeError, MobikectlError, NetlinkError
from mobikectl.netlink import rtnl
from mobikectl.netlink.coalesce import Coalescer
from mobikectl.netlink.kernel import DEADLINE, KernelSocket, Requests
from mobikectl.netlink.state import Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobikectl.model import Address, Link, NetState, Rule
    from mobikectl.netlink.state import NetChange

_LOG = logging.getLogger(__name__)
_STATE_GROUPS = (
    rtnl.RTNLGRP_LINK,
    rtnl.RTNLGRP_IPV4_IFADDR,
    rtnl.RTNLGRP_IPV6_IFADDR,
    rtnl.RTNLGRP_IPV4_RULE,
    rtnl.RTNLGRP_IPV6_RULE,
)
_ROUTE_GROUPS = (rtnl.RTNLGRP_IPV4_ROUTE, rtnl.RTNLGRP_IPV6_ROUTE, rtnl.RTNLGRP_NEXTHOP)
_READ_BUDGET = 0.002
"""Seconds that one turn of reading may hold the event loop."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 2.0


@dataclass(slots=True)
class WatcherCounters:
    """What the watcher met, for metrics. All grow only."""

    messages: int = 0
    changes: int = 0
    overruns: int = 0
    """The subscription to links, addresses and rules overran."""
    route_overruns: int = 0
    resyncs: int = 0
    """Full dumps after an overrun or a broken socket; the first and the periodic ones are not counted."""
    corrections: int = 0
    """Periodic checks that found a difference which no event told of: 0 unless something is wrong."""
    failures: int = 0
    """Resyncs that failed and were tried again."""
    undecodable: int = 0


class Watcher:
    """Follows the host's network (async context manager; entering it dumps everything once).

    Given:
    window: seconds over which bursts are coalesced (`mobikectl.netlink.coalesce`); 0 hands each on at once.
    rcvbuf, route_rcvbuf: receive buffers in bytes (the kernel doubles them and caps them at net.core.rmem_max).
    verify_every: seconds between full checks against the kernel.
    netns: name of the network namespace to watch (None: the caller's).

    Entering raises NetlinkError or PrivilegeError. Later troubles are mended in the background and counted.
    """

    def __init__(
        self,
        *,
        window: float = 0.050,
        rcvbuf: int = 1 << 20,
        route_rcvbuf: int = 4 << 20,
        verify_every: float = 60.0,
        deadline: float = DEADLINE,
        netns: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = WatcherCounters()
        self._rcvbuf = rcvbuf
        self._route_rcvbuf = route_rcvbuf
        self._verify_every = verify_every
        self._netns = netns
        self._clock = clock
        self._requests = Requests(netns=netns, deadline=deadline)
        self._tables = Tables()
        self._window = window
        self._coalescer = Coalescer(window)
        self._buffer = bytearray(1 << 16)
        self._events: KernelSocket | None = None
        self._route_events: KernelSocket | None = None
        self._first_at: float | None = None
        self._wake = asyncio.Event()
        self._trouble = asyncio.Event()
        self._maintenance: asyncio.Task[None] | None = None
        self._reading = False
        self._activity = 0

    @property
    def state(self) -> NetState:
        """The network as it is known now, changes not yet handed on included."""
        return self._tables.state

    async def __aenter__(self) -> Self:
        try:
            await self._requests.__aenter__()
            await self._synchronise()
        except BaseException:
            await self._close()
            raise
        self._forget_first()
        self._maintenance = asyncio.create_task(self._maintain(), name="netlink watcher")
        self._maintenance.add_done_callback(lambda _: self._wake.set())
        return self

    def _forget_first(self) -> None:
        """The first dump is the state to start from, not a change."""
        self._tables.take(self._clock())
        self._first_at = None
        self._coalescer = Coalescer(self._window)

    async def __aexit__(self, *_: object) -> None:
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await self._close()

    async def _close(self) -> None:
        self._detach(self._events)
        self._detach(self._route_events)
        self._events = self._route_events = None
        await self._requests.__aexit__(None, None, None)

    async def changes(self) -> AsyncIterator[NetChange]:
        """Yield each change since the watcher was entered, or since the last one was yielded.

        A slow reader gets fewer, larger changes and never a wrong state. One reader at a time (RuntimeError):
        who has several fans out.
        """
        if self._reading:
            raise RuntimeError("the watcher has a reader already")
        self._reading = True
        try:
            while True:
                await self._until_due()
                now = self._clock()
                change = self._tables.take(self._first_at if self._first_at is not None else now)
                self._first_at = None
                self._coalescer.delivered(now)
                self.counters.changes += 1
                yield change
        finally:
            self._reading = False

    async def _until_due(self) -> None:
        while True:
            if self._maintenance is None or self._maintenance.done():
                if self._maintenance is not None and not self._maintenance.cancelled():
                    self._maintenance.result()
                raise NetlinkError("the netlink watcher is closed", hint="read changes inside `async with`")
            self._wake.clear()
            due = self._coalescer.due
            left = None if due is None else due - self._clock()
            if left is not None and left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                continue

    # --- reading --------------------------------------------------------------------------------

    def _attach(self, kernel: KernelSocket, routes: bool) -> None:
        asyncio.get_running_loop().add_reader(kernel.fd, self._read, kernel, routes)

    def _detach(self, kernel: KernelSocket | None) -> None:
        if kernel is not None:
            asyncio.get_running_loop().remove_reader(kernel.fd)
            kernel.close()

    def _read(self, kernel: KernelSocket, routes: bool) -> None:
        """Take in what is queued, for `_READ_BUDGET` at most: the event loop calls again when more is there."""
        until = time.monotonic() + _READ_BUDGET
        urgent = False
        try:
            while True:
                for _ in range(32):
                    size, (port, _groups) = kernel.socket.recvfrom_into(self._buffer)
                    if port == 0:
                        urgent |= self._feed(size)
                        self._activity += not routes
                if time.monotonic() >= until:
                    break
        except BlockingIOError:
            pass
        except OSError as exc:
            self._failed(exc, routes)
        self.counters.messages = self._tables.messages
        self._note(urgent=urgent)

    def _feed(self, size: int) -> bool:
        try:
            return self._tables.feed(memoryview(self._buffer)[:size])
        except DecodeError as exc:
            self.counters.undecodable += 1
            _LOG.warning("netlink: %s", exc)
            self._trouble.set()
            return False

    def _failed(self, exc: OSError, routes: bool) -> None:
        if exc.errno == errno.ENOBUFS and routes:
            self.counters.route_overruns += 1
            self._tables.routes_uncertain()
            return
        if exc.errno == errno.ENOBUFS:
            self.counters.overruns += 1
        else:
            _LOG.warning("netlink: the subscription broke: %s", exc)
        self._trouble.set()

    def _note(self, *, urgent: bool = False) -> None:
        if not self._tables.dirty:
            return
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        self._coalescer.note(now, urgent=urgent)
        self._wake.set()

    # --- synchronising --------------------------------------------------------------------------

    async def _maintain(self) -> None:
        """Synchronise when there was trouble, check now and then without; back off while trouble goes on."""
        backoff = 0.0
        while True:
            troubled = await self._troubled(self._verify_every)
            try:
                if troubled:
                    await asyncio.sleep(backoff)
                    backoff = min(max(backoff * 2, _BACKOFF_FIRST), _BACKOFF_MOST)
                    self._trouble.clear()
                    await self._synchronise()
                    self.counters.resyncs += 1
                else:
                    backoff = 0.0
                    await self._check()
            except MobikectlError as exc:
                self.counters.failures += 1
                _LOG.warning("netlink: cannot synchronise yet: %s", exc)
                self._trouble.set()

    async def _check(self) -> None:
        """Hold the state against a dump, when nothing happens meanwhile; synchronise if it is wrong."""
        self._synchronise_routes()
        if self._events is None:
            self._trouble.set()
            return
        self._read(self._events, routes=False)
        activity = self._activity
        found = await self._dump()
        self._read(self._events, routes=False)
        if self._trouble.is_set() or activity != self._activity or self._tables.agrees(*found):
            return
        self.counters.corrections += 1
        _LOG.warning("netlink: the periodic check found a difference")
        await self._synchronise()

    async def _troubled(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._trouble.wait()
        except TimeoutError:
            return False
        return True

    async def _synchronise(self) -> None:
        """Subscribe anew, dump, and take in what differs."""
        fresh = KernelSocket(groups=_STATE_GROUPS, rcvbuf=self._rcvbuf, netns=self._netns)
        try:
            self._synchronise_routes()
            self._detach(self._events)
            self._events = None
            links, addresses, rules = await self._dump()
        except BaseException:
            fresh.close()
            raise
        differs = self._tables.replace_all(links, addresses, rules)
        self._events = fresh
        self._attach(fresh, routes=False)
        self._note(urgent=differs)

    def _synchronise_routes(self) -> None:
        """Open the subscription to routes, again where it was closed behind our back."""
        if self._route_events is not None and _alive(self._route_events):
            return
        self._detach(self._route_events)
        self._route_events = None
        self._route_events = KernelSocket(groups=_ROUTE_GROUPS, rcvbuf=self._route_rcvbuf, netns=self._netns)
        self._attach(self._route_events, routes=True)
        self._tables.routes_uncertain()

    async def _dump(self) -> tuple[dict[int, Link], dict[bytes, Address], dict[bytes, Rule]]:
        links: dict[int, Link] = {}
        for buf, msg in await self._requests.dump_all(
            rtnl.RTM_GETLINK, rtnl.encode_dump(rtnl.RTM_GETLINK, 0)
        ):
            if (link := rtnl.decode_link(buf, msg)) is not None:
                links[link.index] = link
        query = rtnl.encode_dump(rtnl.RTM_GETADDR, 0)
        found = [
            rtnl.decode_address(*item) for item in await self._requests.dump_all(rtnl.RTM_GETADDR, query)
        ]
        addresses = dict(item for item in found if item is not None)
        query = rtnl.encode_dump(rtnl.RTM_GETRULE, 0)
        ruled = [rtnl.decode_rule(*item) for item in await self._requests.dump_all(rtnl.RTM_GETRULE, query)]
        return links, addresses, dict(item for item in ruled if item is not None)


def _alive(kernel: KernelSocket) -> bool:
    try:
        kernel.socket.getsockname()
    except OSError:
        return False
    return kernel.socket.fileno() >= 0
