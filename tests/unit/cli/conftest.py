from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from mobikectl.cli import main

from .a_cluster import ACluster, rows

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.cluster.store import Store


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Mobikectl(Protocol):
    """Runs the command line with these arguments."""

    def __call__(self, *args: str) -> Done: ...


@pytest.fixture
def empty_cluster(tmp_path: Path) -> ACluster:
    """A configuration whose store nobody made yet."""
    cluster = ACluster(tmp_path)
    cluster.configure()
    return cluster


@pytest.fixture
def cluster(empty_cluster: ACluster) -> ACluster:
    """gw1 serves 4 IKE_SAs and leads, gw2 serves 4."""

    async def fill(store: Store) -> None:
        await empty_cluster.join(store, "gw1", rows("gw1", 4))
        await empty_cluster.join(store, "gw2", rows("gw2", 4))
        await empty_cluster.lead(store)

    empty_cluster.do(fill)
    return empty_cluster


@pytest.fixture
def mobikectl(
    empty_cluster: ACluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Mobikectl:
    """Run a command in this process, with the cluster's configuration, as a shell would see it."""

    def run(*args: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mobikectl", *args, "--config", str(empty_cluster.config)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
