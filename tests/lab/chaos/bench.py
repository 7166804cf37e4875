"""A client with two uplinks, a gateway with two addresses, their charons, and a client's sidecar to be tormented."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.control.client import ControlClient
from mobikectl.errors import SidecarError
from mobikectl.lab import measure, vici
from mobikectl.lab.capture import Capture, Pinger
from mobikectl.lab.instance import Lab, run_command
from mobikectl.lab.processes import identify
from mobikectl.lab.requirements import CHARON
from mobikectl.lab.shell import IpShell
from mobikectl.lab.topology import parse_topology

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mobikectl.lab.processes import ProcessId

WAN1, WAN2, GW, GW2 = "198.18.1.1", "198.18.2.1", "198.18.9.1", "198.18.10.1"
"""The client's two uplinks, wan1 the better one, and the gateway's two addresses."""

FIRST, SECOND = f"{WAN1} -> {GW}", f"{WAN2} -> {GW}"

TOPOLOGY: dict[str, Any] = {
    "nodes": {
        "client": {
            "role": "client",
            "inside": ["198.18.100.1/32", "198.18.100.2/32"],
            "routes": [
                {"dst": "default", "via": "198.18.1.254", "dev": "wan1", "metric": 100},
                {"dst": "default", "via": "198.18.2.254", "dev": "wan2", "metric": 200},
            ],
        },
        "router": {"role": "router"},
        "gateway": {
            "role": "gateway",
            "inside": ["198.18.200.1/32", "198.18.200.2/32"],
            "routes": [
                {"dst": "default", "via": "198.18.9.254", "dev": "wan1", "metric": 100},
                {"dst": "default", "via": "198.18.10.254", "dev": "wan2", "metric": 200},
            ],
        },
    },
    "links": [
        {
            "client": {"dev": "wan1", "addresses": ["198.18.1.1/24"]},
            "router": {"dev": "client1", "addresses": ["198.18.1.253/24", "198.18.1.254/24"]},
        },
        {
            "client": {"dev": "wan2", "addresses": ["198.18.2.1/24"]},
            "router": {"dev": "client2", "addresses": ["198.18.2.254/24"]},
        },
        {
            "gateway": {"dev": "wan1", "addresses": ["198.18.9.1/24"]},
            "router": {"dev": "gateway1", "addresses": ["198.18.9.254/24"]},
        },
        {
            "gateway": {"dev": "wan2", "addresses": ["198.18.10.1/24"]},
            "router": {"dev": "gateway2", "addresses": ["198.18.10.254/24"]},
        },
    ],
}

OFFICE = {
    "client": "client",
    "gateway": "gateway",
    "remote": [GW],
    "client_inside": "198.18.100.1",
    "gateway_inside": "198.18.200.1",
}
SECOND_TUNNEL = OFFICE | {"client_inside": "198.18.100.2", "gateway_inside": "198.18.200.2"}

ONE_TUNNEL = {"office": OFFICE}

QUICK = """
role = "client"

[charon]
timeout_s = 1.0

[paths]
hold_down_s = 0.3
verify_timeout_s = 3.0
retry_s = 0.5
retry_max_s = 1.0

