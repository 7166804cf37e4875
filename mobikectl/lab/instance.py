"""One lab: built from a topology, torn down from its record."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import LabError
from mobikectl.lab import netns, render
from mobikectl.lab.capture import open_in
from mobikectl.lab.certificates import certify
from mobikectl.lab.processes import MARK, ProcessId, end_all, identify, marked, send_signal
from mobikectl.lab.record import NAMESPACE_PREFIX, SHARED, Record
from mobikectl.lab.requirements import CHARON, WITH_PLUGIN, require_plugin
from mobikectl.lab.store import LabStore
from mobikectl.lab.vici import wait_ready
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

    from mobikectl.lab.topology import Topology
    from mobikectl.model import IpAddress

COMMAND_DEADLINE = 20.0
CHARON_DEADLINE = 30.0
REACH_DEADLINE = 10
CHARON_NICE = -15
BIND_RUN = 'mount --rbind "$1" /run'
BIND_SHARED = f'mount --bind "$1/../.{SHARED}" "$1/{SHARED}"'
BIND_STRONGSWAN = """mount --bind /run/strongswan.conf /etc/strongswan.conf \
&& mount --bind /run/swanctl /etc/swanctl"""
"""Run by a shell in the mount namespace that ``ip netns exec`` makes: the node's directory becomes its
/run, so that every path on a node is the one that it would have on a machine of its own."""


class Lab:
    """A running lab (or what is left of one): one object per record."""

    def __init__(self, record: Record, topology: Topology) -> None:
        self.record = record
        self.topology = topology
        self.store = LabStore(self, topology.cluster) if topology.cluster else None
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def new(cls, name: str, scenario: str, topology: Topology, *, esp: str) -> Lab:
        """Given a name for the instance and what to build with which ESP, write its record.

        Nothing else is made yet. Raise LabError when the name is in use.
        """
        namespaces = {node: f"{NAMESPACE_PREFIX}-{name}-{node}" for node in topology.nodes}
        lab = cls(Record(name, scenario, esp, namespaces), topology)
        lab.record.create()
        return lab

    # --- building --------------------------------------------------------------------------------

    async def up(self) -> None:
        """Build namespaces, links, routes and charons, and load the connections.

        Raise LabError when anything fails; the caller tears down.
        """
        if any(node.plugin for node in self.topology.nodes.values()):
            require_plugin()
        if self.store is not None:
            self.record.shared_dir.mkdir(mode=0o700)
        adds = "".join(f"netns add {namespace}\n" for namespace in self.record.namespaces.values())
        await run_command("ip", "-batch", "-", stdin=adds)
        await run_command("ip", "-batch", "-", stdin=netns.wires(self.topology, self.record.namespaces))
        await asyncio.gather(*(self._setup_node(name) for name in self.topology.nodes))
        if self.store is not None:
            await self.store.start()
            await self.store.certify()
        keys = {tunnel.name: secrets.token_hex(24) for tunnel in self.topology.tunnels}
        for name in self.topology.charons:
            self._write_configuration(name, keys)
        await asyncio.to_thread(certify, self.topology, lambda node: self.record.node_dir(node) / "swanctl")
        for name in self.topology.charons:
            self._start_charon(name)
        await asyncio.gather(*(self._ready(name) for name in self.topology.charons))
        ways = {(t.client, str(t.remote[0])): t.local for t in self.topology.tunnels}
        await asyncio.gather(*(self._reach(*way, local) for way, local in ways.items()))

    async def start_charon(self, name: str) -> None:
        """Start a node's charon, which was killed, and load its connections. Raise LabError."""
        log = self.record.node_dir(name) / "charon.log"
        if log.exists():
            lives = len(list(log.parent.glob("charon.*.log")))
            log.rename(log.with_name(f"charon.{lives + 1}.log"))
        killed = self._children.get(self.charon(name).pid)

        async def reaped() -> bool:
            return killed is None or killed.poll() is not None

        # charon does not start while the one in its pid file is a zombie, or has threads that have not ended yet.
        await until(reaped, within=CHARON_DEADLINE, what=f"{name}: the killed charon has ended", every=0.01)
        self._start_charon(name)
        await self._ready(name)

    def _start_charon(self, name: str) -> None:
        charon = self.start(name, "charon", self._charon_command(name))
        # All nodes share this machine's processors. A real gateway does not wait for its client's programs.
        os.setpriority(os.PRIO_PROCESS, charon.pid, CHARON_NICE)

    def _charon_command(self, name: str) -> list[str]:
        if not self.topology.nodes[name].plugin:
            return [str(CHARON)]
        # Its mount points are made in the node's own /run, which goes with the lab.
        return ["env", "TMPDIR=/run", str(WITH_PLUGIN), str(require_plugin()), str(CHARON)]

    async def _reach(self, node: str, remote: str, local: IpAddress | None) -> None:
        """Wait until the way to an address works: neighbour discovery may hold the first packets of charon back.

        Held back and let go together, retransmitted IKE_SA_INIT requests would make as many half-open IKE_SAs.
        """
        source = ("-I", str(local)) if local else ()
        patience = ("-c", "1", "-i", "0.2", "-w", str(REACH_DEADLINE))
        await self.run_in(node, "ping", "-n", "-q", *patience, *source, remote)

    async def _setup_node(self, name: str) -> None:
        node = self.topology.nodes[name]
        namespace = self.record.namespaces[name]
        self.record.node_dir(name).mkdir(mode=0o700)
        if self.store is not None:
            (self.record.node_dir(name) / SHARED).mkdir(mode=0o700)
        await asyncio.to_thread(open_in, namespace, lambda: _write_sysctls(netns.sysctls(node)))
        await run_command("ip", "-n", namespace, "-batch", "-", stdin=netns.node_setup(self.topology, node))
        for dev in node.masquerade:
            await _masquerade(namespace, dev)

    def _write_configuration(self, name: str, keys: Mapping[str, str]) -> None:
        node = self.topology.nodes[name]
        directory = self.record.node_dir(name)
        (directory / "strongswan.conf").write_text(render.strongswan_conf(node, esp=self.record.esp))
        swanctl = directory / "swanctl"
        swanctl.mkdir(mode=0o700)
        (swanctl / "swanctl.conf").touch(mode=0o600)
        (swanctl / "swanctl.conf").write_text(render.swanctl_conf(self.topology, node, keys))

    async def _ready(self, name: str) -> None:
        charon = self.charon(name)
        await wait_ready(
            self.vici_socket(name), deadline=CHARON_DEADLINE, alive=lambda: identify(charon.pid) == charon
        )
        await self.run_in(name, "swanctl", "--load-all", "--noprompt")

    # --- using -----------------------------------------------------------------------------------

    def namespace(self, node: str) -> str:
        """Given a node, return its network namespace. Raise LabError when there is no such node."""
        try:
            return self.record.namespaces[node]
        except KeyError:
            nodes = ", ".join(self.record.namespaces)
            raise LabError(
                f"no node {node!r} in lab {self.record.name}", hint=f"there are: {nodes}"
            ) from None

    def vici_socket(self, node: str) -> Path:
        """Given a node, return the path of its charon's VICI socket on this machine."""
        return self.record.node_dir(node) / "charon.vici"

    def charon(self, node: str) -> ProcessId:
        """Given a node, return its charon (the newest that was started)."""
        return self.newest(node, "charon")

    def newest(self, node: str, what: str) -> ProcessId:
        """Given a node and what was started there, return the newest such process, alive or not."""
        for found, name, who in reversed(self.record.processes()):
            if found == node and name == what:
                return who
        raise LabError(f"no {what} was started on {node}", hint=f"logs are in {self.record.node_dir(node)}")

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """Given a node and a command, return the command line that runs it there."""
        directory = self.record.node_dir(node)
        shared = [BIND_SHARED] if (directory / SHARED).is_dir() else []
        strongswan = [BIND_STRONGSWAN] if (directory / "swanctl").is_dir() else []
        script = " && ".join([*shared, BIND_RUN, *strongswan, 'shift && exec "$@"'])
        return ["ip", "netns", "exec", self.namespace(node), "sh", "-c", script, "sh", str(directory), *argv]

    def environment(self, node: str) -> dict[str, str]:
        """Given a node, return the environment of its processes: this very `mobikectl` is the one that they find."""
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        return os.environ | {MARK: self.record.name, "MOBIKECTL_LAB_NODE": node, "PATH": path}

    def start(self, node: str, what: str, argv: Sequence[str]) -> ProcessId:
        """Start a long-running command on a node and write it down; its output goes to ``WHAT.out``."""
        with (self.record.node_dir(node) / f"{what}.out").open("ab") as output:
            child = subprocess.Popen(
                self.command(node, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(node),
                start_new_session=True,
            )
        self._children[child.pid] = child
        who = identify(child.pid)
        if who is None:
            raise LabError(
                f"{what} on {node} ended at once", hint=f"see {self.record.node_dir(node)}/{what}.out"
            )
        self.record.add_process(node, what, who)
        return who

    def plugin_socket(self, node: str) -> Path:
        """Given a node, return the path of its charon's rmobike plugin's socket on this machine."""
        return self.record.node_dir(node) / "charon.rmobike"

    def signal(self, who: ProcessId, number: signal.Signals) -> bool:
        """Send a signal to a process of this lab; return whether it was alive."""
        return send_signal(who, number)

    async def run_in(
        self, node: str, *argv: str, stdin: str = "", deadline: float = COMMAND_DEADLINE, check: bool = True
    ) -> str:
        """Run a command on a node to its end and return its output.

        Raise LabError when it takes longer than `deadline` seconds or (with `check`) fails.
        """
        command = self.command(node, argv)
        return await run_command(
            *command, stdin=stdin, deadline=deadline, check=check, env=self.environment(node), shown=argv
        )

    # --- ending ----------------------------------------------------------------------------------

    async def down(self) -> None:
        """End every process and remove everything that the lab made. Idempotent; finishes what a crash left."""
        await asyncio.to_thread(tear_down, self.record)
        for child in self._children.values():
            child.wait(timeout=5)
        self._children.clear()

    def keep_logs(self, target: Path) -> None:
        """Copy the nodes' logs (not their keys) to `target`."""
        for node in self.record.namespaces:
            for pattern in ("*.log", "*.out", "*.jsonl"):
                for source in self.record.node_dir(node).glob(pattern):
                    (target / node).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target / node / source.name)


