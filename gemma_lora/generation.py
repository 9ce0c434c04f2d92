"""Answers in batches, and the losses of references, in little memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.loss import head_loss
from gemma_lora.prompts import END_OF_TURN, STOP_TOKENS, encode, neutralize

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.tokenizer_utils import TokenizerWrapper

# A shared beginning of the prompts (the worked examples) is read once from this length on.
SHARED_PREFIX = 48
# Keys and values of all rows of a batch, in tokens: with more, long prompts outgrow the model.
CACHE_TOKENS = 2048
# The same for what reads references: tokens at one time, and positions whose logits exist at once.
LOSS_TOKENS, LOSS_CHUNK = 1024, 16


@dataclass(frozen=True)
class Generation:
    """One answer of a model."""

    text: str
    prompt_tokens: int
    generation_tokens: int
    finish_reason: str  # "stop" (a stop token came) | "length"
    time_sec: float  # from the answer's first token to its last


class Answer(NamedTuple):
    """What a model said to a row, and what it thought of the row's reference."""

    said: Generation
    loss: tuple[float, int] | None  # (summed nats, tokens) of the reference


def stop_ids(tokenizer: TokenizerWrapper) -> set[int]:
    """Ids of the two tokens at which an answer ends."""
    return {int(tokenizer.convert_tokens_to_ids(token)) for token in STOP_TOKENS}


def prompt_ids(
    model: nn.Module, tokenizer: TokenizerWrapper, prompt: str, max_tokens: int
) -> list[int]:
    """Ids of a rendered prompt; UserError when it and its answer do not fit the model."""
    ids = encode(tokenizer, prompt)
    limit = getattr(model.args, "max_position_embeddings", math.inf)
    if len(ids) + max_tokens > limit:
        raise UserError(
            f"a prompt of {len(ids):,} tokens and an answer of {max_tokens:,} do not fit the "
            f"model's {limit:,}: shorten the prompt or schema, or lower --shots or --max-tokens"
        )
    return ids


