"""What the README shows is so."""

from __future__ import annotations

import re
from pathlib import Path

from mobikectl.cli import COMMANDS
from mobikectl.config import parse
from mobikectl.errors import EXIT_CODES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_configuration_that_it_shows_can_be_used() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    config = parse(example, where="README.md")
    assert config.paths.interfaces[0].pattern == "wwan*"
    assert config.paths.hold_down_s == 30.0


def test_every_command_is_in_it() -> None:
    named = set(re.findall(r"`(\w+)[^`|]*`", "\n".join(re.findall(r"^\| (`.*?) \|", README, re.MULTILINE))))
    assert set(COMMANDS) <= named


def test_every_exit_code_but_the_internal_one_is_in_it() -> None:
    (sentence,) = re.findall(r"Exit codes: (.*?)\.", README, re.DOTALL)
    told = {int(number) for number in re.findall(r"(\d+) \w", sentence)}
    assert told == set(EXIT_CODES) - {1}


def test_every_page_and_picture_that_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
