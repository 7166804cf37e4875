"""Reading octets without ever reading past them: every failure is a `DecodeError` with its offset."""

from __future__ import annotations

from mobikectl.errors import DecodeError


def malformed(offset: int, expected: str, found: str, *, hint: str = "") -> DecodeError:
    """Given where and what was expected and found, return the error to raise."""
    return DecodeError(
        f"octet {offset}: expected {expected}, found {found}", hint=hint, offset=offset, expected=expected
    )


def impossible(expected: str, found: str, *, hint: str = "") -> DecodeError:
    """Given what a value must be and what it is, return the error for a value that no octets can say."""
    return DecodeError(f"expected {expected}, found {found}", hint=hint, expected=expected)


class Reader:
    """A cursor over octets in network byte order.

    ``at`` is the offset of the first octet in the whole input: errors count from there.
    """

    __slots__ = ("_at", "_data", "_pos")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._pos = 0
        self._at = at

    @property
    def offset(self) -> int:
        """Where the next octet is, counted in the whole input."""
        return self._at + self._pos

    @property
    def left(self) -> int:
        """How many octets are not read yet."""
        return len(self._data) - self._pos

    def take(self, count: int, what: str) -> bytes:
        """Given how many octets and what they are, return them. Raise DecodeError when fewer are left."""
        if count > self.left:
            raise malformed(self.offset, f"{count} octets of {what}", f"{self.left}")
        self._pos += count
        return self._data[self._pos - count : self._pos]

    def number(self, octets: int, what: str) -> int:
        """Given a width in octets, return the unsigned number there. Raise DecodeError when cut short."""
        return int.from_bytes(self.take(octets, what), "big")

    def rest(self) -> bytes:
        """Return all octets not read yet (possibly none)."""
        return self.take(self.left, "data")

    def end(self, what: str) -> None:
        """Raise DecodeError unless everything was read; ``what`` is the thing that should have ended."""
        if self.left:
            raise malformed(self.offset, f"the end of {what}", f"{self.left} more octets")


def check_unsigned(value: int, octets: int, what: str) -> None:
    """Raise DecodeError when ``value`` does not fit an unsigned field of so many octets."""
    if not 0 <= value < 1 << (8 * octets):
        found = str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"
        raise impossible(f"{what} of {octets} octets", found)


def check_length(data: bytes, low: int, high: int, what: str) -> None:
    """Raise DecodeError when ``data`` has fewer than ``low`` or more than ``high`` octets."""
    if not low <= len(data) <= high:
        lengths = f"{low}" if low == high else f"{low} to {high}"
        raise impossible(f"{lengths} octets of {what}", f"{len(data)}")
