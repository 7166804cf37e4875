"""The operator's request: what it selects, where it leads, and what is wrong with it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from mobikectl.errors import MobikectlError, MoveError, NotFoundError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.sidecar.switching import destination, select

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
    "request_", [{}, {"sa": 1, "peer": "x"}, {"sa": 1, "from": "nonsense"}, {"sa": 1, "from": 5}]
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
