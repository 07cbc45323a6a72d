"""Results, plans and progress files that somebody edited: one clear word for each, and never a wrong number."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_run import synthetic_run
from synthetic_sweep import arm_names, counted, jobs_of, random_world, synthetic_results, write_sweep

from m3i.cli.main import run_command
from m3i.engine.write import write_run
from m3i.errors import InputError, M3IError
from m3i.progress.journal import Journal, Progress, read_progress
from m3i.results import FORMAT, RunArtifacts, build_result
from m3i.results.stored import damage, read_result
from m3i.results.table import write_judgements
from m3i.sweep.compare import FORMAT as SWEEP_FORMAT
from m3i.sweep.load import load_sweep
from m3i.sweep.write import write_comparison

Place = tuple[str | int, ...]
HOSTILE = '<script>alert(1)</script>\x1b[2J\n{0}%s${oc.env:HOME}../../x"'
DROP = object()
VALUES = [float("nan"), float("inf"), 10**400, 1e308, -1, "", HOSTILE, None, True, [1], {"a": 1}, DROP]


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, int], dict[str, Any]]:
    jobs = jobs_of(arm_names(n_random=2, others=("sham",)), (0,))
    return synthetic_results(jobs=jobs, rule=random_world(effect=0.1), n_held_out=3, judges=("verifier", "gpt"))


@pytest.fixture
def folder(results, tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", results)


@pytest.fixture(scope="module")
def lasting(results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("lasting") / "sweep", results)


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Every field of a document; of a list the first and the last."""
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = [(i, value[i]) for i in sorted({0, len(value) - 1}) if value]
    for name, item in inner:
        yield from places(item, (*above, name))


def changed(document: Any, place: Place, value: Any) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for name in place[:-1]:
        inner = inner[name]
    if value is DROP:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return document


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in a file that is to be JSON")

    return json.loads(text, parse_constant=refuse)


def refusal(use: Callable[[Path], object], folder: Path) -> str:
    try:
        use(folder)
    except M3IError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random-0/seed-0/result.json", "attributed/seed-0/result.json", "plan.json"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_field_may_be_wrong(lasting: Path, name: str, data: st.DataObject) -> None:
    file = lasting / name
    before = file.read_text()
    document = json.loads(before)
    place = data.draw(st.sampled_from(list(places(document))))
    value = data.draw(st.sampled_from(VALUES))
    try:
        file.write_text(json.dumps(changed(document, place, value)))
        for use in (write_comparison, write_judgements):
            said = refusal(use, lasting)
            assert not said or str(lasting) in said
        if (lasting / "sweep.json").exists():
            strict((lasting / "sweep.json").read_text())
            assert "<script>alert(1)" not in (lasting / "report.html").read_text()
    finally:
        file.write_text(before)
    assert {p.name for p in lasting.parent.iterdir()} == {"sweep"}


