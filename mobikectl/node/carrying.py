"""Carries out moves that the journal says are requested; tells how they ended, also those that a restart found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.cluster.records import MoveState, peer_of
from mobikectl.errors import MobikectlError, MoveError, NetlinkError, NotFoundError, PrivilegeError
from mobikectl.model import Path
from mobikectl.node import steps
from mobikectl.node.steps import Place
from mobikectl.policy.cluster import Mechanism
from mobikectl.switch import moves as switch
from mobikectl.switch.course import MoveOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.model import IkeSa
    from mobikectl.node.arrivals import Arrivals

MECHANISMS: Mapping[Mechanism, switch.Mechanism] = {
    Mechanism.NOTIFY: switch.Mechanism.NOTIFY,
    Mechanism.IMPLICIT: switch.Mechanism.ROUTE,
    Mechanism.REDIRECT: switch.Mechanism.REDIRECT,
    Mechanism.RECONNECT: switch.Mechanism.RECONNECT,
}
"""What a mechanism of the policy is to this host's executor."""


class Mover(Protocol):
    """Moves IKE_SAs of this host: `mobikectl.switch.executor.MoveExecutor`."""

    async def move(self, order: MoveOrder) -> switch.Move:
        """Carry out an order; return its record, which has ended. Raise NotFoundError, MoveError."""

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        """Given a path that an SA is on, hold it there. Raise NetlinkError, PrivilegeError."""


class Carrier(Protocol):
    """Carries IKE_SAs over to other nodes, so that their clients go on with the same one."""

    async def carry(self, move: MoveRecord, sas: Sequence[IkeSa]) -> steps.Steps:
        """Given a requested move and its IKE_SAs, carry them over; return what happened, the last a final state."""

    async def settle(self, move: MoveRecord, sas: Sequence[IkeSa | None]) -> steps.Steps:
        """Given a move that a restart interrupted, see to it that one node serves each IKE_SA (None: it is not here).

        Return what happened, the last a final state.
        """


class Sas(Protocol):
    """What is asked of this node's IKE_SAs."""

    def find(self, key: str) -> IkeSa | None:
        """Given a name, return the IKE_SA as it is now, or None."""

    def key_of(self, sa: IkeSa) -> str:
        """Given an IKE_SA, return its name."""

    def all(self) -> Iterable[IkeSa]:
        """Return every IKE_SA of this node."""

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until ``predicate`` is true; return whether it is."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long what is waited for: seconds."""

    switch_s: float = 5.0
    """A switch within the node has to be verified."""
    leave_s: float = 15.0
    """A client that was redirected makes a new IKE_SA and deletes the one here: some round trips, or retransmits."""
    arrive_s: float = 10.0
    """The target tells of its new IKE_SA: its report comes about once a second."""
    back_s: float = 3.0
    """IKE_SAs are back where they were after an undone switch."""
    interrupted_s: float = 5.0
    """What was asked for before a restart may still happen after it."""


