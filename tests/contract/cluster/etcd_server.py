"""A real etcd (Debian's etcd-server) of one member on loopback, for one test or module."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.settings import EtcdSettings

if TYPE_CHECKING:
    from pathlib import Path

READY = "ready to serve client requests"
USER, PASSWORD, ROOT_PASSWORD = "mobikectl", "correct-horse", "root-of-etcd"
START_S = 60.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class EtcdServer:
    """One etcd process and what is needed to start it again on the same data."""

    path: Path
    secure: bool = False
    timeout_s: float = 2.0
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def settings(self, **more: Any) -> EtcdSettings:
        if not self.secure:
            return EtcdSettings((self.endpoint,), self.timeout_s, **more)
        return EtcdSettings(
            (self.endpoint,),
            self.timeout_s,
            tls=True,
            ca=self.path / "ca.pem",
            certificate=self.path / "client.pem",
            key=self.path / "client.key",
            user=USER,
            password_file=self.path / "password",
        )

    def prepare(self) -> EtcdServer:
        """Make the data directory and, for a secure one, its certificates."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.secure:
            make_certificates(self.path)
            (self.path / "password").write_text(PASSWORD + "\n")
        return self

    def start(self) -> EtcdServer:
        scheme = "https" if self.secure else "http"
        client, peer = (f"127.0.0.1:{port}" for port in self.ports)
        log = self.path / "etcd.log"
        offset = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "etcd", "--name", "test"),
                    *("--data-dir", str(self.path / "data")),
                    *("--listen-client-urls", f"{scheme}://{client}"),
                    *("--advertise-client-urls", f"{scheme}://{client}"),
                    *("--listen-peer-urls", f"http://{peer}"),
                    *("--initial-advertise-peer-urls", f"http://{peer}"),
                    *("--initial-cluster", f"test=http://{peer}"),
                    *(self._tls() if self.secure else ()),
                ],
                stdout=output,
                stderr=output,
                env={"PATH": os.environ["PATH"], "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )
        deadline = time.monotonic() + START_S
        while READY not in log.read_bytes()[offset:].decode(errors="replace"):
            assert self.process.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.02)
        return self

    def _tls(self) -> tuple[str, ...]:
        return (
            *("--cert-file", str(self.path / "server.pem"), "--key-file", str(self.path / "server.key")),
            *("--trusted-ca-file", str(self.path / "ca.pem"), "--client-cert-auth"),
        )

    def enable_auth(self) -> None:
        """Give the user its own role on the prefix, and turn authentication on."""
        for words in (
            ("user", "add", f"root:{ROOT_PASSWORD}"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "cluster"),
            ("role", "grant-permission", "cluster", "--prefix=true", "readwrite", "/mobikectl/"),
            ("user", "add", f"{USER}:{PASSWORD}"),
            ("user", "grant-role", USER, "cluster"),
            ("auth", "enable"),
        ):
            self.etcdctl(*words)

    def forget_tokens(self) -> None:
        """Set the same password again: etcd forgets the tokens it gave out for it (a restart brings them back)."""
        root = f"root:{ROOT_PASSWORD}"
        self.etcdctl("--user", root, "user", "passwd", "--interactive=false", USER, given=PASSWORD)

    def etcdctl(self, *words: str, given: str = "") -> str:
        tls = (
            *("--cacert", str(self.path / "ca.pem")),
            *("--cert", str(self.path / "client.pem"), "--key", str(self.path / "client.key")),
        )
        done = subprocess.run(
            ["etcdctl", "--endpoints", self.endpoint, *(tls if self.secure else ()), *words],
            env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
            input=given,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            self.process = None


def make_certificates(path: Path) -> None:
    """A CA, a server for 127.0.0.1 and a client, by strongSwan's own tool."""

    def pki(*words: str, output: str) -> None:
        made = subprocess.run(
            ["pki", *words, "--outform", "pem"], capture_output=True, timeout=60, check=True
        )
        (path / output).write_bytes(made.stdout)

    for name in ("ca", "server", "client"):
        pki("--gen", "--type", "ecdsa", "--size", "256", output=f"{name}.key")
    ca = ("--cacert", str(path / "ca.pem"), "--cakey", str(path / "ca.key"))
    subject = ("--self", "--ca", "--type", "ecdsa", "--in", str(path / "ca.key"), "--dn", "CN=test CA")
    pki(*subject, output="ca.pem")
    for name, flag in (("server", "serverAuth"), ("client", "clientAuth")):
        key = ("--issue", "--type", "priv", "--in", str(path / f"{name}.key"), *ca)
        names = ("--dn", f"CN={name}", "--san", "127.0.0.1", "--flag", "serverAuth", "--flag", flag)
        pki(*key, *names, output=f"{name}.pem")
