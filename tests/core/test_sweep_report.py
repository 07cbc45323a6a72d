"""The page of a sweep: what it derives, its numbers against sweep.json, and its behaviour in headless Chromium."""

import copy
import json
import random
import re
from pathlib import Path

import pytest
from report_browser import launched, open_page, weak_texts
from synthetic_run import HOSTILE
from synthetic_sweep import arm_names, jobs_of, random_world, synthetic_results, write_sweep
from tiers import first_quick

from m3i.report import render_sweep
from m3i.report.sweep_figures import arms_figure, goes_on, swarm
from m3i.report.sweep_texts import direction, edge, layer_use, need, ranges
from m3i.sweep.compare import build_sweep, to_json
from m3i.sweep.load import load_sweep
from m3i.wording.formats import HIDDEN, p_phrase
from m3i.wording.sweep.numbers import level, shift

SEEDS = (0, 1)


def compared(folder, results, **options):
    """sweep.json of a folder of results, as read from disk."""
    return json.loads(to_json(build_sweep(load_sweep(write_sweep(folder, results, **options)), created="now")))


def results_of(*, rule=None, n_random=4, seeds=SEEDS, arms=None, **options):
    """Results of a small sweep."""
    jobs = jobs_of(arms or arm_names(n_random=n_random, n_excluding=1), seeds)
    world = rule or random_world(effect=0.05)
    return synthetic_results(jobs=jobs, rule=world, n_held_out=12, **options)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    results = results_of(judges=("verifier", "gpt"), generation_seeds=(0, 1), models=True)
    del results["excluding-0", 1]
    return compared(tmp_path_factory.mktemp("sweep"), results, failed={("excluding-0", 1): "<b>out of memory</b>"})


# -- derived figures ----------------------------------------------------------------------------


def endpoint_of(controls, attributed=0.5, alternative="greater", alpha=0.05):
    places = [{"t": t, "layers": [i % 4], "kind": "random"} for i, t in enumerate(controls)]
    return {
        "controls": places, "others": [], "attributed": {"t": attributed},
        "test": {"alternative": alternative, "alpha": alpha},
    }  # fmt: skip


@pytest.mark.parametrize("alternative", ["greater", "less"])
@pytest.mark.parametrize("n", [5, 19, 20, 38, 39, 60])
def test_the_edge_is_where_the_test_becomes_significant(alternative, n):
    from m3i.statistics import randomization_test

    rng = random.Random(n)
    controls = [rng.random() for _ in range(n)]
    border = edge(endpoint_of(controls, alternative=alternative))
    assert (border is None) == (n < 19)
    for attributed in [*controls, 0.0, 1.0, *(c + 1e-6 for c in controls), *(c - 1e-6 for c in controls)]:
        test = randomization_test(attributed=attributed, controls=controls, alternative=alternative)
        beyond = border is not None and (attributed > border if alternative == "greater" else attributed < border)
        assert (test.p <= 0.05) == beyond


def test_two_sides_have_no_single_edge():
    assert edge(endpoint_of([0.1] * 40, alternative="two-sided")) is None


def test_layers_are_counted_over_the_controls():
    counts, means = layer_use(endpoint_of([0.1, 0.2, 0.3, 0.4, 0.5]), 6)
    assert counts == [2, 1, 1, 1, 0, 0]
    assert means == [pytest.approx(0.3), 0.2, 0.3, 0.4, None, None]


@pytest.mark.parametrize("half", [0.001, 0.1, 10.0])
def test_a_long_interval_does_not_squeeze_the_arms(half):
    endpoint = endpoint_of([0.50, 0.52], attributed=0.51) | {"base": 0.5, "controls_mean": 0.51, "kind": "score"}
    for place in (endpoint["attributed"], *endpoint["controls"]):
        place |= {"by_seed": [], "arm": "random-0", "kind": "random", "layers": []}
    endpoint["effect"] = {"difference": {"low": -half, "high": half, "degenerate": False}}
    assert goes_on(endpoint) == (half > 0.01)
    svg = arms_figure(endpoint)
    first, second = (float(x) for x in re.findall(r'cx="([\d.]+)" cy="[\d.]+" r="5" class="random-dot"', svg))
    assert second - first > 250


def test_dots_of_a_swarm_do_not_overlap():
    rng = random.Random(1)
    places = [rng.random() * 100 for _ in range(60)] + [50.0] * 5
    levels = swarm(places, 8.0)
    for i in range(len(places)):
        for j in range(i):
            assert levels[i] != levels[j] or abs(places[i] - places[j]) >= 8.0


@pytest.mark.parametrize(
    ("layers", "words"),
    [([4, 5, 8], "4, 5, 8"), ([1, 2, 3, 4, 5, 8], "1–5, 8"), ([], ""), ([9, 1, 2, 4, 6], "1–2, 4, 6, 9")],
)
def test_layers_in_words(layers, words):
    assert ranges(layers) == words


