"""What a run says and writes down while it trains: metrics.jsonl, lines, the bar, the loss curve.

Owns the words on the screen and the lines of the file; knows nothing of weights or of when a line
is due to be computed. On ranks other than the first it is silent.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemma_lora.cli import UserError
from gemma_lora.files import read_json_lines, write_atomic
from gemma_lora.forecast import Pace, Schedule, duration_text
from gemma_lora.pictures import new_figure, png_of


@dataclass(frozen=True)
class TrainLine:
    """One update, as metrics.jsonl holds it; with accumulation the means over its window."""

    step: int
    train_loss: float  # nats per supervised token
    learning_rate: float
    grad_norm: float  # before clipping
    trained_tokens: int  # supervised tokens since the run began
    tokens_per_second: float  # supervised tokens
    peak_memory_gb: float


@dataclass(frozen=True)
class ValLine:
    """One validation, as metrics.jsonl holds it."""

    step: int
    val_loss: float  # nats per supervised token
    val_ppl: float
    val_rows: int
    best: bool  # better than every one before
    val_seconds: float


class RunLog:
    """The records of one run that goes by `schedule` and is reported every so many steps."""

    def __init__(
        self, folder: Path, schedule: Schedule, steps_per_report: int, window: int, is_main: bool
    ) -> None:
        self.folder, self.total_iters, self.is_main = folder, schedule.total_iters, is_main
        self.pace = Pace(schedule)
        self.steps_per_report, self.window = steps_per_report, window
        self.reporter: Any = None  # mlx-lm's callback of --report-to
        self.display: Any = None  # rich's bar, while a person watches

    def show(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self.is_main:
            return
        if self.display:  # without markup: SQL has [names] in brackets
            self.display.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)  # at once, into a pipe too

    def training(self, line: TrainLine) -> None:
        """Record an update: the file, the bar, and what is due on the screen."""
        if not self.is_main:
            return
        self.append(line)
        step, left = line.step, self.pace.stepped(line.step, time.monotonic())
        if self.display:
            self.display.update(
                0, completed=step, loss=f"{line.train_loss:.3f}",
                speed=f"{line.tokens_per_second:.0f}", memory=f"{line.peak_memory_gb:.1f}",
            )  # fmt: skip
        # One line an update: with accumulation it may come some micro-steps after it is due.
        due = step % self.steps_per_report < self.window
        if due or step == self.total_iters:
            self.show(
                f"step {step:>5}/{self.total_iters}  loss {line.train_loss:.4f}  "
                f"lr {line.learning_rate:.1e}  norm {line.grad_norm:.2f}  "
                f"{line.tokens_per_second:.0f} tok/s  {line.peak_memory_gb:.1f} GB"
                + (f"  about {duration_text(left)} left" if left else "")
            )
            if self.reporter:
                self.reporter.on_train_loss_report(as_reported(line))

    def validation(self, line: ValLine) -> None:
        """Record a validation and print it."""
        if not self.is_main:
            return
        self.append(line)
        self.pace.validated(line.val_seconds)
        mark = "  best" if line.best else ""
        self.show(
            f"step {line.step:>5}/{self.total_iters}  val_loss {line.val_loss:.4f}  "
            f"val_ppl {line.val_ppl:.2f}  ({line.val_seconds:.0f} s){mark}"
        )
        if self.reporter:
            self.reporter.on_val_loss_report(as_reported(line))

    def append(self, line: TrainLine | ValLine) -> None:
        """Add a line to metrics.jsonl; raises UserError when the disk refuses it."""
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(line)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; --resume goes on from the last checkpoint"
            ) from None

    def cut_back(self, step: int) -> None:
        """Drop what was recorded after `step`, to which a run has gone back."""
        path = self.folder / "metrics.jsonl"
        if not (self.is_main and path.exists()):
            return
        whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        write_atomic(path, "".join(f"{line}\n" for line in kept))

    @contextmanager
    def bar(self) -> Iterator[None]:
        """A live bar with time left while a person watches; plain lines otherwise."""
        from mlx_lm.cli_ui import make_console

        theirs = make_console()
        before, theirs.quiet = theirs.quiet, True  # mlx-lm's own display would draw over ours
        try:
            with self.watched() if self.is_main and sys.stdout.isatty() else nullcontext():
                yield
        finally:
            theirs.quiet = before

    @contextmanager
    def watched(self) -> Iterator[None]:
        """rich's bar, as long as it lasts."""
        from rich import progress as bars

        with bars.Progress(
            bars.BarColumn(20),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(compact=True),
            bars.TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tok/s  "
                            "{task.fields[memory]} GB"),
            transient=True,
        ) as self.display:  # fmt: skip
            self.display.add_task("", total=self.total_iters, loss="-", speed="-", memory="-")
            try:
                yield
            finally:
                self.display = None


def as_reported(line: TrainLine | ValLine) -> dict[str, Any]:
    """A line under the names that mlx-lm's reporters know."""
    return {"iteration" if k == "step" else k: v for k, v in asdict(line).items()}


def make_reporter(name: str | None, folder: Path, settings: Mapping[str, Any]) -> Any:
    """mlx-lm's callback for wandb or swanlab, None without a name; raises UserError."""
    if not name:
        return None
    from mlx_lm.tuner.callbacks import get_reporting_callbacks

    try:
        return get_reporting_callbacks(
            name,
            "gemma-3-lora",
            str(folder),
            dict(settings),  # type: ignore[arg-type]
        )
    except (ImportError, ValueError) as error:
        raise UserError(f"--report-to {name}: {error}") from None


def plot_losses(folder: Path) -> None:
    """Draw loss_curve.png from metrics.jsonl: losses, the best step, the learning rate."""
    if (drawing := new_figure(8, 4.5)) is None:
        return  # train.py has said so
    figure, axes = drawing
    lines = list(read_json_lines(folder / "metrics.jsonl"))
    train = [(x["step"], x["train_loss"]) for x in lines if "train_loss" in x]
    valid = [(x["step"], x["val_loss"]) for x in lines if "val_loss" in x]
    best = [(x["step"], x["val_loss"]) for x in lines if x.get("best")]
    rates = [(x["step"], x["learning_rate"]) for x in lines if "learning_rate" in x]
    if train:
        axes.plot(*zip(*train, strict=True), color="#4c78a8", alpha=0.25, lw=1, label="train")
        window = max(5, len(train) // 50)
        blocks = [train[i : i + window] for i in range(0, len(train), window)]
        means = [(b[-1][0], sum(y for _, y in b) / len(b)) for b in blocks]
        label = f"train, mean of {window}"
        axes.plot(*zip(*means, strict=True), color="#4c78a8", lw=1.5, label=label)
        twin = axes.twinx()
        twin.plot(*zip(*rates, strict=True), color="#999999", lw=1, ls=":")
        twin.set_ylabel("learning rate (dotted)", color="#777777")
        twin.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.plot(*zip(*valid, strict=True), "o-", color="#e45756", ms=4, label="validation")
    if best:
        axes.plot(*best[-1], "*", color="#e45756", ms=15, label=f"best: {best[-1][1]:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    write_atomic(folder / "loss_curve.png", png_of(figure))
