"""Who may read the page. Sans-IO: what a request carries goes in, a verdict comes out.

Without a token only what comes to a loopback address under a loopback name is answered: a page of another site cannot
reach it under a name of its own (DNS rebinding). With one, a request carries it (RFC 6750 section 2.1), or a cookie
that was given for it.
"""

from __future__ import annotations

import hmac
import secrets
import stat
from collections import OrderedDict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LEAST, MOST = 24, 512
"""Characters of a token."""
SESSIONS = 64
"""Browsers that are known at most; the one known for longest has to show the token again."""
MAKE = "head -c 24 /dev/urandom | base64 > FILE; chmod 600 FILE"


def read_token(path: Path) -> str:
    """Given the token's file, return the token. Raise ConfigError: it cannot be read, or others can, or it is weak."""
    try:
        found = path.stat()
        token = path.read_bytes()[: MOST + 2].decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"web.token_file: {path}: {error}", hint=f"make one: {MAKE}") from error
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"web.token_file: {path} can be used by others", hint=f"chmod 600 {path}")
    if not (LEAST <= len(token) <= MOST and token.isprintable() and " " not in token):
        raise ConfigError(
            f"web.token_file: {path}: expected {LEAST} to {MOST} characters without blanks",
            hint=f"make one: {MAKE}",
        )
    return token


class Guard:
    """Lets requests in, or not. ``token`` is None on a loopback address that needs none."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._sessions: OrderedDict[str, None] = OrderedDict()

    @property
    def wants_token(self) -> bool:
        """Whether a token lets somebody in."""
        return self._token is not None

    def admits(self, *, host: str, authorization: str = "", cookie: str = "") -> bool:
        """Given the Host and Authorization headers and our cookie, return whether the request may be answered."""
        if self._token is None:
            return is_loopback(host)
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        return bool(cookie) and cookie in self._sessions

    def is_token(self, shown: str) -> bool:
        """Given what somebody showed, return whether it is the token, in a time that says nothing about it."""
        return self._token is not None and hmac.compare_digest(
            shown.encode(errors="surrogateescape"), self._token.encode()
        )

    def enter(self) -> str:
        """Return a new session: the value of a cookie for somebody who showed the token."""
        session = secrets.token_urlsafe(32)
        self._sessions[session] = None
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session


def is_loopback(host: str) -> bool:
    """Given a Host header, return whether it names this machine's loopback."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
