"""The operator's request: what it selects, where it leads, and what is wrong with it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

import pytest

from mobikectl.errors import MobikectlError, MoveError, NotFoundError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.sidecar.switching import destination, select, switch
from mobikectl.switch.moves import Mechanism, Move, MoveState, plan_move

if TYPE_CHECKING:
    from mobikectl.switch.executor import MoveOrder
    from mobikectl.switch.steering import Steering

OLD = ip_address("198.18.1.1")


def sa(uniqueid: int, peer: str, *, remote: str = "198.18.9.1", name: str = "office") -> IkeSa:
    return IkeSa(uniqueid, name, IkeState.ESTABLISHED, Path(OLD, ip_address(remote)), remote_id=peer)


SAS = {
    1: sa(1, "alice.example"),
    2: sa(2, "bob.example", remote="198.18.9.2"),
    3: sa(3, "alice.example", remote="198.18.9.2", name="home"),
}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"sa": 2}, [2]),
        ({"peer": "alice.example"}, [1, 3]),
        ({"peer": "198.18.9.2"}, [2, 3]),
        ({"peer": "home"}, [3]),
        ({"peer": "alice.example", "from": "198.18.1.1"}, [1, 3]),
        ({"peer": "alice.example", "from": "198.18.9.2"}, [3]),
    ],
)
def test_an_sa_is_named_by_number_identity_address_or_connection(
    request_: dict[str, Any], expected: list[int]
) -> None:
    assert [found.uniqueid for found in select(request_, SAS)] == expected


@pytest.mark.parametrize("request_", [{"sa": 9}, {"peer": "carol"}, {"sa": 1, "from": "198.18.7.7"}])
def test_what_matches_nothing_is_said_with_what_was_asked(request_: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match="no IKE_SA matches"):
        select(request_, SAS)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"sa": 1, "peer": "x"},
        {"sa": 1, "from": "nonsense"},
        {"sa": 1, "from": 5},
        {"sa": True},
        {"sa": 1.0},
        {"sa": [1]},
        {"peer": ""},
        {"peer": ["alice.example"]},
        {"peer": {}},
        {"sa": 1, "dry_run": "no"},
        {"sa": 1, "dryrun": True},
        {"sa": 1, "force": "yes"},
    ],
)
def test_a_request_without_sense_is_refused_with_a_hint(request_: dict[str, Any]) -> None:
    with pytest.raises(MobikectlError) as caught:
        select(request_, SAS)
    assert caught.value.hint


def test_the_destination_keeps_the_peer_and_its_family() -> None:
    assert destination(SAS[1], ip_address("198.18.2.1")) == Path(
        ip_address("198.18.2.1"), ip_address("198.18.9.1")
    )
    with pytest.raises(MoveError, match="two families"):
        destination(SAS[1], ip_address("2001:db8::1"))


async def test_an_sa_that_cannot_be_moved_does_not_stop_the_others() -> None:
    now, most = 0, 0

    async def obey(sa: IkeSa, order: MoveOrder) -> Move:
        nonlocal now, most
        if sa.uniqueid == 1:
            raise NotFoundError("it went away")
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        move = plan_move(
            1,
            sa=sa.uniqueid,
            name=sa.name,
            before=sa.path,
            after=order.path,
            mechanism=Mechanism.ROUTE,
            cause="",
            at=0.0,
        )
        return move.to(MoveState.MOVED, at=0.0).to(MoveState.VERIFIED, at=0.0)

    steering = cast("Steering", None)
    answer = await switch(
        {"peer": "office", "to": "198.18.2.1"}, OFFICES, steering, obey, lambda _: None, by_route
    )
    assert [(move["sa"], move["state"]) for move in answer["moves"]] == [
        (1, "failed"),
        (2, "verified"),
        (3, "verified"),
        (4, "verified"),
    ]
    assert "it went away" in answer["moves"][0]["reason"]
    assert most == 2, "one peer address beside the other, the SAs of one address after each other"
    with pytest.raises(NotFoundError):
        await switch({"sa": 1, "to": "198.18.2.1"}, OFFICES, steering, obey, lambda _: None, by_route)


def by_route(_sa: IkeSa, _wanted: Mechanism | None) -> Mechanism:
    return Mechanism.ROUTE


@pytest.mark.parametrize(
    ("word", "mechanism"),
    [
        (None, None),
        ("auto", None),
        ("notify", Mechanism.NOTIFY),
        ("implicit", Mechanism.ROUTE),
        ("redirect", Mechanism.REDIRECT),
    ],
)
async def test_an_order_carries_the_mechanism_that_was_asked_for(
    word: str | None, mechanism: Mechanism | None
) -> None:
    orders: list[MoveOrder] = []

    async def obey(sa: IkeSa, order: MoveOrder) -> Move:
        orders.append(order)
        return await moved(sa, order)

    request = {"sa": 1, "to": "198.18.2.1", "mechanism": word}
    await switch(request, SAS, cast("Steering", None), obey, lambda _: None, by_route)
    assert [order.mechanism for order in orders] == [mechanism]


@pytest.mark.parametrize("word", ["guess", "route", 5, ["notify"]])
async def test_an_unknown_mechanism_moves_nothing(word: Any) -> None:
    with pytest.raises(MoveError, match="--mechanism"):
        await switch(
            {"sa": 1, "to": "198.18.2.1", "mechanism": word},
            SAS,
            cast("Steering", None),
            moved,
            lambda _: None,
            by_route,
        )


REDIRECT = {"to": "198.18.30.1", "mechanism": "redirect"}


async def redirected(request: dict[str, Any], before: dict[str, int]) -> tuple[list[int], list[str]]:
    """Given a request and how often each peer was redirected lately, return who is redirected now, and each reason."""
    done: list[int] = []

    async def obey(sa: IkeSa, order: MoveOrder) -> Move:
        done.append(sa.uniqueid)
        return await moved(sa, order)

    answer = await switch(
        request,
        SAS,
        cast("Steering", None),
        obey,
        lambda _: None,
        by_route,
        redirects=lambda sa: before.get(sa.remote_id, 0),
    )
    return done, [move["reason"] for move in answer["moves"]]


async def test_a_client_that_followed_all_redirects_that_it_may_is_not_lost_by_one_more() -> None:
    with pytest.raises(MoveError, match=r"bob.example may have followed 5 redirects .* 300 s"):
        await redirected(REDIRECT | {"sa": 2}, {"bob.example": 5})
    assert await redirected(REDIRECT | {"sa": 2}, {"bob.example": 4}) == ([2], [""])


async def test_of_several_clients_only_those_that_may_still_follow_are_redirected() -> None:
    done, reasons = await redirected(REDIRECT | {"peer": "198.18.9.2"}, {"bob.example": 5})
    assert done == [3]
    assert "followed 5 redirects" in reasons[0]


async def test_an_operator_may_insist_on_one_redirect_more() -> None:
    done, _ = await redirected(REDIRECT | {"sa": 2, "force": True}, {"bob.example": 7})
    assert done == [2]


async def test_redirects_count_for_nothing_where_another_mechanism_is_used() -> None:
    done, _ = await redirected({"sa": 2, "to": "198.18.2.1"}, {"bob.example": 7})
    assert done == [2]


async def moved(sa: IkeSa, order: MoveOrder) -> Move:
    planned = plan_move(
        1,
        sa=sa.uniqueid,
        name=sa.name,
        before=sa.path,
        after=order.path,
        mechanism=order.mechanism or Mechanism.ROUTE,
        cause=order.cause,
        at=0.0,
    )
    return planned.to(MoveState.MOVED, at=0.1).to(MoveState.VERIFIED, at=0.2)


OFFICES = {n: sa(n, f"user{n}", remote=f"198.18.9.{n // 4 + 1}") for n in (1, 2, 3, 4)}
