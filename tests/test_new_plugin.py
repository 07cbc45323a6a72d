"""`m3i new-plugin`: for each kind, what is written is clean, keeps the contract and passes its own tests."""

import subprocess
import sys

import pytest
from fake_install import install, run
from test_contract import REGISTRY

from m3i.cli.new_plugin import new_plugin_command
from m3i.config.registry import INTERFACES
from m3i.contract.new_plugin import EXAMPLES, LONGEST_NAME, names_for
from m3i.errors import M3IError

LONGEST = "a-name-of-the-most-letters-that-it-takes"
FILES = ["README.md", "pyproject.toml", "tests/test_contract.py"]


@pytest.fixture(autouse=True)
def only_ours(monkeypatch):
    """Nothing is installed but this checkout and the example."""
    monkeypatch.setattr("m3i.contract.new_plugin.installed", lambda: REGISTRY)


def files_of(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_every_kind_has_its_example():
    assert list(EXAMPLES) == list(INTERFACES)
    assert len(LONGEST) == LONGEST_NAME


@pytest.mark.slow
@pytest.mark.parametrize("kind", INTERFACES)
def test_what_is_written_works(kind, tmp_path, capsys):
    new_plugin_command(["Acme.thing", "--kind", kind, "--dir", str(tmp_path)])
    assert f"{kind}=acme_thing" in capsys.readouterr().out
    folder, package = tmp_path / "acme-thing", "acme_thing_m3i"
    own = [f"{package}/{name}" for name in ("__init__.py", "contract_cases.py", f"{kind}.py")]
    assert files_of(folder) == sorted([*FILES, *own, f"tests/test_{kind}.py"])

    path = [folder, install(tmp_path / "site", "acme-thing", package)]
    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder, path=path, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout[-3000:]
    checked = run("-m", "m3i", "check-plugin", "acme-thing", path=path, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.rstrip().endswith(" ok, 0 FAILED, 0 not checked")
    shown = run("-m", "m3i", "options", kind, "acme_thing", path=path, cwd=tmp_path)
    assert EXAMPLES[kind].summary in shown.stdout


@pytest.mark.parametrize("name", ["mine", LONGEST])
@pytest.mark.parametrize("kind", INTERFACES)
def test_what_is_written_is_clean(kind, name, tmp_path):
    new_plugin_command([name, "--kind", kind, "--dir", str(tmp_path)])
    rules = ("--select", "E,F,W,I,UP,B,SIM,PT,C4,D1", "--ignore", "D100,D103,D104")
    for words in (("check", *rules), ("format", "--diff")):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", "--line-length", "120", "."]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path / name)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", INTERFACES)
def test_what_is_written_imports_the_one_door_alone(kind, tmp_path):
    new_plugin_command(["mine", "--kind", kind, "--dir", str(tmp_path)])
    lines = "\n".join(file.read_text(encoding="utf-8") for file in (tmp_path / "mine").rglob("*.py")).splitlines()
    found = {line.split()[1] for line in lines if line.startswith(("import m3i", "from m3i"))}
    shipped = {"trainer": {"m3i_lora.dpo_lora"}, "exporter": {"m3i_gguf.gguf_graft"}}
    assert found == {"m3i", "m3i.contract"} | shipped.get(kind, set())


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("mine", ("mine", "mine_m3i", "mine")),
        ("Acme_Layers", ("acme-layers", "acme_layers_m3i", "acme_layers")),
        ("m3i-repetition", ("m3i-repetition", "m3i_repetition", "repetition")),
        ("other.m3i", ("other-m3i", "other_m3i", "other")),
    ],
)
def test_names(name, names):
    made = names_for(name, "observer")
    assert (made.distribution, made.package, made.component) == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot name a distribution"),
        ("../acme", "cannot name a distribution"),
        ("a/b", "cannot name a distribution"),
        ("a\\b", "cannot name a distribution"),
        ("-acme", "cannot name a distribution|required"),
        ("acme-", "cannot name a distribution"),
        ("akmé", "cannot name a distribution"),
        ("two words", "cannot name a distribution"),
        ("acme\n", "cannot name a distribution"),
        (LONGEST + "x", "at most 40 characters"),
        ("m3i", "component ''"),
        ("3d-layers", "begin with a letter"),
        ("m3i-import", "component 'import'"),
        ("joint", "component 'joint'"),
        ("null-m3i", "component 'null'"),
        ("m3i-checker", "is installed; choose another name"),
        ("acme-m3i", "is installed; choose another name"),
        ("surprisal", "'m3i' already provides observer=surprisal"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(name, message, tmp_path):
    with pytest.raises(M3IError, match=message) as caught:
        new_plugin_command([name, "--dir", str(tmp_path)])
    assert len(str(caught.value).strip().splitlines()) == 1 or "\n" in name
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    new_plugin_command(["mine", "--dir", str(tmp_path)])
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(M3IError, match="exists and is not an empty folder"):
        new_plugin_command(["mine", "--dir", str(tmp_path)])
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(M3IError, match="cannot write"):
        new_plugin_command(["mine", "--dir", str(tmp_path / "file")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine", "--kind", "observr"], "there is no kind of plugin 'observr'; did you mean 'observer'?"),
        ([], "usage: m3i new-plugin NAME"),
        (["mine", "other"], "usage: m3i new-plugin NAME"),
        (["mine", "--knd", "observer"], "usage: m3i new-plugin NAME"),
    ],
)
def test_wrong_words(words, message):
    with pytest.raises(M3IError) as caught:
        new_plugin_command(words)
    assert message in str(caught.value)
