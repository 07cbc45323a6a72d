"""Builds the content of sweep.json from the results of a sweep's jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import m3i
from m3i.sweep.arms import arm_rows
from m3i.sweep.checks import checks_section, refusal
from m3i.sweep.costs import costs_section
from m3i.sweep.design import Design, design_of, deviations, registered
from m3i.sweep.endpoints import comparable, endpoint, endpoint_names
from m3i.sweep.judges import judges_section
from m3i.sweep.load import Job, LoadedSweep
from m3i.sweep.problems import problem_rows
from m3i.sweep.variance import variance_section
from m3i.sweep.verdict import contrast_section, endpoint_section, secondary_sections
from m3i.wording.caveats.sweep import caveats
from m3i.wording.next_steps.sweep import next_steps
from m3i.wording.sweep.verdict import verdict_section

FORMAT = 2
"""Layout of sweep.json; raised when a field changes its meaning."""
OTHER_QUESTIONS = "not comparable: its held-out problems or its judges differ from those of the attributed arm"


def build_sweep(sweep: LoadedSweep, *, created: str = "") -> dict[str, Any]:
    """The content of sweep.json; its fields are declared in `m3i.sweep.schema`.

    Args:
        sweep: From `load_sweep`.
        created: Time of the comparison; now when empty.
    """
    jobs, others = comparable(sweep)
    design = design_of(sweep, jobs)
    ends = [endpoint(name, sweep, jobs, design) for name in endpoint_names(sweep, design)]
    accuracy = next(end for end in ends if not end.judge)
    arms = arm_rows(jobs, ends, design)
    plan, refused = sweep.plan or {}, refusal(jobs, design, arms)
    document: dict[str, Any] = {
        "format": FORMAT,
        "m3i": m3i.__version__,
        "created": created or time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": plan.get("command") or sweep.run["command"],
        "overrides": list(plan.get("overrides") or []),
        "name": sweep.folder.resolve().name,
        "plan": plan_section(sweep, jobs),
        "design": design_section(sweep, design),
        "primary": endpoint_section(ends[0], design, arms, refused),
    }
    document["secondary"] = secondary_sections(document["primary"], ends, design, arms, refused)
    document["design"] |= {name: document["primary"][name] for name in ("n_problems", "n_left_out")}
    document |= {
        "arms": arms,
        "contrast": contrast_section(ends[0], design, arms),
        "variance": variance_section(ends, design),
        "judges": judges_section(sweep, jobs),
        "checks": checks_section(jobs, design, arms),
        "problems": problem_rows(sweep, ends[0], accuracy, design),
        "costs": costs_section(jobs, sweep.run),
        "failures": failures_section(sweep, others),
    }
    document["run"] = dict(sweep.run)
    document["verdict"] = verdict_section(document)
    document["caveats"] = caveats(document)
    document["next"] = next_steps(document)
    return document


def plan_section(sweep: LoadedSweep, jobs: Sequence[Job]) -> dict[str, Any]:
    """Returns the binding registration, the deviations from it, and the number of jobs by state."""
    states = [job.state for job in sweep.jobs]
    return {
        "registered": registered(sweep),
        "registrations": len(sweep.plan["registrations"]) if sweep.plan else 0,
        "deviations": deviations(sweep),
        "jobs": {
            "planned": len(states),
            "done": len(jobs),
            "failed": states.count("failed") + states.count("unreadable") + states.count("done") - len(jobs),
            "missing": states.count("missing"),
        },
    }


def design_section(sweep: LoadedSweep, design: Design) -> dict[str, Any]:
    """Returns sizes, layers and the rules of the test."""
    n_sets = design.n_sets
    return {
        "target": sweep.run["target"]["name"],
        "n_layers": sweep.run["layers"]["n"],
        "attributed": list(design.attributed),
        "candidates": list(design.candidates),
        "k": len(design.attributed),
        "n_sets": n_sets,
        "n_controls": len(design.controls),
        "n_controls_planned": len(design.planned_controls),
        "enumerated": n_sets is not None and len(design.controls) == n_sets,
        "unregistered": list(design.unregistered),
        "other_attributed": list(design.other_attributed),
        "incomplete": list(design.incomplete),
        "planned_seeds": list(design.planned_seeds),
        "seeds": list(design.seeds),
        "generation_seeds": list(design.generation_seeds),
        "n_generation_seeds": len(design.generation_seeds),
        "primary": design.primary,
        "judge": design.judge,
        "alternative": design.alternative,
        "alpha": design.alpha,
        "margin": design.margin,
        "effect": design.effect,
        "level": design.level,
        "power": design.power,
        "p_floor": 1 / (len(design.controls) + 1) if design.controls else None,
    }


def failures_section(sweep: LoadedSweep, others: Sequence[Job]) -> list[dict[str, Any]]:
    """Lists every job without a comparable result, and why."""
    left_out = {(job.arm, job.seed) for job in others}
    return [
        {
            "arm": job.arm,
            "seed": job.seed,
            "folder": job.folder,
            "state": "incomparable" if (job.arm, job.seed) in left_out else job.state,
            "error": OTHER_QUESTIONS if (job.arm, job.seed) in left_out else job.error,
        }
        for job in sweep.jobs
        if job.state != "done" or (job.arm, job.seed) in left_out
    ]


def to_json(document: Mapping[str, Any]) -> str:
    """Returns the text of sweep.json. Raises ValueError on a number that is not finite."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
