"""How a database was read, as a table to look at and as YAML that its owner can mend.

A lexicon says only what is to be changed: words for a table or a column, what names a row, what is
shown of a row, a role, words that stand for a condition ('good': '> 3'), how people say a value,
what to leave out. A column with no words (`words: []`) is never asked for, but still leads to
another table: so one says which of two city columns is meant. What a lexicon names must be there:
everything that is not is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemma_lora.cli import UserError
from gemma_lora.column_roles import ROLES, is_number
from gemma_lora.name_reading import is_temporary
from gemma_lora.schema_reading import DatabaseReading, Link
from gemma_lora.table_reading import KEPT_VALUES, ColumnReading, TableReading

TABLE_KEYS = {"words", "label", "show", "leave_out", "columns"}
COLUMN_KEYS = {"words", "role", "sayings", "values", "leave_out"}
SHOWN_VALUES = 3


def reading_yaml(reading: DatabaseReading) -> str:
    """The reading as a lexicon: to be mended and given back with --lexicon."""
    import yaml

    tables = {
        t.name: {
            "words": list(t.words),
            "label": list(t.label),
            "columns": {
                c.name: {"words": list(c.words), "role": c.role} for c in (*t.columns, *t.unsaid)
            },
        }
        for t in reading.tables
    }
    links = [f"{k.child}.{k.child_column} -> {k.parent}.{k.parent_column}" for k in reading.links]
    whole = {"tables": tables, "links": links}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=96)


def show_reading(reading: DatabaseReading) -> None:
    """Print how a database was read, a table for each of its tables."""
    import inflect
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, engine = Console(), inflect.engine()
    for table in reading.tables:
        named = f", named by {' and '.join(table.label)}" if table.label else ""
        kind = ", only joins others" if table.is_link else ", a view" if table.is_view else ""
        each = " or ".join(map(engine.a, table.words))
        title = f"{table.name}: {table.rows:,} rows, each {each}{named}{kind}"
        grid = Table(title=Text(title), title_justify="left", title_style="bold", box=None)
        for head in ("column", "is a", "called", "holds"):
            grid.add_column(head)
        for column in (*table.columns, *table.unsaid):
            goes = [
                k for k in reading.links if (k.child, k.child_column) == (table.name, column.name)
            ]
            role = f"key to {goes[0].parent}" if goes else column.role
            form = f" ({column.form})" if column.form else ""
            values = ", ".join(str(v)[:20] for v in column.values[:SHOWN_VALUES])
            more = ", ..." if len(column.values) > SHOWN_VALUES else ""
            cells = (column.name, role + form, ", ".join(column.words), values + more)
            grid.add_row(*map(Text, cells))
        console.print(grid)
        console.print()


def read_lexicon(path: Path) -> dict[str, Any]:
    """The mapping in a lexicon file; raises UserError when it is none."""
    import yaml

    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"cannot read the lexicon '{path}': {' '.join(str(error).split())}"
        ) from None
    if not isinstance(held, dict) or not isinstance(held.get("tables", {}), dict):
        raise UserError(f"the lexicon '{path}' has no 'tables': start from what --describe prints")
    return held


def is_texts(held: Any) -> bool:
    """Whether a part is a list of words or names; nothing at all is an empty one."""
    return held is None or (
        isinstance(held, list)
        and all(isinstance(one, (str, int, float)) and str(one).strip() for one in held)
    )


def misshapen(name: str, said: Mapping[str, Any]) -> list[str]:
    """What of a table's part is no list where a list is meant, no mapping where that is."""
    found = [
        f"{name}: {part} must be a list, [...]"
        for part in ("words", "label", "show")
        if not is_texts(said.get(part))
    ]
    columns = said.get("columns")
    if not isinstance(columns, (dict, type(None))):
        return [*found, f"{name}: columns must be a mapping, 'NAME: {{...}}' for each"]
    for column, about in (columns or {}).items():
        if not isinstance(about, dict):
            continue  # told with what is not there
        if not is_texts(about.get("words")):
            found.append(f"{name}.{column}: words must be a list, [...]")
        found += [
            f"{name}.{column}: {part} must be a mapping, 'SAID: MEANT' for each"
            for part in ("sayings", "values")
            if not isinstance(about.get(part), (dict, type(None)))
        ]
    return found


def unfit_role(column: ColumnReading, role: str) -> str:
    """Why a column cannot be of a role that its owner gives it; '' where it can."""
    if role == "date" and not column.form:
        return "its values are no dates that are known"
    numbers = all(map(is_number, column.values))
    return "its values are no numbers" if role in ("measure", "year") and not numbers else ""


