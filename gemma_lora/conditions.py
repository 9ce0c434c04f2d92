"""Conditions on a table's own columns: 'in berlin', 'cheaper than 5', 'not returned', with SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from gemma_lora.column_sql import in_order, label_equals, number_of, ref, written
from gemma_lora.date_conditions import dated, main_date
from gemma_lora.grammar import Condition, Grammar, dealt
from gemma_lora.said_units import in_said_unit
from gemma_lora.table_reading import KEPT_VALUES, ColumnReading, TableReading, literal, quoted
from gemma_lora.value_wording import kind_noun, people_of, said_of
from gemma_lora.wording import (
    called,
    concept_of,
    filled,
    is_called,
    large_said,
    marked,
    number_said,
    participle,
    plural,
    rounded,
    said_value,
    shortest,
    with_kind,
)

MOST_KINDS = 0.5  # of a table's rows: what has more different values sorts nothing into kinds
YES = {"1", "-1", "y", "yes", "t", "true"}  # -1 as Access stores it
Maker = Callable[[], Condition]


def some_label(g: Grammar, table: TableReading) -> tuple[str, str] | None:
    """(a row's name, or its number, as said; the SQL that picks it); None where it has neither."""
    if not table.names:
        return some_number(g, table)
    name = dealt(g, (table.name, table.label), table.names)
    if len(name) == 1:
        said = said_of(g, table.column(table.label[0]), name[0])
        return with_kind(g.draw, g.phrasings, table, said), label_equals(table, name)
    said = " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in name)
    return said_value(g.draw, said), label_equals(table, name)


def some_number(g: Grammar, table: TableReading) -> tuple[str, str] | None:
    """("order 17", the SQL that picks it) for rows that have a number and no name."""
    keys = {k.child_column for k in g.reading.links if k.child == table.name}
    own = [c for c in table.columns[:1] if c.role in ("key", "code") and c.name not in keys]
    if table.is_link or not own or len(own[0].values) < min(table.rows, KEPT_VALUES):
        return None
    value = dealt(g, (table.name, own[0].name), own[0].values)
    word = called(g.draw, g.phrasings, table)
    lead = g.draw.choice((word, word, f"{word} number", f"{word} no.", f"{word} id"))
    return f"{lead} {marked(value)}", f"{ref(table.name, own[0].name)} = {written(value)}"


def equals(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A category has a value, or has not, or has one of two."""
    about = (table.name, column.name)
    value = dealt(g, about, column.values)
    attr = called(g.draw, g.phrasings, column)
    name = ref(table.name, column.name)
    said = {"attr": attr, "value": said_of(g, column, value)}
    place = is_called(g.phrasings, "places", column.words)
    forms = g.phrasings.forms
    chance = g.draw.random()
    states = not place and mostly(describes, column.values)
    if chance < 0.09:
        form = forms[
            "condition_not_place" if place else f"condition_not{'_state' if states else ''}"
        ]
        return Condition(filled(g.draw, form, said), f"{name} <> {written(value)}", column=about)
    if chance < 0.15 and len(column.values) > 2:
        other = g.draw.choice([v for v in column.values if v != value])
        said["value2"] = said_of(g, column, other)
        form = forms["condition_either_place" if place else "condition_either"]
        sql = f"{name} IN ({written(value)}, {written(other)})"
        return Condition(filled(g.draw, form, said), sql, column=about)
    sql = f"{name} = {written(value)}"
    people = people_of(g, column, value)
    if people and g.draw.random() < 0.5:
        return Condition(people, sql, True, column=about)
    chance = g.draw.random()
    if place and chance < 0.85:
        home = (
            "condition_home" if is_called(g.phrasings, "people", table.words) else "condition_place"
        )
        return Condition(filled(g.draw, forms[home], said), sql, column=about)
    adjective = is_called(g.phrasings, "adjectives", column.words)
    person = is_called(g.phrasings, "people", table.words)
    if (noun := kind_noun(g, column.words, said["value"], person)) and chance < 0.5:
        return Condition(said["value"], sql, True, column=about, noun=noun)
    if not (place or adjective) and len(column.values) > MOST_KINDS * table.rows:
        return Condition(filled(g.draw, with_column(g), said), sql, column=about)
    if not place and chance < (0.4 if states else 0.6 if adjective else 0.4):
        return Condition(said["value"], sql, True, column=about)
    if states and chance < 0.9:
        phrase = filled(g.draw, forms["condition_state"], said)
        return Condition(phrase, sql, column=about, state=said["value"])
    form = forms["condition_kind" if adjective and chance < 0.85 else "condition_equal"]
    return Condition(filled(g.draw, form, said), sql, column=about)


def with_column(g: Grammar) -> tuple[str, ...]:
    """The phrasings of an equal value that say which column holds it."""
    return tuple(f for f in g.phrasings.forms["condition_equal"] if "{attr}" in f)


def mostly(test: Callable[[str], bool], values: Sequence[str | int | float]) -> bool:
    """Whether more than half of some values, which are texts, pass a test."""
    return sum(isinstance(v, str) and test(v) for v in values) > len(values) / 2


def flagged(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A flag is set or not: 'active customers', 'orders not paid', 'without newsletter'."""
    about = (table.name, column.name)
    value = dealt(g, about, column.values)
    attr = called(g.draw, g.phrasings, column)
    yes = str(value).lower() in YES
    sql = f"{ref(table.name, column.name)} = {written(value)}"
    words = next((g.phrasings.flags[w] for w in column.words if w in g.phrasings.flags), None)
    if words and g.draw.random() < 0.5:
        leads = words.before if yes else words.before_not
        ends = words.after if yes else words.after_not
        if leads and g.draw.random() < 0.4:
            return Condition(g.draw.choice(leads), sql, True, column=about)
        return Condition(filled(g.draw, ends, {"attr": attr}), sql, column=about)
    state = describes(attr)
    if state and g.draw.random() < 0.5:
        no = "in" if attr == "active" else "non-" if attr.startswith(("un", "dis", "in")) else "un"
        lead = "" if yes else g.draw.choice(("not ", "non-", no))
        return Condition(f"{lead}{attr}", sql, True, column=about)
    form = f"condition_flag_{'yes' if yes else 'no'}{'' if state else '_thing'}"
    phrase = filled(g.draw, g.phrasings.forms[form], {"attr": attr})
    said = f"{'' if yes else 'not '}{attr}" if state else ""
    return Condition(phrase, sql, column=about, state=said)


def describes(word: str) -> bool:
    """Whether a word says how something is: 'paid', 'active', 'available'."""
    return re.search(r"(ed|ive|able|id|al|pending|open|new)$", word.lower()) is not None


def has_code(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A number, an address or the like is a particular one."""
    value = dealt(g, (table.name, column.name), column.values)
    said = {"attr": called(g.draw, g.phrasings, column), "value": said_of(g, column, value)}
    on = "street" in " ".join(column.words) and g.draw.random() < 0.8
    return Condition(
        filled(g.draw, g.phrasings.forms["condition_street"] if on else with_column(g), said),
        f"{ref(table.name, column.name)} = {written(value)}",
        column=(table.name, column.name),
    )


def contains(g: Grammar, table: TableReading, column: ColumnReading) -> Condition | None:
    """A text holds a word: 'books with fox in the title', 'members living in canal walk'."""
    value = str(g.draw.choice(column.values))
    words = re.findall(r"[^\W\d_]{4,}", value)
    tails = re.findall(r"(?<=\d )[^\W\d_].*", value)  # a street without its number
    if not words:
        return None
    attr = called(g.draw, g.phrasings, column)
    word = g.draw.choice(tails or words)
    form, pattern = "condition_contains", f"%{word}%"
    if tails:
        form, pattern = "condition_street", f"%{word}"
    elif g.draw.random() < 0.2:
        word = value[0].upper()
        form, pattern = "condition_starts", f"{word}%"
    said = {"attr": attr, "value": said_value(g.draw, word)}
    name = ref(table.name, column.name)
    phrase = filled(g.draw, g.phrasings.forms[form], said)
    return Condition(phrase, f"{name} LIKE {literal(pattern)}", column=(table.name, column.name))


def named(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """One part of a name in two columns: 'members called anna'."""
    value = dealt(g, (table.name, column.name), column.values)
    said = {"attr": column.words[0], "value": said_value(g.draw, value)}
    return Condition(
        filled(g.draw, g.phrasings.forms["condition_named"], said),
        f"{ref(table.name, column.name)} = {written(value)}",
        column=(table.name, column.name),
    )


def compares(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A measure is above, below, between or equal."""
    values = sorted(float(v) for v in column.values)
    whole = all(v == int(v) for v in values)
    numbers = sorted(g.draw.sample(values, 2)) if len(values) > 1 else values * 2
    low, high = (shortest(rounded(g.draw, int(v) if whole else v)) for v in numbers)
    if g.draw.random() < 0.5 and (one := in_said_unit(g, table, column, (low, high))):
        return one
    concept = concept_of(g.phrasings, column)
    said = {"attr": called(g.draw, g.phrasings, column)}
    left = number_of(column, table.name)
    about = (table.name, column.name)
    kinds = ("more", "less", "least", "utmost", "between", "number")
    shares = (5, 4, 2, 1, 2, 5 if concept and concept.equal else 1)  # stars are given one by one
    if concept and concept.none and 0 in column.values and g.draw.random() < 0.2:
        return Condition(g.draw.choice(concept.none), f"{left} = 0", column=about)
    kind = g.draw.choices(kinds, shares)[0]
    if kind == "between":
        said |= {"n": marked(number_said(g.draw, low)), "n2": marked(number_said(g.draw, high))}
        sql = f"{left} BETWEEN {low} AND {high}"
    elif kind == "number":
        exact = g.draw.choice(column.values)
        said["n"] = marked(number_said(g.draw, exact))
        if concept and concept.lead and g.draw.random() < 0.5:
            sql = f"{ref(table.name, column.name)} = {written(exact)}"
            return Condition(filled(g.draw, concept.lead, said), sql, True, column=about)
        sql = f"{ref(table.name, column.name)} = {written(exact)}"
    else:
        sign = {"more": ">", "less": "<", "least": ">=", "utmost": "<="}[kind]
        unit = g.draw.choice(concept.units) if concept and concept.units else ""
        unit = f" {unit}" if g.draw.random() < 0.3 else ""
        said["n"] = marked(f"{large_said(g.draw, low) if low >= 1000 else low}{unit}".strip())
        sql = f"{left} {sign} {low}"
    own = (
        {"more": concept.more, "less": concept.less, "number": concept.equal}.get(kind, ())
        if concept
        else ()
    )
    forms = own if own and g.draw.random() < 0.6 else g.phrasings.forms[f"condition_{kind}"]
    counts = plural(said["attr"]) == said["attr"]  # 'more than 300 pages', but not 'than 19 price'
    fitting = tuple(f for f in forms if ("{n} {attr}" in f) == counts or "{attr}" not in f)
    forms = fitting or forms
    return Condition(filled(g.draw, tuple(forms), said), sql, column=about)


def beyond_average(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A measure is above or below the average of all rows."""
    up = g.draw.random() < 0.7
    concept = concept_of(g.phrasings, column)
    by, said = number_of(column, table.name), {"attr": called(g.draw, g.phrasings, column)}
    said["thing"] = called(g.draw, g.phrasings, table)
    own = (concept.more if up else concept.less) if concept else ()
    clause = re.compile("that |who |for |with |of ")  # these go behind no 'are'
    comparing = [f.partition(" than ")[0] for f in own if " than {n}" in f]
    comparing = [f for f in comparing if not clause.match(f)]
    if comparing:
        said["longer"] = g.draw.choice(comparing)
    kind = "condition_above_average" if up else "condition_below_average"
    alone = ref(table.name, column.name)
    inner = f"SELECT AVG({by.replace(alone, quoted(column.name))}) FROM {quoted(table.name)}"
    sql, forms, noun = f"{by} {'>' if up else '<'} ", g.phrasings.forms[kind], ""
    kinds = [c for c in table.columns if c.role == "category" and c.name not in table.label]
    kinds = [c for c in kinds if is_called(g.phrasings, "kinds", c.words)]
    if kinds and g.draw.random() < 0.3:  # 'rabbits heavier than the average rabbit'
        of = g.draw.choice(kinds)
        value = dealt(g, (table.name, of.name), of.values)
        if noun := kind_noun(g, of.words, str(value)):
            inner += f" WHERE {quoted(of.name)} = {written(value)}"
            sql = f"{ref(table.name, of.name)} = {written(value)} AND {sql}"
            said["thing"], forms = marked(noun), tuple(f for f in forms if "{thing}" in f)
    return Condition(filled(g.draw, forms, said), f"{sql}({inner})",
                     column=(table.name, column.name), noun=noun)  # fmt: skip


def lacks(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A column is empty or is not: 'loans not returned', 'members with an email'."""
    attr = called(g.draw, g.phrasings, column)
    attr = attr.removesuffix(" id")  # 'without a manager'
    name = ref(table.name, column.name)
    done = participle(column)
    empty = g.draw.random() < 0.75
    form = {
        (True, True): "condition_undone",
        (True, False): "condition_already",
        (False, True): "condition_missing",
        (False, False): "condition_given",
    }[(done is not None, empty)]
    said = {"attr": attr} | ({"done": done} if done else {})
    phrase = filled(g.draw, g.phrasings.forms[form], said)
    sql = f"{name} IS {'' if empty else 'NOT '}NULL"
    return Condition(phrase, sql, column=(table.name, column.name))


def says(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A word of the lexicon stands for a condition: 'good restaurants'."""
    word, condition = g.draw.choice(sorted(column.sayings.items()))
    sql = f"{number_of(column, table.name)} {condition}"
    about = (table.name, column.name)
    chance = g.draw.random()
    if chance < 0.25:
        lead = g.draw.choice(("", "that are ", "which are "))
        return Condition(lead + word, sql, False, column=about)
    return Condition(word, sql, True, column=about)


def comparable(g: Grammar, table: TableReading) -> Iterator[tuple[ColumnReading, ColumnReading]]:
    """Columns whose values can be set against each other: two dates, two amounts of one thing."""
    dates = [c for c in table.columns if c.role == "date" and "birth" not in c.words[0]]
    yield from ((a, b) for a in dates for b in dates if a is not b and a.form == b.form)
    numbers = [c for c in table.columns if c.role == "measure" and len(c.values) > 2]
    told = [(c, c.name.lower().split("_")[0], kind_of_number(c), rivals(g, c)) for c in numbers]
    for one, lead, kind, ours in told:
        opposite = {(place, not first) for place, first in ours}
        for other, other_lead, other_kind, theirs in told:
            alike = lead == other_lead or kind == other_kind or not opposite.isdisjoint(theirs)
            if one is not other and alike:
                yield one, other


def rivals(g: Grammar, column: ColumnReading) -> set[tuple[int, bool]]:
    """Pairs that people set against each other, as stock and reorder level; whether it is first."""
    words = " ".join(column.words)
    pairs = enumerate(g.phrasings.rivals)
    return {(n, name == a) for n, (a, b) in pairs for name in (a, b) if name in words}


def kind_of_number(column: ColumnReading) -> str:
    """The last word of what a column is called: what kind of number it is."""
    return column.words[0].split()[-1]


def differs(g: Grammar, table: TableReading) -> Condition:
    """One column is greater than another: 'loans returned after the due date'."""
    one, other = g.draw.choice(list(comparable(g, table)))
    attr, attr2 = called(g.draw, g.phrasings, one), called(g.draw, g.phrasings, other)
    said = {"attr": attr, "attr2": attr2}
    done = participle(one)
    if one.role == "date":
        up = g.draw.random() < 0.75
        kind = "condition_later" if up else "condition_sooner"
        said |= {"done": done} if done else {}
        left, right = in_order(one, table.name), in_order(other, table.name)
    else:
        up = g.draw.random() < 0.5
        kind = "condition_exceeds" if up else "condition_falls_short"
        left, right = number_of(one, table.name), number_of(other, table.name)
    sql = f"{left} {'>' if up else '<'} {right}"
    return Condition(filled(g.draw, g.phrasings.forms[kind], said), sql,
                     column=(table.name, one.name))  # fmt: skip


def own_conditions(g: Grammar, table: TableReading) -> list[tuple[float, Maker]]:
    """(weight, maker) of each condition that the table's own columns allow."""
    makers: list[tuple[float, Maker]] = []
    for column in table.columns:
        if column.values:
            makers += column_conditions(g, table, column)
    if next(comparable(g, table), None):
        makers.append((0.5, lambda: differs(g, table)))
    return makers


def column_conditions(
    g: Grammar, table: TableReading, column: ColumnReading
) -> list[tuple[float, Maker]]:
    """(weight, maker) of each condition on one column."""
    makers: list[tuple[float, Callable[..., Condition | None]]] = []
    many = len(column.values) > 1
    text = column.role in ("category", "code") and any(isinstance(v, str) for v in column.values)
    if column.name in table.label:
        if len(table.label) == 2:
            makers.append((0.3, named))
        elif text and len(column.values) > 5:
            makers.append((0.3, contains))
    elif column.role == "category" and many:
        makers.append((2.0 if len(column.values) < 300 else 1.0, equals))
    elif column.role == "flag" and many:
        makers.append((2.0, flagged))
    elif column.role == "code":
        makers.append((0.12, has_code))
        if text and "street" in " ".join(column.words):
            makers += [(0.5, contains), (0.4, has_code)]
    elif column.role == "measure" and len(column.values) > 2:
        makers += [(1.3, compares), (0.15, beyond_average)]
    elif column.role in ("date", "year") and many:
        makers.append((1.5 if column is main_date(table) else 0.7, dated))
    if column.sayings:
        makers.append((2.5, says))
    if column.missing and column.name not in table.label and column.role != "flag":
        makers.append((0.5, lacks))
    made = [(w, lambda how=how: how(g, table, column)) for w, how in makers]
    return made  # type: ignore[return-value]


def own_condition(g: Grammar, table: TableReading) -> Condition | None:
    """One of the conditions on a table's own columns; seldom one where there is only a phone."""
    makers = own_conditions(g, table)
    if g.draw.random() >= sum(w for w, _ in makers):
        return None
    return g.draw.choices([m for _, m in makers], [w for w, _ in makers])[0]()
