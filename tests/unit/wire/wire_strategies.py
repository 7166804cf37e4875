"""Hypothesis strategies for everything that can be on the wire."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from string import ascii_letters, digits
from typing import Any

from hypothesis import strategies as st

from mobikectl.wire import dialects, dupont, ike, kivinen, mobike, pfkey, redirect, rmobike
from mobikectl.wire.notify import Notify, NotifyData

ip4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ip6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
addresses = st.one_of(ip4, ip6)
ports = st.integers(0, 65535)
digests = st.binary(min_size=20, max_size=20)
labels = st.text(ascii_letters + digits, min_size=1, max_size=63)
names = st.builds(redirect.Fqdn, st.lists(labels, min_size=1, max_size=3).map(".".join))
nonces = st.one_of(st.just(b""), st.binary(min_size=16, max_size=256))


Pair = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]

pairs: st.SearchStrategy[Pair] = st.one_of(st.tuples(ip4, ip4), st.tuples(ip6, ip6))
"""Two addresses of one family."""


def no_nats(pair: Pair) -> st.SearchStrategy[mobike.NoNatsAllowed]:
    return st.builds(mobike.NoNatsAllowed, st.just(pair[0]), st.just(pair[1]), ports, ports)


BY_KIND: dict[type[NotifyData], st.SearchStrategy[Any]] = {
    mobike.MobikeSupported: st.builds(mobike.MobikeSupported, st.binary(max_size=300)),
    mobike.AdditionalIp4Address: st.builds(mobike.AdditionalIp4Address, ip4),
    mobike.AdditionalIp6Address: st.builds(mobike.AdditionalIp6Address, ip6),
    mobike.NoAdditionalAddresses: st.builds(mobike.NoAdditionalAddresses),
    mobike.UpdateSaAddresses: st.builds(mobike.UpdateSaAddresses),
    mobike.Cookie2: st.builds(mobike.Cookie2, st.binary(min_size=8, max_size=64)),
    mobike.NoNatsAllowed: pairs.flatmap(no_nats),
    mobike.UnacceptableAddresses: st.builds(mobike.UnacceptableAddresses),
    mobike.UnexpectedNatDetected: st.builds(mobike.UnexpectedNatDetected),
    mobike.NatDetectionSourceIp: st.builds(mobike.NatDetectionSourceIp, digests),
    mobike.NatDetectionDestinationIp: st.builds(mobike.NatDetectionDestinationIp, digests),
    rmobike.SwitchToIpAddress: st.builds(rmobike.SwitchToIpAddress, addresses),
    redirect.RedirectSupported: st.builds(redirect.RedirectSupported),
    redirect.Redirect: st.builds(redirect.Redirect, st.one_of(ip4, ip6, names), nonces),
    redirect.RedirectedFrom: st.builds(redirect.RedirectedFrom, addresses),
    redirect.RedirectAck: st.builds(redirect.RedirectAck),
    kivinen.Ipv4AddressChange: st.builds(kivinen.Ipv4AddressChange, ip4, st.binary(max_size=40)),
    kivinen.Ipv6AddressChange: st.builds(kivinen.Ipv6AddressChange, ip6, st.binary(max_size=40)),
    kivinen.DisconnectNotify: st.builds(kivinen.DisconnectNotify, st.integers(0, 2**32 - 1)),
    dupont.PeerAddressSource: st.builds(
        dupont.PeerAddressSource, addresses, st.sampled_from(dupont.PeerAddressOperation)
    ),
    dupont.PeerAddressDestination: st.builds(
        dupont.PeerAddressDestination, addresses, st.sampled_from(dupont.PeerAddressOperation)
    ),
    dupont.NatPrevention: st.builds(dupont.NatPrevention, digests),
    dupont.RrCookie: st.builds(dupont.RrCookie, st.binary(min_size=16, max_size=64)),
}
"""Every typed notify, by its class."""

notifies = st.builds(
    Notify,
    st.integers(0, 65535),
    st.binary(max_size=80),
    st.integers(0, 255),
    st.one_of(st.just(b""), st.binary(max_size=16)),
)
deletes = st.integers(1, 16).flatmap(
    lambda size: st.builds(
        ike.Delete,
        st.integers(0, 255),
        st.just(size),
        st.lists(st.binary(min_size=size, max_size=size), max_size=6).map(tuple),
    )
)
updates = st.one_of(
    st.builds(dupont.PeerAddressUpdate, st.booleans(), st.booleans()),
    st.builds(
        dupont.PeerAddressUpdate,
        st.just(False),
        st.booleans(),
        st.sampled_from([dupont.UpdateProtocol.ESP, dupont.UpdateProtocol.AH]),
        st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple),
    ),
)
_other_types = st.integers(1, 255).filter(lambda kind: kind not in ike.ENCRYPTED | {41, 42, 213})
plain_payloads = st.one_of(
    st.builds(ike.Payload, _other_types, st.binary(max_size=40), st.booleans(), st.integers(0, 127)),
    notifies.map(lambda notify: ike.Payload(41, notify.to_body())),
    deletes.map(lambda delete: ike.Payload(42, delete.to_body())),
    updates.map(lambda update: ike.update_payload(update, dialects.EVERY)),
    st.builds(ike.Payload, st.sampled_from([41, 42, 213]), st.binary(max_size=24)),
)
encrypted_payloads = st.builds(
    ike.Payload,
    st.sampled_from(sorted(ike.ENCRYPTED)),
    st.binary(max_size=60),
    st.booleans(),
    st.integers(0, 127),
    st.integers(0, 255),
)
chains = st.builds(
    lambda plain, last: (*plain, *last),
    st.lists(plain_payloads, max_size=6),
    st.lists(encrypted_payloads, max_size=1),
)
messages = st.builds(
    ike.Message,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    chains,
    st.integers(0, 15),
)


def _address_update(ends: tuple[Pair, Pair]) -> st.SearchStrategy[pfkey.AddressUpdate]:
    old, new = ends
    return st.builds(
        pfkey.AddressUpdate,
        st.sampled_from(pfkey.SaType),
        st.integers(0, 2**32 - 1),
        *(st.just(ip) for ip in (*old, *new)),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )


address_updates = st.tuples(pairs, pairs).flatmap(_address_update)
