"""Adversarial SQL as data: what a hostile data set, or a model gone wrong, may hand to run_sql.

Each `Attack` has a short kind, a statement and the context it runs on. Many are made by
combination: every forbidden call in every place an expression can stand, every pragma in every
form, every statement hidden behind another. The names in FILES lie in the current folder, as
`lay_bait` puts them there; what one of them holds must never come out.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

CANARY, VICTIM = "canary.txt", "shop.sqlite"
SECRET = "the-canary-sings-6f1e"
CONTEXT = """
CREATE TABLE t (a INTEGER, b TEXT);
INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y');
"""
COUNT_UP = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


class Attack(NamedTuple):
    """One statement to run on a context."""

    kind: str
    sql: str
    context: str = CONTEXT


def lay_bait(folder: Path) -> dict[str, bytes]:
    """Put the canary and a user's database into `folder`; returns every file's bytes."""
    (folder / CANARY).write_text(f"{SECRET}\nCREATE TABLE {SECRET.replace('-', '_')} (a);\n")
    with closing(sqlite3.connect(folder / VICTIM)) as connection:
        connection.executescript(
            f"CREATE TABLE t (a INTEGER, b TEXT); CREATE TABLE secrets (word TEXT);"
            f"INSERT INTO t VALUES (1, 'x'); INSERT INTO secrets VALUES ('{SECRET}');"
        )
    return files_in(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    """{name: bytes} of every file under a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# --- Files --------------------------------------------------------------------------------------

PATHS = (
    "escaped.db", VICTIM, f"./{VICTIM}", f"file:{VICTIM}?mode=rwc", f"file:{CANARY}?immutable=1",
    f"file:{VICTIM}?vfs=unix-none&nolock=1", "file:shared?mode=memory&cache=shared", ":memory:", "",
    "/dev/shm/escaped.db", "/dev/stdin", "/proc/self/mem", "../escaped.db", "escaped\U0001f600.db",
)  # fmt: skip
OPENING = (
    "ATTACH '{0}' AS o", "ATTACH DATABASE ('{0}' || '') AS main2", "EXPLAIN ATTACH '{0}' AS o",
    "/* */ATTACH/**/'{0}'/**/AS/**/temp", "VACUUM INTO '{0}'", "VACUUM main INTO '{0}' || ''",
)  # fmt: skip


def on_files() -> list[Attack]:
    """ATTACH and VACUUM INTO, by every spelling of a path; and what other tools have for files."""
    found = [Attack("attach", form.format(path)) for form in OPENING[:4] for path in PATHS]
    found += [Attack("vacuum", form.format(path)) for form in OPENING[4:] for path in PATHS]
    others = f"""
        DETACH main; DETACH temp; DETACH DATABASE 'x'; REINDEX; ANALYZE; VACUUM; VACUUM temp
        .read {CANARY}; .import {CANARY} t; .open {VICTIM}; .shell touch escaped; .once escaped.db
        COPY t FROM '{CANARY}'; COPY t TO 'escaped.db'; LOAD DATA INFILE '{CANARY}' INTO TABLE t
        SELECT * INTO OUTFILE 'escaped.db' FROM t; SELECT LOAD_FILE('{CANARY}')
        SELECT pg_read_file('{CANARY}'); SELECT * FROM read_csv_auto('{CANARY}')
        SELECT * FROM '{CANARY}'; SELECT * FROM "{VICTIM}".secrets; EXPORT DATABASE 'escaped'
        CREATE TABLE main2.x AS SELECT 1; SELECT * FROM temp.sqlite_master; BACKUP TO 'escaped.db'
    """
    parts = others.replace("\n", ";").split(";")
    return found + [Attack("files", text.strip()) for text in parts if text.strip()]


