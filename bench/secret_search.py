"""Whether a secret is anywhere in files, databases and texts, in any form in which it is likely to be written."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: plain, URL-encoded, in hexadecimal, in base64 at each of three offsets."""
    data = secret.encode()
    found = {data, quote(secret, safe="").encode(), quote(secret).encode(), data.hex().encode()}
    for offset in range(3):
        digits = base64.b64encode(b"\0" * offset + data + b"\0" * ((-offset - len(data)) % 3)).decode()
        inner = digits[4:-4]  # without the digits that depend on the neighbouring bytes
        found |= {inner.encode(), inner.translate(str.maketrans("+/", "-_")).encode()}
    return found


def count_secrets(secrets: Sequence[str], folders: Sequence[Path], texts: Sequence[str] = ()) -> int:
    """How many places hold a secret: files of any kind below the folders, every value of each SQLite file, texts."""
    wanted = [form for secret in secrets for form in forms(secret)]
    places = [text.encode("utf-8", "surrogateescape") for text in texts]
    for file in (f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()):
        content = file.read_bytes()
        places += [content, str(file).encode("utf-8", "surrogateescape")]
        if content.startswith(b"SQLite format 3"):
            places += values_of(file)
    return sum(any(form in place for form in wanted) for place in places)


def values_of(path: Path) -> list[bytes]:
    """Every value of every table; a long value may be stored in pieces in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in names for row in connection.execute(f'SELECT * FROM "{name}"')]
    return [str(value).encode("utf-8", "surrogateescape") for row in rows for value in row]
