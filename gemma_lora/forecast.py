"""What a run will take: memory and time before it starts, and how much time is left.

Promises: figures on any machine, each called "about". The time before the start comes from one
batch that is really computed; what is left comes from the run's own steps. Not covered: programs
that start later, heat, and the time in which a GPU compiles its first steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.device import on_gpu
from gemma_lora.loss import block_width
from gemma_lora.models import named_arrays

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn

# What a token costs forward only, as in a validation, of what it costs with its gradient: a matrix
# product whose weights are frozen has one more in its gradient. Measured on the 270M with batches
# of 2 on a busy CPU: 0.53 and 0.55.
FORWARD_SHARE = 0.5


class Memory(NamedTuple):
    """What decides how much memory a step takes."""

    layers: int  # trained ones; -1 for all
    tokens: int  # of the widest batch, or a process's share of it, padding included
    recomputed: bool  # layers are computed again in the backward pass


def peak_memory_gb(model: nn.Module, memory: Memory) -> float:
    """Rough peak in GB: weights, optimizer, the activations of the widest batch, the head's blocks.

    Counts per token and layer what the backward pass needs again (fitted to measured runs).
    """
    args, size = model.args, 2 if on_gpu() else 4
    weights = sum(w.nbytes for w in named_arrays(model.parameters()).values())
    trained = sum(w.size for w in named_arrays(model.trainable_parameters()).values())
    layers = min(memory.layers % (args.num_hidden_layers + 1), args.num_hidden_layers)
    heads = args.num_attention_heads * args.head_dim
    per_layer = 8 * args.hidden_size + 5 * args.intermediate_size + 6 * heads
    kept = args.hidden_size * layers + per_layer if memory.recomputed else per_layer * layers
    head = 4 * memory.tokens * block_width(memory.tokens) * 4
    return (weights + 12 * trained + memory.tokens * kept * size + head) / 1e9


class Cost(NamedTuple):
    """What loss and gradient cost."""

    step_sec: float  # of a batch of middling size
    token_sec: float  # of a token, padding included


class Schedule(NamedTuple):
    """What a run does and when."""

    total_iters: int
    steps_per_eval: int
    val_rows: int  # of a validation during the run
    rows_at_end: int  # validated after the last step

    def seconds_left(self, step: int, step_sec: float, validation_sec: float) -> float:
        """Seconds from the end of `step`, before any validation after it, to the end of the run.

        A run validates at step 0, at every multiple of `steps_per_eval` and at its last step.
        """
        steps = self.total_iters - step
        done = (step - 1) // self.steps_per_eval  # -1 before the first
        validations = math.ceil(self.total_iters / self.steps_per_eval) - done
        at_end = self.rows_at_end / max(self.val_rows, 1)
        return steps * step_sec + (validations + at_end) * validation_sec

    def expected_seconds(self, step: int, cost: Cost, validated_tokens: float) -> float:
        """Seconds that the run takes from `step` on, before the first of its steps is seen."""
        validation_sec = FORWARD_SHARE * cost.token_sec * validated_tokens
        return self.seconds_left(step, cost.step_sec, validation_sec)


def measured_cost(
    model: nn.Module, loss: Callable[..., Any], batches: Sequence[tuple[mx.array, ...]]
) -> Cost:
    """Compute loss and gradient of a middling one of the batches; no weight changes.

    A batch is what the loss takes, first its tokens [B, W]. Where the batches' softmax is over
    different ids, it is one of each kind. On a GPU, which compiles its kernels then, the first try
    does not count.
    """
    import mlx.core as mx
    import mlx.nn as nn

    step = nn.value_and_grad(model, loss)

    def token_sec(batches: Sequence[tuple[mx.array, ...]]) -> float:
        batch = sorted(batches, key=lambda batch: batch[0].size)[len(batches) // 2]
        for _ in range(2 if on_gpu() else 1):
            begun = time.perf_counter()
            mx.eval(step(model, *batch))
        return (time.perf_counter() - begun) / batch[0].size

    kinds = [[b for b in batches if bool(len(b) > 4 and b[4].size) == some] for some in (0, 1)]
    costs = [token_sec(kind) if kind else 0.0 for kind in kinds]
    seconds = sum(cost * b[0].size for cost, kind in zip(costs, kinds, strict=True) for b in kind)
    return Cost(seconds / len(batches), costs[0] or costs[1])


@dataclass
class Pace:
    """How long the steps of a run have taken; `now` is a clock's seconds."""

    schedule: Schedule
    begun: tuple[int, float] | None = None  # the first step seen, and when it ended
    validating: float = 0.0  # seconds spent in validations since then
    validation_sec: float = 0.0  # of the last one

    def validated(self, seconds: float) -> None:
        """Note that a validation has taken so long."""
        self.validating += seconds if self.begun else 0.0
        self.validation_sec = seconds

    def stepped(self, step: int, now: float) -> float | None:
        """Note that a step has ended; the seconds left, None while that cannot be told.

        The first step is left out of the pace: it is the slowest, and the one that compiles.
        """
        if self.begun is None:
            self.begun = step, now
            return None
        first, start = self.begun
        step_sec = (now - start - self.validating) / (step - first)
        return self.schedule.seconds_left(step, step_sec, self.validation_sec)


def duration_text(seconds: float) -> str:
    """A duration in the unit a person would say: '40 s', '12 min', '2 h 5 min'."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
