"""The HA broker of a move's source or target dies, and the keeper of its memory with it."""

from mobikectl.lab.chaos.plan import STEPS, What, Whom
from mobikectl.lab.kills import kill_at_steps
from mobikectl.lab.run import Run
from mobikectl.lab.steps import SOURCE_STEPS


async def steps(run: Run) -> None:
    """Kill who acts at each step, so that nothing of its memory is left: charon tells everything anew."""
    await kill_at_steps(
        run,
        What.BROKER,
        [(Whom.SOURCE if step in SOURCE_STEPS else Whom.TARGET, step) for step in STEPS],
    )
