"""How people say a value that is stored: by the lexicon's words, as a people, as a noun."""

from __future__ import annotations

import re
from collections import Counter

from gemma_lora.grammar import Grammar
from gemma_lora.name_reading import singular
from gemma_lora.table_reading import ColumnReading
from gemma_lora.wording import capitalized, is_called, marked, said_value, unmarked

OWN_WORD_SHARE = 0.1  # of the values of two words and more are said by one of them


def said_of(g: Grammar, column: ColumnReading, value: str | int | float) -> str:
    """A value of a column as a person may type it, by the lexicon's words for it too."""
    words = [said for said, stored in column.spoken.items() if stored == str(value)]
    if words and g.draw.random() < 0.6:
        return marked(g.draw.choice(words))
    names = {"name", "title"} & set(" ".join(column.words).split()) or column.role == "key"
    if (names or is_called(g.phrasings, "places", column.words)) and g.draw.random() < 0.25:
        return marked(capitalized(value))
    short = column.role == "category" and not names and g.draw.random() < OWN_WORD_SHARE
    if short and (own := own_words(str(value), column)):
        return marked(g.draw.choice(own))
    return said_value(g.draw, value)


def own_words(value: str, column: ColumnReading) -> list[str]:
    """The words of a value that no other of the column has: 'skin' of 'Skin problem'."""
    there = Counter(w for v in column.values for w in set(str(v).lower().split()))
    words = value.lower().split()
    own = [w for w in words if there[w] == 1 and len(w) > 3 and w.isalpha()]
    return own if len(words) > 1 and "unknown" not in words else []


def people_of(g: Grammar, column: ColumnReading, value: str | int | float) -> str | None:
    """'german' for Germany or DE, where a column holds countries."""
    if "country" not in " ".join(column.words) and "nationality" not in column.words:
        return None
    said = g.phrasings.demonyms.get(str(value).lower())
    return marked(said.lower() if g.draw.random() < 0.5 else said) if said else None


def kind_noun(g: Grammar, words: tuple[str, ...], said: str, person: bool = False) -> str:
    """'dog' for the species Dog, 'mountain bike' for a category Mountain Bikes; '' for others.

    Of a person it is the job: 'sales manager'. `said` is the value as `said_of` has it.
    """
    text = unmarked(said)
    if person and is_called(g.phrasings, "roles", words):
        return text
    named = re.fullmatch(r"[^\W\d_]+([ -][^\W\d_]+)?", text)
    if not named or not is_called(g.phrasings, "kinds", words):
        return ""
    alone = singular(text.split())
    kind = {"species", "animal"} & set(words) or alone != text  # 'Imported' is none
    return (alone.lower() if g.draw.random() < 0.7 else alone) if kind else ""
