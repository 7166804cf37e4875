"""Whatever several nodes do at once, each key has one history, and a watch tells exactly that one."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobikectl.cluster.backend import Change, Condition, Write
from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.errors import LostRaceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.backend import Backend

    from .etcd_server import EtcdServer

DEADLINE_S = 60.0
KEYS = "abc"

actions = st.tuples(st.sampled_from(KEYS), st.sampled_from(["write", "delete", "stale"]))
nodes = st.lists(st.lists(actions, min_size=1, max_size=8), min_size=2, max_size=3)


class History:
    """What one run of several nodes did: of each commit the key, the revision it expected and the one it got."""

    def __init__(self) -> None:
        self.commits: list[tuple[int, str, int, bool]] = []
        self.lost = 0

    async def act(self, backend: Backend, prefix: str, key: str, what: str) -> None:
        found = (await backend.read(prefix + key)).entries
        expected = found[0].revision if found else 0
        if what == "delete" and not expected:
            return
        value = None if what == "delete" else what.encode()
        wrong = 1 if what == "stale" else 0
        try:
            revision = await backend.commit(
                [Condition(prefix + key, expected + wrong)], [Write(prefix + key, value)]
            )
        except LostRaceError:
            self.lost += 1
        else:
            self.commits.append((revision, key, expected + wrong, value is None))


async def run(make: Callable[[], Backend], plans: list[list[tuple[str, str]]]) -> None:
    prefix = f"/mobikectl/concurrent-{secrets.token_hex(4)}/"
    backends = [make() for _ in plans]
    history = History()

    async def node(backend: Backend, plan: list[tuple[str, str]]) -> None:
        for key, what in plan:
            await history.act(backend, prefix, key, what)

    try:
        async with asyncio.timeout(DEADLINE_S):
            start = (await backends[0].read(prefix)).revision
            await asyncio.gather(*map(node, backends, plans))
            seen = await watched(backends[-1], prefix, start, len(history.commits))
            left = (await backends[0].read(prefix)).entries
    finally:
        for backend in backends:
            await backend.close()
    commits = sorted(history.commits)
    assert len({revision for revision, *_ in commits}) == len(commits)
    present = dict.fromkeys(KEYS, 0)
    for revision, key, expected, deleted in commits:
        assert expected == present[key], "somebody overwrote what they had not read"
        present[key] = 0 if deleted else revision
    assert {entry.key.removeprefix(prefix): entry.revision for entry in left} == {
        key: revision for key, revision in present.items() if revision
    }
    assert seen == [(revision, prefix + key, deleted) for revision, key, _, deleted in commits]


async def watched(backend: Backend, prefix: str, start: int, count: int) -> list[tuple[int, str, bool]]:
    seen: list[tuple[int, str, bool]] = []
    async with aclosing(backend.watch(prefix, after=start)) as changes:
        while len(seen) < count:
            change = await anext(changes)
            assert isinstance(change, Change)
            seen.append((change.revision, change.key, change.value is None))
    return seen


@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
def test_each_key_has_one_history_and_a_watch_tells_it(kind: str, request: pytest.FixtureRequest) -> None:
    server: EtcdServer | None = request.getfixturevalue("shared_etcd") if kind == "etcd" else None

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(nodes)
    def check(plans: list[list[tuple[str, str]]]) -> None:
        with TemporaryDirectory() as directory:
            file = SqliteSettings(Path(directory) / "cluster.db")
            asyncio.run(run(lambda: EtcdBackend(server.settings()) if server else SqliteBackend(file), plans))

    check()
