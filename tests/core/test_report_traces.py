"""The table of train traces: which are held, that the page counts them as the file does, filters, sorting, print."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from report_browser import launched, open_page
from synthetic_run import synthetic_run

from m3i.engine.write import write_run
from m3i.report import render_report
from m3i.report.texts import moment, shown_traces
from m3i.results import RunArtifacts, build_result, to_json
from m3i.results.traces import EXAMPLES, TEXT_BUDGET


def result_of(arguments):
    return json.loads(to_json(build_result(RunArtifacts(**arguments))))


def long_run(n_characters, **options):
    """A run whose train traces are as long as a language model's."""
    arguments = synthetic_run(**options)
    traces = arguments["traces"]
    texts = (t.text + f"{i}<" * (n_characters // 4) for i, t in enumerate(traces.traces))
    longer = tuple(replace(t, text=text) for t, text in zip(traces.traces, texts, strict=True))
    arguments["traces"] = replace(traces, traces=longer)
    return arguments


# -- what the file holds ------------------------------------------------------------------------


def test_every_audited_trace_is_held_where_there_is_room():
    arguments = synthetic_run(models=True)
    result = result_of(arguments)
    audited = {t for audit in arguments["audits"].values() for t in audit.audited}
    assert sum(e["times"] for e in result["examples"]) == result["traces"]["audited"] == len(audited)
    for alias, observer in result["observers"].items():
        n = sum(e["times"] * sum(f["observer"] == alias for f in e["findings"]) for e in result["examples"])
        assert n == observer["n_findings"]
        assert sum(e["times"] for e in result["examples"] if alias in e["audited"]) == observer["n_audited"]


def test_the_budget_is_shared_fairly_between_problems():
    arguments = long_run(30_000)
    examples = result_of(arguments)["examples"]
    assert EXAMPLES <= len(examples) < len(arguments["traces"].traces)
    assert sum(len(e["text"]) for e in examples) <= TEXT_BUDGET
    times = Counter(e["problem_id"] for e in examples)
    assert max(times.values()) == 1
    order = [(e["correct"], -len({f["observer"] for f in e["findings"]})) for e in examples]
    assert order == sorted(order)


def test_a_few_traces_are_held_however_long_they_are():
    assert len(result_of(long_run(120_000))["examples"]) == EXAMPLES


def test_a_wrong_trace_stands_before_a_right_one_of_its_problem():
    seen = {}
    for example in result_of(synthetic_run())["examples"]:
        assert not (seen.get(example["problem_id"]) and not example["correct"])
        seen[example["problem_id"]] = seen.get(example["problem_id"], False) or example["correct"]


# -- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_characters", [3_000, 120_000])
def test_long_traces_fit_the_page_which_says_how_many_it_shows(n_characters):
    result = result_of(long_run(n_characters, models=True, n_held_out=1000, seeds=(0, 1)))
    example = result["examples"][0]
    result["examples"] = [example | {"prompt": f"{i}+{i}=?"} for i in range(400)]
    result["traces"]["audited"] = 400
    page = render_report(result)
    assert len(page.encode()) < 3_000_000
    n = len(shown_traces(result))
    assert 8 <= n < 400
    assert f"{n} of 400 audited traces: taken from every problem in turn" in page
    assert page.count('data-right="') == n


def test_a_file_of_an_earlier_version_is_read():
    result = result_of(synthetic_run())
    del result["traces"]["audited"]
    for example in result["examples"]:
        del example["times"], example["audited"], example["problem_id"]
    n = len(result["examples"])
    assert f"{n} of {result['traces']['n']} audited traces" in render_report(result)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-11-22 22:48:35+0000", "22 November 2026, 22:48 UTC"),
        ("2026-01-02T03:04:05-05:30", "2 January 2026, 03:04 UTC−05:30"),
        ("2026-13-02 03:04:05+0000", "2026-13-02 03:04:05+0000"),
        ("<b>yesterday</b>", "<b>yesterday</b>"),
    ],
)
def test_a_time_is_readable(value, words):
    assert moment(value) == words


# -- in a browser -------------------------------------------------------------------------------

ROWS = "#train-table tbody"


@pytest.fixture(scope="module")
def browser():
    with launched() as instance:
        yield instance


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Page and result of a run; one observer's alias and one kind of finding have spaces and marks."""
    arguments = synthetic_run(hostile=True)
    folder = tmp_path_factory.mktemp("traces")
    report = write_run(build_result(RunArtifacts(**arguments)), folder)
    return report, json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(browser, written):
    opened, said = open_page(browser, written[0])
    yield opened
    assert said == []
    opened.close()