PRAGMAS = """analysis_limit application_id auto_vacuum automatic_index busy_timeout cache_size
cache_spill case_sensitive_like cell_size_check checkpoint_fullfsync collation_list compile_options
count_changes data_store_directory data_version database_list default_cache_size
defer_foreign_keys empty_result_callbacks encoding foreign_key_check foreign_key_list foreign_keys
freelist_count full_column_names fullfsync function_list hard_heap_limit ignore_check_constraints
incremental_vacuum index_info index_list index_xinfo integrity_check journal_mode
journal_size_limit legacy_alter_table legacy_file_format locking_mode max_page_count mmap_size
module_list optimize page_count page_size parser_trace pragma_list query_only quick_check
read_uncommitted recursive_triggers reverse_unordered_selects schema_version secure_delete
short_column_names shrink_memory soft_heap_limit stats synchronous table_info table_list table_xinfo
temp_store temp_store_directory threads trusted_schema user_version vdbe_addoptrace vdbe_debug
vdbe_listing vdbe_trace wal_autocheckpoint wal_checkpoint writable_schema key rekey""".split()


def on_pragmas() -> list[Attack]:
    """Every pragma as a statement, and as the table-valued function of the same name."""
    forms = ("PRAGMA {} = 1", "SELECT * FROM pragma_{}('t')")
    found = [Attack("pragma", form.format(name)) for name in PRAGMAS for form in forms]
    more = ("hard_heap_limit = 0", "temp_store_directory = '.'", "main.journal_mode(DELETE)")
    return found + [Attack("pragma", f"PRAGMA {text}") for text in more]


# --- Functions and virtual tables ---------------------------------------------------------------

CALLS = (
    "load_extension('libm')", "load_extension('./escaped', 'start')", f"readfile('{CANARY}')",
    "writefile('escaped.db', 'x')", "edit('x', 'touch escaped')", "fts3_tokenizer('simple')",
    "fts3_tokenizer('simple', x'0000000000000000')",
)  # fmt: skip
PLACES = {
    "select": ("SELECT {}", ""),
    "where": ("SELECT a FROM t WHERE {} IS NULL", CONTEXT),
    "order": ("SELECT a FROM t ORDER BY {}", CONTEXT),
    "window": ("SELECT max(a) FILTER (WHERE {}) OVER () FROM t", CONTEXT),
    "returning": ("DELETE FROM t RETURNING {}", CONTEXT),
    "upsert": (
        "INSERT INTO u VALUES (1) ON CONFLICT (a) DO UPDATE SET a = {}",
        "CREATE TABLE u (a PRIMARY KEY); INSERT INTO u VALUES (1);",
    ),
    "default": ("INSERT INTO u (a) VALUES (1)", "CREATE TABLE u (a, b DEFAULT ({}));"),
    "check": ("INSERT INTO u VALUES (1)", "CREATE TABLE u (a CHECK ({} IS NULL));"),
    "generated": ("INSERT INTO u VALUES (1)", "CREATE TABLE u (a, b AS ({}) STORED);"),
    "index": ("INSERT INTO t VALUES (1, 'x')", CONTEXT + "CREATE INDEX i ON t ({});"),
    "partial": ("INSERT INTO t VALUES (1, 'x')", CONTEXT + "CREATE INDEX i ON t (a) WHERE {};"),
    "view": ("SELECT * FROM v", "CREATE VIEW v AS SELECT {};"),
    "trigger": (
        "DELETE FROM t",
        CONTEXT + "CREATE TEMP TRIGGER g AFTER DELETE ON t BEGIN SELECT {}; END;",
    ),
}
MODULES = (
    "fts3", "fts4", "fts5", "fts3tokenize", "fts4aux", "fts5vocab", "rtree", "rtree_i32", "geopoly",
    "csv", "vsv", "zipfile", "fsdir", "dbstat", "sqlite_dbpage", "sqlite_dbdata", "sqlite_stmt",
    "bytecode", "tables_used", "generate_series", "carray", "unionvtab", "swarmvtab", "spellfix1",
    "closure", "completion", "memstat", "wholenumber", "json_each", "json_tree",
)  # fmt: skip


def on_functions() -> list[Attack]:
    """Forbidden calls wherever an expression can stand, and virtual tables by every module."""
    found = [
        Attack(f"call in {place}", sql.format(call), context.format(call))
        for place, (sql, context) in PLACES.items()
        for call in CALLS
    ]
    made = "CREATE VIRTUAL TABLE v USING {}(body, filename='{}')"
    found += [Attack("virtual table", made.format(name, CANARY)) for name in MODULES]
    return found + [Attack("eponymous table", f"SELECT * FROM {name}") for name in MODULES]


# --- Time and memory ----------------------------------------------------------------------------

