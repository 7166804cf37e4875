"""The verdict about the data plane: packets that came in prove a move, silence only where there was traffic."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mobikectl.model import ChildSa, ChildState, Counters, IkeSa, IkeState, Path
from mobikectl.switch.moves import DataPlane
from mobikectl.switch.verification import judge_data_plane

PATH = Path(ip_address("198.18.1.1"), ip_address("198.18.9.1"))


def sa(packets_in: int, packets_out: int, *, spi: int = 1, idle_in_s: float | None = 0) -> IkeSa:
    counters = Counters(packets_in=packets_in, packets_out=packets_out, idle_in_s=idle_in_s)
    child = ChildSa(1, "net", ChildState.INSTALLED, spi_in=spi, counters=counters)
    return IkeSa(1, "home", IkeState.ESTABLISHED, PATH, children=(child,))


def test_one_inbound_packet_after_the_move_proves_it() -> None:
    assert judge_data_plane(sa(10, 10), sa(11, 11), sa(12, 11), over=False) is DataPlane.FLOWING


def test_before_the_end_silence_proves_nothing() -> None:
    assert judge_data_plane(sa(10, 10), sa(11, 11), sa(11, 30), over=False) is None


def test_silence_after_traffic_condemns_the_path() -> None:
    assert judge_data_plane(sa(10, 10), sa(11, 11), sa(11, 30), over=True) is DataPlane.SILENT


def test_an_sa_without_traffic_cannot_be_judged() -> None:
    assert judge_data_plane(sa(0, 0, idle_in_s=None), sa(0, 0), sa(0, 0), over=True) is DataPlane.IDLE


def test_an_sa_without_traffic_is_not_waited_for() -> None:
    assert judge_data_plane(sa(9, 9, idle_in_s=None), sa(9, 9), sa(9, 9), over=False) is DataPlane.IDLE


def test_traffic_of_long_ago_does_not_condemn_a_path() -> None:
    assert judge_data_plane(sa(10, 10, idle_in_s=30), sa(10, 10), sa(10, 20), over=True) is DataPlane.IDLE


def test_nothing_sent_means_nothing_to_answer() -> None:
    assert judge_data_plane(sa(10, 10), sa(11, 11), sa(11, 11), over=True) is DataPlane.IDLE


@pytest.mark.parametrize(("came", "verdict"), [(1, DataPlane.FLOWING), (0, DataPlane.SILENT)])
def test_counters_of_a_rekeyed_child_start_again(came: int, verdict: DataPlane) -> None:
    before, baseline, now = sa(1000, 1000, spi=1), sa(0, 0, spi=2), sa(came, 5, spi=2)
    assert judge_data_plane(before, baseline, now, over=True) is verdict
