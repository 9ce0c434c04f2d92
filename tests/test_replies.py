"""Tests of the SQL in a reply: found in any clothes, with nothing in its meaning changed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import replies

SCHEMA = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, age INT);
INSERT INTO pets VALUES (1, 'Rex', 3);"""
Q = "SELECT name FROM pets WHERE age > 3"
LONG = "SELECT\n  name,\n  age\nFROM pets\nWHERE age > 3\nORDER BY age"
CTE = "WITH x AS (\nSELECT 1 AS a\n\n)\n\nSELECT * FROM x"


@pytest.mark.parametrize(
    ("reply", "sql"),
    [
        # alone
        (Q, Q),
        (f"{Q};", f"{Q};"),
        (LONG, LONG),
        (CTE, CTE),
        ("select 1", "select 1"),
        ("Select name From pets\nWhere age > 3", "Select name From pets\nWhere age > 3"),
        ("\n\n  SELECT a FROM t;  \n", "SELECT a FROM t;"),
        ("UPDATE t SET a = 1 WHERE b = 2;", "UPDATE t SET a = 1 WHERE b = 2;"),
        ("INSERT INTO pets (name) VALUES ('Tom')", "INSERT INTO pets (name) VALUES ('Tom')"),
        ("DELETE FROM pets WHERE id = 1", "DELETE FROM pets WHERE id = 1"),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW v AS SELECT 1"),
        ("VALUES (1), (2)", "VALUES (1), (2)"),
        # fences
        (f"```sql\n{LONG};\n```\nThis query lists a.", f"{LONG};"),
        (f"```\n{Q}\n```", Q),
        ("```sqlite\nSELECT 1", "SELECT 1"),
        (f"```SQL\n{Q}\n```", Q),
        (f"~~~sql\n{Q}\n~~~", Q),
        (f"```sql {Q}```", Q),
        (f"```{Q}```", Q),
        (f"```{Q};``` lists them", f"{Q};"),
        (f"``` {Q} ```", Q),
        (f"```sql\n-- all of them\n{Q}\n```", Q),
        (f"Sure:\n```sql title=x\n{Q}\n```", Q),
        (f"```python\nprint(1)\n```\n```sql\n{Q}\n```", Q),
        (f"```\nRex\n```\nis what you get from\n```sql\n{Q}\n```", Q),
        (f"```sql\n{Q}\n```\nOr:\n```sql\nSELECT 2\n```", Q),
        (f"Step 1:\n```sql\nSELECT age FROM pets\n```\nThe final query:\n```sql\n{Q}\n```", Q),
        (f"I will SELECT what is asked.\n```sql\n{Q}\n```", Q),
        (f"{Q};\n\nOutput:\n```\nRex\n```", f"{Q};"),
        (f"{Q};\n\nAlso:\n```sql\nSELECT 2\n```", f"{Q};"),
        # the schema again
        (f"```sql\n{SCHEMA}\n```\n\n```sql\n{Q};\n```", f"{Q};"),
        (f"```sql\nCREATE TABLE \"pets\" (id INT)\n```\nthen\n```sql\n{Q}\n```", Q),
        (f"{SCHEMA}\n{Q};", f"{Q};"),
        (f"{SCHEMA}\n```sql\n{Q};\n```", f"{Q};"),
        (f"Schema:\n{SCHEMA}\n\nAnswer: {Q}", Q),
        (f"{Q};\nCREATE TABLE pets (id INTEGER PRIMARY KEY,", f"{Q};"),
        (f"{Q};\n{SCHEMA}\n{Q};", f"{Q};"),
        (SCHEMA, ""),
        ("Schema:\nCREATE TABLE pets (id INTEGER PRI", ""),
        ("CREATE TABLE cats (a INT);", "CREATE TABLE cats (a INT);"),
        # inline code, bold, quotes, lists
        (f"`{Q}`", Q),
        (f"Use `{Q};` for that.", f"{Q};"),
        (f"The query is `{Q}`.", Q),
        ("Run ``SELECT `name` FROM `pets` ``.", "SELECT `name` FROM `pets`"),
        ("`SELECT `name` FROM `pets``", "SELECT `name` FROM `pets`"),
        (f"The column `name` is wanted: `{Q}`", Q),
        (f"**{Q}**", Q),
        (f"**{Q};**", f"{Q};"),
        (f"**Answer:** {Q}", Q),
        (f"__{Q}__", Q),
        (f"*{Q}*", Q),
        ("**SELECT COUNT(*)**", "SELECT COUNT(*)"),
        ("*SELECT * FROM pets*", "SELECT * FROM pets"),
        (f"- {Q}", Q),
        (f"* {Q}\n* the end of it all", Q),
        (f"1. {Q}", Q),
        (f"1) `{Q}`", Q),
        (f"> {Q}", Q),
        (f"### Query\n{Q}", Q),
        (f"\"{Q}\"", Q),
        (f"The answer is \"{Q}\".", Q),
        (f"'{Q}'", Q),
        (f"\u201c{Q}\u201d", Q),
        (f"({Q})", Q),
        (f"{{\"sql\": \"{Q}\"}}", Q),
        (f"<code>{Q}</code>", Q),
        (f"<sql>\n{Q};\n</sql>", f"{Q};"),
        # JSON, as JSON writes it
        ('{"sql": "SELECT name\\nFROM pets"}', "SELECT name\nFROM pets"),
        ('{"why": "names", "query": "SELECT \\"name\\" FROM pets;"}', 'SELECT "name" FROM pets;'),
        ('```json\n{"sql": "SELECT name\\nFROM pets"}\n```', "SELECT name\nFROM pets"),
        ('So:\n```json\n{"SQL Query": "SELECT\\n1"}\n```\nas asked', "SELECT\n1"),
        ('{"sql": "SELECT json(\'{}\')"', "SELECT json('{}')"),
        # other brackets, a table
        (f"[SQL]{Q}[/SQL]", Q),
        (f"\\boxed{{{Q}}}", Q),
        (f"$$ {Q} $$", Q),
        (f"<answer>\n```sql\n{Q}\n```\n</answer>", Q),
        (f"| SQL |\n| --- |\n| {Q} |", Q),
        (f"| asked | sql |\n|---|---|\n| who? | `{Q}` |", Q),
        ("| SELECT a || b FROM t | both |", "SELECT a || b FROM t"),
        # thoughts, and what ends a turn
        (f"<think>I could SELECT * FROM pets.</think>\n{Q}", Q),
        (f"<thinking>\nSELECT 1\n</thinking>\n```sql\n{Q}\n```", Q),
        (f"SELECT 1 is too little.\n</think>\n\n{Q}", Q),
        (f"<think>{Q}", ""),
        (f"{Q}<end_of_turn>\n<start_of_turn>user\nAnd now?", Q),
        (f"{Q} <eos>", Q),
        (f"{Q}</s>", Q),
        (f"{Q}<|im_end|>\n{Q}", Q),
        ("<|im_start|>assistant\nSELECT 1<|im_end|>", "SELECT 1"),
        # blanks that are none to SQLite, and what nobody sees
        ("SELECT\u00a0name FROM\u202fpets", "SELECT name FROM pets"),
        (f"{Q}\u200b", Q),
        (f"\ufeff{Q}", Q),
        ("SELECT 'a\u00a0b\u200b' FROM \"\u00a0\"", "SELECT 'a\u00a0b\u200b' FROM \"\u00a0\""),
        # after a comment or a label
        (f"-- older than three\n{Q}", Q),
        (f"/* older */ {Q}", Q),
        (f"/*\nSELECT all\n*/\n{Q}", Q),
        (f"# older\n{Q}", Q),
        (f"sql {Q}", Q),
        (f"SQL: {Q}", Q),
        (f"SQL\n{Q}", Q),
        (f"sqlite> {Q};", f"{Q};"),
        (f"Query => {Q}", Q),
        (f"Answer -> {Q}", Q),
        # in prose
        (f"The answer is {Q}", Q),
        (f"The answer is {Q}.", Q),
        (f"The answer is {Q}. It lists the names.", Q),
        (f"the answer is {Q.lower()}", Q.lower()),
        (f"You can use {Q} to list them.", Q),
        (f"To find them, run {Q} on your database.", Q),
        (f"Run {Q} and it will show the names.", Q),
        ("Run SELECT 'a to get b' AS x FROM t to get it.", "SELECT 'a to get b' AS x FROM t"),
        (f"Sure! Here is the query:\n\n{Q};\n\nIt selects a.", f"{Q};"),
        (f"With this query, the names are found:\n{Q}", Q),
        (f"With this query:\n\n{Q}\n\nyou get the names.", Q),
        (f"Select the name of the pets that are old: {Q}", Q),
        (f"Select the names.\n{Q};", f"{Q};"),
        (f"Select all names from pets like this: {Q}", Q),
        (f"Use a SELECT statement with a WHERE clause: {Q}", Q),
        (f"Create a query that lists names.\n{Q}", Q),
        (f"Update the following.\n{Q}", Q),
        (f"Explain: {Q}", Q),
        # prose behind
        (f"{Q}\nThis query lists the names.", Q),
        (f"{Q}\nIt's the pet's name.", Q),
        (f"{Q}\n\nThis selects a.", Q),
        (f"{Q}\n\nIn this query, names are listed.", Q),
        (f"{Q}\nExplanation: names are listed", Q),
        (f"{Q}\n\nselects the names", Q),
        (f"{Q};\nWith this query, names are listed.", f"{Q};"),
        (f"{Q};\nSelect the names that you want.", f"{Q};"),
        (f"{Q}; done", f"{Q};"),
        (f"{Q};\n\nThat was it; enjoy.", f"{Q};"),
        (f"{LONG}\nThis lists the names.", LONG),
        # the same again: a model that does not stop
        (f"{Q};\n{Q};\n{Q};\nSELECT name FR", f"{Q};"),
        # several statements stay several
        ("SELECT 1; DROP TABLE t;", "SELECT 1; DROP TABLE t;"),
        ("SELECT 1; DROP TABLE t", "SELECT 1; DROP TABLE t"),
        ("DELETE FROM t; DELETE FROM t;", "DELETE FROM t; DELETE FROM t;"),
        ("`INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)` do it",
         "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"),
        # a row that is in the schema already
        ("INSERT INTO pets VALUES (1, 'Rex', 3);", "INSERT INTO pets VALUES (1, 'Rex', 3);"),
        # nothing inside is changed
        ("SELECT ';' AS a, \"x;y\" FROM t; done", "SELECT ';' AS a, \"x;y\" FROM t;"),
        ("SELECT 'it''s;\n\nfine' FROM t; bye", "SELECT 'it''s;\n\nfine' FROM t;"),
        ("SELECT '`**' || '**' FROM t", "SELECT '`**' || '**' FROM t"),
        ("`SELECT '``' FROM t`", "SELECT '``' FROM t"),
        ("SELECT `a b`, [c. D] FROM t", "SELECT `a b`, [c. D] FROM t"),
        ("SELECT 'A. B' FROM t -- Done. So\nWHERE a", "SELECT 'A. B' FROM t -- Done. So\nWHERE a"),
        ("SELECT a /* This; that. */ FROM t", "SELECT a /* This; that. */ FROM t"),
        ("SELECT a, -- The first one is\nb FROM t", "SELECT a, -- The first one is\nb FROM t"),
        ("SELECT 'Note: a\nThis is it' FROM t", "SELECT 'Note: a\nThis is it' FROM t"),
        ("SELECT a FROM t WHERE b = 'SELECT 1; '", "SELECT a FROM t WHERE b = 'SELECT 1; '"),
        ("SELECT t.* FROM t", "SELECT t.* FROM t"),
        ("SELECT t._a, t.`b c`, t.\"d\" FROM t.", "SELECT t._a, t.`b c`, t.\"d\" FROM t"),
        ("SELECT 2 * 3 ** 4", "SELECT 2 * 3 ** 4"),
        (
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = 1; END; done",
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = 1; END;",
        ),
        # wrong SQL stays wrong SQL
        ("DELETE a, b FROM a JOIN b", "DELETE a, b FROM a JOIN b"),
        ("UPDATE a JOIN b ON a.i = b.i SET c = 1", "UPDATE a JOIN b ON a.i = b.i SET c = 1"),
        ("SELECT name FROM pets WHERE", "SELECT name FROM pets WHERE"),
        ("SELECT a FROM pets\nWHERE >> 3\nORDER a", "SELECT a FROM pets\nWHERE >> 3\nORDER a"),
        ("SELECT TOP 3 name FROM pets;", "SELECT TOP 3 name FROM pets;"),
        ("```sql\nSELECT nam FORM pets\n```", "SELECT nam FORM pets"),
        ("SELECT a FROM pets WHERE;\n\nHere `SELECT a` takes names.", "SELECT a FROM pets WHERE;"),
        # none
        ("I do not know.", ""),
        ("You could selectively update things.", ""),
        ("Please select the names from the table.", ""),
        ("Select the names from the pets", ""),
        ("With this query you can see the pets.", ""),
        ("Update your table and insert into it.", ""),
        ("```python\nprint(1)\n```", ""),
        ("Write a SQLite query that answers the question.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_sql_is_found_as_a_person_would(reply: str, sql: str) -> None:
    assert replies.extract_sql(reply, SCHEMA) == sql


def test_the_questions_own_sql_is_no_quotation_of_the_schema() -> None:
    assert replies.extract_sql("SELECT COUNT(*) FROM pets;", SCHEMA) == "SELECT COUNT(*) FROM pets;"
    insert = "INSERT INTO pets VALUES (2, 'Tom', 1)"
    assert replies.extract_sql(insert, SCHEMA) == insert


@given(st.text(max_size=80))
def test_extraction_is_a_part_of_the_reply_and_settled(reply: str) -> None:
    sql = replies.extract_sql(reply)
    assert sql in reply
    assert replies.extract_sql(sql) == sql


WORDS = [
    "SELECT",
    "a",
    "FROM",
    "t",
    "WHERE",
    "the",
    "With",
    "query",
    "x AS (",
    ")",
    ";",
    "\n",
    "\n\n",
    "`",
    "```",
    "```sql\n",
    "**",
    "'",
    '"',
    "--",
    "/*",
    "*/",
    "1",
    ".",
    ":",
    "Here is",
    "UPDATE",
    "SET",
    "=",
    "INSERT INTO",
    "VALUES (",
    "CREATE TABLE",
    "- ",
    "> ",
]


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_extraction_of_anything_is_settled(words: list[str]) -> None:
    reply = " ".join(words)
    sql = replies.extract_sql(reply)
    assert sql in reply
    assert replies.extract_sql(sql) == sql


WRAPS = [
    "{}",
    "{};",
    "`{}`",
    "```sql\n{}\n```",
    "```{}```",
    "**{}**",
    "Answer: {}",
    "1. {}\n\nDone.",
    "The answer is {}.",
    "-- so\n{}",
    "> {}",
    "With this query:\n{}\nThis is what you want.",
]
CORES = [
    Q,
    LONG,
    CTE,
    "SELECT COUNT(*) FROM t",
    "SELECT 'a;b**`' FROM t",
    "DELETE FROM t WHERE a = ''",
    "SELECT a FROM t WHERE b LIKE '%. The %'",
    "UPDATE t SET a = a * 2",
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("core", CORES)
def test_every_core_comes_out_of_every_wrapping(core: str, wrap: str) -> None:
    assert replies.extract_sql(wrap.format(core)).rstrip(";") == core


@pytest.mark.parametrize(
    "reply",
    [
        "SELECT " * 100_000,
        "SELECT ';" * 50_000,
        "`SELECT 1" * 50_000,
        "```" * 200_000,
        ";" * 500_000,
        "SELECT a FROM t WHERE b = '" + "it. The end\n\n" * 50_000,
        "(" * 500_000 + "SELECT",
        "/*" * 300_000,
        "SELECT (" * 60_000,
        "CREATE TRIGGER t AFTER INSERT ON t BEGIN " + "a;" * 2_000,
        "\n" * 300_000 + "SELECT 1",
        "WITH a AS (" * 50_000,
        "SELECT 1;\n" * 20_000,
        "* " * 200_000 + "SELECT 1",
        "INSERT " + " " * 300_000,
        "--\n" * 150_000,
        "DELETE " + "/* */" * 60_000,
        "CREATE " + "--\n" * 60_000,
    ],
)
def test_hostile_replies_end_soon(reply: str) -> None:
    start = time.monotonic()
    replies.extract_sql(reply, SCHEMA)
    assert time.monotonic() - start < 120
