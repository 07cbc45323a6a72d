"""One small experiment on the shipped target that many tests start from: it is run once, they copy its store."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from planted_secrets import KEY, OTHERS

SMALL = (
    "problems.n_train=24",
    "problems.n_held_out=10",
    "trace.samples=3",
    "trainer.epochs=1",
    "attributor=logit_lens",
)


@dataclass(frozen=True)
class SmallRun:
    """The finished run `python -m m3i` with `SMALL`, with planted keys around it; nobody may write into its store."""

    store: Path
    folder: Path
    """With result.json and report.html."""
    printed: str
    """All that it wrote to the terminal."""


def small_run_in(root: Path) -> SmallRun:
    """The run under `root`, made by the first process that asks for it while the others wait."""
    store, folder, printed = root / "store", root / "run", root / "printed.txt"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        if not printed.exists():
            words = (*SMALL, f"store.root={store}", f"hydra.run.dir={folder}")
            done = subprocess.run(
                [sys.executable, "-m", "m3i", *words],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=root,
                env=os.environ | OTHERS | dict.fromkeys(("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"), KEY),
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            printed.write_text(done.stdout, encoding="utf-8")
    return SmallRun(store=store, folder=folder, printed=printed.read_text(encoding="utf-8"))
