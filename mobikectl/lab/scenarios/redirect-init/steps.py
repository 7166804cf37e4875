"""A new client is sent to another gateway in IKE_SA_INIT."""

from ipaddress import ip_address

from mobikectl.charon.rmobike import RedirectAnswer, RedirectExchange, Rmobike
from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Set the answer, let the client come anew, and wait until it is served by the second gateway."""
    async with Rmobike(run.lab.plugin_socket("gateway1")) as plugin:
        answer = RedirectAnswer(ip_address("198.18.10.1"))
        await plugin.set_redirect(RedirectExchange.IKE_SA_INIT, answer)
    again = await run.reconnect("client", "home")
    await run.served("home", "198.18.1.1", "198.18.10.1", after=again, metric="redirected_ms")
    await run.traffic(0.5)
    told = [event for _, event in run.journal.sidecar_events if event["name"] == "redirected"]
    run.record("redirected", sum(event["data"]["exchange"] == "IKE_SA_INIT" for event in told))