def of_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = result["problems"]["rows"]
    return rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["judges"]["verifier"]["counts"].update(tuned=99), "judges.verifier.counts.tuned: it says 99, its"),
        (lambda r: r["accuracy"]["tuned"].update(right=99), "accuracy.tuned.right: it says 99, its rows give"),
        (lambda r: of_rows(r).append(copy.deepcopy(of_rows(r)[0])), "problem 'held-0' with generation seed 0 occurs 2"),
        (
            lambda r: of_rows(r)[0]["verdicts"].pop("gpt"),
            "problems.rows.0.verdicts: not those of the judges verifier, gpt",
        ),
        (
            lambda r: of_rows(r)[0]["verdicts"]["gpt"].update(first="base", second="tuned", outcome="tuned"),
            "problems.rows.0.verdicts.gpt.outcome: does not follow from its two ballots",
        ),
        (lambda r: r["arm"].update(name="../../x"), "arm.name: arm = '../../x': there is no such arm"),
        (lambda r: r["arm"].update(draw=7), "arm.kind and arm.draw: 'random' and 7 do not match arm 'random-0'"),
        (lambda r: r["arm"].update(n_sets=0), "arm.n_sets: there are 0 sets, so there is no draw 0"),
        (lambda r: r["parameters"].update(trained=2**63), "parameters.trained: input should be less than"),
        (lambda r: r["layers"].update(selected=[1, 99]), "layers.selected: [1, 99] are not distinct layers from"),
        (lambda r: r["layers"].update(selected=[1, 1]), "layers.selected: [1, 1] are not distinct layers from"),
        (
            lambda r: r["arm"]["candidates"].append(40),
            "arm.candidates: the model has 12 layers, so there is no layer 40",
        ),
        (lambda r: r["parameters"].update(trained="17472"), "parameters.trained: input should be a valid integer, got"),
        (lambda r: r["parameters"].update(trained=True), "parameters.trained: input should be a valid integer"),
        (lambda r: r["certificates"]["export"].update(live_share=1.5), "certificates.export.live_share: input should"),
        (lambda r: r["config"]["sweep"].update(alpha="0.05"), "config: sweep.alpha: input should be a valid number"),
        (lambda r: r["config"]["sweep"].update(alpha=0.7), "config: sweep.alpha = 0.7: expected"),
        (lambda r: r["stages"][0].update(made_at="yesterday"), "stages.0.made_at: value error, time data 'yesterday'"),
        (lambda r: r["ids"].pop(0), "ids: 0 of kind 'problems', name ''; expected 1"),
        (lambda r: r.pop("costs"), "costs: field required"),
    ],
)
def test_what_does_not_fit_is_named(results, change: Callable[[Any], Any], words: str) -> None:
    result = counted(results["random-0", 0])
    assert damage(result) == ""
    change(result)
    assert words in damage(result)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": NaN}', "NaN is not a JSON number"),
        ('{"format": 1e999}', "the number 1e999 is too large"),
        ('{"format": ' + "9" * 5000 + "}", "the number 99999999999999999999... has 5000 digits"),
        ("[" * 100_000, "nested too deep"),
        ("\udcff", "cannot be read"),
        ("[]", "holds no JSON object"),
        (json.dumps({"format": FORMAT, "arm": {}}), "field required; restore the file, or run this job again"),
    ],
)
def test_a_file_that_is_no_result(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as raised:
        read_result(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert words in str(raised.value)


def test_an_edited_result_leaves_the_comparison_and_is_named_without_the_path(folder: Path) -> None:
    file = folder / "random-1" / "seed-0" / "result.json"
    result = json.loads(file.read_text())
    result["judges"]["verifier"]["counts"]["tuned"] += 1
    file.write_text(json.dumps(result))
    document = write_comparison(folder)
    assert [place["arm"] for place in document["primary"]["controls"]] == ["random-0"]
    (failure,) = document["failures"]
    assert failure["state"] == "unreadable"
    assert failure["error"].startswith("result.json: judges.verifier.counts.tuned: it says ")
    assert str(folder) not in json.dumps(document["failures"])


OF_THE_PAGE: list[tuple[Place, Any, str]] = [
    (("telemetry",), 3, "telemetry: input should be a valid dictionary"),
    (("contrasts", "left_out"), -1, "contrasts.left_out: input should be a valid dictionary"),
    (("layers", "attributors"), DROP, "layers.attributors: field required"),
    (("layers", "attributors", "ablation", "rows", 0, "low"), [1], "layers.attributors.ablation.rows.0.low: 1 of 12"),
    (("layers", "attributors", "ablation", "rows"), [], "layers.attributors.ablation.rows: there is no row 'joint'"),
    (("telemetry", "maps", "lens_bits"), [], "telemetry.maps.lens_bits: not 12 layers of 24 bins"),
    (("telemetry", "profiles", "update_norm", "right"), [], "telemetry.profiles.update_norm.right: 0 of 12 layers"),
    (("telemetry", "expert_load"), [[1]], "telemetry.expert_load: not 11 layers"),
    (("agreement", "pairs", 0, "layers", "n_traces"), 3, "agreement.pairs.0.layers.overall: it must be null if"),
]


def test_a_part_that_only_the_page_reads_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_comparison(folder)
    before = (folder / "sweep.json").read_bytes()
    file = folder / "attributed" / "seed-0" / "result.json"
    for place, value, words in OF_THE_PAGE:
        text = file.read_text()
        file.write_text(json.dumps(changed(json.loads(text), place, value)))
        assert run_command(["compare", str(folder)]) == 2
        assert f"{file}: {words}" in capsys.readouterr().err
        file.write_text(text)
    assert (folder / "sweep.json").read_bytes() == before


def test_what_no_comparison_reads_takes_no_control_out_of_the_test(folder: Path) -> None:
    """Leaving out an arm of a registered test for a damaged picture would bias it."""
    file = folder / "random-0" / "seed-0" / "result.json"
    for place, value, _ in OF_THE_PAGE:
        text = file.read_text()
        file.write_text(json.dumps(changed(json.loads(text), place, value)))
        assert {job.arm: job.state for job in load_sweep(folder).jobs}["random-0"] == "done"
        with pytest.raises(InputError):
            read_result(file)
        file.write_text(text)


def test_the_number_of_sets_is_the_results_own(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"n_sets": 1}))
    document = write_comparison(folder)
    assert document["design"]["n_sets"] == 164
    assert document["design"]["n_controls"] == 2


