"""What becomes of a panel of judgments when its provider fails, as a Markdown page (docs/faults.md).

    python -m bench.faults [--provider claude --provider gemini] [--fault 429] [--write docs/faults.md]

The real clients of each provider ask a local server (tests/wire) through the real ledger for the same panel, once a
fault. After the fault the same panel is asked again, as a user would start the command again. Survived means that the
call ended as documented: `retried` to a whole panel, `stopped` with one error and a whole panel after the restart, or
`missing` items counted as such and nothing else lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.fault_cases import CASES, EXPECTED, Case
from bench.secret_search import count_secrets
from m3i.artifacts import Answer, Problem
from m3i.config.registry import build
from m3i.config.settings import LedgerSettings
from m3i.errors import M3IError
from m3i.interfaces import BlindPair, JudgeRequest, Judgment
from m3i.ledger import Ledger
from m3i.ledger.calls import totals
from m3i.ledger.database import Database
from m3i.ledger.prices import estimate, price_of
from m3i.ledger.secrets import install_log_redaction
from tests.wire import WireServer, faults

KEY = "sk-ant-api03-planted/Key+9=" + "Zq7" * 8
N_PAIRS = 8
MODELS = {"claude": "claude-sonnet-5-5", "gemini": "gemini-2.5-pro", "litellm": "openai/gpt-5"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a fault came to with one provider."""

    case: Case
    provider: str
    ended: str
    wrong: str
    """What is not as documented; empty for a fault that was survived."""
    n_requests: int
    repeated: int
    lost: int
    overshoot_usd: float
    uncertain_usd: float
    secrets: int


# -- the panel ----------------------------------------------------------------------------------


def pairs() -> list[BlindPair]:
    """Comparisons with one right answer each, in turn the first and the second."""
    made = []
    for i in range(N_PAIRS):
        a, b = 3 + i, 7 * (i + 1)
        problem = Problem(id=f"p{i}", prompt=f"{a}*{b}=?", answer=str(a * b))
        right, wrong = (_answer(problem, f"{a}*{b}={value}") for value in (a * b, a * b + 1))
        shown = (right, wrong) if i % 2 == 0 else (wrong, right)
        made.append(BlindPair(key=f"pair-{i:05d}", problem=problem, a=shown[0], b=shown[1]))
    return made


def _answer(problem: Problem, text: str) -> Answer:
    return Answer(
        problem_id=problem.id, seed=0, completion_ids=tuple(map(ord, text)), text=text, correct=False, answer=None,
        truncated=False,
    )  # fmt: skip


def ask_panel(provider: str, settings: LedgerSettings, url: str, model: str = "") -> Judgment:
    """The panel's ballots, through the provider's own client and the ledger."""
    options: dict[str, Any] = {"model": model or MODELS[provider], "max_tokens": 1024}
    if provider == "litellm":
        options |= {"model": f"openai/{model}" if model else MODELS[provider], "api_base": f"{url}/v1"}
    judge = judge_class(provider)(**options)
    ledger = Ledger(settings, default_path=Path(str(settings.path)))
    source: Any = None  # not asked by these judges
    with contextlib.closing(ledger):
        judgment: Judgment = asyncio.run(judge.judge(JudgeRequest(pairs=pairs(), source=source, ledger=ledger)))
        return judgment


def judge_class(provider: str) -> type[Any]:
    """The judge of a provider's plugin."""
    return build([(importlib.import_module(f"m3i_{provider}"), "m3i", "")]).find("judge", provider).cls


def right_ballots(judgment: Judgment) -> int:
    """How many ballots are what an honest judge says."""
    wanted = ["a" if i % 2 == 0 else "b" for i in range(N_PAIRS)]
    return sum(b.choice == w for b, w in zip(judgment.ballots, wanted, strict=True))


def missing_ballots(judgment: Judgment) -> int:
    """How many ballots are missing, with a reason."""
    return sum(b.choice == "missing" and bool(b.reason) for b in judgment.ballots)


# -- one fault, one provider --------------------------------------------------------------------


