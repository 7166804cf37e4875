"""Two gateways without charons: what a handover does to either is seen, and each can fail at any step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from mobikectl.charon.rmobike_move import AHEAD
from mobikectl.errors import (
    CharonUnreachableError,
    MoveError,
    NotFoundError,
    TransferRefusedError,
    TransferUnreachableError,
)
from mobikectl.netlink.xfrm import ReplayState
from mobikectl.node.control import BusyError, HeldSa
from mobikectl.node.handing import Handing, HandingTimes, Order
from mobikectl.node.intake import Intake, IntakeTimes
from mobikectl.wire.ha import HaAttribute, HaMessage, HaType, Host, IkeId, SecretBytes
from mobikectl.wire.ha_chain import HaChain, IkeSpis
from mobikectl.wire.handover import OFFER, RECALL, START, Offer, Recall, Start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from mobikectl.model import IpAddress

T = TypeVar("T")
A = HaAttribute
MIDS = (HaType.IKE_MID_INITIATOR, HaType.IKE_MID_RESPONDER)
SPIS, ANEW = IkeSpis(7, 8), IkeSpis(9, 10)
CLIENT = Host(IPv4Address("198.18.1.2"), 4500)
HERE, THERE = Host(IPv4Address("198.18.11.10"), 4500), Host(IPv4Address("198.18.12.10"), 4500)


def chain(children: Collection[int] = (100,)) -> HaChain:
    ike, secret = IkeId(*SPIS, initiator=False), SecretBytes(b"s" * 32)
    made = [
        HaMessage.of(
            HaType.CHILD_ADD, (A.IKE_ID, ike), (A.INITIATOR, 0), (A.INBOUND_SPI, spi), (A.OUTBOUND_SPI, spi + 1),
            (A.CONFIG_NAME, "net"), (A.NONCE_I, secret), (A.NONCE_R, secret),
        )
        for spi in children
    ]  # fmt: skip
    return HaChain(
        (
            HaMessage.of(
                HaType.IKE_ADD, (A.IKE_ID, ike), (A.NONCE_I, secret), (A.NONCE_R, secret), (A.SECRET, secret)
            ),
            HaMessage.of(HaType.IKE_UPDATE, (A.IKE_ID, ike), (A.CONFIG_NAME, "vpn")),
            *made,
        )
    )


@dataclass
class Client:
    """Whom message IDs matter to: what it sends next, and what it takes next of the gateways."""

    takes: int = 4
    sends: int = 9

    def takes_it(self, mid: int) -> bool:
        """It is asked something, and answers unless the message ID is another."""
        self.takes += (taken := mid == self.takes)
        return taken

    def comes(self, expected: int) -> bool:
        """It asks something of its own, and is answered unless another message ID is expected."""
        self.sends += (answered := expected == self.sends)
        return answered


@dataclass
class Gateway:
    """A charon with its HA broker and its kernel: implements SaControl, ChainKeeper and Sequences."""

    address: Host
    sa: HeldSa | None = None
    knows: frozenset[str] = frozenset({"vpn"})
    client_answers: bool = True
    takes_chains: bool = True
    busy_times: int = 0
    switch_fails: bool = False
    expected: int = 0
    """The client drops requests of lower message IDs: it had them from somebody else."""
    down: bool = False
    did: list[str] = field(default_factory=list)
    kernel: dict[int, ReplayState] = field(default_factory=dict)
    userland: bool = False
    rekeyed: list[int] = field(default_factory=list)
    ended: set[IkeSpis] = field(default_factory=set)
    counted: tuple[int, int] | None = None
    told: tuple[int, int] | None = None
    """What its charon told of its message IDs since."""
    client: Client | None = None
    coming: bool = False
    """It was asked to come here, and asks that until it is answered."""
    chain: HaChain | None = None
    """What its HA broker knows."""
    beside: HeldSa | None = None
    """Another IKE_SA of the client, for the same traffic."""
    listeners: list[Callable[[IkeSpis, bool], None]] = field(default_factory=list)

    def serve(self) -> None:
        self.sa = HeldSa(SPIS, 1, True, False, False, 4, 9, self.address, CLIENT, ((100, 101),))
        self.kernel = {100: replay(oseq=0, seq=500), 101: replay(oseq=700)}
        self.chain = chain()

    def client_comes_anew(self) -> None:
        """It has left its IKE_SA, and makes another one here."""
        self.beside = HeldSa(ANEW, 9, True, False, False, 0, 2, self.address, CLIENT, ((300, 301),))
        for listener in self.listeners:
            listener(ANEW, False)

    @property
    def serving(self) -> bool:
        return self.sa is not None and self.sa.serving

    def _note(self, what: str) -> None:
        if self.down:
            raise CharonUnreachableError("charon is down")
        self.did.append(what)

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        if self.down:
            raise CharonUnreachableError("charon is down")
        if self.coming and self.sa is not None and self.client is not None and self.sa.serving:
            self.coming = not self.client.comes(self.sa.mid_responder)
            self.sa = replace(self.sa, mid_responder=self.sa.mid_responder + (not self.coming))
        return self.beside if spis == ANEW else self.sa if spis == SPIS else None

    async def freeze(self, spis: IkeSpis) -> HeldSa | None:
        if self.busy_times:
            self.busy_times -= 1
            raise BusyError("an exchange is under way")
        self._note("freeze")
        if self.sa is not None:
            self.sa = replace(self.sa, serving=False, frozen=True)
        return self.sa

    async def passivate(self, spis: IkeSpis) -> bool:
        if self.down:
            raise CharonUnreachableError("charon is down")
        return self.sa is not None

    async def thaw(self, spis: IkeSpis) -> bool:
        self._note("thaw")
        if self.sa is not None and spis == SPIS:
            self.sa = replace(self.sa, serving=True, frozen=False)
        return self.sa is not None

    async def activate(
        self,
        held: HeldSa,
        *,
        mids: tuple[int, int] | None,
        roam: bool,
        peer_r: bool,
        own_r: bool,
    ) -> int:
        self._note(f"activate {roam=} {peer_r=} {own_r=}")
        assert mids is not None
        ours, theirs = mids
        if self.sa is None:
            raise MoveError("charon does not have it")
        if self.client is not None:
            ours, theirs = (
                ours + (roam and self.client.takes_it(ours)),
                theirs + (not roam and self.client.comes(theirs)),
            )
            self.told = max(ours, mids[0] + roam), theirs
        elif self.client_answers:
            ours, theirs = (ours + 1, theirs) if roam else (ours, theirs + 1)
        elif not roam:
            ours += 1  # it answers what charon may ask, from where it is
        self.sa = replace(
            held, serving=True, frozen=False, mid_initiator=ours, mid_responder=theirs, busy=False
        )
        return AHEAD

    async def drop(self, spis: IkeSpis) -> bool:
        self._note("drop")
        had, self.sa = self.sa is not None, None
        return had

    async def ask_to_switch(self, ike_id: int, address: IpAddress, *, timeout: float) -> None:
        self._note(f"switch {address}")
        if self.sa is not None:
            if self.client is not None:
                self.coming = self.client.takes_it(self.sa.mid_initiator) and address == self.address.address
            self.sa = replace(self.sa, mid_initiator=self.sa.mid_initiator + 1)
        if self.switch_fails:
            raise MoveError("the peer does not answer")

    async def call_back(self, ike_id: int) -> None:
        self._note("call back")
        heard = self.sa is not None and self.sa.mid_initiator >= self.expected
        if self.sa is not None and self.client is not None:
            heard = self.client.takes_it(self.sa.mid_initiator)
        if self.sa is not None and heard:
            self.sa = replace(self.sa, mid_initiator=self.sa.mid_initiator + 1)

    def renumber(self, spis: IkeSpis, ours: int | None = None, theirs: int | None = None) -> None:
        self._note(f"renumber {ours}" if theirs is None else f"renumber theirs {theirs}")
        if self.sa is not None and ours is not None:
            self.sa = replace(self.sa, mid_initiator=ours)
        if self.sa is not None and theirs is not None:
            self.sa = replace(self.sa, mid_responder=theirs)

    async def rekey_children(self, ike_id: int, children: Collection[int]) -> None:
        self.rekeyed += children

    async def connections(self) -> frozenset[str]:
        return self.knows

    async def wait_for(self, spis: IkeSpis, children: Collection[int], *, timeout: float) -> HaChain:
        if set(children) != {100}:
            raise NotFoundError("not known")
        return chain()

    async def replay(self, chain: HaChain) -> None:
        self._note("replay")
        self.chain = chain
        if self.takes_chains:
            ours, theirs = [
                each.need(A.MID, int) for kind in MIDS for each in chain.messages if each.kind is kind
            ] or [1, 1]
            self.sa = HeldSa(SPIS, 5, False, False, False, ours, theirs, self.address, CLIENT, ((100, 101),))
            self.kernel = {100: replay(), 101: replay()}

    def count_from(self, spis: IkeSpis, ours: int, theirs: int) -> None:
        self.counted = ours, theirs

    def counts(self, spis: IkeSpis) -> tuple[int | None, int | None]:
        return self.told or self.counted or (None, None)

    def remove(self, spis: IkeSpis) -> None:
        self.chain = None
        self._note("remove")
        self.sa = None

    def forget(self, spis: IkeSpis) -> None:
        self.chain = None

    def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
        if self.chain is None:
            raise NotFoundError("not known")
        return self.chain.counting(*self.counts(spis))

    async def follow(self, spis: IkeSpis, messages: Any) -> None:
        self._note("follow")

    def listen(self, listener: Callable[[IkeSpis, bool], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def rivals(self, ike_sa: HaChain | IkeSpis) -> frozenset[IkeSpis]:
        ours = ike_sa.spis if isinstance(ike_sa, HaChain) else ike_sa
        there = {each.spis for each in (self.sa, self.beside) if each is not None}
        return frozenset(there - {ours}) if self.beside is not None else frozenset()

    def has_ended(self, spis: IkeSpis) -> bool:
        return spis in self.ended

    def end(self) -> None:
        """Its client deletes it, or a rekeying takes its place."""
        self.sa = None
        self.ended = {SPIS}

    async def read(self, daddr: IpAddress, spi: int) -> ReplayState | None:
        return None if self.userland else self.kernel.get(spi)

    async def start_after(self, daddr: IpAddress, spi: int, last: int) -> ReplayState:
        assert daddr == CLIENT.address
        self.kernel[spi] = replace(self.kernel[spi], oseq=last)
        return self.kernel[spi]

    async def mark_received(self, daddr: IpAddress, spi: int, received: Any) -> ReplayState:
        self.kernel[spi] = replace(self.kernel[spi], seq=received.highest)
        return self.kernel[spi]


def replay(oseq: int = 0, seq: int = 0) -> ReplayState:
    return ReplayState(oseq=oseq, seq=seq, bitmap=0xFFFF, window=32)


@dataclass
class Wire:
    """The transfer between them. ``troubles``: by verb, what happens to its next requests."""

    intake: Intake
    troubles: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    out: bool = False

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        self.asked.append(verb)
        waiting = self.troubles.get(verb, [])
        trouble = waiting.pop(0) if waiting else ""
        if trouble == "unreachable":
            raise TransferUnreachableError(f"{node}: nobody answers", maybe_done=False)
        if trouble == "request lost":
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True)
        handlers: dict[str, Any] = {
            OFFER: (Offer, self.intake.offer),
            START: (Start, self.intake.start),
            RECALL: (Recall, self.intake.recall),
        }
        kind, handle = handlers[verb]
        try:
            answer = await handle(kind.from_secret(payload))
        except (MoveError, CharonUnreachableError) as error:
            raise TransferRefusedError(f"{node}: {error}", kind=type(error).__name__) from error
        if trouble == "answer lost":
            raise TransferUnreachableError(f"{node}: no answer", maybe_done=True)
        secret: SecretBytes = answer.to_secret()
        return secret

    async def is_out(self, node: str, address: IpAddress) -> bool:
        return self.out


class Notes:
    """What outlives the target's sidecar."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def note(self, key: str, value: str | None) -> None:
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value


