"""Two real charons with the plugin, a router between them, all in network namespaces of their own.

    client 198.18.1.2, 198.18.3.2 -- router -- 198.18.2.10, 198.18.2.11, 198.18.2.12 gateway
    client 2001:db8:1::2          -- router -- 2001:db8:2::10, 2001:db8:2::11        gateway

Inside the tunnel: 198.19.1.1 (client) and 198.19.2.1 (gateway), on their loopback interfaces.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.charon.rmobike_events import EVENT_NAMES
from mobikectl.charon.session import Event, EventGap, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "build" / "plugin" / "libstrongswan-rmobike.so"
WITH_PLUGIN = ROOT / "charon-plugin" / "with-plugin"
CHARON = "/usr/lib/ipsec/charon"
BASE_PLUGINS = (
    "random nonce openssl pem x509 pubkey kdf hmac sha1 sha2 aes gcm curve25519"
    " kernel-libipsec kernel-netlink socket-default vici"
)
BOOT_S = 30.0


def run(*command: str, check: bool = True) -> str:
    """Run a command for at most a minute and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


@dataclass
class Node:
    """A namespace with a charon in it."""

    name: str
    ns: str
    directory: Path
    plugin: bool = True
    plugin_file: Path = PLUGIN
    follow_plugin: bool = True
    settings: str = ""
    """More lines for `charon { plugins { rmobike { ... } } }`."""
    charon_settings: str = ""
    wrapper: tuple[str, ...] = ()
    preload: str = ""
    process: subprocess.Popen[bytes] | None = None
    events: list[Event] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> str:
        return (self.directory / "charon.log").read_text(errors="replace")

    def shell(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.ns, *command, check=check)

    @property
    def vici(self) -> Session:
        return Session(self.directory / "vici", timeout=20.0, peer=f"{self.name}'s charon")

    @property
    def control(self) -> Session:
        return Session(
            self.directory / "rmobike", timeout=20.0, peer=f"{self.name}'s plugin", heartbeat="status"
        )

    async def start(self) -> None:
        load = BASE_PLUGINS + (" rmobike" if self.plugin else "")
        conf = self.directory / "strongswan.conf"
        conf.write_text(
            f"""charon {{
              load = {load}
              install_virtual_ip = no
              retransmit_timeout = 1.0
              retransmit_tries = 4
              {self.charon_settings}
              filelog {{ log {{ path = {self.directory}/charon.log
                               default = 1
                               flush_line = yes
                               time_format = %T }} }}
              plugins {{
                vici {{ socket = unix://{self.directory}/vici }}
                rmobike {{ socket = unix://{self.directory}/rmobike
                          {self.settings} }}
              }}
            }}"""
        )
        (self.directory / "charon.log").touch()
        charon = " ".join((*self.wrapper, CHARON))
        if self.preload:
            charon = f"env LD_PRELOAD={self.preload} {charon}"
        if self.plugin:
            plugin = self.plugin_file
            charon = f"{WITH_PLUGIN} {plugin} {charon}"
        out = (self.directory / "charon.out").open("wb")
        self.process = subprocess.Popen(  # noqa: ASYNC220 - the start of a process blocks for a moment only
            [
                "ip",
                "netns",
                "exec",
                self.ns,
                "unshare",
                "-m",
                "sh",
                "-c",
                f"mount -t tmpfs t /run; exec {charon}",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "STRONGSWAN_CONF": str(conf), "ASAN_OPTIONS": "detect_leaks=0:exitcode=99"},
        )
        out.close()
        deadline = time.monotonic() + BOOT_S * (4 if self.wrapper else 1)
        while True:
            assert self.process.poll() is None, f"charon of {self.name} ended:\n{self.log}\n{self.output}"
            try:
                async with self.vici as session:
                    await session.request("version")
                break
            except Exception:  # noqa: BLE001 - not there yet, whatever the reason: the deadline decides
                assert time.monotonic() < deadline, f"charon of {self.name} does not come up:\n{self.log}"
                await asyncio.sleep(0.1)
        if self.plugin and self.follow_plugin:
            await self._follow(self.control, EVENT_NAMES)
        await self._follow(self.vici, ["ike-updown", "ike-rekey", "ike-update", "child-rekey"])

    @property
    def output(self) -> str:
        return (self.directory / "charon.out").read_text(errors="replace")

    async def _follow(self, session: Session, names: Iterable[str]) -> None:
        ready = asyncio.Event()

        async def follow() -> None:
            async with aclosing(session.events(names)) as events:
                async for event in events:
                    if isinstance(event, EventGap):
                        ready.set()
                    elif isinstance(event, Event):
                        self.events.append(event)
                        self._news.set()

        self._tasks.append(asyncio.create_task(follow()))
        await asyncio.wait_for(ready.wait(), 20)

    async def stop(self) -> int | None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self.process.wait, 60 if self.wrapper else 20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                await asyncio.to_thread(self.process.wait, 20)
        return self.process.returncode

    async def load(
        self, me: str, other: str, remote: str, local_ts: str, remote_ts: str, **options: Any
    ) -> None:
        """Load the connection ``vpn`` with the CHILD_SA ``net``, and its secret."""
        async with self.vici as session:
            await session.request(
                "load-shared",
                {"id": "psk", "type": "IKE", "data": "a secret of the lab", "owners": ["client", "gateway"]},
            )
            connection = {
                "version": "2",
                "remote_addrs": [remote],
                "proposals": ["aes128-sha256-x25519"],
                "local": {"auth": "psk", "id": me},
                "remote": {"auth": "psk", "id": other},
                "children": {
                    "net": {
                        "local_ts": [local_ts],
                        "remote_ts": [remote_ts],
                        "esp_proposals": ["aes128gcm16"],
                        "rekey_time": "0",
                    }
                },
                "rekey_time": "0",
                **options,
            }
            await session.request("load-conn", {"vpn": connection})

    async def initiate(self) -> None:
        """Bring the connection up."""
        async with self.vici as session:
            await session.request("initiate", {"child": "net", "ike": "vpn", "timeout": "-1"})
        await self.event("ike-updown", up="yes")

    async def command(self, name: str, /, **args: Any) -> dict[str, Any]:
        """Send a command to the plugin; underscores in names stand for hyphens."""
        async with self.control as session:
            return await session.request(name, {key.replace("_", "-"): value for key, value in args.items()})

    async def event(
        self, name: str, *, since: int = 0, timeout: float = 30.0, **fields: str
    ) -> dict[str, Any]:
        """Wait for an event of this name whose fields have these values, and return its text fields."""
        deadline = time.monotonic() + timeout
        while True:
            self._news.clear()
            for event in self.events[since:]:
                found = text(event.message)
                if event.name == name and all(found.get(k.replace("_", "-")) == v for k, v in fields.items()):
                    return found
            rest = deadline - time.monotonic()
            try:
                await asyncio.wait_for(self._news.wait(), max(rest, 0.01))
            except TimeoutError:
                seen = [(event.name, brief(event.message)) for event in self.events[since:]]
                raise AssertionError(
                    f"{self.name}: no {name} {fields}; seen {seen}\n{self.log[-6000:]}"
                ) from None

    def names(self, since: int = 0) -> list[str]:
        return [event.name for event in self.events[since:]]

    async def sas(self) -> list[dict[str, Any]]:
        found = []
        async with self.vici as session, aclosing(session.stream("list-sas", "list-sa")) as stream:
            async for message in stream:
                found += [{"name": name, **text(sa)} for name, sa in message.items()]
        return found

    async def sa(self, **fields: str) -> dict[str, Any]:
        """Wait until exactly one IKE_SA is established (a rekeying may be under way), and return it.

        With fields, until it also has these values.
        """
        deadline = time.monotonic() + 30
        while True:
            found = [sa for sa in await self.sas() if sa["state"] == "ESTABLISHED"]
            if len(found) == 1 and all(found[0][k.replace("_", "-")] == v for k, v in fields.items()):
                return found[0]
            assert time.monotonic() < deadline, f"{self.name}: not one IKE_SA: {found}\n{self.log[-3000:]}"
            await asyncio.sleep(0.1)


