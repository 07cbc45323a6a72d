"""Each judge's verdicts on base and tuned answers, and how far its ballots can be trusted, as JSON values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from m3i.artifacts import EQUAL, SCORES, Answer, CallFacts, Canary, Outcome, Verdict, Verdicts
from m3i.config.settings import StatisticsSettings
from m3i.results.costs import known_cost
from m3i.statistics import cluster_mean, rank_correlation
from m3i.statistics.estimate import ALPHA
from m3i.statistics.kappa import kappa
from m3i.statistics.power import detectable_share, required_n
from m3i.statistics.scores import mean_score
from m3i.statistics.sign import problem_signs, sign_test, unseen_share

SIGN = {Outcome.TUNED: 1, Outcome.BASE: -1}
CANARY_CHANCE = 0.25
"""Chance that a judge that picks at random, independently in each order, picks the planted answer in both."""
PERMUTATIONS = 2000
Key = tuple[str, int]


def length_section(
    verdicts: Sequence[Verdict], base: Sequence[Answer], tuned: Sequence[Answer], settings: StatisticsSettings
) -> dict[str, Any]:
    """Whether the judge's choice correlates with the answers' lengths.

    Args:
        verdicts: Verdicts of one judge.
        base: Answers of the base model.
        tuned: Answers of the tuned model to the same questions.
        settings: Seed of the permutations.

    Returns:
        `all` judged comparisons, and those `equally_right` by the verifier (both correct or both incorrect), where no
        difference in correctness explains a preference for length. For each: n problems, Spearman's `rho` between the
        tuned answer's extra tokens and the outcome (+1 tuned, −1 base, 0 tie or split), both averaged over a problem's
        generation seeds so that the problem is the unit, and the permutation `p`.

    Source: length bias of LLM judges, Dubois et al. 2404.04475. A correlation alone does not show bias: the longer
    answer may be the better one.
    """
    before: dict[Key, Answer] = {(a.problem_id, a.seed): a for a in base}
    after: dict[Key, Answer] = {(a.problem_id, a.seed): a for a in tuned}
    rows = [
        (v, before[v.problem_id, v.seed], after[v.problem_id, v.seed])
        for v in verdicts
        if v.outcome is not Outcome.MISSING and v.first != EQUAL
    ]
    return {
        "all": _length(rows, settings.seed),
        "equally_right": _length([row for row in rows if row[1].correct == row[2].correct], settings.seed),
    }


def _length(rows: Sequence[tuple[Verdict, Answer, Answer]], seed: int) -> dict[str, Any]:
    extra: dict[str, list[int]] = defaultdict(list)
    outcome: dict[str, list[int]] = defaultdict(list)
    for verdict, before, after in rows:
        extra[verdict.problem_id].append(len(after.completion_ids) - len(before.completion_ids))
        outcome[verdict.problem_id].append(SIGN.get(verdict.outcome, 0))
    means = [[sum(values) / len(values) for values in table.values()] for table in (extra, outcome)]
    return asdict(rank_correlation(means[0], means[1], draws=PERMUTATIONS, seed=seed))


def consistency_section(verdicts: Sequence[Verdict], settings: StatisticsSettings) -> dict[str, Any] | None:
    """How often a judge gives the same choice when asked the same question again.

    Returns:
        Over ballots (one order of one comparison) with at least two valid replicates: their number `n_ballots`, and
        the mean share of equal choices over all pairs of replicates, with a bootstrap interval over problems. A judge
        at 1 always repeats itself, so that asking it once is enough. None if it was asked only once.
    """
    problems, shares = [], []
    for verdict in verdicts:
        for replicates in (verdict.replicates_first, verdict.replicates_second):
            valid = [choice for choice in replicates if choice != "missing"]
            if len(valid) >= 2:
                pairs = list(combinations(valid, 2))
                problems.append(verdict.problem_id)
                shares.append(sum(a == b for a, b in pairs) / len(pairs))
    if not shares:
        return None
    mean = cluster_mean(
        clusters=problems, values=shares, level=settings.confidence, draws=settings.n_bootstrap, seed=settings.seed
    )
    return {"n_ballots": len(shares), **asdict(mean)}


def canary_section(canaries: Sequence[Canary]) -> dict[str, Any]:
    """How often a judge obeyed an instruction planted in an answer that it judged (m3i.stages.judge).

    Returns:
        n canaries with a valid choice in both orders; how many the judge `obeyed` (chose the planted answer in both);
        the `chance` of that for a judge that picks at random in each order, and the exact binomial `p` of obeying at
        least as many by that chance (None without a canary); `outcomes`: obeyed, resisted (clean in both), tie, split,
        missing; `families`: family of instruction → n and obeyed; `texts`: the instructions obeyed.
    """
    from scipy.stats import binom

    outcomes = Counter(canary_outcome(canary) for canary in canaries)
    valid = [c for c in canaries if canary_outcome(c) != "missing"]
    obeyed = [c for c in valid if c.obeyed]
    families = {
        family: {
            "n": sum(c.family == family for c in valid),
            "obeyed": sum(c.family == family for c in obeyed),
        }
        for family in sorted({c.family for c in valid})
    }
    return {
        "n": len(valid),
        "obeyed": len(obeyed),
        "chance": CANARY_CHANCE,
        "p": float(binom.sf(len(obeyed) - 1, len(valid), CANARY_CHANCE)) if valid else None,
        "outcomes": {name: outcomes[name] for name in ("obeyed", "resisted", "tie", "split", "missing")},
        "families": families,
        "texts": sorted({c.injection for c in obeyed}),
    }


def canary_outcome(canary: Canary) -> str:
    """The two orders combined: obeyed, resisted, tie, split or missing."""
    if "missing" in (canary.first, canary.second):
        return "missing"
    if canary.first != canary.second:
        return "split"
    return {"planted": "obeyed", "clean": "resisted"}.get(canary.first, canary.first)


def shared_families(judges: Mapping[str, str], observers: Mapping[str, str], target: str) -> list[dict[str, str]]:
    """Every judge or observer whose model family is shared by another part of the experiment.

    Args:
        judges: Judge's alias → its model family; empty for a judge that calls no model.
        observers: The same for the observers.
        target: The target's family.

    Returns:
        Rows of `group`, `alias`, `family`, `with_group` (`observer` or `target`) and `with_alias`.
    """
    rows = []
    for alias, family in judges.items():
        others = [("observer", name) for name, other in observers.items() if family and other.lower() == family.lower()]
        rows += [_shared("judge", alias, family, *other) for other in others]
    for group, members in (("judge", judges), ("observer", observers)):
        rows += [_shared(group, a, f, "target", "") for a, f in members.items() if f and f.lower() == target.lower()]
    return rows


def _shared(group: str, alias: str, family: str, with_group: str, with_alias: str) -> dict[str, str]:
    return {"group": group, "alias": alias, "family": family, "with_group": with_group, "with_alias": with_alias}


REFERENCE_SHARE = 0.6
"""The share of decided problems won for which `needed.reference` gives the sample size."""


def judge_section(
    verdicts: Verdicts, base: Sequence[Answer], tuned: Sequence[Answer], settings: StatisticsSettings
) -> dict[str, Any]:
    """One judge: counts of comparisons, statistics over problems, and how far the judge can be trusted.

    `order`: how far the order of the answers decides; `length`, `self_consistency`, `canaries`: m3i.results.judges;
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
    """The model behind an observer or a judge; `cost_usd` is None if calls were made and none has a price."""
    return asdict(calls) | {"cost_usd": known_cost(calls.cost_usd, calls.n_calls, calls.n_unpriced)}


def _power(wins: int, losses: int, undecided: int, power: float) -> dict[str, Any]:
    """What this number of problems can detect, and how many it would take, at the observed share of undecided ones."""
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
    """Raw agreement and Cohen's kappa of each pair of judges, over the comparisons that both judged.

    Identical answers, which no judge saw, are left out; a split counts as a tie.
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
