"""A real sidecar that is a node of a cluster serves the page, and what it tells is of its own store and of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-of-enough-characters"  # noqa: S105
ASK = """
import json, subprocess, sys, time, urllib.error, urllib.request
sidecar = subprocess.Popen([sys.executable, "-m", "mobikectl", "run", "--config", sys.argv[1]])
def ask(path, **headers):
    try:
        request = urllib.request.Request("http://127.0.0.1:9110" + path, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""
try:
    told = {}
    for _ in range(300):
        told = {"view": ask("/api/view", Authorization="Bearer " + sys.argv[2])}
        if '"node": "gw1", "there": true' in told["view"][1]:
            break
        time.sleep(0.1)
    told |= {"page": ask("/", Authorization="Bearer " + sys.argv[2]), "stranger": ask("/api/view")}
    print(json.dumps(told))
finally:
    sidecar.terminate()
    sidecar.wait(timeout=20)
"""


@pytest.mark.netns
def test_the_page_tells_of_the_cluster_to_who_shows_the_token(tmp_path: Path) -> None:
    told = asked(tmp_path, 'token_file = "{}"'.format(tmp_path / "token"))
    view = json.loads(told["view"][1])
    assert [node["node"] for node in view["cluster"]["nodes"]] == ["gw1"]
    assert view["local"]["node"] == "gw1"
    assert view["fresh"]["store"]["error"] == ""
    assert "started" in {event["name"] for event in view["events"]}
    assert told["page"][0] == 200
    assert "<title>mobikectl</title>" in told["page"][1]
    assert told["stranger"][0] == 401


def asked(folder: Path, more: str) -> dict[str, Any]:
    token, config = folder / "token", folder / "mobikectl.toml"
    token.write_text(TOKEN)
    token.chmod(0o600)
    config.write_text(
        f"""
role = "gateway"
[charon]
socket = "{folder / "no.vici"}"
[control]
socket = "{folder / "run" / "control.sock"}"
[web]
port = 9110
{more}
[cluster]
node = "gw1"
addresses = [{{ ip = "198.18.1.1" }}]
[cluster.store.sqlite]
path = "{folder / "cluster.db"}"
"""
    )
    inside = f'ip link set lo up && exec {sys.executable} -c "$0" {config} {TOKEN}'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", inside, ASK], capture_output=True, text=True, timeout=90, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
