"""Exact tests, intervals and power for paired comparisons and sweeps; the held-out problem is the unit.

Several generation seeds of one problem are one cluster: they share its difficulty, so counting
each as a separate trial would overstate the evidence. Every function returns finite numbers or
None, never NaN.
"""

from m3i.statistics.bootstrap import cluster_mean
from m3i.statistics.clustered import clustered_proportion
from m3i.statistics.dealing import dealt_orders
from m3i.statistics.effect import ControlEffect, control_effect
from m3i.statistics.equivalence import LEAST_DECIDED, Equivalence, equivalence, tost
from m3i.statistics.estimate import Estimate
from m3i.statistics.holm import holm
from m3i.statistics.kappa import kappa
from m3i.statistics.multiplicity import Gatekept, gatekept
from m3i.statistics.paired import McNemar, mcnemar, paired_difference, proportion
from m3i.statistics.power import detectable_share, power_sign_test, required_n
from m3i.statistics.randomization import (
    TIE,
    RandomizationTest,
    controls_for,
    distinct_controls,
    p_floor,
    randomization_test,
)
from m3i.statistics.ranks import RankCorrelation, rank_correlation
from m3i.statistics.reliability import krippendorff_alpha
from m3i.statistics.scores import ScoreError, mean_score, score_error
from m3i.statistics.sign import SignTest, problem_signs, sign_test, unseen_share
from m3i.statistics.sweep_power import (
    detectable_mean,
    detectable_shift,
    power_mean,
    power_randomization,
    required_controls,
    required_problems,
    tied_effect,
)
from m3i.statistics.variance import VarianceComponent, VarianceSplit, variance_split

__all__ = [
    "LEAST_DECIDED",
    "TIE",
    "ControlEffect",
    "Equivalence",
    "Estimate",
    "Gatekept",
    "McNemar",
    "RandomizationTest",
    "RankCorrelation",
    "ScoreError",
    "SignTest",
    "VarianceComponent",
    "VarianceSplit",
    "cluster_mean",
    "clustered_proportion",
    "control_effect",
    "controls_for",
    "dealt_orders",
    "detectable_mean",
    "detectable_share",
    "detectable_shift",
    "distinct_controls",
    "equivalence",
    "gatekept",
    "holm",
    "kappa",
    "krippendorff_alpha",
    "mcnemar",
    "mean_score",
    "p_floor",
    "paired_difference",
    "power_mean",
    "power_randomization",
    "power_sign_test",
    "problem_signs",
    "proportion",
    "randomization_test",
    "rank_correlation",
    "required_controls",
    "required_n",
    "required_problems",
    "score_error",
    "sign_test",
    "tied_effect",
    "tost",
    "unseen_share",
    "variance_split",
]
