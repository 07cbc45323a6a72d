"""The result of a run, its caveats, and the page: structure without a browser, behaviour in headless Chromium."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from synthetic_run import HOSTILE, synthetic_run

from m3i.artifacts import Answers, FileEffect, Outcome, Verdict, Verdicts
from m3i.errors import StageError
from m3i.report import render_report
from m3i.report.texts import HIDDEN, divergence, marked, text_limit
from m3i.result import build_result, summary_lines, to_json, write_run
from m3i.result.comparisons import judge_agreement


def result_of(**options):
    return json.loads(to_json(build_result(**synthetic_run(**options))))


def names(result):
    return [c["name"] for c in result["caveats"]]


# -- the result ---------------------------------------------------------------------------------


def test_the_numbers_follow_from_the_artifacts():
    arguments = synthetic_run()
    result = build_result(**arguments)
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
    assert "bootstrap" in result["accuracy"]["difference"]["method"]
    assert "one_generation_seed" not in names(result)
    assert "40 held-out problems × 3 generation seeds" in result["verdict"]["found"]


def test_answers_in_another_order_give_the_same_result():
    arguments = synthetic_run(n_held_out=20)
    shuffled = arguments | {
        "tuned_answers": Answers(id="y" * 32, answers=tuple(reversed(arguments["tuned_answers"].answers)), time_s=22.0)
    }
    assert build_result(**arguments) == build_result(**shuffled)


def test_answers_to_different_questions_are_refused():
    arguments = synthetic_run(n_held_out=20)
    arguments["tuned_answers"] = Answers(answers=arguments["tuned_answers"].answers[1:])
    with pytest.raises(StageError, match="did not answer the same questions"):
        build_result(**arguments)


def verdict_of(outcomes):
    arguments = synthetic_run(n_held_out=len(outcomes))
    verdicts = [
        type(v)(problem_id=v.problem_id, seed=v.seed, outcome=o, first=o.value, second=o.value)
        for v, o in zip(arguments["verdicts"]["verifier"].verdicts, outcomes, strict=True)
    ]
    arguments["verdicts"] = {"verifier": Verdicts(judge="verifier", verdicts=tuple(verdicts))}
    return json.loads(to_json(build_result(**arguments)))


@pytest.mark.parametrize(
    ("outcomes", "kind", "words"),
    [
        ([Outcome.TUNED] * 3 + [Outcome.TIE] * 9, "undecided", "no effect of any size"),
        ([Outcome.TUNED] * 30 + [Outcome.BASE] * 8, "improved", "chance is an unlikely explanation"),
        ([Outcome.BASE] * 30 + [Outcome.TUNED] * 8, "worse", "one arm cannot say"),
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
    without = build_result(**synthetic_run(), n_control_arms=19)
    assert "no_controls" not in names(without)
    assert "Random-layer control" in [step["title"] for step in result["next"]]
    assert "Random-layer control" not in [step["title"] for step in without["next"]]


def test_a_control_arm_asks_for_the_attributed_one_with_this_runs_overrides():
    arguments = synthetic_run() | {
        "overrides": ["selector=random", "selector.seed=4", "problems.n_held_out=300", "seed=2"]
    }
    arguments["components"] = [{"place": "selector", "name": "random", "distribution": "m3i", "version": "0.1.0"}]
    result = build_result(**arguments)
    assert "A control arm by itself" in [c["title"] for c in result["caveats"]]
    commands = {step["title"]: step["command"] for step in result["next"]}
    assert commands["The attributed arm"] == (
        "python -m m3i problems.n_held_out=300 seed=2 selector=attribution selector.k=3"
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
    caveats = {c["name"]: c for c in build_result(**arguments)["caveats"]}
    assert caveats["dead_tensors"]["title"].startswith("Only 25")
    assert dead.name in caveats["dead_tensors"]["text"]
    assert "Q4_K" in caveats["erased_updates"]["text"]
    assert caveats["certificate"]["weight"] == "major"


def test_what_narrow_kernels_make_of_the_update_is_said():
    arguments = synthetic_run()
    effect = FileEffect(peft_norm=0.15, llama_norm=0.23, relative_error=0.97)
    certificate = replaced(arguments["export"].certificate, in_file=effect)
    arguments["export"] = replaced(arguments["export"], certificate=certificate)
    result = build_result(**arguments)
    caveats = {c["name"]: c for c in result["caveats"]}
    assert caveats["narrow_kernels"]["weight"] == "major"
    assert "0.23 nats, 97\xa0% away from PEFT's 0.15" in caveats["narrow_kernels"]["text"]
    assert any("by 97\xa0% in the quantised file that answered" in line for line in summary_lines(result, report="x"))


def test_a_sham_arm_is_called_one_and_a_leak_is_alarming():
    result = result_of(zero_update=True)
    assert result["verdict"]["kind"] == "sham"
    assert names(result)[0] == "sham"
    arguments = synthetic_run(zero_update=True)
    arguments["tuned_answers"] = synthetic_run()["tuned_answers"]
    arguments["verdicts"] = synthetic_run()["verdicts"]
    assert build_result(**arguments)["verdict"]["kind"] == "leak"


@pytest.mark.parametrize(("skill", "name"), [(0.02, "floor"), (0.97, "ceiling")])
def test_floor_and_ceiling(skill, name):
    arguments = synthetic_run(n_held_out=100)
    answers = arguments["base_answers"].answers
    right = [replaced(a, correct=i < 100 * skill) for i, a in enumerate(answers)]
    arguments["base_answers"] = replaced(arguments["base_answers"], answers=tuple(right))
    assert name in names(build_result(**arguments))


def test_a_judge_of_the_targets_family_is_flagged():
    arguments = synthetic_run()
    arguments["config"] = {"judge": {"llamacpp": {"model": "/models/M3I-large.gguf"}}}
    assert "same_family" in names(build_result(**arguments))


# -- the page without a browser -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {}, {"hostile": True}, {"zero_update": True}, {"moe": False, "n_layers": 30, "n_held_out": 1},
        {"n_layers": 27, "selected": (6, 7, 8, 10, 13), "seeds": (0, 1)}, {"n_layers": 80, "selected": (40,)},
    ],
)  # fmt: skip
def test_the_page_is_self_contained_small_and_repeatable(options):
    result = result_of(**options)
    page = render_report(result)
    assert page == render_report(result)
    assert len(page.encode()) < 3_000_000
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page.replace("src=https://evil", ""))
    assert "url(" not in page
    assert "@import" not in page


def test_text_of_models_stays_text():
    page = render_report(result_of(hostile=True))
    assert "&lt;script&gt;document.title" in page
    assert "{{ 7*7 }}" in page
    assert "<img" not in page
    assert "⟨U+202E⟩right-to-left" in page
    assert not HIDDEN.search(page)


def test_the_page_is_a_function_of_the_file(tmp_path):
    report = write_run(build_result(**synthetic_run(hostile=True)), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert report == tmp_path / "run" / "report.html"
    assert report.read_text(encoding="utf-8") == render_report(result)


def test_half_an_emoji_does_not_stop_the_report(tmp_path):
    arguments = synthetic_run(n_held_out=2)
    answers = arguments["base_answers"].answers
    arguments["base_answers"] = replaced(
        arguments["base_answers"], answers=(replaced(answers[0], text="cut \ud83d"), *answers[1:])
    )
    report = write_run(build_result(**arguments), tmp_path)
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


@pytest.mark.parametrize("text", ["x" * 60_000, "<" * 60_000, "\u202e" * 12_000, "漢字" * 30_000])
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


def chromium():
    """Path of the browser, or None."""
    return os.environ.get("M3I_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    def without(reason):
        if os.environ.get("M3I_REQUIRE_BROWSER") == "1":
            pytest.fail(f"M3I_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)

    path = chromium()
    if path is None:
        without("no Chromium was found (apt-get install chromium, or set M3I_CHROMIUM)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without("playwright is not installed")
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield instance
        instance.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name → (page, result) of runs written to disk."""
    options = {
        "plain": {}, "hostile": {"hostile": True}, "sham": {"zero_update": True},
        "deep": {"n_layers": 27, "selected": (6, 7, 8, 10, 13), "seeds": (0, 1), "hostile": True},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name, chosen in options.items():
        report = write_run(build_result(**synthetic_run(**chosen)), folder / name)
        made[name] = (report, json.loads((folder / name / "result.json").read_text(encoding="utf-8")))
    return made


def open_page(browser, report: Path, width=1400, scheme="light"):
    """The opened page, and what the console and the network said."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: said.append(request.url) if request.url != report.as_uri() else None)
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    return page, said


@pytest.mark.browser
@pytest.mark.parametrize("name", ["plain", "hostile", "sham", "deep"])
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
    assert page.locator("#traces .rows > details").count() == len(result["problems"]["rows"])
    assert page.locator(".caveats li").count() == len(result["caveats"])
    page.close()


@pytest.mark.browser
def test_hostile_text_is_read_not_run(browser, runs):
    report, _ = runs["hostile"]
    page, said = open_page(browser, report)
    assert said == []
    assert page.title().startswith("M3I")
    assert page.locator("script, img, iframe, object").count() == 0
    row = page.locator("#traces .rows > details").first
    row.locator("summary").click()
    text = row.locator(".answers pre").first.inner_text()
    assert "<script>document.title='owned'</script> {{ 7*7 }}" in text
    assert "</details></pre>" in text
    assert "49" not in text
    assert HOSTILE.count("<style>") == text.count("<style>") == 1
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1400])
@pytest.mark.parametrize("name", ["hostile", "deep"])
def test_nothing_runs_over_the_edge_even_with_everything_open(browser, runs, name, width):
    page, _ = open_page(browser, runs[name][0], width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.browser
def test_the_keyboard_reaches_rows_and_filters(browser, runs):
    report, result = runs["plain"]
    page, _ = open_page(browser, report)
    page.locator("#show-all").focus()
    page.keyboard.press("ArrowRight")
    visible = page.locator("#traces .rows > details:visible").count()
    assert visible == result["judges"]["verifier"]["counts"]["tuned"]
    summary = page.locator("#traces .rows > details.tuned summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#traces .rows > details.tuned .answers").first.is_visible()
    page.close()


@pytest.mark.browser
def test_light_dark_and_print_differ_and_stay_readable(browser, runs):
    contrast = """() => {
      const number = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      const light = c => { const [r, g, b] = number(c); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return ['h1', '.lede.soft', '.big.base .value', '.big.tuned .value', '.big.ties .value', 'figcaption', '.kicker']
        .map(s => light(getComputedStyle(document.querySelector(s)).color))
        .map(v => (Math.max(v, ground) + 0.05) / (Math.min(v, ground) + 0.05));
    }"""
    grounds = set()
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, runs["plain"][0], scheme=scheme)
        assert min(page.evaluate(contrast)) >= 4.5  # WCAG 2.2, success criterion 1.4.3
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        page.close()
    assert len(grounds) == 2
