"""llama.cpp in a subprocess: log-probabilities, sampling, crashes; and held-out answers."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from m3i_gguf.convert import FileType, convert
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, PreTrainedTokenizerFast

from m3i.artifacts import Problem, TargetInfo, Verification
from m3i.config.settings import EvaluateSettings
from m3i.errors import ConfigError, InputError
from m3i.models.llamacpp.sampling import Sampler, keep_likely
from m3i.models.llamacpp.session import LlamaCrashed, LlamaFailed, LlamaSession, Sampling, quantize, sampling_seed
from m3i.models.target import LoadedTarget
from m3i.stages.answer import answer_held_out

SPECIAL = ["<pad>", "<bos>", "<eos>"]


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A small random DeepSeek-V2 in both runtimes, with its GGUF file."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = DeepseekV2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        num_attention_heads=4,
        q_lora_rank=None,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=32,
        n_group=None,
        topk_group=None,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = DeepseekV2ForCausalLM(config).eval().requires_grad_(False)
    model.set_experts_implementation("eager")
    info = TargetInfo(
        name="mini",
        revision="0",
        architecture="DeepseekV2ForCausalLM",
        family="none",
        n_layers=3,
        n_parameters=1,
        n_active=1,
    )
    loaded = LoadedTarget(info=info, model=model, tokenizer=tokenizer, stop_ids=(2,))
    path = tmp_path_factory.mktemp("mini") / "mini.gguf"
    convert(loaded, path, FileType.F32)
    return SimpleNamespace(loaded=loaded, path=path)


def token_ids(n, seed=0):
    return np.random.default_rng(seed).integers(3, 259, size=n).tolist()


def reference(mini, ids):
    logits = mini.loaded.model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, dim=-1).numpy()


# -- log-probabilities ------------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [1, 40, 600])  # 600: more than one batch
def test_logprobs_equal_transformers(mini, n_tokens):
    ids = token_ids(n_tokens)
    expected = reference(mini, ids)
    with LlamaSession(mini.path, n_ctx=600) as session:
        assert session.n_vocab == 259
        found = session.logprobs(ids)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 2e-4
        start = n_tokens * 9 // 10
        assert np.array_equal(session.logprobs(ids, start=start), found[start:])
        chosen = np.random.default_rng(1).integers(0, 259, size=(n_tokens - start, 5))
        picked = session.logprobs(ids, start=start, chosen_TK=chosen)
        assert np.array_equal(picked, np.take_along_axis(found[start:], chosen, axis=1))


@pytest.mark.parametrize("start", [0, 37, 520])
def test_router_logits_equal_transformers(mini, start):
    ids = token_ids(600)
    seen = []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _m, _i, out: seen.append(out[0].numpy()))
        for layer in mini.loaded.model.model.layers[1:]
    ]
    expected = reference(mini, ids)
    for hook in hooks:
        hook.remove()
    with LlamaSession(mini.path, n_ctx=600, trace_routing=True) as session:
        measured = session.measure(ids, start=start)
    assert measured.routers_MTE.shape == (2, 600 - start, 8)
    assert np.abs(measured.routers_MTE - np.stack(seen)[:, start:]).max() < 1e-4
    assert np.abs(measured.logprobs - expected[start:]).max() < 2e-4


def test_wrong_requests_are_refused_before_llama_cpp(mini):
    with LlamaSession(mini.path, n_ctx=256) as session:
        with pytest.raises(ConfigError, match="sequence of 300 tokens: the context holds 256"):
            session.logprobs(token_ids(300))
        with pytest.raises(ConfigError, match="start = 4"):
            session.logprobs([3, 4, 5, 6], start=4)
        with pytest.raises(ConfigError, match="prompt and completion of 260 tokens"):
            session.generate(token_ids(250), max_new_tokens=10, seed=0, stop_ids=[2])
        with pytest.raises(ConfigError, match="2 seeds for 1 prompts"):
            session.generate_many([[3]], max_new_tokens=1, seeds=[0, 1], stop_ids=[2])
        with pytest.raises(ConfigError, match="a prompt has no tokens"):
            session.generate([], max_new_tokens=1, seed=0, stop_ids=[2])
        assert session.generate_many([], max_new_tokens=1, seeds=[], stop_ids=[2]) == []
    with pytest.raises(RuntimeError, match="outside its `with` block"):
        session.logprobs([3])
    with pytest.raises(ConfigError, match="n_threads = 0"):
        LlamaSession(mini.path, n_threads=0)
    with pytest.raises(ConfigError, match="kv_type = 'q4'"):
        LlamaSession(mini.path, kv_type="q4")


# -- generation -------------------------------------------------------------------------------

PROMPTS = [token_ids(n, seed=n) for n in (3, 17, 9, 30, 5, 12, 21, 8, 14, 26, 4)]
SEEDS = [sampling_seed(0, f"p{i}") for i in range(len(PROMPTS))]


def generate(mini, prompts=PROMPTS, seeds=SEEDS, n_parallel=1, max_new_tokens=24, **sampling):
    with LlamaSession(mini.path, n_ctx=256, n_parallel=n_parallel) as session:
        return session.generate_many(
            prompts, max_new_tokens=max_new_tokens, seeds=seeds, stop_ids=[2, 7, 8], sampling=Sampling(**sampling)
        )


@pytest.mark.parametrize("n_parallel", [3, 8])
def test_answers_do_not_depend_on_the_batch(mini, n_parallel):
    alone = generate(mini, temperature=1.0, top_p=0.95)
    assert generate(mini, n_parallel=n_parallel, temperature=1.0, top_p=0.95) == alone
    backwards = generate(mini, PROMPTS[::-1], SEEDS[::-1], n_parallel, temperature=1.0, top_p=0.95)
    assert backwards[::-1] == alone
    assert len({g.ids for g in alone}) == len(alone)
    assert generate(mini, seeds=[s + 1 for s in SEEDS], temperature=1.0, top_p=0.95) != alone


def test_stop_tokens_and_limits(mini):
    for generation in generate(mini, temperature=1.5):
        assert generation.truncated == (generation.ids[-1] not in (2, 7, 8))
        assert all(token not in (2, 7, 8) for token in generation.ids[:-1])
        assert len(generation.ids) == 24 or not generation.truncated
    assert [len(g.ids) for g in generate(mini, max_new_tokens=1)] == [1] * len(PROMPTS)


def test_greedy_is_the_most_likely_token(mini):
    for prompt, generation in zip(PROMPTS[:3], generate(mini, PROMPTS[:3], SEEDS[:3], temperature=0.0), strict=True):
        ids = [*prompt, *generation.ids]
        best = reference(mini, ids).argmax(axis=-1)
        assert list(generation.ids) == best[len(prompt) - 1 : -1].tolist()


def test_seed_is_a_fact_of_problem_and_generation():
    assert sampling_seed(0, "a") == sampling_seed(0, "a")
    assert len({sampling_seed(s, p) for s in range(20) for p in "abcdef"}) == 120
    assert all(0 <= sampling_seed(s, "x") < 2**63 for s in range(20))


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p"])
def test_sampling_values(name):
    with pytest.raises(ConfigError, match=rf"{name} = -1"):
        Sampling(**{name: -1})


# -- the sampler, without a model -------------------------------------------------------------

LOGITS = np.log([0.4, 0.3, 0.15, 0.1, 0.05])


def sampler(seed, **changes):
    request = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "grammar": None, **changes}
    return Sampler(request, seed, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"temperature": 0.5}, np.array([0.16, 0.09, 0.0225, 0.01, 0.0025]) / 0.285),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({"top_p": 0.75}, np.array([0.4, 0.3, 0.15, 0, 0]) / 0.85),
        ({"min_p": 0.3}, np.array([0.4, 0.3, 0.15, 0, 0]) / 0.85),
    ],
)
def test_draws_follow_the_distribution(changes, expected):
    one = sampler(11, **changes)
    counts = np.bincount([one.draw(LOGITS) for _ in range(4000)], minlength=5)
    expected = np.asarray(expected)
    assert not counts[expected == 0].any()
    assert chisquare(counts[expected > 0], 4000 * expected[expected > 0]).pvalue > 1e-3


def test_filters_keep_at_least_one():
    assert np.isfinite(keep_likely(LOGITS, top_k=1, top_p=1e-9, min_p=0.99)).tolist() == [True] + [False] * 4
    assert np.array_equal(keep_likely(LOGITS, top_k=99, top_p=1.0, min_p=0.0), LOGITS)


def test_noise_depends_on_seed_and_position_alone():
    """Two models that differ only slightly draw the same tokens nearly always, whatever was drawn before."""
    rng = np.random.default_rng(0)
    before, after = sampler(3), sampler(3)
    same = 0
    for _ in range(500):
        logits = rng.normal(size=50)
        same += before.draw(logits) == after.draw(logits + rng.normal(size=50) * 0.01)
    assert 480 <= same < 500
    other = sampler(4)
    again = sampler(3)
    assert [again.draw(np.zeros(50)) for _ in range(20)] != [other.draw(np.zeros(50)) for _ in range(20)]


def test_grammar(mini):
    with LlamaSession(mini.path, n_ctx=256) as session:
        texts = {
            session.detokenize(
                session.generate(
                    PROMPTS[0],
                    max_new_tokens=20,
                    seed=seed,
                    stop_ids=[],
                    grammar='root ::= ("yes" | "no") [0-9]+ "."',
                    sampling=Sampling(temperature=0.7),
                ).ids
            )
            for seed in range(5)
        }
        assert len(texts) > 1
        assert all(re.fullmatch(r"(yes|no)[0-9]+(\.|[0-9]*)", text) for text in texts)
        with pytest.raises(LlamaFailed, match="the grammar cannot be parsed"):
            session.generate([3], max_new_tokens=1, seed=0, stop_ids=[], grammar="root ::= (")
        assert session.generate([3], max_new_tokens=1, seed=0, stop_ids=[]).ids


# -- reusing a prefix ---------------------------------------------------------------------------

STEM = token_ids(200, seed=99)
FAMILY = [STEM + token_ids(50, seed=1), STEM + token_ids(30, seed=2), STEM[:100] + token_ids(80, seed=3), STEM[:64]]
"""Prompts that share their beginnings."""


def generated(session, prompt, **changes):
    arguments = {"max_new_tokens": 20, "seed": 5, "stop_ids": [2], "sampling": Sampling(temperature=0.0)}
    return session.generate(prompt, **{**arguments, **changes})


def test_a_shared_prefix_is_evaluated_once(mini):
    with LlamaSession(mini.path, n_ctx=512) as session:
        found = [generated(session, prompt, reuse_prefix=True) for prompt in FAMILY]
        # whole chunks of 64: 3 of 200 shared tokens, 1 of 100, and none of 64, as the last token is always evaluated
        assert [g.n_evaluated for g in found] == [250, 230 - 192, 180 - 64, 64]
        again = [generated(session, FAMILY[3], reuse_prefix=True) for _ in range(2)]
        assert [g.n_evaluated for g in again] == [64, 64]
        plain = [generated(session, prompt) for prompt in FAMILY]
        assert [g.n_evaluated for g in plain] == [len(prompt) for prompt in FAMILY]
    assert [g.ids for g in found] == [g.ids for g in plain]
    assert again[0] == again[1] == found[3]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_was_asked_before_does_not_change_a_reply(mini, temperature):
    how = {"sampling": Sampling(temperature=temperature), "reuse_prefix": True}
    alone = []
    for prompt in FAMILY:
        with LlamaSession(mini.path, n_ctx=512) as session:
            alone.append(generated(session, prompt, **how).ids)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 3, 0]):
        with LlamaSession(mini.path, n_ctx=512) as session:
            assert [generated(session, FAMILY[i], **how).ids for i in order] == [alone[i] for i in order]


def test_a_cache_made_otherwise_is_not_reused(mini):
    with LlamaSession(mini.path, n_ctx=512, n_parallel=2) as session:
        assert generated(session, FAMILY[0], reuse_prefix=True).n_evaluated == 250
        expected = generated(session, FAMILY[1], reuse_prefix=True)
        assert expected.n_evaluated == 38
        for between in (
            lambda: generated(session, FAMILY[0]),
            lambda: session.logprobs(FAMILY[0]),
            lambda: session.generate_many(FAMILY[:2], max_new_tokens=2, seeds=[0, 1], stop_ids=[2]),
            lambda: session.load(mini.path),
        ):
            between()
            after = generated(session, FAMILY[1], reuse_prefix=True)
            assert after.n_evaluated == 230
            assert after.ids == expected.ids


# -- the process ------------------------------------------------------------------------------


def test_worker_imports_no_torch():
    code = "import m3i.models.llamacpp.worker, sys; "
    code += "print([m for m in ('torch', 'transformers', 'gguf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_session_is_light():
    code = "import m3i.models.llamacpp.session, m3i.stages.answer, sys; "
    code += "print([m for m in ('torch', 'llama_cpp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_crash_is_an_error(mini):
    with LlamaSession(mini.path) as session:
        os.kill(session._process.pid, signal.SIGKILL)
        with pytest.raises(LlamaCrashed, match=r"signal SIGKILL during 'logprobs' of model .*mini\.gguf"):
            session.logprobs([3, 4])
    with LlamaSession(mini.path) as session:
        assert session.logprobs([3, 4]).shape == (2, 259)


def test_an_assertion_in_llama_cpp_is_an_error(mini):
    """Token ids that the model lacks reach llama.cpp's own checks; whatever these do, the session says it."""
    with (
        LlamaSession(mini.path) as session,
        pytest.raises((LlamaCrashed, LlamaFailed), match=r"mini\.gguf.*(invalid token|last output)"),
    ):
        session.logprobs([3, 99999])


