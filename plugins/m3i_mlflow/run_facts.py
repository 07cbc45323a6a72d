"""result.json as one MLflow run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .facts import Facts, Metric, identity, leaves, milliseconds, numbers

RESULT_FREE = ("tracker", "store", "ledger", "sweep")
"""Sections of the config that change no result."""


def facts(result: Mapping[str, Any]) -> Facts:
    """Parameters, metrics and tags of one run."""
    arm = result["arm"]
    return Facts(
        name=f"{arm['name']} seed {arm['seed']}",
        identity=identity(
            {
                "ids": result["ids"],
                "arm": arm,
                "m3i": result["m3i"],
                "statistics": result["statistics"],
                "config": {k: v for k, v in result["config"].items() if k not in RESULT_FREE},
            }
        ),
        created_ms=milliseconds(result["created"]),
        params={path: value for path, value in leaves(result["config"]) if path.partition(".")[0] != "tracker"},
        metrics=[*judges(result), *accuracy(result), *training(result), *times(result)],
        tags=tags(result),
    )


def judges(result: Mapping[str, Any]) -> Iterator[Metric]:
    """Counts, mean score and sign test of each judge."""
    for alias, judge in result["judges"].items():
        kept = {
            "n": judge["n"],
            "n_valid": judge["n_valid"],
            "n_problems": judge["n_problems"],
            "counts": judge["counts"],
            "mean_score": _interval(judge["mean_score"]),
            "sign_test": {name: judge["sign_test"][name] for name in ("wins", "losses", "undecided", "p", "share")},
            "flip_rate": judge["order"]["flip_rate"],
        }
        yield from numbers(kept, f"judge.{alias}")


def accuracy(result: Mapping[str, Any]) -> list[Metric]:
    """Share of correct answers of base and tuned model, and the difference."""
    section = result["accuracy"]
    kept = {side: _interval(section[side]) for side in ("base", "tuned", "difference")}
    rest = {"n": section["n"], "fixed": section["fixed"], "broken": section["broken"], "p": section["mcnemar"]["p"]}
    return numbers(kept | rest, "accuracy")


def training(result: Mapping[str, Any]) -> Iterator[Metric]:
    """The training curve by step, and what was trained."""
    for row in result["training"]["log"]:
        step = int(row["step"])
        yield from (
            Metric(name=f"train.{name}", value=float(value), step=step)
            for name, value in row.items()
            if name != "step" and value is not None
        )
    yield from numbers(
        {
            "n_pairs": result["training"]["n_pairs"],
            "n_parameters": result["parameters"]["trained"],
            "live_share": result["certificates"]["export"]["live_share"],
        },
        "train",
    )


def times(result: Mapping[str, Any]) -> Iterator[Metric]:
    """Seconds of each stage, in this run and when its artifact was made; costs, where they are known."""
    for row in result["stages"]:
        stage = ".".join(filter(None, (row["stage"], row["label"])))
        yield from numbers({"time_s": row["time_s"], "made_in_s": row["made_in_s"]}, f"stage.{stage}")
    kept = ("time_s", "made_in_s", "observers_usd", "judges_usd", "observers_calls", "judges_calls")
    yield from numbers({name: result["costs"][name] for name in kept}, "costs")


def tags(result: Mapping[str, Any]) -> dict[str, str]:
    """Tags by which runs are told apart and found."""
    arm, layers = result["arm"], result["layers"]["selected"]
    found = {
        "mlflow.note.content": result["verdict"]["sentence"],
        "m3i.version": result["m3i"],
        "m3i.arm": arm["name"],
        "m3i.kind": arm["kind"],
        "m3i.seed": str(arm["seed"]),
        "m3i.layers": " ".join(map(str, layers)),
        "m3i.models.target": result["target"]["name"],
        "m3i.verdict": result["verdict"]["kind"],
        "m3i.command": result["command"],
    }
    if arm["draw"] is not None:
        found["m3i.draw"] = str(arm["draw"])
        found["m3i.draw_seed"] = str(arm.get("draw_seed", 0))
    seen: dict[str, int] = {}
    for row in result["ids"]:
        place = ".".join(filter(None, ("m3i.store.store", row["kind"], row["name"])))
        seen[place] = seen.get(place, 0) + 1
        found[place if seen[place] == 1 else f"{place}.{seen[place]}"] = row["id"]
    return found


def _interval(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: estimate[name] for name in ("value", "low", "high")}
