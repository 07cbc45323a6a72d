"""What processes on several machines need to share a folder: locks, a current view of it, cleanup of unfinished work.

Nothing here compares the clocks of two machines or relies on host names or process ids: containers share host names,
and each may count its processes from 1.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from m3i.errors import StoreError

IDLE_S = 24 * 3600.0
"""Unfinished work from outside the lock's domain is removed after this long without a change."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
NETWORK_TYPES = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "pvfs2", "panfs"),
    *("wekafs", "ocfs2", "gfs2"),
    *(f"fuse.{name}" for name in ("sshfs", "glusterfs", "juicefs", "ceph", "ceph-fuse", "beegfs", "rclone")),
    *(f"fuse.{name}" for name in ("s3fs", "gcsfuse", "goofys", "mount-s3")),
}
"""File system types, as named by the kernel, that several machines may have mounted."""


@contextmanager
def held(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock `file`; calls `waiting()` once if another process holds it.

    The system releases the lock when the process ends, in whatever way. Raises StoreError if there are no locks.
    """
    lock = FileLock(file)
    try:
        _acquire(lock, timeout=0.2)
    except Timeout:
        waiting()
        with suppress(Timeout):
            _acquire(lock, timeout=5)
        if not lock.is_locked:
            _acquire(lock, poll_interval=0.5)  # each poll is a request to a file server
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, timeout: float = -1, poll_interval: float = 0.05) -> None:
    """Takes a system lock. The mere existence of a file does not count as one: it would outlive a killed process."""
    try:
        lock.acquire(timeout=timeout, poll_interval=poll_interval)
        native = not isinstance(lock, SoftFileLock)
    except NotImplementedError:
        native = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        native = False
    if not native:
        if lock.is_locked:
            lock.release()
        raise StoreError(
            f"the file system of {Path(lock.lock_file).parent} has no file locks (flock); mount it with locks, or "
            f"choose another folder with store.root=/path"
        )


def listed(root: Path, *names: str) -> bool:
    """Returns whether the folders' listings contain `root/name/name/...`, whatever is cached about the path itself.

    A machine caches for a while what a file server told it, including that a name did not exist. Opening a directory
    makes NFS revalidate it (close-to-open consistency) and drop such entries; other file systems list it afresh.
    """
    folder = root
    for name in names:
        try:
            if name not in os.listdir(folder):
                return False
        except FileNotFoundError:
            return folder != root  # it was listed but cannot be opened yet
        folder = folder / name
    return True


def network_type(path: Path, mounts: str | None = None) -> str:
    """Returns the type of network file system that `path` is on, such as `nfs4`; empty if it is local or unknown.

    Args:
        path: A file or folder; it need not exist.
        mounts: Text of /proc/self/mountinfo; that of this process if None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    place, found, longest = path.resolve(), "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        if place.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = after.split()[0], len(point.parts)
    return found if found in NETWORK_TYPES else ""


@cache
def boot_id() -> str:
    """Returns the id of the running system: shared by its containers, new after a restart, empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Workplace:
    """Folders of unfinished artifacts: `<tmp>/<key>-<domain>-<id>`, created only while `<locks>/<key>.lock` is held.

    The domain is the running system and the mount. A lock is certain to work among processes of one domain.
    """

    def __init__(self, tmp: Path, locks: Path) -> None:
        self.tmp = tmp
        self.locks = locks
        mount = f"{boot_id()} {locks.stat().st_dev}"
        self.domain = hashlib.sha256(mount.encode()).hexdigest()[:16] if boot_id() else "unknown"

    def folder(self, key: str) -> Path:
        """Returns a new path for unfinished work on `key`."""
        return self.tmp / f"{key}-{self.domain}-{uuid.uuid4().hex}"

    def now(self) -> float:
        """Returns the time by the clock that stamps files here. Raises OSError if the folder cannot be written."""
        probe = self.tmp / f"probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"m3i")
        stamp = probe.stat().st_ctime
        probe.unlink()
        return stamp

    def sweep(self) -> None:
        """Removes work left behind by processes that have ended, whose lock is free.

        A lock may not reach other machines (on some file systems it is local to each), so work from outside this domain
        must also have been idle for a day.
        """
        now = self.now()
        for folder in self.tmp.iterdir():
            key, domain, _ = (*folder.name.split("-"), "", "")[:3]
            lock = self.locks / f"{key}.lock"
            if (domain != self.domain or domain == "unknown" or not lock.exists()) and now - _changed(folder) < IDLE_S:
                continue
            if not lock.exists():  # a probe
                _remove(folder)
                continue
            with suppress(Timeout, PermissionError), _held_now(lock):
                _remove(folder)


@contextmanager
def _held_now(file: Path) -> Iterator[None]:
    """Holds a lock that is free. Raises filelock.Timeout if it is not."""
    lock = FileLock(file)
    _acquire(lock, timeout=0)
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """Returns when anything in `path` last changed, by the clock that stamps files; infinity if it is being removed."""
    try:
        return max(file.lstat().st_ctime for file in (path, *path.rglob("*")))
    except OSError:
        return float("inf")