class Carrying:
    """Carries out the requested moves of one node. What it returns is the record as it ended."""

    def __init__(
        self,
        sas: Sas,
        mover: Mover,
        arrivals: Arrivals,
        *,
        carrier: Carrier | None = None,
        times: Times | None = None,
    ) -> None:
        self._sas = sas
        self._mover = mover
        self._arrivals = arrivals
        self.carrier = carrier
        """What carries IKE_SAs over to other nodes; None: nothing does now. A move under way keeps its own."""
        self._times = times or Times()

    @property
    def can_carry(self) -> bool:
        """Whether IKE_SAs can be carried over to other nodes."""
        return self.carrier is not None

    # Carrying out

    async def carry_out(self, move: MoveRecord, left: Callable[[], None]) -> MoveRecord:
        """Given a requested move, carry it out and return it as it ended.

        ``left`` is called when nothing more is done here, and only the arrival elsewhere is waited for.
        """
        if steps.carries(move):
            return await self._over(move)
        if steps.leaves(move):
            return await self._away(move, left)
        return await self._within(move)

    async def _over(self, move: MoveRecord) -> MoveRecord:
        sas = [sa for sa in map(self._sas.find, move.sas) if sa is not None]
        if self.carrier is None or len(sas) < len(move.sas):
            return self._ended(move, ((MoveState.REFUSED, "it is gone, or cannot be carried over"),))
        return self._ended(move, await self.carrier.carry(move, sas))

    async def _away(self, move: MoveRecord, left: Callable[[], None]) -> MoveRecord:
        before = await self._present(move)
        move = await self._first(move, self._times.leave_s)
        if move.done:
            return move
        left()
        return self._ended(move, steps.arrival(move, await self._arrived(move, before)))

    async def _within(self, move: MoveRecord) -> MoveRecord:
        """A switch of one IKE_SA, or of all behind one address: the first steers, and each is verified."""
        requested = move
        move = await self._first(move, self._times.switch_s)
        if len(move.sas) == 1 or move.state is MoveState.REFUSED:
            return move
        if move.state is not MoveState.VERIFIED:
            return await self._all_back(requested, f"{move.sas[0]}: {move.steps[-1].note}")
        for key in move.sas[1:]:
            problem = await self._verify(move, key)
            if problem is not None:
                return await self._steer_back(requested, f"{key}: {problem}")
        return move

    async def _first(self, move: MoveRecord, timeout_s: float) -> MoveRecord:
        """Have this host's executor move the first IKE_SA, with whatever its route takes along."""
        try:
            record = await self._mover.move(self._order(move, move.sas[0], timeout_s))
        except (MoveError, NotFoundError) as error:
            return self._ended(move, steps.impossible(error))
        except MobikectlError as error:
            return await self._all_back(move, error.message)
        return steps.told(move, record, _wall)

    async def _verify(self, move: MoveRecord, key: str, found: str = "") -> str | None:
        """One that went along: verify it as if it was moved alone. Return None, or what is wrong."""
        try:
            record = await self._mover.move(self._order(move, key, self._times.switch_s, found))
        except MobikectlError as error:
            return error.message
        return None if record.state is switch.MoveState.VERIFIED else record.reason

    def _order(self, move: MoveRecord, key: str, timeout_s: float, found: str = "") -> MoveOrder:
        sa = self._find(key)
        if sa is None:
            raise NotFoundError(f"{key} is gone", hint="nothing was done")
        return MoveOrder(
            sa.uniqueid,
            Path(move.target_address, sa.path.remote),
            f"move {move.number} of the cluster{found}: {move.reason.value}",
            timeout_s=timeout_s,
            mechanism=MECHANISMS[move.mechanism],
        )

    async def _steer_back(self, move: MoveRecord, why: str) -> MoveRecord:
        """One that went along does not work where it is: bring them all back."""
        for key in move.sas:
            sa = self._find(key)
            if sa is None or sa.path.local == move.source_address:
                continue
            back = Path(move.source_address, sa.path.remote)
            cause = f"move {move.number} of the cluster is undone"
            try:
                await self._mover.move(
                    MoveOrder(
                        sa.uniqueid,
                        back,
                        cause,
                        timeout_s=self._times.switch_s,
                        give_back=False,
                        mechanism=switch.Mechanism.ROUTE,
                    )
                )
            except MobikectlError as error:
                why = f"{why}; {error.message}"
            break
        return await self._all_back(move, why)

    async def _all_back(self, move: MoveRecord, why: str) -> MoveRecord:
        await self._sas.wait(lambda: set(self.places(move)) == {Place.SOURCE}, self._times.back_s)
        return self._ended(move, steps.rolled_back(self.places(move), why))

    # After a restart

    async def find_out(self, move: MoveRecord) -> MoveRecord:
        """Given a move that an earlier life of this node began, return it as it ended. Nothing is begun anew."""
        if steps.carries(move):
            return await self._settle(move)
        ends = {Place.GONE} if steps.leaves(move) else {Place.TARGET}
        if move.state is MoveState.ROLLING_BACK:
            ends = {Place.SOURCE}
        await self._sas.wait(lambda: set(self.places(move)) == ends, self._times.interrupted_s)
        places = self.places(move)
        steered = move.mechanism is Mechanism.IMPLICIT and move.state is not MoveState.ROLLING_BACK
        if steered and set(places) == {Place.TARGET}:
            return await self._verify_found(move, places)
        arrived: bool | None = None
        if steps.leaves(move) and set(places) == {Place.GONE}:
            arrived = await self._arrived(move, frozenset())
        move = self._ended(move, steps.interrupted(move, places, arrived))
        if move.state is MoveState.VERIFIED and not steps.leaves(move):
            await self._hold(move)
        return move

    async def _verify_found(self, move: MoveRecord, places: Sequence[Place]) -> MoveRecord:
        """A route has taken them to the target: whether they work there may not have been seen, or they may not.

        What a restart interrupted may have been the verification, or its undoing. (A peer that sent the update itself,
        as with NOTIFY, has shown by its exchange that the path works.)
        """
        for key in move.sas:
            problem = await self._verify(move, key, ", found after a restart")
            if problem is not None:
                return await self._steer_back(move, f"after a restart, {key}: {problem}")
        return self._ended(move, steps.interrupted(move, places))

    async def _settle(self, move: MoveRecord) -> MoveRecord:
        if self.carrier is None:
            return self._ended(move, ((MoveState.TIMED_OUT, "this node carries no IKE_SAs over any more"),))
        return self._ended(move, await self.carrier.settle(move, [*map(self._sas.find, move.sas)]))

    async def _hold(self, move: MoveRecord) -> None:
        """Keep charon from asking it back: its route may not have been made before the restart."""
        for sa in filter(None, map(self._find, move.sas)):
            path = sa.path

            def alone(path: Path = path) -> bool:
                return all(
                    other.path == path for other in self._sas.all() if other.path.remote == path.remote
                )

            if alone():
                try:
                    await self._mover.hold(path, alone)
                except (NetlinkError, PrivilegeError):
                    return  # it is there, which is what the journal says; charon may choose for itself

    def places(self, move: MoveRecord) -> list[Place]:
        """Given a move, return where each of its IKE_SAs is now."""
        return [steps.place_of(move, self._find(key)) for key in move.sas]

    def _find(self, key: str) -> IkeSa | None:
        """Find an IKE_SA by its name, or, where a restart named it anew, as the only one of its peer."""
        sa = self._sas.find(key)
        if sa is not None:
            return sa
        same = [sa for sa in self._sas.all() if sa.remote_id == peer_of(key) and sa.state in steps.LIVE]
        return same[0] if len(same) == 1 else None

    # Elsewhere

    async def _present(self, move: MoveRecord) -> frozenset[str]:
        """Return the IKE_SAs that the target has of this client before it comes."""
        try:
            found = await self._arrivals.present(move.target, peer_of(move.sas[0]))
        except MobikectlError:
            return frozenset()  # a client has one IKE_SA as a rule
        return found or frozenset()

    async def _arrived(self, move: MoveRecord, before: frozenset[str]) -> bool | None:
        return await self._arrivals.wait(move.target, peer_of(move.sas[0]), before, self._times.arrive_s)

    @staticmethod
    def _ended(move: MoveRecord, following: Iterable[tuple[MoveState, str]]) -> MoveRecord:
        return steps.taken(move, following, time.time())


def _wall(at: float) -> float:
    """Given a time of the monotonic clock, return it in seconds since 1970."""
    return time.time() - (time.monotonic() - at)
