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

import json
import math
import platform
import shlex
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from dataset import MAX_SEQ_LENGTH
from gemma_lora.adapters import LORA_KEYS, add_adapter, check_shapes, export_peft
from gemma_lora.batches import Example, batch_iterator, bucket_widths, epoch_batches, tokenize
from gemma_lora.checkpoints import (
    FREE_ON_RESUME,
    NUMBERED,
    RUN_FILES,
    Progress,
    move_aside,
    read_resume,
    saved_settings,
)
from gemma_lora.cli import UserError, check, parse_config, run_script
from gemma_lora.device import compute_dtype, library_versions, on_gpu, use_openblas
from gemma_lora.files import (
    Row,
    jsonable,
    load_tensors,
    locked,
    read_json_lines,
    remove_leftovers,
    save_tensors,
    sha256_of,
    write_atomic,
)
from gemma_lora.loss import HEAD_CHUNK, supervised_loss
from gemma_lora.models import DEFAULT_MODEL, base_fingerprint, load_base, named_arrays
from gemma_lora.prompts import render_prompt
from gemma_lora.splits import edited_files, read_manifest, read_split

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper
MAX_VALID_ROWS = 500  # validated during the run, unless --val-batches says otherwise
CACHE_LIMIT_BYTES = 2**30  # MLX's buffer cache is emptied above this, not after every step
QUICK_TEST = {
    "iters": 100, "batch_size": 2, "warmup": 10, "steps_per_eval": 25, "save_every": 50,
    "val_batches": 10,
}  # fmt: skip
CONSERVATIVE = {
    "iters": 700, "learning_rate": 5e-5, "dropout": 0.1, "weight_decay": 0.1, "rank": 8,
    "early_stopping_patience": 3,
}  # fmt: skip


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
    overwrite: bool = field(
        default=False, metadata={"help": "drop an earlier run in --adapter-path"}
    )
    export_peft: Path | None = field(
        default=None,
        metadata={"help": "write the adapter in --adapter-path as a PEFT folder, and stop"},
    )

    def __post_init__(self) -> None:
        check(
            (
                not (self.quick_test and self.conservative),
                "give one of --quick-test, --conservative",
            ),
            (not (self.resume and self.overwrite), "give one of --resume, --overwrite"),
            (self.iters >= 1, "--iters must be 1 or more"),
            (self.batch_size >= 1, "--batch-size must be 1 or more"),
            (0 < self.learning_rate < 1, "--learning-rate must be between 0 and 1"),
            (self.max_seq_length >= 16, "--max-seq-length must be 16 or more"),
            (self.num_layers == -1 or self.num_layers >= 1, "--num-layers must be -1 or 1 and up"),
            (self.rank >= 1, "--rank must be 1 or more"),
            (0 < self.scale < math.inf, "--scale must be above 0 and finite"),
            (0 <= self.dropout < 1, "--dropout must be 0 or more and below 1"),
            (self.weight_decay >= 0, "--weight-decay must be 0 or more"),
            (self.warmup >= 0, "--warmup must be 0 or more"),
            (self.grad_clip >= 0, "--grad-clip must be 0 or more"),
            (self.grad_accumulation_steps >= 1, "--grad-accumulation-steps must be 1 or more"),
            (
                self.val_batches in (None, -1) or (self.val_batches or 0) >= 1,
                "--val-batches must be -1 or 1 and up",
            ),
            (self.steps_per_report >= 1, "--steps-per-report must be 1 or more"),
            (self.steps_per_eval >= 1, "--steps-per-eval must be 1 or more"),
            (self.save_every >= 1, "--save-every must be 1 or more"),
            (
                self.save_total_limit is None or self.save_total_limit >= 0,
                "--save-total-limit must be 0 or more",
            ),
            (
                self.early_stopping_patience is None or self.early_stopping_patience >= 1,
                "--early-stopping-patience must be 1 or more",
            ),
            (self.min_delta >= 0, "--min-delta must be 0 or more"),
            (
                set(self.keys) <= set(LORA_KEYS),
                f"--lora-keys must be of {','.join(LORA_KEYS)} (the embedding is also the head: "
                "adapting it would untie them and store a gigabyte)",
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


# --- Optimizer ----------------------------------------------------------------------------------


def learning_rate_schedule(config: TrainingConfig) -> Callable[[mx.array], mx.array]:
    """Learning rate by update: linear warm-up to the peak, then down to a tenth of it."""
    import mlx.core as mx
    import mlx.optimizers as optimizers

    peak, updates = config.learning_rate, config.total_iters // config.grad_accumulation_steps
    warmup = min(config.warmup, updates - 1)
    rest = max(1, updates - warmup)
    after = {
        "cosine": optimizers.cosine_decay(peak, rest, peak / 10),
        "linear": optimizers.linear_schedule(peak, peak / 10, rest),
        "constant": lambda step: mx.array(peak),
    }[config.lr_schedule]
    if warmup < 1:
        return after
    rise = optimizers.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optimizers.join_schedules([rise, after], [warmup])


def make_optimizer(config: TrainingConfig, model: nn.Module) -> Any:
    """Build the optimizer, initialized for the model's trainable parameters.

    Its state also holds "grad_norm", the global norm before clipping. An update whose norm is not
    finite leaves the weights as they are: by the time anybody could look they would be spoilt.
    """
    import mlx.core as mx
    import mlx.optimizers as optimizers
    from mlx.utils import tree_map

    base = {
        "adamw": optimizers.AdamW,
        "adam": optimizers.Adam,
        "adafactor": optimizers.Adafactor,
        "muon": optimizers.Muon,
    }[config.optimizer]

    class Clipped(base):  # type: ignore[misc, valid-type]
        def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
            squares = [
                mx.square(g.astype(mx.float32)).sum() for g in named_arrays(gradients).values()
            ]
            norm = mx.sqrt(mx.stack(squares).sum())
            if config.grad_clip:
                factor = mx.minimum(1.0, config.grad_clip / (norm + 1e-6))
                gradients = tree_map(lambda g: (g * factor).astype(g.dtype), gradients)
            self.state["grad_norm"] = norm
            updated = super().apply_gradients(gradients, parameters)
            finite = mx.isfinite(norm)
            return tree_map(lambda new, old: mx.where(finite, new, old), updated, parameters)

    extra: dict[str, Any] = {}
    if config.optimizer in ("adamw", "muon"):
        extra["weight_decay"] = config.weight_decay
    if config.optimizer in ("adamw", "adam"):
        extra["bias_correction"] = True
    if config.optimizer == "adafactor":
        extra |= {"relative_step": False, "scale_parameter": False}
    optimizer = Clipped(learning_rate=learning_rate_schedule(config), **extra)
    optimizer.init(model.trainable_parameters())
    optimizer.state["grad_norm"] = mx.array(0.0)
    return optimizer


def estimate_memory_gb(
    config: TrainingConfig, model: nn.Module, longest: int, rows: int | None = None
) -> float:
    """Rough peak in GB: weights, optimizer, the activations of the widest batch, head chunks.

    Counts per token and layer what the backward pass needs again (fitted to measured runs).
    """

    args, size = model.args, 2 if on_gpu() else 4
    weights = sum(w.nbytes for w in named_arrays(model.parameters()).values())
    trained = sum(w.size for w in named_arrays(model.trainable_parameters()).values())
    layers = min(config.num_layers % (args.num_hidden_layers + 1), args.num_hidden_layers)
    heads = args.num_attention_heads * args.head_dim
    per_layer = 8 * args.hidden_size + 5 * args.intermediate_size + 6 * heads
    kept = args.hidden_size * layers + per_layer if config.grad_checkpoint else per_layer * layers
    tokens = (rows or config.batch_size) * longest
    head = 4 * HEAD_CHUNK * args.vocab_size * 4
    return (weights + 12 * trained + tokens * kept * size + head) / 1e9


class TrainingRun:
    """mlx-lm's callback: after every step it logs, validates, saves, and decides to stop."""

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        tokenizer: TokenizerWrapper,
        examples: dict[str, list[Example]],
        record: Row,
    ) -> None:
        import mlx.core as mx

        self.config, self.model, self.tokenizer, self.record = config, model, tokenizer, record
        self.train_examples, self.valid_examples = examples["train"], examples["valid"]
        self.subset = validation_subset(config, self.valid_examples)
        self.optimizer = make_optimizer(config, model)
        self.progress = Progress()
        self.world = mx.distributed.init()
        self.is_main = self.world.rank() == 0
        self.stop_signal: int | None = None
        self.started = time.perf_counter()
        self.reporter: Any = None
        self.display: Any = None
        self.seen_tokens = 0
        self.window: list[tuple[float, int, float]] = []  # (loss, tokens, seconds) a micro-step

    # What mlx-lm calls.

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        """After every step, on every rank: `info` is mlx-lm's report of that one step."""
        config, progress = self.config, self.progress
        progress.step += 1
        tokens = int(info["trained_tokens"]) - self.seen_tokens
        progress.trained_tokens += tokens
        self.seen_tokens += tokens
        norm = self.optimizer.state["grad_norm"].item()
        self.fail_unless_finite(info["train_loss"], norm, info["learning_rate"])
        # A micro-step's loss is weighed for its window: only the mean over the window is a loss.
        self.window.append((info["train_loss"], tokens, 1 / info["iterations_per_second"]))
        last = progress.step == config.total_iters
        whole_window = progress.step % config.grad_accumulation_steps == 0
        if whole_window:
            losses, counts, seconds = zip(*self.window, strict=True)
            self.window.clear()
            self.log({
                "step": progress.step,
                "train_loss": fmean(losses),
                "learning_rate": info["learning_rate"],
                "grad_norm": norm,
                "trained_tokens": progress.trained_tokens,
                "tokens_per_second": round(sum(counts) / sum(seconds), 1),
                "peak_memory_gb": round(info["peak_memory"], 3),
            })  # fmt: skip
        improved = False
        if progress.step % config.steps_per_eval == 0 or last:
            improved = self.validate()
        stopping = self.agree_to_stop() and whole_window
        if whole_window and (
            progress.step % config.save_every == 0 or last or improved or stopping
        ):
            self.save(numbered=progress.step % config.save_every == 0 or last)
        if last:
            raise StopTraining  # mlx-lm would write the weights once more, not atomically
        if stopping:
            raise StopTraining("interrupted")
        if whole_window and (reason := self.out_of_patience()):
            self.save(numbered=False)
            raise StopTraining(reason)

    def on_val_loss_report(self, info: dict[str, Any]) -> None:
        """Never called: mlx-lm is given no validation set, because it validates before a step."""

    # What happens between steps.

    def fail_unless_finite(self, loss: float, norm: float, rate: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        raise UserError(
            f"step {self.progress.step}: the {what} is not finite (learning rate {rate:.2e}); "
            "nothing of this step was kept. Try a lower --learning-rate, a longer --warmup or "
            "--grad-clip 0.5; --resume goes on from the last checkpoint"
        )

    def out_of_patience(self) -> str | None:
        """Why the run should end early, if it should."""
        patience = self.config.early_stopping_patience
        if not patience or self.progress.evals_since_best < patience:
            return None
        return f"no better validation loss in {patience} validations"

    def agree_to_stop(self) -> bool:
        """Whether any rank was asked to stop."""
        import mlx.core as mx

        asked = self.stop_signal is not None
        if self.world.size() == 1:
            return asked
        return bool(mx.distributed.all_sum(mx.array(int(asked)), stream=mx.cpu).item())

    def loss_on(self, examples: Sequence[Example]) -> float:
        """Token-weighted mean loss, over all ranks, of examples in a fixed order."""
        from mlx_lm.tuner.trainer import evaluate

        loss = evaluate(
            model=self.model,
            dataset=examples,
            batch_size=self.config.batch_size,
            num_batches=-1,
            max_seq_length=self.config.max_seq_length,
            loss=supervised_loss,
            iterate_batches=batch_iterator(self.config.seed),
            clear_cache_threshold=CACHE_LIMIT_BYTES,
        )
        self.model.train()
        return loss

    def validate(self) -> bool:
        """Validate, log, keep the weights if they are the best yet; returns whether they are."""
        progress = self.progress
        begun = time.perf_counter()
        loss = self.loss_on(self.subset)
        if not math.isfinite(loss):
            raise UserError(
                f"step {progress.step}: the validation loss is not finite; nothing since the last "
                "checkpoint was kept. Try a lower --learning-rate or a longer --warmup"
            )
        progress.last_val_loss = loss
        if progress.step == 0:
            progress.first_val_loss = loss
        best = progress.best_val_loss
        improved = progress.step > 0 and (best is None or loss < best - self.config.min_delta)
        if improved:
            progress.best_val_loss, progress.best_step = loss, progress.step
            progress.evals_since_best = 0
            if self.is_main and self.config.keep == "best":
                self.save_adapter("adapters.safetensors")
        elif progress.step > 0:
            progress.evals_since_best += 1
        seconds = time.perf_counter() - begun
        self.log(
            {
                "step": progress.step,
                "val_loss": loss,
                "val_ppl": math.exp(min(loss, 700)),
                "val_rows": len(self.subset),
                "best": improved,
                "val_seconds": round(seconds, 1),
            }
        )
        if self.is_main:
            if self.config.sample_every_eval:
                self.show_sample()
            plot_losses(self.config.adapter_path)
        return improved

    def show_sample(self) -> None:
        """Print a greedy answer to the first validation row."""
        from mlx_lm import generate

        row = self.record["sample_row"]
        text = generate(
            self.model, self.tokenizer, self.tokenizer.encode(
                render_prompt(row["prompt"]), add_special_tokens=False
            ), max_tokens=64,
        )  # fmt: skip
        self.model.train()
        self.show(f"  sample: {row['question'][:100]} -> {' '.join(text.split())[:200]}")

    # Records.

    def show(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self.is_main:
            return
        if self.display:  # without markup: SQL has [names] in brackets
            self.display.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)  # at once, into a pipe too

    def log(self, line: dict[str, Any]) -> None:
        """Append to metrics.jsonl, tell the reporter, print what is due."""
        if not self.is_main:
            return
        path = self.config.adapter_path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; --resume goes on from the last checkpoint"
            ) from None
        named: dict[str, Any] = {"iteration" if k == "step" else k: v for k, v in line.items()}
        step, total = line["step"], self.config.total_iters
        if "val_loss" in line:
            mark = "  best" if line["best"] else ""
            self.show(
                f"step {step:>5}/{total}  val_loss {line['val_loss']:.4f}  "
                f"val_ppl {line['val_ppl']:.2f}  ({line['val_seconds']:.0f} s){mark}"
            )
            if self.reporter:
                self.reporter.on_val_loss_report(named)
            return
        if self.display:
            self.display.update(
                0, completed=step, loss=f"{line['train_loss']:.3f}",
                speed=f"{line['tokens_per_second']:.0f}", memory=f"{line['peak_memory_gb']:.1f}",
            )  # fmt: skip
        # One line an update: with accumulation it may come some micro-steps after it is due.
        due = step % self.config.steps_per_report < self.config.grad_accumulation_steps
        if due or step == total:
            self.show(
                f"step {step:>5}/{total}  loss {line['train_loss']:.4f}  "
                f"lr {line['learning_rate']:.1e}  norm {line['grad_norm']:.2f}  "
                f"{line['tokens_per_second']:.0f} tok/s  {line['peak_memory_gb']:.1f} GB"
            )
            if self.reporter:
                self.reporter.on_train_loss_report(named)

    def adapter_weights(self) -> dict[str, mx.array]:

        return named_arrays(self.model.trainable_parameters())

    def best_weights(self) -> dict[str, mx.array]:
        """The weights in adapters.safetensors, which is on rank 0's disk, for every rank."""
        import mlx.core as mx

        if self.is_main:
            weights = load_tensors(self.config.adapter_path / "adapters.safetensors")[0]
        else:
            weights = {n: mx.zeros_like(w) for n, w in self.adapter_weights().items()}
        if self.world.size() == 1:
            return weights
        return {n: mx.distributed.all_sum(weights[n], stream=mx.cpu) for n in sorted(weights)}

    def save_adapter(self, name: str) -> None:
        save_tensors(
            self.config.adapter_path / name,
            self.adapter_weights(),
            {"format": "mlx", "step": str(self.progress.step)},
        )

    def save(self, numbered: bool) -> None:
        """Write a checkpoint. resume.safetensors comes last: it alone says how far the run is."""

        if not self.is_main:
            return
        folder, config = self.config.adapter_path, self.config
        if numbered:
            self.save_adapter(f"{self.progress.step:07d}_adapters.safetensors")
            history = sorted(folder.glob(NUMBERED))
            if config.save_total_limit is not None:
                for path in history[: len(history) - config.save_total_limit]:
                    path.unlink(missing_ok=True)
        self.save_adapter("last_adapters.safetensors")
        if config.keep == "last" or self.progress.best_step is None:
            self.save_adapter("adapters.safetensors")
        state = {f"optimizer.{k}": v for k, v in named_arrays(self.optimizer.state).items()}
        weights = {f"model.{k}": v for k, v in self.adapter_weights().items()}
        run = {
            "config": jsonable(asdict(config)),
            "progress": asdict(self.progress),
            **{k: self.record[k] for k in ("data_sha256", "base_fingerprint", "versions")},
        }
        self.write_adapter_config()
        save_tensors(folder / "resume.safetensors", weights | state, {"run": json.dumps(run)})

    def write_adapter_config(self) -> None:
        """Write adapter_config.json: mlx-lm's keys, and where the adapter comes from."""
        progress = {
            "best_step": self.progress.best_step,
            "best_val_loss": self.progress.best_val_loss,
            "base_val_loss": self.progress.first_val_loss,
            "trained_steps": self.progress.step,
        }
        write_atomic(
            self.config.adapter_path / "adapter_config.json",
            json.dumps(self.record["adapter_config"] | progress, indent=2) + "\n",
        )

    def restore(self) -> None:
        """Go back to the state in resume.safetensors; refuses when what matters has changed."""
        from mlx.utils import tree_unflatten

        tensors, run = read_resume(self.config.adapter_path, TrainingConfig)
        ours = jsonable(asdict(self.config))
        changed = [
            f"--{name.replace('_', '-')} was {run['config'].get(name)!r}, is {value!r}"
            for name, value in ours.items()
            if name not in FREE_ON_RESUME and run["config"].get(name, value) != value
        ]
        for name in ("data_sha256", "base_fingerprint"):
            if run[name] != self.record[name]:
                changed.append(f"the {name.split('_')[0]} changed since")
        if changed:
            raise UserError(f"cannot resume, because {changed[0]}: undo that, or start anew")
        if run["versions"] != self.record["versions"]:
            self.show("note: other library versions than before; the result may differ a little")
        self.progress = Progress(**run["progress"])
        if self.progress.step >= self.config.total_iters:
            raise UserError(
                f"the run is at its end, step {self.progress.step} of {self.config.total_iters}: "
                "give a larger --iters to go on"
            )
        path = self.config.adapter_path / "resume.safetensors"
        weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        check_shapes(path, weights, {n: w.shape for n, w in self.adapter_weights().items()})
        self.model.load_weights(list(weights.items()), strict=False)
        state = {k[10:]: v for k, v in tensors.items() if k.startswith("optimizer.")}
        self.optimizer.init(self.model.trainable_parameters())
        fresh = {n: w.shape for n, w in named_arrays(self.optimizer.state).items()}
        check_shapes(path, state, fresh)
        self.optimizer.state = tree_unflatten(list(state.items()))
        metrics = self.config.adapter_path / "metrics.jsonl"
        if self.is_main and metrics.exists():
            whole = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in whole if json.loads(line)["step"] <= self.progress.step]
            write_atomic(metrics, "".join(f"{line}\n" for line in kept))
        self.show(f"resuming after step {self.progress.step}")


