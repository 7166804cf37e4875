"""The keeper: a process that holds the HA broker's descriptors while there is no broker.

    python -m mobikectl.charon.ha_keeper SOCKET [SECONDS]

It goes to the background as soon as it listens, takes and gives descriptors only from and to processes of
its own user, never reads one of them, and ends when no broker was connected for so many seconds.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from mobikectl.charon.ha_holder import peer_uid
from mobikectl.charon.protect import protect_process

LINGER_S: Final = 120.0
_MAX_NAME: Final = 64
_MAX_HELD: Final = 8
_MAX_CLIENTS: Final = 8


class HaKeeper:
    """Serves one unix socket (SOCK_SEQPACKET): ``take`` gives all, ``put NAME`` brings one, ``end`` ends it."""

    def __init__(self, listener: socket.socket, linger_s: float = LINGER_S) -> None:
        self._listener = listener
        self._linger_s = linger_s
        self._held: dict[str, int] = {}
        self._clients: set[socket.socket] = set()
        self._ending = False

    def serve(self) -> None:
        """Serve until no client was connected for the lingering time."""
        idle_since = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ending and (self._clients or time.monotonic() - idle_since < self._linger_s):
                for key, _ in selector.select(timeout=1.0):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket) and not self._answer(key.fileobj):
                        selector.unregister(key.fileobj)
                        self._clients.discard(key.fileobj)
                        key.fileobj.close()
                if self._clients:
                    idle_since = time.monotonic()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        if peer_uid(client) != os.geteuid() or len(self._clients) >= _MAX_CLIENTS:
            client.close()
            return
        client.settimeout(1.0)
        self._clients.add(client)
        selector.register(client, selectors.EVENT_READ)

    def _answer(self, client: socket.socket) -> bool:
        try:
            request, fds, _, _ = socket.recv_fds(client, _MAX_NAME + 4, 1, socket.MSG_CMSG_CLOEXEC)
            if request == b"take":
                for name, fd in self._held.items():
                    socket.send_fds(client, [name.encode()], [fd])
                client.send(b"end")
            elif request.startswith(b"put ") and fds:
                self._keep(request[4:].decode("ascii", "replace"), fds.pop())
                client.send(b"ok")
            else:
                self._ending = self._ending or request == b"end"
                _close(fds)
                return False
        except OSError:
            return False
        return True

    def _keep(self, name: str, fd: int) -> None:
        old = self._held.pop(name, None)
        if old is not None:
            os.close(old)
        if len(self._held) >= _MAX_HELD:
            os.close(fd)
            raise OSError("too many descriptors")
        self._held[name] = fd


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def listen(path: Path) -> socket.socket | None:
    """Given a path, return a listening socket there; None when a keeper is there already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    old = os.umask(0o077)
    try:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            listener.close()
            return None
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(_MAX_CLIENTS)
    finally:
        os.umask(old)
    return listener


def main() -> None:
    """Listen, go to the background, serve."""
    path = Path(sys.argv[1])
    linger_s = float(sys.argv[2]) if len(sys.argv) > 2 else LINGER_S
    listener = listen(path)
    if listener is None or os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    protect_process()
    HaKeeper(listener, linger_s).serve()
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
