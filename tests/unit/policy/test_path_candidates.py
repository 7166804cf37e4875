"""Which paths are candidates, how they rank, and what is said of those that are not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import ConfigError
from mobikectl.model import Address, Link, Path, RouteAnswer
from mobikectl.policy.candidates import ObjectionKind, candidates, paths_to_ask
from mobikectl.policy.settings import (
    FamilyPreference,
    InterfaceRule,
    PathSettings,
    ProbeSettings,
    QualityLimits,
)

from .path_world import GATEWAY, LINKS, RADIO, SECOND_GATEWAY, WIRED, A, B, World, sa_on

if TYPE_CHECKING:
    from collections.abc import Callable

ANY = PathSettings()
SIX, GATEWAY6 = ip_address("2001:db8:1::2"), ip_address("2001:db8:ff::1")


def found(world: World, settings: PathSettings = ANY) -> dict[Path, set[ObjectionKind]]:
    listed = candidates(world.sas[0], world.state(), settings)
    return {c.path: {o.kind for o in c.objections} for c in listed}


def test_candidates_are_all_local_addresses_with_all_gateway_addresses() -> None:
    world = World(learnt={1: (SECOND_GATEWAY,)})
    everything = {Path(x, r) for x in (WIRED, RADIO) for r in (GATEWAY, SECOND_GATEWAY)}
    assert found(world) == {key: set() for key in everything}
    asked = paths_to_ask(world.net(), world.sas[0], ANY, (SECOND_GATEWAY,))
    assert set(asked) == everything


def test_families_are_not_mixed() -> None:
    world = World(learnt={1: (GATEWAY6,)})
    world.addresses.add(Address(2, SIX, 64))
    assert set(found(world)) == {A, B, Path(SIX, GATEWAY6)}


def test_the_inner_addresses_of_the_sa_are_no_outer_ones() -> None:
    world = World(sas=[replace(sa_on(A), local_vips=(RADIO,))])
    assert set(found(world)) == {A}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (Address(2, ip_address("2001:db8:1::3"), 64, tentative=True), ObjectionKind.ADDRESS_UNFIT),
        (Address(2, ip_address("fe80::1"), 64, scope=253), ObjectionKind.ADDRESS_UNFIT),
        (Address(9, ip_address("2001:db8:1::3"), 64), ObjectionKind.LINK_DOWN),
    ],
    ids=["tentative", "link-local", "link-gone"],
)
def test_an_address_that_cannot_be_a_source_says_why(address: Address, kind: ObjectionKind) -> None:
    world = World(learnt={1: (GATEWAY6,)})
    world.addresses.add(address)
    assert kind in found(world)[Path(address.ip, GATEWAY6)]


def test_a_route_over_another_link_is_an_objection() -> None:
    world = World()
    routes = {**world.routes(), B: RouteAnswer(GATEWAY, None, 2, WIRED)}
    listed = candidates(world.sas[0], replace(world.state(), routes=routes), ANY)
    (other,) = (c for c in listed if c.path == B)
    assert [o.kind for o in other.objections] == [ObjectionKind.NO_ROUTE]
    assert "up0" in other.objections[0].text


def test_the_path_in_use_is_listed_even_when_its_address_is_gone() -> None:
    world = World()
    world.addresses.discard(Address(2, WIRED, 24))
    assert found(world)[A] == {ObjectionKind.ADDRESS_GONE}


@pytest.mark.parametrize(
    ("link", "ignored"),
    [
        (Link(5, "eth0", True, True), False),
        (Link(5, "wlp2s0", True, True), False),
        (Link(5, "lo", True, True, loopback=True), True),
        (Link(5, "ipsec0", True, True, "tun"), True),
        (Link(5, "corp", True, True, "wireguard"), True),
        (Link(5, "corp", True, True, "xfrm"), True),
        (Link(5, "corp", True, True, "bridge"), True),
        (Link(5, "docker0", True, True, "bridge"), True),
        (Link(5, "veth12ab", True, True, "veth"), True),
        (Link(5, "up0", True, True, "veth"), False),
    ],
    ids=lambda v: f"{v.name}-{v.kind}" if isinstance(v, Link) else str(v),
)
def test_tunnels_and_containers_are_ignored_by_name_and_kind(link: Link, ignored: bool) -> None:
    assert (ANY.why_ignored(link) is not None) is ignored
    include = PathSettings(interfaces=(InterfaceRule(link.name, use=True),))
    assert include.why_ignored(link) is None
    exclude = PathSettings(interfaces=(InterfaceRule(link.name, use=False),))
    assert exclude.why_ignored(link) is not None


def test_an_ignored_link_that_the_sa_uses_already_is_not_taken_from_it() -> None:
    settings = PathSettings(interfaces=(InterfaceRule("up0", use=False),))
    assert found(World(), settings)[A] == set()
    assert found(World(sas=[sa_on(B)]), settings)[A] == {ObjectionKind.LINK_IGNORED}


def best(settings: PathSettings, **more: Any) -> Path:
    world = World(sas=[sa_on(B)], **more)
    return candidates(world.sas[0], world.state(), settings)[0].path


def test_priority_comes_before_metric_before_cost() -> None:
    def rules(a: InterfaceRule, b: InterfaceRule) -> PathSettings:
        return PathSettings(interfaces=(a, b))

    up0, up1 = InterfaceRule("up0"), InterfaceRule("up1")
    assert best(rules(replace(up0, priority=1, metric=9, cost=9), up1)) == A
    assert best(rules(replace(up0, metric=1, cost=9), replace(up1, metric=2))) == A
    assert best(rules(replace(up0, metric=1), replace(up1, metric=1, cost=1))) == A


def test_the_family_preference_comes_before_the_priority() -> None:
    world = World(learnt={1: (GATEWAY6,)})
    world.addresses.add(Address(3, SIX, 64))
    rules = (InterfaceRule("up0", priority=9),)
    settings = PathSettings(interfaces=rules, family=FamilyPreference.PREFER_IPV6)
    assert candidates(world.sas[0], world.state(), settings)[0].path == Path(SIX, GATEWAY6)
    only = PathSettings(family=FamilyPreference.ONLY_IPV6)
    assert found(world, only) == {A: set(), B: {ObjectionKind.FAMILY}, Path(SIX, GATEWAY6): set()}


def test_weights_share_sas_in_proportion() -> None:
    rules = (InterfaceRule("up0", weight=3), InterfaceRule("up1", weight=1))
    settings = PathSettings(interfaces=rules)
    world = World()
    first: Counter[str] = Counter()
    for i in range(400):
        world.sas = [replace(sa_on(A), remote_id=f"peer{i}")]
        first[candidates(world.sas[0], world.state(), settings)[0].link] += 1
    assert 250 <= first[LINKS[2]] <= 350


def test_the_first_matching_rule_holds() -> None:
    settings = PathSettings(interfaces=(InterfaceRule("up0", priority=1), InterfaceRule("up*", priority=2)))
    assert settings.rule_for("up0").priority == 1
    assert settings.rule_for("up1").priority == 2
    assert settings.rule_for("eth0").priority == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ProbeSettings(interval_s=0),
        lambda: ProbeSettings(timeout_s=float("nan")),
        lambda: ProbeSettings(count=0),
        lambda: ProbeSettings(port=65536),
        lambda: ProbeSettings(reliability=2),
        lambda: QualityLimits(failure_loss=1.5),
        lambda: QualityLimits(recovery_loss=0.1),
        lambda: QualityLimits(failure_latency_s=0.1, recovery_latency_s=0.2),
        lambda: InterfaceRule(""),
        lambda: InterfaceRule("a", weight=0),
        lambda: InterfaceRule("a", metric=-1),
        lambda: PathSettings(hold_down_s=-1),
        lambda: PathSettings(hold_down_s=1000),
        lambda: PathSettings(verify_timeout_s=0),
        lambda: PathSettings(max_paths=0),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_was_expected(wrong: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        wrong()


def test_probe_targets_of_another_family_are_left_out() -> None:
    settings = ProbeSettings(targets=(GATEWAY6, SECOND_GATEWAY), reliability=2)
    assert settings.targets_for(GATEWAY) == (SECOND_GATEWAY,)
    assert settings.needed(GATEWAY) == 1
    assert ProbeSettings().targets_for(GATEWAY) == (GATEWAY,)
