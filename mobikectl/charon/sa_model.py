"""How the model of charon's SAs follows what charon says: pure functions.

Each takes the SAs known so far and returns a `Step`: which entries change, and what to tell. The
number of an IKE_SA changes with a rekey and is used again after a restart; its SPIs tell which.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, assert_never

from mobikectl.charon.sa_events import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    Difference,
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaEvent,
    SaPathChanged,
    SaPortsChanged,
    SaRekeyed,
    SaUp,
)
from mobikectl.charon.sas import (
    LIVE_CHILD,
    LIVE_IKE,
    ChildRekey,
    ChildUpDown,
    IkeRekey,
    IkeUpdate,
    IkeUpDown,
    Observation,
    RetransmitSeen,
)
from mobikectl.model import ChildState, IkeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

    from mobikectl.model import ChildSa, IkeSa


@dataclass(slots=True)
class Step:
    """What an observation changes.

    `changes`: number -> the IKE_SA now, or None when it is gone. `events`: in order. `doubtful`:
    numbers of IKE_SAs of which the observation told only a part, worth asking charon about.
    """

    changes: dict[int, IkeSa | None] = field(default_factory=dict)
    events: list[SaEvent] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)


def observe(sas: Mapping[int, IkeSa], seen: Observation) -> Step:
    """Given the SAs known and an observation, return what changes."""
    step = Step()
    match seen:
        case IkeUpDown(up=True, sa=sa):
            _told(step, sas, replace(_established(sa), children=()), fresh=True)
        case IkeUpDown(sa=sa):
            _gone(step, sas.get(sa.uniqueid), sa)
        case IkeUpdate():
            _update(step, sas, seen)
        case IkeRekey():
            _rekey(step, sas, seen)
        case ChildUpDown(up=True):
            _children_up(step, sas, seen.sa)
        case ChildUpDown():
            _children_down(step, sas, seen.sa)
        case ChildRekey():
            _children_rekeyed(step, sas, seen)
        case RetransmitSeen():
            kind = PeerUnresponsive if seen.given_up else Retransmit
            step.events.append(kind(seen.uniqueid, seen.count, seen.probing))
        case _:
            assert_never(seen)
    return step


def resync(
    sas: Mapping[int, IkeSa],
    listed: Iterable[IkeSa],
    *,
    with_children: bool,
    touched: Set[int] = frozenset(),
    within: Set[int] | None = None,
) -> Step:
    """Given the SAs known and those that charon lists, return what makes the model equal to the list.

    `with_children`: whether the list told the CHILD_SAs; otherwise those known are kept. `touched`:
    numbers that events changed while the list was read, where the list may be the older. `within`:
    when given, the list was asked for these numbers only.
    """
    step = Step()
    there = {sa.uniqueid: sa for sa in listed if sa.state in LIVE_IKE}
    asked = set(sas) if within is None else set(within)
    for uniqueid in sorted(asked - there.keys() - touched):
        if (known := sas.get(uniqueid)) is not None:
            _gone(step, known, known)
            step.differences.append(Difference("extra", uniqueid, known, None))
    for uniqueid, sa in there.items():
        if uniqueid in touched:
            continue
        known = sas.get(uniqueid)
        _told(step, sas, replace(sa, children=()), fresh=False)
        if with_children:
            _compare_children(step, sas, sa)
        elif known is None or not _same(known, sa):
            step.doubtful.add(uniqueid)
        after = step.changes.get(uniqueid, known)
        if known is None or after is None or not _same(known, after):
            step.differences.append(Difference("missing", uniqueid, None, after))
        elif _essence(known) != _essence(after):
            step.differences.append(Difference("changed", uniqueid, known, after))
    return step


def live_children(sa: IkeSa) -> tuple[ChildSa, ...]:
    """Given an IKE_SA as charon lists it, return the CHILD_SAs that the model holds."""
    return tuple(child for child in sa.children if child.state in LIVE_CHILD)


def _same(one: IkeSa, other: IkeSa) -> bool:
    """Whether two values with one number are one IKE_SA (after a restart the numbers begin anew)."""
    return (one.initiator_spi, one.responder_spi) == (other.initiator_spi, other.responder_spi)


def _essence(sa: IkeSa) -> IkeSa:
    """Return the SA without what grows by itself and without the state, of which charon sends no events."""
    children = tuple(replace(child, state=ChildState.INSTALLED, counters=None) for child in sa.children)
    return replace(sa, state=IkeState.ESTABLISHED, established_s=None, children=children)


def _established(sa: IkeSa) -> IkeSa:
    """Return the SA of an event that tells it is up; charon sets the state around the event."""
    return sa if sa.state in LIVE_IKE else replace(sa, state=IkeState.ESTABLISHED)


def _role(sa: IkeSa) -> bool:
    """Guess the original initiator of an SA that was established unseen and may have been rekeyed.

    A virtual IP is assigned to the initiator (RFC 7296 section 2.19), which no rekey changes; without
    one, charon's flag is all there is.
    """
    if sa.local_vips:
        return True
    return False if sa.remote_vips else sa.original_initiator


def _now(step: Step, sas: Mapping[int, IkeSa], uniqueid: int) -> IkeSa | None:
    return step.changes[uniqueid] if uniqueid in step.changes else sas.get(uniqueid)


def _told(step: Step, sas: Mapping[int, IkeSa], told: IkeSa, *, fresh: bool) -> IkeSa:
    """Take what charon says of an IKE_SA itself (not of its children) and return the SA as it is now.

    `fresh`: it was established this moment, so that its initiator flag is the original one.
    """
    known = _now(step, sas, told.uniqueid)
    if known is not None and not _same(known, told):
        _gone(step, known, known)
        known = None
    if known is None:
        sa = told if fresh else replace(told, original_initiator=_role(told))
        step.changes[sa.uniqueid] = sa
        step.events.append(SaUp(sa))
        return sa
    if known.state is IkeState.PASSIVE and told.state is not IkeState.PASSIVE:
        # It was a copy, or frozen: what became of its children meanwhile nobody told.
        step.doubtful.add(told.uniqueid)
    sa = replace(told, original_initiator=known.original_initiator, children=known.children)
    step.changes[sa.uniqueid] = sa
    _moved(step, known, sa)
    return sa


def _moved(step: Step, before: IkeSa, sa: IkeSa) -> None:
    ports_before = (before.local_port, before.remote_port)
    ports = (sa.local_port, sa.remote_port)
    if before.path != sa.path:
        step.events.append(SaPathChanged(sa, before.path, sa.path))
    elif ports_before != ports:
        step.events.append(SaPortsChanged(sa, ports_before, ports))


def _gone(step: Step, known: IkeSa | None, told: IkeSa) -> None:
    if known is not None and _same(known, told):
        step.changes[known.uniqueid] = None
        step.events.append(SaDown(known))


def _update(step: Step, sas: Mapping[int, IkeSa], seen: IkeUpdate) -> None:
    """ike-update comes just before the change: its SA is the old one, except for the addresses it names.

    It does not tell whether a NAT is on the new path: that has to be asked.
    """
    known = sas.get(seen.sa.uniqueid)
    if known is None or not _same(known, seen.sa):
        return
    sa = replace(known, path=seen.path, local_port=seen.local_port, remote_port=seen.remote_port)
    step.changes[sa.uniqueid] = sa
    step.doubtful.add(sa.uniqueid)
    _moved(step, known, sa)


def _rekey(step: Step, sas: Mapping[int, IkeSa], seen: IkeRekey) -> None:
    old = sas.get(seen.old.uniqueid)
    if old is None or not _same(old, seen.old):
        told = replace(_established(seen.new), children=(), original_initiator=_role(seen.old))
        sa = _told(step, sas, told, fresh=True)
        step.doubtful.add(sa.uniqueid)
        return
    new = _established(seen.new)
    sa = replace(
        new,
        original_initiator=old.original_initiator,
        children=old.children,
        local_vips=new.local_vips or old.local_vips,
        remote_vips=new.remote_vips or old.remote_vips,
    )
    step.changes[old.uniqueid] = None
    step.changes[sa.uniqueid] = sa
    step.events.append(SaRekeyed(old.uniqueid, sa))
    _moved(step, old, sa)


def _children_up(step: Step, sas: Mapping[int, IkeSa], told: IkeSa) -> None:
    if told.uniqueid not in sas:
        if told.state not in LIVE_IKE:
            return
        step.doubtful.add(told.uniqueid)
    sa = _told(step, sas, replace(_established(told), children=()), fresh=False)
    for child in told.children:
        sa = _with_child(step, sa, replace(child, state=ChildState.INSTALLED))


def _with_child(step: Step, sa: IkeSa, child: ChildSa, *, replaces: int | None = None) -> IkeSa:
    known = {other.uniqueid for other in sa.children}
    others = [other for other in sa.children if other.uniqueid not in (child.uniqueid, replaces)]
    sa = replace(sa, children=tuple(sorted([*others, child], key=lambda one: one.uniqueid)))
    step.changes[sa.uniqueid] = sa
    if replaces is not None and replaces in known:
        step.events.append(ChildRekeyed(sa, replaces, child))
    elif child.uniqueid not in known:
        step.events.append(ChildUp(sa, child))
    return sa


def _without_child(step: Step, sa: IkeSa, child: ChildSa) -> IkeSa:
    sa = replace(sa, children=tuple(other for other in sa.children if other.uniqueid != child.uniqueid))
    step.changes[sa.uniqueid] = sa
    step.events.append(ChildDown(sa, child))
    return sa


def _children_down(step: Step, sas: Mapping[int, IkeSa], told: IkeSa) -> None:
    """When an IKE_SA goes, charon reports its children after it: then nothing is left to do."""
    known = sas.get(told.uniqueid)
    if known is None or not _same(known, told):
        return
    gone = {child.uniqueid for child in told.children}
    sa = known
    for child in known.children:
        if child.uniqueid in gone:
            sa = _without_child(step, sa, child)


def _children_rekeyed(step: Step, sas: Mapping[int, IkeSa], seen: ChildRekey) -> None:
    if seen.sa.uniqueid not in sas:
        return
    sa = _told(step, sas, replace(_established(seen.sa), children=()), fresh=False)
    for old, new in seen.pairs:
        if all(child.uniqueid != old.uniqueid for child in sa.children):
            step.doubtful.add(sa.uniqueid)  # both ends rekeyed it at once: which one won is not told
        sa = _with_child(step, sa, replace(new, state=ChildState.INSTALLED), replaces=old.uniqueid)


def _compare_children(step: Step, sas: Mapping[int, IkeSa], listed: IkeSa) -> None:
    sa = _now(step, sas, listed.uniqueid)
    if sa is None:
        return
    there = live_children(listed)
    numbers = {child.uniqueid for child in there}
    for child in sa.children:
        if child.uniqueid not in numbers:
            sa = _without_child(step, sa, child)
    for child in there:
        sa = _with_child(step, sa, child)
