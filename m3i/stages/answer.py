"""Held-out answers under llama.cpp: same prompts, sampling and random numbers for the base and every tuned model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from m3i.artifacts import Answer, Answers, Problem
from m3i.errors import ConfigError
from m3i.interfaces import ProblemSource, Tick, no_tick
from m3i.models.llamacpp.session import Generation, LlamaSession, Sampling, sampling_seed

N_PARALLEL = 8
"""Sequences decoded at once. Answers do not depend on it (tested), speed hardly does on a CPU."""


@dataclass(frozen=True)
class Question:
    """One completion to draw."""

    problem: Problem
    seed: int
    prompt_ids: tuple[int, ...]


def answer_held_out(
    *,
    model: Path,
    adapter: Path | None,
    problems: Sequence[Problem],
    source: ProblemSource,
    encode: Callable[[str], list[int]],
    decode: Callable[[tuple[int, ...]], str],
    stop_ids: Sequence[int],
    seeds: Sequence[int],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    threads: int = 1,
    n_ctx: int = 1024,
    processes: int = 1,
    tick: Tick = no_tick,
) -> Answers:
    """One verified answer a problem and generation seed, in that order.

    Two models asked with equal arguments share their random numbers: the noise at a position depends on the generation
    seed, the problem and the position alone (`LlamaSession.generate_many`). Equal models give equal answers.

    Args:
        model: GGUF file.
        adapter: llama.cpp LoRA file over it, or None.
        problems: Held-out problems.
        source: Their verifier.
        encode: Prompt text → ids of the target's own tokenizer, template and BOS included.
        decode: Completion ids → text without special tokens.
        stop_ids: Tokens that end an answer.
        seeds: Generation seeds.
        temperature: 0 for greedy answers; one seed is then enough.
        top_p: Nucleus; 1 keeps every token.
        max_new_tokens: Length limit of an answer.
        threads: llama.cpp's threads, a process.
        n_ctx: Tokens that prompt and answer may take together.
        processes: llama.cpp processes that share the questions; they do not change any answer.
        tick: Progress, one an answer.

    Raises:
        ConfigError: A prompt does not fit n_ctx, and which.
        LlamaCrashed, LlamaFailed: llama.cpp ended or refused the model.
    """
    questions = [Question(problem, seed, tuple(encode(problem.prompt))) for seed in seeds for problem in problems]
    for question in questions:
        needed = len(question.prompt_ids) + max_new_tokens
        if needed > n_ctx:
            raise ConfigError(
                f"evaluate.n_ctx = {n_ctx}: problem {question.problem.id} needs {needed} tokens, "
                f"{len(question.prompt_ids)} for its prompt; raise evaluate.n_ctx to {needed} or more"
            )
    started = time.monotonic()
    sampling = Sampling(temperature=temperature, top_p=top_p)
    done = 0

    def ask(share: list[Question]) -> list[Generation]:
        nonlocal done
        drawn: list[Generation] = []
        with LlamaSession(
            model, adapter=adapter, n_ctx=n_ctx, n_parallel=min(N_PARALLEL, len(share)), n_threads=threads
        ) as session:
            for start in range(0, len(share), 4 * N_PARALLEL):
                part = share[start : start + 4 * N_PARALLEL]
                drawn += session.generate_many(
                    [question.prompt_ids for question in part],
                    max_new_tokens=max_new_tokens,
                    seeds=[sampling_seed(question.seed, question.problem.id) for question in part],
                    stop_ids=stop_ids,
                    sampling=sampling,
                )
                done += len(part)
                tick(done, len(questions))
        return drawn

    shares = [share for share in (questions[i::processes] for i in range(processes)) if share]
    generations: dict[int, Generation] = {}
    with ThreadPoolExecutor(max_workers=max(len(shares), 1)) as pool:
        for i, drawn in enumerate(pool.map(ask, shares)):
            generations |= {i + k * processes: generation for k, generation in enumerate(drawn)}
    answers = tuple(_verified(question, generations[i], source, decode) for i, question in enumerate(questions))
    return Answers(answers=answers, time_s=time.monotonic() - started, n_threads=threads * processes)


def _verified(
    question: Question, generation: Generation, source: ProblemSource, decode: Callable[[tuple[int, ...]], str]
) -> Answer:
    text = decode(generation.ids)
    word = source.verify(question.problem, text)
    return Answer(
        problem_id=question.problem.id,
        seed=question.seed,
        completion_ids=generation.ids,
        text=text,
        correct=word.correct,
        answer=word.answer,
        truncated=generation.truncated,
    )
