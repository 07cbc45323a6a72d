"""Selectors: what they pick, what they refuse, and that random controls never repeat."""

import itertools
import re

import pytest
from m3i_selectors.all import AllLayers
from m3i_selectors.attribution import TopLayers
from m3i_selectors.bottom import BottomLayers
from m3i_selectors.manual import ManualLayers
from m3i_selectors.none import ShamLayers
from m3i_selectors.random import RandomLayers

from m3i.artifacts import LayerScores, ScoreRow, TargetInfo
from m3i.errors import ConfigError
from m3i.interfaces import SelectionRequest

INFO = TargetInfo(
    name="tiny",
    revision="0",
    architecture="DeepseekV2ForCausalLM",
    family="test",
    n_layers=12,
    n_parameters=0,
    n_active=0,
    n_experts=8,
    dense_layers=(0,),
)
CLIMBING = (99.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0)
FALLING = tuple(float(12 - layer) for layer in range(12))


def scores(values, attributor="lens"):
    row = ScoreRow(observer="joint", scores=values, low=values, high=values, n_traces=5)
    return LayerScores(attributor=attributor, rows=(row,))


def request(**by_alias):
    return SelectionRequest(info=INFO, scores={alias: scores(values, alias) for alias, values in by_alias.items()})


ONE = request(lens=CLIMBING)
TWO = request(lens=CLIMBING, votes=FALLING)


def test_attribution_takes_the_top_of_the_candidates():
    chosen = TopLayers().select(ONE)
    assert chosen.layers == (9, 10, 11)  # layer 0 scores highest and has no router
    assert chosen.candidates == tuple(range(1, 12))
    assert chosen.reason == "top 3 of 11 layers by lens: 9-11; the last of them scores 9, the next layer 8"
    assert TopLayers(candidates="all").select(ONE).layers == (0, 10, 11)
    assert TopLayers(candidates=[2, 4, 6], k=2).select(ONE).layers == (4, 6)
    assert TopLayers(k=11).select(ONE).layers == tuple(range(1, 12))


def test_of_equal_scores_the_lower_layer_is_attributed_and_the_higher_is_bottom():
    equal = request(lens=(1.0,) * 12)
    assert TopLayers().select(equal).layers == (1, 2, 3)
    assert BottomLayers().select(equal).layers == (9, 10, 11)


def test_bottom_is_the_other_end_of_the_same_ranking():
    assert BottomLayers().select(ONE).layers == (1, 2, 3)
    assert BottomLayers(k=11).select(ONE).layers == TopLayers(k=11).select(ONE).layers


def test_the_attributor_is_named_or_alone():
    assert TopLayers(attributor="votes").select(TWO).layers == (1, 2, 3)
    assert TopLayers().select(TWO).layers == TopLayers(attributor="lens").select(TWO).layers
    assert TopLayers().select(request(votes=FALLING, lens=CLIMBING)).layers == (1, 2, 3)  # the first of the panel
    with pytest.raises(ConfigError, match="no such attributor ran; did you mean 'votes'"):
        TopLayers(attributor="vote").select(TWO)
    with pytest.raises(ConfigError, match=r"attributor=lens\+ablation"):
        TopLayers(attributor="ablation").select(ONE)


@pytest.mark.parametrize("cls", [TopLayers, BottomLayers, RandomLayers, ShamLayers])
def test_k_beyond_the_candidates_names_the_numbers(cls):
    with pytest.raises(ConfigError, match=re.escape("tiny has 12 layers, 11 of them candidates (1-11)")) as error:
        cls(k=12).select(ONE)
    assert "selector.candidates=all" in str(error.value)
    with pytest.raises(ConfigError, match=r"choose k up to 11$"):
        cls(k=13).check(INFO)
    with pytest.raises(ConfigError, match=re.escape("selector.k = 0: expected at least 1")):
        cls(k=0)


@pytest.mark.parametrize("cls", [TopLayers, BottomLayers, RandomLayers, ShamLayers, AllLayers])
def test_candidates_are_checked(cls):
    for bad in ("some", [], [1, 1], [-1], ["a"], [True], 3, None):
        with pytest.raises(ConfigError, match=r"selector\.candidates = "):
            cls(candidates=bad)
    with pytest.raises(ConfigError, match="0 to 11; there is no layer 12, 40"):
        cls(candidates=[3, 40, 12]).check(INFO)


