"""The log, for people and for programs: which connection a line is about, and lines of JSON.

Rules of this file:

- A record knows its connection by what it says (the client, as the server names it), or by where
  it comes from: a handler, a task or a thread that runs for the connection.
- A structured log is one JSON object a line, whatever a message, a name or a traceback contains,
  and in ASCII: nothing that a client sends can end a line, begin one, or move a cursor.
- A record that can't be written as it is is written as well as it can be.
"""

import datetime
import json
import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ..instruments import connection_id, process
from .http import RequestLine
from .identity import Peer

__all__ = ["ConnectionFilter", "JsonFormatter", "LogFormat", "formatter_for"]


class LogFormat(StrEnum):
    """What a line of the log is."""

    TEXT = "text"
    JSON = "json"


class ConnectionFilter(logging.Filter):
    """Gives each record ``connection``, the id of the connection that it is about, and ``worker``.

    For formats that name them, ``%(connection)s``; it lets every record pass. Where there is no
    connection it is ``-``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record."""
        record.connection = _connection_of(record) or "-"
        record.worker = process.worker
        return True


def _connection_of(record: logging.LogRecord) -> str | None:
    arguments = record.args
    if isinstance(arguments, tuple) and arguments and isinstance(arguments[0], Peer):
        return arguments[0].connection
    return connection_id()


#: What every record has; anything else was given to it.
_OF_ALL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = frozenset(
    {
        "time",
        "level",
        "logger",
        "message",
        "connection",
        "worker",
        "client",
        "method",
        "path",
        "http_version",
        "status",
        "duration_ms",
        "exception",
        "stack",
    }
)


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    Always there: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``. Where it is known:
    ``connection`` and ``worker``; of a request ``client``, ``method``, ``path``, ``http_version``,
    ``status`` and ``duration_ms``; ``exception`` and ``stack``, each one text; and what the
    application gave as ``extra``, a name of ours with an underscore before it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if (connection := _connection_of(record)) is not None:
            fields["connection"] = connection
        if process.worker:
            fields["worker"] = process.worker
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, Peer):
                fields["client"] = str(argument)
            elif isinstance(argument, RequestLine):
                fields |= argument.parts()
        if record.exc_info:
            # Not kept in the record, as the base class does it: a log for people may follow.
            fields["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _OF_ALL:
                fields[f"_{name}" if name in _OURS else name] = value
        return _line(fields)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{_text(record.msg)} {_text(record.args)} (not formatted: {_text(error)})"


def _line(fields: Mapping[str, Any]) -> str:
    try:
        return json.dumps(fields, default=_text, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        # Something that the application gave: a circle, a number that is none, keys of any kind.
        plain = {
            _text(name): value if isinstance(value, str | int) else _text(value)
            for name, value in fields.items()
        }
        return json.dumps(plain)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__} when it was to be written>"


def formatter_for(
    log_format: LogFormat, text_format: str
) -> tuple[logging.Formatter, list[logging.Filter]]:
    """Return what writes records, and what has to complete them before.

    Raises ValueError for a text format that is none.
    """
    if log_format is LogFormat.JSON:
        return JsonFormatter(), []
    wants_more = any(f"%({name})" in text_format for name in ("connection", "worker"))
    return logging.Formatter(text_format), [ConnectionFilter()] if wants_more else []
