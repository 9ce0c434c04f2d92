"""What a run is to compute: rows and tokens, how often each row is seen, how much is padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gemma_lora.batches import Example, StepHead, epoch_shapes, padded_tokens
from gemma_lora.device import on_gpu

FEW_EPOCHS = 0.1  # a run that sees less of its data is told how to see more
# 663 rows of gretel's set: the loss on rows held apart is lowest after 2 to 3 epochs and a third
# higher after 4.8; of 175 of these rows 42 are right after 2 epochs, 46 after 3.
MANY_EPOCHS = 6  # a run that sees its data more often learns them by heart
ENOUGH_EPOCHS = 3


class Workload(NamedTuple):
    """What is to be computed: `steps` batches of `batch_size` rows, drawn from `rows`."""

    rows: Sequence[Example]
    steps: int
    batch_size: int
    seed: int
    ranks: int = 1  # processes that share a batch

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that go into the model."""
        return [len(row.ids) - 1 for row in self.rows]

    @property
    def epochs(self) -> float:
        """How often each row is seen."""
        return self.steps * self.batch_size / len(self.rows)

    def describe_data(self) -> str:
        """Rows and tokens of an epoch, and how much of what is computed is padding."""
        tokens = sum(self.lengths)
        supervised = sum(len(row.ids) - row.offset for row in self.rows)
        padded = padded_tokens(self.lengths, self.batch_size, self.seed, self.ranks)
        return (
            f"{len(self.rows):,} rows, {tokens:,} tokens an epoch, {supervised:,} of them trained, "
            f"{1 - tokens / padded:.1%} padding"
        )

    def describe_epochs(self) -> str:
        """How much of the data the run sees."""
        seen = self.steps * self.batch_size
        of_rows = f"{seen:,} of {len(self.rows):,} rows, " if seen < len(self.rows) else ""
        return f"{of_rows}{self.epochs:.2f} epochs"

    def notes_on_shapes(self) -> list[str]:
        """How many shapes a GPU compiles; a CPU takes every shape as it is."""
        if not on_gpu():
            return []
        count = epoch_shapes(self.rows, self.batch_size, self.seed)
        return [f"shapes    {count} in an epoch, each compiled when it first comes"]

    def notes_on_epochs(self) -> list[str]:
        """What to do about a run that sees less than a tenth of the rows, or all many times."""
        if self.epochs > MANY_EPOCHS:
            steps = steps_of(ENOUGH_EPOCHS, len(self.rows), self.batch_size)
            return [
                f"note      the run sees each row {self.epochs:.0f} times and may learn the rows "
                f"by heart: --epochs {ENOUGH_EPOCHS} would take {steps:,} steps"
            ]
        if self.epochs >= FEW_EPOCHS:
            return []
        once = steps_of(1, len(self.rows), self.batch_size)
        return [
            f"note      the run sees less than a tenth of the rows: --epochs 1 would take {once:,} "
            "steps; dataset.py --sample-size prepares fewer, balanced"
        ]


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """The batches of so many epochs; an epoch's last batch may be smaller than the others."""
    return max(1, math.ceil(round(epochs * math.ceil(rows / batch_size), 6)))


def notes_on_head(head: StepHead | None) -> list[str]:
    """Over which ids the loss of most steps is, where it is not over all."""
    if head is None:
        return []
    return [
        f"head      {len(head.ids):,} ids in most steps, the whole vocabulary in every "
        f"{head.whole_every}th and in validations"
    ]
