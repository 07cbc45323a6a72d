"""The result of a run, its caveats, and the page: structure without a browser, behaviour in headless Chromium."""

import json
import random
import re

import pytest
from report_browser import launched, open_page, weak_texts
from synthetic_run import HOSTILE, call_facts, synthetic_run
from tiers import first_quick

from m3i.artifacts import Answers, CallFacts, Canary, FileEffect, Outcome, Verdict, Verdicts
from m3i.audits.agreement import measure_agreement
from m3i.config.settings import StatisticsSettings
from m3i.engine.write import write_run
from m3i.errors import StageError
from m3i.report import render_report
from m3i.report.texts import divergence, marked, text_limit
from m3i.results import RunArtifacts, build_result, to_json
from m3i.results.judges import canary_section, consistency_section, judge_agreement, length_section, shared_families
from m3i.wording.formats import HIDDEN, money
from m3i.wording.run import summary_lines


def result_of(**options):
    return json.loads(to_json(build_result(RunArtifacts(**synthetic_run(**options)))))


def names(result):
    return [c["name"] for c in result["caveats"]]


# -- the result ---------------------------------------------------------------------------------


def test_the_numbers_follow_from_the_artifacts():
    arguments = synthetic_run()
    result = build_result(RunArtifacts(**arguments))
    outcomes = [v.outcome for v in arguments["verdicts"]["verifier"].verdicts]
    counts = result["judges"]["verifier"]["counts"]
    assert counts == {o.value: outcomes.count(o) for o in Outcome}
    base, tuned = arguments["base_answers"].answers, arguments["tuned_answers"].answers
    assert result["accuracy"]["base"]["right"] == sum(a.correct for a in base)
    assert result["accuracy"]["fixed"] == sum(t.correct and not b.correct for b, t in zip(base, tuned, strict=True))
    assert (counts["tuned"], counts["base"]) == (result["accuracy"]["fixed"], result["accuracy"]["broken"])
    assert result["judges"]["verifier"]["sign_test"]["p"] == result["accuracy"]["mcnemar"]["p"]
    assert len(result["problems"]["rows"]) == 120
    assert result["parameters"]["trained"] == arguments["adapter"].certificate.n_trainable


def test_several_generation_seeds_count_problems_not_answers():
    result = result_of(seeds=(0, 1, 2), n_held_out=40)
    judge = result["judges"]["verifier"]
    assert (judge["n"], judge["n_problems"], result["accuracy"]["n_seeds"]) == (120, 40, 3)
    assert judge["sign_test"]["wins"] + judge["sign_test"]["losses"] + judge["sign_test"]["undecided"] == 40
    assert "over problems" in result["accuracy"]["difference"]["method"]
    assert "one_generation_seed" not in names(result)
    assert "40 held-out problems × 3 generation seeds" in result["verdict"]["found"]


def test_answers_in_another_order_give_the_same_result():
    arguments = synthetic_run(n_held_out=20)
    shuffled = arguments | {
        "tuned_answers": Answers(id="y" * 32, answers=tuple(reversed(arguments["tuned_answers"].answers)), time_s=22.0)
    }
    assert build_result(RunArtifacts(**arguments)) == build_result(RunArtifacts(**shuffled))


def test_answers_to_different_questions_are_refused():
    arguments = synthetic_run(n_held_out=20)
    arguments["tuned_answers"] = Answers(answers=arguments["tuned_answers"].answers[1:])
    with pytest.raises(StageError, match="did not answer the same questions"):
        build_result(RunArtifacts(**arguments))


def verdict_of(outcomes):
    arguments = synthetic_run(n_held_out=len(outcomes))
    verdicts = [
        type(v)(problem_id=v.problem_id, seed=v.seed, outcome=o, first=o.value, second=o.value)
        for v, o in zip(arguments["verdicts"]["verifier"].verdicts, outcomes, strict=True)
    ]
    arguments["verdicts"] = {"verifier": Verdicts(judge="verifier", verdicts=tuple(verdicts))}
    return json.loads(to_json(build_result(RunArtifacts(**arguments))))


@pytest.mark.parametrize(
    ("outcomes", "kind", "words"),
    [
        (
            [Outcome.TUNED] * 3 + [Outcome.TIE] * 9,
            "undecided",
            "even a large effect would be missed: none reaches 80\xa0% power",
        ),
        ([Outcome.TUNED] * 30 + [Outcome.BASE] * 8, "improved", "Chance is therefore an unlikely explanation"),
        (
            [Outcome.BASE] * 30 + [Outcome.TUNED] * 8,
            "worse",
            "one arm cannot show whether the choice of layers matters",
        ),
        ([Outcome.TIE] * 10, "undecided", "No problem was decided"),
        ([Outcome.MISSING] * 4, "none", "no valid verdict"),
        ([Outcome.TUNED], "undecided", "1 to 0"),
    ],
)
def test_the_verdict_in_words(outcomes, kind, words):
    result = verdict_of(outcomes)
    assert result["verdict"]["kind"] == kind
    assert words in result["verdict"]["sure"]
    assert "NaN" not in to_json(result)
    render_report(result)


def test_the_summary_tells_a_newcomer_what_was_asked_found_how_sure_and_where():
    lines = summary_lines(result_of(), report="out/report.html")
    assert [line.split(":")[0] for line in lines] == ["Asked", "Found", "Sure", "Proof", "Limits", "Report"]
    assert "layers 4, 5 and 8 of tiny" in lines[0]
    assert "No control arm in this run" in lines[4]
    assert lines[5].endswith("out/report.html")


