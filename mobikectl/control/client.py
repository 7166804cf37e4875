"""The command line's side of the control socket."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from mobikectl import errors
from mobikectl.control.sockets import check_trusted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

DEADLINE = 5.0
"""Seconds for an answer that needs no work."""

MAX_LINE = 1 << 20


class ControlClient:
    """An async context manager that talks to the sidecar at a unix socket.

    Each call raises SidecarError when the sidecar is not there or does not answer, and the
    sidecar's own error (same type, message and hint) when it refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> ControlClient:
        check_trusted(self._path)
        connector = aiohttp.UnixConnector(path=str(self._path))
        self._session = aiohttp.ClientSession("http://sidecar", connector=connector, read_bufsize=MAX_LINE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def state(self) -> dict[str, Any]:
        """Return the sidecar's whole state."""
        return await self._call("GET", "/state", timeout=DEADLINE)

    async def health(self) -> dict[str, Any]:
        """Return the sidecar's health (``ok`` and what is wrong)."""
        return await self._call("GET", "/healthz", timeout=DEADLINE, good=(200, 503))

    async def switch(self, request: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        """Given a switch request, have it carried out within ``timeout`` seconds; return its outcome."""
        return await self._call("POST", "/switch", timeout=timeout, body=dict(request))

    async def events(self, *, backlog: int = 0) -> AsyncGenerator[dict[str, Any], None]:
        """Yield up to ``backlog`` past events and then each new one, until the sidecar ends."""
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=DEADLINE)
        with self._as_sidecar_errors():
            async with self._session.get(
                "/events", params={"backlog": str(backlog)}, timeout=unlimited
            ) as answer:
                await _check(answer, (200,))
                async for line in answer.content:
                    yield json.loads(line)

    async def _call(
        self,
        method: str,
        target: str,
        *,
        timeout: float,
        body: dict[str, Any] | None = None,
        good: tuple[int, ...] = (200,),
    ) -> dict[str, Any]:
        limit = aiohttp.ClientTimeout(total=timeout)
        with self._as_sidecar_errors():
            async with self._session.request(method, target, json=body, timeout=limit) as answer:
                if answer.status == 409:
                    raise _revive(await answer.json())
                await _check(answer, good)
                value: dict[str, Any] = await answer.json()
                return value

    @contextlib.contextmanager
    def _as_sidecar_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise errors.SidecarError(
                f"{self._path}: the sidecar did not answer in time",
                hint="look at its log; `mobikectl doctor` may help",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise errors.SidecarError(
                f"{self._path}: {error}", hint="start the sidecar with `mobikectl run`"
            ) from error
        except ValueError as error:  # of json, or a line that is too long
            raise errors.SidecarError(
                f"{self._path}: what came is not what a sidecar says: {error}",
                hint="it ended while it spoke, or is of another version",
            ) from error


async def _check(answer: aiohttp.ClientResponse, good: tuple[int, ...]) -> None:
    """Raise SidecarError unless an answer is one that was hoped for."""
    if answer.status not in good:
        reason = (await answer.text())[:200]
        raise errors.SidecarError(
            f"the sidecar refused {answer.method} {answer.url.path}: {answer.status} {reason}",
            hint="the command line and the sidecar may be of different versions",
        )


def _revive(answer: Mapping[str, Any]) -> errors.MobikectlError:
    """Given a refusal of the sidecar, return it as the error that it was there."""
    kind = getattr(errors, str(answer.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.MobikectlError)):
        kind = errors.SidecarError
    return kind(str(answer.get("message", "refused")), hint=str(answer.get("hint", "")))
