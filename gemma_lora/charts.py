"""The charts of an evaluation as inline SVG: accuracy with intervals, errors, breakdowns.

Every chart says in words what it shows, for those who do not see it. None without matplotlib.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from gemma_lora.figures import Summary
from gemma_lora.pictures import INK, new_figure, svg_of
from gemma_lora.report import SQL_COLUMNS
from gemma_lora.statistics import Figure, wilson

# Each stands out by 3 to 1 and more from white and from the page's dark ground.
SUBJECT_COLOR = "#0f8a5f"
OTHER_COLORS = ("#7a828e", "#c06a14", "#7b68c8", "#b84a78", "#3a86b8", "#8a7a28")
MARKERS = "osD^vP*"
WIDTH, LINE, FRAME = 5.0, 0.23, 0.75  # inches: of a chart, of one mark, of legend and axis
GAP = 0.7  # between groups of marks, in marks
MOST_ERRORS, MOST_VALUES, LONGEST_NAME = 8, 8, 28


class Chart(NamedTuple):
    """A picture with its caption."""

    title: str
    svg: str


class Mark(NamedTuple):
    """One point of a chart, in percent."""

    value: float
    ci: Sequence[float] | None
    label: str


Marks = Mapping[str, Mapping[str, Mark]]  # {what is measured: {model: mark}}


def evaluation_charts(summary: Summary, prefix: str) -> list[Chart]:
    """All charts of a summary; `prefix` keeps their ids apart from those of others."""
    try:
        import matplotlib
    except ImportError:
        return []
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        # Names in scripts that its font lacks: the page has other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        return draw_charts(summary, prefix)


def draw_charts(summary: Summary, prefix: str) -> list[Chart]:
    """See `evaluation_charts`."""
    models = list(summary["models"])
    colors = model_colors(models, summary["subject"])
    made = [interval_chart("Scores with 95% intervals", score_marks(summary), colors, prefix)]
    errors = {name: figures.get("errors", {}) for name, figures in summary["models"].items()}
    made.append(error_chart(errors, colors, prefix))
    for column, values in summary.get("breakdown", {}).items():
        title = f"{SQL_COLUMNS[summary['headline']].capitalize()} by {column}"
        made.append(interval_chart(title, breakdown_marks(values), colors, f"{prefix}-{column}"))
    return [chart for chart in made if chart]


def model_colors(models: Sequence[str], subject: str) -> dict[str, str]:
    """A colour for each model, the same in every chart."""
    others = [name for name in models if name != subject]
    found = {name: OTHER_COLORS[i % len(OTHER_COLORS)] for i, name in enumerate(others)}
    return {name: found.get(name, SUBJECT_COLOR) for name in models}


def score_marks(summary: Summary) -> Marks:
    """The shares that an evaluation counts, or for instructions the likeness to references."""
    wanted = {key: (title, 100.0) for key, title in reversed(SQL_COLUMNS.items())}
    if summary["type"] != "sql":
        wanted = {"rouge_l": ("ROUGE-L x 100", 100.0), "chrf": ("chrF", 1.0)}
    found: dict[str, dict[str, Mark]] = {}
    for key, (title, scale) in wanted.items():
        for name, figures in summary["models"].items():
            figure = cast("dict[str, Figure]", figures).get(key)
            if figure and figure["value"] is not None:
                value, ci = scale * figure["value"], figure["ci"]
                sign = "%" if summary["type"] == "sql" else ""
                shown = Mark(value, ci and [scale * x for x in ci], f"{value:.1f}{sign}")
                found.setdefault(title, {})[name] = shown
    return found


def breakdown_marks(values: Mapping[str, Mapping[str, Sequence[int]]]) -> Marks:
    """Shares of hits with Wilson's intervals, for each value of a column."""
    found: dict[str, dict[str, Mark]] = {}
    for value, hits in list(values.items())[:MOST_VALUES]:
        n = next(iter(hits.values()))[1]
        for name, (right, total) in hits.items():
            ci = wilson(right, total)
            mark = Mark(100 * right / total, ci and [100 * x for x in ci], f"{right} of {total}")
            found.setdefault(f"{shortened(value)} (n = {n})", {})[name] = mark
    return found


