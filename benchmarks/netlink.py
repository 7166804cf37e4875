"""What following and steering the kernel's network costs, beside the floors measured in the same run.

    python benchmarks/netlink.py [--json OUT] [--samples N] [--routes N]

Needs root: it makes network namespaces of its own and removes them. Another process causes each change and notes
CLOCK_MONOTONIC right before and right after the system call that makes it; latencies count from "right after", as
the floors do (negative: the event was read before the causing system call returned). What does not come within its
time ends it with exit code 1 and a sentence that says what.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import secrets
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from pyroute2 import AsyncIPRoute

from mobikectl.errors import MobikectlError
from mobikectl.netlink import RouteLookup, SteeringRoutes, Watcher, rtnl
from mobikectl.netlink.kernel import KernelSocket, Requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

T = TypeVar("T")

PEER, HOPS, LOCAL = ip_address("198.19.0.9"), ("198.18.0.2", "198.18.0.3"), ip_address("198.18.0.1")
PROBE = "198.18.0.77"
PAUSE = 0.004
ANSWER_S = 10.0
"""What was asked for, or caused, is there within this time also on a busy machine: it takes milliseconds."""
GRACE_S = 10.0
WINDOW = 0.002
"""Shorter than the default, so that samples need not be 50 ms apart; the first of a burst is never delayed anyway."""


class BenchmarkError(Exception):
    """Something did not come within its time."""


async def within(what: str, coming: Awaitable[T], seconds: float = ANSWER_S) -> T:
    """Given what is waited for, in words and as such, return what comes. Raise BenchmarkError."""
    try:
        return await asyncio.wait_for(coming, seconds)
    except TimeoutError:
        raise BenchmarkError(f"{what}: not within {seconds:g} s") from None


@contextlib.asynccontextmanager
async def phase(what: str, seconds: float) -> AsyncIterator[None]:
    """Given what is measured now and for how long at most, say so. Raise BenchmarkError when it takes longer.

    The alarm is for what holds the event loop: the library waits for processes of its own without a deadline.
    """

    def rang(*_: object) -> None:
        raise BenchmarkError(f"{what}: the event loop was held for longer than {seconds:g} s")

    print(f"{what} ...", file=sys.stderr, flush=True)
    signal.signal(signal.SIGALRM, rang)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BenchmarkError(f"{what}: not done within {seconds:g} s; is the machine busy?") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ended_by(own: int) -> Callable[..., None]:
    """Given this process's number, return what SIGTERM does.

    The library forks to get a socket in another namespace, and ends that child by SIGTERM and then waits for it. An
    exception there would have the child go on as a copy of us, in an event loop in which nothing happens any more.
    """

    def ended(*_: object) -> None:
        if os.getpid() != own:
            os._exit(128 + signal.SIGTERM)
        sys.exit(128 + signal.SIGTERM)

    return ended


def ip(ns: str, command: str, text: str | None = None) -> str:
    argv = ["ip", "-n", ns, *command.split()]
    return subprocess.run(argv, check=True, input=text, capture_output=True, text=True, timeout=300).stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    name = f"mkbench-{os.getpid()}-{secrets.token_hex(2)}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        for command in (
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link set v0 up",
            "link set v1 up",
        ):
            ip(name, command)
        ip(name, f"addr add {LOCAL}/24 dev v0")
        time.sleep(2)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=60)


# --- the process that causes changes --------------------------------------------------------------


def cause(ns: str, index: int) -> None:
    """For each line on stdin add or remove an address, or set the link down or up; print before and after."""
    kernel = KernelSocket(netns=ns)
    kernel.socket.settimeout(ANSWER_S)
    local = rtnl.attribute(2, ip_address(PROBE).packed) + rtnl.attribute(1, ip_address(PROBE).packed)
    address = struct.pack("=BBBBi", 2, 32, 0, 0, index) + local
    orders = {
        "add": (20, 0x600, address),
        "del": (21, 0, address),
        "down": (16, 0, struct.pack("=BxHiII", 0, 0, index, 0, 1)),
        "up": (16, 0, struct.pack("=BxHiII", 0, 0, index, 1, 1)),
    }
    for seq, line in enumerate(sys.stdin, 1):
        kind, flags, payload = orders[line.strip()]
        request = rtnl.message(kind, 5 | flags, seq, payload)
        before = time.monotonic()
        kernel.socket.send(request)
        after = time.monotonic()
        kernel.socket.recv(65536)
        print(before, after, flush=True)


@dataclass(slots=True)
class Causer:
    """The other process, ready to cause a change when told."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    async def order(self, what: str) -> tuple[float, float]:
        """Have a change made; return when its system call began and ended."""
        self.stdin.write(f"{what}\n".encode())
        line = await within(
            f"the answer of the process that causes changes, to {what!r}", self.stdout.readline()
        )
        if not line:
            raise BenchmarkError(f"the process that causes changes ended at {what!r}: see what it said above")
        before, after = line.split()
        return float(before), float(after)


