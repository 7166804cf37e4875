"""Client of the charon plugin `rmobike` (charon-plugin/): switches, updates, any notify, redirects.

The plugin serves the VICI protocol on a socket of its own, so this is a `Session` with typed commands
and events. Policy is the caller's: the plugin carries out and tells. What each command does is specified
in docs/rmobike.md; the protocol is draft-smyslov-ipsecme-ikev2-r-mobike-09 and RFC 5685.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.charon.rmobike_events import EVENT_NAMES, PluginEvent, decode_event, flag, number, word
from mobikectl.charon.session import Event, EventGap, EventLost, Session
from mobikectl.errors import CharonRefusedError, DecodeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from mobikectl.charon.transport import Args, Message
    from mobikectl.model import IpAddress, IpNetwork
    from mobikectl.wire.notify import Notify

logger = logging.getLogger("mobikectl.charon.rmobike")

DEFAULT_SOCKET = Path("/run/charon.rmobike")
"""Where the plugin listens unless `charon.plugins.rmobike.socket` says otherwise."""

_CODE = re.compile(r"refused \S+: ([a-z0-9-]+): (.*)", re.DOTALL)

_HINTS = {
    "unknown-ike-id": "list the IKE_SAs again: it may have been rekeyed or deleted",
    "peer-without-r": "use another mechanism: this peer must not be asked (draft section 4.2)",
    "no-mobike": "enable MOBIKE in both configurations, or use a redirect",
    "not-local": "add the address to an interface first, or pass foreign=True when another node has it",
    "not-responder": "use update_addresses: the initiator of an IKE_SA moves it itself",
    "not-initiator": "use switch_address: only the initiator may update addresses",
    "not-established": "wait until it is up, or pick another IKE_SA",
    "already-there": "nothing to do",
    "busy": "try again in a moment",
    "not-active": "freeze it on the node that serves it",
    "not-passive": "an IKE_SA that this node serves is frozen first",
    "frozen": "thaw it, or drop it when another node serves it",
    "children-differ": "import it anew: it was rekeyed meanwhile",
}


class PluginRefusedError(CharonRefusedError):
    """The plugin said no. `code` is its reason for programs (docs/rmobike.md lists them)."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Accept(Enum):
    """Which addresses an initiator lets itself be switched to, besides those in the allow-list."""

    ADDITIONAL = "additional"
    """Those that the peer told in ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS."""
    LISTED = "listed"
    """None."""
    ANY = "any"
    NONE = "none"
    """None, not even those in the allow-list."""


@dataclass(frozen=True, slots=True)
class SwitchPolicy:
    """What an initiator announces and accepts.

    At most `burst` switches at once for one IKE_SA, and one more each `interval_ms` (0: no limit).
    """

    announce: bool = True
    accept: Accept = Accept.ADDITIONAL
    allow: tuple[IpNetwork, ...] = ()
    burst: int = 5
    interval_ms: int = 2000


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """What the plugin says of itself."""

    version: str
    strongswan: str
    """The version of strongSwan that it was built for."""
    peers: int
    notify_type: int
    """The number used for SWITCH_TO_IP_ADDRESS."""
    announce: bool
    accept: Accept


@dataclass(frozen=True, slots=True)
class PeerCapabilities:
    """What the peer of an IKE_SA can do."""

    ike_id: int
    original_initiator: bool
    """We are."""
    mobike: bool
    peer_r: bool
    """The peer announced 'R': it may be switched."""
    own_r: bool
    """We announced 'R'."""
    pending_token: str | None = None
    """The token of a switch under way."""


class RedirectExchange(Enum):
    """When a client is redirected (RFC 5685 sections 3 and 6)."""

    IKE_SA_INIT = "IKE_SA_INIT"
    IKE_AUTH = "IKE_AUTH"


@dataclass(frozen=True, slots=True)
class RedirectAnswer:
    """Where to redirect new clients, and which.

    `percent` of the clients are redirected to `gateway`, or, with `shares` instead, to each gateway of these
    so many percent. A hash of the client's address (IKE_SA_INIT) or identity (IKE_AUTH) decides, the one of
    `mobikectl.policy.placement.bucket`: the same client always gets the same answer. The clients with the first
    buckets are kept, those with the next ones go to the first share, and so on. `except_for` holds networks and, for
    IKE_AUTH, identities with wildcards: these are kept. Clients that another gateway redirected here stay,
    unless `again`. Raise ValueError when the percents are more than all, or `shares` and `gateway` are both given.
    """

    gateway: IpAddress | str | None = None
    percent: int = 100
    except_for: tuple[IpNetwork | str, ...] = ()
    again: bool = False
    shares: tuple[tuple[IpAddress | str, int], ...] = ()
    """Gateways and percents."""

    def __post_init__(self) -> None:
        if (self.gateway is None) == (not self.shares):
            raise ValueError("either a gateway or shares are needed")
        percents = [percent for _, percent in self.targets]
        if min(percents) < 0 or sum(percents) > 100:
            raise ValueError(f"shares of {percents} percent: they have to be 0 to 100 together")

    @property
    def targets(self) -> tuple[tuple[IpAddress | str, int], ...]:
        """Gateways and percents, whichever way they were given."""
        return self.shares if self.gateway is None else ((self.gateway, self.percent),)


