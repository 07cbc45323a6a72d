"""Whether observers make the same mistakes, and how many independent observers a panel is therefore worth.

Two observers that agree may both be right or both be wrong. Where a verifier says which traces fail, each observer's
errors are known, and their correlation tells a second opinion from an echo. Kim et al. 2025 (2506.07962) find this
correlation to be large between language models, and larger for better models.

Observers that miss failures more often than they raise false alarms err on the same traces, the incorrect ones, even if
they are independent. The tests and the panel's effective size therefore condition on the truth: they compare errors
within incorrect traces and within correct traces. All figures are plain JSON values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from m3i.artifacts import Audit, Trace
from m3i.audits.agreement import flags
from m3i.statistics import dealt_orders, holm

UNDEFINED = 0.05
"""No interval is given if more than this share of bootstrap draws has no errors to correlate."""


def error_correlation(
    audits: Mapping[str, Audit],
    traces: Sequence[Trace],
    *,
    level: float = 0.95,
    n_bootstrap: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns the correlation of the observers' errors against the verifier, for each pair and for the whole panel.

    Args:
        audits: Observer's alias → its audit. An audited trace without a finding is one that the observer calls correct.
        traces: The audited traces, each with the verifier's result (`Trace.correct`).
        level: Confidence level of the panel's interval.
        n_bootstrap: Draws of problems behind that interval.
        n_permutations: Draws behind each pair's p.
        seed: Seed of both.

    Returns:
        `pairs`: one row for each pair of observers (`pair_errors`, and `p_holm`, corrected over the pairs); `panel`:
        the effective number of observers (`panel_errors`).
    """
    by_id = {t.id: t for t in traces}
    pairs = []
    for a, b in combinations(audits, 2):
        shared = sorted(set(audits[a].audited) & set(audits[b].audited) & set(by_id))
        errors_ON = _errors(audits, (a, b), shared, by_id)
        row = pair_errors(
            errors_ON[0],
            errors_ON[1],
            wrong_N=np.array([not by_id[t].correct for t in shared], dtype=bool),
            problems=[by_id[t].problem_id for t in shared],
            rng=np.random.default_rng(seed),
            n_permutations=n_permutations,
        )
        pairs.append({"observers": [a, b], **row})
    for row, p in zip(pairs, holm([row["p"] for row in pairs]), strict=True):
        row["p_holm"] = p
    read = {alias: audit for alias, audit in audits.items() if set(by_id).intersection(audit.audited)}
    common = sorted(set(by_id).intersection(*(audit.audited for audit in read.values())))
    panel = panel_errors(
        dict(zip(read, _errors(read, tuple(read), common, by_id), strict=True)),
        wrong_N=np.array([not by_id[t].correct for t in common], dtype=bool),
        problems=[by_id[t].problem_id for t in common],
        level=level,
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng(seed),
    )
    unread = {alias: "audited none of these traces" for alias in audits if alias not in read}
    return {"pairs": pairs, "panel": panel | {"left_out": unread | panel["left_out"]}}


def _errors(
    audits: Mapping[str, Audit], names: Sequence[str], trace_ids: Sequence[str], by_id: Mapping[str, Trace]
) -> np.ndarray:
    """Returns True where an observer's call differs from the verifier's; observers × traces."""
    wrong_N = np.array([not by_id[t].correct for t in trace_ids], dtype=bool)
    called_ON = np.array([flags(audits[name], trace_ids) for name in names], dtype=bool)
    error_ON: np.ndarray = called_ON.reshape(len(names), len(trace_ids)) != wrong_N
    return error_ON


# -- two observers ----------------------------------------------------------------------------


