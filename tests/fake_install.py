"""Distributions that are found as if pip had installed them, and M3I's command line beside them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ACME = ROOT / "tests" / "third_party" / "acme_m3i"


def install(folder, distribution, package, version="0.1.0"):
    """Writes metadata beside a package: on the path, importlib.metadata sees a distribution with its entry point."""
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[m3i]\n{package} = {package}\n")
    return folder


def run(*words, path, cwd, timeout=600):
    """`python WORDS` with these folders on the path, behind the checkout's own."""
    folders = [ROOT, ROOT / "plugins", *path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=timeout
    )
