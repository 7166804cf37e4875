"""The store as the cluster uses it: members, reports, the leader, what operators want, and the journal.

One `Store` on any `mobikectl.cluster.backend.Backend`. Every call ends within the backend's deadline and raises
StoreUnreachableError (then nobody knows whether a write took effect), StoreDeniedError, or LostRaceError (somebody else
was first; nothing was written). Below the cluster's prefix:

    state/members/NODE      Member, under the node's lease
    state/reports/NODE      NodeReport, under the same lease
    sas/NODE/PART           SaPart: some of the IKE_SAs that the node serves, under its lease
    state/leader            Leader, under the candidate's lease; its revision is the fencing token
    state/claims/CLAIM      Claim: what a node wants to serve of another that is dead, under the claimer's lease
    state/intents/NODE      NodeIntent: drain, weight, what a drain may use
    state/cluster           ClusterIntent: pause, apply
    state/pins/SA           Pin
    state/orders/NAME       Order
    journal/moves/NUMBER    MoveRecord
    journal/next            the number of the next move
    pools/                  virtual IPs: see `mobikectl.cluster.leases`

Everything below ``state/`` is read at once, at one revision, so that nobody decides on a mixture of two moments. The
IKE_SAs are apart: they are many, and change all the time.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote

from mobikectl.cluster.backend import MAX_WRITES, Condition, Entry, Gap, Lease, Write
from mobikectl.cluster.codec import check_name, from_json, to_json
from mobikectl.cluster.leases import Leases
from mobikectl.cluster.records import (
    FINAL,
    Claim,
    ClusterIntent,
    Leader,
    Member,
    MoveRecord,
    MoveState,
    NodeIntent,
    NodeReport,
    Order,
    Pin,
    SaPart,
    Versioned,
)
from mobikectl.cluster.state import (
    Changed,
    ClusterSas,
    ClusterState,
    Journal,
    StateReader,
    claim_place,
    leader_of,
    move_of,
    part_place,
    place,
    sas_of,
)
from mobikectl.errors import FencedError, LeaseLostError, LostRaceError, StoreValueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from mobikectl.cluster.backend import Backend

T = TypeVar("T")

ROOT = "/mobikectl/"
MAX_TAIL = 500
"""Moves of one look into the journal."""
MAX_MOVES = MAX_WRITES - 1
"""Moves of one append; a longer plan is appended in parts, so that its first moves begin while it is written."""
MAX_ANSWER = 500
"""Characters of the answer to an order."""
MAX_COMMIT = 1 << 20
"""Octets of one commit of IKE_SAs: etcd takes 1.5 MiB unless configured (--max-request-bytes)."""


class Store:
    """What the nodes of one cluster share."""

    def __init__(self, backend: Backend, cluster: str = "default") -> None:
        self._backend = backend
        self._prefix = f"{ROOT}{check_name(cluster)}/"

    def _key(self, *parts: str) -> str:
        return self._prefix + "/".join(parts)

    # Members

    async def grant(self, ttl_s: int) -> Lease:
        """Given seconds, return a new lease."""
        return await self._backend.grant(ttl_s)

    async def renew(self, lease: int) -> float:
        """Given a lease, start its time anew; return its seconds. Raise LeaseLostError: stop acting at once."""
        return await self._backend.renew(lease)

    async def revoke(self, lease: int) -> None:
        """Given a lease, end it: all that lives under it vanishes."""
        await self._backend.revoke(lease)

    async def join(self, member: Member, lease: int, *, replace_other: bool = False) -> int:
        """Given a node and its lease, make it a member and return the revision.

        Raise LostRaceError: a member of that name is there. ``replace_other`` ends that one's lease first: for a
        node that knows that the other is its own dead predecessor.
        """
        key = self._key("state", "members", check_name(member.name))
        seen = await self._entry(key)
        if seen is not None and seen.lease != lease:
            if not replace_other:
                raise LostRaceError(
                    f"a node named {member.name} is in the cluster",
                    hint="give each node its own name; one that crashed goes when its lease runs out",
                )
            await self._backend.revoke(seen.lease)
            seen = None
        return await self._write(key, member, seen.revision if seen else 0, lease)

    async def report(self, report: NodeReport, lease: int) -> int:
        """Given a report and the node's lease, publish it and return the revision. Raise LeaseLostError."""
        key = self._key("state", "reports", check_name(report.node))
        return await self._backend.commit([], [Write(key, to_json(report), lease)])

    async def report_sas(self, parts: Sequence[SaPart], lease: int) -> None:
        """Given the parts that changed and the node's lease, publish them, in as many commits as they need.

        Raise LeaseLostError. What an interrupted call wrote stays: each part stands for itself.
        """
        batch: list[Write] = []
        size = 0
        for part in parts:
            key = self._key("sas", check_name(part.node), part_place(part.part))
            value = to_json(part)
            if batch and (size + len(value) > MAX_COMMIT or len(batch) == MAX_WRITES):
                await self._backend.commit([], batch)
                batch, size = [], 0
            batch.append(Write(key, value, lease))
            size += len(value)
        if batch:
            await self._backend.commit([], batch)

    async def sas(self, known: ClusterSas | None = None) -> ClusterSas:
        """Given what was read before (it spares decoding it again), return the IKE_SAs of all nodes."""
        prefix = self._key("sas", "")
        return sas_of(prefix, await self._backend.read(prefix), known)

    async def claim(self, claims: Sequence[Claim], lease: int) -> None:
        """Given what this node claims of another, and its lease, publish it. Raise LeaseLostError."""
        for number, claim in enumerate(claims):
            key = self._key("state", "claims", claim_place(claim, number))
            await self._backend.commit([], [Write(key, to_json(claim), lease)])

    async def withdraw(self, node: str, source: str) -> None:
        """Given a node and another, end what the one claims of the other."""
        prefix = self._key("state", "claims", f"{check_name(node)}~{check_name(source)}~")
        writes = [Write(entry.key, None) for entry in (await self._backend.read(prefix)).entries]
        for start in range(0, len(writes), MAX_WRITES):
            await self._backend.commit([], writes[start : start + MAX_WRITES])

    # Who decides

    async def campaign(self, node: str, instance: str, lease: int) -> Leader:
        """Given who asks and under which lease, return the leadership. Raise LostRaceError: there is a leader."""
        key = self._key("state", "leader")
        token = await self._write(key, Leader(check_name(node), instance), 0, lease)
        return Leader(node, instance, token)

    async def resign(self, token: int) -> None:
        """Given a token, end that leadership. Raise LostRaceError: it had ended already."""
        key = self._key("state", "leader")
        await self._backend.commit([Condition(key, token)], [Write(key, None)])

    async def leader(self) -> Leader | None:
        """Return who leads now, with the token."""
        entry = await self._entry(self._key("state", "leader"))
        return None if entry is None else leader_of(entry)

    async def wait_until_leaderless(self) -> None:
        """Return as soon as nobody leads. Give it a deadline: it waits while the store is unreachable."""
        key = self._key("state", "leader")
        snapshot = await self._backend.read(key)
        if not any(entry.key == key for entry in snapshot.entries):
            return
        async with aclosing(self._backend.watch(key, after=snapshot.revision)) as changes:
            async for change in changes:
                if isinstance(change, Gap) or (change.key == key and change.value is None):
                    return

    async def check_fence(self, token: int) -> None:
        """Given the token of an action, return when it is the present leader's. Raise FencedError: do not act."""
        entry = await self._entry(self._key("state", "leader"))
        if entry is None or entry.revision != token:
            raise _fenced(token, entry.revision if entry else 0)

    # What is wanted

    async def state(self) -> ClusterState:
        """Return everything but the journal, at one moment."""
        prefix = self._key("state", "")
        snapshot = await self._backend.read(prefix)
        reader = StateReader(prefix, snapshot.revision)
        for entry in snapshot.entries:
            reader.take(entry)
        return reader.state

    async def set_intent(self, node: str, intent: NodeIntent, *, revision: int) -> int:
        """Given what is wanted of a node, and the revision that was read, store it. Raise LostRaceError."""
        return await self._write(self._key("state", "intents", check_name(node)), intent, revision)

    async def set_cluster(self, intent: ClusterIntent, *, revision: int) -> int:
        """Given what is wanted of the cluster, and the revision that was read, store it. Raise LostRaceError."""
        return await self._write(self._key("state", "cluster"), intent, revision)

    async def pin(self, pin: Pin, *, revision: int) -> int:
        """Given a pin, and the revision of the one that was read (0: none), store it. Raise LostRaceError."""
        return await self._write(self._pin_key(pin.sa), pin, revision)

    async def unpin(self, sa: str, *, revision: int) -> int:
        """Given a pinned IKE_SA and its pin's revision, remove the pin. Raise LostRaceError."""
        key = self._pin_key(sa)
        return await self._backend.commit([Condition(key, revision)], [Write(key, None)])

    async def order(self, order: Order) -> int:
        """Given an operator's order, store it and return the revision. Raise LostRaceError: its name is taken."""
        return await self._write(self._order_key(order), order, 0)

    async def end_order(self, order: Versioned[Order]) -> None:
        """Given an order as it was read, remove it. Raise LostRaceError: it was answered, or removed, meanwhile."""
        key = self._order_key(order.value)
        await self._backend.commit([Condition(key, order.revision)], [Write(key, None)])

    async def refuse(self, order: Versioned[Order], why: str, *, token: int) -> None:
        """Given an order, why nothing comes of it and the leader's token, answer so. Raise as `append`."""
        key = self._order_key(order.value)
        answered = replace(order.value, refused=why[:MAX_ANSWER])
        await self._fenced_commit(token, [Condition(key, order.revision)], [Write(key, to_json(answered))])

    def _order_key(self, order: Order) -> str:
        return self._key("state", "orders", check_name(order.name))

    def _pin_key(self, sa: str) -> str:
        return self._key("state", "pins", quote(sa, safe=""))

    async def change_intent(
        self, node: str, change: Callable[[NodeIntent], NodeIntent], *, tries: int = 10
    ) -> NodeIntent:
        """Given how to change what is wanted of a node, do it to whatever is wanted now; return the result.

        Raise LostRaceError: others were first ``tries`` times; StoreValueError: what is there cannot be read.
        """
        key = self._key("state", "intents", check_name(node))
        for left in reversed(range(tries)):
            entry = await self._entry(key)
            now = NodeIntent() if entry is None else from_json(key, entry.value, NodeIntent)
            wanted = change(now)
            try:
                await self._write(key, wanted, entry.revision if entry else 0)
            except LostRaceError:
                if not left:
                    raise
            else:
                return wanted
        raise LostRaceError(f"{key}: no try was allowed", hint="tries is at least 1")

    # The journal

    async def append(
        self, moves: Sequence[MoveRecord], *, token: int, order: Versioned[Order] | None = None
    ) -> tuple[Versioned[MoveRecord], ...]:
        """Given planned moves (at most `MAX_MOVES`) and the leader's token, append them and return them as stored.

        ``order``: what the (only) move is the answer to; both are written, or nothing. Raise FencedError: the token is
        not the present leader's; LostRaceError: the order was withdrawn. Nothing was appended then.
        """
        counter = self._key("journal", "next")
        entry = await self._entry(counter)
        first = _number(counter, entry.value) if entry else 1
        stored = tuple(replace(move, number=first + i, token=token) for i, move in enumerate(moves))
        writes = [Write(self._move_key(move.number), to_json(move)) for move in stored]
        conditions = [Condition(counter, entry.revision if entry else 0)]
        if order is not None:
            key = self._order_key(order.value)
            conditions.append(Condition(key, order.revision))
            writes.append(Write(key, to_json(replace(order.value, move=first))))
        revision = await self._fenced_commit(
            token, conditions, [*writes, Write(counter, str(first + len(stored)).encode())]
        )
        return tuple(Versioned(move, revision) for move in stored)

    async def update(self, before: Versioned[MoveRecord], after: MoveRecord) -> Versioned[MoveRecord]:
        """Given a move as it was read and as it is now, store it and return it.

        Beginning a move (planned -> requested) needs the token of the present leader, in the same commit; its
        outcome is recorded whoever leads. Raise FencedError: do not begin; LostRaceError: somebody else changed it.
        """
        was, now = before.value.state, after.state
        if (
            after.number != before.value.number
            or before.value.steps != after.steps[: len(before.value.steps)]
        ):
            raise ValueError("an update adds steps to the same move")
        key = self._move_key(after.number)
        conditions, writes = [Condition(key, before.revision)], [Write(key, to_json(after))]
        if was is MoveState.PLANNED and now not in {
            MoveState.PLANNED,
            MoveState.CANCELLED,
            MoveState.REFUSED,
        }:
            revision = await self._fenced_commit(after.token, conditions, writes)
        else:
            revision = await self._backend.commit(conditions, writes)
        return Versioned(after, revision)

    async def move(self, number: int) -> Versioned[MoveRecord] | None:
        """Given a move's number, return it as it is now; None: it was trimmed. Raise StoreValueError."""
        entry = await self._entry(self._move_key(number))
        return None if entry is None else Versioned(move_of(entry.key, entry.value), entry.revision)

    async def journal(self, last: int | None = MAX_TAIL, known: Journal | None = None) -> Journal:
        """Given how many, return the last moves; None: all that were not trimmed.

        ``known``: what was read before; it spares decoding it again.
        """
        prefix = self._key("journal", "moves", "")
        before = {} if known is None else {self._move_key(move.value.number): move for move in known.moves}
        snapshot = await self._backend.read(prefix, last=None if last is None else min(last, MAX_TAIL))
        moves, broken = [], []
        for entry in snapshot.entries:
            same = before.get(entry.key)
            if same is not None and same.revision == entry.revision:
                moves.append(same)
                continue
            try:
                moves.append(Versioned(move_of(entry.key, entry.value), entry.revision))
            except StoreValueError as error:
                broken.append(error)
        return Journal(snapshot.revision, tuple(moves), tuple(broken))

    async def trim(self, keep: int, *, token: int) -> int:
        """Given how many moves to keep, delete older ones that have ended (some at a time); return how many."""
        snapshot = await self._backend.read(self._key("journal", "moves", ""))
        ended: list[Entry] = []
        for entry in snapshot.entries[: max(len(snapshot.entries) - keep, 0)]:
            try:
                done = move_of(entry.key, entry.value).state in FINAL
            except StoreValueError:
                done = True
            if done and len(ended) < MAX_MOVES:
                ended.append(entry)
        if ended:
            conditions = [Condition(entry.key, entry.revision) for entry in ended]
            await self._fenced_commit(token, conditions, [Write(entry.key, None) for entry in ended])
        return len(ended)

    def _move_key(self, number: int) -> str:
        return self._key("journal", "moves", place(number))

    # Watches

    async def watch_state(self, *, after: int) -> AsyncGenerator[Changed | Gap, None]:
        """Given the revision of a `ClusterState`, yield what changed since then, for ever; after a `Gap`, read anew."""
        prefix = self._key("state", "")
        async with aclosing(self._backend.watch(prefix, after=after)) as changes:
            async for change in changes:
                if isinstance(change, Gap):
                    yield change
                else:
                    kind, _, name = change.key.removeprefix(prefix).partition("/")
                    yield Changed(kind, unquote(name), change.revision)

    async def follow(
        self, *, after: int
    ) -> AsyncGenerator[Versioned[MoveRecord] | StoreValueError | Gap, None]:
        """Given the revision of a `Journal`, yield each move as it is appended or changed, for ever.

        A value that cannot be read is yielded as its error; after a `Gap`, read anew.
        """
        async with aclosing(self._backend.watch(self._key("journal", "moves", ""), after=after)) as changes:
            async for change in changes:
                if isinstance(change, Gap):
                    yield change
                elif change.value is not None:
                    try:
                        move = move_of(change.key, change.value)
                    except StoreValueError as error:
                        yield error
                    else:
                        yield Versioned(move, change.revision)

    def leases(self) -> Leases:
        """Return the cluster's virtual IPs."""
        return Leases(self._backend, self._key("pools", ""))

    async def close(self) -> None:
        """Give back the backend's connections."""
        await self._backend.close()

    # Pieces

    async def _entry(self, key: str) -> Entry | None:
        snapshot = await self._backend.read(key)
        return next((entry for entry in snapshot.entries if entry.key == key), None)

    async def _write(self, key: str, record: object, revision: int, lease: int = 0) -> int:
        return await self._backend.commit([Condition(key, revision)], [Write(key, to_json(record), lease)])

    async def _fenced_commit(
        self, token: int, conditions: Sequence[Condition], writes: Sequence[Write]
    ) -> int:
        """Given a token and a commit, do it if that leader still leads. Raise FencedError, or LostRaceError."""
        fence = Condition(self._key("state", "leader"), token)
        if token <= 0:
            raise _fenced(token, 0)
        try:
            return await self._backend.commit([fence, *conditions], writes)
        except LeaseLostError:
            raise
        except LostRaceError:
            await self.check_fence(token)
            raise


def _number(key: str, value: bytes) -> int:
    if not (value.isdigit() and len(value) <= len(place(0))):
        raise StoreValueError(
            f"{key} is no number", hint="set it to the number after the journal's last move"
        )
    return int(value)


def _fenced(token: int, present: int) -> FencedError:
    return FencedError(
        f"the token {token} is not the present leader's ({present or 'there is none'})",
        hint="nothing was done; the present leader plans anew",
    )
