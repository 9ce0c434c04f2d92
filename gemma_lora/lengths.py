"""Lengths of texts in tokens: the tokenizer of a model, without the model, or an estimate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_lora.files import model_cache
from gemma_lora.prompts import render_prompt
from gemma_lora.splits import Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_MODEL = "google/gemma-3-270m-it"
# English and SQL under Gemma's tokenizer: measured 3.4 to 4.3 characters a token on real rows.
CHARACTERS_PER_TOKEN = 3.2


def load_tokenizer(model: str) -> Tokenizer | None:
    """The fast tokenizer of a model folder or hub id, or None when it cannot be had offline."""
    from huggingface_hub import hf_hub_download
    from tokenizers import Tokenizer

    folder = Path(model).expanduser()
    files = [folder / "tokenizer.json"]
    if model == "packaged":  # train.py converts it at its first use
        files += sorted(model_cache().glob("packaged-*/tokenizer.json"))
    for file in files:
        if file.is_file():
            return Tokenizer.from_file(str(file))
    if "/" not in model or folder.exists():
        return None
    with contextlib.suppress(
        Exception
    ):  # whatever the hub's libraries raise, an estimate replaces it
        return Tokenizer.from_file(
            hf_hub_download(
                model, "tokenizer.json", local_files_only=not os.environ.get("HF_TOKEN")
            )
        )
    return None


def token_lengths(rows: Sequence[Row], tokenizer: Tokenizer | None) -> list[tuple[int, int]]:
    """(prompt, completion) lengths in tokens, special tokens included; an estimate without one."""
    lengths = []
    for start in range(0, len(rows), 1000):
        block = rows[start : start + 1000]
        heads = [render_prompt(r["prompt"]) for r in block]
        tails = [r["text"][len(head) :] for r, head in zip(block, heads, strict=True)]
        lengths += list(
            zip(count_tokens(heads, tokenizer), count_tokens(tails, tokenizer), strict=True)
        )
    return lengths


def count_tokens(texts: Sequence[str], tokenizer: Tokenizer | None) -> list[int]:
    """Token count of each text."""
    if tokenizer is None:
        return [round(len(t) / CHARACTERS_PER_TOKEN) for t in texts]
    return [len(e) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
