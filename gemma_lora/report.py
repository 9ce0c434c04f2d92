"""What an evaluation looks like: tables, notes and examples, in the terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from gemma_lora.cleaning import number_of, visible
from gemma_lora.figures import (
    LUCKY,
    TUNED,
    Output,
    Sample,
    Summary,
    candidate_sentences,
    sure_sentences,
)
from gemma_lora.statistics import Figure
from gemma_lora.verdicts import ResultPreview

if TYPE_CHECKING:
    from rich.console import Console

MARKUP = re.compile(r"([\\`*<>|\[\]])")  # what Markdown would read in a name
PREVIEW_ROWS = 3  # of a result in the terminal and in evaluation.md
WIDE = 120  # terminal columns from which answers stand side by side

SQL_COLUMNS = {
    "valid_sql_rate": "valid SQL",
    "executes_rate": "executes",
    "exact_match": "exact",
    "execution_accuracy": "exec. accuracy",
    "test_suite_accuracy": "test suite",
}
BY_EXECUTION = ("test_suite_accuracy", "execution_accuracy")
TEXT_COLUMNS = {
    "perplexity": "ppl",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "length_ratio": "length",
    "repetition_rate": "repeats",
    "stopped": "stopped",
}


def summary_cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the summary table."""
    sql = summary["type"] == "sql"
    known_to_all = set.intersection(*(set(f) for f in summary["models"].values()))
    wanted = SQL_COLUMNS if sql else TEXT_COLUMNS
    columns = {key: title for key, title in wanted.items() if key in known_to_all}
    values = [cast("dict[str, Figure]", figures) for figures in summary["models"].values()]
    columns = {k: t for k, t in columns.items() if any(v[k]["value"] is not None for v in values)}
    lines = []
    for name, figures in summary["models"].items():
        known = cast("dict[str, Figure]", figures)
        scored = summary["headline"] in BY_EXECUTION
        cells = [name, str(known[summary["headline"]]["n"] if scored else summary["n"])]
        for key in columns:
            value, ci = known[key]["value"], known[key]["ci"]
            percent = sql or key in ("repetition_rate", "stopped")
            text = "-" if value is None else f"{100 * value:.1f}%" if percent else f"{value:.2f}"
            if key == summary["headline"] and ci:
                text += f" [{100 * ci[0]:.0f}-{100 * ci[1]:.0f}]"
            cells.append(text)
        lines.append(cells)
    return ["model", "n", *columns.values()], lines


def breakdown_cells(summary: Summary) -> list[list[list[str]]]:
    """For each breakdown a table: a header row, then one row a value."""
    found = []
    for column, values in summary.get("breakdown", {}).items():
        rows = [[column, "n", *summary["models"]]]
        for value, hits in values.items():
            shares = [f"{100 * k / n:.0f}%" for k, n in hits.values()]
            rows.append([value, str(next(iter(hits.values()))[1]), *shares])
        found.append(rows)
    return found


def summary_notes(summary: Summary) -> list[str]:
    """What a reader of the table must know: the verdicts first, then what was left out."""
    lines = [p["sentence"] for p in summary["paired"]]
    scored = next(iter(summary["models"].values())).get("execution_accuracy", {}).get("n")
    if summary["headline"] in BY_EXECUTION and scored != summary["n"]:
        lines.append(
            f"n is what accuracy judges; valid SQL and exact match are over all {summary['n']}."
        )
    if summary["headline"] == "exact_match":
        lines.append("These rows have no database to run on: exact_match is the headline instead.")
    if summary["headline"] == "execution_accuracy":
        lines.append("No row has a test suite: execution_accuracy is the headline instead.")
    if summary["excluded"]:
        counts = ", ".join(f"{reason}: {n}" for reason, n in summary["excluded"].items())
        lines.append(f"Not scored by execution ({counts}).")
    if summary["type"] == "sql":
        lines += counted_apart(summary)
        lines += sure_sentences(summary)
        lines += candidate_sentences(summary)
        for name, figures in summary["models"].items():
            if figures["errors"]:
                errors = ", ".join(f"{k} {v}" for k, v in figures["errors"].items())
                lines.append(f"What went wrong, {name}: {errors}.")
    return lines


