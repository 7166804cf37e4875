"""nodes, plan, explain, history: what is there, what would be done, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.shell_completion import ShellComplete

from mobikectl.cli import root
from mobikectl.cluster.backend import Write
from mobikectl.cluster.records import MoveState, NodeIntent, Pin
from mobikectl.policy.cluster import Capability, Health, Reason

from .a_cluster import carry_out, move, row, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster
    from .conftest import Done


@pytest.fixture
def lopsided(empty_cluster: ACluster) -> ACluster:
    """gw1 serves 20 IKE_SAs, gw2 4; gw1 leads."""

    async def fill(store: Store) -> None:
        await empty_cluster.join(store, "gw1", rows("gw1", 20))
        await empty_cluster.join(store, "gw2", [row("gw2", f"other{n}@example.org", n) for n in range(4)])
        await empty_cluster.lead(store)

    empty_cluster.do(fill)
    return empty_cluster


# nodes


def test_nodes_are_listed_with_load_health_and_leader(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("nodes")
    assert (done.code, done.err) == (0, "")
    first, second = [line for line in done.out.splitlines() if "healthy" in line]
    assert first.split()[:2] == ["gw1", "*"]
    assert "20.0%" in first
    assert "198.18.2.1" in second
    assert "gw1 leads; the even level is 12.0%" in done.out
    told = mobikectl("nodes", "--json").json
    assert told["leader"] == "gw1"
    assert [(node["node"], node["ike_sas"], node["used"]) for node in told["nodes"]] == [
        ("gw1", 20, 0.2),
        ("gw2", 4, 0.04),
    ]


def test_what_is_wanted_of_nodes_is_shown_also_of_those_that_are_away(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def want(store: Store) -> None:
        await store.set_intent("gw2", NodeIntent(drained=True, by="eve@host", note="new disk"), revision=0)
        await store.set_intent("gw7", NodeIntent(weight=2.0), revision=0)
        await store.set_intent("gw8", NodeIntent(drained=False, by="eve@host"), revision=0)
        await lopsided.tell(store, "gw1", rows("gw1", 20), health=Health.IMPAIRED, note="the probe fails")

    lopsided.do(want)
    done = mobikectl("nodes")
    assert "drained (by eve@host, new disk)" in done.out
    assert "impaired: the probe fails" in done.out
    assert any(line.split()[:2] == ["gw7", "away"] for line in done.out.splitlines())
    assert "gw8" not in done.out  # given back: nobody wants anything of it any more


def test_a_store_without_nodes_says_which_it_is(
    empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    empty_cluster.do(lambda store: store.state())
    done = mobikectl("nodes")
    assert done.code == 0
    assert "no node is there (store sqlite, cluster 'default')" in done.out
    assert "nobody leads" in done.err


def test_a_value_that_nobody_can_read_is_told(lopsided: ACluster, mobikectl: Callable[..., Done]) -> None:
    async def spoil(store: Store) -> None:
        await store._backend.commit([], [Write("/mobikectl/default/state/intents/gw2", b"drain it")])

    lopsided.do(spoil)
    done = mobikectl("nodes")
    assert done.code == 0
    assert "nothing is planned: /mobikectl/default/state/intents/gw2 is no NodeIntent" in done.err


# plan


def test_a_plan_says_what_how_why_and_who_acts(lopsided: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl("plan")
    assert (done.code, done.err) == (0, "")
    assert "8 IKE_SAs would be moved now: 8 by redirect (8 spread)" in done.out
    assert "20.0% -> 19.0%" in done.out
    assert "gw1 leads and has it carried out by itself" in done.out
    told = mobikectl("plan", "--json").json
    assert (told["ike_sas"], told["by_reason"], told["leader"]) == (8, {"spread": 8}, "gw1")
    assert told["moves"][0]["source"] == "gw1"
    assert "more than its share" in told["moves"][0]["why"]
    assert lopsided.do(lambda store: store.journal()).moves == ()


def test_a_plan_of_a_balanced_cluster_is_empty(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    assert mobikectl("plan").out.splitlines() == ["nothing would be moved now"]


def test_the_plan_of_a_paused_cluster_says_what_would_be_done_after_resume(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    lopsided.do(lopsided.pause)
    done = mobikectl("plan")
    assert "8 IKE_SAs would be moved now" in done.out
    assert "the cluster is paused (by eve@host, looking)" in done.err
    assert "gw1 leads" not in done.out


def test_in_manual_balance_the_plan_says_what_waits_for_apply(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    lopsided.configure(balance="manual")
    assert "`mobikectl apply` has 8 of them carried out" in mobikectl("plan").out
    mobikectl("drain", "gw1")
    done = mobikectl("plan", "--json").json
    assert done["by_reason"] == {"drain": 20}
    assert not any(planned["needs_apply"] for planned in done["moves"])


def test_what_is_on_its_way_is_not_in_the_plan_but_told(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    lopsided.do(lambda store: lopsided.plan(store, move(["gw1/peer1@example.org#1"])))
    told = mobikectl("plan", "--json").json
    assert [one["state"] for one in told["under_way"]] == ["planned"]
    assert "on their way already: 1 IKE_SA," in mobikectl("plan").out


# explain


@pytest.mark.parametrize("name", ["gw1/peer7@example.org#7", "peer7@example.org", "198.19.0.7", "7"])
def test_an_ike_sa_is_explained_by_any_of_its_names(
    name: str, lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("explain", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "gw1/peer7@example.org#7"
    assert "it can: MOBIKE R redirect" in done.out
    assert "served by gw1 at 198.18.1.1" in done.out
    assert "could leave by redirect, to 1 nodes" in done.out


def test_an_explanation_tells_pins_and_what_was_tried(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def happen(store: Store) -> None:
        await store.pin(Pin("peer7@example.org", by="eve@host", note="a demonstration"), revision=0)
        (planned,) = await lopsided.plan(store, move(["gw1/peer7@example.org#7"]))
        await carry_out(store, planned, MoveState.REFUSED, "the peer said no")

    lopsided.do(happen)
    out = mobikectl("explain", "7").out
    assert "pinned: it is never moved" in out
    assert "the pin: peer7@example.org (by eve@host, a demonstration)" in out
    assert "by redirect: refused in" in out
    assert "the peer said no" in out


def test_an_ike_sa_on_its_way_is_not_called_pinned(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    lopsided.do(lambda store: lopsided.plan(store, move(["gw1/peer7@example.org#7"])))
    out = mobikectl("explain", "7").out
    assert "on its way to gw2 by redirect: planned" in out
    assert "never moved" not in out


def test_who_is_unknown_is_answered_with_who_was_meant(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("explain", "peer77@example.org")
    assert done.code == 6
    assert "no IKE_SA 'peer77@example.org' in the cluster" in done.err
    assert "did you mean 'peer7" in done.err


def test_a_number_that_several_other_nodes_have_is_asked_back(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def fill(store: Store) -> None:
        await lopsided.join(store, "gw3", [row("gw3", "x@example.org", 99)])
        await lopsided.tell(store, "gw2", [row("gw2", "y@example.org", 99)])

    lopsided.do(fill)
    done = mobikectl("explain", "99")
    assert done.code == 6
    assert "gw2/y@example.org#99, gw3/x@example.org#99" in done.err


# history


@pytest.fixture
def with_history(cluster: ACluster) -> ACluster:
    async def happen(store: Store) -> None:
        one, two, three, _four = await cluster.plan(
            store,
            move(["gw1/peer1@example.org#1"]),
            move(["gw1/peer2@example.org#2"]),
            move(["gw2/peer3@example.org#3"], source="gw2", target="gw1", reason=Reason.SPREAD),
            move(["gw1/peer4@example.org#4", "gw1/peer5@example.org#5"]),
        )
        await carry_out(store, one, MoveState.VERIFIED)
        await carry_out(store, two, MoveState.REFUSED, "the peer said no")
        await carry_out(store, three, MoveState.TIMED_OUT)

    cluster.do(happen)
    return cluster


def test_history_shows_each_move_with_its_steps(
    with_history: ACluster, mobikectl: Callable[..., Done]
) -> None:
    out = mobikectl("history").out.splitlines()
    assert len(out) == 5
    assert "gw1 -> gw2 (198.18.2.1)" in out[1]
    assert "verified" in out[1]
    assert "requested +" in out[1]
    assert "the peer said no" in out[2]
    assert "gw1/peer4@example.org#4 and 1 more" in out[4]
    told = mobikectl("history", "--json").json
    assert [one["state"] for one in told] == ["verified", "refused", "timed-out", "planned"]
    steps = told[0]["steps"]
    assert [step["state"] for step in steps] == ["planned", "requested", "moved", "verified"]
    assert steps[0]["after_s"] is None
    assert all(step["after_s"] >= 0 for step in steps[1:])
    assert told[0]["took_s"] == pytest.approx(sum(step["after_s"] for step in steps[2:]), abs=1e-3)
    assert told[3]["took_s"] is None


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--last", "2"], [3, 4]),
        (["--last", "0"], []),
        (["--failed"], [2, 3]),
        (["--sa", "peer2@"], [2]),
        (["--node", "gw2"], [1, 2, 3, 4]),
    ],
    ids=["last 2", "last 0", "failed", "sa", "node"],
)
def test_history_can_be_narrowed(
    options: list[str], numbers: list[int], with_history: ACluster, mobikectl: Callable[..., Done]
) -> None:
    assert [one["number"] for one in mobikectl("history", "--json", *options).json] == numbers


def test_history_of_a_node_that_never_was_is_refused(
    with_history: ACluster, mobikectl: Callable[..., Done]
) -> None:
    assert mobikectl("history", "--node", "gw4").code == 6


# redirect


def test_a_redirect_to_nobody_names_who_was_meant(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl("redirect", "--sa", "1", "--to", "gw22")
    assert done.code == 6
    assert "did you mean 'gw2'?" in done.err


@pytest.mark.parametrize("which", [[], ["--sa", "1", "--peer-id", "x"]], ids=["nothing", "too much"])
def test_a_redirect_needs_to_know_whom(
    which: list[str], cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    assert mobikectl("redirect", *which, "--to", "gw2").code == 2


def test_a_redirect_without_charon_says_so(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl("redirect", "--sa", "1", "--to", "gw2")
    assert done.code == 4
    assert done.out == ""


# The shell


def completions(*args: str, incomplete: str) -> list[str]:
    shell = ShellComplete(root, {}, "mobikectl", "_MOBIKECTL_COMPLETE")
    return [item.value for item in shell.get_completions(list(args), incomplete)]


def test_the_shell_completes_nodes_from_the_store(cluster: ACluster) -> None:
    config = str(cluster.config)
    assert completions("drain", "--config", config, incomplete="gw") == ["gw1", "gw2"]
    assert completions("history", "--config", config, "--node", incomplete="gw2") == ["gw2"]
    assert completions("weight", "--config", config, incomplete="x") == []


def test_the_shell_gets_nothing_and_no_error_where_there_is_no_store(empty_cluster: ACluster) -> None:
    assert completions("drain", "--config", str(empty_cluster.config), incomplete="g") == []


def test_what_a_peer_supports_is_told_also_when_it_is_nothing(
    lopsided: ACluster, mobikectl: Callable[..., Done]
) -> None:
    old = row("gw1", "old@example.org", 50, capability=Capability.NONE)
    lopsided.do(lambda store: lopsided.tell(store, "gw1", [old]))
    out = mobikectl("explain", "old@example.org").out
    assert "it can: nothing that moves it without an interruption" in out
    assert "no mechanism: its peer supports none that the settings allow" in out