HAYSTACK = "replace(hex(zeroblob(400000)), '00', 'a')"
TIME = (
    f"{COUNT_UP} SELECT count(*) FROM n",
    f"{COUNT_UP} SELECT i FROM n ORDER BY i DESC",
    f"{COUNT_UP} SELECT DISTINCT i % 7 FROM n",
    f"{COUNT_UP} SELECT sum(i) OVER (ORDER BY i ROWS UNBOUNDED PRECEDING) FROM n",
    f"{COUNT_UP} SELECT count(*) FROM n a JOIN n b USING (i)",
    f"SELECT 1 WHERE 5 IN ({COUNT_UP} SELECT i FROM n WHERE i < 0)",
    f"SELECT EXISTS ({COUNT_UP} SELECT 1 FROM n WHERE i < 0)",
    f"INSERT INTO t {COUNT_UP} SELECT i, 'x' FROM n",
    f"UPDATE t SET a = ({COUNT_UP} SELECT max(i) FROM n)",
    f"DELETE FROM t WHERE a = ({COUNT_UP} SELECT max(i) FROM n)",
    f"CREATE TABLE u AS {COUNT_UP} SELECT i FROM n",
    f"SELECT instr({HAYSTACK}, substr({HAYSTACK}, 1, 200000) || 'b')",
    f"SELECT replace({HAYSTACK}, substr({HAYSTACK}, 1, 200000) || 'b', '')",
    f"SELECT {HAYSTACK} LIKE '%' || substr({HAYSTACK}, 1, 400) || '%b'",
    f"SELECT trim({HAYSTACK}, substr({HAYSTACK}, 1, 200000))",
    f"SELECT rtrim({HAYSTACK}, {HAYSTACK})",
    "WITH c(x) AS (VALUES (1), (2), (3), (4), (5), (6), (7), (8)) SELECT count(*) FROM "
    + ", ".join(f"c c{i}" for i in range(20)),
    "WITH RECURSIVE m(i, j) AS (VALUES (0, 0) UNION SELECT i + 1, j FROM m UNION SELECT i, j + 1 "
    "FROM m) SELECT count(*) FROM m",
    "SELECT sum(sum(a.a)) OVER (), count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h, t i, t j, "
    "t k, t l, t m, t n, t o, t p, t q, t r",
)
MEMORY = (
    *(f"SELECT length({call})" for call in (
        "zeroblob({0})", "randomblob({0})", "hex(zeroblob({0}))", "quote(zeroblob({0}))",
        "printf('%.*c', {0}, 'x')", "format('%{0}d', 1)", "printf('%-{0}s|', 'x')",
        "printf('%.{0}f', 1e300)", "replace(hex(zeroblob(400000)), '0', hex(zeroblob({0})))",
        "char({0}) || zeroblob({0})", "json_array(hex(zeroblob({0})))",
        "upper(hex(zeroblob({0})))", "json_quote(hex(zeroblob({0})))",
    )),
)  # fmt: skip
SIZES = (300_000, 100_000_000, 2_147_483_646, 9_223_372_036_854_775_807)
GROWING = (
    "SELECT group_concat(hex(zeroblob(200000))) FROM n",
    "SELECT json_group_array(hex(zeroblob(200000))) FROM n",
    "SELECT json_group_object(i, hex(zeroblob(200000))) FROM n",
    "SELECT hex(randomblob(200000)) FROM n",
    "SELECT hex(randomblob(40000)) AS s FROM n ORDER BY s",
    "SELECT DISTINCT hex(randomblob(40000)) FROM n",
    "SELECT count(*) FROM n GROUP BY hex(randomblob(40000))",
    "SELECT hex(randomblob(20000)) FROM n UNION SELECT hex(randomblob(20000)) FROM n",
    "SELECT lag(hex(randomblob(40000)), 1000000) OVER (ORDER BY i) FROM n",
    "SELECT group_concat(hex(zeroblob(90000))) OVER (ORDER BY i) FROM n",
)


