"""Reading tests/vectors: octets put down by hand from the documents, and what they say."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobikectl.wire.dialects import DIALECTS
from mobikectl.wire.json import EXPLAINING

if TYPE_CHECKING:
    from mobikectl.wire.notify import Dialect

DIRECTORY = Path(__file__).parents[2] / "vectors"
DOCUMENTS = ("rfc4555", "redirect-01", "rfc5685", "r-mobike-09", "kivinen-00", "dupont-06")


@dataclass(frozen=True)
class Vector:
    document: str
    section: str
    name: str
    dialect: Dialect
    form: str
    """payloads, message or pf_key"""
    first: str
    octets: bytes
    expect: list[dict[str, Any]]
    header: dict[str, Any]
    pf_key: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.document} {self.section}: {self.name}"

    @property
    def malformed(self) -> bool:
        return any("error" in entry for entry in self.expect)


def octets(text: str) -> bytes:
    """Hex with blanks, line breaks and comments."""
    return bytes.fromhex(re.sub(r"#.*|\s", "", text))


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((DIRECTORY / f"{name}.toml").read_text())


def load(*names: str) -> list[Vector]:
    found = []
    for name in names or DOCUMENTS:
        content = table(name)
        found += [
            Vector(
                content["document"],
                row["section"],
                row["name"],
                DIALECTS[content["dialect"]],
                row.get("form", "payloads"),
                row.get("first", "N"),
                octets(row["hex"]),
                row.get("expect", []),
                row.get("message", {}),
                row.get("pf_key", {}),
            )
            for row in content["vector"]
        ]
    return found


def without_explanations(value: Any) -> Any:
    """What `to_json` gives, without the keys that only explain (but with errors)."""
    if isinstance(value, list):
        return [without_explanations(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = EXPLAINING - {"error"}
    return {
        key: item if key in {"value", "delete"} else without_explanations(item)
        for key, item in value.items()
        if key not in dropped
    }


def expected_payload(entry: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The JSON form of an entry of ``expect``: notifies are given in short."""
    if "payload" in entry:
        return entry
    shown = {"number": dialect.named(entry["name"]).number, "protocol_id": 0, "spi": ""} | entry
    return {"payload": "N", "notify": shown}
