"""The sidecar's log: one line per event on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


class TextFormatter(logging.Formatter):
    """``12:30:05.123 action move-verified: ...``; warnings and errors carry their level."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = f"{clock}.{int(record.msecs):03d} {level}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an event's own fields when the record carries one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = getattr(record, "event", None)
        if event is not None:
            line: str = event.as_json()
            return line
        body = {"time": record.created, "level": record.levelname.lower(), "text": record.getMessage()}
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body)


def set_up_logging(level: str, kind: str) -> None:
    """Given a level's name and ``text`` or ``json``, send mobikectl's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logger = logging.getLogger("mobikectl")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