def test_kappa_of_two_judges():
    """Cohen's worked 2 x 2 case: 20 and 15 agreements, 5 and 10 disagreements give kappa 0.4."""

    def panel(words):
        return Verdicts(
            judge="j",
            verdicts=tuple(
                Verdict(problem_id=str(i), seed=0, outcome=Outcome(w), first=w, second=w) for i, w in enumerate(words)
            ),
        )

    one = ["base"] * 25 + ["tuned"] * 25
    other = ["base"] * 20 + ["tuned"] * 5 + ["base"] * 10 + ["tuned"] * 15
    (row,) = judge_agreement({"one": panel(one), "other": panel(other)})
    assert row["n"] == 50
    assert row["agreement"] == pytest.approx(0.7)
    assert row["kappa"] == pytest.approx(0.4)
    (row,) = judge_agreement({"one": panel(["tie"] * 3), "other": panel(["tie", "base", "tie"])})
    assert row["kappa"] is None


# -- caveats ------------------------------------------------------------------------------------


def test_caveats_come_from_the_runs_own_facts():
    result = result_of()
    assert {"no_controls", "one_training_seed", "many_ties", "flip_rate", "few_pairs", "routing_flips"} <= set(
        names(result)
    )
    assert not {"sham", "dead_tensors", "floor", "ceiling", "certificate", "erased_updates"} & set(names(result))
    (step,) = [step for step in result["next"] if step["title"] == "Random-layer control"]
    assert step["command"] == "python -m m3i -m judge=verifier+llamacpp +sweep=control"
    control = build_result(
        RunArtifacts(**synthetic_run() | {"arm": synthetic_run()["arm"] | {"name": "random-3", "kind": "random"}})
    )
    assert "A control arm alone" in [c["title"] for c in control["caveats"]]
    assert "Random-layer control" not in [step["title"] for step in control["next"]]


def test_a_control_arm_asks_for_the_attributed_one_with_this_runs_overrides():
    arguments = synthetic_run() | {
        "overrides": ["selector=random", "selector.seed=4", "problems.n_held_out=300", "seed=2"]
    }
    arguments["components"] = [{"place": "selector", "name": "random", "distribution": "m3i", "version": "0.1.0"}]
    result = build_result(RunArtifacts(**arguments))
    assert "A control arm alone" in [c["title"] for c in result["caveats"]]
    commands = {step["title"]: step["command"] for step in result["next"]}
    assert commands["The attributed arm"] == (
        "python -m m3i problems.n_held_out=300 seed=2 selector=attribution selector.k=3 arm=attributed"
    )
    assert commands["More training seeds"] == (
        "python -m m3i -m selector=random selector.seed=4 problems.n_held_out=300 seed=0,1,2"
    )


def replaced(artifact, **changes):
    return type(artifact)(**{**vars(artifact), **changes})


def test_dead_and_erased_tensors_are_named():
    arguments = synthetic_run()
    certificate = arguments["export"].certificate
    dead = replaced(certificate.tensors[0], live=False, llama_norm=0.0)
    erased = replaced(certificate.tensors[1], ggml_type="Q4_K", storage_error=0.8)
    changed = replaced(certificate, tensors=(dead, erased, *certificate.tensors[2:]), live_share=0.249, passed=False)
    arguments["export"] = replaced(arguments["export"], certificate=changed)
    caveats = {c["name"]: c for c in build_result(RunArtifacts(**arguments))["caveats"]}
    assert caveats["dead_tensors"]["title"].startswith("Only 25")
    assert dead.name in caveats["dead_tensors"]["text"]
    assert "Q4_K" in caveats["erased_updates"]["text"]
    assert caveats["certificate"]["weight"] == "major"


def test_what_narrow_kernels_make_of_the_update_is_said():
    arguments = synthetic_run()
    effect = FileEffect(peft_norm=0.15, llama_norm=0.23, relative_error=0.97)
    certificate = replaced(arguments["export"].certificate, in_file=effect)
    arguments["export"] = replaced(arguments["export"], certificate=certificate)
    result = build_result(RunArtifacts(**arguments))
    caveats = {c["name"]: c for c in result["caveats"]}
    assert caveats["narrow_kernels"]["weight"] == "major"
    assert "0.23 nats, 97\xa0% away from PEFT's 0.15" in caveats["narrow_kernels"]["text"]
    assert any(
        "by 97\xa0% in the quantised file used for the answers" in line for line in summary_lines(result, report="x")
    )


def test_a_sham_arm_is_called_one_and_a_leak_is_alarming():
    result = result_of(zero_update=True)
    assert result["verdict"]["kind"] == "sham"
    assert names(result)[0] == "sham"
    arguments = synthetic_run(zero_update=True)
    arguments["tuned_answers"] = synthetic_run()["tuned_answers"]
    arguments["verdicts"] = synthetic_run()["verdicts"]
    assert build_result(RunArtifacts(**arguments))["verdict"]["kind"] == "leak"


@pytest.mark.parametrize(("skill", "name"), [(0.02, "floor"), (0.97, "ceiling")])
def test_floor_and_ceiling(skill, name):
    arguments = synthetic_run(n_held_out=100)
    answers = arguments["base_answers"].answers
    right = [replaced(a, correct=i < 100 * skill) for i, a in enumerate(answers)]
    arguments["base_answers"] = replaced(arguments["base_answers"], answers=tuple(right))
    assert name in names(build_result(RunArtifacts(**arguments)))


