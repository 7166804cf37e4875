"""Load through tunnels: none until somebody sets a rate."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import pytest

from mobikectl.lab import traffic
from mobikectl.lab.traffic import PAYLOAD, Load

if TYPE_CHECKING:
    from mobikectl.lab.topology import Tunnel

HERE = ip_address("127.0.0.1")


class Way:
    """A tunnel, as far as a load asks."""

    name, client_inside, gateway_inside = "anna1", HERE, HERE


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr(traffic, "open_in", lambda _namespace, make: make())
    return Load("here", [cast("Tunnel", Way())])


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "load-here"]


def test_a_load_that_nobody_sets_has_no_thread(load: Load) -> None:
    with load:
        assert not threads()
        load.set({"anna1": 0.0})
        assert not threads()


def test_a_load_is_sent_from_when_it_is_set_and_by_one_thread(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind((str(HERE), 0))
        sink.settimeout(10)
        monkeypatch.setattr(traffic, "DISCARD", sink.getsockname()[1])
        with load:
            load.set({"anna1": 100_000.0})
            load.set({"anna1": 200_000.0})
            assert threads() == ["load-here"]
            assert len(sink.recv(2 * PAYLOAD)) == PAYLOAD
    assert not threads()
