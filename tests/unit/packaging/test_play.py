"""What the scripts do to the compose lab can be done: its nodes, addresses, commands and the dashboard's panels."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from mobikectl.cluster.node_settings import Placement
from mobikectl.config import parse

from ..docs.test_commands import check

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES = COMPOSE[COMPOSE.index("\nservices:") : COMPOSE.index("\nnetworks:")]
NODE = (ROOT / "packaging" / "compose" / "node").read_text()
PLAY = ROOT / "packaging" / "grafana" / "play"
STORY = ROOT / "packaging" / "compose" / "story"
DASHBOARD = json.loads((ROOT / "packaging" / "grafana" / "dashboard.json").read_text())
OF_A_NODE = {
    name: set(re.findall(r"ipv4_address: ([0-9.]+)", rest))
    for name, rest in re.findall(r"^  (\w+):\n((?:    .*\n)+)", SERVICES, re.MULTILINE)
}
VALUES = {
    "one": "client1.lab.example",
    "leader": "gw1",
    "asked": "gw2",
    "gateway": "gw1",
    "id": "client1.lab.example",
}


def commands(script: Path) -> list[str]:
    """What follows mobikectl where a script runs it in a container, with names for what is asked at run time."""
    text = script.read_text().replace("\\\n", " ")
    found = re.findall(r"^(?!#).*?\bon [\w\"$]+ mobikectl ([^|&;>)\n]+)", text, re.MULTILINE)
    return [re.sub(r"\"?\$(\w+)\"?", lambda name: VALUES[name[1]], one.removesuffix(" 2")) for one in found]


@pytest.mark.parametrize("command", [*commands(PLAY), *commands(STORY)])
def test_every_command_that_a_script_gives_can_be_given(command: str) -> None:
    check(command)


def test_the_scripts_give_commands_at_all() -> None:
    assert len(commands(PLAY)) >= 6
    assert len(commands(STORY)) >= 6


@pytest.mark.parametrize("script", [PLAY, STORY], ids=lambda path: path.name)
def test_what_a_script_speaks_of_are_services_of_the_lab(script: Path) -> None:
    text = "\n".join(line for line in script.read_text().splitlines() if not line.lstrip().startswith("#"))
    named = set(re.findall(r"\b(?:client|gw)\d\b", text)) | set(
        re.findall(r"(?m)(?:^|[$(] ?) *on (\w+) ", text)
    )
    assert len(named) > 2
    assert named <= set(OF_A_NODE)


def test_the_addresses_that_are_played_with_are_the_labs() -> None:
    text = PLAY.read_text()
    (second,) = re.findall(r"^SECOND=(\S+)", text, re.MULTILINE)
    given = {address for addresses in OF_A_NODE.values() for address in addresses}
    assert second not in given, "somebody has the address of client1's second uplink"
    assert "198.18.20.20" in OF_A_NODE["nat"]
    assert "198.18.10.101" in OF_A_NODE["client1"]
    assert "198.18.10.30" in OF_A_NODE["prometheus"]
    inside = set(re.findall(r"^INSIDE=(\S+)", NODE, re.MULTILINE))
    spoken = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b(?!/)", text))
    assert spoken <= given | inside | {second}


def test_the_panels_that_may_be_empty_are_panels() -> None:
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    named = set(re.findall(r"--may-be-empty '([^']+)'", PLAY.read_text()))
    assert named
    assert named <= titles


def test_a_gateway_that_is_told_to_place_new_clients_has_a_configuration_that_says_so() -> None:
    (text,) = re.findall(r"mobikectl\.toml <<EOF\n(.*?)\nEOF", NODE, re.DOTALL)
    (change,) = re.findall(r"sed -i '([^']+)' /etc/mobikectl/mobikectl\.toml", PLAY.read_text())
    done = subprocess.run(["sed", change], input=text, capture_output=True, text=True, timeout=10, check=True)
    told = re.sub(r'\$\(device_of "\$\w+"\)', "eth0", done.stdout)
    told = (
        told.replace("$OUTSIDE", "198.18.10.13")
        .replace("$MANAGEMENT", "198.18.30.13")
        .replace("$NAME", "gw3")
    )
    cluster = parse(told, where="packaging/compose/node").cluster
    assert cluster is not None
    assert cluster.placement is Placement.INIT


def test_a_sidecar_that_is_to_be_started_again_is_found_by_its_command_line() -> None:
    """As /proc has it: each word ends with a NUL, that of the interpreter and its path come first."""
    (pattern,) = re.findall(r'grep -q "(mobikectl run [^"]*)"', PLAY.read_text())
    assert re.search(r"^\s*mobikectl run &$", (ROOT / "packaging/image/entrypoint").read_text(), re.MULTILINE)
    sidecar = b"/opt/mobikectl/bin/python3\0/opt/mobikectl/bin/mobikectl\0run\0"
    assert re.search(pattern, sidecar.replace(b"\0", b" ").decode())
    itself = f"sh -c for one in /proc/[0-9]*; do grep -q {pattern} ; done "
    assert not re.search(pattern, itself), "it would end itself"


def test_it_says_how_it_is_called() -> None:
    done = subprocess.run([PLAY], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert "packaging/grafana/play OUT.png" in done.stderr


def test_it_takes_back_everything_that_outlives_it() -> None:
    text = PLAY.read_text()
    finish = text[text.index("finish() {") : text.index("trap finish EXIT")]
    for done, undone in (
        ("exec -d", "/run/load.pid"),
        ('nft "add table ip lab', "nft delete table ip lab"),
        ("ip route add 198.18.10.0/24", "ip route delete 198.18.10.0/24 metric 200"),
        ("docker network connect", "docker network disconnect"),
        ("mobikectl drain gw3", "mobikectl undrain gw3"),
    ):
        assert done in text
        assert undone in finish
