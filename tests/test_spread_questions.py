"""Made questions of places: things that fill several rows, capitals, neighbours, comparisons."""

from __future__ import annotations

import random
import re
import sqlite3
from difflib import get_close_matches
from pathlib import Path

import pytest
from conftest import questions_of

from gemma_lora.lexicon import with_lexicon
from gemma_lora.questions import Question, make_questions
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only
from gemma_lora.short_sql import without_parent
from gemma_lora.spread_questions import each_once
from gemma_lora.wording import capitalized, large_said, load_phrasings, with_kind

LANDS = """
CREATE TABLE country (country_name TEXT, population INTEGER, capital TEXT, anthem TEXT);
CREATE TABLE town (town_name TEXT, population INTEGER, country_name TEXT);
CREATE TABLE river (river_name TEXT, length INTEGER, runs_through TEXT);
CREATE TABLE borders (country_name TEXT, neighbour TEXT);
CREATE TABLE heights (country_name TEXT, highest_point TEXT, highest_elevation INTEGER,
  lowest_point TEXT, lowest_elevation INTEGER);
"""
NAMES = [f"{a}{b}" for a in ("al", "bel", "cor", "dan", "es", "fin") for b in ("ia", "mark")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 countries, 38 towns (two of one name), 9 rivers in 21 rows."""
    path = tmp_path_factory.mktemp("lands") / "lands.sqlite"
    towns = [(f"{name}-{kind}", 1000 * (i + 7 * k + 1), name)
             for i, name in enumerate(NAMES)
             for k, kind in enumerate(("stad", "burg", "port"))]  # fmt: skip
    towns += [("twin", 111, NAMES[0]), ("twin", 222, NAMES[1])]
    lands = [(name, 90_000 + 1000 * i, f"{name}-burg", f"o {name}") for i, name in enumerate(NAMES)]
    rivers = [
        (f"r{i}", 100 + 10 * i, NAMES[(i * 5 + k) % 12]) for i in range(9) for k in range(1 + i % 4)
    ]
    with sqlite3.connect(path) as connection:
        connection.executescript(LANDS)
        connection.executemany("INSERT INTO country VALUES (?, ?, ?, ?)", lands)
        connection.executemany("INSERT INTO town VALUES (?, ?, ?)", towns)
        connection.executemany("INSERT INTO river VALUES (?, ?, ?)", rivers)
        heights = [(a, f"mount {a}", 500 + 37 * i, f"{a} bay", 3 * i - 9)
                   for i, a in enumerate(NAMES)]  # fmt: skip
        connection.executemany("INSERT INTO heights VALUES (?, ?, ?, ?, ?)", heights)
        near = [(a, NAMES[i + 1]) for i, a in enumerate(NAMES[:-1])]
        near += [(b, a) for a, b in near] + [(NAMES[0], NAMES[5]), (NAMES[5], NAMES[0])]
        connection.executemany("INSERT INTO borders VALUES (?, ?)", near)
    connection.close()
    return path


@pytest.fixture(scope="module")
def made(file: Path) -> list[Question]:
    return questions_of(file, 6000, 4)


def answers(file: Path, sql: str) -> list[tuple[object, ...]]:
    with read_only(file) as connection:
        return connection.execute(sql).fetchall()


def test_a_river_is_one_thing_and_two_towns_of_one_name_are_two(reading: DatabaseReading) -> None:
    assert {t.name: t.spread for t in reading.tables} == {
        "country": "", "town": "", "river": "runs_through", "borders": "", "heights": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "once"),
    [
        ("SELECT river_name FROM river", "SELECT DISTINCT river_name FROM river"),
        ("SELECT COUNT(*) FROM river", "SELECT COUNT(DISTINCT river_name) FROM river"),
        ("SELECT COUNT(*) FROM river WHERE runs_through = 'alia'", None),
        ("SELECT COUNT(*) FROM river WHERE river_name = 'r3'", None),
        ("SELECT runs_through, COUNT(*) FROM river GROUP BY runs_through", None),
        ("SELECT river_name, COUNT(*) FROM river GROUP BY river_name", None),
        (
            "SELECT length FROM river WHERE river_name = 'r3'",
            "SELECT DISTINCT length FROM river WHERE river_name = 'r3'",
        ),
        ("SELECT river_name FROM river ORDER BY length DESC LIMIT 1", None),
        (
            "SELECT river_name FROM river ORDER BY length DESC LIMIT 3",
            "SELECT DISTINCT river_name FROM river ORDER BY length DESC LIMIT 3",
        ),
        ("SELECT river_name, runs_through FROM river", None),
        ("SELECT AVG(length) FROM river", "no"),
        ("SELECT AVG(length) FROM river WHERE runs_through = 'alia'", None),
        ("SELECT length FROM river", "no"),
        (
            "SELECT COUNT(*) FROM river WHERE runs_through IN "
            "(SELECT country_name FROM country WHERE country_name = 'alia')",
            "SELECT COUNT(DISTINCT river_name) FROM river WHERE runs_through IN "
            "(SELECT country_name FROM country WHERE country_name = 'alia')",
        ),
        ("SELECT COUNT(*) FROM town", None),
    ],
)
def test_each_once(reading: DatabaseReading, sql: str, once: str | None) -> None:
    """None stands for what stays as it is, 'no' for what is not asked."""
    wanted = sql if once is None else None if once == "no" else once
    assert each_once(reading, sql) == wanted


def test_no_made_answer_shows_or_counts_a_river_twice(file: Path, made: list[Question]) -> None:
    rivers = [q.sql for q in made if re.match(r"SELECT (DISTINCT )?river_name FROM river\b", q.sql)]
    assert len(rivers) > 50
    for sql in rivers:
        found = answers(file, sql)
        assert len(set(found)) == len(found), sql
    counts = {q.sql for q in made if re.fullmatch(r"SELECT COUNT\(.*\) FROM river", q.sql)}
    assert counts and all(answers(file, sql) == [(9,)] for sql in counts)


def test_where_a_river_leads_is_asked(file: Path, made: list[Question]) -> None:
    reach = [q for q in made if q.kind == "reach"]
    forms = {re.sub(r"'.*?'|\d+", "?", q.sql) for q in reach}
    assert {
        "SELECT runs_through FROM river WHERE river_name = ?",
        "SELECT river_name FROM river GROUP BY river_name HAVING COUNT(*) > ?",
        "SELECT runs_through FROM river WHERE length = (SELECT MAX(length) FROM river)",
        "SELECT river_name FROM river WHERE runs_through = ? AND river_name IN "
        "(SELECT river_name FROM river WHERE runs_through = ?)",
    } <= forms
    longest = next(q for q in reach if q.sql.endswith("(SELECT MAX(length) FROM river)"))
    assert ("r8",) not in answers(file, longest.sql)  # its lands, not itself
    assert any("runs through" in q.question for q in reach)
    reached = [q for q in made if "IN (SELECT runs_through FROM river WHERE river_name =" in q.sql]
    assert reached  # as a condition on lands, or on their towns
    nouns = [q.question for q in made if re.search(r"(?i)\b(the|a) runs through", q.question)]
    assert not nouns


def test_the_capital_is_one_of_the_towns(file: Path, made: list[Question]) -> None:
    chosen = [q for q in made if "town_name = capital" in q.sql]
    assert len(chosen) > 15
    of_one = [q for q in chosen if re.search("capital( town)? of [a-z]+", q.question.lower())]
    assert of_one
    wanted = {name: 1000 * (i + 8) for i, name in enumerate(NAMES)}
    named = re.compile(
        r"SELECT (?:town\.)?population FROM town .* AND (?:town\.)?country_name = '(\w+)'"
    )
    checked = [(named.fullmatch(q.sql), q.sql) for q in of_one]
    assert any(match for match, _ in checked)
    for match, sql in checked:
        if match:
            assert answers(file, sql) == [(wanted[match[1]],)]
    assert not any("= anthem" in q.sql for q in made)  # an anthem is no town
    assert any(
        re.search("the capital of what|capital of$|its capital|whose capital", q.question.lower())
        for q in made
    )


def test_named_rows_are_set_beside_each_other(file: Path, made: list[Question]) -> None:
    compared = [q for q in made if q.kind == "compared"]
    sums = [q for q in compared if "SUM(" in q.sql]
    each = [q for q in compared if re.match(r"SELECT (DISTINCT )?\w+_name, \w+ FROM", q.sql)]
    which = [q for q in compared if q.sql.endswith("LIMIT 1")]
    more = [q for q in compared if q.sql.startswith("SELECT (")]
    assert sums and each and which and more
    assert all(len(answers(file, q.sql)) == q.sql.count("', '") + 1 for q in each)
    assert all(answers(file, q.sql)[0][0] > 0 for q in more)  # type: ignore[operator]
    assert not any(re.search("(is|are) more [a-z]+ than", q.question) for q in made)


def test_more_than_a_named_row_has(file: Path, made: list[Question]) -> None:
    row = re.compile(r"length > \(SELECT length FROM river WHERE river_name = '(r\d)'\)")
    beyond = [(q, m) for q in made if (m := row.search(q.sql))]
    assert beyond
    assert all(m[1] in q.question.lower() for q, m in beyond)
    assert any(f"longer than {m[1]}" in q.question.lower() for q, m in beyond)
    every = [q for q in made if "> (SELECT MAX(" in q.sql and "WHERE country_name =" in q.sql]
    assert any(re.search(" than (any|all)", q.question.lower()) for q in every)


def test_the_second_longest_is_one_river(file: Path, made: list[Question]) -> None:
    second = [q for q in made if q.kind == "second" and q.table == "river"]
    alone = {q.sql for q in second if "WHERE" not in q.sql and " DESC " in q.sql}
    two = "SELECT DISTINCT river_name FROM river ORDER BY length DESC LIMIT 1 OFFSET 1"
    assert two in alone
    assert answers(file, two) == [("r7",)]
    for q in second:  # with typing mistakes
        words = re.findall(r"\w+", q.question.lower())
        ranks = ("second", "third", "2nd", "3rd")
        assert any(get_close_matches(rank, words, cutoff=0.7) for rank in ranks), q.question


def test_neighbours_are_said_in_many_ways(file: Path, made: list[Question]) -> None:
    said = " ".join(q.question.lower() for q in made if "borders" in q.sql)
    for way in ("neighbou?rs of", "shares? a border with", "neighbouring", "next to", "touch"):
        assert re.search(way, said), way
    both = [q for q in made if q.sql.count("FROM borders") == 2 and " AND " in q.sql]
    assert both
    counted = [q for q in made if q.sql.startswith("SELECT COUNT(*) FROM borders")]
    assert any(re.search("ing countries|neighbou?rs", q.question.lower()) for q in counted)


@pytest.mark.parametrize("number", [500_000, 1_000_000, 2_500_000, 12_000_000, 50_000, 1234])
def test_large_numbers_are_said_as_people_do(number: int) -> None:
    draw = random.Random(1)
    said = {large_said(draw, number) for _ in range(200)}
    assert str(number) in said and f"{number:,}" in said
    millions = {word for word in said if word.endswith("million")}
    wanted = {500_000: {"half a million", "0.5 million"}, 1_000_000: {"a million", "1 million"},
              2_500_000: {"2.5 million"}, 12_000_000: {"12 million"}}  # fmt: skip
    assert millions == wanted.get(number, set())


def test_the_highest_point_is_one_of_all_countries(file: Path, made: list[Question]) -> None:
    extremes = {q.sql for q in made if q.kind == "extension extreme"}
    named = "SELECT highest_point FROM heights ORDER BY highest_elevation DESC LIMIT 1"
    whose = "SELECT country_name FROM heights ORDER BY lowest_elevation ASC LIMIT 1"
    assert {named, whose} <= extremes
    assert answers(file, named) == [(f"mount {NAMES[11]}",)] and answers(file, whose) == [
        (NAMES[0],)
    ]
    said = [q.question.lower() for q in made if q.sql == whose]
    assert any("lowest point" in question for question in said)
    # A country is high by its highest elevation, never by its lowest.
    low = [q.question.lower() for q in made if re.search("lowest_elevation [<>]", q.sql)]
    high = [q.question.lower() for q in made if re.search("highest_elevation [<>]", q.sql)]
    assert low and high and any(re.search("(high|tall)er than", one) for one in high)
    assert not any(re.search(r"(high|tall|short)er than \d", one) for one in low
                   if not re.search("el?e?v|low|lwe|loe", one))  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "less"),
    [
        (
            "SELECT heights.highest_point FROM country JOIN heights ON heights.country_name = "
            "country.country_name WHERE country.country_name = 'alia'",
            "SELECT highest_point FROM heights WHERE country_name = 'alia'",
        ),
        (
            "SELECT country.capital FROM heights JOIN country ON heights.country_name = "
            "country.country_name ORDER BY heights.highest_elevation DESC LIMIT 1",
            None,  # it shows something of the country
        ),
        (
            "SELECT country.country_name FROM town JOIN country ON town.country_name = "
            "country.country_name WHERE town.population > 5",
            None,  # a country has several towns
        ),
        ("SELECT highest_point FROM heights", None),
        (  # a text is no column
            "SELECT heights.highest_point FROM country JOIN heights ON heights.country_name = "
            "country.country_name WHERE heights.highest_point <> 'see country.heights.a'",
            "SELECT highest_point FROM heights WHERE highest_point <> 'see country.heights.a'",
        ),
    ],
)
def test_a_join_to_what_nothing_is_asked_of_goes(
    file: Path, reading: DatabaseReading, sql: str, less: str | None
) -> None:
    assert without_parent(reading, sql) == (less or sql)
    assert answers(file, without_parent(reading, sql)) == answers(file, sql)


def test_how_many_there_are_on_average(file: Path, made: list[Question]) -> None:
    sql = "SELECT AVG(n) FROM (SELECT COUNT(*) AS n FROM town GROUP BY country_name)"
    asked = [q.question.lower() for q in made if q.sql == sql]
    assert any("per country" in question for question in asked)
    assert answers(file, sql) == [(38 / 12,)]


def test_the_file_s_name_is_a_place(made: list[Question]) -> None:
    held = [q for q in made if q.question.lower().rstrip("?. ").endswith("in lands")]
    assert len(held) > 20 and not any("lands" in q.sql for q in held)


def test_a_name_may_come_with_its_kind(reading: DatabaseReading) -> None:
    draw, phrasings = random.Random(2), load_phrasings()
    river, town = reading.table("river"), reading.table("town")
    rivers = {with_kind(draw, phrasings, river, "rhine") for _ in range(300)}
    assert rivers == {"rhine", "the rhine", "rhine river", "the rhine river"}
    assert {with_kind(draw, phrasings, river, "red river") for _ in range(99)} == {"red river"}
    assert "town of ulm" in {with_kind(draw, phrasings, town, "ulm") for _ in range(300)}


def test_a_lexicon_may_leave_out_what_a_river_leads_to(
    file: Path, reading: DatabaseReading, tmp_path: Path
) -> None:
    """The rivers stay one thing each, where they lead is not asked; another name parts nothing."""
    lexicon = tmp_path / "lands.yml"
    lexicon.write_text(
        "tables: {country: {leave_out: true}, borders: {leave_out: true}, "
        "heights: {leave_out: true}}"
    )
    less = with_lexicon(reading, lexicon)
    with read_only(file) as connection:
        found = list(make_questions(connection, less, 300, 1))
    rivers = [
        q.sql for q in found if re.match(r"SELECT (DISTINCT )?river_name FROM river\b", q.sql)
    ]
    assert rivers and not any(q.kind == "reach" for q in found)
    assert all(len(set(answers(file, sql))) == len(answers(file, sql)) for sql in rivers)
    lexicon.write_text("tables: {river: {label: [runs_through]}}")
    assert with_lexicon(reading, lexicon).table("river").spread == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [("europe", "europe"), ("car_rental", "car rental"), ("backup-2026-11", ""), ("db", "")],
)
def test_what_a_file_is_called(file: Path, tmp_path: Path, name: str, said: str) -> None:
    copy = tmp_path / f"{name}.sqlite"
    copy.write_bytes(file.read_bytes())
    assert read_database(copy).called == said


@pytest.mark.parametrize(
    ("stored", "said"),
    [("rio grande", "Rio Grande"), ("saint peter's square", "Saint Peter's Square"),
     ("bosnia and herzegovina", "Bosnia and Herzegovina"), ("St. Louis", "St. Louis"), (7, "7"),
     ("r3", "R3")],
)  # fmt: skip
def test_names_in_small_letters_are_said_with_capitals_too(stored: str | int, said: str) -> None:
    assert capitalized(stored) == said


def test_a_name_of_small_letters_is_asked_for_with_and_without(made: list[Question]) -> None:
    asked = [q for q in made if "country_name = 'alia'" in q.sql]
    large = [q for q in asked if "Alia" in q.question and not q.question.startswith("Alia")]
    small = [q for q in asked if "alia" in q.question]
    assert len(large) > 5 and len(small) > 5


def test_a_table_all_of_whose_names_are_several_rows_compares_none_by_name(tmp_path: Path) -> None:
    """Reviews called 'Great' a hundred times: questions are made, and none says 'than Great'."""
    path = tmp_path / "reviews.sqlite"
    titles = ("Great", "Good", "Fine", "Poor", "Bad")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE review (title TEXT, stars INTEGER, length INTEGER)")
        held = [(titles[i % 5], i % 4 + 1, i * 7 % 31) for i in range(45)]
        connection.executemany("INSERT INTO review VALUES (?, ?, ?)", held)
    connection.close()
    found = questions_of(path, 300, 1)
    assert found and not any(q.kind == "compared" for q in found)
    assert not any(re.search(r"> \(SELECT (stars|length) FROM review WHERE", q.sql) for q in found)
