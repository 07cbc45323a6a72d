"""From a sweep's stored results to sweep.json: small sweeps whose numbers are computed by hand, and properties."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_fields import unknown_fields
from synthetic_sweep import (
    arm_names,
    jobs_of,
    random_world,
    registration,
    synthetic_results,
    write_sweep,
)

from m3i.cli.compare import compare_command
from m3i.errors import InputError, M3IError
from m3i.ledger.tally import Tally
from m3i.report.sweep_texts import power_words
from m3i.statistics import kappa
from m3i.sweep.arms import arm_rows
from m3i.sweep.checks import checks_section
from m3i.sweep.compare import build_sweep, to_json
from m3i.sweep.costs import costs_section
from m3i.sweep.design import Design, design_of
from m3i.sweep.endpoints import Endpoint, comparable
from m3i.sweep.length import length_adjusted
from m3i.sweep.load import Job, load_sweep, slim
from m3i.sweep.power import least, power_section
from m3i.sweep.schema import Sweep
from m3i.sweep.verdict import endpoint_section, tie_rate
from m3i.wording.next_steps.sweep import next_steps
from m3i.wording.sweep.verdict import failure_lines, of_sweeps, summary_lines

Results = dict[tuple[str, int], dict[str, Any]]
FIXED = {"attributed": 4, "random-0": 2, "random-1": 4, "random-2": 1, "all": 3, "shuffled": 0, "sham": 0}
"""Problems of ten that an arm answers rightly where the base model answers all of them wrongly."""
ARMS = arm_names(n_random=3)


def fixes(arm: str, seed: int, problem: int, generation: int) -> bool | None:
    """One problem more is right at training seed 1; every other answer is the base model's own."""
    n = FIXED[arm] + (seed if FIXED[arm] else 0)
    return True if problem < n else None


@pytest.fixture(scope="module")
def small() -> Results:
    """Three controls, two training seeds, ten problems, every count known."""
    return synthetic_results(
        jobs=jobs_of(ARMS, (0, 1)), rule=fixes, base_right=lambda problem, generation: False, n_held_out=10
    )


def compared(folder: Path, results: Results, **options: Any) -> dict[str, Any]:
    """sweep.json of these results, as it is read back."""
    write_sweep(folder, results, **options)
    return json.loads(to_json(build_sweep(load_sweep(folder))))


def only(results: Results, *, seeds: tuple[int, ...] = (0, 1), arms: tuple[str, ...] = tuple(ARMS)) -> Results:
    return {job: result for job, result in results.items() if job[0] in arms and job[1] in seeds}


# -- the test, by hand --------------------------------------------------------------------------


def test_verdict_by_hand(small: Results, tmp_path: Path) -> None:
    sweep = compared(tmp_path, small)
    primary = sweep["primary"]
    # T = (wins + half of the ties) / 10, over seeds 0 and 1: attributed wins 4 and 5, so 0.5 + 0.05 * 4.5.
    assert primary["name"] == "score:verifier"
    assert primary["attributed"]["t"] == pytest.approx(0.725)
    assert [row["t"] for row in primary["attributed"]["by_seed"]] == pytest.approx([0.7, 0.75])
    assert {row["arm"]: row["t"] for row in primary["controls"]} == pytest.approx(
        {"random-0": 0.625, "random-1": 0.725, "random-2": 0.575}
    )
    # random-1 ties with it, which counts against the claim: (1 + 1) / (3 + 1).
    assert primary["test"]["p"] == 0.5
    assert primary["test"]["floor"] == 0.25
    assert primary["test"]["rank"] == 2
    assert primary["effect"]["difference"]["value"] == pytest.approx(0.725 - (0.625 + 0.725 + 0.575) / 3)
    assert primary["tie_rate"] == pytest.approx(1 - 9 / 20)
    assert sweep["verdict"]["kind"] == "not_better"
    assert "1 of 3 random sets" in sweep["verdict"]["sentence"]
    assert "no result could have reached p = 0.05" in sweep["verdict"]["sure"]
    assert sweep["design"]["n_sets"] == math.comb(11, 3) - 1
    assert {place["arm"] for place in primary["others"]} == {"all", "shuffled", "sham"}


def test_arm_against_base_by_hand(small: Results, tmp_path: Path) -> None:
    own = compared(tmp_path, small)["arms"][0]
    judge, accuracy = own["judges"]["verifier"], own["accuracy"]
    assert own["arm"] == "attributed"
    assert judge["counts"] == {"tuned": 9, "base": 0, "tie": 11, "split": 0, "missing": 0}
    # Problems 0 to 3 are won at both seeds, problem 4 at one: five of ten problems, none lost, p = 2 / 2^5.
    assert judge["problems"] == {"wins": 5, "losses": 0, "undecided": 5}
    assert judge["sign_test"]["p"] == pytest.approx(2 / 2**5)
    assert judge["mean_score"]["value"] == pytest.approx(0.725)
    assert judge["mean_score"]["n"] == 10
    assert accuracy["base"] == 0
    assert accuracy["tuned"] == pytest.approx(0.45)
    assert (accuracy["fixed"], accuracy["broken"]) == (9, 0)
    assert accuracy["mcnemar"] == {"fixed": 5, "broken": 0, "p": pytest.approx(2 / 2**5)}
    assert own["panel"]["mean_score"] == judge["mean_score"]  # one judge
    assert own["panel"]["bootstrap"]["n"] == 10
    assert own["trained"] == 3 * 8 * (320 + 240 + 168)
    assert own["t"]["accuracy"]["by_seed"] == [{"seed": 0, "t": 0.4}, {"seed": 1, "t": 0.5}]


def test_accuracy_as_primary(tmp_path: Path) -> None:
    chosen = {"primary": "accuracy", "alpha": 0.25}
    wins = {"attributed": 6, "random-0": 2, "random-1": 4, "random-2": 1}
    results = synthetic_results(
        jobs=jobs_of(list(wins), (0,)),
        rule=lambda arm, seed, problem, generation: True if problem < wins[arm] else None,
        base_right=lambda problem, generation: problem == 9,
        n_held_out=10,
        settings={"judge": "", "alternative": "greater", "margin": 0.05, "effect": 0.6} | chosen,
    )
    sweep = compared(tmp_path, results)
    primary, other = sweep["primary"], sweep["secondary"][0]
    assert primary["name"] == "accuracy"
    assert primary["base"] == pytest.approx(0.1)
    assert primary["attributed"]["t"] == pytest.approx(0.7)
    assert primary["test"]["p"] == 0.25
    assert sweep["verdict"]["kind"] == "better"
    assert "none of 3 random sets" in sweep["verdict"]["sentence"]
    assert "+36.7" in sweep["verdict"]["found"]  # 0.7 − (0.3 + 0.5 + 0.2) / 3
    # The verifier's score is (1 + tuned − base) / 2 of the accuracy: the same test, which Holm does not count again.
    assert (other["name"], other["same_as"], other["adjusted"]) == ("score:verifier", "accuracy", None)
    assert other["test"]["p"] == 0.25


def test_secondary_waits_for_the_primary(tmp_path: Path) -> None:
    jobs = jobs_of(arm_names(n_random=3, others=()), (0,))
    rule = random_world(effect=0.3, seed=5)
    for alpha, open_ in ((0.05, False), (0.49, True)):
        given_settings = {"alpha": alpha, "primary": "score", "judge": "verifier", "effect": 0.6, "margin": 0.05}
        results = synthetic_results(
            jobs=jobs, rule=rule, n_held_out=20, judges=("verifier", "gpt"), settings=given_settings
        )
        sweep = compared(tmp_path / str(alpha), results)
        gpt = next(s for s in sweep["secondary"] if s["name"] == "score:gpt")
        assert (sweep["verdict"]["kind"] == "better") is open_
        assert gpt["adjusted"] == max(gpt["test"]["p"], sweep["primary"]["test"]["p"])
        assert gpt["significant"] is (open_ and gpt["adjusted"] <= alpha)


