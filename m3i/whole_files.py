"""Writes files whole or not at all: what was there stays until everything new is written."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from m3i.errors import InputError


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Names to write to, which become `paths` together at the end; on any error nothing of them is left.

    Raises:
        InputError: A file could not be written or replaced: a full disk, a folder that may not be written.
    """
    drafts = [path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in paths]
    try:
        yield drafts
        for path in paths:
            if path.is_dir():
                raise InputError(f"cannot write {path}: it is a folder; move it away")
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    except OSError as error:
        names = " and ".join(path.name for path in paths)
        raise InputError(
            f"cannot write {names} in {paths[0].parent}: {error.strerror or error}; what was there before is unchanged"
        ) from error
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes one text file whole. Half of a surrogate pair, which UTF-8 cannot hold, becomes a visible escape."""
    with replacing(path) as (draft,):
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
