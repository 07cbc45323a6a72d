"""The columns of results.parquet and results.csv: name, type, meaning, and where in result.json they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from m3i.artifacts import SCORES
from m3i.results.schema import LARGEST


class Kind(str, Enum):
    """Type of a column, by its name in Arrow."""

    TEXT = "string"
    INTEGER = "int64"
    NUMBER = "double"
    FLAG = "bool"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One result.json, with what the file itself does not tell."""

    result: Mapping[str, Any]
    sweep: str | None
    folder: str
    ids: Mapping[tuple[str, str], list[str]]
    """(Kind, name) of an artifact → ids, in the order of the stages."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One judge's verdict on one problem under one generation seed."""

    run: Run
    row: Mapping[str, Any]
    """The problem's row in result.json."""
    judge: str
    place: int
    """The judge's place in the panel, from 0."""

    @property
    def verdict(self) -> Mapping[str, Any]:
        """The judge's verdict."""
        found: Mapping[str, Any] = self.row["verdicts"][self.judge]
        return found


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    meaning: str
    value: Callable[[Judgement], Any]


def joined(values: Iterable[object]) -> str:
    """Several values in one cell, separated by spaces."""
    return " ".join(map(str, values))


def word(text: str | None) -> str | None:
    """The text; None for an empty one, which a CSV file could not tell from it."""
    return text or None


def _of_run(kind: Kind, name: str, meaning: str, value: Callable[[Run], Any]) -> Column:
    return Column(name=name, kind=kind, meaning=meaning, value=lambda j: value(j.run))


def _of_arm(kind: Kind, name: str, field: str, meaning: str) -> Column:
    return _of_run(kind, name, meaning, lambda run: run.result["arm"][field])


def _of_judgement(kind: Kind, name: str, meaning: str, value: Callable[[Judgement], Any]) -> Column:
    return Column(name=name, kind=kind, meaning=meaning, value=value)


def _of_sides(kind: Kind, name: str, meaning: str, value: Callable[[Mapping[str, Any]], Any]) -> list[Column]:
    """Two columns: the same fact about the base model's and the tuned model's answer."""

    def column(side: str) -> Column:
        words = meaning.format(f"the {side} model's answer")
        return _of_judgement(kind, f"{side}_{name}", words, lambda j: value(j.row[side]))

    return [column("base"), column("tuned")]


def _of_calls(name: str, field: str, meaning: str) -> Column:
    return _of_judgement(
        Kind.TEXT, name, meaning, lambda j: word(j.run.result["judges"][j.judge]["calls"].get(field, ""))
    )


def _id(name: str, kind: str, meaning: str, place: int = 0) -> Column:
    return _of_run(Kind.TEXT, name, f"Id in the store of {meaning}.", lambda run: run.ids[kind, ""][place])


def _setting(kind: Kind, name: str, field: str, meaning: str) -> Column:
    return _of_run(kind, name, meaning, lambda run: run.result["statistics"][field])


