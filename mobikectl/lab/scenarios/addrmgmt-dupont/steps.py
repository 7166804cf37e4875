"""A peer address update, and one that is false."""

from ipaddress import ip_address

from mobikectl.bridge.speakers import pair_of
from mobikectl.bridge.translate import to_notifies
from mobikectl.lab.exchange import log_end, messages_since
from mobikectl.lab.run import Run
from mobikectl.lab.speaking import Speaker, speaking
from mobikectl.model import Path
from mobikectl.protocol.addrmgmt import Declined, SasUpdated
from mobikectl.wire.bridge import BridgeMark, Part, Spoken
from mobikectl.wire.dupont import (
    PeerAddressDestination,
    PeerAddressOperation,
    PeerAddressSource,
    PeerAddressUpdate,
)

GATEWAY, SECOND, NOBODY = (ip_address(text) for text in ("198.18.9.1", "198.18.2.1", "198.18.2.200"))


async def steps(run: Run) -> None:
    """Update to the second address; then claim an address that is none."""
    start = log_end(run.lab, "client")
    async with (
        speaking(run, "gateway", Spoken.DUPONT) as gateway,
        speaking(run, "client", Spoken.DUPONT) as client,
    ):
        there = run.cause("client: updates to 198.18.2.1")
        await client.only(Spoken.DUPONT).ask(
            lambda machine, now: machine.update(pair_of(Path(SECOND, GATEWAY)), now)
        )
        run.record("client_updated", str((await client.until(SasUpdated)).pair.path))
        run.record("gateway_updated", str((await gateway.until(SasUpdated)).pair.path))
        await run.served("home", "198.18.2.1", "198.18.9.1", after=there, metric="updated_ms")
        await run.traffic(0.5)
        messages = messages_since(run.lab, "client", start)
        run.show("draft-dupont-ikev2-addrmgmt-06, seen by the client", messages)
        cookies = {message.outgoing for message in messages if "N(RR_COOKIE)" in message.payloads}
        run.record("cookie", "sent and returned" if cookies == {True, False} else "missing")
        run.cause("client: claims 198.18.2.200")
        await claim(client)
        run.record("declined", str((await gateway.until(Declined)).address))
        await run.traffic(0.5)


async def claim(client: Speaker) -> None:
    """Send what an honest machine would not: an update to an address of nobody's."""
    update = (
        PeerAddressUpdate(all_sas=True),
        PeerAddressSource(NOBODY, PeerAddressOperation.MARK),
        PeerAddressDestination(GATEWAY, PeerAddressOperation.MARK),
    )
    notifies = to_notifies(Spoken.DUPONT, update, BridgeMark(Spoken.DUPONT, Part.REQUEST))
    await client.plugin.send_notify(client.only(Spoken.DUPONT).sa.uniqueid, notifies)
