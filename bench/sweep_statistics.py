"""What the statistics of a sweep's verdict are worth: coverage, false positives and power, by simulation.

    python -m bench.sweep_statistics                  # 2,000 simulated sweeps per row; prints tables in Markdown
    python -m bench.sweep_statistics --sweeps 300     # a quick look

A simulated sweep has an attributed arm and R controls, each a set of k of the candidate layers, trained S times and
compared with the base model on P problems with G generation seeds. Most problems are dead: every comparison is a tie.
On a live one each comparison is decided with probability `decided`, and won with probability (1 + m) / 2, where

    m = quality of the set + this training + problem + problem x set + problem x training     (each 0 on average)

The quality of a set is the mean of its layers' values, so that sets which share layers do alike. All parts are uniform
and |m| stays below 1, so the true mean score of a set is exactly ½ + live x decided x quality / 2.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, t

from m3i.statistics import (
    LEAST_DECIDED,
    cluster_mean,
    control_effect,
    equivalence,
    mean_score,
    paired_difference,
    power_randomization,
    randomization_test,
    sign_test,
    tost,
    variance_split,
)
from m3i.statistics.draws import Population, Stratum

LEVEL = 0.95


@dataclass(frozen=True)
class World:
    """Sizes of a sweep and how its scores vary; the half-widths of the uniform parts of m add up to at most 1."""

    name: str
    live: float
    decided: float
    lift: float = 0.1
    """Quality of the attributed set beyond that of its layers."""
    layer: float = 0.2
    training: float = 0.1
    problem: float = 0.2
    problem_set: float = 0.1
    problem_training: float = 0.15
    n_layers: int = 11
    k: int = 3
    controls: int = 19
    seeds: int = 3
    problems: int = 200
    generations: int = 2

    @property
    def scale(self) -> float:
        """What one unit of m is worth in mean score."""
        return self.live * self.decided / 2


@dataclass(frozen=True)
class Sweep:
    """One simulated sweep; arm 0 is the attributed one. A arms, S training seeds, P problems, G generation seeds."""

    scores_ASPG: np.ndarray
    quality_A: np.ndarray
    """True quality of each set."""
    population: float
    """Mean quality of all sets of this size."""
    run_AS: np.ndarray
    """Quality of each training."""


WORLDS = (
    World("more decided", live=0.25, decided=0.4),
    World("sparse", live=0.08, decided=0.4),
    World("sparse, mostly won", live=0.06, decided=0.6, layer=0.1, problem=0.1, lift=0.5),
    World("trainings differ", live=0.2, decided=0.4, training=0.35, layer=0.1, problem_set=0.05, problem_training=0.1),
    World("trainings alike", live=0.2, decided=0.4, training=0.0),
    World("noisy trainings", live=0.12, decided=0.8, problem=0.0, problem_training=0.6, problem_set=0.05, layer=0.1),
)
QUIET = World(
    "layers matter, little noise",
    live=0.5,
    decided=1.0,
    layer=0.5,
    training=0.0,
    problem_set=0.0,
    problem_training=0.1,
    problems=400,
)


def draw_sets(rng: np.random.Generator, world: World, *, exclude: bool) -> np.ndarray:
    """Attributed set and R distinct controls, as rows of layers: from all other sets, or free of attributed layers.

    The controls are the draws that a sweep takes, each sweep with a draw seed of its own.
    """
    attributed = tuple(sorted(rng.choice(world.n_layers, world.k, replace=False).tolist()))
    pool = tuple(i for i in range(world.n_layers) if not exclude or i not in attributed)
    population = Population(
        strata=(Stratum(layers=pool, k=world.k),),
        without=None if exclude else attributed,
        seed=int(rng.integers(2**32)),
    )
    return np.array([attributed, *(population.draw(i) for i in range(world.controls))])


def simulate(rng: np.random.Generator, world: World, sets_AK: np.ndarray) -> Sweep:
    """One sweep over the given sets, the attributed one first."""
    A, S, P, G = len(sets_AK), world.seeds, world.problems, world.generations

    def part(half: float, *shape: int) -> np.ndarray:
        return rng.uniform(-half, half, shape)

    value_L = part(world.layer, world.n_layers)
    quality_A = value_L[sets_AK].mean(axis=1)
    quality_A[0] += world.lift
    run_AS = quality_A[:, None] + part(world.training, A, S)
    live_P = rng.random(P) < world.live
    n = int(live_P.sum())
    m_ASN = run_AS[..., None] + part(world.problem, n) + part(world.problem_set, A, 1, n)
    m_ASN = m_ASN + part(world.problem_training, A, S, n)
    assert np.abs(m_ASN).max(initial=0.0) <= 1, f"{world.name}: m leaves [-1, 1]"
    u_ASNG = rng.random((A, S, n, G))
    win = world.decided * (1 + m_ASN[..., None]) / 2
    scores_ASPG = np.full((A, S, P, G), 0.5)
    scores_ASPG[:, :, live_P] = np.where(u_ASNG < win, 1.0, np.where(u_ASNG < world.decided, 0.0, 0.5))
    return Sweep(scores_ASPG=scores_ASPG, quality_A=quality_A, population=float(value_L.mean()), run_AS=run_AS)


def sweeps(world: World, n: int, *, exclude: bool = False, seed: int = 0) -> Iterator[Sweep]:
    rng = np.random.default_rng([seed, n])
    for _ in range(n):
        yield simulate(rng, world, draw_sets(rng, world, exclude=exclude))


# -- intervals --------------------------------------------------------------------------------


def two_way_bootstrap(rng: np.random.Generator, d_SP: np.ndarray, draws: int = 400) -> tuple[float, float]:
    """Percentile bootstrap that resamples training seeds and problems; what `control_effect` was preferred to."""
    S, P = d_SP.shape
    seeds_BS = rng.multinomial(S, np.full(S, 1 / S), draws) / S
    problems_BP = rng.multinomial(P, np.full(P, 1 / P), draws) / P
    low, high = np.quantile(((seeds_BS @ d_SP) * problems_BP).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def intervals(rng: np.random.Generator, world: World, sweep: Sweep, ids: dict[int, list[str]]) -> Iterator[tuple]:
    """(name, true value, low, high) of each interval on one sweep."""
    first_PG, arm_PR = sweep.scores_ASPG[0, 0], sweep.scores_ASPG[0].transpose(1, 0, 2).reshape(world.problems, -1)
    for name, rows_PR, quality in (
        ("one training", first_PG, sweep.run_AS[0, 0]),
        ("all trainings of the arm", arm_PR, sweep.run_AS[0].mean()),
    ):
        true, scores, problems = 0.5 + world.scale * quality, rows_PR.ravel().tolist(), ids[rows_PR.shape[1]]
        found = mean_score(problems=problems, scores=scores)
        yield f"mean score, {name}: `mean_score`", true, found.low, found.high
        found = cluster_mean(clusters=problems, values=scores, draws=600, seed=int(rng.integers(1 << 30)))
        yield f"mean score, {name}: `cluster_mean` (percentile bootstrap)", true, found.low, found.high
    wins, losses = int((first_PG[:, 0] == 1).sum()), int((first_PG[:, 0] == 0).sum())
    test = sign_test(wins=wins, losses=losses)
    share = (1 + sweep.run_AS[0, 0]) / 2
    yield "share of decided, one answer per problem: `sign_test` (exact, at least 95 %)", share, test.low, test.high
    tango = paired_difference(fixed=wins, broken=losses, n=world.problems)
    true = 2 * world.scale * sweep.run_AS[0, 0]
    yield "paired difference, one answer per problem: `paired_difference`", true, tango.low, tango.high
    mean_ASP = sweep.scores_ASPG.mean(axis=3)
    true = world.scale * (sweep.quality_A[0] - sweep.quality_A[1:].mean())
    effect = control_effect(attributed_SP=mean_ASP[0], controls_RSP=mean_ASP[1:]).difference
    yield "attributed − controls: `control_effect`", true, effect.low, effect.high
    low, high = two_way_bootstrap(rng, mean_ASP[0] - mean_ASP[1:].mean(axis=0))
    yield "attributed − controls: two-way percentile bootstrap", true, low, high


def coverage(world: World, n: int) -> tuple[dict[str, float], float]:
    """Share of sweeps whose interval holds the true value, by interval; mean share of undecided problems in a run."""
    rng = np.random.default_rng(1)
    sizes = (world.generations, world.generations * world.seeds)
    ids = {size: [f"p{p}" for p in range(world.problems) for _ in range(size)] for size in sizes}
    hits: dict[str, int] = defaultdict(int)
    undecided = 0.0
    for sweep in sweeps(world, n):
        undecided += float((sweep.scores_ASPG[0, 0].mean(axis=1) == 0.5).mean()) / n
        for name, true, low, high in intervals(rng, world, sweep, ids):
            hits[name] += low - 1e-12 <= true <= high + 1e-12
    return {name: count / n for name, count in hits.items()}, undecided


def other_intervals(rng: np.random.Generator, x_P: np.ndarray, draws: int = 1000) -> Iterator[tuple]:
    """(name, low, high) of intervals for a mean score that were tried and not taken, over problem-level means."""
    n, mean, error = len(x_P), x_P.mean(), x_P.std(ddof=1) / math.sqrt(len(x_P))
    quantile = t.ppf(0.975, n - 1)
    yield "t", mean - quantile * error, mean + quantile * error
    weights_BP = rng.multinomial(n, np.full(n, 1 / n), draws) / n
    means_B = weights_BP @ x_P
    yield "percentile bootstrap", *np.quantile(means_B, [0.025, 0.975])
    deviation_P = x_P - mean
    cubes = float((deviation_P**2).sum()) ** 1.5
    speed = float((deviation_P**3).sum()) / (6 * cubes) if cubes else 0.0
    below = np.clip((np.mean(means_B < mean) + np.mean(means_B <= mean)) / 2, 1e-4, 1 - 1e-4)
    bias = norm.ppf(below)
    ends = [norm.cdf(bias + (bias + z) / (1 - speed * (bias + z))) for z in (-1.96, 1.96)]
    yield "BCa", *np.quantile(means_B, ends)
    errors_B = np.sqrt(np.maximum(weights_BP @ x_P**2 - means_B**2, 0) / (n - 1))
    usable_B = errors_B > 1e-9
    ratios_B = (means_B[usable_B] - mean) / errors_B[usable_B]
    low, high = np.quantile(ratios_B, [0.025, 0.975]) if usable_B.any() else (0.0, 0.0)
    yield "bootstrap-t", mean - high * error, mean - low * error


def method_page(n: int) -> Iterator[str]:
    n = max(1, n // 2)
    yield f"\n### Other intervals for the mean score\n\nOne training, {n:,} runs per column, ± {noise(0.95, n):.3f};"
    yield "about 8, 9, 6 and 3 decided problems.\n"
    sparse = replace(WORLDS[1], controls=1, seeds=1)
    worlds = (
        replace(WORLDS[2], controls=1, seeds=1),
        sparse,
        replace(
            sparse, name="sparser, mostly won", live=0.03, decided=1.0, generations=1, lift=0.5, layer=0.05, problem=0.1
        ),
        replace(sparse, name="sparse, 60 problems", problems=60),
    )
    table: dict[str, list[float]] = defaultdict(list)
    for world in worlds:
        rng, hits = np.random.default_rng(3), defaultdict(int)
        ids = [f"p{p}" for p in range(world.problems) for _ in range(world.generations)]
        for sweep in sweeps(world, n, seed=3):
            true, scores_PG = 0.5 + world.scale * sweep.run_AS[0, 0], sweep.scores_ASPG[0, 0]
            chosen = mean_score(problems=ids, scores=scores_PG.ravel().tolist())
            found = (("`mean_score`", chosen.low, chosen.high), *other_intervals(rng, scores_PG.mean(axis=1)))
            for name, low, high in found:
                hits[name] += low - 1e-12 <= true <= high + 1e-12
        for name, count in hits.items():
            table[name].append(count / n)
    yield "| interval | " + " | ".join(world.name for world in worlds) + " |"
    yield "|---|" + "---:|" * len(worlds)
    for name, shares in table.items():
        yield f"| {name} | " + " | ".join(f"{share:.3f}" for share in shares) + " |"


# -- tests ------------------------------------------------------------------------------------


def rejections(world: World, n: int, *, exclude: bool = False) -> float:
    """Share of sweeps with a randomization p of at most 0.05."""
    count = 0
    for sweep in sweeps(world, n, exclude=exclude):
        t_A = sweep.scores_ASPG.mean(axis=(1, 2, 3))
        count += randomization_test(attributed=t_A[0], controls=t_A[1:].tolist()).p <= 0.05
    return count / n


def false_equivalence(world: World, n: int) -> float:
    """Share of runs declared equivalent at a margin that their true shift just reaches."""
    count = 0
    ids = [f"p{p}" for p in range(world.problems) for _ in range(world.generations)]
    flat = replace(world, layer=0.0, training=0.0, controls=1, seeds=1)
    for sweep in sweeps(flat, n):
        scores = sweep.scores_ASPG[0, 0].ravel().tolist()
        count += equivalence(problems=ids, scores=scores, margin=world.scale * world.lift).equivalent
    return count / n


def false_equivalence_with_controls(world: World, n: int) -> tuple[float, float]:
    """Share of sweeps declared equivalent where the margin is the true difference from the mean of the drawn sets, and
    from the mean of all sets. Sweeps in which the attributed arm decides too few problems are not declared so.
    """
    count = [0, 0]
    for sweep in sweeps(world, n, seed=13):
        scores_ASP = sweep.scores_ASPG.mean(axis=3)
        if (sweep.scores_ASPG[0] != 0.5).any(axis=(0, 2)).sum() < LEAST_DECIDED:
            continue
        found = control_effect(attributed_SP=scores_ASP[0], controls_RSP=scores_ASP[1:])
        for i, others in enumerate((sweep.quality_A[1:].mean(), sweep.population)):
            margin = abs(world.scale * float(sweep.quality_A[0] - others))
            count[i] += tost(value=found.difference.value, se=found.se, df=found.df, margin=margin).equivalent
    return count[0] / n, count[1] / n


def components(world: World, n: int) -> dict[str, tuple[float, float]]:
    """Mean unbiased estimate and true value of the components whose truth is simple, in units of score²."""
    sums: dict[str, float] = defaultdict(float)
    for sweep in sweeps(world, n, seed=7):
        split = variance_split(sweep.scores_ASPG[1:])
        for c in split.components:
            sums[c.name] += (c.raw or 0.0) / n
    unit = world.scale**2
    return {
        "draw": (sums["draw"], unit * between(world)),
        "training": (sums["training"], unit * world.training**2 / 3),
    }


def between(world: World) -> float:
    """Variance of quality between sets drawn without replacement from the layers, in units of m²."""
    return world.layer**2 / 3 / world.k * (1 - world.k / world.n_layers)


def within(world: World, n: int) -> float:
    """Variance of T around its set's true mean, common noise of all arms removed, by simulation."""
    total = 0.0
    for sweep in sweeps(world, n, seed=11):
        noise_A = sweep.scores_ASPG.mean(axis=(1, 2, 3)) - world.scale * sweep.quality_A
        total += float(noise_A.var(ddof=1)) / n
    return total


