"""Run inside a network namespace: probe one path as told by the JSON in argv, print the result as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from ipaddress import ip_address
from pathlib import Path as File

from mobikectl.model import Path
from mobikectl.policy.settings import ProbeMethod, ProbeSettings
from mobikectl.policy.state import ProbePath
from mobikectl.probe import probe


async def main() -> None:
    told = json.loads(sys.argv[1])
    settings = ProbeSettings(
        method=ProbeMethod(told["method"]),
        port=told.get("port"),
        count=told.get("count", 1),
        timeout_s=told.get("timeout_s", 5.0),
    )
    path = Path(ip_address(told["local"]), ip_address(told["remote"]))
    before = len(list(File("/proc/self/fd").iterdir()))
    found = await probe(ProbePath(path, told.get("link", ""), settings, time.monotonic() + settings.round_s))
    leaked = len(list(File("/proc/self/fd").iterdir())) - before
    sys.stdout.write(
        json.dumps(
            {
                "sent": found.sent,
                "received": found.received,
                "answered": found.answered,
                "error": found.error.value if found.error else None,
                "detail": found.detail,
                "leaked": leaked,
            }
        )
    )


asyncio.run(main())
