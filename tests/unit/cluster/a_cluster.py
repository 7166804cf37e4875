"""Small clusters as they stand in the store, for the tests of who reads and decides."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from mobikectl.cluster.reading import Observed, Reading, put_together
from mobikectl.cluster.records import (
    ClusterIntent,
    Leader,
    Member,
    MoveRecord,
    MoveState,
    MoveStep,
    NodeIntent,
    NodeReport,
    Pin,
    SaPart,
    SaRow,
    Versioned,
)
from mobikectl.cluster.state import ClusterSas, ClusterState, Journal, part_place
from mobikectl.policy.cluster import Capability, Capacity, Mechanism, Reason, ServingAddress
from mobikectl.policy.cluster_settings import BalanceSettings

FULL = Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT
POLICY = BalanceSettings(stale_after_s=5.0, settle_s=2.0)
TOKEN = 77


def address(node: int, number: int = 1) -> Any:
    return ip_address(f"198.18.{node}.{number}")


def row(node: int, number: int, rate: float = 1.0, **more: Any) -> SaRow:
    fields: dict[str, Any] = {
        "key": f"gw{node}/peer-{number}#{number}",
        "peer_id": f"peer-{number}",
        "peer": f"198.19.0.{number}",
        "address": address(node),
        "bytes_per_s": rate,
        "capability": FULL,
    }
    return SaRow(**fields | more)


class Cluster:
    """What stands in the store; each change of it is a new revision. `look` reads it as one reader does."""

    def __init__(self, *nodes: int, sas: float = 10.0) -> None:
        self.revision = 100
        self.sequence = 0
        self.now = 1000.0
        self.members: dict[str, Versioned[Member]] = {}
        self.reports: dict[str, Versioned[NodeReport]] = {}
        self.intents: dict[str, Versioned[NodeIntent]] = {}
        self.pins: dict[str, Versioned[Pin]] = {}
        self.parts: dict[str, Versioned[SaPart]] = {}
        self.cluster = ClusterIntent()
        self.moves: list[Versioned[MoveRecord]] = []
        self.broken: tuple[Any, ...] = ()
        self.observed = Observed()
        for node in nodes:
            self.join(node, capacity=Capacity(bytes_per_s=100.0, sas=sas))
            self.report(node)

    def _versioned(self, value: Any) -> Versioned[Any]:
        self.revision += 1
        return Versioned(value, self.revision)

    def join(self, node: int, **more: Any) -> None:
        addresses = (ServingAddress(address(node)), ServingAddress(address(node, 2)))
        member = Member(f"gw{node}", "one", **{"addresses": addresses} | more)
        self.members[member.name] = self._versioned(member)

    def report(self, node: int, **more: Any) -> None:
        self.sequence += 1
        report = NodeReport(f"gw{node}", "one", self.sequence, **more)
        self.reports[report.node] = self._versioned(report)

    def serve(self, node: int, *rows: SaRow, part: int = 0) -> None:
        self.sequence += 1
        key = f"sas/gw{node}/{part_place(part)}"
        self.parts[key] = self._versioned(SaPart(f"gw{node}", "one", self.sequence, part, part + 1, rows))

    def intend(self, node: int, **more: Any) -> None:
        self.intents[f"gw{node}"] = self._versioned(NodeIntent(**more))

    def pin(self, name: str) -> None:
        self.pins[name] = self._versioned(Pin(name))

    def move(self, *rows: SaRow, target: int, **more: Any) -> MoveRecord:
        source = rows[0].key.partition("/")[0]
        fields: dict[str, Any] = {
            "token": TOKEN,
            "sas": tuple(row.key for row in rows),
            "source": source,
            "target": f"gw{target}",
            "mechanism": Mechanism.REDIRECT,
            "reason": Reason.SPREAD,
            "source_address": rows[0].address,
            "target_address": address(target),
            "steps": (MoveStep(MoveState.PLANNED, 1.0),),
            "number": len(self.moves) + 1,
        }
        record = MoveRecord(**fields | more)
        self.moves.append(self._versioned(record))
        return record

    def step(self, record: MoveRecord, *states: MoveState) -> MoveRecord:
        for state in states:
            record = record.to(state, at=2.0)
        self.moves[record.number - 1] = self._versioned(record)
        return record

    def look(self, *, after: float = 1.0, policy: BalanceSettings = POLICY, **more: Any) -> Reading:
        """Time goes by, and the store is read; nodes report anew unless ``silent``."""
        self.now += after
        silent = more.pop("silent", ())
        for name, report in self.reports.items():
            if name not in silent:
                self.sequence += 1
                self.reports[name] = self._versioned(replace(report.value, sequence=self.sequence))
        reading = put_together(
            ClusterState(
                self.revision,
                Leader("gw1", "one", TOKEN),
                dict(self.members),
                dict(self.reports),
                dict(self.intents),
                Versioned(self.cluster, 1),
                dict(self.pins),
                broken=self.broken,
            ),
            ClusterSas(self.revision, dict(self.parts)),
            Journal(self.revision, tuple(self.moves)),
            policy,
            now=self.now,
            observed=self.observed,
            **more,
        )
        self.observed = reading.observed
        return reading