class World:
    """A source that serves the IKE_SA, and a target."""

    def __init__(self) -> None:
        self.here, self.there = Gateway(HERE), Gateway(THERE)
        self.here.serve()
        self.notes = Notes()
        self.heard: list[int] = []
        self.intake = self.new_intake()
        self.wire = Wire(self.intake)
        self.states: list[str] = []
        self.left: set[IkeSpis] = set()
        """What those who stand by claim."""

    def new_intake(self) -> Intake:
        return Intake(
            self.there, self.there, self.there,
            is_ours=lambda address: address == THERE.address,
            notes=self.notes,
            times=IntakeTimes(appear_s=0.2, answer_s=0.1, expire_s=0.2, look_s=0.005),
            ended=self.hear_of,
        )  # fmt: skip

    async def hear_of(self, ike_id: int) -> None:
        """The model of the target's IKE_SAs looks again at one that charon told it of, and ended silently."""
        self.heard.append(ike_id)

    def restart_target(self) -> None:
        """The target's sidecar starts anew: only its charon remembers."""
        self.intake = self.wire.intake = self.new_intake()

    @property
    def handing(self) -> Handing:
        return Handing(
            self.here, self.here, self.here, self.wire,
            is_out=self.wire.is_out,
            times=HandingTimes(
                chain_s=0.1, end_s=0.02, quiet_s=0.2, freeze_s=0.1, start_s=1.0, hold_s=0.01,
                again_s=(0.01, 0.05), recall_s=0.5,
            ),
            told=lambda _, handover: self.states.append(handover.state.value),
            is_left=self.is_left,
        )  # fmt: skip

    async def is_left(self, spis: IkeSpis) -> bool:
        return spis in self.left

    @property
    def served(self) -> int:
        return self.here.serving + self.there.serving


def order(*, r: bool = False) -> Order:
    return Order(3, 5, "gw1/client#1", SPIS, "gw2", ip_address("198.18.12.10"), peer_r=r, own_r=r)


async def within(seconds: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await work
