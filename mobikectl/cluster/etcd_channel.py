"""Connections to etcd: endpoints, TLS, the authentication token, deadlines, and gRPC's errors as ours.

Sources: etcd documentation 3.4, "Authentication" (tokens) and "gRPC naming and discovery"; gRPC core's
``grpc_types.h`` for the names of channel arguments.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
from aetcd import rpc

from mobikectl.cluster.backend import Backoff
from mobikectl.errors import (
    ConfigError,
    LeaseLostError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from mobikectl.cluster.settings import EtcdSettings

T = TypeVar("T")

MAX_MESSAGE = 64 << 20
"""Octets of one answer that are taken at most."""
MAX_SECRET = 1024
"""Octets of a password file that are read."""
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    # gRPC's own waiting after a refused connection grows to two minutes: an etcd that is back must be seen at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A watch on a machine that vanished is noticed by its pings; etcd takes none more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
UNREACHABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
STALE_TOKEN = ("invalid auth token", "revision of auth store is old")
"""What etcd says of a token that it forgot (it keeps them in memory) or that is older than a change of users."""


def _file(path: Path, limit: int = 1 << 20) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a file that mobikectl can read") from error


class Stubs:
    """The services of one endpoint, on one connection."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.auth: Any = rpc.AuthStub(channel)
        self.kv: Any = rpc.KVStub(channel)
        self.lease: Any = rpc.LeaseStub(channel)
        self.watch: Any = rpc.WatchStub(channel)


class Endpoints:
    """The endpoints of one etcd cluster: one is used until it fails, then the next."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._credentials = _credentials(settings)
        self._password = ""
        if settings.password_file is not None:
            lines = _file(settings.password_file, MAX_SECRET).decode(errors="replace").splitlines()
            self._password = lines[0] if lines else ""
        self._index = 0
        self._stubs: dict[str, Stubs] = {}
        self._token = ""
        self._authenticating = asyncio.Lock()
        self.closed = False

    @property
    def current(self) -> str:
        """The endpoint in use."""
        return self._settings.endpoints[self._index % len(self._settings.endpoints)]

    def stubs(self) -> Stubs:
        """Return the services of the endpoint in use. Raise StoreUnreachableError: closed."""
        if self.closed:
            raise StoreUnreachableError("etcd: closed", hint="make a new store")
        endpoint = self.current
        if endpoint not in self._stubs:
            channel = (
                grpc.aio.insecure_channel(endpoint, options=OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(endpoint, self._credentials, options=OPTIONS)
            )
            self._stubs[endpoint] = Stubs(channel)
        return self._stubs[endpoint]

    async def call(
        self, invoke: Callable[[Stubs, tuple[tuple[str, str], ...], float], Awaitable[T]], *, again: bool
    ) -> T:
        """Given how to ask (stubs, metadata, seconds), return the answer before the deadline.

        ``again``: asking twice does no harm, so other endpoints (or the same, when it is back) are tried until the
        deadline. Raise StoreError.
        """
        deadline = time.monotonic() + self._settings.timeout_s
        wait = Backoff(0.05, 0.5)
        while True:
            left = deadline - time.monotonic()
            share = left / len(self._settings.endpoints) if again else left
            try:
                return await self._ask(invoke, max(share, 0.01))
            except StoreUnreachableError:
                pause = wait.next()
                if not again or time.monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)

    async def _ask(
        self, invoke: Callable[[Stubs, tuple[tuple[str, str], ...], float], Awaitable[T]], seconds: float
    ) -> T:
        endpoint = self.current
        deadline = time.monotonic() + seconds
        fresh = False
        while True:
            metadata = await self.metadata(max(deadline - time.monotonic(), 0.01), fresh=fresh)
            try:
                # etcd ends a call at the deadline that gRPC sends along; a stopped one cannot: so do we.
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time() + deadline - time.monotonic()
                ):
                    return await invoke(self.stubs(), metadata, max(deadline - time.monotonic(), 0.01))
            except TimeoutError as error:
                self._leave(endpoint)
                raise _silent(endpoint, self._settings.timeout_s) from error
            except grpc.aio.AioRpcError as error:
                if is_stale_token(error) and self._settings.user and not fresh:
                    fresh = True
                    continue
                raise self.translated(error, endpoint) from error

    async def metadata(self, seconds: float, *, fresh: bool = False) -> tuple[tuple[str, str], ...]:
        """Given a deadline, return the metadata that proves who we are (``fresh``: the token is no good any more)."""
        if not self._settings.user:
            return ()
        stale = self._token if fresh else ""
        endpoint = self.current
        try:
            async with asyncio.timeout(seconds), self._authenticating:
                if not self._token or self._token == stale:
                    request = rpc.AuthenticateRequest(name=self._settings.user, password=self._password)
                    answer = await self.stubs().auth.Authenticate(request, timeout=seconds)
                    self._token = str(answer.token)
        except TimeoutError as error:
            self._leave(endpoint)
            raise _silent(endpoint, self._settings.timeout_s) from error
        except grpc.aio.AioRpcError as error:
            raise self.translated(error, endpoint) from error
        return (("token", self._token),)

    def _leave(self, endpoint: str) -> None:
        if endpoint == self.current:
            self._index += 1

    def translated(self, error: grpc.aio.AioRpcError, endpoint: str) -> StoreError:
        """Given gRPC's error and who gave it, return ours; the next call goes elsewhere if it may help."""
        code, details = error.code(), " ".join(str(error.details()).split())[:200]
        if code in UNREACHABLE:
            self._leave(endpoint)
            return StoreUnreachableError(
                f"etcd {endpoint}: {details}",
                hint="is etcd running there, do address, TLS and firewall fit? Running tunnels are not touched",
            )
        if code is grpc.StatusCode.NOT_FOUND and "lease" in details:
            return LeaseLostError(f"etcd {endpoint}: {details}", hint="stop acting and join again")
        if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED} or any(
            word in details for word in ("auth", "user name", "user ID", "permission")
        ):
            return StoreDeniedError(
                f"etcd {endpoint}: {details}",
                hint="check user, password_file and client certificate; the user needs readwrite on the prefix",
            )
        return StoreError(f"etcd {endpoint}: {code.name}: {details}", hint="look into etcd's own log")

    async def close(self) -> None:
        """Close every connection."""
        self.closed = True
        for stubs in self._stubs.values():
            await stubs.channel.close()
        self._stubs.clear()


def is_stale_token(error: grpc.aio.AioRpcError) -> bool:
    """Given gRPC's error, return whether a fresh token helps; the call was then not carried out."""
    return any(word in str(error.details()) for word in STALE_TOKEN)


def _silent(endpoint: str, seconds: float) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"etcd {endpoint}: no answer within {seconds:g} s",
        hint="is etcd stopped or without a quorum? Running tunnels are not touched",
    )


def _credentials(settings: EtcdSettings) -> Any:
    if not settings.tls:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_file(settings.ca) if settings.ca else None,
        private_key=_file(settings.key) if settings.key else None,
        certificate_chain=_file(settings.certificate) if settings.certificate else None,
    )
