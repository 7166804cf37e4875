"""The client of the plugin's move helper: what it sends, and how it reads what comes."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from mobikectl.charon.rmobike import PluginRefusedError, Rmobike
from mobikectl.charon.rmobike_move import AHEAD, BUSY, Mover, Standing, decode_sa
from mobikectl.errors import CharonRefusedError, DecodeError
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis

SPIS = IkeSpis(0xA0B0C0D0E0F00102, 0x1)
NAMED = {"spi-i": "a0b0c0d0e0f00102", "spi-r": "0000000000000001"}
CHILD = {"name": b"net", "state": b"INSTALLED", "spi-in": b"0000000a", "spi-out": b"ffffffff"}
SA: dict[str, Any] = {
    **{key: value.encode() for key, value in NAMED.items()},
    "ike-id": b"7", "name": b"vpn", "standing": b"frozen", "state": b"PASSIVE",
    "initiator": b"no", "mobike": b"yes", "nat-local": b"no", "nat-remote": b"yes",
    "mid-initiator": b"3", "mid-responder": b"12", "busy": b"no", "thaws": b"yes", "changed": b"yes",
    "local": b"198.18.11.10", "local-port": b"4500", "remote": b"2001:db8::2", "remote-port": b"1024",
    "children": {"1": CHILD},
}  # fmt: skip


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


def mover(answer: dict[str, Any] | CharonRefusedError = SA) -> tuple[Mover, RecordedSession]:
    plugin = Rmobike("/nowhere")
    session = RecordedSession(answer)
    plugin.session = session  # type: ignore[assignment]
    return Mover(plugin), session


def test_an_ike_sa_is_decoded() -> None:
    sa = decode_sa(SA)
    assert (sa.spis, sa.ike_id, sa.standing, sa.thaws, sa.changed) == (SPIS, 7, Standing.FROZEN, True, True)
    assert (sa.mid_initiator, sa.mid_responder) == (3, 12)
    assert sa.local == Host(ip_address("198.18.11.10"), 4500)
    assert sa.remote == Host(ip_address("2001:db8::2"), 1024)
    assert (sa.nat_local, sa.nat_remote, sa.original_initiator, sa.mobike) == (False, True, False, True)
    assert [(child.spi_in, child.spi_out) for child in sa.children] == [(10, 0xFFFFFFFF)]
    assert sa.steady


def test_one_with_a_child_sa_that_changes_is_not_steady() -> None:
    assert not decode_sa({**SA, "children": {"1": CHILD, "2": {**CHILD, "state": b"REKEYING"}}}).steady


def test_one_that_keeps_a_deleted_child_sa_for_late_packets_is_steady() -> None:
    assert decode_sa({**SA, "children": {"1": CHILD, "2": {**CHILD, "state": b"DELETED"}}}).steady


def test_one_without_child_sas_is_an_answer_too() -> None:
    assert decode_sa({**SA, "children": {}}).children == ()


@pytest.mark.parametrize("key", sorted(SA.keys() - {"thaws", "changed", "children"}))
def test_an_ike_sa_that_lacks_a_field_is_a_decode_error(key: str) -> None:
    with pytest.raises(DecodeError):
        decode_sa({name: value for name, value in SA.items() if name != key})


@pytest.mark.parametrize(
    "wrong",
    [{"standing": b"x"}, {"spi-i": b"xyz"}, {"local": b"x"}, {"remote-port": b"99999"}, {"children": b"1"}],
)
def test_a_field_with_an_impossible_value_is_a_decode_error(wrong: dict[str, bytes]) -> None:
    with pytest.raises(DecodeError):
        decode_sa({**SA, **wrong})


async def test_an_ike_sa_is_named_by_its_spis_or_its_number() -> None:
    client, session = mover()
    await client.status(SPIS)
    await client.status(7)
    assert session.asked == [("move-status", NAMED), ("move-status", {"ike-id": 7})]


async def test_a_freeze_has_a_time_in_milliseconds_or_none() -> None:
    client, session = mover()
    for timeout_s in (2.5, 0.0001, None):
        await client.freeze(7, timeout_s=timeout_s)
    assert [args["timeout-ms"] for _, args in session.asked] == [2500, 1, 0]


async def test_an_activation_leaves_out_what_is_kept() -> None:
    client, session = mover()
    await client.activate(SPIS)
    address = ip_address("198.18.12.10")
    await client.activate(
        7, mids=(3, 12), address=address, announce=True, children=[10], peer_r=True, own_r=False
    )
    assert session.asked[0] == ("activate", {**NAMED, "announce": False})
    expected = {
        "ike-id": 7, "announce": True, "mid-initiator": 3, "mid-responder": 12, "address": address,
        "peer-r": True, "own-r": False, "children": ["0000000a"],
    }  # fmt: skip
    assert session.asked[1] == ("activate", expected)


async def test_how_far_ahead_the_peer_may_be_is_said_where_it_is_served_and_told_by_a_plugin_that_knows_it() -> (
    None
):
    client, session = mover({**SA, "ahead": b"16"})
    assert (await client.activate(7, ahead=AHEAD)).ahead == 16
    await client.thaw(7, ahead=AHEAD)
    assert [args["ahead"] for _, args in session.asked] == [AHEAD, AHEAD]
    assert decode_sa(SA).ahead == 0


async def test_a_refusal_has_the_plugins_code() -> None:
    said = CharonRefusedError(
        "the rmobike plugin refused freeze: busy: a request of ours is not answered yet"
    )
    client, _ = mover(said)
    with pytest.raises(PluginRefusedError) as caught:
        await client.freeze(SPIS)
    assert caught.value.code == BUSY
    assert "again" in caught.value.hint
