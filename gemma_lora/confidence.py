"""From when on an adapter is sure of an answer: a threshold from validation rows, kept beside it.

What is thresholded is the probability of an answer's least likely token (a query is as sure as its
least sure place; a mean over many tokens that cannot be otherwise hides it). `train.py` finds the
threshold in one pass over validation rows: where each token of the reference is the model's first
choice, the greedy answer is that reference, and its probability is known without writing it.
Answering less to be right more often is selective classification; the threshold is the one with
the most answers among those whose sure answers are right often enough (El-Yaniv and Wiener 2010;
Geifman and El-Yaniv 2017, less their bound, which a few hundred rows cannot afford).

Promises: a threshold is used with the very weights it was found with, or not at all. Not promised:
how many of the sure answers are right on questions unlike the validation rows. A query that leaves
out what the question names (`doubt`) or returns nothing is never sure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from gemma_lora.batches import Example
from gemma_lora.files import load_tensors, sha256_of, write_atomic
from gemma_lora.loss import logsumexp

if TYPE_CHECKING:
    import mlx.nn as nn

CONFIDENCE_FILE = "confidence.json"
CONFIDENCE_ROWS = 200  # of the validation set: about 70 s on one core
SURE_RIGHT = 0.8  # of the sure answers on validation rows, word for word
FAIRLY_RIGHT = 2 / 3  # will do where no threshold reaches that: other words may be right too
POSITIONS = 64  # whose 262,144 logits exist at one time
LEAST_SURE = 20  # fewer answers say nothing of a share


class Confidence(TypedDict):
    """confidence.json."""

    format: int
    adapter_sha256: str  # of the weights it was found with
    # Least log-probability, in nats, of a sure answer's least likely token; None: it cannot tell.
    threshold: float | None
    rows: int  # validation rows that were read
    right: int  # of these, answered word for word
    sure: int  # answers at or above the threshold
    sure_right: int


class Read(NamedTuple):
    """How a model would answer a validation row greedily."""

    right: bool  # as the reference, token for token
    lowest_logprob: float  # of the answer's tokens; of a wrong one up to where it departs


def read_rows(model: nn.Module, examples: Sequence[Example]) -> list[Read]:
    """How the model would answer each example, from one pass over the references."""
    import mlx.core as mx

    found: list[Read] = []
    for one in examples:
        targets = one.ids[one.offset : -1].tolist()  # generation ends with the turn, before <eos>
        hidden = model.model(mx.array(one.ids[:-2])[None])[0, one.offset - 1 :]
        first: list[int] = []
        logprobs: list[float] = []
        for start in range(0, len(targets), POSITIONS):
            states = hidden[start : start + POSITIONS]
            logits = model.model.embed_tokens.as_linear(states).astype(mx.float32)
            best = mx.max(logits, axis=-1) - logsumexp(logits)
            first += cast("list[int]", mx.argmax(logits, axis=-1).tolist())
            logprobs += cast("list[float]", best.tolist())
        found.append(read_of(first, targets, logprobs))
    return found


def read_of(first: Sequence[int], targets: Sequence[int], logprobs: Sequence[float]) -> Read:
    """What a model's first choices say of its greedy answer, up to where it leaves the reference.

    `logprobs` are those of the first choices, one a target.
    """
    same = [a == b for a, b in zip(first, targets, strict=True)]
    end = same.index(False) + 1 if False in same else len(same)
    return Read(all(same), min(logprobs[:end], default=0.0))


def threshold_of(reads: Sequence[Read]) -> float | None:
    """The least log-probability from which SURE_RIGHT of the answers are right.

    Where there is none, the least from which FAIRLY_RIGHT are; else None. A threshold that keeps a
    share of the right answers instead promises nothing of the wrong ones: of a geography's 270
    people's questions 43% were sure then, 74% of them right, with this one 24%, 86% of them right.
    """
    found = (least_logprob(reads, share) for share in (SURE_RIGHT, FAIRLY_RIGHT))
    return next((one for one in found if one is not None), None)


def least_logprob(reads: Sequence[Read], share: float) -> float | None:
    """The least log-probability from which so many of the answers are right; None for none.

    Never below the share itself: people's questions are harder than made ones, of which a model
    may answer so many at any probability. A geography's was right on 80% of its sure validation
    rows from 53% on, and on 76% of people's; from 80% on it is right on 89% of people's.
    """
    able = [one for one in reads if one.lowest_logprob >= math.log(share)]
    ranked = sorted(able, key=lambda one: -one.lowest_logprob)
    found, right = None, 0
    for count, one in enumerate(ranked, 1):
        right += one.right
        last = count == len(ranked) or ranked[count].lowest_logprob < one.lowest_logprob
        if last and count >= LEAST_SURE and right >= share * count:
            found = one.lowest_logprob
    return found


def measure_confidence(model: nn.Module, examples: Sequence[Example], weights: Path) -> Confidence:
    """From when on the model is sure whose adapter is in `weights`."""
    rows = Random(0).sample(list(examples), min(CONFIDENCE_ROWS, len(examples)))
    model.eval()
    reads = read_rows(model, rows)
    threshold = threshold_of(reads)
    least = 1.0 if threshold is None else threshold  # no log-probability is above 0
    sure = [one for one in reads if one.lowest_logprob >= least]
    return {
        "format": 1,
        "adapter_sha256": sha256_of(weights),
        "threshold": threshold,
        "rows": len(reads),
        "right": sum(one.right for one in reads),
        "sure": len(sure),
        "sure_right": sum(one.right for one in sure),
    }


def write_confidence(folder: Path, found: Confidence) -> None:
    """Write confidence.json beside an adapter."""
    write_atomic(folder / CONFIDENCE_FILE, json.dumps(found, indent=2) + "\n")


def read_confidence(folder: Path) -> Confidence | None:
    """From when on the adapter in a folder is sure; None where nothing tells of these weights."""
    try:
        found = json.loads((folder / CONFIDENCE_FILE).read_text(encoding="utf-8"))
        known = found["adapter_sha256"] == sha256_of(folder / "adapters.safetensors")
        least = found["threshold"]
        fits = least is None or (isinstance(least, float) and -100 < least <= 0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if known and fits else None


def keep_confidence(model: nn.Module, examples: Sequence[Example], folder: Path) -> str:
    """Find the threshold of the adapter in a folder, write it beside; in words what was found.

    `model` carries an adapter of this shape, and is left with the one in the folder.
    """
    weights = folder / "adapters.safetensors"
    model.load_weights(list(load_tensors(weights)[0].items()), strict=False)
    found = measure_confidence(model, examples, weights)
    write_confidence(folder, found)
    return confidence_sentence(found)


def confidence_sentence(found: Confidence) -> str:
    """What training says of it."""
    if found["threshold"] is None:
        return (
            f"it cannot tell when it is right: {found['right']} of {found['rows']} validation rows "
            "are answered word for word, and not two in three even of the likeliest answers"
        )
    return (
        f"sure from {math.exp(found['threshold']):.0%} at an answer's least certain place: "
        f"{found['sure']} of {found['rows']} validation rows, {found['sure_right']} of them "
        f"answered word for word; of all, {found['right']} are"
    )
