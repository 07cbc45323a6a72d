"""Preference pairs, and the base model's log-probabilities of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import numpy as np

from m3i.artifacts.base import ARRAYS, RECORDS, Artifact


class PairOrigin(str, Enum):
    """Where the chosen side came from."""

    SAMPLED = "sampled"
    CORRECTED = "corrected"


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Chosen and rejected completion of one prompt."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_text: str
    rejected_text: str
    rejected_trace_id: str
    origin: PairOrigin


@dataclass(frozen=True, kw_only=True)
class PreferencePairs(Artifact):
    """Preference pairs for DPO, with counts."""

    kind: ClassVar[str] = "pairs"
    pairs: tuple[PreferencePair, ...] = field(metadata=RECORDS)
    counts: dict[str, int] = field(default_factory=dict)
    """Problems whose traces are mixed, all correct, all incorrect; pairs per origin; pairs left out, by reason."""
    lengths: dict[str, float] = field(default_factory=dict)
    """Mean and maximum length of prompt, chosen and rejected side, in tokens."""


@dataclass(frozen=True, kw_only=True)
class ReferenceLogprobs(Artifact):
    """Summed log-probabilities of each pair's completions under the base model, in nats."""

    kind: ClassVar[str] = "reference"
    chosen_P: np.ndarray = field(metadata=ARRAYS)
    rejected_P: np.ndarray = field(metadata=ARRAYS)
