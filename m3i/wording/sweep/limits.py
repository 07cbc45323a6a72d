"""What a sweep that shows no difference is worth, and whether training itself hurt, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.statistics import TIE
from m3i.wording.formats import POINTS, count, p_phrase, percent
from m3i.wording.sweep.numbers import magnitude, shift

Section = Mapping[str, Any]


def harm(sweep: Section) -> str:
    """A sentence saying that training itself hurt, or appears to without being shown to; empty otherwise.

    All arms are compared with one sample of base answers, so their means can all lie below it by chance: only the
    interval of the mean over the tested arms decides.
    """
    training, kind = sweep["primary"]["training"], sweep["primary"]["kind"]
    if training is None:
        return ""
    low, n = training["n_below"] == training["n_arms"], training["n_arms"]
    if not hurt(sweep["primary"]) and not low:
        return ""
    estimate = training["difference"]
    who = f"the mean over the {n} tested arms" if n > 1 else "the mean of the only tested arm"
    interval = (
        f"{percent(estimate['level'])} interval over problems {shift(kind, estimate['low']).removesuffix(POINTS)} to "
        f"{shift(kind, estimate['high'])}; not among the registered tests"
    )
    words = f"{who} lies {magnitude(kind, estimate['value'])} below the base model's ({interval})"
    if hurt(sweep["primary"]):
        return f"Training itself hurt: {words}, so this sweep compares how much harm training did."
    return f"{_upper(words)}; this does not show that training itself hurts."


def hurt(primary: Section) -> bool:
    """Whether the mean over the tested arms lies below the base model's with an interval that excludes no change."""
    training = primary["training"]
    return training is not None and training["difference"]["high"] < 0


def shown_equivalent(primary: Section) -> bool:
    """Whether equivalence with the controls is shown within a margin narrower than the effect sought."""
    equal = primary["equivalence"]["controls"]
    return bool(equal and equal["equivalent"] and not primary["equivalence"]["too_wide"])


def untouched(primary: Section) -> bool:
    """Whether every comparison of every arm in the test is undecided; wins and losses that cancel are decided."""
    places = [place for place in (primary["attributed"], *primary["controls"]) if place]
    return bool(places) and all(place["tie_rate"] == 1 for place in places)


def null(primary: Section) -> str:
    """What a result that is not significant does show: equivalence, and the smallest detectable difference."""
    kind, margin = primary["kind"], primary["equivalence"]["margin"]
    within = f"± {magnitude(kind, margin)}"
    tested = primary["equivalence"]["controls"]
    if tested is None:
        words = f"Whether the difference is small cannot be tested: {_lower(primary['equivalence']['controls_why'])}"
    elif primary["equivalence"]["too_wide"]:
        words = f"{wide_margin(primary)} The {interval_words(primary)}."
    elif tested["equivalent"]:
        words = (
            f"The attributed layers and the random sets of this sweep are equivalent: the difference between the "
            f"attributed set and their average lies within the registered margin of {within} (two one-sided tests over "
            f"problems and training runs, {p_phrase(tested['p'])})."
        )
    else:
        words = (
            f"Nor are they shown to be equivalent: the {interval_words(primary)}, which does not lie within the "
            f"registered margin of {within} ({p_phrase(tested['p'])})."
        )
    return f"{words} {detectable_words(primary)}"


def wide_margin(primary: Section) -> str:
    """A sentence saying that equivalence shows little, since the margin is no narrower than the effect sought."""
    kind, effect, margin = primary["kind"], primary["power"]["effect"], primary["equivalence"]["margin"]
    sought = 0.0 if effect["shift"] is None else abs(effect["shift"])
    width = "wider than" if margin - sought > TIE else "as wide as"
    return (
        f"The registered margin of ± {magnitude(kind, margin)} is {width} the effect sought, "
        f"{magnitude(kind, sought)}: winning {percent(effect['share'])} rather than half of the decided problems, with "
        f"{percent(effect['tie_rate'])} of comparisons undecided. A difference within that margin would not show that "
        f"the effect is absent."
    )


def interval_words(primary: Section) -> str:
    """The interval of the difference from the controls that the equivalence test uses."""
    tested, kind = primary["equivalence"]["controls"], primary["kind"]
    interval = f"{shift(kind, tested['low']).removesuffix(POINTS)} to {shift(kind, tested['high'])}"
    return f"{percent(1 - 2 * tested['alpha'])} interval of the difference is {interval}"


def detectable_words(primary: Section) -> str:
    """The smallest difference that this sweep would have detected."""
    power, kind = primary["power"], primary["kind"]
    alternative = primary["test"]["alternative"] if primary["test"] else "greater"
    side = {"greater": "above", "less": "below", "two-sided": "away from"}[alternative]
    often = f"{100 * power['power']:.0f} of 100 such sweeps"
    controls = power["controls"]
    if controls["detectable"] is None:
        if controls["n_controls"] and controls["within"] is not None and not controls["why"]:
            return f"With {count(controls['n_controls'], 'control')}, no difference can be significant, however large."
        return f"The smallest detectable difference cannot be given: {_lower(controls['why'])}"
    return (
        f"A set {magnitude(kind, controls['detectable'])} {side} the average set would be detected in {often}; smaller "
        f"differences may go unnoticed."
    )


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
