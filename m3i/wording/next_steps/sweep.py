"""What would settle a sweep's open questions, from its own numbers, with commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from m3i.wording.formats import count, percent
from m3i.wording.next_steps.step import step
from m3i.wording.sweep.limits import hurt, shown_equivalent
from m3i.wording.sweep.numbers import shift

Section = Mapping[str, Any]
FRESH = "Register it as a new sweep on fresh problems; in this folder it would be a deviation from the plan."


def next_steps(sweep: Section) -> list[dict[str, str]]:
    """Steps with `title`, `text` and `command` (empty where no single command does it), the most urgent first."""
    steps = []
    jobs = sweep["plan"]["jobs"]
    if jobs["done"] < jobs["planned"]:
        lacking = jobs["planned"] - jobs["done"]
        steps.append(
            step(
                "Finish the sweep",
                f"{count(lacking, 'job')} of {jobs['planned']} without a result. The same command runs only the "
                f"missing jobs.",
                sweep["command"],
            )
        )
    if any(check["name"] == "sham" and check["passed"] is None for check in sweep["checks"]):
        steps.append(step("Run a sham arm", "A zero update exported to llama.cpp in the same way must change nothing.",
                           command(sweep, "sweep.others=[all,shuffled,sham]")))  # fmt: skip
    failed = [check["words"] for check in sweep["checks"] if check["passed"] is False]
    if failed and sweep["verdict"]["kind"] == "untested":
        text = f"{' '.join(failed)} Find out why, rerun the jobs that differ, and compare again."
        steps.append(step("Fix what a check found", text))
    if hurt(sweep["primary"]):
        steps.append(gentler(sweep))
    if sweep["verdict"]["kind"] in ("better", "worse"):
        text = (
            "One sweep is one draw of problems, traces and pairs. A second one, registered now, tests the claim again."
        )
        steps.append(step("Repeat it on fresh problems", text, afresh(sweep)))
    steps += more_controls(sweep) + more_seeds(sweep) + more_problems(sweep) + more_answers(sweep)
    return steps


def gentler(sweep: Section) -> dict[str, str]:
    """A step towards training that harms less: half the learning rate, if the trainer has one."""
    trainer = sweep["run"]["config"].get("trainer")
    rate = trainer.get("learning_rate") if isinstance(trainer, Mapping) else None
    text = (
        "On average the tested arms are worse than the base model. Find training settings that help before asking "
        "which layers matter."
    )
    if not isinstance(rate, float):
        return step("Train more gently", text)
    return step("Train more gently", text, afresh(sweep, f"trainer.learning_rate={rate / 2:g}"))


def more_controls(sweep: Section) -> list[dict[str, str]]:
    """A step where p cannot reach alpha or the effect sought takes more random sets."""
    test, power = sweep["primary"]["test"], sweep["primary"]["power"]["controls"]
    have, n_sets = sweep["design"]["n_controls"], sweep["design"]["n_sets"]
    wanted, why = None, ""
    if test and test["floor"] > test["alpha"] + 1e-9:
        wanted = test["controls_for_alpha"]
        least = f"reaching {test['alpha']:g} takes at least {wanted}"
        why = f"With {count(have, 'control')}, p cannot be below {test['floor']:.2g}; {least}."
    elif power["required_controls"] and power["required_controls"] > have and open_question(sweep):
        wanted = power["required_controls"]
        often = percent(sweep["primary"]["power"]["power"])
        why = f"Detecting {effect_words(sweep)} in {often} of such sweeps takes {wanted} controls."
    if wanted is None:
        return []
    if n_sets is not None and wanted > n_sets:
        text = f"{why} Only {n_sets} other sets exist: run all of them, or select more or fewer layers."
        return [step("All possible sets", text, afresh(sweep, f"sweep.n_random={n_sets}"))]
    return [step("More random arms", f"{why} {FRESH}", afresh(sweep, f"sweep.n_random={wanted}"))]


def more_seeds(sweep: Section) -> list[dict[str, str]]:
    """A step where there are fewer than three training seeds or the effect sought takes more."""
    have = len(sweep["design"]["seeds"])
    required = sweep["primary"]["power"]["controls"]["required_seeds"]
    if have < 3:
        text = "With fewer than three training seeds, the interval of the effect is too narrow."
        wanted = 3
    elif required and have < required <= 10 * have and open_question(sweep):
        wanted = required
        text = f"Detecting {effect_words(sweep)} takes {required} training seeds with everything else unchanged."
    else:
        return []
    seeds = ",".join(map(str, range(wanted)))
    return [step("More training seeds", f"{text} {FRESH}", afresh(sweep, f"sweep.seeds=[{seeds}]"))]


def more_problems(sweep: Section) -> list[dict[str, str]]:
    """Problems needed for the effect sought: against the controls, and for one arm against the base model."""
    if not open_question(sweep):
        return []
    primary, have = sweep["primary"], sweep["primary"]["n_problems"]
    required = primary["power"]["controls"]["required_problems"]
    sign = primary["power"]["base"]["required_problems_sign"]
    parts = []
    if required and required > have:
        parts.append(f"Against the random arms, detecting {effect_words(sweep)} takes {required:,} held-out problems")
    if sign and sign > have:
        parts.append(
            f"detecting the effect sought in one arm against the base model, with one answer per problem, takes "
            f"{sign:,} by the exact sign test"
        )
    if not parts:
        return []
    text = f"{'; '.join(parts)} (there were {have:,})."
    power = primary["power"]["controls"]
    if required and required > have and power["required_controls"] is None and power["required_seeds"] is None:
        text += (
            " With the present problems, neither more random arms alone nor more training seeds alone would suffice."
        )
    return [step("More held-out problems", f"{text[0].upper()}{text[1:]}")]


def more_answers(sweep: Section) -> list[dict[str, str]]:
    """A step where there is only one generation seed."""
    if sweep["design"]["n_generation_seeds"] > 1:
        return []
    text = "Answer each held-out problem several times; the problem remains the unit of every test."
    return [step("More generation seeds", f"{text} {FRESH}", afresh(sweep, "evaluate.seeds=[0,1,2]"))]


def open_question(sweep: Section) -> bool:
    """Whether neither a difference nor equivalence within a margin narrower than the effect sought is shown."""
    return sweep["verdict"]["kind"] not in ("better", "worse") and not shown_equivalent(sweep["primary"])


def effect_words(sweep: Section) -> str:
    """The effect sought: `a shift of +0.010 (a win share of 60 % among decided problems rather than 50 %)`."""
    effect = sweep["primary"]["power"]["effect"]
    share = f"a win share of {percent(effect['share'])} among decided problems"
    if effect["shift"] is None:
        return share
    return f"a shift of {shift(sweep['primary']['kind'], effect['shift'])} ({share} rather than 50\u00a0%)"


def afresh(sweep: Section, *words: str) -> str:
    """The sweep's command with `words` added, on fresh problems and draws, so that no test reuses data seen here.

    Empty where the problem source has no seed: then only the user knows where to get other problems.
    """
    problems = sweep["run"]["config"].get("problems")
    seed = problems.get("seed") if isinstance(problems, Mapping) else None
    if isinstance(seed, int):
        drawn = sweep["run"]["config"].get("draw_seed", 0)
        draws = [f"draw_seed={drawn + 1}"] if isinstance(drawn, int) else []
        return command(sweep, *words, f"problems.seed={seed + 1}", *draws)
    return ""


def command(sweep: Section, *words: str) -> str:
    """The sweep's command with `words` added in place of the overrides that they replace."""
    replaced = {word.partition("=")[0] for word in words}
    kept = [word for word in sweep["overrides"] if word.partition("=")[0].lstrip("+~") not in replaced]
    if not any(word.lstrip("+").startswith("sweep=") for word in kept):
        kept = ["+sweep=control", *kept]
    return shlex.join(["python", "-m", "m3i", "-m", *kept, *words])
