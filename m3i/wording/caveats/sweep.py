"""Caveats of a sweep by rule: each rule reads the sweep's sections and speaks only when they call for it."""

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
    """All caveats (`name`, `title`, `text`, `weight` major or minor) of a sweep, major ones first."""
    found = [entry for rule in RULES for entry in rule(sweep)]
    return sorted(found, key=lambda entry: entry["weight"] != "major")


def checks(sweep: Section) -> Found:
    """Checks that failed, and a sham arm that did not run."""
    for check in sweep["checks"]:
        if check["passed"] is False:
            yield caveat(f"check_{check['name']}", f"Check failed: {check['name']}", check["words"], major=True)
        elif check["passed"] is None and check["name"] == "sham":
            yield caveat(
                "no_sham",
                "No sham arm",
                "Nothing shows that the export to llama.cpp leaves the answers unchanged when nothing was trained.",
            )


def plan(sweep: Section) -> Found:
    """No registered plan, or deviations from it."""
    deviations = sweep["plan"]["deviations"]
    if sweep["plan"]["registered"] is None:
        yield caveat("no_plan", "No plan was registered", f"{deviations[0]} The endpoint may have been chosen after "
                     f"the results were seen; read the p-value with that in mind.", major=True)  # fmt: skip
    elif deviations:
        yield caveat("deviations", "Deviations from the plan", " ".join(deviations), major=True)


def failures(sweep: Section) -> Found:
    """Jobs without a result, and the arms that are therefore not in the test."""
    jobs, design = sweep["plan"]["jobs"], sweep["design"]
    if jobs["planned"] > jobs["done"]:
        out = [row["arm"] for row in design["incomplete"] if not row["entered"]]
        left = f" Not in the test: {', '.join(out)}." if out else " All arms of the test are complete."
        yield caveat(
            "incomplete",
            f"{count(jobs['planned'] - jobs['done'], 'job')} of {jobs['planned']} without a result",
            f"{jobs['failed']} failed, {jobs['missing']} have not run or have not finished.{left} If failure is "
            f"related to what an arm would have scored, leaving the arm out biases the comparison.",
            major=bool(out),
        )
    if len(design["seeds"]) < len(design["planned_seeds"]):
        lost = [str(seed) for seed in design["planned_seeds"] if seed not in design["seeds"]]
        yield caveat(
            "lost_seeds",
            "A planned training seed is not in the test",
            f"The attributed arm has no result at training seed {', '.join(lost)}, so that seed is dropped for all "
            f"arms.",
            major=True,
        )


def size(sweep: Section) -> Found:
    """Few controls, few training seeds, one generation seed."""
    design, test = sweep["design"], sweep["primary"]["test"]
    if test and test["floor"] > test["alpha"] + 1e-9:
        yield caveat(
            "floor",
            f"Too few controls to reach p = {test['alpha']:g}",
            f"With {count(test['n_controls'], 'control')}, p cannot be below {test['floor']:.2g}, whatever the result.",
            major=True,
        )
    elif test and math.isclose(test["floor"], test["alpha"]):
        yield caveat(
            "at_floor",
            "Only one outcome is significant",
            f"With {test['n_controls']} controls, p ≤ {test['alpha']:g} requires that no control is as extreme as the "
            f"attributed arm; p is then exactly {test['floor']:.2g}, the smallest possible value.",
        )
    if 0 < len(design["seeds"]) < FEW_SEEDS:
        yield caveat(
            "few_seeds",
            "One training seed" if len(design["seeds"]) == 1 else "Two training seeds",
            "The interval of the effect does not cover how another training run would differ."
            if len(design["seeds"]) == 1
            else "If training runs differ, an interval from two of them is too narrow (docs/verdict.md).",
            major=len(design["seeds"]) == 1,
        )
    if design["n_generation_seeds"] == 1:
        yield caveat(
            "one_generation_seed",
            "One answer per problem",
            "Sampling luck is part of every score and cannot be separated from the other sources of variance.",
        )


def endpoint(sweep: Section) -> Found:
    """Problems left out, a wide margin, ties, floor and ceiling."""
    primary = sweep["primary"]
    total = primary["n_problems"] + primary["n_left_out"]
    if primary["n_left_out"]:
        share = primary["n_left_out"] / total
        yield caveat(
            "left_out",
            f"{count(primary['n_left_out'], 'problem')} of {total} left out",
            f"Some arm of the test has no verdict of judge '{primary['judge']}' there, so all arms are compared on the "
            f"other {primary['n_problems']}.",
            major=share > 0.1,
        )
    if primary["equivalence"]["too_wide"]:
        null = sweep["verdict"]["kind"] in ("not_better", "not_different") and primary["tie_rate"] != 1
        within = f" The {interval_words(primary)}." if primary["equivalence"]["controls"] else ""
        yield caveat("wide_margin", "The margin is no narrower than the effect sought",
                     f"{wide_margin(primary)}{within}", major=null)  # fmt: skip
    if primary["tie_rate"] == 1:
        others = (
            "Neither does any random arm, so the layer sets cannot be told apart."
            if untouched(primary)
            else "The test sees only what the random arms changed."
        )
        yield caveat(
            "all_ties",
            "Every comparison is tied",
            f"No comparison of the attributed arm is decided. {others}",
            major=True,
        )
    elif primary["tie_rate"] is not None and primary["tie_rate"] > 0.5:
        yield caveat(
            "many_ties",
            "Most comparisons are undecided",
            f"{percent(primary['tie_rate'])} of the attributed arm's comparisons are ties or splits; the rest carry "
            f"all the evidence.",
        )
    base = next((s["base"] for s in (primary, *sweep["secondary"]) if s["kind"] == "accuracy"), None)
    if base is not None and not 0.1 <= base <= 0.9:
        yield caveat("floor_or_ceiling", "Capability floor" if base < 0.1 else "Capability ceiling",
                     f"The base model solves {percent(base)} of the held-out problems.", major=True)  # fmt: skip


