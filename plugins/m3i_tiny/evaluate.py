"""Prints the model card's figures: `python -m m3i_tiny.evaluate [--model DIR] [--count N]`.

Accuracy on the experiments' side of the split, greedy and sampled, with Wilson intervals; where incorrect answers first
go wrong, according to the step verifier; and how evenly the routers use their experts.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from m3i_arithmetic.expressions import Expression, render_prompt
from m3i_arithmetic.steps import ErrorKind, check_solution

from .answering import answer_prompts, experiment_problems
from .architecture import TinyModel
from .balance import RouterWatch
from .target import MODEL_FOLDER
from .training_text import pack_batch

EVALUATION_SEED = 7
"""Seed of the problems and of the sampling behind the card's figures; training was measured on other problems."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How a target did on a set of problems, one completion each."""

    count: int
    """Problems answered."""
    right: int
    """Completions in which every step and the answer are correct."""
    kinds: Counter[ErrorKind]
    """First wrong step of each incorrect completion, by kind."""
    lines: Counter[int]
    """First wrong step of each incorrect completion, by line counted from 1."""

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share that is correct."""
        from scipy.stats import binomtest

        bounds = binomtest(self.right, self.count).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)


def load_model(folder: Path) -> TinyModel:
    """The target saved in `folder`, in float32 and evaluation mode.

    Raises:
        OSError: If the folder holds no model.
    """
    import torch
    from transformers import DeepseekV2ForCausalLM

    model: TinyModel = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.set_experts_implementation("eager")
    return model.eval()


def measure(model: TinyModel, problems: list[Expression], *, temperature: float, seed: int) -> Measurement:
    """Lets the model answer each problem once and checks every step.

    Args:
        model: The target.
        problems: The problems to answer.
        temperature: 0 for greedy decoding.
        seed: Seed of the sampling.
    """
    prompts = [render_prompt(problem) for problem in problems]
    completions = answer_prompts(model, prompts, temperature=temperature, seed=seed)
    checks = [check_solution(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    wrong = [check.first_wrong for check in checks if check.first_wrong is not None]
    return Measurement(
        count=len(checks),
        right=len(checks) - len(wrong),
        kinds=Counter(step.kind for step in wrong),
        lines=Counter(step.index + 1 for step in wrong),
    )


def expert_loads(model: TinyModel, problems: list[Expression]) -> list[list[float]]:
    """Share of the routed choices that each expert gets, per MoE layer, over correct solutions of the problems."""
    import torch

    watch = RouterWatch(model)
    batch = pack_batch(problems)
    with torch.no_grad():
        model.model(batch.ids_BT, use_cache=False)
    return watch.balance_loss(torch.ne(batch.ids_BT, model.config.pad_token_id).float().flatten())[1]


def main() -> None:
    """Command line: prints the figures as Markdown tables."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m m3i_tiny.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the model")
    parser.add_argument("--count", type=int, default=1000, help="problems per figure")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    problems = experiment_problems(options.count, EVALUATION_SEED)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {model.config.num_hidden_layers} layers\n")
    temperatures = (0.0, 0.8, 1.0)
    found = {t: measure(model, problems, temperature=t, seed=EVALUATION_SEED) for t in temperatures}
    print("| decoding | correct | of | share | 95 % interval |\n|---|---|---|---|---|")
    for t, m in found.items():
        low, high = m.interval()
        name = "greedy" if t == 0 else f"temperature {t}"
        print(f"| {name} | {m.right} | {m.count} | {m.right / m.count:.1%} | {low:.1%} to {high:.1%} |")
    print("\n| first wrong step | " + " | ".join("greedy" if t == 0 else f"T {t}" for t in temperatures) + " |")
    print("|---|" + "---|" * len(temperatures))
    for kind in ErrorKind:
        print(f"| {kind.value} | " + " | ".join(str(m.kinds[kind]) for m in found.values()) + " |")
    for line in range(1, 1 + max(max(m.lines, default=1) for m in found.values())):
        print(f"| in line {line} | " + " | ".join(str(m.lines[line]) for m in found.values()) + " |")
    print("\n| MoE layer | load of each expert (1/8 = 12.5 % when even) |\n|---|---|")
    for place, loads in enumerate(expert_loads(model, problems[:256]), start=model.config.first_k_dense_replace):
        print(f"| {place} | " + " ".join(f"{load:.1%}" for load in loads) + " |")


if __name__ == "__main__":
    main()