def on_resources() -> list[Attack]:
    """Statements without an end, and values and results without a bound."""
    found = [Attack("time", sql) for sql in TIME]
    found += [Attack("memory", sql.format(size)) for sql in MEMORY for size in SIZES]
    found += [Attack("growing", f"{COUNT_UP} {sql}") for sql in GROWING]
    doubling = (
        "WITH RECURSIVE d(s) AS (SELECT '{}' UNION ALL SELECT {} FROM d) SELECT max(s) FROM d"
    )
    steps = ("s || s", "hex(s)", "quote(s)", "json_array(s, s)", "printf('%s%s', s, s)",
             "replace(s, 'x', 'xx')", "json_set('{}', '$.' || s, s)")  # fmt: skip
    return found + [Attack("growing", doubling.format("x", step)) for step in steps]


def on_patterns() -> list[Attack]:
    """LIKE and GLOB with patterns that make a matcher try everything."""
    text = "replace(hex(zeroblob(50000)), '00', 'a')"
    patterns = ("%a" * 400 + "b", "*a" * 400 + "b", "%_" * 400 + "b", "[a-z]*" * 150 + "b",
                "[^b]*" * 180 + "b", "*" * 900, "%" * 5000, "[" * 900,
                "*?" * 450 + "b")  # fmt: skip
    return [
        Attack("pattern", f"SELECT {text} {operator} '{pattern}'")
        for pattern in patterns
        for operator in ("LIKE", "GLOB")
    ]


# --- Shapes a parser dislikes -------------------------------------------------------------------

DEPTHS = (300, 20_000, 160_000)
NESTED = (
    ("(", "1", ")"), ("abs(", "1", ")"), ("- ", "1", ""), ("NOT ", "1", ""), ("1 + ", "1", ""),
    ("CASE WHEN 1 THEN ", "1", " END"), ("(SELECT ", "1", ")"), ("'a' || ", "'a'", ""),
)  # fmt: skip


def on_shapes() -> list[Attack]:
    """Depth, width, length, broken quotes and comments, numbers, and signs of other scripts."""
    found = [
        Attack("nesting", f"SELECT {opening * depth}{inner}{closing * depth}"[:990_000])
        for opening, inner, closing in NESTED
        for depth in DEPTHS
    ]
    wide = (
        "SELECT " + ", ".join(["1"] * 200_000), "SELECT 1" + " UNION SELECT 1" * 60_000,
        "SELECT 1 FROM " + ", ".join(["t"] * 90), "SELECT * FROM t " + "NATURAL JOIN t " * 70,
        "SELECT 1 IN (" + "1," * 400_000 + "1)", "VALUES " + "(1)," * 200_000 + "(1)",
        "SELECT max(" + "1," * 2000 + "1)", "WITH " + "(" * 900_000, "WITH a AS (" * 80_000,
        "WITH " + ", ".join(f"c{i} AS (SELECT 1)" for i in range(20_000)) + " SELECT 1",
        "WITH c0 AS (SELECT 1 AS x)" + "".join(
            f", c{i} AS (SELECT a.x FROM c{i - 1} a, c{i - 1} b)" for i in range(1, 30)
        ) + " SELECT count(*) FROM c29",
        "CREATE TABLE u (" + ", ".join(f"c{i}" for i in range(30_000)) + ")",
        "SELECT 'now' " + "(" * 200_000 + "'now'," * 100_000,
        "SELECT " + "x" * 900_000, "SELECT '" + "x" * 990_000, "SELECT 1 -- " + "x" * 980_000,
        "SELECT 1 /* " + "/*" * 400_000, ";" * 900_000, "'\"/*;" * 180_000,
        "--'\n" * 200_000 + "/*",
        "SELECT ?" * 3, "SELECT ?99999, :a, @b, $c::d(e)", "SELECT 1 ESCAPE 'xx'",
    )  # fmt: skip
    found += [Attack("wide or long", sql) for sql in wide]
    broken = ("'", '"', "`", "[", "/*", "--", "x'0", "x'GG'", "$", "@", ":", "#", "\\", "{", "0x",
              "1e", "1e+", ".", "..", "1__2", "0x" + "f" * 20, "'a' 'b'", "\ufeffSELECT 1",
              "\u00a0SELECT\u00a01", "SELECT\u2028 1", "\u202eSELECT 1", "SELECT 1\x00; x",
              "SELECT '\x00'", "SELECT '\ud800'", "\udfff", "SELECT '\U0010ffff'",
              "SELECT 'e\u0301' = '\u00e9'", "\uff33\uff25\uff2c\uff25\uff23\uff34 1")  # fmt: skip
    found += [Attack("broken text", f"SELECT {text}") for text in broken]
    numbers = ("9" * 5000, "0." + "1" * 5000, "1e999999999", "-1e999", "9223372036854775808",
               "0x8000000000000000", "-9223372036854775808 / -1", "-9223372036854775808 % -1",
               "abs(-9223372036854775808)", "1 << 9223372036854775807", "1 / 0", "1.0 / 0",
               "round(1.5, 2147483647)", "substr('abc', -9223372036854775808)",
               "CAST('" + "9" * 4000 + "' AS INTEGER)", "sum(9223372036854775807) + 1",
               "char(1114112, -1, 55296)", "printf('%*.*f', -2147483648, 2147483647, 1.0)",
               "zeroblob(-1)", "exp(1e308)", "pow(-1, 0.5)", "log(-1)")  # fmt: skip
    return found + [Attack("number", f"SELECT {text}") for text in numbers]


