"""Time, memory and throughput of the default run, as a Markdown page.

    python bench/default_run.py [--write docs/benchmarks.md] [--torch-threads 1,2] [OVERRIDES ...]

Runs the experiment in processes of its own: cold (a fresh store), warm (the same again), and once more for each other
number of llama.cpp threads, where only the answers are made anew. Reads the stages' times from result.json.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from m3i.artifacts import Adapter, Answers, Artifact, ReferenceLogprobs, Telemetry, Traces
from m3i.component import library_version
from m3i.store import codec

A = TypeVar("A", bound=Artifact)
MIB = 1024**2
LIBRARIES = ("torch", "transformers", "peft", "trl", "llama-cpp-python")
STARTS = {
    "`m3i plugins`": ("-m", "m3i", "plugins"),
    "`m3i --help`": ("-m", "m3i", "--help"),
    "a wrong option": ("-m", "m3i", "trainer.rnak=1"),
    "`import torch`": ("-c", "import torch"),
    "`import torch, transformers`": ("-c", "import torch, transformers"),
    "`from trl import DPOTrainer`": ("-c", "from trl import DPOTrainer"),
}


@dataclass(frozen=True)
class Measured:
    """One finished command."""

    wall_s: float
    peak_bytes: int
    """Largest sum of resident memory over the process and its children, sampled ten times a second."""
    result: dict[str, Any]


def timed(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, float, int, str]:
    """Runs Python with the arguments and samples the memory of its process tree."""
    peak = 0
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        output: list[str] = []
        reader = threading.Thread(target=lambda: output.extend(process.stdout or ()))
        reader.start()
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
        wall = time.perf_counter() - began
        reader.join()
    return process.returncode, wall, peak, "".join(output)


def resident(root: int) -> int:
    """Bytes of resident memory of a process and all below it; 0 where /proc does not tell."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(fields[1])
            sizes[int(place.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            continue  # it ended meanwhile
    tree, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    return sum(sizes.get(pid, 0) for pid in tree)


def experiment(folder: Path, store: Path, overrides: Sequence[str], torch_threads: str) -> Measured:
    """One run of m3i; ends the benchmark where it fails."""
    environment = dict(os.environ)
    if torch_threads:
        environment["OMP_NUM_THREADS"] = str(torch_threads)
    words = ["-m", "m3i", *overrides, f"store.root={store}", f"hydra.run.dir={folder}"]
    code, wall, peak, output = timed(words, environment)
    if code != 0:
        sys.exit(f"{shlex.join(words)} ended with {code}:\n{output[-3000:]}")
    print(f"{shlex.join(words)}: {wall:.1f} s", file=sys.stderr)
    return Measured(wall, peak, json.loads((folder / "result.json").read_text(encoding="utf-8")))


def read(cls: type[A], measured: Measured, store: Path, stage: str, label: str = "") -> tuple[A, float]:
    """An artifact of the run, from the store."""
    row = next(s for s in measured.result["stages"] if (s["stage"], s["label"]) == (stage, label))
    return codec.read(cls, store / "objects" / stage / row["key"], id=row["key"], parents=()), row["made_in_s"]


def stage_rows(cold: Measured, warm: Measured) -> Iterator[tuple[str, ...]]:
    """One line a stage: seconds when made, share, peak memory, seconds when stored."""
    total = sum(s["made_in_s"] for s in cold.result["stages"])
    for one, again in zip(cold.result["stages"], warm.result["stages"], strict=True):
        title = f"{one['stage']} {one['label']}".strip()
        share = one["made_in_s"] / total
        yield (
            title,
            f"{one['made_in_s']:.1f}",
            f"{share:.0%}",
            f"{one['peak_memory_bytes'] / MIB:.0f}",
            f"{again['time_s']:.2f}",
        )
    peak = max(s["peak_memory_bytes"] for s in cold.result["stages"])
    yield (
        "**all stages**",
        f"{total:.1f}",
        "100%",
        f"{peak / MIB:.0f}",
        f"{sum(s['time_s'] for s in warm.result['stages']):.2f}",
    )


def throughput(measured: Measured, store: Path) -> Iterator[tuple[str, int, float]]:
    """Tokens a second, by what is done to them."""
    traces, _ = read(Traces, measured, store, "trace")
    telemetry, telemetry_s = read(Telemetry, measured, store, "telemetry")
    reference, reference_s = read(ReferenceLogprobs, measured, store, "reference")
    adapter, train_s = read(Adapter, measured, store, "train")
    generated = sum(len(t.completion_ids) for t in traces.traces)
    yield "generation (transformers, batches)", generated, traces.generation_time_s
    yield "telemetry (forward passes)", telemetry.starts[-1], telemetry_s
    yield (
        f"training, {adapter.train_time_s:.1f} of {train_s:.1f} s of the stage",
        adapter.n_tokens,
        adapter.train_time_s,
    )
    yield f"reference ({2 * len(reference.chosen_P)} completions)", 0, reference_s
    for label in ("base", "tuned"):
        answers, _ = read(Answers, measured, store, "answer", label)
        tokens = sum(len(a.completion_ids) for a in answers.answers)
        yield f"evaluation of {label} (llama.cpp, {answers.n_threads} thread)", tokens, answers.time_s


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    versions = ", ".join(f"{name} {library_version(name)}" for name in LIBRARIES)
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {python}; {versions}"


def page(
    command: str,
    runs: Mapping[str, Measured],
    store: Path,
    evaluations: Mapping[int, list[float]],
    starts: Mapping[str, float],
) -> str:
    """The whole page."""
    cold, warm = runs["cold"], runs["warm"]
    made = sum(s["made_in_s"] for s in cold.result["stages"])
    outside = cold.wall_s - made
    first = starts["`m3i --help`"]
    imports = starts["`import torch, transformers`"]
    text = f"# Benchmarks\n\nWritten by\n\n```sh\n{command}\n```\n\nMachine: {machine()}.\n\n"
    text += "## Whole runs\n\n" + table(
        ("run", "wall time, s", "peak memory of all processes, MiB"),
        [(name, f"{m.wall_s:.1f}", f"{m.peak_bytes / MIB:.0f}") for name, m in runs.items()],
    )
    text += f"\nThe warm run takes {warm.wall_s / cold.wall_s:.1%} of the cold one.\n"
    text += "\n## Stages\n\nPeak memory is that of the main process; llama.cpp runs in a separate process.\n\n"
    text += table(("stage", "made in, s", "share", "peak MiB", "from the store, s"), stage_rows(cold, warm))
    text += "\n## Throughput\n\n" + table(
        ("what", "tokens", "s", "tokens/s"),
        [
            (w, f"{n:,}" if n else "", f"{s:.1f}", f"{n / s:,.0f}" if n and s else "")
            for w, n, s in throughput(cold, store)
        ],
    )
    text += "\n## Threads\n\n"
    text += table(
        ("llama.cpp threads", "base answers, tokens/s", "tuned answers, tokens/s"),
        [(n, f"{b:,.0f}", f"{t:,.0f}") for n, (b, t) in sorted(evaluations.items())],
    )
    used = cold.result["config"]["evaluate"]["threads"]
    best = max(evaluations, key=lambda n: sum(evaluations[n]))
    text += (
        f"\nThe run uses `evaluate.threads={used}`; here {best} is fastest. llama.cpp's threads wait for each other by "
        f"spinning, so on shared cores, or with a small model, more threads can be slower. torch uses "
        f"`OMP_NUM_THREADS` ({os.environ.get('OMP_NUM_THREADS', 'unset: one thread per core')}) here.\n"
    )
    text += "\n## Start-up\n\n" + table(("command", "s (best of 3)"), [(n, f"{s:.2f}") for n, s in starts.items()])
    text += (
        f"\nOf the cold run's {cold.wall_s:.1f} s, {outside:.1f} s ({outside / cold.wall_s:.1%}) are spent "
        f"outside the stages: interpreter, Hydra, plugins, report. `m3i --help` alone takes {first:.2f} s. Inside the "
        f"stages, importing torch and transformers takes about {imports:.1f} s once per run "
        f"({imports / cold.wall_s:.1%}).\n"
    )
    return text


def best_of(n: int, arguments: Sequence[str]) -> float:
    times = []
    for _ in range(n):
        _, wall, _, _ = timed(arguments, {**os.environ, "HYDRA_FULL_ERROR": "0"})
        times.append(wall)
    return min(times)


def test_suite(file: Path) -> str:
    """The page's section on the tests, which is written by hand."""
    _, heading, section = file.read_text(encoding="utf-8").partition("\n## The test suite\n")
    return heading + section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="page to write; standard output without it")
    parser.add_argument("--torch-threads", default="", help="further cold runs with these OMP_NUM_THREADS, e.g. 1,2")
    parser.add_argument("overrides", nargs="*", help="overrides of the experiment")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m3i-bench-") as name:
        folder = Path(name)
        store = folder / "store"
        runs = {
            "cold": experiment(folder / "cold", store, given.overrides, ""),
            "warm": experiment(folder / "warm", store, given.overrides, ""),
        }
        again = [s["stage"] for s in runs["warm"].result["stages"] if not s["hit"]]
        if again:
            sys.exit(f"the warm run made {', '.join(again)} again: was the source edited meanwhile?")
        used = runs["cold"].result["config"]["evaluate"]["threads"]
        evaluations: dict[int, list[float]] = {}
        for threads in sorted({used, 1, os.cpu_count() or 1}):
            options = [*given.overrides, f"evaluate.threads={threads}"]
            other = experiment(folder / f"threads-{threads}", store, options, "")
            sides = [read(Answers, other, store, "answer", label)[0] for label in ("base", "tuned")]
            evaluations[threads] = [sum(len(a.completion_ids) for a in s.answers) / s.time_s for s in sides]
        for threads in filter(None, given.torch_threads.split(",")):
            title = f"cold, OMP_NUM_THREADS={threads}"
            runs[title] = experiment(folder / f"torch-{threads}", folder / f"store-{threads}", given.overrides, threads)
        starts = {title: best_of(3, arguments) for title, arguments in STARTS.items()}
        command = shlex.join(["python", "bench/default_run.py", *sys.argv[1:]])
        text = page(command, runs, store, evaluations, starts)
    if given.write:
        given.write.write_text(text + test_suite(given.write), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
