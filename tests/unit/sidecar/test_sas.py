"""SAs are found under every number they had, at every moment."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from mobikectl.charon.sa_events import SaRekeyed
from mobikectl.charon.tracker import SaFeed
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.sidecar.sas import Sas

if TYPE_CHECKING:
    from mobikectl.charon.tracker import SaTracker


def sa(number: int, remote: str = "198.18.9.1") -> IkeSa:
    path = Path(ip_address("198.18.1.1"), ip_address(remote))
    return IkeSa(number, "office", IkeState.ESTABLISHED, path)


class Tracker:
    """The model, changed at once, with its events in the hands of who has not read them yet."""

    def __init__(self) -> None:
        self.sas = {1: sa(1)}
        self._feeds: set[SaFeed] = set()

    def subscribe(self) -> SaFeed:
        return SaFeed(self._feeds, 100)

    async def refresh(self, number: int) -> IkeSa | None:
        """Ask charon, while a rekeying takes the first SA away."""
        if number == 1:
            self.rekey(1, 2)
        return self.sas.get(number)

    def rekey(self, old: int, new: int) -> None:
        del self.sas[old]
        self.sas[new] = sa(new)
        for feed in self._feeds:
            feed.put([SaRekeyed(old, self.sas[new])])


def test_an_sa_is_there_at_the_very_moment_of_its_rekey() -> None:
    tracker = Tracker()
    sas = Sas(cast("SaTracker", tracker))
    for old in range(1, 6):
        tracker.rekey(old, old + 1)
        assert sas.find(1) is tracker.sas[old + 1], "between the rekey and the handling of its event"
    assert sas.find(99) is None


def test_an_address_is_shared_when_another_sa_uses_it() -> None:
    tracker = Tracker()
    sas = Sas(cast("SaTracker", tracker))
    tracker.rekey(1, 2)
    assert not sas.shared(ip_address("198.18.9.1"), 1)
    tracker.sas[3] = sa(3)
    assert sas.shared(ip_address("198.18.9.1"), 1)
    assert not sas.shared(ip_address("198.18.9.2"), 1)


async def test_an_sa_that_is_rekeyed_under_the_question_answers_by_its_successor() -> None:
    tracker = Tracker()
    found = await Sas(cast("SaTracker", tracker)).refresh(1)
    assert found is tracker.sas[2]


async def test_an_sa_that_is_gone_is_none() -> None:
    assert await Sas(cast("SaTracker", Tracker())).refresh(99) is None