# -- what is missing ------------------------------------------------------------------------------


def test_an_arm_that_lacks_a_seed_is_not_tested(small: Results, tmp_path: Path) -> None:
    kept = {job: result for job, result in small.items() if job != ("random-1", 1)}
    error = "llama.cpp ended without an answer"
    sweep = compared(tmp_path, kept, failed={("random-1", 1): error})
    assert [place["arm"] for place in sweep["primary"]["controls"]] == ["random-0", "random-2"]
    assert sweep["primary"]["test"]["p"] == pytest.approx(1 / 3)  # without the tie of random-1
    assert sweep["design"]["incomplete"] == [{"arm": "random-1", "missing": [1], "entered": False}]
    assert sweep["failures"] == [
        {"arm": "random-1", "seed": 1, "folder": "random-1/seed-1", "state": "failed", "error": error}
    ]
    assert sweep["plan"]["jobs"] == {"planned": 13, "done": 12, "failed": 1, "missing": 0}
    assert any(c["name"] == "incomplete" and "random-1" in c["text"] for c in sweep["caveats"])
    assert any(error in line for line in summary_lines(sweep))
    assert sweep["next"][0]["title"] == "Finish the sweep"


def test_a_seed_that_the_attributed_arm_lacks_is_left_out_of_all(small: Results, tmp_path: Path) -> None:
    kept = {job: result for job, result in small.items() if job != ("attributed", 1)}
    sweep = compared(tmp_path, kept, not_started=[("attributed", 1)])
    assert sweep["design"]["seeds"] == [0]
    assert sweep["primary"]["attributed"]["t"] == pytest.approx(0.7)
    assert {p["arm"]: p["t"] for p in sweep["primary"]["controls"]} == pytest.approx(
        {"random-0": 0.6, "random-1": 0.7, "random-2": 0.55}
    )
    assert any(c["name"] == "lost_seeds" for c in sweep["caveats"])
    assert sweep["failures"][0]["state"] == "missing"


def test_without_the_attributed_arm_nothing_is_tested(small: Results, tmp_path: Path) -> None:
    kept = only(small, arms=("random-0", "random-1", "random-2"))
    sweep = compared(tmp_path, kept, failed={("attributed", 0): "no", ("attributed", 1): "no"})
    assert sweep["verdict"]["kind"] == "untested"
    assert sweep["primary"]["test"] is None
    assert "attributed arm has no result" in sweep["primary"]["why"]
    assert sweep["primary"]["attributed"] is None
    assert summary_lines(sweep)


def test_without_a_random_arm_nothing_is_tested(small: Results, tmp_path: Path) -> None:
    sweep = compared(tmp_path, only(small, arms=("attributed", "all")))
    assert sweep["verdict"]["kind"] == "untested"
    assert "nothing to compare with" in sweep["verdict"]["sentence"]
    assert sweep["primary"]["equivalence"]["base"]["p"] > 0  # the arm is still compared with the base model


def test_a_missing_verdict_leaves_the_problem_out_of_all_arms(tmp_path: Path) -> None:
    jobs = jobs_of(arm_names(n_random=3, others=()), (0, 1))
    results = synthetic_results(
        jobs=jobs,
        rule=fixes,
        base_right=lambda problem, generation: False,
        n_held_out=10,
        missing=lambda judge, arm, seed, problem: (arm, seed, problem) == ("random-2", 1, 0),
    )
    sweep = compared(tmp_path, results)
    primary = sweep["primary"]
    assert (primary["n_problems"], primary["n_left_out"], len(primary["left_out"])) == (9, 1, 1)
    # Problem 0, which all arms had won, is gone: 3 and 4 of 9 for the attributed arm.
    assert primary["attributed"]["t"] == pytest.approx(0.5 + 3.5 / 18)
    assert sweep["design"]["n_left_out"] == 1
    lost = next(row for row in sweep["problems"] if row["left_out"])
    assert lost["problem_id"] == primary["left_out"][0]
    assert lost["difference"] is None
    assert lost["attributed"]["accuracy"] == 1
    counts = next(row for row in sweep["arms"] if row["arm"] == "random-2")["judges"]["verifier"]["counts"]
    assert counts["missing"] == 1
    accuracy = next(s for s in sweep["secondary"] if s["kind"] == "accuracy")
    assert accuracy["n_left_out"] == 0


