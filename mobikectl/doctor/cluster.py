"""The cluster's side: this node's name and addresses, the store, and what makes moves of many IKE_SAs dear."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mobikectl.charon.daemon import enabled
from mobikectl.cluster.node_settings import Placement
from mobikectl.cluster.settings import StoreKind, open_store
from mobikectl.doctor.findings import Finding, Level
from mobikectl.errors import INSTALL_PLUGIN, MobikectlError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mobikectl.charon.daemon import Daemon
    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.cluster.state import ClusterState
    from mobikectl.model import NetState

FWMARK = "charon.plugins.kernel-netlink.fwmark"


def addresses(settings: ClusterSettings, net: NetState) -> Iterator[Finding]:
    """Given the node and the host's network, yield whether clients can be served at the node's addresses."""
    links = {link.index: link for link in net.links.values()}
    names = {link.name: link for link in net.links.values()}
    good = []
    for wanted in settings.addresses:
        subject = f"address {wanted.ip}"
        holders = [links[a.index] for a in net.addresses if a.ip == wanted.ip and a.index in links]
        if not holders:
            mend = "give it to an interface, or take it out of [cluster] addresses"
            yield Finding(Level.PROBLEM, subject, "no interface has it: nobody is served there", mend)
        elif wanted.dev and wanted.dev not in names:
            mend = f"name the uplink of {wanted.ip} in [cluster] addresses, or leave dev out"
            yield Finding(Level.PROBLEM, subject, f"there is no interface {wanted.dev}", mend)
        elif not (names[wanted.dev] if wanted.dev else holders[0]).usable:
            device = wanted.dev or holders[0].name
            mend = f"bring {device} up; until then its clients are moved to the node's other addresses"
            yield Finding(Level.WARNING, subject, f"its uplink {device} is down", mend)
        else:
            good.append(str(wanted.ip))
    if good:
        yield Finding(Level.GOOD, "serving addresses", " ".join(good))


def charon(
    settings: ClusterSettings, found: Mapping[str, str], daemon: Daemon, file: Path
) -> Iterator[Finding]:
    """Given the node, strongswan.conf's settings and charon, yield what makes moves dear, or impossible."""
    known = dict(found)
    marked = known.get(FWMARK, "").startswith("!")
    if enabled(known, "charon.install_routes", default=True) and not marked:
        yield Finding(
            Level.WARNING,
            "install_routes",
            "on: each route that steers a client makes charon dump all routes once for each IKE_SA",
            f"set charon.install_routes = no in {file} (or kernel-netlink's fwmark = !MARK) and restart charon",
        )
    else:
        yield Finding(Level.GOOD, "install_routes", "off, or routes are looked up without charon's own")
    if not daemon.has_plugin("rmobike") and settings.placement is not Placement.OFF:
        yield Finding(
            Level.PROBLEM,
            "placement",
            f"new clients are to be placed ({settings.placement.value}), which only the rmobike plugin can do",
            f"set placement = 'off', or {INSTALL_PLUGIN}",
        )


async def store(settings: ClusterSettings, *, runs: bool) -> list[Finding]:
    """Given the node and whether its sidecar runs, return what the store says. Writes nothing."""
    if settings.store.kind is StoreKind.SQLITE and not os.path.exists(settings.store.sqlite.path):  # noqa: PTH110
        # Opened, it would be made. A file in a folder that is closed to this user counts as none here.
        return [_no_store(settings, runs=runs)]
    try:
        opened = open_store(settings.store)
    except MobikectlError as error:
        return [Finding(Level.PROBLEM, "store", error.message, error.hint)]
    try:
        state = await opened.state()
        sas = await opened.sas()
    except StoreError as error:
        return [Finding(Level.PROBLEM, "store", error.message, error.hint)]
    finally:
        await opened.close()
    return [*_store(settings, state), *_broken((*state.broken, *sas.broken)), *_member(settings, state, runs)]


def _no_store(settings: ClusterSettings, *, runs: bool) -> Finding:
    text = f"{settings.store.sqlite.path}: no such store"
    if runs:
        mend = (
            "the sidecar uses another: compare [cluster.store.sqlite] path with the file it was started with"
        )
        return Finding(Level.PROBLEM, "store", text, mend)
    return Finding(Level.NOTE, "store", text, "nothing: the first sidecar makes it")


def _store(settings: ClusterSettings, state: ClusterState) -> Iterator[Finding]:
    kind = settings.store.kind
    leader = f"{state.leader.node} leads" if state.leader else "nobody leads"
    text = f"{kind.value}: {len(state.members)} nodes of cluster {settings.store.cluster}, {leader}"
    yield Finding(Level.GOOD, "store", text)
    if kind is StoreKind.SQLITE:
        yield Finding(
            Level.NOTE,
            "store",
            f"{settings.store.sqlite.path} is of this machine only",
            "a cluster of several machines needs [cluster.store] kind = 'etcd'; a file on a network is no way",
        )


def _broken(errors: tuple[StoreError, ...]) -> Iterator[Finding]:
    for error in errors[:5]:
        yield Finding(
            Level.PROBLEM, "store", f"while this is there nothing is planned: {error.message}", error.hint
        )


def _member(settings: ClusterSettings, state: ClusterState, runs: bool) -> Iterator[Finding]:
    there = state.members.get(settings.node)
    if runs and there is None:
        text = f"the sidecar runs, and {settings.node} is no member"
        mend = "see its log; right after a start it waits until its predecessor's lease is over"
        yield Finding(Level.WARNING, "node", text, mend)
    elif there is not None and not runs:
        text = f"a node named {settings.node} is in the cluster, and the sidecar here does not run"
        mend = "give this node its own name, unless its sidecar stopped a moment ago"
        yield Finding(Level.PROBLEM, "node", text, mend)
    elif there is not None and {a.ip for a in there.value.addresses} != {a.ip for a in settings.addresses}:
        theirs = ", ".join(str(address.ip) for address in there.value.addresses)
        text = f"the member {settings.node} has other addresses: {theirs}"
        mend = "another machine has the name, or the sidecar here has not been restarted since the change"
        yield Finding(Level.PROBLEM, "node", text, mend)
    else:
        yield Finding(Level.GOOD, "node", settings.node)
