"""Who may read the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import ConfigError
from mobikectl.web.guard import SESSIONS, Guard, is_loopback, read_token

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-of-enough-characters"  # noqa: S105


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9110", "LOCALHOST.", "127.0.0.1:9110", "127.9.9.9", "[::1]:9110", "[::1]"],
)
def test_a_loopback_name_is_answered_without_a_token(host: str) -> None:
    assert is_loopback(host)
    assert Guard(None).admits(host=host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example.org",
        "localhost.evil.example.org",
        "198.18.0.1:9110",
        "[2001:db8::1]",
        "127.0.0.1.nip.example",
        ":9110",
    ],
)
def test_another_name_for_a_loopback_address_is_a_rebinding_site_s(host: str) -> None:
    assert not Guard(None).admits(host=host)


def test_with_a_token_a_request_carries_it_or_the_cookie_that_was_given_for_it() -> None:
    guard = Guard(TOKEN)
    assert not guard.admits(host="localhost")
    assert guard.admits(host="gw1", authorization=f"Bearer {TOKEN}")
    assert guard.admits(host="gw1", authorization=f"bearer  {TOKEN} ")
    session = guard.enter()
    assert session != TOKEN
    assert guard.admits(host="gw1", cookie=session)


@pytest.mark.parametrize(
    ("authorization", "cookie"),
    [
        ("", TOKEN),
        (TOKEN, ""),
        (f"Basic {TOKEN}", ""),
        ("Bearer", ""),
        ("Bearer x", "x"),
        ("Bearer \udcff\u20ac", ""),
    ],
)
def test_nothing_else_does(authorization: str, cookie: str) -> None:
    assert not Guard(TOKEN).admits(host="localhost", authorization=authorization, cookie=cookie)


def test_the_number_of_sessions_is_bounded_and_the_oldest_ends() -> None:
    guard = Guard(TOKEN)
    sessions = [guard.enter() for _ in range(SESSIONS + 1)]
    assert not guard.admits(host="x", cookie=sessions[0])
    assert all(guard.admits(host="x", cookie=one) for one in sessions[1:])


def test_a_token_is_read_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="used by others"):
        read_token(file)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"two words that are long enough", b"\xff" * 40, b"x" * 600]
)
def test_a_weak_or_broken_token_is_refused_with_how_to_make_one(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_token(file)
    assert "chmod 600" in caught.value.hint
    with pytest.raises(ConfigError):
        read_token(tmp_path / "missing")
