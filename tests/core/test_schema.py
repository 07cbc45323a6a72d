"""result.json and sweep.json hold what their schemas declare, all of it and nothing else, and say what it means."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from schema_fields import unknown_fields, written_fields
from synthetic_run import synthetic_run
from synthetic_sweep import arm_names, jobs_of, random_world, synthetic_results, write_sweep

from m3i.artifacts import FileEffect
from m3i.cli.main import run_command
from m3i.cli.schema import json_schema, model_of
from m3i.errors import InputError
from m3i.results import FORMAT, RunArtifacts, build_result, to_json
from m3i.results.schema import Result
from m3i.results.stored import damage, read_result
from m3i.sweep.compare import FORMAT as SWEEP_FORMAT
from m3i.sweep.compare import build_sweep
from m3i.sweep.load import load_sweep
from m3i.sweep.schema import Sweep
from m3i.sweep.stored import read_sweep

STORED = Path(__file__).parents[2] / "docs" / "results" / "tiny-control" / "sweep.json"
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "models": {"models": True, "seeds": (0, 1)},
    "hostile": {"models": True, "hostile": True},
    "sham": {"zero_update": True, "moe": False},
    "twin": {"selected": (7,)},
}


def declared_fields() -> set[str]:
    """`Model.field` of everything that the two schemas declare."""
    schemas = {name.title(): json_schema(name) for name in ("result", "sweep")}
    models = schemas | {name: model for schema in schemas.values() for name, model in schema["$defs"].items()}
    return {f"{name}.{field}" for name, model in models.items() for field in model["properties"]}


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    made = {name: synthetic_run(n_held_out=8, **how) for name, how in RUNS.items()}
    export = made["twin"]["export"]
    measured = replace(
        export.certificate, in_file=FileEffect(peft_norm=0.4, llama_norm=0.4, relative_error=float("nan"))
    )
    made["twin"]["export"] = replace(export, certificate=measured)
    made["models"]["info"] = replace(made["models"]["info"], family="gpt")
    made["twin"]["components"][0]["source"] = "d9b47c54c1ada589"
    return {name: json.loads(to_json(build_result(RunArtifacts(**artifacts)))) for name, artifacts in made.items()}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A sweep with every kind of arm, failures and judges that ask models, one without a plan, and the stored one."""
    jobs = jobs_of(arm_names(n_random=3, n_excluding=2), (0, 1))
    rule = random_world(effect=0.3)
    results = synthetic_results(
        jobs=jobs, rule=rule, n_held_out=9, judges=("verifier", "gpt"), models=True, generation_seeds=(0, 1)
    )
    kept = {job: result for job, result in results.items() if job != ("random-2", 1)}
    paid = copy.deepcopy(kept)
    paid["attributed", 0]["costs"]["ledger"] = json.loads(
        to_json(build_result(RunArtifacts(**synthetic_run(n_held_out=2, models=True))))
    )["costs"]["ledger"]
    whole = write_sweep(tmp_path_factory.mktemp("whole") / "s", paid, failed={("random-2", 1): "no memory"})
    jobs = jobs_of(arm_names(n_random=1, others=()), (0,))
    few = synthetic_results(jobs=jobs, rule=rule, n_held_out=1)
    small = write_sweep(tmp_path_factory.mktemp("small") / "s", few, plan=False)
    built = {"whole": whole, "small": small}
    documents = {name: json.loads(to_json(build_sweep(load_sweep(folder)))) for name, folder in built.items()}
    return documents | {"stored": json.loads(STORED.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", RUNS)
def test_a_result_holds_no_field_that_the_schema_lacks(runs: dict[str, Any], name: str) -> None:
    assert unknown_fields(Result.model_validate(runs[name])) == []
    assert damage(runs[name]) == ""


@pytest.mark.parametrize("name", ["whole", "small", "stored"])
def test_a_sweep_holds_no_field_that_the_schema_lacks(sweeps: dict[str, Any], name: str) -> None:
    assert unknown_fields(Sweep.model_validate(sweeps[name])) == []


def test_a_field_without_a_declaration_is_found(runs: dict[str, Any]) -> None:
    result = copy.deepcopy(runs["models"])
    result["judges"]["gpt"]["canaries"]["families"]["encoded"]["asked"] = 3
    result["problems"]["rows"][2]["base"]["mood"] = "fine"
    assert unknown_fields(Result.model_validate(result)) == [
        "judges.gpt.canaries.families.encoded.asked",
        "problems.rows.2.base.mood",
    ]
    assert damage(result) == ""  # a later version may have written it


def test_every_declared_field_is_written_by_some_builder(runs: dict[str, Any], sweeps: dict[str, Any]) -> None:
    written: set[str] = set()
    for result in runs.values():
        written |= written_fields(Result.model_validate(result))
    for sweep in sweeps.values():
        written |= written_fields(Sweep.model_validate(sweep))
    assert declared_fields() - written == set()


@pytest.mark.parametrize("name", ["result", "sweep"])
def test_every_field_says_what_it_is(name: str) -> None:
    schema = json_schema(name)
    for model in (schema, *schema["$defs"].values()):
        assert model["description"]
        for field, facts in model["properties"].items():
            assert facts.get("description", "").endswith("."), f"{model['title']}.{field}"


def test_the_formats_are_those_that_builders_write() -> None:
    assert json_schema("result")["properties"]["format"]["const"] == FORMAT
    assert json_schema("sweep")["properties"]["format"]["const"] == SWEEP_FORMAT


# -- m3i schema -------------------------------------------------------------------------------------


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> jsonschema.Draft202012Validator:
    """What `m3i schema NAME` prints, as a validator."""
    assert run_command(["schema", name]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"{name}.json"
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_printed_schema_takes_results(runs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    validator = printed("result", capsys)
    for result in runs.values():
        validator.validate(result)
    for place, value in (("created", 3), ("format", 2), ("judges", {}), ("accuracy", None)):
        assert not validator.is_valid(runs["plain"] | {place: value})
    assert not validator.is_valid({k: v for k, v in runs["plain"].items() if k != "telemetry"})


def test_the_printed_schema_takes_sweeps(sweeps: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    validator = printed("sweep", capsys)
    for sweep in sweeps.values():
        validator.validate(sweep)
    assert not validator.is_valid(sweeps["whole"] | {"run": {}})


@pytest.mark.parametrize("arguments", [[], ["runs"], ["result", "sweep"], ["--help"]])
def test_other_words_are_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["schema", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "m3i: usage: m3i schema result|sweep (the JSON Schema of result.json or of sweep.json)\n"


def test_the_command_line_and_the_reader_load_no_schema_before_they_need_it() -> None:
    code = "import sys, m3i.cli.main, m3i.results.stored, m3i.sweep.load; print('m3i.results.schema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    code = "import sys, m3i.cli.main; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- reading ----------------------------------------------------------------------------------------


def test_the_stored_sweep_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_sweep(STORED)["verdict"]["kind"] == "not_better"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("primary.test.p", 1.5, "primary.test.p: input should be less than or equal to 1, got 1.5"),
        ("primary.equivalence", None, "primary.equivalence: input should be a valid dictionary"),
        ("verdict.kind", "best", "verdict.kind: input should be 'better', 'worse', 'not_better'"),
        ("arms.0.trained", "many", "arms.0.trained: input should be a valid integer"),
        ("created", "yesterday", "created: value error, time data 'yesterday' does not match"),
        ("run.layers.n", 0, "run.layers.n: input should be greater than or equal to 1"),
        ("run.accuracy.base.right", 3, "run.accuracy.base.right: it says 3, its rows give"),
    ],
)
def test_a_damaged_sweep_is_named(
    sweeps: dict[str, Any], tmp_path: Path, place: str, value: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = copy.deepcopy(sweeps["whole"])
    inner: Any = sweep
    *above, last = place.split(".")
    for name in above:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(sweep))
    with pytest.raises(InputError) as raised:
        read_sweep(file)
    assert str(raised.value).startswith(f"{file}: {words}")
    assert str(raised.value).endswith("; restore the file, or compare the sweep again")
    assert run_command(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"m3i: {file}: {words}")
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.json"]


def test_results_of_early_versions_are_read(runs: dict[str, Any], tmp_path: Path) -> None:
    """Fields that were added under this format may be absent, and half of a surrogate pair is a text."""
    result = copy.deepcopy(runs["models"])
    for name in ("draw_seed", "n_excluding_sets"):
        result["arm"].pop(name, None)
    del result["traces"]["audited"]
    for example in result["examples"]:
        del example["problem_id"], example["times"], example["audited"]
    for stage in result["stages"]:
        del stage["made_at"]
    result["problems"]["rows"][0]["prompt"] = "\ud83d"
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result))
    assert read_result(file) == result


def test_the_model_of_a_file() -> None:
    assert (model_of("result"), model_of("sweep")) == (Result, Sweep)
