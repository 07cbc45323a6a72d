"""Lets a tiny target answer experiment-side problems in batches, to measure it during and after training."""

import random

from m3i_arithmetic.expressions import Expression, render_prompt
from m3i_arithmetic.generate import Difficulty, draw_from_split

from .architecture import BOS_ID, CHARACTERS, EOS_ID, PAD_ID, SPECIAL_TOKENS, TinyModel
from .characters import encode_characters

MAX_NEW_TOKENS = 96
"""Length limit of an answer: 1.5 times the longest correct completion at the default difficulty."""


def answer_prompts(
    model: TinyModel, prompts: list[str], *, temperature: float, seed: int, batch_size: int = 128
) -> list[str]:
    """Returns the model's completions of the prompts, in their order, each without `<eos>`.

    Args:
        model: The target; it is put into evaluation mode and stays there.
        prompts: Texts of printable ASCII and newlines.
        temperature: 0 for greedy decoding, else the temperature of plain sampling (no top-k, no top-p).
        seed: Seed of the sampling; torch's global generator is left as it was.
        batch_size: Prompts per batch; affects the random draws.
    """
    import torch

    model.eval()
    completions: list[str] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            rows = [[BOS_ID, *encode_characters(prompt)] for prompt in prompts[start : start + batch_size]]
            width = max(map(len, rows))
            padding = [width - len(row) for row in rows]
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            ids_BT = model.generate(
                input_ids=torch.tensor([[PAD_ID] * pad + row for pad, row in zip(padding, rows, strict=True)]),
                attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=PAD_ID,
                eos_token_id=EOS_ID,
                **(sampling if temperature > 0 else {"do_sample": False}),
            )
            completions += [decode_completion(row[width:]) for row in ids_BT.tolist()]
    return completions


def decode_completion(ids: list[int]) -> str:
    """The text of generated ids up to the first `<eos>`; special tokens before it are left out."""
    if EOS_ID in ids:
        ids = ids[: ids.index(EOS_ID)]
    first = len(SPECIAL_TOKENS)
    return "".join(CHARACTERS[token - first] for token in ids if token >= first)


def experiment_problems(count: int, seed: int) -> list[Expression]:
    """Returns problems drawn from the experiments' side at the default difficulty, to measure accuracy on."""
    stream = draw_from_split(random.Random(seed), Difficulty(), reserved=True)
    return [next(stream) for _ in range(count)]


def greedy_accuracy(model: TinyModel, problems: list[Expression]) -> float:
    """Share of the problems whose greedy completion ends in the correct answer line."""
    completions = answer_prompts(model, [render_prompt(p) for p in problems], temperature=0.0, seed=0)
    right = [c.endswith(f"\nanswer {p.value}\n") for c, p in zip(completions, problems, strict=True)]
    model.train()
    return sum(right) / len(right)
