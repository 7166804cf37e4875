"""A small world to try the path policy in: two uplinks, a gateway, and a clock that only the test turns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import MappingProxyType

from mobikectl.model import Address, IkeSa, IkeState, IpAddress, Link, NetState, Path, RouteAnswer
from mobikectl.policy.paths import decide
from mobikectl.policy.settings import InterfaceRule, PathSettings, ProbeSettings
from mobikectl.policy.state import (
    Decision,
    Indication,
    IndicationKind,
    Memory,
    MoveOutcome,
    MoveSa,
    PathState,
    ProbePath,
)
from mobikectl.policy.track import ProbeError, ProbeResult

WIRED, RADIO, NEW = (ip_address(a) for a in ("198.18.1.2", "198.18.2.2", "198.18.1.3"))
GATEWAY, SECOND_GATEWAY = ip_address("198.19.0.1"), ip_address("198.19.0.2")
A, B = Path(WIRED, GATEWAY), Path(RADIO, GATEWAY)
LINKS = {1: "lo", 2: "up0", 3: "up1"}

PREFER_WIRED = PathSettings(
    interfaces=(InterfaceRule("up0", priority=10), InterfaceRule("up1", priority=1)),
    probe=ProbeSettings(interval_s=5.0, timeout_s=1.0, failure_interval_s=0.5, recovery_interval_s=1.0),
    hold_down_s=20.0,
)


def sa_on(path: Path, uniqueid: int = 1) -> IkeSa:
    return IkeSa(uniqueid, "home", IkeState.ESTABLISHED, path, local_id="client", remote_id="gw")


@dataclass
class World:
    """Links, addresses and answers as the test sets them; probes and moves are carried out against them."""

    settings: PathSettings = PREFER_WIRED
    sas: list[IkeSa] = field(default_factory=lambda: [sa_on(A)])
    up: set[int] = field(default_factory=lambda: {1, 2, 3})
    addresses: set[Address] = field(
        default_factory=lambda: {
            Address(1, ip_address("127.0.0.1"), 8, scope=254),
            Address(2, WIRED, 24),
            Address(3, RADIO, 24),
        }
    )
    no_route: set[Path] = field(default_factory=set)
    silent: set[Path] = field(default_factory=set)
    """Paths that swallow packets."""
    mute_gateway: bool = False
    """The gateway answers no probes although its SAs work."""
    learnt: dict[int, tuple[IpAddress, ...]] = field(default_factory=dict)
    metrics: dict[Path, int] = field(default_factory=dict)
    indications: list[Indication] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    now: float = 1000.0
    moves: list[MoveSa] = field(default_factory=list)
    probed: list[tuple[float, Path]] = field(default_factory=list)
    others: list[object] = field(default_factory=list)
    decision: Decision | None = None
    carry_out: bool = True
    moves_fail: str = ""
    """'path': probes are answered and yet no move verifies; 'here': this host fails to move."""
    moved_at: list[float] = field(default_factory=list)

    def net(self) -> NetState:
        links = {i: Link(i, n, i in self.up, i in self.up, loopback=n == "lo") for i, n in LINKS.items()}
        return NetState(MappingProxyType(links), frozenset(self.addresses))

    def routes(self) -> dict[Path, RouteAnswer | None]:
        answers: dict[Path, RouteAnswer | None] = {}
        for address in self.addresses:
            for remote in (GATEWAY, SECOND_GATEWAY, *self.settings.gateways, *self.extra()):
                path = Path(address.ip, remote)
                works = address.index in self.up and path not in self.no_route
                answers[path] = RouteAnswer(remote, None, address.index, address.ip) if works else None
        return answers

    def extra(self) -> list[IpAddress]:
        return [ip for ips in self.learnt.values() for ip in ips]

    def state(self) -> PathState:
        return PathState(
            net=self.net(),
            sas=tuple(self.sas),
            routes=self.routes(),
            route_metrics=self.metrics,
            learnt=self.learnt,
            indications=tuple(self.indications),
            memory=self.memory,
        )

    def works(self, path: Path) -> bool:
        present = any(a.ip == path.local and a.index in self.up for a in self.addresses)
        return present and path not in self.silent and path not in self.no_route

    def decide(self) -> Decision:
        self.decision = decide(self.state(), self.settings, self.now)
        self.memory = self.decision.memory
        return self.decision

    def step(self) -> Decision:
        """Decide and carry out what was decided, until nothing more is asked for at this moment."""
        decision = self.decide()
        for _ in range(50):
            if not decision.actions or not self.carry_out:
                return decision
            for action in decision.actions:
                self.perform(action)
            decision = self.decide()
        raise AssertionError("the policy asks for something again and again without time passing")

    def perform(self, action: object) -> None:
        match action:
            case ProbePath(path=path):
                self.probed.append((self.now, path))
                self.memory = self.memory.with_probe(self.answer(path), self.now)
            case MoveSa(path=path):
                self.moves.append(action)
                self.moved_at.append(self.now)
                ok = self.works(path) and not self.moves_fail
                if ok:
                    self.sas = [
                        replace(s, path=path) if s.uniqueid == action.sa_uniqueid else s for s in self.sas
                    ]
                blame = self.moves_fail != "here"
                reason = "" if ok else "it did not verify"
                outcome = MoveOutcome(action.sa_uniqueid, path, ok, path_failed=blame, reason=reason)
                self.memory = self.memory.with_outcome(outcome, self.settings, self.now)
            case _:
                self.others.append(action)

    def answer(self, path: Path) -> ProbeResult:
        good = self.works(path) and not self.mute_gateway
        return result(path, good, self.now)

    def run(self, seconds: float) -> None:
        """Let time pass, deciding whenever the policy asked for it."""
        end = self.now + seconds
        for _ in range(5000):
            decision = self.step()
            due = decision.next_deadline
            assert due is None or due > self.now
            if due is None or due > end:
                self.now = end
                self.step()
                return
            self.now = due
        raise AssertionError("the policy wakes up too often")

    def indicate(self, kind: IndicationKind = IndicationKind.RETRANSMIT) -> None:
        self.indications.append(Indication(1, kind, self.sas[0].path, self.now))

    @property
    def path(self) -> Path:
        return self.sas[0].path


def result(path: Path, good: bool, at: float, rtt_s: float = 0.02) -> ProbeResult:
    if good:
        return ProbeResult(path, 1, 1, (rtt_s,), at, answered=1)
    return ProbeResult(path, 1, 0, (), at, error=ProbeError.TIMEOUT, detail="no answer in 1 s")
