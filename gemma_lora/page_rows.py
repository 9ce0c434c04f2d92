"""Rows of an evaluation as its page shows them: texts cut to size, differences, reasons.

Every text comes out without control characters; nothing here is HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

from gemma_lora.cleaning import visible
from gemma_lora.differences import mark_differences
from gemma_lora.figures import (
    LUCKY,
    Output,
    Sample,
    Summary,
    headline_counts,
    hit,
    judged_rows,
)
from gemma_lora.report import BY_EXECUTION
from gemma_lora.sandbox import SqlJob
from gemma_lora.verdicts import ResultPreview

MOST_ROWS = 5000  # on the page, of one set: some 20 MB
LONGEST_TEXT = 4000  # characters of a question, a schema, a query or a reply
SAFE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
CUT, EMPTY, REPEATS = "cut off at the length limit", "empty", "repeats itself"
MUCH_REPETITION = 0.5  # of the 4-word sequences of a reply


class RowSet(NamedTuple):
    """Rows that were evaluated together, and their figures."""

    title: str
    summary: Summary
    samples: Sequence[Sample]


class ResultTable(TypedDict):
    """A result as the page shows it; None is NULL."""

    columns: list[str]
    rows: list[list[str | None]]
    size: str


class Answer(TypedDict):
    """One model's answer to a row as the page shows it."""

    spans: list[list[str]]  # [kind, text] of `mark_differences`
    reply: str | None  # the whole of it, where it says more than its SQL
    right: bool | None  # None where it is not scored
    said: str
    flaw: str | None  # the class that is counted and filtered by
    loss: float | None  # per token of the reference
    result: ResultTable | None


class PageRow(TypedDict):
    """A row as the page shows it."""

    key: str  # of its link
    number: int  # its line in evaluation_samples.jsonl
    question: str
    context: int | None  # which text of its set
    gold: str
    gold_result: ResultTable | None
    complexity: str | None
    kind: str | None
    apart: str | None  # why it is not counted
    answers: list[Answer]


class PageSet(TypedDict):
    """What the program of the page knows of a set of rows."""

    title: str
    type: str
    models: list[str]
    subject: int
    contexts: list[str]
    rows: list[PageRow]


def page_data(sets: Sequence[RowSet]) -> list[PageSet]:
    """The rows of all sets, with keys that no two share."""
    found: list[PageSet] = []
    shown = [list(one.samples[:MOST_ROWS]) for one in sets]
    keys = iter(row_keys([sample for samples in shown for sample in samples]))
    first = 1
    for one, samples in zip(sets, shown, strict=True):
        texts: dict[str, int] = {}
        counted = {id(sample) for sample in counted_rows(one)}
        models = list(one.summary["models"])
        rows = [
            page_row(sample, one.summary, id(sample) in counted, next(keys), number, texts)
            for number, sample in enumerate(samples, first)
        ]
        first += len(one.samples)
        found.append(
            {
                "title": visible(one.title),
                "type": one.summary["type"],
                "models": [visible(name) for name in models],
                "subject": models.index(one.summary["subject"]),
                "contexts": list(texts),
                "rows": rows,
            }
        )
    return found


def row_keys(samples: Sequence[Sample]) -> list[str]:
    """What tells rows apart in links: their ids if all have plain ones, else their numbers."""
    ids = [str(sample.get("id")) for sample in samples]
    plain = all(SAFE_ID.fullmatch(one) for one in ids) and len(set(ids)) == len(ids)
    return ids if plain else [str(number) for number in range(1, len(samples) + 1)]


def counted_rows(one: RowSet) -> Sequence[Sample]:
    """The rows that the verdict is about."""
    if one.summary["type"] != "sql" or one.summary["headline"] not in BY_EXECUTION:
        return one.samples
    return judged_rows(one.samples)


def page_row(
    sample: Sample, summary: Summary, counts: bool, key: str, number: int, texts: dict[str, int]
) -> PageRow:
    """One row; its context is kept once in `texts`, whose values are their places."""
    context = clipped(sample.get("context"))
    sql = sample["type"] == "sql"
    return {
        "key": key,
        "number": number,
        "question": clipped(sample["question"]) or "",
        "context": texts.setdefault(context, len(texts)) if context else None,
        "gold": clipped(sample["gold"]) or "",
        "gold_result": result_table(sample.get("gold_result")),
        "complexity": visible(sample.get("complexity") or "") or None,
        "kind": sample.get("kind"),
        "apart": None if counts else why_apart(sample),
        "answers": [
            sql_answer(sample, name, summary["headline"], counts)
            if sql
            else text_answer(sample, name)
            for name in summary["models"]
        ],
    }


def why_apart(sample: Sample) -> str:
    """Why a row is not among those that the verdict counts."""
    if sample["excluded"]:
        return f"not scored: {sample['excluded']}"
    if not headline_counts(sample):
        return "counted apart: the gold shows nothing here"
    return "counted apart: there is no test suite for it"


