"""Training text of the tiny target: correct solutions only, of problems that no experiment can draw."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m3i_arithmetic.expressions import Expression, render_completion, render_prompt
from m3i_arithmetic.generate import Difficulty, draw_from_split

from .architecture import BOS_ID, EOS_ID, PAD_ID
from .characters import encode_characters

if TYPE_CHECKING:
    import torch

# Shapes: B sequences of the batch, T tokens (padded to the longest of the batch).

IGNORED_LABEL = -100
"""Label of a token that carries no loss: the prompt, which is random, and padding."""


def draw_training_problems(rng: random.Random, operations: int) -> Iterator[Expression]:
    """An endless stream of unreserved problems of exactly `operations` operations, of the experiments' difficulty."""
    difficulty = Difficulty(operations_min=operations, operations_max=operations)
    return draw_from_split(rng, difficulty, reserved=False)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids and labels of one training step."""

    ids_BT: "torch.Tensor"
    """Token ids, int64: `<bos>`, prompt, completion, `<eos>`, padding."""
    labels_BT: "torch.Tensor"
    """The same ids where they carry loss (completion and `<eos>`), `IGNORED_LABEL` elsewhere."""


def training_batches(seed: int, batch_size: int) -> Iterator[Batch]:
    """The endless, seeded sequence of training batches.

    All problems of a batch have the same number of operations (drawn anew for each batch), so that there is little
    padding.
    """
    rng = random.Random(seed)
    difficulty = Difficulty()
    while True:
        operations = rng.randint(difficulty.operations_min, difficulty.operations_max)
        stream = draw_training_problems(rng, operations)
        yield pack_batch([next(stream) for _ in range(batch_size)])


def pack_batch(problems: list[Expression]) -> Batch:
    """The problems with their correct completions as one padded batch."""
    import torch

    rows, labels = [], []
    for problem in problems:
        prompt = [BOS_ID, *encode_characters(render_prompt(problem))]
        completion = [*encode_characters(render_completion(problem)), EOS_ID]
        rows.append(prompt + completion)
        labels.append([IGNORED_LABEL] * len(prompt) + completion)
    width = max(map(len, rows))
    return Batch(
        ids_BT=torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows]),
        labels_BT=torch.tensor([row + [IGNORED_LABEL] * (width - len(row)) for row in labels]),
    )