def test_words_for_what_is_not_known():
    assert need(None, "") == "no number of these alone suffices"
    assert need(None, "one training seed") == "one training seed"
    assert need(1364, "") == "1,364"
    assert [direction(d) for d in (None, 0.0, 0.1, -0.1)] == ["unknown", "equal", "better", "worse"]


# -- the page without a browser -----------------------------------------------------------------


def test_the_page_is_self_contained_and_repeatable(sweep):
    page = render_sweep(sweep)
    assert page == render_sweep(copy.deepcopy(sweep))
    assert page.count("<script") == 1
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "url(" not in page
    assert "@import" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_every_section_of_the_file_is_on_the_page(sweep):
    page = render_sweep(sweep)
    texts = [sweep["verdict"][name] for name in ("asked", "title", "sentence", "found", "sure", "null", "harm")]
    texts += [row[name] for group in ("caveats", "next") for row in sweep[group] for name in ("title", "text")]
    texts += [check["words"] for check in sweep["checks"]] + sweep["plan"]["deviations"] + [sweep["command"]]
    texts += [row["prompt"] for row in sweep["problems"]] + [row["arm"] for row in sweep["arms"]]
    texts += [sweep["run"]["base_model"]["sha256"], sweep["failures"][0]["error"], sweep["contrast"]["words"]]
    for text in texts:
        assert escaped(text) in page, text


def escaped(text):
    from markupsafe import escape

    return str(escape(text))


def all_ties(arm, seed, problem, generation):
    """Training changes no answer."""


NULLS = {
    "all ties": {"rule": all_ties},
    "no random arm": {"arms": ["attributed", "all", "sham"]},
    "no verifier": {"judges": ("gpt",)},
    "no verdict": {"missing": lambda judge, arm, seed, problem: True},
    "some verdicts missing": {"missing": lambda judge, arm, seed, problem: problem == 3 and arm == "random-1"},
    "accuracy": {"settings": {"primary": "accuracy"}},
    "two-sided": {"settings": {"alternative": "two-sided"}},
    "one seed": {"seeds": (0,)},
    "without the attributed arm": {"arms": ["random-0", "all"]},
    "alone": {"arms": ["attributed"], "seeds": (0,)},
}


@pytest.mark.parametrize("name", NULLS)
def test_sweeps_that_show_nothing_have_a_page(name, tmp_path):
    few = {"arms": ["attributed", "random-0", "sham"]}
    sweep = compared(tmp_path, results_of(**few | NULLS[name]))
    page = render_sweep(sweep)
    assert escaped(sweep["verdict"]["sentence"]) in page
    assert sweep["primary"]["test"] is not None or 'Randomization test</p><p class="value">–' in page
    assert "None" not in re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S)
    assert "nan" not in re.findall(r"[a-z]+", " ".join(re.findall(r'data-value="([^"]*)"', page)))


def test_a_sweep_without_a_plan_says_so(tmp_path):
    sweep = compared(tmp_path, results_of(arms=["attributed", "random-0"]), plan=False)
    assert "No plan was stored before the first result" in render_sweep(sweep)


def test_jobs_without_a_result_are_named(tmp_path):
    results = results_of(arms=["attributed", "random-0", "random-1", "random-2"])
    for job in (("random-1", 0), ("random-2", 1)):
        del results[job]
    sweep = compared(tmp_path, results, failed={("random-1", 0): HOSTILE}, not_started=[("random-2", 1)])
    page = render_sweep(sweep)
    assert page.count('<tr class="failure">') == len(sweep["failures"]) == 2
    assert "&lt;script&gt;document.title" in page
    assert not HIDDEN.search(page)


def test_a_deviation_stands_on_the_page(sweep):
    changed = sweep | {"plan": sweep["plan"] | {"deviations": ["The margin was changed from 0.05 to 0.2."]}}
    page = render_sweep(changed)
    assert "Deviations from the plan" in page
    assert "The margin was changed from 0.05 to 0.2." in page
    assert "There are no deviations" not in page


def test_a_field_that_is_missing_is_an_error_not_a_blank(sweep):
    from jinja2 import UndefinedError

    broken = copy.deepcopy(sweep)
    del broken["verdict"]["sentence"]
    with pytest.raises(UndefinedError, match="sentence"):
        render_sweep(broken)