@contextlib.asynccontextmanager
async def causer(ns: str, link: str) -> AsyncIterator[Causer]:
    index = int(ip(ns, f"-o link show {link}").split(":", 1)[0])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--cause", ns, str(index)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    try:
        yield Causer(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        await gone(process, "the process that causes changes")


async def gone(process: asyncio.subprocess.Process, what: str) -> None:
    """Given a process that was told to end, wait until it has; make it end when it does not."""
    try:
        await within(f"the end of {what}", process.wait())
    except BenchmarkError as error:
        print(f"benchmarks/netlink.py: {error}: it is killed", file=sys.stderr)
        process.kill()
        await process.wait()


# --- latency ------------------------------------------------------------------------------------


def summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "median_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3,
        "max_ms": ordered[-1] * 1e3,
    }


@contextlib.asynccontextmanager
async def looking(seen: Coroutine[Any, Any, float]) -> AsyncIterator[asyncio.Task[float]]:
    """Look for a change that is caused meanwhile; nobody looks for it any more afterwards."""
    task = asyncio.create_task(seen)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def sample(
    make: Causer,
    count: int,
    orders: tuple[str, str],
    seen: Callable[[], Coroutine[Any, Any, float]],
    pause: float = PAUSE,
) -> tuple[list[float], list[float]]:
    """Cause changes in turn; return the times from before and from after the system call to its being seen."""
    from_before, from_after = [], []
    for place in range(count):
        async with looking(seen()) as waiting:
            await asyncio.sleep(pause)
            before, after = await make.order(orders[place % 2])
            at = await within(f"seeing change {place + 1} of {count} ({orders[place % 2]})", waiting)
        from_before.append(at - before)
        from_after.append(at - after)
    return from_before, from_after


async def watcher_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    async with Watcher(netns=ns, window=WINDOW) as watcher:
        changes = watcher.changes()

        async def seen() -> float:
            async for change in changes:
                if change.addresses_added or change.addresses_removed:
                    return time.monotonic()
            raise RuntimeError

        before, after = await sample(make, count, ("add", "del"), seen)
    return {"from_call": summary(before), "from_return": summary(after)}


async def route_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    """From the cause to a steering route that a lookup in the kernel answers with; lookup included."""
    oif = int(ip(ns, "-o link show v0").split(":", 1)[0])
    turn = 0
    async with (
        Watcher(netns=ns, window=WINDOW) as watcher,
        SteeringRoutes(netns=ns) as routes,
        RouteLookup(netns=ns) as asking,
    ):
        changes = watcher.changes()

        async def seen() -> float:
            nonlocal turn
            async for change in changes:
                if change.addresses_added or change.addresses_removed:
                    turn += 1
                    hop = ip_address(HOPS[turn % 2])
                    await routes.replace(PEER, hop, oif, LOCAL)
                    if (await asking.lookup(PEER)).gateway != hop:
                        raise RuntimeError("the kernel does not show the route")
                    return time.monotonic()
            raise RuntimeError

        before, after = await sample(make, count, ("add", "del"), seen)
        await routes.flush()
    return {"from_call": summary(before), "from_return": summary(after)}


async def link_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    """A link's going down: told with the default window, in spite of what its coming up has just caused."""
    index = int(ip(ns, "-o link show v0").split(":", 1)[0])
    from_before, from_after, call = [], [], []
    async with Watcher(netns=ns) as watcher:
        changes = watcher.changes()

        async def until(usable: bool) -> float:
            async for change in changes:
                if change.state.links[index].usable is usable:
                    return time.monotonic()
            raise RuntimeError

        await make.order("down")
        await within("seeing the link go down for the first time", until(False))
        for place in range(count):
            async with looking(until(True)) as coming:
                await make.order("up")
                await within(f"seeing the link come up, {place + 1} of {count}", coming)
            async with looking(until(False)) as going:
                before, after = await make.order("down")
                at = await within(f"seeing the link go down, {place + 1} of {count}", going)
            from_before.append(at - before)
            from_after.append(at - after)
            call.append(after - before)
        await make.order("up")
    return {"from_call": summary(from_before), "from_return": summary(from_after), "call": summary(call)}


async def raw_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    """The floor: a bare socket in the event loop, nothing decoded."""
    kernel = KernelSocket(groups=(rtnl.RTNLGRP_IPV4_IFADDR,), netns=ns)
    loop = asyncio.get_running_loop()

    async def seen() -> float:
        await loop.sock_recv(kernel.socket, 65536)
        return time.monotonic()

    before, after = await sample(make, count, ("add", "del"), seen)
    kernel.close()
    return {"from_call": summary(before), "from_return": summary(after)}


