"""One piece of work, timed; what every figure of a benchmark means."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict, cast

from gemma_lora.device import Limits, compute_dtype
from gemma_lora.models import named_arrays
from gemma_lora.statistics import Distribution, describe_values

if TYPE_CHECKING:
    import mlx.nn as nn

# key: (label, scale for people, is more better?, definition)
METRICS: dict[str, tuple[str, float, bool | None, str]] = {
    "prompt_tps": (
        "prefill tok/s", 1, True,
        "prompt tokens (of all rows of a batch) over the time to the first token",
    ),
    "generation_tps": (
        "decode tok/s", 1, True,
        "generated tokens over time, the first token excluded from both count and time; all rows "
        "of a batch together",
    ),
    "ttft_sec": (
        "first token ms", 1e3, False, "from handing over the prompt's ids to the first token"
    ),
    "tpot_sec": (
        "per token ms", 1e3, False,
        "time between neighbouring tokens (of a batch: steps), over all runs; p50, p90, p99",
    ),
    "end_to_end_sec": (
        "whole answer s", 1, False, "from handing over the prompt's ids to the last token"
    ),
    "generation_tokens": (
        "tokens in answer", 1, None, "tokens generated for each prompt, its stop token too"
    ),
    "prefill_peak_gb": (
        "prefill peak GB", 1, False,
        "MLX's peak memory up to the first token: what this variant's weights take, and what the "
        "phase took on top of all that was loaded",
    ),
    "decode_peak_gb": (
        "decode peak GB", 1, False, "the same, from the first token to the last"
    ),
}  # fmt: skip
OTHER_DEFINITIONS = {
    "load_sec": "from the adapter folder to base and adapter in memory, conversion not included",
    "active_memory_gb": "MLX's memory in use after loading base and adapter",
    "process_peak_gb": "the most physical memory this process held, everything included",
    "weights_gb": "bytes of a variant's weights as they lie in memory",
    "ratio": "geometric mean of variant over reference, paired run by run; the interval is a "
    "seeded 95% bootstrap over the pairs, stretched for few pairs as Student's t is",
    "bandwidth_gb_per_sec": "bytes read and written by a copy larger than the caches",
    "matmul_gflops": "best of five large square matmuls in the dtype of the model",
    "decode_share": "decode speed over what bandwidth allows when weights and cache are read "
    "once for each token",
    "prefill_share": "prefill speed over what the matmul peak allows for the layers' products",
    "val_loss": "nats per supervised token (answer and its end) of the sampled validation rows",
    "execution_accuracy": "share of judged SQL rows whose answer returns the gold's rows",
    "test_suite_accuracy": "share of the same rows whose answer does so on every database of the "
    "row's test suite too",
}


class TimedRun(TypedDict):
    """One piece of work, timed once; METRICS says what the figures mean."""

    work: str
    row: str | None
    prompt_tokens: int
    ttft_sec: float
    prompt_tps: float
    generation_tps: float | None  # None for an answer of one token
    tpot_sec: list[float]
    end_to_end_sec: float
    generation_tokens: int
    finish_reason: str
    prefill_peak_gb: float | None
    decode_peak_gb: float | None


class TimedSample(TimedRun):
    """A timed run of one variant."""

    variant: str
    run: int


class WorkFigures(TypedDict, total=False):
    """All runs of a variant on one piece of work; a metric that was not measured is absent."""

    prompt_tps: Distribution
    generation_tps: Distribution
    ttft_sec: Distribution
    tpot_sec: Distribution
    end_to_end_sec: Distribution
    generation_tokens: Distribution
    prefill_peak_gb: Distribution
    decode_peak_gb: Distribution
    finish_reasons: dict[str, int]


Figures = dict[str, dict[str, WorkFigures]]  # {variant: {work: figures}}


class LimitShares(TypedDict):
    """Speeds as shares of what the machine allows."""

    bytes_per_token: int
    decode_limit_tps: float
    prefill_limit_tps: float
    decode_share: float
    prefill_share: float


def metric_of(figures: WorkFigures | None, metric: str) -> Distribution | None:
    """A metric by its name, None where it was not measured."""
    return cast("Distribution | None", dict(figures or {}).get(metric))


def timing_figures(samples: Sequence[TimedSample]) -> Figures:
    """Statistics of timed samples, by variant and work."""
    groups: dict[tuple[str, str], list[TimedSample]] = {}
    for sample in samples:
        groups.setdefault((sample["variant"], sample["work"]), []).append(sample)
    found: Figures = {}
    for (variant, work), members in groups.items():
        figures: dict[str, Any] = {}
        for metric in METRICS:
            values: list[Any] = [v for m in members if (v := dict(m).get(metric)) is not None]
            if metric == "tpot_sec":  # a list for each sample
                values = [seconds for value in values for seconds in value]
            if values:
                figures[metric] = describe_values(values)
        reasons = [m["finish_reason"] for m in members]
        figures["finish_reasons"] = {r: reasons.count(r) for r in sorted(set(reasons))}
        found.setdefault(variant, {})[work] = cast(WorkFigures, figures)
    return found


@dataclass(frozen=True)
class Work:
    """One thing to time: rows generated together, of forced length when no id stops them."""

    name: str
    prompts: tuple[tuple[int, ...], ...]  # token ids of each row
    max_tokens: int
    stops: frozenset[int] = frozenset()
    row: str | None = None  # id of the data row it was made of


def shape_work(prompt: int, generated: int, batch: int, vocabulary: int, seed: int) -> Work:
    """Random ids of a fixed shape. A batch shares out the same number of prompt tokens."""
    draw = random.Random(seed)
    length = max(2, prompt // batch)
    rows = tuple((2, *draw.choices(range(3, vocabulary), k=length - 1)) for _ in range(batch))
    name = f"pp{length}+tg{generated}" + (f" x{batch}" if batch > 1 else "")
    return Work(name, rows, generated)


def stream_tokens(model: nn.Module, work: Work) -> Iterator[int]:
    """Token ids as mlx-lm generates them; of a batch the first row's, one for each step."""
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator, generate_step

    if len(work.prompts) == 1:
        for token, _ in generate_step(mx.array(work.prompts[0]), model, max_tokens=work.max_tokens):
            yield int(token)
        return
    size = len(work.prompts)
    generator = BatchGenerator(model, completion_batch_size=size, prefill_batch_size=size)
    try:
        generator.insert([list(p) for p in work.prompts], [work.max_tokens] * size)
        while responses := generator.next_generated():
            yield int(responses[0].token)
    finally:
        generator.close()


