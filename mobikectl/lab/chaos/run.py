"""The chaos run: rounds of moves and faults, and what they leave."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mobikectl.errors import LabError
from mobikectl.lab.chaos.desk import RefusedError, open_desk
from mobikectl.lab.chaos.faults import Faults
from mobikectl.lab.chaos.plan import Fault, What, Whom, every_step, rounds
from mobikectl.lab.chaos.world import Key, World, look
from mobikectl.lab.cluster import FINAL
from mobikectl.lab.steps import SOURCE_STEPS
from mobikectl.lab.topology import Role
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobikectl.lab.capture import Ping
    from mobikectl.lab.chaos.desk import Desk
    from mobikectl.lab.chaos.plan import Order, Round
    from mobikectl.lab.run import Run
    from mobikectl.lab.steps import Trap
    from mobikectl.lab.topology import Tunnel

ROUTER = "router"
BEGUN_S = 20.0
ENDED_S = 90.0
OWNED_S = 40.0
BACK_S = 200.0
"""A client whose only gateway was killed finds out: 30 s without a packet, 89 s of retransmissions, a new IKE_SA."""
BEHIND_NAT = "behind a NAT it does not hear who stands by"
JUST_REKEYED = "it was rekeyed in the two seconds before, which its standby may not have been told"
"""The reasons to make an IKE_SA anew when a gateway's charon is killed (docs/moves.md, "What does not work")."""
TRIED_S = 20.0
"""Who stands by for a client tries for 12 s to have it answer: so long it may seem to be served."""
ANSWERED_S = 30.0
PINGS = 5
"""So many pings in a row must be answered."""
UNDISTURBED_AFTER = 2
"""After so many failures in a row a client's next move is not disturbed: three take a mechanism from it."""
QUICK_S = 0.005


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    moves: int = 0
    refused: int = 0
    """Orders that the leader refused."""
    faults: Counter[What] = field(default_factory=Counter)
    made_anew: Counter[str] = field(default_factory=Counter)
    """IKE_SAs that clients had to make anew for a reason that docs/moves.md gives, by that."""
    unexplained: list[str] = field(default_factory=list)
    """Those that they had to make anew for no such reason."""
    longest_s: float = 0.0
    """The longest time from a move's order to its end."""


def in_a_row(pings: Sequence[Ping], since: float) -> bool:
    """Given pings in their order and a time, return whether some in a row, sent since then, were answered."""
    row = 0
    for ping in reversed(pings):  # asked ten times a second: of an hour's pings only the newest are looked at
        if ping.sent < since:
            return False
        row = row + 1 if ping.received is not None else 0
        if row == PINGS:
            return True
    return False


