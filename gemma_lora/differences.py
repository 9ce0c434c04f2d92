"""In what one SQL text differs from another, word by word, for people to see.

What means the same is no difference: spacing, the case of words and of plain names, `!=` for `<>`,
a semicolon at the end. Literals are compared letter by letter. Nothing here judges an answer: two
texts that differ in every word may be one query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal, NamedTuple

LONGEST = 3000  # words of both texts together; longer ones are not compared
FEWEST_SHARED = 0.3  # of the shorter text's words; below, one is not marked against the other
WORD = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\d+(?:\.\d+)?|\w+|<>|[<>=!]=|\|\||\S""", re.S
)
SAME_SIGNS = {"!=": "<>", "==": "="}


class Span(NamedTuple):
    """A piece of text and where it stands."""

    # In both, in the answer only, in the gold only; or of an answer that shares little with it.
    kind: Literal["same", "extra", "missing", "other"]
    text: str


class Word(NamedTuple):
    """One word of a text with the space after it."""

    text: str
    folded: str  # what is compared


def words(text: str) -> list[Word]:
    """A text cut into words, without the semicolon that may end it; joined, it is the text."""
    text = text.strip().removesuffix(";").rstrip()
    starts = [match.span() for match in WORD.finditer(text)]
    ends = [*(start for start, _ in starts), len(text)][1:]
    return [
        Word(text[start:following], fold(text[start:end]))
        for (start, end), following in zip(starts, ends, strict=True)
    ]


def fold(word: str) -> str:
    """A word as it is compared: literals as they are, all else without case and quotes."""
    if word.startswith("'"):
        return word
    plain = word[1:-1] if len(word) > 1 and word[0] in '"`' else word
    return SAME_SIGNS.get(plain, plain.lower())


def mark_differences(gold: str, answer: str) -> list[Span]:
    """The answer in pieces, with what it lacks of the gold between them.

    Pieces that are not "missing" make the answer, less its outer space and last semicolon. Texts
    that share little come back as one "extra" piece: marks would be a riddle there.
    """
    ours, theirs = words(gold), words(answer)
    if not theirs or len(ours) + len(theirs) > LONGEST:
        return [Span("same", answer.strip())]
    matcher = SequenceMatcher(None, [w.folded for w in ours], [w.folded for w in theirs], False)
    blocks = matcher.get_opcodes()
    shared = sum(end - start for kind, start, end, _, _ in blocks if kind == "equal")
    if shared < FEWEST_SHARED * min(len(ours), len(theirs)):
        return [Span("other", joined(theirs))]
    spans = []
    for kind, start, end, their_start, their_end in blocks:
        if kind == "equal":
            spans += [Span("same", joined(theirs[their_start:their_end]))]
            continue
        if end > start:
            glued = bool(spans) and not spans[-1].text[-1].isspace()
            spans += [Span("missing", " " * glued + joined(ours[start:end]).rstrip() + " ")]
        if their_end > their_start:
            spans += [Span("extra", joined(theirs[their_start:their_end]))]
    return merged(spans)


def joined(pieces: Sequence[Word]) -> str:
    """Words as the text they were cut from."""
    return "".join(piece.text for piece in pieces)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Neighbours of one kind as one piece."""
    return [
        Span(kind, "".join(span.text for span in group))
        for kind, group in groupby(spans, key=lambda span: span.kind)
    ]