def on_json_and_dates() -> list[Attack]:
    """JSON of any depth and path, and dates at the ends of time."""
    deep = "replace(hex(zeroblob({0})), '00', '{1}')"
    json = [
        f"SELECT {name}({deep.format(depth, opening)})"
        for name in ("json", "json_valid", "json_type", "json_array_length", "json_quote")
        for depth, opening in ((900, "["), (400_000, "["), (100_000, '{"a":'))
    ]
    json += [
        "SELECT json_extract('{}', '$' || replace(hex(zeroblob(200000)), '00', '.a'))",
        "SELECT json_set('[]', '$[9223372036854775807]', 1)", "SELECT json_patch('{}', '{')",
        "SELECT count(*) FROM json_tree(replace(hex(zeroblob(300000)), '00', '[]'))",
        "SELECT * FROM json_each('[' || replace(hex(zeroblob(200000)), '00', '1,') || '1]')",
        "SELECT '{\"a\":1}' -> '$.a', json_group_array(json('[')) FROM t",
    ]  # fmt: skip
    dates = [
        f"SELECT {name}('{when}', '{step}')"
        for name in ("date", "julianday", "datetime")
        for when in ("now", "9999-12-31", "-4713-11-24", "99999999999")
        for step in ("localtime", "+99999999999 years", "weekday 9")
    ]
    dates += ["SELECT strftime(replace(hex(zeroblob(300000)), '00', '%J'), 'now')",
              "SELECT strftime('%', 'now')", "SELECT unixepoch('subsec')",
              "SELECT CURRENT_TIMESTAMP"]  # fmt: skip
    return [Attack("json", sql) for sql in json] + [Attack("date", sql) for sql in dates]


# --- Statements in disguise, and honest ones at the edge ----------------------------------------

HIDDEN = ("ATTACH 'escaped.db' AS o", "VACUUM INTO 'escaped.db'", "PRAGMA writable_schema = 1",
          "SELECT load_extension('x')", "DROP TABLE t")  # fmt: skip
COVERS = ("SELECT 1; {}", "SELECT 1;\n--\n{}", "/* ; */ SELECT 1; /* */ {}", "SELECT ';';{};",
          "-- {}\n{}", "SELECT 1\x00; {}", "EXPLAIN {}", "EXPLAIN QUERY PLAN {}", "BEGIN; {}; END",
          "SAVEPOINT s; {}; RELEASE s", "WITH a AS (SELECT 1) {}",
          "CREATE TABLE u AS {}")  # fmt: skip
SCHEMA_TABLES = ("sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_sequence",
                 "sqlite_stat1", "main.sqlite_master")  # fmt: skip
SCHEMA_WRITES = (
    "UPDATE {} SET sql = 'CREATE TABLE t (x)'", "DELETE FROM {}", "DROP TABLE {}",
    "INSERT INTO {} VALUES ('table', 'u', 'u', 2, 'CREATE TABLE u (a)')",
    "CREATE TRIGGER g AFTER INSERT ON {} BEGIN SELECT 1; END", "CREATE INDEX i ON {} (name)",
    "ALTER TABLE {} RENAME TO u",
)  # fmt: skip
TRANSACTIONS = ("BEGIN", "BEGIN EXCLUSIVE", "COMMIT", "END", "ROLLBACK", "SAVEPOINT s",
                "RELEASE s", "ROLLBACK TO s")  # fmt: skip
