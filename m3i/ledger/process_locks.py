"""Tells which processes are alive, by file locks instead of clocks.

A process that has calls in flight holds `<ledger>.owners/<id>.lock`. The operating system releases the lock when the
process ends, however it ends: a lock that can be acquired belonged to a process that is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

OPEN_TIMEOUT_S = 60.0
"""Longest wait for another process that is opening the ledger."""


class Owners:
    """The lock of this process, and checks on those of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = ""
        """Empty until `begin`."""
        self._lock: FileLock | None = None

    def gate(self) -> FileLock:
        """Returns the lock to hold while opening a ledger or making or removing lock files. Raises filelock.Timeout."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "gate", timeout=OPEN_TIMEOUT_S, thread_local=False)

    def begin(self) -> str:
        """Takes this process's lock, which shows it to be alive; returns its id."""
        if self._lock is None:
            with self.gate():
                name = uuid.uuid4().hex
                lock = FileLock(self._file(name), timeout=0, thread_local=False)
                lock.acquire()
                self.id, self._lock = name, lock
        return self.id

    def gone(self, names: Iterable[str]) -> list[str]:
        """Returns those of the owners whose process has ended. `sweep` removes their lock files."""
        return [name for name in names if name != self.id and self._is_gone(name)]

    def sweep(self, keep: Iterable[str]) -> None:
        """Removes lock files that nobody holds, except those in `keep`. Call it only under `gate`."""
        kept = {self.id, *keep}
        for file in self.folder.glob("*.lock"):
            if file.stem not in kept and self._is_gone(file.stem):
                file.unlink(missing_ok=True)

    def end(self) -> None:
        """Releases this process's lock, once none of its calls are in flight."""
        if self._lock is not None:
            with self.gate():
                self._file(self.id).unlink(missing_ok=True)
                self._lock.release()
            self._lock, self.id = None, ""

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _is_gone(self, name: str) -> bool:
        probe = FileLock(self._file(name), timeout=0, thread_local=False)
        try:
            probe.acquire()
        except Timeout:
            return False
        probe.release()
        return True
