"""From a phrasing and the words of a database to a question as somebody might type it.

The phrasings are data (`phrasings.yaml`). Here they are filled in, inflected and roughened: small
letters, missing articles, a slip of the fingers, which never touches a value.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.table_reading import ColumnReading, TableReading

if TYPE_CHECKING:
    import inflect

PHRASINGS_FILE = Path(__file__).with_name("phrasings.yaml")
QUALIFIED = {"shipping", "late", "delivery", "service", "handling", "tax", "interest", "discount"}
WORD_LISTS = ("places", "natural", "people", "adjectives", "nouns", "roles", "kinds")
SAYINGS = ("synonyms", "opened", "reworded", "relates", "details")
ORDERED = {"order", "ordered", "orders", "reorder", "reserved"}
AREAS = {"area", "acreage", "surface"}
SIZE = re.compile(r"\b(?:big|large|small)")
VALUE = re.compile("\x02(.*?)\x03", re.DOTALL)  # a value inside a question that is being made
ORDERS = re.compile("(?i)(?:list|show|give|find|tell|name|count|get|display|print) ")
ASKS = re.compile(  # the rest is mere things
    "(?i)(?:(?:in |by |on |for |to )?wh|how|is|are|do|did|was|were|ha[sv]e?|can|exist)"
)
PLANNED = {"required", "requested", "expected", "planned", "scheduled", "promised", "estimated"}
MONTHS = (
    "january february march april may june july august september october november december"
).split()


class UnsayableError(Exception):
    """No phrasing has all its slots filled."""


class Concept(NamedTuple):
    """What a kind of measure is called: 'cheapest', 'older than {n}', 'how long is {value}'."""

    match: frozenset[str]
    most: tuple[str, ...] = ()
    least: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    lead: tuple[str, ...] = ()  # the same before a noun: '5 star'
    none: tuple[str, ...] = ()  # where it is 0: 'out of stock'
    ask: tuple[str, ...] = ()
    year: tuple[str, ...] = ()
    how: tuple[str, ...] = ()  # 'how long are books on average'
    units: tuple[str, ...] = ()  # 'longer than 300 km'


class FlagWords(NamedTuple):
    """How a flag is said, set and not: behind a noun, and before it."""

    after: tuple[str, ...]
    after_not: tuple[str, ...]
    before: tuple[str, ...] = ()
    before_not: tuple[str, ...] = ()


class Phrasings(NamedTuple):
    """phrasings.yaml, read."""

    forms: dict[str, tuple[str, ...]]  # kind of question or condition -> templates
    concepts: tuple[Concept, ...]
    synonyms: dict[str, tuple[str, ...]]
    verbs: dict[str, tuple[tuple[str, ...], ...]]  # what is done to have a row of that table
    agents: dict[str, tuple[tuple[str, ...], ...]]  # what such people do to what is theirs
    demonyms: dict[str, str]  # a country, or its code, in small letters -> 'German'
    countries: dict[str, tuple[str, ...]]  # the same -> all that it is called
    reaches: dict[str, tuple[tuple[str, ...], ...]]  # what a river does to a country
    relates: dict[str, tuple[str, ...]]  # a verb between rows of one kind -> those that mean it
    words: dict[str, frozenset[str]]  # 'places', 'people', 'adjectives', 'nouns', 'roles', 'kinds'
    high: tuple[str, ...]
    low: tuple[str, ...]
    rivals: tuple[tuple[str, ...], ...]  # words of two measures that are set against each other
    opened: dict[str, tuple[str, ...]]  # what is said before an order, a question, mere things
    reworded: dict[str, tuple[str, ...]]  # words of a question -> others that mean the same
    details: dict[str, tuple[str, ...]]  # what a column is called -> how people ask for it
    units: dict[str, tuple[tuple[str, int], ...]]  # a column's unit -> larger ones, in it
    flags: dict[str, FlagWords]


def in_tuples(lists: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Lists of words or templates as tuples, which nobody changes."""
    return {name: tuple(said) for name, said in lists.items()}


