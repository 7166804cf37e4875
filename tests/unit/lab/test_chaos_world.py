"""Which IKE_SAs a standby may not know in full when their charon is killed now."""

from __future__ import annotations

from mobikectl.lab.chaos.world import _fresh


def listed(state: str = "ESTABLISHED", *, established: int = 900, installed: int = 900) -> dict[str, object]:
    return {
        "state": state,
        "initiator-spi": "1",
        "responder-spi": "2",
        "established": str(established),
        "child-sas": {"net-1": {"install-time": str(installed)}},
    }


def test_one_that_was_made_or_rekeyed_just_now_is_fresh_and_so_is_one_with_such_a_child_sa() -> None:
    assert _fresh([("a", listed(established=0))]) == {("a", "1", "2")}
    assert _fresh([("a", listed(installed=1))]) == {("a", "1", "2")}


def test_one_that_has_been_as_it_is_for_two_seconds_is_not() -> None:
    assert not _fresh([("a", listed(established=2, installed=2))])
    assert not _fresh([("a", {**listed(), "child-sas": {}})])


def test_a_copy_is_served_by_nobody_however_young_it_is() -> None:
    assert not _fresh([("a", listed("PASSIVE", established=0, installed=0))])