def grown(sweep, *, n_arms=23, n_problems=200, n_answers=2, text=None):
    """The sweep with as many arms and problems as a large one has."""
    big = copy.deepcopy(sweep)
    control, place = big["arms"][1], big["primary"]["controls"][0]
    by_seed = [{"seed": s, "t": 0.4875} for s in range(3)]
    for i in range(n_arms - len(big["arms"])):
        arm = control | {"arm": f"random-{100 + i}", "t": {n: {"t": 0.4875, "by_seed": by_seed} for n in control["t"]}}
        big["arms"].append(arm)
        for endpoint in (big["primary"], *big["secondary"]):
            endpoint["controls"].append(place | {"arm": arm["arm"], "by_seed": by_seed, "t": 0.48 + i / 1000})
    row, answer = big["problems"][0], big["run"]["problems"]["rows"][0]
    sides = {side: answer[side] | {"text": text or answer[side]["text"] + f" {side}"} for side in ("base", "tuned")}
    big["problems"] = [row | {"problem_id": f"p{i}", "prompt": f"{i}+{i}=?"} for i in range(n_problems)]
    big["run"]["problems"]["rows"] = [
        answer | sides | {"problem_id": f"p{i}", "seed": g, "equal": False}
        for i in range(n_problems) for g in range(n_answers)
    ]  # fmt: skip
    return big


@pytest.mark.parametrize("text", [None, "<" * 20_000])
def test_a_large_sweep_is_under_three_megabytes(sweep, text):
    big = grown(sweep, text=text)
    assert len(big["arms"]) == 23
    page = render_sweep(big)
    assert page.count("<tbody data-item data-direction=") == 200
    assert len(page.encode()) < 3_000_000


# -- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with launched() as instance:
        yield instance


@pytest.fixture(scope="module")
def pages(sweep, tmp_path_factory):
    """Name → path of a page: the sweep's, and one in which every text is hostile."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = copy.deepcopy(sweep)
    for row in (*hostile["problems"], *hostile["run"]["problems"]["rows"]):
        row["prompt"] = HOSTILE
    for row in hostile["run"]["problems"]["rows"]:
        row["base"]["text"], row["tuned"]["text"] = HOSTILE, HOSTILE + " changed"
    hostile["failures"][0]["error"] = hostile["name"] = hostile["command"] = HOSTILE
    hostile["judges"]["panel"]["gpt"]["model"] = HOSTILE
    made = {"plain": sweep, "hostile": hostile, "large": grown(sweep)}
    for name, content in made.items():
        (folder / f"{name}.html").write_text(render_sweep(content), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def plain(browser, pages) -> Path:
    """The sweep's page, opened once for the tests that only read."""
    page, said = open_page(browser, pages["plain"])
    assert said == []
    yield page
    page.close()


@pytest.mark.browser
def test_the_numbers_are_those_of_the_file(plain, sweep):
    primary = sweep["primary"]
    kind, difference = primary["kind"], primary["effect"]["difference"]
    facts = dict(
        zip(*(plain.locator(f"#verdict .fact .{c}").all_inner_texts() for c in ("label", "value")), strict=True)
    )
    values = list(facts.values())
    assert values[0] == level(kind, primary["attributed"]["t"])
    assert values[1] == level(kind, primary["controls_mean"])
    ends = " to ".join(shift(kind, difference[end]) for end in ("low", "high"))
    assert values[2] == f"{shift(kind, difference['value'])} ({ends})"
    assert values[3] == f"{p_phrase(primary['test']['p'])}, rank {primary['test']['rank']} of 5"
    assert values[4] == "12 × 2 × 2"
    assert plain.locator("h1").inner_text() == sweep["verdict"]["title"] + "."
    shown = plain.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-t]')].map(c => [c.dataset.t, c.dataset.value]))"
    )
    assert {arm: float(t) for arm, t in shown.items()} == {
        a["arm"]: a["t"][primary["name"]]["t"] for a in sweep["arms"]
    }
    adjusted = plain.evaluate("[...document.querySelectorAll('[data-adjusted]')].slice(1).map(c => c.innerText)")
    assert adjusted == ["–" if e["adjusted"] is None else p_phrase(e["adjusted"]) for e in sweep["secondary"]]
    differences = plain.evaluate(
        "[...document.querySelectorAll('#traces tr td:nth-child(7)')].map(c => Number(c.dataset.value))"
    )
    assert differences == [row["difference"] for row in sweep["problems"]]


@pytest.mark.browser
def test_the_figure_has_a_mark_for_every_arm_where_its_score_is(plain, sweep):
    primary = sweep["primary"]
    dots = plain.evaluate(
        "[...document.querySelectorAll('svg.wide .random-dot')].map(e => Number(e.getAttribute('cx')))"
    )
    scores = [place["t"] for place in primary["controls"]]
    assert len(dots) == len(scores)
    assert sorted(range(len(dots)), key=lambda i: (scores[i], i)) == sorted(
        range(len(dots)), key=lambda i: (dots[i], i)
    )
    assert plain.locator("svg.wide .other-mark").count() == len(primary["others"])
    ticks = sum(len(p["by_seed"]) for p in (primary["attributed"], *primary["controls"], *primary["others"]))
    assert plain.locator("svg.wide .seed").count() == ticks
    titles = plain.locator("svg.wide g > title").all_text_contents()
    assert f"random 0, layers {', '.join(map(str, primary['controls'][0]['layers']))}: {scores[0]:.4f}" in titles