def pair_errors(
    a_N: np.ndarray,
    b_N: np.ndarray,
    *,
    wrong_N: np.ndarray,
    problems: Sequence[str],
    rng: np.random.Generator,
    n_permutations: int,
) -> dict[str, Any]:
    """Returns how often two observers err on the same traces.

    Args:
        a_N: Whether the first observer errs on each trace.
        b_N: The same for the second observer.
        wrong_N: Whether each trace is incorrect according to the verifier.
        problems: Problem of each trace.
        rng: Generator for the permutations.
        n_permutations: Number of permutations.

    Returns:
        n; first_errors, second_errors; `shared_errors`, and `expected_errors`, their expected number for observers that
        err independently given the truth; `shared_share`, the shared errors as a share of all traces on which either
        errs, and `expected_share`; `phi_given_truth`, the correlation of the two 0/1 vectors after subtracting each
        observer's error rate among incorrect and among correct traces; `p`, the probability of at least this many
        shared errors when the second observer's errors are permuted within incorrect traces and within correct traces:
        whole problems among those with the same number of each, and samples within each problem; both None, with a
        `reason`, if no errors vary given the truth; `phi_marginal`, the correlation of the raw vectors. That one is
        descriptive and no evidence of a shared blind spot: it is positive for any two observers that are both better
        at the same class.

    Source: Pearson's phi (Yule 1912); given the truth, the partial correlation (Yule 1907) with one indicator held
    fixed; permutation within strata of the variable held fixed: Good 2005, Permutation, Parametric and Bootstrap Tests
    of Hypotheses, and Winkler et al. 2015; p as in Phipson & Smyth 2010.
    """
    n, n_a, n_b, both = len(a_N), int(a_N.sum()), int(b_N.sum()), int((a_N & b_N).sum())
    classes = [group_N for group_N in (wrong_N, ~wrong_N) if group_N.any()]
    expected = float(sum(a_N[group_N].sum() * b_N[group_N].mean() for group_N in classes))
    either = n_a + n_b - both
    row: dict[str, Any] = {
        "n": n,
        "first_errors": n_a,
        "second_errors": n_b,
        "shared_errors": both,
        "expected_errors": expected,
        "shared_share": both / either if either else None,
        "expected_share": expected / (n_a + n_b - expected) if either else None,
        "phi_marginal": None,
        "phi_given_truth": None,
        "p": None,
        "reason": "",
    }
    if not n:
        row["reason"] = "no trace that both audited"
        return row
    constant = [side for side, count in (("first", n_a), ("second", n_b)) if count in (0, n)]
    if constant:
        row["reason"] = f"the {' and the '.join(constant)} observer errs on none or on all of these traces"
        return row
    row["phi_marginal"] = _correlation(a_N.astype(float), b_N.astype(float))
    alike = [side for side, x_N in (("first", a_N), ("second", b_N)) if not any(_varies(x_N, wrong_N))]
    if alike:
        row["reason"] = f"the {' and the '.join(alike)} observer calls all traces alike: no errors vary given the truth"
        return row
    if not any(a and b for a, b in zip(_varies(a_N, wrong_N), _varies(b_N, wrong_N), strict=True)):
        row["reason"] = "the errors of both vary neither among incorrect nor among correct traces"
        return row
    row["phi_given_truth"] = _correlation(_centred(a_N, wrong_N), _centred(b_N, wrong_N))
    orders = dealt_orders(clusters=problems, kinds=wrong_N.tolist(), rng=rng, draws=n_permutations)
    as_many = sum(int((a_N & b_N[order_N]).sum()) >= both for order_N in orders)
    row["p"] = (1 + as_many) / (1 + n_permutations)
    return row


