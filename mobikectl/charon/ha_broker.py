"""The HA broker: charon's HA peer on the loopback interface, and the memory of what each IKE_SA is made of.

charon tells its HA peer everything that a standby needs. The broker keeps it for every IKE_SA of its charon
(`HaChains`), so that any one of them can be told to the charon of another node, where it appears passive. Its
memory outlives it (`HaLog`, kept by a `Holder`). docs/moves.md says what protects it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from mobikectl.charon.ha_chains import HaChains, Limits
from mobikectl.charon.ha_log import HaLog, LogFullError
from mobikectl.charon.ha_port import HaPort, owner_of_charons_port
from mobikectl.charon.protect import protect_process
from mobikectl.errors import (
    CharonUnreachableError,
    DecodeError,
    MobikectlError,
    MoveError,
    NotFoundError,
    PrivilegeError,
)
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType, IkeId
from mobikectl.wire.ha_chain import IkeSpis, mid_messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from mobikectl.charon.ha_holder import Holder
    from mobikectl.wire.ha_chain import HaChain

LOG = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
"""charon takes its peer for dead after 2.1 s (ha_segments.c); it must be less than half of that."""
PRUNE_S: Final = 30.0
SEGMENT_S: Final = 3.0
_STATUS: Final = HaMessage.of(HaType.STATUS).to_bytes()
_SERVING: Final = HaMessage.of(HaType.STATUS, (HaAttribute.SEGMENT, 1)).to_bytes()
"""charon's own STATUS after it has taken its one segment."""
_SPARE: Final = 1 << 20
"""The log is rewritten when it has this many octets more than three times what counts."""
_SILENT_S: Final = 5.0
_NOTE: Final = 0
"""The first octet of a record that is a note; that of an HA message is its version."""
MAX_NOTES: Final = 10_000
MAX_ENDED: Final = 10_000
"""So many IKE_SAs are remembered to have ended."""


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What the broker knows about itself.

    ``heard_s``: seconds since charon was heard last (it sends a message each second), None: never.
    ``missed``: messages that could not be placed; ``lost``: datagrams that did not fit the socket's buffer;
    ``refused``: datagrams that were no HA message. ``unprotected``: what could not be done to protect the
    memory. ``taken_over``: IKE_SAs known from the broker before.
    """

    sas: int
    heard_s: float | None
    missed: int
    lost: int
    refused: int
    log_octets: int
    unprotected: tuple[str, ...]
    taken_over: int

    @property
    def healthy(self) -> bool:
        """Whether charon is heard and nothing of it was missed."""
        return self.heard_s is not None and self.heard_s < _SILENT_S and not (self.missed or self.lost)


class HaBroker:
    """One charon's broker. Make it with `open_broker`; every method belongs to one event loop.

    ``charon_uid``: tells the user that charon runs as, when keys are to be sent: they go to no other's socket.
    """

    def __init__(
        self,
        port: HaPort,
        log: HaLog,
        *,
        limits: Limits | None = None,
        charon_uid: Callable[[], int] = lambda: 0,
        unprotected: tuple[str, ...] = (),
        owner: Callable[[], int | None] = owner_of_charons_port,
    ) -> None:
        if sys.byteorder != "little":
            raise PrivilegeError(
                "HA messages have another form on a big-endian machine", hint="move by redirect"
            )
        self._port = port
        self._log = log
        self._limits = limits or Limits()
        self._chains = HaChains(self._limits)
        self._charon_uid = charon_uid
        self._unprotected = unprotected
        self._owner = owner
        self._heard: float | None = None
        self._refused = 0
        self._segment = False
        self._recording = True
        self._compacted = 0
        self._notes: dict[str, str] = {}
        self._ended: dict[IkeSpis, None] = {}
        """IKE_SAs of whose end charon told, the latest last."""
        self._replaying = asyncio.Lock()
        self._news = asyncio.Event()
        self._listeners: list[Callable[[IkeSpis, bool], None]] = []
        self._taken_over = self._restore()

    def _restore(self) -> int:
        # Born long ago: a RESYNC of a charon that started meanwhile must end what is of the one before.
        born = time.monotonic() - self._limits.restart_s - 1.0
        for record in self._log.records():
            try:
                if record[0] == _NOTE:
                    self._take_note(record)
                else:
                    message = HaMessage.from_bytes(record)
                    self._chains.feed(message, born)
                    self._note_end(message)
            except (DecodeError, ValueError) as error:
                LOG.warning("a record of the HA broker before is not understood: %s", error)
        self._compact()
        return len(self._chains)

    # --- charon speaks --------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen to charon and show it a sign of life each second, until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._port.sock.fileno(), self._readable)
        try:
            pruned = time.monotonic()
            while True:
                with suppress(CharonUnreachableError):  # not there now: it speaks first when it starts
                    self._port.send(_STATUS)
                if time.monotonic() - pruned > PRUNE_S:
                    pruned = time.monotonic()
                    self._chains.prune(pruned)
                    self._compact()
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            loop.remove_reader(self._port.sock.fileno())

    def _readable(self) -> None:
        now = time.monotonic()
        for octets in self._port.receive():
            self._heard = now
            if octets in {_STATUS, _SERVING}:
                self._take_status(serving=octets == _SERVING)
                continue
            try:
                message = HaMessage.from_bytes(octets)
            except DecodeError as error:
                self._refused += 1
                LOG.warning("an HA message of charon's is not understood: %s", error)
                continue
            if self._chains.feed(message, now):
                self._record(message.to_bytes())
            self._note_end(message)
            if message.ike_id is not None:
                self._tell(IkeSpis.of(message.ike_id), ended=message.kind is HaType.IKE_DELETE)
        self._news.set()

    def _note_end(self, message: HaMessage) -> None:
        if message.ike_id is None:
            return
        spis = IkeSpis.of(message.ike_id)
        if message.kind is HaType.IKE_ADD:
            self._ended.pop(spis, None)
        elif message.kind is HaType.IKE_DELETE:
            self._ended[spis] = None
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]

    def listen(self, listener: Callable[[IkeSpis, bool], None]) -> Callable[[], None]:
        """Given what is told of each IKE_SA that changed, and whether it ended here; return what ends that.

        An IKE_SA that a restarted charon does not have any more has not ended, and nothing is told of it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, spis: IkeSpis, *, ended: bool) -> None:
        for listener in tuple(self._listeners):
            listener(spis, ended)

    def _take_status(self, *, serving: bool) -> None:
        """It has just started when it serves no segment yet: it takes it as soon as it hears of a peer without.

        Taking it, charon serves every passive IKE_SA that it has, which none told to it before may be.
        """
        if not serving:
            with suppress(CharonUnreachableError):
                self._port.send(_STATUS)
        self._segment = serving

    def _record(self, octets: bytes) -> None:
        if not self._recording:
            return
        try:
            self._log.append(octets)
            if self._log.size > _SPARE + 3 * self._compacted:
                self._compact()
        except LogFullError as error:
            self._recording = False
            LOG.error("the HA broker's memory is full: a restart will have charon rekey its SAs (%s)", error)  # noqa: TRY400 - no traceback with its locals

    def _compact(self) -> None:
        messages = (message.to_bytes() for message in self._chains.snapshot())
        self._log.rewrite((*messages, *(_note(key, value) for key, value in self._notes.items())))
        self._compacted = self._log.size

    # --- questions ------------------------------------------------------------------------------

    @property
    def status(self) -> BrokerStatus:
        """How the broker is at this moment."""
        heard = None if self._heard is None else time.monotonic() - self._heard
        return BrokerStatus(
            len(self._chains), heard, self._chains.missed, self._port.lost, self._refused,
            self._log.size, self._unprotected, self._taken_over,
        )  # fmt: skip

    def knows(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA, return whether anything is known about it."""
        return spis in self._chains

    def has_ended(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA, return whether charon told that it was deleted, or that a rekeying took its place.

        Of one that a restarted charon does not have any more it told nothing.
        """
        return spis in self._ended or self._chains.replaced(spis)

    def current(self) -> frozenset[IkeSpis]:
        """Return every established IKE_SA that is known."""
        return frozenset(self._chains.current())

    def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
        """Given an IKE_SA and the inbound SPIs of its living CHILD_SAs (None: all known), return its chain.

        Raise NotFoundError when it is unknown, ChainIncompleteError when charon has told of more than is known.
        """
        return self._chains.chain_of(spis, children)

    def rivals(self, ike_sa: HaChain | IkeSpis) -> frozenset[IkeSpis]:
        """Given an IKE_SA, or a chain of one, return the others of its peer with a CHILD_SA of the same selectors."""
        return self._chains.rivals(ike_sa)

    def untold(self, spis: IkeSpis, children: Collection[int]) -> frozenset[int] | None:
        """Given an IKE_SA and the inbound SPIs of its living CHILD_SAs, return those that charon told too little of.

        None: it told nothing of the IKE_SA itself. Rekeying what is untold has charon tell it.
        """
        return self._chains.untold(spis, children)

    async def wait_for(self, spis: IkeSpis, children: Collection[int], *, timeout: float) -> HaChain:
        """Return what `chain_of` returns as soon as everything is known that it needs.

        charon's messages come by another way than its answers, and may be read a moment later. Raise what
        `chain_of` raises when that does not happen within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._news.clear()
            try:
                return self.chain_of(spis, children)
            except NotFoundError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                continue

    # --- notes ----------------------------------------------------------------------------------

    @property
    def notes(self) -> Mapping[str, str]:
        """What was noted, by its key. It outlives this process as the chains do; it is no place for keys."""
        return self._notes

    def note(self, key: str, value: str | None) -> None:
        """Given a key and what to note under it (None: strike it out), note it. Raise MoveError: too many notes."""
        if value is None:
            if self._notes.pop(key, None) is None:
                return
        elif len(self._notes) >= MAX_NOTES and key not in self._notes:
            raise MoveError("too many handovers are under way", hint="wait until some have ended")
        else:
            self._notes[key] = value
        self._record(_note(key, value))

    def _take_note(self, record: bytes) -> None:
        key, value = json.loads(record[1:])
        if value is None:
            self._notes.pop(key, None)
        else:
            self._notes[key] = value

    # --- to charon ------------------------------------------------------------------------------

    async def replay(self, chain: HaChain) -> None:
        """Given a chain of another node, tell it to our charon: the IKE_SA appears passive, its CHILD_SAs installed.

        charon does not answer: look for it over VICI. Raise MoveError when the IKE_SA is known already (it
        would then exist twice), CharonUnreachableError when charon does not listen, or not as the right user.
        """
        async with self._replaying:
            if twice := [spis for spis in chain.generations if spis in self._chains]:
                raise MoveError(
                    f"IKE_SA {twice[0]} is known to this node already",
                    hint="it would exist twice: end the one that is there first",
                )
            self._check_owner()
            await self._has_segment()
            octets = [message.to_bytes() for message in chain.messages]
            try:
                for message, raw in zip(chain.messages, octets, strict=True):
                    self._port.send(raw)
                    self._chains.feed(message, time.monotonic())
                    self._note_end(message)
                    self._record(message.to_bytes())
                    await asyncio.sleep(0)
            except BaseException:
                self.forget(chain.spis)
                raise

    async def follow(self, spis: IkeSpis, messages: Sequence[HaMessage]) -> None:
        """Given a passive IKE_SA that was replayed, tell charon what changed of it since.

        Raise NotFoundError when it is not known, CharonUnreachableError when charon does not listen.
        """
        async with self._replaying:
            if spis not in self._chains:
                raise NotFoundError(f"IKE_SA {spis} was not told to this node", hint="replay its chain first")
            self._check_owner()
            for message in messages:
                self._port.send(message.to_bytes())
                if self._chains.feed(message, time.monotonic()):
                    self._record(message.to_bytes())

    def count_from(self, spis: IkeSpis, ours: int, theirs: int) -> None:
        """Given an IKE_SA and the message IDs of its next requests, ours and the peer's, remember them.

        For one that is about to be served from these on: charon tells of the next exchange, not of what it starts
        from, and a copy that knows older ones is not heard by the client.
        """
        if messages := self._chains.count_from(spis, ours, theirs):
            for message in messages:
                self._record(message.to_bytes())
            self._tell(spis, ended=False)

    def counts(self, spis: IkeSpis) -> tuple[int | None, int | None]:
        """Given an IKE_SA, return the message IDs of its next requests, ours and the peer's; None: not told.

        charon tells them when it sends a request, and when it takes one: the answer may not have gone out.
        """
        return self._chains.counts(spis)

    def remove(self, spis: IkeSpis) -> None:
        """Given an IKE_SA, have charon drop it without a word to the peer, and forget it.

        Raise CharonUnreachableError when charon does not listen (the IKE_SA is forgotten all the same).
        """
        self.forget(spis)
        for each in _both(spis):
            self._port.send(HaMessage.of(HaType.IKE_DELETE, (HaAttribute.IKE_ID, each)).to_bytes())

    def renumber(self, spis: IkeSpis, ours: int | None = None, theirs: int | None = None) -> None:
        """Given an IKE_SA that is served here, have charon's next request, and the peer's, have these message IDs.

        None: as it is. A request of ours that waits for its answer is sent again as soon as charon begins anything.
        charon tells of the next exchange by itself. Raise CharonUnreachableError when charon does not listen.
        """
        for each in _both(spis):
            for message in mid_messages(each, ours, theirs):
                self._port.send(message.to_bytes())

    def forget(self, spis: IkeSpis) -> None:
        """Given an IKE_SA that left this node, forget its keys."""
        if self._chains.forget(spis):
            self._compact()
            self._tell(spis, ended=True)

    def keep_only(self, living: Collection[IkeSpis]) -> int:
        """Given the SPIs of the IKE_SAs that charon has, forget all others. Return how many those were."""
        gone = self._chains.keep_only(living, time.monotonic())
        if gone:
            self._compact()
        return gone

    def resync(self) -> None:
        """Have charon tell everything again. It rekeys every CHILD_SA for that: only when nothing is known.

        Raise CharonUnreachableError when charon does not listen.
        """
        self._port.send(HaMessage.of(HaType.RESYNC, (HaAttribute.SEGMENT, 1)).to_bytes())

    async def _has_segment(self) -> None:
        deadline = time.monotonic() + SEGMENT_S
        while not self._segment:
            self._news.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                raise CharonUnreachableError(
                    f"charon has not taken its HA segment within {SEGMENT_S:g} s",
                    hint="set segment_count = 1 and no ha secret; see charon's log",
                ) from None

    def _check_owner(self) -> None:
        owner, charon = self._owner(), self._charon_uid()
        if owner != charon:
            who = "nobody" if owner is None else f"user {owner}"
            raise CharonUnreachableError(
                f"{who} has charon's HA port, but charon is user {charon}: no keys are sent there",
                hint="load charon's ha plugin with local = 127.0.0.2; find who has the port with ss -lunp",
            )

    def close(self) -> None:
        """Let go of port and memory; the holder keeps both."""
        self._port.close()
        self._log.close()


def _both(spis: IkeSpis) -> tuple[IkeId, IkeId]:
    """Return both names of an IKE_SA: charon's table is keyed by both SPIs and by who is the initiator."""
    return IkeId(*spis, initiator=False), IkeId(*spis, initiator=True)


def _note(key: str, value: str | None) -> bytes:
    return bytes([_NOTE]) + json.dumps([key, value]).encode()


@asynccontextmanager
async def open_broker(
    holder: Holder,
    *,
    limits: Limits | None = None,
    charon_uid: Callable[[], int] = lambda: 0,
    protect: bool = True,
    owner: Callable[[], int | None] = owner_of_charons_port,
    bind: Callable[[], HaPort] = HaPort.bind,
) -> AsyncIterator[HaBroker]:
    """Given who keeps its descriptors, yield the broker of the charon in this network namespace, at work.

    Without a memory of a broker before, charon is asked to tell everything again, for which it rekeys its CHILD_SAs.
    Blocks for a moment while the holder is asked. Raise HaPortTakenError when another process has the port,
    PrivilegeError without CAP_NET_RAW and CAP_NET_ADMIN, SidecarError when the holder does not answer.
    """
    unprotected = protect_process() if protect else ()
    opened = _Opened.from_holder(holder, bind)
    for each in unprotected:
        LOG.warning("%s", each)
    broker = HaBroker(
        opened.port, opened.log, limits=limits, charon_uid=charon_uid, unprotected=unprotected, owner=owner
    )
    running = asyncio.create_task(broker.run())
    if opened.fresh:
        with suppress(CharonUnreachableError):  # it will speak when it starts
            broker.resync()
    try:
        yield broker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        broker.close()


@dataclass(frozen=True, slots=True)
class _Opened:
    port: HaPort
    log: HaLog
    fresh: bool
    """There is no memory of a broker before."""

    @classmethod
    def from_holder(cls, holder: Holder, bind: Callable[[], HaPort]) -> Self:
        held = holder.take()
        kept = {name: held.pop(name) for name in ("port", "log-a", "log-b") if name in held}
        for fd in held.values():
            os.close(fd)
        try:
            if "port" in kept:
                port = HaPort.adopt(socket.socket(fileno=kept.pop("port")))
            else:
                port = bind()
                holder.put("port", port.sock.fileno())
        except MobikectlError:
            for fd in kept.values():
                os.close(fd)
            raise
        fresh = not {"log-a", "log-b"} <= kept.keys()
        if not fresh:
            log = HaLog((kept["log-a"], kept["log-b"]))
        else:
            log = HaLog.create()
            for name, fd in zip(("log-a", "log-b"), log.fds, strict=True):
                holder.put(name, fd)
        return cls(port, log, fresh)
