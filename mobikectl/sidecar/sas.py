"""The model of charon's SAs as executor and pilot want to see it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.charon import commands
from mobikectl.charon.sa_events import SaRekeyed
from mobikectl.errors import CharonError, CharonTimeoutError, NetlinkError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.charon.session import Session
    from mobikectl.charon.tracker import SaTracker
    from mobikectl.model import IkeSa, IpAddress, Path
    from mobikectl.netlink import KernelSas

REKEYS = 4096
"""Former unique ids that are remembered."""


class Sas:
    """Finds SAs by any unique id that they had, and waits for what becomes of them."""

    def __init__(self, tracker: SaTracker) -> None:
        self._tracker = tracker
        self._events = tracker.subscribe()
        self._successors: OrderedDict[int, int] = OrderedDict()

    def catch_up(self) -> None:
        """Take in who succeeded whom.

        Done at each look-up too: somebody may ask between a rekey and the moment when its event is handled, and
        the SA must not seem to be gone then.
        """
        for event in self._events.take():
            if isinstance(event, SaRekeyed):
                self._successors[event.old_id] = event.sa.uniqueid
        while len(self._successors) > REKEYS:
            self._successors.popitem(last=False)

    def find(self, uniqueid: int) -> IkeSa | None:
        """Given an id that the SA has or had before a rekey, return the SA as it is now, or None."""
        return self._tracker.sas.get(self._now(uniqueid))

    def shared(self, remote: IpAddress, uniqueid: int) -> bool:
        """Given a peer's address and an SA, return whether another SA uses that address too."""
        mine = self._now(uniqueid)
        return any(sa.path.remote == remote and sa.uniqueid != mine for sa in self._tracker.sas.values())

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        """Ask charon for one SA with its children and counters; None: it is gone. Raise CharonError.

        A rekeying may take it away under the question: then its successor is asked for.
        """
        while True:
            asked = self._now(uniqueid)
            sa = await self._tracker.refresh(asked)
            if sa is not None or self._now(uniqueid) == asked:
                return sa

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until ``predicate`` is true; return whether it is."""
        try:
            await self._tracker.until(lambda _: predicate(), timeout)
        except CharonTimeoutError:
            return predicate()
        return True

    def _now(self, uniqueid: int) -> int:
        self.catch_up()
        seen: set[int] = set()
        while uniqueid not in self._tracker.sas and uniqueid in self._successors and uniqueid not in seen:
            seen.add(uniqueid)
            uniqueid = self._successors[uniqueid]
        return uniqueid


class GatewayAddresses:
    """Which further addresses each connection's gateway has, as charon's configuration names them.

    Stock charon does not tell over VICI what the peer announced in ADDITIONAL_IP4_ADDRESS (RFC 4555
    section 3.4); the addresses configured for the connection are what can be learnt.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._by_connection: dict[str, tuple[IpAddress, ...]] = {}
        self._to_somebody: tuple[str, ...] = ()

    async def read(self) -> None:
        """Ask charon for its connections. What was known stays when it does not answer."""
        try:
            async with asyncio.timeout(5.0):
                conns = await commands.list_conns(self._session)
        except (CharonError, TimeoutError):
            return
        self._by_connection = {conn.name: _addresses(conn.remote_addrs) for conn in conns}
        self._to_somebody = tuple(conn.name for conn in conns if any(map(_is_somebody, conn.remote_addrs)))

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections whose peer is configured by address or name: those that can be expected to be up."""
        return self._to_somebody

    def of(self, sa: IkeSa) -> tuple[IpAddress, ...]:
        """Given an IKE_SA, return its gateway's further addresses."""
        return self._by_connection.get(sa.name, ())


def _addresses(texts: tuple[str, ...]) -> tuple[IpAddress, ...]:
    found: list[IpAddress] = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue  # a name, a subnet, a range, %any: no single address
    return tuple(found)


def _is_somebody(text: str) -> bool:
    """Whether a remote address as charon tells it names one peer: no %any, subnet or range."""
    if text.startswith("%") or "/" in text:
        return False
    first, dash, _ = text.partition("-")
    return not (dash and _addresses((first,)))


class KernelChildCheck:
    """Looks in the kernel whether an IKE_SA's CHILD_SAs are on a pair of addresses."""

    def __init__(self, kernel: KernelSas) -> None:
        self._kernel = kernel

    async def __call__(self, sa: IkeSa, path: Path) -> str | None:
        """Given an IKE_SA and the path that it should be on, return None, or which CHILD_SA is elsewhere."""
        for child in sa.children:
            for source, destination, spi in (
                (path.remote, path.local, child.spi_in),
                (path.local, path.remote, child.spi_out),
            ):
                try:
                    state = await self._kernel.get(destination, spi)
                except NotFoundError:
                    return (
                        f"the kernel has no ESP state {spi:#010x} of CHILD_SA {child.name} to {destination}"
                    )
                except NetlinkError as error:
                    return f"the kernel could not be asked about CHILD_SA {child.name}: {error}"
                if state.saddr != source:
                    return f"CHILD_SA {child.name} still comes from {state.saddr}"
        return None