@pytest.mark.parametrize("words", ["arm=random-x\n- seed=1", "arm=../../x", "seed=²", "seed=" + "9" * 5000, "\udcff"])
def test_overrides_of_a_failed_job_without_a_plan(folder: Path, words: str) -> None:
    (folder / "plan.json").unlink()
    place = folder / "random-0" / "seed-0"
    (place / "result.json").unlink()
    (place / ".hydra").mkdir()
    (place / ".hydra" / "overrides.yaml").write_bytes(f"- {words}\n".encode("utf-8", "surrogateescape"))
    assert any(job.state != "done" for job in load_sweep(folder).jobs)
    write_comparison(folder)


# -- progress ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "end", "at": 1, "state": ["done"], "error": "", "cost_usd": null}',
        '{"event": "end", "at": 1, "state": "fine", "error": "", "cost_usd": null}',
        '{"event": "end", "at": 1, "state": "failed", "error": {"a": 1}, "cost_usd": null}',
        '{"event": "end", "at": 1, "state": "failed", "error": "", "cost_usd": NaN}',
        '{"event": "end", "at": "now", "state": "failed", "error": "", "cost_usd": null}',
        '{"event": "end", "state": "failed", "error": "", "cost_usd": null}',
        '{"event": "begin", "at": Infinity, "host": "x", "pid": 1}',
        '{"event": "begin", "at": 1, "host": ["x"], "pid": true}',
        '{"event": "stages", "n_stages": 1' + "0" * 400 + "}",
        '{"event": "arm", "arm": "attributed"}',
        "[" * 100_000,
    ],
)
def test_an_event_of_other_types_is_none(tmp_path: Path, line: str) -> None:
    Journal(tmp_path).begin()
    before = read_progress(tmp_path)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write(line + "\n")
    assert read_progress(tmp_path) == before != Progress()


# -- files that cannot be written -------------------------------------------------------------------

NO_ROOM = (
    "import resource, sys; from m3i.cli.main import run_command; "
    "import m3i.results.table, m3i.sweep.compare, pyarrow.parquet; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); sys.exit(run_command(sys.argv[2:]))"
)


@pytest.mark.parametrize("command", ["compare", "table"])
@pytest.mark.parametrize(
    "room", [0, pytest.param(3000, marks=pytest.mark.slow), pytest.param(60_000, marks=pytest.mark.slow)]
)
def test_without_room_the_earlier_files_stay(folder: Path, command: str, room: int) -> None:
    """The limit on the size of a file stands for a full disk; the larger ones end the writing in the midst."""
    write_comparison(folder)
    files = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(room), command, str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False) or (command, room) == ("table", 60_000)
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == files


def test_a_page_that_cannot_be_written_leaves_no_result_without_it(tmp_path: Path) -> None:
    """result.json says that a job is done: it comes with its page, or not at all."""
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: it is a folder"):
        write_run(build_result(RunArtifacts(**synthetic_run())), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["sweep.json", "report.html", "results.csv"])
def test_a_folder_in_the_place_of_a_file_is_named(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / name).mkdir()
    before = {p.name for p in folder.iterdir()}
    assert run_command(["compare", str(folder)]) == 2
    assert f"{name}: it is a folder" in capsys.readouterr().err
    assert {p.name for p in folder.iterdir()} - {"results.parquet", "results.csv"} == before - {"results.csv"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 1}', "format 1, this version reads"),
        ("[" * 100_000, "nested too deep"),
        ("null", "holds no JSON object"),
        ('{"format": NaN}', "NaN is not a JSON number"),
        ('{"format": OWN}', "m3i: field required; restore the file, or"),
    ],
)
@pytest.mark.parametrize(("name", "own"), [("sweep.json", SWEEP_FORMAT), ("result.json", FORMAT)])
def test_a_page_of_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, own: int, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text.replace("OWN", str(own)))
    assert run_command(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert str(tmp_path / name) in said
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("command", ["compare", "table"])
def test_a_loop_of_links_and_a_file_are_no_folder(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("")
    for name in ("loop", "file"):
        assert run_command([command, str(tmp_path / name)]) == 2
        assert "there is no such folder" in capsys.readouterr().err


def test_a_result_that_links_to_itself_is_unreadable(folder: Path) -> None:
    file = folder / "random-0" / "seed-0" / "result.json"
    file.unlink()
    file.symlink_to(file)
    (folder / "random-1" / "seed-0" / "progress.jsonl").unlink()
    (folder / "random-1" / "seed-0" / "progress.jsonl").symlink_to(folder / "random-1" / "seed-0" / "progress.jsonl")
    document = write_comparison(folder)
    assert [failure["arm"] for failure in document["failures"]] == ["random-0"]
