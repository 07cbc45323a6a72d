"""Conversion to GGUF, graft, llama.cpp adapters and the certificate, on small random models in real llama.cpp."""

import copy
import dataclasses
import json
from dataclasses import replace
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from m3i_gguf import architectures, certificate, routing
from m3i_gguf.adapter import AdapterFile, applied
from m3i_gguf.architectures import ARCHITECTURES, halve, interleave
from m3i_gguf.convert import FileType, convert, expected_tensors, tensor_types
from m3i_gguf.exporting import BaseType
from m3i_gguf.gguf_adapter import GGUFAdapter
from m3i_gguf.gguf_graft import GGUFGraft, GraftCarrier
from m3i_gguf.graft import Graft, GraftType
from m3i_gguf.layout import GGUFFile, count_identical
from m3i_gguf.probes import PeftModelProbe, pick
from m3i_gguf.twin import file_values, is_narrow, write_twin
from m3i_gguf.updates import live_share, read_updates
from m3i_gguf.vocabulary import pre_tokenizer, vocabulary
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import byte_tokenizer, small_deepseek, small_llama, wrap
from tiers import first_quick
from tokenizers import Tokenizer, models
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    PreTrainedTokenizerFast,
)

from m3i.artifacts import Adapter, BaseModel, LayerSelection, Trace, TrainingCertificate
from m3i.errors import ConfigError, DeadTensorError, InputError, StageError
from m3i.interfaces import ExportRequest
from m3i.models.llamacpp.session import LlamaFailed, LlamaSession

MLA = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj")
LAYERS = (1, 2)
TRAINING = TrainingCertificate(
    tensors=(), n_trainable=0, n_frozen_tensors=0, frozen_identical=True, frozen_without_gradient=True
)


class Session:
    """A target within a run."""

    def __init__(self, loaded):
        self.loaded = loaded
        self.info = loaded.info


TOKENIZER = byte_tokenizer()
N_VOCAB = len(TOKENIZER)


def target(model, **info):
    return Session(wrap(model, TOKENIZER, **info))


def deepseek(**changes):
    sizes = {
        "intermediate_size": 128,
        "qk_nope_head_dim": 32,  # as wide as the latent: a k_b that is not transposed fits too
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "n_group": None,
        "topk_group": None,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    return target(small_deepseek(router_std=None, **sizes | changes))


def llama(**changes):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512, "tie_word_embeddings": False}
    model = small_llama(seed=0, **sizes | changes)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return target(model)


def traces(n=3, length=40):
    rng = np.random.default_rng(3)
    found = []
    for i in range(n):
        ids = tuple(int(t) for t in rng.integers(3, N_VOCAB, size=length))
        found.append(
            Trace(
                id=str(i),
                problem_id=str(i),
                sample=0,
                prompt_ids=ids[:10],
                completion_ids=ids[10:],
                text="",
                offsets=(),
                logprobs=(),
                correct=True,
                answer=None,
                truncated=False,
            )
        )
    return found


PROBES = traces()


def train(session, folder, modules, *, router=False, layers=LAYERS, scale=0.02, **config):
    """An adapter as PEFT saves it, with random B; the target itself stays as it is."""
    wrapped = get_peft_model(
        copy.deepcopy(session.loaded.model),
        LoraConfig(
            r=4,
            lora_alpha=8,
            lora_dropout=0.0,
            target_modules=[f"model.layers.{i}.self_attn.{m}" for i in layers for m in modules],
            target_parameters=[f"layers.{i}.mlp.gate.weight" for i in layers] if router else None,
            **config,
        ),
    )
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    folder.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(folder)
    return Adapter(folder=folder, certificate=TRAINING, log=())


def make_base(exporter, session, folder):
    folder.mkdir(parents=True, exist_ok=True)
    return replace(exporter.export_base(session, PROBES, folder), folder=folder)


