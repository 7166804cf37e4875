"""What a scenario's steps see of a cluster and do to it: its leader, its journal, its store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError
from mobikectl.lab.processes import identify
from mobikectl.lab.store import CLUSTER
from mobikectl.lab.topology import Role
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mobikectl.lab.instance import Lab
    from mobikectl.lab.store import LabStore

STARTED_S = 30.0
FINAL = {"verified", "refused", "timed-out", "rolled-back", "cancelled"}
BEGUN = {"requested", "acknowledged", "moved", "verified", "timed-out", "rolling-back", "rolled-back"}
"""States of a move that was more than planned."""


class Cluster:
    """The cluster of a running lab, as its store tells."""

    def __init__(self, lab: Lab, store: LabStore, *, patience: float = 1.0) -> None:
        self.store = store
        self.leaders: list[tuple[float, str | None, int]] = []
        """(CLOCK_MONOTONIC, node or None, token) at each change."""
        self.moves: dict[int, dict[str, Any]] = {}
        """The journal: number -> the move as `mobikectl.lab.storelog` tells it."""
        self.seen: dict[tuple[int, str], float] = {}
        """(number of a move, state) -> CLOCK_MONOTONIC when it was seen to be in that state."""
        self._lab = lab
        self._patience = patience
        self._node = lab.topology.by_role(Role.STORE)[0]
        self._read = 0

    async def start(self) -> None:
        """Begin to follow the store."""
        argv = [sys.executable, "-m", "mobikectl.lab.storelog", *self.store.where(), CLUSTER]
        self._lab.start(self._node, "storelog", argv)

    def refresh(self) -> None:
        """Take in what was told since the last time."""
        path = self._lab.record.node_dir(self._node) / "storelog.out"
        with path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")
        for line in lines[:-1]:
            self._read += len(line) + 1
            with contextlib.suppress(ValueError):  # not ours: a warning of the interpreter
                self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if "leader" in line:
            self.leaders.append((line["at"], line["leader"], line["token"]))
        elif "move" in line:
            move = line["move"]
            self.moves[move["number"]] = move
            for step in move["steps"]:
                self.seen.setdefault((move["number"], step["state"]), line["at"])

    # --- waiting ---------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], *, within: float, what: str) -> float:
        """Wait until what the store tells meets a condition; return when. Raise LabError."""

        async def met() -> bool:
            self.refresh()
            return condition()

        return await until(met, within=within * self._patience, what=what, every=0.02)

    @property
    def leader(self) -> str | None:
        """Who leads, as last told."""
        return self.leaders[-1][1] if self.leaders else None

    async def led(self, *, not_by: Collection[str] = (), within: float = 30.0) -> str:
        """Wait until somebody leads who is none of `not_by`; return who."""
        others = f" who is not {', '.join(not_by)}" if not_by else ""
        await self.until(
            lambda: self.leader is not None and self.leader not in not_by,
            within=within,
            what=f"somebody leads{others}",
        )
        return str(self.leader)

    def count(self, *states: str) -> int:
        """Return how many moves are in one of the states."""
        return sum(move["steps"][-1]["state"] in states for move in self.moves.values())

    async def moved(self, count: int, *, within: float = 30.0) -> float:
        """Wait until so many moves in all are verified; return when."""
        return await self.until(
            lambda: self.count("verified") >= count, within=within, what=f"{count} moves are verified"
        )

    async def begun(self, count: int = 1, *, within: float = 30.0) -> float:
        """Wait until so many moves in all have begun; return when."""
        return await self.until(
            lambda: self.count(*BEGUN) >= count, within=within, what=f"{count} moves have begun"
        )

    async def quiet(self, seconds: float, *, within: float = 60.0) -> None:
        """Wait until every move has ended and no other was planned for so many seconds."""
        size, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal size, since
            if len(self.moves) != size or self.count(*FINAL) != size:
                size, since = len(self.moves), time.monotonic()
            return time.monotonic() - since >= seconds and self.count(*FINAL) == size

        await self.until(still, within=within, what="all moves have ended, and no other is planned")

    # --- processes -------------------------------------------------------------------------------

    def stop(self, node: str) -> None:
        """Make a node's sidecar stand still (SIGSTOP)."""
        self._signal(node, signal.SIGSTOP)

    def go_on(self, node: str) -> None:
        """Let a node's sidecar that stood still go on (SIGCONT)."""
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: str, number: signal.Signals) -> None:
        if not self._lab.signal(self._lab.newest(node, "sidecar"), number):
            raise LabError(f"{node}: the sidecar was gone already", hint="see sidecar.out")

    # --- measuring -------------------------------------------------------------------------------

    def begun_between(self, start: float, end: float) -> int:
        """Return how many moves were seen to begin between two times of CLOCK_MONOTONIC."""
        return sum(state == "requested" and start <= at <= end for (_, state), at in self.seen.items())

    def metrics(self) -> dict[str, float | str]:
        """Return what the journal says in the end."""
        self.refresh()
        states = Counter(move["steps"][-1]["state"] for move in self.moves.values())
        peers = Counter(
            peer_of(sa) for move in self.moves.values() if _begun(move) for sa in set(move["sas"])
        )
        numbers: dict[str, float | str] = {
            "moves": len(self.moves),
            "moves_open": len(self.moves) - sum(states[state] for state in FINAL),
            "moves_undone": sum(states[state] for state in ("refused", "timed-out", "rolled-back")),
            "moves_twice": sum(count > 1 for count in peers.values()),
            "leaders": len([one for one in self.leaders if one[1]]),
        }
        numbers |= {f"moves.{state}": states[state] for state in sorted(FINAL)}
        for mechanism in ("notify", "implicit", "redirect"):
            numbers[f"moves_by.{mechanism}"] = sum(
                move["mechanism"] == mechanism and move["steps"][-1]["state"] == "verified"
                for move in self.moves.values()
            )
        return numbers

    async def mobikectl(self, node: str, *argv: str, deadline: float = 60.0, check: bool = True) -> str:
        """Run mobikectl on a node as its operator would; return what it says."""
        return await self._lab.run_in(
            node, sys.executable, "-m", "mobikectl", *argv, deadline=deadline * self._patience, check=check
        )

    async def sidecar_alive(self, node: str) -> bool:
        """Return whether a node's sidecar runs."""
        who = self._lab.newest(node, "sidecar")
        return await asyncio.to_thread(identify, who.pid) == who


def _begun(move: dict[str, Any]) -> bool:
    return any(step["state"] in BEGUN for step in move["steps"])


def peer_of(key: str) -> str:
    """Given the name of an IKE_SA in the cluster (``NODE/PEER#N``), return the peer's identity."""
    return key.partition("/")[2].rpartition("#")[0] or key
