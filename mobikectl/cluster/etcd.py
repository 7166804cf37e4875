"""The store on etcd v3: nodes on several machines.

aetcd gives the messages and stubs of etcd's API; the channel is our own (`mobikectl.cluster.etcd_channel`), because
its client knows neither TLS nor several endpoints. What is repeated inside the deadline is only what may happen twice
(reads, leases); a commit is sent once, and when its answer is lost nobody knows whether it happened.

Source: etcd documentation 3.4, "API reference" (KV, Watch, Lease).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from aetcd import rpc

from mobikectl.cluster.backend import (
    MAX_ENTRIES,
    MAX_KEY,
    MAX_VALUE,
    MIN_TTL_S,
    Backoff,
    Change,
    Entry,
    Gap,
    Lease,
    Snapshot,
    check_key,
    check_writes,
)
from mobikectl.cluster.etcd_channel import Endpoints, is_stale_token
from mobikectl.errors import (
    ConfigError,
    LeaseLostError,
    LostRaceError,
    StoreDeniedError,
    StoreUnreachableError,
    StoreValueError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from mobikectl.cluster.backend import Condition, Write
    from mobikectl.cluster.settings import EtcdSettings

Metadata = tuple[tuple[str, str], ...]

PAGE = 500
"""Entries of one answer: with `MAX_VALUE` each they still fit into one message."""


class EtcdBackend:
    """A `mobikectl.cluster.backend.Backend` on etcd. Made inside a running loop; close it."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._endpoints = Endpoints(settings)

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        """See `Backend.read`."""
        start, end = check_key(prefix), _end_of(check_key(prefix))
        entries: list[Entry] = []
        revision = 0
        while True:
            page = await self._range(start, end, revision, last)
            revision = revision or int(page.header.revision)
            entries += [_entry(kv) for kv in page.kvs]
            if last is not None:
                return Snapshot(revision, tuple(entries[::-1]))
            if not page.more:
                return Snapshot(revision, tuple(entries))
            if len(entries) > MAX_ENTRIES:
                raise StoreValueError(
                    f"more than {MAX_ENTRIES} entries below {prefix}", hint="who else writes there?"
                )
            start = bytes(page.kvs[-1].key) + b"\0"

    async def _range(self, start: bytes, end: bytes, revision: int, last: int | None) -> Any:
        request = rpc.RangeRequest(
            key=start,
            range_end=end,
            revision=revision,
            limit=PAGE if last is None else min(last, PAGE),
            sort_target=rpc.RangeRequest.KEY,
            sort_order=rpc.RangeRequest.ASCEND if last is None else rpc.RangeRequest.DESCEND,
        )

        async def ask(stubs: Any, metadata: Metadata, seconds: float) -> Any:
            return await stubs.kv.Range(request, timeout=seconds, metadata=metadata)

        return await self._endpoints.call(ask, again=True)

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """See `Backend.commit`."""
        check_writes(conditions, writes)
        request = rpc.TxnRequest(
            compare=[
                rpc.Compare(
                    result=rpc.Compare.EQUAL,
                    target=rpc.Compare.MOD,
                    key=check_key(condition.key),
                    mod_revision=condition.revision,
                )
                for condition in conditions
            ],
            success=[_operation(write) for write in writes],
        )

        async def ask(stubs: Any, metadata: Metadata, seconds: float) -> Any:
            return await stubs.kv.Txn(request, timeout=seconds, metadata=metadata)

        answer = await self._endpoints.call(ask, again=False)
        if not answer.succeeded:
            names = ", ".join(condition.key for condition in conditions)
            raise LostRaceError(f"{names}: somebody else was first", hint="read it again")
        return int(answer.header.revision)

    async def grant(self, ttl_s: int) -> Lease:
        """See `Backend.grant`."""
        if ttl_s < MIN_TTL_S:
            raise ConfigError(f"a lease of {ttl_s} s is too short", hint=f"{MIN_TTL_S} s or more")

        async def ask(stubs: Any, metadata: Metadata, seconds: float) -> Any:
            request = rpc.LeaseGrantRequest(TTL=ttl_s)
            return await stubs.lease.LeaseGrant(request, timeout=seconds, metadata=metadata)

        answer = await self._endpoints.call(ask, again=True)
        return Lease(int(answer.ID), float(min(answer.TTL, ttl_s)))

    async def renew(self, lease: int) -> float:
        """See `Backend.renew`."""

        async def ask(stubs: Any, metadata: Metadata, seconds: float) -> int:
            call = stubs.lease.LeaseKeepAlive(timeout=seconds, metadata=metadata)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                answer = await call.read()
            except asyncio.InvalidStateError:
                answer = grpc.aio.EOF
            finally:
                call.cancel()
            if answer is grpc.aio.EOF:
                raise StoreUnreachableError(
                    f"etcd {self._endpoints.current}: the keep-alive was cut off", hint="is etcd restarting?"
                )
            return int(answer.TTL)

        ttl_s = await self._endpoints.call(ask, again=True)
        if ttl_s <= 0:
            raise LeaseLostError(f"lease {lease:x} ran out or was revoked", hint="stop acting and join again")
        return float(ttl_s)

    async def revoke(self, lease: int) -> None:
        """See `Backend.revoke`."""

        async def ask(stubs: Any, metadata: Metadata, seconds: float) -> Any:
            request = rpc.LeaseRevokeRequest(ID=lease)
            return await stubs.lease.LeaseRevoke(request, timeout=seconds, metadata=metadata)

        try:
            await self._endpoints.call(ask, again=True)
        except LeaseLostError:
            return

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """See `Backend.watch`."""
        stream = _Stream(self, self._endpoints, check_key(prefix), after, self._settings.timeout_s)
        wait = Backoff()
        while not self._endpoints.closed:
            try:
                async with aclosing(stream.read()) as items:
                    async for item in items:
                        wait.reset()
                        yield item
            except StoreUnreachableError:
                await asyncio.sleep(wait.next())

    async def revision(self, prefix: bytes) -> int:
        """Given a prefix that we may read, return the newest revision of the whole store."""
        return int((await self._range(prefix, _end_of(prefix), 0, 1)).header.revision)

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._endpoints.close()