def brief(message: dict[str, Any]) -> dict[str, Any]:
    """Given a VICI message, return its text fields alone."""
    return {key: value for key, value in text(message).items() if isinstance(value, str)}


def text(message: dict[str, Any]) -> dict[str, Any]:
    """Given a VICI message, return it with text for bytes."""
    return {
        key: value.decode(errors="replace")
        if isinstance(value, bytes)
        else text(value)
        if isinstance(value, dict)
        else value
        for key, value in message.items()
    }


class Routed:
    """A lab whose nodes meet at a router, which can be told what to let through."""

    router: str

    def nft(self, rules: str) -> None:
        """Load nftables rules into the router."""
        command = ["ip", "netns", "exec", self.router, "nft", "-f", "-"]
        subprocess.run(command, input=rules.encode(), check=True, timeout=30)

    def strict_nat(self, translate: str, inwards: str) -> None:
        """Translate what a rule says; what goes inwards has to be an answer."""
        self.nft(
            f"""table ip nat {{
                  chain post {{
                    type nat hook postrouting priority 100
                    {translate}
                  }}
                }}
                table ip guard {{
                  chain passing {{
                    type filter hook forward priority 0
                    {inwards} ct state {{ established, related }} accept
                    {inwards} drop
                  }}
                }}
            """
        )

    def block(self, address: str, *, answers: bool = True) -> None:
        """Drop what goes to an address, and (``answers``) what comes from it."""
        self.nft(
            f"""table ip dead {{
                  chain passing {{
                    type filter hook forward priority -10
                    ip daddr {address} drop
                    {f"ip saddr {address} drop" if answers else ""}
                  }}
                }}
            """
        )


