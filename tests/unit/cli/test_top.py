"""`mobikectl top`: the full screen, driven by keys as an operator does, and one frame of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.text import Text
from textual.events import Key
from textual.widgets import DataTable, Static

from mobikectl.cli.top import StoreWishes
from mobikectl.cli.top_app import Ask, Page, TopApp
from mobikectl.cli.top_draw import bar
from mobikectl.errors import StoreUnreachableError
from mobikectl.watch.rows import Freshness, View

from ..watch.rows_made import cluster, event, local, move, node, sa, view
from .a_cluster import ACluster
from .a_cluster import move as planned

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from mobikectl.cluster.store import Store

    from .conftest import Mobikectl

SIZE = (180, 45)


class Said:
    """An operator's wishes, as they were said."""

    def __init__(self) -> None:
        self.all: list[tuple[object, ...]] = []
        self.refuse = False

    async def drain(self, node: str) -> str:
        return self._take("drain", node)

    async def undrain(self, node: str) -> str:
        return self._take("undrain", node)

    async def pause(self, paused: bool) -> str:
        return self._take("pause", paused)

    def _take(self, *wish: object) -> str:
        if self.refuse:
            raise StoreUnreachableError("the store does not answer", hint="look at it")
        self.all.append(wish)
        return "so be it"


class Screen:
    """What looks at what: a view that a test changes, and the application that shows it."""

    def __init__(self, seen: View) -> None:
        self.seen = seen
        self.said = Said()
        self.app = TopApp(lambda: self.seen, self.said)

    def table(self, name: str = "first") -> list[list[str]]:
        table = self.app.screen_stack[0].query_one(f"#{name}", DataTable)
        return [[_plain(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]

    def text(self, name: str) -> str:
        return _plain(self.app.screen_stack[0].query_one(f"#{name}", Static).content)

    def told(self) -> list[str]:
        return [note.message for note in self.app._notifications]


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


async def test_nodes_moves_and_events_are_on_the_screen() -> None:
    screen = Screen(view(cluster(moves=(move(1, "planned", "requested"),), moving=1)))
    async with screen.app.run_test(size=SIZE):
        assert [row[0] for row in screen.table()] == ["gw1 *", "gw2"]
        assert screen.table("second")[0][1:6] == [
            *("peer1@example.org", "gw1 -> gw2", "notify", "drain", "requested")
        ]
        assert "it is up" in screen.text("events")
        assert "gw1 leads" in screen.text("head")
        assert "1 on the way" in screen.text("head")


async def test_what_changes_is_shown_without_a_key() -> None:
    screen = Screen(view(cluster()))
    async with screen.app.run_test(size=SIZE) as pilot:
        screen.seen = view(cluster(nodes=(node("gw7"),)))
        screen.app.redraw()
        await pilot.pause()
        assert [row[0] for row in screen.table()] == ["gw7"]


async def test_s_sorts_and_the_chosen_node_stays_chosen() -> None:
    screen = Screen(view(cluster()))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "s")
        assert [row[0] for row in screen.table()] == ["gw2", "gw1 *"]
        assert screen.app.query_one("#first", DataTable).cursor_row == 1
        await press(pilot, "S")
        assert [row[0] for row in screen.table()] == ["gw1 *", "gw2"]


async def test_the_filter_holds_until_escape_shows_all_again() -> None:
    screen = Screen(view(cluster(moves=(move(1), move(2)))))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "slash", *"peer2", "enter")
        assert [row[0] for row in screen.table("second")] == ["2"]
        assert screen.table() == []
        assert "only 'peer2'" in screen.text("head")
        await press(pilot, "escape")
        assert len(screen.table()) == 2


async def test_a_text_that_is_typed_fast_is_a_filter_and_no_command() -> None:
    screen = Screen(view(cluster()))
    async with screen.app.run_test(size=SIZE) as pilot:
        for key in "/andy/p":
            screen.app.post_message(
                Key("slash" if key == "/" else key, key)
            )  # as a terminal does: all at once
        await pilot.pause()
        await screen.app.workers.wait_for_complete()
        assert screen.said.all == []
        assert "only 'andy/p'" in screen.text("head")


async def test_a_drain_is_asked_for_and_done_only_after_a_yes() -> None:
    screen = Screen(view(cluster()))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "down", "d")
        assert isinstance(screen.app.screen, Ask)
        await press(pilot, "enter")
        assert not isinstance(screen.app.screen, Ask)
        assert screen.said.all == []
        await press(pilot, "d", "y")
        await screen.app.workers.wait_for_complete()
        assert screen.said.all == [("drain", "gw2")]
        await pilot.pause()
        assert screen.told() == ["so be it"]


async def test_a_drained_node_is_given_back_by_the_same_key() -> None:
    screen = Screen(view(cluster(nodes=(node("gw1", drained=True),))))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "d", "y")
        await screen.app.workers.wait_for_complete()
        assert screen.said.all == [("undrain", "gw1")]


@pytest.mark.parametrize("paused", [False, True])
async def test_p_pauses_a_cluster_and_lets_a_paused_one_go_on(paused: bool) -> None:
    screen = Screen(view(cluster(paused=paused)))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "p", "n")
        assert screen.said.all == []
        await press(pilot, "p", "y")
        await screen.app.workers.wait_for_complete()
        assert screen.said.all == [("pause", not paused)]


