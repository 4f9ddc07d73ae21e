"""Structured logs: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

_LINE_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029]")
"""Characters that JSON allows, and that terminals and other readers take for the end of a line or for commands."""
LOGGER = "fingerpost.server"
EVERY_S = 60.0
"""How often an event that may come with every request is logged."""


class JsonLines(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, event, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"at": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _LINE_BREAKS.sub(
            lambda found: f"\\u{ord(found[0]):04x}", json.dumps(line, ensure_ascii=False, default=str)
        )


def set_up(quiet: bool) -> None:
    """Log to standard error; with `quiet`, only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING if quiet or name == "uvicorn" else logging.INFO)


def log(event: str, level: int = logging.INFO, trace: BaseException | None = None, **fields: Any) -> None:
    """Write one log line. `trace` adds an exception's traceback; `fields` must be JSON values or have a `str`."""
    logging.getLogger(LOGGER).log(level, event, exc_info=trace, extra={"fields": fields})


_suppressed: dict[str, tuple[float, int]] = {}
"""When an event of `log_sometimes` was last logged, and how often it has happened since."""


def log_sometimes(event: str, level: int = logging.INFO, trace: BaseException | None = None, **fields: Any) -> None:
    """As `log`, at most once in EVERY_S seconds for each event, with the number of times that it was left out before."""
    last, left_out = _suppressed.get(event, (-EVERY_S, 0))
    if time.monotonic() - last < EVERY_S:
        _suppressed[event] = (last, left_out + 1)
        return
    _suppressed[event] = (time.monotonic(), 0)
    log(event, level, trace, **fields, **({"left_out": left_out} if left_out else {}))
