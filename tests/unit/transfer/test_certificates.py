"""The small authority, the operator's own certificates, and what doctor says of them."""

from __future__ import annotations

import re
import stat
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mobikectl.cli.certificates import cluster
from mobikectl.config import parse
from mobikectl.doctor import Level
from mobikectl.doctor.transfer import transfer
from mobikectl.errors import ConfigError
from mobikectl.transfer import certificates

from .nodes import Nodes

if TYPE_CHECKING:
    from pathlib import Path

NOW = certificates.today()


def run(*words: object) -> str:
    done = CliRunner().invoke(cluster, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_init_and_join_make_files_for_their_owner_only_and_a_configuration_that_can_be_read(
    tmp_path: Path,
) -> None:
    run("init", "--name", "lab", "--dir", tmp_path / "ca")
    said = run("join", "gw1", "--authority", tmp_path / "ca", "--dir", tmp_path / "gw1")
    files = [*(tmp_path / "ca").iterdir(), *(tmp_path / "gw1").iterdir()]
    assert {path.name for path in files} == {"ca.pem", "ca.key", "node.pem", "node.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert "on gw1 they belong into /etc/mobikectl/tls" in said
    table = re.sub(r"^# (\w+ =)", r"\1", said[said.index("[cluster.transfer]") :], flags=re.MULTILINE)
    node = '[cluster]\nnode = "gw1"\naddresses = [{ ip = "198.18.9.1" }]\n'
    found = parse(node + table, where="what join says").cluster
    assert found is not None
    assert found.transfer is not None
    assert found.transfer.key == tmp_path / "gw1" / "node.key"
    assert [finding.level for finding in transfer(found.transfer, "gw1", NOW)] == [Level.GOOD]


def test_openssl_takes_the_certificate_for_both_ends_of_a_connection(tmp_path: Path) -> None:
    settings = Nodes(tmp_path).settings("gw1")
    for purpose in ("sslserver", "sslclient"):
        argv = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-verify_hostname",
            "gw1",
            "-CAfile",
        ]
        argv += [str(settings.ca), str(settings.certificate)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path / "ca")
    before = (tmp_path / "ca" / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        run("init", "--dir", tmp_path / "ca")
    assert (tmp_path / "ca" / "ca.key").read_bytes() == before
    assert len(list((tmp_path / "ca").iterdir())) == 2


def test_a_nodes_files_are_replaced_only_on_demand(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path / "ca")
    join = ("join", "gw1", "--authority", tmp_path / "ca", "--dir", tmp_path / "gw1")
    run(*join)
    before = (tmp_path / "gw1" / "node.pem").read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        run(*join)
    run(*join, "--renew")
    assert (tmp_path / "gw1" / "node.pem").read_bytes() != before


def test_a_renewal_does_not_take_the_place_of_another_nodes_certificate(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path / "ca")
    to = ("--authority", tmp_path / "ca", "--dir", tmp_path / "tls")
    run("join", "gw2", *to)
    before = {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    with pytest.raises(ConfigError, match="is of gw2, not of gw1"):
        run("join", "gw1", *to, "--renew")
    assert {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before
    (tmp_path / "tls" / "node.pem").write_text("spoilt")
    assert "a running sidecar takes them" in run("join", "gw1", *to, "--renew")


def test_who_has_no_authority_is_sent_to_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no authority is there") as caught:
        run("join", "gw1", "--authority", tmp_path / "ca", "--dir", tmp_path / "gw1", "--renew")
    assert "cluster init" in (caught.value.hint or "")


def test_a_certificate_that_outlives_its_authority_is_not_made(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path / "ca", "--days", "30")
    with pytest.raises(ConfigError, match="the authority ends"):
        run("join", "gw1", "--authority", tmp_path / "ca", "--dir", tmp_path / "gw1", "--days", "31")


def test_the_operators_own_certificate_is_checked_and_taken(tmp_path: Path) -> None:
    own = Nodes(tmp_path).settings("gw1")
    theirs = ("--certificate", own.certificate, "--key", own.key, "--ca", own.ca)
    run("join", "gw1", "--dir", tmp_path / "taken", *theirs)
    assert (tmp_path / "taken" / "node.pem").read_bytes() == own.certificate.read_bytes()
    with pytest.raises(ConfigError, match="is of gw1, not of gw2"):
        run("join", "gw2", "--dir", tmp_path / "two", *theirs)
    assert not (tmp_path / "two").exists()


def test_files_that_do_not_belong_together_are_not_taken(tmp_path: Path) -> None:
    one, other = Nodes(tmp_path / "a").settings("gw1"), Nodes(tmp_path / "b").settings("gw1")
    with pytest.raises(ConfigError, match="not the key of"):
        certificates.inspect(one.certificate, other.key, one.ca)
    with pytest.raises(ConfigError, match="not signed by"):
        certificates.inspect(one.certificate, one.key, other.ca)
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        certificates.inspect(one.key, one.key, one.ca)


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [
        (5, Level.WARNING, "it ends on"),
        (11, Level.PROBLEM, "it ended on"),
        (-1, Level.PROBLEM, "it begins on"),
    ],
)
def test_doctor_looks_at_the_dates(tmp_path: Path, days: int, level: Level, said: str) -> None:
    settings = Nodes(tmp_path).settings("gw1")
    (found,) = transfer(settings, "gw1", NOW + timedelta(days=days))
    assert found.level is level
    assert said in found.text


def test_doctor_sees_a_certificate_of_another_node_an_open_key_and_a_missing_file(tmp_path: Path) -> None:
    settings = Nodes(tmp_path).settings("gw1")
    assert "it is of gw1, and this node is gw2" in next(iter(transfer(settings, "gw2", NOW))).text
    settings.key.chmod(0o644)
    (found,) = transfer(settings, "gw1", NOW)
    assert (found.level, found.mend.split(";")[0]) == (Level.PROBLEM, f"chmod 600 {settings.key}")
    settings.ca.unlink()
    (found,) = transfer(settings, "gw1", NOW)
    assert found.level is Level.PROBLEM
