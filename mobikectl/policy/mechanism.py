"""Which mechanism a switch of an IKE_SA would use: the best one that its peer was seen to support.

A column in, a column out, so that a million IKE_SAs cost a few vector operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mobikectl.policy.cluster import Bools, Capability, Ints, Mechanism, SaTable

if TYPE_CHECKING:
    from mobikectl.policy.cluster_settings import BalanceSettings

Codes = NDArray[np.int8]
"""`Mechanism` values; 0: none."""

COST: dict[Mechanism, float] = {
    Mechanism.NOTIFY: 1.0,
    Mechanism.IMPLICIT: 1.5,
    Mechanism.REDIRECT: 5.0,
    Mechanism.RECONNECT: 25.0,
}
"""Relative price of moving one IKE_SA: gateway CPU and packets on the wire as measured (docs/architecture.md),
and for a reconnect the interruption on top."""


def supports(sas: SaTable, rows: Ints, capability: Capability) -> Bools:
    """Given rows of the table, return which peers were seen to have the capability."""
    supported: Bools = (sas.capability[rows] & np.uint8(int(capability))) != 0
    return supported


def movable_as_a_group(sas: SaTable, rows: Ints) -> Bools:
    """Given rows, return for which of them a steered address list would do no harm to the IKE_SA.

    A route steers everything behind the peer's outer address, so each IKE_SA there must speak MOBIKE,
    and none may be behind a NAT (it drops what comes from an address it never sent to) or pinned.
    """
    return supports(sas, rows, Capability.MOBIKE) & ~sas.behind_nat[rows] & ~sas.pinned[rows]


def choose(
    sas: SaTable,
    rows: Ints,
    settings: BalanceSettings,
    *,
    carried: bool,
    source_reachable: bool = True,
) -> Codes:
    """Return the best mechanism for each row, 0 where there is none.

    ``carried``: the state goes along (or stays on its node), so the same IKE_SA can go on.
    ``source_reachable``: the peer can still be told from the address it is served at; when not, only
    the new address can speak, which is the implicit switch.
    """
    codes = np.zeros(len(rows), dtype=np.int8)
    allowed = settings.mechanisms

    def offer(mechanism: Mechanism, possible: Bools) -> None:
        if mechanism in allowed:
            codes[(codes == 0) & possible] = int(mechanism)

    if carried and source_reachable:
        offer(Mechanism.NOTIFY, supports(sas, rows, Capability.SWITCH))
    if carried:
        offer(Mechanism.IMPLICIT, movable_as_a_group(sas, rows))
    if source_reachable:
        offer(
            Mechanism.REDIRECT,
            supports(sas, rows, Capability.REDIRECT) & (sas.recent_redirects[rows] < settings.redirects),
        )
        offer(Mechanism.RECONNECT, np.ones(len(rows), dtype=np.bool_))
    return codes
