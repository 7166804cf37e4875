"""`mobikectl links`: the links and addresses of this host, and whether IKE_SAs may use them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import coloured, json_option, print_json, print_table

if TYPE_CHECKING:
    from mobikectl.model import Link, NetState
    from mobikectl.policy.settings import PathSettings


@click.command()
@settings_options
@click.option("--all", "everything", is_flag=True, help="Also the loopback and links without an address.")
@json_option
@run_async
async def links(settings: Settings, everything: bool, as_json: bool) -> None:
    """Show links and addresses, and whether the path policy may use each link."""
    net = await _network()
    rows = [
        _row(link, net, settings.config.paths)
        for link in sorted(net.links.values(), key=lambda one: one.index)
    ]
    if not everything:
        rows = [row for row in rows if row["addresses"] and not row["loopback"]]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["link", "state", "kind", "mtu", "addresses", "for IKE_SAs"],
        [
            [
                row["name"],
                coloured(row["state"], "green" if row["state"] == "up" else "red"),
                row["kind"] or "-",
                row["mtu"],
                "\n".join(row["addresses"]),
                "yes" if row["ignored"] is None else f"no: {row['ignored']}",
            ]
            for row in rows
        ],
        empty="no link has an address",
    )


async def _network() -> NetState:
    if sys.platform == "linux":
        from mobikectl.netlink import Watcher

        async with Watcher() as watcher:
            return watcher.state
    from mobikectl.netlink.portable import snapshot

    return snapshot()


def _row(link: Link, net: NetState, paths: PathSettings) -> dict[str, Any]:
    marks = ("tentative", "deprecated", "temporary")
    addresses = sorted(
        (a for a in net.addresses if a.index == link.index), key=lambda a: (a.ip.version, int(a.ip))
    )
    return {
        "index": link.index,
        "name": link.name,
        "state": "up" if link.usable else "no carrier" if link.up else "down",
        "kind": link.kind,
        "mtu": link.mtu,
        "loopback": link.loopback,
        "addresses": [
            " ".join([f"{a.ip}/{a.prefixlen}", *(mark for mark in marks if getattr(a, mark))])
            for a in addresses
        ],
        "ignored": paths.why_ignored(link),
    }
