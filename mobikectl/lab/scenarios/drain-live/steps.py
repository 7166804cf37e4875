"""A gateway is emptied by carrying its IKE_SAs over, as an operator does it."""

import json
import time

from mobikectl.lab.run import REPLY_TIME, Run

CLIENTS = 50


async def steps(run: Run) -> None:
    """Drain on the other gateway, wait for the end as the command does, undo it, and move one client back by name."""
    cluster, fleet = run.the_cluster, run.fleets["fleet"]
    await cluster.carrying({"gateway1": CLIENTS, "gateway2": 0})
    before = await fleet.spis()
    began = run.cause("drain gateway1")
    said = await cluster.mobikectl(
        "gateway2", "drain", "gateway1", "--timeout", "110", "--wait", "--json", deadline=120.0
    )
    run.record("drain", json.loads(said)["end"])
    cluster.refresh()
    verified = [move for move in cluster.moves.values() if move["steps"][-1]["state"] == "verified"]
    run.record("drain.by_handover", sum(move["mechanism"] in {"notify", "implicit"} for move in verified))
    await run.traffic(1.0)
    run.record("spis_changed", len(before ^ await fleet.spis()))
    for name, value in fleet.pinged(began.at, time.monotonic() - REPLY_TIME).items():
        run.record(f"drain.{name}", value)
    run.cause("undrain gateway1")
    await cluster.mobikectl("gateway2", "undrain", "gateway1")
    await cluster.quiet(1.0)
    run.cause("move fleet07 back")
    said = await cluster.mobikectl(
        "gateway2", "move", "--peer-id", "fleet07.lab.example", "--to", "gateway1", "--wait", "--json"
    )
    run.record("move", "verified" if json.loads(said)["good"] else "not verified")
    await run.traffic(1.0)
    await cluster.quiet(1.0)
    run.record("owned_twice", await cluster.owned_twice())
    run.record("routes_left", await cluster.leaked_routes())
