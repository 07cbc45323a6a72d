"""The verdict of a sweep in plain words, and its terminal summary. Reads nothing but the sections of sweep.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3i.statistics import TIE
from m3i.wording.arm import selector_name
from m3i.wording.formats import count, layer_words, money, p_phrase
from m3i.wording.sweep.limits import harm, null, shown_equivalent, untouched
from m3i.wording.sweep.numbers import interval, level, magnitude, shift

Section = Mapping[str, Any]
TITLES = {
    "better": "Better than random layers",
    "worse": "Worse than random layers",
    "not_better": "Not shown to be better than random layers",
    "not_different": "Not shown to differ from random layers",
    "untested": "Not tested",
}
NOT_WORSE = "Not shown to be worse than random layers"
"""Title of `not_different` where the registered alternative is `less`."""


def verdict_section(sweep: Section) -> dict[str, Any]:
    """What was asked and found, how sure it is, one sentence for everyone, and what a null result is worth.

    `kind`: better, worse (significant); not_better, not_different (not significant, the latter where the registered
    alternative is not `greater`); untested.
    """
    primary = sweep["primary"]
    kind = verdict_kind(primary)
    return {
        "kind": kind,
        "title": NOT_WORSE if kind == "not_different" and primary["test"]["alternative"] == "less" else TITLES[kind],
        "endpoint": primary["name"],
        "asked": asked(sweep),
        "found": found(sweep),
        "sure": sure(sweep, kind),
        "sentence": sentence(sweep, kind),
        "null": null(primary) if kind in ("not_better", "not_different") else "",
        "harm": harm(sweep),
    }


def verdict_kind(primary: Section) -> str:
    """The kind of verdict, from the randomization test alone."""
    test = primary["test"]
    if test is None:
        return "untested"
    if not test["significant"]:
        return "not_better" if test["alternative"] == "greater" else "not_different"
    if test["alternative"] == "two-sided":
        return "better" if primary["effect"]["difference"]["value"] > 0 else "worse"
    return "better" if test["alternative"] == "greater" else "worse"


def asked(sweep: Section) -> str:
    """The question of the sweep."""
    design = sweep["design"]
    claim = {"greater": "help more than", "less": "do worse than", "two-sided": "give a different result from"}
    return (
        f"Does training {layer_words(design['attributed'], design['n_layers'])} of {design['target']}, picked by "
        f"{picker(sweep)}, {claim[design['alternative']]} training as many random layers?"
    )


def picker(sweep: Section) -> str:
    """What picked the attributed layers."""
    name = selector_name(sweep["run"])
    return "attribution" if name in ("", "attribution") else f"selector '{name}'"


def sentence(sweep: Section, kind: str) -> str:
    """The verdict in a sentence that takes no statistics to understand."""
    primary = sweep["primary"]
    if kind == "untested":
        return str(primary["why"])
    test, n = primary["test"], primary["test"]["n_controls"]
    sets = count(n, "random set")
    if untouched(primary):
        return (
            "Every comparison with the base model is a tie, for the attributed layers and for the random ones, so "
            "nothing tells them apart."
        )
    if kind == "better":
        words = (
            f"Training the layers picked by {picker(sweep)} did better than training random ones: "
            f"{_of(test['rank'] - 1, sets)} of the same size did as well."
        )
    elif kind == "worse":
        words = (
            f"Training the layers picked by {picker(sweep)} did worse than training random ones: "
            f"{_of(as_bad(primary), sets)} of the same size did as badly."
        )
    else:
        words = nothing_shown(test, picker(sweep), sets)
        if shown_equivalent(primary):
            size = magnitude(primary["kind"], primary["equivalence"]["controls"]["margin"])
            these = f"the average of these {n} random sets" if n > 1 else "this random set"
            words += f" A difference of more than {size} from {these} can be ruled out."
    return f"{words} {harm(sweep)}".strip()


def nothing_shown(test: Section, who: str, sets: str) -> str:
    """What a test that is not significant leaves open, in terms of its alternative."""
    claim, beside = {
        "greater": (f"{who} picks better layers than chance", "did at least as well as the attributed layers"),
        "less": (f"{who} picks worse layers than chance", "did at least as badly as the attributed layers"),
        "two-sided": (
            f"the layers picked by {who} perform differently from random ones",
            "lie at least as far from the mean of all arms as the attributed layers",
        ),
    }[test["alternative"]]
    extreme = f"{_of(test['n_extreme'], sets)} of the same size {beside}."
    if test["floor"] > test["alpha"] + 1e-9:
        return (
            f"With only {sets} to compare with, p can be no smaller than {test['floor']:.2g}, so this sweep cannot "
            f"show that {claim}; {extreme}"
        )
    return f"Nothing shows that {claim}: {extreme}"


def as_bad(primary: Section) -> int:
    """Number of controls that are no better than the attributed arm."""
    own = primary["attributed"]["t"]
    return sum(place["t"] <= own + TIE for place in primary["controls"])


def _of(n: int, whole: str) -> str:
    return f"none of {whole}" if n == 0 else f"{n} of {whole}"


def found(sweep: Section) -> str:
    """The numbers: both means, their difference with its interval, wins and losses against the base model."""
    primary, design = sweep["primary"], sweep["design"]
    place = primary["attributed"]
    if place is None or place["t"] is None:
        return f"{primary['why']} {_planned(design)}"
    kind, base = primary["kind"], _against_base(sweep)
    seeds = f" × {design['n_generation_seeds']} generation seeds" if design["n_generation_seeds"] > 1 else ""
    words = (
        f"On {count(primary['n_problems'], 'held-out problem')}{seeds} × "
        f"{count(len(design['seeds']), 'training seed')}, the {primary['words']} is {level(kind, place['t'])} for the "
        f"attributed layers"
    )
    if primary["controls_mean"] is None:
        return f"{words}. {base} {_planned(design)}"
    n = count(len(primary["controls"]), "random set")
    words += f" and {level(kind, primary['controls_mean'])} on average for {n}"
    if primary["effect"] is None:
        return f"{words}. {base}"
    return f"{words}: a difference of {difference_words(kind, primary['effect']['difference'])}. {base}"


def _against_base(sweep: Section) -> str:
    """The attributed arm against the base model, on the problems and training seeds of the test."""
    primary = sweep["primary"]
    row = primary["against_base"]
    after = "; descriptive, not part of the multiplicity correction)."
    if primary["kind"] == "accuracy":
        return (
            f"Against the base model ({level('accuracy', primary['base'])}), {count(row['wins'], 'problem')} went from "
            f"incorrect to correct and {row['losses']} from correct to incorrect (exact McNemar test, "
            f"{p_phrase(row['p'])}{after}"
        )
    return (
        f"Against the base model, the attributed layers win {count(row['wins'], 'problem')} and lose {row['losses']} "
        f"(exact sign test, {p_phrase(row['p'])}{after}"
    )


def _planned(design: Section) -> str:
    return f"{design['n_controls']} of {design['n_controls_planned']} random arms are complete."


def difference_words(kind: str, estimate: Section) -> str:
    """A difference with its interval, or a note that it is the same everywhere."""
    value = shift(kind, estimate["value"])
    if estimate["degenerate"]:
        return f"{value}, the same on every problem and at every training seed, so there is no interval"
    return f"{value} ({interval(kind, estimate)})"


def sure(sweep: Section, kind: str) -> str:
    """The test, and the smallest p that it could have given."""
    primary = sweep["primary"]
    test = primary["test"]
    if test is None:
        return "No test was made, so there is no p-value."
    place = {
        "greater": "rank at least this high",
        "less": "rank at least this low",
        "two-sided": "lie at least this far from the mean",
    }
    words = (
        f"If {picker(sweep)} were uninformative, its layers would {place[test['alternative']]} in "
        f"{of_sweeps(test['p'])} such sweeps (randomization test over {count(test['n_controls'], 'distinct set')}, "
        f"{p_phrase(test['p'])}; the smallest p possible here is {test['floor']:.2g})."
    )
    if test["floor"] > test["alpha"] + 1e-9:
        words += (
            f" With fewer than {test['controls_for_alpha']} controls, no result could have reached p = "
            f"{test['alpha']:g}."
        )
    return words


def of_sweeps(p: float) -> str:
    """A share in whole numbers, never rounded to zero: `20 of 100`, `1 of 1,000`."""
    whole = 100
    while whole * p < 0.95:
        whole *= 10
    return f"{whole * p:.0f} of {whole:,}"


# -- terminal -----------------------------------------------------------------------------------


def summary_lines(sweep: Section, *, written: Sequence[Path | str] = ()) -> list[str]:
    """The terminal summary of `m3i compare`: question, answer, numbers, checks, costs, limits, files."""
    verdict, plan = sweep["verdict"], sweep["plan"]
    jobs = plan["jobs"]
    lines = [
        f"Asked:   {verdict['asked']}",
        f"Answer:  {verdict['title']}. {verdict['sentence']}",
        f"Found:   {verdict['found']}",
        f"Sure:    {verdict['sure']}",
    ]
    if verdict["null"]:
        lines.append(f"Null:    {verdict['null']}")
    lines.append(f"Jobs:    {jobs['done']} of {jobs['planned']} done, {jobs['failed']} failed")
    lines += failure_lines(sweep["failures"])
    lines += [f"Plan:    {words}" for words in plan["deviations"]]
    wrong = [check["words"] for check in sweep["checks"] if check["passed"] is False]
    lines += [f"Check:   {words}" for words in wrong]
    if not wrong:
        lines.append(f"Check:   all {sum(c['passed'] is True for c in sweep['checks'])} checks passed")
    lines.append(f"Cost:    {cost_words(sweep['costs'])}")
    major = [c["title"] for c in sweep["caveats"] if c["weight"] == "major"]
    if major:
        lines.append(f"Limits:  {'. '.join(major)}.")
    return lines + [f"Written: {path}" for path in written]


def failure_lines(failures: Sequence[Section]) -> list[str]:
    """One line per kind of failure: the jobs that failed this way, or how many and which."""
    jobs: dict[tuple[str, str], list[Section]] = {}
    for failure in failures:
        jobs.setdefault((failure["state"], failure["error"]), []).append(failure)
    lines = []
    for (state, error), those in jobs.items():
        label = "Failed: " if state == "failed" else "Missing:"
        names = [f"{f['arm']} seed {f['seed']}" for f in those]
        if len(names) > 3:
            names = [f"{len(names)} jobs, {names[0]} to {names[-1]}"]
        lines.append(f"{label} {', '.join(names)}: {error}")
    return lines


def cost_words(costs: Section) -> str:
    """Work time of the sweep, the same with every job run alone, and the cost of model calls."""
    words = (
        f"{minutes(costs['made_s'])} of work; running each job alone from an empty store would take "
        f"{minutes(costs['alone_s'])}, so the store saved {minutes(costs['saved_s'])}"
    )
    paid = costs["money"]
    if paid is None:
        return words
    last = paid["last"]
    if paid["calls"]:
        words += (
            f"; {count(paid['calls'], 'model call')} behind these results: {money(paid['cost_usd'], paid['unpriced'])}"
        )
    if last and (last["calls"] or last["reused"]):
        words += f"; the last command made {count(last['calls'], 'call')}: {money(last['paid_usd'], last['unpriced'])}"
    return words


def minutes(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