# -- page -------------------------------------------------------------------------------------


def noise(p: float, n: int) -> float:
    """Two standard errors of a simulated share."""
    return 2 * math.sqrt(p * (1 - p) / n)


def coverage_page(n: int) -> Iterator[str]:
    yield f"### Coverage at nominal 95 %\n\n{n:,} sweeps per column, ± {noise(0.95, n):.3f}; the aim is 0.93 to 0.97."
    yield "200 problems, 3 training seeds, 2 generation seeds, 3 of 11 layers, 19 controls.\n"
    yield from coverage_table(WORLDS, n)
    yield "\nThe same for other sizes; with 60 problems a sparse run has about three decided ones.\n"
    sparse, differ = WORLDS[1], WORLDS[3]
    yield from coverage_table(
        (
            replace(sparse, name="sparse, 60 problems", problems=60),
            replace(sparse, name="sparse, 500 problems", problems=500),
            replace(differ, name="trainings differ, 2 seeds", seeds=2),
            replace(differ, name="trainings differ, 5 seeds", seeds=5),
            replace(differ, name="trainings decide, few ties", live=0.5, decided=1.0, problem=0.1, training=0.45),
        ),
        n,
    )


def coverage_table(worlds: Sequence[World], n: int) -> Iterator[str]:
    columns = [(world, *coverage(world, n)) for world in worlds]
    yield "| interval | " + " | ".join(w.name for w, *_ in columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    yield "| *undecided problems of a run* | " + " | ".join(f"*{tied:.0%}*" for _, _, tied in columns) + " |"
    for name in columns[0][1]:
        yield f"| {name} | " + " | ".join(f"{hits[name]:.3f}" for _, hits, _ in columns) + " |"


def false_positive_page(n: int) -> Iterator[str]:
    yield f"\n### False positives of the verdict\n\nShare of {n:,} sweeps with p ≤ 0.05 if attribution is uninformative"
    yield f"(the attributed set is a random one), 19 controls; ± {noise(0.05, n):.3f} around 0.05.\n"
    yield "| world | layers | controls from all sets | controls free of attributed layers |\n|---|---:|---:|---:|"
    quiet = (replace(QUIET, k=k, n_layers=n_layers) for k, n_layers in ((3, 11), (4, 11), (5, 12), (5, 26), (10, 26)))
    for world in (*WORLDS[:4], replace(WORLDS[1], layer=0.0, name="sparse, sets alike"), *quiet):
        null = replace(world, lift=0.0)
        fair, unfair = rejections(null, n), rejections(null, n, exclude=True)
        yield f"| {world.name} | {world.k} of {world.n_layers} | {fair:.3f} | {unfair:.3f} |"


def power_page(n: int) -> Iterator[str]:
    yield f"\n### Power of the verdict\n\nAttributed set raised by a shift of the mean score; {n:,} sweeps per row.\n"
    yield "| world | shift | power | `power_randomization` |\n|---|---:|---:|---:|"
    for world in (WORLDS[0], WORLDS[3]):
        inside = within(world, max(200, n // 4))
        for lift in (0.05, 0.1, 0.2):
            # The simulated attributed set is a random one, raised: its own draw is noise to the formula.
            spread = world.scale**2 * between(world)
            told = fixed_or_drawn(world.scale * lift, spread, inside)
            found = rejections(replace(world, lift=lift), n)
            yield f"| {world.name} | {world.scale * lift:.4f} | {found:.2f} | {told:.2f} |"


def fixed_or_drawn(shift: float, spread: float, inside: float) -> float:
    """`power_randomization` averaged over the attributed set's own quality, normal with variance `spread`."""
    node_Q, weight_Q = np.polynomial.hermite_e.hermegauss(15)
    powers = [
        power_randomization(effect=shift + math.sqrt(spread) * float(x), between=spread, within=inside, controls=19)
        for x in node_Q
    ]
    return float(np.dot(weight_Q, powers) / weight_Q.sum())


def rest_page(n: int) -> Iterator[str]:
    yield "\n### Equivalence\n\nShare declared equivalent if the true shift equals the margin: at most 0.05.\n"
    yield "| world | margin | false equivalence |\n|---|---:|---:|"
    for world in (replace(WORLDS[0], lift=0.5), replace(WORLDS[1], lift=0.5), WORLDS[2]):
        yield f"| {world.name} | {world.scale * world.lift:.4f} | {false_equivalence(world, n):.3f} |"
    yield "\nThe attributed arm against its controls; the margin is its true distance from their mean.\n"
    yield "| world | controls | from the mean of the drawn sets | from the mean of all sets |\n|---|---:|---:|---:|"
    matter = replace(QUIET, name="layers matter, little noise", layer=0.3, lift=0.3)
    rare = replace(WORLDS[2], name="hardly anything decided", live=0.02, lift=0.4)
    for world in (
        replace(WORLDS[0], lift=0.2),
        replace(WORLDS[2], lift=0.4),
        rare,
        matter,
        replace(matter, controls=3),
    ):
        drawn, population = false_equivalence_with_controls(world, n)
        yield f"| {world.name} | {world.controls} | {drawn:.3f} | {population:.3f} |"
    yield "\n### Variance split\n\nMean estimate against the truth, in 10⁻⁶ of score².\n"
    yield "| world | draw | true | training | true |\n|---|---:|---:|---:|---:|"
    for world in (WORLDS[0], WORLDS[3]):
        found = components(world, max(200, n // 4))
        cells = " | ".join(f"{1e6 * a:.2f} | {1e6 * b:.2f}" for a, b in (found["draw"], found["training"]))
        yield f"| {world.name} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps per row")
    n = parser.parse_args().sweeps
    if n < 1:
        parser.error(f"--sweeps {n}: expected 1 or more")
    started = time.monotonic()
    for page in (coverage_page, method_page, false_positive_page, power_page, rest_page):
        for line in page(n):
            print(line, flush=True)
    print(f"\n{time.monotonic() - started:.0f} s on one core.")


if __name__ == "__main__":
    main()
