"""Attributors on models whose carrying layer is known, and against brute force."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from m3i_attribution.ablation import Ablation
from m3i_attribution.attribution_patching import AttributionPatching
from m3i_attribution.baselines import measure_baseline
from m3i_attribution.logit_lens import LogitLens, decompose
from m3i_attribution.votes import Votes
from small_models import small_deepseek, small_llama, wrap

from m3i.artifacts import Audit, Contrast, Finding, Trace
from m3i.errors import ConfigError, StageError
from m3i.interfaces import AttributionRequest

VOCABULARY = 40


def random_deepseek():
    model = small_deepseek(vocab_size=VOCABULARY, num_hidden_layers=5, attn_implementation="eager")
    torch.nn.init.normal_(model.model.norm.weight, mean=1.0, std=0.2)
    return wrap(model)


def random_llama():
    return wrap(small_llama(vocab_size=VOCABULARY, num_hidden_layers=4))


MODELS = {"deepseek": random_deepseek, "llama": random_llama}


@pytest.fixture(params=sorted(MODELS))
def loaded(request):
    return MODELS[request.param]()


def make_contrasts(n=6, seed=0):
    rng = np.random.default_rng(seed)
    contrasts = []
    for i in range(n):
        context = (1, *(int(x) for x in rng.integers(3, VOCABULARY, size=rng.integers(3, 10))))
        wrong, right = (int(x) for x in rng.choice(np.arange(3, VOCABULARY), size=2, replace=False))
        contrasts.append(
            Contrast(
                trace_id=f"t{i}",
                problem_id=f"p{i}",
                observer="checker",
                context_ids=context,
                wrong_id=wrong,
                right_id=right,
                position=2,
                origin="correction",
            )
        )
    return contrasts


def make_traces(n=12, correct=True):
    rng = np.random.default_rng(5)
    return [
        Trace(
            id=f"r{i}",
            problem_id=f"q{i}",
            sample=0,
            prompt_ids=(1, *(int(x) for x in rng.integers(3, VOCABULARY, size=3))),
            completion_ids=tuple(int(x) for x in rng.integers(3, VOCABULARY, size=7)),
            text="x" * 7,
            offsets=tuple((j, j + 1) for j in range(7)),
            logprobs=(0.0,) * 7,
            correct=correct,
            answer=None,
            truncated=True,
        )
        for i in range(n)
    ]


def request_for(loaded, contrasts, traces=(), audits=None):
    return AttributionRequest(
        target=SimpleNamespace(info=loaded.info, loaded=loaded),
        contrasts=contrasts,
        audits=audits or {},
        traces=traces,
        telemetry=None,
    )


def true_difference(loaded, contrast):
    """logit(wrong) − logit(right) of the plain, unbatched model."""
    with torch.no_grad():
        logits = loaded.model(torch.tensor([contrast.context_ids])).logits[0, -1]
    return float(logits[contrast.wrong_id] - logits[contrast.right_id])


def write_into(loaded, layer, contrast, size):
    """Makes one layer write W_U[wrong] − W_U[right] at every position, as a planted failure would."""
    rows = loaded.unembedding.weight
    push = rows[contrast.wrong_id] - rows[contrast.right_id]
    push = size * push / push.norm()

    def hook(module, args, output):
        return (output[0] + push, *output[1:]) if isinstance(output, tuple) else output + push

    return loaded.layers[layer].self_attn.register_forward_hook(hook)


ALL = [
    LogitLens(),
    LogitLens(component="attention"),
    *(
        cls(baseline=baseline, component=component, positions=positions)
        for cls in (AttributionPatching, Ablation)
        for baseline, component, positions in [
            ("zero", "layer", "contrast"),
            ("mean", "attention", "contrast"),
            ("mean", "layer", "all"),
            ("right_token", "layer", "contrast"),
        ]
    ),
]


@pytest.mark.parametrize("planted", [1, 3])
@pytest.mark.parametrize(
    "attributor",
    [
        LogitLens(),
        LogitLens(component="attention"),
        AttributionPatching(baseline="zero"),
        AttributionPatching(baseline="zero", component="attention"),
        Ablation(baseline="zero"),
        Ablation(baseline="zero", component="attention"),
    ],
    ids=lambda a: f"{type(a).__name__}-{a.component}",
)
def test_the_layer_that_writes_the_wrong_token_comes_first(loaded, attributor, planted):
    contrasts = make_contrasts(1)
    handle = write_into(loaded, planted, contrasts[0], size=20.0)
    values = attributor.attribute(request_for(loaded, contrasts)).values_NL
    handle.remove()
    assert values[0].argmax() == planted
    assert values[0, planted] > 2 * np.sort(values[0])[-2]


@pytest.mark.parametrize("attributor", [AttributionPatching(), Ablation()], ids=["patching", "ablation"])
@pytest.mark.parametrize("baseline", ["mean", "right_token"])
def test_a_push_at_the_contrast_alone_is_found_against_right_traces(loaded, attributor, baseline):
    """The planted layer pushes after one context token that no right trace contains."""
    contrast = make_contrasts(1)[0]
    traces = [t for t in make_traces(40) if contrast.context_ids[-1] not in (*t.prompt_ids, *t.completion_ids)]
    push = loaded.unembedding.weight[contrast.wrong_id] - loaded.unembedding.weight[contrast.right_id]
    seen = []

    def remember(module, args, kwargs):
        seen[:] = [kwargs.get("input_ids")]

    def hook(module, args, output):
        if seen[0] is None:  # attribution patching runs on embeddings: the contrast's context alone
            at = torch.zeros(output[0].shape[:2], dtype=torch.bool)
            at[:, len(contrast.context_ids) - 1] = True
        else:
            at = seen[0] == contrast.context_ids[-1]
        return (output[0] + 20 * at[..., None] * push / push.norm(), *output[1:])

    handles = [
        loaded.model.base_model.register_forward_pre_hook(remember, with_kwargs=True),
        loaded.layers[2].self_attn.register_forward_hook(hook),
    ]
    made = type(attributor)(baseline=baseline, min_count=1)
    values = made.attribute(request_for(loaded, [contrast], traces)).values_NL
    for handle in handles:
        handle.remove()
    assert values[0].argmax() == 2


def test_logit_lens_adds_up_to_the_real_logit_difference(loaded):
    contrasts = make_contrasts()
    parts = decompose(loaded, contrasts, batch_size=4)
    expected = [true_difference(loaded, c) for c in contrasts]
    np.testing.assert_allclose(parts.difference_N, expected, atol=1e-4)
    total = parts.bias_N + parts.embedding_N + parts.layers_NL.sum(axis=1)
    np.testing.assert_allclose(total, expected, atol=1e-4)
    branches = [decompose(loaded, contrasts, component).layers_NL for component in ("attention", "mlp")]
    np.testing.assert_allclose(branches[0] + branches[1], parts.layers_NL, atol=1e-4)


@pytest.mark.parametrize("component", ["layer", "attention", "mlp"])
@pytest.mark.parametrize("positions", ["contrast", "all"])
def test_ablation_equals_brute_force(loaded, component, positions):
    contrasts = make_contrasts()
    ablation = Ablation(baseline="zero", component=component, positions=positions, batch_size=4)
    values = ablation.attribute(request_for(loaded, contrasts)).values_NL
    for contrast, row in zip(contrasts, values, strict=True):
        intact = true_difference(loaded, contrast)
        length = len(contrast.context_ids)
        keep = torch.zeros(length, 1) if positions == "all" else torch.ones(length, 1)
        keep[0], keep[-1] = 1, 0
        for i, layer in enumerate(loaded.layers):
            if component == "layer":
                handle = layer.register_forward_hook(lambda m, a, out, keep=keep: a[0] + keep * (out - a[0]))
            elif component == "attention":
                handle = layer.self_attn.register_forward_hook(lambda m, a, out, keep=keep: (keep * out[0], *out[1:]))
            else:
                handle = layer.mlp.register_forward_hook(lambda m, a, out, keep=keep: keep * out)
            without = true_difference(loaded, contrast)
            handle.remove()
            assert row[i] == pytest.approx(intact - without, abs=1e-4)


@pytest.mark.parametrize(
    ("baseline", "component", "positions"),
    [("zero", "layer", "contrast"), ("mean", "attention", "all"), ("right_token", "mlp", "contrast")],
)
def test_patching_is_the_first_order_of_ablation(baseline, component, positions):
    loaded = random_deepseek()
    loaded.model.double()
    options = {"baseline": baseline, "component": component, "positions": positions, "min_count": 1}
    request = request_for(loaded, make_contrasts(), make_traces())
    gradient = AttributionPatching(**options).attribute(request).values_NL
    small = Ablation(**options, strength=1e-3).attribute(request).values_NL
    np.testing.assert_allclose(gradient, small, rtol=0.03, atol=0.01)
    assert np.abs(gradient).max() > 0.3
    # And not of the whole ablation: the test would otherwise prove nothing.
    whole = Ablation(**options).attribute(request).values_NL
    assert np.abs(gradient - whole).max() > 10 * np.abs(gradient - small).max()


def test_baselines_equal_plain_means(loaded):
    traces = make_traces(5)
    contrasts = make_contrasts(3)
    contrasts[0] = Contrast(**{**contrasts[0].__dict__, "right_id": traces[0].completion_ids[2]})
    baseline = measure_baseline(
        loaded, "right_token", "attention", contrasts, traces, n_traces=99, min_count=1, batch_size=2
    )
    written, classes = [], []
    for trace in traces:
        outputs = []
        handles = [
            layer.self_attn.register_forward_hook(lambda m, a, out, outputs=outputs: outputs.append(out[0][0]))
            for layer in loaded.layers
        ]
        with torch.no_grad():
            loaded.model(torch.tensor([[*trace.prompt_ids, *trace.completion_ids]]))
        for handle in handles:
            handle.remove()
        written.append(torch.stack(outputs)[:, len(trace.prompt_ids) - 1 : -1])
        classes += trace.completion_ids
    written = torch.cat(written, dim=1)
    torch.testing.assert_close(baseline.mean_LD, written.mean(dim=1), atol=1e-5, rtol=1e-4)
    here = torch.tensor(classes) == contrasts[0].right_id
    rows = baseline.at_contrasts("right_token", contrasts)
    torch.testing.assert_close(rows[0], written[:, here].mean(dim=1), atol=1e-5, rtol=1e-4)
    absent = [i for i, c in enumerate(contrasts) if c.right_id not in classes]
    for i in absent:
        torch.testing.assert_close(rows[i], baseline.mean_LD)


@pytest.mark.parametrize("attributor", ALL, ids=lambda a: f"{type(a).__name__}-{vars(a)}"[:80])
def test_batches_change_nothing_and_nothing_stays_behind(loaded, attributor):
    contrasts, traces = make_contrasts(), make_traces()
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    one = type(attributor)(**{**vars(attributor), "batch_size": 1}).attribute(request_for(loaded, contrasts, traces))
    many = type(attributor)(**{**vars(attributor), "batch_size": 16}).attribute(request_for(loaded, contrasts, traces))
    np.testing.assert_allclose(one.values_NL, many.values_NL, atol=2e-3)
    assert many.values_NL.shape == (6, len(loaded.layers))
    assert list(many.trace_ids) == [c.trace_id for c in contrasts]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in loaded.model.modules())
    assert all(p.grad is None for p in loaded.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("cls", [LogitLens, AttributionPatching, Ablation])
def test_the_same_question_of_two_observers_is_asked_once(loaded, cls):
    contrasts = make_contrasts(3)
    twice = [*contrasts, *(Contrast(**{**c.__dict__, "observer": "surprisal"}) for c in contrasts)]
    seen = []
    handle = loaded.layers[0].register_forward_hook(lambda m, a, out: seen.append(len(a[0])))
    options = {} if cls is LogitLens else {"baseline": "zero"}
    rows = cls(**options).attribute(request_for(loaded, twice))
    handle.remove()
    assert max(seen) == 3
    assert list(rows.observers) == ["checker"] * 3 + ["surprisal"] * 3
    np.testing.assert_array_equal(rows.values_NL[:3], rows.values_NL[3:])


def test_weights_with_gradients_on_get_none(loaded):
    loaded.model.requires_grad_(True)
    AttributionPatching(baseline="zero").attribute(request_for(loaded, make_contrasts(2)))
    assert all(p.grad is None for p in loaded.model.parameters())


def test_a_trained_sign_flips_with_wrong_and_right(loaded):
    contrasts = make_contrasts(3)
    swapped = [Contrast(**{**c.__dict__, "wrong_id": c.right_id, "right_id": c.wrong_id}) for c in contrasts]
    for attributor in (LogitLens(), AttributionPatching(baseline="zero"), Ablation(baseline="zero")):
        forth = attributor.attribute(request_for(loaded, contrasts)).values_NL
        back = attributor.attribute(request_for(loaded, swapped)).values_NL
        np.testing.assert_allclose(forth, -back, atol=1e-4)


@pytest.mark.parametrize("cls", [LogitLens, AttributionPatching, Ablation])
def test_no_contrast_gives_no_row(loaded, cls):
    rows = cls().attribute(request_for(loaded, []))
    assert rows.values_NL.shape == (0, len(loaded.layers))


@pytest.mark.parametrize("cls", [AttributionPatching, Ablation])
def test_a_baseline_without_right_traces_is_an_error(loaded, cls):
    with pytest.raises(StageError, match="baseline 'mean' averages over correct traces, but there are none"):
        cls().attribute(request_for(loaded, make_contrasts(1), make_traces(correct=False)))


def test_logit_lens_refuses_a_norm_that_is_not_linear_when_frozen():
    loaded = random_llama()
    loaded.model.model.norm = torch.nn.LayerNorm(48, bias=True)
    torch.nn.init.normal_(loaded.model.model.norm.bias)
    with pytest.raises(ConfigError, match="needs a final RMSNorm; LayerNorm"):
        LogitLens().attribute(request_for(loaded, make_contrasts(2)))


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (LogitLens, {"component": "head"}, "component = 'head': expected layer, attention or mlp"),
        (LogitLens, {"batch_size": 0}, "batch_size = 0"),
        (Ablation, {"baseline": "noise"}, "baseline = 'noise'"),
        (Ablation, {"positions": "some"}, "positions = 'some'"),
        (Ablation, {"strength": 0.0}, "strength = 0.0"),
        (Ablation, {"baseline_traces": 0}, "baseline_traces = 0"),
        (Ablation, {"min_count": 0}, "min_count = 0"),
        (AttributionPatching, {"baseline": "right_token", "positions": "all"}, "zero or mean with positions=all"),
    ],
)
def test_bad_options_are_named(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls(**options)


def finding(trace_id, layers):
    return Finding(
        trace_id=trace_id, quote="x", start=0, end=1, token_start=0, token_end=1, kind="k", reason="r", layers=layers
    )


def test_votes_count_what_observers_name():
    info = SimpleNamespace(n_layers=5)
    audits = {
        "surprisal": Audit(
            observer="surprisal",
            findings=(finding("a", (1, 2)), finding("a", (2, 9)), finding("b", (0,))),
            audited=("a", "b"),
        ),
        "checker": Audit(observer="checker", findings=(finding("a", ()),), audited=("a", "b")),
    }
    request = AttributionRequest(
        target=SimpleNamespace(info=info), contrasts=(), audits=audits, traces=(), telemetry=None
    )
    rows = Votes().attribute(request)
    assert list(zip(rows.observers, rows.trace_ids, strict=True)) == [("surprisal", "a"), ("surprisal", "b")]
    np.testing.assert_allclose(rows.values_NL, [[0, 0.5, 1, 0, 0], [1, 0, 0, 0, 0]])
    assert rows.left_out == {"surprisal: a named layer does not exist": 1, "checker: names no layer": 1}
