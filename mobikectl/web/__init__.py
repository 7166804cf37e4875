"""The read-only web page of a sidecar: what `mobikectl top` shows, in a browser."""

from mobikectl.web.server import WebApi, serve_web

__all__ = ["WebApi", "serve_web"]