def request(session, base, adapter, folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return ExportRequest(
        target=session,
        base=base,
        adapter=adapter,
        selection=LayerSelection(layers=LAYERS, candidates=LAYERS, reason="test", **changes),
        probes=PROBES,
        folder=folder,
    )


@dataclasses.dataclass
class Arm:
    session: Session
    base: BaseModel
    adapter: Adapter


@pytest.fixture(scope="module")
def mla(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mla")
    session = deepseek()
    adapter = train(session, folder / "adapter", MLA, router=True)
    return Arm(session, make_base(GGUFGraft(), session, folder / "base"), adapter)


@pytest.fixture(scope="module")
def gqa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gqa")
    session = llama()
    adapter = train(session, folder / "adapter", LLAMA)
    return Arm(session, make_base(GGUFGraft(), session, folder / "base"), adapter)


# -- conversion -------------------------------------------------------------------------------

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS = {
    "deepseek2": (deepseek, {}),
    "deepseek2 with a query bottleneck, tied, scaled": (
        deepseek,
        {"q_lora_rank": 24, "tie_word_embeddings": True, "routed_scaling_factor": 2.5},
    ),
    "deepseek2 with yarn": (deepseek, {"rope_parameters": YARN}),
    "deepseek2 of 27 layers": (deepseek, {"num_hidden_layers": 27, "hidden_size": 32}),
    "llama": (llama, {}),
    "llama with biases": (llama, {"attention_bias": True, "mlp_bias": True}),
    "llama with wide heads, tied": (llama, {"head_dim": 32, "tie_word_embeddings": True}),
    "llama with Llama 3's frequencies": (llama, {"rope_parameters": LLAMA3}),
    "llama with linear scaling": (
        llama,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_base_equals_transformers(name, tmp_path):
    make, changes = VARIANTS[name]
    base = make_base(GGUFGraft(), make(**changes), tmp_path)
    assert base.parity["rms"] < 1e-5
    assert base.parity["n_tokens"] == sum(len(trace.completion_ids) for trace in PROBES)
    assert set(base.tensor_types) == {"F32"}


@pytest.mark.parametrize(("base_type", "kinds", "parity"), [("f16", "F16", 0.01), ("q8_0", "Q8_0", 0.1)])
def test_narrower_bases(base_type, kinds, parity, tmp_path):
    base = make_base(GGUFGraft(base_type=BaseType(base_type)), llama(), tmp_path)
    assert base.tensor_types == {"F32": 7, kinds: 23}
    assert 0 < base.parity["rms"] < parity


def test_q8_0_falls_back_where_rows_do_not_divide(tmp_path):
    path = tmp_path / "narrow.gguf"
    convert(deepseek(v_head_dim=12).loaded, path, FileType.Q8_0)
    file = GGUFFile(path)
    assert file.tensors["blk.1.attn_output.weight"].kind.name == "F16"  # rows of 4 x 12
    assert file.tensors["blk.1.attn_q.weight"].kind.name == "Q8_0"
    assert file.tensors["blk.1.ffn_gate_inp.weight"].kind.name == "F32"


def test_k_quants_at_width_256(tmp_path):
    session = deepseek(hidden_size=256, kv_lora_rank=256, intermediate_size=256, num_hidden_layers=2)
    path = tmp_path / "k.gguf"
    convert(session.loaded, path, FileType.Q4_K_M)
    file = GGUFFile(path)
    assert file.tensors["blk.1.attn_q.weight"].kind.name == "Q4_K"  # rows of 256
    assert file.tensors["blk.1.attn_output.weight"].kind.name != "Q4_K"  # rows of 64: llama.cpp falls back
    assert file.tensors["blk.1.ffn_gate_inp.weight"].kind.name == "F32"
    assert sum(tensor_types(path).values()) == len(file.tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["k.gguf"]
    with LlamaSession(path) as llama_cpp:
        assert llama_cpp.metadata()["general.file_type"] == "15"


def test_parity_out_of_bounds_stops(tmp_path):
    with pytest.raises(StageError, match=r"disagree on the base model base.gguf .* bound is 1e-05"):
        make_base(GGUFGraft(base_type=BaseType.q8_0, max_parity=1e-5), llama(), tmp_path)


def test_own_gguf_is_the_base(tmp_path):
    session = llama()
    own = tmp_path / "own.gguf"
    convert(session.loaded, own, FileType.Q8_0)
    with_own = target(session.loaded.model, files={"gguf": str(own)})
    base = make_base(GGUFGraft(), with_own, tmp_path / "base")
    assert base.file() == own
    assert list((tmp_path / "base").iterdir()) == []
    assert set(base.tensor_types) == {"F32", "Q8_0"}
    converted = make_base(GGUFGraft(base_type=BaseType.f32), with_own, tmp_path / "converted")
    assert converted.path == "base.gguf"


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("Qwen2ForCausalLM", {}, "Qwen2ForCausalLM cannot be exported to GGUF"),
        ("DeepseekV2ForCausalLM", {"norm_topk_prob": True}, "norm_topk_prob = True"),
        ("DeepseekV2ForCausalLM", {"attention_bias": True}, "attention_bias = True"),
        ("DeepseekV2ForCausalLM", {"topk_method": "group_limited_greedy", "n_group": 4}, "topk_method"),
        ("DeepseekV2ForCausalLM", {"q_lora_rank": 8, "num_hidden_layers": 27}, "q_lora_rank = 8"),
        ("DeepseekV2ForCausalLM", {"rope_parameters": {**YARN, "mscale": 1.0}}, "mscale = mscale_all_dim"),
        ("DeepseekV2ForCausalLM", {"rope_parameters": LLAMA3}, "rope_type default or yarn"),
        ("LlamaForCausalLM", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("LlamaForCausalLM", {"rope_parameters": {**YARN}}, "rope_type default, linear, llama3"),
    ],
)
def test_refuses_before_work(architecture, changes, message, tmp_path):
    info = replace(deepseek().info, architecture=architecture)
    info = replace(info, config={**info.config, **changes})

    class Unloadable(Session):
        def __init__(self):
            self.info = info

    with pytest.raises(ConfigError, match=message):
        GGUFGraft().export_base(Unloadable(), PROBES, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite(tmp_path):
    session = llama()
    session.loaded.model.model.layers[1].mlp.up_proj.weight[3, 5] = float("nan")
    with pytest.raises(StageError, match=r"model.layers.1.mlp.up_proj.weight holds values that are not finite"):
        convert(session.loaded, tmp_path / "nan.gguf", FileType.F32)


V2_LITE = {
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_shared_experts": 2,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "first_k_dense_replace": 1,
    "norm_topk_prob": False,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "max_position_embeddings": 163840,
    "rope_parameters": {**YARN, "factor": 40, "original_max_position_embeddings": 4096},
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def v2_lite():
    with torch.device("meta"):
        return DeepseekV2ForCausalLM(DeepseekV2Config(**V2_LITE))


def v2_lite_tensors():
    """What llama.cpp's loader asks for (src/models/deepseek2.cpp), in numpy's order."""
    yield from {
        "token_embd.weight": (102400, 2048),
        "output_norm.weight": (2048,),
        "output.weight": (102400, 2048),
    }.items()
    for i in range(27):
        layer = {
            "attn_norm": (2048,),
            "ffn_norm": (2048,),
            "attn_q": (16 * 192, 2048),
            "attn_kv_a_mqa": (576, 2048),
            "attn_kv_a_norm": (512,),
            "attn_k_b": (16, 512, 128),
            "attn_v_b": (16, 128, 512),
            "attn_output": (2048, 2048),
        }
        if i == 0:
            layer |= {"ffn_gate": (10944, 2048), "ffn_up": (10944, 2048), "ffn_down": (2048, 10944)}
        else:
            layer |= {
                "ffn_gate_inp": (64, 2048),
                "ffn_gate_exps": (64, 1408, 2048),
                "ffn_up_exps": (64, 1408, 2048),
                "ffn_down_exps": (64, 2048, 1408),
                "ffn_gate_shexp": (2816, 2048),
                "ffn_up_shexp": (2816, 2048),
                "ffn_down_shexp": (2048, 2816),
            }
        yield from ((f"blk.{i}.{name}.weight", shape) for name, shape in layer.items())


def test_v2_lite_names_and_shapes(v2_lite):
    assert expected_tensors(v2_lite, "DeepseekV2ForCausalLM") == dict(v2_lite_tensors())


def test_v2_lite_metadata(v2_lite):
    keys = ARCHITECTURES["DeepseekV2ForCausalLM"].metadata(v2_lite.config.to_dict())
    assert "attention.q_lora_rank" not in keys  # 27 layers: llama.cpp reads none
    wanted = {
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.head_count_kv": 1,
        "rope.dimension_count": 64,
        "leading_dense_block_count": 1,
        "expert_used_count": 6,
        "rope.scaling.original_context_length": 4096,
    }
    assert {key: keys[key] for key in wanted} == wanted
    assert keys["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)


@pytest.mark.parametrize(("router", "total", "share"), [(False, 1_315_840, 0.249), (True, 1_484_800, 0.334)])
def test_v2_lite_share_of_an_adapter(v2_lite, router, total, share):
    wanted = [f"self_attn.{module}" for module in MLA] + (["mlp.gate"] if router else [])
    shapes = {name: tuple(parameter.shape) for name, parameter in v2_lite.named_parameters()}
    n_trainable = {
        name: 16 * sum(shapes[name])
        for i in (6, 7, 8, 10, 13)
        for m in wanted
        for name in [f"model.layers.{i}.{m}.weight"]
    }
    assert sum(n_trainable.values()) == total
    live = {name for name in n_trainable if applied("deepseek2", name)}
    assert live_share(n_trainable, live) == pytest.approx(share, abs=0.0005)


@pytest.mark.parametrize("make", [deepseek, llama])
def test_join_inverts_pieces(make):
    session = make()
    architecture = ARCHITECTURES[session.info.architecture]
    for name, parameter in session.loaded.model.named_parameters():
        weight = parameter.numpy()
        tensors = [piece.take(weight) for piece in architecture.pieces(session.info.config, name)]
        assert np.array_equal(architecture.join(session.info.config, name, tensors), weight)


def test_interleave():
    rows = np.arange(8)  # one head of 8: halves (0..3) and (4..7)
    assert interleave(rows, 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert interleave(rows, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert halve(interleave(rows, 2), 2).tolist() == rows.tolist()


# -- vocabulary -------------------------------------------------------------------------------


@pytest.mark.parametrize("merges", [(), (("a", "b"), ("ab", "c"))])
def test_llama_cpp_tokenises_alike(merges, tmp_path):
    tokenizer = byte_tokenizer(merges)
    session = llama(vocab_size=N_VOCAB + 5)
    session.loaded.tokenizer = tokenizer
    path = tmp_path / "words.gguf"
    convert(session.loaded, path, FileType.F32)
    with LlamaSession(path) as llama_cpp:
        for text in ("abc ab  a\n\n12+34=46 don't", "é 日本 <eos>x"):
            ids = tokenizer(text)["input_ids"]
            assert llama_cpp.tokenize(text, add_special=True) == ids
            assert llama_cpp.detokenize(ids[1:], special=True) == text
        assert llama_cpp.n_vocab == N_VOCAB + 5
        assert llama_cpp.end_ids == (2,)
        assert llama_cpp.metadata()["tokenizer.ggml.pre"] == "gpt-2"


def test_vocabulary_rejects_what_it_cannot_write():
    with pytest.raises(ConfigError, match=f"has id {N_VOCAB - 1}, the model's embedding only 10 rows"):
        vocabulary(TOKENIZER, 10)
    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)))
    with pytest.raises(ConfigError, match="a Unigram tokenizer cannot be exported"):
        vocabulary(unigram, 10)


def test_pre_tokenizers():
    assert pre_tokenizer({"type": "ByteLevel", "use_regex": True}) == "gpt-2"
    digits = {"type": "Digits", "individual_digits": True}
    assert pre_tokenizer({"type": "Sequence", "pretokenizers": [digits, {"type": "ByteLevel"}]}) == "smollm"
    assert pre_tokenizer({"type": "Whitespace"}) == "default"


# -- updates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True}, {"alpha_pattern": {"o_proj": 3}, "rank_pattern": {"q_proj": 2}}]
)
def test_updates_equal_peft(config, tmp_path):
    session = deepseek()
    adapter = train(session, tmp_path, MLA, router=True, **config)
    updates = read_updates(adapter.folder)
    wrapped = PeftModel.from_pretrained(copy.deepcopy(session.loaded.model), adapter.folder)
    layers = {n: m for n, m in wrapped.named_modules() if "get_delta_weight" in dir(m) and "lora_A" in dir(m)}
    assert len(updates) == len(layers) == 10
    for name, module in layers.items():
        update = updates[name.removeprefix("base_model.model.") + ".weight"]
        assert np.allclose(update.delta(), module.get_delta_weight("default").detach().numpy(), atol=1e-7)
        assert update.n_trainable == sum(p.numel() for n, p in module.named_parameters() if "lora_" in n)


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("bias", "all"), ("peft_type", "IA3")])
def test_updates_refuse_other_adapters(key, value, gqa, tmp_path):
    config = json.loads((gqa.adapter.folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, key: value}))
    (tmp_path / "adapter_model.safetensors").write_bytes(
        (gqa.adapter.folder / "adapter_model.safetensors").read_bytes()
    )
    with pytest.raises(ConfigError, match=f"the adapter has {key}"):
        read_updates(tmp_path)


def test_updates_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"adapter_config.json does not exist"):
        read_updates(tmp_path)


# -- graft ------------------------------------------------------------------------------------


def test_graft_of_mla_and_router_is_live(mla, tmp_path):
    before = {name: p.clone() for name, p in mla.session.loaded.model.named_parameters()}
    export = GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path))
    found = export.certificate
    assert {t.name for t in found.tensors} == {
        f"model.layers.{i}.{m}.weight" for i in LAYERS for m in ("mlp.gate", *(f"self_attn.{m}" for m in MLA))
    }
    assert all(t.live and t.relative_error < 0.01 and t.llama_norm > 100 * found.base_parity_rms for t in found.tensors)
    assert found.together.live
    assert found.together.relative_error < 0.01
    assert found.together.factor == 1.0
    assert (found.live_share, found.passed, found.vacuous) == (1.0, True, False)
    # q, kv_a, k_b, v_b, o and the router of two layers
    assert (found.identical_tensors, found.n_tensors) == (len(GGUFFile(mla.base.file()).tensors) - 12, len(before) + 7)
    after = dict(mla.session.loaded.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and not after[name].requires_grad for name in before)
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.gguf"]


