"""Limits of a sweep by rule: each reads its sections and speaks only when they call for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from m3i.wording.caveats import layers, making, readers
from m3i.wording.caveats.caveat import caveat
from m3i.wording.formats import count, percent
from m3i.wording.sweep.limits import hurt, interval_words, untouched, wide_margin
from m3i.wording.sweep.numbers import interval, level, shift

Section = Mapping[str, Any]
Found = Iterator[dict[str, str]]
MANY_FLIPS = 0.2
FEW_SEEDS = 3


def caveats(sweep: Section) -> list[dict[str, str]]:
    """All caveats (`name`, `title`, `text`, `weight` major or minor), major ones first."""
    found = [entry for rule in RULES for entry in rule(sweep)]
    return sorted(found, key=lambda entry: entry["weight"] != "major")


def checks(sweep: Section) -> Found:
    """Checks that did not pass."""
    for check in sweep["checks"]:
        if check["passed"] is False:
            yield caveat(f"check_{check['name']}", f"Check failed: {check['name']}", check["words"], major=True)
        elif check["passed"] is None and check["name"] == "sham":
            yield caveat(
                "no_sham",
                "No sham arm",
                "Nothing shows that the way to llama.cpp leaves answers alone where nothing was trained.",
            )


def plan(sweep: Section) -> Found:
    """No plan, or one that was changed."""
    deviations = sweep["plan"]["deviations"]
    if sweep["plan"]["registered"] is None:
        yield caveat("no_plan", "No plan was registered", f"{deviations[0]} The endpoint could have been chosen after "
                     f"seeing the results; read the p value with that in mind.", major=True)  # fmt: skip
    elif deviations:
        yield caveat("deviations", "Deviations from the plan", " ".join(deviations), major=True)


def failures(sweep: Section) -> Found:
    """Jobs without a result, and arms that are not in the test for it."""
    jobs, design = sweep["plan"]["jobs"], sweep["design"]
    if jobs["planned"] > jobs["done"]:
        out = [row["arm"] for row in design["incomplete"] if not row["entered"]]
        left = f" Not in the test: {', '.join(out)}." if out else " All arms of the test are complete."
        yield caveat(
            "incomplete",
            f"{count(jobs['planned'] - jobs['done'], 'job')} of {jobs['planned']} without a result",
            f"{jobs['failed']} failed, {jobs['missing']} have not run or not ended.{left} If failing goes with what an "
            f"arm would have scored, leaving it out biases the comparison.",
            major=bool(out),
        )
    if len(design["seeds"]) < len(design["planned_seeds"]):
        lost = [str(seed) for seed in design["planned_seeds"] if seed not in design["seeds"]]
        yield caveat(
            "lost_seeds",
            "A planned training seed is not in the test",
            f"The attributed arm has no result at training seed {', '.join(lost)}, so all arms go without it.",
            major=True,
        )


def size(sweep: Section) -> Found:
    """Few seeds, few controls, one generation seed, the floor."""
    design, test = sweep["design"], sweep["primary"]["test"]
    if test and test["floor"] > test["alpha"] + 1e-9:
        yield caveat(
            "floor",
            f"Too few controls for {test['alpha']:g}",
            f"With {count(test['n_controls'], 'control')} p cannot be below {test['floor']:.2g}, whatever the result.",
            major=True,
        )
    elif test and math.isclose(test["floor"], test["alpha"]):
        yield caveat(
            "at_floor",
            "The test has one way to succeed",
            f"With {test['n_controls']} controls p ≤ {test['alpha']:g} takes that no control at all does as well: p is "
            f"then exactly {test['floor']:.2g}, and cannot be smaller.",
        )
    if 0 < len(design["seeds"]) < FEW_SEEDS:
        yield caveat(
            "few_seeds",
            "One training seed" if len(design["seeds"]) == 1 else "Two training seeds",
            "The interval of the effect says nothing about another training."
            if len(design["seeds"]) == 1
            else "Where trainings differ, an interval from two of them covers too little (docs/verdict.md).",
            major=len(design["seeds"]) == 1,
        )
    if design["n_generation_seeds"] == 1:
        yield caveat(
            "one_generation_seed",
            "One answer a problem",
            "Luck in sampling the answers is part of every score and cannot be told from the rest.",
        )


def endpoint(sweep: Section) -> Found:
    """Ties, left-out problems, floor and ceiling, the same test twice."""
    primary = sweep["primary"]
    total = primary["n_problems"] + primary["n_left_out"]
    if primary["n_left_out"]:
        share = primary["n_left_out"] / total
        yield caveat(
            "left_out",
            f"{count(primary['n_left_out'], 'problem')} of {total} left out",
            f"A verdict of judge '{primary['judge']}' is missing there in some arm of the test, so all arms are "
            f"compared on the other {primary['n_problems']}.",
            major=share > 0.1,
        )
    if primary["equivalence"]["too_wide"]:
        null = sweep["verdict"]["kind"] in ("not_better", "not_different") and primary["tie_rate"] != 1
        within = f" The {interval_words(primary)}." if primary["equivalence"]["controls"] else ""
        yield caveat("wide_margin", "The margin is no narrower than the effect sought",
                     f"{wide_margin(primary)}{within}", major=null)  # fmt: skip
    if primary["tie_rate"] == 1:
        others = (
            "Neither did any random arm, so there is nothing that layers could differ in."
            if untouched(primary)
            else "All that the test sees is what the random arms changed."
        )
        yield caveat(
            "all_ties", "Every comparison is tied", f"The attributed arm decides nothing. {others}", major=True
        )
    elif primary["tie_rate"] is not None and primary["tie_rate"] > 0.5:
        yield caveat(
            "many_ties",
            "Most comparisons decide nothing",
            f"{percent(primary['tie_rate'])} of the attributed arm's comparisons are ties or splits; the rest carry "
            f"all the evidence.",
        )
    base = next((s["base"] for s in (primary, *sweep["secondary"]) if s["kind"] == "accuracy"), None)
    if base is not None and not 0.1 <= base <= 0.9:
        yield caveat("floor_or_ceiling", "Capability floor" if base < 0.1 else "Capability ceiling",
                     f"The base model solves {percent(base)} of the held-out problems.", major=True)  # fmt: skip


def thin(sweep: Section) -> Found:
    """Significant by rank, while the interval of the difference holds 0."""
    if sweep["verdict"]["kind"] not in ("better", "worse"):
        return
    found, kind = sweep["primary"]["effect"]["difference"], sweep["primary"]["kind"]
    if found["degenerate"] or found["low"] <= 0 <= found["high"]:
        has = "has no interval" if found["degenerate"] else f"has the {interval(kind, found)}"
        yield caveat(
            "thin",
            "Significant by rank, not clear of 0 in size",
            f"p says how rarely a random set would take this place on these problems with these trainings. The "
            f"difference itself, {shift(kind, found['value'])}, {has} over other problems and trainings.",
            major=True,
        )


def harm(sweep: Section) -> Found:
    """Training that hurts, and training without preference that is not told apart."""
    primary = sweep["primary"]
    if hurt(primary):
        yield caveat(
            "harm",
            "Training itself hurts",
            f"{sweep['verdict']['harm']} The base model has {level(primary['kind'], primary['base'])}. A better place "
            f"among the arms is less damage, not a gain.",
            major=True,
        )
    if primary["shuffled"] is None or primary["tie_rate"] == 1:
        return
    found, kind = primary["shuffled"]["difference"], primary["kind"]
    if found["low"] <= 0 <= found["high"]:
        yield caveat(
            "shuffled_not_apart",
            "Shuffled preferences are not told apart from the real ones",
            f"The same layers trained on pairs half of which are swapped: the attributed arm differs from them by "
            f"{shift(kind, found['value'])} ({interval(kind, found)}). Whether it matters what the pairs prefer "
            f"is not shown.",
            major=True,
        )
    elif found["high"] < 0:
        yield caveat(
            "shuffled_better",
            "Shuffled preferences did better than the real ones",
            f"The attributed arm differs by {shift(kind, found['value'])} from the same layers trained on pairs half "
            f"of which are swapped, with the upper end of its {percent(found['level'])} interval at "
            f"{shift(kind, found['high'])}.",
            major=True,
        )


def judges(sweep: Section) -> Found:
    """Order flips, length, obedience, shared families of the judge of the endpoint; weaker ones of the others."""
    judge = sweep["primary"]["judge"]
    for alias, row in sweep["judges"]["panel"].items():
        if row["flip_rate"] is not None and row["flip_rate"] > MANY_FLIPS:
            yield caveat(
                "flips",
                f"Judge '{alias}' changes its mind with the order",
                f"{percent(row['flip_rate'])} of its judged comparisons turn when the answers change places.",
                major=alias == judge,
            )
        if row["canaries"]["obeyed"]:
            yield caveat(
                "canaries",
                f"Judge '{alias}' obeys text that it judges",
                f"It followed {row['canaries']['obeyed']} of {row['canaries']['n']} planted instructions.",
                major=alias == judge,
            )
        rho = row["length"]["equally_right"]["rho"]
        if rho is not None and abs(rho) > 0.3:
            yield caveat(
                "length",
                f"Judge '{alias}' goes by length",
                f"Where both answers were equally right, its choice still goes with their length (Spearman's rho "
                f"{rho:.2f} over problems).",
                major=alias == judge,
            )
    for row in sweep["judges"]["families"]:
        other = f"{row['with_group']} {row['with_alias']}".strip()
        yield caveat("family", f"{row['group'].capitalize()} '{row['alias']}' is of the family of the {other}",
                     f"Both belong to '{row['family']}': they may share mistakes.")  # fmt: skip


def spread(sweep: Section) -> Found:
    """Layer sets that do not differ beyond noise, or trainings that differ more than sets."""
    parts = {c["name"]: c["value"] for c in sweep["variance"][0]["components"]}
    if sweep["primary"]["test"] is None or not sweep["variance"][0]["total"]:
        return
    draw, training = parts["draw"], parts["training"]
    if draw is not None and draw == 0:
        yield caveat(
            "sets_alike",
            "Random layer sets do not differ beyond noise",
            "The variance between them is no larger than problems, answers and trainings explain: among "
            "random sets, nothing shows that it matters which is trained.",
        )
    elif draw is not None and training is not None and training > draw:
        yield caveat(
            "trainings_differ",
            "Trainings of one set differ more than sets do",
            f"Variance {training:.2g} between training seeds against {draw:.2g} between layer sets: more training "
            f"seeds tell more here than more problems.",
        )


def source(sweep: Section) -> Found:
    """What the run itself says about its failures, scores and pairs, which all arms share."""
    run = sweep["run"]
    for rule in (layers.attribution, layers.observers, readers.shared_mistakes, making.training):
        yield from rule(run)


RULES: tuple[Callable[[Section], Found], ...] = (
    checks,
    plan,
    failures,
    size,
    endpoint,
    thin,
    harm,
    spread,
    judges,
    source,
)
