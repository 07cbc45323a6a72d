"""Telemetry against a plain, unbatched recomputation of every figure."""

import numpy as np
import pytest
import torch
from small_models import small_deepseek, small_llama, wrap

import m3i.stages.telemetry as telemetry_module
from m3i.artifacts import Trace
from m3i.errors import StageError
from m3i.stages.telemetry import choose_traces, measure_telemetry, read_router

VOCABULARY = 50


@pytest.fixture(scope="module")
def deepseek():
    return wrap(small_deepseek(vocab_size=VOCABULARY))


@pytest.fixture(scope="module")
def llama():
    return wrap(small_llama(vocab_size=VOCABULARY))


def make_traces(n, seed=0):
    rng = np.random.default_rng(seed)
    traces = []
    for i in range(n):
        prompt = [1, *rng.integers(3, VOCABULARY, size=rng.integers(1, 6))]
        completion = rng.integers(3, VOCABULARY, size=rng.integers(1, 9))
        traces.append(
            Trace(
                id=f"t{i}",
                problem_id=f"p{i}",
                sample=0,
                prompt_ids=tuple(int(x) for x in prompt),
                completion_ids=tuple(int(x) for x in completion),
                text="x" * len(completion),
                offsets=tuple((j, j + 1) for j in range(len(completion))),
                logprobs=(0.0,) * len(completion),
                correct=i % 3 == 0,
                answer=None,
                truncated=True,
            )
        )
    return traces


def recompute(loaded, trace):
    """The same figures with output_hidden_states, a trace at a time."""
    loaded.model.set_attn_implementation("eager")
    ids = torch.tensor([[*trace.prompt_ids, *trace.completion_ids]])
    caught = {}
    handles = [
        layer.mlp.gate.register_forward_hook(lambda m, a, out, i=i: caught.__setitem__(i, out))
        for i, layer in enumerate(loaded.layers)
        if "gate" in dict(layer.mlp.named_children())
    ]
    residuals = []
    for layer in loaded.layers:
        handles.append(layer.register_forward_hook(lambda m, a, out: residuals.append((a[0][0], out[0]))))
    with torch.no_grad():
        out = loaded.model(ids, output_attentions=True)
    for handle in handles:
        handle.remove()
    at = [len(trace.prompt_ids) + j - 1 for j in range(len(trace.completion_ids))]
    nexts = torch.tensor(trace.completion_ids)
    figures = {"rank": [], "entropy": [], "update": [], "attention": [], "router": [], "chosen": []}
    for i, (before, after) in enumerate(residuals):
        logits = loaded.model.lm_head(loaded.model.model.norm(after[at]))
        figures["rank"].append([int((row > row[t]).sum()) for row, t in zip(logits, nexts, strict=True)])
        figures["entropy"].append(torch.distributions.Categorical(logits=logits).entropy().numpy())
        figures["update"].append(((after - before).norm(dim=-1) / before.norm(dim=-1))[at].numpy())
        weights = out.attentions[i][0][:, at]
        entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)
        figures["attention"].append(entropy.mean(0).numpy())
        if i in caught:
            logits_NE, _, chosen = caught[i]
            figures["router"].append(torch.distributions.Categorical(logits=logits_NE[at]).entropy().numpy())
            figures["chosen"].append(np.bincount(chosen[at].flatten().numpy(), minlength=8))
    return figures, out.logits[0, at]


