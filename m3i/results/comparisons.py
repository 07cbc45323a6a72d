"""What the judges and the verifier say about base and tuned answers, as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from m3i.artifacts import EQUAL, SCORES, Answer, CallFacts, Outcome, Problem, Verdict, Verdicts
from m3i.config.settings import StatisticsSettings
from m3i.results.costs import known_cost
from m3i.results.judge_quality import SIGN, canary_section, consistency_section, length_section
from m3i.statistics import (
    cluster_mean,
    detectable_share,
    kappa,
    mcnemar,
    mean_score,
    paired_difference,
    problem_signs,
    proportion,
    required_n,
    sign_test,
    unseen_share,
)
from m3i.statistics.estimate import ALPHA

REFERENCE_SHARE = 0.6
"""The effect for which `needed.reference` states the n: six of ten decided problems."""


def judge_section(
    verdicts: Verdicts, base: Sequence[Answer], tuned: Sequence[Answer], settings: StatisticsSettings
) -> dict[str, Any]:
    """One judge: counts of comparisons, statistics over problems, and how far it can be trusted.

    `order`: how far the order of showing decides; `length`, `self_consistency`, `canaries`: m3i.results.judge_quality;
    `calls`: the model behind it (m3i.artifacts.CallFacts).
    """
    valid = [v for v in verdicts.verdicts if v.outcome is not Outcome.MISSING]
    counts = Counter(v.outcome.value for v in verdicts.verdicts)
    wins, losses, undecided = problem_signs((v.problem_id, SIGN.get(v.outcome, 0)) for v in valid)
    mean = mean_score(
        problems=[v.problem_id for v in valid],
        scores=[SCORES[v.outcome.value] for v in valid],
        level=settings.confidence,
    )
    return {
        "judge": verdicts.judge,
        "n": len(verdicts.verdicts),
        "n_valid": len(valid),
        "n_problems": wins + losses + undecided,
        "n_equal": verdicts.n_equal,
        "counts": {outcome.value: counts[outcome.value] for outcome in Outcome},
        "sign_test": asdict(sign_test(wins=wins, losses=losses, level=settings.confidence)) | {"undecided": undecided},
        "mean_score": asdict(mean),
        "power": _power(wins, losses, undecided, settings.power),
        "order": _order(valid),
        "length": length_section(verdicts.verdicts, base, tuned, settings),
        "self_consistency": consistency_section(verdicts.verdicts, settings),
        "canaries": canary_section(verdicts.canaries),
        "calls": calls_section(verdicts.calls),
    }


def calls_section(calls: CallFacts) -> dict[str, Any]:
    """The model behind an observer or a judge; `cost_usd` is None where calls were made and none has a price."""
    return asdict(calls) | {"cost_usd": known_cost(calls.cost_usd, calls.n_calls, calls.n_unpriced)}


def _power(wins: int, losses: int, undecided: int, power: float) -> dict[str, Any]:
    """What this n could detect, and the n it would take, at the observed share of undecided problems."""
    n = wins + losses + undecided
    tie_rate = undecided / n if n else 1.0
    share = detectable_share(n=n, tie_rate=tie_rate, power=power, alpha=ALPHA)
    observed = wins / (wins + losses) if wins + losses else None
    return {
        "power": power,
        "alpha": ALPHA,
        "n_problems": n,
        "tie_rate": tie_rate,
        "decided_at_most": unseen_share(n) if tie_rate == 1.0 else None,
        "detectable_share": share,
        "detectable_net": None if share is None else (1 - tie_rate) * (2 * share - 1),
        "needed": {
            "observed_share": observed,
            "observed": None
            if observed is None
            else required_n(share=observed, tie_rate=tie_rate, power=power, alpha=ALPHA),
            "reference_share": REFERENCE_SHARE,
            "reference": required_n(share=REFERENCE_SHARE, tie_rate=tie_rate, power=power, alpha=ALPHA),
        },
    }


def _order(valid: Sequence[Verdict]) -> dict[str, Any]:
    """Splits among judged comparisons, and how often a decided ballot chose the answer shown first."""
    judged = [v for v in valid if v.first != EQUAL]
    first = sum((v.first == "base") + (v.second == "tuned") for v in judged)
    decided = sum((v.first in ("base", "tuned")) + (v.second in ("base", "tuned")) for v in judged)
    splits = sum(v.outcome is Outcome.SPLIT for v in judged)
    return {
        "n_judged": len(judged),
        "n_split": splits,
        "flip_rate": splits / len(judged) if judged else None,
        "n_decided_ballots": decided,
        "first_shown_share": first / decided if decided else None,
    }


def judge_agreement(panel: Mapping[str, Verdicts]) -> list[dict[str, Any]]:
    """Each pair of judges over the comparisons that both judged: raw agreement and Cohen's kappa.

    Equal answers, which nobody judged, stay out, and a split counts as a tie.
    """
    rows = []
    for one, other in combinations(panel, 2):
        words = [{(v.problem_id, v.seed): _word(v) for v in panel[name].verdicts} for name in (one, other)]
        keys = [k for k in words[0] if words[0][k] and words[1].get(k)]
        rows.append({"judges": [one, other]} | kappa(*([w[k] for k in keys] for w in words)))
    return rows


def _word(verdict: Verdict) -> str:
    if verdict.outcome is Outcome.MISSING or verdict.first == EQUAL:
        return ""
    return "tie" if verdict.outcome is Outcome.SPLIT else verdict.outcome.value


def accuracy_section(base: Sequence[Answer], tuned: Sequence[Answer], settings: StatisticsSettings) -> dict[str, Any]:
    """Share of right answers before and after, by the problem source's verifier; the two lists are matched."""
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
    """One row a held-out problem and generation seed, in the order of the base answers."""
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