def test_manual_layers_are_taken_as_given():
    chosen = ManualLayers(layers=[10, 6, 7]).select(ONE)
    assert chosen.layers == (6, 7, 10)
    assert chosen.reason == "chosen by hand: 6-7, 10"
    assert ManualLayers(layers=[0]).select(request()).layers == (0,)
    with pytest.raises(ConfigError, match=re.escape("name the layers of tiny to train, 0 to 11")):
        ManualLayers().check(INFO)
    with pytest.raises(ConfigError, match="there is no layer 12"):
        ManualLayers(layers=[12]).select(ONE)
    for bad in ([1, 1], [-1]):
        with pytest.raises(ConfigError, match="distinct layer numbers from 0"):
            ManualLayers(layers=bad)


def test_all_and_none():
    assert AllLayers().select(request()).layers == tuple(range(1, 12))
    assert AllLayers(candidates="all").select(request()).layers == tuple(range(12))
    sham = ShamLayers().select(ONE)
    assert sham.zero_update
    assert sham.layers == TopLayers().select(ONE).layers
    assert ShamLayers().select(request()).layers == (1, 2, 3)
    assert ShamLayers(attributor="votes").select(TWO).layers == (1, 2, 3)
    assert not any(s.select(ONE).zero_update for s in (TopLayers(), BottomLayers(), AllLayers(), RandomLayers()))


def draws(n, **options):
    return [RandomLayers(seed=seed, **options).select(ONE).layers for seed in range(n)]


def test_random_seeds_walk_through_every_set_once():
    found = draws(165)  # 11 choose 3
    assert sorted(found) == list(itertools.combinations(range(1, 12), 3))
    assert found != sorted(found)
    with pytest.raises(ConfigError, match="there are 165 distinct sets of 3 of 11 layers; choose a seed below 165"):
        RandomLayers(seed=165).select(ONE)
    assert found[:5] == draws(5)


def test_random_draws_need_no_score():
    assert len(RandomLayers().select(request()).layers) == 3


def test_random_may_keep_out_the_attributed_layers():
    found = draws(56, exclude="attributed")  # 8 choose 3
    assert sorted(found) == list(itertools.combinations(range(1, 9), 3))
    with pytest.raises(
        ConfigError,
        match=re.escape("there are 56 distinct sets of 3 of 8 layers without the 3 attributed by lens (9-11)"),
    ):
        RandomLayers(seed=56, exclude="attributed").select(ONE)
    with pytest.raises(ConfigError, match="there is no set of 6 of 5 layers"):
        RandomLayers(k=6, exclude="attributed").select(ONE)
    with pytest.raises(ConfigError, match="no such attributor ran"):
        RandomLayers(exclude="attributed").select(request())


def test_random_may_skip_the_attributed_set_alone():
    found = draws(164, exclude="attributed_set")
    assert sorted(found) == [s for s in itertools.combinations(range(1, 12), 3) if s != (9, 10, 11)]
    with pytest.raises(ConfigError, match="there are 164 distinct sets"):
        RandomLayers(seed=164, exclude="attributed_set").select(ONE)


def test_random_layers_are_evenly_drawn():
    """The first 30 of 165 draws hold every layer about equally often: 30 × 3 / 11 = 8.2 expected."""
    counts = [sum(layer in s for s in draws(30)) for layer in range(1, 12)]
    assert min(counts) >= 3
    assert max(counts) <= 15


@pytest.mark.parametrize(("option", "value"), [("seed", -1), ("exclude", "bottom")])
def test_random_options_are_checked(option, value):
    with pytest.raises(ConfigError, match=f"selector.{option} = "):
        RandomLayers(**{option: value})


@pytest.mark.parametrize(("exclude", "n_sets"), [("", 165), ("attributed", 56), ("attributed_set", 164)])
def test_too_large_a_seed_is_refused_before_any_score_is_needed(exclude, n_sets):
    RandomLayers(k=3, seed=n_sets - 1, exclude=exclude).check(INFO)
    with pytest.raises(ConfigError, match=f"there are {n_sets} distinct sets of 3"):
        RandomLayers(k=3, seed=n_sets, exclude=exclude).check(INFO)
