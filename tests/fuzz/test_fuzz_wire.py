"""The fuzz target runs, starts from the vectors, and finds nothing in a short time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).parent / "fuzz_wire.py"
RUNS = int(os.environ.get("MOBIKECTL_FUZZ_RUNS", "20000"))


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TARGET), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.timeout(620)
def test_octets_chosen_by_coverage_parse_or_raise_decode_error(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    seeded = run("--seed", str(corpus), cwd=tmp_path)
    assert seeded.returncode == 0, seeded.stderr
    assert len(list(corpus.iterdir())) > 200
    result = run(f"-atheris_runs={RUNS}", "-max_len=4096", "-seed=1", str(corpus), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    assert re.search(r"Done \d+", result.stderr + result.stdout)
    assert not list(tmp_path.glob("crash-*"))
