"""The answer stage: held-out answers under llama.cpp, with the same random numbers for base and tuned models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m3i.artifacts import Answer, Answers, BaseModel, Export, Problem, ProblemSet
from m3i.component import plain
from m3i.config.settings import EvaluateSettings
from m3i.errors import ConfigError
from m3i.interfaces import ProblemSource, Tick, no_tick
from m3i.models.llamacpp.session import Generation, LlamaSession, Sampling, sampling_seed
from m3i.models.target import LoadedTarget

if TYPE_CHECKING:
    from m3i.stages.context import RunContext

N_PARALLEL = 8
"""Sequences decoded at once. It does not change the answers (tested) and hardly changes the speed on a CPU."""


def run(context: RunContext, problems: ProblemSet, base: BaseModel, export: Export | None) -> Answers:
    """Returns the held-out answers of the base model (`export` is None) or of the tuned model, under llama.cpp."""
    settings = context.experiment.settings.evaluate

    def work(folder: Path, tick: Tick) -> Answers:
        model, adapter = base.file(), None
        if export is not None and export.model_path is not None:
            model = export.folder / export.model_path
        if export is not None and export.adapter_path is not None:
            adapter = export.folder / export.adapter_path
        return answer_held_out(
            model=model,
            adapter=adapter,
            problems=problems.held_out,
            source=context.experiment.problems,
            loaded=context.session.loaded,
            settings=settings,
            tick=tick,
        )

    return context.make(
        Answers,
        "answer",
        work,
        label="base" if export is None else "tuned",
        settings=plain(settings),
        inputs={
            "target": context.target_id,
            "problems": problems.id,
            "base": base.id,
            **({} if export is None else {"export": export.id}),
        },
        libraries=("llama-cpp-python", "tokenizers"),
        made=lambda a: f"{sum(x.correct for x in a.answers)} of {len(a.answers)} correct",
    )


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
    loaded: LoadedTarget,
    settings: EvaluateSettings,
    processes: int = 1,
    tick: Tick = no_tick,
) -> Answers:
    """Returns one verified answer per generation seed and problem, seed by seed.

    Two models asked with equal arguments share their random numbers: the noise at a position depends only on the
    generation seed, the problem and the position (`LlamaSession.generate_many`). Equal models give equal answers.

    Args:
        model: GGUF file.
        adapter: llama.cpp LoRA file to apply to it, or None.
        problems: Held-out problems.
        source: Their problem source, which verifies the answers.
        loaded: The target: it encodes prompts, decodes answers and knows the tokens that end an answer.
        settings: Generation seeds, sampling, threads per llama.cpp process, and `n_ctx`, the most tokens that prompt
            and answer may take together.
        processes: Number of llama.cpp processes that share the questions; it changes no answer.
        tick: Progress, in answers.

    Raises:
        ConfigError: A prompt and its answer do not fit into n_ctx; the message names the problem.
        LlamaCrashed, LlamaFailed: llama.cpp crashed or refused the model.
    """
    questions = [
        Question(problem, seed, tuple(loaded.encode_prompt(problem.prompt)))
        for seed in settings.seeds
        for problem in problems
    ]
    for question in questions:
        needed = len(question.prompt_ids) + settings.max_new_tokens
        if needed > settings.n_ctx:
            raise ConfigError(
                f"evaluate.n_ctx = {settings.n_ctx} is too small: problem {question.problem.id} needs {needed} tokens, "
                f"{len(question.prompt_ids)} of them for its prompt; raise evaluate.n_ctx to {needed} or more"
            )
    started = time.monotonic()
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
    done = 0

    def ask(share: list[Question]) -> list[Generation]:
        nonlocal done
        drawn: list[Generation] = []
        with LlamaSession(
            model,
            adapter=adapter,
            n_ctx=settings.n_ctx,
            n_parallel=min(N_PARALLEL, len(share)),
            n_threads=settings.threads,
        ) as session:
            for start in range(0, len(share), 4 * N_PARALLEL):
                part = share[start : start + 4 * N_PARALLEL]
                drawn += session.generate_many(
                    [question.prompt_ids for question in part],
                    max_new_tokens=settings.max_new_tokens,
                    seeds=[sampling_seed(question.seed, question.problem.id) for question in part],
                    stop_ids=loaded.stop_ids,
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
    answers = tuple(_verified(question, generations[i], source, loaded) for i, question in enumerate(questions))
    return Answers(answers=answers, time_s=time.monotonic() - started, n_threads=settings.threads * processes)


def _verified(question: Question, generation: Generation, source: ProblemSource, loaded: LoadedTarget) -> Answer:
    text = loaded.decode(generation.ids)
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
