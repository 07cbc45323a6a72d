"""Exact tests, intervals and power for paired comparisons; the held-out problem is the unit.

Several generation seeds of one problem are one cluster: they share its difficulty, so counting
each as a trial of its own would claim more evidence than there is. Every function returns
finite numbers or None, never NaN.
"""

from m3i.statistics.bootstrap import cluster_mean
from m3i.statistics.estimate import Estimate
from m3i.statistics.paired import McNemar, mcnemar, paired_difference, proportion
from m3i.statistics.power import detectable_share, power_sign_test, required_n
from m3i.statistics.sign import SignTest, problem_signs, sign_test, unseen_share

__all__ = [
    "Estimate",
    "McNemar",
    "SignTest",
    "cluster_mean",
    "detectable_share",
    "mcnemar",
    "paired_difference",
    "power_sign_test",
    "problem_signs",
    "proportion",
    "required_n",
    "sign_test",
    "unseen_share",
]
