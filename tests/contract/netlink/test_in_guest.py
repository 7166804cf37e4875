"""The tests of this folder that need ESP in the kernel, where the machine's own kernel has none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mobikectl.lab import uml
from mobikectl.lab.requirements import kernel_has_esp

FOLDER = Path(__file__).parent
DEADLINE = 240.0


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(DEADLINE + 30)
async def test_what_needs_kernel_esp_holds_on_a_kernel_that_has_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    if kernel_has_esp():
        pytest.skip("this kernel has ESP: the tests run here")
    if not uml.available():
        pytest.skip("user-mode-linux is not installed")
    said: list[str] = []
    options = ["-q", "--color=no", "--tb=short", "-p", "no:cacheprovider", "-m", "kernel_esp"]
    argv = [sys.executable, "-m", "pytest", *options, str(FOLDER)]
    assert await uml.run_in_guest(argv, deadline=DEADLINE, tell=said.append) == 0, "\n".join(said)
    assert not [line for line in said if "skipped" in line], "\n".join(said)
