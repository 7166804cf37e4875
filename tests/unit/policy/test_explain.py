"""Why an IKE_SA is where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mobikectl.errors import NotFoundError
from mobikectl.policy.cluster import Capability
from mobikectl.policy.explain import explain

from .balance_clusters import NOW, node, sas, settings, view


def told(**more: Any) -> str:
    nodes = [node(1, drained=True, site="east"), node(2, site="east"), node(3, site="west")]
    rows = [replace(row, **more) for row in sas("g1", [5.0] * 3, site="east")]
    return "\n".join(explain(view(nodes, rows), settings(), NOW, "g1-001"))


def test_it_says_where_the_ike_sa_is_how_it_could_leave_and_what_is_planned() -> None:
    text = told()
    assert "served by g1 at 198.18.0.1, 5 bytes/s" in text
    assert "g1 is healthy, drained, at 1.5% of its capacity" in text
    assert "could leave by notify, to 1 nodes (in any site: 2)" in text
    assert "planned now: g1-001: g1 (198.18.0.1) -> g2 (198.18.0.2) by notify: g1 is drained" in text


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"pinned": True}, "pinned: it is never moved"),
        ({"refused_until": NOW + 9}, "refused a move: left alone for another 9 s"),
        ({"last_moved_at": NOW - 20}, "rests for another 40 s"),
        ({"recent_redirects": 4}, "redirected 4 times in 300 s"),
        ({"capability": Capability.NONE}, "no mechanism"),
    ],
)
def test_it_says_what_holds_it(what: dict[str, object], words: str) -> None:
    assert words in told(**what)


def test_what_is_held_is_not_planned_for() -> None:
    assert told(pinned=True).endswith("planned now: it stays")


def test_an_unknown_ike_sa_is_an_error() -> None:
    with pytest.raises(NotFoundError):
        explain(view([node(1)], []), settings(), NOW, "nobody")
