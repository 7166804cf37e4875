"""A node that cannot carry IKE_SAs over goes on without: whatever was open already when that turned out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mobikectl.errors import ConfigError
from mobikectl.node import main
from mobikectl.node.main import ClusterNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def a_node(told: list[str]) -> Any:
    return SimpleNamespace(
        settings=SimpleNamespace(transfer=object()),
        _instance="",
        _beside=None,
        _reporter=None,
        _events=None,
        _lease=None,
        _names=SimpleNamespace(find=None),
        _watch=None,
        _no_carriage="",
        _tell=lambda kind, text, _: told.append(f"{kind}: {text}"),
    )


def opening(error: Exception) -> Any:
    @asynccontextmanager
    async def carriage(*_: object, **__: object) -> AsyncIterator[None]:
        async with asyncio.TaskGroup():  # as the HA broker's
            raise error
        yield

    return carriage


async def test_a_certificate_that_cannot_be_used_is_told_and_the_node_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    node = a_node(told)
    monkeypatch.setattr(main, "carriage", opening(ConfigError("node.pem: No such file", hint="make it")))
    async with AsyncExitStack() as stack:
        assert await ClusterNode._carrying(node, stack, cast("Any", None)) is None
    assert told == [
        "carries-nothing: IKE_SAs are not carried over to or from here: node.pem: No such file (make it)"
    ]
    assert "node.pem" in node._no_carriage


async def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "carriage", opening(KeyError("ours")))
    async with AsyncExitStack() as stack:
        with pytest.raises(ExceptionGroup):
            await ClusterNode._carrying(a_node([]), stack, cast("Any", None))
