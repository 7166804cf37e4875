"""How long the store took is told, also when it did not answer; what it says comes through unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import ClusterIntent
from mobikectl.cluster.settings import SqliteSettings, StoreSettings, open_store
from mobikectl.errors import LostRaceError, StoreUnreachableError

if TYPE_CHECKING:
    from pathlib import Path


async def test_each_call_is_told_with_its_time_and_whether_it_was_answered(tmp_path: Path) -> None:
    told: list[tuple[str, float, bool]] = []

    def timing(call: str, seconds: float, answered: bool) -> None:
        told.append((call, seconds, answered))

    def calls() -> list[tuple[str, bool]]:
        return [(call, answered) for call, _, answered in told]

    path = tmp_path / "cluster.db"
    store = open_store(StoreSettings(sqlite=SqliteSettings(path)), timing)
    try:
        lease = await store.grant(60)
        await store.set_cluster(ClusterIntent(paused=True), revision=0)
        with pytest.raises(LostRaceError):
            await store.set_cluster(ClusterIntent(), revision=0)
        assert (await store.state()).cluster.value.paused
        await store.renew(lease.id)
        assert calls() == [
            ("grant", True),
            ("commit", True),
            ("commit", True),
            ("read", True),
            ("renew", True),
        ]
        assert all(seconds > 0 for _, seconds, _ in told)
        path.rename(tmp_path / "aside")
        path.mkdir()
        with pytest.raises(StoreUnreachableError):
            await store.state()
        assert calls()[-1] == ("read", False)
    finally:
        await store.close()
