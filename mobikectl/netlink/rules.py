"""The steering table and the rule that leads to it.

Steering routes live in a table of their own, so that nobody else's route is ever replaced, and one
``ip route show table 109`` shows them all. The rule in front of the others leads every packet there
except those with `BYPASS_MARK`, which nobody sends: asking the kernel with that mark tells how it
would route if there were no steering.

    109: not from all fwmark 0x6d6b6374 lookup 109 proto 109
"""

from __future__ import annotations

import errno
import struct
from typing import Self

from mobikectl.model import ROUTE_PROTOCOL, Family
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, Requests, kernel_error

STEERING_TABLE = 109
"""The routing table of the steering routes."""
RULE_PRIORITY = 109
"""Where the rule stands: before strongSwan's own (220) and before main (32766)."""
BYPASS_MARK = 0x6D6B6374
"""A look-up with this mark sees the kernel's own choice, without the steering routes ("mkct")."""

_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_FR_ACT_TO_TBL = 1
_FIB_RULE_INVERT = 2
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 6, 10, 15, 16, 21
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_RULE = struct.Struct("=BBBBBxxBI")


class SteeringRule:
    """The rule, in force while this async context lasts. One that was left by an earlier life is taken over.

    Given the network namespace's name (None: the caller's) and the deadline of each request in seconds. Entering
    raises PrivilegeError without CAP_NET_ADMIN, NetlinkError when the kernel has no policy routing.
    """

    def __init__(self, *, netns: str | None = None, deadline: float = DEADLINE) -> None:
        self._requests = Requests(netns=netns, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        try:
            await self.ensure()
        except BaseException:
            await self._requests.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)

    async def ensure(self) -> None:
        """Make the rule where it is missing: somebody may have flushed it. Raise NetlinkError, PrivilegeError."""
        flags = rtnl.NLM_F_CREATE | rtnl.NLM_F_EXCL
        answers = await self._requests.order(
            [(_RTM_NEWRULE, flags, _encode_rule(family)) for family in Family]
        )
        for family, answer in zip(Family, answers, strict=True):
            absent = family is Family.INET6 and answer.errno in _NO_FAMILY
            if not absent and answer.errno not in (0, errno.EEXIST):
                raise kernel_error("the ip rule for steering routes", answer.errno, answer.text)

    async def remove(self) -> None:
        """Remove the rule (both families). A rule that is gone already is no error."""
        answers = await self._requests.order([(_RTM_DELRULE, 0, _encode_rule(family)) for family in Family])
        for answer in answers:
            if answer.errno not in (0, errno.ENOENT, *_NO_FAMILY):
                raise kernel_error("removing the ip rule for steering routes", answer.errno, answer.text)


def _encode_rule(family: Family) -> bytes:
    return b"".join(
        (
            _RULE.pack(family, 0, 0, 0, STEERING_TABLE, _FR_ACT_TO_TBL, _FIB_RULE_INVERT),
            rtnl.number(_FRA_PRIORITY, RULE_PRIORITY),
            rtnl.number(_FRA_FWMARK, BYPASS_MARK),
            rtnl.number(_FRA_FWMASK, 0xFFFFFFFF),
            rtnl.number(_FRA_TABLE, STEERING_TABLE),
            rtnl.attribute(_FRA_PROTOCOL, bytes([ROUTE_PROTOCOL])),
        )
    )
