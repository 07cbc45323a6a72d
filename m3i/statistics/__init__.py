"""Exact tests, intervals and power for paired comparisons; the held-out problem is the unit.

Several generation seeds of one problem are one cluster: they share its difficulty, so counting
each as a trial of its own would claim more evidence than there is. Every function returns
finite numbers or None, never NaN.
"""

from m3i.statistics.bootstrap import cluster_mean
from m3i.statistics.clustered import clustered_proportion
from m3i.statistics.dealing import dealt_orders
from m3i.statistics.estimate import Estimate
from m3i.statistics.holm import holm
from m3i.statistics.paired import McNemar, mcnemar, paired_difference, proportion
from m3i.statistics.power import detectable_share, power_sign_test, required_n
from m3i.statistics.ranks import RankCorrelation, rank_correlation
from m3i.statistics.reliability import krippendorff_alpha
from m3i.statistics.sign import SignTest, problem_signs, sign_test, unseen_share

__all__ = [
    "Estimate",
    "McNemar",
    "RankCorrelation",
    "SignTest",
    "cluster_mean",
    "clustered_proportion",
    "dealt_orders",
    "detectable_share",
    "holm",
    "krippendorff_alpha",
    "mcnemar",
    "paired_difference",
    "power_sign_test",
    "problem_signs",
    "proportion",
    "rank_correlation",
    "required_n",
    "sign_test",
    "unseen_share",
]
