"""One tree of errors. Each says what is wrong, and its ``hint`` says what to do next.

Exit codes of the command line are documented here and nowhere else (`EXIT_CODES` is what the
reference documentation is made from).
"""

from __future__ import annotations

from typing import ClassVar

INSTALL_PLUGIN = (
    "install the package mobikectl-charon-plugin (from the source: `make plugin plugin-install`, and `load` rmobike),"
    " then restart charon, which ends its IKE_SAs; its log says whether it was loaded (docs/rmobike.md)"
)
"""The hint wherever charon has no rmobike plugin, and something needs it."""


class MobikectlError(Exception):
    """The root. Raise a subclass.

    ``message``: one line: what, where, what was expected. ``hint``: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(MobikectlError):
    """A configuration file or value that cannot be used."""

    exit_code = 3


class CharonError(MobikectlError):
    """Something between mobikectl and charon."""

    exit_code = 4


class CharonUnreachableError(CharonError):
    """charon's VICI socket refuses, is missing, or was closed."""


class CharonTimeoutError(CharonError):
    """charon is there but did not answer before the deadline: it hangs or is overloaded."""


class CharonRefusedError(CharonError):
    """charon understood the command and said no (or found nothing that matches)."""


class CharonProtocolError(CharonError):
    """What was received on a VICI socket is not VICI: another program or an incompatible version."""


class NetlinkError(MobikectlError):
    """The kernel refused a netlink request or the socket failed."""

    exit_code = 5


class NoRouteError(NetlinkError):
    """The kernel has no route for what was asked (ENETUNREACH, EHOSTUNREACH)."""


class NotFoundError(MobikectlError):
    """No IKE_SA, node or other named thing matches what was asked for."""

    exit_code = 6


class MoveError(MobikectlError):
    """A move was not carried out, or was undone because it did not verify."""

    exit_code = 7


class LabError(MobikectlError):
    """The lab could not be built or a scenario could not be run to its end."""

    exit_code = 8


class DecodeError(MobikectlError):
    """Bytes (or JSON) that are not what they claim to be: the one error of `mobikectl.wire`.

    ``offset``: the octet of the input where it went wrong (None when there is no such octet, as with
    JSON); ``expected``: what should have been there.
    """

    exit_code = 9

    def __init__(
        self, message: str, *, hint: str = "", offset: int | None = None, expected: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset
        self.expected = expected


class SidecarError(MobikectlError):
    """The running sidecar cannot be reached or refused a request."""

    exit_code = 10


class PrivilegeError(MobikectlError):
    """A capability or root is missing."""

    exit_code = 11


class TransferError(MobikectlError):
    """Something between the sidecars of a cluster that carry IKE_SAs over."""

    exit_code = 13


class TransferUnreachableError(TransferError):
    """No connection to the other node, or no answer before the deadline.

    ``maybe_done``: the request was sent, so nobody knows whether it was carried out.
    """

    def __init__(self, message: str, *, hint: str = "", maybe_done: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.maybe_done = maybe_done


class TransferDeniedError(TransferError):
    """The other side is not who it should be, or does not take us for who we are: certificate, name, membership."""


class TransferRefusedError(TransferError):
    """The other node understood the request and did not carry it out. ``kind``: the class of its own error."""

    def __init__(self, message: str, *, hint: str = "", kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class StoreError(MobikectlError):
    """Something between mobikectl and the store that the nodes of a cluster share."""

    exit_code = 12


class StoreUnreachableError(StoreError):
    """No answer before the deadline, or no connection. Whether a write took effect is then unknown."""


class StoreDeniedError(StoreError):
    """The store answered and refuses this client: wrong credentials, missing permission."""


class StoreValueError(StoreError):
    """A key or value of the store that is not what mobikectl writes: too large, not JSON, out of range."""


class LostRaceError(StoreError):
    """Somebody else was first: what was to be changed is not what it was when it was read."""


class LeaseLostError(LostRaceError):
    """A lease ran out or was revoked: whoever held it must stop acting at once."""


class FencedError(LostRaceError):
    """An action carries a fencing token that is not that of the present leader: it must not be done."""


def innermost(error: BaseException) -> BaseException:
    """Given an exception, return the first one that is no group: what a task group stopped for."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def to_tell(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Given what task groups raised, return our own error in it where there is one, else the first of all."""
    return innermost(group.subgroup(MobikectlError) or group)


EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "internal error: please report it",
    2: "usage: the command line was wrong",
    ConfigError.exit_code: "configuration: the file or a value in it cannot be used",
    CharonError.exit_code: "charon: not reachable, no answer, or it refused",
    NetlinkError.exit_code: "netlink: the kernel refused, or there is no route",
    NotFoundError.exit_code: "not found: no IKE_SA, node or scenario matches",
    MoveError.exit_code: "move: not carried out, or undone because it did not verify",
    LabError.exit_code: "lab: could not be built, or a scenario failed",
    DecodeError.exit_code: "decode: the bytes are not what they claim to be",
    SidecarError.exit_code: "sidecar: not running, not reachable, or it refused",
    PrivilegeError.exit_code: "privilege: root or a capability is missing",
    StoreError.exit_code: "store: not reachable, refused, holds what it should not, or somebody else was first",
    TransferError.exit_code: "transfer: the other node is not reachable, not who it should be, or it refused",
}
"""What each exit code of the command line means."""
