"""A real sidecar serves its metrics, also when there is no charon."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

SCRAPE = """
import subprocess, sys, time, urllib.request
sidecar = subprocess.Popen([sys.executable, "-m", "mobikectl", "run", "--config", sys.argv[1]])
try:
    for _ in range(200):
        try:
            text = urllib.request.urlopen("http://127.0.0.1:9479/metrics", timeout=5).read().decode()
        except OSError:
            text = ""
        if "mobikectl_vici_failures_total{" in text:
            break
        time.sleep(0.1)
    print(text)
finally:
    sidecar.terminate()
    sidecar.wait(timeout=20)
"""


@pytest.mark.netns
def test_metrics_are_served_over_tcp_without_a_charon(tmp_path: Path) -> None:
    config = tmp_path / "mobikectl.toml"
    config.write_text(
        f"""
[charon]
socket = "{tmp_path / "no.vici"}"
[control]
socket = "{tmp_path / "run" / "control.sock"}"
[metrics]
port = 9479
"""
    )
    inside = f'ip link set lo up && exec {sys.executable} -c "$0" {config}'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", inside, SCRAPE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    families = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    assert families["mobikectl_charon_up"].samples[0].value == 0
    assert families["mobikectl_build_info"].samples[0].labels["role"] == "auto"
    assert families["mobikectl_vici_failures"].samples[0].value >= 1
