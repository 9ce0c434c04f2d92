"""Intervals, tests and summaries of numbers. Nothing here knows what was measured.

The standard library's `statistics` is imported where it is used: it brings fractions and decimals
along, for which every SQL worker, importing the main script again, would wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

from gemma_lora.cli import optional

CONFIDENCE, POWER = 0.95, 0.80
BOOTSTRAP_SEED = 0
FEW_RUNS = 5  # below this many pairs no interval is to be trusted
FEW_PAIRS = 6  # of 2 ** 5 sign flips two are as extreme as the most extreme: p is never below 0.06
EXACT_PAIRS, FLIPS = 12, 9999
# Student's t as at 99%: differences as skewed as a lognormal's of shape 1 then keep within the 5%
# (tests/simulate_verdict.py). No test keeps it for every shape (Bahadur and Savage 1956).
SKEW_CONFIDENCE = 0.99


class Figure(TypedDict):
    """A share or a mean, with how many rows it rests on."""

    value: float | None  # None when nothing could be counted
    n: int
    ci: list[float] | None  # 95% interval


class Distribution(TypedDict):
    """Repeated measurements of one quantity."""

    n: int
    mean: float
    std: float  # 0 for a single one
    median: float
    p10: float
    p50: float
    p90: float
    p99: float
    min: float
    max: float


class PairedRatio(TypedDict):
    """New over reference, pair by pair."""

    ratio: float  # geometric mean
    ci: list[float] | None
    n: int
    verdict: str  # "better" | "worse" | "within the noise" | "too few runs to say"


class PairedSum(NamedTuple):
    """Paired differences in sum, and whether they are more than chance."""

    p_value: float | None  # two-sided sign-flip test; None below FEW_PAIRS
    ci: list[float] | None  # of the mean difference; None too without scipy
    shown: bool  # p below 5%, and 0 outside the interval


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Nearest-rank percentiles of a non-empty list."""
    import numpy as np

    ranks = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    found = np.percentile(values, list(ranks.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(ranks, found, strict=True)}


def wilson(successes: int, n: int) -> list[float] | None:
    """Wilson's 95% interval of a share, None without scipy or without rows."""
    stats = optional("scipy.stats", "scipy", "intervals and no significance test")
    if stats is None or n == 0:
        return None
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def mcnemar(wins: int, losses: int) -> float | None:
    """Exact two-sided McNemar p-value: a binomial test on the rows where the two differ."""
    stats = optional("scipy.stats", "scipy", "intervals and no significance test")
    if stats is None:
        return None
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def rows_needed(wins: int, losses: int, n: int) -> int | None:
    """Rows at which a paired difference like this one is found in 80% of runs; None if none is."""
    stats = optional("scipy.stats", "scipy", "intervals and no significance test")
    if stats is None or wins == losses or n == 0:
        return None
    z_alpha, z_power = stats.norm.ppf([1 - (1 - CONFIDENCE) / 2, POWER])
    discordant, difference = (wins + losses) / n, (wins - losses) / n
    spread = math.sqrt(max(0.0, discordant - difference**2))
    return math.ceil(((z_alpha * math.sqrt(discordant) + z_power * spread) / difference) ** 2)


def bootstrap_mean(values: Sequence[float]) -> list[float] | None:
    """Seeded percentile bootstrap 95% interval of a mean; None below two rows."""
    stats = optional("scipy.stats", "scipy", "intervals and no significance test")
    if stats is None or len(values) < 2:
        return None
    import numpy as np

    draws = np.random.default_rng(BOOTSTRAP_SEED)
    interval = stats.bootstrap(
        (list(values),), np.mean, n_resamples=2000, method="percentile", rng=draws
    ).confidence_interval
    return [float(interval.low), float(interval.high)]


def paired_sum(differences: Sequence[float]) -> PairedSum:
    """Whether paired differences have a sum other than 0, at 5%, for small n and skewed values.

    Two tests must agree: the sign-flip permutation test of the sum (Fisher 1935; exact up to
    EXACT_PAIRS pairs, else FLIPS seeded flips), which is exact where neither side is favoured, and
    Student's t on the mean, made wider for skewed differences (see SKEW_CONFIDENCE).
    """
    import numpy as np

    n = len(differences)
    if n < FEW_PAIRS:
        return PairedSum(None, None, False)
    values = np.asarray(differences, dtype=float)
    if n <= EXACT_PAIRS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        draws = np.random.default_rng(BOOTSTRAP_SEED)
        signs = np.vstack([np.ones(n), draws.choice((-1, 1), (FLIPS, n))])
    slack = 1e-9 * float(np.abs(values).sum())  # equal sums, added in another order
    p_value = float(np.mean(np.abs(signs @ values) >= abs(values.sum()) - slack))
    stats = optional("scipy.stats", "scipy", "intervals and no significance test")
    if stats is None:
        return PairedSum(p_value, None, False)
    reach = stats.t.ppf((1 + SKEW_CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n)
    ci = [float(values.mean() - reach), float(values.mean() + reach)]
    return PairedSum(p_value, ci, p_value < 1 - CONFIDENCE and not ci[0] <= 0 <= ci[1])


def proportion(hits: Iterable[bool]) -> Figure:
    """A share with Wilson's interval."""
    flags = list(hits)
    value = sum(flags) / len(flags) if flags else None
    return {"value": value, "n": len(flags), "ci": wilson(sum(flags), len(flags))}


def average(values: Iterable[float | None]) -> Figure:
    """A mean of what is known, with its bootstrap interval."""
    from statistics import fmean

    known = [v for v in values if v is not None]
    return {"value": fmean(known) if known else None, "n": len(known), "ci": bootstrap_mean(known)}


def describe_values(values: Sequence[float]) -> Distribution:
    """Mean, spread and percentiles (linear) of repeated measurements; the spread of one is 0."""
    from statistics import fmean, median, stdev

    import numpy as np

    p10, p50, p90, p99 = map(float, np.percentile(values, (10, 50, 90, 99)))
    return {
        "n": len(values),
        "mean": fmean(values),
        "std": stdev(values) if len(values) > 1 else 0.0,
        "median": median(values),
        "p10": p10,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "min": min(values),
        "max": max(values),
    }


def paired_ratio(
    new: Sequence[float], reference: Sequence[float], more_is_better: bool
) -> PairedRatio:
    """Geometric mean of new over reference with its bootstrap interval, and what it says."""
    from statistics import fmean

    logs = [math.log(a / b) for a, b in zip(new, reference, strict=True)]
    centre, ci = fmean(logs), bootstrap_mean(logs)
    if ci is not None:
        from scipy import stats

        # A percentile bootstrap of a handful is too narrow: stretched as Student's t is over z.
        n = len(logs)
        wider = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * math.sqrt(n / (n - 1))
        ci = [math.exp(centre + (x - centre) * wider) for x in ci]
    ratio = math.exp(centre)
    if len(logs) < FEW_RUNS or ci is None:
        word = "too few runs to say"
    elif ci[0] <= 1 <= ci[1]:
        word = "within the noise"
    else:
        word = "better" if (ratio > 1) == more_is_better else "worse"
    return {"ratio": ratio, "ci": ci, "n": len(logs), "verdict": word}
