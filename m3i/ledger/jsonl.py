"""Writes a ledger as JSONL, a header line and then one answer per line, and reads it back.

With such a file a published experiment can be repeated without keys. A line says what was asked, what was answered, by
whom and at what cost; secrets were removed before the answer was first stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m3i.component import library_version
from m3i.errors import InputError, StoreError
from m3i.ledger.database import Database
from m3i.ledger.parse_request import request_from
from m3i.ledger.prices import price_source
from m3i.ledger.request import Stop
from m3i.ledger.secrets import message, redact_values

COLUMNS = (
    "key, recording, request, outcome, response, cost_usd, price_source, batch, request_id, latency_s, purpose, made_at"
)


SQLITE_MARK = b"SQLite format 3\0"
"""The first bytes of every SQLite file."""
UNKEEPABLE = (ValueError, OverflowError, RecursionError)
"""Errors of a line that no ledger can hold: a lone surrogate, an infinite number, too deep a nesting."""


class Header(BaseModel):
    """The first line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["m3i-ledger-1"]
    m3i: str
    """The version of M3I that wrote the file."""
    recording: str
    """The ledger's current recording."""
    price_source: str


class UsageFields(BaseModel):
    """Token counts of one answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_tokens: int = Field(ge=0)
    cache_read_tokens: int = Field(ge=0)
    cache_write_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


class ReplyFields(BaseModel):
    """One reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    stop: Literal[tuple(stop.value for stop in Stop)]  # type: ignore[valid-type]
    usage: UsageFields
    model: str
    raw: dict[str, Any]


class TooLongFields(BaseModel):
    """The answer to a request that exceeds the model's context."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: str


class Line(BaseModel):
    """One answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str = Field(pattern=r"^[0-9a-f]{32}$")
    recording: str
    request: dict[str, Any]
    """`ModelRequest.content()`, whose hash is the key."""
    outcome: Literal["reply", "too_long"]
    response: ReplyFields | TooLongFields
    cost_usd: float | None = Field(ge=0, allow_inf_nan=False)
    price_source: str
    batch: bool
    request_id: str
    latency_s: float | None = Field(ge=0, allow_inf_nan=False)
    purpose: str
    made_at: str


class Imported(BaseModel):
    """Counts of one import."""

    read: int = 0
    added: int = 0
    """Answers that the ledger did not have yet."""
    recording: str = ""
    """The recording that became the ledger's current one; "" if none did."""


# -- export -----------------------------------------------------------------------------------


def export(
    path: Path, out: Path, *, recording: str = "", provider: str = "", model: str = "", account: str = ""
) -> int:
    """Writes the answers of a ledger to a JSONL file; returns how many.

    Args:
        path: The ledger.
        out: The file to write; an existing one is replaced once the new one is complete.
        recording: Write only answers of this recording; empty for all.
        provider: Write only answers of this provider; empty for all.
        model: Write only answers of this model; empty for all.
        account: Write only answers of this account; empty for all.

    Raises:
        InputError: `out` is a database.
        StoreError: The ledger cannot be read, or the file cannot be written.
    """
    db = Database(path, create=False)
    try:
        filters = {"recording": recording, "provider": provider, "model": model, "account": account}
        return _write(out, _lines(db, {name: value for name, value in filters.items() if value}))
    finally:
        db.close()


def _write(out: Path, lines: Iterator[dict[str, Any]]) -> int:
    part = out.with_name(f"{out.name}.{uuid.uuid4().hex}.part")
    try:
        if is_database(out):
            raise InputError(f"{out} is a database, perhaps a ledger, and is not overwritten; export to another file")
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="ascii", newline="\n") as file:
            n = -1  # the header is not an answer
            for n, line in enumerate(lines):  # noqa: B007
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}; the ledger is unchanged") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return n