def measure(case: Case, provider: str, folder: Path) -> Row:
    """Runs the panel into the fault, then again without it."""
    port = free_port()
    path, log = folder / "ledger.sqlite", folder / "run.log"
    settings = LedgerSettings(
        path=str(path), concurrency=2, timeout_s=1.5, deadline_s=20.0, prices=prices(), budget_usd=10.0
    )
    said: list[str] = []
    with logged(log), environment(port), case.around():
        worst = replace(settings, **faulty_options(case, provider))
        if case.nobody:
            with nobody(case.nobody, port):
                ended, first = attempt(case, provider, worst, port, said)
            server = WireServer(key=KEY, port=port)
        else:
            server = WireServer(key=KEY, port=port)
            server.script(*case.script)
        with server:
            if case.kill:
                ended, first = kill_in_the_middle(provider, worst, server, folder), None
            elif not case.nobody:
                ended, first = attempt(case, provider, worst, port, said)
            unspent = server.unspent
            over = overshoot(path, worst.budget_usd)
            server.unscript()
            again = ask_panel(provider, settings, server.url)
            said += [ballot.reason for ballot in again.ballots]
            n_requests, repeated = len(server.requests), server.repeated
            n_paid = len(server.paid)
            assert not server.invalid, server.invalid
    db = Database(path)
    n_recorded = db.connection.execute("SELECT count(*) FROM answers WHERE outcome = 'reply'").fetchone()[0]
    uncertain = totals(db, "default").uncertain
    db.close()
    missing = missing_ballots(again)
    lost = N_PAIRS - right_ballots(again) - missing + max(0, n_paid - n_recorded)
    found = count_secrets([KEY], [folder], said)
    wrong = {
        f"ended as {ended}": ended != {"retried": "whole", "stopped": case.error, "missing": "missing"}[case.ends],
        "wrong ballots": case.ends == "retried" and (first is None or right_ballots(first) != N_PAIRS),
        f"{missing} missing": missing != case.missing,
        f"{lost} lost": lost > 0,
        f"{repeated} paid twice": repeated > 0,
        f"{unspent} faults not met": unspent > 0 and case.ends != "stopped",
        f"{found} secrets": found > 0,
    }
    return Row(
        case=case,
        provider=provider,
        ended=ended,
        wrong=", ".join(words for words, so in wrong.items() if so),
        n_requests=n_requests,
        repeated=repeated,
        lost=lost,
        overshoot_usd=over,
        uncertain_usd=uncertain,
        secrets=found,
    )


def attempt(
    case: Case, provider: str, settings: LedgerSettings, port: int, said: list[str]
) -> tuple[str, Judgment | None]:
    """One run of the panel: how it ended, and its ballots if it did not stop."""
    try:
        judgment = ask_panel(provider, settings, f"http://127.0.0.1:{port}", case.model)
    except M3IError as error:
        said.append(str(error))
        return type(error).__name__, None
    except BaseException as error:  # none of ours: a fault that was not survived
        if isinstance(error, KeyboardInterrupt):
            raise
        said.append(f"{error!r}")
        return f"a crash with {type(error).__name__}", None
    said += [ballot.reason for ballot in judgment.ballots]
    return "missing" if missing_ballots(judgment) else "whole", judgment


def faulty_options(case: Case, provider: str) -> dict[str, Any]:
    """The case's options of the ledger."""
    if not case.budget_calls:
        return case.ledger
    request = judge_class(provider)(model=MODELS[provider], max_tokens=1024).request_for(pairs()[0])
    worst_usd = estimate(request, price_of(request.provider, request.model, prices())).usd_at_most
    assert worst_usd is not None
    return {**case.ledger, "budget_usd": case.budget_calls * worst_usd}


def prices() -> dict[str, Any]:
    """The same for all, so that figures do not move with a price table."""
    names = [*MODELS.values(), *(case.model for case in CASES if case.model)]
    return {name: {"input": 3.0, "output": 15.0} for model in names for name in (model, f"openai/{model}")}


def overshoot(path: Path, budget_usd: float | None) -> float:
    """US dollars paid beyond the budget so far."""
    if budget_usd is None or not path.is_file():
        return 0.0
    db = Database(path)
    paid = totals(db, "default").paid
    db.close()
    return max(0.0, paid - budget_usd)


# -- kill -9 ------------------------------------------------------------------------------------


def kill_in_the_middle(provider: str, settings: LedgerSettings, server: WireServer, folder: Path) -> str:
    """Ends a process of its own that runs the panel, with three answers recorded and two calls in flight."""
    server.script(*(faults.ok(),) * 3, *(faults.hold(),) * 2)
    words = [sys.executable, "-m", "bench.faults", "--worker", provider, str(settings.path), server.url]
    with (folder / "worker.log").open("wb") as output:
        worker = subprocess.Popen(words, stdout=output, stderr=output, cwd=Path(__file__).parent.parent)
    try:
        until = time.monotonic() + 60
        while not (server.in_flight == 2 and n_answers(Path(str(settings.path))) == 3):
            if worker.poll() is not None or time.monotonic() > until:
                return f"ended with {worker.poll()} before it could be killed"
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    return "killed"


def n_answers(path: Path) -> int:
    """Recorded answers, seen from another process."""
    if not path.is_file():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:  # being made
            return 0