class RedirectReason(Enum):
    """Why a client is redirected or not."""

    OFF = "off"
    """Nothing is set for this exchange, or no longer."""
    EXCEPTED = "excepted"
    KEPT = "kept"
    REDIRECTED = "redirected"


@dataclass(frozen=True, slots=True)
class RedirectVerdict:
    """What a client would be answered."""

    bucket: int
    """0 to 99."""
    reason: RedirectReason
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class NotifyRule:
    """A notify that the plugin adds by itself to IKE_AUTH or INFORMATIONAL messages.

    To requests, or to responses: then, if `when` is given, only if the request has a notify of that type,
    with that notify's data if `echo`. For one IKE_SA (`ike_id`, followed through rekeyings) or all; removed
    after `count` messages if given.
    """

    name: str
    exchange: str
    request: bool
    notify: Notify
    when: int | None = None
    echo: bool = False
    ike_id: int | None = None
    count: int | None = None


class Rmobike:
    """The plugin of one charon. Close it with `aclose`, or use it as an asynchronous context manager.

    Every command raises PluginRefusedError when the plugin says no, and what `Session.request` raises.
    """

    def __init__(self, path: Path | str = DEFAULT_SOCKET, *, timeout: float = 5.0) -> None:
        self.session = Session(path, timeout=timeout, peer="the rmobike plugin", heartbeat="status")
        self._undecodable: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self.session.aclose()

    async def request(self, command: str, args: Args | None = None) -> Message:
        """Send a command and return its answer. Raise PluginRefusedError and what `Session.request` raises."""
        try:
            return await self.session.request(command, args)
        except CharonRefusedError as error:
            raise _with_code(error) from error

    # --- about the plugin and the peers -----------------------------------------------------------

    async def status(self) -> PluginStatus:
        """Return what the plugin says of itself. Raise DecodeError when that cannot be understood."""
        answer = await self.request("status")
        return PluginStatus(
            version=word(answer, "version"),
            strongswan=word(answer, "strongswan"),
            peers=number(answer, "peers"),
            notify_type=number(answer, "notify-type"),
            announce=flag(answer, "announce"),
            accept=Accept(word(answer, "accept")),
        )

    async def peers(self) -> list[PeerCapabilities]:
        """Return what the peers of all established IKE_SAs can do."""
        return [
            PeerCapabilities(
                ike_id=number(item, "ike-id"),
                original_initiator=flag(item, "initiator"),
                mobike=flag(item, "mobike"),
                peer_r=flag(item, "peer-r"),
                own_r=flag(item, "own-r"),
                pending_token=word(item, "pending", "") or None,
            )
            async for item in self.session.stream("list-peers", "list-peer")
        ]

    async def set_peer(self, ike_id: int, *, peer_r: bool, own_r: bool) -> None:
        """Tell the plugin what the peer of an IKE_SA can do that was not established here but imported."""
        await self.request("set-peer", {"ike-id": ike_id, "peer-r": peer_r, "own-r": own_r})

    async def set_policy(self, policy: SwitchPolicy) -> None:
        """Replace what is announced (in IKE_SAs to come) and accepted."""
        allow = ",".join(str(network) for network in policy.allow)
        args = {
            "announce": policy.announce,
            "accept": policy.accept.value,
            "allow": allow,
            "burst": policy.burst,
            "interval-ms": policy.interval_ms,
        }
        await self.request("set-policy", args)

    # --- moving IKE_SAs ---------------------------------------------------------------------------

    async def switch_address(
        self, ike_id: int, address: IpAddress, *, token: str = "", timeout_s: int = 15, foreign: bool = False
    ) -> None:
        """As responder, ask the initiator to use our `address` from now on.

        Returns once the request is queued. Its end comes as SwitchDone, SwitchTimeout (after `timeout_s`
        seconds, or when the IKE_SA is gone) or SwitchSuperseded with this `token` (at most 64 letters,
        digits and ._:/-); SwitchAcked says only that the peer got the request. `foreign`: the address is
        not this host's, but the node's to which the IKE_SA is moving.
        """
        args = {
            "ike-id": ike_id,
            "address": address,
            "token": token,
            "timeout": timeout_s,
            "foreign": foreign,
        }
        await self.request("switch-address", args)

    async def update_addresses(
        self,
        ike_id: int,
        *,
        local: IpAddress | None = None,
        remote: IpAddress | None = None,
        token: str = "",
    ) -> None:
        """As initiator, move the IKE_SA to the path from `local` to `remote` (None: keep) by MOBIKE.

        No route is touched. The path is probed first; when it does not answer, the IKE_SA stays where it
        works. The end comes as UpdateDone or UpdateFailed with this `token`.
        """
        args: dict[str, object] = {"ike-id": ike_id, "token": token}
        args |= {key: value for key, value in (("local", local), ("remote", remote)) if value is not None}
        await self.request("update-addresses", args)

    # --- any notify -------------------------------------------------------------------------------

    async def send_notify(self, ike_id: int, notifies: Sequence[Notify], *, token: str = "") -> None:
        """Send notifies in an INFORMATIONAL exchange. The end comes as NotifyAnswered or NotifyFailed."""
        items = [_item(notify) for notify in notifies]
        await self.request("send-notify", {"ike-id": ike_id, "token": token, "notifies": items})

    async def watch(self, types: Iterable[int]) -> None:
        """Report received notifies of these types, and no others, as NotifySeen."""
        await self.request("watch", {"types": [str(number) for number in types]})

    async def add_rule(self, rule: NotifyRule) -> None:
        """Add a rule, or replace the one of the same name."""
        args: dict[str, object] = {
            "name": rule.name,
            "exchange": rule.exchange,
            "direction": "request" if rule.request else "response",
            "notify": _item(rule.notify),
            "echo": rule.echo,
        }
        optional = {"when": rule.when, "ike-id": rule.ike_id, "count": rule.count}
        args |= {key: value for key, value in optional.items() if value is not None}
        await self.request("add-rule", args)

    async def remove_rule(self, name: str) -> None:
        """Remove a rule."""
        await self.request("remove-rule", {"name": name})

    async def rules(self) -> tuple[str, ...]:
        """Return the names of the rules in place."""
        answer = await self.request("list-rules")
        rules = answer.get("rules", {})
        return tuple(rules) if isinstance(rules, dict) else ()

    # --- redirects --------------------------------------------------------------------------------

    async def set_redirect(
        self, exchange: RedirectExchange, answer: RedirectAnswer, *, lifetime_s: int = 0
    ) -> None:
        """Redirect new clients from now on, for so many seconds (at most a day; 0: until it is replaced).

        Who may die should give a lifetime, and set it again before that is over: then nobody is redirected for ever to
        a gateway that died meanwhile.
        """
        args = {
            "exchange": exchange.value,
            "gateways": [f"{percent}:{gateway}" for gateway, percent in answer.targets],
            "again": answer.again,
            "except": [str(item) for item in answer.except_for],
            "lifetime": lifetime_s,
        }
        await self.request("set-redirect", args)

    async def explain_redirect(
        self, exchange: RedirectExchange, address: IpAddress, identity: str | None = None
    ) -> RedirectVerdict:
        """Return what a client with this address (and, for IKE_AUTH, identity) would be answered now.

        That another gateway redirected it here is not considered.
        """
        args: dict[str, object] = {"exchange": exchange.value, "address": address}
        answer = await self.request(
            "explain-redirect", args if identity is None else {**args, "identity": identity}
        )
        try:
            reason = RedirectReason(word(answer, "answer"))
        except ValueError as error:
            raise DecodeError(f"the rmobike plugin's answer is of an unknown kind: {error}") from error
        return RedirectVerdict(number(answer, "bucket"), reason, word(answer, "gateway", "") or None)

    async def clear_redirect(self, exchange: RedirectExchange) -> None:
        """Redirect new clients no longer."""
        await self.request("clear-redirect", {"exchange": exchange.value})

    # --- events -----------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[PluginEvent | EventLost | EventGap, None]:
        """Yield the plugin's events as `Session.events` does, decoded.

        Use it within `contextlib.aclosing`. An event that cannot be understood (of another version of the plugin)
        is left out, counted in `undecodable`, and logged if it is the first of its name.
        """
        async for event in self.session.events(EVENT_NAMES):
            if not isinstance(event, Event):
                yield event
                continue
            try:
                decoded = decode_event(event)
            except DecodeError as error:
                self._leave_out(event, error)
                continue
            yield decoded

    @property
    def undecodable(self) -> Mapping[str, int]:
        """How many events could not be understood, by name."""
        return self._undecodable

    def _leave_out(self, event: Event, error: DecodeError) -> None:
        name = event.name if event.name in EVENT_NAMES else "?"
        if not self._undecodable[name]:
            logger.warning("the rmobike plugin's event %s cannot be understood: %s", name, error.message)
        self._undecodable[name] += 1


def _item(notify: Notify) -> str:
    """Return a notify as the plugin reads it. Raise DecodeError when the plugin cannot send it."""
    if notify.protocol_id or notify.spi:
        raise DecodeError(
            f"a notify of type {notify.type} with a protocol ID or SPI cannot be sent by the plugin",
            hint="leave both empty",
        )
    return f"{notify.type}:{notify.data.hex()}"


def _with_code(error: CharonRefusedError) -> CharonRefusedError:
    """Given a refusal, return it with the plugin's code if it has one."""
    found = _CODE.search(error.message)
    if not found:
        return error
    return PluginRefusedError(error.message, code=found[1], hint=_HINTS.get(found[1], ""))


def redirect_target(text: str) -> IpAddress | str:
    """Given an address or a host name, return what RedirectAnswer takes."""
    try:
        return ip_address(text)
    except ValueError:
        return text