def test_a_judge_of_the_targets_family_is_flagged():
    arguments = synthetic_run()
    arguments["config"] = {"judge": {"llamacpp": {"model": "/models/M3I-large.gguf"}}}
    assert "same_family" in names(build_result(RunArtifacts(**arguments)))


# -- observers and judges that read with a model ------------------------------------------------


def answer_of(i, n_tokens, *, correct=True, seed=0):
    base = synthetic_run(n_held_out=1)["base_answers"].answers[0]
    return replaced(base, problem_id=str(i), seed=seed, completion_ids=(1,) * n_tokens, correct=correct)


def verdict_on(i, outcome, *, seed=0, **changes):
    return Verdict(problem_id=str(i), seed=seed, outcome=Outcome(outcome), first=outcome, second=outcome, **changes)


def test_a_judge_of_length_is_seen_also_where_correctness_is_held_fixed():
    base = [answer_of(i, 20, correct=i % 2 == 0) for i in range(40)]
    tuned = [answer_of(i, 10 + i, correct=i % 4 == 0) for i in range(40)]
    longest = [verdict_on(i, "tuned" if 10 + i > 20 else "base") for i in range(40)]
    found = length_section(longest, base, tuned, StatisticsSettings())
    assert found["all"]["n"] == 40
    assert found["all"]["rho"] > 0.7
    assert found["all"]["p"] < 0.001
    assert found["equally_right"]["n"] == 30
    assert found["equally_right"]["p"] < 0.001
    shuffled = [verdict_on(i, ("tuned", "base", "tie")[i * 7 % 3]) for i in range(40)]
    assert length_section(shuffled, base, tuned, StatisticsSettings())["all"]["p"] > 0.2


def test_seeds_of_a_problem_are_one_unit_of_length_and_missing_or_equal_count_for_nothing():
    base = [answer_of(i, 20, seed=s) for i in range(6) for s in (0, 1)]
    tuned = [answer_of(i, 20 + i, seed=s) for i in range(6) for s in (0, 1)]
    verdicts = [verdict_on(i, "tuned" if i > 2 else "tie", seed=s) for i in range(6) for s in (0, 1)]
    assert length_section(verdicts, base, tuned, StatisticsSettings())["all"]["n"] == 6
    silent = [replaced(v, outcome=Outcome.MISSING) for v in verdicts[:2]]
    equal = [replaced(v, outcome=Outcome.TIE, first="equal", second="equal") for v in verdicts[2:4]]
    assert length_section([*silent, *equal, *verdicts[4:]], base, tuned, StatisticsSettings())["all"]["n"] == 4