@pytest.mark.browser
def test_the_tables_counts_are_the_files(page, written):
    _, result = written
    rows = page.eval_on_selector_all(
        ROWS,
        "rows => rows.map(r => [Number(r.dataset.times), ...[...r.rows[0].cells].map(c => c.dataset.value ?? '')])",
    )
    assert len(rows) == len(result["examples"])
    for i, (alias, observer) in enumerate(result["observers"].items()):
        assert sum(row[0] * int(row[4 + i] or 0) for row in rows) == observer["n_findings"], alias
        assert sum(row[0] for row in rows if row[4 + i] not in ("", "0")) == observer["n_flagged"], alias
        assert sum(row[0] for row in rows if row[4 + i] != "") == observer["n_audited"], alias
    wrong = sum(e["times"] for e in result["examples"] if not e["correct"])
    assert sum(row[0] for row in rows if row[2] == "0") == wrong


@pytest.mark.browser
def test_traces_are_filtered_by_observer_kind_agreement_and_answer(page, written):
    _, result = written
    examples = result["examples"]

    def shown(label, value):
        menu = page.locator("#train-table-tools label").filter(has_text=label).locator("select")
        menu.select_option(label=value, timeout=5_000)
        n = page.locator(f"{ROWS}:visible").count()
        menu.select_option("")
        return n

    for alias in result["observers"]:
        assert shown("Flagged by", alias) == sum(any(f["observer"] == alias for f in e["findings"]) for e in examples)
    kinds = {f["kind"] for e in examples for f in e["findings"]}
    for kind in (k for k in kinds if len(k) < 30 and k.isprintable()):
        assert shown("Kind of finding", kind) == sum(any(f["kind"] == kind for f in e["findings"]) for e in examples)
    flags = [len({f["observer"] for f in e["findings"]}) for e in examples]
    assert shown("Observers that flag it", "all that audited it") == flags.count(2)
    assert shown("Observers that flag it", "some, not all") == flags.count(1)
    assert shown("Observers that flag it", "none") == flags.count(0)
    assert shown("Answer", "incorrect") == sum(not e["correct"] for e in examples)


@pytest.mark.browser
def test_traces_of_a_problem_stay_beside_each_other(page):
    prompts = f"[...document.querySelectorAll('{ROWS} th.task bdi')].map(e => e.textContent)"

    def together(values):
        runs = [value for i, value in enumerate(values) if i == 0 or values[i - 1] != value]
        return len(runs) == len(set(runs))

    assert together(page.evaluate(prompts))
    page.locator("#train-table").get_by_role("button", name="checker").click()
    page.locator("#train-table").get_by_role("button", name="Problem").click()
    values = page.evaluate(prompts)
    assert together(values)
    assert len(set(values)) < len(values)


@pytest.mark.browser
def test_a_note_and_its_place_light_each_other_by_keyboard_and_pointer(page):
    row = page.locator(f"{ROWS}:has(li[data-f='2'])").first
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    lit = "e => getComputedStyle(e).outlineStyle"
    note, other = row.locator("li[data-f='1']"), row.locator("li[data-f='2']")
    place = row.locator("mark[data-f~='1']").first
    assert place.evaluate(lit) == "none"
    while not note.evaluate("e => e === document.activeElement"):
        page.keyboard.press("Tab")
        assert row.evaluate("e => e.contains(document.activeElement)"), "the keyboard left the row"
    assert place.evaluate(lit) == "solid"
    assert other.evaluate(lit) == "none"
    note.evaluate("e => e.blur()")
    place.hover()
    assert note.evaluate(lit) == "solid"


@pytest.mark.browser
def test_an_opened_trace_fits_a_narrow_screen(page):
    page.set_viewport_size({"width": 360, "height": 800})
    page.locator(f"{ROWS} summary").first.click()
    box = page.locator(f"{ROWS} .seen").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


@pytest.mark.browser
def test_print_opens_folded_parts_cuts_nothing_and_leaves_long_texts_folded(page):
    folded = page.locator("details:not(.problems details):not([open])")
    n = folded.count()
    assert n > 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    assert page.locator(".problems details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.count() == n
    page.emulate_media(media="print")
    assert page.locator("#repeat details pre").first.is_visible()
    assert page.locator(".problems details pre:visible").count() == 0
    clipped = "[...document.querySelectorAll('.scroll, pre')].filter(e => getComputedStyle(e).overflowY !== 'visible')"
    assert page.evaluate(f"{clipped}.length") == 0
    assert 0 < page.locator(f"{ROWS}:visible").count() <= 40
    assert page.get_by_text("In print: the first 40 rows").is_visible()


@pytest.mark.browser
def test_names_headers_and_headings_are_there_for_a_screen_reader(page):
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    headless = "[...document.querySelectorAll('table')].filter(t => !t.querySelector('th[scope]')).length"
    assert page.evaluate(headless) == 0
    nameless = (
        "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).length"
        " + [...document.querySelectorAll('button, summary, a')].filter(e => !e.textContent.trim()).length"
        " + [...document.querySelectorAll('[role=region]:not([aria-label])')].length"
    )
    assert page.evaluate(nameless) == 0
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    stuck = "[...document.querySelectorAll('pre')].filter(e => e.scrollHeight > e.clientHeight + 1 && e.tabIndex < 0)"
    assert page.evaluate(f"{stuck}.length") == 0
