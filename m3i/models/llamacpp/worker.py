"""The process that runs llama.cpp: reads requests on stdin, answers on stdout (see m3i.models.llamacpp.session).

Imports neither torch nor transformers. llama.cpp's log is silenced except for errors: replies quote the last ones, and
they go to stderr together with anything printed during a crash, where the session reads it.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import llama_cpp.llama_cpp as api
import numpy as np

from m3i.models.llamacpp.sampling import Sampler, log_softmax
from m3i.models.llamacpp.wire import Arrays, Refused, read_message, write_message

N_BATCH = 512
"""Tokens evaluated at once."""
REUSE_CHUNK = 64
"""Tokens evaluated at once when prefixes are reused. Prefixes are reused in whole chunks, so every token is evaluated
in the same chunk whether or not earlier chunks were skipped, and its logits are identical to the last bit."""
GGML_TYPE = {"f32": 0, "f16": 1}
LOG_ERROR = 4
FLASH_ATTENTION_OFF = 0


class Log:
    """llama.cpp's errors since they were last taken."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._callback = api.llama_log_callback(self._keep)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _keep(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_ERROR:
            line = text.decode(errors="replace").rstrip()
            self.lines.append(line)
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def take(self) -> str:
        """Returns the last lines so far, joined, and clears the log."""
        lines, self.lines = self.lines[-6:], []
        return "; ".join(lines) or "no reason given"


