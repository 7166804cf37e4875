"""A client that may have heard another node hears this one again: with the message ID that it expects."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mobikectl.node.calling import CallTimes, called_back, came_back, caught_up

from .two_gateways import HERE, SPIS, Client, Gateway

TIMES = CallTimes(answer_s=0.02, renumbered_s=0.02, look_s=0.001, rounds=3, come_s=(0.02, 0.02))


@pytest.fixture
def gateway() -> Gateway:
    """It serves an IKE_SA whose next request has the message ID 4."""
    gateway = Gateway(HERE)
    gateway.serve()
    return gateway


async def call(gateway: Gateway) -> bool:
    async with asyncio.timeout(5):
        return await called_back(gateway, gateway, SPIS, times=TIMES)


async def test_one_that_heard_nobody_else_answers_at_once(gateway: Gateway) -> None:
    assert await call(gateway)
    assert gateway.did == ["call back"]


async def test_one_that_had_that_message_id_from_another_node_answers_to_the_next(gateway: Gateway) -> None:
    gateway.expected = 5
    assert await call(gateway)
    assert gateway.did == ["call back", "renumber 5", "call back"]


async def test_one_that_is_away_for_a_moment_is_asked_with_either() -> None:
    class Away(Gateway):
        """Its client hears nothing until it was called for the third time."""

        async def call_back(self, ike_id: int) -> None:
            self.expected = 5 if self.did.count("call back") > 1 else 1_000
            await super().call_back(ike_id)

    gateway = Away(HERE)
    gateway.serve()
    assert await call(gateway)
    assert gateway.did[-4:] == ["renumber 4", "call back", "renumber 5", "call back"]


async def test_one_that_never_answers_is_given_up_after_some_tries(gateway: Gateway) -> None:
    gateway.expected = 1_000
    assert not await call(gateway)
    assert gateway.did.count("call back") == 6


async def test_what_is_not_served_here_is_called_by_nobody(gateway: Gateway) -> None:
    gateway.sa = None
    assert not await call(gateway)
    assert gateway.did == []


async def come(client: Client | None) -> tuple[bool, Gateway]:
    gateway = Gateway(HERE, client=client, coming=True)
    gateway.serve()
    async with asyncio.timeout(5):
        return await came_back(gateway, gateway, SPIS, 9, times=TIMES), gateway


async def test_a_client_that_was_nowhere_else_comes_with_what_is_expected() -> None:
    came, gateway = await come(Client(sends=9))
    assert came
    assert gateway.did == []


async def test_a_client_that_asked_another_node_something_is_heard_all_the_same() -> None:
    came, gateway = await come(Client(sends=10))
    assert came
    assert gateway.did == ["renumber theirs 10"]


async def test_of_a_client_that_does_not_come_is_expected_what_was_expected_before() -> None:
    came, gateway = await come(None)
    assert not came
    assert gateway.sa is not None
    assert gateway.sa.mid_responder == 9


async def catch_up(gateway: Gateway, since: tuple[int, int]) -> None:
    async with asyncio.timeout(5):
        await caught_up(gateway, gateway, SPIS, since, times=TIMES)


async def test_what_another_node_used_meanwhile_is_not_used_again(gateway: Gateway) -> None:
    await catch_up(gateway, (6, 11))
    assert gateway.sa is not None
    assert (gateway.sa.mid_initiator, gateway.sa.mid_responder) == (6, 11)


@pytest.mark.parametrize("since", [(4, 9), (3, 8)])
async def test_who_is_further_than_the_other_node_changes_nothing(
    gateway: Gateway, since: tuple[int, int]
) -> None:
    await catch_up(gateway, since)
    assert gateway.did == []


async def test_a_request_that_the_client_took_for_another_nodes_is_sent_again(gateway: Gateway) -> None:
    assert gateway.sa is not None
    gateway.sa = replace(gateway.sa, busy=True)
    gateway.expected = 5
    await catch_up(gateway, (5, 9))
    assert gateway.did == ["renumber 5", "call back"]


async def test_what_went_on_to_another_node_is_left_alone(gateway: Gateway) -> None:
    await gateway.freeze(SPIS)
    await catch_up(gateway, (6, 11))
    assert gateway.did == ["freeze"]
