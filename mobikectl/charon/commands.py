"""charon's VICI commands, typed and thin.

What each raises is what `Session.request` raises. Of strongSwan's
`src/libcharon/plugins/vici/README.md`.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.charon.sas import number, parse_list_sa, text, texts
from mobikectl.errors import CharonRefusedError

if TYPE_CHECKING:
    from mobikectl.charon.session import Session
    from mobikectl.charon.transport import Message
    from mobikectl.model import IkeSa, IpAddress

NO_CHILD = "-"
"""A child filter that matches nothing: listing CHILD_SAs costs charon most of the time of a list-sas."""

_GRACE_S = 5.0
"""How much longer than charon's own timeout to wait for its answer, in seconds."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which daemon answers: its name, strongSwan's version, and the machine it runs on."""

    daemon: str
    version: str
    sysname: str = ""
    release: str = ""
    machine: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparison: "5.9.8" is (5, 9, 8)."""
        found: list[int] = []
        for part in self.version.split("."):
            digits = part[: len(part) - len(part.lstrip("0123456789"))]
            if not digits:
                break
            found.append(int(digits))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Stats:
    """charon's load and plugins. `queues`: jobs that wait, by priority."""

    running: str
    ike_sas: int
    half_open: int
    workers_total: int
    workers_idle: int
    scheduled: int
    queues: dict[str, int] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnConfig:
    """A connection that is loaded. Addresses as configured: they may be names, ranges, or %any.

    charon does not tell over VICI whether a connection allows MOBIKE.
    """

    name: str
    local_addrs: tuple[str, ...]
    remote_addrs: tuple[str, ...]
    version: str
    children: tuple[str, ...]


async def version(session: Session) -> Version:
    """Return which daemon and version answers."""
    tree = await session.request("version")
    return Version(
        text(tree.get("daemon")),
        text(tree.get("version")),
        text(tree.get("sysname")),
        text(tree.get("release")),
        text(tree.get("machine")),
    )


async def stats(session: Session) -> Stats:
    """Return charon's statistics and plugins. Cheap, also with many SAs."""
    tree = await session.request("stats")
    ike_sas, workers, queues = (_section(tree, key) for key in ("ikesas", "workers", "queues"))
    return Stats(
        running=text(_section(tree, "uptime").get("running")),
        ike_sas=number(ike_sas.get("total")),
        half_open=number(ike_sas.get("half-open")),
        workers_total=number(workers.get("total")),
        workers_idle=number(workers.get("idle")),
        scheduled=number(tree.get("scheduled")),
        queues={key: number(value) for key, value in queues.items()},
        plugins=texts(tree.get("plugins")),
    )


async def plugins(session: Session) -> tuple[str, ...]:
    """Return the names of the plugins that are loaded, in the order of loading."""
    return (await stats(session)).plugins


async def list_sas(
    session: Session,
    *,
    ike_id: int | None = None,
    ike: str | None = None,
    children: bool = True,
    timeout: float | None = None,
) -> list[IkeSa]:
    """Return the IKE_SAs, all or those with a number or a connection's name; none is an empty list.

    `children=False` leaves the CHILD_SAs out, which is many times cheaper with many SAs. An SA that
    another thread of charon holds is waited for: `timeout` (seconds) bounds the wait for each.
    """
    args: dict[str, object] = {}
    if ike_id is not None:
        args["ike-id"] = ike_id
    if ike is not None:
        args["ike"] = ike
    if not children:
        args["child"] = NO_CHILD
    found: list[IkeSa] = []
    async with aclosing(session.stream("list-sas", "list-sa", args, timeout=timeout)) as stream:
        async for message in stream:
            found.extend(parse_list_sa(message))
    return found


async def list_conns(session: Session, *, ike: str | None = None) -> list[ConnConfig]:
    """Return the loaded connections, or the one of that name."""
    found: list[ConnConfig] = []
    args = {"ike": ike} if ike is not None else None
    async with aclosing(session.stream("list-conns", "list-conn", args)) as stream:
        async for message in stream:
            found.extend(_conn(name, tree) for name, tree in message.items() if isinstance(tree, dict))
    return found


