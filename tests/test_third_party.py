"""A third party's distribution beside our wheel, as a user has them: installed by pip, run from another folder.

The environment's own packages are the two wheels alone. Heavy dependencies come from the environment of
the tests, by its path and nothing else, so that installing takes seconds.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ACME = ROOT / "tests" / "third_party" / "acme_m3i"

pytestmark = pytest.mark.slow


def run(*command, cwd=None, timeout=600):
    """A finished process, with nothing of the tests' own environment that could reach into it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "HYDRA", "COV"))}
    environment = {**inherited, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def succeed(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Our wheel and acme's, built by pip."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ACME):
        options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", folder)
        succeed(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


def environment(folder, *packages):
    """A virtual environment whose own packages are `packages`; the tests' site-packages lie behind them."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    paths = sysconfig.get_paths()
    own = Path(succeed(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip())
    behind = dict.fromkeys((paths["purelib"], paths["platlib"]))
    (own / "dependencies.pth").write_text("".join(f"{path}\n" for path in behind), encoding="utf-8")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--ignore-installed", "--quiet")
    succeed(sys.executable, "-m", "pip", "--python", python, "install", *options, *packages, cwd=folder)
    return python


@pytest.fixture(scope="module")
def with_acme(wheels, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("with_acme") / "venv", wheels["m3i"], wheels["acme_m3i"])


@pytest.fixture(scope="module")
def without_acme(wheels, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("without_acme") / "venv", wheels["m3i"])


def test_the_wheel_holds_packages_presets_and_weights_and_nothing_of_the_checkout(wheels):
    names = zipfile.ZipFile(wheels["m3i"]).namelist()
    tops = {name.split("/")[0] for name in names}
    plugins = {p.parent.name for p in (ROOT / "plugins").glob("*/__init__.py")}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"m3i", "hydra_plugins", *plugins}
    assert "hydra_plugins/m3i_arms.py" in names
    assert "hydra_plugins/__init__.py" not in names, "it is a namespace that other distributions share"
    assert "m3i/conf/config.yaml" in names
    assert any(name.startswith("m3i_tiny/model/") and name.endswith(".safetensors") for name in names)
    templates = {f.relative_to(ROOT).as_posix() for f in (ROOT / "m3i" / "contract" / "templates").rglob("*.jinja")}
    assert len(templates) > 30
    assert templates <= set(names)
    for part in ("conf", "plugins"):
        kept = {f.relative_to(ROOT / part).as_posix() for f in (ROOT / part).rglob("*.yaml")}
        prefix = "m3i/conf/" if part == "conf" else ""
        assert {prefix + name for name in kept} <= set(names)


def test_the_wheel_is_what_is_imported(with_acme, tmp_path):
    code = "import m3i, m3i_tiny, acme_m3i, json; print(json.dumps([m.__file__ for m in (m3i, m3i_tiny, acme_m3i)]))"
    files = json.loads(succeed(with_acme, "-c", code, cwd=tmp_path).stdout)
    home = with_acme.parents[1]
    assert all(Path(file).is_relative_to(home) for file in files), files


def test_plugins_lists_acme_with_its_distribution_and_version(with_acme, tmp_path):
    lines = succeed(with_acme.with_name("m3i"), "plugins", cwd=tmp_path).stdout.splitlines()
    rows = [line.split() for line in lines if "acme-m3i 1.2.3" in line]
    assert [row[:2] for row in rows] == [["observer", "acme"], ["attributor", "acme"], ["selector", "acme"]]
    assert any(line.split()[:2] == ["target", "tiny"] for line in lines)
    options = succeed(with_acme.with_name("m3i"), "options", "observer", "acme", cwd=tmp_path).stdout
    assert "observer.acme.threshold = -1.5" in options
    assert "Log-probability in nats below which" in options


def test_help_names_acme_and_imports_no_torch(with_acme, tmp_path):
    done = succeed(with_acme, "-X", "importtime", "-m", "m3i", "--help", cwd=tmp_path)
    assert "selector: acme, all, attribution" in done.stdout
    assert "experiment: acme" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "m3i.config.source" in imported
    assert not {"torch", "transformers", "llama_cpp", "scipy"} & imported
    assert list(tmp_path.iterdir()) == []


def test_acme_keeps_the_contract_and_a_new_plugin_is_written(with_acme, tmp_path):
    m3i = with_acme.with_name("m3i")
    checked = succeed(m3i, "check-plugin", "acme-m3i", cwd=tmp_path).stdout.splitlines()
    assert checked[0] == "acme-m3i: acme-m3i 1.2.3"
    assert checked[-1].endswith(" ok, 0 FAILED, 0 not checked")
    written = succeed(m3i, "new-plugin", "mine", "--kind", "selector", cwd=tmp_path).stdout
    assert "selector=mine" in written
    assert (tmp_path / "mine" / "mine_m3i" / "selector.py").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("selector=acne", "selector 'acne' is not installed; did you mean 'acme'?"),
        ("observer=checker+acmee", "observer 'acmee' is not installed; did you mean 'acme'?"),
        (
            "observer.acme.treshold=-2",
            "option 'observer.acme.treshold' does not exist; did you mean 'observer.acme.threshold'?",
        ),
        ("observer.acme.threshold=1", "threshold = 1.0: expected a negative number"),
    ],
)
def test_a_wrong_word_about_acme_is_one_line(with_acme, tmp_path, override, message):
    panel = [] if override.startswith("observer=") else ["observer=checker+acme"]
    done = run(with_acme, "-m", "m3i", *panel, override, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("override", ["observer=checker+acme", "selector=acme", "experiment=acme"])
def test_without_acme_its_names_are_unknown(without_acme, tmp_path, override):
    done = run(without_acme, "-m", "m3i", override, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "acme" in done.stderr
    assert override.startswith("experiment") or "is not installed" in done.stderr
    assert override.startswith("experiment") or "(m3i)" in done.stderr, "the error says who provides what is there"
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_whole_experiment_runs_with_acme_from_another_folder(with_acme, tmp_path):
    words = ("observer=checker+acme", "selector=acme", "experiment=acme", f"store.root={tmp_path}/store")
    command = (with_acme, "-m", "m3i", *words, f"hydra.run.dir={tmp_path}/run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = succeed(*command, cwd=elsewhere)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    from_acme = {row["place"]: row for row in result["components"] if row["distribution"] == "acme-m3i"}
    assert set(from_acme) == {"observer.acme", "attributor.acme", "selector"}
    assert {row["version"] for row in from_acme.values()} == {"1.2.3"}
    assert "acme-m3i" in report
    assert "1.2.3" in report
    assert result["problems"]["n_train"] == 24  # from acme's preset
    assert len(result["layers"]["selected"]) == 2  # acme's selector
    assert first.stdout.strip()
    assert list(elsewhere.iterdir()) == []

    audit = next((tmp_path / "store" / "objects" / "observe").glob("*/stage.json"))
    recipes = [json.loads(p.read_text())["recipe"] for p in audit.parents[1].glob("*/stage.json")]
    acme = next(r["component"] for r in recipes if r["component"]["distribution"] == "acme-m3i")
    assert (acme["name"], acme["version"], acme["options"]) == ("acme", "1.2.3", {"threshold": -1.5})

    succeed(*command[:-1], f"hydra.run.dir={tmp_path}/again", cwd=elsewhere)
    again = json.loads((tmp_path / "again" / "result.json").read_text(encoding="utf-8"))
    assert all(stage["hit"] for stage in again["stages"])
    assert again["ids"] == result["ids"]

    # Controls are derived from the set that a third party's selector takes; workers know its plugins too.
    words = (*words, "+sweep=control", "sweep.n_random=1", "sweep.others=[]", "sweep.seeds=[0]", "evaluate.seeds=[0]")
    swept = succeed(
        with_acme, "-m", "m3i", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *words, cwd=elsewhere
    )
    (folder,) = (elsewhere / "sweeps").iterdir()
    control = json.loads((folder / "random-0" / "seed-0" / "result.json").read_text(encoding="utf-8"))
    assert control["arm"]["attributed"] == result["layers"]["selected"] != control["layers"]["selected"]
    assert control["parameters"]["trained"] == result["parameters"]["trained"]
    assert "randomization test" in swept.stdout
