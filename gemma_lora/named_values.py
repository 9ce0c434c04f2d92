"""Where the texts that a question names are stored, so that its prompt can say it.

A model that knows a schema by heart would have to remember of each of a file's thousands of texts
in which column it stands; what it is unsure of it puts into the wrong table ("the phone of Around
the Horn" asked of the employees). Instead a question's words are looked up, as linking of values
does (BRIDGE: Lin et al., arXiv:2012.12627), and a line of its prompt says where each stands:

    'Ireland': Customers.Country, Orders.ShipCountry

The same look-up makes the prompts of training, of evaluation and of the chat.

Not covered: numbers and dates, texts longer than VALUE_LENGTH, typing mistakes in a value, parts
of a value, and of a column with more than KEPT_VALUES texts those that come later.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gemma_lora.database import Database
from gemma_lora.table_reading import literal, quoted
from gemma_lora.wording import load_phrasings

VALUE_LENGTH = 60  # characters
KEPT_VALUES = 20_000  # distinct texts of a column that are looked through
ROWS_READ = 1_000_000  # of a table, for them
MOST_WORDS = 8  # of a text that is looked for
MOST_COLUMNS = 4  # of one text that are named: a country of customers, orders, suppliers, staff
MOST_SPELLINGS = 2  # of one text: 'Live!' and 'Live'
MOST_LINES = 8
SHORT = 2  # letters of a value that has to be written as it is stored: 'OR' is not 'or'
# Words of any question, which are also texts: a track called 'All', a band 'The Who'.
ASKING = frozenset(
    "a about all am an and any are as at be been belong belongs but by can did do does for from "
    "get give had has have he her him his how i if in is it its list many me more most much my "
    "name no none not number numbers of on or our out please question questions second seconds "
    "she show some tell than that the their them there they this those to total up us was we were "
    "what when where which who whose why with yes you your".split()
)
_WORD = re.compile(r"\w+")


class Stored(NamedTuple):
    """A text, and the columns that hold it, as SQL names them."""

    text: str
    columns: tuple[str, ...]


Texts = Mapping[str, Sequence[Stored]]  # by their words, as `words_in` has them


def words_in(text: str) -> list[str]:
    """The words of a text without accents, capitals and a plural's s."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return [word.casefold().rstrip("s") or word for word in _WORD.findall(plain)]


def stored_texts(database: Database) -> dict[str, list[Stored]]:
    """The short texts of a database's tables by their words; raises UserError when not readable.

    A people stands for its country too: 'german' for Germany.
    """
    places: dict[str, list[str]] = {}
    for relation in database.relations():
        if relation.kind == "view":
            continue  # a view may take long, and shows what tables hold
        table = quoted(relation.name)
        for column in database.run(f"SELECT * FROM {table} LIMIT 0", max_rows=1).columns:
            for text in texts_in(database, table, quoted(column)):
                places.setdefault(text, []).append(f"{table}.{quoted(column)}")
    demonyms = load_phrasings().demonyms
    found: dict[str, list[Stored]] = {}
    for text, there in places.items():
        said = (text, demonyms.get(text.lower(), text))
        for key in dict.fromkeys(" ".join(words_in(one)) for one in said):
            if any(map(str.isalpha, key)):
                found.setdefault(key, []).append(Stored(text, tuple(there)))
    return found


def texts_in(database: Database, table: str, column: str) -> list[str]:
    """The distinct short texts of a column; none where it cannot be read in time."""
    read = f"SELECT {column} AS value FROM {table} LIMIT {ROWS_READ}"
    sql = (
        f"SELECT DISTINCT value FROM ({read}) WHERE typeof(value) = 'text' "
        f"AND length(value) BETWEEN 2 AND {VALUE_LENGTH} LIMIT {KEPT_VALUES}"
    )
    return [text for (text,) in database.run(sql, KEPT_VALUES).rows if text.isprintable()]


def named_texts(question: str, texts: Texts) -> list[Stored]:
    """The texts that a question names, the longest where several begin alike."""
    written = _WORD.findall(unicodedata.normalize("NFC", question))  # a mark is no letter to \w
    words = [" ".join(words_in(word)) for word in written]
    found: list[Stored] = []
    start = 0
    while start < len(words):
        length, there = longest_at(words, start, texts, written)
        found += there[:MOST_SPELLINGS]
        start += length
    return list(dict.fromkeys(found))[:MOST_LINES]


def longest_at(
    words: Sequence[str], start: int, texts: Texts, written: Sequence[str]
) -> tuple[int, Sequence[Stored]]:
    """(words from `start` on that are the longest stored text, that text); (1, []) for none."""
    for length in range(min(MOST_WORDS, len(words) - start), 0, -1):
        there = texts.get(" ".join(words[start : start + length]), ())
        if length == 1:
            there = [one for one in there if says(written[start], one.text)]
        if there:
            return length, there
    return 1, []


def says(word: str, text: str) -> bool:
    """Whether one word of a question is meant as a text that is written like it."""
    if len(text) <= SHORT:
        return word == text
    return word.lower() not in ASKING


def value_lines(question: str, texts: Texts) -> str:
    """What a question's prompt says of the texts that it names, one a line; '' for none."""
    return "\n".join(
        f"{literal(one.text)}: {', '.join(one.columns[:MOST_COLUMNS])}"
        for one in named_texts(question, texts)
    )
