"""What several processes on several machines need to share a folder: locks, a present view of it, unfinished work.

Nothing here compares clocks of two machines, names hosts or trusts process ids: containers share host names, and each
may count its processes from 1.
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
"""After so long without a change, unfinished work from outside of the lock's domain is given up."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
NETWORK_TYPES = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "pvfs2", "panfs"),
    *("wekafs", "ocfs2", "gfs2"),
    *(f"fuse.{name}" for name in ("sshfs", "glusterfs", "juicefs", "ceph", "ceph-fuse", "beegfs", "rclone")),
    *(f"fuse.{name}" for name in ("s3fs", "gcsfuse", "goofys", "mount-s3")),
}
"""Types of file systems, as the kernel names them, that more than one machine may have mounted."""


@contextmanager
def held(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock `file`; `waiting()` is called once where another process holds it.

    The system takes the lock from a process that ends, however it ends. Raises StoreError where there are no locks.
    """
    lock = FileLock(file)
    try:
        _acquire(lock, timeout=0.2)
    except Timeout:
        waiting()
        with suppress(Timeout):
            _acquire(lock, timeout=5)
        if not lock.is_locked:
            _acquire(lock, poll_interval=0.5)  # each look is a request to a file server
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, timeout: float = -1, poll_interval: float = 0.05) -> None:
    """Takes a lock of the system. A file that only exists is none: it would outlive a killed process."""
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
    """Whether `root/name/name/...` is there by the listings of its folders, whatever is remembered of the name.

    A machine remembers for a while what a file server told it, also that a name was free. Opening a directory asks NFS
    for its present state (close-to-open consistency), and makes it forget; elsewhere the listing itself is asked for.
    """
    folder = root
    for name in names:
        try:
            if name not in os.listdir(folder):
                return False
        except FileNotFoundError:
            return folder != root  # it was listed, and cannot be opened yet
        folder = folder / name
    return True


def network_type(path: Path, mounts: str | None = None) -> str:
    """Type of the network file system that `path` lies on, such as `nfs4`; empty where it is local or cannot be told.

    Args:
        path: A file or folder, there or not.
        mounts: Text of /proc/self/mountinfo; this process's own when None.
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
    """The running system: one for all of its containers, another after a restart; empty where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Workplace:
    """Folders of artifacts in the making: `<tmp>/<key>-<domain>-<id>`, made only while `<locks>/<key>.lock` is held.

    The domain is the running system and the mount. Among processes of one domain a lock is certain to work.
    """

    def __init__(self, tmp: Path, locks: Path) -> None:
        self.tmp = tmp
        self.locks = locks
        mount = f"{boot_id()} {locks.stat().st_dev}"
        self.domain = hashlib.sha256(mount.encode()).hexdigest()[:16] if boot_id() else "unknown"

    def folder(self, key: str) -> Path:
        """A new name for unfinished work on `key`."""
        return self.tmp / f"{key}-{self.domain}-{uuid.uuid4().hex}"

    def now(self) -> float:
        """The time by the clock that stamps files here. Raises OSError where the folder cannot be written."""
        probe = self.tmp / f"probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"m3i")
        stamp = probe.stat().st_ctime
        probe.unlink()
        return stamp

    def sweep(self) -> None:
        """Removes what was left by processes that are gone: their lock is free.

        Whether a lock reaches other machines is not certain (some file systems keep it to each), so work from outside
        of this domain must also have been idle for a day.
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
    """Holds a lock that is free. Raises filelock.Timeout."""
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
    """When anything in it was last changed, by the clock that stamps files; now where somebody removes it meanwhile."""
    try:
        return max(file.lstat().st_ctime for file in (path, *path.rglob("*")))
    except OSError:
        return float("inf")
