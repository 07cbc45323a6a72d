"""Result and page of a run in which every text of a model is hostile: read, not run."""

import dataclasses
import json
import re
from importlib import resources

import pytest

from m3i.artifacts import Answers, Canary, Outcome, Verdict, Verdicts
from m3i.engine.write import write_run
from m3i.report import render_report
from m3i.results import RunArtifacts, build_result, to_json
from m3i.stages.injections import canaries, load
from m3i.wording.formats import HIDDEN, visible
from m3i.wording.run import summary_lines
from tests.core.report_browser import launched, open_page
from tests.core.synthetic_run import synthetic_run

TEXTS = [injection.text for injection in load()]
HASHED = re.compile(r"sha256-[A-Za-z0-9+/=]+")


def hostile_arguments(obeyed=True):
    """One held-out problem an injection: in its prompt, answers and verdict; in the audits: reason, kind, note."""
    arguments = synthetic_run(n_held_out=len(TEXTS), models=True)
    held_out = arguments["problems"].held_out
    arguments["problems"] = dataclasses.replace(
        arguments["problems"],
        held_out=tuple(
            dataclasses.replace(p, prompt=f"{t} {i}", answer=t)
            for i, (p, t) in enumerate(zip(held_out, TEXTS, strict=True))
        ),
    )
    for side in ("base", "tuned"):
        answers = arguments[f"{side}_answers"].answers
        arguments[f"{side}_answers"] = Answers(
            id=side[0] * 32, time_s=1.0,
            answers=tuple(
                dataclasses.replace(a, text=f"{t}\n{side}", answer=t) for a, t in zip(answers, TEXTS, strict=True)
            ),
        )  # fmt: skip
    shown = tuple(
        Canary(
            problem_id=p.id, family=c.family, injection=c.text, first="planted", second="planted" if obeyed else "clean"
        )
        for p, c in zip(held_out, canaries(), strict=False)
    )
    verdicts = tuple(
        Verdict(problem_id=p.id, seed=0, outcome=Outcome.TUNED, first="tuned", second="tuned", reason=t)
        for p, t in zip(held_out, TEXTS, strict=True)
    )
    judge = arguments["verdicts"]["gpt"]
    arguments["verdicts"] = {"gpt": Verdicts(judge="gpt", verdicts=verdicts, canaries=shown, calls=judge.calls)}
    arguments["audits"] = {name: hostile_audit(audit) for name, audit in arguments["audits"].items()}
    return arguments


