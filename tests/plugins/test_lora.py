"""The trainer `dpo_lora` on a real small DeepSeek-V2 and a real small Llama."""

import dataclasses
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from m3i_lora.dpo_lora import DpoLora
from m3i_lora.placement import lora_config, place
from m3i_lora.shared_model import borrowed, fingerprints
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from small_models import EOS, byte_tokenizer, small_deepseek, small_llama, wrap
from tiers import first_quick
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from m3i.artifacts import (
    LayerSelection,
    PairOrigin,
    PreferencePair,
    PreferencePairs,
    ReferenceLogprobs,
)
from m3i.errors import ConfigError, StageError
from m3i.interfaces import TrainRequest, no_tick
from m3i.stages.reference import reference_logprobs

N_LAYERS = 4
MLA = ("self_attn.q_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj", "self_attn.o_proj")


def deepseek(**changes):
    sizes = {"initializer_range": 0.2, "num_hidden_layers": N_LAYERS}
    return wrap(small_deepseek(**sizes | changes), byte_tokenizer())


def llama():
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": N_LAYERS, "initializer_range": 0.2}
    return wrap(small_llama(seed=0, attention_dropout=0.3, **sizes), byte_tokenizer())


class Session:
    def __init__(self, loaded):
        self.info, self.loaded = loaded.info, loaded


def make_pairs(loaded, n=8):
    def ids(text):
        return (*loaded.encode_completion(text), EOS)

    made = []
    for i in range(n):
        chosen, rejected = f"it is {2 * i}", f"{2 * i + 1}, é perhaps"
        made.append(
            PreferencePair(
                problem_id=f"p{i}",
                prompt_ids=tuple(loaded.encode_prompt(f"{i}+{i}=?")),
                chosen_ids=ids(chosen),
                rejected_ids=ids(rejected),
                chosen_text=chosen,
                rejected_text=rejected,
                rejected_trace_id=f"p{i}.0",
                origin=PairOrigin.SAMPLED,
            )
        )
    return PreferencePairs(pairs=tuple(made))


def train(
    loaded, folder, *, layers=(1, 3), seed=0, pairs=None, zero_update=False, reference=None, tick=no_tick, **options
):
    pairs = pairs or make_pairs(loaded)
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"rank": 4, "alpha": 8, "batch_size": 4, "epochs": 2, "learning_rate": 1e-3}
    return DpoLora(**defaults | options).train(
        TrainRequest(
            target=Session(loaded),
            selection=LayerSelection(layers=layers, candidates=(1, 2, 3), reason="test", zero_update=zero_update),
            pairs=pairs,
            reference=reference or reference_logprobs(loaded, pairs, 4),
            seed=seed,
            folder=folder,
            tick=tick,
        )
    )


@pytest.fixture(params=["deepseek", pytest.param("llama", marks=pytest.mark.slow)])
def loaded(request):
    return {"deepseek": deepseek, "llama": llama}[request.param]()


