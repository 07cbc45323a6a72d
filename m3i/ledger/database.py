"""The SQLite file: its tables, its transactions, and its errors explained.

Write-ahead log with `synchronous=FULL`: a committed transaction survives kill -9 and a power cut, and readers never
wait. Every write is one short `BEGIN IMMEDIATE` transaction. A connection belongs to the thread that made it.

| table | one row per |
|---|---|
| answers | recorded answer: the request, the reply (or that the request is too long), tokens, cost, latency |
| reservations | call in flight (or waiting in a batch), with the most that it can cost |
| uncertain | attempt that was sent, has no answer and may have been billed, with the most that it can have cost |
| attempts | failed attempt, with its kind |
| batches, batch_requests | batch; request in a batch |
| meta | the current recording |
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from m3i.errors import StoreError
from m3i.ledger.process_locks import OPEN_TIMEOUT_S, Owners

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4D334931
"""`M3I1`, the mark by which SQLite identifies the kind of file."""
BUSY_TIMEOUT_S = 60.0
"""Longest wait for another process's transaction, which normally takes milliseconds."""

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, recording TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, replicate INTEGER NOT NULL,
    request TEXT NOT NULL, outcome TEXT NOT NULL CHECK (outcome IN ('reply', 'too_long')), response TEXT NOT NULL,
    cost_usd REAL, price_source TEXT NOT NULL, batch INTEGER NOT NULL,
    request_id TEXT NOT NULL, latency_s REAL, purpose TEXT NOT NULL,
    account TEXT NOT NULL, imported INTEGER NOT NULL, made_at TEXT NOT NULL,
    UNIQUE (key, recording)
);
CREATE INDEX answers_paid ON answers (account, imported, cost_usd);
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, recording TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    owner TEXT NOT NULL, batch INTEGER, account TEXT NOT NULL, worst_usd REAL, purpose TEXT NOT NULL,
    UNIQUE (key, recording)
);
CREATE TABLE uncertain (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, recording TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    account TEXT NOT NULL, worst_usd REAL, why TEXT NOT NULL, purpose TEXT NOT NULL, made_at TEXT NOT NULL
);
CREATE INDEX uncertain_account ON uncertain (account, worst_usd);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, account TEXT NOT NULL,
    status INTEGER, class TEXT NOT NULL, message TEXT NOT NULL, maybe_billed INTEGER NOT NULL, made_at TEXT NOT NULL
);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE, provider TEXT NOT NULL, model TEXT NOT NULL, account TEXT NOT NULL,
    recording TEXT NOT NULL, owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('submitting', 'working', 'collected', 'refused', 'lost')),
    provider_id TEXT NOT NULL, purpose TEXT NOT NULL, made_at TEXT NOT NULL
);
CREATE TABLE batch_requests (
    batch INTEGER NOT NULL REFERENCES batches (id), key TEXT NOT NULL, request TEXT NOT NULL, worst_usd REAL,
    PRIMARY KEY (batch, key)
);
"""


class Database:
    """One connection to one ledger file."""

    def __init__(self, path: Path, owners: Owners | None = None, *, create: bool = True) -> None:
        """Opens the file, creating it if needed.

        Args:
            path: The SQLite file.
            owners: The locks of the processes that share the file; new ones if None.
            create: Whether a missing file is created; if False, it is an error.

        Raises:
            StoreError: The file cannot be read or written, is not a ledger, or was written by a newer version.
        """
        self.path = path
        self.owners = owners or Owners(path.with_name(path.name + ".owners"))
        self.active: set[int] = set()
        """Rows of this process's reservations whose calls are still running."""
        if not create and not path.is_file():
            raise StoreError(f"there is no ledger at {path}; set ledger.path to an existing one")
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.owners.gate():
                self.connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                try:
                    self._prepare()
                except BaseException:
                    self.connection.close()
                    raise

    def _prepare(self) -> None:
        connection = self.connection
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        version, kind = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("user_version", "application_id"))
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and kind != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database, but not an M3I ledger; set ledger.path to another file")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the ledger {self.path} was written by a newer version of M3I (format {version}; this one reads up to "
                f"{SCHEMA_VERSION}); update M3I, or set ledger.path to another file"
            )
        if not tables:
            connection.execute("PRAGMA journal_mode = WAL")
            with self.transaction():
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        held = connection.execute(
            "SELECT owner FROM reservations UNION SELECT owner FROM batches WHERE state IN ('submitting', 'working')"
        )
        self.owners.sweep(row[0] for row in held.fetchall())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs the block as one write transaction: all of it is kept, or nothing. Raises StoreError."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # after some errors SQLite has rolled back already
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Gives the connection, for queries. Raises StoreError."""
        with explained(self.path):
            yield self.connection

    # -- owners -------------------------------------------------------------------------------

    def begin(self) -> str:
        """Takes this process's lock, before it reserves anything; returns its id. Raises StoreError."""
        with explained(self.path):
            return self.owners.begin()

    def gone(self, owners: Iterable[str]) -> set[str]:
        """Returns those of the owners whose process has ended. Raises StoreError."""
        with explained(self.path):
            return set(self.owners.gone(owners))

    # -- recordings ---------------------------------------------------------------------------

    def current_recording(self) -> str:
        """Returns the recording whose answers are preferred; empty if there is none yet."""
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'recording'").fetchone()
        return str(row[0]) if row else ""

    def recordings(self) -> list[str]:
        """Returns all recordings that have an answer, and the current one."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT recording FROM answers UNION SELECT value FROM meta WHERE name = 'recording'"
            ).fetchall()
        return sorted(row[0] for row in rows if row[0])

    def begin_recording(self, recording: str) -> None:
        """Makes a recording the current one."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('recording', ?)", (recording,))

    def close(self) -> None:
        """Closes the connection."""
        with explained(self.path):
            self.connection.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and the operating system into a StoreError that says what to do."""
    kept = "everything recorded before is kept"
    try:
        yield
    except Timeout as error:
        raise StoreError(
            f"another process has been opening the ledger {path} for {OPEN_TIMEOUT_S:.0f} s; end it, or set "
            "ledger.path to another file"
        ) from error
    except sqlite3.DatabaseError as error:
        words = str(error)
        if "disk is full" in words:
            raise StoreError(f"the disk is full: the ledger {path} cannot be written; {kept}") from error
        if "not a database" in words:
            raise StoreError(f"{path} is not a ledger: {words}; set ledger.path to another file") from error
        if "malformed" in words or "database corruption" in words:
            raise StoreError(
                f"the ledger {path} is damaged: {words}; move it away, then restore a copy, or an export "
                "with m3i ledger import"
            ) from error
        if "locked" in words:
            raise StoreError(
                f"another process has held the ledger {path} for {BUSY_TIMEOUT_S:.0f} s; end it, or set ledger.path to "
                "another file"
            ) from error
        if isinstance(error, sqlite3.OperationalError):
            raise StoreError(f"the ledger {path} cannot be read or written: {words}; {kept}") from error
        raise
    except OSError as error:
        raise StoreError(f"the ledger {path} cannot be read or written: {error.strerror or error}; {kept}") from error
