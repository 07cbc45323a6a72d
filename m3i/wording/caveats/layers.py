"""Rules on how failures were located: observers, contrasts, attributors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3i.wording.caveats.caveat import Caveat, Result, caveat, tally
from m3i.wording.formats import count, percent


def attribution(result: Result) -> Iterator[Caveat]:
    """Selected layers without a clear lead, attributors that disagree, failures that were left out."""
    layers = result["layers"]
    attributors, k = layers["attributors"], len(layers["selected"])
    used = _attributor_used(result)
    if used is not None:
        scores = attributors[used]
        joint = _joint(scores)
        last, following = scores["order"][k - 1], scores["order"][k]
        low, high = joint["low"][last], joint["high"][following]
        if low is not None and high is not None and low <= high:
            yield caveat(
                "close_scores",
                f"Layer {last} is not clearly ahead of layer {following}",
                f"Attributor '{used}' scores them {joint['scores'][last]:.3g} and {joint['scores'][following]:.3g}, "
                f"with overlapping intervals over {count(joint['n_traces'], 'trace')}: other traces might have led to "
                f"other layers.",
            )
    tops = {alias: sorted(scores["order"][:k]) for alias, scores in attributors.items() if _joint(scores)["n_traces"]}
    shared = set.intersection(*map(set, tops.values())) if tops else set()
    if len(tops) > 1 and k and len(shared) <= k / 2:
        yield caveat(
            "attributors_disagree",
            "The attributors point to different layers",
            f"Their top {k}: " + "; ".join(f"{alias} {top}" for alias, top in tops.items()) + ".",
        )
    lost = {alias: scores["left_out"] for alias, scores in attributors.items() if sum(scores["left_out"].values())}
    if lost:
        yield caveat(
            "left_out_scores",
            "Some failures could not be attributed",
            " ".join(f"{alias}: {tally(reasons)}." for alias, reasons in lost.items()),
        )


def _joint(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row that pools all observers."""
    row: Mapping[str, Any] = next(row for row in scores["rows"] if row["observer"] == "joint")
    return row


def _attributor_used(result: Result) -> str | None:
    """The attributor whose top layers are the selected ones, the selector's own tried first; None if there is none."""
    layers, selector = result["layers"], result["config"].get("selector")
    k = len(layers["selected"])
    named = selector.get("attributor") if isinstance(selector, Mapping) else None
    for alias in [named, *layers["attributors"]]:
        order: list[Any] = layers["attributors"].get(alias, {"order": []})["order"]
        if 0 < k < len(order) and sorted(order[:k]) == layers["selected"]:
            return str(alias)
    return None


def observers(result: Result) -> Iterator[Caveat]:
    """Missing audits, invented quotes, missed failures, false alarms, findings without a contrast."""
    for alias, observer in result["observers"].items():
        if observer["n_missing"] and not observer["n_audited"]:
            reason, n = next(iter(observer["missing_reasons"].items()))
            yield caveat(
                "no_audit",
                f"Observer '{alias}' audited nothing",
                f"It gave no valid audit of any of the {count(observer['n_missing'], 'trace')}, most often ({n} of "
                f"{observer['n_missing']}) because: {reason}. Nothing in this run rests on it, and any failures that "
                f"only it would have found are missing.",
                major=True,
            )
        elif observer["n_missing"]:
            yield caveat(
                "missing_audits",
                f"Observer '{alias}' gave no valid audit of {count(observer['n_missing'], 'trace')}",
                "They count as not audited, never as free of failures.",
            )
        yield from _citations(alias, observer["citations"])
        wrong, flagged = observer["wrong_audited"], observer["wrong_flagged"]
        if wrong and flagged / wrong < 0.5:
            yield caveat(
                "blind_observer",
                f"Observer '{alias}' flags only {percent(flagged / wrong)} of the incorrect traces",
                f"{flagged} of {wrong} incorrect traces have a finding; attribution rests on those alone.",
            )
        right, alarms = observer["right_audited"], observer["right_flagged"]
        if right and alarms / right > 0.2:
            yield caveat(
                "false_alarms",
                f"Observer '{alias}' also flags {percent(alarms / right)} of the correct traces",
                f"{alarms} of {right} traces with a correct answer have a finding.",
            )
    contrasts = result["contrasts"]
    lost = sum(contrasts["left_out"].values())
    if lost > contrasts["n"]:
        yield caveat(
            "few_contrasts",
            "Most findings yielded no contrast",
            f"{count(contrasts['n'], 'finding')} became a contrast between an incorrect and a correct token; {lost} "
            f"did not: {tally(contrasts['left_out'])}.",
        )


def _citations(alias: str, citations: Mapping[str, Any]) -> Iterator[Caveat]:
    rate = citations["rate"]
    if citations["hallucinated"]:
        yield caveat(
            "rejected_quotes",
            f"Observer '{alias}' quoted text that is not in the trace {count(citations['hallucinated'], 'time')}",
            f"{percent(rate['value'])} of its {count(rate['n'], 'finding')} ({percent(rate['level'])} interval "
            f"{percent(rate['low'])} to {percent(rate['high'])}). They were dropped.",
        )
    if citations["ambiguous"]:
        yield caveat(
            "ambiguous_quotes",
            f"Observer '{alias}' gave {count(citations['ambiguous'], 'ambiguous quote')}",
            "Such a quote occurs more than once in its trace, and the finding names no step that tells which place is "
            "meant. Those findings were dropped.",
        )
