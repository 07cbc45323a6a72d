"""Totals of one process's calls, for its result and report."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from m3i.ledger.request import ModelRequest, Reply, TooLong


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Totals of this process's run; JSON values only."""

    rows: tuple[dict[str, Any], ...] = ()
    """One row per provider and model; see `Counts.row`."""
    uncertain_usd: float = 0.0
    """Upper bound on what this run spent on attempts that were sent, have no answer and may have been billed."""
    price_source: str = ""
    recording: str = ""
    mode: str = ""
    account: str = ""
    spent_in_account_usd: float = 0.0
    """Everything that the account has paid for in this ledger, this run included; without uncertain spending."""
    uncertain_in_account_usd: float = 0.0
    """Upper bound on the account's uncertain spending in this ledger, this run included."""


@dataclass
class Counts:
    """Counts of one provider and model."""

    made: int = 0
    """Answers to calls that this process made."""
    reused: int = 0
    """Answers that were in the ledger already."""
    waited: int = 0
    """Answers to calls that another task or process made while this one waited."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Tokens of the calls made."""
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    """What the reused answers cost when they were first paid for."""
    unpriced: int = 0
    """Calls made whose price is not known."""
    too_long: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """Failed attempts, by kind."""
    latencies_s: list[float] = field(default_factory=list)

    def row(self, provider: str, model: str) -> dict[str, Any]:
        """Returns the counts as JSON values."""
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
    """Counts of every provider and model, kept while a run goes on."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self.uncertain_usd = 0.0

    def of(self, request: ModelRequest) -> Counts:
        """Returns the counts of a request's provider and model."""
        return self._counts.setdefault((request.provider, request.model), Counts())

    def made(
        self, request: ModelRequest, answer: Reply | TooLong, cost_usd: float | None, latency_s: float | None
    ) -> None:
        """Counts a call that was answered."""
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
        """Counts an answer that needed no call: found in the ledger, or brought by another task or process."""
        counts = self.of(request)
        if waited:
            counts.waited += 1
        else:
            counts.reused += 1
            counts.saved_usd += cost_usd or 0.0

    def rows(self) -> tuple[dict[str, Any], ...]:
        """Returns all counts as JSON values."""
        return tuple(counts.row(*place) for place, counts in sorted(self._counts.items()))
