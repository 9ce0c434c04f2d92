"""The loss on the supervised tokens, with the head's logits in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn

HEAD_CHUNK = 64  # supervised positions whose 262,144 logits exist at one time


def chunk_loss(model: nn.Module, states: mx.array, targets: mx.array) -> mx.array:
    """Summed float32 cross-entropy of states [C, D] against targets [C]; those < 0 do not count."""
    import mlx.core as mx

    logits = model.model.embed_tokens.as_linear(states).astype(mx.float32)
    aim = mx.take_along_axis(logits, mx.maximum(targets, 0)[:, None], axis=-1)[:, 0]
    return ((mx.logsumexp(logits, axis=-1) - aim) * (targets >= 0)).sum()


def chunk_loss_and_gradient(
    model: nn.Module, states: mx.array, targets: mx.array
) -> tuple[mx.array, mx.array]:
    """`chunk_loss` and its gradient by the states [C, D], with one exponential for both.

    The gradient by the logits is softmax minus one-hot. The softmax's sums divide after the
    product with the head, and the one-hot picks rows of the embedding, which is the head: so
    [C, vocab] is passed over as few times as can be (exp alone costs as much as a product here).
    """
    import mlx.core as mx

    embedding = model.model.embed_tokens
    logits = embedding.as_linear(states).astype(mx.float32)
    highest = logits.max(axis=-1, keepdims=True)
    powers = mx.exp(logits - highest)
    sums = powers.sum(axis=-1, keepdims=True)
    live = (targets >= 0)[:, None]
    safe = mx.maximum(targets, 0)
    aim = mx.take_along_axis(logits, safe[:, None], axis=-1)
    loss = ((mx.log(sums) + highest - aim) * live).sum()
    _, (product,) = mx.vjp(embedding.as_linear, [states], [powers.astype(states.dtype)])
    gradient = product.astype(mx.float32) / sums - embedding(safe).astype(mx.float32)
    return loss, (gradient * live).astype(states.dtype)


def head_loss(
    model: nn.Module, hidden: mx.array, targets: mx.array, chunk: int | None = None
) -> mx.array:
    """Summed cross-entropy of hidden [S, D] against targets [S], never with [S, vocab] in memory.

    Logits exist for `chunk` positions at a time (HEAD_CHUNK unless given). The gradient by the
    hidden states is computed together with the loss, chunk after chunk, and is all that is kept for
    the backward pass: neither stored nor recomputed logits (the idea of Liger-Kernel's fused linear
    cross-entropy, arXiv:2410.10989). The head itself gets no gradient, which is right only because
    it is always frozen here.
    """
    import mlx.core as mx

    chunk = chunk or HEAD_CHUNK
    parts = [slice(i, i + chunk) for i in range(0, hidden.shape[0], chunk)]
    if not model.training:
        total = mx.array(0.0)
        for part in parts:
            # `depends` holds a chunk back until the one before is done, so they do not pile up.
            (states,) = mx.depends([hidden[part]], [total])
            total = total + chunk_loss(model, states, targets[part])
        return total

    @mx.custom_function
    def loss_and_gradient(hidden: mx.array) -> tuple[mx.array, mx.array]:
        total, gradients = mx.array(0.0), [hidden[:0]]
        for part in parts:
            (states,) = mx.depends([hidden[part]], [total, gradients[-1]])
            loss, gradient = chunk_loss_and_gradient(model, states, targets[part])
            total = total + loss
            gradients.append(gradient)
        return total, mx.concatenate(gradients)

    @loss_and_gradient.vjp
    def loss_and_gradient_vjp(primals: Any, cotangents: Any, outputs: Any) -> mx.array:
        return (cotangents[0] * outputs[1]).astype(outputs[1].dtype)

    return loss_and_gradient(hidden)[0]  # type: ignore[index]


def supervised_loss(
    model: nn.Module, tokens: mx.array, places: mx.array, targets: mx.array, weight: mx.array
) -> tuple[mx.array, mx.array]:
    """The loss that mlx-lm differentiates: (weighted sum of token losses, trained tokens).

    tokens [B, W], places [S] and targets [S], int32, as `pack` lays them out; weight is float32.
    """
    states = model.model(tokens)
    states = states.reshape(-1, states.shape[-1])[places]
    return head_loss(model, states, targets) * weight, (targets >= 0).sum()
