"""Train the tiny target from scratch: `python -m m3i_tiny.train --out DIR`.

The committed defaults are those that made the shipped weights. The learning rate warms up, stays level and decays
linearly at the end, so that runs of different `--steps` agree until the shorter one starts to decay; `--stop-after`
cuts a run short without changing its schedule.
"""

import argparse
import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m3i_arithmetic.expressions import Expression, render_prompt
from m3i_arithmetic.generate import Difficulty, draw_from_split

from .answering import answer_prompts
from .architecture import build_model
from .characters import save_tokenizer
from .training_text import IGNORED_LABEL, Batch, training_batches

if TYPE_CHECKING:
    import torch
    from transformers import DeepseekV2ForCausalLM

# Shapes: N tokens of a batch, E routed experts, V vocabulary.


@dataclass(kw_only=True)
class Recipe:
    """Everything that decides what the trained weights are, apart from versions and the machine's arithmetic."""

    steps: int = 6000
    """Optimiser steps, ≥ 1; chosen so that 55 to 85 % of experiment-side problems come out right."""
    batch_size: int = 32
    """Problems in a step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 150
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Last part of the run over which the learning rate falls linearly to zero, in (0, 1]."""
    weight_decay: float = 0.05
    """Decoupled weight decay on matrices; norms have none."""
    balance_weight: float = 0.003
    """Weight of the load-balancing loss. transformers' DeepSeek-V2 has none of its own (it ignores
    `router_aux_loss_coef`), so it is computed here. Source: DeepSeek-V2, 2405.04434, equation 23 (alpha_1 = 0.003)."""
    seed: int = 20261122
    """Seed of the initial weights and of the training text."""
    threads: int = 2
    """torch threads; sums split differently over another number, so the last digits depend on it."""


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, level, linear decay to zero."""
    warm = (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / (recipe.decay_fraction * recipe.steps)
    return recipe.learning_rate * min(1.0, warm, left)


class RouterWatch:
    """Collects the router outputs of a forward pass, for the load-balancing loss and the expert load."""

    def __init__(self, model: "DeepseekV2ForCausalLM") -> None:
        """Hook every router of the model."""
        self.outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in model.model.layers[model.config.first_k_dense_replace :]:
            layer.mlp.gate.register_forward_hook(self._collect)

    def _collect(self, module: "torch.nn.Module", inputs: object, output: "tuple[torch.Tensor, ...]") -> None:
        logits_NE, _, chosen_NK = output
        self.outputs.append((logits_NE, chosen_NK))

    def balance_loss(self, keep_N: "torch.Tensor") -> "tuple[torch.Tensor, list[list[float]]]":
        """The load-balancing loss and each layer's load of each expert; the collected outputs are dropped.

        The loss is E · Σ_e f_e · P_e, averaged over layers: f_e is the share of choices that went to expert e, P_e its
        mean probability. It is 1 when perfectly balanced. Source: DeepSeek-V2, 2405.04434, equations 23 to 25.

        Args:
            keep_N: 1.0 for the tokens that count, 0.0 for padding.
        """
        import torch

        losses, loads = [], []
        for logits_NE, chosen_NK in self.outputs:
            experts = logits_NE.shape[-1]
            weight_N = keep_N / keep_N.sum()
            chosen_NE = torch.zeros_like(logits_NE).scatter(1, chosen_NK, 1.0) / chosen_NK.shape[-1]
            share_E = (chosen_NE * weight_N[:, None]).sum(0)
            probability_E = (logits_NE.softmax(-1) * weight_N[:, None]).sum(0)
            losses.append(experts * (share_E * probability_E).sum())
            loads.append(share_E.tolist())
        self.outputs = []
        return torch.stack(losses).mean(), loads


def experiment_problems(count: int, seed: int) -> list[Expression]:
    """Distinct-by-draw problems from the experiments' side, of the default difficulty: what accuracy is measured on."""
    stream = draw_from_split(random.Random(seed), Difficulty(), reserved=True)
    return [next(stream) for _ in range(count)]


def greedy_accuracy(model: "DeepseekV2ForCausalLM", problems: list[Expression]) -> float:
    """Share of the problems whose greedy completion ends in the right answer line."""
    completions = answer_prompts(model, [render_prompt(p) for p in problems], temperature=0.0, seed=0)
    right = [c.endswith(f"\nanswer {p.value}\n") for c, p in zip(completions, problems, strict=True)]
    model.train()
    return sum(right) / len(right)


