"""From judged samples to figures: shares, paired comparisons, the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any, NotRequired, TypedDict

from gemma_lora.statistics import (
    CONFIDENCE,
    FEW_PAIRS,
    SKEW_CONFIDENCE,
    Figure,
    average,
    mcnemar,
    paired_sum,
    proportion,
    rows_needed,
)
from gemma_lora.suites import SuiteFacts
from gemma_lora.verdicts import BAD_CONTEXT, ResultPreview

TUNED = "fine-tuned"
LUCKY = "right on its own database only"  # not on every database of its suite
EVALUATION_FORMAT = 2  # of evaluation.json; 1 had no test suites


class Output(TypedDict, total=False):
    """One model's answer to a row: a Generation's fields with a SqlVerdict's or TextScores'."""

    text: str
    prompt_tokens: int
    generation_tokens: int
    finish_reason: str | None  # None: not told, of an answer made elsewhere
    time_sec: float
    sql: str
    valid_sql: bool | None
    executes: bool
    exact_match: bool
    match: bool
    suite_match: bool | None
    error: str | None
    message: str | None
    result: ResultPreview | None
    nll: float | None
    rouge_l: float | None
    chrf: float | None
    length_ratio: float | None
    repetition_rate: float


class Sample(TypedDict, total=False):
    """A row of evaluation_samples.jsonl."""

    id: str | int | None
    type: str
    source: str | None
    complexity: str | None
    question: str
    context: str | None
    prompt: str
    gold: str
    kind: str  # these five of SQL rows
    excluded: str | None
    empty_gold: bool
    gold_result: ResultPreview | None
    suite: SuiteFacts | None
    reference_tokens: int | None  # of instruction rows
    outputs: dict[str, Output]  # by model
    set: str  # "main" or "forgetting", when there are two


class ModelFigures(TypedDict, total=False):
    """One model's figures; which there are depends on the task."""

    valid_sql_rate: Figure
    executes_rate: Figure
    exact_match: Figure
    execution_accuracy: Figure
    test_suite_accuracy: Figure  # on the same rows as execution_accuracy
    without_suite: dict[str, int]  # {"n", "matches"}
    empty_results: dict[str, int]  # {"n", "matches"}
    errors: dict[str, int]
    perplexity: Figure
    rouge_l: Figure
    chrf: Figure
    length_ratio: Figure
    repetition_rate: Figure
    stopped: Figure
    generation_tokens: int


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


Breakdown = dict[str, dict[str, dict[str, list[int]]]]  # {column: {value: {model: [hits, n]}}}


class Summary(TypedDict):
    """Every figure of a run: what evaluation.json holds beside how it was made."""

    type: str
    n: int
    headline: str  # the metric that the verdict is about
    subject: str  # the model that is compared with each of the others
    excluded: dict[str, int]
    models: dict[str, ModelFigures]
    paired: list[Comparison]
    breakdown: NotRequired[Breakdown]


class Speed(TypedDict):
    """How fast a model answered all rows together."""

    generation_tps: float
    seconds: float


class EvaluationRecord(TypedDict):
    """With what an evaluation was made: everything that is not computed from its samples."""

    split: str | None
    rows_chose_the_checkpoint: bool
    n: int
    seed: int
    settings: dict[str, Any]  # of EvaluationConfig, paths as text
    shots_as: str | None
    data_sha256: str
    adapter: dict[str, Any]  # from adapter_config.json, and the sha256 of its weights
    number_tolerance: dict[str, float]
    versions: dict[str, str]
    device: str
    peak_memory_gb: float
    speed: dict[str, Speed]  # by model


class EvaluationReport(TypedDict):
    """evaluation.json; of the default prompts only the samples, and no summary."""

    format: NotRequired[int]  # EVALUATION_FORMAT of what wrote it
    summary: Summary | None
    run: NotRequired[EvaluationRecord]
    forgetting: NotRequired[Summary]
    samples: NotRequired[list[Sample]]


def summarize(samples: Sequence[Sample], subject: str | None = None) -> Summary:
    """Every figure of a run from its rows alone, as evaluation_samples.jsonl holds them.

    `subject` is compared with each other model: the fine-tuned one, or else the first.
    """
    kind = samples[0]["type"]
    names = list(samples[0]["outputs"])
    metric, scored = "perplexity", []
    if kind == "sql":
        scored = judged_rows(samples)
        suited = any(s.get("suite") for s in scored)
        metric = "test_suite_accuracy" if suited else "execution_accuracy"
    if kind == "sql" and not any(s["context"] for s in samples):
        metric, scored = "exact_match", list(samples)
    figures = {
        name: (sql_figures if kind == "sql" else text_figures)(samples, name) for name in names
    }
    subject = subject or (TUNED if TUNED in names else names[0])
    others = [name for name in names if name != subject]
    summary: Summary = {
        "type": kind,
        "n": len(samples),
        "headline": metric,
        "subject": subject,
        "excluded": dict(Counter(why for s in samples if (why := s.get("excluded")))),
        "models": figures,
        "paired": [],
    }
    if kind == "sql":
        summary["paired"] = [compare_hits(scored, subject, name, metric) for name in others]
        summary["breakdown"] = breakdown(scored, names, metric)
    else:
        pairs = (compare_losses(samples, subject, name) for name in others)
        summary["paired"] = [pair for pair in pairs if pair]
    return summary


def headline_counts(sample: Sample) -> bool:
    """Whether execution can judge a SQL row: a gold that runs and shows something."""
    return sample["type"] == "sql" and not sample["excluded"] and not sample["empty_gold"]


