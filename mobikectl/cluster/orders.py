"""What the leader answers when an operator wants one IKE_SA to be moved (`mobikectl move`). Pure.

An order is obeyed at once, whatever the balance would do, but not against what is impossible or forbidden: a peer that
follows no mechanism, a target that takes nothing, a pin, a pause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep
from mobikectl.policy.cluster import LEAVING, Health, Mechanism, Reason
from mobikectl.policy.mechanism import choose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobikectl.cluster.reading import Reading
    from mobikectl.cluster.records import Order, SaRow, Versioned
    from mobikectl.model import IpAddress
    from mobikectl.policy.cluster import Node
    from mobikectl.policy.cluster_settings import BalanceSettings

KEEP_S = 60.0
"""An answer that nobody took is removed after this time: who ordered is gone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of an order: a move, or why there is none."""

    order: Versioned[Order]
    move: MoveRecord | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class OrderBook:
    """What a leader remembers of the orders from one look to the next."""

    answered: Mapping[str, float] | None = None
    """Name -> since when its answer is there; None: this leader has not looked yet."""

    def looked(self, reading: Reading) -> OrderBook:
        """Given a look at the store, return what to remember."""
        before = self.answered or {}
        orders = reading.state.orders.items()
        return OrderBook({name: before.get(name, reading.at) for name, one in orders if one.value.answered})

    def forgotten(self, reading: Reading) -> Iterator[Versioned[Order]]:
        """Given the same look, yield the orders whose answer nobody took."""
        for name, since in (self.answered or {}).items():
            if reading.at - since >= KEEP_S and name in reading.state.orders:
                yield reading.state.orders[name]


class _No(Exception):  # noqa: N818 (an answer, not an error)
    @property
    def why(self) -> str:
        return str(self.args[0])


def answers(reading: Reading, book: OrderBook, policy: BalanceSettings, *, at: float) -> Iterator[Answer]:
    """Given a look at the store, what is remembered, the settings and the wall clock's time, yield each new answer."""
    busy = {key: move.value.number for move in reading.pending for key in move.value.sas}
    for order in reading.state.orders.values():
        if order.value.answered:
            continue
        if book.answered is None:
            yield Answer(order, refused="it was given before this leader began: give it again")
            continue
        try:
            move = _move(reading, order.value, policy, busy, at)
        except _No as no:
            yield Answer(order, refused=no.why)
        else:
            busy[order.value.sa] = 0
            yield Answer(order, move)


def _move(
    reading: Reading, order: Order, policy: BalanceSettings, busy: Mapping[str, int], at: float
) -> MoveRecord:
    """Return what is to be done. Raise _No."""
    if reading.state.cluster.value.paused:
        raise _No("the cluster is paused: `mobikectl resume`")
    if reading.unreadable:
        raise _No(f"nothing is planned: {reading.unreadable[0].message}")
    if order.sa not in reading.rows:
        raise _No("no node tells of it any more")
    if order.sa in busy:
        number = busy[order.sa]
        raise _No(f"move {number} is on its way with it" if number else "another order is on its way with it")
    owner, row = reading.rows[order.sa]
    nodes = {node.name: node for node in reading.view.nodes}
    if owner not in nodes:
        raise _No(f"{owner} has left the cluster")
    target = _target(nodes, order, owner)
    pin = next(
        (reading.state.pins[name] for name in (row.key, row.peer_id) if name in reading.state.pins), None
    )
    if pin is not None and pin.value.node != order.node:
        raise _No("it is pinned: `mobikectl unpin` first")
    mechanism = _mechanism(reading, order, policy, nodes[owner], target)
    return MoveRecord(
        token=0,
        sas=(order.sa,),
        source=owner,
        target=target.name,
        mechanism=mechanism,
        reason=Reason.ORDER,
        source_address=row.address,
        target_address=_address(target, row),
        steps=(MoveStep(MoveState.PLANNED, at, _why(order)),),
    )


def _why(order: Order) -> str:
    said = ", ".join(part for part in (order.by, order.note) if part)
    return f"ordered ({said})"[:200] if said else "ordered"


def _target(nodes: Mapping[str, Node], order: Order, owner: str) -> Node:
    target = nodes.get(order.node)
    if target is None:
        raise _No(f"{order.node} is no member of the cluster")
    if target.name == owner:
        raise _No(f"{owner} serves it already")
    if target.health is not Health.HEALTHY:
        raise _No(f"{target.name} is {target.health.value}")
    if target.drained:
        raise _No(f"{target.name} is drained")
    return target


def _address(target: Node, row: SaRow) -> IpAddress:
    usable = [each.ip for each in target.addresses if each.usable and each.ip.version == row.address.version]
    if not usable:
        raise _No(f"{target.name} has no usable IPv{row.address.version} address")
    return usable[0]


def _mechanism(
    reading: Reading, order: Order, policy: BalanceSettings, source: Node, target: Node
) -> Mechanism:
    sas = reading.view.sas
    rows = np.array([list(sas.keys).index(order.sa)], dtype=np.int64)
    if order.mechanism is not None:
        policy = replace(policy, mechanisms=frozenset({order.mechanism}))
    code = int(choose(sas, rows, policy, carried=source.carries and target.carries)[0])
    carries = [node.name for node in (source, target) if not node.carries]
    if order.mechanism is None and code in LEAVING:
        members = reading.state.members
        away = [name for name in carries if members[name].value.transfer]
        if away and int(choose(sas, rows, policy, carried=True)[0]) not in LEAVING:
            raise _No(
                f"{' and '.join(away)} cannot carry IKE_SAs over at this moment, and it would end: order it again, or "
                f"with `--mechanism {Mechanism(code).word}`"
            )
    if code:
        return Mechanism(code)
    also = f"; {' and '.join(carries)} carry no IKE_SAs over" if carries else ""
    raise _No(f"its peer follows no mechanism that is allowed{also}")
