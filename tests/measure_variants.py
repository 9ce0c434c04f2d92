"""Time one training step under variations of how it is computed, against the step as it is.

    python tests/measure_variants.py --data data --model packaged --rounds 4

All variations take the same batches in turn, in one process; a figure is the median of the ratios
to the default step on the same batch. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from gemma_lora import adapters, device, loss, models, splits  # noqa: E402
from gemma_lora.batches import Example, batch_iterator, bucket_widths, epoch_batches, tokenize  # noqa: E402

device.prepare_process()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402

MLX_GELU = nn.gelu_approx
Loss = Callable[..., Any]


def chunk_loss(model: Any, states: mx.array, targets: mx.array) -> mx.array:
    """Summed cross-entropy of a chunk of positions, over the whole vocabulary at once."""
    logits = model.model.embed_tokens.as_linear(states).astype(mx.float32)
    losses = nn.losses.cross_entropy(logits, mx.maximum(targets, 0))
    return (losses * (targets >= 0)).sum()


def chunked(model: Any, hidden: mx.array, targets: mx.array, wrap: Any) -> mx.array:
    """The head's loss by automatic differentiation, 64 positions after 64."""
    total = mx.array(0.0)
    for i in range(0, hidden.shape[0], 64):
        aims = targets[i : i + 64]
        total = total + wrap(lambda h, t=aims: chunk_loss(model, h, t))(hidden[i : i + 64])
    return total


def recomputed_head(model: Any, hidden: mx.array, targets: mx.array) -> mx.array:
    """Chunks of logits that the backward pass computes again."""
    return chunked(model, hidden, targets, mx.checkpoint)


def stored_head(model: Any, hidden: mx.array, targets: mx.array) -> mx.array:
    """Chunks of logits that are kept for the backward pass."""
    return chunked(model, hidden, targets, lambda f: f)


def whole_logits(
    model: Any, tokens: mx.array, places: mx.array, targets: mx.array, weight: mx.array
) -> tuple[mx.array, mx.array]:
    """Logits of all positions, prompt and padding too, of which the supervised ones are taken."""
    logits = model(tokens).reshape(-1, model.args.vocab_size)[places]
    losses = nn.losses.cross_entropy(logits.astype(mx.float32), mx.maximum(targets, 0))
    live = targets >= 0
    return (losses * live).sum() * weight, live.sum()


@contextmanager
def recomputed_layers(model: Any) -> Iterator[None]:
    """What --grad-checkpoint does."""
    with models.recomputed_layers(model):
        yield


def variants(model: Any) -> dict[str, AbstractContextManager[Any]]:
    """Each variation as a context that puts it in place."""
    found: dict[str, AbstractContextManager[Any]] = {"as it is": nullcontext()}
    for size in (1024, 2048, 8192, 32768):
        width = patch.object(loss, "block_width", lambda rows, size=size: size)
        found[f"head in blocks of {size}"] = width
    found["head: logits recomputed"] = patch.object(loss, "head_loss", recomputed_head)
    found["head: logits stored"] = patch.object(loss, "head_loss", stored_head)
    found["logits of all positions"] = patch.object(loss, "supervised_loss", whole_logits)
    found["MLX's gelu_approx"] = patch.object(nn, "gelu_approx", MLX_GELU)
    found["layers recomputed"] = recomputed_layers(model)
    return found


def make_step(model: Any, compiled: bool) -> Callable[..., Any]:
    """A function that computes loss and gradients of a batch, and waits for them."""
    gradients = nn.value_and_grad(model, lambda *batch: loss.supervised_loss(model, *batch)[0])
    if compiled:
        gradients = mx.compile(gradients, inputs=model.state, outputs=model.state)
    return lambda batch: mx.eval(gradients(*batch))


def timed(step: Callable[..., Any], batch: Any) -> tuple[float, float]:
    """(seconds, peak gigabytes) of one step."""
    mx.clear_cache()
    mx.reset_peak_memory()
    begun = time.perf_counter()
    step(batch)
    return time.perf_counter() - begun, mx.get_peak_memory() / 1e9


def padding(examples: list[Example], batch_size: int) -> dict[str, float]:
    """Share of padded tokens in an epoch: buckets, mlx-lm's sorting, and rows at random."""
    import numpy as np

    lengths = [len(e.ids) - 1 for e in examples]
    widths = bucket_widths(lengths)
    ours = epoch_batches(lengths, widths, batch_size, 0, 0)
    padded = sum(len(b) * next(w for w in widths if w >= max(lengths[i] for i in b)) for b in ours)
    order = np.random.default_rng(0).permutation(len(lengths))
    rows = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    widest = sum(len(b) * 32 * -(-max(lengths[i] for i in b) // 32) for b in rows)
    return {"buckets": 1 - sum(lengths) / padded, "at random, 32": 1 - sum(lengths) / widest}


def main() -> None:
    """Run every variation on every batch in turn and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--rounds", type=int, default=4, help="batches, the same for all")
    args = parser.parse_args()
    config = train.TrainingConfig(num_layers=-1)
    model, tokenizer, _ = models.load_base(args.model)
    mx.random.seed(0)
    lora = {"rank": 16, "scale": 2.0, "dropout": 0.0, "keys": list(adapters.LORA_KEYS)}
    settings = {"fine_tune_type": "lora", "num_layers": len(model.layers), "lora_parameters": lora}
    adapters.add_adapter(model, settings)
    model.train()
    rows = splits.read_split(args.data, "train")
    examples = tokenize(rows, tokenizer, config.max_seq_length)
    source = batch_iterator(config.seed)(examples, config.batch_size, 512, loop=True)
    batches = [next(source) for _ in range(args.rounds)]
    found: dict[str, list[tuple[float, float]]] = {}
    for number, batch in enumerate([batches[0], *batches]):  # the first round warms up
        changes = list(variants(model).items())
        if number % 2:  # no variation is always measured first
            changes.reverse()
        for name, change in changes:
            with change:
                measured = timed(make_step(model, compiled=False), batch)
            found.setdefault(name, []).extend([measured] if number else [])
        if number:
            mx.enable_compile()
            step = make_step(model, compiled=True)
            step(batch)  # compiles
            found.setdefault("compiled", []).append(timed(step, batch))
            mx.disable_compile()
    base = found["as it is"]
    summary = {
        name: {
            "time_ratio": median(s / b for (s, _), (b, _) in zip(runs, base, strict=True)),
            "peak_memory_gb": max(memory for _, memory in runs),
        }
        for name, runs in found.items()
    }
    shape = [list(b[0].shape) for b in batches]
    print(f"{len(batches)} batches of {shape}, median {median(s for s, _ in base):.2f} s a step")
    print("\n| step | time, of the default | peak GB |\n|---|---|---|")
    for name, figures in summary.items():
        print(f"| {name} | {figures['time_ratio']:.2f} | {figures['peak_memory_gb']:.2f} |")
    padded = padding(examples, config.batch_size)
    print(f"\npadding: {', '.join(f'{k} {v:.1%}' for k, v in padded.items())}")
    print(json.dumps({"steps": summary, "padding": padded, "versions": device.library_versions()}))


if __name__ == "__main__":
    main()
