"""Which processes are alive, told by locks instead of clocks.

A process that has calls in flight holds `<ledger>.owners/<id>.lock`. The system takes the lock from it when it ends,
however it ends: a lock that can be acquired belonged to a process that is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

OPEN_TIMEOUT_S = 60.0
"""Longest wait for another process that is opening the ledger."""


class Owners:
    """The lock of this process, and a look at those of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = ""
        """Empty until `begin`."""
        self._lock: FileLock | None = None

    def gate(self) -> FileLock:
        """Held while a ledger is opened and while lock files are made or removed. Raises filelock.Timeout."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "gate", timeout=OPEN_TIMEOUT_S, thread_local=False)

    def begin(self) -> str:
        """Shows this process to be alive, from now on; returns its id."""
        if self._lock is None:
            with self.gate():
                name = uuid.uuid4().hex
                lock = FileLock(self._file(name), timeout=0, thread_local=False)
                lock.acquire()
                self.id, self._lock = name, lock
        return self.id

    def gone(self, names: Iterable[str]) -> list[str]:
        """Those of the owners whose process has ended. Their lock files are removed by `sweep`."""
        return [name for name in names if name != self.id and self._is_gone(name)]

    def sweep(self, keep: Iterable[str]) -> None:
        """Removes lock files that nobody holds, but those of `keep`. Only under `gate`."""
        kept = {self.id, *keep}
        for file in self.folder.glob("*.lock"):
            if file.stem not in kept and self._is_gone(file.stem):
                file.unlink(missing_ok=True)

    def end(self) -> None:
        """Lets go of the lock: nothing of this process is in flight any more."""
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