async def monitor_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *("stdbuf", "-oL", "ip", "-n", ns, "-o", "-4", "monitor", "address"), stdout=asyncio.subprocess.PIPE
    )
    stdout = process.stdout
    if stdout is None:
        raise RuntimeError("no pipe")

    async def seen() -> float:
        await stdout.readline()
        return time.monotonic()

    await asyncio.sleep(0.5)
    try:
        before, after = await sample(make, count, ("add", "del"), seen)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await gone(process, "`ip monitor`")
    return {"from_call": summary(before), "from_return": summary(after)}


async def pyroute2_latency(ns: str, make: Causer, count: int) -> dict[str, Any]:
    async with AsyncIPRoute(netns=ns) as ipr:
        await ipr.bind(groups=1 << (rtnl.RTNLGRP_IPV4_IFADDR - 1))

        async def seen() -> float:
            async for _ in ipr.get():
                return time.monotonic()
            raise RuntimeError

        before, after = await sample(make, count, ("add", "del"), seen)
    return {"from_call": summary(before), "from_return": summary(after)}


async def request_latency(ns: str, count: int) -> dict[str, Any]:
    oif = int(ip(ns, "-o link show v0").split(":", 1)[0])
    lookups, replaced = [], []
    async with RouteLookup(netns=ns) as asking, SteeringRoutes(netns=ns) as routes:
        for place in range(count):
            start = time.monotonic()
            await routes.replace(PEER, ip_address(HOPS[place % 2]), oif, LOCAL)
            middle = time.monotonic()
            await asking.lookup(PEER)
            lookups.append(time.monotonic() - middle)
            replaced.append(middle - start)
        await routes.flush()
    return {"lookup": summary(lookups), "replace": summary(replaced)}


# --- a full table ---------------------------------------------------------------------------------


async def longest_block(stop: asyncio.Event) -> float:
    """Return how long the loop was away at most, seconds, between two turns that were due 1 ms apart."""
    longest, last = 0.0, time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last - 0.001), now
    return longest


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def full_table(ns: str, count: int, batch: Path) -> dict[str, Any]:
    batch.write_text(
        "".join(
            f"route add {ip_address('198.19.0.0') + n}/32 via {HOPS[0]} table 1000\n" for n in range(count)
        )
    )
    gc.collect()
    floor = await run_ip(ns, "-batch", str(batch)), await run_ip(ns, "route", "flush", "table", "1000")
    async with Watcher(netns=ns) as watcher:
        stop = asyncio.Event()
        block = asyncio.create_task(longest_block(stop))
        rss, cpu = rss_kib(), time.process_time()
        counted = [0, 0]

        async def follow() -> None:
            async for change in watcher.changes():
                counted[0] += change.routes.added
                counted[1] += change.routes.removed

        following = asyncio.create_task(follow())
        load = await run_ip(ns, "-batch", str(batch))
        flush = await run_ip(ns, "route", "flush", "table", "1000")
        await asyncio.sleep(0.2)
        stop.set()
        result = {
            "routes": count,
            "load_s": load,
            "flush_s": flush,
            "load_unwatched_s": floor[0],
            "flush_unwatched_s": floor[1],
            "cpu_s": time.process_time() - cpu,
            "rss_before_mib": rss / 1024,
            "rss_growth_mib": (rss_kib() - rss) / 1024,
            "rss_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "longest_block_ms": await block * 1e3,
            "added_counted": counted[0],
            "removed_counted": counted[1],
            "changes": watcher.counters.changes,
            "route_overruns": watcher.counters.route_overruns,
            "overruns": watcher.counters.overruns,
        }
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return result


async def run_ip(ns: str, *args: str) -> float:
    """Run ip in a thread: starting a process holds the loop, which is none of the watcher's doing."""

    def run() -> float:
        start = time.monotonic()
        subprocess.run(["ip", "-n", ns, *args], check=True, stdout=subprocess.DEVNULL, timeout=300)
        return time.monotonic() - start

    return await asyncio.to_thread(run)


