"""Lengths of texts in tokens: the tokenizer of a model, without the model, or an estimate.

Promises: a tokenizer that can be had is used, wherever it is (a folder, the hub or its cache, the
packaged model); what is only estimated says so, and its caller must drop nothing for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gemma_lora.cli import UserError
from gemma_lora.files import model_cache
from gemma_lora.hub import bound_hub_waits
from gemma_lora.models import packaged_tokenizer
from gemma_lora.prompts import render_prompt
from gemma_lora.splits import Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_MODEL = "google/gemma-3-270m-it"
# English and SQL under Gemma's tokenizer: measured 3.4 to 4.3 characters a token on real rows.
CHARACTERS_PER_TOKEN = 3.2
BLOCK = 1000  # rows that are tokenized together, on all cores

Item = TypeVar("Item")
Size = tuple[int, int]  # tokens of prompt and completion, special tokens included


class Ruler(NamedTuple):
    """What measures lengths."""

    tokenizer: Tokenizer | None  # None: lengths are estimated from characters
    name: str

    @property
    def is_exact(self) -> bool:
        """Whether lengths are counted, not estimated."""
        return self.tokenizer is not None


def find_ruler(model: str) -> Ruler:
    """The fast tokenizer of a model folder, a hub id or 'packaged'; else an estimate.

    A hub's tokenizer is fetched with whatever logs in there (HF_TOKEN, `hf auth login`, nothing on
    an open mirror). Every Gemma 3 has the same one: where the hub gives none, the packaged one
    serves.
    """
    from tokenizers import Tokenizer

    folder = Path(model).expanduser()
    if (file := folder / "tokenizer.json").is_file():
        return Ruler(Tokenizer.from_file(str(file)), f"tokenizer of {model}")
    is_hub_id = "/" in model and not folder.exists()
    if is_hub_id and (fetched := hub_tokenizer(model)) is not None:
        return Ruler(Tokenizer.from_file(str(fetched)), f"tokenizer of {model}")
    is_gemma = is_hub_id and "gemma-3" in model.lower()
    if (model == "packaged" or is_gemma) and (packed := local_packaged_tokenizer()) is not None:
        name = "tokenizer of packaged" + (f", for that of {model}" if is_gemma else "")
        return Ruler(Tokenizer.from_file(str(packed)), name)
    return Ruler(None, "estimate from characters")


def hub_tokenizer(model: str) -> Path | None:
    """tokenizer.json of a hub id, out of the cache or fetched; None when it cannot be had."""
    from huggingface_hub import HfApi, hf_hub_download

    name = "tokenizer.json"
    with suppress(Exception):  # whatever the hub's libraries raise: there is another way
        return Path(hf_hub_download(model, name, local_files_only=True))
    bound_hub_waits()
    with suppress(Exception):
        HfApi().model_info(model)  # tries once; a download tries for 20 s to reach a hub
        return Path(hf_hub_download(model, name))
    return None


def local_packaged_tokenizer() -> Path | None:
    """The packaged model's tokenizer.json, of its conversion or made now; None without it."""
    for file in sorted(model_cache().glob("packaged-*/tokenizer.json")):
        return file
    with suppress(UserError):
        return packaged_tokenizer()
    return None


def measured(
    items: Iterable[Item], row_of: Callable[[Item], Row], ruler: Ruler
) -> Iterator[tuple[Item, Size]]:
    """Each item with the size of its row."""
    source = iter(items)
    while block := list(itertools.islice(source, BLOCK)):
        yield from zip(block, row_sizes([row_of(one) for one in block], ruler), strict=True)


def row_sizes(rows: Sequence[Row], ruler: Ruler) -> list[Size]:
    """The sizes of rows."""
    heads = [render_prompt(r["prompt"]) for r in rows]
    tails = [r["text"][len(head) :] for r, head in zip(rows, heads, strict=True)]
    return list(zip(count_tokens(heads, ruler), count_tokens(tails, ruler), strict=True))


def count_tokens(texts: Sequence[str], ruler: Ruler) -> list[int]:
    """Token count of each text."""
    if ruler.tokenizer is None:
        return [round(len(t) / CHARACTERS_PER_TOKEN) for t in texts]
    return [len(e) for e in ruler.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
