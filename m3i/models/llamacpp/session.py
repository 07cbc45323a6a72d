"""Runs llama.cpp, always in a separate process: log-probabilities and generation over token ids.

llama.cpp can crash the process it runs in (a bad adapter, a failed assertion), so this module never loads it: a
`LlamaSession` starts `python -m m3i.models.llamacpp.worker` and talks to it over two pipes (see wire.py in this
folder). Tokens are always ids of the target's tokenizer; text is tokenised only by `tokenize`, for models that are not
a target, such as a judge.

Letters: T tokens, V vocabulary, K chosen tokens, M layers with a router, E experts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from m3i.errors import ConfigError, InputError, StageError
from m3i.models.llamacpp.wire import Arrays, read_message, write_message


class LlamaCrashed(StageError):
    """The llama.cpp process died; the message gives its exit code or signal, model, adapter and last output."""


class LlamaFailed(StageError):
    """llama.cpp refused a model, an adapter or a request; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; the order is temperature, then top-k, then top-p, then min-p, as in transformers."""

    temperature: float = 1.0
    """0 takes the most likely token (the lowest id among equals)."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most likely tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the most likely one's probability."""

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("temperature", self.temperature >= 0, "a number ≥ 0"),
            ("top_k", self.top_k >= 0, "an integer ≥ 0 (0 keeps all)"),
            ("top_p", 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("min_p", 0 <= self.min_p < 1, "a number in [0, 1)"),
        ):
            if not ok:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One completion."""

    ids: tuple[int, ...]
    """Token ids, including the stop token if there was one."""
    truncated: bool
    """Whether the length limit ended it instead of a stop token."""
    n_evaluated: int
    """Prompt tokens that were evaluated: all, or only those after a reused prefix."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the model predicts after each token of a sequence."""

    logprobs: np.ndarray
    """float32 [T, V], or [T, K] for chosen tokens; natural log-probabilities at temperature 1."""
    routers_MTE: np.ndarray
    """float32, each router's logits; empty for a dense model or if the session does not trace routing."""