@pytest.mark.parametrize("name", ["deepseek", "llama"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_figure_equals_an_unbatched_recomputation(name, batch_size, request):
    loaded = request.getfixturevalue(name)
    traces = make_traces(7)
    measured = measure_telemetry(loaded, traces, batch_size=batch_size)
    assert measured.trace_ids == tuple(t.id for t in traces)
    assert measured.starts[-1] == sum(len(t.completion_ids) for t in traces)
    loads = 0
    for trace in traces:
        columns = measured.columns(trace.id)
        expected, logits = recompute(loaded, trace)
        np.testing.assert_array_equal(measured.lens_rank_LS[:, columns], expected["rank"])
        np.testing.assert_allclose(measured.lens_entropy_LS[:, columns], expected["entropy"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(measured.update_norm_LS[:, columns], expected["update"], rtol=1e-4)
        np.testing.assert_allclose(
            measured.attention_entropy_LS[:, columns], expected["attention"], rtol=1e-3, atol=1e-4
        )
        # The last layer's lens is the model itself.
        wanted = logits.gather(1, torch.tensor(trace.completion_ids)[:, None])
        np.testing.assert_array_equal(measured.lens_rank_LS[-1, columns], (logits > wanted).sum(-1).numpy())
        if name == "deepseek":
            np.testing.assert_allclose(measured.router_entropy_RS[:, columns], expected["router"], rtol=1e-4)
            loads = loads + np.array(expected["chosen"])
    if name == "deepseek":
        assert measured.moe_layers == (1, 2, 3)
        np.testing.assert_allclose(measured.expert_load_RE, loads / loads.sum(axis=1, keepdims=True))
    else:
        assert measured.moe_layers == ()
        assert measured.router_entropy_RS.shape == (0, measured.starts[-1])
        assert measured.expert_load_RE.shape == (0, 0)


def hooks(loaded):
    """Every forward hook; transformers' own (left by output_attentions) included."""
    return [
        (m, h) for m in loaded.model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]


def test_the_model_is_left_as_it_was(deepseek):
    before = hooks(deepseek)
    deepseek.model.set_attn_implementation("sdpa")
    measure_telemetry(deepseek, make_traces(2))
    assert deepseek.model.config._attn_implementation == "sdpa"
    assert hooks(deepseek) == before


def test_hooks_go_even_when_the_pass_fails(deepseek):
    trace = make_traces(1)[0]
    before = hooks(deepseek)
    bad = Trace(**{**trace.__dict__, "completion_ids": (VOCABULARY + 7,)})
    with pytest.raises(IndexError):
        measure_telemetry(deepseek, [bad])
    assert hooks(deepseek) == before


def test_small_blocks_of_logits_change_nothing(llama, monkeypatch):
    traces = make_traces(3)
    whole = measure_telemetry(llama, traces)
    monkeypatch.setattr(telemetry_module, "LENS_BYTES", 4 * VOCABULARY * 2)
    blocks = measure_telemetry(llama, traces)
    np.testing.assert_array_equal(whole.lens_rank_LS, blocks.lens_rank_LS)
    np.testing.assert_allclose(whole.lens_entropy_LS, blocks.lens_entropy_LS, rtol=1e-6)


def test_a_limit_keeps_failing_and_right_traces():
    traces = make_traces(30)  # 10 right, 20 wrong
    chosen = choose_traces(traces, 8)
    assert [t.id for t in chosen] == sorted((t.id for t in chosen), key=lambda i: int(i[1:]))
    assert sum(t.correct for t in chosen) == 4
    assert len(choose_traces(traces, 0)) == 30
    # 10 right traces leave 14 of 24 places to the wrong ones, and the other way about.
    assert sum(t.correct for t in choose_traces(traces, 24)) == 10
    mostly_right = [t for t in traces if t.correct] + [t for t in traces if not t.correct][:2]
    assert len(choose_traces(mostly_right, 10)) == 10
    assert sum(not t.correct for t in choose_traces(mostly_right, 10)) == 2


def test_a_trace_without_a_prompt_is_refused(llama):
    trace = make_traces(1)[0]
    with pytest.raises(StageError, match="t0 has no prompt token"):
        measure_telemetry(llama, [Trace(**{**trace.__dict__, "prompt_ids": ()})])


def test_an_unknown_router_output_is_named():
    with pytest.raises(StageError, match=r"model\.layers\.2\.mlp returns \['Tensor', 'Tensor'\]"):
        read_router((torch.zeros(3, 4), torch.zeros(3, 2)), "model.layers.2.mlp")
    with pytest.raises(StageError, match="returns Tensor"):
        read_router(torch.zeros(3, 4), "gate")


def test_progress_ends_at_the_number_of_traces(llama):
    seen = []
    measure_telemetry(llama, make_traces(5), batch_size=2, tick=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
