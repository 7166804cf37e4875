"""The configuration: defaults that work, and errors that name file, key and expectation."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl import config
from mobikectl.config import BridgeTable, Config, Dialect, OnExit, Role, load, parse
from mobikectl.errors import ConfigError
from mobikectl.policy.settings import ProbeMethod

if TYPE_CHECKING:
    from pathlib import Path


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, where="m.toml")
    assert caught.value.hint
    return caught.value.message


def test_nothing_configured_is_a_working_client() -> None:
    assert parse("", where="m.toml") == Config()


def test_no_file_at_the_default_place_means_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.toml")
    assert load() == Config()


def test_every_section_is_read() -> None:
    got = parse(
        """
        role = "gateway"
        [charon]
        socket = "/tmp/x.vici"
        timeout_s = 2
        [control]
        socket = "/tmp/c.sock"
        [netlink]
        coalesce_s = 0.1
        [move]
        tunnel_probe = "2001:db8::1"
        on_exit = "keep"
        [paths]
        gateways = ["198.18.0.1", "2001:db8::2"]
        ignored_kinds = ["tun"]
        hold_down_s = 3
        [[paths.interfaces]]
        pattern = "wlan*"
        priority = 5
        probe.method = "icmp"
        [paths.probe]
        method = "tcp"
        quality.failure_loss = 0.2
        """,
        where="m.toml",
    )
    assert got.role is Role.GATEWAY
    assert got.charon.timeout_s == 2
    assert got.move.tunnel_probe == ip_address("2001:db8::1")
    assert got.move.on_exit is OnExit.KEEP
    assert got.paths.gateways == (ip_address("198.18.0.1"), ip_address("2001:db8::2"))
    assert got.paths.ignored_kinds == frozenset({"tun"})
    assert got.paths.interfaces[0].probe is not None
    assert got.paths.interfaces[0].probe.method is ProbeMethod.ICMP
    assert got.paths.probe.quality.failure_loss == 0.2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[charon]\nsockte = '/x'", "m.toml: charon: unknown key 'sockte', did you mean 'socket'?"),
        ("[nonsense]\n", "m.toml: unknown key 'nonsense', known: role"),
        ("[charon]\nsocket = 5", "m.toml: charon.socket: expected a text, got 5"),
        ("[charon]\ntimeout_s = '5'", "m.toml: charon.timeout_s: expected a number, got '5'"),
        ("[charon]\ntimeout_s = true", "m.toml: charon.timeout_s: expected a number, got True"),
        ("[charon]\ntimeout_s = -1", "m.toml: charon: timeout_s: expected seconds above 0"),
        ("role = 'server'", "m.toml: role: expected one of auto, client, gateway, got 'server'"),
        ("charon = 'x'", "m.toml: charon: expected a table, got 'x'"),
        ("[paths]\ngateways = '198.18.0.1'", "m.toml: paths.gateways: expected an array"),
        (
            "[paths]\ngateways = ['198.18.0.300']",
            "m.toml: paths.gateways[0]: expected an IPv4 or IPv6 address",
        ),
        ("[paths]\ngateways = [1]", "m.toml: paths.gateways[0]: expected an IPv4 or IPv6 address, got 1"),
        ("[paths.probe]\ncount = 1.5", "m.toml: paths.probe.count: expected a whole number, got 1.5"),
        ("[paths.probe]\ncount = 0", "m.toml: paths.probe: probe.count: expected a number from 1"),
        ("[[paths.interfaces]]\nuse = true", "m.toml: paths.interfaces[0].pattern: this key is missing"),
        ("[paths]\nmax_paths = 0", "max_paths: expected a number from 1 to 1024"),
        ("role =", "m.toml: not TOML"),
    ],
)
def test_an_error_names_file_key_and_expectation(text: str, expected: str) -> None:
    assert expected in complaint(text)


def test_all_errors_are_told_at_once() -> None:
    lines = complaint("role = 'x'\n[charon]\nsocket = 1\n[netlink]\ncoalesce_s = 'y'").splitlines()
    assert len(lines) == 3


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load(tmp_path / "gone.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"role = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 8"):
        load(tmp_path / "b.toml")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "h.toml").write_bytes(b"#" * (config.MAX_SIZE + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "h.toml")


def test_the_bridge_is_off_and_speaks_one_draft_unless_told_otherwise() -> None:
    table = Config().bridge
    assert (table.enabled, table.speak, table.allow_nat) == (False, (Dialect.KIVINEN,), False)


def test_the_bridge_can_be_configured() -> None:
    text = '[bridge]\nenabled = true\nspeak = ["dupont", "kivinen"]\nmost_silence_s = 3600\nallow_nat = true'
    expected = BridgeTable(True, (Dialect.DUPONT, Dialect.KIVINEN), 3600, True)
    assert parse(text, where="m.toml").bridge == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speak = []", ("bridge: speak", "at least one of kivinen, dupont")),
        ('speak = ["gaelic"]', ("bridge.speak", "expected one of kivinen, dupont, got 'gaelic'")),
        ("most_silence_s = -1", ("bridge: most_silence_s", "from 0")),
        ("most_silence_s = 4294967296", ("bridge: most_silence_s", "2^32")),
        ("enabled = 1", ("bridge.enabled", "true or false")),
    ],
)
def test_a_bridge_that_cannot_be_is_refused(text: str, words: tuple[str, ...]) -> None:
    said = complaint(f"[bridge]\n{text}")
    assert all(word in said for word in words), said
