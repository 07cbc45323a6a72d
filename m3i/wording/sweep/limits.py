"""What a sweep without a difference is worth, and whether training itself hurt, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3i.statistics import TIE
from m3i.wording.formats import count, p_phrase, percent
from m3i.wording.sweep.numbers import magnitude, shift

Section = Mapping[str, Any]


def harm(sweep: Section) -> str:
    """That training itself hurt, or that it looks so and is not shown; empty where neither is the case.

    All arms share one sample of base answers, so that their means fall together: only the interval of the mean over
    the tested arms tells.
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
        f"{percent(estimate['level'])} interval over problems {shift(kind, estimate['low'])} to "
        f"{shift(kind, estimate['high'])}; not among the registered tests"
    )
    words = f"{who} lies {magnitude(kind, estimate['value'])} below the base model's ({interval})"
    if hurt(sweep["primary"]):
        return f"Training itself hurt: {words}, so this compares how much harm training did."
    return f"{_upper(words)}; it is not shown that training itself hurts."


def hurt(primary: Section) -> bool:
    """The mean over the tested arms lies below the base model's, and its interval excludes no change."""
    training = primary["training"]
    return training is not None and training["difference"]["high"] < 0


def shown_equivalent(primary: Section) -> bool:
    """Equivalence with the controls within a margin that is narrower than the effect sought."""
    equal = primary["equivalence"]["controls"]
    return bool(equal and equal["equivalent"] and not primary["equivalence"]["too_wide"])


def untouched(primary: Section) -> bool:
    """No comparison of any arm of the test decides anything: wins and losses that cancel are not that."""
    places = [place for place in (primary["attributed"], *primary["controls"]) if place]
    return bool(places) and all(place["tie_rate"] == 1 for place in places)


def null(primary: Section) -> str:
    """What a result that is not significant does show: equivalence, and what would have been seen."""
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
            f"problems and trainings, {p_phrase(tested['p'])})."
        )
    else:
        words = (
            f"Nor is it shown that they are equal: the {interval_words(primary)}, which is not within the registered "
            f"margin of {within} ({p_phrase(tested['p'])})."
        )
    return f"{words} {detectable_words(primary)}"


def wide_margin(primary: Section) -> str:
    """That the registered margin is no narrower than the effect sought, so that lying within it shows little."""
    kind, effect, margin = primary["kind"], primary["power"]["effect"], primary["equivalence"]["margin"]
    sought = 0.0 if effect["shift"] is None else abs(effect["shift"])
    width = "wider than" if margin - sought > TIE else "as wide as"
    return (
        f"The registered margin of ± {magnitude(kind, margin)} is {width} the effect sought, "
        f"{magnitude(kind, sought)}: a win share of {percent(effect['share'])} instead of half of the decided "
        f"problems, with {percent(effect['tie_rate'])} of comparisons undecided. Lying within that margin would not "
        f"show that the effect is absent."
    )


def interval_words(primary: Section) -> str:
    """The interval of the difference from the controls that the equivalence test takes."""
    tested, kind = primary["equivalence"]["controls"], primary["kind"]
    interval = f"{shift(kind, tested['low'])} to {shift(kind, tested['high'])}"
    return f"{percent(1 - 2 * tested['alpha'])} interval of the difference is {interval}"


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


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