def shortened(name: str) -> str:
    """A name as it fits beside a chart."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def interval_chart(
    title: str, marks: Marks, colors: Mapping[str, str], prefix: str
) -> Chart | None:
    """A dot with its interval for each model, on one line below the other."""
    if not marks or (made := chart_frame(len(marks) * (len(colors) + GAP), len(colors))) is None:
        return None
    figure, axes = made
    places, y = [], 0.0
    for per_model in marks.values():
        places.append(y + (len(colors) - 1) / 2)
        for index, (name, color) in enumerate(colors.items()):
            if mark := per_model.get(name):
                draw_mark(axes, mark, y + index, color, MARKERS[index % len(MARKERS)])
        y += len(colors) + GAP
    axes.set_xlim(-3, 118)
    axes.set_xticks(range(0, 101, 25), ["0", "25", "50", "75", "100"])
    finish(figure, axes, list(marks), places, colors, [MARKERS[i % 7] for i in range(len(colors))])
    said = [
        f"{what}: " + ", ".join(f"{name} {spoken(mark)}" for name, mark in per_model.items())
        for what, per_model in marks.items()
    ]
    name = f"{prefix}-scores" if "interval" in title else prefix
    return Chart(title, svg_of(figure, name, f"{title}. {'; '.join(said)}."))


def spoken(mark: Mark) -> str:
    """A mark in words."""
    return mark.label + (f" ({mark.ci[0]:.0f} to {mark.ci[1]:.0f})" if mark.ci else "")


def draw_mark(axes: Any, mark: Mark, y: float, color: str, shape: str) -> None:
    """One dot, its interval, and its value beside it."""
    if mark.ci:
        axes.plot(mark.ci, [y, y], color=color, linewidth=1.8, solid_capstyle="round")
    axes.plot([mark.value], [y], shape, color=color, markersize=6.5)
    end = max(mark.ci[1] if mark.ci else mark.value, mark.value) + 2.5
    axes.text(min(end, 103), y, mark.label, color=INK, fontsize=8.5, va="center")


def error_chart(
    errors: Mapping[str, Mapping[str, int]], colors: Mapping[str, str], prefix: str
) -> Chart | None:
    """How often each class of error was made, the most frequent first; None without any."""
    totals: dict[str, int] = {}
    for counts in errors.values():
        for kind, n in counts.items():
            totals[kind] = totals.get(kind, 0) + n
    kinds = sorted(totals, key=lambda kind: -totals[kind])[:MOST_ERRORS]
    if not kinds or (made := chart_frame(len(kinds) * (len(colors) + GAP), len(colors))) is None:
        return None
    figure, axes = made
    most = max(counts.get(kind, 0) for counts in errors.values() for kind in kinds)
    places, y = [], 0.0
    for kind in kinds:
        places.append(y + (len(colors) - 1) / 2)
        for index, (name, color) in enumerate(colors.items()):
            n = errors[name].get(kind, 0)
            axes.barh(y + index, n, height=0.82, color=color)
            axes.text(n + most * 0.015, y + index, str(n), color=INK, fontsize=8.5, va="center")
        y += len(colors) + GAP
    axes.set_xlim(0, most * 1.12)
    axes.xaxis.get_major_locator().set_params(integer=True)
    finish(figure, axes, kinds, places, colors, ["s"] * len(colors))
    said = [
        f"{kind}: " + ", ".join(f"{name} {errors[name].get(kind, 0)}" for name in colors)
        for kind in kinds
    ]
    title = "What went wrong, in rows"
    return Chart(title, svg_of(figure, f"{prefix}-errors", f"{title}. {'; '.join(said)}."))


def chart_frame(lines: float, models: int) -> tuple[Any, Any] | None:
    """A figure high enough for so many lines of marks and a legend of so many models."""
    return new_figure(WIDTH, FRAME + LINE * (lines - 1) + (0.2 if models > 3 else 0))


def finish(
    figure: Any, axes: Any, names: Sequence[str], places: Sequence[float],
    colors: Mapping[str, str], markers: Sequence[str],
) -> None:  # fmt: skip
    """Names on the left, a legend above, and no more ink than is needed."""
    axes.set_yticks(places, list(names), color=INK, fontsize=9.5)
    axes.set_ylim(max(places) + len(colors) / 2 + 0.2, -0.7)
    axes.tick_params(axis="x", colors=INK, labelsize=8.5, length=3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.14, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    import matplotlib.lines as lines

    handles = [
        lines.Line2D([], [], color=color, marker=marker, linestyle="", markersize=7)
        for color, marker in zip(colors.values(), markers, strict=True)
    ]
    labels = [shortened(name) for name in colors]
    figure.legend(
        handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5,
        labelcolor=INK, handletextpad=0.1, columnspacing=1.2,
    )  # fmt: skip