def counted_apart(summary: Summary) -> list[str]:
    """Rows that run but stay out of the accuracies."""
    lines = []
    models = summary["models"]
    for key, what in (
        ("without_suite", "There is no test suite for"),
        ("empty_results", "Gold shows nothing on"),
    ):
        counts = {k: cast("dict[str, dict[str, int]]", v).get(key) for k, v in models.items()}
        n = max((c["n"] for c in counts.values() if c), default=0)
        if n:
            by = ", ".join(f"{name} {c['matches']}" for name, c in counts.items() if c)
            why = summary.get("no_suite") if key == "without_suite" else None
            reasons = f" ({', '.join(f'{k}: {v}' for k, v in why.items())})" if why else ""
            rows = number_of(n, "row")
            lines.append(f"{what} {rows}{reasons}, counted apart; matched: {by}.")
    return lines


def right(out: Output) -> bool:
    """Whether an answer is right: on the suite where the row has one."""
    judged = out.get("suite_match")
    return bool(out["match"] if judged is None else judged)


def rank_sample(sample: Sample, subject: str = TUNED) -> int:
    """Order of the rows shown: won, lost, right by both, wrong by both."""
    outputs = sample["outputs"]
    others = [out for name, out in outputs.items() if name != subject]
    if subject not in outputs or not others or sample["type"] != "sql":
        return 0
    return {(True, False): 0, (False, True): 1, (True, True): 2}.get(
        (right(outputs[subject]), right(others[0])), 3
    )


def ranked_samples(samples: Sequence[Sample], summary: Summary | None) -> list[Sample]:
    """The samples, those first that show most of the difference."""
    subject = summary["subject"] if summary else TUNED
    return sorted(samples, key=lambda sample: rank_sample(sample, subject))


def outcome(out: Output) -> str:
    """One line under an answer: right or wrong, and how it ended."""
    ended = out["finish_reason"]
    ending = [f"{out['generation_tokens']} tokens, ended by {ended}"] if ended else []
    if "match" not in out:
        scores = {"ROUGE-L": out["rouge_l"], "chrF": out["chrf"]}
        return ", ".join([f"{k} {v:.2f}" for k, v in scores.items() if v is not None] + ending)
    said = "right" if right(out) else f"wrong: {out['error']}" if out["error"] else "not scored"
    if not out.get("sure", True):
        ending.insert(0, "not sure")
    if out["match"] and not right(out):
        said = f"wrong: {LUCKY}"
    return " ".join([said, *(f"({text})" for text in ending)])


def clip(text: str, lines: int = 14, width: int = 900) -> str:
    """The beginning of a text, marked when it goes on."""
    short = "\n".join(text.strip().split("\n")[:lines])[:width]
    return short + (" ..." if len(short) < len(text.strip()) else "")


def rows_text(result: ResultPreview | None) -> str:
    """The first rows of a result on one line each, values separated by bars."""
    rows = result["rows"][:PREVIEW_ROWS] if result else []
    return "\n".join(" | ".join("NULL" if v is None else str(v) for v in row) for row in rows)


def answer_text(out: Output) -> str:
    """An answer, its verdict and the first rows of its result."""
    rows = rows_text(out.get("result"))
    return clip(out["text"] or "(empty)") + f"\n-> {outcome(out)}" + (f"\n{rows}" if rows else "")


def sample_parts(sample: Sample) -> list[tuple[str, str]]:
    """(title, text) pairs of a row: question, reference, then an answer for each model.

    Without control characters: a query's result holds what its writer wanted.
    """
    gold = clip(sample["gold"] or "")
    if rows := rows_text(sample.get("gold_result")):
        gold += f"\n-> its first rows\n{rows}"
    question = sample["question"]
    if sample["type"] == "alpaca" and sample["context"]:
        question += f"\n{clip(sample['context'])}"
    head = [("question", question)] + ([("reference", gold)] if gold else [])
    answers = [(name, answer_text(out)) for name, out in sample["outputs"].items()]
    return [(name, visible(text)) for name, text in head + answers]


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with numbers to the right; names, on its edges, are escaped."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    named = [[markdown_text(cells[0]), *cells[1:]] for cells in lines]
    table = [[markdown_text(cell) for cell in header], rule, *named]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return MARKUP.sub(r"\\\1", text)


