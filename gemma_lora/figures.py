"""From judged samples to figures: scores of text, shares, paired comparisons, the verdict."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from gemma_lora.cli import optional
from gemma_lora.files import Row
from gemma_lora.statistics import (
    CONFIDENCE,
    average,
    bootstrap_mean,
    mcnemar,
    proportion,
    rows_needed,
)
from gemma_lora.verdicts import BAD_CONTEXT

TUNED = "fine-tuned"


def rouge_l(reference: str, text: str) -> float | None:
    """ROUGE-L F1 (0 to 1) over lower-cased words; the subsequence is found by rapidfuzz."""
    lcs = optional("rapidfuzz.distance", "rapidfuzz", "ROUGE-L")
    if lcs is None:
        return None
    a, b = (re.findall(r"\w+", t.lower()) for t in (reference, text))
    return 2 * lcs.LCSseq.similarity(a, b) / (len(a) + len(b)) if a and b else 0.0


def chrf(reference: str, text: str) -> float | None:
    """Sentence chrF (0 to 100) as sacrebleu computes it."""
    sacrebleu = optional("sacrebleu", "sacrebleu", "chrF")
    return float(sacrebleu.sentence_chrf(text, [reference]).score) if sacrebleu else None


def repetition_rate(text: str) -> float:
    """Share of the 4-word sequences that repeat an earlier one; 0 for shorter texts."""
    words = text.split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def summarize(samples: Sequence[Row]) -> Row:
    """Every figure of a run from its rows alone, as evaluation_samples.jsonl holds them.

    Returns {"type", "n", "headline", "excluded", "models": {name: figures}, "paired": [...],
    "breakdown": {column: {value: {name: [hits, n]}}}}.
    """
    kind = samples[0]["type"]
    names = list(samples[0]["outputs"])
    scored = [s for s in samples if headline_counts(s)]
    metric = "perplexity" if kind == "alpaca" else "execution_accuracy"
    if kind == "sql" and not any(s["context"] for s in samples):
        metric, scored = "exact_match", list(samples)
    figures = {
        name: (sql_figures if kind == "sql" else text_figures)(samples, name) for name in names
    }
    others = [name for name in names if name != TUNED] if TUNED in names else []
    summary: Row = {
        "type": kind,
        "n": len(samples),
        "headline": metric,
        "excluded": dict(Counter(s["excluded"] for s in samples if s.get("excluded"))),
        "models": figures,
    }
    if kind == "sql":
        summary["paired"] = [compare_hits(scored, name, metric) for name in others]
        summary["breakdown"] = breakdown(scored, names, metric)
    else:
        summary["paired"] = [p for name in others if (p := compare_losses(samples, name))]
    return summary


def headline_counts(sample: Row) -> bool:
    """Whether a SQL row counts for execution accuracy: a gold that runs and shows something."""
    return sample["type"] == "sql" and not sample["excluded"] and not sample["empty_gold"]


def hit(sample: Row, name: str, metric: str) -> bool:
    """Whether a model got a row right."""
    out = sample["outputs"][name]
    return bool(out["exact_match"] if metric == "exact_match" else out["match"])


def shared_figures(outputs: Sequence[Row]) -> Row:
    """What both tasks count: how answers ended, and their length."""
    return {
        "stopped": proportion(o["finish_reason"] == "stop" for o in outputs),
        "generation_tokens": sum(o["generation_tokens"] for o in outputs),
    }


def sql_figures(samples: Sequence[Row], name: str) -> Row:
    """One model's figures on SQL rows."""
    outputs = [s["outputs"][name] for s in samples]
    loaded = [s["outputs"][name] for s in samples if s["context"] and s["excluded"] != BAD_CONTEXT]
    scored = [s["outputs"][name] for s in samples if headline_counts(s)]
    strict = [o for o in scored if o["strict_match"] is not None]
    empty = [s["outputs"][name] for s in samples if not s["excluded"] and s["empty_gold"]]
    return {
        "valid_sql_rate": proportion(o["valid_sql"] for o in outputs if o["valid_sql"] is not None),
        "executes_rate": proportion(o["executes"] for o in loaded),
        "exact_match": proportion(o["exact_match"] for o in outputs),
        "execution_accuracy": proportion(o["match"] for o in scored),
        "execution_accuracy_strict": proportion(o["strict_match"] for o in strict),
        "empty_results": {"n": len(empty), "matches": sum(o["match"] for o in empty)},
        "errors": dict(Counter(o["error"] for o in scored if o["error"]).most_common()),
        **shared_figures(outputs),
    }


