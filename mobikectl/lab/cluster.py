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

from mobikectl.cluster import records
from mobikectl.control.client import ControlClient
from mobikectl.errors import LabError
from mobikectl.lab.measure import sa_keys
from mobikectl.lab.netns import DROP_PREFERENCE
from mobikectl.lab.sidecars import control_socket
from mobikectl.lab.store import CLUSTER, CONFIGURATION
from mobikectl.lab.topology import MANAGEMENT, Role
from mobikectl.lab.vici import list_sas
from mobikectl.lab.wait import until
from mobikectl.model import ROUTE_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from mobikectl.lab.instance import Lab
    from mobikectl.lab.store import LabStore

STARTED_S = 30.0
FINAL = {state.value for state in records.FINAL}
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
        self.members: frozenset[str] = frozenset()
        """The nodes that are there, as last told."""
        self.lab = lab
        self._patience = patience
        self._node = lab.topology.by_role(Role.STORE)[0]
        self._read = 0

    async def start(self) -> None:
        """Begin to follow the store."""
        argv = [sys.executable, "-m", "mobikectl.lab.storelog", *self.store.where(), CLUSTER]
        self.lab.start(self._node, "storelog", argv)

    def refresh(self) -> None:
        """Take in what was told since the last time."""
        path = self.lab.record.node_dir(self._node) / "storelog.out"
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
        elif "members" in line:
            self.members = frozenset(line["members"])
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

    @property
    def token(self) -> int:
        """The fencing token of who leads, as last told; 0: nobody does."""
        return self.leaders[-1][2] if self.leaders else 0

    def count_begun(self) -> int:
        """Return how many moves were more than planned."""
        return sum(_begun(move) for move in self.moves.values())

    async def begun(self, count: int = 1, *, within: float = 30.0) -> float:
        """Wait until so many moves in all have begun; return when."""
        return await self.until(
            lambda: self.count_begun() >= count, within=within, what=f"{count} moves have begun"
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

    async def present(self, node: str, *, within: float = 30.0) -> None:
        """Wait until a node is a member."""
        await self.until(
            lambda: node in self.members, within=within, what=f"{node} is a member of the cluster"
        )

    # --- charons ---------------------------------------------------------------------------------

    async def served_by(self, node: str) -> int:
        """Return how many IKE_SAs a gateway's charon has established."""
        return len(sa_keys(await asyncio.to_thread(list_sas, self.lab.vici_socket(node))))

    async def empty(self, node: str, *, within: float) -> None:
        """Wait until a gateway's charon has no IKE_SA."""

        async def none_left() -> bool:
            return await self.served_by(node) == 0

        await until(none_left, within=within * self._patience, what=f"{node} is empty", every=0.2)

    async def carrying(self, known: Mapping[str, int], *, within: float = 30.0) -> None:
        """Wait until each node's HA broker knows at least so many IKE_SAs, and nothing of them is being rekeyed.

        A broker that has no memory has charon rekey every CHILD_SA, which keeps the old ones for some seconds.
        """
        for node, count in known.items():
            path = control_socket(self.lab, node)

            async def told(path: Path = path, count: int = count) -> bool:
                async with ControlClient(path) as client:
                    state = (await client.state())["cluster"]
                carries = state["carries"]
                return carries is not None and carries["sas"] >= count

            async def quiet(node: str = node) -> bool:
                listed = await asyncio.to_thread(list_sas, self.lab.vici_socket(node))
                children = [child for _, sa in listed for child in sa.get("child-sas", {}).values()]
                return all(child["state"] == "INSTALLED" for child in children)

            patience = within * self._patience
            await until(told, within=patience, what=f"{node} carries {count} IKE_SAs", every=0.2)
            await until(quiet, within=patience, what=f"{node} rekeys nothing", every=0.2)

    async def owned_twice(self) -> int:
        """Return how many IKE_SAs are established at more than one gateway."""
        gateways = self.lab.topology.by_role(Role.GATEWAY)
        listed = [await asyncio.to_thread(list_sas, self.lab.vici_socket(node)) for node in gateways]
        owners = Counter(key for sas in listed for key in sa_keys(sas))
        return sum(count > 1 for count in owners.values())

    async def leaked_routes(self) -> int:
        """Return how many steering routes the gateways have that no IKE_SA of theirs needs."""
        leaked = 0
        for node in self.lab.topology.by_role(Role.GATEWAY):
            listed = await asyncio.to_thread(list_sas, self.lab.vici_socket(node))
            needed = {(str(sa["remote-host"]), str(sa["local-host"])) for _, sa in listed}
            lines = await self.lab.run_in(
                node, "ip", "-4", "route", "show", "table", "all", "proto", str(ROUTE_PROTOCOL)
            )
            for words in map(str.split, lines.splitlines()):
                source = words[words.index("src") + 1] if "src" in words else ""
                leaked += bool(words) and (words[0], source) not in needed
        return leaked

    # --- faults ----------------------------------------------------------------------------------

    async def cut_off(self, node: str) -> None:
        """Take a gateway's way to the store from it: silently in the network, by a limit on writing for a file."""
        if self.store.kind == "sqlite":
            self.store.cut_off(self.lab.newest(node, "sidecar"))
            return
        for selector in (f"iif {node}", f"to {self._management(node)}"):
            rule = ("rule", "add", "pref", DROP_PREFERENCE, *selector.split(), "blackhole")
            await self.lab.run_in(MANAGEMENT, "ip", *rule)

    async def join_again(self, node: str) -> None:
        """Give a gateway that was cut off its way to the store back."""
        if self.store.kind == "sqlite":
            self.store.join_again(self.lab.newest(node, "sidecar"))
            return
        for selector in (f"iif {node}", f"to {self._management(node)}"):
            rule = ("rule", "del", "pref", DROP_PREFERENCE, *selector.split(), "blackhole")
            await self.lab.run_in(MANAGEMENT, "ip", *rule)

    def _management(self, node: str) -> str:
        ends = self.lab.topology.ends_of(node)
        return next(str(end.addresses[0].ip) for end in ends if end.dev == MANAGEMENT)

    # --- processes -------------------------------------------------------------------------------

    async def stop(self, node: str) -> None:
        """Make a node's sidecar stand still (SIGSTOP).

        Not in the middle of a commit into a file: it would keep that locked for all, which no other node can help.
        """

        async def outside_of_a_commit() -> bool:
            self._signal(node, signal.SIGSTOP)
            if await asyncio.to_thread(self.store.writable):
                return True
            self._signal(node, signal.SIGCONT)
            return False

        await until(outside_of_a_commit, within=10.0 * self._patience, what=f"{node} stands still")

    def go_on(self, node: str) -> None:
        """Let a node's sidecar that stood still go on (SIGCONT)."""
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: str, number: signal.Signals) -> None:
        if not self.lab.signal(self.lab.newest(node, "sidecar"), number):
            raise LabError(f"{node}: the sidecar was gone already", hint="see sidecar.out")

    # --- measuring -------------------------------------------------------------------------------

    def moves_between(
        self, start: float, end: float, *, source: str | None = None, target: str | None = None
    ) -> int:
        """Return how many moves from a node, or to it, began between two times of CLOCK_MONOTONIC."""
        self.refresh()
        return sum(
            state == "requested"
            and start <= at <= end
            and source in {None, self.moves[number]["source"]}
            and target in {None, self.moves[number]["target"]}
            for (number, state), at in self.seen.items()
        )

    def twice(self, *, since: int = 0) -> int:
        """Return how many clients were moved more than once by moves after the first `since` ones."""
        self.refresh()
        later = [move for number, move in sorted(self.moves.items())[since:] if _begun(move)]
        peers = Counter(records.peer_of(sa) or sa for move in later for sa in set(move["sas"]))
        return sum(count > 1 for count in peers.values())

    def acts_of(self, token: int, *, since: float) -> int:
        """Return how many moves of a leader's token were appended or begun after a time of CLOCK_MONOTONIC."""
        self.refresh()
        return sum(
            state in {"planned", "requested"} and at > since and self.moves[number]["token"] == token
            for (number, state), at in self.seen.items()
        )

    def metrics(self) -> dict[str, float | str]:
        """Return what the journal says in the end."""
        self.refresh()
        states = Counter(move["steps"][-1]["state"] for move in self.moves.values())
        numbers: dict[str, float | str] = {
            "moves": len(self.moves),
            "moves_open": len(self.moves) - sum(states[state] for state in FINAL),
            "moves_undone": sum(states[state] for state in ("refused", "timed-out", "rolled-back")),
            "moves_twice": self.twice(),
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
        command = (sys.executable, "-m", "mobikectl", *argv, "--config", f"/run/{CONFIGURATION}")
        return await self.lab.run_in(node, *command, deadline=deadline * self._patience, check=check)


def _begun(move: dict[str, Any]) -> bool:
    return any(step["state"] in BEGUN for step in move["steps"])
