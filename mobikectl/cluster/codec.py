"""Records to JSON and back.

What is read was written by another node, another version of mobikectl, or somebody else altogether: every value is
checked before anybody sees it, and what does not fit is one StoreValueError that names the key. Unknown keys of an
object are passed over, so that nodes of two versions understand each other.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from dataclasses import is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from mobikectl.cluster.backend import MAX_VALUE
from mobikectl.cluster.records import (
    MAX_ROWS,
    ClusterIntent,
    Member,
    MoveRecord,
    NodeIntent,
    NodeReport,
    Order,
    SaPart,
    SaRow,
)
from mobikectl.errors import MobikectlError, StoreValueError
from mobikectl.model import IpAddress
from mobikectl.policy.cluster import Capability, Mechanism

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_TEXT = 512
"""Characters of one text."""
MAX_ITEMS = 1024
"""Items of one list."""
MAX_NUMBER = 1 << 63
ALL_CAPABILITIES = functools.reduce(operator.or_, (int(one) for one in Capability))
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names of nodes and clusters: what a host name can be."""


def check_name(name: str) -> str:
    """Given a node's or cluster's name, return it. Raise StoreValueError: it is none."""
    if not NAME.fullmatch(name):
        raise StoreValueError(
            f"{name[:80]!r} is no name",
            hint="letters, digits, '.', '_' and '-', 63 at most, like a host name",
        )
    return name


def to_json(record: object) -> bytes:
    """Given a record, return its JSON. Raise StoreValueError: it says what nobody could use, or too much."""
    try:
        _check(record)
    except ValueError as error:
        raise StoreValueError(f"{type(record).__name__}: {error}", hint="nothing was written") from error
    octets = json.dumps(_converter.unstructure(record), allow_nan=False, separators=(",", ":")).encode()
    if len(octets) > MAX_VALUE:
        raise StoreValueError(
            f"a {type(record).__name__} of {len(octets)} octets is above {MAX_VALUE}", hint="make it smaller"
        )
    return octets


def from_json(key: str, octets: bytes, kind: type[T]) -> T:
    """Given a key, its value and what it should be, return that. Raise StoreValueError."""
    if len(octets) > MAX_VALUE:
        raise _broken(key, kind, f"more than {MAX_VALUE} octets")
    try:
        tree = json.loads(octets.decode(), parse_constant=_no_constant)
        found: T = _converter.structure(tree, kind)
    except RecursionError as error:
        raise _broken(key, kind, "nested too deeply") from error
    except KeyError as error:
        raise _broken(key, kind, f"{error.args[0]} is missing") from error
    except (ValueError, TypeError) as error:
        raise _broken(key, kind, str(error)) from error
    except MobikectlError as error:
        raise _broken(key, kind, error.message) from error
    return found


def _broken(key: str, kind: type, why: str) -> StoreValueError:
    shown = key if key.isprintable() else repr(key)
    said = why if why.isprintable() else repr(why)
    return StoreValueError(
        f"{shown[:200]} is no {kind.__name__}: {said[:200]}",
        hint="it is passed over; who else writes to the store? Delete the key when nobody knows",
    )


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _strict(
    expected: str, good: Callable[[Any], bool], make: Callable[[Any], Any]
) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _kind: Any) -> Any:
        if not good(value):
            raise TypeError(f"expected {expected}, got {_found(value)}")
        return make(value)

    return structure


