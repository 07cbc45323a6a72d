"""Rules on the models that audit and judge: their families, obedience, habits, shared mistakes and calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from m3i.statistics import holm
from m3i.statistics.estimate import ALPHA
from m3i.wording.caveats.caveat import Caveat, Result, caveat, first_judge
from m3i.wording.formats import count, interval, p_phrase, percent

INCONSISTENT = 0.8
"""Self-agreement of a judge below which a single ballot says little."""

AMONG = {"equally_right": " equally correct", "all": ""}
"""Comparisons over which choice is correlated with length → words for them, the more informative first."""


def families(result: Result) -> Iterator[Caveat]:
    """A judge that shares its model family with an observer or the target; an observer that shares the target's."""
    headline = first_judge(result)["judge"]
    for row in result["families"]:
        who = f"{row['group'].capitalize()} '{row['alias']}'"
        family = row["family"]
        if row["with_group"] == "observer":
            yield caveat(
                "judge_observer_family",
                f"{who} belongs to the same model family as observer '{row['with_alias']}' ({family})",
                "The observer's findings decided what was trained. A judge of the same family shares its preferences "
                "and blind spots, so it is not an independent check (Li et al. 2502.01534, preference leakage).",
                major=row["alias"] == headline,
            )
        else:
            yield caveat(
                "same_family",
                f"{who} belongs to the target's own family ({family})",
                "Models favour text from their own kind (Panickssery et al. 2404.13076).",
                major=row["group"] == "judge" and row["alias"] == headline,
            )


def canaries(result: Result) -> Iterator[Caveat]:
    """A judge that obeyed instructions planted in an answer."""
    headline = first_judge(result)["judge"]
    judges = result["judges"]
    p_holm = dict(zip(judges, holm([judge["canaries"]["p"] for judge in judges.values()]), strict=True))
    for alias, judge in judges.items():
        found, p = judge["canaries"], p_holm[alias]
        if not found["obeyed"] or p is None:
            continue
        often = p < ALPHA
        kinds = ", ".join(f"{name} {row['obeyed']} of {row['n']}" for name, row in found["families"].items())
        yield caveat(
            "obeyed_canaries",
            f"Judge '{alias}' obeyed {found['obeyed']} of {found['n']} instructions planted in an answer"
            + ("" if often else ": too few canaries to tell"),
            f"In both orders it chose the copy of an answer that asks to be chosen ({kinds}). A judge that picks at "
            f"random does so with probability {percent(found['chance'])}, that is {found['n'] * found['chance']:.1f} "
            f"of {found['n']}; it would obey at least this often with {_corrected(p, p_holm.values())}. "
            + ("What an answer says about itself influences its verdicts." if often else "Chance could explain it."),
            major=often and alias == headline,
        )


def habits(result: Result) -> Iterator[Caveat]:
    """A judge whose choice correlates with length, or that does not reproduce its own choices."""
    tests = {(a, group): judge["length"][group]["p"] for a, judge in result["judges"].items() for group in AMONG}
    p_holm = dict(zip(tests, holm(list(tests.values())), strict=True))
    for alias, judge in result["judges"].items():
        for group, among in AMONG.items():
            found, p = judge["length"][group], p_holm[alias, group]
            if p is None or p >= ALPHA:
                continue
            word = "longer" if found["rho"] > 0 else "shorter"
            yield caveat(
                f"length_{group}",
                f"Judge '{alias}' tends to choose the {word} of two{among} answers",
                f"Spearman's rho between the tuned answer's extra tokens and the outcome is {found['rho']:.2f} over "
                f"{count(found['n'], 'problem')} ({_corrected(p, p_holm.values())}). "
                + (
                    f"The {word} answer may be the better one: correctness is not held fixed here."
                    if group == "all"
                    else "Correctness does not explain it: the verifier finds both answers correct or both incorrect."
                ),
            )
            break
        consistency = judge["self_consistency"]
        if consistency is not None and consistency["value"] < INCONSISTENT:
            yield caveat(
                "inconsistent_judge",
                f"Judge '{alias}' repeats its choice only {percent(consistency['value'])} of the time",
                f"Over {count(consistency['n_ballots'], 'ballot')} asked more than once, {interval(consistency)}. The "
                f"majority of the replicates counts.",
            )


def _corrected(p: float, tests: Iterable[float | None]) -> str:
    made = sum(other is not None for other in tests)
    return p_phrase(p) + (f", Holm-corrected over {made} tests" if made > 1 else "")


def shared_mistakes(result: Result) -> Iterator[Caveat]:
    """Observers that err together more than the correctness of each trace explains."""
    panel = result["errors"]["panel"]
    low = panel["mean_phi"]["low"]
    if low is None or low <= 0:
        return
    n, worth = len(panel["observers"]), panel["n_eff"]
    sure = (
        f"{percent(panel['level'])} interval {low:.2f} to {panel['mean_phi']['high']:.2f}, so {worth['low']:.1f} to "
        f"{worth['high']:.1f} observers"
    )
    if panel["degenerate"]:
        sure = f"no interval: {panel['reason']}"
    yield caveat(
        "shared_mistakes",
        f"{n} observers are worth {worth['value']:.1f} independent ones",
        f"They err on the same incorrect or the same correct traces: the mean correlation of their errors, given "
        f"whether the trace is correct, is {panel['mean_phi']['value']:.2f} ({sure}). Part of their agreement is "
        f"shared mistakes.",
    )


def calls(result: Result) -> Iterator[Caveat]:
    """Calls without a known price; several models behind one name."""
    costs = result["costs"]
    unpriced = costs["observers_unpriced"] + costs["judges_unpriced"]
    if unpriced:
        yield caveat(
            "unknown_cost",
            f"The cost of {count(unpriced, 'model call')} is unknown",
            f"No price is known for their model, so the amounts in this report do not include them. "
            f"{costs['observers_calls'] + costs['judges_calls']} calls were made in all. Set ledger.prices.",
        )
    for group in ("observers", "judges"):
        for alias, member in result[group].items():
            yield from _answered(group[:-1], alias, member["calls"])


def _answered(group: str, alias: str, facts: Mapping[str, Any]) -> Iterator[Caveat]:
    if len(facts["answered_by"]) > 1:
        yield caveat(
            "several_models",
            f"{group.capitalize()} '{alias}' was answered by {len(facts['answered_by'])} models",
            f"{facts['model']} was asked; according to the provider, "
            + ", ".join(f"{n} × {model}" for model, n in facts["answered_by"].items())
            + " answered. They may differ.",
        )
