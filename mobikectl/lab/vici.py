"""The lab's own eye on charon: plain VICI calls, each on a fresh socket with a timeout, and an event thread.

The lab measures what the controller did, so it does not look through the controller's own VICI session.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import vici

from mobikectl.errors import CharonUnreachableError, LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

EVENTS = ["ike-updown", "ike-update", "ike-rekey", "child-updown", "child-rekey"]
TIMEOUT = 15.0


def plain(value: Any) -> Any:
    """Given a decoded VICI message, return it with str instead of bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise CharonUnreachableError(
            f"{path}: {error}", hint="is the lab's charon alive? see charon.log"
        ) from None
    return sock


def call(path: Path, use: Callable[[Any], Any]) -> Any:
    """Given a VICI socket and what to do with a session on it, return what that returned.

    Raise CharonUnreachableError when charon does not answer, LabError when it refuses.
    """
    sock = _connect(path)
    try:
        return use(vici.Session(sock))
    except OSError as error:
        raise CharonUnreachableError(f"{path}: {error}", hint="see charon.log") from None
    except vici.exception.CommandException as error:
        raise LabError(f"{path.parent.name}: charon refused: {error}", hint="see charon.log") from None
    finally:
        sock.close()


def list_sas(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Given a VICI socket, return (connection name, SA) of every IKE_SA, as charon lists them."""
    return [
        (name, sa)
        for message in call(path, lambda session: list(session.list_sas()))
        for name, sa in plain(message).items()
    ]


def initiate(path: Path, child: str) -> None:
    """Given a VICI socket and a CHILD_SA's name, bring it up. Raise LabError when it does not come up."""
    call(path, lambda session: list(session.initiate({"child": child, "timeout": "10000"})))


def initiate_all(path: Path, children: Collection[str]) -> None:
    """Given a VICI socket and the names of CHILD_SAs, have them brought up all at once; nothing is waited for."""

    def use(session: Any) -> None:
        for child in children:
            list(session.initiate({"child": child, "timeout": "-1"}))

    call(path, use)


def installed(path: Path) -> frozenset[str]:
    """Given a VICI socket, return the names of the CHILD_SAs that are installed."""
    return frozenset(
        str(child["name"])
        for _, sa in list_sas(path)
        for child in sa.get("child-sas", {}).values()
        if child.get("state") == "INSTALLED"
    )


def reconnect(path: Path, name: str) -> None:
    """Given a VICI socket and the name of a connection and its CHILD_SA, end its IKE_SA and begin a new one.

    Raise LabError when there is none to end. The new one is not waited for: a redirect may lead it elsewhere.
    """

    def use(session: Any) -> None:
        list(session.terminate({"ike": name, "timeout": "5000"}))
        list(session.initiate({"child": name, "timeout": "-1"}))

    call(path, use)


async def wait_ready(path: Path, *, deadline: float, alive: Callable[[], bool]) -> None:
    """Wait until charon answers on its VICI socket.

    Raise LabError when it ended or has not answered after `deadline` seconds.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            await asyncio.to_thread(call, path, lambda session: session.version())
        except CharonUnreachableError as error:
            if not alive():
                raise LabError(
                    f"{path.parent.name}: charon ended", hint=f"see {path.parent}/charon.log"
                ) from None
            if time.monotonic() > end:
                raise LabError(
                    f"{path.parent.name}: charon is not ready: {error}", hint="see charon.log"
                ) from None
            await asyncio.sleep(0.02)  # the socket appears without an event that we could wait for
        else:
            return


@dataclass(frozen=True, slots=True)
class CharonEvent:
    """A VICI event and when it came (CLOCK_MONOTONIC, seconds)."""

    time: float
    node: str
    name: str
    data: dict[str, Any]


class EventThread:
    """Records a charon's events until it is closed. Use as a context manager."""

    def __init__(self, node: str, path: Path) -> None:
        self.events: list[CharonEvent] = []
        self._node = node
        self._sock = _connect(path)
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"vici-{node}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(TIMEOUT):
            raise CharonUnreachableError(f"{self._node}: charon confirms no events", hint="see charon.log")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(TIMEOUT)
        self._sock.close()

    def _listen(self) -> None:
        try:
            for name, data in self._stream():
                if name is not None:
                    self.events.append(CharonEvent(time.monotonic(), self._node, plain(name), plain(data)))
                if self._closing.is_set():
                    return
        except OSError:
            return  # charon ended: the scenario's checks say whether that is right

    def _stream(self) -> Iterator[tuple[Any, Any]]:
        session = vici.Session(self._sock)
        stream = session.listen(EVENTS, timeout=0.1)
        first = next(stream)  # registers all events before it waits
        self._ready.set()
        yield first
        yield from stream
