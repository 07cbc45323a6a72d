"""What can become of a request instead of an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

KEY = "{key}"
"""In a message: the API key that the request carried."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One scripted outcome."""

    kind: str
    """`ok`, `status`, `closed`, `drip`, `malformed`, `truncated`, `hold` or `mind`."""
    status: int = 200
    message: str = ""
    type: str = ""
    """The provider's word for the error, where it is not the usual one of the status."""
    headers: dict[str, str] = field(default_factory=dict)
    before: bool = False
    """Of `closed`: before the first byte of the answer."""
    interval_s: float = 0.05
    """Of `drip`: between two bytes."""
    mind: str = ""
    """Of `mind`: who answers this one request."""


def ok() -> Fault:
    """An ordinary answer."""
    return Fault(kind="ok")


def by(mind: str) -> Fault:
    """An answer by another mind."""
    return Fault(kind="mind", mind=mind)


def status(code: int, message: str = "", *, type: str = "", headers: dict[str, str] | None = None) -> Fault:
    """An error with the provider's own body."""
    return Fault(kind="status", status=code, message=message, type=type, headers=headers or {})


def rate_limited(retry_after_s: float | None = None) -> Fault:
    """429, with `retry-after` in seconds or without."""
    return status(429, headers={} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"})


def rate_limited_until(seconds_from_now: float, *, clock_error_s: float = 0.0) -> Fault:
    """429 with an HTTP date, by a server whose clock is `clock_error_s` ahead of ours."""
    now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=clock_error_s)
    later = now + timedelta(seconds=seconds_from_now)
    return status(429, headers={"retry-after": format_datetime(later, True), "date": format_datetime(now, True)})


def overloaded() -> Fault:
    """Anthropic's 529."""
    return status(529)


def server_error() -> Fault:
    """500."""
    return status(500)


def unavailable() -> Fault:
    """503."""
    return status(503)


def revoked() -> Fault:
    """The key stops working."""
    return status(401)


def too_long() -> Fault:
    """The prompt exceeds the model's context, in the provider's words."""
    return status(400, type="too_long")


def no_credit() -> Fault:
    """The account has no money left, in the provider's words."""
    return status(400, type="no_credit")


def echoing(code: int = 500) -> Fault:
    """An error whose text holds the API key."""
    return status(code, f"upstream refused the credential {KEY} (Authorization: Bearer {KEY})")


def closed(*, before: bool = False) -> Fault:
    """The connection breaks in the middle of the answer, or before its first byte."""
    return Fault(kind="closed", before=before)


def drip(interval_s: float = 0.05) -> Fault:
    """The answer comes byte by byte."""
    return Fault(kind="drip", interval_s=interval_s)


def malformed() -> Fault:
    """200 with a body that is no JSON, of the announced length."""
    return Fault(kind="malformed")


def truncated() -> Fault:
    """200 with the first half of the JSON, of the announced length."""
    return Fault(kind="truncated")


def hold() -> Fault:
    """No answer until `WireServer.release`."""
    return Fault(kind="hold")
