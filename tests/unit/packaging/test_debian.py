"""The Debian packages, as far as that can be told without building them (`make test-deb` installs and boots them)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from mobikectl.config import parse

ROOT = Path(__file__).parents[3]
DEBIAN = ROOT / "packaging" / "debian"
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
SCRIPTS = [ROOT / "packaging" / name for name in ("build-deb", "test-deb", "deb-story")]
SCRIPTS.append(ROOT / "strongswan-conf" / "make-certificates")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_system_call_that_a_unit_forbids_is_refused_and_kills_nobody(unit: Path) -> None:
    text = unit.read_text()
    assert "SystemCallFilter=" in text
    assert "SystemCallErrorNumber=EPERM" in text, "numpy's mbind would end the sidecar at its start"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_shares_charons_network_namespace_in_which_there_is_one_bridge(unit: Path) -> None:
    text = unit.read_text()
    assert not re.search(r"^(PrivateNetwork=yes|NetworkNamespacePath=|JoinsNamespaceOf=)", text, re.MULTILINE)


def test_the_service_may_write_where_the_cluster_is_kept_by_default() -> None:
    unit = (ROOT / "packaging" / "systemd" / "mobikectl.service").read_text()
    assert "ProtectSystem=strict" in unit
    assert "StateDirectory=mobikectl\n" in unit, "/var/lib/mobikectl/cluster.db"


def test_the_group_of_the_socket_is_made_before_the_directory_that_it_is_in() -> None:
    assert (DEBIAN / "mobikectl.sysusers").read_text().split()[:2] == ["g", "mobikectl"]
    rules = (DEBIAN / "rules").read_text()
    assert re.search(r"^execute_before_dh_installtmpfiles:\n\tdh_installsysusers$", rules, re.MULTILINE)


def test_an_installation_starts_nothing() -> None:
    rules = (DEBIAN / "rules").read_text()
    calls = re.findall(r"^\tdh_installsystemd .*", rules, re.MULTILINE)
    assert len(calls) == len(UNITS)
    assert all("--no-enable --no-start" in call for call in calls)


def test_the_configuration_that_comes_with_it_changes_nothing() -> None:
    text = (DEBIAN / "mobikectl.toml").read_text()
    assert parse(text, where="mobikectl.toml") == parse("", where="nothing")
    offered = "\n".join(line[1:] for line in text.splitlines() if re.match(r"#[a-z\[]", line))
    assert parse(offered, where="mobikectl.toml").metrics.port == 9109
