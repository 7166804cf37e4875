"""Unix sockets that only their owner may use: made safely, and checked before they are trusted."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from mobikectl.errors import SidecarError

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_MODE = 0o660
"""The owner (root) and its group: put operators into the group to let them in."""

DIRECTORY_MODE = 0o750


def claim(path: Path) -> None:
    """Make ``path`` free to bind: create its directory, remove a socket that nobody serves.

    Raise SidecarError when another sidecar answers there, or when the path is not a socket.
    """
    if len(os.fsencode(path)) > 107:
        raise SidecarError(
            f"{path}: longer than the 107 bytes that a unix socket's path may have",
            hint="choose a shorter [control] socket",
        )
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SidecarError(
            f"{path}: {error.strerror}", hint="run as root, or choose another [control] socket"
        ) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise SidecarError(
            f"{path} is there and is not a socket", hint="remove it, or choose another [control] socket"
        )
    if listens(path):
        raise SidecarError(
            f"{path}: another sidecar is running", hint="stop it first, or choose another socket"
        )
    path.unlink()


def bound(path: Path) -> socket.socket:
    """Given a path that is free, return a socket bound there that never was open to others, whatever the umask is.

    Raise SidecarError.
    """
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        made.bind(os.fspath(path))
    except OSError as error:
        made.close()
        raise SidecarError(
            f"{path}: {error.strerror}", hint="run as root, or choose another [control] socket"
        ) from error
    finally:
        os.umask(before)
    return made


def check_trusted(path: Path) -> None:
    """Raise SidecarError unless ``path`` is a socket owned by root or by us.

    A socket that somebody else made could impersonate the sidecar.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise SidecarError(
            f"{path}: {error.strerror}",
            hint="start the sidecar with `mobikectl run`, or name its socket with --control",
        ) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise SidecarError(f"{path} is not a socket", hint="name the sidecar's socket with --control")
    if found.st_uid not in {0, os.geteuid()}:
        raise SidecarError(
            f"{path} belongs to user {found.st_uid}, not to root or you",
            hint="find out who made it before using it",
        )


def listens(path: Path) -> bool:
    """Whether a process has the socket at ``path`` (a killed one leaves the file). Waits a second at most."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # in doubt it lives: never steal a socket
        return True
