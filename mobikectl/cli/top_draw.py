"""What `mobikectl top` shows, as cells and lines with colours. Pure: rows in, texts out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from mobikectl.cli.output import coloured, human_bytes, human_seconds, visible
from mobikectl.policy.cluster import Health
from mobikectl.watch.moves import what, where
from mobikectl.watch.rows import AWAY
from mobikectl.watch.view import Grade, grade, told_age

if TYPE_CHECKING:
    from mobikectl.watch.rows import (
        ConnectionRow,
        EventRow,
        LocalPart,
        MoveRow,
        NodeRow,
        OwnMoveRow,
        PathRow,
        SaViewRow,
        View,
    )

BLOCKS = " ▏▎▍▌▋▊▉█"
"""A character's eighths."""
EMPTY = "░"
NEAR = 0.75
"""From this share of its limit on a bar is yellow."""
HEALTH_STYLE = {
    Health.HEALTHY.value: "green",
    Health.IMPAIRED.value: "red",
    Health.DEAD.value: "red",
    Health.UNKNOWN.value: "yellow",
    AWAY: "yellow",
}
GRADE_STYLE = {Grade.FRESH: "green", Grade.OLD: "yellow", Grade.DEAD: "bold red"}
MOVE_STYLE = {
    "planned": "dim",
    "cancelled": "dim",
    "verified": "green",
    "refused": "yellow",
    "rolled-back": "yellow",
    "timed-out": "red",
}
SOURCE_STYLE = {
    "netlink": "cyan",
    "charon": "green",
    "probe": "blue",
    "decision": "magenta",
    "action": "yellow",
    "sidecar": "white",
}
TRACK_STYLE = {"up": "green", "down": "red", "failing": "yellow", "recovering": "yellow"}

NODE_COLUMNS = (
    *("node", "health", "wanted", "IKE_SAs", "", "out and in", "", "packets", ""),
    *("room", "standby", "in", "out", "CPU", "mem"),
)
MOVE_COLUMNS = ("#", "IKE_SA", "from and to", "mechanism", "why", "state", "took")
CONNECTION_COLUMNS = ("id", "connection", "peer", "state", "path", "CHILD_SAs", "age", "policy")
PATH_COLUMNS = ("id", "", "path", "link", "probes", "answer", "loss", "why")
SA_COLUMNS = ("IKE_SA", "peer", "at", "out and in", "packets", "can", "NAT", "pinned", "on its way to")
OWN_MOVE_COLUMNS = ("IKE_SA", "from", "to", "outcome", "took", "cause")


def cell(text: str) -> Text:
    """Given a text, return it as a cell without a colour."""
    return coloured(text, "")


def bar(share: float, limit: float, width: int = 8) -> Text:
    """Given a share of a capacity and the limit that it must not exceed, return a bar."""
    eighths = min(max(round(share * width * 8), 0), width * 8)
    full, rest = divmod(eighths, 8)
    drawn = BLOCKS[8] * full + (BLOCKS[rest] if rest else "")
    style = "red" if share > limit else "green" if share <= NEAR * limit else "yellow"
    return Text.assemble((drawn, style), (EMPTY * (width - len(drawn)), "dim"))


