"""Lends the run's only model to training and gets it back exactly as it was."""

from __future__ import annotations

import copy
import hashlib
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.utils import logging as transformers_logging


def fingerprints(model: nn.Module) -> dict[str, str]:
    """SHA-256 of every parameter and persistent buffer: type, shape and bits."""
    digests = {}
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().to("cpu").contiguous().flatten()
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        digests[name] = digest.hexdigest()
    return digests


@contextmanager
def borrowed(model: Any, seed: int) -> Iterator[None]:
    """Lets the model be wrapped and trained inside the block; adapters, hooks and settings are restored after it.

    TRL and PEFT change more than weights: PEFT swaps modules and freezes parameters; TRL replaces the model's
    `forward`, its pad token, its tags and its use of the cache. Dropout is off inside, since the reference
    log-probabilities are computed without it. All global random generators start from `seed` inside, and their states
    are restored afterwards. Weights are not restored: compare `fingerprints`.
    """
    with ExitStack() as stack:
        for owner in (model, model.config, model.config.get_text_config(), model.generation_config):
            stack.callback(_put_back, owner, _snapshot(owner))
        requires_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        stack.callback(_restore_parameters, model, requires_grad, model.training)
        stack.callback(_restore_dropout, _switch_off_dropout(model))
        stack.callback(unwrap, model)
        stack.enter_context(_seeded(seed))
        stack.enter_context(_quiet())
        yield


def unwrap(model: Any) -> None:
    """Removes every adapter layer from the model and leaves the weights beneath as they are."""
    wrapped = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    inner = {name for name, _ in wrapped}
    for name, module in wrapped:
        parent_name, _, child = name.rpartition(".")
        if any(name.startswith(f"{other}.") for other in inner):
            continue  # within another adapter layer, and gone with it
        setattr(model.get_submodule(parent_name), child, module.get_base_layer())
    model.__dict__.pop("peft_config", None)


_WEIGHTS = {"_modules", "_parameters", "_buffers"}


def _snapshot(owner: Any) -> dict[str, tuple[Any, Any]]:
    """Each plain attribute of an object, with a copy of its content if that is a list or a mapping."""
    return {
        name: (value, copy.copy(value) if isinstance(value, (list, dict)) else None)
        for name, value in vars(owner).items()
        if name not in _WEIGHTS
    }


def _put_back(owner: Any, before: dict[str, tuple[Any, Any]]) -> None:
    now = vars(owner)
    for name in now.keys() - before.keys() - _WEIGHTS:
        del now[name]
    for name, (value, content) in before.items():
        now[name] = value
        if isinstance(value, list) and value != content:
            value[:] = content
        elif isinstance(value, dict) and value != content:
            value.clear()
            value.update(content)


def _restore_parameters(model: nn.Module, requires_grad: dict[str, bool], training: bool) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad[name])
        parameter.grad = None
    model.train(training)


def _switch_off_dropout(model: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Sets every dropout of the model to zero; returns the previous values."""
    found = []
    for module in model.modules():
        name = "p" if isinstance(module, nn.Dropout) else "attention_dropout"
        value = module.__dict__.get(name)
        if isinstance(value, float) and value > 0:
            found.append((module, name, value))
            setattr(module, name, 0.0)
    return found


def _restore_dropout(before: list[tuple[nn.Module, str, float]]) -> None:
    for module, name, value in before:
        setattr(module, name, value)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' own progress and advice; errors still come through."""
    loggers = {name: logging.getLogger(name) for name in ("trl", "accelerate", "peft")}
    levels = {name: logger.level for name, logger in loggers.items()}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