def anatomy(model):
    """Everything about a model that another stage could notice."""
    return {
        "weights": fingerprints(model),
        "modules": [
            (name, type(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
            for name, m in model.named_modules()
        ],
        "parameters": [(name, id(p), p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        "buffers": [(name, id(b)) for name, b in model.named_buffers()],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "dropout": [getattr(m, "attention_dropout", None) for m in model.modules()],
        "attributes": {k: id(v) for k, v in vars(model).items() if k not in ("_modules", "_parameters", "_buffers")},
        "forward": "forward" in vars(model),
    }


PROBE = torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.no_grad():
        return model(PROBE).logits


def merged_logits(loaded, folder, adapter):
    """Logits of the base model with W + (alpha / r) B A in place of each trained weight, from the file alone."""
    state = load_file(folder / "adapter_model.safetensors")
    weights = dict(loaded.model.named_parameters())
    updated = {}
    for tensor in adapter.certificate.tensors:
        stem = tensor.name.removesuffix(".weight")
        a, b = (state[f"base_model.model.{stem}.lora_{x}.weight"] for x in "AB")
        update = 8 / 4 * b.double() @ a.double()
        assert update.norm().item() == pytest.approx(tensor.update_norm, rel=1e-6)
        updated[tensor.name] = weights[tensor.name] + update.float()
    with torch.no_grad():
        return torch.func.functional_call(loaded.model, updated, (PROBE,), tie_weights=True).logits


# -- what a good run leaves behind ------------------------------------------------------------


def test_every_factor_moves_and_nothing_else_does(loaded, tmp_path):
    before = anatomy(loaded.model)
    ticks = []
    adapter = train(loaded, tmp_path / "a", tick=lambda step, total: ticks.append((step, total)))
    certificate = adapter.certificate
    moe = loaded.info.n_experts > 0
    inner = (
        (*MLA, "mlp.gate") if moe else ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    )
    assert {t.name for t in certificate.tensors} == {f"model.layers.{i}.{n}.weight" for i in (1, 3) for n in inner}
    shapes = {name: tuple(p.shape) for name, p in loaded.model.named_parameters()}
    for tensor in certificate.tensors:
        assert (tensor.first_moved_b, tensor.first_moved_a) == (1, 2)
        assert tensor.update_norm > 0
        assert tensor.shape == shapes[tensor.name]
        assert tensor.n_trainable == 4 * sum(tensor.shape)
        assert tensor.name.startswith(f"model.layers.{tensor.layer}.")
    assert certificate.n_trainable == sum(t.n_trainable for t in certificate.tensors)
    assert certificate.n_frozen_tensors == len(loaded.model.state_dict())
    assert certificate.frozen_identical
    assert certificate.frozen_without_gradient
    assert not certificate.vacuous
    assert anatomy(loaded.model) == before
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_log_has_one_row_a_step(loaded, tmp_path):
    pairs = make_pairs(loaded)
    adapter = train(loaded, tmp_path / "a", pairs=pairs)
    assert [row["step"] for row in adapter.log] == [1, 2, 3, 4]
    assert all(
        set(row) == {"step", "loss", "reward_margin", "reward_accuracy", "grad_norm", "learning_rate"}
        for row in adapter.log
    )
    assert adapter.log[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert adapter.log[-1]["loss"] < adapter.log[0]["loss"]
    assert adapter.log[-1]["reward_margin"] > 0
    assert [row["learning_rate"] for row in adapter.log] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    tokens = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs.pairs)
    assert adapter.n_tokens == 2 * tokens
    assert adapter.train_time_s > 0


def test_the_folder_loads_with_peft_alone_and_gives_the_trained_logits(loaded, tmp_path):
    plain = logits(loaded.model)
    adapter = train(loaded, tmp_path / "a", epochs=6)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    merged = merged_logits(loaded, tmp_path / "a", adapter)
    tuned = PeftModel.from_pretrained(loaded.model, tmp_path / "a").eval()
    assert (logits(tuned) - plain).abs().max() > 0.01
    torch.testing.assert_close(logits(tuned), merged, atol=2e-4, rtol=0)


def test_training_twice_is_bit_identical_and_leaves_global_randomness_alone(loaded, tmp_path):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    first = train(loaded, tmp_path / "a")
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    second = train(loaded, tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.certificate == second.certificate
    assert first.log == second.log
    train(loaded, tmp_path / "c", seed=1)
    a, c = (load_file(tmp_path / x / "adapter_model.safetensors") for x in "ac")
    assert a.keys() == c.keys()
    assert not any(torch.equal(a[key], c[key]) for key in a)


def test_the_config_names_weights_exactly_even_where_peft_would_shorten(tmp_path):
    loaded = deepseek(num_hidden_layers=12)
    layers = tuple(range(1, 12, 2))  # 24 modules: more than the 20 from which PEFT looks for suffixes
    train(loaded, tmp_path / "a", layers=layers, epochs=1)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(f"model.layers.{i}.{n}" for i in layers for n in MLA)
    assert config["target_parameters"] == sorted(f"model.layers.{i}.mlp.gate.weight" for i in layers)
    assert config["base_model_name_or_path"] == "small deepseek_v2"
    tuned = PeftModel.from_pretrained(loaded.model, tmp_path / "a")
    trained = {int(n.split("layers.")[1].split(".")[0]) for n, _ in tuned.named_parameters() if "lora_" in n}
    assert trained == set(layers)


def test_a_sham_selection_writes_an_adapter_that_changes_nothing(loaded, tmp_path):
    before, plain = anatomy(loaded.model), logits(loaded.model)
    adapter = train(loaded, tmp_path / "a", zero_update=True)
    assert adapter.certificate.vacuous
    assert adapter.log == ()
    assert adapter.n_tokens == 0
    assert {t.update_norm for t in adapter.certificate.tensors} == {0.0}
    assert {(t.first_moved_a, t.first_moved_b) for t in adapter.certificate.tensors} == {(None, None)}
    assert anatomy(loaded.model) == before
    state = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert all((value == 0).all() == ("lora_B" in key) for key, value in state.items())
    assert torch.equal(logits(PeftModel.from_pretrained(loaded.model, tmp_path / "a").eval()), plain)


def test_training_is_silent_offline_and_writes_into_its_folder_alone(loaded, tmp_path, monkeypatch, capfd):
    import socket

    def refuse(*_):
        raise AssertionError("training opened a connection")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("CI", raising=False)  # with CI set TRL would not report by itself
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", refuse)
    train(loaded, tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_bfloat16_target_gets_a_float32_adapter(loaded, tmp_path):
    loaded.model.to(torch.bfloat16)
    adapter = train(loaded, tmp_path / "a")
    assert adapter.log[0]["loss"] == pytest.approx(math.log(2), abs=0.02)
    assert all((t.first_moved_b, t.first_moved_a) == (1, 2) for t in adapter.certificate.tensors)
    state = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


# -- the loss is TRL's ------------------------------------------------------------------------


def unmodified_trl(loaded, pairs, folder, **options):
    """TRL's own trainer on the same pairs as text: its tokenisation, its reference forward, its loss."""
    rows = {
        "prompt": ["".join(loaded.decode(p.prompt_ids)) for p in pairs.pairs],
        "chosen": [p.chosen_text for p in pairs.pairs],
        "rejected": [p.rejected_text for p in pairs.pairs],
    }
    arguments = DPOConfig(
        output_dir=str(folder), bf16=False, use_cpu=True, report_to="none", disable_tqdm=True, beta=0.1, **options
    )
    config = lora_config(place(loaded, (1, 3), ["auto"]), rank=4, alpha=8)
    return DPOTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=loaded.tokenizer,
        peft_config=config,
    )


def test_reference_logprobs_are_those_of_trl(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "1")  # TRL reports its use otherwise
    pairs = make_pairs(loaded)
    ours = reference_logprobs(loaded, pairs, batch_size=3)
    assert ours.chosen_P.dtype == ours.rejected_P.dtype == np.float32
    with borrowed(loaded.model, 0):
        theirs = unmodified_trl(loaded, pairs, tmp_path, precompute_ref_log_probs=True, precompute_ref_batch_size=8)
        columns = theirs.train_dataset
        assert columns["chosen_ids"][0] == list(pairs.pairs[0].chosen_ids)
        np.testing.assert_allclose(ours.chosen_P, columns["ref_chosen_logps"], rtol=2e-6)
        np.testing.assert_allclose(ours.rejected_P, columns["ref_rejected_logps"], rtol=2e-6)


def test_the_loss_and_its_gradient_are_those_of_unmodified_trl(loaded, tmp_path, monkeypatch):
    from m3i_lora.preference import build_trainer

    monkeypatch.setenv("CI", "1")  # TRL reports its use otherwise
    pairs = make_pairs(loaded)
    reference = reference_logprobs(loaded, pairs, 4)
    found = []
    for build in ("ours", "theirs"):
        with borrowed(loaded.model, 0):
            if build == "ours":
                options = DpoLora(rank=4, alpha=8, beta=0.1)
                config = lora_config(place(loaded, (1, 3), ["auto"]), rank=4, alpha=8)
                trainer = build_trainer(options, loaded, config, pairs, reference, seed=0, folder=tmp_path)
                batch = DataCollatorForPreference(pad_token_id=0)([trainer.train_dataset[i] for i in range(4)])
                assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(batch)
            else:
                trainer = unmodified_trl(loaded, pairs, tmp_path, gradient_checkpointing=False)
                batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
                assert "ref_chosen_logps" not in batch
            torch.manual_seed(9)  # a start away from B = 0, where every loss would be log 2
            for name, parameter in trainer.model.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(parameter, std=0.05)
            trainer.model.train()
            loss = trainer.compute_loss(trainer.model, batch)
            loss.backward()
            gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
            found.append((loss.item(), gradients, batch["input_ids"]))
    (our_loss, ours, our_ids), (their_loss, theirs, their_ids) = found
    assert torch.equal(our_ids, their_ids)
    assert abs(our_loss - math.log(2)) > 1e-3
    assert our_loss == pytest.approx(their_loss, rel=1e-6)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-7)


def test_the_stored_reference_is_used_and_no_other_computed(loaded, tmp_path):
    pairs = make_pairs(loaded)
    true = reference_logprobs(loaded, pairs, 4)
    shifted = ReferenceLogprobs(chosen_P=true.chosen_P + 3, rejected_P=true.rejected_P)
    forwards = []
    handle = loaded.model.model.register_forward_hook(lambda *_: forwards.append(1))
    adapter = train(loaded, tmp_path / "a", pairs=pairs, reference=shifted)
    handle.remove()
    # at the start the policy is the reference, so the margin is β (0 − 3) and the loss −log σ(−0.3)
    assert adapter.log[0]["reward_margin"] == pytest.approx(-0.3, abs=1e-5)
    assert adapter.log[0]["loss"] == pytest.approx(math.log(1 + math.exp(0.3)), abs=1e-5)
    assert len(forwards) == 4  # one a step


def test_nothing_is_cut(loaded, tmp_path):
    """Pairs longer than any default limit of TRL's could be: every token of every pair reaches the model."""
    from m3i_lora.preference import build_trainer

    pairs = make_pairs(loaded, n=4)
    long = dataclasses.replace(pairs.pairs[0], chosen_ids=(7,) * 1500, rejected_ids=(8,) * 1400)
    pairs = PreferencePairs(pairs=(long, *pairs.pairs[1:]))
    reference = ReferenceLogprobs(chosen_P=np.zeros(4, np.float32), rejected_P=np.zeros(4, np.float32))
    with borrowed(loaded.model, 0):
        config = lora_config(place(loaded, (1,), ["auto"]), rank=4, alpha=8)
        trainer = build_trainer(DpoLora(batch_size=4), loaded, config, pairs, reference, seed=0, folder=tmp_path)
        (batch,) = list(trainer.get_train_dataloader())
    prompt = 2 * sum(len(p.prompt_ids) for p in pairs.pairs)
    completions = sum(len(p.chosen_ids) + len(p.rejected_ids) for p in pairs.pairs)
    assert batch["attention_mask"].sum().item() == prompt + completions
    assert batch["completion_mask"].sum().item() == completions


# -- runs that must not pass ------------------------------------------------------------------


def assert_restored(loaded, before):
    assert anatomy(loaded.model) == before


def test_a_frozen_tensor_that_is_nudged_is_found(loaded, tmp_path):
    victim = loaded.model.model.norm.weight

    def nudge(module, inputs, output):
        with torch.no_grad():
            victim.mul_(1.0000002)

    handle = loaded.model.model.layers[0].register_forward_hook(nudge)
    with pytest.raises(StageError, match=r"changed 1 tensors outside the adapter, the first is model\.norm\.weight"):
        train(
            loaded,
            tmp_path / "a",
            reference=ReferenceLogprobs(chosen_P=np.zeros(8, np.float32), rejected_P=np.zeros(8, np.float32)),
        )
    handle.remove()


def unfreeze(module):
    module.weight.requires_grad_(True)


def test_a_frozen_tensor_with_a_gradient_is_found(loaded, tmp_path):
    before = anatomy(loaded.model)
    norm = loaded.model.model.norm
    handle = norm.register_forward_pre_hook(lambda module, inputs: unfreeze(module))
    with pytest.raises(StageError, match=r"training step 1: 1 tensors outside the adapter have a gradient"):
        train(loaded, tmp_path / "a", reference=zeros())
    handle.remove()
    assert_restored(loaded, before)


def zeros(n=8):
    return ReferenceLogprobs(chosen_P=np.zeros(n, np.float32), rejected_P=np.zeros(n, np.float32))


def test_a_gate_that_is_wrapped_but_inert_is_found(tmp_path):
    """A block that reads its router's weight from outside never runs PEFT's wrapper, though it counts as trainable."""
    loaded = deepseek()
    block = loaded.model.model.layers[3].mlp

    def forward(hidden_states):
        flat = hidden_states.view(-1, hidden_states.shape[-1])
        gate = block.gate.get_base_layer() if hasattr(block.gate, "get_base_layer") else block.gate
        scores = torch.nn.functional.linear(flat.float(), gate.weight.float()).softmax(-1)
        weights, chosen = scores.topk(gate.top_k, dim=-1)
        return block.experts(flat, chosen, weights).view(hidden_states.shape) + block.shared_experts(hidden_states)

    block.forward = forward
    pairs = make_pairs(loaded)
    reference = reference_logprobs(loaded, pairs, 4)
    before = anatomy(loaded.model)
    with pytest.raises(
        StageError, match=r"after training step 1, 1 of 20 .* lora_B of model\.layers\.3\.mlp\.gate\.weight"
    ):
        train(loaded, tmp_path / "a", pairs=pairs, reference=reference)
    assert_restored(loaded, before)


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(loaded, tmp_path):
    before = anatomy(loaded.model)
    reference = zeros()
    reference.chosen_P[:] = np.nan
    with pytest.raises(StageError, match=r"training step 1: the loss is nan; lower trainer\.learning_rate"):
        train(loaded, tmp_path / "a", reference=reference)
    assert_restored(loaded, before)


def test_a_loss_that_diverges_ends_the_run_too(loaded, tmp_path):
    with pytest.raises(StageError, match=r"training step \d+: (the loss is|the adapter of)"):
        train(loaded, tmp_path / "a", learning_rate=1e30, epochs=4)


def test_an_error_in_the_middle_gives_the_model_back(loaded, tmp_path):
    before, state = anatomy(loaded.model), torch.get_rng_state()

    def stop(step, total):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(loaded, tmp_path / "a", reference=zeros(), tick=stop)
    assert_restored(loaded, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_reference_logprobs_of_other_pairs_are_refused(loaded, tmp_path):
    with pytest.raises(StageError, match=r"8 pairs came with 7 reference log-probabilities"):
        train(loaded, tmp_path / "a", reference=zeros(7))


def test_too_few_steps_for_a_certificate_are_refused(loaded, tmp_path):
    with pytest.raises(ConfigError, match=r"8 pairs give too few optimizer steps \(1\): the certificate needs 2"):
        train(loaded, tmp_path / "a", batch_size=8, epochs=1)


# -- which weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["mla"], MLA),
        (["attention"], MLA),
        (["router"], ("mlp.gate",)),
        (["auto"], (*MLA, "mlp.gate")),
        (["mlp"], tuple(f"mlp.shared_experts.{n}_proj" for n in ("gate", "up", "down"))),
        (["self_attn.o_proj", "router", "router"], ("self_attn.o_proj", "mlp.gate")),
    ],
)
def test_groups_on_a_moe_layer(modules, expected):
    placement = place(deepseek(), (2,), modules)
    assert set(placement.weights) == {f"model.layers.2.{name}.weight" for name in expected}
    assert len(placement.weights) == len(expected)
    assert placement.notes == ()


@pytest.mark.parametrize("modules", first_quick([["self_attn.o_proj", "router"], ["mla"], ["router"], ["mlp"]]))
def test_groups_train_and_reload(modules, tmp_path):
    loaded = deepseek()
    adapter = train(loaded, tmp_path / "a", layers=(0, 3) if modules == ["mlp"] else (1, 3), modules=modules)
    names = {t.name for t in adapter.certificate.tensors}
    assert names == set(place(loaded, (0, 3) if modules == ["mlp"] else (1, 3), modules).weights)
    merged = merged_logits(loaded, tmp_path / "a", adapter)
    tuned = PeftModel.from_pretrained(loaded.model, tmp_path / "a").eval()
    assert sum(p.numel() for n, p in tuned.named_parameters() if "lora_" in n) == adapter.certificate.n_trainable
    torch.testing.assert_close(logits(tuned), merged, atol=2e-4, rtol=0)


def test_a_query_bottleneck_is_trained_in_both_halves(tmp_path):
    loaded = deepseek(q_lora_rank=24)
    adapter = train(loaded, tmp_path / "a", layers=(2,), modules=["mla"])
    inner = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    assert {t.name for t in adapter.certificate.tensors} == {f"model.layers.2.self_attn.{n}.weight" for n in inner}


def test_llama_groups():
    placement = place(llama(), (0, 2), ["attention", "mlp"])
    inner = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]
    assert set(placement.weights) == {f"model.layers.{i}.{n}.weight" for i in (0, 2) for n in inner}
    assert placement.parameters == ()


def test_auto_says_that_a_dense_layer_has_no_router(tmp_path):
    loaded = deepseek()
    adapter = train(loaded, tmp_path / "a", layers=(0, 1))
    assert adapter.certificate.notes == ("layers [0] are dense: no router to train there",)
    assert {t.name for t in adapter.certificate.tensors if "gate" in t.name} == {"model.layers.1.mlp.gate.weight"}


@pytest.mark.parametrize(
    ("make", "layers", "modules", "message"),
    [
        (deepseek, (2, 4), ["auto"], r"layers \[4\] cannot be trained: small deepseek_v2 has 4 layers, 0 to 3"),
        (deepseek, (-1,), ["auto"], r"layers \[-1\] cannot be trained"),
        (deepseek, (), ["auto"], "no layer was selected"),
        (deepseek, (0, 1), ["router"], "layer 0 of small deepseek_v2 is dense and has none"),
        (llama, (1,), ["router"], "asks for 'router', but small llama .* is not a mixture-of-experts model"),
        (llama, (1,), ["mla"], "asks for 'mla', but small llama .* has no multi-head latent attention"),
        (deepseek, (1,), ["self_attn.k_proj"], r"has no weight matrix 'self_attn\.k_proj'; it has self_attn\.q_proj"),
        (llama, (1,), ["mlp.act_fn"], "has no weight matrix"),
        (llama, (1,), ["input_layernorm.weight"], "has no weight matrix"),
    ],
)
def test_weights_that_are_not_there_are_refused(make, layers, modules, message, tmp_path):
    loaded = make()
    before = anatomy(loaded.model)
    with pytest.raises(ConfigError, match=message):
        train(loaded, tmp_path / "a", layers=layers, modules=modules)
    assert_restored(loaded, before)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_target_is_checked_from_its_facts_alone():
    DpoLora(modules=["mla", "router"]).check(deepseek().info)
    DpoLora().check(llama().info)
    with pytest.raises(ConfigError, match="no multi-head latent attention"):
        DpoLora(modules=["mla"]).check(llama().info)
    with pytest.raises(ConfigError, match="not a mixture-of-experts model"):
        DpoLora(modules=["auto", "router"]).check(llama().info)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"alpha": 0},
        {"beta": 0.0},
        {"learning_rate": 0.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"max_grad_norm": 0.0},
        {"modules": []},
        {"modules": ["mal"]},
    ],
)
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=rf"^trainer\.{next(iter(options))} = "):
        DpoLora(**options)


# -- DeepSeek-V2-Lite in its real shape ---------------------------------------------------------

LITE = Path(__file__).parents[2] / "plugins" / "m3i_hf" / "deepseek_v2_lite.json"


@pytest.mark.parametrize(("modules", "n_trainable"), [(["mla"], 1_315_840), (["auto"], 1_484_800)])
def test_parameter_counts_of_deepseek_v2_lite(modules, n_trainable):
    config = DeepseekV2Config.from_dict(json.loads(LITE.read_text()))
    with torch.device("meta"):
        model = DeepseekV2ForCausalLM(config)
    loaded = wrap(model)
    assert loaded.info.n_layers == 27
    placement = place(loaded, (6, 7, 8, 10, 13), modules)
    wrapped = get_peft_model(model, lora_config(placement, rank=16, alpha=32))
    trainable = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == n_trainable
    assert {int(name.split("layers.")[1].split(".")[0]) for name in trainable} == {6, 7, 8, 10, 13}
    assert wrapped.get_nb_trainable_parameters()[0] == n_trainable
