"""The verdict of a sweep in plain words, and the terminal summary. Reads the sections of sweep.json, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3i.result.next_steps import selector_name
from m3i.result.words import count, layer_words, money, p_phrase, percent, points

Section = Mapping[str, Any]
TITLES = {
    "better": "Better than random layers",
    "worse": "Worse than random layers",
    "not_better": "Not shown to be better than random layers",
    "not_different": "Not shown to differ from random layers",
    "untested": "Not tested",
}


def verdict_section(sweep: Section) -> dict[str, Any]:
    """What was asked, found and how sure, one sentence for everyone, and what a null is worth.

    `kind`: better, worse (significant), not_better, not_different (not significant, the latter where another
    alternative than `greater` was registered), untested.
    """
    primary = sweep["primary"]
    kind = verdict_kind(primary)
    return {
        "kind": kind,
        "title": TITLES[kind],
        "endpoint": primary["name"],
        "asked": asked(sweep),
        "found": found(sweep),
        "sure": sure(sweep, kind),
        "sentence": sentence(sweep, kind),
        "null": null(primary) if kind in ("not_better", "not_different") else "",
        "harm": harm(sweep),
    }


def verdict_kind(primary: Section) -> str:
    """From the randomization test alone."""
    test = primary["test"]
    if test is None:
        return "untested"
    if not test["significant"]:
        return "not_better" if test["alternative"] == "greater" else "not_different"
    return "better" if primary["effect"]["difference"]["value"] > 0 else "worse"


def asked(sweep: Section) -> str:
    """The question of the sweep."""
    design = sweep["design"]
    claim = {"greater": "help more than", "less": "do worse than", "two-sided": "do anything else than"}
    return (
        f"Does training {layer_words(design['attributed'], design['n_layers'])} of {design['target']}, which "
        f"{picker(sweep)} picked, {claim[design['alternative']]} training as many random layers?"
    )


def picker(sweep: Section) -> str:
    """Who chose the attributed layers."""
    name = selector_name(sweep["run"])
    return "attribution" if name in ("", "attribution") else f"selector '{name}'"


def sentence(sweep: Section, kind: str) -> str:
    """The verdict in a sentence that needs no statistics."""
    primary = sweep["primary"]
    if kind == "untested":
        return f"Not tested: {primary['why'][0].lower()}{primary['why'][1:]}"
    test, n = primary["test"], primary["test"]["n_controls"]
    picks = count(n, "random pick")
    if untouched(primary):
        return (
            "Training changed no outcome anywhere, neither with the attributed layers nor with random ones, so nothing "
            "tells them apart."
        )
    if kind == "better":
        words = (
            f"Training the layers that {picker(sweep)} picked did better than training random ones: "
            f"{_of(test['rank'] - 1, picks)} of as many layers did as well."
        )
    elif kind == "worse":
        words = (
            f"Training the layers that {picker(sweep)} picked did worse than training random ones: "
            f"{_of(as_bad(primary), picks)} of as many layers did as badly."
        )
    else:
        better = test["rank"] - 1
        words = (
            f"Nothing shows that {picker(sweep)} picks better layers than chance: {_of(better, picks)} of as many "
            f"layers did at least as well as the attributed ones."
        )
        equal = primary["equivalence"]["controls"]
        if equal and equal["equivalent"]:
            size = magnitude(primary["kind"], equal["margin"])
            words += f" A difference of more than {size} from the average random pick can be ruled out."
    return f"{words} {harm(sweep)}".strip()


def untouched(primary: Section) -> bool:
    """Every arm of the test has exactly the base model's T at every training seed."""
    places = [place for place in (primary["attributed"], *primary["controls"]) if place]
    values = [seed["t"] for place in places for seed in place["by_seed"]]
    return primary["tie_rate"] == 1 and all(value == primary["base"] for value in values)


def as_bad(primary: Section) -> int:
    """Controls that are no better than the attributed arm."""
    own = primary["attributed"]["t"]
    return sum(place["t"] <= own + 1e-12 for place in primary["controls"])


def _of(n: int, whole: str) -> str:
    return f"none of {whole}" if n == 0 else f"{n} of {whole}"


def harm(sweep: Section) -> str:
    """Where every trained arm of the test lies below the base model: then the question is one of harm. Else empty."""
    primary = sweep["primary"]
    values = [place["t"] for place in (primary["attributed"], *primary["controls"]) if place and place["t"] is not None]
    if not values or primary["base"] is None or max(values) >= primary["base"]:
        return ""
    return "Every trained model did worse than the untrained one, so this compares how much harm training did."


