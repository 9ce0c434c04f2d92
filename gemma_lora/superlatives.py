"""By what a row can be the first or the last of its table, and how that is said."""

from __future__ import annotations

from gemma_lora.date_conditions import main_date
from gemma_lora.grammar import Grammar
from gemma_lora.table_reading import KEPT_VALUES, ColumnReading, TableReading
from gemma_lora.wording import concept_of, plural


def measures(table: TableReading) -> list[ColumnReading]:
    """Columns that can be added up."""
    return [c for c in table.columns if c.role == "measure" and len(c.values) > 2]


def ordered(table: TableReading) -> list[ColumnReading]:
    """Columns by which a row can be the first or the last."""
    return measures(table) + [
        c for c in table.columns if c.role in ("date", "year") and len(c.values) > 2
    ]


def superlative(g: Grammar, table: TableReading, column: ColumnReading) -> tuple[str, str, str]:
    """(said as an adjective or '', said of the column, 'DESC' or 'ASC')."""
    up = g.draw.random() < 0.65
    concept = concept_of(g.phrasings, column)
    own = (concept.most if up else concept.least) if concept else ()
    if concept and "date" in concept.match and column is not main_date(table):
        own = ()  # 'the latest order' is not the one that is due last
    high = g.draw.choice(g.phrasings.high if up else g.phrasings.low)
    if plural(column.words[0]) == column.words[0]:
        high = "most" if up else "fewest"  # seats, pages
    if column.role in ("date", "year"):
        high = "latest" if up else "earliest"
    return (g.draw.choice(own) if own else ""), high, "DESC" if up else "ASC"


def repeats(table: TableReading, column: ColumnReading) -> bool:
    """Whether a column has ties enough that its extreme must be written with MAX or MIN."""
    things = len(table.names) if table.spread else min(table.rows, KEPT_VALUES)
    return len(column.values) < 0.5 * things