def text_figures(samples: Sequence[Row], name: str) -> Row:
    """One model's figures on instruction rows; rows without a reference have fewer."""
    outputs = [s["outputs"][name] for s in samples]
    known = [(s, o) for s, o in zip(samples, outputs, strict=True) if o["nll"] is not None]
    tokens = sum(s["reference_tokens"] for s, _ in known)
    loss = sum(o["nll"] for _, o in known) / tokens if tokens else None
    keys = ("rouge_l", "chrf", "length_ratio", "repetition_rate")
    return {
        "perplexity": {
            "value": math.exp(min(loss, 700)) if loss is not None else None,
            "n": len(known),
            "ci": None,
        },
        **{key: average(o[key] for o in outputs) for key in keys},
        **shared_figures(outputs),
    }


def compare_hits(samples: Sequence[Row], base: str, metric: str) -> Row:
    """Paired comparison of the fine-tuned model with `base` on right and wrong rows."""
    pairs = [(hit(s, TUNED, metric), hit(s, base, metric)) for s in samples]
    n, wins, losses = len(pairs), pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(wins, losses)
    needed = rows_needed(wins, losses, n)
    difference = (wins - losses) / n if n else None
    result = {
        "against": base, "metric": metric, "n": n, "wins": wins, "losses": losses,
        "difference": difference, "p_value": p, "n_needed": needed,
        "verdict": verdict(difference, p is not None and p < 1 - CONFIDENCE),
    }  # fmt: skip
    if not n or difference is None:
        sentence = f"No row can be scored by {metric}, so nothing can be said about {base}."
    elif p is None:
        points = f"{100 * difference:+.1f} points against {base} at n = {n}"
        sentence = f"{points}; whether that is chance needs scipy."
    elif result["verdict"] == "no difference":
        more = (
            f"about {needed:,} rows would be needed for one this size"
            if needed
            else "they are equal"
        )
        sentence = (
            f"No difference between {TUNED} and {base} can be shown at n = {n} "
            f"({100 * difference:+.1f} points, exact McNemar p = {p:.2g}); {more}."
        )
    else:
        sentence = (
            f"{TUNED.capitalize()} is {result['verdict']} than {base}: {100 * difference:+.1f} "
            f"points of {metric} at n = {n} (won {wins}, lost {losses}, exact McNemar p = {p:.2g})."
        )
    return {**result, "sentence": sentence}


def verdict(difference: float | None, shown: bool) -> str:
    """'better', 'worse' or 'no difference' for a difference where more is better."""
    return ("better" if difference > 0 else "worse") if difference and shown else "no difference"


def compare_losses(samples: Sequence[Row], base: str) -> Row | None:
    """Paired comparison on the reference's loss per token; None without references."""
    rows = [s for s in samples if s["outputs"][TUNED]["nll"] is not None and s["reference_tokens"]]
    gains = [
        (s["outputs"][base]["nll"] - s["outputs"][TUNED]["nll"]) / s["reference_tokens"]
        for s in rows
    ]
    if not gains:
        return None
    gain, ci = fmean(gains), bootstrap_mean(gains)
    word = verdict(gain, ci is not None and (ci[0] > 0 or ci[1] < 0))
    n_needed = None
    if word == "no difference" and gain and len(gains) > 1:
        spread = math.sqrt(sum((g - gain) ** 2 for g in gains) / (len(gains) - 1))
        n_needed = math.ceil(((1.96 + 0.84) * spread / gain) ** 2)
    interval = f", 95% interval {ci[0]:+.3f} to {ci[1]:+.3f}" if ci else ""
    size = f"{gain:+.3f} nats a token less loss on the reference at n = {len(gains)}{interval}"
    if word == "no difference":
        more = f"; about {n_needed:,} rows would be needed for one this size" if n_needed else ""
        sentence = f"No difference between {TUNED} and {base} can be shown: {size}{more}."
    else:
        sentence = f"{TUNED.capitalize()} is {word} than {base}: {size}."
    return {
        "against": base, "metric": "nll_per_token", "n": len(gains), "difference": gain, "ci": ci,
        "n_needed": n_needed, "verdict": word, "sentence": sentence,
    }  # fmt: skip


def breakdown(samples: Sequence[Row], names: Sequence[str], metric: str) -> Row:
    """Hits by complexity and statement kind, for columns with more than one value."""
    found: Row = {}
    for column in ("complexity", "kind"):
        values = Counter(s[column] for s in samples if s.get(column))
        if len(values) > 1:
            found[column] = {
                value: {
                    name: [sum(hit(s, name, metric) for s in samples if s.get(column) == value), n]
                    for name in names
                }
                for value, n in values.most_common()
            }
    return found


def score_text(reply: str, reference: str, loss: float | None) -> Row:
    """One model's scores on one instruction row; without a reference only what needs none."""
    return {
        "nll": loss,
        "rouge_l": rouge_l(reference, reply) if reference else None,
        "chrf": chrf(reference, reply) if reference else None,
        "length_ratio": len(reply.split()) / max(1, len(reference.split())) if reference else None,
        "repetition_rate": repetition_rate(reply),
    }
