"""Writes files whole and reads them strictly: texts, JSON written by this project, a user's JSONL, hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from m3i.errors import InputError


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Yields temporary files to write to, which replace `paths` in order at the end, or vanish on an earlier error.

    Raises:
        InputError: A file could not be written or replaced, e.g. the disk is full or the folder is read-only.
    """
    drafts = [path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in paths]
    replaced: list[str] = []
    try:
        yield drafts
        for path in paths:
            if path.is_dir():
                raise InputError(f"cannot write {path}: it is a folder; move or rename it")
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
            replaced.append(path.name)
    except OSError as error:
        names = " and ".join(path.name for path in paths)
        unchanged = f"{', '.join(replaced)} was replaced, the rest" if replaced else "what was there before"
        raise InputError(
            f"cannot write {names} in {paths[0].parent}: {error.strerror or error}; {unchanged} is unchanged"
        ) from error
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Writes text files whole and puts them in place, in the given order."""
    with replacing(*texts) as drafts:
        for draft, text in zip(drafts, texts.values(), strict=True):
            put(draft, text)


def put(file: Path, text: str) -> None:
    """Writes a text as UTF-8. A lone surrogate (half an emoji from a cut token) becomes a visible escape."""
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


LONGEST = 1000
"""Maximum digits of an integer; the number of layer sets of a large model has more than a hundred."""


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        InputError: The file cannot be read, holds no JSON object, or holds a number that is not finite or too long.
    """
    try:
        found = json.loads(
            file.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite, parse_int=_integer
        )
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except RecursionError:
        raise InputError(f"{file}: cannot be read (JSON nested too deep)") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: holds no JSON object")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > LONGEST:
        raise ValueError(f"the number {digits[:20]}... has {len(digits)} digits")
    return int(digits)


def read_json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """Yields the line number, from 1, and the value of every line that is not blank.

    Raises:
        InputError: The file cannot be read as UTF-8, or a line is not JSON, is nested too deep, or holds half a
            character (a lone surrogate), which no tokenizer can encode.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    for number, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield number, _value(f"{file}, line {number}", content)


def _value(where: str, content: str) -> Any:
    try:
        value = json.loads(content)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno}): {content.strip()[:60]}") from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deep: {content.strip()[:60]}") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a character (a lone surrogate such as \\ud800) in the text") from None
    return value


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