@functools.cache
def load_phrasings(path: Path = PHRASINGS_FILE) -> Phrasings:
    """Read the phrasings."""
    import yaml

    held: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    concepts = tuple(
        Concept(frozenset(one.pop("match")), **in_tuples(one))
        for one in held.pop("concepts").values()
    )
    verbs, agents, reaches, units = (
        {word: tuple(map(tuple, forms)) for word, forms in held.pop(name).items()}
        for name in ("verbs", "agents", "reaches", "units")
    )
    demonyms: dict[str, str] = {}
    countries: dict[str, tuple[str, ...]] = {}
    for country, (people, *codes) in held.pop("countries").items():
        demonyms |= {name.lower(): people for name in (country, *codes)}
        countries |= {name.lower(): (country, *codes) for name in (country, *codes)}
    words = {name: frozenset(held.pop(name)) for name in WORD_LISTS}
    highest = held.pop("highest_words")
    rivals = tuple(map(tuple, held.pop("rivals")))
    synonyms, opened, reworded, relates, details = (in_tuples(held.pop(n)) for n in SAYINGS)
    flags = {word: FlagWords(**in_tuples(sides)) for word, sides in held.pop("flags").items()}
    return Phrasings(
        in_tuples(held),
        concepts,
        synonyms,
        verbs,
        agents,
        demonyms,
        countries,
        reaches,
        relates,
        words,
        tuple(highest["most"]),
        tuple(highest["least"]),
        rivals,
        opened,
        reworded,
        details,
        units,
        flags,
    )


@functools.cache
def inflector() -> inflect.engine:
    """The library's engine, which takes a moment to make."""
    import inflect

    return inflect.engine()


@functools.cache
def plural(words: str) -> str:
    """The words with what they name in the plural: 'unit prices', 'titles of courtesy'."""
    if named := re.match(r"(\w.*?)( (?:of|in|on|per|by|for) .*)", words):
        return f"{plural(named[1])}{named[2]}"
    head, _, last = words.rpartition(" ")
    if not last.endswith("ss") and inflector().singular_noun(last):  # type: ignore[arg-type]
        return words  # 'pages' is a column's word as it is
    return f"{head} {inflector().plural_noun(last)}".strip()  # type: ignore[arg-type]


def third_person(verb: str) -> str:
    """'supplies' for 'supply', 'takes care of' for 'take care of'."""
    first, *rest = verb.split()
    return " ".join((inflector().plural_noun(first), *rest))  # type: ignore[arg-type]


def verb_said(verb: str) -> dict[str, str]:
    """The slots of a verb in the present: {base}, {does}, {ing}."""
    first, *rest = third_person(verb).split()
    ing = " ".join((inflector().present_participle(first), *rest))  # type: ignore[arg-type]
    return {"base": verb, "does": third_person(verb), "ing": ing}


def compared_words(draw: random.Random, concept: Concept | None, up: bool) -> dict[str, str]:
    """The slots {longer} and {more} of what is said with 'than': 'longer', 'more people'."""
    if concept is None:
        return {}
    forms = concept.more if up else concept.less
    longer = [m[1] for f in forms if (m := re.fullmatch(r"(\w+er) than {n}", f))]
    sizes = {"biggest": "bigger", "largest": "larger"} if up else {"smallest": "smaller"}
    longer += [sizes[w] for w in (concept.most if up else concept.least) if w in sizes]
    counted = (re.fullmatch(r"with (more|less|fewer) than {n} (\w+)", f) for f in forms)
    more = [f"{m[1]} {m[2]}" for m in counted if m]
    said = {"longer": longer, "more": more}
    return {slot: draw.choice(words) for slot, words in said.items() if words}


def participle(thing: ColumnReading) -> str | None:
    """'shipped' of 'shipped' or 'shipped date': what had been done then, not what was planned."""
    done = [m[1] for w in thing.words if (m := re.fullmatch(r"([a-z]+ed)(?: date)?", w))]
    return next((w for w in done if w not in PLANNED), None)


def rounded(draw: random.Random, value: float) -> int | float:
    """A number near `value` such as people say."""
    if isinstance(value, float) and abs(value) < 10:
        return round(value * 2) / 2 if draw.random() < 0.6 else round(value, 2)
    digits = max(0, len(str(abs(int(value)))) - 2)
    near = round(int(value), -digits) if draw.random() < 0.7 else int(value)
    return near


def shortest(number: int | float) -> int | float:
    """5 rather than 5.0."""
    return int(number) if number == int(number) else number


