"""strongswan-conf/README.md, followed by hand: what it exports is what the connections need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "strongswan-conf"
README = (FOLDER / "README.md").read_text()
BLOCKS: list[str] = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CONNECTIONS = sorted(FOLDER.glob("*/*.swanctl.conf.in"))


def block_for(connection: Path) -> str:
    (block,) = [block for block in BLOCKS if f"<$kind/{connection.name}" in block]
    return block


@pytest.mark.parametrize("connection", CONNECTIONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_value_that_a_connection_needs_is_given_before_it_is_written(connection: Path) -> None:
    before, _, after = block_for(connection).partition("envsubst")
    given = {
        word
        for line in re.findall(r"^export (.*)$", before, re.MULTILINE)
        for word in re.findall(r"(\w+)=", line)
    }
    needed = set(re.findall(r"\$\{(\w+)\}", connection.read_text()))
    assert needed <= given
    assert "swanctl --load-all" in after


@pytest.mark.parametrize("role", ["gateway", "client"])
def test_a_file_with_a_secret_is_written_for_its_owner_only(role: str) -> None:
    block = block_for(FOLDER / "psk" / f"{role}.swanctl.conf.in")
    assert re.search(r"^\(umask 077; envsubst <.*\)$", block, re.MULTILINE)


def test_every_file_that_it_names_is_there() -> None:
    for name in re.findall(r"^\| `([\w./-]+)`", README.split("## To use one")[0], re.MULTILINE):
        assert (FOLDER / name).exists(), name
    assert {path.parent.name for path in CONNECTIONS} == {"psk", "certificate", "eap-mschapv2"}