def time_once(model: nn.Module, work: Work, weights_bytes: int, memory: bool) -> TimedRun:
    """Time one piece of work; see METRICS for what the keys mean."""
    import mlx.core as mx
    from mlx_lm.generate import generation_stream

    mx.synchronize(generation_stream)  # mlx-lm computes one token ahead: let the last one end
    mx.clear_cache()
    resident = mx.get_active_memory()
    mx.reset_peak_memory()
    peaks, token = [], -1
    stamps = [time.perf_counter()]
    for token in stream_tokens(model, work):
        stamps.append(time.perf_counter())
        if len(stamps) == 2:
            peaks.append(mx.get_peak_memory())
            mx.reset_peak_memory()
        if token in work.stops:
            break
    peaks.append(mx.get_peak_memory())
    tokens, rows = len(stamps) - 1, len(work.prompts)
    steps = [b - a for a, b in pairwise(stamps[1:])]
    first = stamps[1] - stamps[0]
    prefill_peak, decode_peak = ((p - resident + weights_bytes) / 1e9 for p in peaks)
    return {
        "work": work.name,
        "row": work.row,
        "prompt_tokens": sum(map(len, work.prompts)),
        "ttft_sec": first,
        "prompt_tps": sum(map(len, work.prompts)) / first,
        "generation_tps": rows * len(steps) / sum(steps) if steps else None,
        "tpot_sec": steps,
        "end_to_end_sec": stamps[-1] - stamps[0],
        "generation_tokens": tokens,
        "finish_reason": "stop" if token in work.stops else "length",
        "prefill_peak_gb": prefill_peak if memory else None,
        "decode_peak_gb": decode_peak if memory and steps else None,
    }


def weights_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights, an adapter's included."""
    return sum(w.nbytes for w in named_arrays(model.parameters()).values())


def layer_products(args: Any) -> int:
    """Multiplications for one token in all layers' projections."""
    queries = args.num_attention_heads * args.head_dim
    keys = args.num_key_value_heads * args.head_dim
    attention = args.hidden_size * (2 * queries + 2 * keys)
    return args.num_hidden_layers * (attention + 3 * args.hidden_size * args.intermediate_size)


def cache_bytes(args: Any, context: int, itemsize: int) -> int:
    """Bytes of keys and values read for one token after `context` tokens."""
    layers = range(args.num_hidden_layers)
    whole = sum(1 for i in layers if (i + 1) % args.sliding_window_pattern == 0)
    seen = whole * context + (len(layers) - whole) * min(context, args.sliding_window)
    return 2 * args.num_key_value_heads * args.head_dim * seen * itemsize


def shares_of_limit(
    figures: Mapping[str, WorkFigures], shape: Work, weights: int, args: Any, limits: Limits
) -> LimitShares:
    """Decode and prefill speed of the single-row shape as shares of what the machine allows."""
    measured = figures[shape.name]
    itemsize = 4 if compute_dtype() == "float32" else 2
    context = len(shape.prompts[0]) + shape.max_tokens // 2
    read = weights + cache_bytes(args, context, itemsize)
    decode_limit = limits["bandwidth_gb_per_sec"] * 1e9 / read
    prefill_limit = limits["matmul_gflops"] * 1e9 / (2 * layer_products(args))
    return {
        "bytes_per_token": read,
        "decode_limit_tps": decode_limit,
        "prefill_limit_tps": prefill_limit,
        "decode_share": measured["generation_tps"]["median"] / decode_limit,
        "prefill_share": measured["prompt_tps"]["median"] / prefill_limit,
    }