def evaluation_markdown(title: str, summary: Summary | None, samples: Sequence[Sample]) -> str:
    """The report as Markdown: evaluation.md."""
    lines = [f"# {markdown_text(title)}", ""]
    if summary:
        header, cells = summary_cells(summary)
        lines += [markdown_table(header, cells), ""]
        lines += [*(f"- {markdown_text(note)}" for note in summary_notes(summary)), ""]
        for rows in breakdown_cells(summary):
            lines += [markdown_table(rows[0], rows[1:]), ""]
    for number, sample in enumerate(samples, 1):
        lines += [f"## Example {number}", ""]
        for name, text in sample_parts(sample):
            fence = "`" * max(3, max((len(m) + 1 for m in re.findall(r"`{3,}", text)), default=3))
            lines += [f"{markdown_text(name)}:", "", fence, text, fence, ""]
    return "\n".join(lines)


def make_console() -> Console:
    """rich's console (rich comes with transformers, through typer)."""
    from rich.console import Console

    return Console(highlight=False)


def show_sample(console: Console, sample: Sample, title: str) -> None:
    """Print one row with its answers: side by side on wide terminals, stacked on narrow ones."""
    from rich.table import Table
    from rich.text import Text

    parts = sample_parts(sample)
    answers = [(n, t) for n, t in parts if n in sample["outputs"]]
    console.rule(title, style="dim")
    for name, text in parts[: len(parts) - len(answers)]:
        console.print(Text.assemble((f"{name}: ", "bold"), text))
    side_by_side = console.width >= WIDE and len(answers) > 1
    grid = Table(show_header=side_by_side, expand=True, box=None, padding=(0, 2, 0, 0))
    if side_by_side:
        for name, _ in answers:
            grid.add_column(Text(name), ratio=1, header_style="bold")
        grid.add_row(*(painted(text) for _, text in answers))
        console.print(grid)
        return
    for name, text in answers:
        console.print(Text.assemble((f"{name}: ", "bold"), painted(text)))


def painted(text: str) -> Any:
    """An answer with its verdict line in green or red."""
    from rich.text import Text

    shown = Text(text)
    shown.highlight_regex(r"(?m)^-> right.*$", "green")
    shown.highlight_regex(r"(?m)^-> wrong.*$", "red")
    return shown


def show_report(
    title: str, summary: Summary | None, samples: Sequence[Sample], examples: int
) -> None:
    """Print one answer before and after, the table with its verdict, then more examples."""
    ranked = ranked_samples(samples, summary)
    console = make_console()
    if summary is None:
        console.print(f"\n[bold]{title}[/bold]")
        for number, sample in enumerate(samples, 1):
            show_sample(console, sample, f"prompt {number}")
        return
    tuned = TUNED in ranked[0]["outputs"]
    show_sample(console, ranked[0], "an answer before and after" if tuned else "an answer")
    console.print()
    header, cells = summary_cells(summary)
    print_table(console, header, cells, title)
    for index, note in enumerate(summary_notes(summary)):
        console.print(note, style="bold" if index < len(summary["paired"]) else None, markup=False)
    for rows in breakdown_cells(summary):
        print_table(console, rows[0], rows[1:], f"{summary['headline']} by {rows[0][0]}")
    for number, sample in enumerate(ranked[1:examples], 2):
        show_sample(console, sample, f"example {number}")


def print_table(
    console: Console, header: Sequence[str], cells: Sequence[Sequence[str]], title: str
) -> None:
    """Print a table whose first column holds names; the fine-tuned model's row is green."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_style="bold", header_style="bold")
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left", no_wrap=not index)
    for row in cells:
        table.add_row(*map(Text, row), style="green" if row[0] == TUNED else None)
    console.print(table)