def sampling_seed(generation_seed: int, problem_id: str) -> int:
    """Returns a 63-bit seed for one problem; base and tuned model share it, and thus their random numbers."""
    digest = hashlib.sha256(f"{generation_seed}\0{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class LlamaSession:
    """One llama.cpp model in a separate process; a context manager.

    Args:
        model: The GGUF file.
        adapter: A llama.cpp LoRA file applied to the model, or None.
        n_ctx: Maximum tokens per sequence, prompt and completion; rounded up to a multiple of 256.
        n_parallel: Sequences that `generate_many` decodes at once.
        n_threads: Threads of llama.cpp. More can be slower on a shared machine: measure.
        kv_type: Type of the key-value cache, `f32` (exact, the default) or `f16` (half the memory).
        trace_routing: Whether `measure` records the router logits; slows evaluation a little.

    Raises:
        LlamaCrashed: The process died.
        LlamaFailed: llama.cpp refused the model or the adapter.
        InputError: A file does not exist.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        adapter: Path | str | None = None,
        n_ctx: int = 512,
        n_parallel: int = 1,
        n_threads: int = 1,
        kv_type: str = "f32",
        trace_routing: bool = False,
    ) -> None:
        for name, value in (("n_ctx", n_ctx), ("n_parallel", n_parallel), ("n_threads", n_threads)):
            if value < 1:
                raise ConfigError(f"{name} = {value}: expected an integer ≥ 1")
        if kv_type not in ("f32", "f16"):
            raise ConfigError(f"kv_type = {kv_type!r}: expected f32 or f16")
        self._settings: dict[str, Any] = {
            "n_ctx": -(-n_ctx // 256) * 256,
            "n_parallel": n_parallel,
            "n_threads": n_threads,
            "kv_type": kv_type,
            "trace_routing": trace_routing,
        }
        self.model = Path(model)
        self.adapter = Path(adapter) if adapter is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self.n_vocab = 0
        self.end_ids: tuple[int, ...] = ()
        """Tokens that the GGUF marks as ends of generation."""

    def __enter__(self) -> LlamaSession:
        self._start()
        try:
            self.load(self.model, self.adapter)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, model: Path | str, adapter: Path | str | None = None) -> None:
        """Replaces the model in the same process, which is cheaper than a new session. Raises what the class lists."""
        self.model, self.adapter = Path(model), Path(adapter) if adapter is not None else None
        for path in (self.model, self.adapter):
            if path is not None and not path.is_file():
                raise InputError(f"llama.cpp cannot load {path}: no such file")
        adapter_path = str(self.adapter) if self.adapter else None
        reply, out = self._ask("load", {"model": str(self.model), "adapter": adapter_path, **self._settings})
        self.n_vocab = int(reply["n_vocab"])
        self.end_ids = tuple(map(int, out["end_ids"]))

    def logprobs(self, token_ids: Sequence[int], *, start: int = 0, chosen_TK: np.ndarray | None = None) -> np.ndarray:
        """Returns natural log-probabilities of the token after each position from `start` on.

        Args:
            token_ids: The sequence, including BOS if the model needs one; at most n_ctx tokens.
            start: First position whose prediction is wanted: row 0 is the distribution after `token_ids[:start + 1]`.
            chosen_TK: Token ids wanted at each of those positions; None for the whole vocabulary.

        Returns:
            float32 [len(token_ids) − start, V or K].
        """
        return self.measure(token_ids, start=start, chosen_TK=chosen_TK).logprobs

    def measure(self, token_ids: Sequence[int], *, start: int = 0, chosen_TK: np.ndarray | None = None) -> Measured:
        """Returns what `logprobs` returns, plus the router logits if the session traces them."""
        if not 0 <= start < len(token_ids):
            raise ConfigError(f"start = {start}: expected a position in a sequence of {len(token_ids)} tokens")
        self._check_fits(len(token_ids), "sequence")
        arrays: Arrays = {"ids": np.asarray(token_ids, dtype=np.int32)}
        if chosen_TK is not None:
            arrays["chosen"] = np.asarray(chosen_TK, dtype=np.int32)
        _, out = self._ask("logprobs", {"start": start}, arrays)
        return Measured(logprobs=out["logprobs"], routers_MTE=out["routers"])

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        seed: int,
        stop_ids: Sequence[int],
        sampling: Sampling | None = None,
        grammar: str | None = None,
        reuse_prefix: bool = False,
    ) -> Generation:
        """Returns one completion, which is the same whenever model, arguments, threads and library are the same.

        Args:
            prompt_ids: The prompt.
            max_new_tokens: Maximum tokens of the completion.
            seed: See `sampling_seed`.
            stop_ids: Tokens that end the completion.
            sampling: As in `generate_many`.
            grammar: As in `generate_many`.
            reuse_prefix: Evaluate the prompt in chunks of REUSE_CHUNK tokens, and skip the leading chunks that it
                shares with this session's last prompt if that was evaluated with `reuse_prefix` too. The completion
                does not depend on what was skipped, but may differ by rounding from one without `reuse_prefix`, whose
                chunks are longer.
        """
        return self._generate(
            [prompt_ids],
            max_new_tokens=max_new_tokens,
            seeds=[seed],
            stop_ids=stop_ids,
            sampling=sampling,
            grammar=grammar,
            reuse_prefix=reuse_prefix,
        )[0]

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        stop_ids: Sequence[int],
        sampling: Sampling | None = None,
        grammar: str | None = None,
    ) -> list[Generation]:
        """Returns completions of many prompts, `n_parallel` at a time, in the order of the prompts.

        Sampling is ours, not llama.cpp's: the token at position t maximises log-probability / temperature + Gumbel
        noise, and the noise depends only on the prompt's seed, t and the token. Two models with equal seeds therefore
        share their random numbers, and their completions differ only where their probabilities do.

        Args:
            prompts: Token ids of each prompt.
            max_new_tokens: Maximum tokens of the completion.
            seeds: One per prompt; see `sampling_seed`.
            stop_ids: Tokens that end a completion.
            sampling: Temperature and filters; None for plain sampling at temperature 1.
            grammar: GBNF text that constrains every completion (root rule `root`); `end_ids` then end it too.
        """
        return self._generate(
            prompts,
            max_new_tokens=max_new_tokens,
            seeds=seeds,
            stop_ids=stop_ids,
            sampling=sampling,
            grammar=grammar,
            reuse_prefix=False,
        )

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        stop_ids: Sequence[int],
        sampling: Sampling | None,
        grammar: str | None,
        reuse_prefix: bool,
    ) -> list[Generation]:
        if len(seeds) != len(prompts):
            raise ConfigError(f"{len(seeds)} seeds for {len(prompts)} prompts: expected one per prompt")
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {max_new_tokens}: expected an integer ≥ 1")
        for ids in prompts:
            if not ids:
                raise ConfigError("a prompt has no tokens; give it at least a BOS token")
            self._check_fits(len(ids) + max_new_tokens, "prompt and completion")
        if not prompts:
            return []
        sampling = sampling or Sampling()
        header = {
            "max_new_tokens": max_new_tokens,
            "stop_ids": list(stop_ids),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "grammar": grammar,
            "reuse_prefix": reuse_prefix,
        }
        arrays: Arrays = {
            "ids": np.concatenate([np.asarray(ids, dtype=np.int32) for ids in prompts]),
            "lengths": np.asarray([len(ids) for ids in prompts], dtype=np.int64),
            "seeds": np.asarray(seeds, dtype=np.uint64),
        }
        _, out = self._ask("generate", header, arrays)
        ends = np.cumsum(out["lengths"])
        completions = np.split(out["ids"], ends[:-1])
        return [
            Generation(ids=tuple(map(int, ids)), truncated=bool(truncated), n_evaluated=int(n_evaluated))
            for ids, truncated, n_evaluated in zip(completions, out["truncated"], out["n_evaluated"], strict=True)
        ]

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Returns ids by the GGUF's tokenizer. Not for a target's prompts, which need the target's own tokenizer."""
        _, out = self._ask("tokenize", {"text": text, "add_special": add_special, "parse_special": parse_special})
        return [int(token) for token in out["ids"]]

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Returns the text of ids by the GGUF's tokenizer; `special` shows control tokens."""
        reply, _ = self._ask("detokenize", {"special": special}, {"ids": np.asarray(ids, dtype=np.int32)})
        return str(reply["text"])

    def metadata(self) -> dict[str, str]:
        """Returns the GGUF's scalar metadata as text, e.g. `tokenizer.chat_template`, `tokenizer.ggml.eos_token_id`."""
        return dict(self._ask("metadata", {})[0]["metadata"])

    def close(self) -> None:
        """Ends the process; calling it again has no effect."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # the worker is already gone and left bytes of ours unread
                        pipe.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _check_fits(self, n_tokens: int, what: str) -> None:
        n_ctx = int(self._settings["n_ctx"])
        if n_tokens > n_ctx:
            raise ConfigError(f"{what} of {n_tokens} tokens: the context holds {n_ctx}; raise n_ctx")

    def _start(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        # numpy's BLAS threads would compete with llama.cpp's
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "m3i.models.llamacpp.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )

    def _ask(self, op: str, header: Mapping[str, Any], arrays: Arrays | None = None) -> tuple[dict[str, Any], Arrays]:
        process = self._process
        if process is None:
            raise RuntimeError("a LlamaSession was used outside its `with` block")
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_message(process.stdin, {"op": op, **header}, arrays or {})
            reply, out = read_message(process.stdout)
        except (OSError, EOFError):
            raise self._crash(op) from None
        if "error" in reply:
            raise LlamaFailed(f"llama.cpp, {op} of {self._names()}: {reply['error']}")
        return reply, out

    def _crash(self, op: str) -> LlamaCrashed:
        assert self._process is not None
        assert self._stderr is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace").strip().splitlines()
        tail = "\n  ".join(words[-12:]) or "(nothing)"
        return LlamaCrashed(
            f"the llama.cpp process died with {how} during '{op}' of {self._names()}. Its last output:\n  {tail}"
        )

    def _names(self) -> str:
        return f"model {self.model}" + (f" with adapter {self.adapter}" if self.adapter else "")


def quantize(source: Path, destination: Path, *, ftype: int, n_threads: int = 1) -> None:
    """Quantises a GGUF file with llama.cpp's mixture of types.

    Args:
        source: An F32, F16 or BF16 file.
        destination: The file to write.
        ftype: llama.cpp's number of the file type, e.g. 15 for Q4_K_M.
        n_threads: Threads of llama.cpp.

    Raises:
        LlamaFailed, LlamaCrashed: llama.cpp refused or crashed.
    """
    session = LlamaSession(source)
    request = {"source": str(source), "destination": str(destination), "ftype": ftype, "n_threads": n_threads}
    try:
        session._start()
        session._ask("quantize", request)
    finally:
        session.close()
