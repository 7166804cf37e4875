"""Three gateways, each with an address, a charon and an HA broker of its own, and a client, around a router.

    client 198.18.1.2 -- router -- 198.18.11.10 gw1
                                -- 198.18.12.10 gw2
                                -- 198.18.13.10 gw3

Inside the tunnel: 198.19.1.1 (client) and 198.19.2.1, which every gateway has on its loopback interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from mobikectl.charon.ha_broker import open_broker
from mobikectl.charon.ha_holder import Keeper
from mobikectl.charon.ha_port import HaPort, owner_of_charons_port
from mobikectl.lab.capture import open_in
from mobikectl.wire.ha_chain import IkeSpis

from ..rmobike.lab import BASE_PLUGINS, Node, Ping, Routed, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mobikectl.charon.ha_broker import HaBroker

GATEWAYS = {"gw1": "198.18.11", "gw2": "198.18.12", "gw3": "198.18.13"}
CLIENT_INSIDE, SERVICE = "198.19.1.1", "198.19.2.1"
HA = """
  load = {load}
  plugins {{
    ha {{
      local = 127.0.0.2
      remote = 127.0.0.1
      fifo_interface = no
      segment_count = 1
      resync = no
      buflen = 16384
    }}
  }}
"""


class MoveLab(Routed):
    """The namespaces, and what is in them."""

    def __init__(self, directory: Path, *, plugin: bool = True, kernel: bool = False) -> None:
        self.directory = directory
        self.kernel = kernel
        self.tag = f"mv{os.getpid() % 100000}{secrets.token_hex(2)}"
        self.router = f"{self.tag}r"
        base = BASE_PLUGINS.replace("kernel-libipsec ", "") if kernel else BASE_PLUGINS
        load = base + " ha" + (" rmobike" if plugin else "")
        self.gateways = {
            name: self._node(name, charon_settings=HA.format(load=load), plugin=plugin) for name in GATEWAYS
        }
        self.client = self._node(
            "client",
            plugin=plugin,
            settings="allow = 198.18.8.0/21",
            charon_settings=f"load = {base}{' rmobike' if plugin else ''}",
        )
        self.brokers: dict[str, HaBroker] = {}
        self._stack = AsyncExitStack()

    def _node(self, name: str, **more: Any) -> Node:
        directory = self.directory / name
        directory.mkdir()
        if self.kernel:
            more["wrapper"] = ("env",)  # a wrapped charon is given more time: the guest is slow
        return Node(name, f"{self.tag}{name}", directory, **more)

    @property
    def nodes(self) -> list[Node]:
        return [self.client, *self.gateways.values()]

    def address(self, gateway: str) -> str:
        return f"{GATEWAYS[gateway]}.10"

    def build(self) -> None:
        for ns in (*(node.ns for node in self.nodes), self.router):
            run("ip", "netns", "add", ns)
            for key in ("all", "default"):
                # Without IPv6 no link-local address becomes valid seconds later, at which every charon would roam.
                run("ip", "netns", "exec", ns, "sysctl", "-qw", f"net.ipv4.conf.{key}.rp_filter=0",
                    f"net.ipv6.conf.{key}.disable_ipv6=1")  # fmt: skip
            run("ip", "-n", ns, "link", "set", "lo", "up")
        run("ip", "netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for number, (node, net) in enumerate(
            zip(self.nodes, ("198.18.1", *GATEWAYS.values()), strict=True), start=1
        ):
            dev = f"up{number}"
            run(
                "ip",
                "-n",
                node.ns,
                "link",
                "add",
                dev,
                "type",
                "veth",
                "peer",
                "name",
                dev,
                "netns",
                self.router,
            )
            last = "2" if node is self.client else "10"
            for where, address in ((node.ns, f"{net}.{last}/24"), (self.router, f"{net}.1/24")):
                run("ip", "-n", where, "link", "set", dev, "up")
                run("ip", "-n", where, "addr", "add", address, "dev", dev)
            run("ip", "-n", node.ns, "route", "add", "default", "via", f"{net}.1", "dev", dev)
            run(
                "ip",
                "-n",
                node.ns,
                "addr",
                "add",
                f"{CLIENT_INSIDE if node is self.client else SERVICE}/32",
                "dev",
                "lo",
            )

    async def start(self, *, brokers: bool = True) -> None:
        """Start brokers, then charons, and load the connection everywhere."""
        if brokers:
            for name in self.gateways:
                self.brokers[name] = await self.open_broker(name)
        await asyncio.gather(*(node.start() for node in self.nodes))
        for name in self.gateways:
            await self.gateways[name].load(
                "gateway", "client", "%any", f"{SERVICE}/32", f"{CLIENT_INSIDE}/32"
            )
        await self.client.load(
            "client", "gateway", self.address("gw1"), f"{CLIENT_INSIDE}/32", f"{SERVICE}/32"
        )

    async def open_broker(self, gateway: str) -> HaBroker:
        keeper = Keeper(self.directory / f"{gateway}.keeper")
        self._stack.callback(keeper.end)
        return await self._stack.enter_async_context(
            open_broker(keeper, protect=False, bind=self.bind(gateway), owner=self.owner(gateway))
        )

    def bind(self, gateway: str) -> Callable[[], HaPort]:
        return lambda: open_in(self.gateways[gateway].ns, HaPort.bind)

    def owner(self, gateway: str) -> Callable[[], int | None]:
        return lambda: open_in(self.gateways[gateway].ns, owner_of_charons_port)

    def masquerade(self) -> None:
        """Put the client behind a strict NAT."""
        self.strict_nat("ip saddr 198.18.1.2 masquerade", 'oifname "up1"')

    async def connect(self) -> None:
        await self.client.initiate()

    async def rekey(self, node: Node, **what: str) -> None:
        async with node.vici as session:
            await session.request("rekey", what)
        await node.event("ike-rekey" if "ike" in what else "child-rekey", since=0)

    async def sas(self, gateway: str) -> list[dict[str, Any]]:
        return await self.gateways[gateway].sas()

    async def ping(self, count: int, interval: str = "0.01") -> Ping:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.client.ns, "ping", "-i", interval, "-c", str(count), "-W", "2", "-q",
            "-I", CLIENT_INSIDE, SERVICE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return Ping(process)

    async def flows(self) -> None:
        """Wait until all pings are answered.

        Userland ESP has the CHILD_SA rekeyed where an address changes, by both ends, which may collide.
        """
        for _ in range(20):
            sent, answered = await (await self.ping(20)).result()
            if answered == sent:
                return
        raise AssertionError(f"{answered} of {sent} pings are answered")

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def demolish(self) -> None:
        with contextlib.suppress(Exception):
            await self._stack.aclose()
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait(10)
        for ns in (*(node.ns for node in self.nodes), self.router):
            run("ip", "netns", "del", ns, check=False)


def spis_of(sa: dict[str, Any]) -> IkeSpis:
    return IkeSpis(int(sa["initiator-spi"], 16), int(sa["responder-spi"], 16))


def children_of(sa: dict[str, Any]) -> set[int]:
    return {int(child["spi-in"], 16) for child in sa["child-sas"].values() if child["state"] == "INSTALLED"}
