"""Reads a stored result.json strictly, for everything that builds on it: compare, export, trackers.

Anyone can edit a file. A field of the wrong type, a number out of range, or counts that do not match the rows make a
result unusable, and the error names the field: a statistic computed from them would be silently wrong.
m3i.results.schema declares the fields; the functions below check that they are consistent with each other.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from m3i.artifacts import EQUAL, merge
from m3i.config.arms import parse_arm
from m3i.config.settings import SweepSettings
from m3i.errors import ConfigError, InputError
from m3i.results.build import FORMAT
from m3i.store.files import read_object

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

REMEDY = "restore the file, or run this job again"
OF_THE_PAGE = (
    "telemetry",
    "traces",
    "observers",
    "agreement",
    "errors",
    "places",
    "contrasts",
    "examples",
    "layers.attributors",
)
"""Parts that only the page reads. Damage there removes no arm from a comparison or a table: that would bias it."""


def read_result(file: Path, unread: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a result.json that this version can use.

    Args:
        file: The file.
        unread: As in `damage`.

    Raises:
        InputError: The file is unusable; the message names file and field, and what to do.
    """
    result = read_object(file)
    found = result.get("format")
    if found != FORMAT and "arm" not in result and "m3i" in result:
        raise InputError(
            f"{file}: it was written before arms had names (format {found!r}, M3I {result['m3i']}); run this job again"
        )
    if found != FORMAT:
        raise InputError(f"{file}: format {found!r}, this version reads {FORMAT}; run this job again")
    wrong = damage(result, unread)
    if wrong:
        raise InputError(f"{file}: {wrong}; {REMEDY}")
    return result


def damage(result: Mapping[str, Any], unread: Sequence[str] = ()) -> str:
    """What is wrong with a result of this format, as field and reason; empty if nothing is.

    Args:
        result: Its content.
        unread: Parts that the caller does not read, such as `layers.attributors`; errors there are ignored.
    """
    from m3i.results.schema import Result

    wrong = misfit(Result, result, unread)
    if wrong:
        return wrong
    of_all = _of_the_arm(result) or _of_the_sweep(result) or _of_the_rows(result) or _of_the_ids(result)
    return of_all or ("" if unread else _of_the_page(result))


def misfit(schema: type[BaseModel], document: Mapping[str, Any], unread: Sequence[str] = ()) -> str:
    """The first field of a document that does not fit its schema, and why; empty if all do."""
    try:
        schema.model_validate(document)
    except ValidationError as error:
        return first_error(error, unread)
    return ""


def first_error(error: ValidationError, unread: Sequence[str] = ()) -> str:
    """Pydantic's first error: field, expected and given value; empty if all errors are in `unread`."""
    complaints = error.errors(include_url=False)
    found = next((row for row in complaints if not _is_below(_path(row), unread)), None)
    if found is None:
        return ""
    given = repr(found["input"])
    shown = "" if found["type"] == "missing" else f", got {given[:60]}{'...' if given[60:] else ''}"
    return f"{_path(found)}: {found['msg'][:1].lower()}{found['msg'][1:]}{shown}"


def _path(complaint: ErrorDetails) -> str:
    return ".".join(map(str, complaint["loc"]))


def _is_below(path: str, parts: Sequence[str]) -> bool:
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def _of_the_arm(result: Mapping[str, Any]) -> str:
    """What is wrong with the arm: name, kind and draw must match, and every layer must exist in the model."""
    arm, layers = result["arm"], result["layers"]
    try:
        own = parse_arm(arm["name"])
    except ConfigError as error:
        return f"arm.name: {error}"
    if (own.kind.value, own.draw) != (arm["kind"], arm["draw"]):
        return f"arm.kind and arm.draw: {arm['kind']!r} and {arm['draw']!r} do not match arm '{own.name}'"
    if own.draw is not None and own.draw >= arm["n_sets"]:
        return f"arm.n_sets: there are {arm['n_sets']} sets, so there is no draw {own.draw}"
    candidates = set(arm["candidates"])
    for name, chosen in (("layers.selected", layers["selected"]), ("arm.attributed", arm["attributed"])):
        if len(set(chosen)) < len(chosen) or not set(chosen) <= candidates:
            return f"{name}: {str(chosen)[:60]} are not distinct layers from arm.candidates"
    if candidates and max(candidates) >= layers["n"]:
        return f"arm.candidates: the model has {layers['n']} layers, so there is no layer {max(candidates)}"
    return ""


def _of_the_sweep(result: Mapping[str, Any]) -> str:
    """What is wrong with the options `sweep.*`, which define the test if there is no plan."""
    asked = result["config"].get("sweep", {})
    wrong = wrong_settings(asked) if isinstance(asked, Mapping) else "expected a mapping"
    return f"config: {wrong}" if wrong else ""


