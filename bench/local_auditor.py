"""A local GGUF model as auditor of real traces, against the checker; and what reusing prompt prefixes saves.

    python -m bench.local_auditor                            # 20 traces of the tiny target, SmolLM2-135M
    python -m bench.local_auditor --model your-model.gguf --problems 25 --repeat 0

Prints JSON: what the observer said and how accurate it was, and with `--repeat N` the CPU seconds of the llama.cpp
process and the evaluated prompt tokens of the first N audits, with and without prefix reuse.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from m3i.artifacts import Audit, Problem, Trace
from m3i.audits.accuracy import call_accuracy, place_accuracy
from m3i.config.settings import TraceSettings
from m3i.interfaces import AuditRequest, Observer
from m3i.models.llamacpp.session import LlamaSession, Sampling
from m3i.stages.trace import sample_traces


def sampled(n_problems: int, samples: int) -> tuple[list[tuple[Problem, Trace]], Any]:
    """Traces of the tiny target with their problems, and the problems' source."""
    from m3i_arithmetic.source import ArithmeticProblems
    from m3i_tiny.target import TinyTarget

    source = ArithmeticProblems(n_train=n_problems, n_held_out=1)
    problems, _ = source.draw()
    settings = TraceSettings(samples=samples, temperature=0.8, top_p=1.0, max_new_tokens=96, batch_size=64, seed=0)
    traces = sample_traces(TinyTarget().load(), problems, source, settings)
    by_id = {problem.id: problem for problem in problems}
    return [(by_id[trace.problem_id], trace) for trace in traces.traces], source


def audited(observer: Observer, items: list[tuple[Problem, Trace]], source: Any) -> Audit:
    """The observer's audit; it gets neither telemetry nor target nor ledger, and needs none."""
    nothing: Any = SimpleNamespace()
    request = AuditRequest(items=items, source=source, telemetry=nothing, target=nothing, ledger=nothing)
    return asyncio.run(observer.audit(request))


def reuse(observer: Any, items: list[tuple[Problem, Trace]], source: Any, repeat: int) -> dict[str, Any]:
    """Figures for the same prompts with and without prefix reuse, over whole replies."""
    from m3i_llamacpp.chat import conversation, tokenized
    from m3i_llamacpp.grammar import grammar_of
    from m3i_llamacpp.model import find_model

    nothing: Any = SimpleNamespace()
    request = AuditRequest(items=items[:repeat], source=source, telemetry=nothing, target=nothing, ledger=nothing)
    asks = observer.asks(request)
    found: dict[str, Any] = {}
    replies = []
    with LlamaSession(
        find_model(observer.model, "--model"), n_ctx=observer.n_ctx, n_threads=observer.threads
    ) as session:

        def cpu_s() -> float:
            assert session._process is not None
            times = psutil.Process(session._process.pid).cpu_times()
            return float(times.user + times.system)

        for name, on in (("without", False), ("with", True)):
            started, n_evaluated, ids = cpu_s(), 0, []
            for ask in asks:
                generation = session.generate(
                    tokenized(session, conversation(ask.prompt, (), observer.chat_format)),
                    max_new_tokens=observer.max_tokens,
                    seed=0,
                    stop_ids=session.end_ids,
                    sampling=Sampling(temperature=0.0),
                    grammar=grammar_of(ask.request.schema, observer.limits()),
                    reuse_prefix=on,
                )
                n_evaluated += generation.n_evaluated
                ids.append(generation.ids)
            replies.append(ids)
            found[name] = {
                "cpu_s": round(cpu_s() - started, 2), "prompt_tokens_evaluated": n_evaluated,
                "reply_tokens": sum(map(len, ids)),
            }  # fmt: skip
    found["speed_up"] = round(found["without"]["cpu_s"] / found["with"]["cpu_s"], 2)
    found["same_replies"] = f"{sum(a == b for a, b in zip(*replies, strict=True))} of {len(asks)}"
    return found


def main() -> None:
    """Runs the audit and prints the figures."""
    from m3i_checker.observer import Checker
    from m3i_llamacpp.chat import ChatFormat
    from m3i_llamacpp.observer import LlamaCppObserver

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="path of a GGUF file, or smollm2")
    parser.add_argument("--chat-format", default="chatml", choices=[f.value for f in ChatFormat])
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4, help="traces per problem")
    parser.add_argument("--repeat", type=int, default=10, help="audits timed with and without prefix reuse; 0: none")
    parser.add_argument("--out", type=Path, help="write the findings here, as JSONL")
    given = parser.parse_args()
    items, source = sampled(given.problems, given.samples)
    traces = [trace for _, trace in items]
    observer = LlamaCppObserver(model=given.model, chat_format=ChatFormat(given.chat_format))
    started = time.monotonic()
    truth, audit = audited(Checker(), items, source), audited(observer, items, source)
    figures: dict[str, Any] = {
        "traces": len(traces),
        "wrong": sum(not trace.correct for trace in traces),
        "time_s": round(time.monotonic() - started, 1),
        "audited": len(audit.audited),
        "missing": audit.missing,
        "findings": len(audit.findings),
        "rejected_quotes": audit.rejected_quotes,
        "ambiguous_quotes": audit.ambiguous_quotes,
        "calls": asdict(audit.calls),
        "calls_right": call_accuracy(audit, traces) if audit.audited else None,
        "places_right": place_accuracy(audit, truth, traces) if audit.audited else None,
    }
    if given.repeat:
        figures["prefix_reuse"] = reuse(observer, items, source, given.repeat)
    print(json.dumps(figures, indent=1))
    if given.out is not None:
        given.out.write_text("".join(json.dumps(asdict(finding)) + "\n" for finding in audit.findings))


if __name__ == "__main__":
    main()
