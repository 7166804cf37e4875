"""Probes over real links: a client with two uplinks and a gateway behind both, each in a namespace of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

PROBE_ONCE = File(__file__).with_name("probe_once.py")
CHARON = File("/usr/lib/ipsec/charon")
CHARON_CONF = """
charon {
    load = random nonce aes sha1 sha2 hmac kdf gmp curve25519 pem pkcs1 x509 pubkey kernel-netlink socket-default vici
    filelog {
        log {
            path = %(dir)s/log
            flush_line = yes
            default = 1
        }
    }
    plugins {
        vici {
            socket = unix://%(dir)s/vici
        }
    }
}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10, capture_output=True)


@dataclass
class Net:
    client: str
    gateway: str

    def probe(self, method: str, local: str, remote: str, link: str, **more: object) -> dict[str, Any]:
        told = json.dumps({"method": method, "local": local, "remote": remote, "link": link, **more})
        done = subprocess.run(
            ["ip", "netns", "exec", self.client, sys.executable, str(PROBE_ONCE), told],
            check=True,
            timeout=40,
            capture_output=True,
            text=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["leaked"] == 0
        return found

    def client_ip(self, *words: str) -> None:
        ip("-n", self.client, *words)


@pytest.fixture
def net() -> Iterator[Net]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    mark = f"{os.getpid()}-{secrets.token_hex(2)}"
    made = Net(f"mkpc-{mark}", f"mkpg-{mark}")
    try:
        for name in (made.client, made.gateway):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for i in (1, 2):
            ip(
                "-n",
                made.client,
                "link",
                "add",
                f"up{i}",
                "type",
                "veth",
                "peer",
                f"gw{i}",
                "netns",
                made.gateway,
            )
            for name, dev, host in ((made.client, f"up{i}", 2), (made.gateway, f"gw{i}", 1)):
                ip("-n", name, "address", "add", f"198.18.{i}.{host}/24", "dev", dev)
                ip("-n", name, "address", "add", f"2001:db8:{i}::{host}/64", "dev", dev, "nodad")
                ip("-n", name, "link", "set", dev, "up")
            for family, via in (("-4", f"198.18.{i}.1"), ("-6", f"2001:db8:{i}::1")):
                made.client_ip(
                    family, "route", "add", "default", "via", via, "dev", f"up{i}", "metric", f"{i}00"
                )
        ip("-n", made.gateway, "address", "add", "198.19.0.1/32", "dev", "lo")
        ip("-n", made.gateway, "address", "add", "2001:db8:ff::1/128", "dev", "lo", "nodad")
        yield made
    finally:
        for name in (made.client, made.gateway):
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10, capture_output=True)


@pytest.mark.parametrize("method", ["icmp", "udp", "tcp"])
@pytest.mark.parametrize(
    ("local", "remote"),
    [("198.18.{}.2", "198.19.0.1"), ("2001:db8:{}::2", "2001:db8:ff::1")],
    ids=["ipv4", "ipv6"],
)
def test_both_paths_answer_each_over_its_own_link(net: Net, method: str, local: str, remote: str) -> None:
    for i in (1, 2):
        found = net.probe(method, local.format(i), remote, f"up{i}")
        assert found == {"sent": 1, "received": 1, "answered": 1, "error": None, "detail": "", "leaked": 0}


def test_a_silent_path_is_found_although_the_main_route_uses_the_other_link(net: Net) -> None:
    subprocess.run(
        ["ip", "netns", "exec", net.gateway, "nft", "-f", "-"],
        input="table inet t { chain c { type filter hook input priority 0; iifname gw2 drop; }; }",
        check=True,
        text=True,
        timeout=10,
    )
    dead = net.probe("icmp", "198.18.2.2", "198.19.0.1", "up2", timeout_s=0.3, count=2)
    assert (dead["sent"], dead["received"], dead["error"]) == (2, 0, "timeout")
    assert net.probe("icmp", "198.18.1.2", "198.19.0.1", "up1")["answered"] == 1