def test_graft_holds_the_merged_weights(mla, tmp_path):
    GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path))
    merged = PeftModel.from_pretrained(copy.deepcopy(mla.session.loaded.model), mla.adapter.folder).merge_and_unload()
    whole = tmp_path / "merged.gguf"
    convert(target(merged).loaded, whole, FileType.F32)
    ours, theirs, base = (GGUFFile(path) for path in (tmp_path / "tuned.gguf", whole, mla.base.file()))
    changed = set()
    for name in base.tensors:
        assert np.allclose(ours.values(name), theirs.values(name), atol=1e-6)
        if ours.raw(name) != base.raw(name):
            changed.add(name)
    suffixes = ("attn_q", "attn_kv_a_mqa", "attn_k_b", "attn_v_b", "attn_output", "ffn_gate_inp")
    assert changed == {f"blk.{i}.{suffix}.weight" for i in LAYERS for suffix in suffixes}
    assert ours.metadata_bytes() == base.metadata_bytes()


def test_graft_on_llama_with_grouped_queries(gqa, tmp_path):
    found = GGUFGraft().export(request(gqa.session, gqa.base, gqa.adapter, tmp_path)).certificate
    assert len(found.tensors) == 8
    assert all(t.live and t.relative_error < 0.01 for t in found.tensors)


