"""Gemma's pieces out of a tokenizer.json: what SentencePiece's own file said of each.

A GGUF holds the vocabulary as SentencePiece does: every piece with a score and a type. A
tokenizer.json holds merges in their place. Both join neighbours in the same order, so scores are
given back by ranks: a piece scores the better the earlier the first merge that makes it. The
numbers are not SentencePiece's own, their order is.

Covers Gemma's kind of tokenizer (BPE with byte fallback, spaces spelt "▁", none put in front) and
refuses every other. One thing differs from SentencePiece and from this alike: llama.cpp does not
take a literal "▁" (U+2581) in the text for a space where it looks for runs of spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject
from gemma_lora.gguf_models import CONTROL, GEMMA_TOKENS, NORMAL, USER_DEFINED, Pieces

BYTE = 6  # SentencePiece's type of a piece that stands for one byte
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
NO_SCORE = -1000.0  # of pieces that are never made by joining others; llama.cpp's own choice


def read_pieces(path: Path, size: int) -> Pieces:
    """Return the `size` pieces of a tokenizer.json in the order of their ids; raise UserError."""
    try:
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        kind = unlike_gemma(tokenizer)
        pieces = {} if kind else typed_pieces(tokenizer, size)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not readable ({error!r}): download the model again") from None
    lacking = ", ".join(token for token in GEMMA_TOKENS if token not in pieces)
    if kind or lacking or len(pieces) != size:
        reason = kind or (f"no {lacking}" if lacking else f"{len(pieces)} pieces for {size} rows")
        raise UserError(
            f"{path} is not a tokenizer of Gemma's kind ({reason}): GGUF cannot hold it"
        )
    return pieces


def unlike_gemma(tokenizer: JsonObject) -> str | None:
    """What makes a tokenizer another kind than Gemma's; None for nothing."""
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    # The hub's file splits at spaces, of which the normalizer has left none.
    split = tokenizer.get("pre_tokenizer") or {"type": "Split", "pattern": {"String": " "}}
    rules = (
        (model.get("type") == "BPE", f"its model is {model.get('type')}, not BPE"),
        (model.get("byte_fallback") is True, "it has no byte fallback"),
        (not model.get("ignore_merges"), "it ignores its merges"),
        (normalizer == spaces, "it does not spell spaces as ▁"),
        (split["type"] == "Split", f"it splits texts by {split['type']}"),
        (split.get("pattern") == {"String": " "}, "it splits texts before it joins pieces"),
    )
    return next((reason for holds, reason in rules if not holds), None)


def typed_pieces(tokenizer: JsonObject, size: int) -> Pieces:
    """Return {piece: (score, type)} of the ids below `size`, which the embedding has rows for.

    Above them the hub's file has <image_soft_token>, which no text-only model knows.
    """
    ids = dict(tokenizer["model"]["vocab"])
    types = {text: BYTE if BYTE_PIECE.fullmatch(text) else NORMAL for text in ids}
    for token in tokenizer.get("added_tokens") or ():
        ids[token["content"]] = token["id"]
        types[token["content"]] = CONTROL if token["special"] else USER_DEFINED
    known = sorted((i, text) for text, i in ids.items() if i < size)
    if [i for i, _ in known] != list(range(len(known))):
        raise ValueError("its ids have gaps or stand twice")
    normal = [text for _, text in known if types[text] == NORMAL]
    scores = merge_scores(normal, tokenizer["model"]["merges"])
    return {text: (scores.get(text, NO_SCORE), types[text]) for _, text in known}


def merge_scores(pieces: Iterable[str], merges: Iterable[str | list[str]]) -> dict[str, float]:
    """Return a score for each piece: the first that is made gets 0, the next -1, and so on.

    Single characters, which nothing makes, follow in their own order; no score of theirs counts.
    """
    wanted = dict.fromkeys(pieces)
    made = ("".join(m.split(" ", 1)) if isinstance(m, str) else m[0] + m[1] for m in merges)
    order = dict.fromkeys(text for text in made if text in wanted) | wanted
    return {text: -float(rank) for rank, text in enumerate(order)}


def spelt_for_llama(text: str, kind: int) -> str:
    """A piece as llama.cpp wants it: it cuts runs of spaces out before it spells spaces as ▁."""
    return text.replace("▁", " ") if kind == USER_DEFINED else text
