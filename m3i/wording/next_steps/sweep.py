"""What would settle the question, from this sweep's own facts, with commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from m3i.wording.formats import count, percent
from m3i.wording.next_steps.step import step
from m3i.wording.sweep.limits import hurt, shown_equivalent
from m3i.wording.sweep.numbers import shift

Section = Mapping[str, Any]
FRESH = "Register it as a new sweep, on problems not looked at yet: in this folder it would be a deviation."


def next_steps(sweep: Section) -> list[dict[str, str]]:
    """Steps with `title`, `text` and `command` (empty where one command does not do it), the most urgent first."""
    steps = []
    jobs = sweep["plan"]["jobs"]
    if jobs["done"] < jobs["planned"]:
        lacking = jobs["planned"] - jobs["done"]
        steps.append(
            step(
                "Finish the sweep",
                f"{count(lacking, 'job')} of {jobs['planned']} without a result. The same command runs only what is "
                f"missing.",
                sweep["command"],
            )
        )
    if any(check["name"] == "sham" and check["passed"] is None for check in sweep["checks"]):
        steps.append(step("Run a sham arm", "A zero update through the same way to llama.cpp must change nothing.",
                           command(sweep, "sweep.others=[all,shuffled,sham]")))  # fmt: skip
    failed = [check["words"] for check in sweep["checks"] if check["passed"] is False]
    if failed and sweep["verdict"]["kind"] == "untested":
        text = f"{' '.join(failed)} Find out why, run the jobs that differ anew, and compare again."
        steps.append(step("Mend what a check found", text))
    if hurt(sweep["primary"]):
        steps.append(gentler(sweep))
    if sweep["verdict"]["kind"] in ("better", "worse"):
        text = (
            "One sweep is one draw of problems, traces and pairs. A second one, registered now, tests the claim anew."
        )
        steps.append(step("Repeat it on fresh problems", text, afresh(sweep)))
    steps += more_controls(sweep) + more_seeds(sweep) + more_problems(sweep) + more_answers(sweep)
    return steps


def gentler(sweep: Section) -> dict[str, str]:
    """Training that harms less: half the learning rate, where the trainer has one."""
    trainer = sweep["run"]["config"].get("trainer")
    rate = trainer.get("learning_rate") if isinstance(trainer, Mapping) else None
    text = (
        "On average the tested arms are worse than the base model. Find a training that helps before asking which "
        "layers."
    )
    if not isinstance(rate, float):
        return step("Train more gently", text)
    return step("Train more gently", text, afresh(sweep, f"trainer.learning_rate={rate / 2:g}"))


def more_controls(sweep: Section) -> list[dict[str, str]]:
    """Where p cannot reach alpha, or the user's effect takes more sets."""
    test, power = sweep["primary"]["test"], sweep["primary"]["power"]["controls"]
    have, n_sets = sweep["design"]["n_controls"], sweep["design"]["n_sets"]
    wanted, why = None, ""
    if test and test["floor"] > test["alpha"] + 1e-9:
        wanted = test["controls_for_alpha"]
        least = f"{wanted} are the least for {test['alpha']:g}"
        why = f"With {count(have, 'control')} p cannot be below {test['floor']:.2g}; {least}."
    elif power["required_controls"] and power["required_controls"] > have and open_question(sweep):
        wanted = power["required_controls"]
        often = percent(sweep["primary"]["power"]["power"])
        why = f"To find {effect_words(sweep)} in {often} of sweeps takes {wanted} controls."
    if wanted is None:
        return []
    if n_sets is not None and wanted > n_sets:
        text = f"{why} There are only {n_sets} other sets: run all of them, or select more or fewer layers."
        return [step("All sets that there are", text, afresh(sweep, f"sweep.n_random={n_sets}"))]
    return [step("More random arms", f"{why} {FRESH}", afresh(sweep, f"sweep.n_random={wanted}"))]


