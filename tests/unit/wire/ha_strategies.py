"""Hypothesis strategies for HA messages."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mobikectl.wire import ha
from mobikectl.wire.ha import _GRAMMARS, HaAttribute, HaMessage, HaType, SecretBytes
from mobikectl.wire.ha_values import KINDS, Kind

from .wire_strategies import addresses, ip4, ip6, ports

spis = st.integers(0, 2**64 - 1)
names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)


@st.composite
def selectors(draw: st.DrawFn) -> ha.Selector:
    first, last = draw(st.one_of(st.tuples(ip4, ip4), st.tuples(ip6, ip6)))
    low, high = draw(ports), draw(ports)
    return ha.Selector(first, last, draw(st.integers(0, 255)), low, high, draw(st.booleans()))


BY_KIND: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.IKE_ID: st.builds(ha.IkeId, spis, spis, st.booleans(), st.sampled_from((1, 2))),
    Kind.IDENTITY: st.builds(ha.Identity, st.integers(0, 255), st.binary(max_size=255)),
    Kind.HOST: st.builds(ha.Host, addresses, ports),
    Kind.NAME: names,
    Kind.U8: st.integers(0, 255),
    Kind.U16: st.integers(0, 2**16 - 1),
    Kind.U32: st.integers(0, 2**32 - 1),
    Kind.SPI: st.integers(0, 2**32 - 1),
    Kind.CPI: st.integers(0, 2**16 - 1),
    Kind.CHUNK: st.builds(SecretBytes, st.binary(max_size=300)),
    Kind.SELECTOR: selectors(),
}


@st.composite
def messages(draw: st.DrawFn, kind: HaType | None = None) -> HaMessage:
    """Any message that the grammar allows, its attributes in any order that it allows."""
    kind = draw(st.sampled_from(HaType)) if kind is None else kind
    grammar = _GRAMMARS[kind]
    once = draw(st.sets(st.sampled_from(sorted(grammar.once)))) if grammar.once else set()
    many = draw(st.lists(st.sampled_from(sorted(grammar.many)), max_size=6)) if grammar.many else []
    order: list[HaAttribute] = draw(st.permutations([*sorted(grammar.needs), *sorted(once), *many]))
    if kind is HaType.IKE_UPDATE:
        order = sorted(order, key=lambda each: each is not HaAttribute.IKE_ID)
    return HaMessage(kind, tuple((name, draw(BY_KIND[KINDS[name]])) for name in order))