class Lab(Routed):
    """The namespaces, and what is in them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tag = f"rm{os.getpid() % 100000}{secrets.token_hex(2)}"
        self.router = f"{self.tag}r"
        self.client = self._node("client", "c")
        self.gateway = self._node("gateway", "g")

    def _node(self, name: str, letter: str) -> Node:
        directory = self.directory / name
        directory.mkdir()
        return Node(name, self.tag + letter, directory)

    def build(self) -> None:
        client, gateway, router = self.client.ns, self.gateway.ns, self.router
        for ns in (client, gateway, router):
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        for ns in (client, gateway, router):
            for key in ("all", "default"):
                run("ip", "netns", "exec", ns, "sysctl", "-qw", f"net.ipv4.conf.{key}.rp_filter=0",
                    f"net.ipv6.conf.{key}.accept_dad=0", f"net.ipv6.conf.{key}.forwarding=1")  # fmt: skip
        run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._link(client, "a0", "198.18.1.2/24", "2001:db8:1::2/64", "198.18.1.1", "2001:db8:1::1", 100)
        self._link(client, "a1", "198.18.3.2/24", "2001:db8:3::2/64", "198.18.3.1", "2001:db8:3::1", 200)
        self._link(gateway, "b0", "198.18.2.10/24", "2001:db8:2::10/64", "198.18.2.1", "2001:db8:2::1", 100)
        for address in ("198.18.2.11/24", "198.18.2.12/24", "2001:db8:2::11/64"):
            run("ip", "-n", gateway, "addr", "add", address, "dev", "b0")
        run("ip", "-n", client, "addr", "add", "198.19.1.1/32", "dev", "lo")
        run("ip", "-n", gateway, "addr", "add", "198.19.2.1/32", "dev", "lo")

    def _link(self, ns: str, dev: str, v4: str, v6: str, gw4: str, gw6: str, metric: int) -> None:
        run("ip", "-n", ns, "link", "add", dev, "type", "veth", "peer", "name", dev, "netns", self.router)
        for where, address4, address6 in ((ns, v4, v6), (self.router, f"{gw4}/24", f"{gw6}/64")):
            run("ip", "-n", where, "link", "set", dev, "up")
            run("ip", "-n", where, "addr", "add", address4, "dev", dev)
            run("ip", "-n", where, "addr", "add", address6, "dev", dev)
        run("ip", "-n", ns, "route", "add", "default", "via", gw4, "dev", dev, "metric", str(metric))
        run("ip", "-n", ns, "-6", "route", "add", "default", "via", gw6, "dev", dev, "metric", str(metric))

    def masquerade(self) -> None:
        """Put the client behind a strict NAT."""
        self.strict_nat('oifname "b0" masquerade', 'iifname "b0"')

    async def connect(self, remote: str = "198.18.2.10", **options: Any) -> None:
        """Load the connection on both sides and bring it up."""
        await self.load_pair(remote, **options)
        await self.client.initiate()

    async def load_pair(self, remote: str = "198.18.2.10", **options: Any) -> None:
        """Load the connection on both sides; options are the client's."""
        await self.gateway.load("gateway", "client", "%any", "198.19.2.1/32", "198.19.1.1/32")
        await self.client.load("client", "gateway", remote, "198.19.1.1/32", "198.19.2.1/32", **options)

    async def ping(self, count: int) -> Ping:
        """Start a ping through the tunnel, one each 10 ms."""
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.client.ns, "ping", "-i", "0.01", "-c", str(count), "-W", "2", "-q",
            "-I", "198.19.1.1", "198.19.2.1",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return Ping(process)

    async def stop(self) -> None:
        await self.client.stop()
        await self.gateway.stop()

    def demolish(self) -> None:
        for node in (self.client, self.gateway):
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait(10)
        for ns in (self.client.ns, self.gateway.ns, self.router):
            run("ip", "netns", "del", ns, check=False)


class Ping:
    """A running ping."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def result(self) -> tuple[int, int]:
        """Wait for its end and return how many were sent and how many were answered."""
        out, _ = await asyncio.wait_for(self._process.communicate(), 90)
        found = re.search(rb"(\d+) packets transmitted, (\d+) received", out)
        assert found, out
        return int(found[1]), int(found[2])


def missing() -> str:
    """Return why the lab cannot be built here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "nft", "ping", CHARON):
        if not shutil.which(tool):
            return f"needs {tool}"
    if not PLUGIN.exists():
        return "needs the plugin: make plugin"
    return ""
