"""The user that charon runs as: the only one to whose socket keys are sent."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from mobikectl.charon.ha_holder import peer_uid
from mobikectl.charon.session import LinkState
from mobikectl.errors import CharonUnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.charon.session import Session, Status


class CharonUser:
    """Given charon's VICI session, tells the user; asks once for as long as charon stays there.

    Each time that keys are sent it is wanted, and charon's queue of new connections is short.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: tuple[Status, int] | None = None

    def __call__(self) -> int:
        """Return the user's number. Raise CharonUnreachableError."""
        status = self._session.status
        if self._known is None or self._known[0] != status:
            self._known = None
            user = _user_of(self._session.path)
            if status.state is not LinkState.UP:
                return user
            self._known = (status, user)
        return self._known[1]


def _user_of(path: Path) -> int:
    """Given charon's VICI socket, return the user that charon runs as."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(str(path))
            return peer_uid(sock)
        except OSError as error:
            raise CharonUnreachableError(
                f"{path}: {error.strerror or error}", hint="is charon running, with the vici plugin?"
            ) from error
