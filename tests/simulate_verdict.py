"""How often the verdict on losses claims a difference where there is none.

    python tests/simulate_verdict.py --runs 1000

Rows are drawn as instruction rows look: tokens from a clipped lognormal (median 67), per-token
differences with mean 0, a token's own noise on top. Differences are normal, heavy-tailed (t with 3
and 2 degrees of freedom), skewed (gamma of shape 2, to one side and the other), very skewed
(exponential) or both (lognormal of shape 0.5 and 1, and the difference of two). Beside the verdict:
the percentile bootstrap of the rows' mean, which it replaced, and how often the verdict finds a
real difference of half a standard deviation.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemma_lora.statistics import bootstrap_mean, paired_sum

SIZES = (2, 5, 6, 8, 10, 15, 20, 30, 40)
SHAPES = (
    "normal", "heavy", "heavier", "skewed", "skewed back", "very skewed", "lognormal 0.5",
    "lognormal 1", "two lognormals",
)  # fmt: skip


def draw_rows(shape: str, n: int, draws: Any) -> tuple[Any, Any]:
    """(difference in nats, tokens) of n rows whose mean difference is 0."""
    tokens = draws.lognormal(4.2, 0.9, n).clip(3, 1000).round()
    each = {
        "normal": lambda: draws.normal(0, 0.2, n),
        "heavy": lambda: 0.1 * draws.standard_t(3, n),
        "heavier": lambda: 0.1 * draws.standard_t(2, n),
        "skewed": lambda: 0.15 * (draws.gamma(2, 1, n) - 2),
        "skewed back": lambda: -0.15 * (draws.gamma(2, 1, n) - 2),
        "very skewed": lambda: 0.2 * (draws.exponential(1, n) - 1),
        "lognormal 0.5": lambda: 0.2 * (draws.lognormal(0, 0.5, n) - math.exp(0.125)),
        "lognormal 1": lambda: 0.2 * (draws.lognormal(0, 1, n) - math.exp(0.5)),
        "two lognormals": lambda: 0.2 * (draws.lognormal(0, 1, n) - draws.lognormal(0, 1, n)),
    }[shape]()
    return each * tokens + draws.normal(0, 0.06, n) * tokens**0.5, tokens


def rates(shape: str, n: int, runs: int, seed: int) -> tuple[float, float, float]:
    """(false claims of the verdict, of the percentile bootstrap, claims of a real difference)."""
    import numpy as np

    draws = np.random.default_rng(seed)
    spread = draw_rows(shape, 100_000, draws)[0].std()
    claims, bootstrap, found = 0, 0, 0
    for run in range(runs):
        gains, tokens = draw_rows(shape, n, draws)
        claims += paired_sum(gains).shown
        found += paired_sum(gains + spread / 2).shown
        if run < 100:  # it is slow
            ci = bootstrap_mean(list(gains / tokens))
            bootstrap += ci is not None and not ci[0] <= 0 <= ci[1]
    return claims / runs, bootstrap / min(runs, 100), found / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| differences | n | verdict | bootstrap before | real one found |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for shape in SHAPES:
        for n in SIZES:
            new, old, found = rates(shape, n, given.runs, given.seed)
            print(f"| {shape} | {n} | {new:.1%} | {old:.1%} | {found:.1%} |", flush=True)


if __name__ == "__main__":
    main()
