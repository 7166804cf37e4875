"""Two real charons for each test that asks for `pair`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from .charon_pair import CHARON, Pair, two_charons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests with sudo")
    if not CHARON.exists() or shutil.which("ip") is None:
        pytest.skip("needs strongswan-charon and iproute2: see packaging/apt-packages.txt")
    with two_charons(tmp_path) as found:
        yield found
