"""What a benchmark looks like: tables, sentences, Markdown and the picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from gemma_lora.cli import optional
from gemma_lora.device import Limits, Machine
from gemma_lora.figures import TUNED, Summary, candidate_sentences
from gemma_lora.pictures import new_figure, png_of
from gemma_lora.report import make_console, markdown_table
from gemma_lora.selection import with_candidates
from gemma_lora.statistics import Distribution, Figure, PairedRatio
from gemma_lora.timing import METRICS, Figures, LimitShares, TimedSample, metric_of

BASE, FUSED, FOUR_BIT = "base", "fused", "4bit"
SMALL_N = 100


class SpeedRatio(PairedRatio):
    """How much faster a variant is than the reference, on one piece of work."""

    variant: str
    reference: str
    work: str
    metric: str


class VariantFacts(LimitShares):
    """A variant's size, and its speeds as shares of the machine's limits."""

    weights_gb: float


class Load(TypedDict):
    """What loading took."""

    load_sec: float
    active_memory_gb: float
    adapter_mb: float
    process_peak_gb: float


class Quality(TypedDict):
    """Losses and answers of every variant on the same rows."""

    split: str
    n: int
    max_tokens: int
    val_loss: dict[str, float]
    val_ppl: dict[str, float]
    batched_generation_tps: dict[str, float]
    evaluation: Summary


class BaselineFigure(TypedDict):
    """A figure now and in the earlier run."""

    variant: str
    work: str
    metric: str
    ratio: float
    before: float
    now: float
    regression: bool


class Baseline(TypedDict):
    """The comparison with an earlier run."""

    file: str
    tolerance: float
    figures: list[BaselineFigure]
    notes: list[str]


class BenchmarkResult(TypedDict):
    """benchmark.json."""

    format: int
    made: str
    machine: Machine
    settings: dict[str, Any]
    shape: str  # name of the single-row work
    model: dict[str, Any]
    definitions: dict[str, str]
    load: Load
    limits: Limits
    variants: dict[str, VariantFacts]
    figures: Figures
    comparisons: list[SpeedRatio]
    quality: Quality | None
    notes: list[str]
    baseline: Baseline | None
    samples: list[TimedSample]


def compact(value: float) -> str:
    """A number in three figures, without an exponent."""
    if not value:
        return "0"
    if abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:#.3g}".rstrip(".")


def metric_text(stats: Distribution | None, metric: str) -> str:
    """A figure of the table: mean and spread; percentiles of token times; the largest peak."""
    if not stats:
        return "-"
    scale = METRICS[metric][1]
    if metric == "tpot_sec":
        return "/".join(f"{v * scale:.0f}" for v in (stats["p50"], stats["p90"], stats["p99"]))
    if metric.endswith("peak_gb"):
        return compact(stats["max"])
    return f"{compact(stats['mean'] * scale)} ±{stats['std'] / stats['mean']:.0%}"


def figure_cells(result: BenchmarkResult) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: a figure a line, a variant a column."""
    names = list(result["figures"])
    lines: list[list[str]] = []

    def add(label: str, cells: Iterable[str]) -> None:
        texts = list(cells)
        if any(text != "-" for text in texts):
            lines.append([label, *texts])

    works = dict.fromkeys(work for figures in result["figures"].values() for work in figures)
    for work in works:
        lines.append([f"{work}:", *[""] * len(names)])
        left_out = (
            {"generation_tokens"} if work != "prompts" else {"prefill_peak_gb", "decode_peak_gb"}
        )
        for metric in (m for m in METRICS if m not in left_out):
            figures = [metric_of(result["figures"][n].get(work), metric) for n in names]
            add(METRICS[metric][0], (metric_text(f, metric) for f in figures))
    lines.append(["in all:", *[""] * len(names)])
    variants = [result["variants"][n] for n in names]
    add("weights GB", (compact(v["weights_gb"]) for v in variants))
    add("decode of limit", (f"{v['decode_share']:.0%}" for v in variants))
    add("prefill of limit", (f"{v['prefill_share']:.0%}" for v in variants))
    if quality := result["quality"]:
        add("validation loss", (f"{quality['val_loss'][n]:.3f}" for n in names))
        models = quality["evaluation"]["models"]
        suite = [models[n].get("test_suite_accuracy") for n in names]
        add("test suite", (share_text(a) for a in suite))
        accuracy = [models[n].get("execution_accuracy") for n in names]
        add("exec. accuracy", (share_text(a) for a in accuracy))
        if wanted := result["settings"].get("candidates"):
            drawn = [models.get(with_candidates(n, wanted), {}) for n in names]
            others = (share_text(one.get("execution_accuracy")) for one in drawn)
            add(f"{wanted} candidates", others)
    return ["", *names], lines