def test_sham_is_byte_identical_and_vacuous(mla, tmp_path):
    zero = train(mla.session, tmp_path / "zero", MLA, router=True, scale=0.0)
    export = GGUFGraft().export(request(mla.session, mla.base, zero, tmp_path / "out", zero_update=True))
    assert (tmp_path / "out" / "tuned.gguf").read_bytes() == mla.base.file().read_bytes()
    assert export.certificate.vacuous
    assert export.certificate.live_share == 0.0
    assert export.certificate.identical_tensors == export.certificate.n_tensors
    with pytest.raises(StageError, match="every update of the adapter is exactly zero"):
        GGUFGraft().export(request(mla.session, mla.base, zero, tmp_path / "trained"))
    with pytest.raises(StageError, match="asks for a zero update"):
        GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path / "sham", zero_update=True))


def break_architecture(monkeypatch, name, split):
    monkeypatch.setitem(ARCHITECTURES, name, replace(ARCHITECTURES[name], split=split))


def test_k_b_that_is_not_transposed_is_found(mla, tmp_path, monkeypatch):
    right = architectures._split_deepseek2

    def wrong(config, parameter):
        pieces = right(config, parameter)
        if len(pieces) == 2 and "kv_b" in parameter:
            (k_name, k), v = pieces
            return (k_name, lambda w: k(w).swapaxes(1, 2)), v
        return pieces

    break_architecture(monkeypatch, "DeepseekV2ForCausalLM", wrong)
    with pytest.raises(DeadTensorError, match=r"2 of 10 trained tensors") as error:
        GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path))
    assert str(error.value).count("kv_b_proj") == 2
    assert "q_proj" not in str(error.value)