COLUMNS: tuple[Column, ...] = (
    _of_run(Kind.TEXT, "sweep", "Name of the sweep's folder; missing for a run outside a sweep.", lambda r: r.sweep),
    _of_run(
        Kind.TEXT,
        "run",
        "Folder of the run's result.json, relative to the sweep, else to the exported folder. With `sweep` it "
        "identifies a run.",
        lambda r: r.folder,
    ),
    _of_run(Kind.TEXT, "created", "When the run ended.", lambda r: r.result["created"]),
    _of_arm(Kind.TEXT, "arm", "name", "Name of the arm, as in the config: `attributed`, `random-3`, `sham`."),
    _of_arm(
        Kind.TEXT, "kind", "kind", "Kind of the arm: `attributed`, `random`, `excluding`, `all`, `shuffled`, `sham`."
    ),
    _of_arm(Kind.INTEGER, "draw", "draw", "Number of the layer draw, from 0; missing for arms that are not drawn."),
    _of_arm(Kind.INTEGER, "training_seed", "seed", "Training seed."),
    _of_run(
        Kind.TEXT,
        "layers",
        "Layers trained, ascending, separated by spaces.",
        lambda r: joined(r.result["layers"]["selected"]),
    ),
    _of_run(
        Kind.TEXT,
        "attributed_layers",
        "Layers of the attributed set, from which the arm is derived.",
        lambda r: joined(r.result["arm"]["attributed"]),
    ),
    _of_run(
        Kind.TEXT,
        "candidates",
        "Layers that could have been selected.",
        lambda r: joined(r.result["arm"]["candidates"]),
    ),
    _of_run(
        Kind.INTEGER,
        "draw_seed",
        "Seed of the order in which draws are numbered; missing for arms that are not drawn.",
        lambda r: None if r.result["arm"]["draw"] is None else r.result["arm"].get("draw_seed", 0),
    ),
    _of_run(
        Kind.INTEGER,
        "n_sets",
        "Number of other sets of the same size, candidates and strata to draw from; at most 2^63 - 1.",
        lambda r: min(r.result["arm"]["n_sets"], LARGEST),
    ),
    _of_run(Kind.INTEGER, "n_trainable", "Parameters trained.", lambda r: r.result["parameters"]["trained"]),
    _of_run(
        Kind.NUMBER,
        "live_share",
        "Share of the adapter's parameters that are live in llama.cpp, 0 to 1.",
        lambda r: r.result["certificates"]["export"]["live_share"],
    ),
    _of_judgement(Kind.TEXT, "problem_id", "Hash of the held-out problem.", lambda j: j.row["problem_id"]),
    _of_judgement(Kind.INTEGER, "generation_seed", "Seed of the two answers' sampling noise.", lambda j: j.row["seed"]),
    _of_judgement(Kind.TEXT, "judge", "The judge's alias in the panel.", lambda j: j.judge),
    _of_judgement(
        Kind.INTEGER, "judge_place", "The judge's place in the panel; 0 gives the headline.", lambda j: j.place
    ),
    _of_calls("judge_model", "model", "Model that judged; missing for a judge that calls none."),
    _of_calls("judge_family", "family", "Family of that model."),
    _of_judgement(
        Kind.TEXT,
        "outcome",
        "`tuned` or `base` won in both orders; `tie`; `split`: the orders disagree; `missing`: no valid answer in one "
        "of them.",
        lambda j: j.verdict["outcome"],
    ),
    _of_judgement(
        Kind.NUMBER,
        "score",
        "Points of the tuned model: 1 won, 0.5 tie or split, 0 lost; missing if the outcome is.",
        lambda j: SCORES.get(j.verdict["outcome"]),
    ),
    _of_judgement(
        Kind.TEXT,
        "first",
        "Choice with the base answer shown first: `base`, `tuned`, `tie`, `missing`; `equal` if both answers are "
        "the same text, which no judge is shown.",
        lambda j: j.verdict["first"],
    ),
    _of_judgement(
        Kind.TEXT, "second", "Choice with the tuned answer shown first; same values.", lambda j: j.verdict["second"]
    ),
    _of_judgement(
        Kind.TEXT,
        "replicates_first",
        "Single choices behind `first`, separated by spaces; missing if the judge was asked once.",
        lambda j: word(joined(j.verdict.get("replicates_first", ()))),
    ),
    _of_judgement(
        Kind.TEXT,
        "replicates_second",
        "Single choices behind `second`.",
        lambda j: word(joined(j.verdict.get("replicates_second", ()))),
    ),
    _of_judgement(Kind.FLAG, "equal", "Whether both answers are the same text.", lambda j: j.row["equal"]),
    *_of_sides(
        Kind.FLAG, "correct", "Whether {} is correct by the problem source's verifier.", lambda side: side["correct"]
    ),
    *_of_sides(Kind.INTEGER, "tokens", "Length of {} in tokens of the target.", lambda side: side["n_tokens"]),
    *_of_sides(Kind.INTEGER, "characters", "Length of {} in characters.", lambda side: len(side["text"])),
    *_of_sides(Kind.FLAG, "truncated", "Whether the length limit ended {}.", lambda side: side["truncated"]),
    _of_run(Kind.TEXT, "target", "Name of the model that was trained.", lambda r: r.result["target"]["name"]),
    _of_run(Kind.TEXT, "target_revision", "What identifies its weights.", lambda r: r.result["target"]["revision"]),
    _of_run(Kind.TEXT, "target_family", "Its family.", lambda r: word(r.result["target"]["family"])),
    _id("problems_id", "problems", "the problems"),
    _id("adapter_id", "adapter", "the adapter"),
    _id("export_id", "export", "the tuned model"),
    _id("base_answers_id", "answers", "the base model's answers"),
    _id("tuned_answers_id", "answers", "the tuned model's answers", 1),
    _of_judgement(
        Kind.TEXT,
        "verdicts_id",
        "Id in the store of this judge's verdicts.",
        lambda j: j.run.ids["verdicts", j.judge][0],
    ),
    _setting(Kind.NUMBER, "confidence", "confidence", "Level of the intervals in result.json."),
    _setting(Kind.INTEGER, "bootstrap_draws", "n_bootstrap", "Draws of the bootstrap over problems there."),
    _setting(Kind.INTEGER, "bootstrap_seed", "seed", "Its seed."),
    _of_run(Kind.TEXT, "m3i", "Version of M3I.", lambda r: r.result["m3i"]),
    _of_run(Kind.INTEGER, "format", "Format of the result.json that the row comes from.", lambda r: r.result["format"]),
)
"""The columns of every file, in this order."""

TEXTS: tuple[Column, ...] = (
    _of_judgement(Kind.TEXT, "prompt", "The problem as it was asked.", lambda j: j.row["prompt"]),
    _of_judgement(Kind.TEXT, "reference_answer", "The reference answer.", lambda j: j.row["answer"]),
    *_of_sides(Kind.TEXT, "text", "{}, in full.", lambda side: side["text"]),
    *_of_sides(
        Kind.TEXT,
        "answer",
        "What the verifier read as the answer in {}; missing if there is none.",
        lambda s: s["answer"],
    ),
    _of_judgement(Kind.TEXT, "reason", "The judge's words.", lambda j: j.verdict["reason"]),
)
"""Columns that `--texts` adds. Most of their text was written by models: treat it as data."""


def columns(*, texts: bool) -> tuple[Column, ...]:
    """The columns of a file with or without the long texts."""
    return COLUMNS + TEXTS if texts else COLUMNS


def column_table(chosen: Iterable[Column]) -> str:
    """The columns as a Markdown table."""
    words = {Kind.TEXT: "text", Kind.INTEGER: "integer", Kind.NUMBER: "number", Kind.FLAG: "true or false"}
    rows = [f"| `{c.name}` | {words[c.kind]} | {c.meaning[0].upper()}{c.meaning[1:]} |" for c in chosen]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows]) + "\n"
