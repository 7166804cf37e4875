"""The client of the rmobike plugin: what it sends, and how it reads what comes."""

from __future__ import annotations

from contextlib import aclosing
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from mobikectl.charon.rmobike import (
    Accept,
    NotifyRule,
    PluginRefusedError,
    RedirectAnswer,
    RedirectExchange,
    RedirectReason,
    RedirectVerdict,
    Rmobike,
    SwitchPolicy,
    redirect_target,
)
from mobikectl.charon.rmobike_events import (
    EVENT_NAMES,
    AddressAcquired,
    AddressReleased,
    Capability,
    NotifyAnswered,
    NotifyFailed,
    NotifySeen,
    PluginEvent,
    PoolExhausted,
    Redirected,
    SwitchAcked,
    SwitchDone,
    SwitchReceived,
    SwitchRefused,
    SwitchSuperseded,
    SwitchTimeout,
    Thawed,
    UpdateDone,
    UpdateFailed,
    decode_event,
)
from mobikectl.charon.session import Event, EventGap
from mobikectl.errors import CharonRefusedError, DecodeError
from mobikectl.model import Path
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.notify import Notify

OLD = ip_address("198.18.2.10")
NEW = ip_address("198.18.2.11")
CLIENT = ip_address("198.18.1.2")
T = "t"


class RecordedSession:
    """In place of a Session: keeps what was asked, and answers what the test says."""

    def __init__(self, answer: dict[str, Any] | CharonRefusedError) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answer = answer

    async def request(self, command: str, args: Any = None) -> dict[str, Any]:
        self.asked.append((command, args))
        if isinstance(self.answer, CharonRefusedError):
            raise self.answer
        return self.answer

    async def stream(self, command: str, event: str) -> Any:
        self.asked.append((command, event))
        yield self.answer

    async def events(self, names: Any) -> Any:
        assert tuple(names) == EVENT_NAMES
        yield EventGap("subscribed")
        yield Event("switch-acked", {"ike-id": b"1", "token": b"t"})
        yield Event("switch-acked", {"ike-id": b"one", "token": b"t"})
        yield Event("switch-acked", {"ike-id": b"one", "token": b"t"})
        yield Event("a-surprise", {})
        yield Event("switch-acked", {"ike-id": b"2", "token": b"t"})


def plugin(answer: dict[str, Any] | CharonRefusedError | None = None) -> tuple[Rmobike, RecordedSession]:
    client = Rmobike("/nowhere")
    session = RecordedSession({} if answer is None else answer)
    client.session = session  # type: ignore[assignment]
    return client, session


# --- commands ---------------------------------------------------------------------------------------


async def test_a_switch_names_the_ike_sa_the_address_and_the_token() -> None:
    client, session = plugin()
    await client.switch_address(7, NEW, token=T, timeout_s=9)
    expected = {"ike-id": 7, "address": NEW, "token": T, "timeout": 9, "foreign": False}
    assert session.asked == [("switch-address", expected)]


async def test_an_update_leaves_out_what_is_kept() -> None:
    client, session = plugin()
    await client.update_addresses(7, local=CLIENT)
    assert session.asked == [("update-addresses", {"ike-id": 7, "token": "", "local": CLIENT})]


async def test_notifies_are_sent_as_type_and_hexadecimal_data() -> None:
    client, session = plugin()
    await client.send_notify(7, [Notify(50001, b"\xc0\xff"), Notify(50002)])
    assert session.asked[0][1]["notifies"] == ["50001:c0ff", "50002:"]


async def test_a_notify_with_an_spi_cannot_be_sent() -> None:
    client, session = plugin()
    with pytest.raises(DecodeError, match="SPI"):
        await client.send_notify(7, [Notify(50001, spi=b"1234")])
    assert session.asked == []


async def test_a_rule_leaves_out_what_it_does_not_ask_for() -> None:
    client, session = plugin()
    await client.add_rule(NotifyRule("r", "INFORMATIONAL", request=False, notify=Notify(5, b"\1"), when=4))
    expected = {
        "name": "r",
        "exchange": "INFORMATIONAL",
        "direction": "response",
        "notify": "5:01",
        "echo": False,
        "when": 4,
    }
    assert session.asked == [("add-rule", expected)]


async def test_a_policy_is_sent_whole_so_that_an_empty_allow_list_empties_it() -> None:
    client, session = plugin()
    await client.set_policy(SwitchPolicy(accept=Accept.LISTED, allow=(ip_network("198.18.0.0/15"),)))
    await client.set_policy(SwitchPolicy())
    assert [args["allow"] for _, args in session.asked] == ["198.18.0.0/15", ""]


