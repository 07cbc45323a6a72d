"""One row per arm: what was trained, and how it compares with the base model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from m3i.artifacts import SCORES
from m3i.config.arms import ArmKind
from m3i.statistics import (
    cluster_mean,
    mcnemar,
    mean_score,
    paired_difference,
    problem_signs,
    rank_correlation,
    sign_test,
)
from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint
from m3i.sweep.length import length_adjusted
from m3i.sweep.load import Job

SIGN = {"tuned": 1, "base": -1}
PERMUTATIONS = 999
KINDS = [kind.value for kind in ArmKind]


def arm_rows(jobs: Sequence[Job], endpoints: Sequence[Endpoint], design: Design) -> list[dict[str, Any]]:
    """Returns one row per arm with a result, the attributed arm first, then by kind and draw."""
    names = {job.arm: job for job in jobs}
    order = sorted(names, key=lambda name: (KINDS.index(names[name].kind), _draw(name)))
    return [arm_row([job for job in jobs if job.arm == name], endpoints, design) for name in order]


def _draw(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def arm_row(jobs: Sequence[Job], endpoints: Sequence[Endpoint], design: Design) -> dict[str, Any]:
    """Returns the row of one arm, pooled over its training seeds with the problem as the unit.

    Args:
        jobs: The jobs of this arm.
        endpoints: The endpoints to give T for, by training seed.
        design: Which arms are tested; the level of the intervals.
    """
    jobs = sorted(jobs, key=lambda job: job.seed)
    results = [job.result for job in jobs if job.result is not None]
    first = results[0]
    seeds = [job.seed for job in jobs]
    name = jobs[0].arm
    trained = sorted({result["parameters"]["trained"] for result in results})
    rows = [row for result in results for row in result["problems"]["rows"]]
    return {
        "arm": name,
        "kind": jobs[0].kind,
        "draw": first["arm"]["draw"],
        "layers": first["layers"]["selected"],
        "zero_update": first["layers"]["zero_update"],
        "shared_with_attributed": len(set(first["layers"]["selected"]) & set(design.attributed)),
        "n_pairs": first["training"]["n_pairs"],
        "n_swapped": first["training"]["counts"].get("pairs: swapped", 0),
        "trained": trained[0] if len(trained) == 1 else None,
        "trained_by_seed": [result["parameters"]["trained"] for result in results],
        "seeds": seeds,
        "tested": name in (*design.controls, "attributed") and bool(design.seeds),
        "folders": [job.folder for job in jobs],
        "judges": {judge: judge_row(rows, judge, design.level) for judge in first["judges"]},
        "panel": panel_row(rows, list(first["judges"]), design.level, first["statistics"]),
        "accuracy": accuracy_row(rows, design.level),
        "live_share": min(result["certificates"]["export"]["live_share"] for result in results),
        "certificates_passed": all(result["certificates"]["export"]["passed"] for result in results),
        "t": {end.name: t_row(end, name, seeds) for end in endpoints},
    }


def t_row(end: Endpoint, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns T of an arm, overall and by training seed, on `n` of the endpoint's problems; None without a problem."""
    by_seed = [{"seed": seed, "t": end.own_t(arm, [seed])[0]} for seed in seeds]
    t, n = end.own_t(arm, seeds)
    return {"t": t, "n": n, "by_seed": by_seed}