def number_said(draw: random.Random, number: int | float | str) -> str:
    """'5', or 'five' for a small whole number now and then."""
    if isinstance(number, int) and 0 <= number <= 10 and draw.random() < 0.3:
        return str(inflector().number_to_words(number))  # type: ignore[arg-type]
    if isinstance(number, int | float) and number >= 1000:
        return large_said(draw, number)
    return str(number)


def large_said(draw: random.Random, number: int | float) -> str:
    """'2 million', 'half a million', '50,000' or '50000'."""
    millions = number / 1_000_000
    if number >= 500_000 and number % 100_000 == 0 and draw.random() < 0.5:
        words = {0.5: "half a", 1: "a", 2: "two"} if draw.random() < 0.6 else {}
        return f"{words.get(millions, f'{millions:g}')} million"
    return f"{number:,}" if draw.random() < 0.2 else str(number)


def first_or_last(word: str) -> str | None:
    """'DESC' for 'highest' and the like, 'ASC' for 'lowest', None for other words."""
    high = ("highest", "maximum", "max", "largest", "biggest", "longest", "deepest", "latest")
    low = ("lowest", "minimum", "min", "smallest", "shortest", "earliest")
    return "DESC" if word in high else "ASC" if word in low else None


def concept_of(phrasings: Phrasings, column: ColumnReading) -> Concept | None:
    """What kind of measure a column is, by its words.

    Where a thing has a price, 'how much is it' asks for that, and for what it cost only by name;
    an order is not dear by its shipping fee.
    """
    if column.role in ("category", "code", "text", "flag"):
        return None  # a pay method earns nothing
    if first_or_last(column.words[0].split()[0]) == "ASC":
        return None  # a state is not high by its lowest elevation
    if column.words[0].endswith((" fee", " cost", " rate")) and QUALIFIED & set(
        column.words[0].split()
    ):
        return None
    if column.words[0].split()[-1] == "cost" and any(w.endswith("price") for w in column.beside):
        return None
    words = set(" ".join(column.words).split()) | set(column.words)
    kinds = (c for c in phrasings.concepts if c.match & words)
    # A number of days that is called 'lead time' is no date.
    found = next((c for c in kinds if column.role != "measure" or "date" not in c.match), None)
    if found and "stock" in found.match and ORDERED & set(column.words[0].split()):
        return None  # of what is on order none may be left, and there is more of it
    if found and "population" in found.match and column.beside & AREAS:
        return without_size(found)
    return found


def without_size(concept: Concept) -> Concept:
    """A concept less what says that a thing is large: of a state that is its area."""
    return Concept(
        concept.match,
        *(tuple(form for form in forms if not SIZE.search(form)) for forms in concept[1:]),
    )


def is_called(phrasings: Phrasings, kind: str, words: tuple[str, ...]) -> bool:
    """Whether a thing's words are among 'places', 'people', 'adjectives' or 'nouns'."""
    return bool(phrasings.words[kind] & set(" ".join(words).split()))


def called(draw: random.Random, phrasings: Phrasings, thing: TableReading | ColumnReading) -> str:
    """One of the words for a table's row or a column; the best one most often."""
    best, *others = thing.words
    beside = thing.beside if isinstance(thing, ColumnReading) else frozenset()
    others = [w for w in (*others, *phrasings.synonyms.get(best, ())) if w not in beside]
    return draw.choice(others) if others and draw.random() < 0.3 else best


def with_kind(draw: random.Random, phrasings: Phrasings, table: TableReading, said: str) -> str:
    """A name, now and then with what it names: 'the rhine', 'the city of austin', 'the erie lake'.

    Only of places and of what nature made: nobody says the product of a lamp.
    """
    place = is_called(phrasings, "places", table.words)
    natural = is_called(phrasings, "natural", table.words)
    word = table.words[0]
    if not (place or natural) or word in said.lower() or draw.random() > 0.25:
        return said
    forms = ["{word} of {said}", "the {word} of {said}", "the {word} {said}", "{said} {word}"]
    if natural:
        forms = ["{said} {word}", "the {said} {word}", "the {said}"]
    return draw.choice(forms).format(said=said, word=word)


def marked(value: object) -> str:
    """A value in a question, out of reach of `roughened`."""
    return f"\x02{value}\x03"


