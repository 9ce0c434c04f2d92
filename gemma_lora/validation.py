"""The loss on rows held apart, during a run and at its end, and whether a step is the best yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from gemma_lora.batches import Example, batch_iterator
from gemma_lora.checkpoints import Progress
from gemma_lora.cli import UserError
from gemma_lora.device import CACHE_LIMIT_BYTES
from gemma_lora.loss import supervised_loss
from gemma_lora.prompts import encode, render_prompt
from gemma_lora.splits import Row

if TYPE_CHECKING:
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

MAX_VALID_ROWS = 500  # validated during the run, unless --val-batches says otherwise


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    loss: float  # nats per supervised token
    improved: bool  # better than every one before, by more than min_delta
    seconds: float


@dataclass(frozen=True)
class Validator:
    """Validates a model on `subset` while it is trained, on `examples` at the end."""

    model: nn.Module
    examples: Sequence[Example]
    subset: Sequence[Example]
    batch_size: int
    max_seq_length: int
    min_delta: float

    def loss_on(self, examples: Sequence[Example]) -> float:
        """Token-weighted mean loss, over all ranks, of examples in a fixed order."""
        from mlx_lm.tuner.trainer import evaluate

        loss = evaluate(
            model=self.model,
            dataset=examples,
            batch_size=self.batch_size,
            num_batches=-1,
            max_seq_length=self.max_seq_length,
            loss=supervised_loss,
            # The seed draws nothing: the order is by length.
            iterate_batches=batch_iterator(seed=0),
            clear_cache_threshold=CACHE_LIMIT_BYTES,
        )
        self.model.train()
        return loss

    def validate(self, progress: Progress) -> Validation:
        """Validate and note the outcome in `progress`; raises UserError for a loss that is none."""
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
        improved = progress.step > 0 and (best is None or loss < best - self.min_delta)
        if improved:
            progress.best_val_loss, progress.best_step = loss, progress.step
            progress.evals_since_best = 0
        elif progress.step > 0:
            progress.evals_since_best += 1
        return Validation(loss, improved, time.perf_counter() - begun)

    def whole_losses(
        self, progress: Progress, take_best: Callable[[], None] | None
    ) -> tuple[float | None, float | None]:
        """(best, last) loss on all rows at the end of a run; those known where the subset is all.

        `take_best` puts the best step's weights in place of the last. The best is None without it,
        as with --keep last, whose weights have taken their place.
        """
        if len(self.subset) == len(self.examples):
            return progress.best_val_loss, progress.last_val_loss
        last = self.loss_on(self.examples)
        if progress.best_step == progress.step:
            return last, last
        if take_best is None:
            return None, last
        take_best()
        return self.loss_on(self.examples), last


def validation_subset(
    examples: Sequence[Example], val_batches: int | None, batch_size: int, seed: int
) -> Sequence[Example]:
    """The rows validated during the run: always the same, whatever the step."""
    wanted = MAX_VALID_ROWS if val_batches is None else val_batches * batch_size
    if val_batches == -1 or wanted >= len(examples):
        return examples
    return [examples[i] for i in sorted(Random(seed).sample(range(len(examples)), wanted))]


def sample_answer(model: nn.Module, tokenizer: TokenizerWrapper, row: Row) -> str:
    """The line of a greedy answer to one row's question, given in the middle of a training."""
    from mlx_lm import generate

    ids = encode(tokenizer, render_prompt(row["prompt"]))
    text = generate(model, tokenizer, ids, max_tokens=64)
    model.train()
    question, answer = row["question"][:100], " ".join(text.split())[:200]
    return f"  sample: {question} -> {answer}"