def validation_subset(config: TrainingConfig, examples: list[Example]) -> list[Example]:
    """The rows validated during the run: always the same, whatever the step."""
    from random import Random

    wanted = (
        MAX_VALID_ROWS if config.val_batches is None else config.val_batches * config.batch_size
    )
    if config.val_batches == -1 or wanted >= len(examples):
        return examples
    return [examples[i] for i in sorted(Random(config.seed).sample(range(len(examples)), wanted))]


def plot_losses(folder: Path) -> None:
    """Draw loss_curve.png from metrics.jsonl: losses, the best step, the learning rate."""
    try:
        import matplotlib
    except ImportError:
        return  # said once, in the header
    matplotlib.use("Agg")
    import io

    import matplotlib.pyplot as plt

    lines = list(read_json_lines(folder / "metrics.jsonl"))
    train = [(x["step"], x["train_loss"]) for x in lines if "train_loss" in x]
    valid = [(x["step"], x["val_loss"]) for x in lines if "val_loss" in x]
    best = [(x["step"], x["val_loss"]) for x in lines if x.get("best")]
    rates = [(x["step"], x["learning_rate"]) for x in lines if "learning_rate" in x]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    write_atomic(folder / "loss_curve.png", buffer.getvalue())


@contextmanager
def progress_display(run: TrainingRun) -> Iterator[None]:
    """A live bar with time left while a person watches; plain lines otherwise."""
    from mlx_lm.cli_ui import make_console

    make_console().quiet = True  # mlx-lm's own display would draw over ours
    if not (run.is_main and sys.stdout.isatty()):
        yield
        return
    from rich import progress as bars

    with bars.Progress(
        bars.BarColumn(20),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(compact=True),
        bars.TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tok/s  "
                        "{task.fields[memory]} GB"),
        transient=True,
    ) as run.display:  # fmt: skip
        run.display.add_task("", total=run.config.total_iters, loss="-", speed="-", memory="-")
        try:
            yield
        finally:
            run.display = None