def found(sweep: Section) -> str:
    """The numbers: both means, their difference with its interval, the rank."""
    primary, design = sweep["primary"], sweep["design"]
    place = primary["attributed"]
    if place is None or place["t"] is None:
        return f"{primary['why']} {_planned(design)}"
    kind, base = primary["kind"], _against_base(sweep)
    seeds = f" × {design['n_generation_seeds']} generation seeds" if design["n_generation_seeds"] > 1 else ""
    words = (
        f"On {count(primary['n_problems'], 'held-out problem')}{seeds} × "
        f"{count(len(design['seeds']), 'training seed')} the {primary['words']} is {level(kind, place['t'])} for the "
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
    """The attributed arm against the base model, by the judge of the endpoint or by right answers."""
    row = next(row for row in sweep["arms"] if row["arm"] == "attributed")
    if sweep["primary"]["kind"] == "accuracy":
        changed, base = row["accuracy"]["mcnemar"], f" (it has {level('accuracy', sweep['primary']['base'])})"
        return (
            f"Against the base model{base} {count(changed['fixed'], 'problem')} went from wrong to right and "
            f"{changed['broken']} from right to wrong (exact McNemar test, {p_phrase(changed['p'])})."
        )
    test = row["judges"][sweep["primary"]["judge"]]["sign_test"]
    return (
        f"Against the base model the attributed layers win {count(test['wins'], 'problem')} and lose {test['losses']} "
        f"(exact sign test, {p_phrase(test['p'])})."
    )


def _planned(design: Section) -> str:
    return f"{design['n_controls']} of {design['n_controls_planned']} random arms are complete."


def difference_words(kind: str, estimate: Section) -> str:
    """A difference with its interval, or that it is the same everywhere."""
    value = shift(kind, estimate["value"])
    if estimate["degenerate"]:
        return f"{value}, the same on every problem and at every training seed, so without an interval"
    interval = f"{shift(kind, estimate['low'])} to {shift(kind, estimate['high'])}"
    return f"{value} ({percent(estimate['level'])} interval {interval})"


def sure(sweep: Section, kind: str) -> str:
    """The test, and how far its p can go."""
    primary = sweep["primary"]
    test = primary["test"]
    if test is None:
        return "There is no p value."
    words = (
        f"If attribution told nothing, its set would come out at least this far "
        f"{ {'greater': 'up', 'less': 'down', 'two-sided': 'off'}[test['alternative']] } in {100 * test['p']:.0f} of "
        f"100 such sweeps (randomization test over {count(test['n_controls'], 'distinct set')}, "
        f"{p_phrase(test['p'])}; the smallest p possible here is {test['floor']:.2g})."
    )
    if test["floor"] > test["alpha"] + 1e-9:
        words += (
            f" With fewer than {test['controls_for_alpha']} controls no result whatever could have reached "
            f"{test['alpha']:g}."
        )
    return words


def null(primary: Section) -> str:
    """What a result that is not significant does show: equivalence, and what would have been seen."""
    kind, margin = primary["kind"], primary["equivalence"]["margin"]
    within = f"± {magnitude(kind, margin)}"
    tested = primary["equivalence"]["controls"]
    if tested is None:
        words = f"Whether the difference is small cannot be tested: {_lower(primary['equivalence']['controls_why'])}"
    elif tested["equivalent"]:
        words = (
            f"The attributed layers and random ones are equivalent: their difference lies within the registered margin "
            f"of {within} (two one-sided tests, {p_phrase(tested['p'])})."
        )
    else:
        interval = f"{shift(kind, tested['low'])} to {shift(kind, tested['high'])}"
        words = (
            f"Nor is it shown that they are equal: the {percent(1 - 2 * tested['alpha'])} interval of the difference, "
            f"{interval}, does not lie within the registered margin of {within} ({p_phrase(tested['p'])})."
        )
    return f"{words} {detectable_words(primary)}"


def detectable_words(primary: Section) -> str:
    """The smallest difference that this sweep would have found."""
    power, kind = primary["power"], primary["kind"]
    alternative = primary["test"]["alternative"] if primary["test"] else "greater"
    side = {"greater": "above", "less": "below", "two-sided": "off"}[alternative]
    often = f"{100 * power['power']:.0f} of 100 such sweeps"
    controls = power["controls"]
    if controls["detectable"] is None:
        if controls["n_controls"] and controls["within"] is not None and not controls["why"]:
            return f"With {count(controls['n_controls'], 'control')} no difference of any size can be significant."
        return f"What could have been found cannot be said: {_lower(controls['why'])}"
    return (
        f"A set that lies {magnitude(kind, controls['detectable'])} {side} the average set would be found in {often}; "
        f"smaller differences may be there unseen."
    )


# -- numbers ------------------------------------------------------------------------------------


def level(kind: str, value: float) -> str:
    """T itself: `0.531`, or `71.4 %` for accuracy."""
    return f"{100 * value:.1f}\u00a0%" if kind == "accuracy" else f"{value:.3f}"


def shift(kind: str, value: float) -> str:
    """A difference of T with its sign: `+0.024`, or `+2.4 points` for accuracy."""
    if kind == "accuracy":
        return "0.0\u00a0points" if abs(value) < 0.0005 else points(value)
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "−")


def magnitude(kind: str, value: float) -> str:
    """A size without a sign."""
    return shift(kind, abs(value)).lstrip("+")


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


# -- terminal -----------------------------------------------------------------------------------


def summary_lines(sweep: Section, *, written: Sequence[Path | str] = ()) -> list[str]:
    """The end of `m3i compare`: asked, found, how sure, what a null is worth, checks, costs, limits, files."""
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
        lines.append(f"Limits:  {'; '.join(major)}.")
    return lines + [f"Written: {path}" for path in written]


def failure_lines(failures: Sequence[Section]) -> list[str]:
    """A line for each way of failing: the job, or how many of them and which."""
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
    """Time of the sweep against its jobs run alone, and money."""
    words = (
        f"{minutes(costs['made_s'])} of work; each job alone from an empty store: {minutes(costs['alone_s'])}, so the "
        f"store saved {minutes(costs['saved_s'])}"
    )
    paid = costs["money"]
    if paid is None or not (paid["calls"] or paid["reused"]):
        return words
    return f"{words}; {count(paid['calls'], 'model call')}, {money(paid['paid_usd'], paid['unpriced'])}"


def minutes(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
