"""Which error of several is told."""

from __future__ import annotations

from mobikectl.errors import CharonError, innermost, to_tell


def test_our_own_error_is_told_however_deep_it_is_and_whatever_came_first() -> None:
    ours = CharonError("charon is away", hint="start it")
    assert to_tell(ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError(), ours])])) is ours


def test_where_none_is_our_own_the_first_is_told() -> None:
    first = ValueError()
    assert to_tell(ExceptionGroup("", [ExceptionGroup("", [first]), OSError()])) is first


def test_what_is_no_group_is_told_as_it_is() -> None:
    error = ValueError()
    assert innermost(error) is error
