"""The time a sweep saves: its jobs in one sweep against the same jobs, each alone from an empty store.

    python -m bench.sweep_time [--jobs 5] [OVERRIDES ...]

Both run one process at a time on this machine, alternating job by job, so that a slow spell of a shared machine affects
both. The whole sweep is then extrapolated from its first job, which makes what the arms share, and the mean of the
others.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from m3i.config.settings import SweepSettings
from m3i.sweep.plan import PlannedJob, planned_jobs


def seconds(job: PlannedJob, overrides: list[str], store: Path, work: Path) -> float:
    """Wall time of one job in its own process."""
    words = [*overrides, f"arm={job.arm}", f"seed={job.seed}", f"store.root={store}"]
    words.append(f"hydra.run.dir={work / 'runs' / store.name / job.folder}")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "m3i", *words], capture_output=True, text=True, check=False, cwd=work)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return time.perf_counter() - began


def main() -> None:
    """Times the jobs and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5, help="random arms timed after the first job")
    parser.add_argument("overrides", nargs="*", default=[])
    given = parser.parse_args()
    overrides = ["evaluate.seeds=[0,1]", *given.overrides]
    n_all = len(planned_jobs(SweepSettings()))
    alone_s, shared_s = [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        first = PlannedJob(arm="attributed", seed=0)
        first_s = seconds(first, overrides, work / "sweep", work)
        print(f"{first.folder:<20} first of the sweep {first_s:7.1f} s", flush=True)
        for i in range(given.jobs):
            job = PlannedJob(arm=f"random-{i}", seed=0)
            alone_s.append(seconds(job, overrides, work / f"alone-{i}", work))
            shared_s.append(seconds(job, overrides, work / "sweep", work))
            print(f"{job.folder:<20} alone {alone_s[-1]:7.1f} s   in the sweep {shared_s[-1]:7.1f} s", flush=True)
    alone, shared = statistics.mean(alone_s), statistics.mean(shared_s)
    sweep_s, apart_s = first_s + (n_all - 1) * shared, n_all * alone
    print(
        f"\nmean of {given.jobs} jobs: alone {alone:.1f} s, in the sweep {shared:.1f} s, ratio {alone / shared:.2f}\n"
        f"extrapolated to the {n_all} jobs of +sweep=control, one at a time: {sweep_s / 60:.0f} min in the sweep, "
        f"{apart_s / 60:.0f} min apart, ratio {apart_s / sweep_s:.2f}"
    )


if __name__ == "__main__":
    main()
