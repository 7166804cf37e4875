"""Frames over a TLS stream, each bounded in size and time."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from mobikectl.errors import DecodeError
from mobikectl.wire.transfer import MAX_FRAME, Deframer, encode

if TYPE_CHECKING:
    from mobikectl.wire.transfer import Frame

FRAME_S = 5.0
"""A frame that has begun is complete within this time, and one that is sent is taken within it."""
_CHUNK = 1 << 16


class StreamFrames:
    """Given a connection, sends and receives frames. It is the connection's owner: close it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, frame_s: float = FRAME_S
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._frame_s = frame_s
        self._deframer = Deframer()

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS session. Raise DecodeError: there is none."""
        found = self._writer.get_extra_info("ssl_object")
        if not isinstance(found, ssl.SSLObject):
            raise DecodeError("a connection without TLS", expected="TLS 1.3")
        return found

    def trust(self) -> None:
        """Take frames of full size from now on: the other side is known."""
        self._deframer.limit = MAX_FRAME

    async def receive(self, wait_s: float | None) -> Frame | None:
        """Given seconds to wait for its beginning (None: for ever), return the next frame; None: the end of it all.

        Raise TimeoutError, DecodeError (not a frame, or the end within one), or OSError.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(wait_s) as limit:
            begun = False
            while True:
                frame = self._deframer.take()
                if frame is not None:
                    return frame
                if self._deframer.partial and not begun:
                    begun = True
                    limit.reschedule(loop.time() + self._frame_s)
                octets = await self._reader.read(_CHUNK)
                if not octets:
                    if self._deframer.partial:
                        raise DecodeError("the connection ended within a frame", expected="the rest of it")
                    return None
                self._deframer.feed(octets)

    async def send(self, frame: Frame) -> None:
        """Given a frame, send it. Raise TimeoutError: the other side takes nothing; OSError; DecodeError: no frame."""
        self._writer.write(encode(frame))
        async with asyncio.timeout(self._frame_s):
            await self._writer.drain()

    def cut(self) -> None:
        """End the connection at once: who reads from it is at its end."""
        if not self._writer.is_closing():
            self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; a moment for saying so, then it is cut."""
        if self._writer.is_closing():
            return  # lost or cut: asyncio's TLS transport does not survive being closed after that
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            return
