"""Arms: names, the sets that controls are drawn from, and shuffled preferences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3i.artifacts import (
    LayerSelection,
    PairOrigin,
    PreferencePair,
    PreferencePairs,
    ReferenceLogprobs,
    TargetInfo,
)
from m3i.config.arms import Arm, ArmKind, parse_arm, population, select_for
from m3i.engine.preflight import refuse_draw
from m3i.errors import ConfigError
from m3i.stages.shuffle import shuffle_pairs, shuffle_reference, swapped_rows
from m3i.statistics.draws import Population, Stratum, permuted, rank_of, subset_at

INFO = TargetInfo(
    name="tiny", revision="r", architecture="DeepseekV2ForCausalLM", family="m3i", n_layers=12, n_parameters=1,
    n_active=1, n_experts=8, n_experts_active=2, dense_layers=(0,),
)  # fmt: skip
ROUTED = LayerSelection(layers=(2, 9, 10), candidates=tuple(range(1, 12)), reason="top 3")
MIXED = LayerSelection(layers=(0, 9, 10), candidates=tuple(range(12)), reason="top 3")


@pytest.mark.parametrize(
    ("name", "kind", "draw"),
    [("attributed", ArmKind.ATTRIBUTED, None), ("random-0", ArmKind.RANDOM, 0), ("excluding-12", ArmKind.EXCLUDING, 12),
     ("all", ArmKind.ALL, None), ("shuffled", ArmKind.SHUFFLED, None), ("sham", ArmKind.SHAM, None)],
)  # fmt: skip
def test_names(name, kind, draw):
    arm = parse_arm(name)
    assert arm == Arm(kind=kind, draw=draw)
    assert arm.name == name


@pytest.mark.parametrize("name", ["", "random", "random-", "random--1", "random-1.5", "random-01", "random-x", "sham-2",
                                  "atributed", "random-²"])  # fmt: skip
def test_what_is_no_name(name):
    with pytest.raises(ConfigError, match=r"there is no such arm.*random-N \(N = 0, 1, ...\)"):
        parse_arm(name)


def test_controls_are_every_other_set_once():
    drawn = [select_for(parse_arm(f"random-{i}"), ROUTED, INFO).layers for i in range(164)]
    assert sorted(drawn) == [s for s in itertools.combinations(range(1, 12), 3) if s != (2, 9, 10)]
    with pytest.raises(ConfigError, match=r"besides the attributed layers \[2, 9, 10\] there are 164 sets"):
        select_for(parse_arm("random-164"), ROUTED, INFO)


def test_controls_hold_as_many_dense_layers_as_the_attributed_set():
    sets = population(ArmKind.RANDOM, MIXED, INFO)
    assert sets.n_sets == math.comb(11, 2) - 1
    drawn = {sets.draw(i) for i in range(sets.n_sets)}
    assert drawn == {(0, *s) for s in itertools.combinations(range(1, 12), 2)} - {(0, 9, 10)}


def test_a_contrast_is_free_of_attributed_layers():
    sets = population(ArmKind.EXCLUDING, ROUTED, INFO)
    drawn = {sets.draw(i) for i in range(sets.n_sets)}
    assert drawn == set(itertools.combinations([1, 3, 4, 5, 6, 7, 8, 11], 3))
    none = LayerSelection(layers=tuple(range(1, 8)), candidates=tuple(range(1, 12)), reason="")
    with pytest.raises(ConfigError, match="there are 0 sets"):
        select_for(parse_arm("excluding-0"), none, INFO)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_population_is_walked_through_once(data):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    strata, start = [], 0
    for size in sizes:
        strata.append(Stratum(layers=tuple(range(start, start + size)), k=data.draw(st.integers(1, size))))
        start += size
    whole = Population(strata=tuple(strata))
    everything = {whole.draw(i) for i in range(whole.n_sets)}
    assert len(everything) == whole.n_sets == math.prod(math.comb(len(s.layers), s.k) for s in strata)
    kept_out = data.draw(st.sampled_from(sorted(everything)))
    less = Population(strata=tuple(strata), without=kept_out)
    assert {less.draw(i) for i in range(less.n_sets)} == everything - {kept_out}


def test_a_draw_beyond_every_set_of_the_layers_is_refused_before_they_are_selected():
    """How many sets there are depends on the selector; no number of 4 layers has more sets than 4 choose 2."""
    info = replace(INFO, n_layers=4)
    for name in ("attributed", "random-5", "excluding-5", "all"):
        refuse_draw(parse_arm(name), info)
    for name in ("random-6", "excluding-6", "random-99999"):
        with pytest.raises(ConfigError, match=f"arm = {name}: .* has 4 layers, which have at most 6 sets"):
            refuse_draw(parse_arm(name), info)


def test_other_arms():
    orders = [[select_for(parse_arm(f"random-{i}", seed), ROUTED, INFO).layers for i in range(164)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert select_for(parse_arm("all"), ROUTED, INFO).layers == tuple(range(1, 12))
    sham = select_for(parse_arm("sham"), ROUTED, INFO)
    assert (sham.layers, sham.zero_update) == (ROUTED.layers, True)
    assert select_for(parse_arm("attributed"), ROUTED, INFO) is ROUTED
    assert select_for(parse_arm("shuffled"), ROUTED, INFO) is ROUTED


# -- the order of draws -----------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 600))
def test_the_permutation_is_one(size):
    assert sorted(permuted(i, size) for i in range(size)) == list(range(size))


def test_huge_populations_are_not_listed():
    size = math.comb(61, 30)
    images = [permuted(i, size) for i in range(50)]
    assert len(set(images)) == 50
    assert max(images) > size / 2
    assert all(0 <= i < size for i in images)
    subset = subset_at(images[0], 61, 30)
    assert len(set(subset)) == 30
    assert rank_of(subset, 61) == images[0]


@settings(deadline=None)
@given(st.integers(1, 9), st.data())
def test_unranking_lists_subsets_in_order(n, data):
    k = data.draw(st.integers(1, n))
    everything = [list(s) for s in itertools.combinations(range(n), k)]
    assert [subset_at(i, n, k) for i in range(len(everything))] == everything
    assert [rank_of(s, n) for s in everything] == list(range(len(everything)))


# -- shuffled preferences ---------------------------------------------------------------------


def pair(i):
    return PreferencePair(
        problem_id=f"p{i}", prompt_ids=(1, i), chosen_ids=(10, i, 3), rejected_ids=(20, i), chosen_text=f"right {i}",
        rejected_text=f"wrong {i}", rejected_trace_id=f"t{i}", origin=PairOrigin.SAMPLED,
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_half_of_the_pairs_are_swapped_with_their_reference(n):
    pairs = PreferencePairs(pairs=tuple(pair(i) for i in range(n)), counts={"problems": n})
    known = ReferenceLogprobs(chosen_P=np.arange(n, dtype=np.float64), rejected_P=-np.arange(n, dtype=np.float64) - 1)
    shuffled, moved = shuffle_pairs(pairs, 5), shuffle_reference(known, 5)
    swapped = [i for i, p in enumerate(shuffled.pairs) if p.chosen_text.startswith("wrong")]
    assert len(swapped) == n // 2 == shuffled.counts["pairs: swapped"]
    for i, (before, after) in enumerate(zip(pairs.pairs, shuffled.pairs, strict=True)):
        turned = i in swapped
        assert after.chosen_ids == (before.rejected_ids if turned else before.chosen_ids)
        assert after.rejected_ids == (before.chosen_ids if turned else before.rejected_ids)
        assert (moved.chosen_P[i], moved.rejected_P[i]) == ((-i - 1, i) if turned else (i, -i - 1))
    assert shuffled.lengths["chosen_mean"] == pytest.approx((3 * (n - n // 2) + 2 * (n // 2)) / n)


def test_another_training_seed_swaps_another_half():
    assert swapped_rows(40, 0) != swapped_rows(40, 1)
    assert swapped_rows(40, 0) == swapped_rows(40, 0)
