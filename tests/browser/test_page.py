"""The web page in a real browser, on a real store: what it shows, what it follows, what it must never do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.node_settings import AddressSettings, ClusterSettings
from mobikectl.cluster.records import ClusterIntent, MoveState
from mobikectl.cluster.settings import SqliteSettings, StoreSettings
from mobikectl.observe.events import EventLog, Source
from mobikectl.sidecar.watching import Watching
from mobikectl.web import serve_web

from ..unit.cli.a_cluster import ACluster, carry_out, move, row, rows
from ..unit.watch.test_local import state
from .devtools import CHROMIUM, browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobikectl.cluster.store import Store

    from .devtools import Browser

pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None or os.geteuid() != 0, reason="needs Chromium"),
]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;b&gt;"
LOOPBACK = ip_address("127.0.0.1")


class ASidecar:
    """What a sidecar tells of itself, without one."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.told: dict[str, Any] = state()

    def healthy(self) -> dict[str, Any]:
        return {"ok": True, "problems": []}

    def state(self) -> dict[str, Any]:
        return self.told

    def metrics(self) -> bytes:
        return b""

    async def switch(self, request: object) -> dict[str, Any]:
        raise AssertionError("the page changes nothing")


class Site:
    """The page, served, and what it is about."""

    def __init__(self, path: Path) -> None:
        self.cluster = ACluster(path)
        self.sidecar = ASidecar()
        self.settings = ClusterSettings(
            node="gw1",
            addresses=(AddressSettings(ip_address("198.18.1.1")),),
            store=StoreSettings(sqlite=SqliteSettings(path / "cluster.db")),
        )

    @contextlib.asynccontextmanager
    async def served(self, *, clustered: bool = True, token: str | None = None) -> AsyncIterator[str]:
        watching = Watching(self.sidecar, self.settings if clustered else None)
        running = asyncio.create_task(watching.run())
        try:
            async with serve_web(watching, LOOPBACK, 0, token) as port:
                yield f"http://127.0.0.1:{port}"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser(tmp_path / "chromium") as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def nothing_wrong(page: Browser, url: str) -> None:
    """Whatever the page did, it complained of nothing, and asked nobody but its own origin."""
    assert page.complaints == []
    assert page.requests
    assert [one for one in page.requests if not one.startswith(f"{url}/")] == []


async def fill(site: Site, store: Store) -> None:
    await site.cluster.join(store, "gw1", [*rows("gw1", 3), row("gw1", HOSTILE, 9)])
    await site.cluster.join(store, "gw2", rows("gw2", 0))
    await site.cluster.lead(store)


async def test_nodes_ike_sas_moves_and_events_are_shown_and_followed(site: Site, page: Browser) -> None:
    async with site.cluster.store() as store, site.served() as url:
        await fill(site, store)
        site.sidecar.events.record(Source.CHARON, "ike-up", "office[3] is up")
        await page.open(url)
        await page.until("document.querySelectorAll('.card[data-node]').length === 2")
        assert "gw1 leads" in await page.value("$('cluster').textContent")
        await page.until("document.querySelectorAll('[data-node=gw1] .dots i').length === 4")
        assert "office[3] is up" in await page.value("$('events').textContent")
        assert (
            await page.value("document.querySelector('[data-node=gw1] [role=meter]').ariaValueNow") == "4.0"
        )
        assert await page.value("document.querySelector('[data-node=gw1] .meter i').style.width") == "4%"
        assert await page.value("document.querySelectorAll('#sas tr').length") == 4

        key = "gw1/peer1@example.org#1"
        (planned,) = await site.cluster.plan(store, move([key]))
        await page.until("document.querySelectorAll('#nodes .dots i.going').length")
        await page.until("$('moves').textContent.includes('peer1@example.org')")
        await carry_out(store, planned, MoveState.VERIFIED)
        await site.cluster.tell(store, "gw1", [*rows("gw1", 3)[1:], row("gw1", HOSTILE, 9)])
        await site.cluster.tell(store, "gw2", [row("gw2", "peer1@example.org", 1)])
        await page.until("document.querySelectorAll('[data-node=gw2] .dots i').length === 1")
        await page.until("$('moves').textContent.includes('verified')")

        await store.set_cluster(ClusterIntent(paused=True, by="eve"), revision=0)
        await page.until("!$('paused').hidden")
        nothing_wrong(page, url)


