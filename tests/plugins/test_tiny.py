import json
import random
import re
import subprocess
import sys

import pytest
from m3i_arithmetic.expressions import is_reserved, parse_expression, render_prompt
from m3i_arithmetic.steps import ErrorKind, check_solution
from m3i_tiny.architecture import BOS_ID, CHARACTERS, EOS_ID, PAD_ID, UNK_ID
from m3i_tiny.characters import encode_characters
from m3i_tiny.target import MODEL_FOLDER, TinyTarget
from m3i_tiny.training_text import IGNORED_LABEL, draw_training_problems, training_batches

from m3i.errors import ConfigError

CARD = MODEL_FOLDER / "MODEL_CARD.md"
LOG = MODEL_FOLDER / "train_log.jsonl"


@pytest.fixture(scope="module")
def loaded():
    return TinyTarget().load()


@pytest.fixture(scope="module")
def measured(loaded):
    from m3i_tiny.answering import experiment_problems
    from m3i_tiny.evaluate import measure

    return measure(loaded.model, experiment_problems(200, seed=99), temperature=0.8, seed=99)


# -- the shipped model ------------------------------------------------------------------------


def test_the_shipped_model_has_the_promised_shape(loaded):
    from transformers import DeepseekV2ForCausalLM

    model, config = loaded.model, loaded.model.config
    assert type(model) is DeepseekV2ForCausalLM
    assert config.num_hidden_layers == len(loaded.layers) == 12
    assert 2_000_000 <= sum(p.numel() for p in model.parameters()) <= 3_000_000
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
    assert config.q_lora_rank is None
    assert not hasattr(loaded.layers[0].mlp, "gate")
    for layer in list(loaded.layers)[1:]:
        assert layer.mlp.gate.weight.shape == (8, 128)
        assert layer.mlp.shared_experts.gate_proj.weight.shape == (64, 128)
        assert layer.self_attn.q_proj.weight.shape == (4 * (32 + 32), 128)
    # What llama.cpp's deepseek2 is told or assumes.
    assert (config.topk_method, config.norm_topk_prob, config.routed_scaling_factor) == ("greedy", False, 1.0)
    assert config.rope_parameters["rope_type"] == "default"
    assert not config.attention_bias
    # GGUF's Q8_0 wants rows of a multiple of 32.
    assert all(p.shape[-1] % 32 == 0 for p in model.parameters())


