"""Writes, finds and reads the answers in the ledger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from m3i.errors import StoreError
from m3i.ledger.database import Database
from m3i.ledger.request import ModelRequest, Reply, Stop, TooLong, Usage
from m3i.ledger.secrets import message, redact, redact_values


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request on its way through the ledger."""

    request: ModelRequest
    key: str
    recording: str
    only: bool
    """Whether only answers of this recording count."""
    account: str
    budget_usd: float | None
    worst_usd: float | None
    """The most that the call can cost in US dollars; None if no price is known."""
    purpose: str


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An answer as the ledger holds it."""

    reply: Reply | TooLong
    cost_usd: float | None


def find(db: Database, key: str, recording: str, *, only: bool) -> Stored | None:
    """Returns the answer to a key: this recording's, else (unless `only`) the latest one; None if there is none."""
    with db.reading() as connection:
        return find_answer(connection, key, recording, only=only)


def find_answer(connection: sqlite3.Connection, key: str, recording: str, *, only: bool) -> Stored | None:
    """Does the same as `find`, inside a transaction."""
    row = connection.execute(
        "SELECT outcome, response, cost_usd, request_id FROM answers WHERE key = ? AND (recording = ? OR NOT ?) "
        "ORDER BY recording = ? DESC, id DESC LIMIT 1",
        (key, recording, only, recording),
    ).fetchone()
    return (
        None if row is None else stored_answer(key, row["outcome"], row["response"], row["cost_usd"], row["request_id"])
    )


def answered(connection: sqlite3.Connection, call: Call) -> bool:
    """Returns whether a call has its answer by now, inside a transaction."""
    return find_answer(connection, call.key, call.recording, only=call.only) is not None


def stored_answer(key: str, outcome: str, response: str, cost_usd: float | None, request_id: str) -> Stored:
    """Builds an answer from its columns. Raises StoreError."""
    try:
        fields = json.loads(response)
        reply = TooLong(fields["message"]) if outcome == "too_long" else reply_from(fields, request_id)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the ledger's answer {key} cannot be read ({error}): the file is damaged") from error
    return Stored(reply=reply, cost_usd=cost_usd)


def reply_fields(reply: Reply) -> dict[str, Any]:
    """Returns a reply as JSON values, without secrets."""
    return {
        "text": redact(reply.text, patterns=False),
        "stop": reply.stop.value,
        "usage": asdict(reply.usage),
        "model": message(reply.model),
        "raw": redact_values(reply.raw),
    }


def reply_from(fields: Mapping[str, Any], request_id: str) -> Reply:
    """Builds a reply from the output of `reply_fields`."""
    return Reply(
        text=fields["text"],
        stop=Stop(fields["stop"]),
        usage=Usage(**fields["usage"]),
        model=fields["model"],
        request_id=request_id,
        raw=fields["raw"],
    )


def clean_reply(reply: Reply) -> Reply:
    """Returns the reply as it would come back from the ledger."""
    return reply_from(json.loads(json.dumps(reply_fields(reply), default=str)), message(reply.request_id))


def insert_answer(
    connection: sqlite3.Connection,
    call: Call,
    answer: Reply | TooLong,
    *,
    cost_usd: float | None,
    price_source: str,
    latency_s: float | None,
    batch: bool,
) -> bool:
    """Inserts an answer inside a transaction, never replacing an existing one; returns whether it is new."""
    too_long = isinstance(answer, TooLong)
    fields = {"message": message(str(answer))} if isinstance(answer, TooLong) else reply_fields(answer)
    cursor = connection.execute(
        "INSERT INTO answers (key, recording, provider, model, replicate, request, outcome, response, cost_usd, "
        "price_source, batch, request_id, latency_s, purpose, account, imported, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (key, recording) DO NOTHING",
        (
            *(call.key, call.recording, call.request.provider, call.request.model, call.request.replicate),
            *(json.dumps(call.request.content()), "too_long" if too_long else "reply", json.dumps(fields, default=str)),
            *(0.0 if too_long else cost_usd, price_source, batch),
            *("" if isinstance(answer, TooLong) else message(answer.request_id), latency_s),
            *(call.purpose, call.account, made_at()),
        ),
    )
    return cursor.rowcount == 1


def known_answers(db: Database, keys: Iterable[str], recording: str, *, only: bool) -> dict[str, Stored]:
    """Returns key → answer for those of the keys that the ledger can answer."""
    with db.reading() as connection:
        found = {key: find_answer(connection, key, recording, only=only) for key in keys}
    return {key: stored for key, stored in found.items() if stored is not None}


def made_at() -> str:
    """Returns the current time as text for people to read; no decision depends on it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
