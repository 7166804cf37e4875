"""The source of a move dies."""

from mobikectl.lab.chaos.plan import STEPS, What, Whom
from mobikectl.lab.kills import kill_at_steps
from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Kill the source's sidecar at each step of source and target."""
    await kill_at_steps(run, What.SIDECAR, [(Whom.SOURCE, step) for step in STEPS])
