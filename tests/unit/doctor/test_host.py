"""What doctor finds on a host, each finding with its mend."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from mobikectl.doctor import Level, host
from mobikectl.model import Address, Link, NetState, Route
from mobikectl.policy.settings import PathSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = PathSettings()


def network(*names: str) -> NetState:
    links = {number: Link(number, name, True, True) for number, name in enumerate(names, 1)}
    addresses = frozenset(Address(n, ip_address(f"198.18.{n}.1"), 24) for n in links)
    return NetState(links=MappingProxyType(links), addresses=addresses)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    def put(key: str, value: int) -> None:
        file = tmp_path / key.replace(".", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    for name in ("all", "eth0", "eth1"):
        put(f"net.ipv4.conf.{name}.rp_filter", 0)
        put(f"net.ipv4.conf.{name}.ignore_routes_with_linkdown", 1)
        put(f"net.ipv6.conf.{name}.use_tempaddr", 0)
    return tmp_path


def test_capabilities_are_read_from_the_effective_set() -> None:
    both = list(host.capabilities("Name:\tx\nCapEff:\t0000000000003000\n"))
    assert {finding.level for finding in both} == {Level.GOOD}
    admin_only = {f.subject: f for f in host.capabilities("CapEff:\t0000000000001000\n")}
    assert admin_only["CAP_NET_RAW"].level is Level.PROBLEM
    assert "AmbientCapabilities=CAP_NET_RAW" in admin_only["CAP_NET_RAW"].mend


@pytest.mark.parametrize(
    ("names", "level"),
    [
        ((), Level.PROBLEM),
        (("eth0",), Level.NOTE),
        (("eth0", "eth1"), Level.GOOD),
        (("docker0",), Level.PROBLEM),
    ],
)
def test_uplinks_are_counted_without_those_to_ignore(names: tuple[str, ...], level: Level) -> None:
    (finding,) = host.uplinks(network(*names), SETTINGS)
    assert finding.level is level


def test_a_good_host_gets_only_good_findings(proc: Path) -> None:
    found = list(host.sysctls(network("eth0", "eth1"), SETTINGS, proc))
    assert {finding.level for finding in found} == {Level.GOOD}


@pytest.mark.parametrize("where", ["all", "eth1"])
def test_a_strict_reverse_path_filter_is_found_with_its_mend(proc: Path, where: str) -> None:
    (proc / f"net/ipv4/conf/{where}/rp_filter").write_text("1\n")
    finding = next(
        f for f in host.sysctls(network("eth0", "eth1"), SETTINGS, proc) if f.subject == "rp_filter"
    )
    assert finding.level is Level.WARNING
    assert "net.ipv4.conf.eth1.rp_filter=2" in finding.mend


def test_a_loose_filter_overrides_a_strict_one(proc: Path) -> None:
    (proc / "net/ipv4/conf/all/rp_filter").write_text("2\n")
    (proc / "net/ipv4/conf/eth1/rp_filter").write_text("1\n")
    finding = next(
        f for f in host.sysctls(network("eth0", "eth1"), SETTINGS, proc) if f.subject == "rp_filter"
    )
    assert finding.level is Level.GOOD


def test_routes_that_outlive_their_cable_are_noted(proc: Path) -> None:
    for name in ("all", "eth0"):
        (proc / f"net/ipv4/conf/{name}/ignore_routes_with_linkdown").write_text("0\n")
    subjects = {f.subject for f in host.sysctls(network("eth0", "eth1"), SETTINGS, proc)}
    assert "linkdown routes" in subjects


def test_a_host_without_the_sysctls_is_no_crash(tmp_path: Path) -> None:
    list(host.sysctls(network("eth0", "eth1"), SETTINGS, tmp_path))


def test_routes_left_behind_are_found_only_without_a_sidecar() -> None:
    route = Route(ip_network("198.18.9.1/32"), 109, ())
    assert next(host.leftovers([route], sidecar_runs=True)).level is Level.GOOD
    left = next(host.leftovers([route], sidecar_runs=False))
    assert left.level is Level.WARNING
    assert "198.18.9.1/32" in left.text
    assert next(host.leftovers([], sidecar_runs=False)).level is Level.GOOD


@pytest.mark.parametrize(
    ("kernel", "userland", "level"),
    [
        (True, False, Level.GOOD),
        (True, None, Level.GOOD),
        (False, True, Level.NOTE),
        (False, False, Level.PROBLEM),
        (True, True, Level.NOTE),
        (None, False, Level.GOOD),
        (None, None, None),
    ],
)
def test_esp_must_be_somewhere(kernel: bool | None, userland: bool | None, level: Level | None) -> None:
    assert [finding.level for finding in host.kernel_esp(kernel, userland)] == ([level] if level else [])


def test_a_kernels_esp_is_loaded_built_in_or_can_be_loaded(tmp_path: Path) -> None:
    modules = tmp_path / "modules.d"
    modules.mkdir()
    assert host.kernel_has_esp(tmp_path, modules) is None
    (modules / "modules.dep").write_text("kernel/net/ipv4/ipip.ko:\n")
    assert host.kernel_has_esp(tmp_path, modules) is False
    (modules / "modules.builtin").write_text("kernel/net/ipv4/esp4.ko\n")
    assert host.kernel_has_esp(tmp_path, modules) is True