class Model:
    """A loaded model with its context."""

    def __init__(self, settings: dict[str, Any], log: Log) -> None:
        self._ctx = self._model = self._lora = None
        self.routing = Routing() if settings["trace_routing"] else None
        self.n_parallel = int(settings["n_parallel"])
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        # no repacked weights: their kernels depend on the machine, and the AMX ones crash the process if the
        # operating system withholds AMX state (seen with 0.3.36)
        params.use_extra_bufts = False
        self._model = api.llama_model_load_from_file(settings["model"].encode(), params)
        if not self._model:
            raise Refused(log.take())
        self.vocab = api.llama_model_get_vocab(self._model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        ends = [i for i in range(self.n_vocab) if api.llama_vocab_is_eog(self.vocab, i)]
        self.end_ids = np.asarray(ends, dtype=np.int32)
        self._ctx = api.llama_init_from_model(self._model, self._context_params(settings))
        if not self._ctx:
            raise Refused(log.take())
        self.memory = api.llama_get_memory(self._ctx)
        if settings["adapter"]:
            self._lay_adapter(settings["adapter"], log)
        self.batch = api.llama_batch_init(N_BATCH, 0, 1)
        self._held: list[int] = []
        """Tokens in sequence 0's cache, if they were evaluated in chunks of REUSE_CHUNK; else empty."""

    def _context_params(self, settings: dict[str, Any]) -> Any:
        params = api.llama_context_default_params()
        params.n_ctx = settings["n_ctx"] * self.n_parallel
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_seq_max = self.n_parallel
        params.n_threads = params.n_threads_batch = settings["n_threads"]
        params.type_k = params.type_v = GGML_TYPE[settings["kv_type"]]
        params.flash_attn_type = FLASH_ATTENTION_OFF
        params.kv_unified = False
        params.no_perf = True
        if self.routing:
            params.cb_eval = self.routing.callback
        return params

    def _lay_adapter(self, path: str, log: Log) -> None:
        self._lora = api.llama_adapter_lora_init(self._model, path.encode())
        if not self._lora:
            raise Refused(log.take())
        adapters = (api.llama_adapter_lora_p_ctypes * 1)(self._lora)
        scales = (ctypes.c_float * 1)(1.0)
        if api.llama_set_adapters_lora(self._ctx, adapters, 1, scales):
            raise Refused(log.take())

    def metadata(self) -> dict[str, str]:
        """Returns all scalar metadata as text."""
        found, room = {}, 1 << 16
        buffer = ctypes.create_string_buffer(room)
        for i in range(api.llama_model_meta_count(self._model)):
            api.llama_model_meta_key_by_index(self._model, i, buffer, room)
            key = buffer.value.decode()
            api.llama_model_meta_val_str_by_index(self._model, i, buffer, room)
            found[key] = buffer.value.decode(errors="replace")
        return found

    def free(self) -> None:
        """Frees the context and the model, and with it the adapter."""
        if self._ctx:
            api.llama_free(self._ctx)
        if self._model:
            api.llama_model_free(self._model)
        self._ctx = self._model = None

    def decode(self, rows: list[tuple[int, int, int, bool]], log: Log) -> None:
        """Evaluates at most N_BATCH rows of (token, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        status = api.llama_decode(self._ctx, batch)
        if status:
            raise Refused(f"llama_decode returned {status}: {log.take()}")

    def logits(self, n_rows: int) -> np.ndarray:
        """Returns a copy of the wanted rows of the last decode, in their order; float32 [n_rows, V]."""
        pointer = api.llama_get_logits(self._ctx)
        return np.ctypeslib.as_array(pointer, shape=(n_rows, self.n_vocab)).copy()

    def forget(self, sequence: int) -> None:
        """Empties one sequence's cache."""
        api.llama_memory_seq_rm(self.memory, sequence, -1, -1)
        if sequence == 0:
            self._held = []

    def prompt(self, ids: list[int], sequence: int, start: int, log: Log) -> Iterator[np.ndarray]:
        """Evaluates a sequence from an empty cache; yields the logits of positions ≥ start, a chunk at a time."""
        self.forget(sequence)
        for low in range(0, len(ids), N_BATCH):
            high = min(low + N_BATCH, len(ids))
            self.decode([(ids[i], i, sequence, i >= start) for i in range(low, high)], log)
            wanted = high - max(low, min(start, high))
            if wanted:
                yield self.logits(wanted)

    def prompt_after_prefix(self, ids: list[int], log: Log) -> tuple[np.ndarray, int]:
        """Evaluates sequence 0 from the first chunk that differs from the last prompt, in chunks of REUSE_CHUNK.

        Returns:
            The logits after the last token, float32 [V], and how many tokens were evaluated.
        """
        first = self._keep(ids)
        for low in range(first, len(ids), REUSE_CHUNK):
            high = min(low + REUSE_CHUNK, len(ids))
            self.decode([(ids[i], i, 0, i == len(ids) - 1) for i in range(low, high)], log)
        self._held = list(ids)
        return self.logits(1)[0], len(ids) - first

    def _keep(self, ids: list[int]) -> int:
        """Cuts sequence 0's cache down to the whole chunks that `ids` begins with; returns how many tokens are kept."""
        pairs = enumerate(zip(self._held, ids, strict=False))
        same = next((i for i, (held, wanted) in pairs if held != wanted), min(len(self._held), len(ids)))
        kept = min(same, len(ids) - 1) // REUSE_CHUNK * REUSE_CHUNK  # the last token's logits are always needed
        self._held = []  # until all of `ids` has been evaluated
        # a recurrent model's state cannot be cut, and a sliding window may have lost the beginning
        whole = kept and api.llama_memory_seq_pos_min(self.memory, 0) == 0
        if whole and api.llama_memory_seq_rm(self.memory, 0, kept, -1):
            return kept
        self.forget(0)
        return 0


class Routing:
    """Reads the router logits from llama.cpp's compute graph while it runs."""

    class _Tensor(ctypes.Structure):
        # the first fields of struct ggml_tensor in ggml.h; everything else is read through ggml's functions
        _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4))

    def __init__(self) -> None:
        from llama_cpp._ggml import libggml

        self._ggml = libggml
        libggml.ggml_get_name.restype = ctypes.c_char_p
        libggml.ggml_get_name.argtypes = [ctypes.c_void_p]
        libggml.ggml_backend_tensor_get.restype = None
        libggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2
        self.callback = api.ggml_backend_sched_eval_callback(self._see)
        self._seen: dict[int, list[np.ndarray]] = {}

    def _see(self, tensor: int, ask: bool, _: Any) -> bool:
        match = re.fullmatch(rb"ffn_moe_logits-(\d+)", self._ggml.ggml_get_name(tensor))
        if ask or match is None:
            return match is not None or not ask
        n_experts, n_tokens = ctypes.cast(tensor, ctypes.POINTER(self._Tensor)).contents.ne[:2]
        logits_TE = np.empty((n_tokens, n_experts), dtype=np.float32)
        self._ggml.ggml_backend_tensor_get(tensor, logits_TE.ctypes.data, 0, logits_TE.nbytes)
        self._seen.setdefault(int(match[1]), []).append(logits_TE)
        return True

    def take(self, n_tokens: int) -> np.ndarray:
        """Returns the router logits of the n_tokens evaluated since the last call; float32 [M, T, E]."""
        layers = [np.concatenate(self._seen[layer]) for layer in sorted(self._seen)]
        self._seen = {}
        return np.stack(layers) if layers else np.zeros((0, n_tokens, 0), dtype=np.float32)


