"""What the leader decides in one round: which moves to append to the journal, and which to cancel. Pure.

Goals come from `mobikectl.policy.balance`; here is what surrounds a plan in a running cluster: who may let it be
carried out (``balance = "manual"``), how fast a drain may go, moves that are under way, and moves that nobody should
begin any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, Versioned
from mobikectl.policy.balance import plan
from mobikectl.policy.cluster import CARRIED, LEAVING, Health, Mechanism, Plan, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobikectl.cluster.reading import Reading
    from mobikectl.policy.cluster import PlannedMove
    from mobikectl.policy.cluster_settings import BalanceSettings

URGENT = frozenset({Reason.IMPAIRED, Reason.DRAIN, Reason.UPLINK, Reason.ORDER})
"""What is planned in any case: an operator, or a failure, has already decided."""
MAX_PENDING = 300
"""Moves under way at once. More would be decided on numbers that are old when they begin, and the journal is only
looked at so far from its end."""
BEGIN_WITHIN_S = 30.0
"""A move that its node did not begin within this time is cancelled: it was planned on numbers that are old by now."""
CARRY_WITHIN_S = 15.0
"""A node that is being started carries IKE_SAs over a moment later. So long nobody is redirected from or to it who
could keep his IKE_SA."""
MAX_GROUP = 500
"""IKE_SAs of one move (all behind a peer's address): what a record of the journal takes."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many IKE_SAs a drain may still move at this moment (a token bucket)."""

    left: float
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What the leader remembers from one round to the next."""

    relieving: frozenset[str] = frozenset()
    applied: int | None = None
    """The operators' order that was dealt with last; None: this leader has not looked yet."""
    ordered: int = 0
    """IKE_SAs that the present order still lets be moved."""
    drains: Mapping[str, Allowance] = field(default_factory=dict)
    not_yet: Mapping[str, float] = field(default_factory=dict)
    """Nodes that are to carry IKE_SAs over and cannot at the moment, and since when."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A move that nobody should begin any more."""

    move: Versioned[MoveRecord]
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a round decided."""

    moves: tuple[PlannedMove, ...] = ()
    """To be appended, in this order."""
    cancel: tuple[Cancel, ...] = ()
    plan: Plan = field(default_factory=Plan)
    """All that the policy would do now, also what waits for an order or for its turn."""
    notes: tuple[str, ...] = ()
    """Why nothing, or not all of the plan, is done."""
    next_at: float = inf
    """When to look again although nothing was heard of."""
    memory: Memory = field(default_factory=Memory)


def plan_for(reading: Reading, policy: BalanceSettings) -> Plan:
    """Given a look at the store, return what the policy would do. Also for who only shows it.

    A drain's own mechanisms count: one that may reconnect does not let other nodes' IKE_SAs be reconnected.
    """
    reconnecting = {
        name
        for name in reading.state.members
        if (intent := reading.state.intent(name).value).drained and Mechanism.RECONNECT in intent.mechanisms
    }
    if Mechanism.RECONNECT in policy.mechanisms or not reconnecting:
        return plan(reading.view, policy, reading.at)
    wider = replace(policy, mechanisms=policy.mechanisms | {Mechanism.RECONNECT})
    found = plan(reading.view, wider, reading.at)
    kept = tuple(
        move
        for move in found.moves
        if move.mechanism is not Mechanism.RECONNECT or move.source in reconnecting
    )
    return replace(found, moves=kept)


def decide(
    reading: Reading, memory: Memory, policy: BalanceSettings, balance: Balance, *, token: int
) -> Decision:
    """Given a look at the store, what the last round left, the settings and the leader's token, return what to do."""
    now = reading.at
    cancel = tuple(_cancels(reading, token))
    memory = replace(_hear_orders(reading, memory), not_yet=_not_yet(reading, memory.not_yet))
    soon = now + policy.interval_s
    if reading.unreadable:
        what = "; ".join(error.message for error in reading.unreadable[:3])
        return Decision(cancel=cancel, notes=(f"nothing is planned: {what}",), next_at=soon, memory=memory)
    if reading.state.cluster.value.paused:
        paused = replace(memory, ordered=0)
        return Decision(cancel=cancel, notes=("paused",), next_at=soon, memory=paused)
    found = plan_for(reading, policy)
    picker = _Picker(reading, memory, policy, balance, dropped={one.move.value.number for one in cancel})
    moves = tuple(picker.pick(found))
    memory = replace(
        picker.memory,
        relieving=found.relieving,
        ordered=0 if not picker.waiting else picker.memory.ordered,
    )
    deadlines = [time for time in (found.next_deadline, picker.next_at) if time is not None]
    if found.moves or reading.pending or cancel:
        deadlines.append(soon)
    return Decision(
        moves, cancel, found, (*reading.notes, *picker.notes), min(deadlines, default=inf), memory
    )


def record_of(move: PlannedMove, reading: Reading, *, at: float) -> MoveRecord:
    """Given a planned move and the wall clock's time, return it as the journal keeps it."""
    _, row = reading.rows[move.sas[0]]
    why = move.explain().rpartition(" by ")[2]
    return MoveRecord(
        token=0,
        sas=move.sas,
        source=move.source,
        target=move.target,
        mechanism=move.mechanism,
        reason=move.reason,
        source_address=row.address,
        target_address=move.target_address,
        steps=(MoveStep(MoveState.PLANNED, at, why[:200]),),
    )


def _hear_orders(reading: Reading, memory: Memory) -> Memory:
    """Take in how often operators said: plan and carry out now. A new leader does not repeat old orders."""
    apply = reading.state.cluster.value.apply
    if memory.applied is None:
        return replace(memory, applied=apply)
    if apply != memory.applied:
        return replace(memory, applied=apply, ordered=-1)
    return memory


def _not_yet(reading: Reading, before: Mapping[str, float]) -> Mapping[str, float]:
    members = (member.value for member in reading.state.members.values())
    return {
        each.name: before.get(each.name, reading.at) for each in members if each.transfer and not each.carries
    }


def _cancels(reading: Reading, token: int) -> Iterator[Cancel]:
    nodes = {node.name: node for node in reading.view.nodes}
    for versioned in reading.journal.moves:
        move = versioned.value
        if move.state is not MoveState.PLANNED or move.reason is Reason.FAILOVER:
            continue  # a failover's source is gone, and its target ends what it must not begin
        target = nodes.get(move.target)
        if move.token != token:
            yield Cancel(versioned, "its leader was replaced")
        elif reading.state.cluster.value.paused:
            yield Cancel(versioned, "the cluster is paused")
        elif move.source not in nodes:
            yield Cancel(versioned, f"{move.source} has left the cluster")
        elif target is None or (target.name != move.source and not _takes(target.health, target.drained)):
            yield Cancel(versioned, f"{move.target} takes nothing any more")
        elif reading.at - reading.observed.moves[move.number].since > BEGIN_WITHIN_S:
            yield Cancel(versioned, f"not begun within {BEGIN_WITHIN_S:g} s")


def _takes(health: Health, drained: bool) -> bool:
    return health is Health.HEALTHY and not drained


class _Picker:
    """Picks of a plan what may be done now."""

    def __init__(
        self,
        reading: Reading,
        memory: Memory,
        policy: BalanceSettings,
        balance: Balance,
        *,
        dropped: set[int],
    ) -> None:
        self.memory = memory
        self.notes: list[str] = []
        self.next_at: float | None = None
        self.waiting = False
        """Whether moves of an order wait for their turn."""
        self._reading = reading
        self._policy = policy
        self._balance = balance
        self._pending = [move.value for move in reading.pending if move.value.number not in dropped]
        self._drains = dict(memory.drains)

    def pick(self, found: Plan) -> Iterator[PlannedMove]:
        """Given the plan, yield what is to be appended now."""
        room = MAX_PENDING - len(self._pending)
        balance = self._may_balance(found)
        for move in found.moves:
            urgent = move.reason in URGENT
            if not urgent and not (balance and self._ordered()):
                continue
            if room <= 0:
                self.notes.append(f"{MAX_PENDING} moves are under way: the rest waits")
                self.waiting = self.memory.ordered != 0
                break
            if len(move.sas) > MAX_GROUP:
                self.notes.append(f"{move.sas[0]}: {len(move.sas)} IKE_SAs behind one address are too many")
                continue
            if self._could_live(move):
                continue
            if move.reason is Reason.DRAIN and not self._drain_allows(move):
                continue
            if not urgent and self.memory.ordered > 0:
                self.memory = replace(self.memory, ordered=max(self.memory.ordered - len(move.sas), 0))
            room -= 1
            yield move
        self.memory = replace(self.memory, drains=self._drains)

    def _could_live(self, move: PlannedMove) -> bool:
        """Whether an IKE_SA that would end with a move can be carried over as soon as a node has started."""
        if move.mechanism not in LEAVING:
            return False
        since = [
            self.memory.not_yet[node] for node in (move.source, move.target) if node in self.memory.not_yet
        ]
        ready = max(since, default=-inf) + CARRY_WITHIN_S
        able = any(self._reading.rows[key][1].capability & CARRIED for key in move.sas)
        if not able or self._reading.at >= ready:
            return False
        self.notes.append(
            f"{move.source} or {move.target} is being started: its IKE_SAs can be carried over then"
        )
        self.next_at = ready if self.next_at is None else min(self.next_at, ready)
        return True

    def _may_balance(self, found: Plan) -> bool:
        """Return whether moves that nobody asked for may begin now."""
        wanted = sum(len(move.sas) for move in found.moves if move.reason not in URGENT)
        if not wanted:
            return False
        if self._balance is Balance.MANUAL:
            if self.memory.ordered < 0:  # just ordered: so much, and no more, is let through
                self.memory = replace(self.memory, ordered=wanted)
            if not self.memory.ordered:
                self.notes.append(f"{wanted} IKE_SAs would be moved: `mobikectl apply` lets it")
                return False
        settled = self._settled_at()
        if self._reading.at < settled:
            self.notes.append("waiting for the last moves to show in the loads")
            self.next_at = settled if settled < inf else None
            self.waiting = self.memory.ordered != 0
            return False
        return True

    def _ordered(self) -> bool:
        return self._balance is Balance.AUTO or self.memory.ordered > 0

    def _settled_at(self) -> float:
        """Return when the reports tell what the last moves did; inf: they are still under way."""
        if any(move.reason not in URGENT for move in self._pending):
            return inf
        done = [
            seen.since
            for seen in self._reading.observed.moves.values()
            if seen.state is MoveState.VERIFIED and seen.first_at > -inf and seen.reason not in URGENT
        ]
        return max(done, default=-inf) + self._policy.settle_s

    def _drain_allows(self, move: PlannedMove) -> bool:
        """Take a drain's move from what its operator allows in a second; return whether it may go."""
        rate = self._reading.state.intent(move.source).value.rate_per_s
        if rate is None:
            return True
        now = self._reading.at
        before = self._drains.get(move.source)
        left = 1.0 if before is None else min(before.left + rate * (now - before.at), max(rate, 1.0))
        allowed = left >= 1
        self._drains[move.source] = Allowance(left - len(move.sas) if allowed else left, now)
        if not allowed:
            ready = now + (1 - left) / rate
            self.next_at = ready if self.next_at is None else min(self.next_at, ready)
        return allowed
