"""What existed before the plan: a registration after the fact must not look like a preregistration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from m3i.sweep.load import Job

REGISTERED = "%Y-%m-%d %H:%M:%S%z"
MADE = "%Y-%m-%dT%H:%M:%SZ%z"


def trained_before(jobs: Sequence[Job], registration: Mapping[str, Any]) -> list[str]:
    """Returns a sentence where adapters are older than the plan; none where all are newer, or no time is known.

    The store returns in seconds what an earlier command made in any folder. A new folder can therefore have a clean
    plan although its results were known; the age of the adapters shows it.

    Args:
        jobs: The jobs that are done.
        registration: The first registration.
    """
    try:
        at = datetime.strptime(registration["at"], REGISTERED)
    except (KeyError, TypeError, ValueError):
        return []
    times = [made for job in jobs for made in [_trained_at(job)] if made is not None]
    older = sorted(made for made in times if made < at)
    if not older:
        return []
    return [
        f"{len(older)} of {len(times)} adapters were trained before this plan was registered ({registration['at']}), "
        f"the first of them at {older[0].strftime(REGISTERED)}, so their results could have been known."
    ]


def _trained_at(job: Job) -> datetime | None:
    stages = job.result["stages"] if job.result else []
    for stage in stages:
        if stage["stage"] == "train" and stage.get("made_at"):
            return datetime.strptime(stage["made_at"] + "+0000", MADE)
    return None
