"""From judged samples to figures: shares, paired comparisons, the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, TypedDict

from gemma_lora.paired import Comparison, compare_hits, compare_losses
from gemma_lora.selection import (
    TUNED,
    CandidateCounts,
    Replacement,
    candidate_sentence,
    compared_models,
    count_candidates,
    without_candidates,
)
from gemma_lora.statistics import Figure, average, proportion
from gemma_lora.suite_cache import SuiteFacts
from gemma_lora.verdicts import BAD_CONTEXT, ResultPreview

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
    logprob: float | None  # of the whole answer, and of its least likely token, in nats
    lowest_logprob: float | None
    sure: bool  # of the fine-tuned model's answers, where its adapter has a threshold
    candidate: int  # of answers that others could replace: which was drawn, 0 for the first
    drawn_tokens: int
    drawn_sec: float
    mended: list[str]  # what was changed in the first answer, in words


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
    kind: str  # these six of SQL rows
    excluded: str | None
    empty_gold: bool
    gold_result: ResultPreview | None
    suite: SuiteFacts | None
    no_suite: str | None  # why there is none, of a row that accuracy would count
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
    candidates: CandidateCounts
    coverage: Figure  # the share of answers that the model is sure of
    sure_accuracy: Figure  # of these, right by the headline's metric


Breakdown = dict[str, dict[str, dict[str, list[int]]]]  # {column: {value: {model: [hits, n]}}}


class Summary(TypedDict):
    """Every figure of a run: what evaluation.json holds beside how it was made."""

    type: str
    n: int
    headline: str  # the metric that the verdict is about
    subject: str  # the model that is compared with each of the others
    excluded: dict[str, int]
    no_suite: NotRequired[dict[str, int]]  # why rows that could be judged have no suite
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
        "no_suite": dict(Counter(why for s in samples if (why := s.get("no_suite")))),
        "models": figures,
        "paired": [],
    }
    if kind == "sql":
        summary["paired"] = [
            compare_hits(hit_pairs(scored, *pair, metric), *pair, metric)
            for pair in compared_models(names, subject)
        ]
        summary["breakdown"] = breakdown(scored, names, metric)
    else:
        losses = ((name, list(loss_pairs(samples, subject, name))) for name in others)
        summary["paired"] = [
            compare_losses(pairs, subject, name) for name, pairs in losses if pairs
        ]
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
        **candidate_figures(samples, name),
        **sure_figures(rows, name),
        **shared_figures(outputs),
    }


def candidate_figures(samples: Sequence[Sample], name: str) -> ModelFigures:
    """What drawing other answers did, on all rows that execution can judge; {} for first ones."""
    model = without_candidates(name)
    if model is None or any(model not in s["outputs"] for s in samples):
        return {}
    return {
        "candidates": count_candidates(
            Replacement(
                s["outputs"][name]["candidate"],
                s["outputs"][name]["drawn_tokens"],
                s["outputs"][name]["drawn_sec"],
                bool(s["outputs"][name].get("mended")),
                s["outputs"][model]["match"],
                s["outputs"][name]["match"],
                judged=not s["excluded"],
                shows=not s["empty_gold"],
            )
            for s in samples
        )
    }


def sure_figures(rows: Sequence[Sample], name: str) -> ModelFigures:
    """How often a model is sure of what it says, and right then; {} where it never tells."""
    known = [s for s in rows if "sure" in s["outputs"][name]]
    if not known:
        return {}
    metric = "test_suite_accuracy" if any(s.get("suite") for s in rows) else "execution_accuracy"
    sure = [s for s in known if s["outputs"][name]["sure"]]
    return {
        "coverage": proportion(s["outputs"][name]["sure"] for s in known),
        "sure_accuracy": proportion(hit(s, name, metric) for s in sure),
    }


def sure_sentences(summary: Summary) -> list[str]:
    """How many answers the models are sure of, and how many of these are right."""
    found = []
    for name, figures in summary["models"].items():
        if "coverage" not in figures:
            continue
        right, coverage = figures["sure_accuracy"], figures["coverage"]
        said = f"{name} is sure of {share_text(coverage)} of its {coverage['n']} answers"
        found.append(f"{said}; right of these: {share_text(right)} (n = {right['n']}).")
    return found


def share_text(share: Figure) -> str:
    """A share with its interval, in percent."""
    if share["value"] is None:
        return "-"
    ends = f" [{100 * share['ci'][0]:.0f}-{100 * share['ci'][1]:.0f}]" if share["ci"] else ""
    return f"{100 * share['value']:.1f}%{ends}"


def candidate_sentences(summary: Summary) -> list[str]:
    """What drawing other answers did, a sentence a model."""
    found = ((name, figures.get("candidates")) for name, figures in summary["models"].items())
    return [candidate_sentence(name, counts) for name, counts in found if counts]


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


def hit_pairs(
    samples: Sequence[Sample], subject: str, base: str, metric: str
) -> list[tuple[bool, bool]]:
    """Whether the subject, and the other, got each row right."""
    return [(hit(s, subject, metric), hit(s, base, metric)) for s in samples]


def loss_pairs(samples: Sequence[Sample], subject: str, base: str) -> Iterator[tuple[float, int]]:
    """(nats less loss on the reference, its tokens) of each row that both models have read."""
    for sample in samples:
        ours, other = (sample["outputs"][name]["nll"] for name in (subject, base))
        if ours is not None and other is not None and (tokens := sample["reference_tokens"]):
            yield other - ours, tokens


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
