"""A sweep's plan, its jobs' progress files, and what the overview makes of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from m3i.config.settings import SweepSettings
from m3i.engine.cost import CostLine, Estimate, times_judged
from m3i.errors import ConfigError, InputError, SweepError
from m3i.progress.journal import Journal, Progress, read_progress
from m3i.store.store import StageRecord
from m3i.sweep.overview import Overview, time_left_s
from m3i.sweep.plan import PlannedJob, judged_jobs, planned_jobs, read_plan, register, with_jobs, write_plan
from m3i.sweep.sweeper import Sweep, only_here, quoted


def record(stage, *, hit=False):
    return StageRecord(
        stage=stage, label="", key="k", hit=hit, why="", time_s=1.0, made_in_s=2.0, peak_memory_bytes=0
    )  # fmt: skip


# -- the plan ---------------------------------------------------------------------------------


def test_the_default_sweep():
    jobs = planned_jobs(SweepSettings())
    assert jobs[0] == PlannedJob(arm="attributed", seed=0)
    assert len(jobs) == 3 + 1 + 19 * 3 + 3 + 3 == 67
    assert len(set(jobs)) == 67
    assert [j.seed for j in jobs if j.arm == "sham"] == [0]
    assert judged_jobs(SweepSettings()) == 66


def test_no_more_random_arms_than_there_are_sets():
    settings = SweepSettings(n_random=5, others=[], seeds=[4, 7], n_excluding=1)
    assert [j.folder for j in planned_jobs(settings, n_sets=1)] == [
        "attributed/seed-4", "attributed/seed-7", "random-0/seed-4", "random-0/seed-7", "excluding-0/seed-4",
        "excluding-0/seed-7",
    ]  # fmt: skip
    assert len(planned_jobs(settings, n_sets=164)) == 14
    assert len(planned_jobs(settings, n_sets=164, n_excluding_sets=0)) == 12


CONFIG = {"evaluate": {"seeds": [0, 1]}, "trainer": {"rank": 16}}


def asked(folder, settings, **changes):
    options = {"judge": "verifier", "config": CONFIG, "command": "m3i -m", "overrides": ["a=1"]} | changes
    plan = register(folder, settings, **options)
    write_plan(folder, with_jobs(plan, planned_jobs(settings), 164))
    return read_plan(folder)


def test_a_plan_is_registered_once_and_another_one_is_added_with_the_results_there_were(tmp_path):
    first = asked(tmp_path, SweepSettings())
    assert asked(tmp_path, SweepSettings()) == first
    assert [r["n_results"] for r in first["registrations"]] == [0]
    assert first["registrations"][0]["arms"][:3] == ["attributed", "sham", "random-0"]
    result = tmp_path / "attributed/seed-0/result.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    second = asked(tmp_path, SweepSettings(margin=0.1), judge="gpt")
    assert [(r["margin"], r["judge"], r["n_results"]) for r in second["registrations"]] == [
        (0.05, "verifier", 0),
        (0.1, "gpt", 1),
    ]


def test_a_folder_is_one_experiments(tmp_path):
    asked(tmp_path, SweepSettings())
    with pytest.raises(InputError, match=r"another experiment \(trainer.rank: 16 → 8\).*hydra\.sweep\.dir="):
        asked(tmp_path, SweepSettings(), config=CONFIG | {"trainer": {"rank": 8}})


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["registrations"][0].update(alpha="<script>"),
        lambda plan: plan["registrations"][0].update(arms=["../x"]),
        lambda plan: plan["registrations"][0].pop("judge"),
        lambda plan: plan["jobs"][0].update(folder="../../x"),
        lambda plan: plan["jobs"][0].update(seed=None),
        lambda plan: plan.update(n_sets="many"),
        lambda plan: plan.update(config="trainer.rank=8"),
        lambda plan: plan.update(registrations=3),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(tmp_path, change):
    plan = asked(tmp_path, SweepSettings())
    change(plan)
    write_plan(tmp_path, plan)
    with pytest.raises(InputError, match=r"plan\.json is damaged \("):
        read_plan(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=r"plan\.json.*hydra\.sweep\.dir="):
        read_plan(tmp_path)


def test_judges_of_a_sweep_are_paid_for_every_arm_and_observers_once():
    line = {
        "provider": "p", "model": "m", "n_calls": 10, "n_known": 4, "input_tokens": 100, "output_tokens": 20,
        "usd": 1.5, "usd_at_most": None, "basis": "stand-ins",
    }  # fmt: skip
    found = Estimate(
        lines=(CostLine(place="observer.a", **line), CostLine(place="judge.b", **line)),
        price_source="",
        budget_usd=None,
    )
    observer, judge = times_judged(found, 66).lines
    assert observer == found.lines[0]
    assert (judge.n_calls, judge.n_known, judge.input_tokens, judge.output_tokens) == (660, 0, 6600, 1320)
    assert (judge.usd, judge.usd_at_most) == (99.0, None)


# -- progress ---------------------------------------------------------------------------------


def test_a_journal_is_read_back_and_a_later_attempt_counts(tmp_path):
    journal = Journal(tmp_path / "job")
    assert read_progress(tmp_path / "job") == Progress()
    journal.begin()
    journal.stages(5)
    journal.start("trace", "")
    assert read_progress(tmp_path / "job").current == "trace"
    journal.stage(record("trace"), "640 traces")
    journal.stage(record("pairs", hit=True), "12 pairs")
    journal.arm({"n_sets": 164})
    journal.end("failed", error="no room", cost_usd=0.5)
    seen = read_progress(tmp_path / "job")
    assert (seen.state, seen.error, seen.cost_usd, seen.arm) == ("failed", "no room", 0.5, {"n_sets": 164})
    assert (seen.n_made, seen.n_hit, seen.n_done, seen.n_stages) == (1, 1, 2, 5)
    journal.begin()
    again = read_progress(tmp_path / "job")
    assert (again.state, again.error, again.n_done, again.attempt) == ("running", "", 0, 2)


def test_half_a_line_and_foreign_lines_are_left_out(tmp_path):
    journal = Journal(tmp_path)
    journal.begin()
    with journal.path.open("a") as file:
        file.write('[1]\nnull\n{"event": "stage"}\n{"event": "end", "state": "do')
    assert read_progress(tmp_path).state == "running"


# -- the overview -----------------------------------------------------------------------------


def ended(began, took, **changes):
    return Progress(state="done", began_at=began, ended_at=began + took, n_made=3, **changes)


def test_time_left_is_reckoned_from_jobs_after_the_first():
    jobs = [PlannedJob(arm="random-0", seed=i) for i in range(6)]
    progress = dict.fromkeys(jobs, Progress()) | {jobs[0]: ended(0, 100)}
    assert time_left_s(progress, now=100) is None
    progress |= {jobs[1]: ended(100, 40), jobs[2]: ended(100, 60)}
    assert time_left_s(progress, now=160) == pytest.approx(3 * 50)
    assert time_left_s({**progress, PlannedJob(arm="sham", seed=0): ended(100, 1)}, now=160) == pytest.approx(3 * 50)
    progress |= {jobs[3]: Progress(state="running", began_at=150), jobs[4]: Progress(state="running", began_at=100)}
    assert time_left_s(progress, now=160) == pytest.approx((3 * 50 - 10 - 50) / 2)


def test_what_ends_is_told_once_with_its_error_and_the_outlook(tmp_path):
    jobs = [PlannedJob(arm="attributed", seed=0), PlannedJob(arm="random-0", seed=0)]
    out = io.StringIO()
    with Overview(tmp_path, jobs, console=Console(file=out, width=200)) as overview:
        for job, state in zip(jobs, ("done", "failed"), strict=True):
            journal = Journal(tmp_path / job.folder)
            journal.begin()
            journal.stage(record("train", hit=state == "done"), "")
            journal.end(state, error="[red]CUDA[/] out of memory" if state == "failed" else "", cost_usd=0.25)
        overview.note("there are 2 other sets")
    told = out.getvalue()
    assert "Sweep of 2 jobs" in told
    assert told.count("attributed") == 1
    assert "0 made, 1 stored" in told
    assert "[red]CUDA[/] out of memory" in told
    assert "1 of 2 done" in told
    assert "1 failed" in told
    assert "$0.50 paid" in told


def test_attempts_of_an_earlier_command_are_waiting(tmp_path):
    job = PlannedJob(arm="attributed", seed=0)
    journal = Journal(tmp_path / job.folder)
    journal.begin()
    journal.end("failed", error="old")
    out = io.StringIO()
    with Overview(tmp_path, [job], console=Console(file=out, width=200)):
        pass
    assert "old" not in out.getvalue()
    with Overview(tmp_path, [job], console=Console(file=out, width=200)):
        journal.begin()
        journal.end("failed", error="new")
    assert "new" in out.getvalue()
    assert read_progress(tmp_path / job.folder).attempt == 2


# -- workers that are killed ------------------------------------------------------------------


class Dying:
    """A launcher whose workers are killed: as joblib, it raises, and jobs are left without a word."""

    def __init__(self, folder, *, kills):
        self.folder, self.kills, self.launched = folder, kills, []

    def launch(self, job_overrides, initial_job_idx):
        self.launched.append([words[-2:] for words in job_overrides])
        for words in job_overrides:
            arm, seed = (word.partition("=")[2] for word in words[-2:])
            journal = Journal(self.folder / arm / f"seed-{seed}")
            journal.begin()
            if arm == "all":
                journal.end("failed", error="no room")
            elif arm == "random-0" and self.kills:
                self.kills -= 1
                raise RuntimeError("a worker was killed")
            else:
                journal.end("done")


def test_jobs_of_killed_workers_are_launched_again_and_failed_ones_are_not(tmp_path):
    jobs = [PlannedJob(arm=arm, seed=0) for arm in ("all", "random-0", "random-1")]
    launcher = Dying(tmp_path, kills=1)
    sweep = Sweep(tmp_path, ["x=1"], launcher)
    sweep.launch(jobs, 1)
    assert launcher.launched[1] == [["arm=random-0", "seed=0"], ["arm=random-1", "seed=0"]]
    assert {job.arm: sweep.progress(job).state for job in jobs} == {
        "all": "failed", "random-0": "done", "random-1": "done"
    }  # fmt: skip


def test_a_launcher_that_never_gets_through_is_given_up(tmp_path):
    launcher = Dying(tmp_path, kills=99)
    sweep, job = Sweep(tmp_path, [], launcher), PlannedJob(arm="random-0", seed=0)
    sweep.launch([job], 1)
    assert len(launcher.launched) == 3
    with pytest.raises(SweepError, match="arm random-0, seed 0: RuntimeError: a worker was killed"):
        sweep.arm_of(job)


def test_what_an_earlier_command_finished_is_not_this_ones(tmp_path):
    job = PlannedJob(arm="random-0", seed=0)
    Dying(tmp_path, kills=0).launch([["arm=random-0", "seed=0"]], 0)
    sweep = Sweep(tmp_path, [], Dying(tmp_path, kills=0))
    assert sweep.progress(job).state == "waiting"
    sweep.launch([job], 1)
    assert sweep.progress(job).state == "done"


def test_a_file_is_no_folder_for_a_sweep(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir=.* is a file; name a folder"):
        only_here(tmp_path / "file" / "sweep").__enter__()


def test_one_command_at_a_time_works_on_a_sweep(tmp_path):
    with only_here(tmp_path):
        second = only_here(tmp_path)
        with pytest.raises(SweepError, match="another command is running the sweep"):
            second.__enter__()
    with only_here(tmp_path):
        pass


@pytest.mark.parametrize("name", ["plain", "a (copy)", "it's", "a,b", "a=b", "[x]", "{x}", "two words"])
def test_folders_of_any_name_are_taken_word_for_word(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"hydra.sweep.dir={quoted(f'/tmp/{name}/sweeps/x')}"])
    assert not override.is_sweep_override()
    assert override.value() == f"/tmp/{name}/sweeps/x"