@contextmanager
def graceful_signals(run: TrainingRun) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the run to stop after its step; a second Ctrl-C ends it at once."""

    def ask(number: int, _frame: Any) -> None:
        if run.stop_signal is not None:
            raise KeyboardInterrupt
        run.stop_signal = number
        run.show("stopping after this step (once more: at once, without saving) ...")

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_data(config: TrainingConfig) -> tuple[dict[str, list[Row]], dict[str, str], str]:
    """Rows of train and valid, the files' hashes, and the type; raises UserError."""
    rows = {split: read_split(config.data, split) for split in ("train", "valid")}
    hashes = {split: sha256_of(config.data / f"{split}.jsonl") for split in rows}
    kind = rows["train"][0].get("type") or read_manifest(config.data).get("type") or "sql"
    if config.dataset_type and config.dataset_type != kind:
        raise UserError(
            f"--dataset-type is {config.dataset_type}, but {config.data} holds {kind} rows: run "
            f"`python dataset.py --type {config.dataset_type}` first, or drop the flag"
        )
    return rows, hashes, kind


def header_lines(run: TrainingRun, lengths: Sequence[int], left_out: int) -> list[str]:
    """The header's lines: what is trained, on how much, with how much memory."""

    config, model = run.config, run.model
    trained = sum(w.size for w in named_arrays(model.trainable_parameters()).values())
    total = sum(w.size for w in named_arrays(model.parameters()).values())
    tokens, supervised = sum(lengths), sum(len(e.ids) - e.offset for e in run.train_examples)
    epochs = config.total_iters * config.batch_size / len(run.train_examples)
    widths = bucket_widths(lengths)
    padded = sum(
        len(batch) * widths[bisect_left(widths, max(lengths[i] for i in batch))]
        for batch in epoch_batches(lengths, widths, config.batch_size, config.seed, 0)
    )
    memory = estimate_memory_gb(config, model, max(lengths))
    rounded = f" (rounded up from {config.iters})" if config.total_iters != config.iters else ""
    return [
        f"model     {config.model} in {compute_dtype()}"
        + (f", quantized to {config.quantize} bits" if config.quantize else ""),
        f"trains    {config.fine_tune_type}, {trained / 1e6:.2f}M of {total / 1e6:.0f}M parameters",
        f"data      {len(run.train_examples):,} rows, {tokens:,} tokens an epoch, {supervised:,} "
        f"of them trained, {1 - tokens / padded:.1%} padding"
        + (f"; {left_out} rows over --max-seq-length left out" if left_out else ""),
        f"run       {config.total_iters} steps{rounded} of batch {config.batch_size}: "
        f"{epochs:.2f} epochs; validated on {len(run.subset)} of {len(run.valid_examples)} rows",
        f"memory    about {memory:.1f} GB at the peak",
    ]


