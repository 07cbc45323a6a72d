"""The attribute stage: from one row of layer values per failure to layer scores with intervals.

Shape suffixes: N rows of an attributor, U traces (units), G problems (clusters), L layers, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3i.artifacts import Audit, Contrasts, LayerScores, ScoreRow, Telemetry, Traces
from m3i.component import plain
from m3i.errors import StageError
from m3i.interfaces import AttributionRequest, AttributionRows, Attributor, Tick
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    from m3i.stages.context import RunContext

JOINT = "joint"
"""Name of the row over all observers; no observer may have this name."""


def run(
    context: RunContext,
    alias: str,
    attributor: Attributor,
    traces: Traces,
    telemetry: Telemetry,
    audits: Mapping[str, Audit],
    contrasts: Contrasts,
) -> LayerScores:
    """Returns one attributor's score for every layer."""
    settings = context.experiment.settings.attribution

    def work(folder: Path, tick: Tick) -> LayerScores:
        request = AttributionRequest(
            target=context.session,
            contrasts=contrasts.contrasts,
            audits=audits,
            traces=traces.traces,
            telemetry=telemetry,
            tick=tick,
        )
        return aggregate(
            attributor.attribute(request),
            attributor=alias,
            n_layers=context.session.info.n_layers,
            n_bootstrap=settings.n_bootstrap,
            seed=settings.seed,
            problem_of={t.id: t.problem_id for t in traces.traces},
        )

    return context.make(
        LayerScores,
        "attribute",
        work,
        label=alias,
        component=("attributor", attributor),
        settings={**plain(settings), "alias": alias},
        inputs={
            "target": context.target_id,
            "traces": traces.id,
            "telemetry": telemetry.id,
            "contrasts": contrasts.id,
            **{f"audit {a}": audit.id for a, audit in audits.items()},
        },
        libraries=TORCH,
        made=lambda a: f"{a.joint().n_traces} traces" + (f"; top layers {_top(a, 3)}" if a.joint().n_traces else ""),
    )


def _top(scores: LayerScores, k: int) -> list[int]:
    values = scores.joint().scores
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def aggregate(
    rows: AttributionRows,
    attributor: str,
    n_layers: int,
    n_bootstrap: int = 2000,
    seed: int = 0,
    problem_of: Mapping[str, str] | None = None,
) -> LayerScores:
    """Returns each layer's mean value, per observer and joint, with a 95 % percentile bootstrap interval.

    The trace is the unit, not the finding: the joint row first averages over the observers that flag a trace, then over
    traces, so that a failure seen by two observers counts once. The bootstrap resamples whole problems, because samples
    of one prompt fail together; all layers share the resamples.

    Args:
        rows: What the attributor returned, one row per (observer, trace).
        attributor: The attributor's alias.
        n_layers: Number of layers of the target.
        n_bootstrap: Number of bootstrap resamples.
        seed: Seed of the resamples.
        problem_of: Trace id → problem id. Without it, every trace counts as a separate problem.

    Returns:
        One row per observer, sorted by name, then `joint`; for empty input, only a joint row of zeros over 0 traces.
        The artifact has no id and no parents yet.

    Raises:
        StageError: Rows of the wrong shape, a value that is not finite, or an observer called `joint`.

    Source: Efron & Tibshirani 1993, chapter 13 (percentile interval); Field & Welsh 2007 (bootstrap of clusters).
    """
    values_NL = np.asarray(rows.values_NL, dtype=np.float64)
    if len(rows.trace_ids) == 0:  # no error here: the selector may read another attributor of the panel
        nothing = (0.0,) * n_layers
        row = ScoreRow(observer=JOINT, scores=nothing, low=nothing, high=nothing, n_traces=0)
        return LayerScores(attributor=attributor, rows=(row,), left_out=dict(rows.left_out))
    if values_NL.shape != (len(rows.trace_ids), n_layers) or len(rows.observers) != len(rows.trace_ids):
        raise StageError(
            f"attributor '{attributor}' returned values of shape {values_NL.shape} for {len(rows.trace_ids)} traces, "
            f"{len(rows.observers)} observers and {n_layers} layers; expected one row per (observer, trace)"
        )
    if not np.isfinite(values_NL).all():
        n, layer = (int(i) for i in np.argwhere(~np.isfinite(values_NL))[0])
        raise StageError(
            f"attributor '{attributor}' gave {values_NL[n, layer]} for layer {layer} of trace {rows.trace_ids[n]}"
        )
    if JOINT in rows.observers:
        raise StageError(f"an observer is named '{JOINT}', like the row over all observers; give it another alias")
    grouped = {name: [i for i, o in enumerate(rows.observers) if o == name] for name in sorted(set(rows.observers))}
    grouped[JOINT] = list(range(len(rows.trace_ids)))
    return LayerScores(
        attributor=attributor,
        rows=tuple(
            _score(name, [rows.trace_ids[i] for i in members], values_NL[members], n_bootstrap, seed, problem_of or {})
            for name, members in grouped.items()
        ),
        left_out=dict(rows.left_out),
    )


def _score(
    observer: str,
    trace_ids: list[str],
    values_NL: np.ndarray,
    n_bootstrap: int,
    seed: int,
    problem_of: Mapping[str, str],
) -> ScoreRow:
    units, unit_N = np.unique(np.array(trace_ids), return_inverse=True)
    values_UL = _group_sums(values_NL, unit_N, len(units)) / np.bincount(unit_N)[:, None]
    _, cluster_U = np.unique([problem_of.get(str(t), str(t)) for t in units], return_inverse=True)
    low_L, high_L = cluster_bootstrap(values_UL, cluster_U, n_bootstrap, seed)
    return ScoreRow(
        observer=observer,
        scores=tuple(float(x) for x in values_UL.mean(axis=0)),
        low=tuple(float(x) for x in low_L),
        high=tuple(float(x) for x in high_L),
        n_traces=len(units),
    )


def cluster_bootstrap(
    values_UL: np.ndarray, cluster_U: np.ndarray, n_bootstrap: int, seed: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the percentile interval of the mean over units, resampling whole clusters with replacement.

    Args:
        values_UL: One row per unit.
        cluster_U: Cluster of each unit, 0 to G − 1, none empty.
        n_bootstrap: Number of resamples.
        seed: Seed of the resamples.
        level: Nominal coverage.

    Returns:
        Lower and upper ends, one per layer. With a single cluster both equal the mean: there is nothing to resample.
    """
    n_clusters = int(cluster_U.max()) + 1
    sums_GL = _group_sums(values_UL, cluster_U, n_clusters)
    sizes_G = np.bincount(cluster_U, minlength=n_clusters)
    rng = np.random.default_rng(seed)
    weights_RG = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_bootstrap)
    means_RL = (weights_RG @ sums_GL) / (weights_RG @ sizes_G)[:, None]
    tail = (1 - level) / 2
    low_L, high_L = np.quantile(means_RL, [tail, 1 - tail], axis=0)
    return low_L, high_L


def _group_sums(values_NL: np.ndarray, group_N: np.ndarray, n_groups: int) -> np.ndarray:
    sums_GL = np.zeros((n_groups, values_NL.shape[1]))
    np.add.at(sums_GL, group_N, values_NL)
    return sums_GL
