"""For how long a silent peer's IKE_SA lives here: what charon's own timers allow."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mobikectl.charon.sas import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.charon.session import Session
    from mobikectl.model import IkeSa

_TIMERS = ("rekey-time", "reauth-time", "life-time")
"""Seconds left until charon sends a request that a silent peer does not answer, or deletes the SA."""


async def keepable_s(charon: Session, sa: IkeSa, most_s: int) -> int:
    """Return for how many seconds, up to `most_s`, this charon keeps an IKE_SA whose peer is silent.

    That is until it would rekey, reauthenticate or check the peer (`dpd_delay`): unanswered, each of these ends the
    IKE_SA. 0 when the IKE_SA or its connection is not there. Raises what `Session.stream` raises.
    """
    limits = [most_s]
    found = False
    async with aclosing(charon.stream("list-sas", "list-sa", {"ike-id": sa.uniqueid})) as listed:
        async for message in listed:
            for tree in _sections(message):
                found = True
                limits += _timers(tree)
                for child in _sections(tree.get("child-sas")):
                    limits += _timers(child)
    known = False
    async with aclosing(charon.stream("list-conns", "list-conn", {"ike": sa.name})) as conns:
        async for message in conns:
            for tree in _sections(message):
                known = True
                if delay := number(tree.get("dpd_delay")):
                    limits.append(delay)
    return min(limits) if found and known else 0


def _timers(tree: dict[str, Any]) -> list[int]:
    return [number(tree[key]) for key in _TIMERS if key in tree]


def _sections(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield from (value for value in tree.values() if isinstance(value, dict))