class Worker:
    """Answers one request after another."""

    def __init__(self) -> None:
        self.log = Log()
        self.model: Model | None = None

    def answer(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns the reply to one request. Raises Refused."""
        operations = {
            "load": self.load,
            "logprobs": self.logprobs,
            "generate": self.generate,
            "tokenize": self.tokenize,
            "detokenize": self.detokenize,
            "metadata": self.metadata,
            "quantize": self.quantize,
        }
        return operations[request["op"]](request, arrays)

    def load(self, request: dict[str, Any], _: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Frees the previous model and loads another."""
        if self.model is not None:
            self.model.free()
            self.model = None
        self.model = Model(request, self.log)
        return {"n_vocab": self.model.n_vocab}, {"end_ids": self.model.end_ids}

    def logprobs(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns log-probabilities, of all tokens or the chosen ones, and the router logits."""
        model, start = self._model(), int(request["start"])
        out: list[np.ndarray] = []
        traced = model.routing is not None
        offset = done = 0
        # the last layer is computed only for wanted rows, so tracing the routing requires all rows
        for logits_TV in model.prompt(arrays["ids"].tolist(), 0, 0 if traced else start, self.log):
            if traced:
                logits_TV = logits_TV[max(0, start - offset) :]
                offset += N_BATCH
            logp_TV = log_softmax(logits_TV)
            if "chosen" in arrays:
                logp_TV = np.take_along_axis(logp_TV, arrays["chosen"][done : done + len(logp_TV)], axis=1)
            out.append(logp_TV.astype(np.float32))
            done += len(logp_TV)
        n_tokens = len(arrays["ids"])
        routers = model.routing.take(n_tokens) if model.routing else np.zeros((0, n_tokens, 0), dtype=np.float32)
        return {}, {"logprobs": np.concatenate(out), "routers": routers[:, start:]}

    def generate(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns completions of all prompts."""
        model = self._model()
        ends = np.cumsum(arrays["lengths"])
        prompts = [ids.tolist() for ids in np.split(arrays["ids"], ends[:-1])]
        completions, truncated, n_evaluated = complete(model, self.log, prompts, arrays["seeds"].tolist(), request)
        return {}, {
            "ids": np.asarray([token for ids in completions for token in ids], dtype=np.int32),
            "lengths": np.asarray([len(ids) for ids in completions], dtype=np.int64),
            "truncated": np.asarray(truncated, dtype=np.uint8),
            "n_evaluated": np.asarray(n_evaluated, dtype=np.int64),
        }

    def tokenize(self, request: dict[str, Any], _: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns the ids of a text."""
        vocab, text = self._model().vocab, request["text"].encode()
        room = len(text) + 16
        ids = (api.llama_token * room)()
        n = api.llama_tokenize(vocab, text, len(text), ids, room, request["add_special"], request["parse_special"])
        if n < 0:
            raise Refused(f"a text of {len(text)} bytes needs {-n} tokens, more than one per byte")
        return {}, {"ids": np.asarray(ids[:n], dtype=np.int32)}

    def detokenize(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns the text of ids; bytes that are not UTF-8 become the replacement character."""
        vocab, text = self._model().vocab, b""
        buffer = ctypes.create_string_buffer(1024)
        for token in arrays["ids"].tolist():
            n = api.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, request["special"])
            text += buffer.raw[: max(n, 0)]
        return {"text": text.decode(errors="replace")}, {}

    def metadata(self, _request: dict[str, Any], _: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Returns all scalar metadata as text."""
        return {"metadata": self._model().metadata()}, {}

    def quantize(self, request: dict[str, Any], _: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Quantises a GGUF file into another; needs no loaded model."""
        params = api.llama_model_quantize_default_params()
        params.ftype, params.nthread = request["ftype"], request["n_threads"]
        if api.llama_model_quantize(request["source"].encode(), request["destination"].encode(), ctypes.byref(params)):
            raise Refused(self.log.take())
        return {}, {}

    def _model(self) -> Model:
        if self.model is None:
            raise Refused("no model is loaded")
        return self.model


def complete(
    model: Model, log: Log, prompts: list[list[int]], seeds: list[int], request: dict[str, Any]
) -> tuple[list[list[int]], list[bool], list[int]]:
    """Completes the prompts, model.n_parallel at a time: a slot that becomes free takes the next prompt.

    Returns:
        For each prompt the completion, whether the length limit ended it, and how many prompt tokens were evaluated.
    """
    stop_ids, limit = set(request["stop_ids"]), int(request["max_new_tokens"])
    if request["grammar"]:
        stop_ids |= set(model.end_ids.tolist())  # a completed grammar allows nothing else
    completions: list[list[int]] = [[] for _ in prompts]
    truncated = [False] * len(prompts)
    n_evaluated = [len(ids) for ids in prompts]
    samplers: dict[int, Sampler] = {}
    running: dict[int, int] = {}  # slot → prompt
    waiting = list(range(len(prompts)))[::-1]

    def take(slot: int, logits_V: np.ndarray) -> None:
        """Draws the slot's next token, and frees the slot after its last."""
        i = running[slot]
        token = samplers[slot].draw(logits_V)
        completions[i].append(token)
        if token in stop_ids or len(completions[i]) == limit:
            truncated[i] = token not in stop_ids
            samplers.pop(slot).free()
            del running[slot]

    while waiting or running:
        for slot in range(model.n_parallel):
            while waiting and slot not in running:
                i = running[slot] = waiting.pop()
                samplers[slot] = Sampler(request, seeds[i], model.vocab)
                if request["reuse_prefix"]:
                    logits_V, n_evaluated[i] = model.prompt_after_prefix(prompts[i], log)
                else:
                    *_, logits_TV = model.prompt(prompts[i], slot, len(prompts[i]) - 1, log)
                    logits_V = logits_TV[-1]
                take(slot, logits_V)
        if running:
            slots = sorted(running)
            rows = []
            for slot in slots:
                i = running[slot]
                rows.append((completions[i][-1], len(prompts[i]) + len(completions[i]) - 1, slot, True))
            model.decode(rows, log)
            for slot, logits_V in zip(slots, model.logits(len(rows)), strict=True):
                take(slot, logits_V)
    return completions, truncated, n_evaluated


def main() -> None:
    """Serves requests until the session closes the pipe."""
    # anything that C code prints to standard output must not mix with our messages
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    worker = Worker()
    api.llama_backend_init()
    while True:
        try:
            request, arrays = read_message(requests)
        except EOFError:
            return
        try:
            reply, out = worker.answer(request, arrays)
        except Refused as refused:
            reply, out = {"error": str(refused)}, {}
        write_message(replies, reply, out)


if __name__ == "__main__":
    main()
