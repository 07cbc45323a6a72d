"""Time and money of a sweep: what each arm added, and what the store saved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from m3i.results.costs import known_cost
from m3i.sweep.load import Job


def costs_section(jobs: Sequence[Job], run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the costs of all jobs with a result; `run` is the whole result.json of one of them.

    Returns:
        `arms`: per arm, `own_s`, the seconds of work that no other job shares, and `time_s`, the seconds its jobs ran.
        Over all arms: `own_s`; `shared_s`, work that several jobs use, counted once; `made_s`, the sum of both;
        `alone_s`, every job from an empty store; `saved_s` = alone − made; `hits_s`, work that jobs found in the store
        by their own records, earlier runs included. `stages`: seconds by stage. `money`: see `money_section`.
    """
    stages = [(job, stage) for job in jobs if job.result is not None for stage in job.result["stages"]]
    users: dict[str, set[tuple[str, int]]] = defaultdict(set)
    made: dict[str, float] = {}
    name_of: dict[str, str] = {}
    for job, stage in stages:
        users[stage["key"]].add((job.arm, job.seed))
        made[stage["key"]] = max(made.get(stage["key"], 0.0), stage["made_in_s"])
        name_of[stage["key"]] = stage["stage"]
    shared = {key for key, who in users.items() if len(who) > 1}
    own: dict[str, float] = defaultdict(float)
    ran: dict[str, float] = defaultdict(float)
    for job, stage in stages:
        ran[job.arm] += stage["time_s"]
        if stage["key"] not in shared:
            own[job.arm] += stage["made_in_s"]
    by_stage: dict[str, float] = defaultdict(float)
    for key, seconds in made.items():
        by_stage[name_of[key]] += seconds
    alone = sum(stage["made_in_s"] for _, stage in stages)
    seeds = Counter(job.arm for job in jobs)
    return {
        "arms": [{"arm": a, "jobs": seeds[a], "own_s": own[a], "time_s": ran[a]} for a in seeds],
        "own_s": sum(own.values()),
        "shared_s": sum(made[key] for key in shared),
        "made_s": sum(made.values()),
        "alone_s": alone,
        "saved_s": alone - sum(made.values()),
        "hits_s": sum(stage["made_in_s"] for _, stage in stages if stage["hit"]),
        "stages": [{"stage": stage, "made_s": seconds} for stage, seconds in by_stage.items()],
        "money": money_section([job.result for job in jobs if job.result is not None], run),
    }


def money_section(results: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what the model calls behind these results cost and what the last command paid; None without such calls.

    Judgements and audits keep a record of their calls, so a sweep repeated from the store still shows its cost. Audits
    are those of `run`, since all arms share them; judgements that several jobs share count once.

    Args:
        results: Of all jobs.
        run: The whole result.json of one of them.

    Returns:
        `cost_usd` (None where calls were made and none has a price), `calls`, `unpriced`; `last`: None, or the sum of
        the jobs' own ledger tallies, which hold what the command that wrote a result paid for it.
    """
    calls: dict[tuple[Any, ...], Any] = {
        ("audit", alias): row["calls"] for alias, row in run.get("observers", {}).items()
    }
    for i, result in enumerate(results):
        ids = {row["name"]: row["id"] for row in result["ids"] if row["kind"] == "verdicts"}
        calls |= {("verdicts", alias, ids.get(alias, i)): row["calls"] for alias, row in result["judges"].items()}
    n, unpriced = (sum(row[name] for row in calls.values()) for name in ("n_calls", "n_unpriced"))
    last = tally_section(results)
    if not n and last is None:
        return None
    cost = sum(row["cost_usd"] or 0.0 for row in calls.values())
    return {"cost_usd": known_cost(cost, n, unpriced), "calls": n, "unpriced": unpriced, "last": last}


def tally_section(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the sum of the jobs' ledger tallies; None without one. `unpriced` calls are not in `paid_usd`."""
    tallies = [result["costs"]["ledger"] for result in results if result["costs"]["ledger"] is not None]
    if not tallies:
        return None
    rows = [row for tally in tallies for row in tally["rows"]]
    made, unpriced = sum(row["made"] for row in rows), sum(row["unpriced"] for row in rows)
    return {
        "paid_usd": known_cost(sum(row["cost_usd"] or 0.0 for row in rows), made, unpriced),
        "calls": made,
        "unpriced": unpriced,
        "reused": sum(row["reused"] for row in rows),
        "saved_usd": sum(row["saved_usd"] or 0.0 for row in rows),
        "uncertain_usd": sum(tally["uncertain_usd"] for tally in tallies),
    }
