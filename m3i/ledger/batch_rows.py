"""The database work around a batch, each step in one transaction.

A batch's row, its requests and their reservations are committed before it is submitted, under a name that is also sent
to the provider: after a crash, looking up that name tells whether the batch was submitted. The reservations belong to
the batch, so they outlive the process.

    submitting → working → collected
        ↘ refused (not accepted, or never arrived: its requests are free again)
        ↘ lost    (abandoned by the user: its worst case stays charged to the budget)
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from m3i.errors import InputError
from m3i.ledger import answers, calls
from m3i.ledger.answers import Call
from m3i.ledger.calls import Short
from m3i.ledger.database import Database
from m3i.ledger.faults import Fault, fault_of
from m3i.ledger.parse_request import request_from
from m3i.ledger.request import CallError, Reply, TooLong

MOST_REQUESTS = 10_000
"""Maximum requests in one batch, for every provider. Anthropic accepts 100,000 (or 256 MB), Gemini as many as fit in
2 GB: 10,000 requests of 25 kB each fit everywhere."""

OPEN = "('submitting', 'working')"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch that this process is in charge of."""

    id: int
    name: str
    submitting: bool
    """Not known to be submitted yet."""
    adopted: bool
    """Taken over from a process that has ended, or from a panel that was stopped."""
    provider_id: str
    calls: Mapping[str, Call]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """All missing requests are in flight elsewhere."""


Step = Batch | Short | Wait


def next_step(db: Database, missing: Sequence[Call], polling: frozenset[int]) -> Step:
    """Returns the next step for unanswered requests: a batch (taken over or new), a budget shortage, or a wait."""
    owner = db.begin()
    calls.reap(db)
    with db.reading() as connection:
        rows = connection.execute(f"SELECT DISTINCT owner FROM batches WHERE state IN {OPEN}").fetchall()
    gone = db.gone(row[0] for row in rows)
    with db.transaction() as connection:
        free: list[Call] = []
        for call in missing:
            busy = calls.holder(connection, call.key, call.recording)
            if busy is None:
                if answers.answered(connection, call):
                    return Wait()  # its answer has just arrived: look again
                free.append(call)
            elif busy.batch is not None:
                batch = _adopt(connection, busy.batch, owner, gone, polling, call)
                if batch is not None:
                    return batch
        if not free:
            return Wait()
        place = (free[0].request.provider, free[0].request.model)
        chosen = [c for c in free if (c.request.provider, c.request.model) == place][:MOST_REQUESTS]
        worst = [c.worst_usd for c in chosen if c.worst_usd is not None]
        short = calls.shortage(connection, chosen[0].account, chosen[0].budget_usd, sum(worst) if worst else None)
        return short or _create(connection, chosen, owner)


def _create(connection: sqlite3.Connection, chosen: Sequence[Call], owner: str) -> Batch:
    name = f"m3i-{uuid.uuid4().hex}"
    first = chosen[0]
    cursor = connection.execute(
        "INSERT INTO batches (name, provider, model, account, recording, owner, state, provider_id, purpose, made_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 'submitting', '', ?, ?)",
        (
            *(name, first.request.provider, first.request.model, first.account, first.recording),
            *(owner, first.purpose, answers.made_at()),
        ),
    )
    row = int(cursor.lastrowid or 0)
    for call in chosen:
        calls.reserve(connection, call, owner=owner, batch=row)
        connection.execute(
            "INSERT INTO batch_requests (batch, key, request, worst_usd) VALUES (?, ?, ?, ?)",
            (row, call.key, json.dumps(call.request.content()), call.worst_usd),
        )
    return Batch(
        id=row, name=name, submitting=True, adopted=False, provider_id="", calls={call.key: call for call in chosen}
    )