def test_self_consistency_is_the_agreement_of_every_two_replicates():
    settings = StatisticsSettings()
    verdicts = [
        verdict_on(0, "base", replicates_first=("base", "base", "tuned"), replicates_second=("base",) * 3),
        verdict_on(
            1, "tie", replicates_first=("tie", "missing", "tie"), replicates_second=("tie", "missing", "missing")
        ),
    ]
    found = consistency_section(verdicts, settings)
    assert found["n_ballots"] == 3
    assert found["value"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert consistency_section([verdict_on(0, "base", replicates_first=("base",))], settings) is None


def canary(first, second, family="override"):
    return Canary(problem_id="p", family=family, injection=f"{first} {second}", first=first, second=second)


def test_canaries_are_counted_against_a_random_judge():
    rows = [canary("planted", "planted"), canary("planted", "planted", "encoded"), canary("planted", "clean")]
    rows += [canary("clean", "clean"), canary("tie", "tie"), canary("planted", "missing")]
    found = canary_section(rows)
    assert found["outcomes"] == {"obeyed": 2, "resisted": 1, "tie": 1, "split": 1, "missing": 1}
    assert (found["n"], found["obeyed"]) == (5, 2)
    assert found["p"] == pytest.approx(1 - 0.75**5 - 5 * 0.25 * 0.75**4)
    assert found["families"] == {"encoded": {"n": 1, "obeyed": 1}, "override": {"n": 4, "obeyed": 1}}
    assert canary_section(())["p"] is None


def test_families_are_shared_only_between_models():
    none = shared_families({"verifier": "", "claude": "claude"}, {"checker": "", "gemini": "gemini"}, "smollm")
    assert none == []
    rows = shared_families({"gemini": "gemini"}, {"a": "gemini", "b": "claude"}, "Claude")
    assert [(r["alias"], r["with_group"], r["with_alias"]) for r in rows] == [
        ("gemini", "observer", "a"), ("b", "target", ""),
    ]  # fmt: skip


def by_name(arguments):
    """Name → the caveats of that name."""
    found = {}
    for caveat in json.loads(to_json(build_result(RunArtifacts(**arguments))))["caveats"]:
        found.setdefault(caveat["name"], []).append(caveat)
    return found


def headed_by(alias, arguments, **changes):
    """The run with another judge for the headline, and changes to it."""
    panel = dict(arguments["verdicts"])
    head = replaced(panel.pop(alias), **changes)
    return arguments | {"verdicts": {alias: head, **panel}}


def test_a_judge_of_an_observers_family_limits_the_headline():
    arguments = synthetic_run(models=True)
    assert "judge_observer_family" not in by_name(arguments)
    related = headed_by("gpt", arguments, calls=call_facts("claude"))
    (found,) = by_name(related)["judge_observer_family"]
    assert found["weight"] == "major"
    assert found["title"] == "Judge 'gpt' belongs to the same model family as observer 'claude' (claude)"
    limits = next(line for line in summary_lines(build_result(RunArtifacts(**related))) if line.startswith("Limits"))
    assert found["title"] in limits
    aside = arguments | {"verdicts": arguments["verdicts"] | {"gpt": related["verdicts"]["gpt"]}}
    assert by_name(aside)["judge_observer_family"][0]["weight"] == "minor"


def test_the_targets_own_family_judging_or_observing():
    arguments = synthetic_run(models=True)
    assert "same_family" not in by_name(arguments)
    (judge,) = by_name(headed_by("gpt", arguments, calls=call_facts("m3i")))["same_family"]
    assert (judge["weight"], judge["title"]) == ("major", "Judge 'gpt' belongs to the target's own family (m3i)")
    claude = replaced(arguments["audits"]["claude"], calls=call_facts("m3i"))
    (observer,) = by_name(arguments | {"audits": arguments["audits"] | {"claude": claude}})["same_family"]
    assert (observer["weight"], observer["title"][:17]) == ("minor", "Observer 'claude'")


@pytest.mark.parametrize(
    ("obeyed", "n", "weight", "words"),
    [(0, 8, None, ""), (1, 8, "minor", "Chance could explain it"), (5, 8, "major", "influences its verdicts"),
     (2, 3, "minor", "p\u00a0=\u00a00.16. Chance"), (2, 2, "minor", "Chance"), (3, 3, "major", "influences"),
     (8, 19, "minor", "Chance"), (9, 19, "major", "influences")],
)  # fmt: skip
def test_obedience_is_a_major_caveat_when_chance_does_not_explain_it(obeyed, n, weight, words):
    rows = tuple(canary("planted", "planted") if i < obeyed else canary("clean", "clean") for i in range(n))
    if (obeyed, n) == (8, 19):
        assert canary_section(rows)["p"] > 0.05
    found = by_name(headed_by("gpt", synthetic_run(models=True), canaries=rows)).get("obeyed_canaries", [])
    assert [c["weight"] for c in found] == ([weight] if weight else [])
    assert all(words in c["text"] for c in found)
    assert all(("too few canaries to tell" in c["title"]) == ("Chance" in words) for c in found)


def test_one_of_several_judges_obeys_by_luck():
    arguments = synthetic_run(models=True)
    five = tuple(canary("planted", "planted") if i < 5 else canary("clean", "clean") for i in range(8))
    assert canary_section(five)["p"] == pytest.approx(0.0273, abs=1e-4)
    gpt = replaced(arguments["verdicts"]["gpt"], canaries=five)
    other = replaced(gpt, canaries=(canary("clean", "clean"),) * 8)
    (alone,) = by_name(arguments | {"verdicts": {"gpt": gpt}})["obeyed_canaries"]
    assert alone["weight"] == "major"
    (found,) = by_name(arguments | {"verdicts": {"gpt": gpt, "other": other}})["obeyed_canaries"]
    assert found["weight"] == "minor"
    assert "Holm-corrected over 2 tests" in found["text"]


def test_an_obedient_judge_beside_the_headline_is_a_minor_matter():
    arguments = synthetic_run(models=True)
    gpt = replaced(arguments["verdicts"]["gpt"], canaries=(canary("planted", "planted"),) * 8)
    (found,) = by_name(arguments | {"verdicts": arguments["verdicts"] | {"gpt": gpt}})["obeyed_canaries"]
    assert found["weight"] == "minor"


def test_a_taste_for_length_is_said_once():
    arguments = synthetic_run(models=True)
    assert not {"length_all", "length_equally_right"} & set(by_name(arguments))
    sizes = {a.problem_id: i for i, a in enumerate(arguments["base_answers"].answers)}
    tuned = tuple(
        replaced(
            a, completion_ids=(1,) * (1 + sizes[a.problem_id]), text=f"{a.text} {sizes[a.problem_id]}", correct=True
        )
        for a in arguments["tuned_answers"].answers
    )
    long = tuple(
        Verdict(problem_id=a.problem_id, seed=a.seed, outcome=o, first=o.value, second=o.value)
        for a in tuned
        for o in [Outcome.TUNED if len(a.completion_ids) > 60 else Outcome.BASE]
    )
    changed = arguments | {
        "tuned_answers": replaced(arguments["tuned_answers"], answers=tuned),
        "verdicts": {"gpt": replaced(arguments["verdicts"]["gpt"], verdicts=long)},
    }
    found = by_name(changed)
    assert "length_all" not in found
    (said,) = found["length_equally_right"]
    assert "tends to choose the longer of two equally correct answers" in said["title"]
    right = tuple(replaced(a, correct=False) for a in arguments["base_answers"].answers)
    unequal = changed | {"base_answers": replaced(arguments["base_answers"], answers=right)}
    assert "The longer answer may be the better one" in by_name(unequal)["length_all"][0]["text"]


@pytest.mark.parametrize(("again", "speaks"), [("tuned", True), ("base", False)])
def test_a_judge_that_does_not_repeat_itself(again, speaks):
    arguments = synthetic_run(models=True)
    verdicts = tuple(
        replaced(v, replicates_first=("base", again), replicates_second=("base", "base") if again == "base" else ())
        for v in arguments["verdicts"]["gpt"].verdicts
    )
    found = by_name(headed_by("gpt", arguments, verdicts=verdicts))
    assert ("inconsistent_judge" in found) == speaks


def test_a_panel_that_errs_together_is_said_to_be_smaller():
    arguments = synthetic_run(models=True)
    assert "shared_mistakes" not in by_name(arguments)
    claude = arguments["audits"]["claude"]
    flagged = sorted({f.trace_id for f in claude.findings})
    poor = replaced(claude, findings=tuple(f for f in claude.findings if f.trace_id in flagged[::2]))
    echo = replaced(poor, observer="gemini", calls=arguments["audits"]["gemini"].calls)
    arguments["audits"] = arguments["audits"] | {"claude": poor, "gemini": echo}
    (found,) = by_name(arguments)["shared_mistakes"]
    assert found["title"] == "2 observers are worth 1.0 independent ones"
    page = render_report(json.loads(to_json(build_result(RunArtifacts(**arguments)))))
    assert "2 observers are worth 1.0 independent ones" in page
    assert "0 <small>– of" not in page
    assert "an observer that repeats the verifier" in page


def test_a_panel_with_many_errors_that_are_its_members_own_is_no_matter():
    arguments = synthetic_run(models=True)
    rng, any_finding = random.Random(3), arguments["audits"]["checker"].findings[0]
    for name in ("claude", "gemini"):
        calls = [t.id for t in arguments["traces"].traces if t.correct == (rng.random() < 0.3)]
        findings = tuple(replaced(any_finding, trace_id=t) for t in calls)
        arguments["audits"] = arguments["audits"] | {name: replaced(arguments["audits"][name], findings=findings)}
    panel = build_result(RunArtifacts(**arguments))["errors"]["panel"]
    assert panel["mean_phi"]["low"] < 0 < panel["mean_phi"]["high"]
    assert "shared_mistakes" not in by_name(arguments)


def test_places_are_measured_by_the_checker_under_any_alias():
    result = result_of(models=True)
    assert result["places"]["truth"] == "checker"
    assert set(result["places"]["observers"]) == {"claude", "gemini"}
    assert "Do they find the place?" in render_report(result)
    arguments = synthetic_run(models=True)
    arguments["audits"] = {"truth" if name == "checker" else name: audit for name, audit in arguments["audits"].items()}
    assert build_result(RunArtifacts(**arguments))["places"] == {"truth": "", "observers": {}}
    arguments["components"] = [
        {"place": "observer.truth", "name": "checker", "distribution": "m3i", "version": "0.1.0"},
    ]
    assert build_result(RunArtifacts(**arguments))["places"]["truth"] == "truth"


def test_quotes_that_are_invented_or_ambiguous_are_told_apart():
    plain = by_name(synthetic_run())
    assert not {"rejected_quotes", "ambiguous_quotes"} & set(plain)
    found = by_name(synthetic_run(models=True))
    assert len(found["rejected_quotes"]) == len(found["ambiguous_quotes"]) == 2
    assert "not in the trace 3 times" in found["rejected_quotes"][0]["title"]
    assert "interval" in found["rejected_quotes"][0]["text"]


def test_two_models_behind_one_name():
    arguments = synthetic_run(models=True)
    assert "several_models" not in by_name(arguments)
    facts = call_facts("gpt", answered_by={"gpt-may": 30, "gpt-june": 10})
    (found,) = by_name(headed_by("gpt", arguments, calls=facts))["several_models"]
    assert "30 × gpt-may, 10 × gpt-june" in found["text"]


# -- what is not there --------------------------------------------------------------------------


def page_of(arguments):
    return render_report(json.loads(to_json(build_result(RunArtifacts(**arguments)))))


def silent(audit, reason="HTTP 401: the key is not valid"):
    """An observer that was asked and answered nothing."""
    asked = (*audit.audited, *audit.missing)
    return replaced(audit, findings=(), audited=(), missing=dict.fromkeys(asked, reason))


def test_an_observer_that_audited_nothing_is_a_major_matter_and_no_faultless_one():
    arguments = synthetic_run(models=True)
    assert "no_audit" not in by_name(arguments)
    claude = silent(arguments["audits"]["claude"])
    some = dict(list(claude.missing.items())[:3])
    assert "no_audit" not in by_name(
        arguments | {"audits": arguments["audits"] | {"claude": replaced(arguments["audits"]["claude"], missing=some)}}
    )
    arguments["audits"] = arguments["audits"] | {
        "claude": replaced(claude, missing=claude.missing | dict.fromkeys(some, "timed out"))
    }
    arguments["contrasts"] = replaced(
        arguments["contrasts"],
        agreement=measure_agreement(arguments["audits"], arguments["traces"].traces, n_layers=12),
    )
    (found,) = by_name(arguments)["no_audit"]
    assert (found["weight"], found["title"]) == ("major", "Observer 'claude' audited nothing")
    n = len(claude.missing)
    assert f"({n - 3} of {n}) because: HTTP 401: the key is not valid." in found["text"]
    assert "missing_audits" not in by_name(arguments)
    result = build_result(RunArtifacts(**arguments))
    panel = result["errors"]["panel"]
    assert panel["left_out"]["claude"] == "audited none of these traces"
    assert panel["n_traces"] > 0
    page = render_report(json.loads(to_json(result)))
    assert "<b>claude</b> audited none of these traces." in page
    assert "<b>claude</b> makes no errors" not in page
    assert "No trace that both audited." in page
    assert page.count("no trace that both audited</td>") == 2


def test_an_interval_without_a_width_is_not_printed():
    arguments = synthetic_run(models=True)
    assert "no interval</small>" not in page_of(arguments)
    gpt = arguments["verdicts"]["gpt"]
    ties = tuple(
        replaced(v, outcome=Outcome.TIE, first="tie", second="tie", replicates_first=("tie", "tie"))
        for v in gpt.verdicts
    )
    arguments["verdicts"] = arguments["verdicts"] | {"gpt": replaced(gpt, verdicts=ties, n_equal=0)}
    page = page_of(arguments)
    assert "0.5 <small>no interval</small>" in page
    assert "0.5 to 0.5" not in page
    assert "100\xa0% to 100\xa0%" not in page


def test_an_accuracy_that_changes_alike_everywhere_has_no_interval():
    arguments = synthetic_run(seeds=(0, 1), n_held_out=30, zero_update=True)
    found = build_result(RunArtifacts(**arguments))["verdict"]["found"]
    assert "+0.0\xa0points, the same for every problem, so there is no interval)." in found
    assert "interval +0.0" not in page_of(arguments)


def test_a_panel_of_copies_is_worth_one_without_an_interval():
    arguments = synthetic_run(models=True)
    claude = arguments["audits"]["claude"]
    flagged = sorted({f.trace_id for f in claude.findings})
    poor = replaced(claude, findings=tuple(f for f in claude.findings if f.trace_id in flagged[::2]))
    arguments["audits"] = arguments["audits"] | {"claude": poor, "gemini": replaced(poor, observer="gemini")}
    page = page_of(arguments)
    assert "independent ones</b> (no interval: every draw of problems gives the same number" in page
    assert "interval 1.0 to 1.0" not in page
    (found,) = by_name(arguments)["shared_mistakes"]
    assert "1.00 (no interval: every draw of problems" in found["text"]


def test_a_judge_that_was_asked_nothing_says_so():
    assert "no comparison was judged" not in page_of(synthetic_run())
    assert page_of(synthetic_run(zero_update=True)).count("no comparison was judged, so no canary was shown") == 2


@pytest.mark.parametrize(
    ("left_out", "words"),
    [({"checker: names no layer": 9, "claude: names no layer": 2}, "no finding names a layer"),
     ({"claude: no such token": 2}, "2 × no such token"), ({}, "no contrast")],
)  # fmt: skip
def test_an_attributor_without_a_trace_has_no_top(left_out, words):
    arguments = synthetic_run()
    assert page_of(arguments).count("Top by this score") == 2
    whole = arguments["scores"]["ablation"]
    nothing = tuple([0.0] * 12)
    row = replaced(whole.rows[-1], scores=nothing, low=nothing, high=nothing, n_traces=0)
    arguments["scores"] = arguments["scores"] | {"ablation": replaced(whole, rows=(row,), left_out=left_out)}
    arguments["contrasts"] = replaced(arguments["contrasts"], contrasts=())
    page = page_of(arguments)
    assert page.count("Top by this score") == 1
    assert f"<b>ablation</b> · no scores: {words}." in page
    assert "attributors_disagree" not in by_name(arguments)


def test_the_page_leads_to_its_costs_where_there_are_some():
    assert '<a href="#costs">Costs</a>' in page_of(synthetic_run(models=True))
    assert 'href="#costs"' not in page_of(synthetic_run())


# -- costs --------------------------------------------------------------------------------------


def test_the_summary_ends_with_what_was_paid():
    def cost(arguments):
        lines = summary_lines(build_result(RunArtifacts(**arguments)))
        return next((line for line in lines if line.startswith("Cost:    ")), None)

    assert cost(synthetic_run()) is None
    arguments = synthetic_run(models=True)
    paid = ", $0.37 paid in this run, plus 40 calls of unknown price"
    assert cost(arguments) == f"Cost:    $1.11 for 120 calls{paid}"
    partly = headed_by("gpt", arguments, calls=call_facts("gpt", cost_usd=0.0, n_unpriced=40))
    assert cost(partly) == f"Cost:    $0.74 for 120 calls (not counting 40 of unknown price){paid}"
    unknown = {
        name: replaced(a, calls=call_facts("x", cost_usd=0.0, n_unpriced=40)) for name, a in arguments["audits"].items()
    }
    replay = partly | {"audits": unknown, "ledger": arguments["ledger"] | {"rows": ()}}
    assert cost(replay) == "Cost:    unknown for 160 calls, nothing paid in this run"
    known = arguments | {"ledger": arguments["ledger"] | {"rows": arguments["ledger"]["rows"][:1]}}
    assert cost(known) == "Cost:    $1.11 for 120 calls, $0.37 paid in this run"


def test_an_unknown_cost_is_never_nothing():
    arguments = synthetic_run(models=True)
    known = result_of(models=True)["costs"]
    assert known["observers_usd"] == pytest.approx(0.74)
    assert (known["observers_calls"], known["observers_unpriced"], known["judges_calls"]) == (80, 0, 40)
    assert "unknown_cost" not in by_name(arguments)
    unpriced = headed_by("gpt", arguments, calls=call_facts("gpt", cost_usd=0.0, n_unpriced=40))
    result = json.loads(to_json(build_result(RunArtifacts(**unpriced))))
    assert result["costs"]["judges_usd"] is None
    assert result["judges"]["gpt"]["calls"]["cost_usd"] is None
    assert "The cost of 40 model calls is unknown" in [c["title"] for c in result["caveats"]]
    assert "40 calls, unknown" in render_report(result)
    partly = headed_by("gpt", arguments, calls=call_facts("gpt", cost_usd=0.2, n_unpriced=3))
    assert "$0.20 + 3 calls of unknown price" in render_report(
        json.loads(to_json(build_result(RunArtifacts(**partly))))
    )


def test_the_ledgers_tally_is_a_table():
    result = result_of(models=True)
    rows = {row["model"]: row for row in result["costs"]["ledger"]["rows"]}
    assert rows["claude-large"]["cost_usd"] == 0.37
    assert rows["house/model"]["cost_usd"] is None
    assert rows["house/model"]["saved_usd"] is None
    page = render_report(result)
    assert "3 × 429" in page
    assert "74\xa0% cached" in page
    assert "Prices: litellm 1.106.2." in page
    assert "Calls and costs" not in render_report(result_of())
    replayed = synthetic_run(models=True)
    replayed["ledger"] = replayed["ledger"] | {"rows": ()}
    assert "This run made no calls: every answer was in the store." in render_report(
        json.loads(to_json(build_result(RunArtifacts(**replayed))))
    )


def test_a_component_that_asks_no_model_has_no_row_and_no_price():
    result = result_of()
    assert result["observers"]["checker"]["calls"] == json.loads(json.dumps(vars(CallFacts())))
    page = render_report(result)
    assert "The models behind" not in page
    assert "$" not in page.split('id="observers"')[1].split('id="traces"')[0]


@pytest.mark.parametrize(
    ("cost", "unpriced", "words"),
    [(None, 4, "unknown"), (0.0, 0, "$0.00"), (1.234, 0, "$1.23"), (0.0042, 0, "$0.0042"), (1e-6, 0, "under $0.0001"),
     (0.5, 1, "$0.50 + 1 call of unknown price")],
)  # fmt: skip
def test_money_in_words(cost, unpriced, words):
    assert money(cost, unpriced) == words


def test_models_and_prompts_are_named_in_the_page():
    page = render_report(result_of(models=True))
    for words in ("claude-large-2026 (40)", "audit 1", "5e5e5e5e5e5e", "Would a judge obey an answer?", "2 of 8"):
        assert words in page


# -- the page without a browser -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {}, {"hostile": True}, {"zero_update": True}, {"models": True}, {"models": True, "hostile": True},
        {"moe": False, "n_layers": 30, "n_held_out": 1},
        {"n_layers": 27, "selected": (6, 7, 8, 10, 13), "seeds": (0, 1)}, {"n_layers": 80, "selected": (40,)},
    ],
)  # fmt: skip
def test_the_page_is_self_contained_small_and_repeatable(options):
    result = result_of(**options)
    page = render_report(result)
    assert page == render_report(result)
    assert len(page.encode()) < 3_000_000
    assert page.count("<script>") == page.count("<script") == 1
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page.replace("src=https://evil", ""))
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("models", [False, True])
def test_text_of_models_stays_text(models):
    page = render_report(result_of(hostile=True, models=models))
    assert "&lt;script&gt;document.title" in page
    assert "{{ 7*7 }}" in page
    assert "<img" not in page
    assert "⟨U+202E⟩right-to-left" in page
    assert not HIDDEN.search(page)


