"""The store of a lab's cluster (a file that every node sees, or an etcd on a node of its own), and who uses it."""

from __future__ import annotations

import json
import re
import resource
import signal
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError
from mobikectl.lab.processes import identify
from mobikectl.lab.record import SHARED
from mobikectl.lab.topology import MANAGEMENT, Role
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.lab.fleets import ClusterSpec
    from mobikectl.lab.instance import Lab
    from mobikectl.lab.processes import ProcessId

FILE = f"/run/{SHARED}/cluster.db"
CLUSTER = "lab"
"""The cluster's name in its store."""
PORT = 2379
PEER = "http://127.0.0.1:2380"
START_S = 60.0
COMMIT_S = 0.5
"""Seconds that a commit into the file may take."""
CONFIGURATION = "mobikectl.toml"
"""In a node's own directory: its configuration."""
TLS = "tls"
CERTIFICATES = {"certificate": "node.pem", "key": "node.key", "ca": "ca.pem"}
"""In a node's own directory, when IKE_SAs are carried over."""
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
LOCKER = """
import sqlite3, sys, time
file = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
file.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(600)
"""


def inline(value: Any) -> str:
    """Given a value as a TOML file can hold it, return it as TOML on one line."""
    if isinstance(value, dict):
        if bad := [key for key in value if not BARE_KEY.fullmatch(key)]:
            raise LabError(f"the key {bad[0]!r} cannot be written", hint="use a-z, 0-9, _ and -")
        return "{ " + ", ".join(f"{key} = {inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


class LabStore:
    """The store of one lab."""

    def __init__(self, lab: Lab, spec: ClusterSpec) -> None:
        self.kind = spec.store
        self._lab = lab
        self._spec = spec
        self._node = lab.topology.by_role(Role.STORE)[0]

    # --- settings --------------------------------------------------------------------------------

    @property
    def _endpoint(self) -> str:
        return f"{self._lab.topology.nodes[self._node].inside[0].ip}:{PORT}"

    def where(self) -> tuple[str, str]:
        """Return the kind of store and its file or its endpoint."""
        return self.kind, FILE if self.kind == "sqlite" else self._endpoint

    def table(self, node: str) -> Mapping[str, Any]:
        """Given a gateway's name, return the table ``[cluster]`` of its configuration."""
        topology, spec = self._lab.topology, self._spec
        capacity = {} if spec.uplink_bytes_per_s is None else {"bytes_per_s": spec.uplink_bytes_per_s}
        addresses = [
            {"ip": str(address.ip), "dev": end.dev} | capacity
            for end in topology.ends_of(node)
            if end.dev != MANAGEMENT
            for address in end.addresses
        ]
        kind, place = self.where()
        more = {"path": place} if kind == "sqlite" else {"endpoints": [place]}
        store = dict(spec.settings.get("store", {}))
        store |= {"kind": kind, "cluster": CLUSTER, kind: dict(store.get(kind, {})) | more}
        for other in {"sqlite", "etcd"} - {kind}:
            store.pop(other, None)
        settings = dict(spec.settings)
        if settings.get("transfer") is True:
            settings["transfer"] = self._transfer(node)
        # All nodes of a lab have the same processors: their load says nothing of one of them.
        return {"node": node, "addresses": addresses, "cpu": False, **settings, "store": store}

    def configuration(self, node: str, text: str) -> str:
        """Given a gateway's name and the scenario's text for it, return the whole configuration."""
        return f"{text}\n[cluster]\n" + "".join(
            f"{key} = {inline(value)}\n" for key, value in self.table(node).items()
        )

    def _transfer(self, node: str) -> Mapping[str, Any]:
        ends = self._lab.topology.ends_of(node)
        address = next(str(end.addresses[0].ip) for end in ends if end.dev == MANAGEMENT)
        files = {key: f"/run/{TLS}/{name}" for key, name in CERTIFICATES.items()}
        return {"address": address, **files}

    async def certify(self) -> None:
        """Give every gateway a certificate, where the scenario carries IKE_SAs over. Raise LabError."""
        if self._spec.settings.get("transfer") is not True:
            return
        cluster = (sys.executable, "-m", "mobikectl", "cluster")
        authority = f"/run/{SHARED}/authority"
        gateways = self._lab.topology.by_role(Role.GATEWAY)
        await self._lab.run_in(gateways[0], *cluster, "init", "--name", CLUSTER, "--dir", authority)
        for node in gateways:
            await self._lab.run_in(
                node, *cluster, "join", node, "--authority", authority, "--dir", f"/run/{TLS}"
            )

    # --- running ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the store (again, on its data) and wait until it is healthy. Raise LabError."""
        if self.kind == "sqlite":
            return
        who = self._lab.start(self._node, "etcd", self._command())

        async def healthy() -> bool:
            if identify(who.pid) != who:
                raise LabError(f"{self._node}: etcd ended", hint="see etcd.out")
            said = await self._lab.run_in(
                self._node, "etcdctl", f"--endpoints={self._endpoint}", "endpoint", "health", check=False
            )
            return "is healthy" in said

        await until(healthy, within=START_S, what="etcd is healthy", every=0.1)

    def _command(self) -> list[str]:
        client = f"http://{self._endpoint}"
        return [
            *("env", "ETCDCTL_API=3", "etcd", "--name", "lab", "--data-dir", "/run/etcd"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", PEER, "--initial-advertise-peer-urls", PEER),
            *("--initial-cluster", f"lab={PEER}"),
        ]

    async def stop(self) -> None:
        """Make the store stand still: etcd is stopped (SIGSTOP), the file is locked by another process."""
        if self.kind == "etcd":
            self._signal("etcd", signal.SIGSTOP)
            return
        who = self._lab.start(self._node, "locker", [sys.executable, "-c", LOCKER, FILE])
        said = self._lab.record.node_dir(self._node) / "locker.out"

        async def locked() -> bool:
            if identify(who.pid) != who:
                raise LabError("the store cannot be locked", hint="see locker.out")
            return "locked" in said.read_text()

        await until(locked, within=START_S, what="the store is locked")

    async def go_on(self) -> None:
        """Let the store go on after `stop`."""
        self._signal(*(("etcd", signal.SIGCONT) if self.kind == "etcd" else ("locker", signal.SIGKILL)))

    async def kill(self) -> None:
        """Kill etcd (SIGKILL); `start` brings it back on its data. Raise LabError: nobody serves a file."""
        if self.kind != "etcd":
            raise LabError("a file cannot be killed", hint="use stop")
        who = self._signal("etcd", signal.SIGKILL)

        async def gone() -> bool:
            return identify(who.pid) != who

        await until(gone, within=10.0, what="etcd is gone")

    def _signal(self, what: str, number: signal.Signals) -> ProcessId:
        who = self._lab.newest(self._node, what)
        if not self._lab.signal(who, number):
            raise LabError(f"{self._node}: {what} was gone already", hint=f"see {what}.out")
        return who

    def writable(self) -> bool:
        """Whether nobody holds the store's file locked for longer than a commit takes."""
        if self.kind != "sqlite":
            return True
        path = self._lab.record.shared_dir / FILE.rpartition("/")[2]
        with closing(sqlite3.connect(path, isolation_level=None, timeout=COMMIT_S)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
                file.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
        return True

    def cut_off(self, process: ProcessId) -> None:
        """Given a node's sidecar, have none of its writes into the file succeed (RLIMIT_FSIZE)."""
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def join_again(self, process: ProcessId) -> None:
        """Given a node's sidecar that was cut off, let it write again."""
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