def judge_row(rows: Sequence[Mapping[str, Any]], judge: str, level: float) -> dict[str, Any]:
    """Returns one judge's results on one arm, with all training and generation seeds of a problem together.

    Returns:
        `counts` of comparisons; `problems` won, lost, undecided by the majority of their comparisons, with the exact
        `sign_test`; `mean_score`; `length`: Spearman's rho between a problem's extra tokens and its outcome, and the
        mean score at equal length.
    """
    said = [(row, row["verdicts"][judge]) for row in rows if judge in row["verdicts"]]
    counts = Counter(verdict["outcome"] for _, verdict in said)
    valid = [(row, verdict) for row, verdict in said if verdict["outcome"] != "missing"]
    wins, losses, undecided = problem_signs((row["problem_id"], SIGN.get(v["outcome"], 0)) for row, v in valid)
    return {
        "n": len(said),
        "counts": {name: counts[name] for name in ("tuned", "base", "tie", "split", "missing")},
        "problems": {"wins": wins, "losses": losses, "undecided": undecided},
        "sign_test": asdict(sign_test(wins=wins, losses=losses, level=level)),
        "mean_score": asdict(
            mean_score(
                problems=[row["problem_id"] for row, _ in valid],
                scores=[SCORES[verdict["outcome"]] for _, verdict in valid],
                level=level,
            )
        ),
        "length": length_row(valid, level),
    }


def panel_row(
    rows: Sequence[Mapping[str, Any]], judges: Sequence[str], level: float, statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the mean score over all judges; judgements, generation and training seeds of a problem stay together.

    Returns:
        `mean_score` as elsewhere, and for comparison `bootstrap`, the percentile bootstrap over problems, which is too
        narrow where few problems are decided (docs/verdict.md).
    """
    said = [(row["problem_id"], row["verdicts"][judge]["outcome"]) for row in rows for judge in judges]
    valid = [(problem, SCORES[outcome]) for problem, outcome in said if outcome != "missing"]
    problems, scores = [problem for problem, _ in valid], [score for _, score in valid]
    bootstrap = cluster_mean(
        clusters=problems, values=scores, level=level, draws=statistics["n_bootstrap"], seed=statistics["seed"]
    )
    return {
        "judges": list(judges),
        "mean_score": asdict(mean_score(problems=problems, scores=scores, level=level)),
        "bootstrap": asdict(bootstrap),
    }


def length_row(valid: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], level: float) -> dict[str, Any]:
    """Correlates outcome with length over problems: `rho` and `p`, `extra_tokens`, the adjusted mean score."""
    extra: dict[str, list[float]] = {}
    score: dict[str, list[float]] = {}
    for row, verdict in valid:
        extra.setdefault(row["problem_id"], []).append(row["tuned"]["n_tokens"] - row["base"]["n_tokens"])
        score.setdefault(row["problem_id"], []).append(SCORES[verdict["outcome"]])
    extra_P = [float(np.mean(values)) for values in extra.values()]
    score_P = [float(np.mean(values)) for values in score.values()]
    found = asdict(rank_correlation(extra_P, score_P, draws=PERMUTATIONS))
    adjusted = length_adjusted(extra=extra_P, scores=score_P, level=level)
    return found | {
        "extra_tokens": float(np.mean(extra_P)) if extra_P else None,
        "adjusted": asdict(adjusted) if adjusted else None,
    }


def accuracy_row(rows: Sequence[Mapping[str, Any]], level: float) -> dict[str, Any]:
    """Returns accuracy before and after, the difference with its interval, and the exact McNemar test.

    With one answer per problem the interval is Tango's, else that of `mean_score` over problems.
    """
    n = len(rows)
    right = {side: sum(row[side]["correct"] for row in rows) for side in ("base", "tuned")}
    change = [(row["problem_id"], int(row["tuned"]["correct"]) - int(row["base"]["correct"])) for row in rows]
    fixed, broken = sum(c > 0 for _, c in change), sum(c < 0 for _, c in change)
    problems = [problem for problem, _ in change]
    if len(set(problems)) == n:
        difference = paired_difference(fixed=fixed, broken=broken, n=n, level=level)
    else:
        scores = [float(c) for _, c in change]
        difference = mean_score(problems=problems, scores=scores, level=level, neutral=0.0, reach=1.0)
    up, down, _ = problem_signs(change)
    return {
        "n": n,
        "base": right["base"] / n if n else None,
        "tuned": right["tuned"] / n if n else None,
        "difference": asdict(difference),
        "fixed": fixed,
        "broken": broken,
        "mcnemar": asdict(mcnemar(fixed=up, broken=down)),
    }
