"""Fine-tune Gemma 3 with LoRA on MLX, and keep the weights that validate best.

    python train.py --quick-test                            # 100 short steps: does it all work?
    python train.py --dataset-type sql                      # the standard run
    python train.py --model packaged --dataset-type sql     # without a hub account
    python train.py --resume                                # go on where a run was stopped

Input: train.jsonl and valid.jsonl as dataset.py wrote them. Output, in --adapter-path:
adapters.safetensors (the best validation loss), last_adapters.safetensors, numbered
*_adapters.safetensors, adapter_config.json (mlx_lm.generate and mlx_lm.fuse take the folder),
resume.safetensors, training_config.txt, metrics.jsonl and loss_curve.png.

mlx-lm's own trainer runs the loop; batches, loss, optimizer and callback are plugged into it.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dataset import MAX_SEQ_LENGTH
from gemma_lora.adapters import LORA_KEYS, AdapterConfig, add_adapter, check_base, export_peft
from gemma_lora.batches import Example, StepHead, batch_iterator, head_interval, step_head, tokenize
from gemma_lora.checkpoints import (
    NUMBERED,
    RUN_FILES,
    Checkpointer,
    Outcome,
    Progress,
    RunRecord,
    move_aside,
    read_resume,
    saved_settings,
    weights_of_all_ranks,
)
from gemma_lora.cli import UserError, check, flags_of, optional, parse_config, run_script
from gemma_lora.confidence import CONFIDENCE_ROWS, keep_confidence
from gemma_lora.device import CACHE_LIMIT_BYTES, compute_dtype, library_versions, prepare_process
from gemma_lora.files import jsonable, locked, remove_leftovers
from gemma_lora.forecast import Memory, Schedule, duration_text, measured_cost, peak_memory_gb
from gemma_lora.gguf_export import export_gguf
from gemma_lora.interruption import StopRequest
from gemma_lora.lengths import DEFAULT_MODEL
from gemma_lora.loss import supervised_loss
from gemma_lora.models import base_fingerprint, load_base, named_arrays, recomputed_layers
from gemma_lora.optimizers import learning_rate_schedule, make_optimizer, require_finite
from gemma_lora.ranks import plan_processes, share_blas, side_by_side
from gemma_lora.run_log import RunLog, TrainLine, ValLine, make_reporter, plot_losses
from gemma_lora.splits import Row, edited_files, is_of_database, read_training_data, taught_by
from gemma_lora.validation import MAX_VALID_ROWS, Validator, sample_answer, validation_subset
from gemma_lora.workload import Workload, notes_on_head, steps_of

if TYPE_CHECKING:
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

QUICK_TEST = {
    "iters": 100, "batch_size": 2, "warmup": 10, "steps_per_eval": 25, "save_every": 50,
    "val_batches": 10,
}  # fmt: skip
CONSERVATIVE = {
    "iters": 700, "learning_rate": 5e-5, "dropout": 0.1, "weight_decay": 0.1, "rank": 8,
    "early_stopping_patience": 3,
}  # fmt: skip
# One database's questions (dataset.py --db): short rows, made, so that more of them spoil nothing.
OWN_DATABASE = {
    "iters": 900, "learning_rate": 1e-3, "warmup": 30, "steps_per_eval": 450, "val_batches": 24,
}  # fmt: skip
# Flags that count something of which there is at least one.
COUNTS = (
    "iters", "batch_size", "rank", "grad_accumulation_steps", "processes", "steps_per_report",
    "steps_per_eval", "save_every", "early_stopping_patience", "whole_head_every",
)  # fmt: skip
NEWER = ("processes", "whole_head_every")  # 1 in runs of before there were these flags


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run; every field is a flag."""

    dataset_type: Literal["sql", "alpaca"] | None = field(
        default=None, metadata={"help": "type the data must have; by default whatever it is"}
    )
    model: str = field(
        default=DEFAULT_MODEL,
        metadata={"help": "hub id, local folder, .gguf file of Gemma 3, or 'packaged'"},
    )
    data: Path = field(default=Path("data"), metadata={"help": "folder that dataset.py wrote"})
    adapter_path: Path = field(
        default=Path("checkpoints"), metadata={"help": "folder for the adapter and all records"}
    )
    quick_test: bool = field(
        default=False, metadata={"help": "mode: 100 steps of batch 2, to see everything work"}
    )
    conservative: bool = field(
        default=False,
        metadata={"help": "mode: 700 steps, learning rate 5e-5, more regularisation, early stop"},
    )
    iters: int = field(default=1800, metadata={"help": "micro-steps (batches) to train for"})
    epochs: float | None = field(
        default=None, metadata={"help": "go so often through the rows, instead of --iters"}
    )
    batch_size: int = field(default=4, metadata={"help": "rows in a batch, over all ranks"})
    learning_rate: float = field(default=5e-4, metadata={"help": "peak learning rate"})
    max_seq_length: int = field(
        default=MAX_SEQ_LENGTH, metadata={"help": "longer rows, in tokens, are left out, never cut"}
    )
    fine_tune_type: Literal["lora", "dora", "full"] = field(
        default="lora", metadata={"help": "what is trained: adapters, or the layers themselves"}
    )
    num_layers: int = field(default=16, metadata={"help": "last layers to train; -1 for all"})
    rank: int = field(default=16, metadata={"help": "rank of the adapter"})
    scale: float = field(
        default=2.0, metadata={"help": "multiplies the adapter (PEFT's alpha is scale x rank)"}
    )
    dropout: float = field(default=0.0, metadata={"help": "dropout before the adapter"})
    lora_keys: str | None = field(
        default=None, metadata={"help": "layers to adapt, as self_attn.q_proj,mlp.up_proj"}
    )
    optimizer: Literal["adamw", "adam", "adafactor", "muon"] = field(
        default="adamw", metadata={"help": "optimizer"}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "weight decay (adamw, muon)"})
    lr_schedule: Literal["cosine", "linear", "constant"] = field(
        default="cosine", metadata={"help": "learning rate after the warm-up, down to a tenth"}
    )
    warmup: int = field(default=20, metadata={"help": "updates until the peak learning rate"})
    grad_clip: float = field(default=1.0, metadata={"help": "largest gradient norm; 0 for none"})
    grad_accumulation_steps: int = field(
        default=1, metadata={"help": "batches per update; token-weighted"}
    )
    grad_checkpoint: bool = field(
        default=False, metadata={"help": "recompute layers backward: less memory, more time"}
    )
    processes: int | None = field(
        default=None, metadata={"help": "CPU: processes that share a batch; by default one a core"}
    )
    whole_head_every: int | None = field(
        default=None, metadata={"help": "one step in so many sees all ids (CPU: 6 of --db, else 1)"}
    )
    quantize: Literal[4, 8] | None = field(
        default=None, metadata={"help": "quantize the base to this many bits first (QLoRA)"}
    )
    val_batches: int | None = field(
        default=None,
        metadata={"help": f"validation batches; -1 all; by default up to {MAX_VALID_ROWS} rows"},
    )
    steps_per_report: int = field(default=10, metadata={"help": "steps between printed lines"})
    steps_per_eval: int = field(default=100, metadata={"help": "steps between validations"})
    save_every: int = field(default=100, metadata={"help": "steps between checkpoints"})
    save_total_limit: int | None = field(
        default=None, metadata={"help": "numbered checkpoints to keep; by default all"}
    )
    keep: Literal["best", "last"] = field(
        default="best", metadata={"help": "which weights adapters.safetensors holds at the end"}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after this many validations without a better one"}
    )
    min_delta: float = field(default=0.0, metadata={"help": "what counts as better, in loss"})
    sample_every_eval: bool = field(
        default=False, metadata={"help": "print one generated answer at each validation"}
    )
    report_to: str | None = field(
        default=None, metadata={"help": "wandb or swanlab, through mlx-lm, when installed"}
    )
    seed: int = field(default=42, metadata={"help": "seed of weights, order and dropout"})
    resume: bool = field(default=False, metadata={"help": "go on with the run in --adapter-path"})
    overwrite: bool = field(default=False, metadata={"help": "drop an earlier run in that folder"})
    export_peft: Path | None = field(
        default=None,
        metadata={"help": "write the adapter in --adapter-path as a PEFT folder, and stop"},
    )
    export_gguf: Path | None = field(
        default=None,
        metadata={"help": "write base and adapter as one .gguf file with a Modelfile, and stop"},
    )
    gguf_type: Literal["bf16", "f16", "q8_0"] = field(
        default="bf16", metadata={"help": "how --export-gguf stores the matrices"}
    )

    def __post_init__(self) -> None:
        check(
            (not (self.quick_test and self.conservative), "give --quick-test or --conservative"),
            (not (self.resume and self.overwrite), "give one of --resume, --overwrite"),
            *(
                (given is None or given >= 1, f"--{name.replace('_', '-')} must be 1 or more")
                for name in COUNTS
                for given in [getattr(self, name)]
            ),
            (self.epochs is None or 0 < self.epochs < math.inf, "--epochs must be finite, above 0"),
            (0 < self.learning_rate < 1, "--learning-rate must be between 0 and 1"),
            (self.max_seq_length >= 16, "--max-seq-length must be 16 or more"),
            (self.num_layers == -1 or self.num_layers >= 1, "--num-layers must be -1 or 1 and up"),
            (0 < self.scale < math.inf, "--scale must be above 0 and finite"),
            (0 <= self.dropout < 1, "--dropout must be 0 or more and below 1"),
            (self.weight_decay >= 0, "--weight-decay must be 0 or more"),
            (self.warmup >= 0, "--warmup must be 0 or more"),
            (self.grad_clip >= 0, "--grad-clip must be 0 or more"),
            (
                self.val_batches in (None, -1) or (self.val_batches or 0) >= 1,
                "--val-batches must be -1 or 1 and up",
            ),
            ((self.save_total_limit or 0) >= 0, "--save-total-limit must be 0 or more"),
            (self.min_delta >= 0, "--min-delta must be 0 or more"),
            (
                set(self.keys) <= set(LORA_KEYS),
                f"--lora-keys must be of {','.join(LORA_KEYS)} (the embedding is also the head: "
                "adapting it would untie them and store a gigabyte)",
            ),
            (
                self.export_gguf is None or self.export_gguf.suffix == ".gguf",
                f"--export-gguf must name a .gguf file, not {self.export_gguf}",
            ),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The layers that get an adapter, by their names inside a transformer block."""
        given = (key.strip() for key in (self.lora_keys or "").split(","))
        return tuple(key for key in given if key) or LORA_KEYS

    @property
    def total_iters(self) -> int:
        """`iters` rounded up to whole accumulation windows, so that no gradient is left over."""
        window = self.grad_accumulation_steps
        return math.ceil(self.iters / window) * window


class StopTraining(Exception):
    """Leaves mlx-lm's loop from inside the callback; its text says why, if before the end."""


# --- The parts of a run -------------------------------------------------------------------------


@dataclass
class Run:
    """What a run is made of; `progress` is the only part that changes by assignment."""

    config: TrainingConfig
    model: nn.Module
    tokenizer: TokenizerWrapper
    examples: dict[str, list[Example]]  # "train" and "valid"
    head: StepHead | None  # what training steps see of the vocabulary, where it is not all
    sample_row: Row  # answered at each validation with --sample-every-eval
    optimizer: Any
    log: RunLog
    validator: Validator
    checkpointer: Checkpointer
    stop: StopRequest
    is_main: bool  # rank 0, which alone writes
    progress: Progress = field(default_factory=Progress)
    started: float = field(default_factory=time.perf_counter)

    def out_of_patience(self) -> str | None:
        """Why the run should end early, if it should."""
        patience = self.config.early_stopping_patience
        if not patience or self.progress.evals_since_best < patience:
            return None
        return f"no better validation loss in {patience} validations"

    def validate(self) -> bool:
        """Validate, keep the weights if they are the best yet, tell; returns whether they are."""
        found = self.validator.validate(self.progress)
        # At once: a kill between here and the next checkpoint must not cost the best weights.
        if found.improved and self.is_main and self.config.keep == "best":
            self.checkpointer.save_adapter("adapters.safetensors", self.progress.step)
        ppl, rows = math.exp(min(found.loss, 700)), len(self.validator.subset)
        seconds = round(found.seconds, 1)
        line = ValLine(self.progress.step, found.loss, ppl, rows, found.improved, seconds)
        self.log.validation(line)
        if self.is_main:
            if self.config.sample_every_eval:
                self.log.show(sample_answer(self.model, self.tokenizer, self.sample_row))
            plot_losses(self.config.adapter_path)
        return found.improved

    def save(self, numbered: bool) -> None:
        """Write a checkpoint, on the rank that writes."""
        if self.is_main:
            self.checkpointer.save(self.progress, numbered)


class AfterStep:
    """mlx-lm's callback: what happens after every step, on every rank."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seen_tokens = 0  # of mlx-lm's own count, which begins anew in each of its calls
        self.window: list[tuple[float, int, float]] = []  # (loss, tokens, seconds) a micro-step

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        """One step is done; `info` is mlx-lm's report of it.

        The order matters. Nothing is written of a step that spoilt the weights; a validation comes
        before the checkpoint, which then holds its outcome; every rank asks at every step whether
        to stop, for the answer is a sum over ranks; and only a whole accumulation window is saved,
        because a resumed run begins with one.
        """
        run, config = self.run, self.run.config
        self.count(info)
        norm = run.optimizer.state["grad_norm"].item()
        step = run.progress.step
        require_finite(step, info["train_loss"], norm, info["learning_rate"])
        last, whole_window = step == config.total_iters, step % config.grad_accumulation_steps == 0
        if whole_window:
            self.log_window(info, norm)
        improved = run.validate() if step % config.steps_per_eval == 0 or last else False
        stopping = self.asked_to_stop() and whole_window
        due = step % config.save_every == 0 or last
        if whole_window and (due or improved or stopping):
            run.save(numbered=due)
        if last:
            raise StopTraining  # mlx-lm would write the weights once more, not atomically
        if stopping:
            raise StopTraining("interrupted")
        if whole_window and (reason := run.out_of_patience()):
            run.save(numbered=False)
            raise StopTraining(reason)

    def on_val_loss_report(self, info: dict[str, Any]) -> None:
        """Never called: mlx-lm is given no validation set, because it validates before a step."""

    def asked_to_stop(self) -> bool:
        """Whether this or another rank was asked to stop."""
        return self.run.stop.agreed()

    def count(self, info: Mapping[str, Any]) -> None:
        """Note the step and its tokens."""
        tokens = int(info["trained_tokens"]) - self.seen_tokens
        self.seen_tokens += tokens
        self.run.progress.step += 1
        self.run.progress.trained_tokens += tokens
        # A micro-step's loss is weighed for its window: only the mean over the window is a loss.
        self.window.append((info["train_loss"], tokens, 1 / info["iterations_per_second"]))

    def log_window(self, info: Mapping[str, Any], norm: float) -> None:
        """Record the accumulation window that this step ends."""
        losses, counts, seconds = zip(*self.window, strict=True)
        self.window.clear()
        progress = self.run.progress
        self.run.log.training(
            TrainLine(
                progress.step,
                fmean(losses),
                info["learning_rate"],
                norm,
                progress.trained_tokens,
                round(sum(counts) / sum(seconds), 1),
                round(info["peak_memory"], 3),
            )
        )


# --- Before the first step ----------------------------------------------------------------------


def header_lines(run: Run, left_out: int) -> list[str]:
    """The header's lines: what is trained, on how much, with how much memory."""
    config, model = run.config, run.model
    trained = sum(w.size for w in named_arrays(model.trainable_parameters()).values())
    total = sum(w.size for w in named_arrays(model.parameters()).values())
    ranks = run.stop.world.size()
    work = Workload(
        run.examples["train"], config.total_iters, config.batch_size, config.seed, ranks
    )
    memory = peak_memory_gb(model, widest_batch(config, work.rows, ranks))
    rounded = f" (rounded up from {config.iters})" if config.total_iters != config.iters else ""
    return [
        f"model     {config.model} in {compute_dtype()}"
        + (f", quantized to {config.quantize} bits" if config.quantize else ""),
        f"trains    {config.fine_tune_type}, {trained / 1e6:.2f}M of {total / 1e6:.0f}M parameters",
        f"data      {work.describe_data()}"
        + (f"; {left_out} rows over --max-seq-length left out" if left_out else ""),
        f"run       {config.total_iters} steps{rounded} of batch {config.batch_size}: "
        f"{work.describe_epochs()}; validated on {len(run.validator.subset)} of "
        f"{len(run.validator.examples)} rows",
        f"memory    about {memory:.1f} GB at the peak"
        + (f" in each of {ranks} processes, which share every batch" if ranks > 1 else ""),
        *work.notes_on_shapes(),
        *notes_on_head(run.head),
        *work.notes_on_epochs(),
    ]


def widest_batch(config: TrainingConfig, rows: Sequence[Example], ranks: int) -> Memory:
    """What decides how much memory a step takes in one of `ranks` processes."""
    tokens = math.ceil(config.batch_size / ranks) * max(len(row.ids) - 1 for row in rows)
    return Memory(config.num_layers, tokens, config.grad_checkpoint)


def run_record(
    config: TrainingConfig, model: nn.Module, folder: Path, kind: str, hashes: dict[str, str]
) -> RunRecord:
    """What is written about the run besides its progress; raises UserError for what cannot be."""
    check_base(model, config.fine_tune_type, config.num_layers)
    layers = len(model.layers)
    adapter: AdapterConfig = {
        "fine_tune_type": config.fine_tune_type,
        "num_layers": layers if config.num_layers == -1 else config.num_layers,
        "lora_parameters": {
            "rank": config.rank,
            "scale": config.scale,
            "dropout": config.dropout,
            "keys": list(config.keys),
        },
        "model": config.model,
        "base_model_path": str(folder),
        "base_fingerprint": base_fingerprint(model),
        "quantize": config.quantize,
        "total_layers": layers,
        "dataset_type": kind,
        "max_seq_length": config.max_seq_length,
        "seed": config.seed,
        "versions": library_versions(),
        **taught_by(config.data),
    }
    return RunRecord(jsonable(asdict(config)), adapter, hashes)


def optimizer_for(config: TrainingConfig, model: nn.Module) -> Any:
    """The optimizer and schedule that the flags ask for; both count updates, not micro-steps."""
    updates = config.total_iters // config.grad_accumulation_steps
    schedule = learning_rate_schedule(
        config.lr_schedule, config.learning_rate, config.warmup, updates
    )
    return make_optimizer(config.optimizer, schedule, config.weight_decay, config.grad_clip, model)


def assemble(parts: Parts) -> Run:
    """Build the parts of a run and hand each what it needs."""
    import mlx.core as mx

    config, model, tokenizer, examples, record, sample_row, _ = parts
    world = mx.distributed.init()
    folder, is_main = config.adapter_path, world.rank() == 0
    valid = examples["valid"]
    subset = validation_subset(valid, config.val_batches, config.batch_size, config.seed)
    # The best and the last weights are measured on all rows, where the subset is not all.
    at_end = len(valid) * (1 + (config.keep == "best"))
    at_end = 0 if len(subset) == len(valid) else at_end
    if record.adapter_config["dataset_type"] == "sql" and not config.quick_test:
        at_end += min(CONFIDENCE_ROWS, len(valid))  # by rank 0, with all cores
    schedule = Schedule(config.total_iters, config.steps_per_eval, len(subset), at_end)
    log = RunLog(folder, schedule, config.steps_per_report, config.grad_accumulation_steps, is_main)
    validator = Validator(
        model, valid, subset, config.batch_size, config.max_seq_length, config.min_delta
    )
    optimizer = optimizer_for(config, model)
    checkpointer = Checkpointer(
        folder, model, optimizer, record, config.keep, config.save_total_limit
    )
    head = step_head(examples["train"], model.args.vocab_size, config.whole_head_every or 1)
    return Run(
        config, model, tokenizer, examples, head, sample_row, optimizer, log, validator,
        checkpointer, StopRequest(world, log.show), is_main,
    )  # fmt: skip


def take_place(run: Run) -> None:
    """Make room for a new run, or go back to where an earlier one stopped."""
    config = run.config
    if run.is_main:
        remove_leftovers(config.adapter_path, (*RUN_FILES, NUMBERED))
        if not config.resume:
            move_aside(config.adapter_path, config.overwrite)
    if not config.resume:
        return
    run.progress = run.checkpointer.restore(TrainingConfig, run.log.show)
    if run.progress.step >= config.total_iters:
        raise UserError(
            f"the run is at its end, step {run.progress.step} of {config.total_iters}: "
            "give a larger --iters to go on"
        )
    run.log.cut_back(run.progress.step)
    run.log.show(f"resuming after step {run.progress.step}")


# --- The run ------------------------------------------------------------------------------------


def expected_seconds(run: Run) -> float:
    """About how long the run takes from here, by one batch that is measured."""
    config, world = run.config, run.stop.world
    batches = batch_iterator(config.seed, head=run.head)(
        run.examples["train"], config.batch_size, config.max_seq_length, True, world
    )
    with recomputed_layers(run.model, config.grad_checkpoint):
        cost = measured_cost(run.model, supervised_loss, list(islice(batches, 32)))
    validated = sum(len(e.ids) - 1 for e in run.validator.subset) / world.size()
    return run.log.pace.schedule.expected_seconds(run.progress.step, cost, validated)


def fit(run: Run) -> str | None:
    """Drive mlx-lm's trainer from where the run stands; returns why it stopped early, if so."""
    import mlx.core as mx
    from mlx_lm.tuner.trainer import TrainingArgs
    from mlx_lm.tuner.trainer import train as mlx_train

    config, done, window = run.config, run.progress.step, run.config.grad_accumulation_steps
    mx.reset_peak_memory()
    with recomputed_layers(run.model, config.grad_checkpoint):
        args = TrainingArgs(
            batch_size=config.batch_size,
            iters=config.total_iters - done,
            steps_per_report=1,  # the report is our hook after every step
            steps_per_save=config.total_iters + 1,  # none of its files are wanted
            max_seq_length=config.max_seq_length,
            grad_accumulation_steps=window,
            clear_cache_threshold=CACHE_LIMIT_BYTES,
        )
        try:
            mlx_train(
                model=run.model,
                optimizer=run.optimizer,
                train_dataset=run.examples["train"],
                val_dataset=None,
                args=args,
                loss=supervised_loss,
                iterate_batches=batch_iterator(config.seed, window, done, run.head),
                training_callback=AfterStep(run),  # type: ignore[arg-type]  # has its two methods
            )
        except StopTraining as stop:
            return str(stop) or None
    raise AssertionError("mlx-lm left its loop before the last step")


def whole_losses(run: Run) -> tuple[float | None, float | None]:
    """(best, last) loss on all validation rows; the best is None where its weights are gone."""

    def take_best() -> None:
        weights = weights_of_all_ranks(
            run.config.adapter_path, run.checkpointer.weights(), run.stop.world
        )
        run.model.load_weights(list(weights.items()), strict=False)

    return run.validator.whole_losses(
        run.progress, take_best if run.config.keep == "best" else None
    )


def finish(run: Run, stopped: str | None) -> Outcome:
    """Measure best and last weights on the whole validation set and say how it went."""
    progress, folder, show = run.progress, run.config.adapter_path, run.log.show
    outcome: Outcome = {**asdict(progress), "stopped": stopped}  # type: ignore[typeddict-item]
    if stopped == "interrupted":
        again = f"python train.py --adapter-path {shlex.quote(str(folder))} --resume"
        show(f"stopped after step {progress.step}; go on with: {again}")
        return outcome
    if stopped:
        show(f"stopped early at step {progress.step}: {stopped}")
    best, last = whole_losses(run)
    seconds = time.perf_counter() - run.started
    outcome |= {"full_val_loss_best": best, "full_val_loss_last": last, "seconds": seconds}
    first = progress.first_val_loss or math.nan
    on_all = f"last {last:.4f}" if best is None else f"best {best:.4f}, last {last:.4f}"
    show(
        f"best step {progress.best_step} of {progress.step}: val_loss {first:.4f} before, "
        f"{progress.best_val_loss:.4f} at the best step; on all {len(run.validator.examples)} "
        f"validation rows {on_all}"
    )
    adapter = run.checkpointer.record.adapter_config
    known = adapter.get("database")  # its own file can be asked at once
    own = f" --interactive --db {shlex.quote(known['name'])}" if known else ""
    is_sql = adapter["dataset_type"] == "sql"
    if run.is_main and is_sql and not run.config.quick_test:  # that shows nothing but that it works
        share_blas(1)  # the others have nothing to do any more
        show(keep_confidence(run.model, run.examples["valid"], folder))
    if (progress.best_val_loss or math.inf) >= first:
        show("it got no better than the base model: try another --learning-rate or more data")
    show(
        f"{folder}/adapters.safetensors holds the {run.config.keep} step; "
        f"{seconds:.0f} s in all. Next: python test_finetuned.py --adapter-path {folder}{own}"
    )
    return outcome


class Parts(NamedTuple):
    """What a run is assembled from, read before there is more than one process."""

    config: TrainingConfig  # with the steps of its epochs and the number of its processes
    model: nn.Module
    tokenizer: TokenizerWrapper
    examples: dict[str, list[Example]]
    record: RunRecord
    sample_row: Row
    left_out: int  # training rows that are too long


def load_parts(config: TrainingConfig) -> Parts:
    """Read data and model, and settle what the flags leave open."""
    import mlx.core as mx

    rows, hashes, kind = read_training_data(config.data, config.dataset_type, config.batch_size)
    if config.resume:
        read_resume(config.adapter_path, TrainingConfig)
    model, tokenizer, folder = load_base(config.model, config.quantize)
    longest = config.max_seq_length
    examples = {split: tokenize(rows[split], tokenizer, longest) for split in rows}
    if not examples["train"] or not examples["valid"]:
        raise UserError(f"every row is over --max-seq-length {longest}: raise it")
    if config.epochs:
        steps = steps_of(config.epochs, len(examples["train"]), config.batch_size)
        config = replace(config, iters=steps)
    record = run_record(config, model, folder, kind, hashes)
    mx.random.seed(config.seed)
    add_adapter(model, record.adapter_config)
    model.train()
    peak = peak_memory_gb(model, widest_batch(config, examples["train"], 1))
    processes = plan_processes(config.batch_size, peak, config.processes)
    every = head_interval(config.whole_head_every, record.adapter_config.get("prompt_context"))
    config = replace(config, processes=processes, whole_head_every=every)
    record = replace(record, settings=jsonable(asdict(config)))
    left_out = len(rows["train"]) - len(examples["train"])
    return Parts(config, model, tokenizer, examples, record, rows["valid"][0], left_out)


def train(config: TrainingConfig, over_cores: bool = False) -> Outcome:
    """Train as `config` says; `over_cores` where this process trains once, as MLX joins a ring."""
    parts = load_parts(config if over_cores else replace(config, processes=config.processes or 1))
    config = parts.config
    share_blas(config.processes or 1)
    with side_by_side(config.processes or 1, "train", flags_of(replace(config, epochs=None))):
        return train_here(parts)


def train_here(parts: Parts) -> Outcome:
    """This process's part of a training; on rank 0 everything that is written and said."""
    config, run = parts.config, assemble(parts)
    if edited := edited_files(config.data):
        run.log.show(f"note: {', '.join(edited)} in {config.data} changed since dataset.py ran")
    with locked(config.adapter_path) if run.is_main else nullcontext():
        take_place(run)
        header = header_lines(run, parts.left_out)
        run.log.show("\n".join(header))
        if run.is_main:
            left = duration_text(expected_seconds(run))
            run.log.show(f"time      about {left} (one batch was measured; see the steps for more)")
            optional("matplotlib", "matplotlib", "loss_curve.png")
            run.checkpointer.write_description(header)
            settings = run.checkpointer.record.settings
            run.log.reporter = make_reporter(config.report_to, config.adapter_path, settings)
        with run.log.bar(), run.stop.listening():
            if run.progress.step == 0:
                run.validate()
            stopped = run.out_of_patience() or fit(run)
        return finish(run, stopped)


def preset(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a mode, the data or the run to resume fills in for flags that were not given."""
    check((not {"iters", "epochs"} <= given.keys(), "give one of --iters, --epochs"))
    if given.get("resume"):
        folder = given.get("adapter_path", TrainingConfig.adapter_path)
        saved = saved_settings(folder, TrainingConfig)
        if "iters" in given:  # they say the same in two ways: the newer word counts
            saved.pop("epochs", None)
        saved |= {flag: saved.get(flag) or 1 for flag in NEWER}
        return saved | {"adapter_path": TrainingConfig.adapter_path, "overwrite": False}
    if given.get("quick_test"):
        return QUICK_TEST
    if given.get("conservative"):
        return CONSERVATIVE
    own = is_of_database(given.get("data", TrainingConfig.data))
    return OWN_DATABASE if own else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and train, or export."""
    config = parse_config(TrainingConfig, argv, __doc__, preset)
    interrupted = False

    def work() -> None:
        nonlocal interrupted
        prepare_process()
        if config.export_peft is not None:
            export_peft(config.adapter_path, config.export_peft)
        elif config.export_gguf is not None:
            export_gguf(config.adapter_path, config.export_gguf, config.gguf_type)
        else:
            interrupted = train(config, over_cores=True)["stopped"] == "interrupted"

    status = run_script(work)
    return 130 if interrupted else status


if __name__ == "__main__":
    sys.exit(main())