def unmarked(text: str) -> str:
    """A text without the marks of the values in it."""
    return VALUE.sub(r"\1", text)


def filled(draw: random.Random, forms: tuple[str, ...], slots: Mapping[str, str]) -> str:
    """One of the forms whose slots are all there, filled in; raises UnsayableError."""
    usable = [f for f in forms if set(re.findall(r"{(\w+)}", f)) <= slots.keys()]
    if not usable:
        raise UnsayableError(sorted(slots))
    text = draw.choice(usable).format_map(slots)
    parts = re.split("(\x02.*?\x03)", text, flags=re.DOTALL)
    # Every second part is a value. 'total {attr}' of a column that is called so says it twice.
    parts[::2] = [re.sub(r"\b(\w+)( \1\b)+", r"\1", part) for part in parts[::2]]
    text = re.sub(r"\ba (?=[aeiou])", "an ", "".join(parts))
    return " ".join(text.split())


def said_value(draw: random.Random, value: str | int | float) -> str:
    """A value as a person may type it: as stored, or in small letters."""
    text = f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
    return marked(text.lower() if draw.random() < 0.4 else text)


def capitalized(value: str | int | float) -> str:
    """A name as people write it where the file has small letters only: 'Rio Grande'."""
    text = str(value)
    if text != text.lower():
        return text
    small = r"(?<= )(?:and|of|the|de|la|du|di|der)\b"
    return re.sub(rf"(?<![\w'])(?!{small})[a-z]", lambda letter: letter[0].upper(), text)


def loosened(draw: random.Random, phrasings: Phrasings, question: str) -> str:
    """The question with words that mean the same, one that is not needed gone, a please round it.

    Whoever asks does not know the phrasings; what is said beside the matter must not matter.
    """
    pieces = re.split("(\x02.*?\x03)", question, flags=re.DOTALL)
    chance = draw.random()
    if chance < 0.25:
        said = {one: rf"\b{re.escape(one)}\b(?! (?:me|of)\b)" for one in phrasings.reworded}
        there = [(i, one) for i in range(0, len(pieces), 2) for one, pattern in said.items()
                 if re.search(pattern, pieces[i])]  # fmt: skip
        if there:
            index, one = draw.choice(there)
            other = draw.choice(phrasings.reworded[one])
            pieces[index] = re.sub(said[one], other, pieces[index], count=1)
    elif chance < 0.32:
        droppable = "|".join(phrasings.forms["dropped"])
        index = draw.randrange(0, len(pieces), 2)
        places = list(re.finditer(rf"\b(?:{droppable}) ", pieces[index]))
        if places:
            gone = draw.choice(places)
            pieces[index] = pieces[index][: gone.start()] + pieces[index][gone.end() :]
    text, chance = "".join(pieces), draw.random()
    if chance < 0.1:
        kind = "order" if ORDERS.match(text) else "question" if ASKS.match(text) else "things"
        return draw.choice(phrasings.opened[kind]).format(asked=text)
    if chance < 0.15 and text[-1] != "?":
        return draw.choice(phrasings.forms["closed"]).format(asked=text)
    return text


def mistyped(draw: random.Random, word: str) -> str:
    """A word with two neighbouring letters exchanged, or one left out."""
    at = draw.randrange(1, len(word) - 2)
    if draw.random() < 0.5:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]


def roughened(draw: random.Random, question: str) -> str:
    """The question as typed: articles dropped, a slip, small or capital letters, the end mark."""
    pieces = VALUE.split(question)  # text, value, text, ..., text
    slip = draw.random() < 0.06
    bare = draw.random() < 0.12
    for index in range(0, len(pieces), 2):
        text = pieces[index]
        if bare:
            text = re.sub(r"\b(?:the|a|an) ", "", text)
        long = [w for w in text.split(" ") if len(w) >= 5 and w.isalpha()]
        if slip and long:
            word = draw.choice(long)
            text, slip = text.replace(word, mistyped(draw, word), 1), False
        pieces[index] = text
    text = "".join(pieces)
    style = draw.random()
    if style < 0.35:
        return text.lower() if style < 0.2 else text
    ends = "?" if re.match(r"(?i)(?:wh|how|can|is|are|do)", text) else ("." if style < 0.5 else "")
    return text[:1].upper() + text[1:] + (ends if style < 0.9 else "")
