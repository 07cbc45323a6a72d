"""The faults of bench/faults.py, and how each is documented to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.wire import faults

EXPECTED = {
    "retried": "retried until answered",
    "stopped": "stopped with one error; complete after a restart",
    "missing": "counted as missing",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault."""

    name: str
    ends: str
    """The documented end: a key of EXPECTED."""
    script: tuple[faults.Fault, ...] = ()
    error: str = ""
    """For `stopped`: the class of the error."""
    missing: int = 0
    """For `missing`: how many items."""
    ledger: dict[str, Any] = field(default_factory=dict)
    """Ledger options for the attempt with the fault."""
    budget_calls: float = 0.0
    """Instead of a large budget: the worst-case cost of this many calls."""
    model: str = ""
    """A different model id for the attempt with the fault."""
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """What happens to this machine during the attempt."""
    nobody: str = ""
    """What is at the server's port instead of the server: `refuses`, or `accepts` nothing."""
    kill: bool = False


@contextlib.contextmanager
def jumping_clock() -> Iterator[None]:
    """The wall clock jumps a day ahead and two days back while calls are made; the monotonic clock does not."""
    real, began = time.time, time.monotonic()
    time.time = lambda: real() + (86_400 if (time.monotonic() - began) % 0.2 < 0.1 else -86_400)
    try:
        yield
    finally:
        time.time = real


PASSING = {
    "429 with retry-after": faults.rate_limited(0.2),
    "429 without retry-after": faults.rate_limited(),
    "529 overloaded": faults.overloaded(),
    "500": faults.server_error(),
    "503": faults.unavailable(),
    "connection broken before the answer": faults.closed(before=True),
    "connection broken in the answer": faults.closed(),
    "slow drip": faults.drip(0.05),
    "malformed JSON": faults.malformed(),
    "body cut short": faults.truncated(),
    "500 whose text holds the key": faults.echoing(500),
}
CASES = (
    *(Case(name=name, ends="retried", script=(faults.ok(), fault, fault)) for name, fault in PASSING.items()),
    Case(
        name="429 with a date, server's clock an hour ahead",
        ends="retried",
        script=(faults.ok(), faults.rate_limited_until(1, clock_error_s=3600)),
    ),
    Case(
        name="clock jump of this machine",
        ends="retried",
        script=(faults.ok(), faults.server_error(), faults.rate_limited(0.2)),
        around=jumping_clock,
    ),
    Case(name="empty content", ends="retried", script=(faults.ok(), faults.by("empty"))),
    Case(name="connection refused", ends="stopped", error="OutageError", nobody="refuses", ledger={"deadline_s": 1.2}),
    Case(name="connect timeout", ends="stopped", error="OutageError", nobody="accepts", ledger={"deadline_s": 1.2}),
    Case(
        name="outage beyond the deadline",
        ends="stopped",
        error="OutageError",
        script=(faults.ok(), *(faults.unavailable(),) * 12),
        ledger={"deadline_s": 1.2},
    ),
    Case(name="revoked key", ends="stopped", error="AccountError", script=(faults.ok(), faults.revoked())),
    Case(
        name="403 whose text holds the key",
        ends="stopped",
        error="AccountError",
        script=(faults.ok(), faults.echoing(403)),
    ),
    Case(name="account without credit", ends="stopped", error="AccountError", script=(faults.ok(), faults.no_credit())),
    Case(name="wrong model id", ends="stopped", error="RequestError", model="no-such-model"),
    Case(name="budget runs out", ends="stopped", error="BudgetError", budget_calls=1.2),
    Case(name="kill -9 in the middle", ends="stopped", error="killed", kill=True),
    Case(name="output cut at max_tokens", ends="missing", script=(faults.ok(), faults.by("truncating")), missing=1),
    Case(name="refusal", ends="missing", script=(faults.ok(), faults.by("refusing")), missing=1),
    Case(name="prompt too long", ends="missing", script=(faults.ok(), faults.too_long()), missing=1),
)
