"""How many shapes an epoch's batches have on a GPU, which compiles a training step for each.

    python tests/measure_shapes.py rows.jsonl --type alpaca --model MODEL_FOLDER
    python tests/measure_shapes.py rows.jsonl --type sql --model packaged --rows 52000

Lengths are those of the rows in rows.jsonl under the model's tokenizer, drawn again and again up to
--rows: a set of that size whose lengths are spread like the rows'. Nothing is computed on a GPU.
Prints for some batch sizes the shapes of the first epoch, of two epochs, and the padding of the
supervised positions, as it is and with positions only rounded up.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import dataset
from gemma_lora import batches
from gemma_lora.batches import Example
from gemma_lora.lengths import find_ruler, row_sizes


def drawn_examples(options: argparse.Namespace) -> list[Example]:
    """--rows examples without content, of the lengths of the rows in the file."""
    config = dataset.DatasetConfig(type=options.type, dataset_name=options.source)
    source = dataset.open_source(config)
    rows = list(source.rows)
    columns = dataset.match_columns(list(rows[0]), options.type, {})
    counts = {name: Counter[str]() for name in ("rows", "dropped", "repaired")}
    made = list(dataset.clean_rows(rows, columns, config, counts))
    ruler = find_ruler(options.model)
    sizes = [s for s in row_sizes(made, ruler) if sum(s) <= config.max_seq_length]
    print(f"{len(sizes)} rows, {ruler.name}, drawn to {options.rows:,}", file=sys.stderr)
    chosen = np.random.default_rng(0).integers(0, len(sizes), options.rows)
    blank = np.zeros(config.max_seq_length, np.int32)
    return [Example(blank[: sum(sizes[i])], sizes[i][0]) for i in chosen]


def count_shapes(rows: list[Example], batch_size: int, epochs: int = 2) -> dict[str, Any]:
    """Shapes of the first epoch and of all, and positions padded per position trained."""
    seen: list[set[tuple[int, ...]]] = []
    padded = trained = 0
    source: Iterable[Any] = batches.batch_iterator(seed=42)(rows, batch_size, 512, loop=True)
    for _ in range(epochs):
        shapes = set()
        for tokens, places, targets, _weight in islice(source, math.ceil(len(rows) / batch_size)):
            shapes.add((*tokens.shape, places.size))
            padded += places.size
            trained += int((np.array(targets) >= 0).sum())
        seen.append(shapes)
    return {"first": len(seen[0]), "all": len(set().union(*seen)), "padding": padded / trained - 1}


def main() -> None:
    """Draw the lengths, count, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", help="a .jsonl file of rows of --type")
    parser.add_argument("--type", choices=("sql", "alpaca"), default="alpaca")
    parser.add_argument("--model", required=True, help="whose tokenizer measures")
    parser.add_argument("--rows", type=int, default=52_000, help="size of the set that is drawn")
    options = parser.parse_args()
    rows = drawn_examples(options)
    batches.on_gpu = lambda: True  # as it would be there
    figures, as_it_is = {}, batches.padding_of
    for batch_size in (4, 8):
        for name, padding_of in (
            ("as it is", as_it_is),
            ("rounded", lambda data, *_: batches.plain_padding(data)),
        ):
            batches.padding_of = padding_of
            found = count_shapes(rows, batch_size)
            print(
                f"batch {batch_size}, {name:<9} {found['first']:>4} shapes in an epoch, "
                f"{found['all']:>4} in two, {found['padding']:.1%} padding of positions"
            )
            figures[f"{batch_size} {name}"] = found
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
