"""Measure speed, memory and quality of a fine-tuned Gemma 3 beside its base model.

    python benchmark.py --adapter-path checkpoints --num-samples 10             # fine-tuned alone
    python benchmark.py --adapter-path checkpoints --compare --num-samples 10   # and its base
    python benchmark.py --adapter-path checkpoints --compare --variants fused,4bit
    python benchmark.py --adapter-path checkpoints --baseline old.json --fail-on-regression

Input: the adapter folder of train.py and the data folder of dataset.py. Output, in the adapter
folder: benchmark.json (every sample, the machine, what each figure means), benchmark.md,
benchmark.png and, after --compare, README.md, a model card for the hub. Exit status 3 when
--fail-on-regression finds a figure worse than in --baseline.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import test_finetuned as evaluation
from gemma_lora.adapters import Finetuned, load_finetuned, read_adapter_config
from gemma_lora.benchmark_report import (
    BASE,
    FOUR_BIT,
    FUSED,
    Baseline,
    BaselineFigure,
    BenchmarkResult,
    Load,
    Quality,
    SpeedRatio,
    VariantFacts,
    benchmark_markdown,
    draw_benchmark,
    show_benchmark,
)
from gemma_lora.candidates import Chosen, Drawing, choose_for_rows
from gemma_lora.card import CARD_MARK, make_card
from gemma_lora.cli import UserError, check, parse_config, run_script
from gemma_lora.device import (
    describe_machine,
    measure_limits,
    on_gpu,
    prepare_process,
    process_peak_gb,
)
from gemma_lora.figures import TUNED, summarize
from gemma_lora.files import (
    JsonObject,
    jsonable,
    remove_leftovers,
    require_writable,
    write_together,
)
from gemma_lora.generation import Answer, generate_batch, prompt_ids, reference_losses, stop_ids
from gemma_lora.prompts import render_prompt
from gemma_lora.publish import publish, require_told
from gemma_lora.selection import with_candidates
from gemma_lora.splits import Row, read_manifest
from gemma_lora.statistics import paired_ratio
from gemma_lora.timing import (
    METRICS,
    OTHER_DEFINITIONS,
    Figures,
    TimedSample,
    Work,
    metric_of,
    shape_work,
    shares_of_limit,
    time_once,
    timing_figures,
    weights_bytes,
)

if TYPE_CHECKING:
    import mlx.nn as nn

# (prompt tokens, generated tokens) of the fixed shape, longest answer to a timed prompt and
# prompts timed in each run. A CPU computes a hundredth of what a GPU does: its shape is smaller,
# so that a comparison ends within two minutes, and the shape's name says so.
SIZES = {
    "gpu": (512, 128, 96, 4),
    "gpu, quick": (512, 32, 32, 2),
    "cpu": (128, 12, 12, 1),
    "cpu, quick": (64, 8, 8, 1),
}
QUALITY_TOKENS = 64  # enough for nearly all queries; the evaluation allows 96
WIDE_SPREAD = 0.10  # standard deviation over mean from which a machine counts as busy
REGRESSION_STATUS = 3
RECORD = "benchmark.json"
RECORD_BESIDE = "benchmark-new.json"  # where RECORD is the baseline, which is never written to


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of one benchmark; every field is a flag."""

    adapter_path: Path = field(
        default=Path("checkpoints"), metadata={"help": "adapter folder written by train.py"}
    )
    model: str | None = field(
        default=None, metadata={"help": "base model, instead of the one the adapter names"}
    )
    data: Path = field(default=Path("data"), metadata={"help": "data folder of dataset.py"})
    num_samples: int = field(
        default=10, metadata={"help": "validation rows used as prompts, drawn by the seed"}
    )
    candidates: int = field(
        default=0,
        metadata={"help": "of the quality: answers drawn where the first fails or returns nothing"},
    )
    compare: bool = field(
        default=False, metadata={"help": "measure the base too, score both, write the model card"}
    )
    with_samples: bool = field(
        default=False,
        metadata={"help": "publish/ also gets the evaluation's answers, with rows of your data"},
    )
    with_own_rows: bool = field(
        default=False,
        metadata={"help": "with --with-samples: also where they hold rows of your own database"},
    )
    quick: bool = field(default=False, metadata={"help": "smaller shapes and 3 runs"})
    runs: int = field(default=5, metadata={"help": "repetitions that count (3 with --quick)"})
    warmup: int = field(default=1, metadata={"help": "repetitions before, not counted"})
    max_tokens: int | None = field(
        default=None, metadata={"help": "longest answer to a prompt, timed or scored, in tokens"}
    )
    prompt_tokens: int | None = field(
        default=None,
        metadata={"help": "prompt of the fixed shape (512 on a GPU, 128 on a CPU, less if quick)"},
    )
    generation_tokens: int | None = field(
        default=None, metadata={"help": "forced length of the shape (128 on a GPU, 12 on a CPU)"}
    )
    batch_size: int = field(
        default=4, metadata={"help": "also time this many rows together; 1 leaves that out"}
    )
    variants: str | None = field(
        default=None, metadata={"help": "measure also: fused, 4bit, or both as fused,4bit"}
    )
    memory: bool = field(default=True, metadata={"help": "report memory of each phase"})
    seed: int = field(default=42, metadata={"help": "seed of the rows drawn and of the shapes"})
    json: bool = field(
        default=False, metadata={"help": "print the result as JSON on stdout's last line"}
    )
    baseline: Path | None = field(
        default=None,
        metadata={"help": "benchmark.json of an earlier run to compare with; never written to"},
    )
    tolerance: float = field(
        default=0.1, metadata={"help": "share by which a figure may be worse than the baseline's"}
    )
    fail_on_regression: bool = field(
        default=False, metadata={"help": "end with status 3 when one is worse than that"}
    )
    output_dir: Path | None = field(
        default=None, metadata={"help": "where the files go; the adapter folder by default"}
    )

    def __post_init__(self) -> None:
        at_least_one = ("num_samples", "runs", "max_tokens", "prompt_tokens", "batch_size")
        unknown = sorted(set(self.extra_variants) - {FUSED, FOUR_BIT})
        check(
            *(
                (
                    getattr(self, name) is None or getattr(self, name) >= 1,
                    f"--{name.replace('_', '-')} must be 1 or more",
                )
                for name in at_least_one
            ),
            (
                self.generation_tokens is None or self.generation_tokens >= 2,
                "--generation-tokens must be 2 or more: the first is not counted",
            ),
            (self.warmup >= 0, "--warmup must be 0 or more"),
            (0 <= self.candidates <= 64, "--candidates must be between 0 and 64"),
            (self.compare or not self.candidates, "--candidates needs --compare"),
            (not unknown, f"--variants takes fused and 4bit, not {', '.join(unknown)}"),
            (0 < self.tolerance < 10, "--tolerance must be above 0 and below 10"),
            (
                not self.fail_on_regression or self.baseline is not None,
                "--fail-on-regression needs --baseline FILE",
            ),
            (self.compare or not self.with_samples, "--with-samples needs --compare"),
            (
                self.with_samples or not self.with_own_rows,
                "--with-own-rows goes with --with-samples",
            ),
        )

    @property
    def extra_variants(self) -> tuple[str, ...]:
        """The names given with --variants."""
        return tuple(v.strip() for v in (self.variants or "").split(",") if v.strip())

    @property
    def variant_names(self) -> tuple[str, ...]:
        """What is measured."""
        return (*([BASE] if self.compare else []), TUNED, *self.extra_variants)

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.output_dir or self.adapter_path


