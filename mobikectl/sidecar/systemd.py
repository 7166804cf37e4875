"""systemd's notification protocol (sd_notify(3)): readiness, status and the watchdog."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Tells the service manager how we are; without one (no NOTIFY_SOCKET) it does nothing."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        environ = dict(os.environ) if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_us = environ.get("WATCHDOG_USEC", "")

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between two signs of life that the manager waits at most; None: it does not watch."""
        return (
            int(self._watchdog_us) / 1e6 if self._watchdog_us.isdigit() and int(self._watchdog_us) else None
        )

    def ready(self) -> None:
        """We serve."""
        self._send("READY=1")

    def stopping(self) -> None:
        """We are about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send("STATUS=" + text.replace("\n", " "))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(message.encode(), self._address)
            except OSError:
                return  # the manager is gone or busy: no reason to stop serving tunnels
