"""etcd hangs, dies, comes back, forgets: what is told, and what goes on by itself."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.backend import Change, Condition, Gap, Write
from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.leader import Election
from mobikectl.cluster.settings import LeaseSettings
from mobikectl.cluster.store import Store
from mobikectl.errors import ConfigError, LeaseLostError, StoreDeniedError, StoreUnreachableError

from .etcd_server import EtcdServer, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobikectl.cluster.leader import Leadership
    from mobikectl.cluster.settings import EtcdSettings

P = "/mobikectl/faults/"
DEADLINE_S = 60.0
LEEWAY_S = 5.0
"""Over the deadline of a call: this machine may be busy, a call that never ends is what is looked for."""


@asynccontextmanager
async def connected(settings: EtcdSettings) -> AsyncIterator[EtcdBackend]:
    backend = EtcdBackend(settings)
    try:
        yield backend
    finally:
        await backend.close()


async def put(backend: EtcdBackend, key: str, value: bytes = b"x") -> int:
    return await backend.commit([], [Write(P + key, value)])


async def put_when_back(backend: EtcdBackend, key: str, value: bytes = b"x") -> int:
    """Write as soon as etcd takes it: a reader's or an operator's patience."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await put(backend, key, value)
            except StoreUnreachableError:
                await asyncio.sleep(0.05)


class Watched:
    """A watch that runs, and what it has seen."""

    def __init__(self, backend: EtcdBackend, after: int) -> None:
        self.seen: list[Change | Gap] = []
        self._backend = backend
        self._after = after
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._backend.watch(P, after=self._after)) as changes:
            async for change in changes:
                self.seen.append(change)
                self._more.set()

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()
        return [item.key.removeprefix(P) if isinstance(item, Change) else "GAP" for item in self.seen]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def every_call_is_unreachable(backend: EtcdBackend, lease: int, timeout_s: float) -> None:
    calls = [
        backend.read(P),
        backend.commit([Condition(P + "k", 0)], [Write(P + "k", b"")]),
        backend.grant(5),
        backend.renew(lease),
        backend.revoke(lease),
    ]
    started = time.monotonic()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in ended] == [StoreUnreachableError] * len(ended)
    assert time.monotonic() - started < timeout_s + LEEWAY_S


async def test_a_hanging_etcd_is_unreachable_within_the_deadline_and_works_when_it_goes_on(
    own_etcd: EtcdServer,
) -> None:
    async with connected(own_etcd.settings()) as backend:
        start = await put(backend, "before")
        lease = await backend.grant(60)
        watch = Watched(backend, start)
        own_etcd.pause()
        await every_call_is_unreachable(backend, lease.id, own_etcd.timeout_s)
        own_etcd.resume()
        await put_when_back(backend, "after")
        seen = await watch.until(1)
        assert "GAP" not in seen
        await watch.stop()


async def test_a_killed_etcd_is_unreachable_and_its_watches_resume_without_a_hole(
    own_etcd: EtcdServer,
) -> None:
    async with connected(own_etcd.settings()) as backend, connected(own_etcd.settings()) as other:
        start = (await backend.read(P)).revision
        lease = await backend.grant(60)
        watch = Watched(backend, start)
        await put(backend, "1")
        assert await watch.until(1) == ["1"]
        own_etcd.kill()
        await every_call_is_unreachable(backend, lease.id, own_etcd.timeout_s)
        own_etcd.start()
        await put_when_back(other, "2")
        await put(other, "3")
        seen = await watch.until(3)
        assert seen == ["1", "2", "3"]
        assert await backend.renew(lease.id) == 60
        await watch.stop()


async def test_a_watch_that_slept_over_a_compaction_says_that_there_is_a_gap(own_etcd: EtcdServer) -> None:
    async with connected(own_etcd.settings()) as backend:
        start = (await backend.read(P)).revision
        for n in range(5):
            last = await put(backend, "k", str(n).encode())
        own_etcd.etcdctl("compact", str(last))
        watch = Watched(backend, start)
        assert await watch.until(1) == ["GAP"]
        after = await put(backend, "later")
        assert await watch.until(2) == ["GAP", "later"]
        gap, later = watch.seen
        assert gap.revision >= last
        assert later.revision == after
        await watch.stop()


async def test_compaction_does_not_disturb_a_watch_that_is_up_to_date(own_etcd: EtcdServer) -> None:
    async with connected(own_etcd.settings()) as backend:
        watch = Watched(backend, (await backend.read(P)).revision)
        last = await put(backend, "1")
        await watch.until(1)
        own_etcd.etcdctl("compact", str(last))
        await put(backend, "2")
        assert await watch.until(2) == ["1", "2"]
        await watch.stop()


async def test_an_etcd_that_lost_its_data_is_noticed_as_a_gap(own_etcd: EtcdServer) -> None:
    async with connected(own_etcd.settings()) as backend:
        for n in range(20):
            last = await put(backend, str(n))
        watch = Watched(backend, last)
        own_etcd.kill()
        shutil.rmtree(own_etcd.path / "data")
        own_etcd.start()
        await put_when_back(backend, "new")
        assert (await watch.until(1))[0] == "GAP"
        await put(backend, "newer")
        assert (await watch.until(2))[-1] == "newer"
        await watch.stop()


