"""What a run will take, before its first step: rows seen, padding, the memory at its peak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gemma_lora.batches import Example, padded_tokens
from gemma_lora.device import on_gpu
from gemma_lora.loss import HEAD_CHUNK
from gemma_lora.models import named_arrays

if TYPE_CHECKING:
    import mlx.nn as nn

FEW_EPOCHS = 0.1  # a run that sees less of its data is told how to see more


class Workload(NamedTuple):
    """What is to be computed: `steps` batches of `batch_size` rows, drawn from `rows`."""

    rows: Sequence[Example]
    steps: int
    batch_size: int
    seed: int
    streams: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that go into the model."""
        return [len(row.ids) - 1 for row in self.rows]

    @property
    def epochs(self) -> float:
        """How often each row is seen."""
        return self.steps * self.batch_size / len(self.rows)


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """The batches of so many epochs; an epoch's last batch may be smaller than the others."""
    return max(1, math.ceil(round(epochs * math.ceil(rows / batch_size), 6)))


def describe_data(work: Workload) -> str:
    """Rows and tokens of an epoch, and how much of what is computed is padding."""
    tokens = sum(work.lengths)
    supervised = sum(len(row.ids) - row.offset for row in work.rows)
    padded = padded_tokens(work.lengths, work.batch_size, work.seed, work.streams)
    return (
        f"{len(work.rows):,} rows, {tokens:,} tokens an epoch, {supervised:,} of them trained, "
        f"{1 - tokens / padded:.1%} padding"
    )


def describe_epochs(work: Workload) -> str:
    """How much of the data the run sees."""
    seen = work.steps * work.batch_size
    of_rows = f"{seen:,} of {len(work.rows):,} rows, " if seen < len(work.rows) else ""
    return f"{of_rows}{work.epochs:.2f} epochs"


def notes_on_epochs(work: Workload) -> list[str]:
    """What to do about a run that would see less than a tenth of what was prepared."""
    if work.epochs >= FEW_EPOCHS:
        return []
    once = steps_of(1, len(work.rows), work.batch_size)
    return [
        f"note      the run sees less than a tenth of the rows: --epochs 1 would take {once:,} "
        "steps; dataset.py --sample-size prepares fewer, balanced"
    ]


def estimate_memory_gb(
    model: nn.Module, num_layers: int, grad_checkpoint: bool, work: Workload
) -> float:
    """Rough peak in GB: weights, optimizer, the activations of the widest batch, head chunks.

    `num_layers` as in mlx-lm, -1 for all. Counts per token and layer what the backward pass needs
    again (fitted to measured runs).
    """
    args, size = model.args, 2 if on_gpu() else 4
    weights = sum(w.nbytes for w in named_arrays(model.parameters()).values())
    trained = sum(w.size for w in named_arrays(model.trainable_parameters()).values())
    layers = min(num_layers % (args.num_hidden_layers + 1), args.num_hidden_layers)
    heads = args.num_attention_heads * args.head_dim
    per_layer = 8 * args.hidden_size + 5 * args.intermediate_size + 6 * heads
    kept = args.hidden_size * layers + per_layer if grad_checkpoint else per_layer * layers
    tokens = work.batch_size * max(work.lengths)
    head = 4 * HEAD_CHUNK * args.vocab_size * 4 * work.streams
    return (weights + 12 * trained + tokens * kept * size + head) / 1e9
