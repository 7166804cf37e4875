"""Who keeps the broker's descriptors while the broker restarts: systemd, or a small process of our own.

With the UDP socket held, no other process can take charon's HA port, and what charon says in the meantime
waits in the socket's buffer. With the log's memory files held, nothing is forgotten.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from mobikectl.errors import SidecarError

KEEPER_SOCKET: Final = Path("/run/mobikectl/ha-keeper.sock")
_PREFIX: Final = "mobikectl-ha-"
_MAX_NAME: Final = 64
_START_S: Final = 10.0
_ANSWER_S: Final = 5.0
_STORED: Final[dict[tuple[str, str], int]] = {}
"""What systemd's stores have of ours, by the manager's address and the name, as descriptors of this process.

It is the process's, as LISTEN_FDS is: systemd gives back at a start only, and a broker may be opened again before.
"""


class Holder(Protocol):
    """Keeps descriptors by name for the process that comes after this one."""

    def take(self) -> dict[str, int]:
        """Return what was kept, each as a descriptor of this process (close-on-exec)."""

    def put(self, name: str, fd: int) -> None:
        """Given a name and a descriptor, keep a duplicate."""

    def close(self) -> None:
        """Let go of the holder itself, not of what it keeps."""


def open_holder(path: Path = KEEPER_SOCKET, environ: dict[str, str] | None = None) -> Holder:
    """Given the keeper's socket, return systemd's store when systemd started us, else the keeper.

    Raise SidecarError when the keeper can neither be reached nor started.
    """
    environ = dict(os.environ) if environ is None else environ
    return SystemdStore(environ) if environ.get("NOTIFY_SOCKET") else Keeper(path)


class SystemdStore:
    """The service manager's file descriptor store (sd_pid_notify_with_fds(3), FileDescriptorStoreMax=)."""

    def __init__(self, environ: dict[str, str]) -> None:
        address = environ["NOTIFY_SOCKET"]
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._environ = environ

    def take(self) -> dict[str, int]:
        """Return what a start found in LISTEN_FDS (sd_listen_fds_with_names(3)) and what was put since."""
        self._receive()
        return {name: os.dup(fd) for (address, name), fd in _STORED.items() if address == self._address}

    def _receive(self) -> None:
        if self._environ.get("LISTEN_PID") != str(os.getpid()):
            return
        count = int(self._environ.get("LISTEN_FDS", "0"))
        names = self._environ.get("LISTEN_FDNAMES", "").split(":")
        for fd, name in zip(range(3, 3 + count), names, strict=False):
            key = self._address, name.removeprefix(_PREFIX)
            if name.startswith(_PREFIX) and key not in _STORED:
                os.set_inheritable(fd, False)
                _STORED[key] = fd

    def put(self, name: str, fd: int) -> None:
        """Send it to the manager. Raise SidecarError when it does not take it."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        # Without FDPOLL=0 it would let go of the port as soon as charon is away for a moment: that is POLLERR.
        text = f"FDSTORE=1\nFDPOLL=0\nFDNAME={_PREFIX}{name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.connect(self._address)
                sock.sendmsg([text.encode()], rights)
            except OSError as error:
                raise SidecarError(
                    f"systemd does not keep the HA broker's {name}: {error.strerror}",
                    hint="set FileDescriptorStoreMax=8 in the unit",
                ) from error
        old = _STORED.pop((self._address, name), None)
        if old is not None:
            os.close(old)
        _STORED[self._address, name] = os.dup(fd)

    def close(self) -> None:
        """Nothing is open."""


class Keeper:
    """Our own keeper, for machines and containers where systemd does not start us.

    It is started when nobody listens at ``path``, has no key material in its own memory, and ends some
    minutes after the last broker did (``mobikectl.charon.ha_keeper``).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = self._connect()

    def _connect(self) -> socket.socket:
        with suppress(OSError):
            return self._try()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "mobikectl.charon.ha_keeper", str(self._path)]
        subprocess.run(command, check=False, timeout=_START_S, stdin=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return self._try()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SidecarError(
                        f"the keeper of the HA broker's sockets does not answer at {self._path}: {error.strerror}",
                        hint="see whether the directory is writable for us and for nobody else",
                    ) from error
            time.sleep(0.02)

    def _try(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        sock.settimeout(_ANSWER_S)
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        if peer_uid(sock) != os.geteuid():
            sock.close()
            raise SidecarError(
                f"{self._path} is served by another user",
                hint=f"remove it; {self._path.parent} must be writable for us alone",
            )
        return sock

    def take(self) -> dict[str, int]:
        """Return what the keeper has. Raise SidecarError when it does not answer."""
        found: dict[str, int] = {}
        try:
            self._sock.send(b"take")
            while True:
                name, fds, _, _ = socket.recv_fds(self._sock, _MAX_NAME, 1, socket.MSG_CMSG_CLOEXEC)
                if not name or not fds:
                    return found
                found[name.decode()] = fds[0]
        except OSError as error:
            raise self._broken(error) from error

    def put(self, name: str, fd: int) -> None:
        """Give it to the keeper. Raise SidecarError when it does not take it."""
        try:
            socket.send_fds(self._sock, [b"put " + name.encode()], [fd])
            if self._sock.recv(_MAX_NAME) != b"ok":
                raise ConnectionResetError("refused")
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> SidecarError:
        return SidecarError(
            f"the keeper at {self._path} does not answer: {error.strerror or error}",
            hint="end it; a new one is started with the next broker",
        )

    def end(self) -> None:
        """End the keeper, and with it what it keeps."""
        with suppress(OSError):
            self._sock.send(b"end")
            self._sock.recv(1)  # it closes the connection when it has seen it
        self.close()

    def close(self) -> None:
        """Disconnect: the keeper's time to wait for another broker begins."""
        self._sock.close()


def peer_uid(sock: socket.socket) -> int:
    """Given a connected unix socket, return who is at the other end (SO_PEERCRED)."""
    credentials = array.array("i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return credentials[1]
