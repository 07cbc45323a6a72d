"""The verdict of a run in plain words, and its terminal summary."""

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
    "sham": "Sham arm: nothing changed, as expected",
    "leak": "Sham arm failed: answers changed without an update",
    "none": "No verdict",
}


def verdict_section(result: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, what was found and how sure it is, from the panel's first judge and the verifier's accuracies."""
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
    """The kind of verdict: `improved` and `worse` need p < 0.05 in the exact sign test; a sham arm must only tie."""
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
            f"Does the export to llama.cpp alone change any answer? The exported update is zero, so every answer of "
            f"{result['target']['name']} must stay the same."
        )
    return (
        f"Does training only {layer_words(layers['selected'], layers['n'])} of {result['target']['name']} on "
        f"{count(training['n_pairs'], 'preference pair')} make it solve more held-out problems?"
    )


def found(result: Mapping[str, Any], judge: Mapping[str, Any]) -> str:
    """The first judge's counts and the change in accuracy."""
    counts, accuracy = judge["counts"], result["accuracy"]
    seeds = f" × {accuracy['n_seeds']} generation seeds" if accuracy["n_seeds"] > 1 else ""
    problems = f"On {count(accuracy['n_problems'], 'held-out problem')}{seeds}"
    missing = f" and {counts['missing']} got no valid verdict" if counts["missing"] else ""
    words = (
        f"{problems}, the tuned model wins {counts['tuned']} and the base model {counts['base']}; "
        f"{counts['tie'] + counts['split']} are ties or splits{missing} (judge: {judge['judge']})."
    )
    if accuracy["base"]["value"] is None or accuracy["difference"]["value"] is None:
        return words
    difference = accuracy["difference"]
    return words + (
        f" Correct answers: {percent(accuracy['base']['value'])} before, {percent(accuracy['tuned']['value'])} after "
        f"({points(difference['value'])}, {interval(difference, points)})."
    )


def sure(judge: Mapping[str, Any], kind: str) -> str:
    """How easily chance could explain the result, and which effects this number of problems could have shown."""
    test, power = judge["sign_test"], judge["power"]
    if kind == "none":
        return "The judge gave no valid verdict, so nothing can be concluded."
    if kind == "sham":
        return "The export to llama.cpp left every answer unchanged, as it must; this says nothing about training."
    if kind == "leak":
        return (
            f"{judge['n'] - judge['n_equal']} of {judge['n']} answers differ although nothing was trained. Do not "
            f"trust any other arm until this is explained."
        )
    if test["share"] is None:
        return (
            f"No problem was decided either way, so there is nothing to test. None among "
            f"{count(power['n_problems'], 'problem')} is consistent with training deciding up to "
            f"{percent(power['decided_at_most'])} of all such problems (95\u00a0% bound)."
        )
    decided = test["wins"] + test["losses"]
    chance = (
        f"If training had no effect, {count(decided, 'decided problem')} would split at least as unevenly as "
        f"{test['wins']} to {test['losses']} in {chance_words(test['p'])} (exact sign test, {p_phrase(test['p'])})."
    )
    if kind == "undecided":
        return f"{chance} {detectable(power)}"
    return (
        f"{chance} Chance is therefore an unlikely explanation, but one arm cannot show whether the choice of layers "
        f"matters."
    )


def detectable(power: Mapping[str, Any]) -> str:
    """The minimum detectable effect in words."""
    if power["detectable_share"] is None:
        return (
            f"With so few decided problems ({percent(power['tie_rate'])} of {power['n_problems']:,} undecided), even a "
            f"large effect would be missed: none reaches {percent(power['power'])} power."
        )
    return (
        f"A tuned model that truly wins {percent(power['detectable_share'])} or more of the decided problems (a net "
        f"gain of {100 * power['detectable_net']:.0f} per 100 problems) would be detected in at least "
        f"{100 * power['power']:.0f} of 100 such runs; a smaller effect may go unnoticed."
    )


def summary_lines(result: Mapping[str, Any], *, report: Path | str = "") -> list[str]:
    """The terminal summary of a run, one line each: asked, found, how sure, proof, cost, limits, report."""
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
        lines.append(f"Limits:  {'. '.join(major)}.")
    if report:
        lines.append(f"Report:  {report}")
    return lines


def cost_words(costs: Mapping[str, Any]) -> str:
    """What the model calls behind a run cost and what this run paid; empty where no model was called."""
    n_calls = costs["observers_calls"] + costs["judges_calls"]
    if costs["ledger"] is None or not n_calls:
        return ""
    n_unpriced = costs["observers_unpriced"] + costs["judges_unpriced"]
    known = [costs[f"{group}_usd"] for group in ("observers", "judges") if costs[f"{group}_usd"] is not None]
    total = None if n_unpriced >= n_calls else sum(known)
    amount = money(total) if total is not None else "unknown"
    left_out = f" (not counting {n_unpriced} of unknown price)" if total is not None and n_unpriced else ""
    return f"{amount} for {count(n_calls, 'call')}{left_out}, {_paid_now(costs['ledger'])}"


def _paid_now(ledger: Mapping[str, Any]) -> str:
    made = [row for row in ledger["rows"] if row["made"]]
    if not made:
        return "nothing paid in this run"
    priced = [row["cost_usd"] for row in made if row["cost_usd"] is not None]
    if not priced:
        return "amount paid in this run unknown"
    unpriced = sum(row["unpriced"] for row in made)
    more = f", plus {count(unpriced, 'call')} of unknown price" if unpriced else ""
    return f"{money(sum(priced))} paid in this run{more}"


def certificate_words(certificate: Mapping[str, Any]) -> str:
    """The export certificate in one sentence."""
    if certificate["vacuous"]:
        return (
            f"a zero update: {certificate['identical_tensors']} of {certificate['n_tensors']} tensors in the file are "
            f"byte-identical (a vacuous certificate, which proves nothing about training)."
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
    return (
        f" in exact arithmetic and by {percent(in_file['relative_error'])} in the quantised file used for the answers"
    )