def test_q_and_k_rows_that_are_not_permuted_are_found(gqa, tmp_path, monkeypatch):
    break_architecture(monkeypatch, "LlamaForCausalLM", lambda _config, name: ((name, architectures.whole),))
    with pytest.raises(DeadTensorError, match=r"4 of 8 trained tensors") as error:
        GGUFGraft().export(request(gqa.session, gqa.base, gqa.adapter, tmp_path))
    assert [str(error.value).count(f"{m}_proj") for m in "qkvo"] == [2, 2, 0, 0]


class Dropping(GraftCarrier):
    """A graft that forgets one tensor."""

    dropped = "model.layers.2.mlp.gate.weight"

    def lay(self, factors):
        super().lay({name: factor for name, factor in factors.items() if name != self.dropped})


class Doubling(GraftCarrier):
    """A graft whose tensors are right alone and wrong together."""

    def lay(self, factors):
        super().lay(factors if len(factors) < 2 else {name: 2 * factor for name, factor in factors.items()})


def test_dropped_tensor_is_found(mla, tmp_path, monkeypatch):
    monkeypatch.setattr("m3i_gguf.gguf_graft.GraftCarrier", Dropping)
    with pytest.raises(
        DeadTensorError, match=r"1 of 10 trained tensors .* would be evaluated:\n  model.layers.2.mlp.gate"
    ):
        GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path / "stop"))
    export = GGUFGraft(allow_dead=True).export(request(mla.session, mla.base, mla.adapter, tmp_path / "go"))
    dead = next(t for t in export.certificate.tensors if t.name == Dropping.dropped)
    assert (dead.live, dead.llama_norm, dead.relative_error) == (False, 0.0, 1.0)
    assert export.certificate.live_share == pytest.approx(
        1 - dead.n_trainable / sum(t.n_trainable for t in export.certificate.tensors)
    )
    assert "1 of 10 trained tensors are dead" in export.certificate.note
    base, tuned = GGUFFile(mla.base.file()), GGUFFile(tmp_path / "go" / "tuned.gguf")
    assert base.raw("blk.2.ffn_gate_inp.weight") == tuned.raw("blk.2.ffn_gate_inp.weight")


