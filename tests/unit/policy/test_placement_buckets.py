"""The bucket of a client is the one of tests/vectors/buckets.toml, which the charon plugin has to agree with."""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path

from mobikectl.policy.placement import bucket

VECTORS = tomllib.loads((Path(__file__).parents[2] / "vectors" / "buckets.toml").read_text())


def test_an_address_has_the_bucket_of_its_octets() -> None:
    for vector in VECTORS["address"]:
        assert bucket(ip_address(vector["address"]).packed) == vector["bucket"], vector


def test_an_identity_has_the_bucket_of_its_octets() -> None:
    for vector in VECTORS["identity"]:
        assert bucket(vector["identity"].encode()) == vector["bucket"], vector
