"""The control socket: how the command line (and a health check) talks to a running sidecar.

HTTP over a unix socket: ``GET /healthz``, ``GET /metrics``, ``GET /state``, ``GET /events`` (JSON lines, open-ended),
``POST /switch``.
"""

from mobikectl.control.client import ControlClient
from mobikectl.control.server import ControlApi, serve, serve_metrics

__all__ = ["ControlApi", "ControlClient", "serve", "serve_metrics"]
