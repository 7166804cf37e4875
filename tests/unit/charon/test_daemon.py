"""What kind of charon it is, and what strongswan.conf says."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mobikectl.charon import EspPath
from mobikectl.charon.daemon import enabled, esp_path, settings
from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("plugins", "path"),
    [
        (("kernel-netlink", "vici"), EspPath.KERNEL),
        (("kernel-libipsec", "kernel-netlink"), EspPath.USERLAND),
        (("kernel-netlink", "kernel-libipsec"), EspPath.KERNEL),
        (("vici",), EspPath.NONE),
    ],
)
def test_the_first_plugin_that_offers_esp_does_it(plugins: tuple[str, ...], path: EspPath) -> None:
    assert esp_path(plugins) is path


def test_settings_are_read_with_sections_comments_quotes_and_includes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text("vici { socket = unix:///run/x # here\n }\n")
    main = tmp_path / "strongswan.conf"
    main.write_text(
        'charon {\n prefer_best_path = yes # comment { }\n text = "a # b { c"\n load = a b c\n'
        " plugins {\n include d/*.conf\n }\n one { two = 2 }\n empty =\n}\n"
    )
    found = settings(main)
    assert found == {
        "charon.prefer_best_path": "yes",
        "charon.text": "a # b { c",
        "charon.load": "a b c",
        "charon.plugins.vici.socket": "unix:///run/x",
        "charon.one.two": "2",
        "charon.empty": "",
    }
    assert enabled(found, "charon.prefer_best_path", default=False)
    assert enabled(found, "charon.check_current_path", default=True)


@pytest.mark.parametrize("text", ["a {\n", "}\n", "a { b }\n", "word\n", "include strongswan.conf\n"])
def test_what_cannot_be_parsed_names_the_file(tmp_path: Path, text: str) -> None:
    main = tmp_path / "strongswan.conf"
    main.write_text(text)
    with pytest.raises(ConfigError, match=r"strongswan\.conf"):
        settings(main)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings(tmp_path / "absent")


@given(st.text('ab{}="#\n \\', max_size=40))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_a_config_error(tmp_path: Path, text: str) -> None:
    main = tmp_path / "any.conf"
    main.write_text(text)
    with suppress(ConfigError):
        assert isinstance(settings(main), dict)
