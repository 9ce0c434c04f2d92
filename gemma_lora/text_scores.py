"""One reply to an instruction measured against its reference."""

from __future__ import annotations

import re
from typing import TypedDict

from gemma_lora.cli import optional


class TextScores(TypedDict):
    """What is measured of one reply to an instruction; None where a reference is missing."""

    nll: float | None  # summed loss of the reference, in nats
    rouge_l: float | None  # 0 to 1
    chrf: float | None  # 0 to 100
    length_ratio: float | None  # words over the reference's words
    repetition_rate: float


def rouge_l(reference: str, text: str) -> float | None:
    """ROUGE-L F1 (0 to 1) over lower-cased words; the subsequence is found by rapidfuzz."""
    lcs = optional("rapidfuzz.distance", "rapidfuzz", "ROUGE-L")
    if lcs is None:
        return None
    a, b = (re.findall(r"\w+", t.lower()) for t in (reference, text))
    return 2 * lcs.LCSseq.similarity(a, b) / (len(a) + len(b)) if a and b else 0.0


def chrf(reference: str, text: str) -> float | None:
    """Sentence chrF (0 to 100) as sacrebleu computes it."""
    sacrebleu = optional("sacrebleu", "sacrebleu", "chrF")
    return float(sacrebleu.sentence_chrf(text, [reference]).score) if sacrebleu else None


def repetition_rate(text: str) -> float:
    """Share of the 4-word sequences that repeat an earlier one; 0 for shorter texts."""
    words = text.split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def score_text(reply: str, reference: str, loss: float | None) -> TextScores:
    """One model's scores on one instruction row; without a reference only what needs none."""
    return {
        "nll": loss,
        "rouge_l": rouge_l(reference, reply) if reference else None,
        "chrf": chrf(reference, reply) if reference else None,
        "length_ratio": len(reply.split()) / max(1, len(reference.split())) if reference else None,
        "repetition_rate": repetition_rate(reply),
    }