async def initiate(
    session: Session,
    *,
    child: str | None = None,
    ike: str | None = None,
    timeout: float | None = None,
) -> None:
    """Begin an SA by the name of its child or connection.

    With `timeout` (seconds) wait until it is up and raise CharonRefusedError when it does not come
    up in that time; without it only begin, and read the success from events.
    """
    await _control(session, "initiate", _selected(child=child, ike=ike), timeout)


async def terminate(
    session: Session,
    *,
    ike_id: int | None = None,
    child_id: int | None = None,
    ike: str | None = None,
    child: str | None = None,
    force: bool = False,
    timeout: float | None = None,
) -> int:
    """End the SAs that match, and return how many matched.

    `force` does not wait for the peer's answer to the DELETE. With `timeout` (seconds) wait for the
    end, without it only begin. Raise CharonRefusedError when nothing matches.
    """
    args = _selected(ike_id=ike_id, child_id=child_id, ike=ike, child=child)
    if force:
        args["force"] = True
    return number((await _control(session, "terminate", args, timeout)).get("matches"))


async def rekey(
    session: Session,
    *,
    ike_id: int | None = None,
    child_id: int | None = None,
    ike: str | None = None,
    child: str | None = None,
    reauth: bool = False,
) -> int:
    """Queue the rekeying (or with `reauth` the reauthentication) of the SAs that match; return how many."""
    args = _selected(ike_id=ike_id, child_id=child_id, ike=ike, child=child)
    if reauth:
        args["reauth"] = True
    return number((await session.request("rekey", args)).get("matches"))


async def redirect(
    session: Session,
    gateway: IpAddress | str,
    *,
    ike_id: int | None = None,
    peer_ip: str | None = None,
    peer_id: str | None = None,
    ike: str | None = None,
) -> int:
    """Queue redirects (RFC 5685) to another gateway for the SAs that match; return how many matched.

    `peer_ip` may be an address, a subnet or a range. That it was queued says nothing of its success:
    charon also says yes for peers that do not support it. Read the outcome from events.
    """
    args = _selected(ike_id=ike_id, peer_ip=peer_ip, peer_id=peer_id, ike=ike)
    return number((await session.request("redirect", {**args, "gateway": str(gateway)})).get("matches"))


async def reload_settings(session: Session) -> None:
    """Let charon read strongswan.conf again, and its plugins that support that."""
    await session.request("reload-settings")


async def counters(session: Session, *, name: str | None = None) -> dict[str, int]:
    """Return the counters of IKE events, of all or of one connection. Needs the counters plugin."""
    tree = await session.request("get-counters", {"name": name} if name is not None else None)
    sections = [value for value in _section(tree, "counters").values() if isinstance(value, dict)]
    return {key: number(value) for key, value in sections[0].items()} if sections else {}


async def _control(session: Session, command: str, args: dict[str, object], timeout: float | None) -> Message:
    """Send a command that can wait in charon, where it holds a thread: it gets charon's own timeout."""
    if timeout is None:
        return await session.request(command, {**args, "timeout": -1, "loglevel": -1})
    milliseconds = max(1, round(timeout * 1000))
    return await session.request(
        command, {**args, "timeout": milliseconds, "loglevel": -1}, timeout=timeout + _GRACE_S
    )


def _selected(**keys: object) -> dict[str, object]:
    """Return the selectors that are given, under VICI's names. Raise CharonRefusedError when none is."""
    args = {key.replace("_", "-"): value for key, value in keys.items() if value is not None}
    if not args:
        raise CharonRefusedError("which SA is meant was not said", hint="give a number or a name")
    return args


def _section(tree: Message, key: str) -> Message:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _conn(name: str, tree: Message) -> ConnConfig:
    children = tree.get("children")
    return ConnConfig(
        name=name,
        local_addrs=texts(tree.get("local_addrs")),
        remote_addrs=texts(tree.get("remote_addrs")),
        version=text(tree.get("version")),
        children=tuple(children) if isinstance(children, dict) else (),
    )
