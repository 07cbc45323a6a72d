"""A trace with numbered steps, and its telemetry as tables of layers and steps.

A step is a line that is not blank; steps count from 1. Only `\\n` ends a line.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3i.artifacts import Telemetry, Trace
from m3i.llm.prompt_fields import shown

MAX_STEPS = 20
"""Maximum steps of a trace that a digest shows."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A line that is not blank, as a character span."""

    start: int
    end: int
    """End of the span, before the newline."""


def steps_of(text: str) -> tuple[Step, ...]:
    """Returns the steps of a completion, in order; step n is element n - 1."""
    steps, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            steps.append(Step(start=start, end=start + len(line)))
        start += len(line) + 1
    return tuple(steps)


def step_at(steps: Sequence[Step], position: int) -> int:
    """Returns the number of the step a character is in: the last that begins at or before it, or 1 if none does."""
    return max(1, bisect.bisect_right([step.start for step in steps], position))


def numbered(text: str) -> str:
    """Returns the text as a prompt shows it, with `1| ` before the first step and so on; blank lines get no number."""
    lines, number = [], 0
    for line in text.split("\n"):
        if line.strip():
            number += 1
            lines.append(f"{number}| {shown(line)}")
        else:
            lines.append(shown(line))
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """One table: its title and its values per layer and token."""

    title: str
    values_LS: np.ndarray
    layers: tuple[int, ...]


def telemetry_digest(telemetry: Telemetry, trace: Trace) -> str | None:
    """Returns what each layer does in each step of a trace, as tables of integers; None if it was not measured.

    A cell is the rounded mean over the step's tokens, its newline included. Only the first `MAX_STEPS` steps are shown;
    if there are more, the text says so.
    """
    if trace.id not in telemetry.trace_ids:
        return None
    columns = telemetry.columns(trace.id)
    step_T = token_steps(trace)[: columns.stop - columns.start]
    shown_steps = [n for n in range(1, MAX_STEPS + 1) if n in step_T]
    if not shown_steps:
        return None
    tables = []
    for measure in _measures(telemetry, columns):
        header = "layer " + " ".join(f"s{n}" for n in shown_steps)
        means_LN = np.stack([measure.values_LS[:, np.array(step_T) == n].mean(axis=1) for n in shown_steps], axis=1)
        rows = [
            f"{layer} " + " ".join(_whole(v) for v in row) for layer, row in zip(measure.layers, means_LN, strict=True)
        ]
        tables.append("\n".join([measure.title, header, *rows]))
    last = max(step_T)
    if last > MAX_STEPS:
        tables.append(f"Steps {MAX_STEPS + 1} to {last} are not in the tables.")
    return "\n\n".join(tables)


def token_steps(trace: Trace) -> list[int]:
    """Returns the step number of each completion token; a token without text belongs to the step before it."""
    steps = steps_of(trace.text)
    result: list[int] = []
    for start, end in trace.offsets:
        if start == end:
            result.append(result[-1] if result else 1)
            continue
        # The first character that is not white space decides: "\n7" begins the next step.
        lead = len(trace.text[start:end]) - len(trace.text[start:end].lstrip())
        result.append(step_at(steps, start + lead if start + lead < end else start))
    return result


def _measures(telemetry: Telemetry, columns: slice) -> list[_Measure]:
    """Returns the tables in order; the router table only if the model has routers."""
    every = tuple(range(telemetry.lens_rank_LS.shape[0]))
    rank_LS = np.log2(1.0 + telemetry.lens_rank_LS[:, columns].astype(np.float64))
    tables = [
        ("lens rank: log2(1 + rank) of the token that came next, tenths of a bit", rank_LS * 10, every),
        ("lens entropy, tenths of a nat", telemetry.lens_entropy_LS[:, columns] * 10, every),
        ("residual update |h - h_before| / |h_before|, per cent", telemetry.update_norm_LS[:, columns] * 100, every),
        ("attention entropy, tenths of a nat", telemetry.attention_entropy_LS[:, columns] * 10, every),
    ]
    if telemetry.moe_layers:
        tables.append(
            ("router entropy, tenths of a nat", telemetry.router_entropy_RS[:, columns] * 10, telemetry.moe_layers)
        )
    return [_Measure(title=title, values_LS=np.asarray(v, np.float64), layers=layers) for title, v, layers in tables]


def _whole(value: float) -> str:
    return str(round(value)) if np.isfinite(value) else "?"
