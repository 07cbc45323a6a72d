"""Reads a JSON file that this project wrote and that anyone may have changed since: strictly, one complaint a file.

Python's reader takes NaN, Infinity and numbers that overflow; the standard does not, and neither does any statistic.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from m3i.errors import InputError

LONGEST = 1000
"""Digits of an integer; the number of layer sets of a large model has more than a hundred."""


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: The file cannot be read, is no JSON object, or holds a number that is not finite or endless.
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
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > LONGEST:
        raise ValueError(f"the number {digits[:20]}... has {len(digits)} digits")
    return int(digits)
