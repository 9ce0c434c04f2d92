"""Two models on the same rows: how they differ, whether by chance, and a sentence on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NotRequired, TypedDict

from gemma_lora.selection import TUNED, without_candidates
from gemma_lora.statistics import (
    CONFIDENCE,
    FEW_PAIRS,
    SKEW_CONFIDENCE,
    mcnemar,
    paired_sum,
    rows_needed,
)


class Comparison(TypedDict):
    """The subject against another model on the same rows."""

    against: str
    metric: str
    n: int
    difference: float | None
    n_needed: int | None  # rows that would show a difference of this size
    verdict: str  # "better" | "worse" | "no difference" | "too few" (of instruction rows)
    sentence: str
    wins: NotRequired[int]
    losses: NotRequired[int]
    p_value: NotRequired[float | None]  # exact McNemar, or sign flips of losses
    ci: NotRequired[list[float] | None]


def compare_hits(
    pairs: Sequence[tuple[bool, bool]], subject: str, base: str, metric: str
) -> Comparison:
    """Paired comparison of rows that the subject, and `base`, got right."""
    n, wins, losses = len(pairs), pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(wins, losses)
    needed = rows_needed(wins, losses, n)
    difference = (wins - losses) / n if n else None
    word = verdict(difference, p is not None and p < 1 - CONFIDENCE)
    if not n or difference is None:
        sentence = f"No row can be scored by {metric}, so nothing can be said about {base}."
    elif p is None:
        points = f"{100 * difference:+.1f} points against {base} at n = {n}"
        sentence = f"{points}; whether that is chance needs scipy."
    elif word == "no difference":
        more = (
            f"about {needed:,} rows would be needed for one this size"
            if needed
            else "they are equal"
        )
        sentence = (
            f"No difference between {subject} and {base} can be shown at n = {n} "
            f"({100 * difference:+.1f} points, exact McNemar p = {p:.2g}); {more}."
        )
    else:
        sentence = (
            f"{capital(subject)} is {word} than {base}: {100 * difference:+.1f} "
            f"points of {metric} at n = {n} (won {wins}, lost {losses}, exact McNemar p = {p:.2g})."
        )
    return {
        "against": base, "metric": metric, "n": n, "wins": wins, "losses": losses,
        "difference": difference, "p_value": p, "n_needed": needed, "verdict": word,
        "sentence": sentence,
    }  # fmt: skip


def capital(name: str) -> str:
    """A model's name at the beginning of a sentence; names given from outside stay as they are."""
    return name.capitalize() if TUNED in (name, without_candidates(name)) else name


def verdict(difference: float | None, shown: bool) -> str:
    """'better', 'worse' or 'no difference' for a difference where more is better."""
    return ("better" if difference > 0 else "worse") if difference and shown else "no difference"


def compare_losses(pairs: Sequence[tuple[float, int]], subject: str, base: str) -> Comparison:
    """Paired comparison of (nats less loss on a reference, its tokens), one pair or more.

    Weighted by tokens, as perplexity is, so that both have the same sign.
    """
    gains, tokens = [gain for gain, _ in pairs], [count for _, count in pairs]
    n, mean_tokens = len(gains), fmean(tokens)
    gain, test = fmean(gains) / mean_tokens, paired_sum(gains)
    ci = [end / mean_tokens for end in test.ci] if test.ci else None
    word = verdict(gain, test.shown) if n >= FEW_PAIRS else "too few"
    n_needed = None
    if word == "no difference" and gain:
        n_needed = math.ceil(((2.58 + 0.84) * stdev(gains) / fmean(gains)) ** 2)
    interval = f", {SKEW_CONFIDENCE:.0%} interval {ci[0]:+.3f} to {ci[1]:+.3f}" if ci else ""
    size = f"{gain:+.3f} nats a token less loss on the reference at n = {n}{interval}"
    if word == "too few":
        sentence = (
            f"Too few rows to say whether {subject} is better or worse than {base}: {size}; "
            f"{FEW_PAIRS} or more are needed."
        )
    elif word == "no difference":
        more = f"; about {n_needed:,} rows would be needed for one this size" if n_needed else ""
        more = more if ci else "; whether that is chance needs scipy"
        sentence = f"No difference between {subject} and {base} can be shown: {size}{more}."
    else:
        sentence = f"{capital(subject)} is {word} than {base}: {size}."
    return {
        "against": base, "metric": "nll_per_token", "n": n, "difference": gain, "ci": ci,
        "p_value": test.p_value, "n_needed": n_needed, "verdict": word, "sentence": sentence,
    }  # fmt: skip
