"""Draws tokens from llama.cpp's logits, with random numbers that two models can share."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from m3i.models.llamacpp.wire import Refused


def keep_likely(logits_V: np.ndarray, *, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Returns the logits with every filtered token at −∞; at least one token is kept.

    Args:
        logits_V: float64 logits, already divided by the temperature.
        top_k: Keep the k largest (and any equal to the k-th); 0 keeps all.
        top_p: Keep the smallest set of most likely tokens whose probability reaches top_p.
        min_p: Keep tokens with at least this share of the largest probability.

    Source: top-p, Holtzman et al. 2019 (1904.09751), section 3.1; min-p, Nguyen et al. 2024 (2407.01082).
    """
    kept_V = logits_V.copy()
    if 0 < top_k < len(kept_V):
        kept_V[kept_V < np.partition(kept_V, -top_k)[-top_k]] = -np.inf
    if top_p < 1.0:
        order_V = np.argsort(-kept_V, kind="stable")
        p_V = np.exp(kept_V[order_V] - kept_V[order_V[0]])
        p_V /= p_V.sum()
        before_V = np.cumsum(p_V) - p_V  # total probability of all more likely tokens
        kept_V[order_V[before_V >= top_p]] = -np.inf
    if min_p > 0.0:
        kept_V[kept_V < kept_V.max() + np.log(min_p)] = -np.inf
    return kept_V


def log_softmax(logits_TV: np.ndarray) -> np.ndarray:
    """Returns natural log-probabilities in float64."""
    shifted_TV = logits_TV.astype(np.float64) - logits_TV.max(axis=-1, keepdims=True)
    return np.asarray(shifted_TV - np.log(np.exp(shifted_TV).sum(axis=-1, keepdims=True)))


class Sampler:
    """Draws one completion's tokens by the Gumbel-max trick (Maddison et al. 2014, 1411.0030, section 2).

    Each position takes one Gumbel number per vocabulary entry from a generator seeded for the prompt, whatever was
    drawn before: two models with equal seeds see the same noise at the same position.
    """

    def __init__(self, request: dict[str, Any], seed: int, vocab: Any) -> None:
        self._temperature = float(request["temperature"])
        self._filters = {"top_k": request["top_k"], "top_p": request["top_p"], "min_p": request["min_p"]}
        self._noise = np.random.Generator(np.random.PCG64(seed))
        self._grammar = Grammar(request["grammar"], vocab) if request["grammar"] else None

    def draw(self, logits_V: np.ndarray) -> int:
        """Draws the next token; returns its id."""
        z_V = logits_V.astype(np.float64)
        if self._grammar:
            z_V = self._grammar.allowed(z_V)
        if self._temperature > 0:
            z_V = keep_likely(z_V / self._temperature, **self._filters) + self._noise.gumbel(size=len(z_V))
        token = int(np.argmax(z_V))
        if self._grammar:
            self._grammar.accept(token)
        return token

    def free(self) -> None:
        """Frees the grammar's memory."""
        if self._grammar:
            self._grammar.free()


class Grammar:
    """llama.cpp's grammar engine: which tokens may come next."""

    def __init__(self, gbnf: str, vocab: Any) -> None:
        import llama_cpp.llama_cpp as api

        self._api = api
        self._sampler = api.llama_sampler_init_grammar(vocab, gbnf.encode(), b"root")
        if not self._sampler:
            raise Refused("the grammar cannot be parsed: expected GBNF text with a rule 'root'")

    def allowed(self, logits_V: np.ndarray) -> np.ndarray:
        """Returns the logits with every token that the grammar forbids at −∞."""
        data = np.zeros(len(logits_V), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        data["id"] = np.arange(len(logits_V))
        data["logit"] = logits_V
        array = self._api.llama_token_data_array(
            data=data.ctypes.data_as(ctypes.POINTER(self._api.llama_token_data)),
            size=len(data),
            selected=-1,
            sorted=False,
        )
        self._api.llama_sampler_apply(self._sampler, ctypes.byref(array))
        kept_V = np.full(len(logits_V), -np.inf)
        kept_V[data["id"]] = np.where(np.isneginf(data["logit"]), -np.inf, logits_V[data["id"]])
        return kept_V

    def accept(self, token: int) -> None:
        """Tells the grammar which token was drawn."""
        self._api.llama_sampler_accept(self._sampler, token)

    def free(self) -> None:
        """Frees the grammar's memory."""
        self._api.llama_sampler_free(self._sampler)
