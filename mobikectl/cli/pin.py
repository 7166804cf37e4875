"""`mobikectl pin`, `unpin`: IKE_SAs that are not to be moved."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from mobikectl.cli.cluster import TRIES, asker, note_option, open_cluster
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import console, counted, json_option, print_json, print_table
from mobikectl.cli.sa_names import ServedSa, chosen, served
from mobikectl.cluster.records import Pin
from mobikectl.errors import LostRaceError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.cluster.records import Versioned
    from mobikectl.cluster.store import Store


@click.command()
@settings_options
@click.argument("names", nargs=-1, metavar="[SA]...")
@click.option(
    "--absent", is_flag=True, help="Also a peer identity that has no IKE_SA now: for when it comes."
)
@note_option
@json_option
@run_async
async def pin(settings: Settings, names: tuple[str, ...], absent: bool, note: str, as_json: bool) -> None:
    """Keep IKE_SAs where they are: no plan moves them, also no drain. Without SA, list the pins.

    SA is a key (NODE/PEER-ID#N), a unique id of this node, or a peer's identity: then all of its IKE_SAs are pinned,
    those that it will make, too.
    """
    async with open_cluster(settings) as cluster:
        everything = served(await cluster.store.sas())
        if not names:
            _list((await cluster.store.state()).pins, everything, as_json=as_json)
            return
        wanted = {
            target: None
            for name in names
            for target in _targets(name, everything, cluster.settings.node, absent)
        }
        for target in wanted:
            await _pin(cluster.store, Pin(target, by=asker(), note=note))
    if as_json:
        print_json({"pinned": [{"sa": target, "holds": _held(target, everything)} for target in wanted]})
        return
    for target in wanted:
        console.print(f"{target}: pinned{_meaning(_held(target, everything))}", markup=False)


def _targets(name: str, everything: list[ServedSa], home: str, absent: bool) -> list[str]:
    """Given what was typed, return what to pin: an identity as it is, anything else as the keys that it means."""
    if any(sa.row.peer_id == name for sa in everything):
        return [name]
    try:
        return [sa.row.key for sa in chosen(everything, name, home=home)]
    except NotFoundError as error:
        if absent:
            return [name]
        raise NotFoundError(
            error.message, hint=f"{error.hint}; to pin an identity before it connects, add --absent"
        ) from error


def _held(target: str, everything: list[ServedSa]) -> list[str]:
    return [sa.row.key for sa in everything if target in {sa.row.key, sa.row.peer_id}]


def _meaning(held: list[str]) -> str:
    if not held:
        return "; it has no IKE_SA now"
    return f"; it holds {counted(len(held))}" if len(held) > 1 else f" on {held[0].partition('/')[0]}"


async def _pin(store: Store, wanted: Pin) -> None:
    for left in reversed(range(TRIES)):
        before = (await store.state()).pins.get(wanted.sa)
        try:
            await store.pin(wanted, revision=before.revision if before else 0)
        except LostRaceError:
            if not left:
                raise
        else:
            return


def _list(pins: Mapping[str, Versioned[Pin]], everything: list[ServedSa], *, as_json: bool) -> None:
    rows = [(pin.value, _held(name, everything)) for name, pin in sorted(pins.items())]
    if as_json:
        print_json([{"sa": pin.sa, "holds": held, "by": pin.by, "note": pin.note} for pin, held in rows])
        return
    print_table(
        ["pinned", "IKE_SAs now", "by", "note"],
        [[pin.sa, ", ".join(held) or "none", pin.by or "-", pin.note or "-"] for pin, held in rows],
        empty="nothing is pinned",
    )


@click.command()
@settings_options
@click.argument("names", nargs=-1, metavar="[SA]...")
@click.option("--all", "everything", is_flag=True, help="Every pin.")
@json_option
@run_async
async def unpin(settings: Settings, names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Let IKE_SAs be moved again. SA is what `pin` lists, or a name of an IKE_SA that is pinned."""
    if bool(names) == everything:
        raise click.UsageError("give either SA or --all; `mobikectl pin` lists the pins")
    async with open_cluster(settings) as cluster:
        pins = (await cluster.store.state()).pins
        sas = [] if everything else served(await cluster.store.sas())
        removed = list(pins) if everything else _removed(names, pins, sas, cluster.settings.node)
        for target in removed:
            await _unpin(cluster.store, target)
    if as_json:
        print_json({"unpinned": removed})
        return
    for target in removed:
        console.print(f"{target}: no longer pinned", markup=False)
    if not removed:
        console.print("nothing is pinned")


def _removed(
    names: tuple[str, ...], pins: Mapping[str, Versioned[Pin]], sas: list[ServedSa], home: str
) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        targets = [name] if name in pins else _pinned_as(name, pins, sas, home)
        if not targets:
            near = difflib.get_close_matches(name, list(pins), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "`mobikectl pin` lists the pins"
            raise NotFoundError(f"{name!r} is not pinned", hint=hint)
        found |= dict.fromkeys(targets)
    return list(found)


def _pinned_as(name: str, pins: Mapping[str, Versioned[Pin]], sas: list[ServedSa], home: str) -> list[str]:
    """Return the pins of the keys that a name means; one of the whole identity has to be named itself."""
    try:
        return [sa.row.key for sa in chosen(sas, name, home=home) if sa.row.key in pins]
    except NotFoundError:
        return []


async def _unpin(store: Store, target: str) -> None:
    for left in reversed(range(TRIES)):
        before = (await store.state()).pins.get(target)
        if before is None:
            return
        try:
            await store.unpin(target, revision=before.revision)
        except LostRaceError:
            if not left:
                raise
        else:
            return
