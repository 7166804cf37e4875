"""Octets and their meaning, without I/O: the messages of the five documents as frozen dataclasses.

Typed notifies are in `mobike`, `rmobike`, `redirect`, `kivinen` and `dupont`; `dialects` says which number
means which of them (``CURRENT.encode(Cookie2(...)) -> Notify``, ``CURRENT.decode(notify) -> Cookie2``);
`ike` has whole messages. Anything that is not what it claims to be raises `mobikectl.errors.DecodeError`,
and nothing else.
"""
