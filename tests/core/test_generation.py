"""The trace stage: sampling on a real small DeepSeek-V2, and the user's own traces."""

import json
import re

import numpy as np
import pytest
import torch
from small_models import EOS, byte_tokenizer, small_deepseek, wrap
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from m3i.artifacts import Problem, TargetInfo, Verification
from m3i.config.settings import TraceSettings
from m3i.errors import ConfigError, InputError
from m3i.models.generation import character_offsets, completion_logprobs, draw_tokens, sample_noise
from m3i.models.target import LoadedTarget
from m3i.stages.trace import read_traces, sample_traces


class ContainsSeven:
    """A source whose problems are answered by any completion with a 7 in it."""

    libraries = ()

    def draw(self):
        return PROBLEMS, ()

    def verify(self, problem, completion):
        found = re.search("7", completion)
        return Verification(correct=found is not None, answer="7" if found else None)


PROBLEMS = tuple(
    Problem(id=f"p{i}", prompt=prompt, answer="7")
    for i, prompt in enumerate(["3+4=?\n", "12+3-8=?\n", "7=?\n", "1*7=?\n"])
)


@pytest.fixture(scope="module")
def loaded():
    # a random model seldom draws the end of sequence: a few bytes stop it too
    return wrap(small_deepseek(), byte_tokenizer(), name="small", stop_ids=(EOS, 5, 6, 7, 8, 9, 10, 11))


def sample(loaded, problems=PROBLEMS, **changes):
    options = {"samples": 3, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24, "batch_size": 12, "seed": 0}
    tick = {"tick": changes.pop("tick")} if "tick" in changes else {}
    return sample_traces(loaded, problems, ContainsSeven(), TraceSettings(**options | changes), **tick).traces


def test_traces_are_whole_and_in_order(loaded):
    ticks = []
    traces = sample(loaded, tick=lambda done, total: ticks.append((done, total)))
    assert [(t.problem_id, t.sample) for t in traces] == [(p.id, s) for p in PROBLEMS for s in range(3)]
    assert ticks[-1] == (12, 12)
    assert ticks == sorted(ticks)
    assert {t.truncated for t in traces} == {True, False}
    for trace in traces:
        assert list(trace.prompt_ids) == loaded.encode_prompt(PROBLEMS[int(trace.problem_id[1:])].prompt)
        assert len(trace.completion_ids) == len(trace.logprobs) == len(trace.offsets)
        assert trace.truncated == (trace.completion_ids[-1] not in loaded.stop_ids)
        assert len(trace.completion_ids) == 24 or not trace.truncated
        assert not set(trace.completion_ids[:-1]) & set(loaded.stop_ids)
        assert trace.text == loaded.decode(trace.completion_ids)
        assert trace.correct == ("7" in trace.text)


def test_logprobs_of_sampling_are_those_of_a_whole_forward_pass(loaded):
    traces = sample(loaded, temperature=0.7, top_p=0.9)
    again = completion_logprobs(loaded, [(t.prompt_ids, t.completion_ids) for t in traces], batch_size=5)
    for trace, logprobs in zip(traces, again, strict=True):
        np.testing.assert_allclose(trace.logprobs, logprobs, atol=2e-5)


def test_completion_logprobs_are_the_log_softmax_of_one_row_alone(loaded):
    rows = [([1, 40, 50], [60, 70, EOS]), ([1, 41], [80] * 9), ([1, 42, 43, 44, 45], [90])]
    results = completion_logprobs(loaded, rows, batch_size=3)
    for (prompt, completion), logprobs in zip(rows, results, strict=True):
        ids = torch.tensor([prompt + completion])
        table = loaded.model(ids).logits[0].log_softmax(-1)
        expected = [table[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion)]
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_do_not_change_the_traces(loaded, batch_size):
    ids = [t.completion_ids for t in sample(loaded)]
    assert ids == [t.completion_ids for t in sample(loaded, batch_size=batch_size)]
    reverse = sample(loaded, problems=PROBLEMS[::-1], batch_size=batch_size)
    assert sorted(ids) == sorted(t.completion_ids for t in reverse)


