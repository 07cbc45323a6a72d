"""Rules on the evidence: problems, controls, answers, judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from m3i.config.arms import ArmKind
from m3i.wording.arm import is_attributed, selector_name
from m3i.wording.caveats.caveat import Caveat, Result, caveat, first_judge
from m3i.wording.formats import count, layer_words, percent, points

FLOOR, CEILING = 0.1, 0.9
"""Accuracies of the base model beyond which few problems can change in one direction."""
FEW_PROBLEMS = 100


def sample_size(result: Result) -> Iterator[Caveat]:
    """Few problems, or few decided ones, in an undecided run."""
    judge = first_judge(result)
    test, n = judge["sign_test"], judge["n_problems"]
    decided = test["wins"] + test["losses"]
    if result["verdict"]["kind"] == "undecided" and decided:
        yield caveat(
            "small_n",
            f"{decided} decided of {n} held-out problems is little",
            f"The {percent(test['level'])} interval of the tuned model's share of decided problems runs from "
            f"{percent(test['low'])} to {percent(test['high'])}.",
            major=True,
        )
    elif n < FEW_PROBLEMS and result["verdict"]["kind"] != "sham":
        yield caveat("small_n", f"{count(n, 'held-out problem')} is little", "Every interval here is wide.", major=True)
    difference = result["accuracy"]["difference"]
    known = difference["value"] is not None and not difference["degenerate"]
    excludes = known and (difference["low"] > 0 or difference["high"] < 0)
    if result["verdict"]["kind"] == "undecided" and excludes:
        yield caveat(
            "borderline",
            "A borderline case",
            f"The interval of the accuracy's change, {points(difference['low'])} to {points(difference['high'])}, "
            f"excludes zero, but the exact test does not reach 0.05; the verdict follows the stricter test.",
        )
    if decided and test["undecided"] / n > 0.5 and result["verdict"]["kind"] != "sham":
        yield caveat(
            "many_ties",
            "Most problems decide nothing",
            f"{test['undecided']} of {n} problems ({percent(test['undecided'] / n)}) are ties or splits; only the "
            f"other {decided} carry evidence in the sign test.",
        )


def one_arm(result: Result) -> Iterator[Caveat]:
    """No control arm; one training seed; one generation seed."""
    if result["layers"]["zero_update"]:
        return
    yield _no_controls(result)
    yield caveat(
        "one_training_seed",
        "One training seed",
        "The adapter's initialisation and the order of the pairs were drawn once. The intervals cover the problems "
        "that were drawn, not a second training.",
    )
    if result["accuracy"]["n_seeds"] == 1:
        yield caveat(
            "one_generation_seed",
            "One answer a problem",
            "Answers were sampled once, so luck in sampling is part of every row, and of the intervals.",
        )


def _no_controls(result: Result) -> Caveat:
    selected, candidates = result["layers"]["selected"], result["layers"]["candidates"]
    if not is_attributed(result):
        kind = result["arm"]["kind"]
        chosen = f"by selector '{selector_name(result)}'" if kind == ArmKind.ATTRIBUTED else f"as arm '{kind}'"
        return caveat(
            "no_controls",
            "A control arm by itself",
            f"It was trained {chosen}, not on attributed layers and their pairs; it says nothing about attribution "
            f"until it is compared with the attributed arm.",
            major=True,
        )
    return caveat(
        "no_controls",
        "No control arm in this run",
        f"A single arm cannot separate the choice of {layer_words(selected, result['layers']['n'])} from preference "
        f"training as such: any {len(selected)} of the {len(candidates)} candidate layers might have given the same. "
        f"Random-layer arms on the same pairs are needed for that.",
        major=True,
    )


def capability(result: Result) -> Iterator[Caveat]:
    """Floor and ceiling."""
    base = result["accuracy"]["base"]["value"]
    if base is None:
        return
    if base < FLOOR:
        yield caveat(
            "floor",
            "Capability floor",
            f"The base model solves {percent(base)} of the held-out problems; effects drown in a noisy floor.",
            major=True,
        )
    if base > CEILING:
        yield caveat(
            "ceiling",
            "Capability ceiling",
            f"The base model already solves {percent(base)}; at most {percent(1 - base)} of the problems can improve.",
            major=True,
        )


# -- answers and judges -------------------------------------------------------------------------


def answers(result: Result) -> Iterator[Caveat]:
    """Truncated answers, hardly changed answers, a sham arm."""
    accuracy, judge = result["accuracy"], first_judge(result)
    cut = accuracy["base"]["truncated"] + accuracy["tuned"]["truncated"]
    total = 2 * accuracy["n"]
    if total and cut / total > 0.02:
        yield caveat(
            "truncated_answers",
            f"{percent(cut / total)} of the answers were cut by the length limit",
            f"{accuracy['base']['truncated']} of the base model's and {accuracy['tuned']['truncated']} of the tuned "
            f"model's {accuracy['n']} answers reached evaluate.max_new_tokens.",
        )
    if result["layers"]["zero_update"]:
        yield caveat(
            "sham",
            "Sham arm",
            "Its update is zero by construction: it tests the instrument, not the method.",
            major=True,
        )
    elif judge["n"] and judge["n_equal"] / judge["n"] > 0.5:
        yield caveat(
            "equal_answers",
            "Training changed few answers",
            f"{judge['n_equal']} of {judge['n']} pairs of answers are the same text; they are ties without a judgment.",
        )


def judges(result: Result) -> Iterator[Caveat]:
    """Order effects, missing verdicts, disagreement with the verifier, several judges, same family."""
    for alias, judge in result["judges"].items():
        order, missing = judge["order"], judge["counts"]["missing"]
        if order["flip_rate"] is not None and order["flip_rate"] > 0.1:
            first = order["first_shown_share"]
            lean = (
                ""
                if first is None
                else f" Its decided ballots chose the answer shown first {percent(first)} of the time."
            )
            yield caveat(
                "flip_rate",
                f"Judge '{alias}' changes its mind with the order in {percent(order['flip_rate'])} of its comparisons",
                f"{order['n_split']} of {order['n_judged']} judged comparisons are splits; they count for neither side."
                f"{lean}" + (" It sees little beyond the order." if order["flip_rate"] > 0.5 else ""),
                major=order["flip_rate"] > 0.5 and alias == first_judge(result)["judge"],
            )
        if missing:
            yield caveat(
                "missing_verdicts",
                f"Judge '{alias}' gave no valid verdict on {count(missing, 'comparison')}",
                "They are left out of its statistics; if they are not missing at random, its figures are biased.",
            )
    for row in result["judge_agreement"]:
        if row["kappa"] is not None and row["kappa"] < 0.4:
            yield caveat(
                "judges_disagree",
                f"Judges '{row['judges'][0]}' and '{row['judges'][1]}' agree little beyond chance",
                f"Equal verdicts in {percent(row['agreement'])} of {row['n']} comparisons, Cohen's kappa "
                f"{row['kappa']:.2f} (0 is chance, 1 is perfect).",
            )
    if len(result["judges"]) > 1:
        yield caveat(
            "several_judges",
            f"The headline is that of judge '{first_judge(result)['judge']}'",
            f"{len(result['judges'])} judges were asked; the first of the panel was chosen for the headline before the "
            f"run, and no p-value is corrected for looking at the others.",
        )
    yield from _same_family(result)


def _same_family(result: Result) -> Iterator[Caveat]:
    """By the options' own words, for components that do not say of which family their model is."""
    family = result["target"]["family"].lower()
    for group in ("judge", "observer"):
        members = result["config"].get(group)
        if not family or not isinstance(members, Mapping):
            continue
        for alias, options in members.items():
            if result[f"{group}s"].get(alias, {"calls": {"family": ""}})["calls"]["family"]:
                continue
            values = options.values() if isinstance(options, Mapping) else []
            if any(isinstance(v, str) and family in v.lower() for v in values):
                yield caveat(
                    "same_family",
                    f"{group.capitalize()} '{alias}' is of the target's own family ({family})",
                    "Models favour text of their own kind (Panickssery et al. 2404.13076).",
                    major=group == "judge" and alias == first_judge(result)["judge"],
                )
