"""The verifier's results on base and tuned answers, and every answer with its verdicts, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from m3i.artifacts import Answer, Problem, Verdicts
from m3i.config.settings import StatisticsSettings
from m3i.statistics.bootstrap import cluster_mean
from m3i.statistics.paired import mcnemar, paired_difference, proportion
from m3i.statistics.scores import mean_score
from m3i.statistics.sign import problem_signs


def accuracy_section(base: Sequence[Answer], tuned: Sequence[Answer], settings: StatisticsSettings) -> dict[str, Any]:
    """Share of correct answers before and after, by the problem source's verifier; the two lists must be matched."""
    rows = list(zip(base, tuned, strict=True))
    fixed = sum(t.correct and not b.correct for b, t in rows)
    broken = sum(b.correct and not t.correct for b, t in rows)
    problems = [b.problem_id for b in base]
    signs = problem_signs((b.problem_id, int(t.correct) - int(b.correct)) for b, t in rows)
    one_seed = len(set(problems)) == len(problems)
    if one_seed:
        difference = paired_difference(fixed=fixed, broken=broken, n=len(rows), level=settings.confidence)
    else:
        change = [float(t.correct) - float(b.correct) for b, t in rows]
        difference = mean_score(problems=problems, scores=change, level=settings.confidence, neutral=0.0, reach=1.0)
    return {
        "n": len(rows),
        "n_problems": len(set(problems)),
        "n_seeds": len({b.seed for b in base}),
        "base": _side(problems, base, one_seed, settings),
        "tuned": _side(problems, tuned, one_seed, settings),
        "difference": asdict(difference),
        "fixed": fixed,
        "broken": broken,
        "mcnemar": asdict(mcnemar(fixed=signs[0], broken=signs[1])),
    }


def _side(
    problems: Sequence[str], answers: Sequence[Answer], one_seed: bool, settings: StatisticsSettings
) -> dict[str, Any]:
    right = sum(a.correct for a in answers)
    if one_seed:
        estimate = proportion(successes=right, n=len(answers), level=settings.confidence)
    else:
        estimate = cluster_mean(
            clusters=problems,
            values=[float(a.correct) for a in answers],
            level=settings.confidence,
            draws=settings.n_bootstrap,
            seed=settings.seed,
        )
    return asdict(estimate) | {"right": right, "answers": len(answers), "truncated": sum(a.truncated for a in answers)}


def problem_rows(
    held_out: Sequence[Problem], base: Sequence[Answer], tuned: Sequence[Answer], panel: Mapping[str, Verdicts]
) -> list[dict[str, Any]]:
    """One row per held-out problem and generation seed, in the order of the base answers."""
    known = {p.id: p for p in held_out}
    said = {name: {(v.problem_id, v.seed): v for v in verdicts.verdicts} for name, verdicts in panel.items()}
    rows = []
    for b, t in zip(base, tuned, strict=True):
        problem, key = known[b.problem_id], (b.problem_id, b.seed)
        rows.append(
            {
                "problem_id": problem.id,
                "seed": b.seed,
                "prompt": problem.prompt,
                "answer": problem.answer,
                "equal": b.text == t.text,
                "base": _answer(b),
                "tuned": _answer(t),
                "verdicts": {
                    name: {
                        "outcome": table[key].outcome.value,
                        "first": table[key].first,
                        "second": table[key].second,
                        "reason": table[key].reason,
                        "replicates_first": list(table[key].replicates_first),
                        "replicates_second": list(table[key].replicates_second),
                    }
                    for name, table in said.items()
                    if key in table
                },
            }
        )
    return rows


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        "correct": answer.correct,
        "answer": answer.answer,
        "n_tokens": len(answer.completion_ids),
        "truncated": answer.truncated,
    }