def _correlation(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    size = float(np.sqrt((x_N**2).sum() * (y_N**2).sum()))
    return max(-1.0, min(1.0, float(x_N @ y_N) / size)) if size > 1e-12 else None


def _varies(error_N: np.ndarray, wrong_N: np.ndarray) -> tuple[bool, bool]:
    """Returns whether errors vary among the incorrect traces, and whether they do among the correct ones."""
    among_wrong, among_right = (bool(x_N.any() and not x_N.all()) for x_N in (error_N[wrong_N], error_N[~wrong_N]))
    return among_wrong, among_right


def _centred(error_N: np.ndarray, wrong_N: np.ndarray) -> np.ndarray:
    """Returns the errors minus their rate within the class (incorrect or correct) of each trace."""
    out = error_N.astype(float)
    for group in (wrong_N, ~wrong_N):
        if group.any():
            out[group] -= out[group].mean()
    return out


# -- the panel --------------------------------------------------------------------------------


def panel_errors(
    errors: Mapping[str, np.ndarray],
    *,
    wrong_N: np.ndarray,
    problems: Sequence[str],
    level: float = 0.95,
    n_bootstrap: int = 2000,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Returns how many independent observers a panel is worth.

    n observers whose errors, given the truth, have mean correlation r reduce the variance of their mean error as much
    as this many independent ones:

        n_eff = n / (1 + (n − 1) r)

    n copies of one observer are worth 1. A negative r counts as 0: no panel is worth more than its members. r is the
    mean of `phi_given_truth` over all pairs of observers. An observer whose errors do not vary given the truth has
    nothing to correlate: it never errs on these traces (an observer that is itself the verifier), always errs, or calls
    all of them alike. It is left out, with the reason, and does not count towards n. If one observer's errors vary only
    among incorrect traces and another's only among correct ones, they share nothing, and r is 0 for this pair.

    Args:
        errors: Alias → whether it errs on each trace; all observers audited all of these traces.
        wrong_N: Whether each trace is incorrect according to the verifier.
        problems: Problem of each trace; whole problems are drawn for the interval.
        level: Confidence level.
        n_bootstrap: Number of draws.
        rng: Generator for the draws.

    Returns:
        The observers that count, `left_out` (alias → reason), n_traces, n_problems; `mean_phi` and `n_eff`, each with
        value, low, high. All of these are None, with a `reason`, if fewer than two observers count or no two have
        errors that vary in the same class; low and high are None, with a reason, if too many draws hold no error of
        some observer; `degenerate`, with a reason, if all draws give the same number (copies of one observer): the
        interval's width then says nothing about the uncertainty.

    Source: the design effect 1 + (n − 1) r of Kish 1965, Survey Sampling, section 5.4; percentile interval over
    problems as in m3i.statistics.cluster_mean.
    """
    n_traces = len(problems)
    left_out = {
        alias: f"{_constant(error_N, wrong_N)} these traces: nothing to correlate"
        for alias, error_N in errors.items()
        if n_traces and not any(_varies(error_N, wrong_N))
    }
    names = [alias for alias in errors if n_traces and alias not in left_out]
    section: dict[str, Any] = {
        "observers": names,
        "left_out": left_out,
        "n_traces": n_traces,
        "n_problems": len(set(problems)),
        "level": level,
        "mean_phi": {"value": None, "low": None, "high": None},
        "n_eff": {"value": None, "low": None, "high": None},
        "degenerate": False,
        "reason": "",
    }
    if len(errors) > 1 and not n_traces:
        section["reason"] = "no trace was audited by all of them"
        return section
    if len(names) < 2:
        section["reason"] = f"it takes two observers that sometimes err, and there is {'only one' if names else 'none'}"
        return section
    error_ON = np.array([errors[name] for name in names], dtype=float)
    varies_OK = np.array([_varies(errors[name], wrong_N) for name in names])
    if all(not (a_K & b_K).any() for a_K, b_K in combinations(varies_OK, 2)):
        section["reason"] = "the errors of no two observers vary among incorrect or among correct traces"
        return section
    value = float(_mean_phi(error_ON, wrong_N, np.zeros(n_traces, dtype=int), np.ones((1, 1)))[0])
    _, index_N = np.unique(np.asarray(problems), return_inverse=True)
    n_problems = section["n_problems"]
    weight_BC = rng.multinomial(n_problems, np.full(n_problems, 1 / n_problems), size=n_bootstrap).astype(float)
    drawn_B = _mean_phi(error_ON, wrong_N, index_N, weight_BC)
    known_B = drawn_B[np.isfinite(drawn_B)]
    section["mean_phi"]["value"] = value
    section["n_eff"]["value"] = effective_number(len(names), value)
    if len(known_B) < (1 - UNDEFINED) * n_bootstrap:
        section["reason"] = "too few errors for an interval"
        return section
    low, high = (float(x) for x in np.quantile(known_B, [(1 - level) / 2, (1 + level) / 2]))
    if high - low < 1e-9:
        section["degenerate"] = True
        section["reason"] = (
            "every draw of problems gives the same number; an interval without width would look like certainty"
        )
    section["mean_phi"] |= {"low": low, "high": high}
    section["n_eff"] |= {"low": effective_number(len(names), high), "high": effective_number(len(names), low)}
    return section


def _constant(error_N: np.ndarray, wrong_N: np.ndarray) -> str:
    """Returns, as a phrase, what an observer does whose errors do not vary given the truth."""
    if not error_N.any():
        return "makes no errors on"
    if error_N.all():
        return "errs on all of"
    return f"finds a failure in {'none' if error_N[wrong_N].all() else 'all'} of"


def effective_number(n: int, mean_phi: float) -> float:
    """Returns Kish's n / (1 + (n − 1) r), with a negative r counted as 0."""
    return n / (1 + (n - 1) * max(0.0, mean_phi))


def _sums(error_ON: np.ndarray, index_N: np.ndarray, weight_BC: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns, for each draw of clusters: rows, errors of each observer, shared errors of each pair."""
    n_clusters = weight_BC.shape[1]
    size_C = np.bincount(index_N, minlength=n_clusters).astype(float)
    error_CO = np.zeros((n_clusters, len(error_ON)))
    np.add.at(error_CO, index_N, error_ON.T)
    shared_COP = np.zeros((n_clusters, len(error_ON), len(error_ON)))
    np.add.at(shared_COP, index_N, error_ON.T[:, :, None] * error_ON.T[:, None, :])
    return weight_BC @ size_C, weight_BC @ error_CO, np.einsum("bc,cop->bop", weight_BC, shared_COP)


def _mean_phi(error_ON: np.ndarray, wrong_N: np.ndarray, index_N: np.ndarray, weight_BC: np.ndarray) -> np.ndarray:
    """Returns the mean phi given the truth over all pairs, one value per draw; NaN where errors do not vary.

    Sums of squares and products are taken about the mean of each class and then pooled, so a class in which an observer
    is always right, or always wrong, adds nothing.
    """
    above_BOP = np.zeros((len(weight_BC), len(error_ON), len(error_ON)))
    for group_N in (wrong_N, ~wrong_N):
        n_B, error_BO, shared_BOP = _sums(error_ON[:, group_N], index_N[group_N], weight_BC)
        by_chance_BOP = error_BO[:, :, None] * error_BO[:, None, :] / np.maximum(n_B, 1.0)[:, None, None]
        above_BOP += shared_BOP - by_chance_BOP
    first, second = np.triu_indices(len(error_ON), k=1)
    spread_BO = np.einsum("boo->bo", above_BOP)
    below_BP = np.sqrt(np.maximum(spread_BO[:, first] * spread_BO[:, second], 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        phi_BP = np.where(below_BP > 1e-9, above_BOP[:, first, second] / below_BP, np.nan)
    return np.asarray(phi_BP.mean(axis=1))
