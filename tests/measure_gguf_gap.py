"""Why exported GGUF files answer a little differently than MLX: each cause by itself.

    pip install -r requirements-dev.txt
    python tests/measure_gguf_gap.py --adapter-path checkpoints --data data --rows 16

llama.cpp differs from MLX in float32 in three ways: it multiplies embeddings by sqrt(width) where
mlx-lm rounds that factor to bfloat16 (25.298 and 25.25 for 640); the matrices are rounded to the
file's type; and so is, in llama.cpp on a CPU, what they are multiplied with. Each is done to MLX's
model alone, then all together, and compared with MLX as it is; so is llama.cpp itself.

The figure is the mean over rows of the mean absolute difference of the 20 best log-probabilities
(nats) in the middle of the reference answer. Sizes are to be compared: what is rounded after
another order of sums falls to other sides, so the two are no nearer to each other than to MLX.
llama.cpp keeps its cache in float32 here; its table of gelu is what the type f32 shows.

Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gemma_lora import adapters, device, splits  # noqa: E402

device.prepare_process()  # before anything imports mlx.core

import llama_cpp  # noqa: E402
import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import numpy as np  # noqa: E402

from gemma_lora import gguf_export, gguf_writer  # noqa: E402
from gemma_lora.prompts import encode, render_prompt  # noqa: E402

mx.set_default_device(mx.cpu)
Rounding = Callable[[mx.array], mx.array]
BLOCK = 32
EMBEDDING = "model.embed_tokens.weight"
TOP = 20


def as_bf16(values: mx.array) -> mx.array:
    """Rounded to bfloat16."""
    return values.astype(mx.bfloat16).astype(mx.float32)


def as_f16(values: mx.array) -> mx.array:
    """Rounded to float16."""
    return values.astype(mx.float16).astype(mx.float32)


def as_q8_0(values: mx.array) -> mx.array:
    """Rounded to 255 steps in blocks of 32 whose scale is a float16."""
    blocks = values.reshape(*values.shape[:-1], -1, BLOCK)
    scale = mx.abs(blocks).max(axis=-1, keepdims=True) / 127
    steps = mx.round(blocks / mx.where(scale > 0, scale, 1))
    return (steps * as_f16(scale)).reshape(values.shape)


ROUNDINGS: dict[str, Rounding] = {"bf16": as_bf16, "f16": as_f16, "q8_0": as_q8_0}


@contextmanager
def plain_factor(width: int) -> Iterator[None]:
    """Multiply embeddings by the factor that mlx-lm rounds, as llama.cpp does."""
    plain, rounded = width**0.5, mx.array(width**0.5, mx.bfloat16).item()
    usual = nn.Embedding.__call__
    nn.Embedding.__call__ = lambda self, x: usual(self, x) * (plain / rounded)  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Embedding.__call__ = usual  # type: ignore[method-assign]


@contextmanager
def rounded_inputs(rounding: Rounding) -> Iterator[None]:
    """Round what every matrix is multiplied with, the head included."""
    linear, head = nn.Linear.__call__, nn.Embedding.as_linear
    nn.Linear.__call__ = lambda self, x: linear(self, rounding(x))  # type: ignore[method-assign]
    nn.Embedding.as_linear = lambda self, x: head(self, rounding(x))  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.__call__, nn.Embedding.as_linear = linear, head  # type: ignore[method-assign]


def drawn_prompts(args: argparse.Namespace, tokenizer: Any) -> list[list[int]]:
    """Ids up to the middle of the reference answer of rows held apart."""
    rows = random.Random(args.seed).sample(list(splits.read_split(args.data, "test")), args.rows)
    found = []
    for row in rows:
        answer = encode(tokenizer, row["completion"])
        found.append(encode(tokenizer, render_prompt(row["prompt"])) + answer[: len(answer) // 2])
    return found


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean absolute difference of the best log-probabilities that both tell."""
    best = [i for i in np.argsort(ours)[-TOP:] if np.isfinite(theirs[i])]
    return float(np.abs(ours - theirs)[best].mean())


def said(model: Any, prompts: Sequence[list[int]]) -> list[np.ndarray]:
    """MLX's log-probabilities after each prompt."""
    return [llama_cpp.mlx_log_probs(model, ids) for ids in prompts]


def mlx_variants(
    model: Any, weights: dict[str, mx.array], prompts: Sequence[list[int]]
) -> dict[str, list[np.ndarray]]:
    """{what was done to MLX's model: its log-probabilities}."""

    def rounded(rounding: Rounding, names: Callable[[str], bool]) -> None:
        changed = {n: rounding(w) if w.ndim > 1 and names(n) else w for n, w in weights.items()}
        model.load_weights(list(changed.items()))

    width = model.args.hidden_size
    found = {"as it is": said(model, prompts)}
    with plain_factor(width):
        found["factor"] = said(model, prompts)
    for kind, rounding in ROUNDINGS.items():
        rounded(rounding, lambda name: name == EMBEDDING)
        found[f"{kind} embedding"] = said(model, prompts)
        rounded(rounding, lambda name: name != EMBEDDING)
        found[f"{kind} layers"] = said(model, prompts)
        rounded(rounding, lambda _: False)
        with rounded_inputs(rounding):
            found[f"{kind} inputs"] = said(model, prompts)
        rounded(rounding, lambda _: True)
        with rounded_inputs(rounding), plain_factor(width):
            found[f"{kind} all"] = said(model, prompts)
        print(f"{kind} done", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tuned = adapters.load_finetuned(args.adapter_path)
    prompts = drawn_prompts(args, tuned.tokenizer)
    about, weights = gguf_export.fused(tuned, "gap")
    theirs: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("f32", *ROUNDINGS):
            path = Path(folder) / "gap.gguf"
            gguf_writer.write_gguf(path, about, dict(weights), kind)  # type: ignore[arg-type]
            with llama_cpp.llama(path, context=2048) as model:
                size = about.config["vocab_size"]
                theirs[kind] = [model.log_probs(ids, size, top=100) for ids in prompts]
            print(f"{kind} in llama.cpp done", file=sys.stderr, flush=True)
    ours = mlx_variants(tuned.model, weights, prompts)
    as_it_is, found = ours["as it is"], dict[str, dict[str, float]]()
    for name, rows in [*ours.items(), *((f"llama.cpp {k}", v) for k, v in theirs.items())]:
        pairs = list(zip(as_it_is, rows, strict=True))
        found[name] = {
            "gap": float(np.mean([gap(a, b) for a, b in pairs])),
            "same first choice": float(np.mean([np.argmax(a) == np.argmax(b) for a, b in pairs])),
        }
        print(f"{name:18} " + "  ".join(f"{k} {v:.5f}" for k, v in found[name].items()))
    print(json.dumps({"rows": args.rows, "seed": args.seed, "gaps": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