def tear_down(record: Record) -> None:
    """Given a record, end what it names and remove it: processes, namespaces with their links, files."""
    known = {who for _, _, who in record.processes()} | set(marked(record.name))
    end_all(sorted(known, key=lambda who: -who.start))
    # Who was starting while we looked carries the mark.
    end_all(marked(record.name), grace=0.5)
    existing = _namespaces()
    for namespace in record.namespaces.values():
        if namespace in existing:
            subprocess.run(["ip", "netns", "del", namespace], check=False, timeout=COMMAND_DEADLINE)
    if left := _namespaces() & set(record.namespaces.values()):
        raise LabError(
            f"cannot remove {', '.join(sorted(left))}", hint=f"mobikectl lab down {record.name} tries again"
        )
    record.remove()


async def _masquerade(namespace: str, dev: str) -> None:
    """Hide behind the device's address what leaves through it.

    By nft where the kernel has nf_tables' families; Debian's user-mode-linux has only iptables' older ones.
    Raise LabError when neither works.
    """
    inside = ("ip", "netns", "exec", namespace)
    try:
        await run_command(*inside, "nft", "-f", "-", stdin=netns.ruleset(dev), shown=("nft", "-f", "-"))
    except LabError:
        await run_command(*inside, *netns.iptables(dev), shown=netns.iptables(dev))


def _write_sysctls(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value)


def _namespaces() -> set[str]:
    directory = Path("/run/netns")
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


async def run_command(
    *argv: str,
    stdin: str = "",
    deadline: float = COMMAND_DEADLINE,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    shown: Sequence[str] = (),
) -> str:
    """Run a command to its end and return its output (stdout and stderr).

    Raise LabError when it is missing, takes longer than `deadline` seconds or (with `check`) fails.
    ``shown`` is how messages call the command.
    """
    text = " ".join(shown or argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed", hint="see packaging/apt-packages.txt") from None
    try:
        async with asyncio.timeout(deadline):
            output, _ = await process.communicate(stdin.encode())
    except TimeoutError:
        raise LabError(f"no end after {deadline:g} s: {text}", hint="is the machine overloaded?") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    result = output.decode(errors="replace")
    if check and process.returncode != 0:
        raise LabError(
            f"failed ({process.returncode}): {text}: {result.strip()[-400:]}", hint="see the lab's logs"
        )
    return result
