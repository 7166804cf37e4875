"""Writes down what happens in a cluster's store, one JSON line each: who leads, and each step of each move.

    python -m mobikectl.lab.storelog sqlite|etcd FILE|ENDPOINT CLUSTER

A process of its own, because it has to run in a node's namespaces. Lines are ``{at, leader, token}`` (``leader`` null:
nobody leads), ``{at, members}`` and ``{at, move}``; ``at`` is CLOCK_MONOTONIC when it was seen here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.backend import Gap
from mobikectl.cluster.records import MoveRecord, Versioned
from mobikectl.cluster.settings import (
    EtcdSettings,
    SqliteSettings,
    StoreKind,
    StoreSettings,
    open_store,
)
from mobikectl.errors import StoreError, StoreValueError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from mobikectl.cluster.store import Store

AGAIN_S = 0.2


def tell(**line: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"at": time.monotonic(), **line}) + "\n")
    sys.stdout.flush()


def plain(move: MoveRecord) -> dict[str, Any]:
    """Given a move, return it as JSON can hold it."""
    return {
        "number": move.number,
        "token": move.token,
        "sas": list(move.sas),
        "source": move.source,
        "target": move.target,
        "mechanism": move.mechanism.word,
        "reason": move.reason.value,
        "source_address": str(move.source_address),
        "target_address": str(move.target_address),
        "steps": [{"state": step.state.value, "at": step.at, "note": step.note} for step in move.steps],
    }


async def follow_state(store: Store) -> None:
    """Tell of each change of the leader and the members; the store may be away for a while."""
    leader: object = ()
    members: list[str] | None = None
    while True:
        try:
            state = await store.state()
            now = (state.leader.node, state.leader.token) if state.leader else (None, 0)
            if now != leader:
                leader = now
                tell(leader=now[0], token=now[1])
            if sorted(state.members) != members:
                members = sorted(state.members)
                tell(members=members)
            async with aclosing(store.watch_state(after=state.revision)) as changes:
                async for change in changes:
                    if isinstance(change, Gap) or change.kind in {"leader", "members"}:
                        break
        except StoreError:
            await asyncio.sleep(AGAIN_S)


async def follow_moves(store: Store) -> None:
    """Tell of each move as it is appended or changed."""
    told: dict[int, int] = {}

    def one(move: MoveRecord) -> None:
        if told.get(move.number) != len(move.steps):
            told[move.number] = len(move.steps)
            tell(move=plain(move))

    while True:
        try:
            journal = await store.journal()
            for versioned in journal.moves:
                one(versioned.value)
            async with aclosing(store.follow(after=journal.revision)) as moves:
                async for change in moves:
                    if isinstance(change, Gap):
                        break
                    if isinstance(change, StoreValueError):
                        tell(broken=str(change))
                    elif isinstance(change, Versioned):
                        one(change.value)
        except StoreError:
            await asyncio.sleep(AGAIN_S)


async def main(kind: str, where: str, cluster: str) -> None:
    """Follow the store until the process is ended."""
    settings = StoreSettings(
        StoreKind(kind),
        cluster,
        SqliteSettings(Path(where)) if kind == "sqlite" else SqliteSettings(),
        EtcdSettings((where,)) if kind == "etcd" else EtcdSettings(),
    )
    store = open_store(settings)
    try:
        async with TaskGroup() as tasks:
            tasks.create_task(follow_state(store))
            tasks.create_task(follow_moves(store))
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
