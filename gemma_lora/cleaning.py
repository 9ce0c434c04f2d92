"""One text made fit to train on or to be shown, and what counts as the same text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from gemma_lora.prompts import CONTROL_CHARACTERS, neutralize

# Plain punctuation counts as a space, any other sign as a word of its own.
PUNCTUATION = {ord(c): " " for c in ".,:;!?'\"`"} | {
    ord(c): f" {c} " for c in "+-*/=<>()[]{}%#&|^~@$"
}


# What a terminal or a page obeys instead of showing it: C0 (less tab and newline), DEL, C1, half
# characters, and the marks that turn the direction of writing.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Text from outside without control characters; line ends become newlines."""
    return OBEYED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def clean_text(text: str) -> tuple[str, list[str]]:
    """Repair one text; returns it with the names of the repairs made. Idempotent."""
    steps: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("line ends", lambda t: t.replace("\r\n", "\n").replace("\r", "\n")),
        ("control characters", lambda t: CONTROL_CHARACTERS.sub("", t)),
        ("special tokens", neutralize),
        ("outer space", str.strip),
    )
    repairs = []
    for name, step in steps:
        repaired = step(text)
        if repaired != text:
            repairs.append(name)
        text = repaired
    return text, repairs


def normalized(text: str) -> str:
    """Text less case, spacing and plain punctuation: what counts as the same prompt.

    Signs stay, for 2 + 2 is not 2 - 2 and C++ is not C.
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().translate(PUNCTUATION).split())


def number_of(count: int, noun: str) -> str:
    """'1 row', '1,200 rows'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
