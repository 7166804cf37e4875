"""Every command as an operator meets it, beside real charons: what it shows, what it does, how it exits."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.lab.requirements import CHARON

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("cli"),
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]

MOBIKECTL = [sys.executable, "-m", "mobikectl"]


class Client:
    """The client of a lab, and its sidecar."""

    def __init__(self) -> None:
        self.lab = f"cli-{secrets.token_hex(3)}"
        self.run_(["lab", "up", "client-link-down", "--name", self.lab])
        self.home = Path("/run/mobikectl-lab", self.lab, "client")
        self.control = self.home / "mobikectl" / "control.sock"
        self.sidecar: subprocess.Popen[bytes] | None = None

    def run_(self, args: list[str], *, namespace: str = "") -> subprocess.CompletedProcess[str]:
        argv = [*(["ip", "netns", "exec", namespace] if namespace else []), *MOBIKECTL, *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def mobikectl(self, *args: str) -> subprocess.CompletedProcess[str]:
        sockets = ["--charon", str(self.home / "charon.vici"), "--control", str(self.control)]
        return self.run_([*args, *sockets], namespace=f"mobikectl-{self.lab}-client")

    def json(self, *args: str) -> Any:
        got = self.mobikectl(*args, "--json")
        assert got.returncode in {0, 1}, got.stderr
        return json.loads(got.stdout)

    def start(self) -> None:
        argv = ["ip", "netns", "exec", f"mobikectl-{self.lab}-client", *MOBIKECTL, "run"]
        sockets = ["--charon", str(self.home / "charon.vici"), "--control", str(self.control)]
        environ = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        self.sidecar = subprocess.Popen([*argv, *sockets], env=environ, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (self.control.exists() and self.mobikectl("status").returncode == 0):
            assert self.sidecar.poll() is None, "the sidecar ended"
            assert time.monotonic() < deadline, "the sidecar did not start"

    def end(self) -> None:
        if self.sidecar is not None:
            self.sidecar.send_signal(signal.SIGTERM)
            assert self.sidecar.wait(20) == 0
        self.run_(["lab", "down", self.lab])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    made = Client()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def with_sidecar(client: Client) -> Client:
    if client.sidecar is None:
        client.start()
    return client


def test_without_a_sidecar_status_sas_links_and_paths_still_answer(client: Client) -> None:
    assert client.sidecar is None
    assert client.json("status")["sidecar"] is None
    (sa,) = client.json("sas")
    assert (sa["state"], sa["path"]["local"]) == ("ESTABLISHED", "198.18.1.1")
    assert {link["name"] for link in client.json("links")} >= {"wan1", "wan2"}
    (one,) = client.json("paths")
    assert {c["link"]: (c["track"] or {}).get("state") for c in one["candidates"] if c["link"] != "lo"} == {
        "wan1": "up",
        "wan2": "up",
    }


def test_without_a_sidecar_switch_says_how_to_start_one(client: Client) -> None:
    got = client.mobikectl("switch", "--sa", "1", "--to", "198.18.2.1")
    assert got.returncode == 10
    assert "mobikectl run" in got.stderr


def test_doctor_finds_the_lab_fit_and_names_each_mend(client: Client) -> None:
    found = {one["subject"]: one for one in client.json("doctor")}
    assert found["prefer_best_path"]["level"] == "good"
    assert found["uplinks"]["text"] == "wan1, wan2"
    assert all(one["mend"] for one in found.values() if one["level"] in {"warning", "problem"})


def test_status_and_paths_tell_what_the_sidecar_sees(with_sidecar: Client) -> None:
    status = with_sidecar.json("status")
    assert status["ok"]
    assert status["charon"]["ike_sas"] == 1
    assert "on the best path" in with_sidecar.mobikectl("paths").stdout


def test_a_dry_run_says_the_way_and_moves_nothing(with_sidecar: Client) -> None:
    plan = with_sidecar.json("switch", "--peer", "gateway.lab.example", "--to", "198.18.2.1", "--dry-run")
    assert plan["dry_run"][0]["route"]["gateway"] == "198.18.2.254"
    assert with_sidecar.json("sas")[0]["path"]["local"] == "198.18.1.1"


def test_a_switch_moves_stays_and_is_given_back(with_sidecar: Client) -> None:
    uniqueid = str(with_sidecar.json("sas")[0]["uniqueid"])
    got = with_sidecar.mobikectl("switch", "--sa", uniqueid, "--to", "198.18.2.1")
    assert got.returncode == 0, got.stdout + got.stderr
    assert "verified" in got.stdout
    assert with_sidecar.json("sas")[0]["path"]["local"] == "198.18.2.1"
    assert with_sidecar.json("paths")[0]["verdict"] == "kept where the operator put it"
    assert with_sidecar.mobikectl("switch", "--sa", uniqueid, "--to", "auto").returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--sa", "999", "--to", "198.18.2.1"], 6, "no IKE_SA matches --sa 999"),
        (["--peer", "nobody", "--to", "198.18.2.1"], 6, "no IKE_SA matches --peer 'nobody'"),
        (["--peer", "office", "--to", "nonsense"], 7, "expected an IP address"),
        (["--peer", "office", "--to", "198.18.77.7"], 7, "not where they were to go"),
        (["--to", "198.18.2.1"], 2, "either --sa or --peer"),
    ],
)
def test_a_switch_that_cannot_be_exits_with_its_code_and_one_clear_line(
    with_sidecar: Client, args: list[str], code: int, words: str
) -> None:
    got = with_sidecar.mobikectl("switch", *args)
    assert got.returncode == code, got.stderr
    assert words in got.stderr


def test_monitor_tells_each_event_as_a_line_or_as_json(with_sidecar: Client) -> None:
    for address in ("198.18.2.1", "auto"):
        assert (
            with_sidecar.mobikectl("switch", "--peer", "gateway.lab.example", "--to", address).returncode == 0
        )
    sockets = ["--control", str(with_sidecar.control), "--backlog", "1000", "--json"]
    argv = ["timeout", "20", *MOBIKECTL, "monitor", *sockets]
    events: list[dict[str, Any]] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as monitor:
        for line in monitor.stdout or ():
            events.append(json.loads(line))
            if {"sidecar", "charon", "action"} <= {event["source"] for event in events}:
                break
        else:
            pytest.fail(f"only events of { ({event['source'] for event in events}) }")
        monitor.terminate()
    assert [event["number"] for event in events] == sorted(event["number"] for event in events)


def test_a_charon_that_is_not_there_is_exit_code_4(client: Client) -> None:
    got = client.run_(["sas", "--charon", "/run/no-such.vici"])
    assert got.returncode == 4
    assert "/run/no-such.vici" in got.stderr
    assert "what to do:" in got.stderr
