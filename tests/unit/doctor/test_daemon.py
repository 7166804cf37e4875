"""What doctor finds about charon, each finding with its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobikectl.charon.commands import Stats, Version
from mobikectl.charon.daemon import Daemon, EspPath
from mobikectl.doctor import Level, daemon


def charon(version: str = "5.9.8", sas: int = 1) -> Daemon:
    stats = Stats("", sas, 0, 16, 11, 0, {}, ("kernel-netlink",))
    return Daemon(Version("charon", version), stats, EspPath.KERNEL)


GOOD = {"charon.prefer_best_path": "yes", "charon.check_current_path": "yes", "charon.install_routes": "no"}
FILE = Path("/etc/strongswan.conf")


def levels(found: dict[str, str], sas: int = 1) -> dict[str, Level]:
    return {f.subject: f.level for f in daemon.settings(found, charon(sas=sas), FILE)}


@pytest.mark.parametrize(
    ("version", "level"), [("5.9.8", Level.GOOD), ("6.0.1", Level.GOOD), ("5.7.2", Level.WARNING)]
)
def test_versions_that_were_never_tried_are_said_to_be(version: str, level: Level) -> None:
    assert next(daemon.version(charon(version))).level is level


def test_the_plugins_are_named_and_a_missing_rmobike_is_noted() -> None:
    found = list(daemon.plugins(charon()))
    assert found[0].text == "1 loaded: kernel-netlink"
    assert [finding.level for finding in found] == [Level.GOOD, Level.NOTE]


def test_how_to_get_the_plugin_is_said_for_packages_and_for_the_source() -> None:
    mend = list(daemon.plugins(charon()))[1].mend
    assert "mobikectl-charon-plugin" in mend
    assert "make plugin plugin-install" in mend


def test_good_settings_give_no_complaint() -> None:
    assert set(levels(GOOD, sas=5000).values()) == {Level.GOOD}


def test_a_charon_that_does_not_follow_routes_is_a_problem_with_its_mend() -> None:
    finding = next(daemon.settings({}, charon(), FILE))
    assert finding.level is Level.PROBLEM
    assert "charon.prefer_best_path = yes in /etc/strongswan.conf" in finding.mend


def test_install_routes_matters_with_many_sas_only() -> None:
    found = {**GOOD, "charon.install_routes": "yes"}
    assert "install_routes" not in levels(found, sas=10)
    assert levels(found, sas=daemon.MANY_SAS)["install_routes"] is Level.WARNING


def test_the_settings_file_is_the_one_that_the_process_was_given(tmp_path: Path) -> None:
    process = tmp_path / "42"
    (process / "root" / "srv").mkdir(parents=True)
    (process / "root" / "srv" / "my.conf").write_text("")
    (process / "environ").write_bytes(b"A=1\0STRONGSWAN_CONF=/srv/my.conf\0")
    assert daemon.settings_file(42, tmp_path) == process / "root" / "srv" / "my.conf"
    assert daemon.settings_file(43, tmp_path) == FILE
    assert daemon.settings_file(None) == FILE


def test_a_file_seen_through_the_process_is_told_by_its_own_name() -> None:
    assert daemon.as_named(Path("/proc/42/root/etc/strongswan.conf")) == FILE
    assert daemon.as_named(FILE) == FILE