async def test_a_redirect_excepts_networks_and_identities() -> None:
    client, session = plugin()
    answer = RedirectAnswer("gw2.example.org", 30, (ip_network("2001:db8::/32"), "*@example.org"))
    await client.set_redirect(RedirectExchange.IKE_AUTH, answer)
    (_, args) = session.asked[0]
    assert args["except"] == ["2001:db8::/32", "*@example.org"]
    assert (args["exchange"], args["gateways"], args["again"]) == ("IKE_AUTH", ["30:gw2.example.org"], False)


async def test_a_redirect_spreads_clients_over_gateways_in_the_order_given() -> None:
    client, session = plugin()
    answer = RedirectAnswer(shares=((NEW, 30), (ip_address("2001:db8::1"), 0), ("gw3.example.org", 70)))
    await client.set_redirect(RedirectExchange.IKE_SA_INIT, answer, lifetime_s=30)
    assert session.asked[0][1]["lifetime"] == 30
    assert session.asked[0][1]["gateways"] == ["30:198.18.2.11", "0:2001:db8::1", "70:gw3.example.org"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"gateway": NEW, "percent": 101},
        {"gateway": NEW, "percent": -1},
        {"gateway": NEW, "shares": ((NEW, 5),)},
        {"shares": ((NEW, 60), (OLD, 41))},
        {"shares": ((NEW, 60), (OLD, -1))},
    ],
)
def test_a_redirect_without_a_gateway_or_with_impossible_shares_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shares|gateway"):
        RedirectAnswer(**wrong)


async def test_what_a_client_would_be_answered_is_decoded() -> None:
    client, session = plugin({"bucket": b"42", "answer": b"redirected", "gateway": b"198.18.2.11"})
    verdict = await client.explain_redirect(RedirectExchange.IKE_AUTH, CLIENT, "carol")
    assert verdict == RedirectVerdict(42, RedirectReason.REDIRECTED, "198.18.2.11")
    expected = {"exchange": "IKE_AUTH", "address": CLIENT, "identity": "carol"}
    assert session.asked == [("explain-redirect", expected)]


async def test_an_answer_of_an_unknown_kind_is_a_decode_error() -> None:
    client, _ = plugin({"bucket": b"42", "answer": b"perhaps"})
    with pytest.raises(DecodeError, match="perhaps"):
        await client.explain_redirect(RedirectExchange.IKE_SA_INIT, CLIENT)


def test_a_redirect_target_is_an_address_or_a_name() -> None:
    assert redirect_target("198.18.2.11") == NEW
    assert redirect_target("gw2.example.org") == "gw2.example.org"


async def test_a_refusal_has_the_plugins_code_and_a_hint() -> None:
    said = CharonRefusedError("the rmobike plugin refused switch-address: peer-without-r: the peer did not")
    client, _ = plugin(said)
    with pytest.raises(PluginRefusedError) as caught:
        await client.switch_address(7, NEW)
    assert caught.value.code == "peer-without-r"
    assert "MUST NOT" in caught.value.hint or "must not" in caught.value.hint


async def test_a_refusal_that_is_not_the_plugins_stays_what_it_was() -> None:
    said = CharonRefusedError("charon does not know the command switch-address")
    client, _ = plugin(said)
    with pytest.raises(CharonRefusedError) as caught:
        await client.switch_address(7, NEW)
    assert caught.value is said


async def test_peers_are_decoded() -> None:
    item = {"ike-id": b"3", "initiator": b"no", "mobike": b"yes", "peer-r": b"yes", "own-r": b"no"}
    client, _ = plugin({**item, "pending": b"t"})
    (peer,) = await client.peers()
    assert (peer.ike_id, peer.original_initiator, peer.peer_r, peer.pending_token) == (3, False, True, "t")


async def test_a_status_is_decoded() -> None:
    client, _ = plugin(
        {
            "version": b"0.1.0",
            "strongswan": b"5.9.8",
            "peers": b"2",
            "notify-type": b"41042",
            "announce": b"yes",
            "accept": b"additional",
        }
    )
    status = await client.status()
    assert (status.notify_type, status.accept, status.announce) == (41042, Accept.ADDITIONAL, True)


async def test_events_are_decoded_on_the_way_and_gaps_pass() -> None:
    client, _ = plugin()
    async with aclosing(client.events()) as events:
        assert isinstance(await anext(events), EventGap)
        assert await anext(events) == SwitchAcked(1, T)


async def test_an_event_that_cannot_be_understood_is_left_out_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, _ = plugin()
    assert [event async for event in client.events()][1:] == [SwitchAcked(1, T), SwitchAcked(2, T)]
    assert client.undecodable == {"switch-acked": 2, "?": 1}
    assert [record.getMessage().count("ike-id") for record in caplog.records] == [1, 0]


# --- events -----------------------------------------------------------------------------------------

ID = {"ike-id": b"1"}
LEASE = {"pool": b"inside", "address": b"198.18.64.1", "identity": b"a.example.org"}
TOKEN = {**ID, "token": b"t"}
PATH = {"local": b"198.18.2.11", "remote": b"198.18.1.2"}
YES_NO = dict.fromkeys(("initiator", "mobike", "peer-r", "own-r", "redirect", "nat-local"), b"yes")