def test_seed_and_sample_change_the_traces(loaded):
    first = [t.completion_ids for t in sample(loaded)]
    assert first == [t.completion_ids for t in sample(loaded)]
    other = [t.completion_ids for t in sample(loaded, seed=1)]
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len(set(first)) == len(first)


def test_more_samples_keep_the_earlier_ones(loaded):
    few = {t.id: t.completion_ids for t in sample(loaded, samples=2)}
    many = {t.id: t.completion_ids for t in sample(loaded, samples=4)}
    assert few == {key: many[key] for key in few}


def test_temperature_zero_is_greedy_decoding(loaded):
    trace = sample(loaded, problems=PROBLEMS[:1], samples=1, temperature=0.0)[0]
    ids = list(trace.prompt_ids)
    for token in trace.completion_ids:
        assert loaded.model(torch.tensor([ids])).logits[0, -1].argmax().item() == token
        ids.append(token)


def test_a_prompt_beyond_the_context_is_refused_before_sampling(loaded):
    with pytest.raises(ConfigError, match=r"problem p0 would take 137 tokens .* context of 128"):
        sample(loaded, max_new_tokens=130)


def test_noise_depends_on_each_of_its_arguments():
    base = sample_noise(0, "p", 0, 8)
    assert np.array_equal(base[:4], sample_noise(0, "p", 0, 4))
    for other in [(1, "p", 0), (0, "q", 0), (0, "p", 1)]:
        assert not np.isin(base, sample_noise(*other, 8)).any()


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3], dtype=torch.float64)
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    logits = probs.log().repeat(1000, 1)
    assert torch.bincount(draw_tokens(logits, uniforms, 1.0, 1.0), minlength=5).tolist() == [0, 500, 200, 0, 300]
    # top-p 0.7 keeps 0.5 and 0.3, renormalised to 0.625 and 0.375
    assert torch.bincount(draw_tokens(logits, uniforms, 1.0, 0.7), minlength=5).tolist() == [0, 625, 0, 0, 375]
    # temperature 0.5 squares the probabilities: 25 : 4 : 9 of 38
    cold = torch.bincount(draw_tokens(logits, uniforms, 0.5, 1.0), minlength=5) / 1000
    np.testing.assert_allclose(cold, np.array([0, 25, 4, 0, 9]) / 38, atol=1e-3)
    assert draw_tokens(logits[:1], torch.tensor([1 - 2**-53], dtype=torch.float64), 1.0, 1.0).item() == 4


def test_offsets_of_bytes_cover_whole_characters(loaded):
    text = "a é€7😀!"
    ids = [*loaded.encode_completion(text), EOS]
    offsets = character_offsets(loaded, ids, text)
    expected = []
    for i, character in enumerate(text):
        expected += [(i, i + 1)] * len(character.encode())
    assert offsets == (*expected, (len(text), len(text)))


def test_offsets_survive_bytes_that_never_make_a_character(loaded):
    euro = loaded.encode_completion("€")
    ids = [*loaded.encode_completion("ab"), *euro[:2], *loaded.encode_completion("cd")]
    text = loaded.decode(ids)
    offsets = character_offsets(loaded, ids, text)
    assert "".join(text[a:b] for a, b in offsets[:2]) == "ab"
    assert "".join(text[a:b] for a, b in offsets[-2:]) == "cd"
    assert all(0 <= a <= b <= len(text) for a, b in offsets)


