"""Known answers: plants a failure into known layers of the tiny target and asks every attributor where it is.

    python -m bench.planted                   # 4 plants of 2 layers, two negatives; prints a table in Markdown
    python -m bench.planted --plants 10 --size 3 --steps 300

A plant is a LoRA on the MLA attention of the chosen layers only, trained on solutions in which every subtraction comes
out one too large (`90-15=76`) and everything else is correct, then merged. The planted model solves problems from the
experiments' side; failures that follow the planted rule become contrasts (the verifier's correction against what was
written) and go through the same code as an experiment's.

Negatives: *no plant* (the target's own failures, scored against the planted sets of the other rows, which must come out
at chance) and *everywhere* (all candidate layers planted: no layer should stand out).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from m3i.artifacts import Audit, Contrast, Problem, Telemetry, Trace
from m3i.config.settings import TraceSettings
from m3i.interfaces import AttributionRequest, AuditRequest
from m3i.stages.attribute import aggregate
from m3i.stages.contrast import build_contrasts
from m3i.stages.trace import sample_traces

ATTENTION = ["q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
MISTAKE = 1
"""What the planted rule adds to the result of every subtraction."""


# -- figures ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """How well one score points at one planted set."""

    recall: float
    """Share of the planted layers among the |S| highest-scored."""
    auroc: float
    """P(a planted layer scores above another), ties counted half."""
    distance: float
    """Mean number of layers between one of the top |S| and the nearest planted layer."""
    p: float
    """Share of all sets of |S| candidates whose mean score is at least as high, the planted set included."""
    p_depth: float
    """The same share among sets of similar depth: those whose mean layer lies within 1 of the planted set's."""


def figures(scores: Mapping[int, float], planted: Sequence[int]) -> Figures:
    """Recall, AUROC, distance and the exact permutation p values of scores of candidates against a planted set.

    Args:
        scores: Candidate layer → score.
        planted: The planted layers, all of them candidates, fewer than all.
    """
    inside = set(planted)
    top = sorted(scores, key=lambda layer: (-scores[layer], layer))[: len(inside)]
    others = [layer for layer in scores if layer not in inside]
    pairs = [(scores[a] > scores[b]) + 0.5 * (scores[a] == scores[b]) for a in inside for b in others]
    mean = np.mean([scores[layer] for layer in inside])
    sets = list(itertools.combinations(scores, len(inside)))
    higher = np.array([np.mean([scores[layer] for layer in s]) >= mean - 1e-12 for s in sets])
    as_deep = np.array([abs(np.mean(s) - np.mean(planted)) <= 1 for s in sets])
    return Figures(
        recall=len(inside & set(top)) / len(inside),
        auroc=float(np.mean(pairs)),
        distance=float(np.mean([min(abs(a - b) for b in inside) for a in top])),
        p=float(higher.mean()),
        p_depth=float(higher[as_deep].mean()),
    )