EVENTS: list[tuple[str, dict[str, Any], PluginEvent]] = [
    (
        "capability",
        {**ID, **YES_NO, "nat-remote": b"no"},
        Capability(1, True, True, True, True, True, True, False),
    ),
    ("switch-acked", TOKEN, SwitchAcked(1, T)),
    ("switch-done", {**TOKEN, **PATH, "elapsed-ms": b"42"}, SwitchDone(1, T, Path(NEW, CLIENT), 42)),
    ("switch-timeout", {**TOKEN, "reason": b"no-update"}, SwitchTimeout(1, T, "no-update")),
    ("switch-superseded", TOKEN, SwitchSuperseded(1, T)),
    ("switch-received", {**ID, "message-id": b"0", "address": b"198.18.2.11"}, SwitchReceived(1, 0, NEW)),
    (
        "switch-refused",
        {**ID, "message-id": b"0", "reason": b"malformed"},
        SwitchRefused(1, 0, None, "malformed"),
    ),
    ("update-done", {**TOKEN, **PATH, "cause": b"switch"}, UpdateDone(1, T, "switch", Path(NEW, CLIENT))),
    (
        "update-failed",
        {**TOKEN, "cause": b"command", "reason": b"ike-sa-gone"},
        UpdateFailed(1, T, "command", "ike-sa-gone", None),
    ),
    (
        "notify",
        {
            **ID,
            **PATH,
            "exchange": b"INFORMATIONAL",
            "message-id": b"5",
            "request": b"yes",
            "initiator": b"no",
            "protocol": b"0",
            "type": b"50001",
            "length": b"2",
            "data": b"c0ff",
        },
        NotifySeen(1, "INFORMATIONAL", 5, True, False, Path(NEW, CLIENT), Notify(50001, b"\xc0\xff")),
    ),
    (
        "notify-answered",
        {**TOKEN, "message-id": b"5", "notify0": {"type": b"9", "length": b"0", "data": b""}},
        NotifyAnswered(1, T, 5, (Notify(9),)),
    ),
    ("notify-failed", TOKEN, NotifyFailed(1, T)),
    (
        "redirected",
        {**ID, "exchange": b"IKE_SA_INIT", "remote": b"198.18.1.2", "gateway": b"198.18.2.11"},
        Redirected(1, "IKE_SA_INIT", CLIENT, None, "198.18.2.11"),
    ),
    (
        "thawed",
        {**ID, "spi-i": b"00000000000000ff", "spi-r": b"0000000000000100"},
        Thawed(1, IkeSpis(255, 256)),
    ),
    (
        "address-acquired",
        {**ID, **LEASE, "free": b"6"},
        AddressAcquired(1, "inside", ip_address("198.18.64.1"), "a.example.org", 6),
    ),
    (
        "address-released",
        {**ID, **LEASE, "online": b"0", "free": b"6"},
        AddressReleased(1, "inside", ip_address("198.18.64.1"), "a.example.org", 0, 6),
    ),
    (
        "pool-exhausted",
        {**ID, "pool": b"inside", "identity": b"a.example.org"},
        PoolExhausted(1, "inside", "a.example.org"),
    ),
]


@pytest.mark.parametrize(("name", "message", "meaning"), EVENTS, ids=[name for name, _, _ in EVENTS])
def test_an_event_is_decoded(name: str, message: dict[str, Any], meaning: PluginEvent) -> None:
    assert decode_event(Event(name, message)) == meaning


def test_every_event_has_an_example_above() -> None:
    assert {name for name, _, _ in EVENTS} == set(EVENT_NAMES)


@pytest.mark.parametrize(("name", "message", "meaning"), EVENTS, ids=[name for name, _, _ in EVENTS])
def test_an_event_that_lacks_a_field_is_a_decode_error(
    name: str, message: dict[str, Any], meaning: PluginEvent
) -> None:
    del meaning
    for key in message:
        if key in {"remote-id", "address", "notify0", "protocol"}:
            continue
        with pytest.raises(DecodeError):
            decode_event(Event(name, {k: v for k, v in message.items() if k != key}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ike-id": b"-1"},
        {"data": b"c0f"},
        {"data": b"zz"},
        {"length": b"3"},
        {"request": b"maybe"},
        {"local": b"x"},
    ],
)
def test_a_field_with_an_impossible_value_is_a_decode_error(wrong: dict[str, bytes]) -> None:
    (message,) = [message for name, message, _ in EVENTS if name == "notify"]
    with pytest.raises(DecodeError, match=next(iter(wrong)) if "length" not in wrong else "data"):
        decode_event(Event("notify", {**message, **wrong}))


def test_an_event_that_nobody_asked_for_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="nobody asked"):
        decode_event(Event("surprise", {}))
