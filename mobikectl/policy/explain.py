"""Why an IKE_SA is where it is: what holds it, how it could leave, where it could go, what is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobikectl.errors import NotFoundError
from mobikectl.policy import mechanism
from mobikectl.policy.balance import plan
from mobikectl.policy.balance_places import Places, health_now
from mobikectl.policy.balance_units import UnitKey
from mobikectl.policy.cluster import Mechanism

if TYPE_CHECKING:
    from collections.abc import Collection

    from mobikectl.policy.cluster import ClusterView, Ints
    from mobikectl.policy.cluster_settings import BalanceSettings


def explain(view: ClusterView, settings: BalanceSettings, now: float, key: str) -> tuple[str, ...]:
    """Given the cluster and an IKE_SA's key, return lines for people. Raise NotFoundError for an unknown key."""
    row = next((i for i in range(len(view.sas)) if view.sas.keys[i] == key), None)
    if row is None:
        raise NotFoundError(f"no IKE_SA {key!r} in the cluster", hint="list them with: mobikectl sas")
    places = Places(view, settings, now)
    rows = np.array([row])
    lines = [_where(view, places, row), _node(view, places, settings, now, int(view.sas.owner[row]))]
    lines += _held(view, settings, now, row)
    lines += _ways(view, places, settings, rows)
    move = next((move for move in plan(view, settings, now).moves if key in move.sas), None)
    lines.append(f"planned now: {move.explain()}" if move else "planned now: it stays")
    return tuple(lines)


def why_stays(
    view: ClusterView, settings: BalanceSettings, now: float, keys: Collection[str]
) -> dict[str, str]:
    """Given the cluster and keys, return in one line each why these IKE_SAs are still where they are.

    Keys that are not in the view are left out.
    """
    places = Places(view, settings, now)
    wanted = set(keys)
    leaving = {key: move for move in plan(view, settings, now).moves for key in move.sas if key in wanted}
    found = {}
    for row, key in enumerate(view.sas.keys):
        if key in leaving:
            move = leaving[key]
            found[key] = f"about to go to {move.target} by {move.mechanism.word}"
        elif key in wanted:
            said = [*_held(view, settings, now, row), *_ways(view, places, settings, np.array([row]))]
            found[key] = "; ".join(said)
    return found


def _where(view: ClusterView, places: Places, row: int) -> str:
    sas, owner = view.sas, int(view.sas.owner[row])
    address = view.nodes[owner].addresses[int(sas.address[row])].ip
    return (
        f"served by {places.names[owner]} at {address}, "
        f"{sas.bytes_per_s[row]:.0f} bytes/s, {sas.packets_per_s[row]:.0f} packets/s"
    )


def _node(view: ClusterView, places: Places, settings: BalanceSettings, now: float, owner: int) -> str:
    node = view.nodes[owner]
    used = float((places.load[owner] / places.capacity[owner]).max())
    drained = ", drained" if node.drained else ""
    return (
        f"{node.name} is {health_now(node, settings, now).value}{drained}, at {used:.1%} of its capacity "
        f"(limit {node.overload_limit:.0%}, even level {places.even_level(places.load) * node.weight:.1%})"
    )


def _held(view: ClusterView, settings: BalanceSettings, now: float, row: int) -> list[str]:
    sas, held = view.sas, []
    if sas.pinned[row]:
        held.append("pinned: it is never moved")
    if sas.refused_until[row] > now:
        held.append(f"its peer refused a move: left alone for another {sas.refused_until[row] - now:.0f} s")
    rest = sas.last_moved_at[row] + settings.cooldown_s - now
    if rest > 0:
        held.append(f"moved lately: rests for another {rest:.0f} s unless its node is to be emptied")
    if sas.recent_redirects[row] >= settings.redirects:
        held.append(f"redirected {sas.recent_redirects[row]} times in 300 s: no further redirect (RFC 5685)")
    return held


def _ways(view: ClusterView, places: Places, settings: BalanceSettings, rows: Ints) -> list[str]:
    owner, kind = int(view.sas.owner[rows[0]]), int(places.kinds(rows)[0])
    code = int(mechanism.choose(view.sas, rows, settings, carried=places.can_carry(owner))[0])
    if not code:
        return ["no mechanism: its peer supports none that the settings allow"]
    best = Mechanism(code)
    carried = best in (Mechanism.NOTIFY, Mechanism.IMPLICIT)
    targets = []
    for leave_site in (False, True):
        allowed = places.targets(UnitKey(kind, best, carried), leave_site).copy()
        allowed[owner] = False
        targets.append(int(allowed.sum()))
    return [f"could leave by {best.word}, to {targets[0]} nodes (in any site: {targets[1]})"]