def test_wrong_together_is_found(mla, tmp_path, monkeypatch):
    monkeypatch.setattr("m3i_gguf.gguf_graft.GraftCarrier", Doubling)
    with pytest.raises(StageError, match="the export does not carry the adapter"):
        GGUFGraft().export(request(mla.session, mla.base, mla.adapter, tmp_path))


def test_base_of_another_model_is_refused(mla, gqa, tmp_path):
    other = make_base(GGUFGraft(), deepseek(kv_lora_rank=64), tmp_path / "base")
    with pytest.raises(ConfigError, match="belong to different models"):
        GGUFGraft().export(request(mla.session, other, mla.adapter, tmp_path / "shape"))
    with pytest.raises(ConfigError, match=r"has no tensor blk.1.ffn_gate_inp.weight"):
        GGUFGraft().export(request(mla.session, gqa.base, mla.adapter, tmp_path / "name"))


def test_small_update_is_measured_larger(gqa, tmp_path):
    small = train(gqa.session, tmp_path / "adapter", LLAMA, scale=2e-7)
    found = GGUFGraft().export(request(gqa.session, gqa.base, small, tmp_path / "out")).certificate
    assert all(t.live and t.factor > 1 and "times the update" in t.note for t in found.tensors)
    assert found.together.factor > 1
    assert "too small to stand out from parity noise" in found.together.note


def test_update_under_half_a_step_of_f16_is_reported(gqa, tmp_path):
    small = train(gqa.session, tmp_path / "adapter", LLAMA, scale=1e-5)
    halved = GGUFGraft(base_type=BaseType.f16, graft_type=GraftType.keep)
    base = make_base(halved, gqa.session, tmp_path / "base")
    with pytest.raises(DeadTensorError, match=r"[4-9]\d\.\d% of the update is under half a step of its type, stored"):
        halved.export(request(gqa.session, base, small, tmp_path / "kept"))
    wide = GGUFGraft(base_type=BaseType.f16).export(request(gqa.session, base, small, tmp_path / "wide")).certificate
    assert all(t.ggml_type == "F32 (base F16)" and t.erased_share < 0.02 for t in wide.tensors)


def test_loss_of_a_type(gqa, tmp_path):
    updates = read_updates(gqa.adapter.folder)
    name = "model.layers.1.self_attn.o_proj.weight"
    path = tmp_path / "base.gguf"
    convert(gqa.session.loaded, path, FileType.F16)
    base = GGUFFile(path)
    kept = Graft(
        base, ARCHITECTURES["LlamaForCausalLM"], gqa.session.info.config, updates, tmp_path / "t.gguf", GraftType.f16
    )
    weight, delta = base.values("blk.1.attn_output.weight"), updates[name].delta()
    under = np.abs(delta) < np.abs(np.spacing(weight.astype(np.float16)).astype(np.float32)) / 2
    assert kept.loss(name).erased_share == pytest.approx(under[delta != 0].mean(), abs=0.002)
    kept.lay({name: 1.0})
    assert np.array_equal(
        GGUFFile(tmp_path / "t.gguf").values("blk.1.attn_output.weight"), (weight + delta).astype(np.float16)
    )
    assert count_identical(base, tmp_path / "t.gguf") == (len(base.tensors) - 1, len(base.tensors))


@pytest.mark.parametrize("base_type", first_quick(["q8_0", "f16", "q4_k_m"]))
def test_graft_over_narrower_bases(base_type, mla, tmp_path):
    exporter = GGUFGraft(base_type=BaseType(base_type))
    base = make_base(exporter, mla.session, tmp_path / "base")
    before = {name: p.clone() for name, p in mla.session.loaded.model.named_parameters()}
    found = exporter.export(request(mla.session, base, mla.adapter, tmp_path / "out")).certificate
    assert all(t.live for t in found.tensors)
    assert found.together.live
    assert found.identical_tensors >= found.n_tensors - 12
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tuned.gguf"]
    after = dict(mla.session.loaded.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "F32 twin" in found.note
    assert found.in_file is not None
    assert found.in_file.relative_error > found.together.relative_error
    assert f"{found.in_file.relative_error:.0%} off PEFT's" in found.note
    assert found.base_parity_rms < base.parity["rms"] / 20  # sharper than the kernels that it keeps out


def test_without_a_twin_the_file_itself_is_measured(gqa, tmp_path):
    exporter = GGUFGraft(base_type=BaseType.f16, twin=False)
    base = make_base(exporter, gqa.session, tmp_path / "base")
    found = exporter.export(request(gqa.session, base, gqa.adapter, tmp_path / "out")).certificate
    assert all(t.live for t in found.tensors)
    assert "twin" not in found.note
    assert found.in_file is None
    assert found.base_parity_rms > 1e-5


def test_twin_without_room(gqa, tmp_path, monkeypatch):
    exporter = GGUFGraft(base_type=BaseType.f16)
    base = make_base(exporter, gqa.session, tmp_path / "base")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StageError, match=r"F32 twin of base.gguf temporarily needs .* exporter.twin=false"):
        exporter.export(request(gqa.session, base, gqa.adapter, tmp_path / "out"))


