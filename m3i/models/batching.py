"""Token sequences as padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def pad_right(sequences: Sequence[Sequence[int]], device: Any = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sequences as one right-padded tensor, and a mask.

    No token of a causal model depends on what comes after it, so the padding id does not matter; 0 is used.

    Args:
        sequences: Token ids of B sequences, each with at least one token.
        device: Device of the returned tensors.

    Returns:
        ids_BT (int64) and real_BT (bool, False for padding).
    """
    import torch

    lengths = [len(s) for s in sequences]
    ids_BT = torch.zeros(len(sequences), max(lengths), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids_BT[row, : len(sequence)] = torch.tensor(list(sequence))
    real_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids_BT.to(device), real_BT.to(device)
