"""A Ray cluster of two nodes on this machine, for tests: `python ray_nodes.py FILE`.

Writes the address to FILE when both nodes are up, and ends the cluster when standard input ends.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path


def main(file: Path) -> None:
    folder = tempfile.mkdtemp(prefix="m3i-ray-", dir="/tmp")  # Ray's sockets allow no longer path
    # Ray notes the address in $RAY_TMPDIR/ray, which it makes only when it starts a node from the command line.
    os.environ["RAY_TMPDIR"] = folder
    (Path(folder) / "ray").mkdir()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, temp_dir=folder)
        cluster.wait_for_nodes()
        file.with_suffix(".new").write_text(cluster.address, encoding="utf-8")
        file.with_suffix(".new").rename(file)
        sys.stdin.read()
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