def test_the_facts_are_told_without_torch():
    code = (
        "import sys; from m3i_tiny.target import TinyTarget; info = TinyTarget().describe();"
        "print(info.n_layers, info.n_experts, info.n_experts_active, info.dense_layers, info.architecture,"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "12 8 2 (0,) DeepseekV2ForCausalLM False"


def test_the_description_agrees_with_the_loaded_model(loaded):
    info = TinyTarget().describe()
    assert info.n_parameters == sum(p.numel() for p in loaded.model.parameters())
    assert info.revision == loaded.info.revision
    assert info.default_candidates() == tuple(range(1, 12))


def test_the_weights_are_a_few_megabytes_and_exact_in_float16():
    from safetensors import safe_open

    file = MODEL_FOLDER / "model.safetensors"
    assert file.stat().st_size < 6_000_000
    with safe_open(file, framework="pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118


@pytest.mark.parametrize("wrong", [{"dtype": "int4"}, {"device": ""}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TinyTarget(**wrong)


def test_each_character_is_one_token(loaded):
    text = "".join(CHARACTERS) + " it's  two\n\n48+7*6-15=?\n"
    ids = loaded.encode_completion(text)
    assert ids == encode_characters(text)
    assert loaded.decode(ids) == text
    assert loaded.encode_prompt("1+2=?\n") == [BOS_ID, *encode_characters("1+2=?\n")]
    assert loaded.encode_completion("é") == [UNK_ID, UNK_ID]
    assert loaded.stop_ids == (EOS_ID,)
    assert loaded.tokenizer.pad_token_id == PAD_ID
    with pytest.raises(ValueError, match="no token for character 'é'"):
        encode_characters("é")


# -- how it reasons and errs ------------------------------------------------------------------


@pytest.mark.slow
def test_55_to_85_percent_of_sampled_answers_are_right(measured):
    assert 0.55 <= measured.right / measured.count <= 0.85


@pytest.mark.slow
def test_errors_are_in_the_steps(measured):
    wrong = measured.count - measured.right
    in_steps = sum(measured.kinds[kind] for kind in ErrorKind if kind not in (ErrorKind.ANSWER, ErrorKind.FORMAT))
    assert in_steps >= 0.8 * wrong
    assert measured.kinds[ErrorKind.FORMAT] <= 0.1 * wrong
    assert len(measured.lines) >= 3, "errors come in several lines, not always the same one"


@pytest.mark.slow
def test_the_model_card_states_what_the_evaluation_prints(loaded):
    from m3i_tiny.answering import experiment_problems
    from m3i_tiny.evaluate import EVALUATION_SEED, measure

    stated = re.search(r"^\| greedy \| (\d+) \| 1000 \|", CARD.read_text(), flags=re.MULTILINE)
    assert stated is not None
    problems = experiment_problems(1000, EVALUATION_SEED)
    found = measure(loaded.model, problems, temperature=0.0, seed=EVALUATION_SEED)
    # Another machine rounds differently, which turns near-ties: two standard errors of a share of 1000.
    assert abs(found.right - int(stated.group(1))) <= 28


# -- training text ----------------------------------------------------------------------------


def test_training_text_never_has_a_reserved_problem():
    for operations in (3, 4, 5):
        stream = draw_training_problems(random.Random(operations), operations)
        drawn = [next(stream) for _ in range(7000)]
        assert not any(map(is_reserved, drawn))
        assert {problem.operations for problem in drawn} == {operations}


def test_training_batches_hold_correct_solutions_only():
    batches = training_batches(seed=5, batch_size=16)
    for _ in range(30):
        batch = next(batches)
        assert batch.ids_BT.shape == batch.labels_BT.shape
        for ids, labels in zip(batch.ids_BT.tolist(), batch.labels_BT.tolist(), strict=True):
            text = "".join(CHARACTERS[token - 4] for token in ids if token >= 4)
            prompt, _, completion = text.partition("\n")
            assert not is_reserved(prompt)
            assert check_solution(prompt, completion).right
            # Loss falls on the completion and the end, and on nothing else.
            counted = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED_LABEL]
            assert counted == [*encode_characters(completion), EOS_ID]
            assert render_prompt(parse_expression(prompt)) == prompt + "\n"


def test_the_training_text_is_the_same_for_the_same_seed():
    one, again, other = (next(training_batches(seed, 8)).ids_BT.tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


# -- training ---------------------------------------------------------------------------------


@pytest.fixture
def threads_kept():
    """Training sets torch's number of threads for the whole process; the tests after it get theirs back."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_shipped_log_is_of_the_committed_recipe():
    from dataclasses import asdict

    from m3i_tiny.train import Recipe

    header, *rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    assert header["recipe"] == asdict(Recipe())
    assert rows[-1]["step"] == Recipe().steps
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert LOG.stat().st_size <= 200_000


def test_the_balance_loss_is_one_when_even_and_grows_with_unevenness():
    import torch
    from m3i_tiny.balance import RouterWatch

    watch = RouterWatch.__new__(RouterWatch)
    even = (torch.zeros(4, 4), torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]))
    watch.outputs = [even]
    loss, loads = watch.balance_loss(torch.ones(4))
    assert loss.item() == pytest.approx(1.0)
    assert loads == [[0.25] * 4]
    biased = torch.tensor([[5.0, 5.0, 0.0, 0.0]]).repeat(4, 1)
    watch.outputs = [(biased, torch.tensor([[0, 1]] * 4))]
    loss, loads = watch.balance_loss(torch.ones(4))
    assert loss.item() == pytest.approx(2.0, rel=0.02)
    assert loads == [[0.5, 0.5, 0.0, 0.0]]


def test_padding_has_no_say_in_the_balance_loss():
    import torch
    from m3i_tiny.balance import RouterWatch

    watch = RouterWatch.__new__(RouterWatch)
    watch.outputs = [(torch.zeros(3, 4), torch.tensor([[0, 1], [2, 3], [0, 1]]))]
    assert watch.balance_loss(torch.tensor([1.0, 1.0, 0.0]))[1] == [[0.25] * 4]


def test_the_learning_rate_warms_up_stays_and_decays_to_zero():
    from m3i_tiny.train import Recipe, learning_rate_at

    short, long = Recipe(steps=1000, warmup_steps=100), Recipe(steps=2000, warmup_steps=100)
    assert learning_rate_at(0, short) == pytest.approx(short.learning_rate / 100)
    assert learning_rate_at(400, short) == short.learning_rate
    assert 0 < learning_rate_at(999, short) < 0.01 * short.learning_rate
    level = int(1000 * (1 - short.decay_fraction))
    assert [learning_rate_at(s, short) for s in range(level)] == [learning_rate_at(s, long) for s in range(level)]


@pytest.mark.slow
@pytest.mark.usefixtures("threads_kept")
def test_an_interrupted_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    from m3i_tiny.train import Recipe, train

    recipe = Recipe(batch_size=4)
    often = {"evaluate_every": 100, "checkpoint_every": 3}
    train(tmp_path / "whole", recipe, stop_after=6, **often)
    train(tmp_path / "parts", recipe, stop_after=4, **often)
    train(tmp_path / "parts", recipe, stop_after=6, **often)
    logs = [
        [json.loads(row) for row in (tmp_path / n / "steps.jsonl").read_text().splitlines()] for n in ("whole", "parts")
    ]
    losses = [[row["loss"] for row in log] for log in logs]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("threads_kept")
def test_retraining_follows_the_shipped_loss_curve(tmp_path):
    from m3i_tiny.train import Recipe, train

    train(tmp_path, Recipe(), stop_after=200, evaluate_every=1000, checkpoint_every=1000)
    shipped = [json.loads(line) for line in LOG.read_text().splitlines()][1:201]
    again = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in again] == [row["step"] for row in shipped]
    assert [row["tokens"] for row in again] == [row["tokens"] for row in shipped]
    # The first steps agree to rounding; later ones part slowly, since training amplifies differences in rounding.
    assert [row["loss"] for row in again[:5]] == pytest.approx([row["loss"] for row in shipped[:5]], rel=1e-3)
    for start in range(0, 200, 20):
        mean_again, mean_shipped = (sum(r["loss"] for r in rows[start : start + 20]) / 20 for rows in (again, shipped))
        assert mean_again == pytest.approx(mean_shipped, rel=0.1)