class Chaos:
    """One chaos run. Given the run of a lab, how many moves to make, and the seed.

    ``moves`` = 0: each process is killed once at each step, whatever the seed.
    """

    def __init__(self, run: Run, *, moves: int, seed: int, patience: float = 1.0) -> None:
        self._run = run
        self._moves = moves
        self._seed = seed
        self._patience = patience
        self._faults = Faults(run, patience=patience)
        self._tunnels = {tunnel.name: tunnel for tunnel in run.lab.topology.tunnels}
        self._gateways = run.lab.topology.by_role(Role.GATEWAY)
        self._known: dict[str, Key] = {}
        """Tunnel -> the IKE_SA that its client has."""
        self._doomed: dict[Key, tuple[float, str]] = {}
        """IKE_SAs with which nobody else may be able to go on as their charon was killed: since when, and why."""
        self._spared: set[Key] = set()
        """Those of them that seem to live on."""
        self._killed: dict[Key, str] = {}
        """IKE_SAs whose charon was killed, and who had a copy then."""
        self._failures: Counter[str] = Counter()
        self.tally = Tally()

    async def go(self) -> None:
        """Do all rounds; record what is left as metrics of the run. Raise LabError: a round did not end well."""
        run, tally = self._run, self.tally
        run.cause(f"chaos: {self._moves} moves, seed {self._seed}" if self._moves else "each step")
        await self._faults.well()
        await self._take_stock()
        async with open_desk(run.lab) as desk:
            for each in self._plan():
                try:
                    await self._round(desk, each)
                except LabError as error:
                    raise LabError(f"round {each.number}: {error.message}", hint=error.hint) from None
                if self._moves and tally.moves >= self._moves:
                    break
        await self._finish()

    def _plan(self) -> Iterator[Round]:
        if self._moves:
            return rounds(self._seed, list(self._tunnels))
        # Nobody else could serve a client behind a NAT whose charon is killed: it would be away for minutes.
        return every_step([client for client in self._tunnels if not self._behind_nat(client)])

    # --- a round --------------------------------------------------------------------------------

    async def _round(self, desk: Desk, each: Round) -> None:
        run, world = self._run, await self._take_stock()
        self._pardon(world)
        ways = {
            order.client: (source, self._target(source, order))
            for order in each.orders
            if world.settled(order.client) and not self._is_doomed(order.client)
            for source in world.owners(order.client)
        }
        if not ways:
            await asyncio.sleep(1.0)  # all of them are on their way back
            return
        disturbed = all(self._failures[client] < UNDISTURBED_AFTER for client in ways)
        fault = each.fault if disturbed else Fault(What.NOTHING, each.fault.whom, "", 0.0, 0.0)
        first, (source, target) = next(iter(ways.items()))
        fault = replace(fault, astray=fault.astray and not self._behind_nat(first))
        self._tell(each, ways, fault)
        trap = self._trap(fault, source, target)
        try:
            if fault.astray:
                await self._lead_astray(first, target)
            numbers = await self._order(desk, ways)
            if numbers:
                await self._disturb(fault, trap, source, target, next(iter(numbers.values())))
        finally:
            if trap is not None:
                run.handovers.remove(trap)
        await self._faults.well()
        await self._ended(numbers)
        if fault.astray:
            await run.undrop(ROUTER)
        await self._owned(list(ways))

    def _target(self, source: str, order: Order) -> str:
        return self._gateways[(self._gateways.index(source) + order.steps) % len(self._gateways)]

    async def _lead_astray(self, client: str, target: str) -> None:
        """Have the router lose what a client sends to a gateway."""
        address = self._run.lab.topology.outer_addresses(target)[0]
        await self._run.drop(ROUTER, f"from {self._tunnels[client].local} to {address}")

    async def _order(self, desk: Desk, ways: dict[str, tuple[str, str]]) -> dict[str, int]:
        """Order the moves; return client -> number of those that the leader took."""

        async def one(client: str) -> int:
            try:
                return await desk.move(
                    self._tunnels[client].client_id, *ways[client], patience=self._patience
                )
            except RefusedError as error:
                self.tally.refused += 1
                self._run.cause(f"{client}: {error.message}")
                return 0

        numbers = await asyncio.gather(*map(one, ways))
        taken = {client: number for client, number in zip(ways, numbers, strict=True) if number}
        self.tally.moves += len(taken)
        return taken

    def _trap(self, fault: Fault, source: str, target: str) -> Trap | None:
        if not fault.at or fault.what is What.NOTHING:
            return None
        return self._run.handovers.trap(source if fault.at in SOURCE_STEPS else target, fault.at)

    async def _disturb(self, fault: Fault, trap: Trap | None, source: str, target: str, number: int) -> None:
        """Have something go wrong while a move is under way, and mend it."""
        victim = self._victim(fault.whom, source, target)
        if fault.what is not What.NOTHING:
            await self._begun(number)
            if trap is None:
                await asyncio.sleep(fault.after_s)
            elif not await self._reached(trap, number):
                self._run.cause(f"the first move did not come to {trap.step!r}: nothing is disturbed")
                fault = Fault(What.NOTHING, fault.whom, "", 0.0, 0.0)
        self.tally.faults[fault.what] += 1
        if fault.what is What.NOTHING:
            return
        if fault.what is What.CHARON:
            self._doom(await look(self._run.lab), victim)
        mend = await self._faults.inflict(fault.what, victim)
        if trap is not None:
            trap.release()
        await asyncio.sleep(fault.lasts_s)
        await mend()

    async def _reached(self, trap: Trap, number: int) -> bool:
        """Wait until a step is reached; False: the move ended without it."""

        async def either() -> bool:
            self._run.the_cluster.refresh()
            return trap.sprung_at is not None or self._has_ended(number)

        await until(either, within=ENDED_S, what=f"move {number} is at {trap.step!r}", every=QUICK_S)
        return trap.sprung_at is not None

    def _has_ended(self, number: int) -> bool:
        move = self._run.the_cluster.moves.get(number)
        return move is not None and move["steps"][-1]["state"] in FINAL

    def _victim(self, whom: Whom, source: str, target: str) -> str:
        if whom is Whom.SOURCE:
            return source
        if whom is Whom.TARGET:
            return target
        return next(node for node in self._gateways if node not in {source, target})

    def _doom(self, world: World, victim: str) -> None:
        """Write down which IKE_SAs may not live on when a gateway's charon is killed now."""
        for key in world.gateways[victim]:
            copies = [node for node, keys in world.copies.items() if key in keys]
            self._killed[key] = f"{victim}'s charon was killed; a copy at {', '.join(copies) or 'nobody'}"
            why = BEHIND_NAT if self._behind_nat(key[0]) else JUST_REKEYED if key in world.fresh else ""
            if why:
                self._doomed[key] = time.monotonic(), why
                self._spared.discard(key)

    def _behind_nat(self, tunnel: str) -> bool:
        topology = self._run.lab.topology
        ends = [{end.node for end in wire.ends} for wire in topology.wires]
        return any({self._tunnels[tunnel].client, nat} in ends for nat in topology.by_role(Role.NAT))

    async def _begun(self, number: int) -> None:
        cluster = self._run.the_cluster

        def begun() -> bool:
            move = cluster.moves.get(number)
            return move is not None and len(move["steps"]) > 1

        await cluster.until(begun, within=BEGUN_S, what=f"move {number} has begun")

    async def _ended(self, numbers: dict[str, int]) -> None:
        cluster = self._run.the_cluster

        def ended() -> bool:
            return all(map(self._has_ended, numbers.values()))

        names = ", ".join(map(str, numbers.values()))
        await cluster.until(ended, within=ENDED_S, what=f"moves {names} have ended")
        for client, number in numbers.items():
            steps = cluster.moves[number]["steps"]
            self.tally.longest_s = max(self.tally.longest_s, steps[-1]["at"] - steps[0]["at"])
            good = steps[-1]["state"] == "verified"
            self._failures[client] = 0 if good else self._failures[client] + 1

    async def _owned(self, clients: list[str]) -> None:
        """Wait until each of the clients, but those that have to come back, is served once and pings."""
        world = World({}, {}, {})

        async def fine() -> bool:
            nonlocal world
            world = await self._take_stock()
            return all(world.settled(client) or self._is_doomed(client) for client in clients)

        try:
            await until(
                fine, within=OWNED_S * self._patience, what="each is served by one gateway", every=0.1
            )
        except LabError as error:
            where = {c: world.owners(c) for c in clients if not world.settled(c)}
            raise LabError(f"{error.message}: {where}", hint="see the charons' logs") from None
        await self._answered([client for client in clients if not self._is_doomed(client)])

    def _pardon(self, world: World) -> None:
        """Take it back that IKE_SAs may not live on, of those that do."""
        now = time.monotonic()
        for client, key in self._known.items():
            if not self._is_doomed(client):
                continue
            since, why = self._doomed[key]
            tried = now - since >= TRIED_S
            if tried and world.settled(client) and self._pings(self._tunnels[client], now - 2.0):
                self._spared.add(key)
                if why == BEHIND_NAT:
                    self._run.cause(f"{client} lives on, although {why}")

    def _is_doomed(self, client: str) -> bool:
        return self._known.get(client) in self._doomed.keys() - self._spared

    async def _answered(self, clients: list[str]) -> None:
        if silent := await self._silent(clients):
            raise LabError(f"no pings of {', '.join(silent)}", hint="see the charons' logs")

    async def _silent(self, clients: list[str]) -> list[str]:
        """Return those of the clients whose pings are not answered, however long that is waited for."""
        since, left = time.monotonic(), list(clients)

        async def all_answered() -> bool:
            left[:] = [client for client in left if not self._pings(self._tunnels[client], since)]
            return not left

        try:
            await until(all_answered, within=ANSWERED_S * self._patience, what="pings", every=0.1)
        except LabError:
            self._run.cause(f"no pings of {', '.join(left)}")
        return left

    def _pings(self, tunnel: Tunnel, since: float) -> bool:
        """Whether some pings in a row, sent since a moment, were answered."""
        return in_a_row(self._run.fleets[tunnel.fleet].pings_of(tunnel.name), since)

    # --- what is there --------------------------------------------------------------------------

    async def _take_stock(self) -> World:
        """Look who serves what, and note each IKE_SA that was made anew."""
        world = await look(self._run.lab)
        for client, keys in world.clients.items():
            if len(keys) != 1:
                continue
            [key] = keys
            before = self._known.setdefault(client, key)
            if before == key:
                continue
            self._known[client] = key
            since, why = self._doomed.get(before, (float("-inf"), ""))
            if time.monotonic() - since < BACK_S * self._patience:
                self.tally.made_anew[why] += 1
            else:
                why = self._killed.get(before, "nobody knows why")
                self.tally.unexplained.append(f"{client}: {why}")
            self._run.cause(f"{client} made a new IKE_SA: {why}")
        return world

    async def _finish(self) -> None:
        """Wait until all is quiet, and record what is there."""
        run, tally = self._run, self.tally
        world = World({}, {}, {})

        async def settled() -> bool:
            nonlocal world
            world = await self._take_stock()
            return all(map(world.settled, self._tunnels)) and not world.strays()

        try:
            await until(settled, within=BACK_S * self._patience, what="all are back", every=0.5)
        except LabError as error:
            run.cause(error.message)  # the checks say what is wrong
        await run.the_cluster.quiet(2.0)
        silent = await self._silent(list(self._tunnels))
        world = await self._take_stock()
        run.record("seed", self._seed)
        run.record("ordered", tally.moves)
        run.record("orders_refused", tally.refused)
        run.record("owned_once", sum(map(world.settled, self._tunnels)))
        run.record("strays", len(world.strays()))
        run.record("answered", len(self._tunnels) - len(silent))
        run.record("made_anew.nat", tally.made_anew[BEHIND_NAT])
        run.record("made_anew.rekeyed", tally.made_anew[JUST_REKEYED])
        run.record("unexplained", len(tally.unexplained))
        run.record("longest_move_ms", round(1000 * tally.longest_s))
        for what, count in tally.faults.items():
            run.record(f"faults.{what.name.lower()}", count)

    def _tell(self, each: Round, ways: dict[str, tuple[str, str]], fault: Fault) -> None:
        moves = ", ".join(f"{client} {a}->{b}" for client, (a, b) in ways.items())
        self._run.cause(f"{self.tally.moves}/{self._moves or 'all'} round {each.number}: {moves}; {fault}")
