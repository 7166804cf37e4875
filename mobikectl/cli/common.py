"""What the commands share: the options that every one has, and how they reach sidecar and charon."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mobikectl.config import Config, load
from mobikectl.errors import SidecarError, to_tell

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Command = TypeVar("Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration as the command line's options changed it."""

    config: Config
    file: Path | None

    @property
    def control(self) -> Path:
        """The control socket's path."""
        return Path(self.config.control.socket)


def settings_options(function: Command) -> Command:
    """Add ``--config``, ``--charon`` and ``--control``; the command gets them as ``settings``."""

    @click.option(
        "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file."
    )
    @click.option("--charon", metavar="SOCKET", help="charon's VICI socket (overrides the configuration).")
    @click.option("--control", metavar="SOCKET", help="The sidecar's socket (overrides the configuration).")
    @functools.wraps(function)
    def command(*args: Any, file: Path | None, charon: str | None, control: str | None, **kwargs: Any) -> Any:
        config = load(file)
        if charon:
            config = replace(config, charon=replace(config.charon, socket=charon.removeprefix("unix://")))
        if control:
            config = replace(config, control=replace(config.control, socket=control.removeprefix("unix://")))
        return function(*args, settings=Settings(config, file), **kwargs)

    return command  # type: ignore[return-value]


def run_async(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Make a command of a coroutine function."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return asyncio.run(function(*args, **kwargs))
        except BaseExceptionGroup as group:
            raise to_tell(group) from group

    return command


def sidecar_runs(settings: Settings) -> bool:
    """Whether there is a control socket that can be trusted (not whether anybody answers there)."""
    from mobikectl.control.sockets import check_trusted

    try:
        check_trusted(settings.control)
    except SidecarError:
        return False
    return True


def sidecar_listens(settings: Settings) -> bool:
    """Whether a process has the control socket, and it can be trusted. Waits a second at most."""
    from mobikectl.control.sockets import listens

    return sidecar_runs(settings) and listens(settings.control)