def thin(sweep: Section) -> Found:
    """Significant by rank although the interval of the difference includes 0."""
    if sweep["verdict"]["kind"] not in ("better", "worse"):
        return
    found, kind = sweep["primary"]["effect"]["difference"], sweep["primary"]["kind"]
    if found["degenerate"] or found["low"] <= 0 <= found["high"]:
        span = ", without an interval" if found["degenerate"] else f" ({interval(kind, found)})"
        yield caveat(
            "thin",
            "Significant by rank, but the difference may be zero",
            f"p says how rarely a random set would rank this way on these problems and in these training runs. The "
            f"difference itself, over other problems and training runs, is {shift(kind, found['value'])}{span}.",
            major=True,
        )


def harm(sweep: Section) -> Found:
    """Training that hurts, and shuffled preferences that do as well as the real ones."""
    primary = sweep["primary"]
    if hurt(primary):
        yield caveat(
            "harm",
            "Training itself hurts",
            f"{sweep['verdict']['harm']} The base model reaches {level(primary['kind'], primary['base'])}. A higher "
            f"rank among the arms means less damage, not a gain.",
            major=True,
        )
    if primary["shuffled"] is None or primary["tie_rate"] == 1:
        return
    found, kind = primary["shuffled"]["difference"], primary["kind"]
    if found["low"] <= 0 <= found["high"]:
        yield caveat(
            "shuffled_not_apart",
            "Shuffled preferences cannot be told from the real ones",
            f"The attributed arm differs by {shift(kind, found['value'])} ({interval(kind, found)}) from the same "
            f"layers trained with half of the pairs swapped. It is not shown that the direction of the preferences "
            f"matters.",
            major=True,
        )
    elif found["high"] < 0:
        yield caveat(
            "shuffled_better",
            "Shuffled preferences did better than the real ones",
            f"The attributed arm differs by {shift(kind, found['value'])} from the same layers trained with half of "
            f"the pairs swapped; the upper end of the {percent(found['level'])} interval is "
            f"{shift(kind, found['high'])}.",
            major=True,
        )


def judges(sweep: Section) -> Found:
    """Order flips, obedience, length and shared families: major for the judge of the endpoint, minor for the others."""
    judge = sweep["primary"]["judge"]
    for alias, row in sweep["judges"]["panel"].items():
        if row["flip_rate"] is not None and row["flip_rate"] > MANY_FLIPS:
            yield caveat(
                "flips",
                f"Judge '{alias}' depends on the order of the answers",
                f"{percent(row['flip_rate'])} of its judged comparisons change when the answers are swapped.",
                major=alias == judge,
            )
        if row["canaries"]["obeyed"]:
            yield caveat(
                "canaries",
                f"Judge '{alias}' obeys instructions in the answers",
                f"It followed {row['canaries']['obeyed']} of {row['canaries']['n']} planted instructions.",
                major=alias == judge,
            )
        rho = row["length"]["equally_right"]["rho"]
        if rho is not None and abs(rho) > 0.3:
            yield caveat(
                "length",
                f"Judge '{alias}' is influenced by length",
                f"Even when both answers are equally correct, its choice correlates with their length (Spearman's rho "
                f"{rho:.2f} over problems).",
                major=alias == judge,
            )
    for row in sweep["judges"]["families"]:
        other = f"{row['with_group']} {row['with_alias']}".strip()
        yield caveat("family", f"{row['group'].capitalize()} '{row['alias']}' shares its family with the {other}",
                     f"Both are '{row['family']}' models and may share mistakes.")  # fmt: skip


def spread(sweep: Section) -> Found:
    """Layer sets that do not differ beyond noise, or training runs that differ more than layer sets."""
    parts = {c["name"]: c["value"] for c in sweep["variance"][0]["components"]}
    if sweep["primary"]["test"] is None or not sweep["variance"][0]["total"]:
        return
    draw, training = parts["draw"], parts["training"]
    if draw is not None and draw == 0:
        yield caveat(
            "sets_alike",
            "Random layer sets do not differ beyond noise",
            "The variance between them is no larger than problems, answers and training runs explain: among random "
            "sets, nothing shows that it matters which one is trained.",
        )
    elif draw is not None and training is not None and training > draw:
        yield caveat(
            "trainings_differ",
            "Training runs of one set differ more than the sets do",
            f"The variance is {training:.2g} between training seeds and {draw:.2g} between layer sets: more training "
            f"seeds would help more here than more problems.",
        )


def source(sweep: Section) -> Found:
    """The run's own caveats on failures, scores and pairs, which all arms share."""
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
