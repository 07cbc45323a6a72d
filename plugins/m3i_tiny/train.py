"""Trains the tiny target from scratch: `python -m m3i_tiny.train --out DIR`.

The committed defaults are those that produced the shipped weights. The learning rate warms up, stays level and decays
linearly at the end, so that runs with different `--steps` agree until the shorter one starts to decay; `--stop-after`
cuts a run short without changing its schedule.
"""

import argparse
import itertools
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .answering import experiment_problems, greedy_accuracy
from .architecture import TinyModel, build_model
from .balance import RouterWatch
from .characters import save_tokenizer
from .training_text import IGNORED_LABEL, Batch, training_batches

if TYPE_CHECKING:
    import torch

# Shapes: B sequences of the batch, T tokens, D model width.


@dataclass(kw_only=True)
class Recipe:
    """Everything that decides the trained weights, apart from library versions and the machine's arithmetic."""

    steps: int = 1000
    """Optimiser steps, ≥ 1; chosen so that 55 to 85 % of experiment-side problems are solved correctly."""
    batch_size: int = 32
    """Problems per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 150
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Last fraction of the run, over which the learning rate falls linearly to zero, in (0, 1]."""
    weight_decay: float = 0.05
    """Decoupled weight decay on matrices; norms have none."""
    balance_weight: float = 0.003
    """Weight of the load-balancing loss. transformers' DeepSeek-V2 has none of its own (it ignores
    `router_aux_loss_coef`), so it is computed here. Source: DeepSeek-V2, 2405.04434, equation 23 (alpha_1 = 0.003)."""
    seed: int = 20261122
    """Seed of the initial weights and of the training text."""
    threads: int = 1
    """torch threads; sums are split differently with another number, so the last digits depend on it."""


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, level, linear decay to zero."""
    warm = (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / (recipe.decay_fraction * recipe.steps)
    return recipe.learning_rate * min(1.0, warm, left)


def build_optimizer(model: TinyModel, recipe: Recipe) -> "torch.optim.AdamW":
    """AdamW with weight decay on matrices only."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-9)


def take_step(
    model: TinyModel,
    optimizer: "torch.optim.AdamW",
    watch: RouterWatch,
    batch: Batch,
    learning_rate: float,
    recipe: Recipe,
) -> dict[str, float]:
    """Takes one optimiser step; returns its loss (nats per completion token), balance loss and largest expert load."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    hidden_BTD = model.model(batch.ids_BT, use_cache=False).last_hidden_state[:, :-1]
    labels_BT = batch.labels_BT[:, 1:]
    counted = labels_BT != IGNORED_LABEL
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden_BTD[counted]), labels_BT[counted])
    balance, loads = watch.balance_loss(torch.ne(batch.ids_BT, model.config.pad_token_id).float().flatten())
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
    """Trains by the recipe and writes what ships (weights, configuration, tokenizer, log) into `out/model`.

    Args:
        out: Working folder with every step's figures (`steps.jsonl`) and the checkpoints. An interrupted run continues
            from the newest checkpoint in it.
        recipe: What to train.
        stop_after: Steps to take, at most `recipe.steps`.
        evaluate_every: Steps between measurements of greedy accuracy on 128 experiment-side problems; the last step is
            measured too.
        checkpoint_every: Steps between checkpoints (`checkpoint-N.pt`, all kept).
    """
    import torch

    torch.set_num_threads(recipe.threads)
    out.mkdir(parents=True, exist_ok=True)
    model = build_model(recipe.seed)
    model.train()
    optimizer, watch = build_optimizer(model, recipe), RouterWatch(model)
    problems = experiment_problems(128, recipe.seed)
    rows = _resume(out, model, optimizer)
    tokens = rows[-1]["tokens"] if rows else 0
    started = time.monotonic() - (rows[-1]["time_s"] if rows else 0.0)
    batches = itertools.islice(training_batches(recipe.seed, recipe.batch_size), len(rows), stop_after)
    for step, batch in enumerate(batches, start=len(rows)):
        rate = learning_rate_at(step, recipe)
        figures = take_step(model, optimizer, watch, batch, rate, recipe)
        tokens += int((batch.labels_BT != IGNORED_LABEL).sum())
        row = {"step": step + 1, **{k: round(v, 5) for k, v in figures.items()}, "lr": round(rate, 8), "tokens": tokens}
        if (step + 1) % evaluate_every == 0 or step + 1 == recipe.steps:
            row["accuracy"] = greedy_accuracy(model, problems)
            watch.outputs = []
        rows.append({**row, "time_s": round(time.monotonic() - started, 1)})
        with (out / "steps.jsonl").open("a") as log:
            log.write(json.dumps(rows[-1]) + "\n")
        if (step + 1) % checkpoint_every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, out / "partial.pt")
            os.replace(out / "partial.pt", out / f"checkpoint-{step + 1}.pt")
    save_rounded(model, out / "model")
    write_log(rows, recipe, out / "model" / "train_log.jsonl")


def _resume(out: Path, model: TinyModel, optimizer: "torch.optim.AdamW") -> list[dict[str, float]]:
    """Loads the newest checkpoint in `out`, if any; returns the log's rows up to its step."""
    import torch

    steps = sorted(int(path.stem.removeprefix("checkpoint-")) for path in out.glob("checkpoint-*.pt"))
    rows: list[dict[str, float]] = []
    if steps:
        state = torch.load(out / f"checkpoint-{steps[-1]}.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rows = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()][: state["step"]]
    (out / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def write_log(rows: list[dict[str, float]], recipe: Recipe, path: Path) -> None:
    """Writes the log that ships: the recipe, then every step of the first 300 and every tenth after, in JSON lines."""
    kept = [row for row in rows if row["step"] <= 300 or row["step"] % 10 == 0 or "accuracy" in row]
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"recipe": asdict(recipe)}, *kept]))


def save_rounded(model: TinyModel, folder: Path) -> None:
    """Writes the model and its tokenizer, weights rounded to float16: the file is small and loads exactly as saved."""
    import torch

    model.eval()
    model.to(torch.float16).save_pretrained(folder)
    model.to(torch.float32)
    save_tokenizer(folder)


def main() -> None:
    """Command line of the training script."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="python -m m3i_tiny.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="output folder")
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