def test_files_that_cannot_be_loaded(mini, tmp_path):
    with pytest.raises(InputError, match=r"absent\.gguf: no such file"), LlamaSession(tmp_path / "absent.gguf"):
        pass
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(range(200)))
    with pytest.raises(LlamaFailed, match=r"garbage\.gguf"), LlamaSession(garbage):
        pass
    with pytest.raises((LlamaFailed, LlamaCrashed), match=r"mini\.gguf with adapter .*garbage\.gguf"):
        LlamaSession(mini.path, adapter=garbage).__enter__()
    with LlamaSession(mini.path) as session:
        with pytest.raises(LlamaFailed):
            session.load(garbage)
        session.load(mini.path)  # the process lives on
        assert session.logprobs([3]).shape == (1, 259)
    with pytest.raises((LlamaFailed, LlamaCrashed), match=r"quantize of model .*garbage\.gguf"):
        quantize(garbage, tmp_path / "out.gguf", ftype=15)


# -- held-out answers -------------------------------------------------------------------------


class ContainsSeven:
    """A source whose problems are answered by any completion with a 7 in it."""

    libraries = ()

    def draw(self):
        return (), ()

    def verify(self, problem, completion):
        return Verification(correct="7" in completion, answer="7" if "7" in completion else None)


PROBLEMS = [Problem(id=f"p{i}", prompt=f"{i}+{i * 3}=?", answer="7") for i in range(11)]
EVALUATE = {field.name for field in dataclasses.fields(EvaluateSettings)}
EVALUATE = {field.name for field in dataclasses.fields(EvaluateSettings)}