def generate_batch(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[str],
    max_tokens: int,
    temp: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
    top_p: float = 1.0,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Generation]:
    """Answer rendered prompts, up to `batch_size` at a time, in the order given.

    Rows are worked off longest first, so that neighbours need little padding; a row that ends
    makes room for the next. What all prompts begin with is computed once. Long prompts make the
    batch smaller, for their cache's sake.
    """
    import mlx.core as mx

    ids = [prompt_ids(model, tokenizer, p, max_tokens) for p in prompts]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    typical = len(ids[order[len(order) // 4]]) + max_tokens
    batch_size = max(1, min(batch_size, CACHE_TOKENS // typical))
    shared = shared_prefix(ids)
    # Every row may be given the same cache: rows are copied out of it into the batch's own.
    caches = [prefix_cache(model, ids[0][:shared])] * len(ids)
    tokens: list[list[int]] = [[] for _ in ids]
    began, done = dict[int, float](), dict[int, Generation]()
    mx.random.seed(seed)
    with closing(batch_generator(model, tokenizer, temp, top_p, batch_size)) as generator:
        rest = [ids[i][shared:] for i in order]
        uids = generator.insert(rest, [max_tokens] * len(order), caches=caches)
        row_of = dict(zip(uids, order, strict=True))
        for uid, token, reason in chain.from_iterable(generation_steps(generator)):
            row = row_of[uid]
            began.setdefault(row, time.perf_counter())
            tokens[row].append(token)
            if reason:
                said = tokens[row][:-1] if reason == "stop" else tokens[row]
                seconds = time.perf_counter() - began[row]
                counts = (len(ids[row]), len(tokens[row]))
                done[row] = Generation(tokenizer.decode(said), *counts, reason, seconds)
                advance(1)
    return [done[row] for row in range(len(ids))]


def batch_generator(
    model: nn.Module, tokenizer: TokenizerWrapper, temp: float, top_p: float, batch_size: int
) -> BatchGenerator:
    """mlx-lm's continuous batching, set up for our stop tokens and little memory."""
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    return BatchGenerator(
        model if temp else GreedyHead(model),  # type: ignore[arg-type]  # it is called, no more
        stop_tokens=[[i] for i in stop_ids(tokenizer)],
        sampler=make_sampler(temp, top_p=top_p) if temp else GreedyHead.sample,
        completion_batch_size=batch_size,
        prefill_batch_size=min(4, batch_size),
    )


def generation_steps(generator: BatchGenerator) -> Iterator[list[tuple[int, int, str | None]]]:
    """(row's number, token, reason to end) of all rows in work, step after step.

    What mlx-lm says of a row that ends holds on to the caches of all: it must not be kept.
    """
    while responses := generator.next_generated():
        told = [(r.uid, r.token, r.finish_reason) for r in responses]
        del responses
        yield told


class GreedyHead:
    """A model whose logits are only (best id, 0): enough for greedy decoding.

    mlx-lm turns a step's logits into log-probabilities and keeps them. For a batch of 32 over
    262,144 tokens that is a quarter of a step's time on a CPU and a few hundred MB, for nothing.
    Taking one log-probability from the other gives the id back, exactly below 2**24.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.layers, self.make_cache = model, model.layers, model.make_cache

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        import mlx.core as mx

        best = mx.argmax(self.model(inputs, cache=cache)[:, -1:], axis=-1).astype(mx.float32)
        return mx.stack([best, mx.zeros_like(best)], axis=-1)

    @staticmethod
    def sample(logprobs: mx.array) -> mx.array:
        """The ids that the logits carried."""
        import mlx.core as mx

        return mx.round(logprobs[:, 0] - logprobs[:, 1]).astype(mx.uint32)


def shared_prefix(ids: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with, 0 when too few to be worth it; each row keeps some."""
    low, high = min(ids), max(ids)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    same = min(same, min(map(len, ids)) - 2)
    return same if same >= SHARED_PREFIX and len(ids) > 1 else 0


def prefix_cache(model: nn.Module, prefix: list[int]) -> list[Any]:
    """The key-value cache that holds `prefix`, which may be empty.

    Not the model's own kind, which rotates in the layers with a sliding window: in a batch where
    rows come and go that one grows to the whole window, whatever the rows need. The mask keeps to
    the window with either.
    """
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache

    cache = [KVCache() for _ in model.layers]
    if prefix:
        model.model(mx.array(prefix)[None], cache=cache)
        mx.eval([c.state for c in cache])
    return cache


def loss_blocks(order: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in `order`, shortest row first, in blocks of at most LOSS_TOKENS when padded."""
    block: list[int] = []
    for i in order:
        if block and (len(block) + 1) * lengths[i] > LOSS_TOKENS:
            yield block
            block = []
        block.append(i)
    if block:
        yield block


def reference_losses(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[str],
    references: Sequence[str],
) -> list[tuple[float, int]]:
    """(summed loss in nats, tokens) of each reference with its end of turn, after its prompt."""
    import mlx.core as mx

    pairs = []
    for prompt, reference in zip(prompts, references, strict=True):
        head = prompt_ids(model, tokenizer, prompt, 0)
        answer = f"{neutralize(reference).strip()}{END_OF_TURN}"
        pairs.append((head, prompt_ids(model, tokenizer, prompt + answer, 0)))
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    losses: dict[int, tuple[float, int]] = {}
    for block in loss_blocks(order, [len(whole) for _, whole in pairs]):
        width = max(len(pairs[i][1]) for i in block)
        inputs = mx.array([pairs[i][1] + [0] * (width - len(pairs[i][1])) for i in block])
        hidden = model.model(inputs)
        for row, i in enumerate(block):
            head, whole = pairs[i]
            targets = mx.array(whole[len(head) :])
            states = hidden[row, len(head) - 1 : len(whole) - 1]
            loss: Any = head_loss(model, states, targets, LOSS_CHUNK).item()
            losses[i] = (loss, len(targets))
    return [losses[i] for i in range(len(pairs))]