def test_the_page_is_a_function_of_the_file(tmp_path):
    report = write_run(build_result(RunArtifacts(**synthetic_run(hostile=True))), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert report == tmp_path / "run" / "report.html"
    assert report.read_text(encoding="utf-8") == render_report(result)


def test_half_an_emoji_does_not_stop_the_report(tmp_path):
    arguments = synthetic_run(n_held_out=2)
    answers = arguments["base_answers"].answers
    arguments["base_answers"] = replaced(
        arguments["base_answers"], answers=(replaced(answers[0], text="cut \ud83d"), *answers[1:])
    )
    report = write_run(build_result(RunArtifacts(**arguments)), tmp_path)
    assert "cut ⟨U+D83D⟩" in report.read_text(encoding="utf-8")


def test_a_field_that_is_missing_is_an_error_not_a_blank():
    from jinja2 import UndefinedError

    result = result_of()
    del result["accuracy"]["fixed"]
    with pytest.raises(UndefinedError, match="fixed"):
        render_report(result)


def test_a_thousand_problems_with_three_seeds_fit_one_page():
    result = result_of(n_held_out=1000, seeds=(0, 1, 2))
    page = render_report(result)
    assert len(page.encode()) < 3_000_000
    assert "The first 1000 of 3000; all are in result.json." in page


@pytest.mark.parametrize("text", first_quick(["x" * 60_000, "<" * 60_000, "\u202e" * 12_000, "漢字" * 30_000]))
def test_long_texts_are_shortened_to_the_budget_and_say_so(text):
    result = result_of(n_held_out=30)
    for row in result["problems"]["rows"]:
        row["base"]["text"] = row["tuned"]["text"] = row["prompt"] = text
    assert 0 < text_limit(result) < 60_000
    page = render_report(result)
    assert len(page.encode()) < 3_000_000
    assert "more characters in result.json" in page


def test_findings_are_marked_where_they_are():
    findings = [{"start": 2, "end": 6}, {"start": 4, "end": 9}]
    pieces = marked("0123456789", findings)
    assert [(p["text"], p["findings"], p["ending"]) for p in pieces] == [
        ("01", [], []), ("23", [1], []), ("45", [1, 2], [1]), ("678", [2], [2]), ("9", [], []),
    ]  # fmt: skip
    assert "".join(p["text"] for p in marked("short", [{"start": 3, "end": 99}])) == "short"


@pytest.mark.parametrize(
    ("one", "other", "at"), [("a b c", "a b d", 4), ("same", "same", 4), ("x", "y", 0), ("ab", "abc", 0)]
)
def test_the_difference_of_two_answers_begins_at_a_word(one, other, at):
    assert divergence(one, other) == at


# -- the page in a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with launched() as instance:
        yield instance


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name → (page, result) of runs written to disk."""
    options = {
        "plain": {}, "hostile": {"hostile": True}, "sham": {"zero_update": True},
        "deep": {"n_layers": 27, "selected": (6, 7, 8, 10, 13), "seeds": (0, 1), "hostile": True, "models": True},
        "models": {"models": True},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name, chosen in options.items():
        report = write_run(build_result(RunArtifacts(**synthetic_run(**chosen))), folder / name)
        made[name] = (report, json.loads((folder / name / "result.json").read_text(encoding="utf-8")))
    return made


@pytest.mark.browser
@pytest.mark.parametrize("name", first_quick(["hostile", "plain", "sham", "deep", "models"]))
def test_no_console_message_no_request_and_the_files_numbers(browser, runs, name):
    report, result = runs[name]
    page, said = open_page(browser, report)
    assert said == []
    counts = result["judges"]["verifier"]["counts"]
    shown = {key: page.locator(f"[data-count={key}]").inner_text() for key in ("base", "tuned", "ties")}
    assert shown == {
        "base": str(counts["base"]), "tuned": str(counts["tuned"]), "ties": str(counts["tie"] + counts["split"]),
    }  # fmt: skip
    assert page.locator("h1").inner_text() == result["verdict"]["title"] + "."
    assert page.locator("h1").is_visible()
    assert page.locator("#traces tbody").count() == len(result["problems"]["rows"])
    assert page.locator(".caveats li").count() == len(result["caveats"])
    page.close()


@pytest.mark.browser
def test_hostile_text_is_read_not_run(browser, runs):
    report, _ = runs["hostile"]
    page, said = open_page(browser, report)
    assert said == []
    assert page.title().startswith("M3I")
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, object").count() == 0
    row = page.locator("#traces tbody").first
    row.locator("summary").click()
    text = row.locator(".answers pre").first.inner_text()
    assert "<script>document.title='owned'</script> {{ 7*7 }}" in text
    assert "</details></pre>" in text
    assert "49" not in text
    assert HOSTILE.count("<style>") == text.count("<style>") == 1
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", first_quick(["hostile", "deep", "models"]))
def test_nothing_runs_over_the_edge_even_with_everything_open(browser, runs, name):
    page, _ = open_page(browser, runs[name][0])
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width in (1400, 768, 390, 320):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.browser
def test_the_keyboard_reaches_rows_sorting_and_filters(browser, runs):
    report, result = runs["plain"]
    page, said = open_page(browser, report)
    rows = page.locator("#traces tbody")
    count = page.locator("#problems-table-tools output")
    assert count.inner_text() == f"{rows.count()} of {rows.count()} shown"
    page.get_by_label("Verdict").focus()
    page.keyboard.type("tuned")
    wins = result["judges"]["verifier"]["counts"]["tuned"]
    assert page.locator("#traces tbody:visible").count() == wins
    assert count.inner_text() == f"{wins} of {rows.count()} shown"
    page.locator("#traces tbody.tuned summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#traces tbody.tuned .answers").first.is_visible()
    page.get_by_label("Verdict").select_option("")
    page.get_by_role("button", name="Tokens").focus()
    page.keyboard.press("Enter")
    assert page.locator("#problems-table th[aria-sort]").get_attribute("aria-sort") == "descending"
    tokens = "[...document.querySelectorAll('#traces td.tokens')].map(cell => Number(cell.dataset.value))"
    written = [row["tuned"]["n_tokens"] for row in result["problems"]["rows"]]
    assert page.evaluate(tokens) == sorted(written, reverse=True)
    page.keyboard.press("Space")
    assert page.locator("#problems-table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert page.evaluate(tokens) == sorted(written)
    assert said == []
    page.close()


@pytest.mark.browser
def test_the_search_finds_what_stands_in_the_answers(browser, runs):
    report, result = runs["plain"]
    page, _ = open_page(browser, report)
    words = result["problems"]["rows"][5]["tuned"]["text"].split("\n")[0]
    page.get_by_label("Search in problems and answers").fill(words)
    shown = page.locator("#traces tbody:visible")
    assert 1 <= shown.count() < len(result["problems"]["rows"])
    assert all(words in text for text in shown.evaluate_all("rows => rows.map(row => row.textContent)"))
    page.close()


@pytest.mark.browser
def test_the_page_is_complete_without_its_script(browser, runs):
    report, result = runs["plain"]
    page, said = open_page(browser, report, script=False)
    assert said == []
    assert page.locator("#traces tbody:visible").count() == len(result["problems"]["rows"])
    assert page.locator(".tools:visible, table button").count() == 0
    page.locator("#traces tbody summary").first.click()
    assert page.locator("#traces tbody .answers").first.is_visible()
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", first_quick(["light", "dark"]))
def test_every_text_has_enough_contrast(browser, runs, scheme):
    page, _ = open_page(browser, runs["models"][0], scheme=scheme)
    assert weak_texts(page) == []
    page.close()


@pytest.mark.browser
def test_light_dark_and_print_differ(browser, runs):
    grounds = set()
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, runs["plain"][0], scheme=scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert weak_texts(page) == []
        page.close()
    assert len(grounds) == 2
