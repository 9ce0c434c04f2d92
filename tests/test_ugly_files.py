"""Files as old programs leave them: names with a kind in front, -1 for yes, dates in any form."""

from __future__ import annotations

import datetime
import random
import re
import sqlite3
from pathlib import Path

import pytest
from conftest import questions_of

from gemma_lora.column_sql import iso_date, plain
from gemma_lora.date_conditions import DAILY, daily_condition, day_said
from gemma_lora.grammar import Grammar
from gemma_lora.questions import Question
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only
from gemma_lora.value_wording import kind_noun
from gemma_lora.wording import MONTHS, load_phrasings, unmarked

CLINIC = """
CREATE TABLE tblOwner (OwnerID INTEGER PRIMARY KEY, sTitle TEXT, sFName TEXT, sLName TEXT,
  sTown TEXT, fMailList INTEGER);
CREATE TABLE tblPatient (PatID INTEGER PRIMARY KEY, OwnerID INTEGER, sPatName TEXT,
  sSpecies TEXT, sBreed TEXT, nWeight REAL, fDeceased INTEGER);
CREATE TABLE tblMedStock (MedID INTEGER PRIMARY KEY, sMedName TEXT, nQtyHand INTEGER,
  curSellPrice REAL);
CREATE TABLE tblVisit (VisitID INTEGER PRIMARY KEY, PatID INTEGER, dtVisit TEXT, nTempC REAL);
CREATE TABLE tblInv (InvNo INTEGER PRIMARY KEY, VisitID INTEGER, curTotal REAL, fPaid INTEGER,
  sPayMeth TEXT);
"""
SPECIES = ("Dog", "Cat", "Guinea Pig")
FORMS = {  # a day as files store it
    "iso": "%Y-%m-%d",
    "timed": "%Y-%m-%d 09:30:00",
    "dotted": "%d.%m.%Y",
    "slashed": "%d/%m/%Y",
    "first_month": "%m/%d/%Y",
    "compact": "%Y%m%d",
    "month_year": "%m/%Y",
}
DAYS = [datetime.date(2022, 1, 1) + datetime.timedelta(days=11 * i) for i in range(80)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 owners, 60 animals, 20 medicines, 80 visits."""
    path = tmp_path_factory.mktemp("clinic") / "clinic.sqlite"
    firsts, lasts = ("Ann", "Bob", "Cem", "Dee", "Eva"), ("Moss", "Hill", "Vale", "Ford")
    with sqlite3.connect(path) as connection:
        connection.executescript(CLINIC)
        connection.executemany(
            "INSERT INTO tblOwner VALUES (?, ?, ?, ?, ?, ?)",
            [(i + 1, ("Mr", "Mrs", "Dr", "Ms", "Prof")[i % 5], firsts[i // 4 % 5], lasts[i % 4],
              ("Oxley", "Denby")[i % 2], -(i % 3 == 0)) for i in range(40)],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO tblPatient VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(i + 1, i % 40 + 1, f"Pet {chr(65 + i % 26)}{i}", SPECIES[i % 3], f"Breed {i % 7}",
              1.5 + i, -(i % 9 == 0)) for i in range(60)],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO tblMedStock VALUES (?, ?, ?, ?)",
            [(i + 1, f"Mixture {chr(65 + i)}", 5 * i, 0.5 + i) for i in range(20)],
        )
        connection.executemany(
            "INSERT INTO tblVisit VALUES (?, ?, ?, ?)",
            [(i + 1, i % 60 + 1, f"{day} 10:00:00", 38 + i % 5 / 10) for i, day in enumerate(DAYS)],
        )
        connection.executemany(
            "INSERT INTO tblInv VALUES (?, ?, ?, ?, ?)",
            [(900 + i, i + 1, 20 + 7.5 * i, -(i % 4 > 0), ("Cash", "Card")[i % 2])
             for i in range(70)],
        )  # fmt: skip
    connection.close()
    return path


@pytest.fixture(scope="module")
def made(file: Path) -> list[Question]:
    return questions_of(file, 3_000, 4)


def test_an_old_program_s_tables_are_read_as_people_call_them(reading: DatabaseReading) -> None:
    owner, animal = reading.table("tblOwner"), reading.table("tblPatient")
    assert owner.label == ("sFName", "sLName"), "not the title, of which there are five"
    assert owner.column("fMailList").role == animal.column("fDeceased").role == "flag"
    assert animal.words == ("patient", "animal", "pet")
    assert reading.table("tblMedStock").words == ("medicine", "medicine stock")
    assert reading.table("tblMedStock").column("nQtyHand").words[0] == "stock"
    assert reading.table("tblVisit").column("nTempC").words[0] == "temperature"


def test_what_has_a_key_of_its_own_is_asked_about(made: list[Question]) -> None:
    # Each visit has one invoice at most, and yet an invoice is no mere further word about a visit.
    bills = [q for q in made if q.sql.startswith("SELECT") and "FROM tblInv" in q.sql]
    assert len(bills) > 0.03 * len(made)
    owned = [q for q in bills if "JOIN tblOwner" in q.sql and "sLName = '" in q.sql]
    assert owned and all("JOIN tblVisit" in q.sql and "JOIN tblPatient" in q.sql for q in owned)


def test_how_something_is_paid_is_no_pay(made: list[Question]) -> None:
    assert not [q for q in made if "SELECT sPayMeth" in q.sql and "earn" in q.question]


def test_a_percentage_is_of_all_rows(file: Path, made: list[Question]) -> None:
    shares = [q for q in made if q.kind == "share"]
    assert len({q.sql for q in shares}) > 5
    with read_only(file) as connection:
        for one in shares:
            of = re.fullmatch(r"SELECT 100.0 \* SUM\((.*)\) / COUNT\(\*\) FROM (\w+)", one.sql)
            assert of is not None, one.sql
            (found,) = connection.execute(one.sql).fetchone()
            some, every = connection.execute(
                f"SELECT (SELECT count(*) FROM {of[2]} WHERE {of[1]}), count(*) FROM {of[2]}"
            ).fetchone()
            assert found == pytest.approx(100 * some / every), one


def test_yes_is_minus_one_where_the_file_says_so(made: list[Question]) -> None:
    deceased = [q for q in made if "fDeceased" in q.sql and q.kind in ("count", "list")]
    yes = [q for q in deceased if q.sql.endswith("WHERE fDeceased = -1")]
    assert yes and len(yes) < len(deceased)
    no = re.compile(
        r"\b(not|no(?!\.)|non|never|without|isn't|aren't)\b|un-?deceased|non-deceased|undec"
    )
    said = [q.question.lower().replace("no longer alive", "") for q in yes]
    assert not [question for question in said if no.search(question)]


def test_a_date_that_is_not_named_is_that_of_what_is_asked_for(made: list[Question]) -> None:
    # 'visits of vets in 2022' means the visits' year, not the year in which the vets began.
    bare = re.compile(r"(?:\bin|since|before|after) (?:\w+ )?20\d\d")
    visits = [q for q in made if "FROM tblVisit" in q.sql and q.kind in ("count", "list")]
    dated = [q for q in visits if bare.search(q.question)]
    assert dated and all("dtVisit" in q.sql for q in dated)


def test_what_was_done_is_dated(made: list[Question]) -> None:
    counted = [q for q in made if q.kind == "last of row"]
    assert counted and all(re.match(r"SELECT M(AX|IN)\(dtVisit\)", q.sql) for q in counted)


def test_the_commonest_three_have_no_rivals(file: Path, made: list[Question]) -> None:
    tops = [q for q in made if q.kind == "top groups"]
    assert tops
    with read_only(file) as connection:
        for one in tops:
            body, _, limit = one.sql.rpartition(" LIMIT ")
            counts = re.sub(r"SELECT .*? FROM", "SELECT COUNT(*) FROM", body, count=1)
            numbers = [n for (n,) in connection.execute(counts)]
            assert len(numbers) <= int(limit) or numbers[int(limit) - 1] > numbers[int(limit)]


def test_a_species_is_a_noun(made: list[Question]) -> None:
    dogs = [q for q in made if re.search(r"\b(all|many|which|the) dogs\b", q.question.lower())]
    assert dogs and all("sSpecies = 'Dog'" in q.sql for q in dogs)


@pytest.mark.parametrize(
    ("words", "value", "noun"),
    [
        (("species",), "Guinea Pig", "guinea pig"),
        (("category",), "Mountain Bikes", "mountain bike"),
        (("category",), "E-Bikes", "e-bike"),
        (("category",), "Imported", ""),
        (("colour",), "Dogs", ""),
        (("type",), "A/C units", ""),
    ],
)
def test_what_is_a_noun(file: Path, words: tuple[str, ...], value: str, noun: str) -> None:
    assert kind_noun(grammar(file), words, value).lower() == noun


def grammar(file: Path) -> Grammar:
    """One to draw from."""
    return Grammar(read_database(file), load_phrasings(), random.Random(7), {}, [])


@pytest.fixture(scope="module")
def calendar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same days in one table for each form."""
    path = tmp_path_factory.mktemp("calendar") / "calendar.sqlite"
    with sqlite3.connect(path) as connection:
        for name, form in FORMS.items():
            connection.execute(f"CREATE TABLE {name} (number INTEGER, dtHeld TEXT)")
            connection.executemany(
                f"INSERT INTO {name} VALUES (?, ?)",
                [(i, day.strftime(form)) for i, day in enumerate(DAYS)],
            )
        connection.execute("CREATE TABLE epoch (number INTEGER, held_at INTEGER)")
        connection.executemany(
            "INSERT INTO epoch VALUES (?, unixepoch(?, '+9 hours'))",
            [(i, day.isoformat()) for i, day in enumerate(DAYS)],
        )
        connection.execute("CREATE TABLE numbered (number INTEGER, dtHeld INTEGER)")
        connection.executemany(
            "INSERT INTO numbered VALUES (?, ?)",
            [(i, int(day.strftime("%Y%m%d"))) for i, day in enumerate(DAYS)],
        )
    connection.close()
    return path


def meant(kind: str, said: dict[str, str], day: datetime.date) -> list[datetime.date]:
    """The days that the words of a condition mean."""
    months = [m[:3].lower() for m in MONTHS]
    if kind == "weekday":
        return [d for d in DAYS if d.strftime("%A") == unmarked(said["weekday"])]
    if kind == "day":
        return [d for d in DAYS if d == day]
    if kind.endswith("_day"):
        keep = {"after": day.__lt__, "since": day.__le__, "before": day.__gt__}
        return [d for d in DAYS if keep[kind.partition("_")[0]](d)]
    year = int(unmarked(said["n"]))
    if kind == "quarter":
        return [d for d in DAYS if d.year == year and f"Q{(d.month + 2) // 3}" == said["q"]]
    first = (year, months.index(unmarked(said["month"])[:3].lower()) + 1)
    if kind == "before_month":
        return [d for d in DAYS if (d.year, d.month) < first]
    last = (9999, 1)
    if "month2" in said:
        last = (year, months.index(unmarked(said["month2"])[:3].lower()) + 1)
    return [d for d in DAYS if first <= (d.year, d.month) <= last]


@pytest.mark.parametrize("kind", DAILY)
def test_a_condition_on_days_holds_for_the_days_it_says(calendar: Path, kind: str) -> None:
    g = grammar(calendar)
    tables = [*FORMS, "epoch", "numbered"]
    with read_only(calendar) as connection:
        for name in tables:
            table = g.reading.table(name)
            column = next(c for c in table.columns if c.role == "date")
            if column.form == "month year" and "day" in kind:
                continue  # it has no days
            if kind == "weekday" and column.form not in ("iso", "unix"):
                continue
            for index in (0, 7, 19, len(column.values) - 1):
                said, where = daily_condition(g, table, column, kind, column.values[index])
                day = datetime.date.fromisoformat(iso_date(column, column.values[index]))
                sql = plain(f"SELECT number FROM {name} WHERE {where} ORDER BY number", 1)
                found = [DAYS[row[0]] for row in connection.execute(sql)]
                assert found == meant(kind, said, day), (name, said, sql)


def test_days_are_said_as_people_write_them(file: Path) -> None:
    g = grammar(file)
    said = {day_said(g, datetime.date(2024, 3, 21)) for _ in range(400)}
    for form in ("21 March 2024", "March 21st, 2024", "the 21st of March 2024", "2024-03-21"):
        assert form in said
    eleventh = {day_said(g, datetime.date(2024, 3, 11)) for _ in range(100)}
    assert not any("11st" in form for form in eleventh)
