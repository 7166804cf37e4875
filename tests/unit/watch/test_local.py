"""A sidecar's state, read as rows."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.errors import DecodeError
from mobikectl.watch.local import event_row, local_part, loss_of


def path(local: str, remote: str) -> dict[str, str]:
    return {"local": local, "remote": remote}


WAN1, WAN2 = path("198.18.1.1", "198.18.9.1"), path("198.18.2.1", "198.18.9.1")


def candidate(where: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "path": where,
        "link": "wan1",
        "track": {"state": "up", "srtt_s": 0.002, "window": [[5, 4]]},
        "in_use": False,
        "objections": [],
        "note": "",
        **more,
    }


def state() -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "role": "client",
        "health": {"ok": True, "problems": []},
        "charon": {"state": "up"},
        "cluster": None,
        "sas": [
            {
                "uniqueid": 3,
                "name": "office",
                "remote_id": "gw@example.org",
                "state": "ESTABLISHED",
                "path": WAN1,
                "original_initiator": True,
                "nat_local": False,
                "nat_remote": True,
                "children": [{"name": "net", "state": "INSTALLED"}],
                "established_s": 12.0,
            }
        ],
        "paths": [
            {
                "sa_uniqueid": 3,
                "verdict": "moving",
                "target": WAN2,
                "candidates": [
                    candidate(WAN1, in_use=True),
                    candidate(WAN2, track=None, objections=[{"text": "no route"}]),
                ],
            }
        ],
        "moves": [
            {
                "name": "office",
                "sa": 3,
                "before": WAN2,
                "after": WAN1,
                "cause": "wan2 is down",
                "state": "verified",
                "steps": [{"at": 1.0}, {"at": 1.5}],
            }
        ],
    }


def test_connections_paths_and_moves_are_read() -> None:
    part = local_part(state())
    (one,) = part.connections
    assert (one.uniqueid, one.path, one.behind_nat, one.children) == (
        *(3, "198.18.1.1 -> 198.18.9.1", True),
        ("net INSTALLED",),
    )
    first, second = one.paths
    assert (first.in_use, first.target, first.state) == (True, False, "up")
    assert first.loss == pytest.approx(0.2)
    assert (second.in_use, second.target, second.state, second.why) == (False, True, "-", "no route")
    assert part.moves[0].took_s == 0.5


@pytest.mark.parametrize("missing", ["sas", "paths", "moves", "charon", "role", "health"])
def test_a_state_of_another_version_is_an_error_not_a_crash(missing: str) -> None:
    broken = state()
    del broken[missing]
    with pytest.raises(DecodeError, match="missing or of the wrong kind"):
        local_part(broken)


@pytest.mark.parametrize("nonsense", [{}, {"sas": 3}, {**state(), "sas": [None]}, {**state(), "paths": "x"}])
def test_nonsense_is_an_error_not_a_crash(nonsense: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        local_part(nonsense)


def test_an_event_keeps_its_time() -> None:
    row = event_row({"time": "2026-01-02T03:04:05.500+00:00", "source": "charon", "name": "n", "text": "t"})
    assert row.wall == 1767323045.5
    with pytest.raises(DecodeError):
        event_row({"time": "soon", "source": "charon", "name": "n", "text": "t"})


def test_nothing_sent_is_no_loss() -> None:
    assert loss_of([]) is None
    assert loss_of([[4, 4], [4, 0]]) == 0.5
