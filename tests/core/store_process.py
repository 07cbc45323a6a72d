"""One process that wants an artifact: `python store_process.py STORE LOG SECONDS`.

It writes a line to LOG when it begins to make the artifact, takes SECONDS, and prints its record as JSON.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from m3i.artifacts import LayerSelection
from m3i.store.store import Recipe, Store


def want(root: Path, log: Path, seconds: float) -> None:
    def make(folder: Path) -> LayerSelection:
        (folder / "half.bin").write_bytes(b"x" * 100)
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(seconds)
        return LayerSelection(layers=(1, 2), candidates=(0, 1, 2, 3), reason="test")

    recipe = Recipe(stage="select", component={"name": "manual", "options": {"k": 2}})
    artifact, record = Store(root).get_or_make(LayerSelection, recipe, make)
    assert artifact.layers == (1, 2)
    print(json.dumps(asdict(record)))


if __name__ == "__main__":
    want(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
