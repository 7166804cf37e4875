"""Two real charons, each in a network namespace of its own, with userland ESP and a shared secret.

client 198.18.1.1, .2  --veth--  198.18.1.254 gateway
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARON = Path("/usr/lib/ipsec/charon")
PLUGINS = (
    "random nonce openssl pem pkcs1 x509 pubkey revocation constraints kdf hmac sha2 aes gcm curve25519"
    " kernel-libipsec kernel-netlink socket-default vici counters"
)


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Node:
    """A charon in a namespace."""

    name: str
    netns: str
    home: Path
    settings: str = ""
    process: subprocess.Popen[bytes] | None = None
    shell_pids: list[int] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.home / "vici"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def ip(self, *args: str) -> str:
        return run("ip", "-n", self.netns, *args)

    def start(self) -> None:
        conf = self.home / "strongswan.conf"
        conf.write_text(
            "charon {\n"
            f"  load = {PLUGINS}\n"
            "  install_virtual_ip = no\n  prefer_best_path = yes\n"
            "  retransmit_timeout = 0.5\n  retransmit_base = 1.2\n"
            f"{self.settings}"
            f"  filelog {{ out {{ path = {self.log}\n default = 1\n ike = 1\n flush_line = yes\n }} }}\n"
            f"  plugins {{ vici {{ socket = unix://{self.socket} }} }}\n"
            "}\n"
        )
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.netns, "unshare", "-m", "sh", "-c",
             f"mount -t tmpfs t /run && exec {CHARON}"],
            env={**os.environ, "STRONGSWAN_CONF": str(conf)},
            stdout=subprocess.DEVNULL, stderr=(self.home / "stderr").open("ab"),
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"charon of {self.name} did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal; when it stops charon, return only when all its threads stand still."""
        assert self.process is not None
        self.process.send_signal(number)
        deadline = time.monotonic() + 10
        while number == signal.SIGSTOP and not self._stands_still():
            assert time.monotonic() < deadline, "charon does not stop"
            time.sleep(0.01)

    def _stands_still(self) -> bool:
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)

    def delete(self) -> None:
        self.kill()
        run("ip", "netns", "del", self.netns, check=False)


@dataclass
class Pair:
    client: Node
    gateway: Node


@contextmanager
def two_charons(home: Path) -> Iterator[Pair]:
    tag = f"{os.getpid() % 100000}{secrets.token_hex(2)}"
    with ExitStack() as stack:
        nodes = []
        for name in ("client", "gateway"):
            directory = home / name
            directory.mkdir()
            node = Node(name, f"mkc{name[0]}{tag}", directory)
            run("ip", "netns", "add", node.netns)
            stack.callback(node.delete)
            node.ip("link", "set", "lo", "up")
            nodes.append(node)
        client, gateway = nodes
        run("ip", "-n", client.netns, "link", "add", "net0", "type", "veth", "peer", "name", "net0",
            "netns", gateway.netns)  # fmt: skip
        for node, addresses in (
            (client, ["198.18.1.1/24", "198.18.1.2/24"]),
            (gateway, ["198.18.1.254/24"]),
        ):
            for address in addresses:
                node.ip("addr", "add", address, "dev", "net0")
            node.ip("link", "set", "net0", "up")
        client.ip("addr", "add", "198.19.0.1/32", "dev", "lo")
        gateway.ip("addr", "add", "198.19.1.1/32", "dev", "lo")
        for node in nodes:
            node.start()
        yield Pair(client, gateway)


def client_conn() -> dict[str, Any]:
    any_vip = "0.0.0.0"  # noqa: S104 - asks for a virtual IP
    return _conn("client", "gateway", "198.18.1.254", vips=[any_vip])


def gateway_conn() -> dict[str, Any]:
    return _conn("gateway", "client", "%any", pools=["pool"])


def _conn(local: str, remote: str, address: str, **more: list[str]) -> dict[str, Any]:
    """The connection `home` with the child `net`."""
    side = "local_ts" if local == "gateway" else "remote_ts"
    return {
        "home": {
            "version": "2",
            "remote_addrs": [address],
            "proposals": ["aes128gcm16-prfsha256-x25519"],
            "mobike": "yes",
            "fragmentation": "yes",
            "local": {"auth": "psk", "id": f"{local}.example"},
            "remote": {"auth": "psk", "id": f"{remote}.example"},
            **more,
            "children": {"net": {"esp_proposals": ["aes128gcm16"], side: ["198.19.1.0/24"]}},
        }
    }
