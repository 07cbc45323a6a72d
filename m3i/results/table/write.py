"""Reads results and writes the table run by run, with one run in memory at a time."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import m3i
from m3i.errors import InputError
from m3i.results.stored import OF_THE_PAGE, read_result
from m3i.results.table.cells import cell, clean
from m3i.results.table.columns import Column, Judgement, Run, columns
from m3i.store.files import replacing

if TYPE_CHECKING:
    import pyarrow

NAMES = ("results.parquet", "results.csv")
DEEPEST = 4
"""How many folders above a run its sweep may be, at most."""


def write_judgements(
    folder: Path,
    *,
    into: Path | None = None,
    texts: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Writes `results.parquet` and `results.csv`, one row per judgement.

    Args:
        folder: A run, a sweep, or any folder with result.json files below it. No model is needed.
        into: Where the two files go; `folder` if None.
        texts: Also write prompts, answers and the judges' words.
        note: Called with a message for each result that is left out because it cannot be read; the metadata of the
            Parquet file names them too.

    Returns:
        The two paths.

    Raises:
        InputError: There is no result to read.
    """
    files = sorted(folder.rglob("result.json"), key=_natural)
    if not files:
        raise InputError(f"{folder}: there is no result.json in it or below it; give the folder of a run or a sweep")
    target, wrong = into or folder, [_why_unreadable(file) for file in files]
    readable = [file for file, why in zip(files, wrong, strict=True) if not why]
    left_out = [why for why in wrong if why]
    if not readable:
        raise InputError(f"{folder}: no result can be read. {left_out[0]}")
    for why in left_out:
        note(f"left out: {why}")
    chosen = columns(texts=texts)
    schema = schema_of(chosen, metadata=_metadata(folder, readable, left_out))
    target.mkdir(parents=True, exist_ok=True)
    with replacing(*(target / name for name in NAMES)) as (parquet, table):
        _write(readable, folder, chosen, schema, parquet, table)
    return [target / name for name in NAMES]


def _write(
    files: Sequence[Path], top: Path, chosen: Sequence[Column], schema: pyarrow.Schema, parquet: Path, table: Path
) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    with table.open("w", encoding="utf-8", newline="") as sheet, ParquetWriter(parquet, schema) as writer:
        lines = csv.writer(sheet, lineterminator="\n", quoting=csv.QUOTE_ALL)
        lines.writerow([column.name for column in chosen])
        for file in files:
            values = [[clean(c.value(j)) for c in chosen] for j in judgements(_run(file, top))]
            lines.writerows([cell(v, c.kind) for v, c in zip(row, chosen, strict=True)] for row in values)
            by_column = [list(column) for column in zip(*values, strict=True)] or [[] for _ in chosen]
            arrays = [pyarrow.array(v, type=field.type) for v, field in zip(by_column, schema, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        sheet.flush()
        os.fsync(sheet.fileno())


def schema_of(chosen: Sequence[Column], metadata: Mapping[str, str]) -> pyarrow.Schema:
    """The Arrow schema; every field carries its meaning as `description`."""
    import pyarrow

    fields = [
        pyarrow.field(c.name, pyarrow.type_for_alias(c.kind.value), metadata={"description": c.meaning}) for c in chosen
    ]
    return pyarrow.schema(fields, metadata=dict(metadata))


def judgements(run: Run) -> Iterator[Judgement]:
    """Every judgement of a run: problems and generation seeds in the order of result.json, judges as in the panel."""
    for row in run.result["problems"]["rows"]:
        for place, judge in enumerate(run.result["judges"]):
            if judge in row["verdicts"]:
                yield Judgement(run=run, row=row, judge=judge, place=place)


def _run(file: Path, top: Path) -> Run:
    result = read_result(file, OF_THE_PAGE)
    ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in result["ids"]:
        ids[row["kind"], row["name"]].append(row["id"])
    sweep = _sweep_of(file.parent, top)
    own = file.parent.resolve().relative_to((sweep or top).resolve()).as_posix()
    return Run(result=result, sweep=sweep.resolve().name if sweep else None, folder=own, ids=ids)


def _sweep_of(folder: Path, top: Path) -> Path | None:
    """The folder of the run's sweep: the nearest one above with a plan.json, else the exported folder."""
    nearest = [parent for parent in folder.resolve().parents[:DEEPEST] if (parent / "plan.json").is_file()]
    if nearest:
        return nearest[0]
    return top if folder.resolve() != top.resolve() else None


def _why_unreadable(file: Path) -> str:
    """Why a result cannot be read; empty if this version reads it."""
    try:
        read_result(file, OF_THE_PAGE)
    except InputError as error:
        return str(error)
    return ""


def _metadata(folder: Path, files: Sequence[Path], left_out: Sequence[str]) -> dict[str, str]:
    """What the rows do not tell: the version, the results left out, and what each sweep registered beforehand."""
    plans = {}
    for sweep in {_sweep_of(file.parent, folder) for file in files} - {None}:
        assert sweep is not None
        with contextlib.suppress(
            OSError, ValueError, LookupError, TypeError
        ):  # the judgements do not depend on the plan
            plan = json.loads((sweep / "plan.json").read_text(encoding="utf-8"))
            plans[sweep.resolve().name] = plan["registrations"][0]
    return {
        "m3i": m3i.__version__,
        "m3i.table": "judgements",
        "m3i.registered": json.dumps(plans, sort_keys=True),
        "m3i.left_out": json.dumps(list(left_out)),
    }


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorts random-2 before random-10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.as_posix())]
