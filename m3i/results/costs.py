"""Time and money of a run, as JSON values; an unknown amount is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m3i.artifacts import CallFacts
from m3i.component import plain
from m3i.store.store import StageRecord


def costs_section(
    *,
    stages: Sequence[StageRecord],
    observers: Sequence[CallFacts],
    judges: Sequence[CallFacts],
    ledger: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the run cost in time and money.

    Args:
        stages: How each stage was obtained.
        observers: Calls behind each audit.
        judges: Calls behind each judge's verdicts.
        ledger: What this process's ledger counted (m3i.ledger.Tally as a mapping); None if no remote model is called.

    Returns:
        `time_s` of this run and `made_in_s` of all artifacts; for `observers` and `judges` the number of calls as
        `..._calls`, those without a known price as `..._unpriced`, and the cost of the others as `..._usd` (what the
        answers cost when they were made, in this run or before; None if there were calls and none has a price);
        `ledger`.
    """
    section: dict[str, Any] = {
        "time_s": sum(record.time_s for record in stages),
        "made_in_s": sum(record.made_in_s for record in stages),
    }
    for group, facts in (("observers", observers), ("judges", judges)):
        n_calls, n_unpriced = sum(f.n_calls for f in facts), sum(f.n_unpriced for f in facts)
        section[f"{group}_calls"] = n_calls
        section[f"{group}_unpriced"] = n_unpriced
        section[f"{group}_usd"] = known_cost(sum(f.cost_usd for f in facts), n_calls, n_unpriced)
    section["ledger"] = ledger_section(ledger)
    return section


def known_cost(cost_usd: float, n_calls: int, n_unpriced: int) -> float | None:
    """The cost of the calls with a known price; None if there were calls and none has one."""
    return None if n_calls and n_unpriced >= n_calls else cost_usd


def ledger_section(ledger: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The ledger's tally, with a cost of None in rows whose calls have no known price."""
    if ledger is None:
        return None
    section: dict[str, Any] = plain(dict(ledger))
    for row in section["rows"]:
        row["cost_usd"] = known_cost(row["cost_usd"], row["made"], row["unpriced"])
        if row["reused"] and not row["saved_usd"]:
            row["saved_usd"] = None
    return section
