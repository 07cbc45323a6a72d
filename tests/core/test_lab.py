"""Source hashes are taken when a run begins, not when a stage comes to its turn."""

import shutil
import subprocess
import sys
from pathlib import Path

import m3i

CODE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import m3i
assert Path(m3i.__file__).parent == Path({root!r}) / "m3i"
from m3i.lab import core_hash, core_sources
core_sources()
Path({root!r}, "m3i", "pairs.py").open("a").write("# edited while a run is on\\n")
print(core_hash(("pairs",)), core_hash(("spans",)))
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
    from m3i.lab import core_hash

    assert first == [core_hash(("pairs",)), core_hash(("spans",))]