EDGES = (
    "INSERT INTO t VALUES (1, 'z') RETURNING *, rowid, changes()",
    "UPDATE t SET a = a + 1 RETURNING a", "REPLACE INTO t VALUES (1, 'z')",
    "UPDATE OR FAIL t SET a = NULL", "INSERT OR ROLLBACK INTO t SELECT * FROM t",
    "CREATE TABLE u (a INT, b AS (a * 2) STORED, c AS (b || 'x')) STRICT",
    "CREATE TABLE u (a PRIMARY KEY, b) WITHOUT ROWID", "CREATE TABLE u (a PRIMARY KEY) STRICT",
    "CREATE TEMP TABLE u AS SELECT * FROM t", "CREATE TABLE u (a REFERENCES u DEFERRABLE)",
    "SELECT b COLLATE nocase FROM t ORDER BY b COLLATE nosuch", "SELECT * FROM t INDEXED BY nope",
    "CREATE TABLE u (a COLLATE nosuch)", "ALTER TABLE t DROP COLUMN a",
    "ALTER TABLE t RENAME a TO c",
    "SELECT RAISE(ABORT, 'x')", "SELECT RAISE(IGNORE)",
    "SELECT * FROM t LEFT JOIN t u USING (a, b)",
    "SELECT last_insert_rowid(), total_changes(), sqlite_version(), sqlite_source_id()",
    "SELECT sqlite_log(1, 'x')", "SELECT likelihood(1, 0.5), subtype('x'), typeof(NULL)",
    "SELECT sqlite_compileoption_get(0)", "SELECT rtreecheck('main', 't')",
    "SELECT rtreenode(2, x'00')",
    "SELECT rtreedepth(x'0000')", "SELECT fts5(1)", "SELECT snippet(t) FROM t",
    "SELECT matchinfo(t) FROM t",
    "SELECT offsets(1), optimize(1)", "SELECT bm25(t), highlight(t, 0, '', '') FROM t",
    "SELECT 'a' MATCH 'b'", "SELECT 'a' REGEXP 'a'", "CREATE VIEW v AS SELECT * FROM v",
    "CREATE VIEW t AS SELECT 1", "DROP TABLE t; DROP TABLE t", "GRANT ALL ON t TO PUBLIC",
)  # fmt: skip
BODIES = ("SELECT RAISE(ABORT, 'no')", "SELECT RAISE(ROLLBACK, 'no')", "SELECT RAISE(IGNORE)",
          "INSERT INTO t VALUES (1, 'x'), (2, 'y')", "UPDATE t SET a = a + 1",
          f"DELETE FROM t WHERE a IN (SELECT i FROM ({COUNT_UP} SELECT i FROM n))",
          "INSERT INTO t SELECT * FROM t")  # fmt: skip
EVENTS = ("AFTER INSERT", "BEFORE UPDATE", "AFTER DELETE")


def on_disguises() -> list[Attack]:
    """Forbidden statements behind others; the schema's own tables; transactions and triggers."""
    found = [Attack("hidden", cover.replace("{}", inner)) for cover in COVERS for inner in HIDDEN]
    found += [
        Attack("schema write", form.format(name))
        for form in SCHEMA_WRITES
        for name in SCHEMA_TABLES
    ]
    found += [Attack("transaction", sql) for sql in TRANSACTIONS]
    found += [Attack("edge", sql) for sql in EDGES]
    firing = {"INSERT": "INSERT INTO t VALUES (3, 'z')", "UPDATE": "UPDATE t SET a = 3",
              "DELETE": "DELETE FROM t"}  # fmt: skip
    return found + [
        Attack("trigger", firing[event.split()[1]],
               f"{CONTEXT}CREATE TRIGGER g {event} ON t BEGIN {body}; END;")
        for event in EVENTS
        for body in BODIES
    ]  # fmt: skip


def attacks() -> list[Attack]:
    """All of them, none twice."""
    found = [
        *on_files(), *on_pragmas(), *on_functions(), *on_resources(), *on_patterns(),
        *on_shapes(), *on_json_and_dates(), *on_disguises(),
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def kinds() -> Counter[str]:
    """How many attacks there are of each kind."""
    return Counter(attack.kind for attack in attacks())
