"""What one process's calls came to, for its result and report."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from m3i.ledger.request import ModelRequest, Reply, TooLong


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Facts of this process's run; JSON values only."""

    rows: tuple[dict[str, Any], ...] = ()
    """One a provider and model: see `Counts.row`."""
    uncertain_usd: float = 0.0
    """At most spent by this run on attempts that were sent, have no answer and may have been billed."""
    price_source: str = ""
    recording: str = ""
    mode: str = ""
    account: str = ""
    spent_in_account_usd: float = 0.0
    """All that the account ever paid for in this ledger, this run included; without uncertain spending."""
    uncertain_in_account_usd: float = 0.0
    """The same, of attempts that may have been billed, at most."""


@dataclass
class Counts:
    """Of one provider and model."""

    made: int = 0
    """Answers that this process called for."""
    reused: int = 0
    """Answers that were in the ledger."""
    waited: int = 0
    """Answers that another task or process got while this one waited."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Of the calls made."""
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    """What the reused answers cost when they were made."""
    unpriced: int = 0
    """Calls made without a known price."""
    too_long: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """Attempts that failed, by class."""
    latencies_s: list[float] = field(default_factory=list)

    def row(self, provider: str, model: str) -> dict[str, Any]:
        """JSON values."""
        return {
            "provider": provider,
            "model": model,
            "made": self.made,
            "reused": self.reused,
            "waited": self.waited,
            "input_tokens": self.tokens["input_tokens"],
            "cache_read_tokens": self.tokens["cache_read_tokens"],
            "cache_write_tokens": self.tokens["cache_write_tokens"],
            "output_tokens": self.tokens["output_tokens"],
            "cost_usd": self.cost_usd,
            "saved_usd": self.saved_usd,
            "unpriced": self.unpriced,
            "too_long": self.too_long,
            "retries": dict(sorted(self.retries.items())),
            "latency_median_s": statistics.median(self.latencies_s) if self.latencies_s else None,
            "latency_max_s": max(self.latencies_s, default=None),
        }


class Counting:
    """Counts of every provider and model while a run goes on."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self.uncertain_usd = 0.0

    def of(self, request: ModelRequest) -> Counts:
        """The counts of a request's provider and model."""
        return self._counts.setdefault((request.provider, request.model), Counts())

    def made(
        self, request: ModelRequest, answer: Reply | TooLong, cost_usd: float | None, latency_s: float | None
    ) -> None:
        """A call was answered."""
        counts = self.of(request)
        counts.made += 1
        if latency_s is not None:
            counts.latencies_s.append(latency_s)
        if isinstance(answer, TooLong):
            counts.too_long += 1
            return
        usage = answer.usage
        counts.tokens["input_tokens"] += usage.input_tokens
        counts.tokens["cache_read_tokens"] += usage.cache_read_tokens
        counts.tokens["cache_write_tokens"] += usage.cache_write_tokens
        counts.tokens["output_tokens"] += usage.output_tokens
        counts.cost_usd += cost_usd or 0.0
        counts.unpriced += cost_usd is None

    def found(self, request: ModelRequest, cost_usd: float | None, *, waited: bool) -> None:
        """An answer was there, already or after waiting for somebody else's call."""
        counts = self.of(request)
        if waited:
            counts.waited += 1
        else:
            counts.reused += 1
            counts.saved_usd += cost_usd or 0.0

    def rows(self) -> tuple[dict[str, Any], ...]:
        """All counts as JSON values."""
        return tuple(counts.row(*place) for place, counts in sorted(self._counts.items()))
