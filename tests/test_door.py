"""`import m3i` is the one door: it offers what a plugin needs, looks names up on first use, and is quick."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import m3i

PACKAGE = Path(m3i.__file__).parent


@pytest.mark.parametrize("name", m3i.EXPORTS)
def test_every_export_is_the_name_of_its_home(name):
    assert getattr(m3i, name) is getattr(importlib.import_module(m3i.EXPORTS[name]), name)


def test_an_experiment_and_run_come_through_the_door():
    from m3i import Experiment, run

    assert callable(run)
    assert Experiment.compose("seed=3").settings.seed == 3


def test_a_name_that_is_not_there_is_an_error_that_says_where_to_look():
    with pytest.raises(AttributeError, match=r"no attribute 'Experimnt'; .*m3i\.EXPORTS"):
        m3i.Experimnt  # noqa: B018
    with pytest.raises(ImportError, match="Experimnt"):
        from m3i import Experimnt  # noqa: F401


def test_importing_it_loads_nothing_heavy():
    heavy = {"hydra", "omegaconf", "torch", "numpy", "rich", "pydantic"}
    code = f"import m3i, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_artifact_request_and_error_is_exported():
    """A new one is forgotten here before a plugin author misses it."""
    for room in ("artifacts", "interfaces", "errors"):
        module = importlib.import_module(f"m3i.{room}")
        public = {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__.startswith(f"m3i.{room}") and not name.startswith("_")
        }
        assert public <= set(m3i.EXPORTS), f"add {sorted(public - set(m3i.EXPORTS))} to m3i/__init__.py"


def test_only_the_hall_is_loose():
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "errors", "component", "interfaces", "hookspecs"}