def judged_rows(samples: Sequence[Sample]) -> list[Sample]:
    """The rows that accuracy counts: those with a suite, or all that run when none has one."""
    scored = [s for s in samples if headline_counts(s)]
    return [s for s in scored if s.get("suite")] or scored


def hit(sample: Sample, name: str, metric: str) -> bool:
    """Whether a model got a row right."""
    out = sample["outputs"][name]
    if metric == "test_suite_accuracy":
        return bool(out["suite_match"])
    return bool(out["exact_match"] if metric == "exact_match" else out["match"])


def shared_figures(outputs: Sequence[Output]) -> ModelFigures:
    """What both tasks count: how answers ended, and their length."""
    endings = [o["finish_reason"] for o in outputs if o["finish_reason"]]
    return {
        "stopped": proportion(ending == "stop" for ending in endings),
        "generation_tokens": sum(o.get("generation_tokens", 0) for o in outputs),
    }


def sql_figures(samples: Sequence[Sample], name: str) -> ModelFigures:
    """One model's figures on SQL rows."""
    outputs = [s["outputs"][name] for s in samples]
    loaded = [s["outputs"][name] for s in samples if s["context"] and s["excluded"] != BAD_CONTEXT]
    rows = judged_rows(samples)
    judged = [s["outputs"][name] for s in rows]
    suited = [s["outputs"][name] for s in rows if s.get("suite")]
    apart = [s["outputs"][name] for s in samples if headline_counts(s) and not s.get("suite")]
    apart = apart if suited else []
    errors = Counter(o["error"] for o in judged if o["error"])
    if lucky := sum(o["match"] and not o["suite_match"] for o in suited):
        errors[LUCKY] = lucky
    empty = [s["outputs"][name] for s in samples if not s["excluded"] and s["empty_gold"]]
    return {
        "valid_sql_rate": proportion(o["valid_sql"] for o in outputs if o["valid_sql"] is not None),
        "executes_rate": proportion(o["executes"] for o in loaded),
        "exact_match": proportion(o["exact_match"] for o in outputs),
        "execution_accuracy": proportion(o["match"] for o in judged),
        "test_suite_accuracy": proportion(bool(o["suite_match"]) for o in suited),
        "without_suite": {"n": len(apart), "matches": sum(o["match"] for o in apart)},
        "empty_results": {"n": len(empty), "matches": sum(o["match"] for o in empty)},
        "errors": dict(errors.most_common()),
        **shared_figures(outputs),
    }


def text_figures(samples: Sequence[Sample], name: str) -> ModelFigures:
    """One model's figures on instruction rows; rows without a reference have fewer."""
    outputs = [s["outputs"][name] for s in samples]
    known = [(s["reference_tokens"] or 0, s["outputs"][name]["nll"]) for s in samples]
    losses = [(tokens, nll) for tokens, nll in known if nll is not None]
    tokens = sum(n for n, _ in losses)
    loss = sum(nll for _, nll in losses) / tokens if tokens else None
    perplexity = math.exp(min(loss, 700)) if loss is not None else None
    return {
        "perplexity": {"value": perplexity, "n": len(losses), "ci": None},
        "rouge_l": average(o["rouge_l"] for o in outputs),
        "chrf": average(o["chrf"] for o in outputs),
        "length_ratio": average(o["length_ratio"] for o in outputs),
        "repetition_rate": average(o["repetition_rate"] for o in outputs),
        **shared_figures(outputs),
    }


def compare_hits(samples: Sequence[Sample], subject: str, base: str, metric: str) -> Comparison:
    """Paired comparison of the subject with `base` on right and wrong rows."""
    pairs = [(hit(s, subject, metric), hit(s, base, metric)) for s in samples]
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
    return name.capitalize() if name == TUNED else name


def verdict(difference: float | None, shown: bool) -> str:
    """'better', 'worse' or 'no difference' for a difference where more is better."""
    return ("better" if difference > 0 else "worse") if difference and shown else "no difference"


def compare_losses(samples: Sequence[Sample], subject: str, base: str) -> Comparison | None:
    """Paired comparison on the references' loss per token; None without references.

    Weighted by tokens, as perplexity is, so that both have the same sign.
    """
    gains, tokens = [], []
    for sample in samples:
        ours, other = (sample["outputs"][name]["nll"] for name in (subject, base))
        if ours is not None and other is not None and (count := sample["reference_tokens"]):
            gains.append(other - ours)
            tokens.append(count)
    if not gains:
        return None
    n, mean_tokens = len(gains), fmean(tokens)
    gain, test = fmean(gains) / mean_tokens, paired_sum(gains)
    ci = [end / mean_tokens for end in test.ci] if test.ci else None
    word = verdict(gain, test.shown) if n >= FEW_PAIRS else "too few"
    n_needed = None
    if word == "no difference" and gain:
        n_needed = math.ceil(((1.96 + 0.84) * stdev(gains) / fmean(gains)) ** 2)
    interval = f", {SKEW_CONFIDENCE:.1%} interval {ci[0]:+.3f} to {ci[1]:+.3f}" if ci else ""
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


def breakdown(samples: Sequence[Sample], names: Sequence[str], metric: str) -> Breakdown:
    """Hits by complexity and statement kind, for columns with more than one value."""
    found: Breakdown = {}
    columns = {
        "complexity": [s.get("complexity") for s in samples],
        "kind": [s.get("kind") for s in samples],
    }
    for column, labels in columns.items():
        values = Counter(label for label in labels if label)
        if len(values) > 1:
            found[column] = {}
            for value, n in values.most_common():
                rows = [s for s, label in zip(samples, labels, strict=True) if label == value]
                found[column][value] = {
                    name: [sum(hit(s, name, metric) for s in rows), n] for name in names
                }
    return found