def wrong_settings(asked: Mapping[str, Any]) -> str:
    """What is wrong with the options `sweep.*` in a mapping read from JSON; empty if nothing is."""
    names = {f.name for f in dataclasses.fields(SweepSettings)}
    known = json.dumps({name: value for name, value in asked.items() if name in names})
    try:
        TypeAdapter(SweepSettings).validate_json(known, strict=True)
    except ValidationError as error:
        return f"sweep.{first_error(error)}"
    except ConfigError as error:
        return str(error)
    return ""


def _of_the_rows(result: Mapping[str, Any]) -> str:
    """What is wrong with the rows: each must occur once with every judge's verdict, and the counts must match."""
    rows, judges = result["problems"]["rows"], result["judges"]
    asked = Counter((row["problem_id"], row["seed"]) for row in rows)
    for (problem, seed), n in asked.items():
        if n > 1:
            return f"problems.rows: problem {problem[:40]!r} with generation seed {seed} occurs {n} times"
    for i, row in enumerate(rows):
        if set(row["verdicts"]) != set(judges):
            return f"problems.rows.{i}.verdicts: not those of the judges {', '.join(judges)}"
        for judge, verdict in row["verdicts"].items():
            if verdict["outcome"] != _outcome(verdict["first"], verdict["second"]):
                return f"problems.rows.{i}.verdicts.{judge}.outcome: does not follow from its two ballots"
    for judge, section in judges.items():
        counts = Counter(row["verdicts"][judge]["outcome"] for row in rows)
        for name, n in section["counts"].items():
            if n != counts[name]:
                return f"judges.{judge}.counts.{name}: it says {n}, its rows give {counts[name]}"
    for side in ("base", "tuned"):
        stated, right = result["accuracy"][side]["right"], sum(row[side]["correct"] for row in rows)
        if stated != right:
            return f"accuracy.{side}.right: it says {stated}, its rows give {right}"
    return ""


def _of_the_ids(result: Mapping[str, Any]) -> str:
    """What is wrong with the ids: every artifact that a judgement rests on must have one."""
    there = Counter((row["kind"], row["name"]) for row in result["ids"])
    needed = {("problems", ""): 1, ("adapter", ""): 1, ("export", ""): 1, ("answers", ""): 2}
    for (kind, name), n in (needed | {("verdicts", judge): 1 for judge in result["judges"]}).items():
        if there[kind, name] != n:
            return f"ids: {there[kind, name]} of kind {kind!r}, name {name!r}; expected {n}"
    return ""


def _of_the_page(result: Mapping[str, Any]) -> str:
    """What is wrong with the parts that the page draws: numbers of layers and bins must match."""
    from m3i.results.schema.traces import Profiles, TelemetryMaps

    n, telemetry = result["layers"]["n"], result["telemetry"]
    for alias, attributor in result["layers"]["attributors"].items():
        where = f"layers.attributors.{alias}"
        if not any(row["observer"] == "joint" for row in attributor["rows"]):
            return f"{where}.rows: there is no row 'joint' for all observers together"
        for i, row in enumerate(attributor["rows"]):
            for name in ("scores", "low", "high"):
                if len(row[name]) != n:
                    return f"{where}.rows.{i}.{name}: {len(row[name])} of {n} layers"
    for name in TelemetryMaps.model_fields:
        rows = telemetry["maps"][name]
        if len(rows) != n or {len(row) for row in rows} != {telemetry["bins"]}:
            return f"telemetry.maps.{name}: not {n} layers of {telemetry['bins']} bins"
    n_routed = len(telemetry["moe_layers"])
    for name in Profiles.model_fields:
        for group in ("finding", "right"):
            values = telemetry["profiles"][name][group]
            if len(values) != (n_routed if name == "router_entropy" else n):
                return f"telemetry.profiles.{name}.{group}: {len(values)} of {n} layers"
    if len(telemetry["expert_load"]) != n_routed or len({len(row) for row in telemetry["expert_load"]}) > 1:
        return f"telemetry.expert_load: not {n_routed} layers with equally many experts"
    for i, pair in enumerate(result["agreement"]["pairs"]):
        for name in ("overall", "within"):
            if (pair["layers"][name] is None) != (pair["layers"]["n_traces"] == 0):
                return f"agreement.pairs.{i}.layers.{name}: it must be null if, and only if, n_traces is 0"
    return ""


def _outcome(first: str, second: str) -> str:
    """The outcome of two ballots, as in `m3i.stages.judge`."""
    return "tie" if first == second == EQUAL else merge(first, second).value
