"""Octets that nobody may see by accident: keys, shared secrets, nonces."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn


class SecretBytes:
    """Immutable octets that show only their number, however they are printed, formatted or logged.

    `reveal` returns the octets: who calls it writes them to the one place where they belong. Comparing
    takes the same time whatever differs. It cannot be pickled, so that it gets into no store by mistake.
    """

    __slots__ = ("_octets",)
    _octets: bytes

    def __init__(self, octets: bytes) -> None:
        object.__setattr__(self, "_octets", bytes(octets))

    def reveal(self) -> bytes:
        """Return the octets."""
        return self._octets

    def __len__(self) -> int:
        return len(self._octets)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    def __hash__(self) -> int:
        return hash((SecretBytes, self._octets))

    def __repr__(self) -> str:
        return f"<{len(self._octets)} secret octets>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("SecretBytes cannot be changed")

    def __copy__(self) -> SecretBytes:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SecretBytes:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("SecretBytes cannot be pickled: key material must not leave the process this way")
