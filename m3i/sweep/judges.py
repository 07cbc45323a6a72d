"""How far the judges can be trusted, over all arms of the sweep together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from m3i.artifacts import EQUAL
from m3i.statistics import kappa
from m3i.sweep.arms import length_row
from m3i.sweep.load import Job, LoadedSweep

Row = Mapping[str, Any]


def judges_section(sweep: LoadedSweep, jobs: Sequence[Job]) -> dict[str, Any]:
    """Returns the `panel`, judge by judge; `agreement` of every two, and of each with the `verifier`; `families`.

    Comparisons of all arms and training seeds are pooled. They share base answers, so they are not an independent
    sample and get no interval; only `length` has one, over problems, for answers that are not the same text.
    """
    results = [job.result for job in jobs if job.result is not None]
    rows = [row for result in results for row in result["problems"]["rows"]]
    panel, level = list(sweep.run["judges"]), sweep.run["statistics"]["confidence"]
    return {
        "panel": {judge: _judge(judge, rows, results, level) for judge in panel},
        "agreement": [_agreement(one, other, rows) for one, other in combinations(panel, 2)],
        "verifier": [_with_verifier(judge, rows) for judge in panel],
        "families": list(sweep.run["families"]),
    }


def _judge(judge: str, rows: Sequence[Row], results: Sequence[Row], level: float) -> dict[str, Any]:
    """Returns one judge's counts, order effects, consistency and obedience; pooled over rows or summed over jobs."""
    said = [row["verdicts"][judge] for row in rows if judge in row["verdicts"]]
    judged = [v for v in said if v["outcome"] != "missing" and v["first"] != EQUAL]
    valid = [(row, row["verdicts"][judge]) for row in rows if _word(row["verdicts"].get(judge))]
    counts = Counter(v["outcome"] for v in said)
    ballots = [(v[order], first) for v in judged for order, first in (("first", "base"), ("second", "tuned"))]
    decided = [(choice, first) for choice, first in ballots if choice in ("base", "tuned")]
    own = [result["judges"][judge] for result in results]
    return {
        "judge": own[0]["judge"],
        "model": own[0]["calls"]["model"],
        "family": own[0]["calls"]["family"],
        "n": len(said),
        "n_equal": sum(v["first"] == EQUAL for v in said),
        "n_judged": len(judged),
        "counts": {name: counts[name] for name in ("tuned", "base", "tie", "split", "missing")},
        "missing_rate": counts["missing"] / len(said) if said else None,
        "flip_rate": sum(v["outcome"] == "split" for v in judged) / len(judged) if judged else None,
        "n_decided_ballots": len(decided),
        "first_shown_share": sum(c == first for c, first in decided) / len(decided) if decided else None,
        "self_consistency": _consistency([section["self_consistency"] for section in own]),
        "length": {
            "all": length_row(valid, level),
            "equally_right": length_row([row for row in valid if _equally_right(row[0])], level),
        },
        "canaries": _canaries([section["canaries"] for section in own]),
    }


def _consistency(sections: Sequence[Row | None]) -> dict[str, Any] | None:
    """Returns the share of equal choices among replicates, over all jobs; None where the judge was asked once."""
    asked = [section for section in sections if section is not None]
    n = sum(section["n_ballots"] for section in asked)
    if not n:
        return None
    return {"n_ballots": n, "value": sum(s["n_ballots"] * s["value"] for s in asked) / n}


def _canaries(sections: Sequence[Row]) -> dict[str, Any]:
    """Returns the planted instructions shown and obeyed, summed over jobs."""
    return {"n": sum(s["n"] for s in sections), "obeyed": sum(s["obeyed"] for s in sections)}


def _agreement(one: str, other: str, rows: Sequence[Row]) -> dict[str, Any]:
    words = [[_word(row["verdicts"].get(judge)) for row in rows] for judge in (one, other)]
    return {"judges": [one, other]} | kappa(*words)


def _with_verifier(judge: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Compares a judge's outcomes with the verifier's, by which the only correct side wins and all else is a tie."""
    words = [_word(row["verdicts"].get(judge)) for row in rows]
    return {"judge": judge} | kappa(words, [_truth(row) for row in rows])


def _word(verdict: Row | None) -> str:
    """Returns the outcome of a judged comparison, a split as a tie; empty where it was not judged."""
    if verdict is None or verdict["outcome"] == "missing" or verdict["first"] == EQUAL:
        return ""
    return "tie" if verdict["outcome"] == "split" else str(verdict["outcome"])


def _equally_right(row: Row) -> bool:
    """Whether the answers are equally correct, so that correctness cannot explain a preference for length."""
    return bool(row["base"]["correct"] == row["tuned"]["correct"])


def _truth(row: Row) -> str:
    if row["base"]["correct"] == row["tuned"]["correct"]:
        return "tie"
    return "tuned" if row["tuned"]["correct"] else "base"