def problems_of(reading: DatabaseReading, lexicon: Mapping[str, Any]) -> list[str]:
    """Everything in a lexicon that this database does not have or that cannot be meant."""
    found = [f"unknown part '{k}'" for k in lexicon if k not in ("tables", "links")]
    if not is_texts(lexicon.get("links")):
        found.append("links must be a list, [...]")
    tables = {t.name: t for t in reading.tables}
    for name, said in (lexicon.get("tables") or {}).items():
        if name not in tables or not isinstance(said, dict):
            found.append(
                f"there is no table '{name}'" if name not in tables else f"'{name}' is empty"
            )
            continue
        if wrong := misshapen(name, said):
            found += wrong
            continue
        found += [f"{name}: unknown part '{k}'" for k in said if k not in TABLE_KEYS]
        columns = {c.name for c in tables[name].columns}
        for column in said.get("label") or ():
            if column not in columns:
                found.append(f"{name}: label names no column '{column}'")
        for shown in said.get("show") or ():
            table, _, column = str(shown).rpartition(".")
            there = tables.get(table or name)
            if there is None or column not in {c.name for c in there.columns}:
                found.append(f"{name}: show names no column '{shown}'")
        for column, about in (said.get("columns") or {}).items():
            if column not in columns or not isinstance(about, dict):
                found.append(f"{name}: there is no column '{column}'")
                continue
            found += [f"{name}.{column}: unknown part '{k}'" for k in about if k not in COLUMN_KEYS]
            if not about.get("words", True) and column in (said.get("label") or tables[name].label):
                found.append(f"{name}.{column}: it names the rows and needs words")
            role = about.get("role", "key")
            if role not in ROLES:
                found.append(f"{name}.{column}: '{role}' is none of {', '.join(ROLES)}")
            elif why := unfit_role(tables[name].column(column), role):
                found.append(f"{name}.{column}: it cannot be a {role}, {why}")
            held = tables[name].column(column).values
            found += [
                f"{name}.{column}: '{said}' stands for '{meant}', which is none of its values"
                for said, meant in (about.get("values") or {}).items()
                if len(held) < KEPT_VALUES and str(meant) not in map(str, held)
            ]
    return found + (strange_links(reading, lexicon) if not found else [])


def strange_links(reading: DatabaseReading, lexicon: Mapping[str, Any]) -> list[str]:
    """The links whose ends are no columns of the database."""
    held = {(t.name, column) for t in reading.tables for column in t.held}
    links = [link_of(str(line)) for line in lexicon.get("links") or ()]
    ends = [(k.child, k.child_column) for k in links] + [(k.parent, k.parent_column) for k in links]
    return [f"links name no column '{'.'.join(end)}'" for end in ends if end not in held]


def mended_column(column: ColumnReading, said: Mapping[str, Any]) -> ColumnReading:
    """A column with what the lexicon says of it."""
    sayings = {str(k): str(v) for k, v in (said.get("sayings") or {}).items()}
    spoken = {str(k): str(v) for k, v in (said.get("values") or {}).items()}
    words = tuple(map(str, said["words"] or ())) if "words" in said else column.words
    return replace(
        column, words=words, role=said.get("role", column.role), sayings=sayings, spoken=spoken
    )


def mended_table(table: TableReading, said: Mapping[str, Any]) -> TableReading:
    """A table with what the lexicon says of it."""
    about = said.get("columns") or {}
    columns = tuple(
        mended_column(c, about.get(c.name) or {})
        for c in table.columns
        if not (about.get(c.name) or {}).get("leave_out")
    )
    shown = tuple(
        (str(one).rpartition(".")[0] or table.name, str(one).rpartition(".")[2])
        for one in said.get("show") or ()
    )
    label = tuple(said["label"] or ()) if "label" in said else table.label
    names, repeated = table.names, table.repeated
    if label != table.label:
        kept = {c.name: c for c in columns}
        names = tuple((v,) for v in kept[label[0]].values) if len(label) == 1 else ()
        repeated = ()
    words = tuple(map(str, said.get("words") or table.words))
    return replace(
        table, words=words, columns=tuple(c for c in columns if c.words), label=label, names=names,
        shown=shown, unsaid=tuple(c for c in columns if not c.words), repeated=repeated,
        spread=table.spread if label == table.label else "",
    )  # fmt: skip


def with_lexicon(reading: DatabaseReading, path: Path | None) -> DatabaseReading:
    """The reading with what its owner says of it. Raises UserError that names every mistake.

    Temporary tables are left out unless the lexicon says `leave_out: false`.
    """
    lexicon = read_lexicon(path) if path else {}
    if problems := problems_of(reading, lexicon):
        raise UserError(f"the lexicon '{path}' does not fit the database: {'; '.join(problems)}")
    said = lexicon.get("tables") or {}
    tables = tuple(
        mended_table(t, said.get(t.name) or {})
        for t in reading.tables
        if not (said.get(t.name) or {}).get("leave_out", is_temporary(t.name))
    )
    if not tables and not path:
        return reading
    if not tables:
        raise UserError(f"the lexicon '{path}' leaves out every table: keep one")
    held = {(t.name, c.name) for t in tables for c in (*t.columns, *t.unsaid)}
    wanted: tuple[Link, ...] = reading.links
    if "links" in lexicon:
        wanted = tuple(link_of(str(line)) for line in lexicon["links"] or ())
    usable = tuple(
        k
        for k in wanted
        if (k.child, k.child_column) in held and (k.parent, k.parent_column) in held
    )
    return replace(reading, tables=tables, links=usable)


def link_of(line: str) -> Link:
    """'orders.customer_id -> customers.id' as a key."""
    child, arrow, parent = line.partition("->")
    one, two = child.strip().rpartition("."), parent.strip().rpartition(".")
    if not (arrow and one[0] and two[0]):
        raise UserError(f"a link reads 'table.column -> table.column', not '{line}'")
    return Link(one[0], one[2], two[0], two[2])
