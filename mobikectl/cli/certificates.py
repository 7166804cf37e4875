"""`mobikectl cluster`: the certificates by which the nodes of a cluster know each other."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from mobikectl.transfer.certificates import NodeFiles

AUTHORITY = Path("/etc/mobikectl/ca")
NODE = Path("/etc/mobikectl/tls")
_directory = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def cluster() -> None:
    """Make or take the certificates by which the nodes of a cluster know each other."""


@cluster.command()
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option("--dir", "directory", type=_directory, default=AUTHORITY, show_default=True, help="Where to.")
@click.option(
    "--days", type=click.IntRange(1, 7300), default=3650, show_default=True, help="How long it is good for."
)
def init(name: str, directory: Path, days: int) -> None:
    """Make a small certificate authority for one cluster.

    Its key (ca.key) makes nodes: keep it on one machine, best on none of the nodes.
    """
    from mobikectl.transfer import certificates

    made = certificates.make_authority(directory, name, days, certificates.today())
    click.echo(
        f"made {made} and {directory / certificates.AUTHORITY_KEY} (keep this one secret), good for {days} days"
    )
    click.echo(f"next, for each node: mobikectl cluster join NODE --authority {directory} --dir ...")


@cluster.command()
@click.argument("node")
@click.option("--authority", type=_directory, help=f"The authority's directory.  [default: {AUTHORITY}]")
@click.option(
    "--dir", "directory", type=_directory, default=NODE, show_default=True, help="Where the node's files go."
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is good for."
)
@click.option(
    "--certificate", type=_file, help="Take the operator's own certificate instead (with --key and --ca)."
)
@click.option("--key", type=_file, help="The key of that certificate.")
@click.option("--ca", type=_file, help="What signed it.")
@click.option(
    "--renew",
    is_flag=True,
    help="Replace the files of NODE that are there; a running sidecar takes the new ones.",
)
def join(
    node: str,
    authority: Path | None,
    directory: Path,
    days: int,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    renew: bool,
) -> None:
    """Give NODE its certificate, and show the configuration that uses it.

    With --authority a certificate and key are made; with --certificate, --key and --ca those are checked and taken. The
    three files belong on the node, readable by root only.
    """
    from mobikectl.transfer import certificates

    own = (certificate, key, ca)
    if any(own) and (authority is not None or not all(own)):
        raise click.UsageError("name --certificate, --key and --ca together, and then no --authority")
    if certificate and key and ca:
        files = _taken(node, certificate, key, ca)
    else:
        files = certificates.issue(authority or AUTHORITY, node, days, certificates.today())
    if renew:
        certificates.check_renewable(directory, node)
    certificates.install(files, directory, replace=renew)
    _tell(node, directory.resolve(), renew=renew)


def _tell(node: str, at: Path, *, renew: bool) -> None:
    """Say what is to be done with the files that were written."""
    from mobikectl.transfer import certificates

    elsewhere = at != NODE
    click.echo(f"wrote the files of {node} to {at}" + (f"; on {node} they belong into {NODE}" * elsewhere))
    if renew:
        click.echo("a running sidecar takes them with its next connection")
        return
    click.echo(f"put this into the configuration of {node}:\n")
    click.echo("[cluster.transfer]")
    click.echo('address = "198.18.0.1"   # of this node, on the network between the nodes')
    if elsewhere:
        click.echo(f"# only where the files are not in {NODE}:")
        click.echo(f'# certificate = "{at / certificates.NODE_CERTIFICATE}"')
        click.echo(f'# key = "{at / certificates.NODE_KEY}"')
        click.echo(f'# ca = "{at / certificates.AUTHORITY_CERTIFICATE}"')


def _taken(node: str, certificate: Path, key: Path, ca: Path) -> NodeFiles:
    """Return the operator's files. Raise ConfigError: they are not good for this node."""
    from mobikectl.transfer import certificates

    facts = certificates.inspect(certificate, key, ca)
    if node not in facts.names:
        raise ConfigError(
            f"{certificate} is of {', '.join(sorted(facts.names)) or 'nobody'}, not of {node}",
            hint="the node's name belongs into its subjectAltName, as a DNS name",
        )
    if not facts.not_before - timedelta(hours=1) <= certificates.today() < facts.not_after:
        raise ConfigError(
            f"{certificate} is good from {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d} only",
            hint="ask its issuer for a new one",
        )
    return certificates.read(certificate, key, ca)
