"""A process of its own that wants to lead and, while it does, writes to the journal as fast as it can.

    contender.py NODE blind|careful CLUSTER TTL sqlite PATH | etcd ENDPOINT

``blind`` never looks whether it still leads: only the store can stop it. One line of output for each event.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.leader import Election
from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep
from mobikectl.cluster.settings import EtcdSettings, LeaseSettings, SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.errors import LeaseLostError, StoreError, StoreUnreachableError
from mobikectl.policy.cluster import Mechanism, Reason

if TYPE_CHECKING:
    from mobikectl.cluster.leader import Leadership


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def move(node: str) -> MoveRecord:
    here, there = ip_address("198.18.0.1"), ip_address("198.18.0.2")
    steps = (MoveStep(MoveState.PLANNED, 0.0),)
    return MoveRecord(0, ("sa",), node, "elsewhere", Mechanism.NOTIFY, Reason.SPREAD, here, there, steps)


async def main(node: str, manner: str, cluster: str, ttl: str, kind: str, where: str) -> None:
    backend = (
        SqliteBackend(SqliteSettings(Path(where)))
        if kind == "sqlite"
        else EtcdBackend(EtcdSettings((where,), timeout_s=1.0))
    )
    store = Store(backend, cluster)

    async def act(leadership: Leadership, token: int) -> None:
        try:
            await store.append([move(node)], token=token)
            tell("ACTED", node, token)
        except StoreUnreachableError:
            tell("UNREACHABLE", node, token)
        except StoreError as error:
            tell("REFUSED", node, token, type(error).__name__)
            raise

    async def lead(leadership: Leadership) -> None:
        token = leadership.token
        tell("LEADS", node, token)
        try:
            while True:
                await act(leadership, token if manner == "blind" else leadership.token)
                await asyncio.sleep(0.02)
        except (LeaseLostError, asyncio.CancelledError):
            tell("STOPPED", node, token)
            if manner == "blind":
                await act(leadership, token)
            raise

    await Election(store, node, "x", LeaseSettings(int(ttl))).run(lead)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
