"""Writes files whole or not at all: what was there stays until everything new is written."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from m3i.errors import InputError


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Names to write to, which become `paths` at the end, in this order. On an error before, nothing of them is left.

    Raises:
        InputError: A file could not be written or replaced: a full disk, a folder that may not be written.
    """
    drafts = [path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in paths]
    replaced: list[str] = []
    try:
        yield drafts
        for path in paths:
            if path.is_dir():
                raise InputError(f"cannot write {path}: it is a folder; move it away")
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
            replaced.append(path.name)
    except OSError as error:
        names = " and ".join(path.name for path in paths)
        unchanged = f"{', '.join(replaced)} is new, the rest" if replaced else "what was there before"
        raise InputError(
            f"cannot write {names} in {paths[0].parent}: {error.strerror or error}; {unchanged} is unchanged"
        ) from error
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Writes text files whole, and puts them in their places in this order."""
    with replacing(*texts) as drafts:
        for draft, text in zip(drafts, texts.values(), strict=True):
            put(draft, text)


def put(file: Path, text: str) -> None:
    """Writes a text. Half of a surrogate pair (half an emoji from a cut token), which UTF-8 cannot hold, becomes a
    visible escape.
    """
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