@pytest.mark.browser
def test_what_the_controls_chose_is_counted_per_layer(plain, sweep):
    counts, _ = layer_use(sweep["primary"], sweep["design"]["n_layers"])
    texts = plain.locator("#layers svg:has(.count) text").all_text_contents()
    assert texts[-len(counts) :] == [str(n) for n in counts]


@pytest.mark.browser
@pytest.mark.parametrize("name", first_quick(["hostile", "plain", "large"]))
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_said_fetched_or_wider_than_the_page(browser, pages, name, width):
    page, said = open_page(browser, pages[name], width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg.wide").is_visible() == (width == 1400)
    assert page.locator("svg.narrow").is_visible() == (width == 400)
    assert said == []
    page.close()


@pytest.mark.browser
def test_hostile_text_stays_text(browser, pages):
    page, said = open_page(browser, pages["hostile"])
    assert page.title().startswith("M3I")
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, object, style:not(head style)").count() == 0
    page.locator("#traces summary").first.click()
    text = page.locator("#traces .answers pre").first.inner_text()
    assert "<script>document.title='owned'</script> {{ 7*7 }}" in text
    assert "<script>document.title" in page.locator("#repeat pre.command").inner_text()
    assert said == []
    page.close()


@pytest.mark.browser
def test_arms_are_sorted_and_filtered_by_keyboard(browser, pages, sweep):
    page, said = open_page(browser, pages["plain"])
    arms = {a["arm"]: a for a in sweep["arms"]}
    heads = "[...document.querySelectorAll('#arms-table tbody tr:not([hidden]) th')]"
    names = f"{heads}.map(head => head.firstChild.textContent.trim())"
    assert page.evaluate(names) == list(arms)
    page.locator("#arms-table button", has_text=re.compile("^T$")).focus()
    page.keyboard.press("Enter")
    by_t = [arms[name]["t"][sweep["primary"]["name"]]["t"] for name in page.evaluate(names)]
    assert by_t == sorted(by_t, reverse=True)
    assert page.locator("#arms-table [aria-sort=descending]").inner_text() == "T"
    page.keyboard.press("Enter")
    assert [arms[n]["t"][sweep["primary"]["name"]]["t"] for n in page.evaluate(names)] == sorted(by_t)
    while page.evaluate("document.activeElement.tagName") != "SELECT":
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("random")
    shown = page.evaluate(names)
    assert shown
    assert all(arms[name]["kind"] == "random" for name in shown)
    n_random = sum(a["kind"] == "random" for a in sweep["arms"])
    assert page.locator("#arms-table-tools output").inner_text() == f"{n_random} of {len(arms)} shown"
    assert said == []
    page.close()


@pytest.mark.browser
def test_unknown_values_stay_last_whichever_way_one_sorts(browser, sweep, tmp_path):
    changed = copy.deepcopy(sweep)
    changed["problems"][4]["difference"] = None
    report = tmp_path / "page.html"
    report.write_text(render_sweep(changed), encoding="utf-8")
    page, _ = open_page(browser, report)
    button = page.get_by_role("button", name="Difference")
    for reverse in (True, False):
        button.click()
        values = page.evaluate("[...document.querySelectorAll('#traces tr td:nth-child(7)')].map(c => c.dataset.value)")
        assert values[-1] == ""
        known = [float(v) for v in values[:-1]]
        assert known == sorted(known, reverse=reverse)
    page.close()


@pytest.mark.browser
def test_problems_are_filtered_by_what_the_arm_did(browser, pages, sweep):
    page, _ = open_page(browser, pages["plain"])
    expected = [direction(row["difference"]) for row in sweep["problems"]]
    for word in ("better", "worse"):
        page.get_by_label("Attributed against controls").select_option(word)
        assert page.locator("#traces tbody:visible").count() == expected.count(word)
    page.close()


@pytest.mark.browser
def test_the_page_is_complete_without_its_script(browser, pages, sweep):
    page, said = open_page(browser, pages["plain"], script=False)
    assert said == []
    assert page.locator("#arms-table tbody tr:visible").count() == len(sweep["arms"])
    assert page.locator("#traces tbody:visible").count() == len(sweep["problems"])
    assert page.locator(".tools:visible, table button").count() == 0
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", first_quick(["light", "dark", "print"]))
def test_every_text_has_enough_contrast(browser, pages, scheme):
    page, _ = open_page(browser, pages["plain"], scheme="light" if scheme == "print" else scheme)
    if scheme == "print":
        page.emulate_media(media="print")
    assert weak_texts(page) == []
    page.close()
