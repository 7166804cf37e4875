"""A gateway is emptied by redirects, as an operator does it."""

from mobikectl.lab.run import Run

DRAIN = ("drain", "gateway1", "--mechanism", "redirect", "--timeout", "30", "--wait")


async def steps(run: Run) -> None:
    """Drain on the other gateway, wait for the end as the command does, and undo it."""
    cluster = run.the_cluster
    run.cause("operator: drain gateway1 by redirects")
    await cluster.mobikectl("gateway2", *DRAIN)
    run.record("drain", "empty")
    await run.traffic(1.0)
    run.cause("operator: undrain gateway1")
    await cluster.mobikectl("gateway2", "undrain", "gateway1")
    run.record("undrain", "done")
    await cluster.quiet(2.0)
    run.record("routes_left", await cluster.leaked_routes())
