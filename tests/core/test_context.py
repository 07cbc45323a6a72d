"""Source hashes are taken when a run begins, not when a stage comes to its turn."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import m3i
from m3i.artifacts import TargetInfo
from m3i.config.experiment import Experiment
from m3i.config.registry import installed
from m3i.errors import StoreError
from m3i.ledger import Ledger
from m3i.models.session import TargetSession
from m3i.progress.display import Display
from m3i.stages.context import RunContext
from m3i.store.source import core_hash
from m3i.store.store import Store

CODE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import m3i
assert Path(m3i.__file__).parent == Path({root!r}) / "m3i"
from m3i.store.source import core_files, core_hash
core_files()
Path({root!r}, "m3i", "stages", "pairs.py").open("a").write("# edited while a run is on\\n")
print(core_hash("m3i.stages.pairs"), core_hash("m3i.audits.quotes"))
"""


def test_an_edit_during_a_run_does_not_reach_its_keys(tmp_path: Path) -> None:
    shutil.copytree(Path(m3i.__file__).parent, tmp_path / "m3i", ignore=shutil.ignore_patterns("__pycache__"))

    def hashes() -> list[str]:
        code = CODE.format(root=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = hashes(), hashes()
    assert first[0] != second[0], "an edited module must have another hash in the next run"
    assert first[1] == second[1]
    assert first == [core_hash("m3i.stages.pairs"), core_hash("m3i.audits.quotes")]


def context_with(tmp_path: Path, n_parameters: int) -> RunContext:
    session = TargetSession.__new__(TargetSession)
    session.info = TargetInfo(
        name="big",
        revision="0",
        architecture="LlamaForCausalLM",
        family="f",
        n_layers=1,
        n_parameters=n_parameters,
        n_active=n_parameters,
    )
    experiment = Experiment.compose()
    ledger = Ledger(experiment.settings.ledger, default_path=tmp_path / "ledger.sqlite")
    return RunContext(experiment, installed(), Store(tmp_path), Display(quiet=True), session, ledger)


def test_model_files_that_cannot_fit_are_refused_with_both_sizes(tmp_path: Path) -> None:
    context_with(tmp_path, 1000).check_room()
    with pytest.raises(StoreError, match=r"GB free, but the model files of this run take about 8000000\.0 GB; .*store"):
        context_with(tmp_path, 10**15).check_room()
