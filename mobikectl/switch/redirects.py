"""Redirects that are asked for at about the same time become as few VICI commands as possible.

charon redirects one IKE_SA (``ike-id``) or all in a range of peer addresses (``peer-ip``). A range is used where nobody
else is in it. One command for 176 clients takes charon as long as one for four of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.errors import CharonError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mobikectl.model import IkeSa, IpAddress

TOGETHER_S = 0.01
"""Redirects that come within so many seconds go together."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What one command redirects: one IKE_SA, or all from one peer address to another."""

    sas: tuple[int, ...]
    """Unique ids."""
    peer_ip: str | None = None
    """As VICI's ``peer-ip``; None: by the unique id."""


def selectors(chosen: Iterable[int], everybody: Iterable[IkeSa]) -> list[Selector]:
    """Given the unique ids to be redirected to one gateway, and all IKE_SAs, return what selects exactly those."""
    wanted = set(chosen)
    places: dict[IpAddress, list[IkeSa]] = {}
    for sa in everybody:
        places.setdefault(sa.path.remote, []).append(sa)
    found: list[Selector] = [Selector((uniqueid,)) for uniqueid in sorted(wanted)]
    runs: list[list[IpAddress]] = [[]]
    for remote in sorted(places, key=lambda remote: (remote.version, int(remote))):
        whole = all(sa.uniqueid in wanted for sa in places[remote])
        if not whole or (runs[-1] and runs[-1][-1].version != remote.version):
            runs.append([])
        if whole:
            runs[-1].append(remote)
    for run in runs:
        together = tuple(sorted(sa.uniqueid for remote in run for sa in places[remote]))
        if len(together) > 1:
            found = [selector for selector in found if selector.sas[0] not in together]
            found.append(Selector(together, str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"))
    return found


class Redirects:
    """Redirects IKE_SAs, several by one command. In the place of a redirect of one: await `redirect`.

    ``everybody`` returns all IKE_SAs of this charon; ``command`` redirects one (its unique id, None) or those of a
    range (None, ``peer-ip``) to a gateway, and raises CharonError.
    """

    def __init__(
        self,
        everybody: Callable[[], Iterable[IkeSa]],
        command: Callable[[int | None, str | None, IpAddress], Awaitable[None]],
    ) -> None:
        self._everybody = everybody
        self._command = command
        self._waiting: dict[IpAddress, dict[int, asyncio.Future[None]]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def redirect(self, uniqueid: int, gateway: IpAddress) -> None:
        """Given an IKE_SA and a gateway, have charon redirect it. Raise CharonError."""
        group = self._waiting.get(gateway)
        if group is None:
            group = self._waiting[gateway] = {}
            task = asyncio.create_task(self._send(gateway))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        future = group.setdefault(uniqueid, asyncio.get_running_loop().create_future())
        await asyncio.shield(future)

    async def _send(self, gateway: IpAddress) -> None:
        await asyncio.sleep(TOGETHER_S)
        group = self._waiting.pop(gateway)
        for selector in selectors(group, self._everybody()):
            single = selector.sas[0] if selector.peer_ip is None else None
            try:
                await self._command(single, selector.peer_ip, gateway)
            except CharonError as error:
                for uniqueid in selector.sas:
                    group[uniqueid].set_exception(error)
            else:
                for uniqueid in selector.sas:
                    group[uniqueid].set_result(None)