def test_twin_has_the_same_values(mla, tmp_path):
    path = tmp_path / "q.gguf"
    convert(mla.session.loaded, path, FileType.Q8_0)
    base = GGUFFile(path)
    twin = write_twin(base, tmp_path / "twin.gguf")
    assert is_narrow(base)
    assert not is_narrow(twin)
    assert all(np.array_equal(base.values(name), twin.values(name)) for name in base.tensors)
    assert twin.metadata_bytes() == base.metadata_bytes()
    architecture = ARCHITECTURES["DeepseekV2ForCausalLM"]
    model = mla.session.loaded.model
    own = model.model.layers[1].self_attn.q_proj.weight.clone()
    with file_values(mla.session.loaded, architecture, mla.session.info.config, base) as n_other:
        assert n_other > 30
        inside = model.model.layers[1].self_attn.q_proj.weight.numpy()
        assert np.array_equal(inside, base.values("blk.1.attn_q.weight"))
    assert torch.equal(model.model.layers[1].self_attn.q_proj.weight, own)


# -- llama.cpp adapter ------------------------------------------------------------------------


def test_adapter_on_deepseek_names_the_dead(mla, tmp_path):
    with pytest.raises(DeadTensorError) as error:
        GGUFAdapter().export(request(mla.session, mla.base, mla.adapter, tmp_path / "stop"))
    message = str(error.value)
    assert "6 of 10 trained tensors" in message
    assert all(
        f"layers.{i}.self_attn.{m}.weight" in message
        for i in LAYERS
        for m in ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj")
    )
    assert "o_proj" not in message
    assert "mlp.gate" not in message
    assert "exporter.allow_dead=true" in message
    export = GGUFAdapter(allow_dead=True).export(request(mla.session, mla.base, mla.adapter, tmp_path / "go"))
    found = export.certificate
    assert (export.model_path, export.adapter_path) == (None, "adapter.gguf")
    live = {t.name for t in found.tensors if t.live}
    assert live == {t.name for t in found.tensors if applied("deepseek2", t.name)}
    assert found.live_share == pytest.approx(live_share({t.name: t.n_trainable for t in found.tensors}, live))
    assert 0 < found.live_share < 0.5
    assert found.together.live
    assert found.together.n_trainable == sum(t.n_trainable for t in found.tensors if t.live)
    names = {t.name for t in gguf.GGUFReader(tmp_path / "go" / "adapter.gguf").tensors}
    assert names == {
        f"blk.{i}.{m}.weight.lora_{f}" for i in LAYERS for m in ("attn_output", "ffn_gate_inp") for f in "ab"
    }


def test_adapter_on_llama_is_live(gqa, tmp_path):
    export = GGUFAdapter().export(request(gqa.session, gqa.base, gqa.adapter, tmp_path))
    assert export.certificate.live_share == 1.0
    assert export.certificate.together.relative_error < 0.01
    ids = list(PROBES[0].prompt_ids + PROBES[0].completion_ids)
    grafted = GGUFGraft().export(request(gqa.session, gqa.base, gqa.adapter, tmp_path / "graft"))
    with LlamaSession(gqa.base.file(), adapter=tmp_path / "adapter.gguf") as llama_cpp:
        by_adapter = llama_cpp.logprobs(ids)
        llama_cpp.load(tmp_path / "graft" / grafted.model_path)
        assert np.allclose(by_adapter, llama_cpp.logprobs(ids), atol=1e-4)
        llama_cpp.load(gqa.base.file())
        assert np.abs(by_adapter - llama_cpp.logprobs(ids)).max() > 0.01