def more_seeds(sweep: Section) -> list[dict[str, str]]:
    """Fewer than three training seeds, or the user's effect takes more."""
    have = len(sweep["design"]["seeds"])
    required = sweep["primary"]["power"]["controls"]["required_seeds"]
    if have < 3:
        text = "With fewer than three training seeds the interval of the effect covers too little."
        wanted = 3
    elif required and have < required <= 10 * have and open_question(sweep):
        wanted = required
        text = f"{effect_words(sweep).capitalize()} takes {required} training seeds with everything else as it is."
    else:
        return []
    seeds = ",".join(map(str, range(wanted)))
    return [step("More training seeds", f"{text} {FRESH}", afresh(sweep, f"sweep.seeds=[{seeds}]"))]


def more_problems(sweep: Section) -> list[dict[str, str]]:
    """Problems for the user's effect: against the controls, and of one arm against the base model."""
    if not open_question(sweep):
        return []
    primary, have = sweep["primary"], sweep["primary"]["n_problems"]
    required = primary["power"]["controls"]["required_problems"]
    sign = primary["power"]["base"]["required_problems_sign"]
    parts = []
    if required and required > have:
        parts.append(f"Against the random arms {effect_words(sweep)} takes {required:,} held-out problems")
    if sign and sign > have:
        parts.append(
            f"for one arm against the base model, with one answer each, it takes {sign:,} by the exact sign test"
        )
    if not parts:
        return []
    text = f"{'; '.join(parts)} (there were {have:,})."
    power = primary["power"]["controls"]
    if required and required > have and power["required_controls"] is None and power["required_seeds"] is None:
        text += " With these problems, no number of random arms or training seeds alone is enough."
    return [step("More held-out problems", f"{text[0].upper()}{text[1:]}")]


def more_answers(sweep: Section) -> list[dict[str, str]]:
    """One generation seed only."""
    if sweep["design"]["n_generation_seeds"] > 1:
        return []
    text = "Each held-out problem answered several times; the problem stays the unit of every test."
    return [step("More generation seeds", f"{text} {FRESH}", afresh(sweep, "evaluate.seeds=[0,1,2]"))]


def open_question(sweep: Section) -> bool:
    """Neither a difference nor equivalence within a margin narrower than the effect sought is shown."""
    return sweep["verdict"]["kind"] not in ("better", "worse") and not shown_equivalent(sweep["primary"])


def effect_words(sweep: Section) -> str:
    """The effect that the user wants to find: `a shift of +0.010 (a win share of 60 % among ..., against even)`."""
    effect = sweep["primary"]["power"]["effect"]
    share = f"a win share of {percent(effect['share'])} among decided problems"
    if effect["shift"] is None:
        return share
    return f"a shift of {shift(sweep['primary']['kind'], effect['shift'])} ({share}, against even)"


def afresh(sweep: Section, *words: str) -> str:
    """The sweep with other words, on fresh problems and draws: what was seen here is not to decide what is tested.

    Empty where the problem source has no seed: then only its owner knows where other problems are.
    """
    problems = sweep["run"]["config"].get("problems")
    seed = problems.get("seed") if isinstance(problems, Mapping) else None
    if isinstance(seed, int):
        drawn = sweep["run"]["config"].get("draw_seed", 0)
        draws = [f"draw_seed={drawn + 1}"] if isinstance(drawn, int) else []
        return command(sweep, *words, f"problems.seed={seed + 1}", *draws)
    return ""


def command(sweep: Section, *words: str) -> str:
    """The sweep's command with other words in place of those that they replace."""
    replaced = {word.partition("=")[0] for word in words}
    kept = [word for word in sweep["overrides"] if word.partition("=")[0].lstrip("+~") not in replaced]
    if not any(word.lstrip("+").startswith("sweep=") for word in kept):
        kept = ["+sweep=control", *kept]
    return shlex.join(["python", "-m", "m3i", "-m", *kept, *words])