async def test_a_secure_watch_goes_on_after_etcd_was_restarted(own_secure_etcd: EtcdServer) -> None:
    async with connected(own_secure_etcd.settings()) as backend:
        watch = Watched(backend, await put(backend, "1"))
        own_secure_etcd.kill()
        own_secure_etcd.start()
        await put_when_back(backend, "2")
        assert await watch.until(1) == ["2"]
        await watch.stop()


async def test_each_call_renews_a_token_that_etcd_forgot(own_secure_etcd: EtcdServer) -> None:
    settings = own_secure_etcd.settings()
    async with connected(settings) as one, connected(settings) as two, connected(settings) as three:
        lease = await one.grant(60)
        for backend in (two, three):
            await backend.read(P)
        own_secure_etcd.forget_tokens()
        assert (await two.read(P)).entries == ()
        assert await put(three, "k") > 0
        assert await one.renew(lease.id) == 60


async def test_a_watch_renews_a_token_that_etcd_forgot(own_secure_etcd: EtcdServer) -> None:
    settings = own_secure_etcd.settings()
    async with connected(settings) as reader, connected(settings) as writer:
        start = (await reader.read(P)).revision
        own_secure_etcd.forget_tokens()
        watch = Watched(reader, start)
        await put(writer, "k")
        assert await watch.until(1) == ["k"]
        await watch.stop()


async def test_a_wrong_password_or_a_foreign_prefix_is_denied_and_the_password_is_not_told(
    shared_secure_etcd: EtcdServer, tmp_path: Path
) -> None:
    settings = shared_secure_etcd.settings()
    (tmp_path / "wrong").write_text("hunter2hunter2\n")
    async with connected(replace(settings, password_file=tmp_path / "wrong")) as backend:
        with pytest.raises(StoreDeniedError) as denied:
            await backend.read(P)
        assert "hunter2" not in str(denied.value)
    async with connected(settings) as backend:
        with pytest.raises(StoreDeniedError):
            await backend.read("/elsewhere/")
        with pytest.raises(StoreDeniedError):
            await asyncio.wait_for(anext(backend.watch("/elsewhere/", after=1)), DEADLINE_S)


async def test_without_the_right_ca_or_certificate_etcd_is_unreachable(
    shared_secure_etcd: EtcdServer, tmp_path: Path
) -> None:
    foreign = EtcdServer(tmp_path / "foreign", secure=True).prepare()
    settings = shared_secure_etcd.settings()
    for wrong in (
        replace(settings, ca=foreign.path / "ca.pem"),
        replace(settings, certificate=foreign.path / "client.pem", key=foreign.path / "client.key"),
        replace(settings, certificate=None, key=None),
        EtcdServer(tmp_path, ports=shared_secure_etcd.ports).settings(),
    ):
        async with connected(replace(wrong, timeout_s=1.0)) as backend:
            with pytest.raises(StoreUnreachableError):
                await backend.read(P)


async def test_an_endpoint_that_is_dead_is_passed_over(own_etcd: EtcdServer) -> None:
    (dead,) = free_ports(1)
    settings = replace(own_etcd.settings(), endpoints=(f"127.0.0.1:{dead}", own_etcd.endpoint))
    async with connected(settings) as backend:
        assert (await backend.read(P)).entries == ()
        await put(backend, "k")
        assert len((await backend.read(P)).entries) == 1


async def test_something_that_is_no_etcd_is_unreachable(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with connected(EtcdServer(tmp_path, ports=[port, 0], timeout_s=1.0).settings()) as backend:
            with pytest.raises(StoreUnreachableError):
                await backend.read(P)


async def test_a_leader_that_loses_the_store_stops_before_its_lease_can_end_and_leads_again(
    own_etcd: EtcdServer,
) -> None:
    own_etcd.timeout_s = 0.5
    async with connected(own_etcd.settings()) as backend:
        store = Store(backend, "faults")
        led: asyncio.Queue[Leadership] = asyncio.Queue()
        stopped = asyncio.Event()

        async def lead(leadership: Leadership) -> None:
            led.put_nowait(leadership)
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        election = asyncio.create_task(Election(store, "gw1", "x", LeaseSettings(2)).run(lead))
        try:
            async with asyncio.timeout(DEADLINE_S):
                first = await led.get()
                own_etcd.pause()
                await stopped.wait()
                assert not first.alive
                with pytest.raises(LeaseLostError):
                    _ = first.token
                assert led.empty()
                own_etcd.resume()
                second = await led.get()
                assert second.token > first.leader.token
        finally:
            own_etcd.resume()
            election.cancel()
            await asyncio.gather(election, return_exceptions=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoints": ()},
        {"endpoints": ("https://127.0.0.1:2379",)},
        {"endpoints": ("127.0.0.1",)},
        {"endpoints": ("127.0.0.1:0",)},
        {"timeout_s": 0},
        {"user": "x"},
        {"ca": "x"},
        {"tls": True, "key": "x"},
        {"endpoints": ("198.18.0.1:2379",), "user": "x", "password_file": "y"},
    ],
)
def test_settings_that_cannot_work_or_would_tell_the_password_are_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        replace(EtcdServer(tmp_path).settings(), **wrong)