def preset(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What --quick sets where the user said nothing."""
    return {"runs": 3} if given.get("quick") else {}


# --- Against what --------------------------------------------------------------------------------


def compare_variants(samples: Sequence[TimedSample], reference: str) -> list[SpeedRatio]:
    """Paired ratios of every variant to `reference`, for each workload and speed."""
    timed = {(s["variant"], s["work"], s["run"], s["row"]): s for s in samples}
    names = dict.fromkeys(s["variant"] for s in samples if s["variant"] != reference)
    found: list[SpeedRatio] = []
    for name in names:
        for work in dict.fromkeys(s["work"] for s in samples):
            pairs = [
                (sample, timed[(reference, *key[1:])])
                for key, sample in timed.items()
                if key[:2] == (name, work)
            ]
            prefill = [(new["prompt_tps"], old["prompt_tps"]) for new, old in pairs]
            decode = [
                (fast, slow)
                for new, old in pairs
                if (fast := new["generation_tps"]) and (slow := old["generation_tps"])
            ]
            for metric, speeds in (("prompt_tps", prefill), ("generation_tps", decode)):
                if speeds:
                    news, olds = zip(*speeds, strict=True)
                    found.append({
                        "variant": name, "reference": reference, "work": work, "metric": metric,
                        **paired_ratio(news, olds, True),
                    })  # fmt: skip
    return found


def busy_notes(figures: Figures, load_average: float | None) -> list[str]:
    """What says that other programs (or heat) disturbed the run. Prompts differ by themselves."""
    wide = []
    for variant, works in figures.items():
        for work, measured in works.items():
            for metric in ("prompt_tps", "generation_tps"):
                stats = metric_of(measured, metric)
                spread = stats["std"] / stats["mean"] if stats else 0.0
                if work != "prompts" and spread > WIDE_SPREAD:
                    wide.append((spread, f"{variant}, {work} {METRICS[metric][0]}"))
    if not wide:
        return []
    load = f"; load average {load_average:.1f}" if load_average is not None else ""
    return [
        f"The machine was busy or hot: {len(wide)} figures spread by more than {WIDE_SPREAD:.0%} "
        f"from run to run, up to {max(wide)[0]:.0%} ({max(wide)[1]}{load}). Close other programs "
        "and measure again."
    ]


def compare_with_baseline(now: Figures, before: Figures, tolerance: float) -> list[BaselineFigure]:
    """Every figure both runs have: median now over median before, and whether it is worse.

    Worse means beyond `tolerance` and beyond twice the two runs' spread together.
    """
    found: list[BaselineFigure] = []
    for variant, works in now.items():
        for work, figures in works.items():
            then_figures = before.get(variant, {}).get(work)
            for metric, (_, _, more_is_better, _) in METRICS.items():
                new, old = metric_of(figures, metric), metric_of(then_figures, metric)
                if more_is_better is None or not new or not old or not old["median"]:
                    continue
                ratio = new["median"] / old["median"]
                loss = 1 - ratio if more_is_better else ratio - 1
                spread = math.hypot(new["std"], old["std"]) / old["median"]
                noise = 2 * spread / math.sqrt(min(new["n"], old["n"]))
                found.append({
                    "variant": variant, "work": work, "metric": metric, "ratio": ratio,
                    "before": old["median"], "now": new["median"],
                    "regression": loss > max(tolerance, noise),
                })  # fmt: skip
    return found


# --- What is timed, and how often ----------------------------------------------------------------


class ScheduledWork(NamedTuple):
    """A piece of work and the number of the run that times it; None for every run."""

    work: Work
    run: int | None


def make_works(
    config: BenchmarkConfig, tuned: Finetuned, rows: Sequence[Row]
) -> list[ScheduledWork]:
    """What is timed, and in which runs."""
    size = ("gpu" if on_gpu() else "cpu") + (", quick" if config.quick else "")
    prompt, generated, answer, per_run = SIZES[size]
    prompt, generated = config.prompt_tokens or prompt, config.generation_tokens or generated
    vocabulary = tuned.model.args.vocab_size
    shapes = [shape_work(prompt, generated, 1, vocabulary, config.seed)]
    if config.batch_size > 1:
        shorter = max(2, generated // 2)
        shapes.append(shape_work(prompt, shorter, config.batch_size, vocabulary, config.seed))
    works = [ScheduledWork(shape, None) for shape in shapes]
    longest, stops = config.max_tokens or answer, frozenset(stop_ids(tuned.tokenizer))
    for index, row in enumerate(rows[: config.runs * per_run]):
        text = render_prompt(row["prompt"])
        ids = prompt_ids(tuned.model, tuned.tokenizer, text, longest)
        prompt_work = Work("prompts", (tuple(ids),), longest, stops, str(row.get("id", index)))
        works.append(ScheduledWork(prompt_work, index % config.runs))
    return works


def make_variants(config: BenchmarkConfig, tuned: Finetuned) -> dict[str, Callable[[], nn.Module]]:
    """{name: function that puts the variant in place and returns it}."""
    from mlx.nn import quantize
    from mlx.utils import tree_unflatten

    def fused_layers(loaded: Finetuned) -> list[tuple[str, Any]]:
        if loaded.config["fine_tune_type"] == "full":
            return []  # there is no adapter: the fine-tuned weights are fused as they are
        return [(name, module.fuse()) for name, module in loaded.swaps["finetuned"]]

    def install(loaded: Finetuned, layers: list[tuple[str, Any]]) -> nn.Module:
        model = loaded.use("finetuned")
        model.update_modules(tree_unflatten(layers))  # type: ignore[arg-type]
        model.eval()
        return model

    variants: dict[str, Callable[[], nn.Module]] = {}
    if config.compare:
        variants[BASE] = lambda: tuned.use("base")
    variants[TUNED] = lambda: tuned.use("finetuned")
    if FUSED in config.extra_variants:
        layers = fused_layers(tuned)
        variants[FUSED] = lambda: install(tuned, layers)
    if FOUR_BIT in config.extra_variants:
        other = load_finetuned(config.adapter_path, config.model)
        smaller = install(other, fused_layers(other))
        quantize(smaller, group_size=64, bits=4)
        variants[FOUR_BIT] = lambda: smaller
    return variants


def run_trials(
    config: BenchmarkConfig,
    variants: Mapping[str, Callable[[], nn.Module]],
    works: Sequence[ScheduledWork],
) -> list[TimedSample]:
    """Time all work for all variants; the order turns round from run to run, against drift."""
    samples: list[TimedSample] = []
    for run in range(-config.warmup, config.runs):
        label = f"run {run + 1} of {config.runs}" if run >= 0 else "warm-up"
        print(f"{label} ...", file=sys.stderr, flush=True)
        for work in (w.work for w in works if w.run in (None, run)):
            for name in list(variants)[:: 1 if run % 2 == 0 else -1]:
                model = variants[name]()
                sample = time_once(model, work, weights_bytes(model), config.memory)
                if run >= 0:
                    samples.append({"variant": name, "run": run, **sample})
    return samples


# --- Quality ------------------------------------------------------------------------------------


def measure_quality(
    config: BenchmarkConfig,
    tuned: Finetuned,
    variants: Mapping[str, Callable[[], nn.Module]],
    rows: Sequence[Row],
) -> Quality:
    """Validation loss and, for SQL, execution accuracy, by the evaluation's own functions."""
    settings = evaluation.EvaluationConfig(
        adapter_path=config.adapter_path, data=config.data, split="valid", seed=config.seed
    )
    longest = config.max_tokens or QUALITY_TOKENS
    prompts = [render_prompt(r["prompt"]) for r in rows]
    references = [r["completion"] for r in rows]
    losses, speed = {}, {}
    answers: dict[str, Sequence[Answer | Chosen]] = {}
    for name, install in variants.items():
        print(f"quality of {name} on {len(rows)} rows ...", file=sys.stderr, flush=True)
        model = install()
        start = time.perf_counter()
        made = generate_batch(model, tuned.tokenizer, prompts, longest)
        speed[name] = sum(a.generation_tokens for a in made) / (time.perf_counter() - start)
        told = reference_losses(model, tuned.tokenizer, prompts, references)
        losses[name] = sum(nats for nats, _ in told) / sum(n for _, n in told)
        answers[name] = [Answer(*pair) for pair in zip(made, told, strict=True)]
        if config.candidates and rows[0]["type"] == "sql":
            drawing = Drawing(config.candidates, longest, config.seed, settings.batch_size)
            with evaluation.row_worker(settings) as worker:
                answers[with_candidates(name, config.candidates)] = choose_for_rows(
                    model, tuned.tokenizer, rows, prompts, made, worker,
                    settings.sql_timeout, drawing, evaluation.row_menders(settings, worker),
                )  # fmt: skip
    summary = summarize(evaluation.make_samples(rows, answers, settings))
    shown = (BASE, TUNED, with_candidates(BASE, config.candidates))
    summary["paired"] = [p for p in summary["paired"] if p["against"] in shown]
    return {
        "split": "valid",
        "n": len(rows),
        "max_tokens": longest,
        "val_loss": losses,
        "val_ppl": {name: math.exp(loss) for name, loss in losses.items()},
        "batched_generation_tps": speed,
        "evaluation": summary,
    }


# --- A whole run --------------------------------------------------------------------------------


def read_baseline(path: Path) -> JsonObject:
    """An earlier benchmark.json; raises UserError when it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(found[k], dict) for k in ("figures", "machine", "settings")):
            raise ValueError("its keys are not those of benchmark.json")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--baseline {path} cannot be used ({error}): give a benchmark.json of an earlier run"
        ) from None


def require_comparable(
    before: JsonObject, works: Sequence[ScheduledWork], config: BenchmarkConfig
) -> None:
    """Raise UserError, before anything is measured, when the baseline has none of these shapes."""
    shapes = dict.fromkeys(w.work.name for w in works if w.run is None)
    theirs = [before["figures"].get(name, {}) for name in config.variant_names]
    if not any(shape in figures for shape in shapes for figures in theirs):
        raise UserError(
            f"--baseline {config.baseline} has no figure of the same variant and shape (its shape "
            f"is {before.get('shape')}, this run's are {', '.join(shapes)}): measure both with the "
            "same --compare, --quick, --prompt-tokens, --generation-tokens and --batch-size"
        )


def judge_baseline(
    result: BenchmarkResult, before: JsonObject, config: BenchmarkConfig
) -> Baseline:
    """The comparison with an earlier run, which `require_comparable` has let through."""
    figures = compare_with_baseline(result["figures"], before["figures"], config.tolerance)
    machine, earlier = {**result["machine"]}, before["machine"]
    other = [k for k in ("chip", "device", "dtype") if machine[k] != earlier.get(k)]
    notes = [f"The baseline is of another {k}: {earlier.get(k)}." for k in other]
    return {
        "file": str(config.baseline), "tolerance": config.tolerance,
        "figures": figures, "notes": notes,
    }  # fmt: skip


def prompt_rows(config: BenchmarkConfig, tuned: Finetuned) -> list[Row]:
    """The validation rows used as prompts."""
    settings = evaluation.EvaluationConfig(
        adapter_path=config.adapter_path, data=config.data, split="valid",
        num_samples=config.num_samples, seed=config.seed,
    )  # fmt: skip
    return evaluation.evaluation_rows(settings, tuned)


def measure(
    config: BenchmarkConfig, before: JsonObject | None
) -> tuple[BenchmarkResult, Finetuned]:
    """Everything that needs the model: (result, model with adapter); `before` is the baseline."""
    import mlx.core as mx

    start = time.perf_counter()
    tuned = load_finetuned(config.adapter_path, config.model)
    load_sec, active = time.perf_counter() - start, mx.get_active_memory()
    tuned.config.setdefault("dataset_type", "sql")
    rows = prompt_rows(config, tuned)
    works = make_works(config, tuned, rows)
    if before is not None:
        require_comparable(before, works, config)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    limits = measure_limits()
    variants = make_variants(config, tuned)
    samples = run_trials(config, variants, works)
    figures, shape = timing_figures(samples), works[0].work
    about: dict[str, VariantFacts] = {}
    for name, install in variants.items():
        size = weights_bytes(install())
        share = shares_of_limit(figures[name], shape, size, tuned.model.args, limits)
        about[name] = {"weights_gb": size / 1e9, **share}
    quality = measure_quality(config, tuned, variants, rows) if config.compare else None
    return {
        "format": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "settings": jsonable(asdict(config)),
        "shape": shape.name,
        "model": {k: tuned.config.get(k) for k in ("model", "base_fingerprint", "best_step")},
        "definitions": {k: v[3] for k, v in METRICS.items()} | OTHER_DEFINITIONS,
        "load": load_facts(config, load_sec, active),
        "limits": limits,
        "variants": about,
        "figures": figures,
        "comparisons": compare_variants(samples, BASE if config.compare else TUNED),
        "quality": quality,
        "notes": busy_notes(figures, load_average),
        "baseline": None,
        "samples": samples,
    }, tuned


def record_file(config: BenchmarkConfig) -> Path:
    """Where the result goes: not over the baseline, or the next run would pass against this one."""
    record = config.folder / RECORD
    if config.baseline and record.exists() and record.samefile(config.baseline):
        return record.with_name(RECORD_BESIDE)
    return record


def load_facts(config: BenchmarkConfig, load_sec: float, active_bytes: int) -> Load:
    """What loading took, and what the process held at most until now."""
    adapter = config.adapter_path / "adapters.safetensors"
    return {
        "load_sec": load_sec,
        "active_memory_gb": active_bytes / 1e9,
        "adapter_mb": adapter.stat().st_size / 1e6,
        "process_peak_gb": process_peak_gb(),
    }


def benchmark(config: BenchmarkConfig) -> BenchmarkResult:
    """Measure as configured, write the reports and return what benchmark.json holds."""
    before = read_baseline(config.baseline) if config.baseline else None
    if config.adapter_path.is_dir():  # else loading says what is missing
        require_writable(config.folder)
        adapter = read_adapter_config(config.adapter_path)
        require_told(adapter, config.with_samples, config.with_own_rows)  # now, not at the end
    result, tuned = measure(config, before)
    if before is not None:
        result["baseline"] = judge_baseline(result, before, config)
    folder = config.folder
    files: dict[Path, str | bytes] = {folder / "benchmark.md": benchmark_markdown(result)}
    if (image := draw_benchmark(result)) is not None:
        files[folder / "benchmark.png"] = image
    card = folder / "README.md"
    if config.compare:
        if card.exists() and CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
            result["notes"].append(f"{card} was not written by benchmark.py and is left as it is.")
        else:
            manifest = read_manifest(config.data)
            files[card] = make_card(result, tuned.config, manifest, config.adapter_path)
    record = record_file(config)
    remove_leftovers(folder, ["benchmark*.*", card.name])
    write_together(files, record, json.dumps(result, indent=2) + "\n")
    show_benchmark(result, f"Benchmark of {config.adapter_path} on {result['machine']['device']}")
    print(
        f"written to {folder}: {', '.join(sorted(p.name for p in (*files, record)))}",
        file=sys.stderr,
    )
    if config.compare:
        told = (config.with_samples, config.with_own_rows)
        ready = publish(config.adapter_path, folder, *told)
        print(f"for the hub: {ready}", file=sys.stderr)
        if own := tuned.config.get("database"):
            print(
                f"note: who has this adapter can ask it for values of {own['name']}, which it "
                "knows by heart",
                file=sys.stderr,
            )
    if config.json:
        print(json.dumps(result))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and measure; status 3 when asked to fail on a regression and there is one."""
    config = parse_config(BenchmarkConfig, argv, __doc__, preset)
    worse = False

    def work() -> None:
        nonlocal worse
        prepare_process()
        compared = benchmark(config)["baseline"]
        worse = compared is not None and any(f["regression"] for f in compared["figures"])

    status = run_script(work)
    return REGRESSION_STATUS if not status and worse and config.fail_on_regression else status


if __name__ == "__main__":
    sys.exit(main())
