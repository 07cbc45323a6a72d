"""What the ledger reads and writes around one call, each in one transaction.

A reservation is there exactly while a call is in flight: it keeps others from making the same call and keeps the most
that it can cost out of the budget. It ends as an answer, as a failed attempt, or, when nobody can say whether the
provider worked on it, as uncertain spending.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from m3i.errors import StoreError
from m3i.ledger.database import Database
from m3i.ledger.faults import Fault
from m3i.ledger.secrets import message, redact, redact_values
from m3i.llm.request import ModelRequest, Reply, Stop, TooLong, Usage


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request on its way through the ledger."""

    request: ModelRequest
    key: str
    recording: str
    only: bool
    """Only answers of this recording count."""
    account: str
    budget_usd: float | None
    worst_usd: float | None
    """The most it can cost; None: no price known."""
    purpose: str


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An answer as the ledger holds it."""

    reply: Reply | TooLong
    cost_usd: float | None


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """The call may be sent."""

    id: int


@dataclass(frozen=True, kw_only=True)
class Busy:
    """The same call is in flight elsewhere."""

    owner: str
    batch: int | None
    """Row of the batch that holds it."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Where an account stands, in US dollars."""

    paid: float
    reserved: float
    uncertain: float


@dataclass(frozen=True, kw_only=True)
class Short:
    """The budget does not cover the call."""

    totals: Totals
    worst_usd: float
    for_good: bool
    """Not even when every other call in flight turns out to cost nothing."""


Claim = Stored | Reserved | Busy | Short


# -- answers ----------------------------------------------------------------------------------


def find(db: Database, key: str, recording: str, *, only: bool) -> Stored | None:
    """The answer to a key: this recording's, else (unless `only`) the one recorded last."""
    with db.reading() as connection:
        return _find(connection, key, recording, only=only)


def _find(connection: sqlite3.Connection, key: str, recording: str, *, only: bool) -> Stored | None:
    row = connection.execute(
        "SELECT outcome, response, cost_usd, request_id FROM answers WHERE key = ? AND (recording = ? OR NOT ?) "
        "ORDER BY recording = ? DESC, id DESC LIMIT 1",
        (key, recording, only, recording),
    ).fetchone()
    return (
        None if row is None else stored_answer(key, row["outcome"], row["response"], row["cost_usd"], row["request_id"])
    )


def answered(connection: sqlite3.Connection, call: Call) -> bool:
    """Whether a call has its answer by now, inside a transaction."""
    return _find(connection, call.key, call.recording, only=call.only) is not None


def stored_answer(key: str, outcome: str, response: str, cost_usd: float | None, request_id: str) -> Stored:
    """An answer out of its columns. Raises StoreError."""
    try:
        fields = json.loads(response)
        reply = TooLong(fields["message"]) if outcome == "too_long" else reply_from(fields, request_id)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the ledger's answer {key} cannot be read ({error}): the file is damaged") from error
    return Stored(reply=reply, cost_usd=cost_usd)


def reply_fields(reply: Reply) -> dict[str, Any]:
    """A reply as JSON values, without secrets."""
    return {
        "text": redact(reply.text, patterns=False),
        "stop": reply.stop.value,
        "usage": asdict(reply.usage),
        "model": message(reply.model),
        "raw": redact_values(reply.raw),
    }


def reply_from(fields: Mapping[str, Any], request_id: str) -> Reply:
    """A reply out of `reply_fields`."""
    return Reply(
        text=fields["text"],
        stop=Stop(fields["stop"]),
        usage=Usage(**fields["usage"]),
        model=fields["model"],
        request_id=request_id,
        raw=fields["raw"],
    )


def clean_reply(reply: Reply) -> Reply:
    """The reply as it would come back from the ledger."""
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
    """Keeps an answer inside a transaction; one that is there already stays. Returns whether it is new."""
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


# -- one call ---------------------------------------------------------------------------------


def claim(db: Database, call: Call) -> Claim:
    """The answer if it is there by now, else leave to send: in one transaction, so that no two send, nor overspend."""
    owner = db.begin()
    claimed = _claim(db, call, owner)
    if isinstance(claimed, (Busy, Short)) and reap(db):
        claimed = _claim(db, call, owner)
    if isinstance(claimed, Reserved):
        db.active.add(claimed.id)
    return claimed


def _claim(db: Database, call: Call, owner: str) -> Claim:
    with db.transaction() as connection:
        found = _find(connection, call.key, call.recording, only=call.only)
        if found is not None:
            return found
        busy = holder(connection, call.key, call.recording)
        if busy is not None:
            return busy
        short = shortage(connection, call.account, call.budget_usd, call.worst_usd)
        if short is not None:
            return short
        return Reserved(id=reserve(connection, call, owner=owner, batch=None))


def holder(connection: sqlite3.Connection, key: str, recording: str) -> Busy | None:
    """Who has this call in flight."""
    row = connection.execute(
        "SELECT owner, batch FROM reservations WHERE key = ? AND recording = ?", (key, recording)
    ).fetchone()
    return None if row is None else Busy(owner=row["owner"], batch=row["batch"])


