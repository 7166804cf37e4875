"""mobikectl: traffic control for IKEv2 VPN gateways and clients (MOBIKE, r-mobike, redirect)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mobikectl")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