def test_sham_adapter_is_no_file(gqa, tmp_path):
    zero = train(gqa.session, tmp_path / "zero", LLAMA, scale=0.0)
    export = GGUFAdapter().export(request(gqa.session, gqa.base, zero, tmp_path / "out", zero_update=True))
    assert (export.model_path, export.adapter_path, export.certificate.vacuous) == (None, None, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_adapter_of_another_model_is_an_error_not_a_death(gqa, tmp_path):
    updates = read_updates(gqa.adapter.folder)
    file = AdapterFile(
        GGUFFile(gqa.base.file()),
        ARCHITECTURES["LlamaForCausalLM"],
        gqa.session.info.config,
        updates,
        tmp_path / "a.gguf",
    )
    file.lay(dict.fromkeys(updates, 1.0))
    other = make_base(GGUFGraft(), llama(hidden_size=128, head_dim=16), tmp_path / "other")
    with pytest.raises(StageError, match=r"a\.gguf"), LlamaSession(other.file(), adapter=tmp_path / "a.gguf"):
        pass


# -- certificate ------------------------------------------------------------------------------


def test_disagreeing_readers_are_found(mla, tmp_path):
    updates = read_updates(mla.adapter.folder)
    missing = updates.pop("model.layers.1.mlp.gate.weight")
    base = GGUFFile(mla.base.file())
    graft = Graft(
        base,
        ARCHITECTURES["DeepseekV2ForCausalLM"],
        mla.session.info.config,
        updates,
        tmp_path / "t.gguf",
        GraftType.f32,
    )
    with (
        PeftModelProbe(mla.session.loaded, mla.adapter.folder).opened() as peft,
        pytest.raises(StageError, match=f"read different tensors from the adapter: {missing.parameter}"),
    ):
        certificate.certify(
            peft,
            updates,
            GraftCarrier(graft, updates, described=graft),
            base.path,
            pick(PROBES, 1),
            max_relative_error=0.1,
        )


def test_zero_tensor_among_trained_ones_is_dead(gqa, tmp_path):
    folder = tmp_path / "adapter"
    adapter = train(gqa.session, folder, LLAMA)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"].zero_()
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(DeadTensorError, match=r"1 of 8 trained tensors(.|\n)*layers.1.self_attn.v_proj.*exactly zero"):
        GGUFGraft().export(request(gqa.session, gqa.base, adapter, tmp_path / "out"))


def test_flips_are_near_ties_only():
    # two layers, three tokens, three experts, one used
    reference = np.array(
        [[[2.0, 1.0, 0.0], [1.0, 0.999, 0.0], [1.0, 0.999, 0.0]], [[3.0, 0.0, 1.0]] * 3], dtype=np.float32
    )
    other = reference.copy()
    other[0, 0] = [1.0, 2.0, 0.0]  # a clear choice that came out otherwise: no flip but an error
    other[0, 1] = [0.999, 1.0, 0.0]  # a near-tie
    other[1, 1] = [0.0, 3.0, 1.0]  # and its consequence one layer up
    assert routing.flips(reference, other, 1, noise=0.001).tolist() == [False, True, False]
    assert routing.flips(reference, reference, 1, noise=0.001).tolist() == [False] * 3
    assert routing.flips(np.zeros((0, 3, 0)), np.zeros((0, 3, 0)), 0, noise=0.0).tolist() == [False] * 3


def test_tokens_after_a_flip_are_left_out_unless_too_few_remain():
    flips = np.array([False, True, False, False, False, False])
    assert routing.left_out(flips, [4, 2]).tolist() == [False, True, True, True, False, False]
    early = np.array([True, False, False, False, True, False])
    assert routing.left_out(early, [4, 2]).tolist() == early.tolist()


def test_router_noise():
    reference = np.zeros((1, 3, 4))
    other = np.array([[[1.0, -1, 1, -1], [6.0, 4, 6, 4], [50.0, 0, 0, 0]]])  # 5 is common to all experts, 50 an outlier
    assert routing.router_noise(reference, other) == pytest.approx(1.0)
    assert routing.router_noise(np.zeros((0, 3, 0)), np.zeros((0, 3, 0))) == 0.0


def test_flips_in_real_runtimes_are_counted(tmp_path):
    """A router with two equal rows ties at every token: rounding decides, in each runtime by itself."""
    session = deepseek()
    gate = session.loaded.model.model.layers[1].mlp.gate
    gate.weight[1] = gate.weight[0] * (1 + 1e-7)
    base = make_base(GGUFGraft(base_type=BaseType.f16), session, tmp_path / "base")
    assert base.parity["rms"] < 0.05
    assert base.parity["router_noise"] > 0


def test_pick_needs_a_trace():
    with pytest.raises(StageError, match="no trace has a prompt and a completion"):
        pick([], 3)
    assert [probe.start for probe in pick(PROBES, 2)] == [9, 9]
    assert len(pick(PROBES, 9)) == len(PROBES)


def test_garbage_base_is_an_error_not_a_death(mla, tmp_path):
    broken = tmp_path / "base.gguf"
    broken.write_bytes(mla.base.file().read_bytes()[:-4096])
    with pytest.raises(LlamaFailed, match=r"base\.gguf"), LlamaSession(broken):
        pass


def test_base_fields_are_what_makes_the_base():
    assert GGUFGraft(n_probes=9, allow_dead=True).base_fields() == GGUFAdapter().base_fields()
    assert GGUFGraft(base_type=BaseType.f16).base_fields() != GGUFGraft().base_fields()