async def test_what_a_peer_calls_itself_is_inert(site: Site, page: Browser) -> None:
    async with site.cluster.store() as store, site.served() as url:
        await fill(site, store)
        (planned,) = await site.cluster.plan(store, move([f"gw1/{HOSTILE}#9"]))
        await carry_out(store, planned, MoveState.REFUSED, note=HOSTILE)
        site.sidecar.events.record(Source.CHARON, "ike-up", HOSTILE)
        await page.open(url)
        await page.until("document.querySelectorAll('#sas tr').length === 4")
        await page.until("$('moves').textContent.includes('onerror')")
        await page.until(
            "!!show([...$('sas').querySelectorAll('button')].find(b => b.textContent.includes('<img')).dataset.key)"
        )
        await page.until("$('one-body').textContent.includes('refused')")
        assert await page.value("$('one-title').textContent") == HOSTILE
        assert HOSTILE in await page.value("$('events').textContent")
        assert (
            await page.value(
                "document.images.length + document.querySelectorAll('main script, main b, dialog b').length"
            )
            == 0
        )
        assert await page.value("document.title") == "mobikectl"
        nothing_wrong(page, url)


async def test_an_ike_sa_is_found_and_opened_with_the_keyboard_alone(site: Site, page: Browser) -> None:
    async with site.cluster.store() as store, site.served() as url:
        await fill(site, store)
        await page.open(url)
        await page.until("document.querySelectorAll('#sas tr').length === 4")
        for key in "/peer2":
            await page.press(key)
        await page.until("document.querySelectorAll('#sas tr').length === 1")
        assert await page.value("$('search').value") == "peer2"
        await page.press("Tab")
        await page.press("Enter")
        await page.until("$('one').open && $('one-body').textContent.includes('Served by gw1')")
        assert "planned now" in await page.value("$('one-body').textContent")
        await page.press("Escape")
        await page.until("!$('one').open")
        nothing_wrong(page, url)


async def test_a_store_that_is_away_makes_the_page_say_how_old_it_is(
    site: Site, page: Browser, tmp_path: Path
) -> None:
    async with site.cluster.store() as store, site.served() as url:
        await fill(site, store)
        await page.open(url)
        await page.until("$('fresh').textContent.includes('store: now')")
        (tmp_path / "cluster.db").rename(tmp_path / "gone.db")
        (tmp_path / "cluster.db").write_bytes(b"this is no database" * 1000)
        for extra in ("-wal", "-shm"):
            (tmp_path / f"cluster.db{extra}").unlink(missing_ok=True)
        await page.until("/store: as of/.test($('fresh').textContent)")
        assert await page.value("document.querySelectorAll('.card[data-node]').length") == 2


async def test_without_a_cluster_it_shows_this_host_and_its_paths(site: Site, page: Browser) -> None:
    site.sidecar.told["sas"][0]["remote_id"] = HOSTILE
    async with site.served(clustered=False) as url:
        await page.open(url)
        await page.until("$('connections').textContent.includes('office[3]')")
        assert await page.value("document.querySelectorAll('#connections .card tr').length") == 2
        assert await page.value("document.images.length") == 0
        nothing_wrong(page, url)


async def test_with_a_token_it_is_asked_for_once(site: Site, page: Browser) -> None:
    token = "a-token-of-enough-characters"  # noqa: S105
    async with site.served(clustered=False, token=token) as url:
        await page.open(url)
        await page.until("document.querySelector('#token') !== null")
        await page.value(
            f"document.querySelector('#token').value = '{token}'; document.forms[0].requestSubmit()"
        )
        await page.until("typeof round === 'function' && $('connections').textContent.includes('office')")
        assert await page.value("document.cookie") == ""
        assert token not in await page.value("location.href")