def _found(value: object) -> str:
    """Given any JSON, return a few words for an error: it may be huge, or deeper than repr can go."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value[:60] if isinstance(value, str) else value)[:80]


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def _is_text(value: Any) -> bool:
    # What is printable can be shown to an operator as it is: no control characters, no lone surrogates.
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _address(value: Any, _kind: Any) -> IpAddress:
    if not isinstance(value, str) or "%" in value:
        raise TypeError(f"expected an IP address, got {_found(value)}")
    return ip_address(value)


def _enum(value: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if isinstance(value, str) and value == _word(member):
            return member
    raise ValueError(f"expected one of {', '.join(_word(member) for member in kind)}, got {_found(value)}")


def _capability(value: Any, _kind: Any) -> Capability:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected capabilities as a number, got {_found(value)}")
    return Capability(value & ALL_CAPABILITIES)  # a newer version may know more of them


def _word(member: Enum) -> str:
    return member.word if isinstance(member, Mechanism) else str(member.value)


def _optional(kind: Any) -> Callable[[Any, Any], Any]:
    inner: Any = functools.reduce(operator.or_, (arg for arg in get_args(kind) if arg is not NoneType))
    return lambda value, _kind: None if value is None else _converter.structure(value, inner)


def _list(kind: Any) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)[0]

    def structure(value: Any, _kind: Any) -> Any:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise TypeError(f"expected a list of at most {MAX_ITEMS}, got {_found(value)}")
        return get_origin(kind)(_converter.structure(item, inner) for item in value)

    return structure


def _object(kind: Any) -> Callable[[Any, Any], Any]:
    inner = make_dict_structure_fn(kind, _converter, _cattrs_detailed_validation=False)

    def structure(value: Any, _kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {_found(value)}")
        found = inner(value, kind)
        _check(found)
        return found

    return structure


def _check(record: object) -> None:
    """Given a record whose types are right, return when its values make sense, too. Raise ValueError."""
    if isinstance(record, NodeReport):
        counts = (record.sequence, record.ike_sas, record.half_open, record.child_sas, record.copies)
        good = min(*counts, record.bytes_per_s, record.packets_per_s, record.age_s) >= 0
        _require(good and 0 <= record.cpu <= 1 and 0 <= record.memory <= 1, "a number of the report")
    elif isinstance(record, Member):
        _require(0 < record.weight < math.inf and 0 < record.overload_limit <= 1, "weight or overload limit")
        _require(all(address.bytes_per_s > 0 for address in record.addresses), "an address's capacity")
    elif isinstance(record, NodeIntent):
        _require(record.weight is None or 0 < record.weight < math.inf, "the weight")
        _require(record.rate_per_s is None or record.rate_per_s > 0, "the rate")
    elif isinstance(record, MoveRecord):
        _require(bool(record.steps and record.sas), "the number of steps or IKE_SAs")
    elif isinstance(record, SaRow):
        numbers = (record.bytes_per_s, record.packets_per_s, record.redirects, record.refused_for_s)
        _require(min(*numbers, record.moved_ago_s or 0.0) >= 0, "a number of the IKE_SA")
        _require(record.redirects < 1 << 15, "the number of redirects")
    elif isinstance(record, SaPart):
        good = 0 <= record.part < record.parts and record.sequence >= 0 and len(record.rows) <= MAX_ROWS
        _require(good, "a number of the part")
    elif isinstance(record, ClusterIntent):
        _require(record.apply >= 0, "the number of orders")
    elif isinstance(record, Order):
        _require(0 <= record.move < MAX_NUMBER and len(record.refused) <= MAX_TEXT, "the answer")


def _require(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"{what} is out of range")


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) is tuple or _is_frozenset(kind)


def _is_frozenset(kind: Any) -> bool:
    return get_origin(kind) is frozenset


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) is UnionType and NoneType in get_args(kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook_factory(is_dataclass, _object)
    converter.register_structure_hook_factory(_is_sequence, _list)
    converter.register_structure_hook_factory(_is_optional, _optional)
    converter.register_structure_hook_func(lambda kind: kind == IpAddress, _address)
    converter.register_structure_hook(
        bool, _strict("true or false", lambda value: isinstance(value, bool), bool)
    )
    converter.register_structure_hook(
        int, _strict("a whole number", lambda value: isinstance(value, int) and _is_number(value), int)
    )
    converter.register_structure_hook(float, _strict("a number", _is_number, float))
    converter.register_structure_hook(
        str, _strict(f"a printable text of at most {MAX_TEXT} characters", _is_text, str)
    )
    converter.register_structure_hook_func(_is_enum, _enum)
    converter.register_structure_hook(Mechanism, _enum)  # an int, too: the hook for int would take it
    converter.register_structure_hook(Capability, _capability)  # the same
    converter.register_unstructure_hook_func(_is_enum, _word)
    converter.register_unstructure_hook(Capability, int)
    for address in (IPv4Address, IPv6Address):
        converter.register_unstructure_hook(address, str)
    converter.register_unstructure_hook_func(lambda kind: kind == IpAddress, str)
    converter.register_unstructure_hook_factory(
        _is_frozenset,
        lambda _kind: lambda value: sorted(converter.unstructure(item) for item in value),
    )
    # Defaults are left out: shorter, and what is infinite (a capacity) has no form in JSON.
    converter.register_unstructure_hook_factory(
        is_dataclass,
        lambda kind: make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True),
    )
    return converter


_converter = _make_converter()
