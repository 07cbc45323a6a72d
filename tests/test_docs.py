"""The documentation says what the code does: hooks, interfaces, options, links, commands and the example."""

import ast
import asyncio
import dataclasses
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_contract import REGISTRY

from m3i import artifacts, hookspecs, interfaces
from m3i.artifacts import Trace
from m3i.audits.quotes import checked_audit
from m3i.cli.main import COMMANDS
from m3i.component import field_docs
from m3i.config import settings
from m3i.config.experiment import Experiment
from m3i.config.registry import HOOKS, INTERFACES, build
from m3i.errors import ConfigError, InputError
from m3i.interfaces import AuditRequest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
HOOK_NAMES = [*HOOKS.values(), "register_presets"]
PROTOCOLS = sorted(INTERFACES.values(), key=lambda p: p.__name__)


def page_id(path):
    return str(path.relative_to(ROOT))


# -- hooks and interfaces ---------------------------------------------------------------------


def test_every_hook_specification_is_one_that_the_registry_calls():
    marked = {n for n, f in vars(hookspecs).items() if inspect.isfunction(f) and hasattr(f, "m3i_spec")}
    assert marked == set(HOOK_NAMES)


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_every_hook_is_documented(hook):
    assert (getattr(hookspecs, hook).__doc__ or "").strip()
    rows = [line for line in GUIDE.splitlines() if line.startswith(f"| `{hook}(register)` |")]
    assert len(rows) == 1, f"docs/hooks.md needs one row for {hook}"


def test_every_hook_has_its_test():
    names = [
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    for hook in HOOK_NAMES:
        assert names.count(f"test_hook_{hook}") == 1, f"write test_hook_{hook} in tests/test_hooks.py"


def signature_of(protocol, name):
    """`async audit(request: AuditRequest) -> Audit`, as docs/hooks.md shows it."""
    function = vars(protocol)[name]
    signature = inspect.signature(function)
    without_self = signature.replace(parameters=list(signature.parameters.values())[1:])
    text = f"{name}{without_self}".replace("'", "")
    return f"async {text}" if inspect.iscoroutinefunction(function) else text


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.__name__)
def test_every_interface_method_is_documented_with_its_signature(protocol):
    heading = f"### {protocol.__name__}\n"
    assert heading in GUIDE, f"docs/hooks.md needs a section {protocol.__name__}"
    section = GUIDE.split(heading)[1].split("\n### ")[0].split("\n## ")[0]
    methods = [n for n, v in vars(protocol).items() if inspect.isfunction(v) and not n.startswith("_")]
    block = re.search(r"```\n(.+?)\n```", section, re.S)
    assert block, f"section {protocol.__name__} needs a block with the methods"
    assert block.group(1).splitlines() == [signature_of(protocol, name) for name in methods]
    for name in methods:
        assert (vars(protocol)[name].__doc__ or "").strip()
    for request in re.findall(r"\w+Request\b", section):
        assert hasattr(interfaces, request)


def test_fields_named_in_the_guide_exist():
    """`Audit.missing` and the like: the class has the field or the method."""
    classes = {**vars(artifacts), **vars(interfaces)}
    named = re.findall(r"`([A-Z]\w+)\.(\w+)", GUIDE)
    assert len(named) > 8
    for owner, attribute in named:
        if owner == "PeftModel":
            continue
        cls = classes[owner]
        known = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
        assert attribute in known | set(dir(cls)), f"{owner}.{attribute}"


# -- options ----------------------------------------------------------------------------------


def test_the_reference_is_what_the_code_says():
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_generating_the_reference_imports_no_torch():
    code = "import runpy, sys; sys.argv = ['generate.py', '--check']; sys.path.insert(0, 'docs'); import generate; "
    code += "generate.page(generate.own_registry()); print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_check_fails_on_an_option_without_its_row(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    generate = importlib.import_module("generate")
    stale = tmp_path / "reference.md"
    text = generate.PAGE.read_text(encoding="utf-8")
    stale.write_text("\n".join(line for line in text.splitlines() if "`trace.samples`" not in line))
    monkeypatch.setattr(generate, "PAGE", stale)
    assert generate.main(["--check"]) == 1
    assert "`trace.samples`" in capsys.readouterr().out


def test_every_option_has_a_doc_string():
    sections = [f.default_factory for f in dataclasses.fields(settings.Settings)]
    classes = [*filter(dataclasses.is_dataclass, sections), *(entry.cls for entry in REGISTRY.entries.values())]
    undocumented = [
        f"{cls.__qualname__}.{f.name}"
        for cls in classes
        for docs in (field_docs(cls),)
        for f in dataclasses.fields(cls)
        if not docs.get(f.name)
    ]
    assert not undocumented


def test_every_artifact_kind_is_documented():
    classes = [c for c in vars(artifacts).values() if isinstance(c, type) and issubclass(c, artifacts.Artifact)]
    assert all((c.__doc__ or "").strip() for c in classes)


# -- pages ------------------------------------------------------------------------------------