def test_offsets_with_a_trained_byte_level_vocabulary():
    words = ["the answer is forty-two", "naïve café, 北京大学", "😀😀 answer"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    from tokenizers.trainers import BpeTrainer

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(words, BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<eos>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    info = TargetInfo(name="t", revision="0", architecture="", family="", n_layers=1, n_parameters=0, n_active=0)
    loaded = LoadedTarget(info=info, model=None, tokenizer=tokenizer, stop_ids=(0,))
    for text in [*words, "京 the naï"]:
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ours = character_offsets(loaded, encoded["input_ids"], text)
        theirs = [tuple(span) for span in encoded["offset_mapping"]]
        # the fast tokenizer trims the space in front of a word from its span; ours keeps what the token decodes to
        assert [text[a:b].strip() for a, b in ours] == [text[a:b].strip() for a, b in theirs]
        assert all(a <= c and d <= b for (a, b), (c, d) in zip(ours, theirs, strict=True))


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_own_traces_are_matched_verified_and_scored(loaded, tmp_path):
    path = write(
        tmp_path / "own.jsonl",
        {"prompt": "3+4=?", "completion": "it is 7 é"},
        "",
        {"problem_id": "p1", "completion": "8", "truncated": True},
        {"prompt": "3+4=?\n", "completion": "eight"},
    )
    traces = read_traces(path, loaded, PROBLEMS, ContainsSeven()).traces
    assert [(t.id, t.correct, t.truncated) for t in traces] == [
        ("p0.0", True, False),
        ("p1.0", False, True),
        ("p0.1", False, False),
    ]
    assert [t.text for t in traces] == ["it is 7 é", "8", "eight"]
    assert [t.completion_ids[-1] == EOS for t in traces] == [True, False, True]
    assert list(traces[0].prompt_ids) == loaded.encode_prompt("3+4=?\n")
    for trace in traces:
        expected = completion_logprobs(loaded, [(trace.prompt_ids, trace.completion_ids)], batch_size=1)[0]
        np.testing.assert_allclose(trace.logprobs, expected, atol=1e-5)


GOOD = {"prompt": "3+4=?", "completion": "7"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "3+4=?", ', r"own\.jsonl, line 3: not JSON \(.* column"),
        ("[" * 100_000, r"own\.jsonl, line 3: JSON nested too deep"),
        ('{"prompt": "3+4=?", "completion": "\\ud800"}', r"own\.jsonl, line 3: half a character"),
        ("[1]", r"line 3: expected an object with 'prompt' and 'completion', got \[1\]"),
        ({"completion": "7"}, r"line 3: give either 'prompt' or 'problem_id', got the fields \['completion'\]"),
        (GOOD | {"problem_id": "p0"}, r"line 3: give either"),
        ({"prompt": 7, "completion": "7"}, r"line 3: 'prompt' must be text, got 7"),
        ({"prompt": "9+9=?", "completion": "7"}, r"line 3: no drawn train problem has the prompt '9\+9=\?'"),
        ({"problem_id": "p9", "completion": "7"}, r"line 3: no drawn train problem has the problem_id 'p9'"),
        ({"prompt": "3+4=?"}, r"line 3: 'completion' must be text of at least one character, got None"),
        ({"prompt": "3+4=?", "completion": ""}, r"line 3: 'completion' must be text"),
        (GOOD | {"truncated": "no"}, r"line 3: 'truncated' must be true or false"),
        (GOOD | {"completion": "7" * 121}, r"line 3: prompt and completion take 129 tokens, .* context of 128"),
        (GOOD | {"completion": "7<eos>8"}, r"line 3: the tokenizer of small cannot represent .* character 1 on"),
    ],
)
def test_a_bad_line_is_named(loaded, tmp_path, line, message):
    path = write(tmp_path / "own.jsonl", GOOD, "", line)
    with pytest.raises(InputError, match=message):
        read_traces(path, loaded, PROBLEMS, ContainsSeven())


def test_a_missing_an_empty_and_a_binary_file_are_named(loaded, tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        read_traces(tmp_path / "none.jsonl", loaded, PROBLEMS, ContainsSeven())
    with pytest.raises(InputError, match=r"empty\.jsonl: no traces"):
        read_traces(write(tmp_path / "empty.jsonl", "", " "), loaded, PROBLEMS, ContainsSeven())
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.jsonl, line 1: not UTF-8"):
        read_traces(tmp_path / "binary.jsonl", loaded, PROBLEMS, ContainsSeven())
