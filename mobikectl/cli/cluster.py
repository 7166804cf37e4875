"""What the commands of a cluster share: its store, its nodes by name, who asks, and what is in the way."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import getpass
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mobikectl.cluster.settings import StoreKind, open_store
from mobikectl.config import load
from mobikectl.errors import ConfigError, LostRaceError, MobikectlError, NotFoundError, StoreUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from mobikectl.cli.common import Settings
    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.cluster.records import ClusterIntent
    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.config import Config

COMPLETION_S = 0.6
"""A shell that waits for names waits no longer than this."""
NAMED = 12
"""Names that an error lists at most."""
TRIES = 5
"""How often a change is tried anew when somebody else was first."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The store and what this host's configuration says of the cluster."""

    store: Store
    settings: ClusterSettings


@contextlib.asynccontextmanager
async def open_cluster(settings: Settings) -> AsyncIterator[Cluster]:
    """Given the settings, give the cluster while the context lasts.

    Raise ConfigError: no cluster is configured; StoreUnreachableError: the file of an embedded store is not there.
    """
    cluster = _configured(settings.config)
    store = open_store(cluster.store)
    try:
        yield Cluster(store, cluster)
    finally:
        await store.close()


def _configured(config: Config) -> ClusterSettings:
    cluster = config.cluster
    if cluster is None:
        raise ConfigError(
            "no [cluster] is configured: this command works on a cluster's store",
            hint="name the configuration file of a node with --config (docs/cluster.md)",
        )
    if cluster.store.kind is StoreKind.SQLITE:
        _require_file(cluster.store.sqlite.path)
    return cluster


def _require_file(path: Path) -> None:
    try:
        there = path.exists()
    except OSError as error:
        raise StoreUnreachableError(
            f"{path}: {error.strerror}", hint="run as root, or as a user who may read and write that file"
        ) from None
    if not there:
        raise StoreUnreachableError(
            f"{path}: no such store",
            hint="the first sidecar makes it; does [cluster.store.sqlite] path name the same file as the sidecars'?",
        )


def known_nodes(state: ClusterState) -> list[str]:
    """Given the state, return the nodes that are there or that somebody wanted something of."""
    wanted = (node for node, intent in state.intents.items() if intent.value.wants)
    return sorted({*state.members, *wanted})


def require_node(state: ClusterState, name: str, *, absent: bool = False) -> None:
    """Given a node's name, return when there is such a node (``absent``: in any case). Raise NotFoundError."""
    known = known_nodes(state)
    if name in known or absent:
        return
    raise NotFoundError(f"no node {name!r} in the cluster", hint=_near(name, known))


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}? `mobikectl nodes` lists them"
    if not names:
        return "no node is there: are the sidecars running, and with this store and cluster name?"
    return f"there are {', '.join(names[:NAMED])}{' and more' if len(names) > NAMED else ''}"


def warn(lines: Iterable[str]) -> None:
    """Print notes beside a command's output."""
    for line in lines:
        click.echo(f"note: {line}", err=True)


def asker() -> str:
    """Return who runs this command, for the others to read."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without an entry in the user database
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


async def change_cluster(store: Store, change: Callable[[ClusterIntent], ClusterIntent]) -> ClusterState:
    """Given how to change what is wanted of the cluster, do that; return the state that it was changed from.

    Raise LostRaceError: others were first `TRIES` times.
    """
    for left in reversed(range(TRIES)):
        state = await store.state()
        try:
            await store.set_cluster(change(state.cluster.value), revision=state.cluster.revision)
        except LostRaceError:
            if not left:
                raise
        else:
            return state
    raise AssertionError("unreachable")


def complete_node(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the nodes that begin with what was typed; none when the store does not tell in time."""
    names = asyncio.run(_names_in_time(ctx.params.get("file")))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


async def _names_in_time(file: Path | None) -> list[str]:
    """Return the nodes' names. A shell's completion has nobody to tell an error to."""
    store: Store | None = None
    try:
        async with asyncio.timeout(COMPLETION_S):
            store = open_store(_configured(load(file)).store)
            return known_nodes(await store.state())
    except (MobikectlError, TimeoutError):
        return []
    finally:
        if store is not None:
            with contextlib.suppress(MobikectlError, TimeoutError):
                async with asyncio.timeout(COMPLETION_S):
                    await store.close()


def node_argument(function: Any) -> Any:
    """Add the argument NODE (as ``node``) to a command."""
    return click.argument("node", metavar="NODE", shell_complete=complete_node)(function)


def note_option(function: Any) -> Any:
    """Add ``--note`` to a command."""
    return click.option(
        "--note", default="", metavar="TEXT", help="Why, for the others who look (`mobikectl nodes`)."
    )(function)


def absent_option(function: Any) -> Any:
    """Add ``--absent`` to a command."""
    return click.option(
        "--absent", is_flag=True, help="Also when no such node is there now: for when it comes."
    )(function)