def test_a_steering_route_over_another_link_does_not_divert_a_probe(net: Net) -> None:
    net.client_ip("route", "add", "198.19.0.1/32", "via", "198.18.1.1", "dev", "up1", "src", "198.18.1.2")
    before = _received(net, "gw2")
    assert net.probe("icmp", "198.18.2.2", "198.19.0.1", "up2")["answered"] == 1
    assert _received(net, "gw2") > before


def test_a_path_without_a_route_is_unreachable_and_not_an_exception(net: Net) -> None:
    net.client_ip("-6", "route", "del", "default", "dev", "up2")
    for method in ("icmp", "udp", "tcp", "ike"):
        found = net.probe(method, "2001:db8:2::2", "2001:db8:ff::1", "up2")
        assert (found["answered"], found["error"]) == (0, "unreachable"), method


def test_an_address_that_is_gone_says_so(net: Net) -> None:
    net.client_ip("address", "del", "198.18.2.2/24", "dev", "up2")
    assert net.probe("icmp", "198.18.2.2", "198.19.0.1", "up2")["error"] == "no-address"


def test_a_link_that_is_gone_says_so(net: Net) -> None:
    assert net.probe("icmp", "198.18.2.2", "198.19.0.1", "nolink")["error"] == "no-link"


def test_a_link_that_is_down_does_not_answer(net: Net) -> None:
    net.client_ip("link", "set", "up2", "down")
    found = net.probe("icmp", "198.18.2.2", "198.19.0.1", "up2", timeout_s=0.3)
    assert found["answered"] == 0
    assert found["error"] in {"unreachable", "no-link"}


def test_an_icmp_error_from_the_way_is_heard_before_the_timeout(net: Net) -> None:
    ip("-n", net.gateway, "route", "add", "unreachable", "198.19.9.9/32")
    for setting in ("ip_forward=1", "icmp_ratelimit=0"):
        ip("netns", "exec", net.gateway, "sysctl", "-qw", f"net.ipv4.{setting}")
    for method in ("icmp", "udp", "tcp", "ike"):
        found = net.probe(method, "198.18.1.2", "198.19.9.9", "up1", timeout_s=10.0)
        assert (found["answered"], found["error"]) == (0, "unreachable"), method


@pytest.fixture
def charon_log(net: Net, tmp_path: File) -> Iterator[File]:
    if not CHARON.exists():
        pytest.skip("needs strongSwan's charon")
    conf = tmp_path / "strongswan.conf"
    conf.write_text(CHARON_CONF % {"dir": tmp_path})
    script = 'mount -t tmpfs t /run && exec "$0"'
    process = subprocess.Popen(
        ["ip", "netns", "exec", net.gateway, "unshare", "-m", "sh", "-c", script, str(CHARON)],
        env={**os.environ, "STRONGSWAN_CONF": str(conf)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "vici").exists():
            assert process.poll() is None, "charon ended"
            assert time.monotonic() < end, "charon did not start"
            time.sleep(0.05)
        yield tmp_path / "log"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.mark.charon
@pytest.mark.parametrize("port", [500, 4500, None])
def test_charon_answers_the_ike_probe_and_keeps_nothing(net: Net, charon_log: File, port: int | None) -> None:
    for i in (1, 2):
        found = net.probe("ike", f"198.18.{i}.2", "198.19.0.1", f"up{i}", port=port)
        assert (found["answered"], found["error"]) == (1, None)
    found = net.probe("ike", "2001:db8:1::2", "2001:db8:ff::1", "up1", port=port)
    assert found["answered"] == 1
    assert "INVALID_MAJOR_VERSION" in charon_log.read_text()
    assert "IKE_SAs: 0 total, 0 half-open" in _stats(charon_log.with_name("vici"))


def _stats(socket: File) -> str:
    done = subprocess.run(
        ["swanctl", "--stats", "--uri", f"unix://{socket}"],
        check=True,
        timeout=10,
        capture_output=True,
        text=True,
    )
    return done.stdout


def _received(net: Net, link: str) -> int:
    done = subprocess.run(
        ["ip", "-n", net.gateway, "-j", "-s", "link", "show", link],
        check=True,
        timeout=10,
        capture_output=True,
        text=True,
    )
    packets: int = json.loads(done.stdout)[0]["stats64"]["rx"]["packets"]
    return packets
