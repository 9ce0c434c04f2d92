"""evaluation.html: verdict, tables, charts and every row of an evaluation in one file.

The template, its styles and its program are data beside this room (`evaluation.html.jinja`,
`evaluation.css`, `evaluation.js`). Promises: the page asks nothing of anywhere, and a content
security policy that names its one program and its one style by their hashes holds it to that;
what a row holds stays text. Rows come as JSON, of which the program draws those that are looked at.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from gemma_lora.charts import evaluation_charts
from gemma_lora.cleaning import visible
from gemma_lora.cli import optional
from gemma_lora.figures import Summary
from gemma_lora.page_rows import MOST_ROWS, RowSet, page_data
from gemma_lora.report import (
    SQL_COLUMNS,
    TEXT_COLUMNS,
    breakdown_cells,
    summary_cells,
    summary_notes,
)
from gemma_lora.verdicts import KEPT_COLUMNS, KEPT_ROWS

TEMPLATE = "evaluation.html.jinja"


def evaluation_page(title: str, sets: Sequence[RowSet], record: Mapping[str, object]) -> str | None:
    """The page as HTML; None, after a line on stderr, without jinja2. `record`: how it was made."""
    jinja2 = optional("jinja2", "jinja2", "evaluation.html")
    if jinja2 is None:
        return None
    folder = Path(__file__).parent
    markup = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    markup.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    style = (folder / "evaluation.css").read_text(encoding="utf-8")
    program = (folder / "evaluation.js").read_text(encoding="utf-8")
    page = markup.get_template(TEMPLATE).render(
        title=title,
        sets=[set_of_page(index, one) for index, one in enumerate(sets)],
        data=page_data(sets),
        record=list(flat_record(record)),
        style=style,
        program=program,
        policy=policy(style, program),
        limits={"rows": KEPT_ROWS, "columns": KEPT_COLUMNS, "set": MOST_ROWS},
    )
    return visible(page)  # names and titles too come from outside


def policy(style: str, program: str) -> str:
    """A content security policy under which nothing but this style and this program is obeyed."""
    sources = [
        f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("style", style), ("script", program))
    ]
    rules = ["default-src 'none'", *sources, "img-src data:", "base-uri 'none'"]
    return "; ".join([*rules, "form-action 'none'"])


def opening_command(path: Path) -> str:
    """What to type to look at a page: a command where the system is known to have one."""
    if sys.platform == "darwin":
        return f"open {quote(str(path))}"
    return f"xdg-open {quote(str(path))}" if shutil.which("xdg-open") else str(path)


def set_of_page(index: int, one: RowSet) -> dict[str, Any]:
    """What the template draws of a set by itself: verdict, tables, notes and charts."""
    figures = figures_by_metric(one.summary)
    paired = one.summary["paired"]
    return {
        "title": one.title,
        "type": one.summary["type"],
        "verdicts": [(pair["verdict"], pair["sentence"]) for pair in paired],
        "notes": summary_notes(one.summary)[len(paired) :],
        "figures": figures,
        "subject": one.summary["subject"],
        "breakdowns": breakdown_cells(one.summary),
        "charts": evaluation_charts(one.summary, f"chart-{index}"),
        "n": len(one.samples),
    }


def figures_by_metric(summary: Summary) -> list[list[str]]:
    """The summary table with a column for each model, as fits a phone; the headline comes first."""
    header, lines = summary_cells(summary)
    turned = [list(cells) for cells in zip(header, *lines, strict=True)]
    title = (SQL_COLUMNS | TEXT_COLUMNS).get(summary["headline"], "")
    return [turned[0], *sorted(turned[1:], key=lambda cells: (cells[0] == "n", cells[0] != title))]


def flat_record(record: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    """(name, value) of everything in a record; names of what is inside have dots."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flat_record(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", str(value)