def clock(wall: float) -> str:
    """Given seconds since 1970, return the local time of day."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%H:%M:%S")


def head(view: View) -> Text:
    """Given a view, return its first line: which cluster, who leads, and how old what is shown is."""
    parts: list[Text] = []
    if (cluster := view.cluster) is not None:
        parts.append(coloured(f"cluster {cluster.name}", "bold"))
        parts.append(
            cell(f"{cluster.leader} leads") if cluster.leader else coloured("nobody leads", "bold red")
        )
        parts.append(cell(f"even level {cluster.even_level:.0%}"))
        if cluster.moving:
            parts.append(coloured(f"{cluster.moving} on the way", "cyan"))
        if cluster.paused:
            by = f" ({cluster.paused_by})" if cluster.paused_by else ""
            parts.append(coloured(f"PAUSED{by}", "bold yellow"))
    if (local := view.local) is not None:
        parts.append(_local(local))
    parts += [
        coloured(told_age(name, fresh), GRADE_STYLE[grade(fresh)]) for name, fresh in view.fresh.items()
    ]
    return Text("  ·  ", style="dim").join(parts)


def _local(local: LocalPart) -> Text:
    name = f"{local.node} " if local.node else ""
    good = local.charon == "up" and not local.problems
    return Text.assemble(
        f"here: {name}{local.role}, charon ",
        (local.charon, "green" if good else "red"),
        f", {len(local.connections)} IKE_SAs",
    )


def notes(view: View) -> list[str]:
    """Given a view, return what somebody should know before they believe it, or act."""
    found = list(view.cluster.notes) if view.cluster is not None else []
    return found + (list(view.local.problems) if view.local is not None else [])


def node_cells(node: NodeRow) -> list[Text]:
    """Given a node, return its cells."""
    health = node.health + (f": {node.health_note}" if node.health_note else "")
    cells = [
        coloured(node.node + (" *" if node.leader else ""), "bold"),
        coloured(health, HEALTH_STYLE.get(node.health, "")),
        wanted(node),
    ]
    if not node.there:
        return cells + [coloured("-", "dim")] * (len(NODE_COLUMNS) - len(cells))
    limit = node.overload_limit
    half_open = f" +{node.half_open}" if node.half_open else ""
    return [
        *cells,
        *(bar(node.used_sas, limit), cell(f"{node.ike_sas}{half_open}")),
        *(bar(node.used_bytes, limit), cell(f"{human_bytes(node.bytes_per_s)}/s")),
        *(bar(node.used_packets, limit), cell(f"{node.packets_per_s:.0f}/s")),
        cell(f"{node.headroom:.0%}"),
        cell(str(node.standby) if node.carries else "-"),
        coloured(f"+{node.arriving}" if node.arriving else "", "cyan"),
        coloured(f"-{node.leaving}" if node.leaving else "", "cyan"),
        cell(f"{node.cpu:.0%}"),
        cell(f"{node.memory:.0%}"),
    ]


def wanted(node: NodeRow) -> Text:
    """Given a node, return what is wanted of it, and by whom."""
    said = ", ".join(part for part in (node.by and f"by {node.by}", node.note) if part)
    if node.drained:
        return coloured("drained" + (f" ({said})" if said else ""), "yellow")
    return coloured("maintenance", "yellow") if node.maintenance else coloured("-", "dim")


def move_cells(move: MoveRow) -> list[Text]:
    """Given a move, return its cells."""
    note = next((step.note for step in reversed(move.steps[1:]) if step.note), "")
    return [
        cell(str(move.number)),
        cell(what(move)),
        cell(where(move)),
        cell(move.mechanism),
        cell(move.reason),
        coloured(move.state + (f": {note}" if note else ""), MOVE_STYLE.get(move.state, "bold cyan")),
        cell("-" if move.took_s is None else human_seconds(move.took_s)),
    ]


def connection_cells(one: ConnectionRow) -> list[Text]:
    """Given an IKE_SA of this host, return its cells."""
    good = one.state in {"ESTABLISHED", "REKEYING"}
    return [
        cell(str(one.uniqueid)),
        cell(one.name),
        cell(one.peer_id),
        coloured(one.state, "green" if good else "yellow"),
        cell(one.path + (" NAT" if one.behind_nat else "")),
        cell(", ".join(one.children) or "-"),
        cell("-" if one.established_s is None else human_seconds(one.established_s)),
        cell(one.verdict or "-"),
    ]


def path_cells(one: ConnectionRow, path: PathRow) -> list[Text]:
    """Given an IKE_SA of this host and one of its candidate paths, return that's cells."""
    return [
        cell(str(one.uniqueid)),
        coloured("*" if path.in_use else ">" if path.target else "", "bold cyan"),
        cell(path.path),
        cell(path.link),
        coloured(path.state, TRACK_STYLE.get(path.state, "")),
        cell("-" if path.rtt_s is None else human_seconds(path.rtt_s)),
        cell("-" if path.loss is None else f"{path.loss:.0%}"),
        cell(path.why or ("in use" if path.in_use else "")),
    ]


def own_move_cells(move: OwnMoveRow) -> list[Text]:
    """Given a move within this host, return its cells."""
    style = {"verified": "green", "failed": "red", "undone": "yellow"}.get(move.state, "bold cyan")
    cells = [cell(move.sa), cell(move.before), cell(move.after), coloured(move.state, style)]
    return [*cells, cell(human_seconds(move.took_s)), cell(move.cause)]


def event_line(event: EventRow) -> Text:
    """Given an event, return its line."""
    return Text.assemble(
        (f"{clock(event.wall)} ", "dim"),
        (f"{visible(event.source):<9}", SOURCE_STYLE.get(event.source, "cyan")),
        (f"{visible(event.name):<18} ", "bold"),
        visible(event.text),
    )


def sa_cells(sa: SaViewRow) -> list[Text]:
    """Given an IKE_SA of the cluster, return its cells."""
    return [
        cell(sa.key),
        cell(sa.peer),
        cell(sa.address),
        cell(f"{human_bytes(sa.bytes_per_s)}/s"),
        cell(f"{sa.packets_per_s:.0f}/s"),
        cell(", ".join(sa.can) or "-"),
        cell("yes" if sa.behind_nat else "-"),
        coloured("pinned", "yellow") if sa.pinned else cell("-"),
        coloured(sa.moving_to or "-", "cyan" if sa.moving_to else ""),
    ]
