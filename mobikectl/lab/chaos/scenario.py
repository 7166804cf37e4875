"""The chaos run as a scenario: lab and checks are in ``scenario.toml``, its steps depend on how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.lab.chaos.run import Chaos
from mobikectl.lab.scenario import Scenario, load_scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.lab.run import Run

FOLDER = Path(__file__).parent
BESIDES_S = 300.0
"""Until all gateways are well, and until the last client is back."""
ROUND_S = 20.0
"""A move, at most on average, with what goes wrong meanwhile."""
EVERY_STEP = 110
"""Rounds when each process is killed at each step."""


@dataclass(frozen=True, slots=True)
class ChaosScenario(Scenario):
    """So many moves with this seed; 0: each process is killed once at each step."""

    moves: int = 0
    seed: int = 0
    patience: float = 1.0

    def steps(self) -> Callable[[Any], Awaitable[None]]:
        """Return what happens."""

        async def go(run: Run) -> None:
            await Chaos(run, moves=self.moves, seed=self.seed, patience=self.patience).go()

        return go


def chaos_scenario(*, moves: int, seed: int, patience: float = 1.0) -> ChaosScenario:
    """Given how many moves, a seed and how slow the machine is, return the scenario."""
    lab = load_scenario(f"{FOLDER}")
    return ChaosScenario(
        name=lab.name,
        folder=lab.folder,
        description=lab.description,
        topology=lab.topology,
        checks=lab.checks,
        deadline=BESIDES_S + ROUND_S * (moves or EVERY_STEP),
        moves=moves,
        seed=seed,
        patience=patience,
    )