def training_record(config: TrainingConfig, model: nn.Module, folder: Path, kind: str) -> Row:
    """What is written about the run besides its progress."""
    layers = len(model.layers)
    if config.num_layers > layers:
        raise UserError(f"--num-layers {config.num_layers}: the model has {layers}")
    if config.fine_tune_type == "full" and any(
        name.endswith(".scales") for name in named_arrays(model.parameters())
    ):
        raise UserError(
            "--fine-tune-type full cannot train a quantized base: drop --quantize, or use lora"
        )
    adapter = {
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
    }
    return {
        "adapter_config": adapter,
        "base_fingerprint": adapter["base_fingerprint"],
        "versions": adapter["versions"],
    }


def write_training_config(run: TrainingRun, header: Sequence[str]) -> None:
    """Write training_config.txt: every setting, the data's hashes, the versions."""
    settings = jsonable(asdict(run.config))
    lines = [*header, "", "settings", *(f"  {k} = {v}" for k, v in settings.items())]
    lines += [
        "",
        "data (sha256)",
        *(f"  {k}.jsonl {v}" for k, v in run.record["data_sha256"].items()),
    ]
    lines += ["", "versions", *(f"  {k} {v}" for k, v in run.record["versions"].items())]
    lines += [f"  machine {platform.platform()}"]
    write_atomic(run.config.adapter_path / "training_config.txt", "\n".join(lines) + "\n")


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Recompute the layers' activations in the backward pass instead of keeping them.

    mlx-lm's function patches the layers' class for good: a second run in this process would nest
    the patch, and one without the flag would recompute too.
    """
    from mlx_lm.tuner.trainer import grad_checkpoint

    block: Any = type(model.layers[0])
    plain = block.__call__
    grad_checkpoint(model.layers[0])
    try:
        yield
    finally:
        block.__call__ = plain


def fit(run: TrainingRun) -> str | None:
    """Drive mlx-lm's trainer from where the run stands; returns why it stopped early, if so."""
    import mlx.core as mx
    from mlx_lm.tuner.trainer import TrainingArgs
    from mlx_lm.tuner.trainer import train as mlx_train

    config = run.config
    recomputing = recomputed_layers(run.model) if config.grad_checkpoint else nullcontext()
    mx.reset_peak_memory()
    with recomputing:
        args = TrainingArgs(
            batch_size=config.batch_size,
            iters=config.total_iters - run.progress.step,
            steps_per_report=1,  # the report is our hook after every step
            steps_per_save=config.total_iters + 1,  # none of its files are wanted
            max_seq_length=config.max_seq_length,
            grad_accumulation_steps=config.grad_accumulation_steps,
            clear_cache_threshold=CACHE_LIMIT_BYTES,
        )
        try:
            mlx_train(
                model=run.model,
                optimizer=run.optimizer,
                train_dataset=run.train_examples,
                val_dataset=None,
                args=args,
                loss=supervised_loss,
                iterate_batches=batch_iterator(
                    config.seed, config.grad_accumulation_steps, run.progress.step
                ),
                training_callback=run,  # type: ignore[arg-type]  # has its two methods
            )
        except StopTraining as stop:
            return str(stop) or None
    raise AssertionError("mlx-lm left its loop before the last step")


