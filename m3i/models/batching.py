"""Token sequences as padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def pad_right(sequences: Sequence[Sequence[int]], device: Any = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences as one tensor, padded behind their ends, and a mask.

    Behind the end no causal model looks, so the padding id is of no matter; 0 is used.

    Args:
        sequences: Token ids, B sequences, each at least one token.
        device: Where the tensors go.

    Returns:
        ids_BT (int64) and real_BT (bool, True where a token is no padding).
    """
    import torch

    lengths = [len(s) for s in sequences]
    ids_BT = torch.zeros(len(sequences), max(lengths), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids_BT[row, : len(sequence)] = torch.tensor(list(sequence))
    real_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids_BT.to(device), real_BT.to(device)
