"""Presets compose, and the seed's says what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m3i.config.experiment import Experiment
from m3i.config.source import conf_dir
from m3i.errors import ConfigError

SEED = "experiment=seed_2026_05_10"
MINE = f"problems.path={Path(__file__).parent.parent / 'data' / 'problems.jsonl'}"


def test_the_seeds_own_settings():
    made = Experiment.compose(SEED, MINE)
    assert type(made.target).__module__ == "m3i_hf.deepseek"
    assert list(made.selector.layers) == [6, 7, 8, 10, 13]
    assert (list(made.trainer.modules), made.trainer.rank, made.trainer.epochs) == (["mla"], 16, 3)
    assert (made.settings.pairs.at_most, made.problems.n_held_out) == (116, 12)
    assert {alias: o.model for alias, o in made.observers.items()} == {
        "claude": "claude-sonnet-4-5",
        "gemini": "gemini-2.5-pro",
    }
    assert made.exporter.base_fields()["base_type"] == "q4_k_m"
    assert list(made.settings.evaluate.seeds) == [0]


def test_the_seeds_layers_and_modules_come_to_its_trained_parameters():
    """1.3 M parameters: its page; 16 × (5120 q + 2624 kv_a + 4608 kv_b + 4096 o) a layer."""
    made = Experiment.compose(SEED, MINE)
    facts = json.loads((conf_dir().parent / "plugins" / "m3i_hf" / "deepseek_v2_lite.json").read_text())
    config = facts.get("config", facts)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    key, value = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
    latent = config["kv_lora_rank"]
    sides = (
        width + heads * key,
        width + latent + config["qk_rope_head_dim"],
        latent + heads * (config["qk_nope_head_dim"] + value),
        heads * value + width,
    )
    assert made.trainer.rank * sum(sides) * len(made.selector.layers) == 1_315_840


def test_the_seeds_problems_are_not_made_up():
    with pytest.raises(ConfigError, match=r"problems\.path"):
        Experiment.compose(SEED)


def test_its_design_on_tiny_has_the_same_shape():
    seed = Experiment.compose(SEED, MINE)
    tiny = Experiment.compose("experiment=seed_2026_05_10_tiny")
    for name in ("modules", "rank", "epochs"):
        assert getattr(tiny.trainer, name) == getattr(seed.trainer, name)
    assert tiny.settings.pairs.at_most == seed.settings.pairs.at_most
    assert tiny.problems.n_held_out == seed.problems.n_held_out
    assert tiny.exporter.base_fields()["base_type"] == seed.exporter.base_fields()["base_type"]
    assert tiny.settings.evaluate.seeds == seed.settings.evaluate.seeds


def test_the_control_sweep_composes_with_every_preset():
    presets = sorted(p.stem for p in (conf_dir() / "experiment").glob("*.yaml"))
    assert {"seed_2026_05_10", "seed_2026_05_10_tiny", "smollm2"} <= set(presets)
    for preset in presets:
        words = [MINE] if preset == "seed_2026_05_10" else []
        made = Experiment.compose("+sweep=control", f"experiment={preset}", *words)
        assert made.settings.sweep.n_random == 19
        assert made.settings.evaluate.seeds
