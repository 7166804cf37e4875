from __future__ import annotations

import pytest

from mobikectl.node import arrivals, executor


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at now and then is looked at often."""
    monkeypatch.setattr(executor, "LOOK_S", 0.01)
    monkeypatch.setattr(executor, "GOODBYE_S", 0.05)
    monkeypatch.setattr(arrivals, "EVERY_S", 0.01)
