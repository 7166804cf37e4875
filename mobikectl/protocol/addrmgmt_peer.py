"""The machine of draft-dupont-ikev2-addrmgmt-06: see `mobikectl.protocol.addrmgmt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mobikectl.protocol.addrmgmt import (
    COOKIE_OCTETS,
    MOBILE,
    RECEIVE_TABLE,
    TABLE,
    AddrMgmtPolicy,
    Asked,
    BehindNat,
    Cause,
    ChildPair,
    Declined,
    Ended,
    Kind,
    NatFound,
    PeerSet,
    ReceiveCause,
    Receiving,
    Routability,
    SasUpdated,
    State,
    UpdateDeclined,
    Wanted,
    marks,
    read_request,
    require_global,
    update_payloads,
    with_bundles,
)
from mobikectl.protocol.exchange import (
    Admission,
    Delete,
    Endpoint,
    Exchange,
    Exchanger,
    Message,
    Pair,
    Payload,
    Request,
)
from mobikectl.protocol.machine import LocalProtocolError, Machine, RemoteProtocolError, TransitionTable
from mobikectl.wire.dupont import (
    NatPrevention,
    PeerAddressDestination,
    PeerAddressOperation,
    PeerAddressSource,
    PeerAddressUpdate,
    RrCookie,
    UpdateProtocol,
    nat_prevention_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.model import IpAddress

MAX_PEER_ADDRESSES = 64
UDP_LENGTH = 0
"""Stands for the UDP length in NAT_PREVENTION's pseudo-header: a machine does not know its packets' sizes."""


class AddrMgmtPeer(Machine[State, Cause]):
    """One end. ``own``: this side's addresses, the first one primary; ``spi``: a fresh SPI.

    ``sa_pairs`` tells the pair of each CHILD_SA pair, `pair` that of the IKE_SA.
    """

    table: ClassVar[TransitionTable[State, Cause]] = TABLE

    def __init__(
        self,
        own: Iterable[IpAddress],
        policy: AddrMgmtPolicy | None = None,
        *,
        children: Iterable[ChildPair] = (),
        spi: int = 1,
    ) -> None:
        super().__init__(State.IDLE)
        self.policy = policy or AddrMgmtPolicy()
        if self.policy.window < 2:
            raise LocalProtocolError(
                "a window of 1", hint="one place is needed for return routability checks"
            )
        self.own = set(own)
        self.children = tuple(children)
        self.receiving = Receiving.QUIET
        self.peer: set[IpAddress] = set()
        self.sa_pairs: dict[ChildPair, Pair] = {}
        self.spis = (spi, 0)
        self._spi = spi
        self._pair: Pair | None = None
        self._exchanger: Exchanger[Kind] = Exchanger(self.policy.retransmission, window=self.policy.window)
        self._outbox: list[Message] = []
        self._verified: set[IpAddress] = set()
        self._wanted: Wanted | None = None
        self._agreed: Pair | None = None
        self._unsettled = False
        """A superseded update may have been carried out since `_agreed`."""
        self._set_changes: list[tuple[IpAddress, PeerAddressOperation]] = []
        self._held: dict[int, Message] = {}
        """Requests about addresses that must wait for their turn (section 3.4)."""
        self._asked: Asked | None = None
        self._arrivals: list[Pair] = []
        """Over which pairs copies of the request being checked arrived, newest first."""

    @property
    def pair(self) -> Pair:
        """The IKE_SA's pair."""
        if self._pair is None:
            raise LocalProtocolError("there is no IKE_SA yet", hint="connect first")
        return self._pair

    # --- what can be asked for

    def connect(self, pair: Pair, now: float) -> None:
        """Given the pair, start (section 3.1: it stays the same until IKE_AUTH is done)."""
        self._go(Cause.CONNECT)
        self._pair = pair
        self._exchanger = Exchanger(self.policy.retransmission, window=self.policy.window, spis=self.spis)
        self._exchanger.open(Kind.INIT, (self._prevention(pair),), now, exchange=Exchange.IKE_SA_INIT)

    def update(
        self,
        pair: Pair,
        now: float,
        *,
        children: Iterable[ChildPair] | None = None,
        ike: bool = True,
        only: bool = False,
        delete: Iterable[IpAddress] = (),
    ) -> None:
        """Given the new primary addresses, tell the peer to use them (section 3.4, appendix B).

        ``children``: None for all SAs; else those (and what is nested with them), and the IKE_SA if ``ike``.
        ``only``: leave the SPD. ``delete``: own addresses that are gone. Raise LocalProtocolError.
        """
        delete = tuple(delete)
        require_global([pair.local.ip, pair.remote.ip, *delete])
        chosen = None if children is None else with_bundles(children, self.children)
        self._go(Cause.CHANGE)
        for request in self._exchanger.outstanding:
            if request.kind is Kind.UPDATE:
                request.superseded = self._unsettled = True
        self._wanted = Wanted(pair, chosen, ike or chosen is None, only, delete)
        self.own = (self.own | {pair.local.ip}) - set(delete)
        if self._wanted.ike:
            self._pair = pair
            self._exchanger.moved(now)

    def keep(self, now: float) -> None:
        """After a refusal, go on with the pair used before. Raise LocalProtocolError."""
        if self._unsettled and self._agreed is not None:
            self.update(self._agreed, now)
            return
        self._go(Cause.KEEP)
        if self._agreed is not None:
            self._pair = self._agreed
        self._exchanger.moved(now)

    def add(self, addresses: Iterable[IpAddress], now: float) -> None:
        """Given own addresses, add them to the set that the peer knows (section 3.3)."""
        self._change_set(addresses, PeerAddressOperation.ADD, now)

    def delete(self, addresses: Iterable[IpAddress], now: float) -> None:
        """Given own alternate addresses, delete them from the set that the peer knows (section 3.3)."""
        addresses = tuple(addresses)
        if self._pair is not None and self._pair.local.ip in addresses:
            raise LocalProtocolError(
                "the primary address cannot be deleted", hint="update() to another one first"
            )
        self._change_set(addresses, PeerAddressOperation.DELETE, now)

    def _change_set(
        self, addresses: Iterable[IpAddress], operation: PeerAddressOperation, now: float
    ) -> None:
        del now
        addresses = tuple(addresses)
        require_global(addresses)
        if self._state not in MOBILE:
            raise LocalProtocolError(
                f"no address management in state {self._state.name}", hint="connect first"
            )
        adds = operation is PeerAddressOperation.ADD
        self.own = self.own | set(addresses) if adds else self.own - set(addresses)
        self._set_changes += [(ip, operation) for ip in addresses]

    def close(self, now: float) -> None:
        """Delete the IKE_SA."""
        self._end(Cause.CLOSE)
        if self._exchanger.free:
            request = self._exchanger.open(Kind.DELETE, (Delete(),), now)
            sent = self._exchanger.due(now, self.pair)
            self._outbox += [message for message in sent if message.message_id == request.message_id]

    # --- receiving

    def receive(self, message: Message, now: float) -> None:
        """Given a message and the time, take it in. Raise RemoteProtocolError as `machine` tells."""
        if message.exchange is Exchange.IKE_SA_INIT and not message.response and message.message_id == 0:
            if self._state in {State.IDLE, State.NEGOTIATING}:
                self._answer_init(message)
            return
        ours = (message.spi_i, message.spi_r) == self.spis
        if self._state is State.CONNECTING:
            ours = message.response and message.spi_i == self.spis[0]
        if self._state is State.CLOSED or not ours:
            return
        if message.response:
            self._receive_response(message, now)
        else:
            self._receive_request(message, now)

    def _prevention(self, pair: Pair) -> NatPrevention:
        return NatPrevention(nat_prevention_hash(pair.local.ip, pair.remote.ip, UDP_LENGTH))

    def _changed_on_the_way(self, message: Message) -> bool:
        """NAT_PREVENTION (appendix C): whether the addresses of an initial message were changed."""
        sent = message.first(NatPrevention)
        if sent is None or sent == self._prevention(Pair(message.source, message.destination)):
            return False
        self._go(Cause.INIT_NAT)
        self._tell(NatFound())
        return True

    def _answer_init(self, message: Message) -> None:
        if self._changed_on_the_way(message):
            return
        self._go(Cause.INIT_REQUEST)
        if self.spis[0] != message.spi_i or self.spis[1] != self._spi:
            self.spis = (message.spi_i, self._spi)
            self._exchanger = Exchanger(self.policy.retransmission, window=self.policy.window, spis=self.spis)
            self._pair = message.arrival
        self._outbox.append(self._exchanger.respond(message, (self._prevention(message.arrival),)))

    def _receive_request(self, message: Message, now: float) -> None:
        admission = self._exchanger.admit(message)
        if admission is Admission.REPEAT:
            self._outbox.append(self._exchanger.repeat(message))
        elif admission is Admission.BUSY:
            self._note_arrival(message)
        elif admission is Admission.NEW and message.exchange is Exchange.IKE_AUTH:
            self._answer_auth(message)
        elif admission is Admission.NEW and message.exchange is Exchange.INFORMATIONAL:
            self._answer(message, now)

    def _answer_auth(self, message: Message) -> None:
        if message.arrival != self._pair:
            raise RemoteProtocolError(
                "IKE_AUTH over another pair than IKE_SA_INIT",
                hint="section 3.1: the addresses must be stable",
            )
        self._go(Cause.AUTH_REQUEST)
        self._outbox.append(self._exchanger.respond(message, ()))
        self._start(message.arrival)

    def _start(self, pair: Pair) -> None:
        self.peer, self._verified = {pair.remote.ip}, {pair.remote.ip}
        self._agreed = pair
        self.sa_pairs = dict.fromkeys(self.children, pair)
        self._tell(SasUpdated(pair, True, self.children, True))

    def _answer(self, message: Message, now: float) -> None:
        if message.has(Delete):
            self._end(Cause.DELETED)
            self._outbox.append(self._exchanger.respond(message, ()))
        elif message.has(PeerAddressUpdate, PeerAddressSource, PeerAddressDestination):
            if self._state not in MOBILE:
                raise RemoteProtocolError(
                    "address management with NAT traversal", hint="section 3.5: use one"
                )
            read_request(message)
            self._exchanger.hold(message)
            self._held[message.message_id] = message
            self._process_held(now)
        else:
            self._outbox.append(self._exchanger.respond(message, tuple(message.all(RrCookie))))

    # --- requests about addresses, in order (section 3.4)

    def _process_held(self, now: float) -> None:
        while self.receiving is Receiving.QUIET and self._exchanger.oldest_unanswered in self._held:
            message = self._held.pop(self._exchanger.oldest_unanswered)
            self._process(read_request(message), now)

    def _process(self, asked: Asked, now: float) -> None:
        if asked.destination is not None and asked.destination not in self.own:
            self._outbox.append(self._exchanger.respond(asked.message, ()))
            return
        if asked.updates and asked.source is not None and self.pair.remote.ip in asked.deleted:
            target = Pair(self.pair.local, Endpoint(asked.source, self.pair.remote.port))
            for request in self._exchanger.outstanding:
                request.via = target
                request.moved(now)
        if self._to_check(asked):
            self.receiving = RECEIVE_TABLE.next(self.receiving, ReceiveCause.UNPROVEN)
            self._asked, self._arrivals = asked, [asked.message.arrival]
        else:
            self.receiving = RECEIVE_TABLE.next(self.receiving, ReceiveCause.ACCEPTED)
            self._carry_out(asked, asked.message, now)

    def _claimed(self, asked: Asked) -> list[IpAddress]:
        marked = [asked.source] if asked.updates and asked.source is not None else []
        return [*marked, *asked.added]

    def _to_check(self, asked: Asked) -> IpAddress | None:
        """Given a request, return the address whose return routability must be checked, or None."""
        source = asked.message.source.ip
        unknown = source not in self.peer | set(asked.added) | {asked.source}
        for ip in self._claimed(asked):
            if ip in self._verified:
                continue
            routability = self.policy.routability
            unproven = source != ip and not self.policy.authorized(ip)
            if unknown or routability is Routability.ALWAYS:
                return ip
            if routability is Routability.UNPROVEN and unproven:
                return ip
        return None

    def _carry_out(self, asked: Asked, copy: Message, now: float) -> None:
        before = set(self.peer)
        room = MAX_PEER_ADDRESSES - len(self.peer)
        self.peer |= set(asked.added[:room])
        answer: tuple[Payload, ...] = ()
        if asked.updates and asked.source is not None:
            local = asked.destination or self.pair.local.ip
            pair = Pair(Endpoint(local, self.pair.local.port), Endpoint(asked.source, self.pair.remote.port))
            self.peer.add(asked.source)
            answer = (*self._apply(asked, pair, now), *marks(pair))
        self.peer -= set(asked.deleted) - {self.pair.remote.ip}
        if self.peer != before:
            self._tell(PeerSet(frozenset(self.peer)))
        self._outbox.append(self._exchanger.respond(copy, answer))

    def _apply(self, asked: Asked, pair: Pair, now: float) -> list[PeerAddressUpdate]:
        """Update the designated SAs; return the payloads for the paired SAs in the other direction."""
        answer: list[PeerAddressUpdate] = []
        for update in asked.updates:
            ike = update.protocol is UpdateProtocol.IKE
            named = [c for c in self.children if c.protocol is update.protocol and c.spi_out in update.spis]
            chosen = self.children if update.all_sas else with_bundles(named, self.children)
            if ike:
                self._pair = self._agreed = pair
                self._exchanger.moved(now)
            for child in chosen:
                self.sa_pairs[child] = pair
            self._tell(SasUpdated(pair, ike, chosen, not update.only))
            spis = tuple(c.spi_in for c in named)
            answer.append(PeerAddressUpdate(update.all_sas, update.only, update.protocol, spis))
        return answer

    # --- return routability

    def _note_arrival(self, message: Message) -> None:
        if self._asked is not None and message.message_id == self._asked.message.message_id:
            self._arrivals = [message.arrival, *(p for p in self._arrivals if p != message.arrival)][:4]

    def _check(self, now: float) -> None:
        """Send the check to the new address first; then ask the others what is going on (section 3.5)."""
        asked = self._asked
        claimed = self._to_check(asked) if asked is not None else None
        if self.receiving is not Receiving.CHECKING or claimed is None:
            return
        request = self._exchanger.find(Kind.CHECK)
        if request is None:
            if not self._exchanger.free:
                return
            cookie = RrCookie(self.policy.random_octets(COOKIE_OCTETS))
            request = self._exchanger.open(Kind.CHECK, (cookie,), now)
        if request.next_at > now:
            return
        first = Pair(self._arrivals[0].local, Endpoint(claimed, self.pair.remote.port))
        others = [p for p in (*self._arrivals, self.pair) if p.remote.ip != claimed]
        turn = request.transmissions - self.policy.check_tries
        request.via = first if turn < 0 or not others else others[turn % len(others)]

    def _check_answered(self, request: Request[Kind], message: Message, now: float) -> None:
        asked = self._asked
        if self.receiving is not Receiving.CHECKING or asked is None:
            return
        claimed = self._to_check(asked)
        if claimed is None or {p.remote.ip for p in request.sent_over} == {claimed}:
            if claimed is not None:
                self._verified.add(claimed)
            if self._to_check(asked) is not None:
                return  # the next address of the same request
            self.receiving = RECEIVE_TABLE.next(self.receiving, ReceiveCause.CHECKED)
            copy = self._finish(asked)
            self._carry_out(asked, copy, now)
        else:
            self._check_failed(asked, claimed, message)
        self._process_held(now)

    def _check_failed(self, asked: Asked, claimed: IpAddress, message: Message) -> None:
        unknown = asked.message.source.ip
        nat = message.source.ip == unknown and unknown not in self.peer | {claimed}
        cause = ReceiveCause.NAT_FOUND if nat else ReceiveCause.FAILED
        self.receiving = RECEIVE_TABLE.next(self.receiving, cause)
        self._outbox.append(self._exchanger.respond(self._finish(asked), ()))
        self._tell(Declined(claimed))
        if nat:
            self._go(Cause.BEHIND_NAT)
            self._tell(BehindNat())

    def _finish(self, asked: Asked) -> Message:
        """Return the newest copy of the request: the reply goes to where that came from (section 3.1)."""
        newest = self._arrivals[0]
        self._asked, self._arrivals = None, []
        old = asked.message
        return Message(
            old.exchange,
            old.message_id,
            False,
            newest.remote,
            newest.local,
            old.payloads,
            old.spi_i,
            old.spi_r,
        )

    # --- responses

    def _receive_response(self, message: Message, now: float) -> None:
        if self._state is State.CONNECTING and self._changed_on_the_way(message):
            return
        request = self._exchanger.close(message)
        if request is None:
            return
        if request.kind is Kind.CHECK and list(request.payloads) != message.all(RrCookie):
            self._end(Cause.COOKIE)
        elif request.kind is Kind.CHECK:
            self._check_answered(request, message, now)
        elif request.kind is Kind.INIT:
            self._go(Cause.INIT_ANSWERED)
            self.spis = self._exchanger.spis = (message.spi_i, message.spi_r)
            self._exchanger.open(Kind.AUTH, (), now, exchange=Exchange.IKE_AUTH)
        elif request.kind is Kind.AUTH:
            self._go(Cause.AUTH_ANSWERED)
            self._start(self.pair)
        elif request.kind is Kind.UPDATE:
            self._update_answered(request, message)

    def _update_answered(self, request: Request[Kind], message: Message) -> None:
        wanted = self._wanted
        if request.superseded or wanted is None:
            self._go(Cause.SUPERSEDED)
        elif not message.has(PeerAddressUpdate):
            self._go(Cause.DECLINED)
            self._tell(UpdateDeclined())
        else:
            self._go(Cause.CONFIRMED)
            chosen = self.children if wanted.children is None else wanted.children
            for child in chosen:
                self.sa_pairs[child] = wanted.pair
            if wanted.ike:
                self._agreed, self._unsettled = wanted.pair, False
            self._verified.add(wanted.pair.remote.ip)
            self._wanted = None
            self._tell(SasUpdated(wanted.pair, wanted.ike, chosen, not wanted.only))

    # --- sending

    def send(self, now: float) -> list[Message]:
        """Given the time, return the messages to send now, in order."""
        if self._state is not State.CLOSED and self._exchanger.expired(now):
            self._end(Cause.TIMEOUT)
        if self._state is not State.CLOSED:
            self._fill(now)
        out, self._outbox = self._outbox, []
        if self._state is not State.CLOSED and self._pair is not None:
            out += self._exchanger.due(now, self._pair)
        return out

    def _fill(self, now: float) -> None:
        self._check(now)
        own_requests = [r for r in self._exchanger.outstanding if r.kind is not Kind.CHECK]
        if own_requests or not self._exchanger.free:
            return
        if self._state is State.PENDING and self._wanted is not None:
            self._go(Cause.SENT)
            gone = [PeerAddressSource(ip, PeerAddressOperation.DELETE) for ip in self._wanted.delete]
            payloads = (*update_payloads(self._wanted), *marks(self._wanted.pair), *gone)
            self._exchanger.open(Kind.UPDATE, payloads, now)
        elif self._set_changes:
            changes = [PeerAddressSource(ip, operation) for ip, operation in self._set_changes]
            self._set_changes = []
            destination = PeerAddressDestination(self.pair.remote.ip, PeerAddressOperation.MARK)
            self._exchanger.open(Kind.SET, (*changes, destination), now)

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        return None if self._state is State.CLOSED else self._exchanger.deadline()

    def _end(self, cause: Cause) -> None:
        self._go(cause)
        self._tell(Ended(cause))