def build_optimizer(model: "DeepseekV2ForCausalLM", recipe: Recipe) -> "torch.optim.AdamW":
    """AdamW with weight decay on matrices only."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-9)


def take_step(
    model: "DeepseekV2ForCausalLM",
    optimizer: "torch.optim.AdamW",
    watch: RouterWatch,
    batch: Batch,
    learning_rate: float,
    recipe: Recipe,
) -> dict[str, float]:
    """One optimiser step; returns its loss (nats a completion token), balance loss and largest expert load."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    hidden_BTD = model.model(batch.ids_BT, use_cache=False).last_hidden_state[:, :-1]
    labels_BT = batch.labels_BT[:, 1:]
    counted = labels_BT != IGNORED_LABEL
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden_BTD[counted]), labels_BT[counted])
    balance, loads = watch.balance_loss((batch.ids_BT != model.config.pad_token_id).float().flatten())
    (loss + recipe.balance_weight * balance).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "loss": loss.item(),
        "balance": balance.item(),
        "gradient_norm": norm.item(),
        "largest_load": max(map(max, loads)),
    }


def train(out: Path, recipe: Recipe, *, stop_after: int, evaluate_every: int, checkpoint_every: int) -> None:
    """Train by the recipe; write the model, the tokenizer and `train_log.jsonl` into `out`.

    Args:
        out: Folder of the result; an interrupted run with the same recipe goes on from its last checkpoint there.
        recipe: What to train.
        stop_after: Steps to take, at most `recipe.steps`.
        evaluate_every: Steps between measurements of greedy accuracy on 128 experiment-side problems.
        checkpoint_every: Steps between checkpoints (`checkpoint-N.pt`, kept).
    """
    import torch

    torch.set_num_threads(recipe.threads)
    out.mkdir(parents=True, exist_ok=True)
    model = build_model(recipe.seed)
    model.train()
    optimizer, watch = build_optimizer(model, recipe), RouterWatch(model)
    batches = training_batches(recipe.seed, recipe.batch_size)
    problems = experiment_problems(128, recipe.seed)
    first, tokens, before_s = _resume(out, model, optimizer)
    for _ in range(first):
        next(batches)
    started = time.monotonic() - before_s
    with (out / "train_log.jsonl").open("a") as log:
        if first == 0:
            log.write(json.dumps({"recipe": asdict(recipe)}) + "\n")
        for step in range(first, stop_after):
            batch = next(batches)
            rate = learning_rate_at(step, recipe)
            figures = take_step(model, optimizer, watch, batch, rate, recipe)
            tokens += int((batch.labels_BT != IGNORED_LABEL).sum())
            row = {"step": step + 1, **{k: round(v, 5) for k, v in figures.items()}, "lr": rate, "tokens": tokens}
            if (step + 1) % evaluate_every == 0 or step + 1 == stop_after:
                row["accuracy"] = greedy_accuracy(model, problems)
                watch.outputs = []
            log.write(json.dumps({**row, "time_s": round(time.monotonic() - started, 1)}) + "\n")
            log.flush()
            if (step + 1) % checkpoint_every == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                state |= {"tokens": tokens, "time_s": time.monotonic() - started}
                torch.save(state, out / "partial.pt")
                os.replace(out / "partial.pt", out / f"checkpoint-{step + 1}.pt")
    save_rounded(model, out)


def _resume(out: Path, model: "DeepseekV2ForCausalLM", optimizer: "torch.optim.AdamW") -> tuple[int, int, float]:
    """Load the newest checkpoint in `out`, if any; returns its step, its tokens and its seconds so far."""
    import torch

    steps = sorted(int(path.stem.removeprefix("checkpoint-")) for path in out.glob("checkpoint-*.pt"))
    if not steps:
        return 0, 0, 0.0
    state = torch.load(out / f"checkpoint-{steps[-1]}.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["tokens"], state["time_s"]


def save_rounded(model: "DeepseekV2ForCausalLM", out: Path) -> None:
    """Write the model and its tokenizer, weights rounded to float16: the file is small and loads exactly as saved."""
    import torch

    model.eval()
    model.to(torch.float16).save_pretrained(out)
    model.to(torch.float32)
    save_tokenizer(out)


def main() -> None:
    """Command line of the training script."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="python -m m3i_tiny.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="length of the schedule")
    parser.add_argument("--stop-after", type=int, help="stop after this step of the schedule")
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--batch-size", type=int, default=recipe.batch_size)
    parser.add_argument("--threads", type=int, default=recipe.threads)
    parser.add_argument("--evaluate-every", type=int, default=100)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    options = parser.parse_args()
    recipe = Recipe(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        threads=options.threads,
    )
    train(
        options.out,
        recipe,
        stop_after=options.stop_after or recipe.steps,
        evaluate_every=options.evaluate_every,
        checkpoint_every=options.checkpoint_every,
    )


if __name__ == "__main__":
    main()