class _Stream:
    """One watch: what was delivered last, over all the connections that it takes."""

    def __init__(
        self, backend: EtcdBackend, endpoints: Endpoints, prefix: bytes, after: int, timeout_s: float
    ) -> None:
        self._backend = backend
        self._endpoints = endpoints
        self._prefix = prefix
        self._position = after
        self._timeout_s = timeout_s
        self._stale = False

    async def read(self) -> AsyncGenerator[Change | Gap, None]:
        """Yield what comes over one connection. Raise StoreUnreachableError when it ends, or StoreDeniedError."""
        endpoint = self._endpoints.current
        metadata = await self._endpoints.metadata(self._timeout_s, fresh=self._stale)
        call = self._endpoints.stubs().watch.Watch(metadata=metadata)
        try:
            async with asyncio.timeout(self._timeout_s):
                await call.write(self._request())
                answer = await call.read()
            gap = await self._check_revision(answer)
            if gap is not None:
                yield gap
                return
            while True:
                items = await self._items(answer)
                self._stale = False
                for item in items:
                    yield item
                    if isinstance(item, Gap):
                        return
                answer = await call.read()
        except (TimeoutError, asyncio.InvalidStateError) as error:
            raise StoreUnreachableError(
                f"etcd {endpoint}: no watch", hint="is etcd running there?"
            ) from error
        except grpc.aio.AioRpcError as error:
            if is_stale_token(error) and not self._stale:
                self._stale = True
                raise StoreUnreachableError(f"etcd {endpoint}: stale token", hint="tried again") from error
            raise self._endpoints.translated(error, endpoint) from error
        finally:
            call.cancel()

    def _request(self) -> Any:
        return rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=self._prefix,
                range_end=_end_of(self._prefix),
                start_revision=self._position + 1,
                progress_notify=True,
            )
        )

    async def _check_revision(self, answer: Any) -> Gap | None:
        """Given the first answer, return a gap when the store is younger than what was seen of it."""
        if answer is grpc.aio.EOF or answer.header.revision >= self._position:
            return None
        # The endpoint may only lag behind the others; what the whole cluster agrees on counts.
        revision = await self._backend.revision(self._prefix)
        if revision >= self._position:
            return None
        self._position = revision
        return Gap(revision, "the store was replaced")

    async def _items(self, answer: Any) -> list[Change | Gap]:
        if answer is grpc.aio.EOF:
            raise StoreUnreachableError(f"etcd {self._endpoints.current}: the watch was cut off", hint="")
        if answer.compact_revision:
            self._position = await self._backend.revision(self._prefix)
            return [Gap(self._position, f"compacted up to revision {answer.compact_revision}")]
        if answer.canceled:
            self._refused(str(answer.cancel_reason)[:200])
        changes: list[Change | Gap] = [_change(event) for event in answer.events]
        if not answer.created:
            self._position = max(self._position, int(answer.header.revision))
        return changes

    def _refused(self, reason: str) -> None:
        where = f"etcd {self._endpoints.current}: watch refused: {reason}"
        if not any(word in reason for word in ("permission", "auth", "user name")):
            raise StoreUnreachableError(where, hint="tried again")
        if self._stale:
            raise StoreDeniedError(where, hint="the user needs read on the prefix")
        # etcd says "permission denied" also for a token that it forgot when it was restarted.
        self._stale = True
        raise StoreUnreachableError(where, hint="tried again with a fresh token")


def _operation(write: Write) -> Any:
    key = check_key(write.key)
    if write.value is None:
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=write.value, lease=write.lease))


def _entry(kv: Any) -> Entry:
    return Entry(_key(kv.key), _value(kv), int(kv.mod_revision), int(kv.lease))


def _change(event: Any) -> Change:
    deleted = event.type == rpc.Event.DELETE
    return Change(_key(event.kv.key), None if deleted else _value(event.kv), int(event.kv.mod_revision))


def _key(octets: bytes) -> str:
    """Given a key's octets, return it as text; what cannot be a key of ours stays recognisable."""
    return octets[:MAX_KEY].decode(errors="backslashreplace")


def _value(kv: Any) -> bytes:
    """Given etcd's key and value, return the value; one that is too large is cut, and so not readable as JSON."""
    value = bytes(kv.value)
    return value[: MAX_VALUE + 1]


def _end_of(prefix: bytes) -> bytes:
    """Given a prefix, return the first key after all that begin with it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
