"""What holding the model of N IKE_SAs of a gateway costs, beside `swanctl` in the same run.

    python benchmarks/charon.py [--json OUT] [--sas 1000 3000] [--idle SECONDS]

Needs root, iproute2 and strongSwan: it makes network namespaces with charons of its own (userland ESP) and removes
them. The model is held by a process of its own, whose CPU and memory are what is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mobikectl.charon import ChildUp, SaTracker, SaUp, Session, TrackerConfig, commands

CHARON = "/usr/lib/ipsec/charon"
PLUGINS = (
    "random nonce openssl kdf hmac sha2 aes gcm curve25519 kernel-libipsec kernel-netlink socket-default vici"
)
PER_CLIENT = 1500
RESYNCS = 7
REKEYS = 300
DEADLINE = 120.0


# --- the process that holds the model ---------------------------------------------------------------------


def usage() -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"cpu_s": time.process_time(), "rss_mb": pages * resource.getpagesize() / 1e6}


def complete(tracker: SaTracker, count: int) -> bool:
    """Whether all SAs are up. A few CHILD_SAs may not be: charon refuses one now and then when so many come at once;
    the resyncs that follow count what the model and charon's listing differ in."""
    sas = tracker.sas
    return len(sas) == count and sum(1 for sa in sas.values() if sa.children) >= count * 0.99


async def hold(socket: str) -> None:
    """Keep the model of the charon at `socket`; answer each line on stdin with a line of JSON."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with Session(socket, timeout=30.0) as session:
        tracker = SaTracker(session, TrackerConfig(verify_s=3600.0))
        last = [0.0, 0.0]

        async def note() -> None:
            async for event in tracker.subscribe():
                if isinstance(event, SaUp | ChildUp):
                    last[0] = time.monotonic()
                last[1] += 1

        tasks = [asyncio.create_task(tracker.run()), asyncio.create_task(note())]
        await tracker.until(lambda t: t.in_step, DEADLINE)
        while line := (await reader.readline()).decode().split():
            answer: dict[str, Any] = {}
            if line[0] == "complete":
                await tracker.until(partial(complete, count=int(line[1])), DEADLINE)
                answer["at"] = last[0]
            elif line[0] == "resync":
                start, cpu = time.monotonic(), time.process_time()
                resynced = await tracker.resync(with_children=line[1] == "children")
                answer["took_s"], answer["took_cpu_s"] = time.monotonic() - start, time.process_time() - cpu
                answer["differences"] = len(resynced.differences)
            print(json.dumps({**answer, **usage(), "sas": len(tracker.sas), "events": last[1]}), flush=True)
        for task in tasks:
            task.cancel()


class Holder:
    """The process that holds the model, asked by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, socket: Path) -> Holder:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--hold", str(socket), stdin=pipe, stdout=pipe
        ))  # fmt: skip

    async def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(DEADLINE):
            answer = await self.process.stdout.readline()
        return dict(json.loads(answer))

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


# --- the lab ----------------------------------------------------------------------------------------------


