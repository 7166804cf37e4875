"""Adapters that find out whether one path works: one probe of one path, with a deadline."""

from mobikectl.probe.run import probe

__all__ = ["probe"]
