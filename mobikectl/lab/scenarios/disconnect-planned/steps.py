"""A silence that was announced."""

import json
import sys
from typing import Any

from mobikectl.bridge.planned import end
from mobikectl.charon.rmobike import Rmobike
from mobikectl.charon.session import Session
from mobikectl.errors import LabError
from mobikectl.lab.exchange import log_end, messages_since
from mobikectl.lab.run import Cause, Run
from mobikectl.lab.wait import until

SILENCE_S = 4.0
WAIT_S = 10.0


async def steps(run: Run) -> None:
    """Announce, be silent, come back."""
    refused = await disconnect(run, "--for", "3600")
    run.record("an_hour", refused["outcome"])
    run.record("most_s", refused["most_s"])
    start = log_end(run.lab, "client")
    asked = run.cause("client: announces 29 s of silence")
    run.record("a_while", (await disconnect(run, "--for", "29"))["outcome"])
    run.record("announced_s", (await told(run, "peer-away", since=asked))["data"]["seconds"])
    await run.drop("router", "from 198.18.1.1")
    await run.traffic(0.2)
    silent = run.cause("client: is silent")
    quiet = log_end(run.lab, "gateway")
    await run.traffic(SILENCE_S)
    run.record("asked_meanwhile", len(messages_since(run.lab, "gateway", quiet)))
    run.record("passed", run.answered("home", since=silent))
    await run.undrop("router")
    back = run.cause("client: is back")
    run.record("end", await end_silence(run))
    run.show(
        "draft-kivinen-mobike-protocol-00 section 5, seen by the client",
        messages_since(run.lab, "client", start),
    )
    await told(run, "peer-back", since=back)
    run.record("peer_back", len(run.told("gateway", "peer-back", since=back)))
    await run.traffic(0.5)
    await run.losses("home", since=back, metric="lost_afterwards")


async def told(run: Run, name: str, *, since: Cause) -> dict[str, Any]:
    """Wait until the gateway's sidecar tells of its peer, which it does after it has answered, and return the event."""

    async def some() -> bool:
        return bool(run.told("gateway", name, since=since))

    await until(some, within=WAIT_S, what=f"the gateway's sidecar tells {name}", every=0.01)
    return run.told("gateway", name, since=since)[-1]


async def end_silence(run: Run) -> str:
    """Do what ``mobikectl disconnect --end`` does, without the seconds that a busy machine takes to start it."""
    charon = Session(run.lab.vici_socket("client"), timeout=WAIT_S)
    async with charon, Rmobike(run.lab.plugin_socket("client"), timeout=WAIT_S) as plugin:
        (found,) = await end(charon, plugin, only=lambda _: True, timeout_s=WAIT_S)
    return found.outcome.value


async def disconnect(run: Run, *how: str) -> dict[str, Any]:
    """Run ``mobikectl disconnect`` on the client and return what it says of the IKE_SA. Raise LabError."""
    argv = (sys.executable, "-m", "mobikectl", "disconnect", *how, "--json")
    said = await run.lab.run_in("client", *argv, deadline=50, check=False)
    try:
        (found,) = json.loads(said)
    except ValueError:
        raise LabError(f"disconnect said {said.strip()[-300:]}", hint="see charon.log") from None
    return dict(found)
