"""The attributed arm against its controls, on one endpoint: test, effect, equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from m3i.statistics import (
    LEAST_DECIDED,
    TIE,
    control_effect,
    controls_for,
    distinct_controls,
    equivalence,
    gatekept,
    randomization_test,
    tost,
)
from m3i.sweep.contrasts import against_base, paired_effect, shuffled_effect, training_effect
from m3i.sweep.design import Design
from m3i.sweep.endpoints import Endpoint, same_order
from m3i.sweep.power import power_section, too_wide

Rows = Sequence[Mapping[str, Any]]


def endpoint_section(end: Endpoint, design: Design, arms: Rows, refused: str = "") -> dict[str, Any]:
    """Returns the section of one endpoint: test, effect, equivalence, power and comparisons.

    Args:
        end: Its values.
        design: Arms and seeds of the test.
        arms: Rows of all arms (m3i.sweep.arms).
        refused: Why a failed check rules out a valid test (m3i.sweep.checks.refusal); empty where none does.
    """
    why = refused or untested(end, design, arms)
    tested = not why
    controls = [row for row in arms if row["arm"] in design.controls]
    section: dict[str, Any] = {
        "name": end.name,
        "kind": "score" if end.judge else "accuracy",
        "judge": end.judge,
        "words": words_of(end),
        "base": float(end.base_PG.mean()) if end.problems else None,
        "n_problems": len(end.problems),
        "n_left_out": len(end.left_out),
        "left_out": list(end.left_out),
        "tie_rate": tie_rate(end, "attributed", design.seeds),
        "attributed": _place(end, "attributed", design, arms),
        "controls": [_place(end, row["arm"], design, arms) for row in controls],
        "others": [
            _place(end, row["arm"], design, arms) for row in arms if row["arm"] not in (*design.controls, "attributed")
        ],
        "controls_mean": _mean([end.t(row["arm"], design.seeds) for row in controls] if end.problems else []),
        "why": why,
        "test": _test(end, design) if tested else None,
        "effect": _effect(end, design) if tested else None,
    }
    section |= {
        "training": training_effect(end, design),
        "against_base": against_base(end, design),
        "shuffled": shuffled_effect(end, design, arms),
    }
    section["power"] = power_section(end, design, section["tie_rate"])
    section["equivalence"] = _equivalence(end, design, section["effect"])
    section["equivalence"]["too_wide"] = too_wide(design.margin, section["power"]["effect"])
    return section


def words_of(end: Endpoint) -> str:
    """Returns what T is, as the subject of a sentence."""
    return f"mean score by judge '{end.judge}'" if end.judge else "share of correct answers by the verifier"


def untested(end: Endpoint, design: Design, arms: Rows) -> str:
    """Returns why no randomization test can be made; empty if one can."""
    if not design.seeds:
        return "The attributed arm has no result at any of the planned training seeds."
    if not design.controls:
        seeds = ", ".join(map(str, design.seeds))
        return f"No random arm has a result at each of the training seeds {seeds}: there is nothing to compare with."
    if len(end.problems) < 2:
        return (
            f"{len(end.left_out)} of {len(end.left_out) + len(end.problems)} held-out problems lack a judgement in "
            f"some arm of the test, so that {len(end.problems) or 'none'} is left for the comparison."
        )
    if any(row["arm"] == "attributed" and row["zero_update"] for row in arms):
        return "The attributed arm is a zero update but the random arms are trained, so layers are not compared."
    layers = {row["arm"]: row["layers"] for row in arms}
    sets = [layers[arm] for arm in design.controls]
    try:
        distinct_controls(attributed=layers["attributed"], controls=sets, population=design.candidates)
    except ValueError as error:
        return f"The controls are not valid for a randomization test: {error}."
    return ""


def _place(end: Endpoint, arm: str, design: Design, arms: Rows) -> dict[str, Any] | None:
    """Returns T of one arm with its layers; None for an arm without a result."""
    row = next((row for row in arms if row["arm"] == arm), None)
    if row is None:
        return None
    tested = arm in design.controls or arm == "attributed"
    seeds = [seed for seed in row["seeds"] if seed in design.seeds] if tested else row["seeds"]
    t, n = end.own_t(arm, seeds)
    return {
        "arm": arm,
        "kind": row["kind"],
        "layers": row["layers"],
        "seeds": seeds,
        "n": n,
        "t": t,
        "tie_rate": tie_rate(end, arm, seeds) if tested else None,
        "by_seed": [{"seed": s, "t": end.own_t(arm, [s])[0]} for s in seeds],
    }


def tie_rate(end: Endpoint, arm: str, seeds: Sequence[int]) -> float | None:
    """Returns the share of a tested arm's comparisons that decide nothing; None without one."""
    if not end.problems or not seeds:
        return None
    shift = end.shift_SPG(arm, seeds) - end.neutral
    return float((np.abs(shift) < TIE).mean())


