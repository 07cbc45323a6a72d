"""sweep.json as one MLflow run, the parent of its arms' runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .facts import Facts, Metric, identity, leaves, milliseconds, numbers
from .run_facts import RESULT_FREE

OF_ENDPOINT = (
    "base",
    "n_problems",
    "n_left_out",
    "tie_rate",
    "controls_mean",
    "test",
    "effect",
    "equivalence",
    "power",
)
OF_DESIGN = ("n_sets", "n_controls", "n_controls_planned", "p_floor", "n_problems", "n_left_out", "alpha", "margin")


def facts(sweep: Mapping[str, Any], *, name: str) -> Facts:
    """Parameters, metrics and tags of a sweep.

    Args:
        sweep: Content of sweep.json.
        name: Name of its folder.
    """
    verdict, registered = sweep["verdict"], sweep["plan"]["registered"] or {}
    config = {k: v for k, v in sweep["run"]["config"].items() if k not in RESULT_FREE}
    asked = dict(leaves(registered, "registered")) if registered else {}
    parts = {key: sweep[key] for key in ("verdict", "plan", "design", "primary", "secondary")}
    return Facts(
        name=name,
        identity=identity({"name": name, "m3i": sweep["m3i"], "ids": sweep["run"]["ids"], **parts}),
        created_ms=milliseconds(sweep["created"]),
        params=dict(leaves(config)) | asked,
        metrics=list(metrics(sweep)),
        tags={
            "mlflow.note.content": verdict["sentence"],
            "m3i.version": sweep["m3i"],
            "m3i.verdict": verdict["kind"],
            "m3i.endpoint": sweep["primary"]["name"],
            "m3i.sweep": name,
            "m3i.layers": " ".join(map(str, sweep["design"]["attributed"])),
            "m3i.deviations": str(len(sweep["plan"]["deviations"])),
            "m3i.command": sweep["command"],
        },
    )


def metrics(sweep: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the test with its floor, effects with intervals, each control's T by draw number, jobs and times."""
    yield from numbers({name: sweep["design"][name] for name in OF_DESIGN}, "design")
    for prefix, endpoint in [("primary", sweep["primary"]), *_secondary(sweep)]:
        yield from numbers({name: endpoint[name] for name in OF_ENDPOINT}, prefix)
        if endpoint["attributed"]:
            yield from numbers({"t": endpoint["attributed"]["t"]}, f"{prefix}.attributed")
        for place in endpoint["controls"]:
            draw = int(place["arm"].rpartition("-")[2])
            if place["t"] is not None:
                yield Metric(name=f"{prefix}.control_t", value=float(place["t"]), step=draw)
    yield from numbers(sweep["plan"]["jobs"], "jobs")
    yield from numbers(sweep["costs"], "costs")


def _secondary(sweep: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for endpoint in sweep["secondary"]:
        yield f"secondary.{endpoint['name']}", endpoint