def finish(run: TrainingRun, stopped: str | None) -> Row:
    """Measure best and last weights on the whole validation set and say how it went."""

    config, progress = run.config, run.progress
    folder = config.adapter_path
    result = asdict(progress) | {"stopped": stopped}
    if stopped == "interrupted":
        again = f"python train.py --adapter-path {shlex.quote(str(folder))} --resume"
        run.show(f"stopped after step {progress.step}; go on with: {again}")
        return result
    if stopped:
        run.show(f"stopped early at step {progress.step}: {stopped}")
    last = progress.last_val_loss
    best, best_loss = progress.best_step, progress.best_val_loss
    if len(run.subset) < len(run.valid_examples):
        last = run.loss_on(run.valid_examples)
        best_loss = last
        if best != progress.step and config.keep == "best":
            run.model.load_weights(list(run.best_weights().items()), strict=False)
            best_loss = run.loss_on(run.valid_examples)
    result |= {"full_val_loss_best": best_loss, "full_val_loss_last": last}
    result["seconds"] = time.perf_counter() - run.started
    first = progress.first_val_loss or math.nan
    run.show(
        f"best step {best} of {progress.step}: val_loss {first:.4f} before, "
        f"{progress.best_val_loss:.4f} at the best step; on all {len(run.valid_examples)} "
        f"validation rows best {best_loss:.4f}, last {last:.4f}"
    )
    if (progress.best_val_loss or math.inf) >= first:
        run.show("it got no better than the base model: try another --learning-rate or more data")
    run.show(
        f"{folder}/adapters.safetensors holds the {config.keep} step; "
        f"{result['seconds']:.0f} s in all. Next: python test_finetuned.py --adapter-path {folder}"
    )
    return result


