"""The images and the compose file say what they should, as far as that can be told without a Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from mobikectl.config import parse

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
NODE = ROOT / "packaging" / "compose" / "node"
SCRIPTS = [NODE, *(ROOT / "packaging" / "compose" / name for name in ("secrets", "story"))]
STORY = ROOT / "packaging" / "compose" / "story"
TURN = ROOT / "packaging" / "compose" / "turn"
SCRIPTS += [
    ROOT / "packaging" / "grafana" / "play",
    ROOT / "packaging" / "image" / "entrypoint",
    ROOT / "packaging" / "update-locks",
]
TEST_NETWORK = ip_network("198.18.0.0/15")


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+) \\$", lock.read_text(), re.MULTILINE | re.IGNORECASE))


def test_the_image_has_what_a_clone_has_and_nothing_of_its_own() -> None:
    image, clone = (
        versions(ROOT / "packaging" / "requirements-image.lock"),
        versions(ROOT / "requirements.lock"),
    )
    assert image.items() <= clone.items(), "packaging/update-locks writes both lists"
    assert "pytest" not in image


def test_the_image_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=~ ;\[]", line, maxsplit=1)[0] for line in project["dependencies"]}
    assert wanted <= set(versions(ROOT / "packaging" / "requirements-image.lock")), (
        "run packaging/update-locks"
    )


def test_images_come_from_debian_and_from_this_file_only() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    for source in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert source == "${BASE}" or source in stages
    assert "ARG BASE=debian:bookworm-slim" in DOCKERFILE


def test_everything_that_is_copied_into_an_image_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert Path(source).parts[0] in sent, source


def test_addresses_are_different_and_in_the_benchmark_network() -> None:
    own = re.findall(r"ipv4_address: ([0-9.]+)", COMPOSE)
    assert len(own) == len(set(own)) > 12
    scripts = "".join(
        path.read_text() for path in (*SCRIPTS, ROOT / "packaging" / "compose" / "prometheus.yml")
    )
    named = re.findall(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", COMPOSE + scripts)
    for address in {ip_address(text) for text in named} - {ip_address("0.0.0.0")}:  # noqa: S104 (etcd's listener)
        assert address in TEST_NETWORK, address


def test_no_container_has_more_than_its_capabilities_or_is_privileged() -> None:
    assert "privileged" not in COMPOSE
    given = {name for names in re.findall(r"cap_add: \[(.*)\]", COMPOSE) for name in names.split(", ")}
    assert given == {"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "IPC_LOCK"}
    services = COMPOSE[COMPOSE.index("\nservices:") : COMPOSE.index("\nnetworks:")]
    for service in re.split(r"\n\n  (?=\w)", services):
        assert "<<: *" in service or "cap_drop: [ALL]" in service, service.split(":")[0]


def test_a_run_has_names_of_its_own_and_by_hand_they_are_plain() -> None:
    """What is left that two runs could take from each other are the networks' addresses: one run at a time has them."""
    for fixed in ("container_name:", "ports:", "\nname:", "external:"):
        assert fixed not in COMPOSE
    images = re.findall(r"\bimage: (\S+)", COMPOSE)
    assert all(image.endswith(":${MOBIKECTL_LAB_TAG:-latest}") for image in images), images
    (listed,) = re.findall(r"^IMAGES=\((.*)\)$", STORY.read_text(), re.MULTILINE)
    assert set(listed.split()) == {image.partition(":")[0] for image in images}


FAKE_DOCKER = """#!/bin/bash
case "$*" in
  "network ls -q") echo one two three ;;
  *) printf '%s\\n' '- 172.17.0.0/16' 'office 198.18.30.0/24 2001:db8::/64' 'office 198.18.10.0/24' 'b 198.18.1.0/24' ;;
esac
"""


def test_who_else_has_the_networks_addresses_is_found(tmp_path: Path) -> None:
    """The engine's answers are made up: such networks are not made for a test of this kind."""
    (tmp_path / "docker").write_text(FAKE_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    subnets = re.findall(r"subnet: ([0-9./]+)", COMPOSE)
    assert len(subnets) == 3
    done = subprocess.run(
        ["bash", "-euc", f". {TURN}; projects_with {' '.join(subnets)}; projects_with 172.17.0.0/16"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    assert done.stdout.split() == ["office", "-"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


def test_a_gateways_configuration_in_the_lab_can_be_read() -> None:
    (text,) = re.findall(r"mobikectl\.toml <<EOF\n(.*?)\nEOF", NODE.read_text(), re.DOTALL)
    values = {"NAME": "gw1", "OUTSIDE": "198.18.10.11", "MANAGEMENT": "198.18.30.11"}
    text = re.sub(r'\$\(device_of "\$\w+"\)', "eth0", text)
    config = parse(re.sub(r"\$(\w+)", lambda found: values[found[1]], text), where="packaging/compose/node")
    assert config.cluster is not None
    assert config.cluster.transfer is not None


@pytest.mark.skipif(
    shutil.which("envsubst") is None, reason="envsubst (gettext-base) is in the image, not here"
)
def test_templates_are_rendered_with_nothing_left_open() -> None:
    functions = re.findall(
        r"^(?:render|swanctl_conf)\(\) \{.*?\n?\}$", NODE.read_text(), re.MULTILINE | re.DOTALL
    )
    script = "\n".join(functions).replace("/secrets/psk", "/dev/null")
    run = f"set -eu\ntemplates={ROOT}/strongswan-conf INSIDE=198.19.0.1\n{script}\nexport gateway_addrs=198.18.10.11\n"
    done = subprocess.run(
        ["bash", "-c", f"{run}swanctl_conf gateway 3"], check=True, capture_output=True, text=True, timeout=10
    )
    assert "${" not in done.stdout
    assert "client3.lab.example" in done.stdout
