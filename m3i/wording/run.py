"""The verdict in plain words, the terminal summary, and what would settle an open question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3i.statistics.estimate import ALPHA
from m3i.wording.formats import chance_words, count, interval, layer_words, money, p_phrase, percent, points

TITLES = {
    "improved": "Improved",
    "worse": "Worse",
    "undecided": "Undecided",
    "sham": "Sham arm: nothing changed, as it must",
    "leak": "Sham arm failed: answers changed without an update",
    "none": "No verdict",
}


def verdict_section(result: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, what was found, how sure: from the first judge of the panel and the verifier's accuracies."""
    judge = next(iter(result["judges"].values()))
    kind = verdict_kind(judge, zero_update=result["layers"]["zero_update"])
    section = {
        "kind": kind,
        "title": TITLES[kind],
        "judge": judge["judge"],
        "asked": asked(result),
        "found": found(result, judge),
        "sure": sure(judge, kind),
    }
    return section | {"sentence": f"{section['title']}. {section['found']} {section['sure']}"}


def verdict_kind(judge: Mapping[str, Any], *, zero_update: bool) -> str:
    """`improved` and `worse` need p < 0.05 in the exact sign test; a sham arm must tie everywhere."""
    test = judge["sign_test"]
    if judge["n_valid"] == 0:
        return "none"
    if zero_update:
        return "sham" if judge["n_equal"] == judge["n"] else "leak"
    if test["p"] >= ALPHA or test["share"] is None:
        return "undecided"
    return "improved" if test["share"] > 0.5 else "worse"


def asked(result: Mapping[str, Any]) -> str:
    """The question of this run."""
    layers, training = result["layers"], result["training"]
    if layers["zero_update"]:
        return (
            f"Does the way from adapter to llama.cpp change anything by itself? A zero update went through it, so "
            f"every answer of {result['target']['name']} must stay the same."
        )
    return (
        f"Does training only {layer_words(layers['selected'], layers['n'])} of {result['target']['name']} on "
        f"{count(training['n_pairs'], 'preference pair')} make it solve more held-out problems?"
    )


def found(result: Mapping[str, Any], judge: Mapping[str, Any]) -> str:
    """Counts of the first judge and the change of accuracy."""
    counts, accuracy = judge["counts"], result["accuracy"]
    seeds = f" × {accuracy['n_seeds']} generation seeds" if accuracy["n_seeds"] > 1 else ""
    problems = f"On {count(accuracy['n_problems'], 'held-out problem')}{seeds}"
    missing = f", {counts['missing']} got no valid verdict" if counts["missing"] else ""
    words = (
        f"{problems} the tuned model wins {counts['tuned']}, the base model {counts['base']}, and "
        f"{counts['tie'] + counts['split']} are ties or splits{missing} (judge: {judge['judge']})."
    )
    if accuracy["base"]["value"] is None or accuracy["difference"]["value"] is None:
        return words
    difference = accuracy["difference"]
    return words + (
        f" Right answers go from {percent(accuracy['base']['value'])} to {percent(accuracy['tuned']['value'])}: "
        f"{points(difference['value'])}, {interval(difference, points)}."
    )


def sure(judge: Mapping[str, Any], kind: str) -> str:
    """How far chance could explain it, and what this n could have shown."""
    test, power = judge["sign_test"], judge["power"]
    if kind == "none":
        return "The judge gave no valid verdict, so there is nothing to be sure of."
    if kind == "sham":
        return "This shows that the way to llama.cpp is clean; it says nothing about training."
    if kind == "leak":
        return (
            f"{judge['n'] - judge['n_equal']} of {judge['n']} answers differ though nothing was trained: do not trust "
            f"any other arm before this is explained."
        )
    if test["share"] is None:
        return (
            f"No problem was decided for either side, so there is nothing to test. With "
            f"{count(power['n_problems'], 'problem')}, training may still decide up to "
            f"{percent(power['decided_at_most'])} of all such problems without one showing here (95\u00a0% bound)."
        )
    decided = test["wins"] + test["losses"]
    chance = (
        f"If training had changed nothing, a split of {count(decided, 'decided problem')} at least as uneven as "
        f"{test['wins']} to {test['losses']} would still come up in {chance_words(test['p'])} (exact sign test, "
        f"{p_phrase(test['p'])})."
    )
    if kind == "undecided":
        return f"{chance} {detectable(power)}"
    return (
        f"{chance} So chance is an unlikely explanation; whether it is *these* layers that matter, one arm cannot say."
    ).replace("*", "")