def anchors(text):
    """Anchors of a page's headings, in GitHub's spelling."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_id(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page_id(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_and_names_of_the_code_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for path in re.findall(r"`?\b((?:m3i|plugins|tests|bench|docs|conf)/[\w./]+\.(?:py|md|yaml))\b", text):
        assert (ROOT / path).exists(), f"{page_id(page)} names {path}"
    for module, name in re.findall(r"`(m3i(?:\.[a-z]\w*)+)\.([A-Za-z]\w*)\(?", text):
        try:
            owner = importlib.import_module(module)
        except ModuleNotFoundError:
            pytest.fail(f"{page_id(page)} names {module}, which is no module")
        is_module = importlib.util.find_spec(f"{module}.{name}") is not None if hasattr(owner, "__path__") else False
        assert hasattr(owner, name) or is_module, f"{page_id(page)} names {module}.{name}"


def test_every_page_is_linked_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)\s]+)\)", index)}
    missing = [
        page_id(p) for p in PAGES if p.is_relative_to(ROOT / "docs") and p not in linked and p.name != "index.md"
    ]
    assert not missing


def commands(page):
    """Argument lists of every m3i command in the page's `sh` blocks."""
    for block in re.findall(r"^```sh\b.*?\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M):
        for line in re.split(r"\n|&&|;", block.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            for i, word in enumerate(words):
                if word == "m3i" or word.endswith("/m3i"):
                    yield words[i + 1 :]
                    break


COMMAND_LINES = [
    pytest.param(arguments, id=f"{page_id(page)}: {shlex.join(arguments)}")
    for page in PAGES
    for arguments in commands(page)
]


def choices(override):
    """The overrides that a multirun makes of one: `seed=0,1` as `seed=0` and `seed=1`."""
    name, _, value = override.partition("=")
    return [override] if value.startswith(("[", "{")) else [f"{name}={part}" for part in value.split(",")]


@pytest.mark.parametrize("arguments", COMMAND_LINES)
def test_commands_in_the_documentation_can_be_run(arguments, monkeypatch):
    monkeypatch.setattr("m3i.config.source.installed", lambda: REGISTRY)
    monkeypatch.chdir(ROOT)
    if arguments and arguments[0] in COMMANDS:
        return
    overrides = [a for a in arguments if not a.lstrip("+").startswith(("-", "$", "hydra.", "hydra/"))]
    assert all("=" in o for o in overrides), f"not an override: {overrides}"
    alternatives = [choices(o) for o in overrides]
    for i in range(max(map(len, alternatives), default=1)):
        try:
            Experiment.compose(*(options[min(i, len(options) - 1)] for options in alternatives))
        except InputError:
            continue  # a file that the reader is to bring
        except ConfigError as error:
            pytest.fail(str(error))


def test_the_documentation_has_commands_to_check():
    assert len(COMMAND_LINES) >= 8


def python_blocks(page):
    return re.findall(r"^```python\b(.*?)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


PYTHON = [
    pytest.param(info.strip(), code, id=f"{page_id(page)}-{i}")
    for page in PAGES
    for i, (info, code) in enumerate(python_blocks(page))
]


@pytest.mark.parametrize(("info", "code"), PYTHON)
def test_python_in_the_documentation_compiles_and_imports_what_exists(info, code, monkeypatch):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "m3i":
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"from {node.module} import {name.name}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Experiment.compose":
            monkeypatch.setattr("m3i.config.source.installed", lambda: REGISTRY)
            Experiment.compose(*(a.value for a in node.args if isinstance(a, ast.Constant)))
    if info == "run":
        monkeypatch.setattr("m3i.config.registry.installed", lambda: REGISTRY)
        exec(compile(tree, "documentation", "exec"), {})


# -- the example in docs/hooks.md -------------------------------------------------------------


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The plugin of docs/hooks.md, registered as it stands."""
    source = re.search(r"```python example\n(.+?)```", GUIDE, re.S).group(1)
    (tmp_path / "m3i_repetition.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("m3i_repetition")
    yield module
    del sys.modules["m3i_repetition"]


def trace(text):
    ids = tuple(range(len(text)))
    return Trace(
        id="p.0",
        problem_id="p",
        sample=0,
        prompt_ids=(1,),
        completion_ids=ids,
        text=text,
        offsets=tuple((i, i + 1) for i in ids),
        logprobs=(-1.0,) * len(text),
        correct=False,
        answer=None,
        truncated=False,
    )


def test_the_example_observer_works(example):
    registry = build([(example, "m3i-repetition", "1.0")])
    observer = registry.find("observer", "repetition").cls(min_length=4)
    traces = [trace("2 + 3 = 5\nshort\n2 + 3 = 5\nend")]
    request = AuditRequest(items=[(None, traces[0])], source=None, telemetry=None, target=None, ledger=None)
    audit = checked_audit(asyncio.run(observer.audit(request)), "mine", traces, n_layers=4)
    assert [(f.quote, f.start, f.token_start, f.token_end) for f in audit.findings] == [("2 + 3 = 5", 16, 16, 25)]
    assert (audit.observer, audit.audited, audit.rejected_quotes) == ("mine", ("p.0",), 0)
    with pytest.raises(ConfigError, match="min_length = 0: expected at least 1"):
        type(observer)(min_length=0)
    assert isinstance(example, ModuleType)


def test_the_example_is_short_and_its_options_are_documented(example):
    source = re.search(r"```python example\n(.+?)```", GUIDE, re.S).group(1)
    body = source.split("class Repetition")[1].split("@m3i.hookimpl")[0]
    assert len(body.strip().splitlines()) <= 30
    assert field_docs(example.Repetition)["min_length"].startswith("Lines shorter")
