"""The loss on the supervised tokens, with the head's logits in blocks of the vocabulary."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from gemma_lora.device import on_gpu

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn

CACHED = 2**18  # float32 numbers that a core's cache holds: there a pass over them costs a seventh
GPU_BLOCK = 32768  # ids in a block of the vocabulary on a GPU, which would rather have few of them


def exponential(x: mx.array) -> mx.array:
    """e to the power of x, float32, within 1e-6 for x from -10 to 0.

    On a CPU MLX's own exp takes 19 ns a number, its power of two 6.
    """
    import mlx.core as mx

    return mx.exp(x) if on_gpu() else mx.power(2.0, x * math.log2(math.e))


def row_sums(x: mx.array) -> mx.array:
    """The sums of the rows of x [S, B]: [S, 1].

    On a CPU MLX adds up a row one number after another in float32: over a vocabulary that is off by
    1e-3. Over the middle axis it adds vectors, which is exact enough and faster.
    """
    return columns(x).sum(1).sum(-1, keepdims=True)


def row_maxima(x: mx.array) -> mx.array:
    """The largest number of each row of x [S, B]: [S, 1]; as `row_sums`, for its speed."""
    return columns(x).max(1).max(-1, keepdims=True)


def columns(x: mx.array) -> mx.array:
    """x [S, B] as [S, B / 64, 64], or with fewer columns where B is no multiple of 64."""
    return x.reshape(x.shape[0], -1, math.gcd(x.shape[1], 64))


def logsumexp(logits: mx.array) -> mx.array:
    """Of logits [S, vocabulary], float32: [S], without MLX's errors (see `row_sums`)."""
    import mlx.core as mx

    highest, width = row_maxima(logits), block_width(len(logits))
    starts = range(0, logits.shape[1], width)
    sums = [row_sums(exponential(logits[:, i : i + width] - highest)) for i in starts]
    return (mx.log(row_sums(mx.concatenate(sums, axis=1))) + highest)[:, 0]


def block_width(rows: int) -> int:
    """How many ids' logits exist at one time for `rows` positions."""
    return GPU_BLOCK if on_gpu() else min(max(CACHED // rows // 64 * 64, 2048), 32768)


def embedding_block(embedding: nn.Module, part: slice | mx.array) -> nn.Module:
    """The embedding of some ids only: each of its arrays, quantized or not, has a row for an id."""
    block = copy.copy(embedding)
    for name, array in embedding.items():
        block[name] = array[part]
    return block


def head_pass(
    model: nn.Module,
    states: mx.array,
    targets: mx.array,
    with_gradient: bool,
    ids: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Summed float32 cross-entropy of states [S, D] against targets [S]; gradient by the states.

    With `ids` [K], ascending and holding all targets, the softmax is over these ids alone.

    Targets < 0 do not count. The gradient by the logits is softmax minus one-hot: the softmax's
    sums divide after the product with the head, and the one-hot picks rows of the embedding, which
    is the head. Block after block of the vocabulary, the largest logit so far is what all is
    relative to (Milakov and Gimelshein, arXiv:1805.02867), so that [S, vocabulary] never exists.
    Without `with_gradient` the gradient is zeros.
    """
    import mlx.core as mx

    embedding, width = model.model.embed_tokens, block_width(len(states))
    safe = mx.maximum(targets, 0)[:, None]
    if ids is not None and ids.size:
        embedding = embedding_block(embedding, ids)
        safe = (ids[None] < safe).sum(1, keepdims=True)  # their places among the ids
    highest = mx.full(safe.shape, -math.inf)
    sums = aims = mx.zeros(safe.shape)
    product = mx.zeros(states.shape)
    for start in range(0, embedding.weight.shape[0], width):
        block = embedding_block(embedding, slice(start, start + width))
        # `depends` holds a block back until the one before is done, so they do not pile up.
        (held,) = mx.depends([states], [sums, product])
        logits = block.as_linear(held).astype(mx.float32)
        place = mx.clip(safe - start, 0, logits.shape[1] - 1)
        aims = mx.where(place == safe - start, mx.take_along_axis(logits, place, axis=-1), aims)
        top = mx.maximum(highest, row_maxima(logits))
        powers, fading = exponential(logits - top), exponential(highest - top)
        sums, highest = sums * fading + row_sums(powers), top
        if with_gradient:
            _, (part,) = mx.vjp(block.as_linear, [states], [powers.astype(states.dtype)])
            product = product * fading + part.astype(mx.float32)
    live = (targets >= 0)[:, None]
    loss = ((mx.log(sums) + highest - aims) * live).sum()
    gradient = product / sums - embedding(safe[:, 0]).astype(mx.float32)
    return loss, (gradient * live * with_gradient).astype(states.dtype)


def head_loss(
    model: nn.Module, hidden: mx.array, targets: mx.array, ids: mx.array | None = None
) -> mx.array:
    """Summed cross-entropy of hidden [S, D] against targets [S], never with [S, vocab] in memory.

    The gradient by the hidden states is computed together with the loss, and is all that is kept
    for the backward pass: neither stored nor recomputed logits (the idea of Liger-Kernel's fused
    linear cross-entropy, arXiv:2410.10989). The head itself gets no gradient, which is right only
    because it is always frozen here.
    """
    import mlx.core as mx

    if not model.training:
        return head_pass(model, hidden, targets, with_gradient=False)[0]

    @mx.custom_function
    def loss_and_gradient(hidden: mx.array) -> tuple[mx.array, mx.array]:
        return head_pass(model, hidden, targets, True, ids)

    @loss_and_gradient.vjp
    def loss_and_gradient_vjp(primals: Any, cotangents: Any, outputs: Any) -> mx.array:
        return (cotangents[0] * outputs[1]).astype(outputs[1].dtype)

    return loss_and_gradient(hidden)[0]  # type: ignore[index]


def supervised_loss(
    model: nn.Module,
    tokens: mx.array,
    places: mx.array,
    targets: mx.array,
    weight: mx.array,
    ids: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """The loss that mlx-lm differentiates: (weighted sum of token losses, trained tokens).

    tokens [B, W], places [S] and targets [S], int32, as `pack` lays them out; weight is float32.
    ids [K], int32: what the softmax of a training step is over (`step_head`); none: all.
    """
    states = model.model(tokens)
    states = states.reshape(-1, states.shape[-1])[places]
    return head_loss(model, states, targets, ids) * weight, (targets >= 0).sum()