def detectable(power: Mapping[str, Any]) -> str:
    """The minimum detectable effect in words."""
    often = f"{100 * power['power']:.0f} of 100 runs like this one"
    if power["detectable_share"] is None:
        return (
            f"With {count(power['n_problems'], 'problem')}, {percent(power['tie_rate'])} of them undecided, no effect "
            f"of any size would show in {often}."
        )
    return (
        f"A tuned model that truly wins {percent(power['detectable_share'])} or more of the decided problems (a net "
        f"gain of {100 * power['detectable_net']:.0f} in 100 problems) would show in {often}; a smaller effect may be "
        f"there unseen."
    )


def summary_lines(result: Mapping[str, Any], *, report: Path | str = "") -> list[str]:
    """The end of a run for the terminal, one line each: asked, found, how sure, proof, cost, limits, the page."""
    verdict, certificate = result["verdict"], result["certificates"]["export"]
    lines = [
        f"Asked:   {verdict['asked']}",
        f"Found:   {verdict['title']}. {verdict['found']}",
        f"Sure:    {verdict['sure']}",
        f"Proof:   {certificate_words(certificate)}",
    ]
    cost = cost_words(result["costs"])
    if cost:
        lines.append(f"Cost:    {cost}")
    major = [c["title"] for c in result["caveats"] if c["weight"] == "major"]
    if major:
        lines.append(f"Limits:  {'; '.join(major)}.")
    if report:
        lines.append(f"Report:  {report}")
    return lines


def cost_words(costs: Mapping[str, Any]) -> str:
    """What the model calls behind a run cost and what this run paid; empty where nothing asks remotely."""
    n_calls = costs["observers_calls"] + costs["judges_calls"]
    if costs["ledger"] is None or not n_calls:
        return ""
    n_unpriced = costs["observers_unpriced"] + costs["judges_unpriced"]
    known = [costs[f"{group}_usd"] for group in ("observers", "judges") if costs[f"{group}_usd"] is not None]
    total = None if n_unpriced >= n_calls else sum(known)
    amount = money(total) if total is not None else "an unknown price"
    left_out = f" ({n_unpriced} of them of unknown price, not counted)" if total is not None and n_unpriced else ""
    return f"{amount} for {count(n_calls, 'call')}{left_out}, {_paid_now(costs['ledger'])}"


def _paid_now(ledger: Mapping[str, Any]) -> str:
    made = [row for row in ledger["rows"] if row["made"]]
    if not made:
        return "nothing of it paid in this run"
    priced = [row["cost_usd"] for row in made if row["cost_usd"] is not None]
    if not priced:
        return "what this run paid is not known"
    unpriced = sum(row["unpriced"] for row in made)
    more = f", and {count(unpriced, 'call')} of unknown price made" if unpriced else ""
    return f"{money(sum(priced))} of it paid in this run{more}"


def certificate_words(certificate: Mapping[str, Any]) -> str:
    """The export certificate in one sentence."""
    if certificate["vacuous"]:
        return (
            f"a zero update; {certificate['identical_tensors']} of {certificate['n_tensors']} tensors of the file are "
            f"byte-identical (a vacuous certificate: it proves nothing about training)."
        )
    error = certificate["together"]["relative_error"]
    live = sum(t["live"] for t in certificate["tensors"])
    return (
        f"{live} of {len(certificate['tensors'])} trained tensors are live in llama.cpp "
        f"({percent(certificate['live_share'])} of the adapter)"
        + ("" if error is None else f"; their joint effect differs from PEFT's by {percent(error)}")
        + _in_file_words(certificate["in_file"])
        + ("." if certificate["passed"] else "; the certificate did NOT pass.")
    )


def _in_file_words(in_file: Mapping[str, Any] | None) -> str:
    if in_file is None or in_file["relative_error"] is None:
        return ""
    return f" in exact arithmetic and by {percent(in_file['relative_error'])} in the quantised file that answered"


# -- wording ----------------------------------------------------------------------------------