async def dumps(ns: str, count: int) -> dict[str, Any]:
    text = "".join(f"route add {ip_address('198.19.0.0') + n}/32 via {HOPS[0]}\n" for n in range(count))
    ip(ns, "-batch -", text)
    scan, own, ip_show, library = [], [], [], []
    async with Requests(netns=ns) as requests:
        for _ in range(5):
            start = time.monotonic()
            found = await requests.dump_all(rtnl.RTM_GETROUTE, rtnl.encode_dump(rtnl.RTM_GETROUTE, 2))
            ours = [True for buf, msg in found if rtnl.route_brief(buf, msg)[1] == 109]
            scan.append(time.monotonic() - start)
            routes = [rtnl.decode_route(buf, msg) for buf, msg in found]
            own.append(time.monotonic() - start)
            if ours:
                raise RuntimeError("somebody else's routes are here")
            ip_show.append(await run_ip(ns, "route", "show", "table", "all"))
            if len(routes) < count:
                raise RuntimeError("routes are missing")
    async with AsyncIPRoute(netns=ns) as ipr:
        for _ in range(2):
            start = time.monotonic()
            seen = [route async for route in await ipr.get_routes(family=socket.AF_INET)]
            library.append(time.monotonic() - start)
            if len(seen) < count:
                raise RuntimeError("routes are missing")
    ip(ns, "route flush proto boot")
    best = {
        "scan_ms": min(scan) * 1e3,
        "own_ms": min(own) * 1e3,
        "pyroute2_ms": min(library) * 1e3,
        "ip_route_show_ms": min(ip_show) * 1e3,
    }
    return {"routes": count, **best}


# --- report ---------------------------------------------------------------------------------------


async def measure(samples: int, routes: int) -> dict[str, Any]:
    result: dict[str, Any] = {"samples": samples, "load_average": os.getloadavg()[0], "cpus": os.cpu_count()}
    with namespace() as ns:
        async with causer(ns, "v0") as make:
            for name, run in (
                ("raw socket read", raw_latency),
                ("ip monitor", monitor_latency),
                ("pyroute2 AsyncIPRoute", pyroute2_latency),
                ("watcher", watcher_latency),
                ("watcher, route, lookup", route_latency),
            ):
                async with phase(f"latency: {name}", 60 + samples):
                    result.setdefault("latency", {})[name] = await run(ns, make, samples)
            async with phase("latency: link down, watcher", 300):
                result["latency"]["link down, watcher"] = await link_latency(ns, make, min(samples, 100))
        async with phase("requests", 60 + samples):
            result["requests"] = await request_latency(ns, samples)
        async with phase("dumps", 300):
            result["dump"] = await dumps(ns, 10_000)
        batch = Path(f"/tmp/{ns}.batch")  # noqa: S108  our own unique name
        try:
            async with phase("full table", 60 + routes / 100):
                result["full_table"] = await full_table(ns, routes, batch)
        finally:
            batch.unlink(missing_ok=True)
    return result


def show(result: dict[str, Any]) -> None:
    latency = result["latency"]
    floor = latency["raw socket read"]["from_call"]
    print(
        f"{'from the causing system call to ...':34}{'median ms':>10}{'p99 ms':>10}{'x raw':>8}{'x p99':>8}"
    )
    for name, values in latency.items():
        one = values["from_call"]
        if "call" in values:
            call, rest = values["call"], values["from_return"]
            print(f"{name + ': the call itself':34}{call['median_ms']:10.3f}{call['p99_ms']:10.3f}")
            print(f"{name + ': after it':34}{rest['median_ms']:10.3f}{rest['p99_ms']:10.3f}")
        ratios = (one["median_ms"] / floor["median_ms"], one["p99_ms"] / floor["p99_ms"])
        print(f"{name:34}{one['median_ms']:10.3f}{one['p99_ms']:10.3f}{ratios[0]:8.2f}{ratios[1]:8.2f}")
    for name, one in result["requests"].items():
        print(f"{name:34}{one['median_ms']:10.3f}{one['p99_ms']:10.3f}")
    dump = result["dump"]
    print(
        f"\ndump of {dump['routes']} routes: looked through {dump['scan_ms']:.1f} ms, own {dump['own_ms']:.1f} ms, ",
        end="",
    )
    print(
        f"pyroute2 {dump['pyroute2_ms']:.1f} ms ({dump['pyroute2_ms'] / dump['own_ms']:.1f} x own), ", end=""
    )
    print(
        f"ip route show {dump['ip_route_show_ms']:.1f} ms ({dump['own_ms'] / dump['ip_route_show_ms']:.1f} x)"
    )
    for name, value in result["full_table"].items():
        print(
            f"full table: {name:22}{value:12.3f}"
            if isinstance(value, float)
            else f"full table: {name:22}{value:12}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--cause", nargs=2, metavar=("NETNS", "INDEX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cause:
        cause(arguments.cause[0], int(arguments.cause[1]))
        return
    if os.geteuid() != 0:
        raise SystemExit("benchmarks/netlink.py makes network namespaces: run it as root")
    signal.signal(signal.SIGTERM, ended_by(os.getpid()))
    try:
        result = asyncio.run(measure(arguments.samples, arguments.routes))
    except (BenchmarkError, MobikectlError, subprocess.SubprocessError) as error:
        raise SystemExit(f"benchmarks/netlink.py: {error}") from error
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