def decided_problems(shift_SPG: npt.NDArray[np.float64]) -> int:
    """Returns the number of problems with at least one decided comparison."""
    return int((np.abs(shift_SPG) >= TIE).any(axis=(0, 2)).sum())


def _test(end: Endpoint, design: Design) -> dict[str, Any]:
    test = randomization_test(
        attributed=end.t("attributed", design.seeds),
        controls=[end.t(arm, design.seeds) for arm in design.controls],
        alternative=design.alternative,  # type: ignore[arg-type]  # checked by SweepSettings
    )
    return asdict(test) | {
        "alpha": design.alpha,
        "significant": test.p <= design.alpha,
        "controls_for_alpha": controls_for(design.alpha),
    }


def _effect(end: Endpoint, design: Design) -> dict[str, Any]:
    effect = control_effect(
        attributed_SP=end.arm_SPG("attributed", design.seeds).mean(axis=2),
        controls_RSP=np.stack([end.arm_SPG(arm, design.seeds).mean(axis=2) for arm in design.controls]),
        level=design.level,
    )
    return asdict(effect)


def _equivalence(end: Endpoint, design: Design, effect: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tests equivalence of the attributed arm with the base model and with the controls, or says why it cannot."""
    section: dict[str, Any] = {"margin": design.margin, "base": None, "base_why": "", "controls": None}
    section["controls_why"] = ""
    if not end.problems or not design.seeds:
        section["base_why"] = section["controls_why"] = "The attributed arm has no problem to compare on."
        return section
    shift_SPG = end.shift_SPG("attributed", design.seeds)
    S, P, G = shift_SPG.shape
    section["base"] = asdict(
        equivalence(
            problems=np.tile(np.repeat(np.arange(P), G), S).tolist(),
            scores=shift_SPG.reshape(-1).tolist(),
            margin=design.margin,
            alpha=design.alpha,
            neutral=end.neutral,
            reach=end.reach,
        )
    )
    if effect is None:
        section["controls_why"] = "There is no valid set of controls to compare with."
    elif (decided := decided_problems(shift_SPG - end.neutral)) < LEAST_DECIDED:
        section["controls_why"] = (
            f"The attributed arm decides {decided or 'none'} of {P} problems; a t test of equivalence needs "
            f"{LEAST_DECIDED} or more, since with fewer the spread does not reflect rare wins."
        )
    elif not effect["se"] > 0:
        section["controls_why"] = (
            "The attributed arm differs from the mean of its controls by the same amount on every problem and at every "
            "training seed, so nothing shows how much other problems would change that."
        )
    else:
        section["controls"] = asdict(
            tost(
                value=effect["difference"]["value"],
                se=effect["se"],
                df=effect["df"],
                margin=design.margin,
                alpha=design.alpha,
            )
        )
    return section


def contrast_section(end: Endpoint, design: Design, arms: Rows) -> dict[str, Any] | None:
    """Returns T of the arms that exclude the attributed layers and the difference from their mean, without a p.

    None where no such arm ran.
    """
    names = [row["arm"] for row in arms if row["kind"] == "excluding"]
    if not names:
        return None
    seeds = {row["arm"]: set(row["seeds"]) for row in arms}
    whole = [name for name in names if design.seeds and seeds[name] >= set(design.seeds)]
    effect = paired_effect(end, whole, design.seeds, design.level) if whole else None
    return {
        "endpoint": end.name,
        "arms": [_place(end, name, design, arms) for name in names],
        "compared": whole,
        "difference": effect,
        "why": ""
        if effect
        else "Fewer than two problems have a judgement in all of these arms."
        if whole
        else "No excluding arm has a result at each training seed of the test.",
        "words": (
            "These sets exclude every attributed layer, so they are not draws from all sets, and a p over them would "
            "be significant too often. They show how sets without any attributed layer perform."
        ),
    }


def secondary_sections(
    primary: Mapping[str, Any], ends: Sequence[Endpoint], design: Design, arms: Rows, refused: str = ""
) -> list[dict[str, Any]]:
    """Returns the other endpoints with their gatekept p.

    Args:
        primary: Section of the primary endpoint.
        ends: The primary endpoint and then the others.
        design: Arms and seeds of the test.
        arms: Rows of all arms.
        refused: As in `endpoint_section`.

    Returns:
        As `endpoint_section` with `adjusted`, `significant` and `same_as`: an endpoint that only restates an earlier
        one on another scale is no second test, so Holm does not count it.
    """
    sections = [endpoint_section(end, design, arms, refused) for end in ends[1:]]
    for i, section in enumerate(sections):
        section["same_as"] = next((e.name for e in ends[: i + 1] if same_order(ends[i + 1], e)), None)
    own = [s["test"]["p"] if s["test"] and not s["same_as"] else None for s in sections]
    if primary["test"] is None:
        return [s | {"adjusted": None, "significant": False} for s in sections]
    gate = gatekept(primary["test"]["p"], own, design.alpha)
    return [
        section | {"adjusted": adjusted, "significant": significant}
        for section, adjusted, significant in zip(sections, gate.adjusted, gate.secondary, strict=True)
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
