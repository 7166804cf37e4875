"""The TLS contexts of a node: its certificate, its key, and the authority that signs the nodes' certificates.

TLS 1.3 only, both sides show a certificate, no session is resumed (so that a certificate is looked at each time), and
no key log is written whatever the environment says. A node's name is a DNS name of the certificate's subjectAltName,
compared exactly: no wildcards, no common names.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import TYPE_CHECKING, Any

from mobikectl.errors import ConfigError, TransferDeniedError

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.cluster.node_settings import TransferSettings


class Tls:
    """Given the settings, makes the contexts, anew when a file has changed: a renewed certificate needs no restart."""

    def __init__(self, settings: TransferSettings) -> None:
        self._settings = settings
        self._made: dict[bool, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    def server(self) -> ssl.SSLContext:
        """Return the context of the side that is connected to. Raise ConfigError: a file is missing, wrong or open."""
        return self._context(server=True)

    def client(self) -> ssl.SSLContext:
        """Return the context of the side that connects. Raise ConfigError, as `server`."""
        return self._context(server=False)

    def _context(self, *, server: bool) -> ssl.SSLContext:
        files = (self._settings.certificate, self._settings.key, self._settings.ca)
        stamp = tuple(_stamp(path) for path in files)
        known = self._made.get(server)
        if known is not None and known[0] == stamp:
            return known[1]
        check_private(self._settings.key)
        made = self._make(server=server)
        self._made[server] = (stamp, made)
        return made

    def _make(self, *, server: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # names are compared by `require_name`, on both sides alike
        context.verify_mode = ssl.CERT_REQUIRED
        if server:
            context.num_tickets = 0
        settings = self._settings
        try:
            context.load_verify_locations(cafile=settings.ca)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(settings.ca, error) from error
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(settings.certificate, error) from error
        return context


def _no_password() -> str:
    """Stand for a password: OpenSSL would ask the terminal for one, and wait for ever."""
    return ""


def _unusable(path: Path, error: OSError) -> ConfigError:
    reason = (
        getattr(error, "reason", None) or error.strerror or "not PEM, or the key is another certificate's"
    )
    return ConfigError(
        f"{path}: {reason}", hint="`mobikectl cluster join` makes the files; `mobikectl doctor` looks at them"
    )


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise _unusable(path, error) from error


def check_private(key: Path) -> None:
    """Given a key's file, return when only its owner (root or this user) may read it. Raise ConfigError."""
    try:
        found = key.stat()
    except OSError as error:
        raise _unusable(key, error) from error
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"{key}: others than its owner may read it", hint=f"chmod 600 {key}; chown root {key}"
        )


def names_of(tls: ssl.SSLObject | ssl.SSLSocket) -> frozenset[str]:
    """Given a connection whose certificate was verified, return the node names in it."""
    certificate: dict[str, Any] = tls.getpeercert() or {}
    said = certificate.get("subjectAltName", ())
    return frozenset(name for kind, name in said if kind == "DNS" and "*" not in name)


def require_name(tls: ssl.SSLObject | ssl.SSLSocket, node: str) -> None:
    """Given a connection and who the other side should be, return when it is. Raise TransferDeniedError."""
    if tls.version() != "TLSv1.3":
        raise TransferDeniedError(f"{node} speaks {tls.version()}", hint="TLS 1.3 is needed")
    names = names_of(tls)
    if node not in names:
        raise TransferDeniedError(
            f"the certificate is of {', '.join(sorted(names)[:5]) or 'nobody'}, not of {node}",
            hint="`mobikectl cluster join` makes a certificate with the node's name in it",
        )