class Node:
    """A charon in a namespace."""

    def __init__(self, stack: ExitStack, name: str, home: Path) -> None:
        self.netns = f"mkbc-{os.getpid()}-{secrets.token_hex(2)}"
        self.socket = home / f"{name}.vici"
        self.conf = home / f"{name}.conf"
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(["ip", "netns", "add", self.netns], check=True, timeout=30)
        stack.callback(subprocess.run, ["ip", "netns", "del", self.netns], check=False, timeout=60)
        self.ip("link set lo up")
        self.stack = stack

    def ip(self, *lines: str) -> None:
        text = "\n".join(lines)
        subprocess.run(
            ["ip", "-n", self.netns, "-batch", "-"], input=text, text=True, check=True, timeout=120
        )

    def start(self, more: str = "") -> None:
        """Start its charon; ``more``: strongswan.conf text that comes last, and so wins."""
        self.conf.write_text(
            f"charon {{ load = {PLUGINS}\n install_routes = no\n install_virtual_ip = no\n dos_protection = no\n"
            " ikesa_table_size = 4096\n ikesa_table_segments = 16\n half_open_timeout = 120\n"
            " init_limit_half_open = 0\n"
            f" plugins {{ vici {{ socket = unix://{self.socket} }} }} }}\n{more}"
        )
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.netns, "unshare", "-m", "sh", "-c", f"mount -t tmpfs t /run; exec {CHARON}"],
            env={**os.environ, "STRONGSWAN_CONF": str(self.conf)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.stack.callback(self.stop)
        deadline = time.monotonic() + 30
        while not self.socket.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"charon did not start with {self.conf}")
            time.sleep(0.05)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def cpu(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connection(number: int, local: str, remote: str) -> dict[str, Any]:
    side = {"auth": "psk", "id": f"client{number}.example"}
    return {
        "version": "2", "mobike": "yes", "unique": "never", "vips": [virtual(number)],
        "local_addrs": [local], "remote_addrs": [remote], "proposals": ["aes128gcm16-prfsha256-x25519"],
        "local": side, "remote": {"auth": "psk", "id": "gateway.example"},
        "children": {"net": {"esp_proposals": ["aes128gcm16"], "remote_ts": ["198.19.255.0/24"]}},
    }  # fmt: skip


GATEWAY = {
    "version": "2", "mobike": "yes", "unique": "never", "pools": ["pool"],
    "proposals": ["aes128gcm16-prfsha256-x25519"],
    "local": {"auth": "psk", "id": "gateway.example"}, "remote": {"auth": "psk", "id": "*.example"},
    "children": {"net": {"esp_proposals": ["aes128gcm16"], "local_ts": ["198.19.255.0/24"]}},
}  # fmt: skip


def build(
    stack: ExitStack, count: int, home: Path, *, gateway_conf: str = ""
) -> tuple[Node, list[tuple[Node, range]]]:
    gateway = Node(stack, "gateway", home)
    clients = []
    for index, first in enumerate(range(0, count, PER_CLIENT)):
        node = Node(stack, f"client{index}", home)
        numbers = range(first, min(first + PER_CLIENT, count))
        node.ip(f"link add v0 type veth peer name v{index} netns {gateway.netns}")
        node.ip(f"addr add 198.18.{200 + index}.2/24 dev v0", "link set v0 up", "route add default via "
                f"198.18.{200 + index}.1")  # fmt: skip
        node.ip(
            *(f"addr add {one}/32 dev lo" for number in numbers for one in (address(number), virtual(number)))
        )
        gateway.ip(
            f"addr add 198.18.{200 + index}.1/24 dev v{index}", f"link set v{index} up",
            *(f"route add {address(number)}/32 via 198.18.{200 + index}.2" for number in numbers),
        )  # fmt: skip
        clients.append((node, numbers))
    gateway.ip("addr add 198.19.255.1/32 dev lo")
    gateway.start(gateway_conf)
    for client, _ in clients:
        client.start()
    return gateway, clients


def address(number: int) -> str:
    return str(ip_address("198.18.0.1") + number)


def virtual(number: int) -> str:
    return str(ip_address("198.19.0.1") + number)


async def load(gateway: Session, clients: list[tuple[Session, range]]) -> None:
    secret = {"type": "IKE", "data": "only for this benchmark"}
    await gateway.request("load-shared", secret)
    await gateway.request("load-pool", {"pool": {"addrs": "198.19.0.0/17"}})
    await gateway.request("load-conn", {"gw": GATEWAY})
    for index, (session, numbers) in enumerate(clients):
        await session.request("load-shared", secret)
        for number in numbers:
            conn = connection(number, address(number), f"198.18.{200 + index}.1")
            await session.request("load-conn", {f"c{number}": conn})


async def bring_up(gateway: Session, clients: list[tuple[Session, range]], count: int) -> tuple[float, float]:
    """Return when the first SA was asked for and when charon first counted them all."""
    start = time.monotonic()
    for session, numbers in clients:
        for number in numbers:
            args = {"ike": f"c{number}", "child": "net", "timeout": -1, "loglevel": -1}
            await session.request("initiate", args)
    async with asyncio.timeout(DEADLINE):
        while True:
            stats = await commands.stats(gateway)
            if stats.ike_sas >= count and stats.half_open == 0:
                return start, time.monotonic()
            await asyncio.sleep(0.05)


def swanctl(socket: Path) -> float:
    start = time.monotonic()
    subprocess.run(
        ["swanctl", "--list-sas", "--raw", "--uri", f"unix://{socket}"],
        check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE,
    )  # fmt: skip
    return time.monotonic() - start


# --- the measurements -------------------------------------------------------------------------------------


async def measure(count: int, idle_s: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mkbench-") as home, ExitStack() as stack:
        gateway, clients = build(stack, count, Path(home))
        session = Session(gateway.socket, timeout=60.0)
        sessions = [(Session(node.socket, timeout=60.0), numbers) for node, numbers in clients]
        await load(session, sessions)
        holder = await Holder.start(gateway.socket)
        try:
            return await measured(count, idle_s, gateway, session, sessions, holder)
        finally:
            with suppress(ProcessLookupError, BrokenPipeError):
                await holder.stop()
            for one in (session, *(client for client, _ in sessions)):
                await one.aclose()


async def measured(
    count: int,
    idle_s: float,
    gateway: Node,
    session: Session,
    sessions: list[tuple[Session, range]],
    holder: Holder,
) -> dict[str, float]:
    before = await holder.ask("usage")
    start, all_up = await bring_up(session, sessions, count)
    up = await holder.ask(f"complete {count}")
    result = {
        "sas": float(count),
        "all_up_s": all_up - start,
        "in_step_after_all_up_s": up["at"] - all_up,
        "bring_up_cpu_us_per_event": (up["cpu_s"] - before["cpu_s"])
        / max(1, up["events"] - before["events"])
        * 1e6,
        "bring_up_cpu_percent": (up["cpu_s"] - before["cpu_s"]) / (up["at"] - start) * 100,
    }
    quiet = await holder.ask("usage")
    await asyncio.sleep(idle_s)
    idle = await holder.ask("usage")
    result["idle_cpu_percent"] = (idle["cpu_s"] - quiet["cpu_s"]) / idle_s * 100
    result["rss_mb"] = idle["rss_mb"]

    charon_cpu = gateway.cpu()
    bare = [await holder.ask("resync bare") for _ in range(RESYNCS)]
    result["resync_charon_cpu_s"] = (gateway.cpu() - charon_cpu) / RESYNCS
    result["resync_s"] = statistics.median(one["took_s"] for one in bare)
    result["resync_cpu_s"] = statistics.median(one["took_cpu_s"] for one in bare)
    result["idle_cpu_percent_with_a_listing_a_minute"] = (
        result["idle_cpu_percent"] + result["resync_cpu_s"] / 60 * 100
    )
    full = [await holder.ask("resync children") for _ in range(3)]
    result["resync_children_s"] = statistics.median(one["took_s"] for one in full)
    result["differences"] = float(sum(one["differences"] for one in bare + full))
    tool = [await asyncio.to_thread(swanctl, gateway.socket) for _ in range(3)]
    result["swanctl_list_sas_s"] = statistics.median(tool)
    result["resync_ratio_to_swanctl"] = result["resync_s"] / result["swanctl_list_sas_s"]
    result["resync_children_ratio_to_swanctl"] = result["resync_children_s"] / result["swanctl_list_sas_s"]
    result.update(await rekeyed(session, holder, count))
    return result


async def rekeyed(session: Session, holder: Holder, count: int) -> dict[str, float]:
    """Rekey some IKE_SAs, wait until charon is done, and return what following that cost the holder."""
    before, start = await holder.ask("usage"), time.monotonic()
    listed = await commands.list_sas(session, children=False)
    wanted = min(REKEYS, count)
    for sa in listed[:wanted]:
        await commands.rekey(session, ike_id=sa.uniqueid)
    async with asyncio.timeout(DEADLINE):
        while (after := await holder.ask("usage"))["events"] - before["events"] < wanted:
            await asyncio.sleep(0.1)
    took, cpu = time.monotonic() - start, after["cpu_s"] - before["cpu_s"]
    return {
        "rekey_events_per_s": wanted / took,
        "rekey_cpu_percent": cpu / took * 100,
        "rss_mb_at_the_end": after["rss_mb"],
    }


AIMS = {"resync_s": 0.5, "idle_cpu_percent_with_a_listing_a_minute": 1.0, "rss_mb": 100.0}


def table(results: list[dict[str, float]]) -> None:
    print(f"{'':44}" + "".join(f"{int(one['sas']):>12}" for one in results) + f"{'aim':>10}")
    for key in results[0]:
        if key != "sas":
            aim = f"< {AIMS[key]:g}" if key in AIMS else ""
            print(
                f"{key.replace('_', ' '):44}" + "".join(f"{one[key]:12.3f}" for one in results) + f"{aim:>10}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sas", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling that are measured")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        asyncio.run(hold(arguments.hold))
        return
    if os.geteuid() != 0:
        raise SystemExit("benchmarks/charon.py makes network namespaces: run it as root")
    results = [asyncio.run(measure(count, arguments.idle)) for count in arguments.sas]
    table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"charon": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
