"""How long a server asks to wait, from the headers of its response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds to wait from now; None if the server does not say.

    `retry-after-ms` takes precedence over `retry-after`, which is a number of seconds or an HTTP date. A date is
    compared with the response's own `date`, so that a wrong clock on either side does not matter.

    Args:
        headers: The response's headers, with names in lower case or case-insensitive access.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        number = _number(headers.get(name, ""))
        if number is not None:
            return number * unit_s
    until, now = _date(headers.get("retry-after", "")), _date(headers.get("date", ""))
    if until is None:
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
