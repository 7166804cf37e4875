"""A planned silence (draft-kivinen-mobike-protocol-00 section 5): tell the gateways, and tell them that it is over."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.bridge.bridge import Bridge
from mobikectl.bridge.events import Delivered, NotBridged, Over, Refused, Restarted
from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.errors import CharonTimeoutError, NotFoundError
from mobikectl.protocol.addrnotify import DisconnectAllowed
from mobikectl.wire.bridge import Spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.bridge.events import Told
    from mobikectl.bridge.session import BridgeSession
    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.charon.session import Session
    from mobikectl.model import IkeSa
    from mobikectl.protocol.addrnotify import AddressNotifyPeer
    from mobikectl.protocol.machine import Event

READY_S = 10.0
"""How long charon and the plugin may take to tell what there is."""


class Outcome(Enum):
    """What the gateway said."""

    KEPT = "kept"
    """It keeps the IKE_SA for so long."""
    REFUSED = "refused"
    """It does not; the IKE_SA is as it was."""
    NOT_UNDERSTOOD = "not-understood"
    """Its charon answered, but no bridge is behind it: it will treat the silence as any other."""
    NO_ANSWER = "no-answer"
    GONE = "gone"
    """The IKE_SA ended meanwhile."""
    BACK = "back"
    """It knows that the silence is over."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What became of one IKE_SA's request. ``most_s``: when refused, what the gateway would keep it for."""

    ike_sa: int
    connection: str
    peer: str
    outcome: Outcome
    most_s: int | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the gateway does what was asked for."""
        return self.outcome in {Outcome.KEPT, Outcome.BACK}


async def disconnect(
    charon: Session, plugin: Rmobike, seconds: int, *, only: Callable[[IkeSa], bool], timeout_s: float
) -> list[Planned]:
    """Given for how long this side will be silent, tell the gateways of the IKE_SAs for which `only` holds.

    Return what each said within `timeout_s` seconds. Raise NotFoundError when there is no such IKE_SA, and CharonError
    when charon or its plugin cannot be reached.
    """

    def leave(machine: AddressNotifyPeer, now: float) -> None:
        machine.disconnect(seconds, now)

    return await _each(charon, plugin, only, leave, _left, timeout_s)


async def end(
    charon: Session, plugin: Rmobike, *, only: Callable[[IkeSa], bool], timeout_s: float
) -> list[Planned]:
    """Tell the gateways of the IKE_SAs for which `only` holds that the silence is over: announce the address in use.

    Returns and raises as `disconnect` does.
    """

    def come_back(machine: AddressNotifyPeer, now: float) -> None:
        machine.notify(machine.own, now)

    return await _each(charon, plugin, only, come_back, _returned, timeout_s)


def _left(event: Event) -> Outcome | None:
    match event:
        case DisconnectAllowed():
            return Outcome.KEPT
        case Refused():
            return Outcome.REFUSED
    return _ended(event)


def _returned(event: Event) -> Outcome | None:
    return Outcome.BACK if isinstance(event, Delivered) else _ended(event)


def _ended(event: Event) -> Outcome | None:
    match event:
        case NotBridged():
            return Outcome.NOT_UNDERSTOOD
        case Over():
            return Outcome.GONE
        case Restarted(reason=reason) if reason != NotBridged.REASON:
            return Outcome.NO_ANSWER
    return None


class _Ears:
    """Hands the events of each IKE_SA to who waits for them."""

    def __init__(self) -> None:
        self._queues: dict[int, asyncio.Queue[Event]] = {}

    def tell(self, told: Told) -> None:
        if told.ike_id in self._queues:
            self._queues[told.ike_id].put_nowait(told.event)

    def of(self, ike_id: int) -> asyncio.Queue[Event]:
        return self._queues.setdefault(ike_id, asyncio.Queue())


async def _each(
    charon: Session,
    plugin: Rmobike,
    only: Callable[[IkeSa], bool],
    call: Callable[[AddressNotifyPeer, float], None],
    meaning: Callable[[Event], Outcome | None],
    timeout_s: float,
) -> list[Planned]:
    await plugin.status()  # the clear error, when there is no plugin
    ears = _Ears()
    settings = BridgeSettings(speak=frozenset({Spoken.KIVINEN}), serve=False)
    bridge = Bridge(charon, plugin, settings, tell=ears.tell, only=only)
    running = asyncio.ensure_future(bridge.run())
    try:
        await _until_ready(bridge)
        asked = (
            _one(session, ears.of(session.sa.uniqueid), call, meaning, timeout_s)
            for session in _sorted(bridge.sessions)
        )
        found = list(await asyncio.gather(*asked))
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    if not found:
        raise NotFoundError(
            "there is no such IKE_SA",
            hint="`mobikectl sas` shows what there is; initiate it again if it ended",
        )
    return found


async def _until_ready(bridge: Bridge) -> None:
    try:
        async with asyncio.timeout(READY_S):
            await bridge.ready()
    except TimeoutError as error:
        raise CharonTimeoutError(
            f"charon did not tell its IKE_SAs within {READY_S:g} s", hint="it hangs or is overloaded"
        ) from error


def _sorted(sessions: Iterable[BridgeSession]) -> list[BridgeSession]:
    return sorted(sessions, key=lambda session: session.sa.uniqueid)


async def _one(
    session: BridgeSession,
    events: asyncio.Queue[Event],
    call: Callable[[AddressNotifyPeer, float], None],
    meaning: Callable[[Event], Outcome | None],
    timeout_s: float,
) -> Planned:
    sa = session.sa
    outcome, most, reason = Outcome.NO_ANSWER, None, f"nothing was heard within {timeout_s:g} s"
    try:
        async with asyncio.timeout(timeout_s):
            await session.ask(call)
            while (found := meaning(event := await events.get())) is None:
                pass
        outcome, reason = found, getattr(event, "reason", "")
        most = event.most_s if isinstance(event, Refused) else None
    except TimeoutError:
        pass
    return Planned(sa.uniqueid, sa.name, sa.remote_id, outcome, most, reason)