def test_all_verdicts_missing(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(only(small, seeds=(0,)))
    for row in results["random-0", 0]["problems"]["rows"]:
        row["verdicts"]["verifier"]["outcome"] = "missing"
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert "10 of 10 held-out problems lack a judgement" in sweep["primary"]["why"]
    assert summary_lines(sweep)


def test_nothing_but_ties(tmp_path: Path) -> None:
    results = synthetic_results(jobs=jobs_of(ARMS, (0, 1)), rule=lambda *_: None, n_held_out=12)
    sweep = compared(tmp_path, results)
    primary = sweep["primary"]
    assert primary["test"]["p"] == 1
    assert sweep["verdict"]["kind"] == "not_better"
    assert primary["effect"]["difference"]["degenerate"]
    assert primary["equivalence"]["controls"] is None
    assert "decides none of 12 problems" in sweep["verdict"]["null"]
    assert primary["equivalence"]["base"]["p"] == pytest.approx(0.9 ** (12))
    assert not primary["equivalence"]["base"]["equivalent"]
    assert "Every comparison is tied" in primary["power"]["effect"]["why"]
    assert "do not vary" in primary["power"]["controls"]["why"]
    assert "Every comparison with the base model is a tie" in sweep["verdict"]["sentence"]
    assert {"all_ties"} == {c["name"] for c in sweep["caveats"]} & {"all_ties", "shuffled_not_apart", "harm"}
    assert all(entry["total"] == 0 and entry["why"] for entry in sweep["variance"][:1])


def test_one_problem_one_arm(tmp_path: Path) -> None:
    results = synthetic_results(jobs=[("attributed", 0), ("random-0", 0)], rule=fixes, n_held_out=1)
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert summary_lines(sweep)


# -- controls that are no controls ----------------------------------------------------------------


def test_a_control_with_the_attributed_layers_is_refused(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(only(small, seeds=(0,)))
    results["random-1", 0]["layers"]["selected"] = [4, 5, 8]
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert "equal the attributed set" in sweep["verdict"]["sentence"]
    assert sweep["primary"]["effect"] is None
    failed = [check for check in sweep["checks"] if check["passed"] is False]
    assert [check["name"] for check in failed] == ["distinct"]
    assert "attributed = random-1" in failed[0]["words"]


def test_random_arms_that_avoid_the_attributed_layers_are_refused(tmp_path: Path) -> None:
    free = [(1, 2, 3), (1, 2, 6), (1, 2, 7), (1, 2, 9), (2, 3, 6), (3, 6, 7), (6, 7, 9), (9, 10, 11), (7, 10, 11)]
    layers = {f"random-{i}": chosen for i, chosen in enumerate(free)}
    jobs = [("attributed", 0), *((arm, 0) for arm in layers)]
    results = synthetic_results(jobs=jobs, rule=random_world(effect=0.0), n_held_out=10, layers=layers)
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert "give no valid p" in sweep["primary"]["why"]


def test_excluding_arms_are_a_contrast_without_a_p(tmp_path: Path) -> None:
    jobs = jobs_of(arm_names(n_random=2, n_excluding=2, others=()), (0,))
    sweep = compared(tmp_path, synthetic_results(jobs=jobs, rule=random_world(effect=0.0), n_held_out=12))
    contrast = sweep["contrast"]
    assert contrast["compared"] == ["excluding-0", "excluding-1"]
    assert all(not set(place["layers"]) & {4, 5, 8} for place in contrast["arms"])
    mean = np.mean([place["t"] for place in contrast["arms"]])
    assert contrast["difference"]["value"] == pytest.approx(sweep["primary"]["attributed"]["t"] - mean)
    assert not re.search(r'"p[_"]', json.dumps(contrast))
    assert [place["arm"] for place in sweep["primary"]["controls"]] == ["random-0", "random-1"]


# -- the plan -------------------------------------------------------------------------------------


def test_a_change_of_plan_is_named_and_not_followed(small: Results, tmp_path: Path) -> None:
    one = small["attributed", 0]
    first = registration(one, ARMS, (0, 1), judge="verifier")
    later = registration(one, ARMS, (0, 1), judge="verifier", alpha=0.4, n_results=7, primary="accuracy", at="later")
    sweep = compared(tmp_path, small, registrations=[first, later])
    assert sweep["design"]["alpha"] == 0.05
    assert sweep["primary"]["name"] == "score:verifier"
    assert len(sweep["plan"]["deviations"]) == 2
    assert "Alpha changed from 0.05 to 0.4 when 7 results existed (later)" in sweep["plan"]["deviations"][1]
    assert any(c["name"] == "deviations" and c["weight"] == "major" for c in sweep["caveats"])


def test_a_plan_made_after_results_is_a_deviation(small: Results, tmp_path: Path) -> None:
    plan = registration(small["attributed", 0], ARMS, (0, 1), n_results=3)
    sweep = compared(tmp_path, small, registrations=[plan])
    assert "3 results already existed" in sweep["plan"]["deviations"][0]


def test_results_of_another_plan_are_named(small: Results, tmp_path: Path) -> None:
    plan = registration(small["attributed", 0], ARMS, (0, 1), alpha=0.1, judge="verifier")
    sweep = compared(tmp_path, small, registrations=[plan])
    assert len(sweep["plan"]["deviations"]) == 1
    assert "13 results" in sweep["plan"]["deviations"][0]
    assert "ran with alpha 0.05, which is not in plan.json" in sweep["plan"]["deviations"][0]


def test_arms_dropped_after_a_look_are_still_tested(small: Results, tmp_path: Path) -> None:
    one = small["attributed", 0]
    fewer = registration(one, [a for a in ARMS if a != "random-1"], (0, 1), n_results=13)
    write_sweep(tmp_path, small, registrations=[registration(one, ARMS, (0, 1)), fewer])
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["jobs"] = [job for job in plan["jobs"] if job["arm"] != "random-1"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    sweep = build_sweep(load_sweep(tmp_path))
    assert sweep["primary"]["test"]["n_controls"] == 3
    assert "The number of random arms changed from 3 to 2" in sweep["plan"]["deviations"][0]


def test_arms_and_seeds_added_after_a_look_are_shown_not_tested(small: Results, tmp_path: Path) -> None:
    one = small["attributed", 0]
    first = registration(one, ["attributed", "random-0", "random-2"], (0,))
    more = registration(one, ARMS, (0, 1), n_results=3)
    sweep = compared(tmp_path, small, registrations=[first, more])
    assert sweep["primary"]["test"]["n_controls"] == 2
    assert sweep["design"]["unregistered"] == ["random-1"]
    assert sweep["primary"]["attributed"]["t"] == pytest.approx(0.7)  # training seed 0 alone
    assert "random-1" in [place["arm"] for place in sweep["primary"]["others"]]


def test_fewer_sets_than_asked_for_is_no_missing_arm(small: Results, tmp_path: Path) -> None:
    asked = registration(small["attributed", 0], arm_names(n_random=19), (0, 1))
    few = {job: result | {"arm": result["arm"] | {"n_sets": 3}} for job, result in small.items()}
    write_sweep(tmp_path, few, registrations=[asked])
    sweep = build_sweep(load_sweep(tmp_path))
    assert sweep["design"]["enumerated"]
    assert sweep["design"]["n_controls_planned"] == 3
    assert sweep["design"]["incomplete"] == []


def test_without_a_plan(small: Results, tmp_path: Path) -> None:
    for i, (job, result) in enumerate(small.items()):
        place = tmp_path / str(i)
        place.mkdir()
        (place / "result.json").write_text(json.dumps(result))
        assert job[0] == result["arm"]["name"]
    lost = tmp_path / "13"
    (lost / ".hydra").mkdir(parents=True)
    (lost / ".hydra" / "overrides.yaml").write_text("- arm=random-3\n- seed=1\n")
    begin = {"event": "begin", "at": 1.0, "n_stages": 3, "host": "a", "pid": 1}
    end = {"event": "end", "at": 2.0, "state": "failed", "error": "out of memory", "cost_usd": None}
    (lost / "progress.jsonl").write_text(json.dumps(begin) + "\n" + json.dumps(end) + "\n")
    sweep = build_sweep(load_sweep(tmp_path))
    assert sweep["primary"]["test"]["p"] == 0.5
    assert sweep["plan"]["registered"] is None
    assert sweep["plan"]["deviations"][0].startswith("No plan was registered before the results")
    assert sweep["failures"][0] | {"folder": ""} == {
        "arm": "random-3", "seed": 1, "folder": "", "state": "failed", "error": "out of memory",
    }  # fmt: skip
    assert any(c["name"] == "no_plan" for c in sweep["caveats"])


# -- folders that cannot be compared --------------------------------------------------------------


def test_two_results_of_one_job(small: Results, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(small["attributed", 0]))
    with pytest.raises(InputError, match="a and b both hold arm 'attributed' with training seed 0"):
        load_sweep(tmp_path)


def test_results_from_before_arms(small: Results, tmp_path: Path) -> None:
    old = {name: section for name, section in small["attributed", 0].items() if name != "arm"} | {"format": 2}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "result.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"old: result\.json: it was written before arms had names \(format 2"):
        load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("format", "format 99, this version reads"),
        ("other arm", "result.json: it belongs to arm 'random-2'"),
    ],
)
def test_a_result_that_cannot_be_used_is_named(small: Results, tmp_path: Path, text: str, words: str) -> None:
    write_sweep(tmp_path, only(small, seeds=(0,)))
    if text == "format":
        text = json.dumps(small["random-1", 0] | {"format": 99})
    elif text == "other arm":
        text = json.dumps(small["random-2", 0])
    (tmp_path / "random-1" / "seed-0" / "result.json").write_text(text)
    sweep = build_sweep(load_sweep(tmp_path))
    assert sweep["failures"][0]["state"] == "unreadable"
    assert words in sweep["failures"][0]["error"]
    assert sweep["primary"]["test"]["n_controls"] == 2


def test_other_held_out_problems_are_not_compared(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(only(small, seeds=(0,)))
    results["random-0", 0]["problems"]["rows"][0]["problem_id"] = "another"
    sweep = compared(tmp_path, results)
    assert sweep["failures"][0]["state"] == "incomparable"
    assert sweep["plan"]["jobs"]["failed"] == 1
    assert [place["arm"] for place in sweep["primary"]["controls"]] == ["random-1", "random-2"]


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_sweep(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"it contains no result\.json"):
        load_sweep(tmp_path)


def test_a_plan_cannot_reach_outside_its_folder(small: Results, tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", only(small, seeds=(0,)))
    path = tmp_path / "sweep" / "plan.json"
    plan = json.loads(path.read_text())
    plan["jobs"][0]["folder"] = "../elsewhere"
    path.write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"is damaged .the folder of job attributed, seed 0"):
        load_sweep(tmp_path / "sweep")


# -- checks ---------------------------------------------------------------------------------------


def checked(results: Results) -> dict[str, dict[str, Any]]:
    """Checks by name, from results in memory."""
    jobs = [
        Job(arm=arm, seed=seed, folder=f"{arm}/{seed}", state="done", result=slim(result))
        for (arm, seed), result in results.items()
    ]
    found = checks_section(jobs, plain_design(), arm_rows(jobs, [], plain_design()))
    return {check["name"]: check for check in found}


def plain_design(**changes: Any) -> Design:
    fields = {
        "primary": "score", "judge": "verifier", "alternative": "greater", "alpha": 0.05, "margin": 0.05,
        "effect": 0.6, "level": 0.95, "power": 0.8, "attributed": (4, 5, 8), "candidates": tuple(range(1, 12)),
        "n_sets": 164, "planned_seeds": (0,), "seeds": (0,), "generation_seeds": (0,), "planned_controls": (),
        "controls": (), "unregistered": (), "incomplete": (),
    }  # fmt: skip
    return Design(**(fields | changes))


def test_all_checks_pass(small: Results) -> None:
    found = checked(small)
    assert all(check["passed"] for check in found.values()), found
    assert "40 of 80 pairs" in found["shuffled"]["words"]


def spoil_sham(result: dict[str, Any]) -> None:
    result["problems"]["rows"][3]["equal"] = False


def spoil_id(result: dict[str, Any]) -> None:
    next(row for row in result["ids"] if row["kind"] == "traces")["id"] = "other"


def spoil_base_answers(result: dict[str, Any]) -> None:
    next(row for row in result["ids"] if row["kind"] == "answers")["id"] = "other"


@pytest.mark.parametrize(
    ("job", "spoil", "name", "words"),
    [
        (("random-1", 0), lambda r: r["target"].update(revision="x"), "target", "random-1, seed 0"),
        (("random-1", 1), lambda r: r["versions"].update(torch="9"), "versions", "random-1, seed 1"),
        (("all", 0), lambda r: r["problems"]["rows"][0]["base"].update(correct=True), "problems", "all, seed 0"),
        (("random-0", 0), lambda r: r["arm"].update(attributed=[1, 2, 3]), "attributed", "random-0, seed 0"),
        (("all", 0), lambda r: r["config"].update(trainer={"rank": 2}), "config", "all, seed 0"),
        (("random-0", 0), spoil_id, "shared", "traces"),
        (("random-0", 1), spoil_base_answers, "shared", "base answers"),
        (("random-2", 0), lambda r: r["parameters"].update(trained=1), "parameters", "random-2 (1)"),
        (("random-2", 0), lambda r: r["layers"].update(selected=[8, 5, 4]), "distinct", "attributed = random-2"),
        (("sham", 0), spoil_sham, "sham", "Alarm: 1 of 10"),
        (("all", 0), lambda r: r.update(m3i="0.0.9"), "m3i", "all, seed 0"),
        (("random-1", 0), lambda r: r["components"][0].update(version="9"), "components", "random-1, seed 0"),
        (("all", 1), lambda r: r["certificates"]["export"].update(passed=False), "certificates", "all, seed 1"),
        (("shuffled", 0), lambda r: r["training"]["counts"].update({"pairs: swapped": 7}), "shuffled", "7 of 80"),
    ],
)
def test_a_check_that_fails_says_where(small: Results, job: tuple[str, int], spoil: Any, name: str, words: str) -> None:
    results = copy.deepcopy(small)
    spoil(results[job])
    found = checked(results)
    assert [check["name"] for check in found.values() if check["passed"] is False] == [name]
    assert words in found[name]["words"]


def test_an_arm_with_other_layers_at_another_seed_is_found(small: Results) -> None:
    results = copy.deepcopy(small)
    results["random-2", 1]["layers"]["selected"] = [1, 2, 3]
    found = checked(results)["distinct"]
    assert found["passed"] is False
    assert "random-2 at its training seeds" in found["words"]


def test_alpha_of_a_half_or_more(small: Results, tmp_path: Path) -> None:
    wide = registration(small["attributed", 0], ARMS, (0, 1), alpha=0.7)
    with pytest.raises(InputError, match=r"sweep\.alpha = 0\.7: expected a number in \(0, 0\.5\)"):
        compared(tmp_path, small, registrations=[wide])


def test_a_registered_judge_without_verdicts(small: Results, tmp_path: Path) -> None:
    plan = registration(small["attributed", 0], ARMS, (0, 1), judge="verifer")
    with pytest.raises(InputError, match="'verifer' gave no judgements; did you mean 'verifier'"):
        compared(tmp_path, small, registrations=[plan])


def test_the_smallest_live_share_is_named(small: Results) -> None:
    results = copy.deepcopy(small)
    results["all", 0]["certificates"]["export"]["live_share"] = 0.249
    words = checked(results)["certificates"]["words"]
    assert "25\u00a0%" in words
    assert "all, seed 0" in words


def test_without_a_sham_arm_there_is_nothing_to_check(small: Results, tmp_path: Path) -> None:
    sweep = compared(tmp_path, only(small, arms=("attributed", "random-0")))
    assert next(c for c in sweep["checks"] if c["name"] == "sham")["passed"] is None
    assert any(c["name"] == "no_sham" for c in sweep["caveats"])
    assert any(step["title"] == "Run a sham arm" for step in sweep["next"])


# -- judges, length, costs ------------------------------------------------------------------------


def test_kappa_by_hand() -> None:
    """Cohen 1960: 20 of 50 both say tuned, 15 both base, 5 and 10 differ: (0.7 − 0.5) / (1 − 0.5)."""
    one = ["tuned"] * 25 + ["base"] * 25 + [""]
    other = ["tuned"] * 20 + ["base"] * 5 + ["tuned"] * 10 + ["base"] * 15 + ["tie"]
    assert kappa(one, other) == {"n": 50, "agreement": 0.7, "kappa": pytest.approx(0.4)}
    assert kappa(["tie"] * 4, ["tie"] * 4) == {"n": 4, "agreement": 1.0, "kappa": None}
    assert kappa([""], ["tie"]) == {"n": 0, "agreement": None, "kappa": None}


def test_judges_pooled_over_arms(tmp_path: Path) -> None:
    jobs = jobs_of(arm_names(n_random=2, others=()), (0,))
    results = synthetic_results(jobs=jobs, rule=random_world(effect=0.1), n_held_out=30, judges=("verifier", "gpt"))
    judges = compared(tmp_path, results)["judges"]
    said = [row["verdicts"]["gpt"] for r in results.values() for row in r["problems"]["rows"]]
    judged = [v for v in said if v["first"] != "equal"]
    splits = sum(v["outcome"] == "split" for v in judged)
    assert splits > 0
    assert judges["panel"]["gpt"]["flip_rate"] == splits / len(judged)
    sections = [r["judges"]["gpt"]["self_consistency"] for r in results.values()]
    n = sum(s["n_ballots"] for s in sections)
    assert judges["panel"]["gpt"]["self_consistency"] == {
        "n_ballots": n,
        "value": pytest.approx(sum(s["n_ballots"] * s["value"] for s in sections) / n),
    }
    assert judges["panel"]["gpt"]["canaries"] == {"n": 24, "obeyed": 6}
    verifier, gpt = judges["verifier"]
    assert (verifier["agreement"], verifier["kappa"]) == (1.0, 1.0)  # the verifier judge follows right answers
    assert gpt == {"judge": "gpt"} | {k: v for k, v in judges["agreement"][0].items() if k != "judges"}


def test_score_at_equal_length() -> None:
    """statsmodels: OLS(...).fit(cov_type='HC3', use_t=True)."""
    extra = [0, 3, -2, 5, 1, 0, -4, 2, 7, 0]
    scores = [0.5, 1, 0.5, 1, 0.5, 0, 0.25, 0.5, 0.75, 0.5]
    found = length_adjusted(extra=extra, scores=scores)
    assert found is not None
    assert found.value == pytest.approx(HC3[0], rel=1e-9)
    assert (found.low, found.high) == pytest.approx(HC3[1:], rel=1e-9)
    line = length_adjusted(extra=[1, 2, 3, 4, 5], scores=[0.55, 0.6, 0.65, 0.7, 0.75])
    assert line is not None
    assert line.value == pytest.approx(0.5)
    assert length_adjusted(extra=[2, 2, 2, 2], scores=[0, 1, 0, 1]) is None
    assert length_adjusted(extra=[0, 0, 0, 9], scores=[0, 1, 0, 1]) is None  # one problem makes the slope


HC3 = (0.47115384615384615, 0.29240922517062407, 0.6498984671370682)
"""Intercept and 95 % interval, computed once with statsmodels 0.15.0."""


def test_costs_by_hand(small: Results, tmp_path: Path) -> None:
    costs = compared(tmp_path, only(small, arms=("attributed", "random-0", "sham")))["costs"]
    shared = sum(3.0 + i for i in range(10))
    stages = [s for (arm, _), r in small.items() if arm in ("attributed", "random-0", "sham") for s in r["stages"]]
    own = sum(s["made_in_s"] for s in stages if not s["key"].startswith("shared"))
    assert costs["shared_s"] == pytest.approx(shared)
    assert costs["own_s"] == pytest.approx(own)
    assert costs["made_s"] == pytest.approx(shared + own)
    assert costs["alone_s"] == pytest.approx(5 * shared + own)
    assert costs["saved_s"] == pytest.approx(4 * shared)
    assert costs["hits_s"] == pytest.approx(4 * shared)
    assert costs["money"] is None
    assert {row["arm"]: row["jobs"] for row in costs["arms"]} == {"attributed": 2, "random-0": 2, "sham": 1}


def test_money_is_what_the_ledgers_counted(small: Results) -> None:
    def job(cost: float | None, unpriced: int) -> Job:
        row = {"made": 10, "unpriced": unpriced, "cost_usd": cost, "reused": 3, "saved_usd": 0.1}
        result = {"stages": [], "costs": {"ledger": {"rows": [row], "uncertain_usd": 0.5}}, "judges": {}, "ids": []}
        return Job(arm="attributed", seed=0, folder="", state="done", result=result)

    money = costs_section([job(0.25, 0), job(None, 10)], {})["money"]
    assert money == {
        "cost_usd": 0.0, "calls": 0, "unpriced": 0,
        "last": {"paid_usd": 0.25, "calls": 20, "unpriced": 10, "reused": 6, "saved_usd": pytest.approx(0.2),
                 "uncertain_usd": 1.0},
    }  # fmt: skip
    assert costs_section([job(None, 10)], {})["money"]["last"]["paid_usd"] is None


# -- limits in words ------------------------------------------------------------------------------


def test_training_that_hurts_everywhere_is_a_question_of_harm(tmp_path: Path) -> None:
    results = synthetic_results(
        jobs=jobs_of(arm_names(n_random=2), (0, 1, 2)),
        rule=lambda arm, seed, problem, generation: False if problem < 12 and arm != "sham" else None,
        base_right=lambda problem, generation: True,
        n_held_out=20,
    )
    sweep = compared(tmp_path, results)
    assert "how much harm" in sweep["verdict"]["sentence"]
    assert "did worse" not in sweep["verdict"]["sentence"]  # no claim about single trained models
    assert sweep["primary"]["training"]["difference"]["high"] < 0
    assert {"harm", "shuffled_not_apart"} <= {c["name"] for c in sweep["caveats"] if c["weight"] == "major"}


def test_a_claim_of_worse(tmp_path: Path) -> None:
    asked = {"alternative": "less", "alpha": 0.25, "primary": "score", "judge": "", "margin": 0.05, "effect": 0.6}
    wins = {"attributed": 1, "random-0": 3, "random-1": 2, "random-2": 4}
    results = synthetic_results(
        jobs=jobs_of(list(wins), (0,)),
        rule=lambda arm, seed, problem, generation: True if problem < wins[arm] else None,
        base_right=lambda problem, generation: False,
        n_held_out=8,
        settings=asked,
    )
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "worse"
    assert "none of 3 random sets of the same size did as badly" in sweep["verdict"]["sentence"]
    assert sweep["verdict"]["null"] == ""
    assert any(step["title"] == "Repeat it on fresh problems" for step in sweep["next"])


def test_power_and_next_steps_agree(tmp_path: Path) -> None:
    jobs = jobs_of(arm_names(n_random=4), (0, 1))
    sweep = compared(tmp_path, synthetic_results(jobs=jobs, rule=random_world(effect=0.0), n_held_out=30))
    steps = {step["title"]: step for step in sweep["next"]}
    assert steps["More random arms"]["command"] == ""  # these problems have no seed that would give others
    assert "reaching 0.05 takes at least 19" in steps["More random arms"]["text"]
    seeded = sweep | {"run": sweep["run"] | {"config": {"problems": {"seed": 3}}}}
    steps = {step["title"]: step for step in next_steps(seeded)}
    assert steps["More random arms"]["command"].endswith("+sweep=control sweep.n_random=19 problems.seed=4 draw_seed=1")
    assert steps["More training seeds"]["command"].endswith(
        "+sweep=control 'sweep.seeds=[0,1,2]' problems.seed=4 draw_seed=1"
    )
    base = sweep["primary"]["power"]["base"]
    assert f"{base['required_problems_sign']:,}" in steps["More held-out problems"]["text"]


def test_problems_for_60_to_40_at_67_percent_ties() -> None:
    """The published check: about 619 problems for the exact sign test, 589 for the t test of the mean score."""
    score_PG = np.array([0.5] * 67 + [1.0] * 20 + [0.0] * 13)[:, None]
    end = Endpoint(
        name="score:verifier",
        judge="verifier",
        neutral=0.5,
        reach=0.5,
        problems=tuple(map(str, range(100))),
        left_out=(),
        values={("attributed", 0): score_PG, ("random-0", 0): score_PG, ("random-1", 0): 1 - score_PG},
        base_PG=np.full((100, 1), 0.5),
    )
    design = plain_design(controls=("random-0", "random-1"))
    base = power_section(end, design, tie_rate(end, "attributed", design.seeds))["base"]
    assert base["required_problems_sign"] == 619
    assert base["required_problems"] == 589


def test_least_is_the_first_that_is_enough() -> None:
    for first in (1, 2, 7, 1000):
        assert least(lambda n, first=first: n >= first) == first
    assert least(lambda n: False) is None


# -- what a reviewer found ------------------------------------------------------------------------


def fixed_world(wins: dict[str, int], losses: dict[str, int]) -> Any:
    """Even problems start wrong, odd ones right; an arm wins and loses so many of them."""

    def rule(arm: str, seed: int, problem: int, generation: int) -> bool | None:
        if problem % 2 == 0 and problem // 2 < wins.get(arm, 0):
            return True
        return False if problem % 2 and problem // 2 < losses.get(arm, 0) else None

    return rule


def world_of(wins: dict[str, int], losses: dict[str, int], n: int, seeds: tuple[int, ...] = (0,), **asked: Any) -> Any:
    return synthetic_results(
        jobs=jobs_of(list(dict.fromkeys([*wins, *losses])), seeds),
        rule=fixed_world(wins, losses),
        base_right=lambda problem, generation: problem % 2 == 1,
        n_held_out=n,
        settings={"primary": "score", "judge": "", "alternative": "greater", "alpha": 0.05, "margin": 0.05,
                  "effect": 0.6} | asked,
    )  # fmt: skip


def test_a_margin_wider_than_the_effect_is_not_called_equivalence(tmp_path: Path) -> None:
    wins = {"attributed": 5, "random-0": 5, "random-1": 6, "random-2": 4}
    results = world_of(wins, dict.fromkeys(wins, 5), 100, margin=0.1)
    sweep = compared(tmp_path, results)
    primary, verdict = sweep["primary"], sweep["verdict"]
    assert primary["tie_rate"] == pytest.approx(0.9)
    assert primary["power"]["effect"]["shift"] == pytest.approx(0.01)  # (0.6 − 0.5) times one decided in ten
    assert primary["equivalence"]["controls"]["equivalent"]
    assert primary["equivalence"]["too_wide"]
    said = " ".join([*verdict.values(), *summary_lines(sweep), *(c["text"] + c["title"] for c in sweep["caveats"])])
    assert "equivalent" not in said
    assert "ruled out" not in said
    assert "margin of ± 0.100 is wider than the effect sought" in verdict["null"]
    assert "0.010" in verdict["null"]
    assert "90\u00a0% interval" in verdict["null"]
    assert any(c["name"] == "wide_margin" for c in sweep["caveats"])
    assert any(step["title"] == "More held-out problems" for step in sweep["next"])
    narrow = compared(tmp_path / "narrow", world_of(wins, dict.fromkeys(wins, 5), 100, margin=0.009))
    assert not narrow["primary"]["equivalence"]["too_wide"]
    assert "wide_margin" not in {c["name"] for c in narrow["caveats"]}


def test_means_below_the_base_model_need_not_mean_harm(tmp_path: Path) -> None:
    """Every arm loses the same two problems and wins one: all means are low together, for they share base answers."""
    wins = {"attributed": 1, "random-0": 1, "random-1": 1}
    sweep = compared(tmp_path, world_of(wins, dict.fromkeys(wins, 2), 40))
    assert all(place["t"] < 0.5 for place in [sweep["primary"]["attributed"], *sweep["primary"]["controls"]])
    mean = sweep["primary"]["training"]["difference"]
    assert mean["value"] == pytest.approx(-0.5 / 40)
    assert mean["low"] < 0 < mean["high"]
    assert sweep["primary"]["training"]["n_below"] == 3
    assert "does not show that training itself hurts" in sweep["verdict"]["harm"]
    assert "did worse" not in sweep["verdict"]["sentence"]
    assert "harm" not in {c["name"] for c in sweep["caveats"]}
    assert "Train more gently" not in {step["title"] for step in sweep["next"]}


def test_results_from_before_an_option_had_a_name_join_those_with_its_default(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(small)
    results["random-0", 0]["config"]["draw_seed"] = 0
    assert compared(tmp_path, results)["primary"]["test"] is not None


@pytest.mark.parametrize("seed", ["abc", None, [1]])
def test_an_edited_draw_seed_takes_no_command(tmp_path: Path, seed: Any) -> None:
    results = synthetic_results(jobs=jobs_of(arm_names(n_random=3), (0,)), rule=random_world(effect=0.1), n_held_out=12)
    for result in results.values():
        result["config"] |= {"draw_seed": seed, "problems": {"seed": 3}}
    sweep = compared(tmp_path, results)
    assert any(step["command"].endswith("problems.seed=4") for step in sweep["next"])


def test_a_selector_that_trains_nothing_is_not_compared_with_training(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(small)
    for seed in (0, 1):
        results["attributed", seed]["layers"]["zero_update"] = True
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert "The attributed arm is a zero update" in sweep["verdict"]["sentence"]
    assert sweep["primary"]["test"] is None


def test_a_gentler_training_is_tried_on_fresh_problems(tmp_path: Path) -> None:
    results = world_of({"attributed": 0, "random-0": 0}, {"attributed": 15, "random-0": 14}, 60)
    for result in results.values():
        result["config"] |= {"trainer": {"learning_rate": 2e-4}, "problems": {"seed": 3}}
    steps = {step["title"]: step["command"] for step in compared(tmp_path, results)["next"]}
    assert steps["Train more gently"].endswith("trainer.learning_rate=0.0001 problems.seed=4 draw_seed=1")


def test_shuffled_pairs_are_compared_with_an_interval(tmp_path: Path) -> None:
    wins = {"attributed": 10, "random-0": 3, "shuffled": 9}
    sweep = compared(tmp_path / "near", world_of(wins, {}, 60))
    found = sweep["primary"]["shuffled"]
    assert found["difference"]["value"] == pytest.approx(0.5 / 60)
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    near = next(c for c in sweep["caveats"] if c["name"] == "shuffled_not_apart")
    assert "come from" not in near["text"]
    assert "+0.008" in near["text"]
    far = compared(tmp_path / "far", world_of(wins | {"attributed": 25, "shuffled": 0}, {}, 60))
    assert far["primary"]["shuffled"]["difference"]["low"] > 0
    assert "shuffled_not_apart" not in {c["name"] for c in far["caveats"]}


@pytest.mark.parametrize("arm", ["all", "shuffled", "excluding-0", "random-3"])
def test_arms_outside_the_test_cannot_change_it(tmp_path: Path, arm: str) -> None:
    """A lost verdict of an arm that is not tested, or of a later seed, leaves every problem in the test."""
    jobs = jobs_of([*arm_names(n_random=4, n_excluding=1)], (0, 1))
    lost = {(arm, 0, 0), ("random-0", 1, 3)}
    results = synthetic_results(
        jobs=jobs, rule=random_world(effect=0.1), n_held_out=12,
        missing=lambda judge, name, seed, problem: (name, seed, problem) in lost,
    )  # fmt: skip
    plan = registration(results["attributed", 0], [a for a, _ in jobs if a != "random-3"], (0,))
    sweep = compared(tmp_path, results, registrations=[plan])
    primary = sweep["primary"]
    assert (primary["n_problems"], primary["n_left_out"]) == (12, 0)
    place = next(place for place in primary["others"] if place["arm"] == arm)
    assert place["n"] == 11
    assert place["t"] is not None
    row = next(row for row in sweep["arms"] if row["arm"] == arm)
    assert row["t"]["score:verifier"]["n"] == 11
    assert primary["attributed"]["n"] == 12


GATES = [
    (("sham", 0), spoil_sham, "answers of the sham arm differ"),
    (("random-0", 0), lambda r: r["arm"].update(attributed=[1, 2, 3]), "random-0, seed 0"),
    (("attributed", 0), lambda r: r["arm"].update(n_sets=2), "Layer sets to draw from"),
    (("random-1", 1), lambda r: r["config"].update(draw_seed=1), "Options"),
    (("random-2", 0), lambda r: r["parameters"].update(trained=1), "parameters"),
    (("random-0", 0), spoil_id, "traces"),
    (("attributed", 1), lambda r: r["config"].update(trainer={"rank": 2}), "Options"),
    (("random-1", 1), lambda r: r["certificates"]["export"].update(passed=False), "certificates"),
]


@pytest.mark.parametrize(("job", "spoil", "words"), GATES)
def test_a_failed_check_leaves_nothing_tested(
    small: Results, tmp_path: Path, job: tuple[str, int], spoil: Any, words: str
) -> None:
    results = copy.deepcopy(small)
    spoil(results[job])
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "untested"
    assert sweep["primary"]["test"] is None
    assert words in sweep["verdict"]["sentence"]
    assert all(section["test"] is None for section in sweep["secondary"])
    assert summary_lines(sweep)
    assert any(step["title"] == "Fix what a check found" for step in sweep["next"])


def test_a_control_of_another_attributed_set_leaves_the_test(small: Results, tmp_path: Path) -> None:
    results = copy.deepcopy(small)
    results["random-0", 1]["arm"]["attributed"] = [1, 2, 3]
    sweep = compared(tmp_path, results)
    assert sweep["design"]["other_attributed"] == ["random-0"]
    assert [place["arm"] for place in sweep["primary"]["controls"]] == ["random-1", "random-2"]
    assert "random-0" in [place["arm"] for place in sweep["primary"]["others"]]
    assert summary_lines(sweep)


@pytest.mark.parametrize("job", [("all", 1), ("shuffled", 0)])
def test_a_failed_check_of_an_arm_outside_the_test_is_a_caveat(
    small: Results, tmp_path: Path, job: tuple[str, int]
) -> None:
    results = copy.deepcopy(small)
    results[job]["certificates"]["export"].update(passed=False)
    sweep = compared(tmp_path, results)
    assert sweep["verdict"]["kind"] == "not_better"
    assert any(c["name"] == "check_certificates" and c["weight"] == "major" for c in sweep["caveats"])


def test_money_of_the_results_outlives_the_ledger_tally(small: Results, tmp_path: Path) -> None:
    """A repeated sweep finds everything in the store, so its tally is empty; the verdicts still say what they cost."""
    results = copy.deepcopy(only(small, arms=("attributed", "random-0")))
    for i, result in enumerate(results.values()):
        result["costs"]["ledger"] = asdict(Tally())
        result["judges"]["verifier"]["calls"].update(n_calls=10 + min(i, 2), cost_usd=0.25, n_unpriced=0)
        for observer in result["observers"].values():
            observer["calls"].update(n_calls=7, cost_usd=1.0, n_unpriced=0)
        for row in result["ids"]:
            if row["kind"] == "verdicts":
                row["id"] = f"verdicts {min(i, 2)}"  # the last two jobs have one artifact
    n = len(results["attributed", 0]["observers"])
    money = compared(tmp_path, results)["costs"]["money"]
    assert (money["calls"], money["cost_usd"], money["unpriced"]) == (10 + 11 + 12 + 7 * n, 0.75 + n, 0)
    assert money["last"]["paid_usd"] == 0
    assert money["last"]["calls"] == 0


def test_found_counts_what_the_test_counts(small: Results, tmp_path: Path) -> None:
    plan = registration(small["attributed", 0], ARMS, (0,))
    sweep = compared(tmp_path, small, registrations=[plan])
    # At training seed 0 alone the attributed arm wins four problems; at both seeds it would be five.
    assert sweep["primary"]["against_base"] == {"wins": 4, "losses": 0, "undecided": 6, "p": pytest.approx(2 / 2**4)}
    assert "win 4 problems and lose 0" in sweep["verdict"]["found"]
    assert "descriptive" in sweep["verdict"]["found"]


@pytest.mark.parametrize(
    ("alternative", "words", "unlike", "page"),
    [
        ("less", "picks worse layers than chance: 3 of 3 random sets of the same size did at least as badly",
         "better layers", "or less"),
        ("two-sided", "perform differently from random ones: 3 of 3 random sets of the same size lie at least as far",
         "better layers", "or more either way"),
        ("greater", "picks better layers than chance: 2 of 3 random sets of the same size did at least as well",
         "worse layers", "or more"),
    ],
)  # fmt: skip
def test_the_sentence_fits_the_question(tmp_path: Path, alternative: str, words: str, unlike: str, page: str) -> None:
    wins = {"less": [9, 3, 4, 2], "two-sided": [5, 9, 2, 2], "greater": [5, 9, 6, 2]}[alternative]
    arms = dict(zip(["attributed", "random-0", "random-1", "random-2"], wins, strict=True))
    sweep = compared(tmp_path, world_of(arms, {}, 40, alternative=alternative, alpha=0.25))
    assert words in sweep["verdict"]["sentence"]
    assert unlike not in sweep["verdict"]["sentence"]
    assert power_words(0.021, "score", alternative).endswith(page)


def test_one_table_of_scores() -> None:
    from m3i.artifacts import SCORES as table
    from m3i.results import judges
    from m3i.results.table import columns
    from m3i.sweep import endpoints

    assert columns.SCORES is judges.SCORES is endpoints.SCORES is table
    assert table == {"tuned": 1.0, "base": 0.0, "tie": 0.5, "split": 0.5}


# -- properties -----------------------------------------------------------------------------------

SCORES = st.sampled_from([0.0, 0.5, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_scores_give_finite_json_and_reasons(data: st.DataObject) -> None:
    n_controls, n_seeds = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    n_problems, n_answers = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 2))
    arms = ["attributed", *(f"random-{i}" for i in range(n_controls))]
    sets = [(4, 5, 8), (1, 2, 4), (3, 5, 9), (6, 7, 8), (1, 5, 11)]
    cells = n_problems * n_answers

    judge = data.draw(st.sampled_from(["verifier", ""]))
    points = SCORES if judge else st.sampled_from([0.0, 1.0])

    def values() -> np.ndarray:
        drawn = data.draw(st.lists(points, min_size=cells, max_size=cells))
        return np.array(drawn).reshape(n_problems, n_answers)

    end = Endpoint(
        name=f"score:{judge}" if judge else "accuracy",
        judge=judge,
        neutral=0.5 if judge else 0.0,
        reach=0.5 if judge else 1.0,
        problems=tuple(f"p{i}" for i in range(n_problems)),
        left_out=(),
        values={(arm, seed): values() for arm in arms for seed in range(n_seeds)},
        base_PG=np.full((n_problems, n_answers), 0.5) if judge else values(),
    )
    rows = [
        {
            "arm": arm,
            "kind": arm.partition("-")[0],
            "layers": list(layers),
            "zero_update": False,
            "seeds": [*range(n_seeds)],
        }
        for arm, layers in zip(arms, sets, strict=False)
    ]
    alternative = data.draw(st.sampled_from(["greater", "less", "two-sided"]))
    seeds, answers = tuple(range(n_seeds)), tuple(range(n_answers))
    design = plain_design(
        seeds=seeds, planned_seeds=seeds, generation_seeds=answers, controls=tuple(arms[1:]), alternative=alternative
    )
    section = endpoint_section(end, design, rows)
    json.dumps(section, allow_nan=False)
    assert section["test"]["p"] * (n_controls + 1) == pytest.approx(round(section["test"]["p"] * (n_controls + 1)))
    assert section["test"]["p"] >= section["test"]["floor"]
    assert section["equivalence"]["controls"] is not None or section["equivalence"]["controls_why"]
    power = section["power"]
    assert power["controls"]["detectable"] is not None or power["controls"]["why"] or n_controls < 19
    assert power["effect"]["shift"] is not None or power["effect"]["why"]
    values_by_arm = {place["arm"]: place["t"] for place in section["controls"]}
    assert section["controls_mean"] == pytest.approx(np.mean(list(values_by_arm.values())))


def test_the_order_of_the_jobs_changes_nothing(small: Results, tmp_path: Path) -> None:
    there = compared(tmp_path / "a", small)
    back = compared(tmp_path / "b", dict(reversed(small.items())), registrations=[there["plan"]["registered"]])
    assert there["primary"] == back["primary"]
    assert there["arms"] == back["arms"]
    assert there["verdict"] == back["verdict"]


def test_compare_says_the_same_twice(small: Results, tmp_path: Path) -> None:
    write_sweep(tmp_path, small)
    sweep = load_sweep(tmp_path)
    assert to_json(build_sweep(sweep, created="now")) == to_json(build_sweep(sweep, created="now"))


def test_a_judge_that_repeats_the_accuracy_is_found(small: Results, tmp_path: Path) -> None:
    write_sweep(tmp_path, small)
    sweep = load_sweep(tmp_path)
    design = design_of(sweep, comparable(sweep)[0])
    assert design.controls == ("random-0", "random-1", "random-2")
    assert build_sweep(sweep)["secondary"][0]["same_as"] == "score:verifier"


# -- the whole command ----------------------------------------------------------------------------


def test_the_schema_is_documented(small: Results, tmp_path: Path) -> None:
    """Every field of sweep.json has its meaning in m3i.sweep.schema."""
    assert unknown_fields(Sweep.model_validate(compared(tmp_path, small))) == []


def test_the_command(small: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = ("random-1", 1)
    kept = {job: result for job, result in small.items() if job != lost}
    write_sweep(tmp_path, kept, failed={lost: "\x1b[2J<b>cleared</b>"})
    compare_command([str(tmp_path)])
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert stored["verdict"]["asked"] in out
    assert "\x1b" not in out  # what a job ended with cannot clear the screen
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!")
    assert "<b>cleared" not in page
    for name in ("sweep.json", "report.html", "results.parquet", "results.csv"):
        assert (tmp_path / name).stat().st_size > 0
        assert str(tmp_path / name) in out


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--fast"]])
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(M3IError, match="usage: m3i compare SWEEP"):
        compare_command(arguments)


def test_compare_needs_no_model(small: Results, tmp_path: Path) -> None:
    write_sweep(tmp_path, only(small, seeds=(0,)))
    code = (
        "import sys; from pathlib import Path; from m3i.sweep.load import load_sweep; "
        "from m3i.sweep.compare import build_sweep; build_sweep(load_sweep(Path(sys.argv[1]))); "
        "print([name for name in ('torch', 'transformers', 'llama_cpp', 'peft') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_jobs_that_failed_alike_share_a_line():
    def failure(arm, seed, state, error):
        return {"arm": arm, "seed": seed, "folder": f"{arm}/seed-{seed}", "state": state, "error": error}

    waiting = [failure(f"random-{i}", 0, "waiting", "it has not run") for i in range(5)]
    assert failure_lines([failure("all", 1, "failed", "out of memory"), *waiting]) == [
        "Failed:  all seed 1: out of memory",
        "Missing: 5 jobs, random-0 seed 0 to random-4 seed 0: it has not run",
    ]


def test_wins_and_losses_that_cancel_are_not_nothing(tmp_path: Path) -> None:
    """The attributed arm ties everywhere, and a control wins one and loses one: T is ½ for both."""
    wins = {"attributed": 0, "random-0": 1, "random-1": 0}
    sweep = compared(tmp_path, world_of(wins, {"random-0": 1}, 20))
    assert {place["t"] for place in (sweep["primary"]["attributed"], *sweep["primary"]["controls"])} == {0.5}
    assert [place["tie_rate"] for place in sweep["primary"]["controls"]] == [pytest.approx(0.9), 1.0]
    assert "Every comparison" not in sweep["verdict"]["sentence"]
    ties = next(c for c in sweep["caveats"] if c["name"] == "all_ties")
    assert "what the random arms changed" in ties["text"]


@pytest.mark.parametrize(("decided", "tested"), [(5, False), (6, True)])
def test_equivalence_takes_six_decided_problems(tmp_path: Path, decided: int, tested: bool) -> None:
    wins = dict.fromkeys(["attributed", "random-0", "random-1"], decided) | {"random-1": decided + 1}
    primary = compared(tmp_path, world_of(wins, {}, 100, margin=0.02))["primary"]
    assert (primary["equivalence"]["controls"] is not None) is tested
    assert ("decides 5 of 100 problems" in primary["equivalence"]["controls_why"]) is not tested


def test_equivalence_speaks_of_the_sets_that_were_drawn(tmp_path: Path) -> None:
    wins = {"attributed": 30, "random-0": 30, "random-1": 31, "random-2": 29}
    sweep = compared(tmp_path, world_of(wins, dict.fromkeys(wins, 28), 100, margin=0.03, effect=0.7))
    assert sweep["primary"]["equivalence"]["controls"]["equivalent"]
    assert "from the average of these 3 random sets can be ruled out" in sweep["verdict"]["sentence"]
    assert "the random sets of this sweep are equivalent" in sweep["verdict"]["null"]


def test_first_by_rank_alone_is_a_caveat(tmp_path: Path) -> None:
    """One more win than 19 controls, which all tie: p is at its floor, the difference may be nothing."""
    controls = arm_names(n_random=19)
    wins = dict.fromkeys(controls, 0) | {"attributed": 1}
    sweep = compared(tmp_path, world_of(wins, {}, 60))
    assert sweep["verdict"]["kind"] == "better"
    thin = next(c for c in sweep["caveats"] if c["name"] == "thin")
    assert thin["weight"] == "major"
    assert "+0.008" in thin["text"]
    clear = compared(tmp_path / "clear", world_of(wins | {"attributed": 25}, {}, 60))
    assert clear["verdict"]["kind"] == "better"
    assert "thin" not in {c["name"] for c in clear["caveats"]}


@pytest.mark.parametrize(
    ("p", "words"), [(0.2, "20 of 100"), (0.05, "5 of 100"), (0.001, "1 of 1,000"), (1.0, "100 of 100")]
)
def test_no_p_is_said_as_never(p: float, words: str) -> None:
    assert of_sweeps(p) == words


@pytest.mark.parametrize("scores", [[0.5] * 5, [0.1] * 5, [0.5 + 1e-16, 0.5, 0.5, 0.5, 0.5]])
def test_equal_scores_have_no_interval_at_equal_length(scores: list[float]) -> None:
    found = length_adjusted(extra=[1, 3, -2, 0.7, 5], scores=scores)
    assert found.degenerate
    assert found.low == found.value == found.high


def test_the_mean_score_at_equal_length_is_a_score() -> None:
    found = length_adjusted(extra=[4, 5, 6, 7, 9], scores=[0.0, 0.5, 0.5, 1.0, 1.0])
    assert found.value == found.low == 0  # the line is below 0 there
    assert not found.degenerate
