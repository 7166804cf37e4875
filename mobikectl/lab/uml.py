"""Scenarios on a kernel with ESP where the machine's own has none: Debian's user-mode-linux.

The guest's root is this machine's own file system (hostfs), so it runs the same python and the same
charon; results and logs come back as files. It needs no virtualisation and boots in about three seconds.

A guest stays on one processor of this machine: it has one itself, and each system call in it is two switches
between processes of this machine. From processor to processor these cost three to five times as much as on one.
It also goes before other programs: leases run out in it while somebody compiles here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import LabError
from mobikectl.lab.processes import MARK, end_all, identify, marked
from mobikectl.lab.requirements import UML, require_uml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODULES = (
    "esp4 esp6 tun veth xfrm_user gcm authenc echainiv seqiv dummy sch_netem nf_tables nft_masq nft_numgen"
    " ip_tables iptable_nat xt_MASQUERADE"
)
MEMORY = "768M"
DONE = "MOBIKECTL-GUEST-DONE"
NICE = -10
"""Of a guest, which holds a whole network of machines: about nine times the share of another program."""

INIT = """#!/bin/sh
# The guest's first process: what a running system has, then the command, then off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /run/netns /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
# Its own view of the directory: other guests come and go on the same machine.
mkdir -p /lib/modules
mount -t tmpfs modules /lib/modules
ln -s {modules_dir} /lib/modules/
cd {directory}
modprobe -a {modules} 2>&1 || true
{command} </dev/null
echo "{done} $?"
sync
echo o > /proc/sysrq-trigger
sleep 10
"""


async def run_in_guest(
    argv: Sequence[str],
    *,
    deadline: float,
    environment: Sequence[str] = (),
    cpu: int | None = None,
    tell: Callable[[str], None],
) -> int:
    """Boot the guest, run a command in it, and return the command's exit code.

    ``environment``: names of variables to hand on; ``cpu``: the processor that the guest stays on (None: any one).
    Each line that the guest writes goes to `tell`.
    Raise LabError when user-mode-linux is missing, the guest dies, or `deadline` seconds are over.
    Nothing of the guest is left when this returns or is cancelled.
    """
    version = require_uml()
    with tempfile.TemporaryDirectory(prefix="mobikectl-uml-") as name:
        directory = Path(name)
        init = directory / "init"
        words = [f"{key}={os.environ[key]}" for key in environment if key in os.environ]
        command = shlex.join(["env", *words, *argv])
        init.write_text(
            INIT.format(
                directory=shlex.quote(str(Path.cwd())),
                modules_dir=shlex.quote(str(version)),
                modules=MODULES,
                command=command,
                done=DONE,
            )
        )
        init.chmod(0o700)
        chosen = random.choice(processors()) if cpu is None else cpu  # noqa: S311 (two guests better do not meet)
        return await _boot(init, directory, chosen, deadline, tell)


def processors() -> list[int]:
    """Return the processors that a guest can stay on."""
    return sorted(os.sched_getaffinity(0))


async def _boot(init: Path, directory: Path, cpu: int, deadline: float, tell: Callable[[str], None]) -> int:
    mark = directory.name
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", str(NICE), "taskset", "--cpu-list", str(cpu)),
        UML,
        f"mem={MEMORY}",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        f"init={init}",
        f"umid={mark}",
        f"uml_dir={directory}/uml",
        "quiet",
        "con=null",
        "con0=fd:0,fd:1",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {MARK: mark, "TMPDIR": str(_executable_tmpfs())},
        start_new_session=True,
    )
    _prefer(process.pid)
    output = process.stdout
    if output is None:
        raise LabError("user-mode-linux has no console", hint="please report it")
    code: int | None = None
    last = ""
    try:
        async with asyncio.timeout(deadline):
            async for raw in output:
                line = raw.decode(errors="replace").rstrip()
                if line.startswith(DONE):
                    code = int(line.split()[1])
                elif line:
                    last = line
                    tell(line)
            await process.wait()
    except TimeoutError:
        raise LabError(
            f"user-mode-linux: not at its end after {deadline:g} s; its last line: {last}",
            hint="run fewer scenarios at once",
        ) from None
    finally:
        me = identify(process.pid)
        end_all([who for who in (me, *marked(mark)) if who is not None], grace=0.2)
        await process.wait()
    if code is None:
        raise LabError(f"user-mode-linux ended early; its last line: {last}", hint="is there memory enough?")
    return code


def _prefer(pid: int) -> None:
    """Have a session go before others where the kernel shares processors out by session (sched(7), autogroup)."""
    with contextlib.suppress(OSError):  # it does not, or the process is gone: then its own niceness counts
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


def _executable_tmpfs() -> Path:
    """Return where user-mode-linux can put its memory: it maps a file there executable."""
    for path in (Path("/dev/shm"), Path("/run"), Path(tempfile.gettempdir())):  # noqa: S108 (the tmpfs itself is meant)
        if path.is_dir() and not os.statvfs(path).f_flag & os.ST_NOEXEC:
            return path
    raise LabError("user-mode-linux needs a directory without noexec", hint="mount -o remount,exec /dev/shm")


def own_command() -> list[str]:
    """Return the command line that runs this very mobikectl."""
    return [sys.executable, "-m", "mobikectl"]


def available() -> bool:
    """Whether user-mode-linux is installed."""
    return shutil.which(UML) is not None