def reserve(connection: sqlite3.Connection, call: Call, *, owner: str, batch: int | None) -> int:
    """Adds a reservation inside a transaction; returns its row."""
    cursor = connection.execute(
        "INSERT INTO reservations (key, recording, provider, model, owner, batch, account, worst_usd, purpose) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.recording, call.request.provider, call.request.model),
            *(owner, batch, call.account, call.worst_usd, call.purpose),
        ),
    )
    return int(cursor.lastrowid or 0)


def shortage(
    connection: sqlite3.Connection, account: str, budget_usd: float | None, worst_usd: float | None
) -> Short | None:
    """What keeps a call of this worst case from the budget, None when nothing does."""
    if budget_usd is None or worst_usd is None:
        return None
    totals = account_totals(connection, account)
    spent = totals.paid + totals.uncertain
    if spent + totals.reserved + worst_usd <= budget_usd:
        return None
    return Short(totals=totals, worst_usd=worst_usd, for_good=spent + worst_usd > budget_usd)


def account_totals(connection: sqlite3.Connection, account: str) -> Totals:
    """What an account has paid, what its calls in flight can cost at most, and what nobody can say."""

    def total(query: str) -> float:
        return float(connection.execute(query, (account,)).fetchone()[0])

    return Totals(
        paid=total("SELECT total(cost_usd) FROM answers WHERE account = ? AND imported = 0"),
        reserved=total("SELECT total(worst_usd) FROM reservations WHERE account = ?"),
        uncertain=total("SELECT total(worst_usd) FROM uncertain WHERE account = ?"),
    )


def record(
    db: Database,
    reserved: Reserved,
    call: Call,
    answer: Reply | TooLong,
    *,
    cost_usd: float | None,
    price_source: str,
    latency_s: float | None,
) -> None:
    """The call is answered."""
    db.active.discard(reserved.id)  # also where this fails: the disk may be full
    with db.transaction() as connection:
        insert_answer(
            *(connection, call, answer), cost_usd=cost_usd, price_source=price_source, latency_s=latency_s, batch=False
        )
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def fail(db: Database, reserved: Reserved, call: Call, fault: Fault) -> None:
    """The attempt failed; what may have been billed for it stays against the budget."""
    db.active.discard(reserved.id)
    with db.transaction() as connection:
        insert_attempt(connection, call, fault)
        if fault.maybe_billed:
            insert_uncertain(connection, call, fault.kind)
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def insert_attempt(connection: sqlite3.Connection, call: Call, fault: Fault) -> None:
    """Counts a failed attempt inside a transaction."""
    connection.execute(
        "INSERT INTO attempts (key, provider, model, account, status, class, message, maybe_billed, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.request.provider, call.request.model, call.account),
            *(fault.status, fault.kind, fault.message, fault.maybe_billed, made_at()),
        ),
    )


def insert_uncertain(connection: sqlite3.Connection, call: Call, why: str) -> None:
    """Books an attempt's worst case inside a transaction."""
    connection.execute(
        "INSERT INTO uncertain (key, recording, provider, model, account, worst_usd, why, purpose, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.recording, call.request.provider, call.request.model, call.account),
            *(call.worst_usd, why, call.purpose, made_at()),
        ),
    )


def release(db: Database, reserved: Reserved) -> None:
    """The call was not sent."""
    db.active.discard(reserved.id)
    with db.transaction() as connection:
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def reap(db: Database) -> int:
    """Books calls in flight that nobody stands behind as uncertain spending; returns how many.

    Those of processes that have ended, and this one's own whose end could not be written.
    """
    with db.reading() as connection:
        held = connection.execute("SELECT id, owner FROM reservations WHERE batch IS NULL").fetchall()
    gone = db.gone({row["owner"] for row in held})
    ended = [row["id"] for row in held if row["owner"] in gone]
    failed = [row["id"] for row in held if row["owner"] == db.owners.id and row["id"] not in db.active]
    return _bury(db, ended, "process ended") + _bury(db, failed, "could not be recorded")


def _bury(db: Database, reservations: Sequence[int], why: str) -> int:
    if not reservations:
        return 0
    done = 0
    with db.transaction() as connection:
        for row in reservations:
            connection.execute(
                "INSERT INTO uncertain (key, recording, provider, model, account, worst_usd, why, purpose, made_at) "
                "SELECT key, recording, provider, model, account, worst_usd, ?, purpose, ? "
                "FROM reservations WHERE id = ?",
                (why, made_at(), row),
            )
            done += connection.execute("DELETE FROM reservations WHERE id = ?", (row,)).rowcount
    return done


def totals(db: Database, account: str) -> Totals:
    """Where an account stands."""
    with db.reading() as connection:
        return account_totals(connection, account)


def known_keys(db: Database, keys: Iterable[str], recording: str, *, only: bool) -> dict[str, Stored]:
    """The answers that are there, by key."""
    with db.reading() as connection:
        found = {key: _find(connection, key, recording, only=only) for key in keys}
    return {key: stored for key, stored in found.items() if stored is not None}


def made_at() -> str:
    """Now, for people: nothing is ever decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
