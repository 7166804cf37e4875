"""Which message IDs a copy is served with until its client answers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from mobikectl.charon.rmobike_move import AHEAD
from mobikectl.node.control import HeldSa
from mobikectl.node.passive import CopyTimes
from mobikectl.node.takeover import BOTH, OURS, Takeover
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis

SPIS = IkeSpis(1, 2)
HOST = Host(ip_address("198.18.11.10"), 4500)
TOLD = (4, 9)
PASSIVE = HeldSa(SPIS, 1, False, False, False, *TOLD, HOST, HOST, ())
TIMES = CopyTimes(answer_s=0.005, heard_s=0.001, give_up_s=0.2)


class Charon:
    """In place of the control and the passive IKE_SAs. Its client takes our request with the ID ``ours``."""

    def __init__(self, ahead: int, ours: int | None = None) -> None:
        self.ahead, self.ours = ahead, ours
        self.tried: list[tuple[int, int]] = []
        self.sa = PASSIVE

    async def look(self, spis: IkeSpis) -> HeldSa:
        return self.sa

    async def again(self, spis: IkeSpis, chain: object) -> HeldSa:
        self.sa = PASSIVE
        return self.sa

    async def activate(self, held: HeldSa, *, mids: tuple[int, int], **_: object) -> int:
        self.tried.append(mids)
        ours, theirs = mids
        heard = ours == self.ours
        self.sa = replace(
            held, serving=True, busy=not heard, mid_initiator=ours + heard, mid_responder=theirs
        )
        return self.ahead


async def served(charon: Charon) -> str | None:
    fake: Any = charon
    broker: Any = SimpleNamespace(chain_of=lambda *_: None, count_from=lambda *_: None)
    offer = SimpleNamespace(spis=SPIS, name="gw1/client#1", peer_r=False, own_r=False)
    copy: Any = SimpleNamespace(offer=offer, numbers={})
    return await Takeover(fake, broker, fake, None, None, TIMES).serve(copy, lambda: None)


@pytest.mark.parametrize(("ahead", "guesses"), [(AHEAD, OURS), (0, BOTH)])
async def test_the_clients_message_id_is_tried_out_only_where_the_plugin_cannot_learn_it(
    ahead: int, guesses: tuple[tuple[int, int], ...]
) -> None:
    charon = Charon(ahead)
    assert "did not answer" in str(await served(charon))
    wanted = [(TOLD[0] + ours, TOLD[1] + theirs) for ours, theirs in guesses]
    assert charon.tried[: len(wanted) + 1] == [*wanted, wanted[0]]


@pytest.mark.parametrize("ahead", [AHEAD, 0])
async def test_a_client_that_took_our_last_request_before_its_node_died_is_heard(ahead: int) -> None:
    charon = Charon(ahead, ours=TOLD[0] + 1)
    assert await served(charon) is None
    assert charon.tried[-1] == (TOLD[0] + 1, TOLD[1])
