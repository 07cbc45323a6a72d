"""The exported table: it equals result.json, and every statistic there can be made again from it alone."""

import csv
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic_run import synthetic_run
from synthetic_sweep import counted

from m3i.cli.main import run_command
from m3i.cli.table import table_command
from m3i.config.settings import StatisticsSettings
from m3i.engine.write import write_run
from m3i.errors import InputError, M3IError
from m3i.results import RunArtifacts, build_result
from m3i.results.table import COLUMNS, TEXTS, Kind, column_table, write_judgements
from m3i.results.table.cells import cell
from m3i.results.table.columns import columns
from m3i.statistics import mcnemar, mean_score, paired_difference, rank_correlation, sign_test

ROOT = Path(__file__).parents[2]
SETTINGS = StatisticsSettings(n_bootstrap=400, seed=5)


def run_of(folder, *, arm=None, **options):
    """A synthetic run on disk, and its result."""
    result = build_result(RunArtifacts(**synthetic_run(**options), statistics=SETTINGS))
    result["arm"] |= arm or {}
    write_run(result, folder)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two generation seeds, three judges, one of them a model that was asked three times."""
    folder = tmp_path_factory.mktemp("run")
    return run_of(folder, seeds=(0, 7), n_held_out=60, models=True), folder


@pytest.fixture(scope="module")
def table(run):
    parquet, _ = write_judgements(run[1])
    return pd.read_parquet(parquet)


def read_csv(path, chosen=COLUMNS):
    """As docs/results.md says."""
    kinds = {c.name: {Kind.TEXT: "str", Kind.FLAG: "bool"}.get(c.kind, "float64") for c in chosen}
    numbers = {c.name: [""] for c in chosen if c.kind in (Kind.INTEGER, Kind.NUMBER)}
    return pd.read_csv(path, dtype=kinds, na_values=numbers, keep_default_na=False)


@pytest.fixture
def sweep(tmp_path):
    """Three runs and a plan."""
    folder = tmp_path / "sweeps" / "control-1"
    arms = {
        "attributed/seed-0": ({"seed": 0}, {}),
        "random-10/seed-1": (
            {"name": "random-10", "kind": "random", "draw": 10, "seed": 1},
            {"seed": 3, "selected": (1, 2, 6)},
        ),
        "random-2/seed-0": (
            {"name": "random-2", "kind": "random", "draw": 2, "seed": 0},
            {"seed": 4, "selected": (1, 3, 9)},
        ),
    }
    results = {
        place: run_of(folder / place, n_held_out=15, arm=arm, **options) for place, (arm, options) in arms.items()
    }
    plan = {"format": 1, "registrations": [{"primary": "score", "margin": 0.05}, {"primary": "accuracy"}]}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder, results


# -- the rows are the result's ----------------------------------------------------------------


def test_one_row_a_judgement_with_the_values_of_the_result(run, table):
    result, _ = run
    rows = result["problems"]["rows"]
    assert len(table) == len(rows) * 3 == 360
    assert list(table.columns) == [c.name for c in COLUMNS]
    for i, (source, judge) in enumerate((row, judge) for row in rows for judge in result["judges"]):
        got, verdict = table.iloc[i], source["verdicts"][judge]
        assert (got.problem_id, got.generation_seed, got.judge) == (source["problem_id"], source["seed"], judge)
        assert (got.outcome, got["first"], got.second) == (verdict["outcome"], verdict["first"], verdict["second"])
        for side in ("base", "tuned"):
            assert got[f"{side}_correct"] == source[side]["correct"]
            assert got[f"{side}_tokens"] == source[side]["n_tokens"]
            assert got[f"{side}_characters"] == len(source[side]["text"])
            assert got[f"{side}_truncated"] == source[side]["truncated"]
    first = table.iloc[0]
    assert (first.arm, first.kind, first.layers, first.attributed_layers) == (
        "attributed",
        "attributed",
        "4 5 8",
        "4 5 8",
    )
    assert first.candidates == " ".join(map(str, result["layers"]["candidates"]))
    assert first.n_sets == 164
    assert pd.isna(first.draw)
    assert pd.isna(first.sweep)
    assert first.run == "."
    assert first.n_trainable == result["parameters"]["trained"] > 0
    assert first.live_share == result["certificates"]["export"]["live_share"]
    assert (first.m3i, first.format) == (result["m3i"], result["format"])
    assert (first.target, first.target_revision) == ("tiny", "3f" * 20)
    models = table.groupby("judge").judge_model.first()
    assert models["gpt"] == "gpt-large"
    assert models.isna()["verifier"]
    assert dict(table.groupby("judge").judge_place.first()) == {"verifier": 0, "llamacpp": 1, "gpt": 2}


def test_ids_are_those_of_the_stores_artifacts(run, table):
    expected = {(row["kind"], row["name"]): row["id"] for row in run[0]["ids"]}
    only = table.drop_duplicates("judge").set_index("judge")
    assert set(only.adapter_id) == {expected["adapter", ""]}
    assert set(only.export_id) == {expected["export", ""]}
    assert set(only.problems_id) == {expected["problems", ""]}
    assert (set(only.base_answers_id), set(only.tuned_answers_id)) == ({"x" * 32}, {"y" * 32})
    assert dict(only.verdicts_id) == {judge: expected["verdicts", judge] for judge in run[0]["judges"]}


# -- every statistic from the table alone -----------------------------------------------------


def signs(frame):
    """Wins, losses, undecided problems."""
    points = frame.outcome.map({"tuned": 1, "base": -1}).fillna(0)
    total = points.groupby(frame.problem_id).sum()
    return int((total > 0).sum()), int((total < 0).sum()), int((total == 0).sum())


def test_counts_scores_and_sign_tests_are_made_again_exactly(run, table):
    for judge, section in run[0]["judges"].items():
        frame = table[table.judge == judge]
        assert {k: int((frame.outcome == k).sum()) for k in section["counts"]} == section["counts"]
        valid = frame[frame.outcome != "missing"]
        assert len(valid) == section["n_valid"] == frame.score.notna().sum()
        wins, losses, undecided = signs(valid)
        level, draws, seed = frame.iloc[0][["confidence", "bootstrap_draws", "bootstrap_seed"]]
        assert (level, draws, seed) == (0.95, 400, 5)
        test = dataclasses.asdict(sign_test(wins=wins, losses=losses, level=level)) | {"undecided": undecided}
        assert test == section["sign_test"]
        again = mean_score(problems=list(valid.problem_id), scores=[float(x) for x in valid.score], level=level)
        assert dataclasses.asdict(again) == section["mean_score"]
        assert valid.groupby("problem_id").score.mean().mean() == pytest.approx(section["mean_score"]["value"])


def test_order_effects_and_length_are_made_again_exactly(run, table):
    for judge, section in run[0]["judges"].items():
        frame = table[(table.judge == judge) & (table.outcome != "missing") & (table["first"] != "equal")]
        assert len(frame) == section["order"]["n_judged"]
        assert (frame.outcome == "split").mean() == section["order"]["flip_rate"]
        first_shown = ((frame["first"] == "base").sum() + (frame.second == "tuned").sum()) / sum(
            frame[order].isin(["base", "tuned"]).sum() for order in ("first", "second")
        )
        assert first_shown == section["order"]["first_shown_share"]
        extra = (frame.tuned_tokens - frame.base_tokens).groupby(frame.problem_id, sort=False).mean()
        outcome = frame.outcome.map({"tuned": 1, "base": -1}).fillna(0).groupby(frame.problem_id, sort=False).mean()
        again = dataclasses.asdict(rank_correlation(list(extra), list(outcome), draws=2000, seed=SETTINGS.seed))
        assert again == section["length"]["all"]


def test_self_consistency_is_made_again_exactly(run, table):
    expected = run[0]["judges"]["gpt"]["self_consistency"]
    frame = table[(table.judge == "gpt") & table.replicates_first.notna()]
    assert table[table.judge == "verifier"].replicates_first.isna().all()
    shares = []
    for replicates in np.ravel(frame[["replicates_first", "replicates_second"]].to_numpy()):
        valid = [choice for choice in replicates.split() if choice != "missing"]
        shares.append(sum(a == b for i, a in enumerate(valid) for b in valid[i + 1 :]) / math.comb(len(valid), 2))
    assert len(shares) == expected["n_ballots"]
    assert np.mean(shares) == pytest.approx(expected["value"], rel=1e-12)


def test_accuracy_is_made_again_exactly(run, table):
    expected = run[0]["accuracy"]
    frame = table.drop_duplicates(["problem_id", "generation_seed"])
    assert (len(frame), frame.problem_id.nunique()) == (expected["n"], expected["n_problems"])
    for side in ("base", "tuned"):
        assert frame[f"{side}_correct"].mean() == expected[side]["value"]
        assert frame[f"{side}_truncated"].sum() == expected[side]["truncated"]
    change = frame.tuned_correct.astype(int) - frame.base_correct.astype(int)
    assert ((change > 0).sum(), (change < 0).sum()) == (expected["fixed"], expected["broken"])
    changes = [float(x) for x in change]
    again = mean_score(problems=list(frame.problem_id), scores=changes, level=0.95, neutral=0.0, reach=1.0)
    assert dataclasses.asdict(again) == expected["difference"]
    total = change.groupby(frame.problem_id).sum()
    test = mcnemar(fixed=int((total > 0).sum()), broken=int((total < 0).sum()))
    assert dataclasses.asdict(test) == expected["mcnemar"]


def test_accuracy_of_one_generation_seed_has_the_paired_interval(tmp_path):
    result = run_of(tmp_path, n_held_out=40)
    frame = pd.read_parquet(write_judgements(tmp_path)[0]).drop_duplicates("problem_id")
    fixed = int((frame.tuned_correct & ~frame.base_correct).sum())
    broken = int((frame.base_correct & ~frame.tuned_correct).sum())
    again = paired_difference(fixed=fixed, broken=broken, n=len(frame), level=float(frame.confidence.iloc[0]))
    assert dataclasses.asdict(again) == result["accuracy"]["difference"]


# -- the two files --------------------------------------------------------------------------


def test_parquet_and_csv_hold_the_same(run):
    parquet, sheet = write_judgements(run[1])
    first, second = pd.read_parquet(parquet), read_csv(sheet)
    assert list(first.columns) == list(second.columns)
    for column in COLUMNS:
        left, right = first[column.name], second[column.name]
        if column.kind is Kind.TEXT:
            assert list(left.fillna("")) == list(right), column.name
        elif column.kind is Kind.FLAG:
            assert list(left) == list(right), column.name
        else:
            np.testing.assert_array_equal(left.astype(float), right)


def test_every_column_is_documented_in_the_file_with_its_type(run):
    schema = pq.read_schema(write_judgements(run[1])[0])
    for column in COLUMNS:
        field = schema.field(column.name)
        assert field.metadata[b"description"].decode() == column.meaning
        assert str(field.type) == column.kind.value
        assert column.meaning.endswith(".")
    assert schema.metadata[b"m3i"].decode() == run[0]["m3i"]
    names = [c.name for c in columns(texts=True)]
    assert len(set(names)) == len(names)


def test_no_long_texts_unless_asked_for(run, tmp_path):
    short, long = write_judgements(run[1]), write_judgements(run[1], into=tmp_path, texts=True)
    assert not {c.name for c in TEXTS} & set(pd.read_parquet(short[0]).columns)
    frame, row = pd.read_parquet(long[0]), run[0]["problems"]["rows"][1]
    got = frame.iloc[3]
    assert (got.prompt, got.reference_answer) == (row["prompt"], row["answer"])
    assert (got.base_text, got.tuned_text) == (row["base"]["text"], row["tuned"]["text"])
    assert (got.base_answer, got.reason) == (row["base"]["answer"], row["verdicts"]["verifier"]["reason"])


# -- sweeps -------------------------------------------------------------------------------------


def test_a_sweep_is_one_table_in_the_order_of_draws(sweep):
    folder, results = sweep
    frame = pd.read_parquet(write_judgements(folder)[0])
    assert list(frame.arm.unique()) == ["attributed", "random-2", "random-10"]
    assert list(frame.drop_duplicates("run").run) == ["attributed/seed-0", "random-2/seed-0", "random-10/seed-1"]
    assert set(frame.sweep) == {"control-1"}
    for place, result in results.items():
        own = frame[(frame.run == place) & (frame.judge == "verifier")]
        assert own.score.mean() == result["judges"]["verifier"]["mean_score"]["value"]
        assert set(own.layers) == {" ".join(map(str, result["layers"]["selected"]))}
        assert set(own.training_seed) == {result["arm"]["seed"]}
    assert set(frame.draw.dropna()) == {2.0, 10.0}
    metadata = pq.read_schema(folder / "results.parquet").metadata
    assert json.loads(metadata[b"m3i.registered"]) == {"control-1": {"primary": "score", "margin": 0.05}}


def test_a_run_of_a_sweep_and_several_sweeps_keep_their_names(sweep):
    folder, _ = sweep
    one = pd.read_parquet(write_judgements(folder / "random-2" / "seed-0")[0])
    assert set(zip(one.sweep, one.run, strict=True)) == {("control-1", "random-2/seed-0")}
    shutil.copytree(folder, folder.parent / "control-2")
    both = pd.read_parquet(write_judgements(folder.parent)[0])
    assert both.groupby("sweep").run.nunique().to_dict() == {"control-1": 3, "control-2": 3}


def test_a_multirun_without_a_plan_is_named_by_its_folder(sweep):
    folder, _ = sweep
    (folder / "plan.json").unlink()
    frame = pd.read_parquet(write_judgements(folder)[0])
    assert set(frame.sweep) == {"control-1"}
    assert "random-10/seed-1" in set(frame.run)


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', "\udcff"])
def test_a_result_that_cannot_be_read_is_left_out_and_named(sweep, damage):
    folder, _ = sweep
    file = folder / "random-2" / "seed-0" / "result.json"
    file.write_bytes(damage.encode("utf-8", "surrogateescape"))
    notes = []
    frame = pd.read_parquet(write_judgements(folder, note=notes.append)[0])
    assert list(frame.arm.unique()) == ["attributed", "random-10"]
    assert len(notes) == 1
    assert str(file) in notes[0]
    assert str(file) in pq.read_schema(folder / "results.parquet").metadata[b"m3i.left_out"].decode()


def test_without_a_result_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"there is no result\.json in it or below it"):
        write_judgements(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="format None, this version reads 3"):
        write_judgements(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    """The limit on the size of a file stands for a full disk."""
    run_of(tmp_path, n_held_out=40)
    before = [path.read_bytes() for path in write_judgements(tmp_path)]
    code = (
        "import resource, sys; from pathlib import Path; import pyarrow.parquet;"
        "from m3i.results.table import write_judgements;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); write_judgements(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "InputError: cannot write results.parquet and results.csv" in done.stderr
    assert "what was there before is unchanged" in done.stderr
    assert [(tmp_path / name).read_bytes() for name in ("results.parquet", "results.csv")] == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


# -- spreadsheets -------------------------------------------------------------------------------

FORMULAS = [
    "=1+1",
    "+1",
    "-5",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=cmd|' /C calc'!A0",
    "  =1",
    "\u3000=1",
    "＝1",
    "＠x",
    "'quoted",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_as_a_formula_and_the_text_comes_back(text):
    written = cell(text, Kind.TEXT)
    assert written.startswith("'")
    assert written[1:] == text.replace("\r", "\\x0d")


@pytest.mark.parametrize("text", ["4 5 8", "plain", "1+1=2", "", "a\nb", "<b>"])
def test_other_text_is_left_as_it_is(text):
    assert cell(text, Kind.TEXT) == text


def test_hostile_text_stays_one_cell(tmp_path):
    result = run_of(tmp_path, n_held_out=6)
    nasty = [*FORMULAS[:5], 'a";=1+1;"\n=2', "\ud83d half", "x\x00y\x1b[2J", ""]
    for row, text in zip(result["problems"]["rows"], nasty, strict=False):
        row["tuned"]["text"] = row["verdicts"]["verifier"]["reason"] = text
    result["problems"]["rows"][0]["problem_id"] = "=HYPERLINK(1)"
    rows = result["problems"]["rows"]
    rows += [json.loads(json.dumps(rows[0])) for _ in nasty[len(rows) :]]
    for i, (row, text) in enumerate(zip(rows, nasty, strict=True)):
        row["tuned"]["text"], row["seed"] = text, i
    (tmp_path / "result.json").write_text(json.dumps(counted(result)))
    parquet, sheet = write_judgements(tmp_path, texts=True)
    with sheet.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert all(len(line) == len(COLUMNS + TEXTS) for line in lines)
    assert len(lines) == 1 + 2 * len(nasty)
    text_columns = [i for i, c in enumerate(COLUMNS + TEXTS) if c.kind is Kind.TEXT]
    assert not [line[i] for line in lines for i in text_columns if line[i].lstrip()[:1] in tuple("=+-@")]
    assert b"\x00" not in sheet.read_bytes()
    exact = pd.read_parquet(parquet)
    own = exact[exact.judge == "verifier"].tuned_text.to_list()
    assert own == [text.encode("utf-8", "backslashreplace").decode() for text in nasty]
    back = read_csv(sheet, COLUMNS + TEXTS)
    assert back[back.judge == "verifier"].tuned_text.iloc[0] == "'=1+1"
    assert back.problem_id.iloc[0] == "'=HYPERLINK(1)"


# -- the command and the page -------------------------------------------------------------------


def test_the_command_prints_what_it_wrote(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    table_command([str(folder), "--texts"])
    assert capsys.readouterr().out.split() == [str(folder / "results.parquet"), str(folder / "results.csv")]
    assert "prompt" in pd.read_parquet(folder / "results.parquet").columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: m3i table"),
        (["a", "b"], "usage"),
        (["--all"], "usage"),
        (["/not/there"], "there is no such folder"),
    ],
)
def test_a_wrong_word_is_one_line(arguments, message):
    with pytest.raises(M3IError, match=message):
        table_command(arguments)


def test_the_command_imports_no_torch(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    code = (
        "import sys; from m3i.cli.table import table_command; assert 'pyarrow' not in sys.modules; "
        f"table_command([{str(folder)!r}]); print({{'torch', 'scipy', 'transformers'}} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_page_lists_the_columns_of_the_code():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for chosen in (COLUMNS, TEXTS):
        assert column_table(chosen) in page, "docs/results.md is out of date: run python docs/generate.py"


def test_the_pages_pandas_example_gives_what_it_says(run, monkeypatch, capsys):
    """The block marked `example` in docs/results.md, on a real export."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    block = page.split("```python example\n")[1].split("```")[0]
    write_judgements(run[1])
    monkeypatch.chdir(run[1])
    names = {}
    exec(compile(block, "docs/results.md", "exec"), names)
    expected = run[0]["judges"]["verifier"]["mean_score"]["value"]
    assert names["scores"].loc["attributed", 0] == expected
    assert names["sheet"].score.mean() == names["table"].score.mean()
    assert names["accuracy"].iloc[0].tuned_correct == run[0]["accuracy"]["tuned"]["value"]
    assert run_command(["plugin"]) == 2
    capsys.readouterr()