[paths.probe]
interval_s = 0.3
timeout_s = 0.3
failure_interval_s = 0.2
recovery_interval_s = 0.2
up = 1
"""
"""A sidecar that decides within a second, so that the tests need not wait for it."""

PATIENCE = 15.0
"""Seconds in which whatever is waited for comes, also on a busy machine."""


def missing() -> str:
    """Why there can be no lab here; empty: there can."""
    return "" if os.geteuid() == 0 and CHARON.exists() else "needs root and strongSwan"


async def until(
    true: Callable[[], Awaitable[Any]], *, what: str, within: float = PATIENCE, every: float = 0.05
) -> Any:
    """Wait until ``true()`` gives something true, and return that; fail after ``within`` seconds."""
    end = time.monotonic() + within
    while not (found := await true()):
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        await asyncio.sleep(every)
    return found


def told(move: dict[str, Any]) -> str:
    """Given a move as the sidecar tells it, return its state; what is compared with it explains itself."""
    return str(move["state"]) if move["state"] == "verified" else f"{move['state']}: {move.get('reason')}"


class _QuietLab(Lab):
    """A lab without IPv6, whose second tunnel is of another user on the same client.

    Link-local addresses come seconds after their links and make charon roam: not the chaos that is meant here.
    charon tells two users by their identities.
    """

    async def _setup_node(self, name: str) -> None:
        await super()._setup_node(name)
        quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
        await run_command("ip", "netns", "exec", self.namespace(name), "sh", "-c", quiet)

    def _write_configuration(self, name: str, keys: Mapping[str, str]) -> None:
        super()._write_configuration(name, keys)
        file = self.record.node_dir(name) / "swanctl" / "swanctl.conf"
        first, mark, second = file.read_text().partition("\n# lab: ")
        file.write_text(first + mark + second.replace("client.lab.example", "second.lab.example"))


class Bench:
    """One lab with its pings and captures. `up` it, torment it, `down` it."""

    def __init__(
        self,
        name: str,
        keep: Path,
        *,
        tunnels: Mapping[str, Any] = ONE_TUNNEL,
        strongswan: str = "",
    ) -> None:
        nodes = TOPOLOGY["nodes"]
        nodes = nodes | {"client": nodes["client"] | {"strongswan": strongswan}}
        data = TOPOLOGY | {"nodes": nodes, "tunnels": dict(tunnels)}
        self.lab = _QuietLab.new(name, "chaos", parse_topology(data, where="chaos"), esp="userland")
        self.pingers: dict[str, Pinger] = {}
        self._keep = keep
        self._stack = contextlib.ExitStack()
        self._shells: dict[str, IpShell] = {}

    async def up(self) -> None:
        """Build everything, bring the tunnels up and let pings flow through them."""
        await self.lab.up()
        for tunnel in self.lab.topology.tunnels:
            await asyncio.to_thread(vici.initiate, self.lab.vici_socket(tunnel.client), tunnel.name)
        self.capture = self._stack.enter_context(
            Capture(self.lab.namespace("client"), self._keep / "client.pcap")
        )
        for tunnel in self.lab.topology.tunnels:
            pinger = Pinger(
                self.lab.namespace(tunnel.client),
                tunnel.client_inside,
                tunnel.gateway_inside,
                interval=0.02,
                tail=0.3,
            )
            self.pingers[tunnel.name] = self._stack.enter_context(pinger)
        self.established = self.keys()

    async def down(self) -> None:
        """Take everything down, keep the logs."""
        for shell in self._shells.values():
            await shell.close()
        self._stack.close()
        self.lab.keep_logs(self._keep)
        await self.lab.down()

    # --- the network -----------------------------------------------------------------------------

    async def ip(self, node: str, line: str) -> None:
        """Run one line of ``ip -batch`` on a node."""
        if node not in self._shells:
            self._shells[node] = await IpShell.start(self.lab.namespace(node), family="-4")
        await self._shells[node].do(line)

    async def link_up(self, dev: str) -> None:
        """Set a device of the client up again, with its default route."""
        via, metric = {"wan1": ("198.18.1.254", 100), "wan2": ("198.18.2.254", 200)}[dev]
        await self.ip("client", f"link set {dev} up")
        await self.ip("client", f"route replace default via {via} dev {dev} metric {metric}")

    async def silence(self, dev: str) -> None:
        """Have the router drop what comes from or goes to an uplink of the client, without a word."""
        number = dev[-1]
        await self.ip("router", f"rule add pref 9 iif client{number} blackhole")
        await self.ip("router", f"rule add pref 9 to 198.18.{number}.1 blackhole")

    async def speak(self, dev: str) -> None:
        """End the silence."""
        number = dev[-1]
        await self.ip("router", f"rule del pref 9 iif client{number} blackhole")
        await self.ip("router", f"rule del pref 9 to 198.18.{number}.1 blackhole")

    # --- what charon says --------------------------------------------------------------------------

    def sas(self, node: str = "client") -> list[tuple[str, dict[str, Any]]]:
        """The IKE_SAs as a node's charon lists them."""
        return vici.list_sas(self.lab.vici_socket(node))

    def keys(self) -> frozenset[tuple[str, str, str]]:
        """What tells the client's IKE_SAs from any others."""
        return measure.sa_keys(self.sas())

    def path(self, tunnel: str = "office") -> str:
        """The path that the client's charon uses."""
        return measure.path_of(self.sas(), tunnel)

    async def all_from(self, local: str) -> None:
        """Wait until all tunnels leave from an address. To which of the gateway's is charon's choice."""

        async def there() -> bool:
            paths = await asyncio.gather(*(asyncio.to_thread(self.path, tunnel) for tunnel in self.pingers))
            return all(path.startswith(f"{local} ") for path in paths)

        await until(there, what=f"all tunnels from {local}")

    def ike_sa_inits(self) -> float:
        """How many IKE_SA_INIT messages there were since the tunnels came up."""
        return measure.ike_metrics(self.capture.packets)["ike_sa_init"]

    async def flows(self, tunnel: str = "office", *, count: int = 10, within: float = PATIENCE) -> None:
        """Wait until so many pings in a row, all sent from now on, were answered."""
        start = len(self.pingers[tunnel].pings)

        async def answered() -> bool:
            row = 0
            for ping in self.pingers[tunnel].pings[start:]:
                row = row + 1 if ping.received else 0
                if row >= count:
                    return True
            return False

        await until(answered, what=f"{tunnel}: {count} answered pings in a row", within=within)

    def lost(self, tunnel: str = "office", *, since: float) -> int:
        """How many pings sent since then, and at least 0.3 s ago, have no answer."""
        end = time.monotonic() - 0.3
        return sum(p.received is None for p in self.pingers[tunnel].pings if since <= p.sent < end)

    async def lives(self) -> None:
        """The first rule: pings flow through every tunnel, over the very IKE_SAs that were there at first."""
        for tunnel in self.pingers:
            await self.flows(tunnel)
        assert self.keys() == self.established, "an IKE_SA was lost or made anew"
        assert self.ike_sa_inits() == 0, "an IKE_SA was made anew"

    # --- the sidecar -------------------------------------------------------------------------------

    def launch(self, configuration: str = QUICK, *, saboteur: str = "") -> ProcessId:
        """Start the client's sidecar and do not wait for it; ``saboteur`` is Python that runs in it before."""
        (self.lab.record.node_dir("client") / "mobikectl.toml").write_text(configuration)
        argv = [sys.executable, "-m", "mobikectl"]
        if saboteur:
            argv = [sys.executable, "-c", f"{saboteur}\nfrom mobikectl.cli import main\nmain()"]
        argv += ["run", "--config", "/run/mobikectl.toml"]
        return self.lab.start("client", "sidecar", argv)

    async def start(self, configuration: str = QUICK) -> ProcessId:
        """Start the client's sidecar and wait until it is healthy."""
        who = self.launch(configuration)
        await self.healthy()
        return who

    async def healthy(self, within: float = PATIENCE) -> None:
        """Wait until the sidecar says that all is well."""

        async def well() -> bool:
            assert self.alive(), f"the sidecar ended: {self.log()[-2000:]}"
            try:
                async with self.control() as client:
                    return bool((await client.health())["ok"])
            except SidecarError:
                return False

        await until(well, what="a healthy sidecar", within=within)

    def control(self) -> ControlClient:
        """A client of the sidecar's control socket."""
        return ControlClient(self.control_socket)

    @property
    def control_socket(self) -> Path:
        """The control socket's path on this machine."""
        return self.lab.record.node_dir("client") / "mobikectl" / "control.sock"

    async def state(self) -> dict[str, Any]:
        """What the sidecar knows."""
        async with self.control() as client:
            return await client.state()

    async def switch(
        self, to: str, *, peer: str = "office", timeout: float = 3.0, **more: Any
    ) -> dict[str, Any]:
        """Ask for a switch as the command line does, and return the one move that came of it."""
        request = {"peer": peer, "to": to, "timeout_s": timeout} | more
        async with self.control() as client:
            answer = await client.switch(request, timeout=timeout + 15)
        moves: Sequence[dict[str, Any]] = answer["moves"]
        return moves[0] if moves else dict(answer)

    def alive(self) -> bool:
        """Whether the newest sidecar lives."""
        who = self.lab.newest("client", "sidecar")
        return identify(who.pid) == who

    async def end(self, number: signal.Signals) -> float:
        """Send the sidecar a signal that ends it; return the seconds it took to end."""
        who = self.lab.newest("client", "sidecar")
        at = time.monotonic()
        assert self.lab.signal(who, number), "the sidecar was gone already"

        async def gone() -> bool:
            return identify(who.pid) != who

        await until(gone, what="the sidecar's end", every=0.005)
        return time.monotonic() - at

    def log(self) -> str:
        """What the sidecar wrote."""
        return (self.lab.record.node_dir("client") / "sidecar.out").read_text(errors="replace")

    def rss_mb(self) -> float:
        """The resident memory of the sidecar."""
        status = Path(f"/proc/{self.lab.newest('client', 'sidecar').pid}/status").read_text()
        found = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(found.split()[1]) / 1024

    async def ours(self) -> list[str]:
        """Everything of mobikectl's that is left on the client: routes, rules, the control socket."""
        script = "for f in -4 -6; do ip $f route show table all proto 109; ip $f rule show | grep -w 109; done; true"
        output = await self.lab.run_in("client", "sh", "-c", script)
        left = [line for line in output.splitlines() if line.strip()]
        return left + ([str(self.control_socket)] if self.control_socket.exists() else [])

    async def steering(self) -> list[str]:
        """The steering routes on the client."""
        output = await self.lab.run_in("client", "ip", "route", "show", "table", "109", check=False)
        return [line for line in output.splitlines() if line.startswith("198.18.")]

    async def leaves_nothing(self) -> float:
        """Stop the sidecar in an orderly way and see that nothing of it is left; return the seconds it took."""
        took = await self.end(signal.SIGTERM)
        assert await self.ours() == []
        return took
