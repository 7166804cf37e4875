"""Orders of moves, straight into the store's file: what `mobikectl move` does, without a process for each."""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.cluster.records import Order
from mobikectl.cluster.settings import SqliteSettings, StoreKind, StoreSettings, open_store
from mobikectl.errors import LabError, LostRaceError, StoreError
from mobikectl.lab.store import CLUSTER, FILE
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.cluster.store import Store
    from mobikectl.lab.instance import Lab

TOLD_S = 15.0
"""The nodes tell of an IKE_SA about once a second."""
ANSWER_S = 20.0
"""The leader answers in its next round; there may have to be a new one first."""
EVERY_S = 0.05
NOT_YET = ("is unknown", "over")
"""In what a leader says when a node has only just come back: nobody has heard of it, or it "carries nothing over"."""
KNOWN_S = 30.0
"""On a busy machine the leader hears of a gateway that is back seconds after it is a member."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the leader said: the number of a move, or why there is none."""

    move: int = 0
    refused: str = ""


class RefusedError(LabError):
    """The leader makes no move of an order."""


class Desk:
    """Where orders are given. ``async with open_desk(lab) as desk``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def order(self, client: str, source: str, target: str, *, patience: float = 1.0) -> Answer:
        """Given a client's identity, who serves it and where it is to go, order that; return the leader's answer.

        Raise LabError: nobody told of the client, or nobody answered.
        """
        key = await self._key(client, source, patience)
        order = Order(secrets.token_hex(8), key, target, by="chaos")
        await self._store.order(order)
        answered = order

        async def has_answer() -> bool:
            nonlocal answered
            stored = (await self._store.state()).orders.get(order.name)
            if stored is None or not stored.value.answered:
                return False
            answered = stored.value
            with contextlib.suppress(LostRaceError):
                await self._store.end_order(stored)
            return True

        await until(has_answer, within=ANSWER_S * patience, what=f"{order.sa}: an answer", every=EVERY_S)
        return Answer(answered.move, answered.refused)

    async def move(self, client: str, source: str, target: str, *, patience: float = 1.0) -> int:
        """As `order`, but where a node has only just come back, order it again; return the move's number.

        Raise RefusedError.
        """
        end = time.monotonic() + KNOWN_S * patience
        while True:
            answer = await self.order(client, source, target, patience=patience)
            if answer.move:
                return answer.move
            if not any(word in answer.refused for word in NOT_YET) or time.monotonic() > end:
                raise RefusedError(
                    f"{client} is not moved: {answer.refused}", hint="see the leader's sidecar.out"
                )

    async def _key(self, client: str, source: str, patience: float) -> str:
        found: list[str] = []

        async def told() -> bool:
            try:
                rows = (await self._store.sas()).by_node()
            except StoreError:
                return False
            found[:] = [row.key for row in rows.get(source, ()) if row.peer_id == client]
            return bool(found)

        await until(told, within=TOLD_S * patience, what=f"{source} tells of {client}", every=EVERY_S)
        return max(found, key=lambda key: int(key.rpartition("#")[2]))  # the newest


@contextlib.asynccontextmanager
async def open_desk(lab: Lab) -> AsyncIterator[Desk]:
    """Given a lab whose store is a file, yield its `Desk`. Raise LabError: it is none."""
    if lab.store is None or lab.store.kind != "sqlite":
        raise LabError("orders are given straight into a file", hint="use the sqlite store")
    path = lab.record.shared_dir / FILE.rpartition("/")[2]
    store = open_store(StoreSettings(StoreKind.SQLITE, CLUSTER, SqliteSettings(path)))
    try:
        yield Desk(store)
    finally:
        await store.close()
