"""`mobikectl timeline --history`: a real store's journal as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.cluster.records import MoveState

from .a_cluster import ACluster, carry_out, move

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.cluster.store import Store

    from .conftest import Mobikectl


def test_who_served_whom_and_why_is_drawn(cluster: ACluster, mobikectl: Mobikectl, tmp_path: Path) -> None:
    async def drain(store: Store) -> None:
        for planned in await cluster.plan(
            store, move(["gw1/peer1@example.org#1"]), move(["gw1/peer2@example.org#2"])
        ):
            await carry_out(store, planned, MoveState.VERIFIED)

    cluster.do(drain)
    out = tmp_path / "deep" / "drain.svg"
    done = mobikectl("timeline", "--history", "--title", "a <drain>", "--out", str(out))
    assert done.code == 0, done.err
    drawn = out.read_text()
    for word in ("peer1@example.org", "peer2@example.org", "gw1", "gw2", "drain gw1", "a &lt;drain&gt;"):
        assert word in drawn
    assert "lost (" not in drawn


def test_without_a_move_that_was_begun_there_is_nothing_to_draw(
    cluster: ACluster, mobikectl: Mobikectl, tmp_path: Path
) -> None:
    done = mobikectl("timeline", "--history", "--out", str(tmp_path / "x.svg"))
    assert done.code == 6
    assert not (tmp_path / "x.svg").exists()


def test_results_and_a_history_are_not_drawn_at_once(
    cluster: ACluster, mobikectl: Mobikectl, tmp_path: Path
) -> None:
    assert mobikectl("timeline", "--history", str(tmp_path)).code == 2
    assert mobikectl("timeline").code == 2