def train(config: TrainingConfig) -> Row:
    """Train as `config` says and return how it went."""
    import mlx.core as mx

    rows, hashes, kind = read_data(config)
    if len(rows["train"]) < config.batch_size:
        raise UserError(
            f"{config.data}/train.jsonl has {len(rows['train'])} rows, fewer than --batch-size "
            f"{config.batch_size}: lower it, or prepare more rows"
        )
    if config.resume:
        read_resume(config.adapter_path, TrainingConfig)
    model, tokenizer, folder = load_base(config.model, config.quantize)
    record = training_record(config, model, folder, kind) | {"data_sha256": hashes}
    record |= {"sample_row": rows["valid"][0]}
    longest = config.max_seq_length
    examples = {split: tokenize(rows[split], tokenizer, longest) for split in rows}
    left_out = len(rows["train"]) - len(examples["train"])
    if not examples["train"] or not examples["valid"]:
        raise UserError(f"every row is over --max-seq-length {longest}: raise it")
    mx.random.seed(config.seed)
    add_adapter(model, record["adapter_config"])
    model.train()
    run = TrainingRun(config, model, tokenizer, examples, record)
    if edited := edited_files(config.data):
        run.show(f"note: {', '.join(edited)} in {config.data} changed since dataset.py wrote them")
    with locked(config.adapter_path) if run.is_main else nullcontext():
        if run.is_main:
            remove_leftovers(config.adapter_path, (*RUN_FILES, NUMBERED))
        if run.is_main and not config.resume:
            move_aside(config.adapter_path, config.overwrite)
        if config.resume:
            run.restore()
        lengths = [len(e.ids) - 1 for e in examples["train"]]
        header = header_lines(run, lengths, left_out)
        for line in header:
            run.show(line)
        if run.is_main:
            write_training_config(run, header)
            run.reporter = make_reporter(config)
        with progress_display(run), graceful_signals(run):
            if run.progress.step == 0:
                run.validate()
            stopped = run.out_of_patience() or fit(run)
        return finish(run, stopped)


