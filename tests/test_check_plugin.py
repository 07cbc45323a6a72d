"""`m3i check-plugin`: each fault of a component is found and said in one line."""

import importlib
import itertools
import textwrap

import pytest
from fake_install import ACME, install, run
from test_contract import CASES, REGISTRY

from m3i.cli.check_plugin import check_plugin_command, outcome_of
from m3i.config.registry import Registry
from m3i.contract import Case, ContractError, NotStatedError, checks, checks_of
from m3i.errors import M3IError

SELECTOR = '''
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal
import m3i
from m3i.artifacts import LayerSelection

class Order(str, Enum):
    up = "up"
    down = "down"

@dataclass(kw_only=True)
class Mine(m3i.Component):
    """Takes the first layers."""

    k: int = 2
    """Number of layers."""
    order: Order = Order.up
    """Where to begin."""
    scratch: str = m3i.option("", result_free=True)
    """A folder."""

    def __post_init__(self):
        m3i.require(self.k >= 1, "selector.k", self.k, "at least 1")

    def check(self, info):
        m3i.require(self.k <= info.n_layers, "selector.k", self.k, "as many as there are")

    def select(self, request):
        every = tuple(range(request.info.n_layers))
        return LayerSelection(layers=every[:self.k], candidates=every, reason="the first")
'''
PROBLEMS = '''
import random
from dataclasses import dataclass
import m3i
from m3i.artifacts import Problem, StepError, Verification

@dataclass(kw_only=True)
class Mine(m3i.Component):
    """Counts."""

    n_train: int = 3
    """Train problems."""
    n_held_out: int = 2
    """Held-out problems."""
    seed: int = 0
    """Where to begin."""

    def __post_init__(self):
        m3i.require(self.n_train >= 1, "problems.n_train", self.n_train, "at least 1")
        m3i.require(self.n_held_out >= 1, "problems.n_held_out", self.n_held_out, "at least 1")

    def draw(self):
        first = 1000 * self.seed
        numbers = range(first, first + self.n_train + self.n_held_out)
        made = [Problem(id=str(n), prompt=f"{n}+1", answer=str(n + 1), solution=str(n + 1)) for n in numbers]
        return made[: self.n_train], made[self.n_train :]

    def verify(self, problem, completion):
        return Verification(correct=completion == problem.answer, answer=completion)
'''
OBSERVER = '''
from dataclasses import dataclass
import m3i

@dataclass(kw_only=True)
class Mine(m3i.Component):
    """Sees nothing."""

    async def audit(self, request):
        raise NotImplementedError
'''
SOUND = {
    "selector": (SELECTOR, Case(bad={"k": [0]}, other={"scratch": "/scratch"}, free="scratch")),
    "problems": (PROBLEMS, Case(bad={"n_train": [0], "n_held_out": [0]}, free="seed")),
    "observer": (OBSERVER, Case()),
}
NUMBER = itertools.count()


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Makes a component of this source and says what the contract, or one check, finds: title → (outcome, reason)."""

    def found(group, source, case, only=None):
        name = f"faulty{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry = Registry(entries=dict(REGISTRY.entries), presets=dict(REGISTRY.presets))
        registry.add(group, "mine", importlib.import_module(name).Mine, "mine-dist", "1")
        monkeypatch.setattr("m3i.config.source.installed", lambda: registry)
        outcomes = {}
        for check in checks([registry.find(group, "mine")], {f"{group}/mine": case}):
            if only not in (None, str(check).removeprefix(f"{group}/mine")):
                continue
            word, reason = outcome_of(check)
            assert "\n" not in reason
            if word != "ok":
                outcomes[str(check).removeprefix(f"{group}/mine")] = (word, reason)
        return outcomes

    return found


@pytest.mark.parametrize("group", SOUND)
def test_a_sound_component_passes(group, faults):
    assert faults(group, *SOUND[group]) == {}


FAULTS = [
    ("observer", "import m3i\n", "import m3i\nprint('torch', end='')\n", None, ""),
    ("selector", '"""Takes the first layers."""', "", " is documented", "docstring whose first line is a sentence"),
    ("selector", "Takes the first layers.", "x" * 120 + ".", " is documented", "has 121 characters; shorten it to 120"),
    ("selector", '"""Where to begin."""', "", " is documented", "option 'order': it has no documentation"),
    ("selector", "k: int = 2", "k: int = 0", " is made with its defaults", "refuses its own defaults"),
    (
        "selector",
        "def check(self, info)",
        "def check(self, target)",
        " has the methods of its interface",
        "check(self,",
    ),
    ("selector", "select(self, request)", "select(self, request, k=1)", " has the methods of its interface", "must be"),
    ("observer", "async def", "def", " has the methods of its interface", "audit() must be async def"),
    (
        "observer",
        "    async def",
        '    libraries = ("no-such-library",)\n\n    async def',
        " names installed libraries",
        "'no-such-library', which is not installed",
    ),
    ("observer", "    async def", '    libraries = "numpy"\n\n    async def', " names installed libraries", "a tuple"),
    (
        "selector",
        'k: int = 2\n    """Number of layers."""',
        'k: int = 2\n    """Number."""\n    share: float = float("nan")\n    """A share."""',
        " has options with a json form",
        "option 'share': its value cannot be written as JSON",
    ),
    (
        "observer",
        "import m3i\n",
        "import m3i, scipy\n",
        " imports nothing heavy",
        "imports scipy; import it in the method",
    ),
    (
        "observer",
        "import m3i\n",
        "import m3i, sys\nassert 'pytest' in sys.modules\n",
        " imports nothing heavy",
        "AssertionError",
    ),
    (
        "selector",
        "def __post_init__(self):",
        "def __post_init__(self):\n        self.order = Order.up",
        ".order enters the key unless result free",
        "gives the same key as",
    ),
    (
        "selector",
        "def __post_init__(self):",
        "def __post_init__(self):\n        self.k += len(self.scratch)",
        ".scratch enters the key unless result free",
        "it is declared result-free but changes the store's key",
    ),
    (
        "selector",
        "order: Order = Order.up",
        "order: Order = m3i.option(Order.up, result_free=True)",
        None,
        "",
    ),
    ("selector", "self.k >= 1", "self.k >= -5", ".k refuses bad values", "0 is accepted; refuse it in __post_init__"),
    (
        "selector",
        '"selector.k", self.k, "at least 1"',
        '"it", 0, "more"',
        ".k refuses bad values",
        "without naming the",
    ),
    ("selector", "m3i.require(self.k >= 1,", "1 / self.k, (", ".k refuses bad values", "raises ZeroDivisionError"),
    (
        "selector",
        "k: int = 2",
        "k: Any = 2",
        ".k enters the key unless result free",
        "state a second valid value of 'k'",
    ),
    ("selector", "k: int = 2", "k: Literal[2, 3] = 2", ".k refuses a wrong type", "Hydra cannot read its options"),
    (
        "selector",
        'up = "up"\n    down = "down"',
        'up = "upwards"\n    down = "downwards"',
        ".order takes its choices as documented",
        "give the member the name of its value",
    ),
    (
        "selector",
        "every[:self.k]",
        "tuple(sorted(random.sample(every, self.k)))",
        " selects the same layers of the target again",
        "two selections of equal options and scores differ",
    ),
    ("selector", "every[:self.k]", "every[:self.k][::-1]", " selects the same layers of the target again", "ascending"),
    ("selector", "every[:self.k]", "()", " selects the same layers of the target again", "selects no layer"),
    (
        "selector",
        "candidates=every",
        "candidates=every[1:]",
        " selects the same layers of the target again",
        "be among",
    ),
    ("selector", 'reason="the first"', 'reason=""', " selects the same layers of the target again", "gives no reason"),
    (
        "selector",
        "every = tuple",
        'raise KeyError("votes")\n        every = tuple',
        " selects the same layers of the target again",
        "KeyError: 'votes'; expected: Equal options and scores give equal layers",
    ),
    (
        "selector",
        "self.k <= info.n_layers",
        "info.n_layers > 40",
        " selects the same layers of the target again",
        "it refuses a target of 12 layers (selector.k = 2",
    ),
    ("selector", "every[:self.k]", "every[:3]", " takes as many layers as asked for", "k = 2 gives 3 layers"),
    ("selector", "self.k <= info.n_layers", "True", " takes as many layers as asked for", "accepts 13 layers"),
    (
        "selector",
        '"selector.k", self.k, "as many',
        '"it", 0, "as many',
        " takes as many layers as asked for",
        "must name",
    ),
    (
        "problems",
        "id=str(n)",
        "id=str(random.random())",
        " draws the same problems and keeps its sides apart",
        "two draws with equal options differ",
    ),
    ("problems", "id=str(n)", "id=str(n % 7)", " draws the same problems and keeps its sides apart", "share an id"),
    (
        "problems",
        "made[: self.n_train], made[self.n_train :]",
        "made[: self.n_train], []",
        " draws the same problems and keeps its sides apart",
        "it draws no held_out problems",
    ),
    (
        "problems",
        "made[: self.n_train], made[self.n_train :]",
        "made[:3], made[3:]",
        " draws the same problems and keeps its sides apart",
        "option 'n_train': n_train = 12 gives 3 problems",
    ),
    (
        "problems",
        "1000 * self.seed",
        "0",
        " draws the same problems and keeps its sides apart",
        "option 'seed': seed = 1 gives the train problems",
    ),
    (
        "problems",
        "completion == problem.answer",
        "int(completion) > 0",
        " verifies any text",
        "verify() raises ValueError",
    ),
    (
        "problems",
        "solution=str(n + 1)",
        'solution="so"',
        " verifies any text",
        "the source's own solution of '0+1' incorrect",
    ),
    (
        "problems",
        "answer=completion)",
        'answer="", first_error=StepError(start=0, end=600, kind="", corrected=""))',
        " verifies any text",
        "reports an error at 0 to 600 of 0 characters",
    ),
]


@pytest.mark.parametrize(
    ("group", "old", "new", "check", "message"), FAULTS, ids=[f"{i}{fault[3]}" for i, fault in enumerate(FAULTS)]
)
def test_each_fault_is_found(group, old, new, check, message, faults):
    source, case = SOUND[group]
    assert old in source
    found = faults(group, source.replace(old, new, 1), case, only=check)
    if check is None:
        assert found == {}
        return
    word, reason = found[check]
    assert message in reason
    if word == "FAILED":
        assert reason.startswith(f"{group} 'mine' of distribution 'mine-dist'")
    else:
        assert reason.endswith(f"in CASES['{group}/mine']")


@pytest.mark.parametrize(
    ("case", "outcome", "message"),
    [
        (Case(other={"scratch": "/x"}, free="scratch"), "not checked", "state values that 'k' must refuse under bad"),
        (Case(bad={"k": [0]}, free="scratch"), "not checked", "state a second valid value of 'scratch' under other"),
        (Case(bad={"k": [0], "kk": [0]}, other={"scratch": "/x"}, free="scratch"), "FAILED", "did you mean 'k'?"),
        (Case(bad={"k": [0]}, derived="scratch", free="scratch"), "FAILED", "derived, but it stays at its default"),
        (Case(bad={"k": [0]}, fixed="scratch", free="scratch"), "FAILED", "fixed; state under bad"),
        (Case(bad={"k": [0]}, other={"scratch": ""}, free="scratch"), "FAILED", "the second value '' is the default"),
    ],
)
def test_what_a_case_does_not_state_is_said(case, outcome, message, faults):
    ((word, reason),) = faults("selector", SELECTOR, case).values()
    assert word == outcome
    assert message in reason


def test_an_option_without_a_default_needs_a_value(faults):
    source, case = SOUND["selector"]
    found = faults("selector", source.replace("k: int = 2", "k: int"), case)
    assert found[" is made with its defaults"][0] == "not checked"
    assert "state a value of 'k', which has no default, under needs" in found[" is made with its defaults"][1]


# -- plugins by name --------------------------------------------------------------------------


@pytest.fixture
def acme(monkeypatch):
    for place in ("m3i.config.source", "m3i.contract.run", "m3i.contract.tables"):
        monkeypatch.setattr(f"{place}.installed", lambda: REGISTRY)


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("acme-m3i", {"observer/acme", "attributor/acme", "selector/acme"}),
        ("Acme.M3I", {"observer/acme", "attributor/acme", "selector/acme"}),
        ("acme_m3i", {"observer/acme", "attributor/acme", "selector/acme"}),
        ("selector/acme", {"selector/acme"}),
        ("selector=acme", {"selector/acme"}),
        ("m3i_tiny", {"target/tiny"}),
        ("m3i", set(CASES) - {"observer/acme", "attributor/acme", "selector/acme"}),
    ],
)
def test_a_plugin_is_named_in_any_way(name, components, acme):
    assert {str(check.subject) for check in checks_of(name)} == components


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme-m31", "no installed plugin 'acme-m31' provides a component; did you mean 'acme-m3i'?"),
        ("numpy", "no installed plugin 'numpy' provides a component."),
        ("selectr/acme", "there is no component group 'selectr'; did you mean 'selector'?"),
        ("selector/acne", "selector 'acne' is not installed; did you mean 'acme'?"),
        ("", "usage: m3i check-plugin NAME"),
        ("--all", "usage: m3i check-plugin NAME"),
    ],
)
def test_an_unknown_plugin_is_one_line(name, message, acme):
    with pytest.raises(M3IError) as caught:
        check_plugin_command([name])
    assert message in str(caught.value)


def test_a_check_in_a_test_of_ones_own_fails_where_a_value_is_not_stated(acme, monkeypatch):
    table = importlib.import_module("acme_m3i.contract_cases").CASES
    monkeypatch.setitem(table, "selector/acme", Case())
    (check,) = [c for c in checks_of("acme-m3i") if str(c) == "selector/acme.k refuses bad values"]
    with pytest.raises(NotStatedError, match="state values that 'k' must refuse"):
        check()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"selector/acne": Case()}, "has a row 'selector/acne', which is not installed; did you mean 'selector/acme'?"),
        ({"selector/acme": {"bad": {}}}, "CASES must be a dict from 'GROUP/NAME' to m3i.contract.Case"),
        ([], "CASES must be a dict from"),
    ],
)
def test_a_table_that_is_none_is_refused(table, message, acme, monkeypatch):
    monkeypatch.setattr("acme_m3i.contract_cases.CASES", table)
    with pytest.raises(ContractError) as caught:
        checks_of("acme-m3i")
    assert message in str(caught.value)
    assert "acme_m3i.contract_cases of distribution 'acme-m3i'" in str(caught.value)


def test_the_command_line_on_the_example(tmp_path):
    site = install(tmp_path / "site", "acme-m3i", "acme_m3i", "1.2.3")
    done = run("-m", "m3i", "check-plugin", "acme-m3i", path=[ACME, site], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "acme-m3i: acme-m3i 1.2.3"
    assert "selector/acme  refuses bad values: ok" in lines
    assert lines[-1] == f"{len(CHECKS_OF_ACME)} checks: {len(CHECKS_OF_ACME)} ok, 0 FAILED, 0 not checked"


CHECKS_OF_ACME = checks([e for e in REGISTRY.entries.values() if e.distribution == "acme-m3i"], CASES)
HOOK = """

