"""The optimizer that mlx-lm drives: schedule, clipping, and no update that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from gemma_lora.cli import UserError
from gemma_lora.models import named_arrays

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn


def learning_rate_schedule(
    shape: Literal["cosine", "linear", "constant"], peak: float, warmup: int, updates: int
) -> Callable[[mx.array], mx.array]:
    """Learning rate by update: linear warm-up to the peak, then down to a tenth of it."""
    import mlx.core as mx
    import mlx.optimizers as optimizers

    warmup = min(warmup, updates - 1)
    rest = max(1, updates - warmup)
    after = {
        "cosine": optimizers.cosine_decay(peak, rest, peak / 10),
        "linear": optimizers.linear_schedule(peak, peak / 10, rest),
        "constant": lambda step: mx.array(peak),
    }[shape]
    if warmup < 1:
        return after
    rise = optimizers.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optimizers.join_schedules([rise, after], [warmup])


def clipped(base: type, grad_clip: float) -> type:
    """A class of mlx's optimizers that clips, and keeps weights that would be spoilt."""
    import mlx.core as mx
    from mlx.utils import tree_map

    class Clipped(base):  # type: ignore[misc, valid-type]
        def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
            squares = [
                mx.square(g.astype(mx.float32)).sum() for g in named_arrays(gradients).values()
            ]
            norm = mx.sqrt(mx.stack(squares).sum())
            if grad_clip:
                factor = mx.minimum(1.0, grad_clip / (norm + 1e-6))
                gradients = tree_map(lambda g: (g * factor).astype(g.dtype), gradients)
            self.state["grad_norm"] = norm
            updated = super().apply_gradients(gradients, parameters)
            finite = mx.isfinite(norm)
            return tree_map(lambda new, old: mx.where(finite, new, old), updated, parameters)

    return Clipped


def make_optimizer(
    name: Literal["adamw", "adam", "adafactor", "muon"],
    schedule: Callable[[mx.array], mx.array],
    weight_decay: float,
    grad_clip: float,
    model: nn.Module,
) -> Any:
    """Build mlx's optimizer of this name, initialized for the model's trainable parameters.

    Its state also holds "grad_norm", the global norm before clipping. An update whose norm is not
    finite leaves the weights as they are: by the time anybody could look they would be spoilt.
    """
    import mlx.core as mx
    import mlx.optimizers as optimizers

    base = {
        "adamw": optimizers.AdamW,
        "adam": optimizers.Adam,
        "adafactor": optimizers.Adafactor,
        "muon": optimizers.Muon,
    }[name]

    extra: dict[str, Any] = {}
    if name in ("adamw", "muon"):
        extra["weight_decay"] = weight_decay
    if name in ("adamw", "adam"):
        extra["bias_correction"] = True
    if name == "adafactor":
        extra |= {"relative_step": False, "scale_parameter": False}
    optimizer = clipped(base, grad_clip)(learning_rate=schedule, **extra)
    optimizer.init(model.trainable_parameters())
    optimizer.state["grad_norm"] = mx.array(0.0)
    return optimizer


def require_finite(step: int, loss: float, norm: float, rate: float) -> None:
    """Raise UserError for a step whose loss or gradient norm is no finite number."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = "loss" if not math.isfinite(loss) else "gradient"
    raise UserError(
        f"step {step}: the {what} is not finite (learning rate {rate:.2e}); "
        "nothing of this step was kept. Try a lower --learning-rate, a longer --warmup or "
        "--grad-clip 0.5; --resume goes on from the last checkpoint"
    )
