"""Which store is opened, and what is not loaded for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import ClusterIntent
from mobikectl.cluster.settings import (
    EtcdSettings,
    LeaseSettings,
    SqliteSettings,
    StoreKind,
    StoreSettings,
    open_store,
)
from mobikectl.errors import ConfigError, StoreUnreachableError, StoreValueError

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_sqlite_store_works_as_soon_as_it_is_opened(tmp_path: Path) -> None:
    store = open_store(StoreSettings(sqlite=SqliteSettings(tmp_path / "cluster.db")))
    try:
        await store.set_cluster(ClusterIntent(paused=True), revision=0)
        assert (await store.state()).cluster.value.paused
    finally:
        await store.close()


async def test_an_etcd_that_is_not_there_is_told_when_it_is_asked(free_port: int) -> None:
    etcd = EtcdSettings((f"127.0.0.1:{free_port}",), timeout_s=0.3)
    store = open_store(StoreSettings(StoreKind.ETCD, etcd=etcd))
    try:
        with pytest.raises(StoreUnreachableError):
            await store.state()
    finally:
        await store.close()


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens: it was ours a moment ago."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_what_cannot_be_used_is_told_before_anything_is_connected(tmp_path: Path) -> None:
    with pytest.raises(StoreValueError):
        open_store(StoreSettings(cluster="a/b"))
    missing = EtcdSettings(tls=True, ca=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        open_store(StoreSettings(StoreKind.ETCD, etcd=missing))


@pytest.mark.parametrize("ttl_s", [1, 301])
def test_a_lease_time_that_cannot_work_is_refused(ttl_s: int) -> None:
    with pytest.raises(ConfigError):
        LeaseSettings(ttl_s)


def test_who_uses_sqlite_does_not_load_the_client_of_etcd() -> None:
    code = "import sys, mobikectl.cluster.sqlite, mobikectl.cluster.store; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