def work(provider: str, path: str, url: str) -> None:
    """The process that is killed."""
    settings = LedgerSettings(path=path, concurrency=2, timeout_s=60.0, prices=prices(), budget_usd=10.0)
    ask_panel(provider, settings, url)


# -- surroundings -------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def nobody(what: str, port: int) -> Iterator[None]:
    """Nobody listens on the port (`refuses`), or somebody whose queue is full (`accepts` nothing)."""
    with contextlib.ExitStack() as stack:
        if what == "accepts":
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(0)
            for _ in range(4):  # one or two fill the queue; the system drops what comes after
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
        yield


@contextlib.contextmanager
def environment(port: int) -> Iterator[None]:
    """Points every client to the port, with the planted key."""
    url = f"http://127.0.0.1:{port}"
    changed = {
        "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": KEY,
        "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in (*changed, "GOOGLE_API_KEY", "ANTHROPIC_AUTH_TOKEN")}
    for name in before:
        os.environ.pop(name, None)
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Everything that any library logs meanwhile goes to a file, as with hydra.verbose=true."""
    install_log_redaction()
    handler = logging.FileHandler(path)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


# -- the page -----------------------------------------------------------------------------------


INTRODUCTION = f"""# Faults

Written by

```sh
python -m bench.faults --write docs/faults.md
```

Each provider's real client asks a local server that speaks its wire format for the same {N_PAIRS} ballots, through the
real ledger, two at a time. The server (or this machine) fails as named; then the same panel is asked again, as if the
user repeated the command. A fault is survived if the run ends as documented, every ballot of the second run is correct
or counted as missing, no delivered answer is paid for again, and no key is found anywhere.

- requests: in both runs together; a run without a fault takes {N_PAIRS}.
- repeated: answers delivered in full for a request that had been answered in full before.
- lost: items that have neither a ballot nor a reason, and delivered answers that are not in the ledger.
- uncertain: the worst-case cost of attempts that were sent, got no answer and may have been billed. It counts against
  the budget.

A killed process loses the calls in flight: they are sent again, and the first attempts are booked as uncertain. Here
the kill comes while two calls wait for their answers. A reply that arrives milliseconds before the kill and is not yet
on disk counts as in flight too; this affects at most `ledger.concurrency` calls, never one that was recorded.
"""


def page(rows: Sequence[Row]) -> str:
    """The table and the figures."""
    lines = [
        INTRODUCTION,
        "| fault | provider | documented | ended | survived | requests | repeated | lost | uncertain, $ |",
        "|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (
            *(
                row.case.name,
                row.provider,
                EXPECTED[row.case.ends],
                row.ended,
                f"**no**: {row.wrong}" if row.wrong else "yes",
            ),
            *(row.n_requests, row.repeated, row.lost, f"{row.uncertain_usd:.4f}"),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    killed = [row for row in rows if row.case.kill]
    figures = (
        ("faults survived / tried", f"{sum(not r.wrong for r in rows)} / {len(rows)}"),
        ("paid calls repeated after a kill", sum(r.repeated for r in killed)),
        (f"unanswered calls sent again after {len(killed)} kills", sum(r.n_requests - N_PAIRS for r in killed)),
        ("paid calls repeated in all", sum(r.repeated for r in rows)),
        ("samples lost", sum(r.lost for r in rows)),
        ("budget overshoot", f"${max((r.overshoot_usd for r in rows), default=0.0):.4f}"),
        ("secrets found in ledger, logs and messages", sum(r.secrets for r in rows)),
    )
    return "\n".join([*lines, "", "| figure | value |", "|---|---:|", *(f"| {n} | {v} |" for n, v in figures), ""])


def run(providers: Sequence[str], words: Sequence[str]) -> list[Row]:
    """Every case with every provider."""
    rows: list[Row] = []
    for provider in providers:  # the first call of a process imports the client, which may take seconds
        with tempfile.TemporaryDirectory() as folder:
            row = measure(Case(name="none", ends="retried", ledger={"timeout_s": 60.0}), provider, Path(folder))
        if row.wrong:
            sys.exit(f"without any fault, {provider}: {row.ended}; {row.wrong}")
    for case in CASES:
        if words and not any(word in case.name for word in words):
            continue
        for provider in providers:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(case, provider, Path(folder)))
            row = rows[-1]
            print(f"{row.case.name}, {provider}: {row.ended}. {row.wrong}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--provider", action="append", choices=sorted(MODELS))
    parser.add_argument("--fault", action="append", default=[], help="only faults whose name holds this")
    parser.add_argument("--write", type=Path, help="also write the page to this file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(*given.worker)
        return
    rows = run(given.provider or sorted(MODELS), given.fault)
    text = page(rows)
    print(text)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    if any(row.wrong or row.overshoot_usd for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
