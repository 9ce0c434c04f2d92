"""Finished SQL written as briefly as it means the same: less to learn, less to write.

Two things are shortened, and only outside strings: a join on columns of one name becomes USING, and
a column whose name no other table has goes without its table.
"""

from __future__ import annotations

import re
from collections import Counter

from gemma_lora.schema_reading import DatabaseReading

NAME = r"[A-Za-z_]\w*"
JOIN = re.compile(rf" JOIN ({NAME}) ON {NAME}\.({NAME}) = {NAME}\.({NAME})")
SOURCE = re.compile(rf"FROM ({NAME})((?: JOIN {NAME} ON {NAME}\.{NAME} = {NAME}\.{NAME})+)")
QUALIFIED = re.compile(rf"(?<![\w\"])({NAME})\.({NAME})")
TEXTS = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")


def shortened(reading: DatabaseReading, sql: str) -> str:
    """The same query with USING where it can be, and without tables that no column needs."""
    columns = {t.name: {c.lower() for c in t.held} for t in reading.tables}
    alone = Counter(c for names in columns.values() for c in names)

    def joined(source: re.Match[str]) -> str:
        tables = [source[1]]

        def using(join: re.Match[str]) -> str:
            there = [t for t in tables if join[2].lower() in columns.get(t, ())]
            tables.append(join[1])
            same = join[2] == join[3] and len(there) == 1  # of two, SQLite would not know which
            return f" JOIN {join[1]} USING ({join[2]})" if same else join[0]

        return f"FROM {source[1]}{JOIN.sub(using, source[2])}"

    def bare(column: re.Match[str]) -> str:
        known = column[1] in columns and alone[column[2].lower()] == 1
        return column[2] if known else column[0]

    pieces = TEXTS.split(sql)  # SQL, text, SQL, ..., SQL
    pieces[::2] = [QUALIFIED.sub(bare, SOURCE.sub(joined, piece)) for piece in pieces[::2]]
    return "".join(pieces)
