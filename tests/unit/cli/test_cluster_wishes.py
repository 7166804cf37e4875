"""pause, resume, weight, drain, undrain, pin, unpin: what operators want, and what a wrong word is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import MoveState
from mobikectl.policy.cluster import Mechanism

from .a_cluster import move, row, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster
    from .conftest import Done


def state_of(cluster: ACluster) -> ClusterState:
    return cluster.do(lambda store: store.state())


# What every one of them answers.

EVERY = [
    ("nodes",),
    ("plan",),
    ("drain", "gw1"),
    ("undrain", "gw1"),
    ("pause",),
    ("resume",),
    ("weight", "gw1", "2"),
    ("pin",),
    ("unpin", "--all"),
    ("history",),
    ("explain", "x"),
    ("apply",),
]


@pytest.mark.parametrize("command", EVERY, ids=lambda words: words[0])
def test_a_store_that_is_not_there_is_told_and_not_made(
    command: tuple[str, ...], empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl(*command)
    assert done.code == 12
    assert "no such store" in done.err
    assert done.out == ""
    assert not (empty_cluster.path / "cluster.db").exists()


def test_a_store_that_this_user_may_not_look_at_is_told_in_one_line(
    empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    file = empty_cluster.path / "mobikectl.toml"
    file.write_text(file.read_text().replace("cluster.db", "x" * 300))  # to root nothing else is closed
    done = mobikectl("nodes")
    assert done.code == 12
    assert "File name too long" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", EVERY, ids=lambda words: words[0])
def test_without_a_cluster_in_the_configuration_the_command_says_so(
    command: tuple[str, ...], empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    empty_cluster.config.write_text("")
    done = mobikectl(*command)
    assert done.code == 3
    assert "no [cluster] is configured" in done.err


@pytest.mark.parametrize("command", [("drain",), ("undrain",), ("weight", "1")], ids=lambda words: words[0])
def test_an_unknown_node_is_answered_with_one_that_was_meant(
    command: tuple[str, ...], cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl(command[0], "gw22", *command[1:])
    assert done.code == 6
    assert "no node 'gw22'" in done.err
    assert "did you mean 'gw2'?" in done.err
    assert not state_of(cluster).intents


def test_an_unknown_node_that_is_like_none_is_answered_with_those_that_there_are(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    assert "there are gw1, gw2" in mobikectl("drain", "paris").err


# pause and resume


def test_pause_and_resume_say_what_was(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl("pause", "--note", "a switch is changed")
    assert (done.code, done.err) == (0, "")
    assert "the cluster is paused" in done.out
    intent = state_of(cluster).cluster.value
    assert (intent.paused, intent.note) == (True, "a switch is changed")
    assert "@" in intent.by
    again = mobikectl("pause")
    assert "was paused already" in again.out
    assert "a switch is changed" in again.out
    assert "it was paused" in mobikectl("resume").out
    assert not state_of(cluster).cluster.value.paused
    assert "it was not paused" in mobikectl("resume").out


def test_a_paused_cluster_says_how_many_moves_are_still_under_way(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def begin(store: Store) -> None:
        first, _second = await cluster.plan(store, move(["gw1/a#1"]), move(["gw1/b#2"]))
        await store.update(first, first.value.to(MoveState.REQUESTED, at=1.0))

    cluster.do(begin)
    assert mobikectl("pause", "--json").json == {"paused": True, "was_paused": False, "moves_under_way": 1}


# weight


def test_a_weight_is_set_and_taken_back(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl("weight", "gw2", "0.5")
    assert (done.code, done.out.strip()) == (0, "gw2: weight 0.5, was its own, 1")
    assert state_of(cluster).intent("gw2").value.weight == 0.5
    assert mobikectl("weight", "gw2", "own").out.strip() == "gw2: weight its own, 1, was 0.5"
    assert state_of(cluster).intent("gw2").value.weight is None


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "much", "1e9"])
def test_what_is_no_weight_is_refused(word: str, cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = (
        mobikectl("weight", "gw2", "--", word) if word.startswith("-") else mobikectl("weight", "gw2", word)
    )
    assert done.code == 2
    assert not state_of(cluster).intents


def test_who_wants_a_node_to_take_nothing_is_told_of_drain(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    assert "drain" in mobikectl("weight", "gw2", "0").err


# drain and undrain


def test_a_drain_is_written_down_with_who_and_how(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    done = mobikectl(
        "drain",
        "gw1",
        "--rate",
        "5",
        "--mechanism",
        "notify",
        "--mechanism",
        "redirect",
        "--note",
        "new disk",
    )
    assert (done.code, done.err) == (0, "")
    assert "4 IKE_SAs to leave it" in done.out
    intent = state_of(cluster).intent("gw1").value
    assert intent.drained
    assert intent.mechanisms == {Mechanism.NOTIFY, Mechanism.REDIRECT}
    assert (intent.rate_per_s, intent.note) == (5.0, "new disk")
    again = mobikectl("drain", "gw1")
    assert "was drained already" in again.out
    assert "new disk" in again.out
    assert state_of(cluster).intent("gw1").value.mechanisms == frozenset()


def test_a_drain_with_nobody_to_lead_says_that_nothing_happens(
    empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def fill(store: Store) -> None:
        await empty_cluster.join(store, "gw1", rows("gw1", 2))
        await empty_cluster.join(store, "gw2")

    empty_cluster.do(fill)
    done = mobikectl("drain", "gw1")
    assert done.code == 0
    assert "nobody leads the cluster" in done.err


def test_a_drain_of_the_only_node_says_that_there_is_nowhere_to_go(
    empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    async def fill(store: Store) -> None:
        await empty_cluster.join(store, "gw1", rows("gw1", 2))
        await empty_cluster.lead(store)

    empty_cluster.do(fill)
    done = mobikectl("drain", "gw1")
    assert done.code == 0
    assert "gw1: still has 2 IKE_SAs to be emptied" in done.err


def test_a_node_can_be_drained_before_it_comes_when_that_is_said(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("drain", "gw9", "--absent")
    assert done.code == 0
    assert "drained as soon as it comes" in done.err
    assert state_of(cluster).intent("gw9").value.drained
    assert mobikectl("undrain", "gw9").code == 0


def test_undrain_keeps_the_weight_and_says_when_the_node_itself_wants_to_be_empty(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    mobikectl("weight", "gw1", "2")
    mobikectl("drain", "gw1", "--rate", "1")
    cluster.do(lambda store: cluster.tell(store, "gw1", rows("gw1", 4), maintenance=True))
    done = mobikectl("undrain", "gw1")
    assert "gw1 takes IKE_SAs again; it was drained" in done.out
    assert "maintenance_file" in done.err
    intent = state_of(cluster).intent("gw1").value
    assert (intent.drained, intent.weight, intent.rate_per_s) == (False, 2.0, None)
    assert "was not drained" in mobikectl("undrain", "gw1").out


# pin and unpin


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("gw1/peer2@example.org#2", "gw1/peer2@example.org#2"),
        ("peer2@example.org", "peer2@example.org"),
        ("198.19.0.77", "gw1/only@example.org#77"),
        ("77", "gw1/only@example.org#77"),
        ("#77", "gw1/only@example.org#77"),
    ],
)
def test_an_ike_sa_is_pinned_by_any_of_its_names(
    name: str, pinned: str, cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    told = [*rows("gw1", 4), row("gw1", "only@example.org", 77)]
    cluster.do(lambda store: cluster.tell(store, "gw1", told))
    done = mobikectl("pin", name, "--note", "a demonstration")
    assert (done.code, list(state_of(cluster).pins)) == (0, [pinned])
    listed = mobikectl("pin")
    assert pinned in listed.out
    assert "a demonstration" in listed.out
    assert mobikectl("unpin", name).code == 0
    assert not state_of(cluster).pins
    assert "nothing is pinned" in mobikectl("pin").out


def test_a_pin_of_nobody_is_refused_unless_it_is_meant_for_later(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("pin", "peer22@example.org")
    assert done.code == 6
    assert "did you mean 'peer2@example.org'" in done.err
    assert "--absent" in done.err
    assert mobikectl("pin", "peer22@example.org", "--absent").code == 0
    assert "it has no IKE_SA now" in mobikectl("pin", "peer22@example.org", "--absent").out


def test_unpinning_what_is_not_pinned_is_told(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    mobikectl("pin", "peer1@example.org")
    done = mobikectl("unpin", "peer1@example.com")
    assert done.code == 6
    assert "did you mean 'peer1@example.org'?" in done.err
    assert mobikectl("unpin").code == 2
    assert mobikectl("unpin", "--all", "--json").json == {"unpinned": ["peer1@example.org"]}
