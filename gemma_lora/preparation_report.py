"""What a person sees of a preparation: its counts, its lengths as a picture, some examples."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemma_lora.cli import UserError
from gemma_lora.files import write_atomic
from gemma_lora.lengths import DEFAULT_MODEL
from gemma_lora.pictures import new_figure, png_of
from gemma_lora.prompts import render_prompt
from gemma_lora.splits import SPLITS, Manifest, Row, read_manifest

# Counts of rows by whether some of their tables' rows stand in the prompt.
PROMPT_WITH_ROWS = "prompts with rows of their tables"
PROMPT_WITHOUT_ROWS = "prompts without rows: tables are empty, or it would be too long"
DOUBTFUL = "estimated to be over --max-seq-length"  # a count of rows that are kept all the same


def replaced_set(
    folder: Path, kind: str, name: str, config: str | None, split: str | None
) -> str | None:
    """The set that is prepared in `folder`, in words, when it is another than the one given."""
    with suppress(
        UserError, AttributeError, LookupError, TypeError, ValueError
    ):  # a damaged one is no loss
        before = read_manifest(folder)
        settings, source = before.get("settings", {}), before["source"]["name"]
        chosen = [settings.get("config"), settings.get("split")]
        if [before["type"], source, *chosen] != [kind, name, config, split]:
            part = f" ({', '.join(c for c in chosen if c)})" if any(chosen) else ""
            return f"{before['counts']['rows']['kept']:,} {before['type']} rows of {source}{part}"
    return None


def count_splits(
    rows: Sequence[Row],
    splits: Mapping[str, Sequence[Row]],
    counts: Mapping[str, Counter[str]],
    made: bool,
) -> None:
    """Add to `counts` what the gold queries did and how many rows each split got.

    Of questions `made` from a database also how many there are of each kind and table.
    """
    for row in rows:
        if "gold_runs" in row:
            counts["gold"]["runs on SQLite"] += row["gold_runs"]
            counts["gold"]["returns rows"] += row["gold_returns_rows"]
            counts["gold"]["is not a SELECT"] += row["gold_kind"] != "select"
            counts["gold"]["depends on the clock"] += row["uses_clock"]
        if made:
            counts["kind"][row.get("task", "")] += 1
            counts["table"][row.get("domain", "")] += 1
    for name in SPLITS:
        counts["split"][name] = len(splits[name])
    counts["rows"]["kept"] = sum(counts["split"].values())
    failing = len(rows) - counts["rows"]["kept"]
    if failing > 0:  # a person's own examples are shown more than once
        counts["dropped"]["gold does not run, drawn for valid or test"] = failing


def plot_lengths(
    folder: Path, lengths: Sequence[tuple[int, int]], limit: int, title: str, unit: str
) -> None:
    """Write lengths.png: histograms of prompt and whole-example lengths."""
    if (drawing := new_figure(8, 4.5)) is None:
        print("no lengths.png: pip install matplotlib", file=sys.stderr)
        return
    figure, axes = drawing
    totals = [p + c for p, c in lengths]
    bins = [i * max(totals) / 60 for i in range(61)]
    axes.hist(totals, bins, label="whole example", color="#4c78a8", alpha=0.55)
    axes.hist([p for p, _ in lengths], bins, label="prompt", histtype="step", color="#54a24b", lw=2)
    axes.hist(
        [c for _, c in lengths], bins, label="completion", histtype="step", color="#e45756", lw=2
    )
    if limit <= 1.2 * max(totals):
        axes.axvline(limit, color="k", ls="--", lw=1, label="--max-seq-length")
    axes.set(xlabel=f"length ({unit})", ylabel="rows", title=title)
    axes.legend()
    write_atomic(folder / "lengths.png", png_of(figure))


def show_summary(folder: Path, manifest: Manifest) -> None:
    """Print the manifest's counts as a table that fits 80 columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{manifest['source']['name']} -> {folder}/", title_style="bold")
    table.add_column("what")
    table.add_column("rows", justify="right")
    counts = manifest["counts"]
    table.add_row("read", f"{counts['rows']['read']:,}")
    for name in ("dropped", "repaired"):
        for reason, count in sorted(counts[name].items(), key=lambda item: -item[1]):
            table.add_row(f"{name}: {reason}", f"{count:,}", style="yellow")
    for name in ("gold", "split"):
        table.add_section()
        for reason, count in counts[name].items():
            table.add_row(
                f"{name}: {reason}" if name == "gold" else f"{reason}.jsonl", f"{count:,}"
            )
    console = Console()
    console.print(table)
    sizes = manifest["token_lengths"]
    console.print(
        f"lengths in tokens ({manifest['lengths_by']}): prompt p50 {sizes['prompt']['p50']}, "
        f"completion p50 {sizes['completion']['p50']}, whole p99 {sizes['whole']['p99']}; "
        f"--max-seq-length {manifest['max_seq_length_99']} would keep 99%",
        highlight=False,
    )
    if (doubtful := counts["rows"].get(DOUBTFUL)) is not None:
        console.print(
            f"{doubtful} rows are {DOUBTFUL}; an estimate drops none, train.py counts and leaves "
            "out what is too long",
            highlight=False,
        )
    if manifest["similar_schemas"]:
        console.print(
            f"{manifest['similar_schemas']} schemas of valid and test are similar to one of train "
            "(80% of their words)",
            highlight=False,
        )
    if manifest.get("balanced_by"):
        console.print(f"sample balanced by {manifest['balanced_by']}", highlight=False)
    print(f"next: {next_command(folder, manifest['settings'])}")  # unbroken, to be copied


def next_command(folder: Path, settings: Mapping[str, Any]) -> str:
    """What trains on a prepared folder, with the model that its lengths were measured for."""
    named = {"--data": (folder, Path("data")), "--model": (settings["model"], DEFAULT_MODEL)}
    given = [
        [flag, shlex.quote(str(value))] for flag, (value, usual) in named.items() if value != usual
    ]
    return " ".join(["python train.py", *itertools.chain(*given)])


def show_preview(rows: Sequence[Row]) -> None:
    """Print examples: what is only read dim, what is trained green, control tokens marked."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    control = re.compile(r"<(?:bos|eos|(?:start|end)_of_turn)>")
    for number, row in enumerate(rows, 1):
        head = len(render_prompt(row["prompt"]))
        text = Text(row["text"])
        text.stylize("dim", 0, head)
        text.stylize("green", head)
        for match in control.finditer(row["text"]):
            text.stylize(
                "bold magenta" if match.start() < head else "bold green reverse", *match.span()
            )
        console.rule(f"example {number}: dim = read, green = trained", style="dim")
        console.print(text)
