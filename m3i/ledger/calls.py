"""The database work around one call, each step in one transaction.

A reservation exists exactly while a call is in flight: it keeps others from making the same call, and holds back the
most that the call can cost from the budget. It ends as an answer, as a failed attempt, or, if it is unknown whether the
provider worked on it, as uncertain spending.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from m3i.ledger.answers import Call, Stored, find_answer, insert_answer, made_at
from m3i.ledger.database import Database
from m3i.ledger.faults import Fault
from m3i.ledger.request import Reply, TooLong


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """The call may be sent."""

    id: int


@dataclass(frozen=True, kw_only=True)
class Busy:
    """The same call is in flight elsewhere."""

    owner: str
    batch: int | None
    """Row of the batch that holds the call; None if it is a single call."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The balance of an account, in US dollars."""

    paid: float
    reserved: float
    uncertain: float


@dataclass(frozen=True, kw_only=True)
class Short:
    """The budget does not cover the call."""

    totals: Totals
    worst_usd: float
    for_good: bool
    """Whether the budget would be short even if all other calls in flight turned out to cost nothing."""


Claim = Stored | Reserved | Busy | Short


def claim(db: Database, call: Call) -> Claim:
    """Returns the answer if it has arrived, else reserves the call; one transaction, so no two send it or overspend."""
    owner = db.begin()
    claimed = _claim(db, call, owner)
    if isinstance(claimed, (Busy, Short)) and reap(db):
        claimed = _claim(db, call, owner)
    if isinstance(claimed, Reserved):
        db.active.add(claimed.id)
    return claimed


def _claim(db: Database, call: Call, owner: str) -> Claim:
    with db.transaction() as connection:
        found = find_answer(connection, call.key, call.recording, only=call.only)
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
    """Returns who has this call in flight; None if nobody has."""
    row = connection.execute(
        "SELECT owner, batch FROM reservations WHERE key = ? AND recording = ?", (key, recording)
    ).fetchone()
    return None if row is None else Busy(owner=row["owner"], batch=row["batch"])


def reserve(connection: sqlite3.Connection, call: Call, *, owner: str, batch: int | None) -> int:
    """Adds a reservation, inside a transaction; returns its row."""
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
    """Returns the shortage if the budget does not cover a call of this worst case, else None."""
    if budget_usd is None or worst_usd is None:
        return None
    totals = account_totals(connection, account)
    spent = totals.paid + totals.uncertain
    if spent + totals.reserved + worst_usd <= budget_usd:
        return None
    return Short(totals=totals, worst_usd=worst_usd, for_good=spent + worst_usd > budget_usd)


def account_totals(connection: sqlite3.Connection, account: str) -> Totals:
    """Returns what an account has paid, the worst case of its calls in flight, and its uncertain spending."""

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
    """Records the answer to a call and removes its reservation."""
    db.active.discard(reserved.id)  # even if the transaction fails: the disk may be full
    with db.transaction() as connection:
        insert_answer(
            *(connection, call, answer), cost_usd=cost_usd, price_source=price_source, latency_s=latency_s, batch=False
        )
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def fail(db: Database, reserved: Reserved, call: Call, fault: Fault) -> None:
    """Records a failed attempt and removes its reservation; what may have been billed stays charged to the budget."""
    db.active.discard(reserved.id)
    with db.transaction() as connection:
        insert_attempt(connection, call, fault)
        if fault.maybe_billed:
            insert_uncertain(connection, call, fault.kind)
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def insert_attempt(connection: sqlite3.Connection, call: Call, fault: Fault) -> None:
    """Records a failed attempt, inside a transaction."""
    connection.execute(
        "INSERT INTO attempts (key, provider, model, account, status, class, message, maybe_billed, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.request.provider, call.request.model, call.account),
            *(fault.status, fault.kind, fault.message, fault.maybe_billed, made_at()),
        ),
    )


def insert_uncertain(connection: sqlite3.Connection, call: Call, why: str) -> None:
    """Books an attempt's worst case as uncertain spending, inside a transaction."""
    connection.execute(
        "INSERT INTO uncertain (key, recording, provider, model, account, worst_usd, why, purpose, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(call.key, call.recording, call.request.provider, call.request.model, call.account),
            *(call.worst_usd, why, call.purpose, made_at()),
        ),
    )


def release(db: Database, reserved: Reserved) -> None:
    """Removes the reservation of a call that was not sent."""
    db.active.discard(reserved.id)
    with db.transaction() as connection:
        connection.execute("DELETE FROM reservations WHERE id = ?", (reserved.id,))


def reap(db: Database) -> int:
    """Books orphaned calls in flight as uncertain spending; returns how many.

    These are calls of processes that have ended, and calls of this process whose outcome could not be written.
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
    """Returns the balance of an account."""
    with db.reading() as connection:
        return account_totals(connection, account)
