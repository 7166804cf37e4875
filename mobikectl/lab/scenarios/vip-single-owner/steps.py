"""Each client keeps its virtual IP, whichever gateway serves it, and the inside router follows."""

import asyncio
import contextlib
import json
from ipaddress import ip_address
from pathlib import Path

from mobikectl.lab import measure, vici
from mobikectl.lab.capture import Pinger
from mobikectl.lab.run import Run
from mobikectl.lab.wait import until

POOL, INSIDE = "inside", "198.19.10.0/24"
ROUTER = ip_address("198.19.10.1")
GATEWAYS = {"gateway1": ("198.18.9.1", "198.19.1.1"), "gateway2": ("198.18.11.1", "198.19.2.1")}
FIRST, LATER = ("one", "two", "three"), ("four", "five", "six")


async def steps(run: Run) -> None:
    """Redirect all, let others come, move one back live."""
    cluster = run.the_cluster
    await _bird(run)
    for node in GATEWAYS:
        await _stocked(run, node)
    for client in (*FIRST, *LATER):
        await _load(run, client)
    for client in FIRST:
        await _connect(run, client)
    before = await _vips(run, "gateway1")
    for vip in before.values():
        await _routed(run, vip, "gateway1")
    pinger = Pinger(run.lab.namespace("mgmt"), ROUTER, ip_address(before["one"]), interval=0.05)
    with contextlib.ExitStack() as pinging:
        pinging.enter_context(pinger)
        await run.traffic(1.0)
        run.cause("drain gateway1 by redirects")
        drain = ("drain", "gateway1", "--mechanism", "redirect", "--timeout", "30", "--wait")
        await cluster.mobikectl("gateway2", *drain)
        after = await _vips(run, "gateway2")
        run.record("kept.redirect", sum(after.get(client) == vip for client, vip in before.items()))
        run.record("route.redirect", await _routed(run, before["one"], "gateway2"))
        await cluster.mobikectl("gateway2", "undrain", "gateway1")
        await cluster.quiet(1.0)
        run.cause("others come to gateway1")
        for client in LATER:
            await _connect(run, client)
        served = [*(await _vips(run, "gateway1")).items(), *(await _vips(run, "gateway2")).items()]
        run.record("vips_twice", len(served) - len({vip for _, vip in served}))
        await cluster.carrying({"gateway1": len(LATER), "gateway2": len(FIRST)})
        run.cause("move one back, live")
        order = ("move", "--peer-id", _id("one"), "--to", "gateway1", "--wait", "--json")
        said = json.loads(await cluster.mobikectl("gateway2", *order, check=False))
        run.record("move", "verified" if said["good"] else "not verified")
        now = await _vips(run, "gateway1")
        run.record("kept.move", int(now.get("one") == before["one"]))
        run.record("route.move", await _routed(run, before["one"], "gateway1"))
        await run.traffic(1.0)
    run.record("inside.answered_at_the_end", "yes" if pinger.pings[-5].received is not None else "no")
    for name, value in measure.ping_metrics(pinger.pings).items():
        run.record(f"inside.{name}", value)
    run.record("routes_of_nobody", await _routes_of_nobody(run))


async def _bird(run: Run) -> None:
    for number, (node, (_, address)) in enumerate(GATEWAYS.items(), 1):
        values = {"$ADDRESS": address, "$AS": f"6500{number}", "$ROUTER": f"198.19.{number}.254"}
        text = (Path(__file__).parent / "bird-gateway.conf").read_text()
        for name, value in values.items():
            text = text.replace(name, value)
        _start_bird(run, node, text)
    _start_bird(run, "mgmt", (Path(__file__).parent / "bird-router.conf").read_text())

    async def established() -> bool:
        said = await run.lab.run_in("mgmt", "birdc", "-s", "/run/bird.ctl", "show", "protocols", check=False)
        return said.count("Established") == len(GATEWAYS)

    await until(established, within=20.0, what="the routers speak BGP", every=0.2)


async def _stocked(run: Run, node: str) -> None:
    """Wait until a gateway's charon has addresses that it can give."""
    path = run.lab.plugin_socket(node)

    def listed() -> int:
        said = vici.call(path, lambda s: list(s.streamed_request("list-addresses", "list-address")))
        return len(said)

    async def some() -> bool:
        return await asyncio.to_thread(listed) > 0

    await until(some, within=30.0, what=f"{node} has addresses to give", every=0.2)


def _start_bird(run: Run, node: str, text: str) -> None:
    (run.lab.record.node_dir(node) / "bird.conf").write_text(text)
    run.lab.start(
        node, "bird", ["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"]
    )


def _id(client: str) -> str:
    return f"{client}.lab.example"


async def _load(run: Run, client: str) -> None:
    """The connection of one client at itself and at all gateways."""
    secret: dict[str, object] = {
        "id": client,
        "type": "IKE",
        "data": "a secret of the lab",
        "owners": [_id(client), "gateways"],
    }
    common = {"version": "2", "proposals": ["aes128-sha256-x25519"], "mobike": "yes"}
    child = {"esp_proposals": ["aes128gcm16"]}
    us = {"auth": "psk", "id": _id(client)}
    them = {"auth": "psk", "id": "gateways"}
    at_client: dict[str, object] = {
        **common,
        "local_addrs": ["198.18.1.1"],
        "remote_addrs": ["198.18.9.1"],
        "vips": ["0.0.0.0"],  # noqa: S104 - any virtual IP
        "local": us,
        "remote": them,
        "children": {client: {**child, "remote_ts": [INSIDE]}},
    }
    await asyncio.to_thread(_load_one, run.lab.vici_socket("clients"), secret, {client: at_client})
    for node, (address, _) in GATEWAYS.items():
        at_gateway: dict[str, object] = {
            **common,
            "local_addrs": [address],
            "remote_addrs": ["%any"],
            "pools": [POOL],
            "local": them,
            "remote": us,
            "children": {client: {**child, "local_ts": [INSIDE]}},
        }
        await asyncio.to_thread(_load_one, run.lab.vici_socket(node), secret, {client: at_gateway})


def _load_one(socket: Path, secret: dict[str, object], connection: dict[str, object]) -> None:
    vici.call(socket, lambda session: session.load_shared(secret))
    vici.call(socket, lambda session: session.load_conn(connection))


async def _connect(run: Run, client: str) -> None:
    await asyncio.to_thread(vici.initiate, run.lab.vici_socket("clients"), client)


async def _vips(run: Run, node: str) -> dict[str, str]:
    """The virtual IPs of the clients that a gateway serves."""
    listed = await asyncio.to_thread(vici.list_sas, run.lab.vici_socket(node))
    return {name: sa["remote-vips"][0] for name, sa in listed if sa["state"] == "ESTABLISHED"}


async def _routed(run: Run, vip: str, node: str) -> str:
    """Wait until the inside router sends a virtual IP's packets to a gateway; return the gateway."""
    hop = GATEWAYS[node][1]

    async def there() -> bool:
        return f"via {hop} " in await run.lab.run_in("mgmt", "ip", "route", "show", vip)

    await until(there, within=20.0, what=f"the inside router sends {vip} to {node}", every=0.05)
    return node


async def _routes_of_nobody(run: Run) -> int:
    """How many host routes the gateways have of virtual IPs that they do not serve, or serve without one."""
    wrong = 0
    for node in GATEWAYS:
        vips = set((await _vips(run, node)).values())
        lines = await run.lab.run_in(node, "ip", "route", "show", "proto", "110")
        wrong += len(vips ^ {line.split()[0] for line in lines.splitlines() if line})
    return wrong
