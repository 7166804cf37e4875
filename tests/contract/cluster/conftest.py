"""Each contract test runs on SQLite, on a real etcd, and on a real etcd with TLS, client certificate and password."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store

from .etcd_server import EtcdServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from mobikectl.cluster.backend import Backend

    MakeBackend = Callable[[], Awaitable[Backend]]

KINDS = ("sqlite", "etcd", "etcd-secure")


def start_etcd(path: Path, *, secure: bool = False) -> Iterator[EtcdServer]:
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.fail("needs etcd-server and etcd-client: see packaging/apt-packages.txt")
    server = EtcdServer(path, secure=secure).prepare()
    try:
        server.start()
        if secure:
            server.enable_auth()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    yield from start_etcd(tmp_path_factory.mktemp("etcd"))


@pytest.fixture(scope="module")
def shared_secure_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    yield from start_etcd(tmp_path_factory.mktemp("etcd-secure"), secure=True)


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd to stop, kill and start again."""
    yield from start_etcd(tmp_path / "etcd")


@pytest.fixture
def own_secure_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    yield from start_etcd(tmp_path / "etcd", secure=True)


@pytest.fixture(params=KINDS)
async def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeBackend]:
    """Makes as many backends (nodes) on one store as the test likes."""
    made: list[Backend] = []

    async def make() -> Backend:
        if request.param == "sqlite":
            made.append(SqliteBackend(SqliteSettings(tmp_path / "cluster.db")))
        else:
            name = "shared_etcd" if request.param == "etcd" else "shared_secure_etcd"
            server: EtcdServer = request.getfixturevalue(name)
            made.append(EtcdBackend(server.settings()))
        return made[-1]

    if request.param != "sqlite":
        await make()
    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
async def backend(make_backend: MakeBackend) -> Backend:
    return await make_backend()


@pytest.fixture
def prefix() -> str:
    """A part of the store that no other test uses."""
    return f"/mobikectl/test-{secrets.token_hex(6)}/"


@pytest.fixture
async def store(backend: Backend, prefix: str) -> Store:
    return Store(backend, prefix.split("/")[2])
