"""One bridge for a charon: two that serve would both answer its peers."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "\0mobikectl-bridge:"


class BridgeBusyError(SidecarError):
    """Another bridge serves this charon's peers."""


@contextlib.contextmanager
def speaking_for(plugin_socket: Path | str) -> Iterator[None]:
    """Given the path of the plugin's socket, be its only serving bridge in here. Raise BridgeBusyError.

    The claim is a name in the abstract socket namespace (unix(7)): it holds in this network namespace, which is
    charon's own, leaves no file, and ends with the process however that ends.
    """
    name = _PREFIX + hashlib.sha256(str(Path(plugin_socket).resolve()).encode()).hexdigest()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(name)
        except OSError as error:
            raise BridgeBusyError(
                f"another bridge serves the peers of {plugin_socket}",
                hint="either the sidecar's ([bridge] enabled) or `mobikectl bridge`, not both",
            ) from error
        yield
