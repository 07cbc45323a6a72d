"""The contents of a ledger, as rows for `m3i ledger show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m3i.ledger import calls
from m3i.ledger.database import Database


def summary(path: Path) -> list[dict[str, Any]]:
    """Returns what a ledger holds, one row per account, provider and model.

    Raises:
        StoreError: The ledger cannot be read.
    """
    db = Database(path, create=False)
    try:
        calls.reap(db)
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}

        def row(account: str, provider: str, model: str) -> dict[str, Any]:
            return rows.setdefault(
                (account, provider, model),
                {
                    "account": account or "(imported)",
                    "provider": provider,
                    "model": model,
                    "answers": 0,
                    "too_long": 0,
                    "input_tokens": 0,
                    "cached_tokens": 0,
                    "output_tokens": 0,
                    "cost_usd": 0.0,
                    "unpriced": 0,
                    "uncertain_usd": 0.0,
                    "in_flight": 0,
                    "failed": {},
                },
            )

        with db.reading() as connection:
            _add_answers(connection, row)
            of_each, grouped = "SELECT account, provider, model", "GROUP BY account, provider, model"
            for r in connection.execute(f"{of_each}, total(worst_usd) AS n FROM uncertain {grouped}"):
                row(r["account"], r["provider"], r["model"])["uncertain_usd"] = r["n"]
            for r in connection.execute(f"{of_each}, count(*) AS n FROM reservations {grouped}"):
                row(r["account"], r["provider"], r["model"])["in_flight"] = r["n"]
            for r in connection.execute(
                f"{of_each}, class, count(*) AS n FROM attempts {grouped}, class ORDER BY class"
            ):
                row(r["account"], r["provider"], r["model"])["failed"][r["class"]] = r["n"]
        return [rows[place] for place in sorted(rows)]
    finally:
        db.close()


def _add_answers(connection: Any, row: Any) -> None:
    def tokens(field: str) -> str:
        return f"total(json_extract(response, '$.usage.{field}'))"

    for r in connection.execute(
        "SELECT account, provider, model, count(*) AS answers, sum(outcome = 'too_long') AS too_long, "
        f"{tokens('input_tokens')} AS plain, {tokens('cache_read_tokens')} + {tokens('cache_write_tokens')} AS cached, "
        f"{tokens('output_tokens')} AS output, total(cost_usd) AS cost, sum(cost_usd IS NULL) AS unpriced "
        "FROM answers GROUP BY account, provider, model"
    ):
        row(r["account"], r["provider"], r["model"]).update(
            answers=r["answers"],
            too_long=r["too_long"],
            input_tokens=int(r["plain"]),
            cached_tokens=int(r["cached"]),
            output_tokens=int(r["output"]),
            cost_usd=r["cost"],
            unpriced=r["unpriced"],
        )


def open_batches(path: Path) -> list[dict[str, Any]]:
    """Returns the batches that were submitted (or may have been) and not collected. Raises StoreError."""
    db = Database(path, create=False)
    try:
        with db.reading() as connection:
            rows = connection.execute(
                "SELECT name, provider, model, account, state, provider_id, purpose, made_at, "
                "(SELECT count(*) FROM batch_requests WHERE batch = batches.id) AS requests, "
                "(SELECT total(worst_usd) FROM reservations WHERE batch = batches.id) AS worst_usd "
                "FROM batches WHERE state IN ('submitting', 'working') ORDER BY id"
            ).fetchall()
        return [dict(row) for row in rows]
    finally:
        db.close()