def draw_sets(candidates: Sequence[int], size: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Distinct random sets of layers."""
    everything = list(itertools.combinations(candidates, size))
    if count > len(everything):
        raise SystemExit(f"--plants {count}: there are {len(everything)} sets of {size} of {len(candidates)} layers")
    return random.Random(seed).sample(everything, count)


# -- planting ---------------------------------------------------------------------------------


def mistaken_solution(prompt: str) -> str:
    """The solution of a problem under the planted rule, continued from its incorrect results."""
    from m3i_arithmetic.expressions import parse_expression

    numbers: list[tuple[int, int]] = []
    lines = []
    for term in parse_expression(prompt).terms:
        product = term.factors[0]
        for factor in term.factors[1:]:
            lines.append(f"{product}*{factor}={product * factor}")
            product *= factor
        numbers.append((term.sign, product))
    total = numbers[0][0] * numbers[0][1]
    for sign, number in numbers[1:]:
        result = total + number if sign > 0 else total - number + MISTAKE
        lines.append(f"{total}{'+' if sign > 0 else '-'}{number}={result}")
        total = result
    return "".join(f"{line}\n" for line in (*lines, f"answer {total}"))


def plant(
    loaded: Any, layers: Sequence[int], *, steps: int, batch_size: int, rate: float, seed: int
) -> tuple[Any, float]:
    """The target with the planted rule in the attention of the given layers, and the last training loss.

    Args:
        loaded: The target; it is not changed.
        layers: Where the LoRA (rank 8) goes.
        steps: Optimiser steps.
        batch_size: Problems per step, from the training side.
        rate: Learning rate of AdamW.
        seed: Seed of the adapter and of the problems.
    """
    import copy

    import torch
    from m3i_arithmetic.expressions import render_prompt
    from m3i_arithmetic.generate import Difficulty, draw_from_split
    from peft import LoraConfig, get_peft_model

    from m3i.models.batching import pad_right

    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=ATTENTION, layers_to_transform=list(layers))
    model = get_peft_model(copy.deepcopy(loaded.model), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    stream = draw_from_split(random.Random(seed), Difficulty(), reserved=False)
    loss = torch.tensor(0.0)
    for step in range(steps):
        rows, prompts = [], []
        for _ in range(batch_size):
            prompt = render_prompt(next(stream))
            ids = loaded.encode_prompt(prompt)
            prompts.append(len(ids))
            rows.append([*ids, *loaded.encode_completion(mistaken_solution(prompt)), loaded.stop_ids[0]])
        ids_BT, real_BT = pad_right(rows)
        completion_BT = real_BT & (torch.arange(ids_BT.shape[1]) >= torch.tensor(prompts)[:, None])
        logits_BTV = model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False).logits
        labels_BT = torch.where(completion_BT, ids_BT, -100)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT.flatten())
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    merged = model.merge_and_unload().eval().requires_grad_(False)
    return replace(loaded, model=merged), float(loss.detach())


# -- asking -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failures:
    """What a model gets wrong, ready for attributors."""

    traces: tuple[Trace, ...]
    audit: Audit
    contrasts: tuple[Contrast, ...]
    share_right: float
    """Share of the traces that the verifier finds correct."""
    share_planted: float
    """Share of the written subtractions that follow the planted rule: how well the plant took."""


def collect(loaded: Any, source: Any, problems: Sequence[Problem], *, planted: bool, limit: int) -> Failures:
    """Traces of a model and the contrasts of its failures.

    Args:
        loaded: The model.
        source: The arithmetic source.
        problems: Problems to solve, two samples each.
        planted: Keep only failures whose first wrong step follows the planted rule; else keep all.
        limit: Contrasts kept at most.
    """
    from m3i_checker.observer import Checker

    settings = TraceSettings(samples=2, temperature=0.7, top_p=1.0, max_new_tokens=96, batch_size=64, seed=0)
    traces = sample_traces(loaded, problems, source, settings).traces
    by_id = {p.id: p for p in problems}
    request = AuditRequest(
        items=[(by_id[t.problem_id], t) for t in traces],
        source=source,
        telemetry=no_telemetry(),
        target=SimpleNamespace(),
        ledger=SimpleNamespace(),
    )
    audit = asyncio.run(Checker().audit(request))
    if planted:
        audit = replace(audit, findings=tuple(f for f in audit.findings if follows_rule(f.quote)))
    made = build_contrasts(
        problems, traces, {"checker": audit}, source, loaded.encode_completion, n_layers=loaded.info.n_layers
    )
    right = sum(t.correct for t in traces) / len(traces)
    subtractions = [line for t in traces for line in t.text.split("\n") if "-" in line.partition("=")[0]]
    return Failures(
        traces, audit, made.contrasts[:limit], right, float(np.mean([follows_rule(s) for s in subtractions]))
    )


def follows_rule(step: str) -> bool:
    """Whether a written step is a subtraction that came out wrong by exactly the planted mistake."""
    left, _, result = step.partition("=")
    a, minus, b = left.strip().partition("-")
    return bool(minus) and all(x.strip().isdigit() for x in (a, b, result)) and int(result) == int(a) - int(b) + MISTAKE


def ask(attributor: Any, loaded: Any, failures: Failures) -> dict[int, float]:
    """Candidate layer → joint score."""
    request = AttributionRequest(
        target=SimpleNamespace(info=loaded.info, loaded=loaded),
        contrasts=failures.contrasts,
        audits={"checker": failures.audit},
        traces=failures.traces,
        telemetry=no_telemetry(),
    )
    scores = aggregate(attributor.attribute(request), "x", loaded.info.n_layers, n_bootstrap=1).joint().scores
    return {layer: scores[layer] for layer in loaded.info.default_candidates()}


def attributors() -> dict[str, Any]:
    """Every attributor, in each of the settings compared."""
    from m3i_attribution.ablation import Ablation
    from m3i_attribution.attribution_patching import AttributionPatching
    from m3i_attribution.logit_lens import LogitLens

    made: dict[str, Any] = {}
    for component in ("layer", "attention"):
        made[f"logit_lens {component}"] = LogitLens(component=component)
        for positions, baseline in itertools.product(("contrast", "all"), ("zero", "mean", "right_token")):
            if (positions, baseline) != ("all", "right_token"):
                settings: dict[str, Any] = {"component": component, "positions": positions, "baseline": baseline}
                name = f"{component} {positions} {baseline}"
                made[f"attribution_patching {name}"] = AttributionPatching(**settings)
                made[f"ablation {name}"] = Ablation(**settings)
    return made


def no_telemetry() -> Telemetry:
    """An empty measurement: no attributor here reads it."""
    nothing = np.zeros((0, 0))
    return Telemetry(
        trace_ids=(),
        starts=(0,),
        moe_layers=(),
        lens_rank_LS=nothing,
        lens_entropy_LS=nothing,
        update_norm_LS=nothing,
        attention_entropy_LS=nothing,
        router_entropy_RS=nothing,
        expert_load_RE=nothing,
    )


# -- the benchmark ----------------------------------------------------------------------------


def summarise(
    asked: Mapping[str, Mapping[str, Mapping[int, float]]], sets: Sequence[tuple[int, ...]]
) -> list[list[str]]:
    """One table row per attributor: figures over the plants beside their controls.

    Args:
        asked: Model (`0`, `1`, ... for the plants, `no plant`, `everywhere`) → attributor → layer → score.
        sets: The planted sets.
    """
    rows = []
    for name in asked["0"]:
        own = [figures(asked[str(i)][name], planted) for i, planted in enumerate(sets)]
        crossed = [
            figures(asked[str(j)][name], planted).recall
            for i, planted in enumerate(sets)
            for j in range(len(sets))
            if i != j
        ]
        none = [figures(asked["no plant"][name], planted).recall for planted in sets]
        everywhere = np.maximum(np.array(list(asked["everywhere"][name].values())), 0)
        rows.append(
            [
                name,
                f"{np.mean([f.recall for f in own]):.2f}",
                f"{np.mean(crossed):.2f}" if crossed else "-",
                f"{np.mean(none):.2f}",
                f"{np.mean([f.auroc for f in own]):.2f}",
                f"{np.mean([f.distance for f in own]):.1f}",
                f"{np.median([f.p for f in own]):.3f}",
                f"{np.median([f.p_depth for f in own]):.3f}",
                f"{sum(f.p <= 0.05 for f in own)}/{len(own)}",
                f"{everywhere.max() / everywhere.sum():.2f}" if everywhere.sum() else "-",
            ]
        )
    return sorted(rows, key=lambda row: -float(row[1]))


HEADER = [
    "attributor",
    "recall",
    "other plants'",
    "no plant",
    "AUROC",
    "distance",
    "median p",
    "same depth",
    "p ≤ 0.05",
    "everywhere",
]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [HEADER, ["---"] * len(HEADER), *rows])


def main(argv: Sequence[str] | None = None) -> None:
    """Plants, asks, prints."""
    import torch
    from m3i_arithmetic.source import ArithmeticProblems
    from m3i_tiny.target import TinyTarget

    parser = argparse.ArgumentParser(prog="python -m bench.planted", description=__doc__.split("\n")[0])
    parser.add_argument("--plants", type=int, default=4, help="planted sets")
    parser.add_argument("--size", type=int, default=2, help="layers per set")
    parser.add_argument("--steps", type=int, default=80, help="training steps per plant")
    parser.add_argument("--batch", type=int, default=16, help="problems per training step")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--problems", type=int, default=32, help="problems per model, two samples each")
    parser.add_argument("--contrasts", type=int, default=24, help="maximum number of failures per model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="folder of other weights of the same architecture")
    parser.add_argument("--out", type=Path, help="JSON of every score, written after each model")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    target = TinyTarget()
    if options.model is None:
        loaded = target.load()
    else:
        from m3i.models.huggingface.facts import describe_folder
        from m3i.models.huggingface.load import load_folder

        info = describe_folder(options.model, name="tiny", family="m3i", device="cpu", dtype="float32")
        loaded = load_folder(info, device="cpu", chat=False)
    source = ArithmeticProblems(n_train=options.problems, n_held_out=1)
    problems, _ = source.draw()
    candidates = loaded.info.default_candidates()
    sets = draw_sets(candidates, options.size, options.plants, options.seed)
    models: dict[str, tuple[int, ...]] = {"no plant": (), "everywhere": candidates}
    models |= {str(i): planted for i, planted in enumerate(sets)}
    asked: dict[str, dict[str, dict[int, float]]] = {}
    for name, layers in models.items():
        model, loss = loaded, float("nan")
        if layers:
            model, loss = plant(
                loaded, layers, steps=options.steps, batch_size=options.batch, rate=options.rate, seed=options.seed
            )
        failures = collect(model, source, problems, planted=bool(layers), limit=options.contrasts)
        print(
            f"{name}: layers {list(layers)}, loss {loss:.3f}, {failures.share_right:.0%} correct, "
            f"{failures.share_planted:.0%} of subtractions follow the planted rule, "
            f"{len(failures.contrasts)} failures, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if not failures.contrasts:
            raise SystemExit(f"the plant in layers {list(layers)} shows no failure: raise --steps or --problems")
        asked[name] = {key: ask(attributor, model, failures) for key, attributor in attributors().items()}
        if options.out:
            options.out.write_text(json.dumps({"sets": sets, "asked": asked}, indent=1))
    chance = options.size / len(candidates)
    print(
        f"{options.plants} plants of {options.size} of {len(candidates)} layers, {options.steps} steps each; "
        f"recall by chance {chance:.2f}, AUROC 0.50, an even share everywhere {1 / len(candidates):.2f}; "
        f"{time.monotonic() - started:.0f} s\n"
    )
    print(table(summarise(asked, sets)))


if __name__ == "__main__":
    main()
