"""Answers in batches, and the losses of references, in little memory."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gemma_lora.cli import UserError
from gemma_lora.loss import head_loss, logsumexp
from gemma_lora.prompts import END_OF_TURN, STOP_TOKENS, encode, neutralize

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    Draw = Callable[[mx.array], mx.array]

# A shared beginning of the prompts (the worked examples) is read once from this length on.
SHARED_PREFIX = 48
# Keys and values of all rows of a batch, in tokens, 36 KB each in float32. With more, long prompts
# outgrow the model; with 2,048 and 16 rows answers took 1.3 times as long, and 0.35 GB less.
CACHE_TOKENS = 8192
# The same for what reads references.
LOSS_TOKENS = 1024
# Of draws, so many batches' prompts are read at one time.
WAITING_BATCHES = 4


@dataclass(frozen=True)
class Generation:
    """One answer of a model."""

    text: str
    prompt_tokens: int
    generation_tokens: int
    finish_reason: str  # "stop" (a stop token came) | "length"
    time_sec: float  # from the answer's first token to its last
    logprob: float | None = None  # of all its tokens together, in nats, where it was wanted
    lowest_logprob: float | None = None  # of its least likely token


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


class Decoding(NamedTuple):
    """One sequence to decode: what its answer follows, and how its tokens are drawn."""

    rest: list[int]  # of the prompt, after what `cache` holds
    cache: list[Any]
    prompt_tokens: int
    draw: Draw | None  # None: greedy, and then that of all


def generate_batch(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[str],
    max_tokens: int,
    temp: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    top_p: float = 1.0,
    advance: Callable[[int], None] = lambda n: None,
    likely: bool = False,
) -> list[Generation]:
    """Answer rendered prompts, up to `batch_size` at a time, in the order given.

    Rows are worked off longest first, so that neighbours need little padding; a row that ends
    makes room for the next. What all prompts begin with is computed once. Long prompts make the
    batch smaller, for their cache's sake. Each row's draws are its own: the batch's size changes
    none of them. With `likely` greedy answers are told with their probabilities, which costs 16%.
    """
    ids = [prompt_ids(model, tokenizer, p, max_tokens) for p in prompts]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    shared = shared_prefix(ids)
    # Every row may be given the same cache: rows are copied out of it into the batch's own.
    cache = prefix_cache(model, ids[0][:shared])
    rows = [
        Decoding(ids[i][shared:], cache, len(ids[i]), draw_from(temp, top_p, seed, i))
        for i in order
    ]
    made = decode(model, tokenizer, rows, max_tokens, batch_size, advance, likely)
    answers = dict(zip(order, made, strict=True))
    return [answers[row] for row in range(len(ids))]


def generate_several(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[str],
    rows: Sequence[int],
    wanted: int,
    max_tokens: int,
    temp: float,
    seed: int = 0,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[Generation]]:
    """`wanted` sampled answers to each rendered prompt, all from one copy of the prompt's cache.

    Each draw is keyed by `seed`, the prompt's number in `rows` and the answer's number. `advance`
    counts answers. Several batches' prompts are read at one time: an answer that ends makes room
    for the next, so that none waits beside one that rambles.
    """
    found: list[list[Generation]] = []
    at_once = max(1, WAITING_BATCHES * batch_size // wanted)
    for start in range(0, len(prompts), at_once):
        decodings = []
        block = zip(prompts[start : start + at_once], rows[start : start + at_once], strict=True)
        for prompt, row in block:
            ids = prompt_ids(model, tokenizer, prompt, max_tokens)
            cache = prefix_cache(model, ids[:-1])
            decodings += [
                Decoding(ids[-1:], cache, len(ids), draw_from(temp, 1.0, seed, row, number))
                for number in range(1, wanted + 1)
            ]
        made = decode(model, tokenizer, decodings, max_tokens, batch_size, advance)
        found += [made[i : i + wanted] for i in range(0, len(made), wanted)]
    return found


def decode(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    rows: Sequence[Decoding],
    max_tokens: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
    likely: bool = False,
) -> list[Generation]:
    """The answers that follow some prompts, in their order; the longest should come first."""
    if not rows:
        return []
    typical = rows[len(rows) // 4].prompt_tokens + max_tokens
    batch_size = max(1, min(batch_size, CACHE_TOKENS // typical))
    tokens: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]
    began, done = dict[int, float](), dict[int, Generation]()
    greedy = not any(row.draw for row in rows)
    with closing(batch_generator(model, tokenizer, greedy, batch_size, likely)) as generator:
        uids = generator.insert(
            [row.rest for row in rows],
            [max_tokens] * len(rows),
            caches=[row.cache for row in rows],
            samplers=None if greedy else [cast("Draw", row.draw) for row in rows],
        )
        row_of = {uid: index for index, uid in enumerate(uids)}
        for uid, token, logprob, reason in chain.from_iterable(generation_steps(generator)):
            row = row_of[uid]
            began.setdefault(row, time.perf_counter())
            tokens[row].append(token)
            logprobs[row].append(logprob)
            if reason:
                said = tokens[row][:-1] if reason == "stop" else tokens[row]
                seconds = time.perf_counter() - began[row]
                counts = (rows[row].prompt_tokens, len(tokens[row]))
                text = tokenizer.decode(said)
                done[row] = Generation(text, *counts, reason, seconds)
                if likely or not greedy:
                    sums = (sum(logprobs[row]), min(logprobs[row]))
                    done[row] = Generation(text, *counts, reason, seconds, *sums)
                advance(1)
    return [done[row] for row in range(len(rows))]


def draw_from(temp: float, top_p: float, seed: int, row: int, answer: int = 0) -> Draw | None:
    """A sampler of one sequence, None for temperature 0; its draws hang on the numbers alone."""
    if not temp:
        return None
    import mlx.core as mx
    from mlx_lm.sample_utils import apply_top_p

    steps = count()

    def draw(logprobs: mx.array) -> mx.array:
        name = f"{seed} {row} {answer} {next(steps)}"
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        kept = apply_top_p(logprobs, top_p) if top_p < 1 else logprobs
        return mx.random.categorical(kept / temp, key=mx.random.key(key))

    return draw


def batch_generator(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    greedy: bool,
    batch_size: int,
    likely: bool = False,
) -> BatchGenerator:
    """mlx-lm's continuous batching, set up for our stop tokens and little memory."""
    from mlx_lm.generate import BatchGenerator

    return BatchGenerator(
        GreedyHead(model, likely) if greedy else model,  # type: ignore[arg-type]  # only called
        stop_tokens=[[i] for i in stop_ids(tokenizer)],
        sampler=GreedyHead.sample if greedy else None,
        completion_batch_size=batch_size,
        prefill_batch_size=min(4, batch_size),
    )