def _adopt(
    connection: sqlite3.Connection, row: int, owner: str, gone: set[str], polling: frozenset[int], like: Call
) -> Batch | None:
    """Takes over an open batch that nobody is in charge of; None if somebody is."""
    batch = connection.execute(f"SELECT * FROM batches WHERE id = ? AND state IN {OPEN}", (row,)).fetchone()
    if batch is None or not (batch["owner"] in gone or (batch["owner"] == owner and row not in polling)):
        return None
    connection.execute("UPDATE batches SET owner = ? WHERE id = ?", (owner, row))
    asked = connection.execute("SELECT key, request, worst_usd FROM batch_requests WHERE batch = ?", (row,)).fetchall()
    return Batch(
        id=row,
        name=batch["name"],
        submitting=batch["state"] == "submitting",
        adopted=True,
        provider_id=batch["provider_id"],
        calls={
            request["key"]: replace(
                like,
                request=request_from(json.loads(request["request"])),
                key=request["key"],
                recording=batch["recording"],
                account=batch["account"],
                worst_usd=request["worst_usd"],
                purpose=batch["purpose"],
            )
            for request in asked
        },
    )


def unattended(db: Database, account: str) -> dict[int, str]:
    """Returns row → name of the batches that hold all of an account's reservations, if no process is waiting for them.

    Empty if a call in flight or a batch of another running process holds some of them: those will be settled.
    """
    with db.reading() as connection:
        held = connection.execute(
            "SELECT DISTINCT batches.id, name, batches.owner FROM reservations LEFT JOIN batches "
            "ON batches.id = reservations.batch WHERE reservations.account = ?",
            (account,),
        ).fetchall()
    if any(row["id"] is None for row in held):
        return {}
    idle = db.gone({row["owner"] for row in held}) | {db.owners.id}
    return {row["id"]: row["name"] for row in held} if all(row["owner"] in idle for row in held) else {}


def submitted(db: Database, batch: Batch, provider_id: str) -> None:
    """Records that the provider has the batch, and under which id."""
    with db.transaction() as connection:
        connection.execute(
            "UPDATE batches SET state = 'working', provider_id = ? WHERE id = ?", (provider_id, batch.id)
        )


def refused(db: Database, batch: Batch, fault: Fault | None) -> None:
    """Records that the provider does not have the batch: its requests are free again, and nothing was spent."""
    with db.transaction() as connection:
        if fault is not None:
            calls.insert_attempt(connection, next(iter(batch.calls.values())), fault)
        _end(connection, batch.id, "refused")


def collected(
    db: Database,
    batch: Batch,
    outcomes: Mapping[str, Reply | CallError],
    costs: Mapping[str, tuple[float | None, str]],
) -> None:
    """Records the results of a batch. Recording them again changes nothing."""
    with db.transaction() as connection:
        for key, call in batch.calls.items():
            outcome = outcomes[key]
            if isinstance(outcome, (Reply, TooLong)):
                cost_usd, source = costs[key]
                answers.insert_answer(
                    *(connection, call, outcome), cost_usd=cost_usd, price_source=source, latency_s=None, batch=True
                )
                continue
            fault = fault_of(outcome)
            calls.insert_attempt(connection, call, fault)
            if fault.maybe_billed:
                calls.insert_uncertain(connection, call, fault.kind)
        _end(connection, batch.id, "collected")


def abandon(db: Database, name: str) -> int:
    """Abandons a batch: its worst case stays charged to the budget, its requests are free again; returns how many.

    Raises:
        InputError: There is no such open batch, or a running process waits for it.
    """
    with db.reading() as connection:
        row = connection.execute(
            f"SELECT id, owner FROM batches WHERE name = ? AND state IN {OPEN}", (name,)
        ).fetchone()
    if row is None:
        raise InputError(f"the ledger {db.path} has no open batch '{name}'; 'm3i ledger show' lists them")
    if row["owner"] != db.owners.id and not db.gone([row["owner"]]):
        raise InputError(f"a running process is waiting for the batch '{name}'; stop that process first")
    with db.transaction() as connection:
        booked = connection.execute(
            "INSERT INTO uncertain (key, recording, provider, model, account, worst_usd, why, purpose, made_at) "
            "SELECT key, recording, provider, model, account, worst_usd, 'batch given up', purpose, ? "
            "FROM reservations WHERE batch = ?",
            (answers.made_at(), row["id"]),
        ).rowcount
        _end(connection, row["id"], "lost")
    return booked


def _end(connection: sqlite3.Connection, row: int, state: str) -> None:
    connection.execute("UPDATE batches SET state = ? WHERE id = ?", (state, row))
    connection.execute("DELETE FROM reservations WHERE batch = ?", (row,))
    connection.execute("UPDATE batch_requests SET request = '' WHERE batch = ?", (row,))  # kept in answers by now