def sql_answer(sample: Sample, name: str, metric: str, counts: bool) -> Answer:
    """A model's query, in what it differs from the gold, and the reason when it is wrong."""
    out = sample["outputs"][name]
    right = hit(sample, name, metric) if counts else None
    lucky = metric == "test_suite_accuracy" and out["match"] and right is False
    sql, text = clipped(out["sql"]) or "", clipped(out["text"]) or ""
    spans = mark_differences(clipped(sample["gold"]) or "", sql or text)
    return {
        "spans": [list(span) for span in spans],
        "reply": text if sql and plain(text) != plain(sql) else None,
        "right": right,
        "said": said_of(sample, out, right, lucky),
        "flaw": None if not counts else LUCKY if lucky else out["error"],
        "loss": None,
        "result": result_table(out.get("result")),
    }


def said_of(sample: Sample, out: Output, right: bool | None, lucky: bool) -> str:
    """Right or wrong in words, and why."""
    if right:
        return "right"
    if lucky:
        suite = sample["suite"]
        n = suite["databases"] if suite else 0
        return f"wrong: right on its own database, not on all {n} of its test suite"
    if right is None and out["match"]:
        return "does what the gold does"
    if out["error"] is None:
        return "not scored" if right is None else "wrong: other words than the gold"
    return f"{'wrong' if right is False else 'differs'}: {reason(sample, out)}"


def reason(sample: Sample, out: Output) -> str:
    """What is wrong with an answer: its class, and what shows it."""
    error = out["error"] or ""
    gold, result = sample.get("gold_result"), out.get("result")
    if error == "wrong order":
        return "the right rows in an order that the gold's ORDER BY does not allow"
    if error == "wrong rows" and gold and result:
        if not gold["n_columns"] or not result["n_columns"]:
            return "it leaves another database than the gold"
        pairs = ((result["n_columns"], gold["n_columns"], "column"),
                 (result["n_rows"], gold["n_rows"], "row"))  # fmt: skip
        sizes = [
            f"{number(ours, what)} where the gold has {gold_n}"
            for ours, gold_n, what in pairs
            if ours != gold_n
        ]
        return ", ".join(sizes) or "other values than the gold's"
    message = visible(out.get("message") or "")
    return f"{error} ({message})" if message and message.lower() != error else error


def number(n: int, what: str) -> str:
    """A count with its noun."""
    more = " or more" if what == "row" and n >= SqlJob.max_rows else ""
    return f"{n:,}{more} {what}{'' if n == 1 else 's'}"


def text_answer(sample: Sample, name: str) -> Answer:
    """A model's reply to an instruction with its scores; it is neither right nor wrong."""
    out = sample["outputs"][name]
    tokens, nll = sample["reference_tokens"], out["nll"]
    loss = nll / tokens if tokens and nll is not None else None
    scores = [
        ("loss per token of the reference", loss, ".3f"),
        ("ROUGE-L", out["rouge_l"], ".2f"),
        ("chrF", out["chrf"], ".1f"),
    ]
    said = [f"{what} {value:{form}}" for what, value, form in scores if value is not None]
    text = clipped(out["text"]) or ""
    flaw = EMPTY if not text.strip() else CUT if out["finish_reason"] == "length" else None
    if flaw is None and out["repetition_rate"] > MUCH_REPETITION:
        flaw = REPEATS
    return {
        "spans": [["same", text]],
        "reply": None,
        "right": None,
        "said": ", ".join([*said, *([flaw] if flaw else [])]) or "not scored",
        "flaw": flaw,
        "loss": loss,
        "result": None,
    }


def result_table(result: ResultPreview | None) -> ResultTable | None:
    """The beginning of a result, every value as text; None without columns or result."""
    if result is None or not result["n_columns"]:
        return None
    n, size = result["n_rows"], number(result["n_rows"], "row")
    if n > len(result["rows"]):
        size = f"the first {len(result['rows'])} of {size}"
    if result["n_columns"] > len(result["columns"]):
        size += f", the first {len(result['columns'])} of {result['n_columns']} columns"
    return {
        "columns": [visible(label) for label in result["columns"]],
        "rows": [[cell(value) for value in row] for row in result["rows"]],
        "size": size,
    }


def cell(value: Any) -> str | None:
    """A value as text; text that could be taken for a number or for NULL has quotes."""
    if not isinstance(value, str):
        return None if value is None else str(value)
    text = visible(value)
    try:
        float(text)
    except ValueError:
        return text if text.strip() and text.upper() != "NULL" else f"'{text}'"
    return f"'{text}'"


def plain(text: str) -> str:
    """A text less its spacing and a last semicolon."""
    return " ".join(text.split()).removesuffix(";").rstrip()


def clipped(text: str | None) -> str | None:
    """A text without control characters, cut where it is no longer for reading."""
    shown = visible(text) if text else text
    if shown is None or len(shown) <= LONGEST_TEXT:
        return shown
    return f"{shown[:LONGEST_TEXT]} ... (of {len(shown):,} characters)"
