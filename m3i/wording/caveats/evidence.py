"""Rules on the evidence: problems, controls, answers, judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from m3i.config.arms import ArmKind
from m3i.wording.arm import is_attributed, selector_name
from m3i.wording.caveats.caveat import Caveat, Result, caveat, first_judge
from m3i.wording.formats import count, layer_words, percent, points

FLOOR, CEILING = 0.1, 0.9
"""Accuracies of the base model below and above which few problems are left to change in one direction."""
FEW_PROBLEMS = 100


def sample_size(result: Result) -> Iterator[Caveat]:
    """Few problems, few decided ones in an undecided run, a borderline result, many ties."""
    judge = first_judge(result)
    test, n = judge["sign_test"], judge["n_problems"]
    decided = test["wins"] + test["losses"]
    if result["verdict"]["kind"] == "undecided" and decided:
        yield caveat(
            "small_n",
            f"Only {decided} of {count(n, 'held-out problem')} {'was' if decided == 1 else 'were'} decided",
            f"The {percent(test['level'])} interval of the tuned model's share of decided problems runs from "
            f"{percent(test['low'])} to {percent(test['high'])}.",
            major=True,
        )
    elif n < FEW_PROBLEMS and result["verdict"]["kind"] != "sham":
        yield caveat("small_n", f"Only {count(n, 'held-out problem')}", "All intervals are wide.", major=True)
    difference = result["accuracy"]["difference"]
    known = difference["value"] is not None and not difference["degenerate"]
    excludes = known and (difference["low"] > 0 or difference["high"] < 0)
    if result["verdict"]["kind"] == "undecided" and excludes:
        yield caveat(
            "borderline",
            "A borderline case",
            f"The interval of the change in accuracy ({points(difference['low'])} to {points(difference['high'])}) "
            f"excludes zero, but the exact sign test does not reach p < 0.05; the verdict follows the stricter test.",
        )
    if decided and test["undecided"] / n > 0.5 and result["verdict"]["kind"] != "sham":
        yield caveat(
            "many_ties",
            "Most problems are undecided",
            f"{test['undecided']} of {n} problems ({percent(test['undecided'] / n)}) are ties or splits; only the "
            f"other {decided} count in the sign test.",
        )


def one_arm(result: Result) -> Iterator[Caveat]:
    """No control arm; one training seed; one generation seed."""
    if result["layers"]["zero_update"]:
        return
    yield _no_controls(result)
    yield caveat(
        "one_training_seed",
        "One training seed",
        "The adapter's initialisation and the order of the pairs were drawn once. The intervals reflect the sampling "
        "of problems, not how another training run would differ.",
    )
    if result["accuracy"]["n_seeds"] == 1:
        yield caveat(
            "one_generation_seed",
            "One answer per problem",
            "Each answer was sampled once, so sampling luck is part of every row and of the intervals.",
        )


def _no_controls(result: Result) -> Caveat:
    selected, candidates = result["layers"]["selected"], result["layers"]["candidates"]
    if not is_attributed(result):
        kind = result["arm"]["kind"]
        chosen = f"layers from selector '{selector_name(result)}'" if kind == ArmKind.ATTRIBUTED else f"arm '{kind}'"
        return caveat(
            "no_controls",
            "A control arm alone",
            f"This run trained {chosen}, not the attributed arm. It says nothing about attribution until it is "
            f"compared with the attributed arm.",
            major=True,
        )
    return caveat(
        "no_controls",
        "No control arm in this run",
        f"A single arm cannot separate the effect of choosing {layer_words(selected, result['layers']['n'])} from that "
        f"of preference training as such: any {len(selected)} of the {len(candidates)} candidate layers might have "
        f"done as well. Separating the two takes random-layer arms on the same pairs.",
        major=True,
    )


def capability(result: Result) -> Iterator[Caveat]:
    """A base model near floor or ceiling."""
    base = result["accuracy"]["base"]["value"]
    if base is None:
        return
    if base < FLOOR:
        yield caveat(
            "floor",
            "Capability floor",
            f"The base model solves only {percent(base)} of the held-out problems, so noise at the floor can hide an "
            f"effect.",
            major=True,
        )
    if base > CEILING:
        yield caveat(
            "ceiling",
            "Capability ceiling",
            f"The base model already solves {percent(base)} of the held-out problems; at most {percent(1 - base)} can "
            f"improve.",
            major=True,
        )


# -- answers and judges -------------------------------------------------------------------------


def answers(result: Result) -> Iterator[Caveat]:
    """Truncated answers, a sham arm, answers that barely changed."""
    accuracy, judge = result["accuracy"], first_judge(result)
    cut = accuracy["base"]["truncated"] + accuracy["tuned"]["truncated"]
    total = 2 * accuracy["n"]
    if total and cut / total > 0.02:
        yield caveat(
            "truncated_answers",
            f"{percent(cut / total)} of the answers were cut off by the length limit",
            f"{accuracy['base']['truncated']} of the base model's and {accuracy['tuned']['truncated']} of the tuned "
            f"model's {accuracy['n']} answers reached evaluate.max_new_tokens.",
        )
    if result["layers"]["zero_update"]:
        yield caveat(
            "sham",
            "Sham arm",
            "The update is zero by construction: this arm tests the measurement, not the method.",
            major=True,
        )
    elif judge["n"] and judge["n_equal"] / judge["n"] > 0.5:
        yield caveat(
            "equal_answers",
            "Training changed few answers",
            f"{judge['n_equal']} of {judge['n']} pairs of answers are identical texts; they are ties and were not "
            f"shown to the judge.",
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
                else f" Its decided ballots favour the answer shown first {percent(first)} of the time."
            )
            yield caveat(
                "flip_rate",
                f"Judge '{alias}' contradicts itself when the order is swapped in {percent(order['flip_rate'])} of "
                f"comparisons",
                f"{order['n_split']} of {order['n_judged']} judged comparisons are splits; they count for neither side."
                f"{lean}" + (" It reacts to little but the order." if order["flip_rate"] > 0.5 else ""),
                major=order["flip_rate"] > 0.5 and alias == first_judge(result)["judge"],
            )
        if missing:
            yield caveat(
                "missing_verdicts",
                f"Judge '{alias}' gave no valid verdict on {count(missing, 'comparison')}",
                "They are left out of its statistics, which are biased if the verdicts are not missing at random.",
            )
    for row in result["judge_agreement"]:
        if row["kappa"] is not None and row["kappa"] < 0.4:
            yield caveat(
                "judges_disagree",
                f"Judges '{row['judges'][0]}' and '{row['judges'][1]}' agree little more than by chance",
                f"They give the same verdict in {percent(row['agreement'])} of {row['n']} comparisons, Cohen's kappa "
                f"{row['kappa']:.2f} (0 is chance, 1 is perfect).",
            )
    if len(result["judges"]) > 1:
        yield caveat(
            "several_judges",
            f"The headline rests on judge '{first_judge(result)['judge']}'",
            f"{len(result['judges'])} judges were asked. The headline takes the first of the panel, as fixed before "
            f"the run; no p-value is corrected for looking at the others.",
        )
    yield from _same_family(result)


def _same_family(result: Result) -> Iterator[Caveat]:
    """Judges and observers whose options name the target's family, where the component does not state its own."""
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
                    f"{group.capitalize()} '{alias}' belongs to the target's own family ({family})",
                    "Models favour text from their own kind (Panickssery et al. 2404.13076).",
                    major=group == "judge" and alias == first_judge(result)["judge"],
                )