def is_database(file: Path) -> bool:
    """Returns whether the file exists and is a SQLite database. Raises OSError."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(SQLITE_MARK)) == SQLITE_MARK


def _lines(db: Database, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
    yield Header(
        format="m3i-ledger-1",
        m3i=library_version("m3i"),
        recording=filters.get("recording") or db.current_recording(),
        price_source=price_source(),
    ).model_dump()
    where = " AND ".join(f"{name} = ?" for name in filters) or "1"
    with db.reading() as connection:
        for row in connection.execute(
            f"SELECT {COLUMNS} FROM answers WHERE {where} ORDER BY id", tuple(filters.values())
        ):
            line = dict(row)
            line.update(request=json.loads(row["request"]), response=json.loads(row["response"]))
            line["batch"] = bool(row["batch"])
            yield line


# -- import -----------------------------------------------------------------------------------


def import_(path: Path, file: Path) -> Imported:
    """Adds the answers of a JSONL file to a ledger, which is created if needed. Importing again changes nothing.

    An answer that the ledger has is never replaced. Imported answers are charged to no account. If the ledger has no
    current recording, the file's becomes the current one, so that a replay prefers its answers.

    Raises:
        InputError: The file cannot be read, or one of its lines is not an answer or was changed after it was written;
            nothing is imported then.
        StoreError: The ledger cannot be written.
    """
    lines = _read(file)
    header, _ = next(lines, (None, 0))
    if not isinstance(header, Header):
        raise InputError(f"{file} is empty, so it is not an exported ledger")
    db = Database(path)
    try:
        done = Imported()
        with db.transaction() as connection:
            for line, number in lines:
                assert isinstance(line, Line)
                done.read += 1
                try:
                    done.added += _insert(connection, line)
                except UNKEEPABLE as error:
                    raise InputError(f"{file} line {number}: {message(str(error))}") from None
            row = connection.execute("SELECT value FROM meta WHERE name = 'recording'").fetchone()
            if header.recording and not (row and row[0]):
                connection.execute(
                    "INSERT OR REPLACE INTO meta (name, value) VALUES ('recording', ?)", (header.recording,)
                )
                done.recording = header.recording
        return done
    finally:
        db.close()


def _read(file: Path) -> Iterator[tuple[Header | Line, int]]:
    """Yields every line, validated, with its number counted from 1."""
    try:
        with file.open("rb") as stream:
            for number, data in enumerate(stream, start=1):
                if not data.strip() and number > 1:
                    continue
                yield _checked(file, number, data), number
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _checked(file: Path, number: int, data: bytes) -> Header | Line:
    try:
        # Not parsed by pydantic: 0 and 0.0 give different keys, and its parser would make them equal.
        fields = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        if number == 1:
            header = Header.model_validate(fields)
            header.recording.encode()
            return header
        line = Line.model_validate(fields)
        if (line.outcome == "too_long") is not isinstance(line.response, TooLongFields):
            raise ValueError(f"outcome '{line.outcome}' does not match the kind of its response")
        key = request_from(fields["request"]).key
        if key != line.key:
            raise ValueError(f"its key is {line.key}, but its request's key is {key}: one of them was changed")
        return line
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the line"
        raise InputError(f"{file} line {number}: {place}: {message(first['msg'])}") from None
    except UNKEEPABLE as error:
        raise InputError(f"{file} line {number}: {message(str(error))}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a ledger can hold")


def _insert(connection: Any, line: Line) -> int:
    request = request_from(line.request)
    response = redact_values(line.response.model_dump())
    return int(
        connection.execute(
            "INSERT INTO answers (key, recording, provider, model, replicate, request, outcome, response, cost_usd, "
            "price_source, batch, request_id, latency_s, purpose, account, imported, made_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', 1, ?) ON CONFLICT (key, recording) DO NOTHING",
            (
                *(line.key, line.recording, request.provider, request.model, request.replicate),
                *(json.dumps(line.request), line.outcome, json.dumps(response), line.cost_usd, line.price_source),
                *(line.batch, message(line.request_id), line.latency_s, message(line.purpose), line.made_at),
            ),
        ).rowcount
    )
