"""redirect without a sidecar: charon says yes to everything, so only what goes away counts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from ..charon.fake_vici import FakeVici, Peer, fake_vici, ike, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .a_cluster import ACluster

DEADLINE_S = 60.0


@pytest.fixture
async def charon(tmp_path: Path) -> AsyncIterator[FakeVici]:
    """A gateway with four clients: two of one company, one that cannot be redirected, one in another network."""
    async with fake_vici(tmp_path / "vici") as fake:
        fake.sas = [
            ike(1, **{"remote-id": "a@example.org", "remote-host": "198.18.40.1"}),
            ike(2, **{"remote-id": "b@example.org", "remote-host": "198.18.40.2"}),
            ike(3, **{"remote-id": "stubborn@example.org", "remote-host": "198.18.40.3"}),
            ike(4, **{"remote-id": "d@example.org", "remote-host": "198.18.50.1"}),
        ]
        fake.commands["redirect"] = redirecting(fake)
        yield fake


def redirecting(fake: FakeVici) -> Any:
    async def redirect(peer: Peer, args: dict[str, Any]) -> None:
        """Say yes, as charon does, and let those go that follow redirects."""
        matched = [sa for sa in fake.sas if _matches(sa, args)]
        await peer.send(response({"success": "yes", "matches": str(len(matched))}))
        fake.sas = [sa for sa in fake.sas if sa not in matched or sa["remote-id"] == "stubborn@example.org"]

    return redirect


def _matches(sa: dict[str, Any], args: dict[str, Any]) -> bool:
    if "ike-id" in args:
        return str(sa["uniqueid"]) == str(args["ike-id"], "ascii")
    if "peer-id" in args:
        return str(sa["remote-id"]) == str(args["peer-id"], "ascii")
    return str(sa["remote-host"]).startswith(str(args["peer-ip"], "ascii").rpartition(".")[0] + ".")


async def redirect(cluster: ACluster, charon: FakeVici, *args: str) -> tuple[int, str, str]:
    command = await cluster.command("redirect", *args, "--charon", str(charon.path))
    async with asyncio.timeout(DEADLINE_S):
        out, err = await command.communicate()
    assert command.returncode is not None
    return command.returncode, out.decode(), err.decode()


def ordered(charon: FakeVici) -> list[dict[str, Any]]:
    return [args for name, args in charon.asked if name == "redirect"]


async def test_a_subnet_is_redirected_by_one_order_and_who_stays_is_named(
    empty_cluster: ACluster, charon: FakeVici
) -> None:
    code, out, err = await redirect(
        empty_cluster, charon, "--peer-ip", "198.18.40.0/24", "--to", "198.18.9.9", "--timeout", "1.5"
    )
    assert code == 7
    assert ordered(charon) == [{"gateway": b"198.18.9.9", "peer-ip": b"198.18.40.0/24"}]
    outcome = {line.split()[2]: line.split()[3] for line in out.splitlines()[1:]}
    assert outcome == {
        "a@example.org": "gone",
        "b@example.org": "gone",
        "stubborn@example.org": "still-there",
    }
    assert "1 of 3 IKE_SAs did not leave" in err


async def test_who_left_is_success_and_nothing_more_is_claimed(
    empty_cluster: ACluster, charon: FakeVici
) -> None:
    code, out, _ = await redirect(
        empty_cluster, charon, "--peer-id", "a@example.org", "--to", "vpn.example.org", "--json"
    )
    told = json.loads(out)
    assert (code, told["to"], told["gone"]) == (0, "vpn.example.org", 1)
    assert told["ike_sas"][0]["sa"] == 1


async def test_a_dry_run_orders_nothing(empty_cluster: ACluster, charon: FakeVici) -> None:
    code, out, _ = await redirect(empty_cluster, charon, "--sa", "4", "--to", "198.18.9.9", "--dry-run")
    assert code == 0
    assert "d@example.org" in out
    assert ordered(charon) == []


async def test_a_misspelt_peer_is_answered_with_one_that_there_is(
    empty_cluster: ACluster, charon: FakeVici
) -> None:
    code, _, err = await redirect(empty_cluster, charon, "--peer-id", "a@example.com", "--to", "198.18.9.9")
    assert code == 6
    assert "did you mean 'a@example.org'?" in err
    assert ordered(charon) == []