def share_text(share: Figure | None) -> str:
    """A share as '40% of 10', '-' when there is none."""
    if share is None or share["value"] is None:
        return "-"
    return f"{share['value']:.0%} of {share['n']}"


def ratio_cells(comparisons: Sequence[SpeedRatio]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the paired ratios: a speed a line, a variant a column."""
    names = list(dict.fromkeys(c["variant"] for c in comparisons))
    lines: dict[tuple[str, str], list[str]] = {}
    for c in comparisons:
        cells = lines.setdefault((c["work"], c["metric"]), ["-"] * len(names))
        interval = f" [{c['ci'][0]:.2f}-{c['ci'][1]:.2f}]" if c["ci"] else ""
        star = "*" if c["verdict"] in ("better", "worse") else ""
        cells[names.index(c["variant"])] = f"{c['ratio']:.2f}{interval}{star}"
    rows = [
        [f"{work} {METRICS[metric][0].removesuffix(' tok/s')}", *cells]
        for (work, metric), cells in lines.items()
    ]
    return [f"speed over {comparisons[0]['reference']}", *names], rows


def comparison_lines(result: BenchmarkResult) -> list[str]:
    """A sentence on the decode speed of each variant, and how to read the ratios."""
    lines = []
    for c in result["comparisons"]:
        if c["work"] != result["shape"] or c["metric"] != "generation_tps":
            continue
        interval = f" (95% interval {c['ci'][0]:.2f} to {c['ci'][1]:.2f})" if c["ci"] else ""
        said = {"better": "faster, beyond the noise", "worse": "slower, beyond the noise"}
        lines.append(
            f"{c['variant']} decodes at {c['ratio']:.2f} times the speed of {c['reference']}"
            f"{interval}: {said.get(c['verdict'], c['verdict'])}."
        )
    if any(c["verdict"] in ("better", "worse") for c in result["comparisons"]):
        lines.append("* beyond the noise: 1.00 is outside the 95% interval of the paired ratios.")
    return lines


def note_lines(result: BenchmarkResult) -> list[str]:
    """What a reader must know beside the table."""
    machine, limits, load = result["machine"], result["limits"], result["load"]
    lines = [
        f"{machine['chip']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, "
        f"{machine['device']}, {machine['dtype']}; {limits['bandwidth_gb_per_sec']:.1f} GB/s, "
        f"{limits['matmul_gflops']:,.0f} GFLOP/s measured.",
        f"Mean ± standard deviation of {result['settings']['runs']} runs; loading took "
        f"{load['load_sec']:.1f} s; adapter file {load['adapter_mb']:.1f} MB; process peak "
        f"{load['process_peak_gb']:.2f} GB.",
    ]
    if quality := result["quality"]:
        small = f" n = {quality['n']} is small: a first look, no proof." * (quality["n"] < SMALL_N)
        lines.append(
            f"Quality on {quality['n']} rows of the {quality['split']} split, which chose the "
            f"checkpoint, answers of at most {quality['max_tokens']} tokens.{small}"
        )
        lines += [pair["sentence"] for pair in quality["evaluation"].get("paired", [])]
        lines += candidate_sentences(quality["evaluation"])
    return lines + result["notes"]


def baseline_lines(result: BenchmarkResult) -> list[str]:
    """What the comparison with the earlier run found."""
    found = result["baseline"]
    if found is None:
        return []
    worse = [f for f in found["figures"] if f["regression"]]
    lines = [
        f"REGRESSION {f['variant']}, {f['work']} {METRICS[f['metric']][0]}: "
        f"{f['before'] * METRICS[f['metric']][1]:.2f} -> {f['now'] * METRICS[f['metric']][1]:.2f} "
        f"({f['ratio'] - 1:+.0%})"
        for f in worse
    ]
    lines.append(
        f"Against {found['file']}: {len(found['figures'])} figures compared, {len(worse)} worse "
        f"by more than {found['tolerance']:.0%} and the noise."
    )
    return lines + found["notes"]


def benchmark_markdown(result: BenchmarkResult) -> str:
    """The report for pasting into an issue."""
    parts = [markdown_table(*figure_cells(result)), ""]
    if result["comparisons"]:
        parts += [markdown_table(*ratio_cells(result["comparisons"])), ""]
    lines = comparison_lines(result) + baseline_lines(result) + note_lines(result)
    return "\n".join([*parts, *(f"- {line}" for line in lines)]) + "\n"


def show_benchmark(result: BenchmarkResult, title: str) -> None:
    """Print the report."""
    console = make_console()
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    tables = [(title, figure_cells(result))]
    if result["comparisons"]:
        tables.append(("Paired ratios", ratio_cells(result["comparisons"])))
    for name, (header, lines) in tables:
        table = Table(
            title=name, title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
        )
        for index, column in enumerate(header):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for cells in lines:
            table.add_row(*cells, style="bold" if cells[0].endswith(":") else None)
        console.print()
        console.print(table)
    for line in comparison_lines(result):
        console.print(line, markup=False)
    for line in baseline_lines(result):
        worse = line.startswith("REGRESSION")
        console.print(line, markup=False, style="bold red" if worse else None)
    for line in note_lines(result):
        console.print(line, markup=False, style="dim")


def plot_panels(result: BenchmarkResult) -> list[tuple[str, str, list[tuple[float, Any]]]]:
    """(title, unit, (value, error) of each variant) of every panel of the picture."""
    names, shape = list(result["figures"]), result["shape"]
    figures = [result["figures"][n][shape] for n in names]
    panels = [
        (f"{label}, {shape}", "tokens/s", [(told["mean"], told["std"]) for told in measured])
        for label, measured in (
            ("prefill", [f["prompt_tps"] for f in figures]),
            ("decode", [f["generation_tps"] for f in figures]),
        )
    ]
    if result["settings"]["memory"]:
        peaks = [max(f["prefill_peak_gb"]["max"], f["decode_peak_gb"]["max"]) for f in figures]
        panels.append((f"peak memory, {shape}", "GB", [(p, 0.0) for p in peaks]))
    if quality := result["quality"]:
        losses = [(quality["val_loss"][n], 0.0) for n in names]
        panels.append((f"validation loss, n = {quality['n']}", "nats per token", losses))
        models = [quality["evaluation"]["models"][n] for n in names]
        shares = [m["test_suite_accuracy"] for m in models if "test_suite_accuracy" in m]
        bars = [
            (100 * a["value"], accuracy_error(a["value"], a["ci"]))
            for a in shares
            if a["value"] is not None
        ]
        if len(bars) == len(names):
            panels.append((f"test-suite accuracy, n = {shares[0]['n']}", "%", bars))
    return panels


def draw_benchmark(result: BenchmarkResult) -> bytes | None:
    """Speed with error bars, memory and quality, a bar a variant; None without matplotlib."""
    if optional("matplotlib", "matplotlib", "benchmark.png") is None:
        return None
    names, panels = list(result["figures"]), plot_panels(result)
    colours = [f"C{(BASE, TUNED, FUSED, FOUR_BIT).index(name)}" for name in names]
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    drawing = new_figure(3.4 * across, 3.1 * down, nrows=down, ncols=across, squeeze=False)
    if drawing is None:
        return None
    figure, grid = drawing
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, names, colours)
    for axes in list(grid.flat)[len(panels) :]:
        axes.axis("off")
    figure.suptitle(f"{result['machine']['chip']}, {result['machine']['dtype']}", fontsize=10)
    return png_of(figure)


def accuracy_error(value: float, ci: Sequence[float] | None) -> Any:
    """How far the interval reaches below and above, in points."""
    if not ci:
        return 0.0
    low, high = ci
    return [[100 * (value - low)], [100 * (high - value)]]


def draw_panel(
    axes: Any, panel: tuple[str, str, list[Any]], names: list[str], colours: Any
) -> None:
    """One figure's bars with their values and error bars."""
    title, unit, bars = panel
    for place, ((value, error), colour) in enumerate(zip(bars, colours, strict=True)):
        axes.bar(place, value, color=colour, width=0.6)
        if error:
            axes.errorbar(place, value, yerr=error, color="black", capsize=4, lw=1)
    labels = [f"{name}\n{compact(value)}" for name, (value, _) in zip(names, bars, strict=True)]
    axes.set_xticks(range(len(names)), labels, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(unit, fontsize=8)
    axes.set_ylim(bottom=0)