CASES = {"selector/mine": Case(bad={"k": [0]}, other={"scratch": "/scratch"}, free="scratch")}

@m3i.hookimpl
def register_selectors(register):
    register("mine", Mine)
"""


def test_the_command_line_on_a_faulty_plugin_of_one_module(tmp_path):
    source = SELECTOR.replace("self.k >= 1", "self.k >= -5").replace("every[:self.k]", "[][self.k]")
    source = source.replace("import m3i\n", "import m3i\nfrom m3i.contract import Case\n")
    (tmp_path / "mine.py").write_text(textwrap.dedent(source + HOOK), encoding="utf-8")
    site = install(tmp_path / "site", "mine-dist", "mine")
    done = run("-m", "m3i", "check-plugin", "mine-dist", path=[tmp_path, site], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "m3i: 'mine-dist' breaks the contract 3 times; the lines above say where and what to do\n"
    failed = [line for line in done.stdout.splitlines() if "FAILED: " in line]
    assert [line.partition(": ")[0] for line in failed] == [
        "selector/mine  selects the same layers of the target again",
        "selector/mine  takes as many layers as asked for",
        "selector/mine  refuses bad values",
    ]
    assert "IndexError: list index out of range" in failed[0]
    assert failed[2].endswith("option 'k': 0 is accepted; refuse it in __post_init__ with m3i.require")
    assert done.stdout.splitlines()[-1].endswith(" ok, 3 FAILED, 0 not checked")


def test_a_plugin_that_does_not_import_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0", encoding="utf-8")
    site = install(tmp_path / "site", "mine-dist", "mine")
    done = run("-m", "m3i", "check-plugin", "mine-dist", path=[tmp_path, site], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "distribution 'mine-dist' 0.1.0 cannot be imported: ZeroDivisionError" in done.stderr
    assert len(done.stderr.splitlines()) == 1
