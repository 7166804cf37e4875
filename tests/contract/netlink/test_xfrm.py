"""The kernel's SAs: the interface everywhere, real SAs where the kernel has ESP."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NotFoundError
from mobikectl.netlink import KernelSas, ReplayState, xfrm_available
from mobikectl.netlink.xfrm import Encapsulation, SaMode

if TYPE_CHECKING:
    from .conftest import Namespace

pytestmark = pytest.mark.netns
KEY = "0x" + "5a" * 36
HERE, THERE = ip_address("198.18.0.1"), ip_address("198.18.0.2")


async def test_a_kernel_with_xfrm_and_no_sa_answers_with_none(ns: Namespace) -> None:
    if not await xfrm_available(netns=ns.name):
        pytest.skip("this kernel has no NETLINK_XFRM")
    async with KernelSas(netns=ns.name) as sas:
        assert await sas.dump() == ()
        assert await sas.count() == 0
        with pytest.raises(NotFoundError, match="0x00001234") as caught:
            await sas.get(THERE, 0x1234)
    assert "ip xfrm state" in caught.value.hint


async def test_where_there_is_no_such_namespace_there_is_no_xfrm() -> None:
    assert not await xfrm_available(netns="mknl-there-is-none")


@pytest.mark.kernel_esp
@pytest.mark.parametrize("esn", [False, True])
async def test_an_sa_is_read_as_ip_xfrm_shows_it(ns: Namespace, esn: bool) -> None:
    extra = "replay-window 64 flag esn" if esn else "replay-window 32"
    try:
        ns.ip(
            f"xfrm state add src {HERE} dst {THERE} proto esp spi 0x1234 reqid 7 mode tunnel {extra} "
            f"aead rfc4106(gcm(aes)) {KEY} 128 encap espinudp 4500 41000 0.0.0.0"
        )
    except subprocess.CalledProcessError as refused:
        pytest.skip(f"this kernel has no ESP: {refused.stderr.strip()}")
    async with KernelSas(netns=ns.name) as sas:
        one = await sas.get(THERE, 0x1234)
        assert await sas.dump() == (one,)
        assert await sas.count() == 1
    assert (one.saddr, one.daddr, one.spi, one.proto, one.reqid) == (HERE, THERE, 0x1234, 50, 7)
    assert one.mode is SaMode.TUNNEL
    assert one.encap == Encapsulation(4500, 41000)
    assert one.replay == ReplayState(0, 0, 0, 64 if esn else 32, esn, 2 if esn else 0)
    assert "5a5a" not in repr(one)
