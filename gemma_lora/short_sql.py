"""Finished SQL written as briefly as it means the same: less to learn, less to write.

Three things are shortened, and only outside strings: a join to a table of which nothing but the key
is used goes, one on columns of one name becomes USING, and a column whose name no other table has
goes without its table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from gemma_lora.joined_conditions import extends
from gemma_lora.schema_reading import DatabaseReading
from gemma_lora.table_reading import quoted

NAME = r'(?:[A-Za-z_]\w*|"(?:[^"]|"")*")'
JOIN = re.compile(rf" JOIN ({NAME}) ON {NAME}\.({NAME}) = {NAME}\.({NAME})")
SOURCE = re.compile(rf"FROM ({NAME})((?: JOIN {NAME} ON {NAME}\.{NAME} = {NAME}\.{NAME})+)")
ALONE = re.compile(r"FROM (\S+) JOIN (\S+) ON (\S+) = (\S+)(?= WHERE| GROUP| ORDER|$)")
QUALIFIED = re.compile(rf"(?<![\w\"])({NAME})\.({NAME})")
NAMED = re.compile(rf"\b(?:FROM|JOIN) ({NAME})")
USED = re.compile(rf"\bUSING \(({NAME})\)")
TEXTS = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")


def without_parent(reading: DatabaseReading, sql: str) -> str:
    """The query without the join to a table of which only the key is used, where each row has one.

    `SELECT highest_point FROM state JOIN highlow ... WHERE state.state_name = 'utah'` asks highlow.
    """
    pieces = TEXTS.split(sql)
    source = ALONE.search(pieces[0])
    if source is None:
        return sql
    tables = {source[1], source[2]}
    links = [k for k in reading.links if {quoted(k.child), quoted(k.parent)} == tables]
    if not links or not extends(reading, links[0]):
        return sql
    child, parent = quoted(links[0].child), quoted(links[0].parent)
    key, own = f"{parent}.{quoted(links[0].parent_column)}", quoted(links[0].child_column)
    pieces[0] = pieces[0].replace(source[0], f"FROM {child}")
    pieces[::2] = [piece.replace(key, own) for piece in pieces[::2]]
    if any(f"{parent}." in piece for piece in pieces[::2]):
        return sql
    pieces[::2] = [piece.replace(f"{child}.", "") for piece in pieces[::2]]
    return "".join(pieces)


def shortened(reading: DatabaseReading, sql: str) -> str:
    """The same query with USING where it can be, and no table in front of a column that needs none.

    Then a column is written alike whether tables are joined or not, and what a model writes first
    does not hang on joins that come later.
    """
    sql, texts = masked(without_parent(reading, sql))
    columns = {t.name: {c.lower() for c in t.held} for t in reading.tables}
    sql = SOURCE.sub(lambda source: with_using(source, columns), sql)
    named = [plain(name) for name in NAMED.findall(sql)]
    holding = Counter(c for table in named for c in columns.get(table, ()))
    holding -= Counter(plain(column).lower() for column in USED.findall(sql))  # merged into one

    def bare(column: re.Match[str]) -> str:
        known = plain(column[1]) in columns and holding[plain(column[2]).lower()] == 1
        return column[2] if known else column[0]

    if not columns.keys() >= set(named):  # a query in FROM, a name for a table: as it is
        return unmasked(sql, texts)
    return unmasked(QUALIFIED.sub(bare, sql), texts)


def with_using(source: re.Match[str], columns: Mapping[str, set[str]]) -> str:
    """The tables of a FROM, joined by USING where both columns of a key are called alike."""
    tables = [plain(source[1])]

    def using(join: re.Match[str]) -> str:
        key = plain(join[2])
        there = [t for t in tables if key.lower() in columns.get(t, ())]
        tables.append(plain(join[1]))
        same = join[2] == join[3] and len(there) == 1  # of two, SQLite would not know which
        return f" JOIN {join[1]} USING ({join[2]})" if same else join[0]

    return f"FROM {source[1]}{JOIN.sub(using, source[2])}"


def masked(sql: str) -> tuple[str, list[str]]:
    """(the query with a mark for each string, the strings): no name is looked for in these."""
    texts: list[str] = []

    def mark(text: re.Match[str]) -> str:
        if text[0].startswith('"'):
            return text[0]
        texts.append(text[0])
        return "''"

    return TEXTS.sub(mark, sql), texts


def unmasked(sql: str, texts: Sequence[str]) -> str:
    """The query with its strings again."""
    left = iter(texts)
    return TEXTS.sub(lambda text: text[0] if text[0].startswith('"') else next(left), sql)


def plain(name: str) -> str:
    """A name without its quotes."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
