"""Reads a user's JSONL file; every complaint names file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3i.errors import InputError


def read_json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The line number, from 1, and the value of every line that is not blank.

    Raises:
        InputError: The file cannot be read as UTF-8, or a line is not JSON, is nested without end, or holds half a
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
