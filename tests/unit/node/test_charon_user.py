"""The user that charon runs as is asked for once while charon stays there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.session import LinkState, Status
from mobikectl.errors import CharonUnreachableError
from mobikectl.node.charon_user import CharonUser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Session:
    path: Path
    status: Status = field(default_factory=lambda: Status(LinkState.UP, 1.0))


class Charon:
    """Somebody who listens, and counts who came."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        self.socket.listen(10)
        self._came = 0

    @property
    def came(self) -> int:
        while True:
            try:
                self.socket.accept()[0].close()
            except BlockingIOError:
                return self._came
            self._came += 1


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "vici")


@pytest.fixture
def charon(session: Session) -> Iterator[Charon]:
    charon = Charon(session.path)
    yield charon
    charon.socket.close()


def test_while_charon_stays_it_is_asked_once(session: Session, charon: Charon) -> None:
    user = CharonUser(session)  # type: ignore[arg-type]
    assert [user() for _ in range(5)] == [os.getuid()] * 5
    assert charon.came == 1


def test_another_charon_is_asked_anew(session: Session, charon: Charon) -> None:
    user = CharonUser(session)  # type: ignore[arg-type]
    user()
    session.status = Status(LinkState.UP, 2.0)
    assert user() == os.getuid()
    assert charon.came == 2


def test_what_is_not_known_to_be_there_is_asked_each_time(session: Session, charon: Charon) -> None:
    session.status = Status(LinkState.HUNG, 1.0)
    user = CharonUser(session)  # type: ignore[arg-type]
    user()
    user()
    assert charon.came == 2


def test_nobody_there_is_said(session: Session) -> None:
    with pytest.raises(CharonUnreachableError, match="No such file"):
        CharonUser(session)()  # type: ignore[arg-type]
