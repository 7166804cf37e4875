"""`mobikectl leases`: which node may give out which virtual IPs, and what becomes of a dead node's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.cluster import TRIES, complete_node, open_cluster, require_node, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import console, json_option, print_json, print_table
from mobikectl.errors import LostRaceError, MoveError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mobikectl.cluster.leases import Block, Blocks, Leases


@click.group()
def leases() -> None:
    """Virtual IPs of the cluster: who may give out which, and a dead node's to another (docs/moves.md)."""


@leases.command("list")
@settings_options
@click.option(
    "--addresses", is_flag=True, help="Each address that a peer has or had last, instead of the blocks."
)
@json_option
@run_async
async def list_leases(settings: Settings, addresses: bool, as_json: bool) -> None:
    """List the blocks that nodes have leased. Changes nothing."""
    async with open_cluster(settings) as cluster:
        members = (await cluster.store.state()).members
        found = await cluster.store.leases().read()
    blocks = _sorted(found)
    warn(f"a block cannot be read, and counts as leased: {error.message}" for error in found.broken)
    if as_json:
        print_json([_as_json(block, members) for block in blocks])
    elif addresses:
        print_table(
            ["address", "peer", "block of", "may serve it, too"],
            [
                [
                    str(bound.address),
                    bound.identity,
                    block.node,
                    ", ".join(f"{guest.node} ({guest.state.value})" for guest in bound.guests) or "-",
                ]
                for block in blocks
                for bound in block.bound
            ],
            empty="no peer has an address",
        )
    else:
        print_table(
            ["pool", "from", "addresses", "node", "is", "peers have", "at other nodes"],
            [
                [
                    block.pool,
                    str(block.first),
                    str(block.size),
                    block.node,
                    "there" if block.node in members else "away",
                    str(len(block.bound)),
                    str(sum(1 for bound in block.bound if bound.guests)),
                ]
                for block in blocks
            ],
            empty="no node has leased any: is [cluster] address_pools configured?",
        )


@leases.command()
@settings_options
@click.argument("node", metavar="NODE")
@click.option(
    "--to", "heir", required=True, metavar="NODE", shell_complete=complete_node, help="Who gets them."
)
@click.option("--yes", is_flag=True, help="Do not ask: its charon is off, and will not come back as it was.")
@json_option
@run_async
async def reclaim(settings: Settings, node: str, heir: str, yes: bool, as_json: bool) -> None:
    """Give the blocks of a node that is gone for good to another.

    What only NODE served is free again; what other nodes serve stays with them. A lease that ran out says nothing
    about a charon: two peers would have one address if it still served somebody. So its charon has to be off.
    """
    if node == heir:
        raise click.UsageError("a node cannot inherit from itself")
    async with open_cluster(settings) as cluster:
        state = await cluster.store.state()
        if node in state.members:
            raise MoveError(
                f"{node} is a member of the cluster: it may give out and serve these addresses",
                hint="drain it, stop its charon and its sidecar, and come back when `mobikectl nodes` has it away",
            )
        if heir not in state.members:
            require_node(state, heir)
            raise NotFoundError(
                f"{heir} is away", hint="give them to a node that is there: `mobikectl nodes`"
            )
        rights = cluster.store.leases()
        before = _sorted(await rights.read())
        if not _of(node, before):
            nodes = ", ".join(sorted({block.node for block in before})) or "none"
            raise NotFoundError(
                f"{node} has no block, and serves no address of others", hint=f"nodes with blocks: {nodes}"
            )
        if not yes:
            _ask(node, before)
        await _reclaim(rights, node, heir)
        after = _sorted(await rights.read())
    taken = [block for block in before if block.node == node]
    freed = sorted(_bound(before) - _bound(after))
    if as_json:
        print_json(
            {"blocks": [_as_json(block, state.members) for block in taken], "to": heir, "freed": freed}
        )
        return
    said = f"{_are(len(taken), 'block', f'of {node}')} {heir}'s; "
    said += f"{_are(len(freed), 'address', f'that only {node} served')} free"
    console.print(said, markup=False)


def _are(count: int, what: str, which: str) -> str:
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count} {what}{plural} {which} {'is' if count == 1 else 'are'}"


def _ask(node: str, before: Collection[Block]) -> None:
    blocks = [block for block in before if block.node == node]
    bound = sum(len(block.bound) for block in blocks)
    click.echo(
        f"blocks of {node}: {len(blocks)}; addresses of them that peers have or had: {bound}", err=True
    )
    click.confirm(f"Is {node}'s charon off, and its power, if it cannot be reached?", abort=True, err=True)


async def _reclaim(rights: Leases, node: str, heir: str) -> None:
    """Give them over, whatever other nodes change in the blocks meanwhile. Raise LostRaceError: too often."""
    for left in reversed(range(TRIES)):
        try:
            await rights.reclaim(node, heir)
        except LostRaceError:
            if not left:
                raise
        else:
            return


def _sorted(found: Blocks) -> list[Block]:
    blocks = (block.value for block in found.blocks.values())
    return sorted(blocks, key=lambda block: (block.pool, block.number))


def _of(node: str, blocks: Iterable[Block]) -> bool:
    return any(block.node == node or any(bound.guest(node) for bound in block.bound) for block in blocks)


def _bound(blocks: Iterable[Block]) -> set[str]:
    return {str(bound.address) for block in blocks for bound in block.bound}


def _as_json(block: Block, members: Collection[str]) -> dict[str, Any]:
    return {
        "pool": block.pool,
        "first": str(block.first),
        "size": block.size,
        "node": block.node,
        "there": block.node in members,
        "bound": [
            {
                "address": str(bound.address),
                "identity": bound.identity,
                "guests": [{"node": guest.node, "state": guest.state.value} for guest in bound.guests],
            }
            for bound in block.bound
        ],
    }