async def test_what_the_store_refuses_is_told_and_the_screen_goes_on() -> None:
    screen = Screen(view(cluster()))
    screen.said.refuse = True
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "d", "y")
        await screen.app.workers.wait_for_complete()
        await pilot.pause()
        assert screen.told() == ["the store does not answer (look at it)"]
        await press(pilot, "s")
        assert [row[0] for row in screen.table()] == ["gw2", "gw1 *"]


async def test_enter_lists_the_ike_sas_of_the_chosen_node() -> None:
    screen = Screen(view(cluster(sas=(sa("alice"), sa("bob", "gw2")))))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "down", "enter")
        page = screen.app.screen
        assert isinstance(page, Page)
        table = page.query_one(DataTable)
        assert _plain(table.get_row_at(0)[0]) == "gw2/bob#1"
        await press(pilot, "escape")
        assert not isinstance(screen.app.screen, Page)


async def test_a_store_that_went_away_makes_the_view_old_and_says_why() -> None:
    old = View(cluster(), None, (), {"store": Freshness(42.0, "no answer within 5 s")})
    screen = Screen(old)
    async with screen.app.run_test(size=SIZE):
        assert "store: as of 42 s ago (no answer within 5 s)" in screen.text("head")
        assert len(screen.table()) == 2


async def test_without_a_cluster_the_host_s_own_ike_sas_and_paths_are_shown_and_nothing_can_be_drained() -> (
    None
):
    screen = Screen(view(None, local()))
    async with screen.app.run_test(size=SIZE) as pilot:
        assert screen.table()[0][1] == "office"
        assert [row[2] for row in screen.table("second")] == [
            *("198.18.1.1 -> 198.18.9.1", "198.18.2.1 -> 198.18.9.1")
        ]
        await press(pilot, "d", "p")
        assert len(screen.told()) >= 1
        assert "no cluster" in screen.told()[0]


async def test_what_a_peer_calls_itself_is_shown_and_not_obeyed() -> None:
    hostile = "[bold red]x[/] [link=http://example.org]y[/link] \x1b[2J"
    screen = Screen(
        View(
            cluster(moves=(move(1, peers=(hostile,)),)),
            None,
            (event(1.0, text=hostile),),
            {"store": Freshness(0.1)},
        )
    )
    async with screen.app.run_test(size=SIZE):
        assert "[bold red]x[/]" in screen.table("second")[0][1]
        assert "[bold red]x[/]" in screen.text("events")
        assert "\x1b" not in screen.table("second")[0][1]
        assert "\x1b" not in screen.text("events")


async def test_question_mark_helps_and_q_ends() -> None:
    screen = Screen(view(cluster()))
    async with screen.app.run_test(size=SIZE) as pilot:
        await press(pilot, "question_mark")
        assert isinstance(screen.app.screen, Page)
        await press(pilot, "escape", "q")
    assert screen.app.return_code == 0


def test_a_bar_is_full_at_capacity_and_red_above_the_limit() -> None:
    assert bar(0.0, 0.9).plain == "░" * 8
    assert bar(0.5, 0.9).plain == "████░░░░"
    assert bar(1.0, 0.9).plain == bar(7.0, 0.9).plain == "████████"
    assert bar(1 / 64, 0.9).plain == "▏░░░░░░░"
    assert [str(bar(share, 0.9).spans[0].style) for share in (0.5, 0.8, 0.95)] == ["green", "yellow", "red"]


# --- on a real store


def test_one_frame_shows_nodes_moves_and_the_tail(cluster: ACluster, mobikectl: Mobikectl) -> None:
    async def begin(store: Store) -> None:
        await cluster.plan(store, planned(["gw1/peer1@example.org#1"]))

    cluster.do(begin)
    done = mobikectl("top", "--once")
    assert done.code == 0, done.err
    assert "gw1 *" in done.out
    assert "gw1 leads" in done.out
    assert "peer1@example.org: gw1 -> gw2 by redirect (drain): planned" in done.out


def test_without_a_terminal_the_full_screen_says_what_to_do(cluster: ACluster, mobikectl: Mobikectl) -> None:
    done = mobikectl("top")
    assert done.code == 2
    assert "--once" in done.err


def test_a_store_that_is_not_there_is_an_error_at_once(empty_cluster: ACluster, mobikectl: Mobikectl) -> None:
    assert mobikectl("top", "--once").code == 12


def test_wishes_are_written_as_the_commands_write_them(cluster: ACluster) -> None:
    async def wish(store: Store) -> tuple[list[str], View]:
        wishes = StoreWishes(store)
        told = [await wishes.drain("gw1"), await wishes.pause(True)]
        state = await store.state()
        assert state.intent("gw1").value.drained
        assert state.cluster.value.paused
        told += [await wishes.undrain("gw1"), await wishes.pause(False)]
        state = await store.state()
        assert not state.intent("gw1").value.drained
        assert not state.cluster.value.paused
        return told, View()

    told, _ = cluster.do(wish)
    assert told[0].startswith("gw1 is drained")
    assert "paused" in told[2]