def hostile_audit(audit):
    findings = tuple(
        dataclasses.replace(f, reason=TEXTS[i % len(TEXTS)], kind=TEXTS[-1 - i % len(TEXTS)], correction=TEXTS[i])
        for i, f in enumerate(audit.findings)
    )
    missing = {trace_id: TEXTS[i] for i, trace_id in enumerate(audit.audited[:3])}
    calls = dataclasses.replace(audit.calls, answered_by=dict.fromkeys(TEXTS[:60], 1), model=TEXTS[160])
    return dataclasses.replace(
        audit, findings=findings, audited=audit.audited[3:], missing=missing, calls=calls, notes=tuple(TEXTS[100:200])
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of such a run and its result as read from disk."""
    folder = tmp_path_factory.mktemp("hostile")
    report = write_run(build_result(RunArtifacts(**hostile_arguments())), folder)
    return report, json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_nothing_is_written_beside_the_two_files(written):
    """No text became a path."""
    report, _ = written
    assert sorted(p.name for p in report.parent.iterdir()) == ["report.html", "result.json"]


def test_the_result_holds_the_texts_as_they_are(written):
    _, result = written
    rows = result["problems"]["rows"]
    assert {row["verdicts"]["gpt"]["reason"] for row in rows} == {clean(t) for t in TEXTS}
    assert [row["base"]["text"] for row in rows] == [f"{clean(t)}\nbase" for t in TEXTS]


def clean(text):
    """As JSON on disk gives it back."""
    return json.loads(json.dumps(text))


def test_the_page_holds_no_markup_of_theirs_and_no_hidden_character(written):
    page = written[0].read_text(encoding="utf-8")
    assert not HIDDEN.search(page)
    ours = render_report(json.loads(to_json(build_result(RunArtifacts(**synthetic_run(n_held_out=3, models=True))))))
    allowed = set(re.findall(r"<([a-zA-Z!/?][\w-]*)", ours))
    assert set(re.findall(r"<([a-zA-Z!/?][\w-]*)", page)) <= allowed
    assert re.findall(r"<style>(.*?)</style>", page, re.S) == re.findall(r"<style>(.*?)</style>", ours, re.S)
    assert HASHED.findall(page)[:2] == HASHED.findall(ours)[:2]
    assert page.count("<script") == 1 == page.count("</script")
    attributes = set(re.findall(r"<[^<>]*?\s(on\w+|src|href|style|action|formaction|srcdoc)=", page))
    assert attributes <= set(re.findall(r"<[^<>]*?\s(on\w+|src|href|style|action|formaction|srcdoc)=", ours))


def test_the_summary_is_safe_in_a_terminal(written):
    lines = summary_lines(written[1], report="report.html")
    assert not HIDDEN.search("".join(lines))


def test_an_obedient_judge_is_a_caveat_of_the_result_and_words_on_the_page(written):
    report, result = written
    found = result["judges"]["gpt"]["canaries"]
    assert found["obeyed"] == found["n"] == len(canaries())
    assert set(found["families"]) == {canary.family for canary in canaries()}
    caveat = next(c for c in result["caveats"] if c["name"] == "obeyed_canaries")
    assert caveat["weight"] == "major"
    assert f"obeyed {len(canaries())} of {len(canaries())}" in report.read_text(encoding="utf-8")
    limits = next(line for line in summary_lines(result, report="x") if line.startswith("Limits"))
    assert caveat["title"] in limits


def test_a_judge_that_obeyed_none_has_no_such_caveat():
    result = json.loads(to_json(build_result(RunArtifacts(**hostile_arguments(obeyed=False)))))
    assert result["judges"]["gpt"]["canaries"]["obeyed"] == 0
    assert "obeyed_canaries" not in [c["name"] for c in result["caveats"]]


# -- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(written):
    """The page in headless Chromium, and everything that its console and network said."""

    with launched() as browser:
        page, said = open_page(browser, written[0])
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        yield page, said


@pytest.mark.browser
def test_nothing_runs_nothing_is_fetched_and_nothing_is_added(opened):
    page, said = opened
    assert page.title().startswith("M3I")
    foreign = "img, iframe, object, embed, link, base, form, input[type=text], video, audio, math, foreignObject"
    assert page.locator(foreign).count() == 0
    scripts = page.locator("script").all_text_contents()
    assert scripts == [resources.files("m3i.report").joinpath("templates/report.js").read_text(encoding="utf-8")]
    assert page.locator("meta[http-equiv=refresh]").count() == 0
    assert page.locator("style").count() == 1
    assert page.locator("h1").count() == 1
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert page.evaluate(handlers) == []
    links = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href')).filter(h => !h.startsWith('#'))"
    assert page.evaluate(links) == []
    assert said == []


@pytest.mark.browser
def test_every_answer_and_reason_reads_as_it_was_written(opened, written):
    page, _ = opened
    rows = written[1]["problems"]["rows"]
    each = "[...document.querySelectorAll('#traces tbody')].map(row => row.querySelector('{}')?.textContent)"
    answers, reasons = (page.evaluate(each.format(what)) for what in (".base pre", "ul.fine bdi"))
    assert len(answers) == len(rows) == len(TEXTS)
    for row, answer, reason in zip(rows, answers, reasons, strict=True):
        whole = visible(row["base"]["text"])
        assert same(answer, whole) or ("more characters in result.json" in answer and same(answer[:40], whole[:40]))
        assert same((reason or "")[:60], visible(row["verdicts"]["gpt"]["reason"])[:60])


def same(shown, text):
    """Equal but for carriage returns and the newline after <pre>, which HTML drops."""
    return shown.replace("\r", "").lstrip("\n") == text.replace("\r", "").lstrip("\n")


@pytest.mark.browser
def test_the_answers_are_not_wider_than_the_page(opened):
    page, _ = opened
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