def make_reporter(config: TrainingConfig) -> Any:
    """mlx-lm's callback for --report-to, or None."""
    if not config.report_to:
        return None
    from mlx_lm.tuner.callbacks import get_reporting_callbacks

    try:
        return get_reporting_callbacks(
            config.report_to,
            "gemma-3-lora",
            str(config.adapter_path),
            jsonable(asdict(config)),  # type: ignore[arg-type]
        )
    except (ImportError, ValueError) as error:
        raise UserError(f"--report-to {config.report_to}: {error}") from None


def preset(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a mode, or the run to resume, fills in for flags that were not given."""
    if given.get("resume"):
        saved = saved_settings(
            given.get("adapter_path", TrainingConfig.adapter_path), TrainingConfig
        )
        return saved | {"adapter_path": TrainingConfig.adapter_path, "overwrite": False}
    if given.get("quick_test"):
        return QUICK_TEST
    return CONSERVATIVE if given.get("conservative") else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and train."""
    config = parse_config(TrainingConfig, argv, __doc__, preset)
    use_openblas()
    if config.export_peft is not None:
        target = config.export_peft
        return run_script(lambda: export_peft(config.adapter_path, target))
    result: Row = {}
    status = run_script(lambda: result.update(train(config)))
    return 130 if result.get("stopped") == "interrupted" else status


if __name__ == "__main__":
    sys.exit(main())
