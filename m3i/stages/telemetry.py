"""The telemetry stage: what each layer does at each predicted token, from one teacher-forced pass per trace.

Shape suffixes: B traces of a batch, T tokens, D model width, V vocabulary, L layers, E experts, H heads,
C predicted tokens of a batch, S predicted tokens of all traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3i.artifacts import Telemetry, Trace, Traces
from m3i.component import plain
from m3i.errors import StageError
from m3i.interfaces import Tick, no_tick
from m3i.stages.libraries import TORCH

if TYPE_CHECKING:
    import torch

    from m3i.models.target import LoadedTarget
    from m3i.stages.context import RunContext

LENS_BYTES = 64 * 2**20
"""Upper bound on one block of lens logits (rows × vocabulary, float32); rows are processed in blocks that fit."""


def run(context: RunContext, traces: Traces) -> Telemetry:
    """Returns what every layer does at every token of a sample of traces."""
    settings = context.experiment.settings.telemetry

    def work(folder: Path, tick: Tick) -> Telemetry:
        return measure_telemetry(
            context.session.loaded,
            traces.traces,
            max_traces=settings.max_traces,
            batch_size=settings.batch_size,
            tick=tick,
        )

    return context.make(
        Telemetry,
        "telemetry",
        work,
        settings=plain(settings),
        inputs={"target": context.target_id, "traces": traces.id},
        libraries=TORCH,
        made=lambda a: f"{len(a.trace_ids)} traces, {a.starts[-1]} tokens x {a.lens_rank_LS.shape[0]} layers",
    )


def choose_traces(traces: Sequence[Trace], max_traces: int) -> list[Trace]:
    """Returns the traces that telemetry measures: all of them, or up to the limit, half failing and half correct.

    Args:
        traces: All traces.
        max_traces: The largest number to measure; 0 measures all.

    Returns:
        Traces with at least one completion token, in the order given. Failing and correct traces each get half of the
        limit, and a side with fewer leaves the rest to the other: calibration needs correct traces as much as failing
        ones.
    """
    usable = [t for t in traces if t.completion_ids]
    if max_traces <= 0 or len(usable) <= max_traces:
        return usable
    wrong = [t for t in usable if not t.correct]
    right = [t for t in usable if t.correct]
    n_wrong = min(len(wrong), max(max_traces - len(right), (max_traces + 1) // 2))
    keep = {t.id for t in wrong[:n_wrong] + right[: max_traces - n_wrong]}
    return [t for t in usable if t.id in keep]


def measure_telemetry(
    loaded: LoadedTarget, traces: Sequence[Trace], *, max_traces: int = 0, batch_size: int = 16, tick: Tick = no_tick
) -> Telemetry:
    """Measures telemetry, teacher-forced over prompt and completion; each column is a predicted completion token.

    Args:
        loaded: The target. Its attention implementation is set to `eager` during the measurement (others return no
            weights) and then restored; no hook and no gradient remains.
        traces: Traces of that target.
        max_traces: The largest number to measure, see `choose_traces`; 0 measures all.
        batch_size: Traces per forward pass, right-padded, sorted by length.
        tick: Progress, in traces.

    Returns:
        The artifact, without id and parents. The router arrays have no rows for a model without routers.

    Raises:
        StageError: A trace has no prompt token, or a router of the model returns something other than (logits, ...,
            chosen experts).

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens" (rank and entropy of norm + unembedding applied to
    every layer's output).
    """
    chosen = choose_traces(traces, max_traces)
    starts = np.concatenate([[0], np.cumsum([len(t.completion_ids) for t in chosen])]).astype(int)
    recorder = _Recorder(loaded, n_columns=int(starts[-1]))
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i].prompt_ids) + len(chosen[i].completion_ids))
    done = 0
    tick(0, len(chosen))
    with recorder.attached():
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            recorder.run([chosen[i] for i in batch], [int(starts[i]) for i in batch])
            done += len(batch)
            tick(done, len(chosen))
    return Telemetry(
        trace_ids=tuple(t.id for t in chosen),
        starts=tuple(int(s) for s in starts),
        moe_layers=recorder.moe_layers,
        lens_rank_LS=recorder.rank_LS,
        lens_entropy_LS=recorder.entropy_LS,
        update_norm_LS=recorder.update_LS,
        attention_entropy_LS=recorder.attention_LS,
        router_entropy_RS=recorder.router_RS,
        expert_load_RE=recorder.load_RE / np.maximum(recorder.load_RE.sum(axis=1, keepdims=True), 1),
    )


def router_of(layer: Any) -> Any | None:
    """Returns the router module of a decoder layer (`mlp.gate` or `mlp.router`), None for a dense layer."""
    children = dict(layer.mlp.named_children())
    return children.get("gate") or children.get("router")


@dataclass
class _Batch:
    """Maps rows of a forward pass to columns of the telemetry."""

    n_tokens: int
    """T, padding included."""
    rows_C: torch.Tensor
    """Batch row of each predicted token."""
    positions_C: torch.Tensor
    """Position before each predicted token."""
    next_C: torch.Tensor
    """The token that came next."""
    columns_C: np.ndarray


class _Recorder:
    """Forward hooks that reduce each layer's tensors to numbers immediately, so that nothing large is kept."""

    def __init__(self, loaded: LoadedTarget, n_columns: int) -> None:
        self.loaded = loaded
        layers = list(loaded.layers)
        self.moe_layers = tuple(i for i, layer in enumerate(layers) if router_of(layer) is not None)
        shape = (len(layers), n_columns)
        self.rank_LS = np.zeros(shape, dtype=np.int32)
        self.entropy_LS = np.zeros(shape, dtype=np.float32)
        self.update_LS = np.zeros(shape, dtype=np.float32)
        self.attention_LS = np.zeros(shape, dtype=np.float32)
        self.router_RS = np.zeros((len(self.moe_layers), n_columns), dtype=np.float32)
        self.load_RE = np.zeros((len(self.moe_layers), loaded.info.n_experts), dtype=np.float64)
        self.batch: _Batch

    @contextmanager
    def attached(self) -> Iterator[None]:
        model = self.loaded.model
        before = model.config._attn_implementation
        handles = []
        try:
            if before != "eager":
                model.set_attn_implementation("eager")
            for i, layer in enumerate(self.loaded.layers):
                handles.append(layer.register_forward_hook(self._layer_hook(i), with_kwargs=True))
                handles.append(layer.self_attn.register_forward_hook(self._attention_hook(i)))
            for row, i in enumerate(self.moe_layers):
                router: Any = router_of(self.loaded.layers[i])
                handles.append(router.register_forward_hook(self._router_hook(row, i)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            if model.config._attn_implementation != before:
                model.set_attn_implementation(before)

    def run(self, traces: Sequence[Trace], starts: Sequence[int]) -> None:
        import torch

        from m3i.models.batching import pad_right

        device = self.loaded.model.device
        ids_BT, real_BT = pad_right([[*t.prompt_ids, *t.completion_ids] for t in traces], device)
        rows, positions, following, columns = [], [], [], []
        for row, (trace, start) in enumerate(zip(traces, starts, strict=True)):
            if not trace.prompt_ids:
                raise StageError(f"trace {trace.id} has no prompt token: nothing predicts its first token")
            for i, token in enumerate(trace.completion_ids):
                rows.append(row)
                positions.append(len(trace.prompt_ids) + i - 1)
                following.append(token)
                columns.append(start + i)
        self.batch = _Batch(
            n_tokens=ids_BT.shape[1],
            rows_C=torch.tensor(rows, device=device),
            positions_C=torch.tensor(positions, device=device),
            next_C=torch.tensor(following, device=device),
            columns_C=np.array(columns),
        )
        with torch.no_grad():
            # The decoder alone: the full logits of every token are never needed at once.
            self.loaded.model.base_model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False)

    def _layer_hook(self, i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before_BTD = args[0] if args else kwargs["hidden_states"]
            after_BTD = output[0] if isinstance(output, tuple) else output
            b = self.batch
            before_CD = before_BTD[b.rows_C, b.positions_C].float()
            after_CD = after_BTD[b.rows_C, b.positions_C]
            update_C = (after_CD.float() - before_CD).norm(dim=-1) / before_CD.norm(dim=-1).clamp_min(1e-12)
            self.update_LS[i, b.columns_C] = update_C.cpu().numpy()
            rank_C, entropy_C = lens(self.loaded, after_CD, b.next_C)
            self.rank_LS[i, b.columns_C] = rank_C.cpu().numpy()
            self.entropy_LS[i, b.columns_C] = entropy_C.cpu().numpy()

        return hook

    def _attention_hook(self, i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
            import torch

            weights_BHTT = output[1]
            b = self.batch
            weights_CHT = weights_BHTT[b.rows_C, :, b.positions_C].float()
            entropy_C = torch.special.entr(weights_CHT).sum(dim=-1).mean(dim=-1)
            self.attention_LS[i, b.columns_C] = entropy_C.cpu().numpy()

        return hook

    def _router_hook(self, row: int, i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
            import torch

            logits_NE, chosen_NK = read_router(output, f"model.layers.{i}.mlp")
            b = self.batch
            flat_C = b.rows_C * b.n_tokens + b.positions_C
            logp_CE = logits_NE[flat_C].float().log_softmax(dim=-1)
            self.router_RS[row, b.columns_C] = (-(logp_CE.exp() * logp_CE).sum(dim=-1)).cpu().numpy()
            chosen_C = chosen_NK[flat_C].flatten()
            self.load_RE[row] += torch.bincount(chosen_C, minlength=self.load_RE.shape[1]).cpu().numpy()

        return hook


def lens(loaded: LoadedTarget, state_CD: torch.Tensor, next_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rank of the token that came next and the entropy in nats, by final norm and unembedding.

    Rows are processed in blocks of at most LENS_BYTES of logits. Rank 0 is the top; equal logits share the better rank.
    """
    import torch

    block = max(1, LENS_BYTES // (4 * int(loaded.unembedding.weight.shape[0])))
    ranks, entropies = [], []
    for first in range(0, len(state_CD), block):
        logits_CV = loaded.unembedding(loaded.final_norm(state_CD[first : first + block])).float()
        wanted_C1 = logits_CV.gather(1, next_C[first : first + block, None])
        ranks.append((logits_CV > wanted_C1).sum(dim=-1))
        logp_CV = logits_CV.log_softmax(dim=-1)
        entropies.append(-(logp_CV.exp() * logp_CV).sum(dim=-1))
    return torch.cat(ranks), torch.cat(entropies)


def read_router(output: Any, name: str) -> tuple[Any, Any]:
    """Returns router logits (tokens × experts) and chosen experts (tokens × k) from a router's output.

    transformers' native routers return (logits, weights, chosen experts).

    Raises:
        StageError: The output has another form.
    """
    import torch

    if isinstance(output, tuple) and len(output) >= 2 and isinstance(output[0], torch.Tensor):
        chosen = [x for x in output[1:] if isinstance(x, torch.Tensor) and not x.is_floating_point()]
        if output[0].dim() == 2 and len(chosen) == 1:
            return output[0], chosen[0]
    kinds = [type(x).__name__ for x in output] if isinstance(output, tuple) else type(output).__name__
    raise StageError(
        f"the router under {name} returns {kinds}; expected (logits, weights, chosen experts), as transformers' native "
        f"mixture-of-experts classes return"
    )
