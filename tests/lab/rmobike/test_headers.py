"""The plugin's source compiles against another strongSwan: the one whose unpacked tree STRONGSWAN_OTHER_TREE names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .lab import ROOT

TREE = Path(os.environ.get("STRONGSWAN_OTHER_TREE", "/nonexistent"))
HEADERS = ROOT / "build" / "plugin" / "headers"
SOURCES = sorted((ROOT / "charon-plugin").glob("*.c"))
WARNINGS = (
    "-Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wno-pointer-sign"
    " -Wno-sign-compare -Wno-format -Wno-cast-function-type"
)

pytestmark = [
    pytest.mark.skipif(
        not (TREE / "src" / "libcharon").is_dir(), reason="STRONGSWAN_OTHER_TREE names no tree"
    ),
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
    pytest.mark.skipif(not (HEADERS / "config.h").exists(), reason="needs the headers: make plugin"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What configure found on this machine, which is the same for both, with the other version."""
    found = re.search(r"AC_INIT\(\[strongSwan\],\[([^]]+)\]|PACKAGE_VERSION='([^']+)'", version_source())
    assert found, f"{TREE} does not tell its version"
    text = re.sub(
        r'(#define (?:PACKAGE_)?VERSION) ".*"',
        rf'\1 "{found[1] or found[2]}"',
        (HEADERS / "config.h").read_text(),
    )
    path = tmp_path_factory.mktemp("headers") / "config.h"
    path.write_text(text)
    return path


def version_source() -> str:
    return "".join(path.read_text() for path in (TREE / "configure.ac", TREE / "configure") if path.exists())


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_a_source_compiles_against_the_other_headers(source: Path, config: Path) -> None:
    child_create = TREE / "src/libcharon/sa/ikev2/tasks/child_create.h"
    command = ["gcc", "-fsyntax-only", "-std=gnu11", "-O2", "-D_GNU_SOURCE", *WARNINGS.split()]
    command += ["-include", str(config), "-DPLUGINDIR=\"/x\"", "-DIPSEC_PIDDIR=\"/run\""]  # fmt: skip
    command += ["-isystem", str(TREE / "src/libstrongswan"), "-isystem", str(TREE / "src/libcharon")]
    if "uint32_t seq" in child_create.read_text():
        command.append("-DCHILD_CREATE_HAS_SEQ")
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
