"""What draft-ietf-ipsecme-ikev2-redirect-01 and RFC 5685 say about both roles, transition by transition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol import redirect as client_module
from mobikectl.protocol.exchange import Delete, Endpoint, Exchange, Message, Nonce, Retransmission
from mobikectl.protocol.machine import (
    LocalProtocolError,
    LocalTransitionError,
    RemoteProtocolError,
    RemoteTransitionError,
)
from mobikectl.protocol.redirect import (
    Connected,
    Disconnected,
    Edition,
    RedirectClient,
    Redirected,
    RedirectLoop,
    RedirectPolicy,
    ResolveName,
)
from mobikectl.protocol.redirect import State as ClientState
from mobikectl.protocol.redirect_gateway import (
    AnycastRefused,
    ClientGone,
    ClientRedirected,
    ClientServed,
    GatewayPolicy,
    RedirectGateway,
    RedirectNotUnderstood,
)
from mobikectl.protocol.redirect_gateway import Cause as GatewayCause
from mobikectl.protocol.redirect_gateway import State as GatewayState
from mobikectl.wire.redirect import Fqdn, Redirect, RedirectAck, RedirectedFrom, RedirectSupported

from .protocol_helpers import I1, R1, R2, R3, R6, answer, current, events, told

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.wire.redirect import GatewayIdentity

NAME = Fqdn("gw2.example.org")
ANYCAST = R3
BOTH = list(Edition)


def client(edition: Edition = Edition.RFC_5685, **changes: Any) -> RedirectClient:
    return RedirectClient(Endpoint(I1, 500), RedirectPolicy(edition=edition, **changes))


def at(ip: IpAddress) -> Endpoint:
    return Endpoint(ip, 500)


def run(
    machine: RedirectClient, gateways: dict[IpAddress, RedirectGateway], now: float = 0.0
) -> list[Message]:
    """Carry messages between a client and the gateways, by address."""
    carried: list[Message] = []
    for _ in range(60):
        batch = machine.send(now)
        for message in batch:
            gateway = gateways.get(message.destination.ip)
            if gateway is not None:
                gateway.receive(message, now)
        replies = [m for g in set(gateways.values()) for m in g.send(now)]
        for message in replies:
            machine.receive(message, now)
        carried += batch + replies
        if not batch and not replies:
            return carried
    raise AssertionError("never quiet")


def connected(
    edition: Edition = Edition.RFC_5685, **changes: Any
) -> tuple[RedirectClient, dict[IpAddress, RedirectGateway]]:
    machine = client(edition, **changes)
    gateways: dict[IpAddress, RedirectGateway] = {
        ip: RedirectGateway(ip, GatewayPolicy(edition=edition), spi=10 * n)
        for n, ip in enumerate((R1, R2), 1)
    }
    machine.connect(at(R1), 0.0)
    run(machine, gateways)
    assert machine.state is ClientState.ESTABLISHED
    assert gateways[R1].state is GatewayState.ESTABLISHED
    events(machine), [events(g) for g in gateways.values()]
    return machine, gateways


def redirect_to(
    machine: RedirectClient, request: Message, target: GatewayIdentity, nonce: bytes | None = None
) -> None:
    sent = request.first(Nonce)
    echo = nonce if nonce is not None else (sent.data if sent else b"")
    if machine.policy.edition is Edition.DRAFT_01:
        echo = b""
    machine.receive(answer(request, Redirect(target, echo)), 0.0)


# --- the client


def test_the_first_ike_sa_init_says_that_redirects_are_supported() -> None:
    machine = client()
    machine.connect(at(R1), 0.0)
    request = machine.send(0.0)[0]
    assert request.has(RedirectSupported)
    assert not request.has(RedirectedFrom)
    with pytest.raises(LocalTransitionError):
        machine.connect(at(R1), 0.0)


def test_a_redirect_in_ike_sa_init_leads_to_the_new_gateway_and_names_the_old_one() -> None:
    for edition in BOTH:
        machine = client(edition)
        machine.connect(at(R1), 0.0)
        redirect_to(machine, machine.send(0.0)[0], R2)
        assert machine.state is ClientState.CONNECTING
        request = machine.send(0.0)[0]
        assert request.destination == at(R2)
        assert request.all(RedirectedFrom) == [RedirectedFrom(R1)]
        assert told(machine, Redirected) == [Redirected(R1, R2)]


def test_a_redirect_without_the_nonce_is_forged_and_the_client_goes_on_waiting() -> None:
    machine = client()
    machine.connect(at(R1), 0.0)
    request = machine.send(0.0)[0]
    for nonce in (b"", b"x" * 32):
        redirect_to(machine, request, R2, nonce)
        assert machine.state is ClientState.CONNECTING
    assert not told(machine, Redirected)
    machine.receive(answer(request, spis=(request.spi_i, 7)), 0.0)
    assert machine.state is ClientState.AUTHENTICATING


def test_a_name_is_resolved_first() -> None:
    machine = client()
    machine.connect(at(R1), 0.0)
    redirect_to(machine, machine.send(0.0)[0], NAME)
    assert current(machine.state) is ClientState.RESOLVING
    assert told(machine, ResolveName) == [ResolveName(NAME)]
    machine.resolved(R6, 0.0)
    assert machine.state is ClientState.CONNECTING
    assert machine.send(0.0)[0].destination == at(R6)
    with pytest.raises(LocalTransitionError):
        machine.resolved(R6, 0.0)


def test_a_name_without_an_address_ends_it_or_leaves_the_old_ike_sa() -> None:
    machine = client()
    machine.connect(at(R1), 0.0)
    redirect_to(machine, machine.send(0.0)[0], NAME)
    machine.unresolved(0.0)
    assert machine.state is ClientState.CLOSED
    machine, gateways = connected()
    gateways[R1].redirect(NAME, 0.0)
    run(machine, gateways)
    assert current(machine.state) is ClientState.RESOLVING
    machine.unresolved(0.0)
    assert machine.state is ClientState.ESTABLISHED
    assert machine.gateway == R1


def test_a_redirect_in_ike_auth_is_rfc_5685s_only() -> None:
    for edition, target, state in (
        (Edition.RFC_5685, R2, ClientState.CONNECTING),
        (Edition.RFC_5685, NAME, ClientState.RESOLVING),
        (Edition.DRAFT_01, R2, ClientState.ESTABLISHED),
    ):
        machine = authenticating(client(edition))
        machine.receive(answer(machine.send(0.0)[0], Redirect(target)), 0.0)
        assert machine.state is state


def authenticating(machine: RedirectClient) -> RedirectClient:
    machine.connect(at(R1), 0.0)
    request = machine.send(0.0)[0]
    machine.receive(answer(request, spis=(request.spi_i, 7)), 0.0)
    assert machine.state is ClientState.AUTHENTICATING
    return machine


def test_at_most_five_redirects_in_300_seconds() -> None:
    machine = client()
    machine.connect(at(R1), 0.0)
    for _ in range(5):
        redirect_to(machine, machine.send(0.0)[0], R2)
    assert len(told(machine, Redirected)) == 5
    redirect_to(machine, machine.send(0.0)[0], R1)
    assert machine.state is ClientState.CLOSED
    assert told(machine, RedirectLoop) == [RedirectLoop(R1)]
    assert (client_module.MAX_REDIRECTS, client_module.REDIRECT_LOOP_DETECT_PERIOD_S) == (5, 300.0)
    auth = authenticating(client(max_redirects=0))
    auth.receive(answer(auth.send(0.0)[0], Redirect(R2)), 0.0)
    assert auth.state is ClientState.CLOSED


def test_redirects_of_more_than_300_seconds_ago_do_not_count() -> None:
    machine, gateways = connected(max_redirects=1)
    here, there = R1, R2
    for now in (0.0, 301.0, 602.0):
        gateways[here].redirect(there, now)
        run(machine, gateways, now)
        assert machine.gateway == there
        gateways[here] = RedirectGateway(here, GatewayPolicy(), spi=int(now) + 1000)
        here, there = there, here
    gateways[here].redirect(there, 603.0)
    run(machine, gateways, 603.0)
    assert machine.state is ClientState.ESTABLISHED, "one too many in mid-session: acknowledged, not followed"
    assert machine.gateway == here
    assert told(machine, RedirectLoop)


def test_silence_ends_the_attempt_or_leaves_the_old_ike_sa() -> None:
    quick = Retransmission(give_up_s=10.0)
    for machine in (client(retransmission=quick), authenticating(client(retransmission=quick))):
        if machine.state is ClientState.IDLE:
            machine.connect(at(R1), 0.0)
        machine.send(0.0)
        machine.send(10.0)
        assert machine.state is ClientState.CLOSED
        assert told(machine, Disconnected) == [Disconnected(R1)]
    machine, gateways = connected(retransmission=quick)
    gateways[R1].redirect(R2, 0.0)
    del gateways[R2]
    run(machine, gateways)
    assert current(machine.state) is ClientState.CONNECTING
    machine.send(10.0)
    assert machine.state is ClientState.ESTABLISHED
    assert machine.gateway == R1
    machine, gateways = connected(retransmission=quick)
    gateways[R1].redirect(R2, 0.0)
    half = gateways.pop(R2)
    run(machine, gateways)
    session = machine._session
    assert session is not None
    assert session.nonce
    spi = session.exchanger.spis[0]
    half.receive(
        Message(Exchange.IKE_SA_INIT, 0, False, machine.local, at(R2), (Nonce(b"n" * 32),), spi, 0), 0.0
    )
    machine.receive(half.send(0.0)[0], 0.0)
    assert current(machine.state) is ClientState.AUTHENTICATING
    machine.send(10.0)
    assert machine.state is ClientState.ESTABLISHED


def test_a_redirect_in_mid_session_makes_the_new_ike_sa_before_the_old_is_deleted() -> None:
    for edition in BOTH:
        machine, gateways = connected(edition)
        gateways[R1].redirect(R2, 0.0)
        carried = run(machine, gateways)
        ack = next(m for m in carried if m.response and m.source.ip == I1)
        assert ack.has(RedirectAck) is (edition is Edition.DRAFT_01)
        assert machine.state is ClientState.ESTABLISHED
        assert machine.gateway == R2
        deletes = [m for m in carried if m.has(Delete)]
        assert [m.destination.ip for m in deletes] == [R1]
        assert carried.index(deletes[0]) > max(
            n for n, m in enumerate(carried) if m.exchange is Exchange.IKE_AUTH
        )
        assert gateways[R1].state is GatewayState.CLOSED
        assert gateways[R2].state is GatewayState.ESTABLISHED
        assert told(machine, Connected) == [Connected(R2)]


def test_a_repeated_redirect_is_acknowledged_again_while_the_client_moves() -> None:
    machine, gateways = connected()
    gateways[R1].redirect(R2, 0.0)
    request = gateways[R1].send(0.0)[0]
    machine.receive(request, 0.0)
    machine.send(0.0)
    machine.receive(request, 1.0)
    assert [m.response for m in machine.send(1.0)] == [True]
    assert len(told(machine, Redirected)) == 1


def test_the_old_gateway_may_delete_during_the_move() -> None:
    machine, gateways = connected(retransmission=Retransmission(give_up_s=10.0))
    gateways[R1].redirect(R2, 0.0)
    request = gateways[R1].send(0.0)[0]
    machine.receive(request, 0.0)
    machine.send(0.0)
    machine.receive(replace(request, message_id=request.message_id + 1, payloads=(Delete(),)), 0.0)
    machine.send(10.0)
    assert machine.state is ClientState.CLOSED


def test_a_delete_ends_the_session_and_a_binding_decides_where_to_connect_again() -> None:
    for binding, expected in ((True, R2), (False, R1)):
        machine, gateways = connected()
        gateways[R1].redirect(R2, 0.0)
        run(machine, gateways)
        gateways[R2].close(0.0)
        run(machine, gateways)
        assert current(machine.state) is ClientState.CLOSED
        machine.reconnect(1.0, binding=binding)
        assert machine.state is ClientState.CONNECTING
        assert machine.send(1.0)[0].destination == at(expected)
    with pytest.raises(LocalProtocolError):
        client().reconnect(0.0, binding=True)


def test_the_client_can_be_closed_whenever_it_was_started() -> None:
    resolving = client()
    resolving.connect(at(R1), 0.0)
    redirect_to(resolving, resolving.send(0.0)[0], NAME)
    connecting = client()
    connecting.connect(at(R1), 0.0)
    session, gateways = connected()
    for machine in (connecting, resolving, authenticating(client()), session):
        machine.close(0.0)
        assert machine.state is ClientState.CLOSED
    run(session, gateways)
    assert gateways[R1].state is GatewayState.CLOSED


def test_an_informational_before_ike_auth_is_the_gateways_fault() -> None:
    machine = authenticating(client())
    with pytest.raises(RemoteProtocolError):
        machine.receive(Message(Exchange.INFORMATIONAL, 0, False, at(R1), at(I1), (Redirect(R2),), 1, 7), 0.0)
    assert machine.state is ClientState.AUTHENTICATING


# --- the gateway


def init(*payloads: object, to: IpAddress = R1, spi: int = 1) -> Message:
    return Message(Exchange.IKE_SA_INIT, 0, False, at(I1), at(to), (Nonce(b"n" * 32), *payloads), spi, 0)


def auth(gateway: RedirectGateway) -> Message:
    return Message(Exchange.IKE_AUTH, 1, False, at(I1), at(R1), (), *gateway._exchanger.spis)


def gateway(state: str = "LISTENING", *, supports: bool = True, **changes: Any) -> RedirectGateway:
    machine = RedirectGateway(R1, GatewayPolicy(**changes))
    if state != "LISTENING":
        machine.receive(init(*([RedirectSupported()] if supports else [])), 0.0)
        machine.send(0.0)
    if state not in {"LISTENING", "NEGOTIATING"}:
        machine.receive(auth(machine), 0.0)
        machine.send(0.0)
    if state in {"WANTED", "REDIRECTING", "REDIRECTED"}:
        machine.redirect(R2, 0.0)
    if state in {"REDIRECTING", "REDIRECTED"}:
        request = machine.send(0.0)[0]
        if state == "REDIRECTED":
            ack = (RedirectAck(),) if machine.policy.edition is Edition.DRAFT_01 else ()
            machine.receive(answer(request, *ack), 0.0)
    assert machine.state is GatewayState[state]
    events(machine)
    return machine


def test_a_client_that_does_not_support_it_is_never_redirected() -> None:
    machine = gateway(choose=lambda client, origin: R2)
    machine.receive(init(), 0.0)
    assert current(machine.state) is GatewayState.NEGOTIATING
    assert not machine.send(0.0)[0].has(Redirect)
    machine.receive(auth(machine), 0.0)
    with pytest.raises(LocalProtocolError):
        machine.redirect(R2, 0.0)
    assert machine.state is GatewayState.ESTABLISHED


def test_a_redirect_in_ike_sa_init_keeps_no_state_and_echoes_the_nonce_in_rfc_5685() -> None:
    for edition, nonce in ((Edition.RFC_5685, b"n" * 32), (Edition.DRAFT_01, b"")):
        for state in ("LISTENING", "NEGOTIATING"):
            machine = gateway(state, edition=edition)
            machine.policy = replace(machine.policy, choose=lambda client, origin: R2)
            machine.receive(init(RedirectSupported(), spi=5), 0.0)
            assert machine.state is GatewayState.LISTENING
            assert machine.send(0.0)[0].payloads == (Redirect(R2, nonce),)
            assert told(machine, ClientRedirected) == [ClientRedirected(at(I1), R2)]


def test_redirected_from_implies_support_and_is_reported() -> None:
    machine = gateway()
    machine.receive(init(RedirectedFrom(R2)), 0.0)
    assert machine.can_redirect
    machine.receive(auth(machine), 0.0)
    assert told(machine, ClientServed) == [ClientServed(at(I1), R2)]


def test_a_client_at_an_anycast_address_is_sent_to_a_unicast_address_be_it_the_own_one() -> None:
    for choice, expected in ((None, R1), (R2, R2)):
        machine = gateway(anycast=frozenset({ANYCAST}), choose=lambda client, origin, choice=choice: choice)
        machine.receive(init(RedirectSupported(), to=ANYCAST), 0.0)
        reply = machine.send(0.0)[0]
        assert [redirect.gateway for redirect in reply.all(Redirect)] == [expected]
        assert reply.source == at(ANYCAST)
        assert machine.state is GatewayState.LISTENING


def test_a_client_at_an_anycast_address_that_cannot_be_redirected_is_not_answered() -> None:
    for state in ("LISTENING", "NEGOTIATING"):
        machine = gateway(state, anycast=frozenset({ANYCAST}))
        machine.receive(init(to=ANYCAST, spi=9), 0.0)
        assert machine.state is GatewayState.LISTENING
        assert machine.send(0.0) == []
        assert told(machine, AnycastRefused) == [AnycastRefused(at(I1))]


def test_a_repeated_or_new_ike_sa_init_starts_again() -> None:
    machine = gateway("NEGOTIATING")
    for spi in (1, 2):
        machine.receive(init(RedirectSupported(), spi=spi), 0.0)
        assert machine.state is GatewayState.NEGOTIATING
    machine.receive(auth(machine), 0.0)
    assert machine.state is GatewayState.ESTABLISHED


def test_a_redirect_in_ike_auth_follows_the_authenticated_choice() -> None:
    for edition, state in (
        (Edition.RFC_5685, GatewayState.LISTENING),
        (Edition.DRAFT_01, GatewayState.ESTABLISHED),
    ):
        machine = gateway("NEGOTIATING", edition=edition, choose_authenticated=lambda client, origin: R2)
        machine.receive(auth(machine), 0.0)
        assert machine.state is state
        assert machine.send(0.0)[0].has(Redirect) is (state is GatewayState.LISTENING)


def test_a_redirect_in_mid_session_is_retransmitted_until_it_is_acknowledged() -> None:
    machine = gateway("WANTED")
    first = machine.send(0.0)
    assert current(machine.state) is GatewayState.REDIRECTING
    assert [m.all(Redirect) for m in first] == [[Redirect(R2)]]
    assert machine.send(5.0)[0].payloads == first[0].payloads
    machine.receive(answer(first[0]), 6.0)
    assert machine.state is GatewayState.REDIRECTED
    assert machine.send(20.0) == []
    with pytest.raises(LocalTransitionError):
        machine.redirect(R2, 20.0)


def test_draft_01_needs_redirect_ack() -> None:
    for payloads, state in (((RedirectAck(),), GatewayState.REDIRECTED), ((), GatewayState.ESTABLISHED)):
        machine = gateway("WANTED", edition=Edition.DRAFT_01)
        machine.receive(answer(machine.send(0.0)[0], *payloads), 0.0)
        assert machine.state is state
        assert bool(told(machine, RedirectNotUnderstood)) is (state is GatewayState.ESTABLISHED)


def test_the_client_has_time_to_set_up_its_new_ike_sa_before_the_old_is_deleted() -> None:
    machine = gateway("REDIRECTED", grace_s=20.0)
    assert machine.next_deadline() == 20.0
    assert machine.send(19.0) == []
    assert machine.send(20.0)[0].has(Delete)
    assert machine.state is GatewayState.CLOSED
    assert told(machine, ClientGone) == [ClientGone(GatewayCause.GRACE_OVER)]


def test_the_delete_is_repeated_until_it_is_answered_or_given_up() -> None:
    machine = gateway("REDIRECTED", grace_s=20.0)
    delete = machine.send(20.0)[0]
    due = machine.next_deadline()
    assert due is not None
    again = machine.send(due)
    assert [m.payloads for m in again] == [delete.payloads]
    machine.receive(answer(delete), 30.0)
    assert machine.next_deadline() is None
    assert machine.send(60.0) == []
    silent = gateway("ESTABLISHED")
    silent.close(0.0)
    silent.send(0.0)
    assert silent.send(301.0) == []
    assert silent.next_deadline() is None


def test_an_unanswered_redirect_ends_the_ike_sa() -> None:
    machine = gateway("REDIRECTING")
    machine.send(301.0)
    assert machine.state is GatewayState.CLOSED


def test_delete_and_close_end_it_in_every_state_with_an_ike_sa() -> None:
    for state in ("ESTABLISHED", "WANTED", "REDIRECTING", "REDIRECTED"):
        machine = gateway(state)
        delete = Message(
            Exchange.INFORMATIONAL, 2, False, at(I1), at(R1), (Delete(),), *machine._exchanger.spis
        )
        machine.receive(delete, 0.0)
        assert machine.state is GatewayState.CLOSED
        assert machine.send(0.0)[0].response
        closing = gateway(state)
        closing.close(0.0)
        assert closing.state is GatewayState.CLOSED
    with pytest.raises(LocalTransitionError):
        gateway("LISTENING").close(0.0)


def test_ike_auth_without_an_ike_sa_init_is_the_clients_fault() -> None:
    machine = gateway("NEGOTIATING")
    late = auth(machine)
    machine.policy = replace(machine.policy, choose=lambda client, origin: R2)
    machine.receive(init(RedirectSupported(), spi=5), 0.0)
    with pytest.raises(RemoteTransitionError):
        machine.receive(late, 0.0)
    assert machine.state is GatewayState.LISTENING