def generation_steps(
    generator: BatchGenerator,
) -> Iterator[list[tuple[int, int, float, str | None]]]:
    """(row's number, token, its log-probability, reason to end) of all rows in work, step by step.

    What mlx-lm says of a row that ends holds on to the caches of all: it must not be kept.
    """
    while responses := generator.next_generated():
        told = [
            (r.uid, r.token, GreedyHead.logprob(r.token, r.logprobs), r.finish_reason)
            for r in responses
        ]
        del responses
        yield told


class GreedyHead:
    """A model whose logits are four numbers: enough for greedy decoding and its probability.

    mlx-lm turns a step's logits into log-probabilities and keeps them: for a batch of 32 over
    262,144 tokens a few hundred MB, for nothing. Here they are (best id // 512, best id % 512, its
    log-probability if that is wanted, 0). Taking the last from each undoes mlx-lm's normalization,
    which shifts all alike; numbers below 512 keep 1e-4 in float32: ids come back exactly.
    """

    BASE = 512

    def __init__(self, model: Any, likely: bool = False) -> None:
        self.likely = likely
        self.model, self.layers, self.make_cache = model, model.layers, model.make_cache

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        import mlx.core as mx

        logits = self.model(inputs, cache=cache)[:, -1:].astype(mx.float32)
        return self.packed(logits, self.likely)

    @classmethod
    def packed(cls, logits: mx.array, likely: bool) -> mx.array:
        """The four numbers of logits (..., vocabulary): (..., 4)."""
        import mlx.core as mx

        best = mx.argmax(logits, axis=-1)
        zero = mx.zeros(best.shape)
        # A batch of 16 answers 38 tokens/s with it, 45 without (2 cores, 3 pairs in turn).
        logprob = zero
        if likely:
            rows = logits.reshape(-1, logits.shape[-1])
            logprob = mx.max(logits, axis=-1) - logsumexp(rows).reshape(best.shape)
        parts = (best // cls.BASE, best % cls.BASE, logprob, zero)
        return mx.stack([part.astype(mx.float32) for part in parts], axis=-1)

    @classmethod
    def sample(cls, logprobs: mx.array) -> mx.array:
        """The ids that the logits carried."""
        import mlx.core as mx

        parts = mx.round(logprobs[:, :2] - logprobs[:, 3:]).astype(mx.uint32)
        return parts[:, 0] * cls.BASE + parts[:, 1]

    @staticmethod
    def logprob(token: int, logprobs: mx.array) -> float:
        """A token's log-probability, of packed numbers or those of the whole vocabulary."""
        packed = logprobs.shape[-1] == 4
        found = logprobs[2] - logprobs[3] if packed else logprobs[token]
        return min(0.0, float(cast(float, found.item())))


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

    pairs = []
    for prompt, reference in zip(prompts, references, strict=True):
        head = prompt_ids(model, tokenizer, prompt, 0)
        answer = f"{neutralize(reference).strip()}{END_OF_TURN}"
        pairs.append((head, prompt_ids(model, tokenizer, prompt + answer, 0)))
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    losses: dict[int, tuple[float, int]] = {}
    for block in loss_blocks(order, [len(whole) for _, whole in pairs]):
        found = block_losses(model, [pairs[i] for i in block])
        losses |= dict(zip(block, found, strict=True))
    return [losses[i] for i in range(len(pairs))]


def block_losses(
    model: nn.Module, pairs: Sequence[tuple[list[int], list[int]]]
) -> list[tuple[float, int]]:
    """(summed loss in nats, tokens) of what follows the prompt in each (prompt, whole) of ids."""
    import mlx.core as mx

    width = max(len(whole) for _, whole in pairs)
    inputs = mx.array([whole + [0] * (width - len(whole)) for _, whole in pairs])
    hidden = model.model(inputs)
    losses = []
    for row, (head, whole) in enumerate(pairs):
        targets = mx.array(whole[len(head) :])
        states = hidden[row, len(head) - 1 : len(whole) - 1]
        loss: Any = head_loss(model, states, targets).item()
        losses.append((loss, len(targets)))
    return losses