def answers(mini, **changes):
    arguments = {
        "model": mini.path,
        "adapter": None,
        "problems": PROBLEMS,
        "source": ContainsSeven(),
        "loaded": dataclasses.replace(mini.loaded, stop_ids=(2,)),
    }
    options = {"seeds": [0, 1], "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "n_ctx": 64}
    own = {name: value for name, value in changes.items() if name in EVALUATE}
    rest = {name: value for name, value in changes.items() if name not in EVALUATE}
    return answer_held_out(**{**arguments, **rest}, settings=EvaluateSettings(**{**options, **own}))


def test_answers_are_reproducible_and_verified(mini):
    ticks = []
    first = answers(mini, tick=lambda done, total: ticks.append((done, total)))
    assert [(a.problem_id, a.seed) for a in first.answers] == [(p.id, s) for s in (0, 1) for p in PROBLEMS]
    assert ticks[-1] == (22, 22)
    for answer in first.answers:
        assert answer.text == mini.loaded.decode(answer.completion_ids)
        assert answer.correct == ("7" in answer.text)
        assert (answer.answer == "7") == answer.correct
        assert answer.truncated == (answer.completion_ids[-1] != 2)
    assert first.n_threads == 1
    assert first.time_s > 0
    again = answers(mini, processes=2)
    assert again.answers == first.answers
    one_seed = answers(mini, seeds=[1], problems=PROBLEMS[::-1])
    assert {a.problem_id: a for a in one_seed.answers} == {a.problem_id: a for a in first.answers if a.seed == 1}


def test_prompt_that_does_not_fit(mini):
    long = Problem(id="long", prompt="1+" * 40, answer="7")
    words = r"evaluate.n_ctx = 64 is too small: problem long needs 93 tokens, 81 of them for its prompt"
    with pytest.raises(ConfigError, match=words):
        answers(mini, problems=[*PROBLEMS, long])
