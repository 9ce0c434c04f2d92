"""Write the bundled text-to-SQL sample: small schemas, questions, gold queries for SQLite.

    python tests/make_sample_sql.py --seed 7 --output data/sample_sql.jsonl

Each schema is a literal below: its tables, the pools its rows are drawn from, and queries written
for it alone. Templates add the queries that every schema shares. A row is kept only when its gold
runs, answers something, does not depend on the order of the stored rows, and changes when a clause
of it is dropped. The same seed writes the same bytes; a requirement that is not met raises
SystemExit and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sqlite3
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROWS_PER_SCHEMA = 30
MAX_ATTEMPTS = 600  # tries at drawing rows for which all of a schema's own queries answer
MIN_ROWS, MIN_SCHEMAS, MIN_SKELETONS = 900, 30, 120
MAX_SKELETON_SHARE = 0.05
# Reading and counting is what a small model learns in minutes and what people ask for most.
EASY_WEIGHT = {"b": 4, "a": 4}
MIN_UNSEEN = 15  # skeletons that any three held-apart schemas must have to themselves

COMPLEXITY = {
    "b": "basic SQL",
    "a": "aggregation",
    "j": "single join",
    "m": "multiple_joins",
    "s": "subqueries",
    "w": "window functions",
    "o": "set operations",
}
LEVELS = frozenset(  # words of columns whose total means nothing
    "year age rate rating score altitude temp floor price turnout painted number moisture".split()
)
NOT_PLURAL = frozenset({"species", "status"})
SQL_WORDS = frozenset(
    "SELECT FROM WHERE AND OR NOT IN IS NULL LIKE BETWEEN EXISTS AS ON JOIN LEFT CROSS GROUP BY "
    "HAVING ORDER ASC DESC LIMIT OFFSET DISTINCT ALL UNION INTERSECT EXCEPT WITH CASE WHEN THEN "
    "ELSE END OVER PARTITION ROWS PRECEDING FOLLOWING CURRENT ROW UNBOUNDED FILTER CAST INTEGER "
    "REAL TEXT COUNT SUM AVG MIN MAX ROUND ABS LENGTH UPPER LOWER SUBSTR REPLACE TRIM COALESCE "
    "IFNULL NULLIF IIF STRFTIME DATE JULIANDAY GROUP_CONCAT INSTR RANK DENSE_RANK ROW_NUMBER LAG "
    "LEAD NTILE FIRST_VALUE LAST_VALUE TOTAL USING".split()
)
TOKEN = re.compile(r"'(?:[^']|'')*'|\d+(?:\.\d+)?|\w+|<>|<=|>=|\|\||[^\s\w]")


def skeleton(sql: str) -> str:
    """A query's shape: literals become `?`, identifiers `_`; SQL words and functions stay."""

    def mask(token: str) -> str:
        if token[0] == "'" or token[0].isdigit():
            return "?"
        if token[0].isalpha() or token[0] == "_":
            return token.upper() if token.upper() in SQL_WORDS else "_"
        return token

    return " ".join(mask(token) for token in TOKEN.findall(sql) if token != ";")


# --- How a schema is written down ---------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column and where its values come from; `kind` also says which template slots it fits."""

    name: str
    kind: str  # label | category | whole | real | date | ref
    pool: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    null: bool = False

    @property
    def sql_type(self) -> str:
        types = {"whole": "INTEGER", "real": "REAL", "date": "DATE", "ref": "INTEGER"}
        return types.get(self.kind, "TEXT")

    @property
    def adds_up(self) -> bool:
        """Whether a total of the column means something."""
        return not LEVELS & set(self.name.split("_"))


@dataclass(frozen=True)
class Table:
    """A table; its SQL name is the plural with underscores, its key is always `id`."""

    one: str
    many: str
    columns: tuple[Column, ...]
    rows: int

    @property
    def name(self) -> str:
        return self.many.replace(" ", "_")


@dataclass(frozen=True)
class Query:
    """A query written for one schema: complexity letter, question, gold."""

    complexity: str
    question: str
    sql: str


@dataclass(frozen=True)
class Schema:
    domain: str
    tables: tuple[Table, ...]
    queries: tuple[Query, ...]


def label(name: str, pool: str, null: bool = False) -> Column:
    """Text that differs in every row, such as a name."""
    return Column(name, "label", tuple(pool.split("|")), null=null)


def category(name: str, pool: str, null: bool = False) -> Column:
    """Text that repeats, such as a country."""
    return Column(name, "category", tuple(pool.split("|")), null=null)


def whole(name: str, low: int, high: int, null: bool = False) -> Column:
    return Column(name, "whole", low=low, high=high, null=null)


def real(name: str, low: float, high: float, null: bool = False) -> Column:
    return Column(name, "real", low=low, high=high, null=null)


def date(name: str, low: int, high: int, null: bool = False) -> Column:
    """Days of the years low to high, as 'YYYY-MM-DD'."""
    return Column(name, "date", low=low, high=high, null=null)


def ref(one: str, many: str, null: bool = False) -> Column:
    """A key of the table `many`, named `<one>_id`; some keys are never used."""
    return Column(f"{one.replace(' ', '_')}_id", "ref", (many,), null=null)


def table(one: str, many: str, *columns: Column, rows: int = 13) -> Table:
    """As many rows as the label has values, else `rows`."""
    labels = [len(column.pool) for column in columns if column.kind == "label"]
    return Table(one, many, columns, min(labels, default=rows))


def schema(domain: str, *tables: Table, queries: Sequence[tuple[str, str, str]]) -> Schema:
    return Schema(domain, tables, tuple(Query(*query) for query in queries))


# --- The schemas --------------------------------------------------------------------------------

# fmt: off
SCHEMAS: tuple[Schema, ...] = (
    schema(
        "library",
        table("author", "authors",
              label("name", "Ana Reis|Tom Hale|Mei Lin|Omar Said|Ruth Beck|Ivo Kral|Lena Voss"),
              category("country", "Portugal|Chile|Japan"),
              whole("birth_year", 1935, 1990, null=True)),
        table("book", "books",
              label("title", "Salt Roads|The Glass Hour|Northern Light|Quiet Rivers|A Borrowed "
                             "Coat|Stone Garden|Paper Moons|The Last Ferry|Winter Bread|Small "
                             "Fires|Second Harbor|The Kite Maker"),
              category("genre", "Novel|Poetry|History|Travel"),
              whole("pages", 90, 620),
              real("price", 6, 42),
              ref("author", "authors")),
        queries=[
            ("b", "List the title and pages of the books in the genre 'Novel' or 'Travel' that "
             "cost less than 35.",
             "SELECT title, pages FROM books WHERE genre IN ('Novel', 'Travel') AND price < 35;"),
            ("a", "What is the average price per page over all books?",
             "SELECT AVG(price / pages) FROM books;"),
            ("b", "List the title of every book that starts with 'The', longest book first.",
             "SELECT title FROM books WHERE title LIKE 'The %' ORDER BY pages DESC;"),
            ("j", "List the title and author name of the books by authors born before 1970.",
             "SELECT books.title, authors.name FROM books JOIN authors ON books.author_id = "
             "authors.id WHERE authors.birth_year < 1970;"),
            ("a", "Which genres have books with more than 700 pages in total? Give the genre "
             "and the total, highest total first.",
             "SELECT genre, SUM(pages) FROM books GROUP BY genre HAVING SUM(pages) > 700 ORDER "
             "BY SUM(pages) DESC;"),
            ("s", "List the name of every author who has a book longer than 400 pages, "
             "alphabetically.",
             "SELECT name FROM authors WHERE id IN (SELECT author_id FROM books WHERE pages > "
             "400) ORDER BY name;"),
            ("b", "List the title of each book and its price times 0.9.",
             "SELECT title, price * 0.9 FROM books;"),
            ("a", "How many books have both more than 300 pages and a price under 30?",
             "SELECT COUNT(*) FROM books WHERE pages > 300 AND price < 30;"),
        ],
    ),
    schema(
        "coffee_shop",
        table("drink", "drinks",
              label("name", "Espresso|Flat White|Cold Brew|Mocha|Chai Latte|Green Tea|Cortado|"
                            "Cocoa"),
              category("size", "small|medium|large"),
              real("price", 2, 7),
              whole("calories", 5, 380, null=True)),
        table("sale", "sales",
              ref("drink", "drinks"),
              whole("quantity", 1, 9),
              date("sale_date", 2022, 2023),
              category("branch", "Harbor|Station|Market")),
        queries=[
            ("j", "What is the total revenue, price times quantity, of the branch 'Harbor'?",
             "SELECT SUM(drinks.price * sales.quantity) FROM sales JOIN drinks ON "
             "sales.drink_id = drinks.id WHERE sales.branch = 'Harbor';"),
            ("a", "List each branch with the number of different drinks it sold.",
             "SELECT branch, COUNT(DISTINCT drink_id) FROM sales GROUP BY branch;"),
            ("b", "List the name of every drink with its price rounded to a whole number.",
             "SELECT name, ROUND(price) FROM drinks;"),
            ("b", "List the name of the drinks in the size 'small' or 'medium' with known "
             "calories.",
             "SELECT name FROM drinks WHERE (size = 'small' OR size = 'medium') AND calories IS "
             "NOT NULL;"),
            ("a", "List each branch with the date of its first sale and of its last sale.",
             "SELECT branch, MIN(sale_date), MAX(sale_date) FROM sales GROUP BY branch;"),
            ("w", "List the branch, sale date and quantity of every sale with a running total "
             "of quantity within its branch by sale date.",
             "SELECT branch, sale_date, quantity, SUM(quantity) OVER (PARTITION BY branch ORDER "
             "BY sale_date) FROM sales;"),
            ("a", "How many sales of at least 3 items were made in the month 2022-06 or later?",
             "SELECT COUNT(*) FROM sales WHERE quantity >= 3 AND strftime('%Y-%m', sale_date) "
             ">= '2022-06';"),
            ("s", "List the name and price of the drinks that cost more than the 'Mocha'.",
             "SELECT name, price FROM drinks WHERE price > (SELECT price FROM drinks WHERE name "
             "= 'Mocha');"),
        ],
    ),
    schema(
        "hospital",
        table("doctor", "doctors",
              label("name", "Dr. Amara|Dr. Bloom|Dr. Castro|Dr. Dietz|Dr. Egan|Dr. Fujita"),
              category("specialty", "Cardiology|Pediatrics|Surgery"),
              whole("years_employed", 1, 30)),
        table("patient", "patients",
              label("name", "Nora Pell|Sam Ortiz|Ivy Chen|Leo Brandt|Zoe Adler|Max Okoro|Eva "
                            "Lund|Hugo Sala|Mia Ross|Ben Katz"),
              category("city", "Lisbon|Porto|Braga"),
              date("birth_date", 1950, 2010),
              label("phone", "555-0101|555-0102|555-0103|555-0104|555-0105|555-0106|555-0107|"
                             "555-0108|555-0109|555-0110", null=True)),
        table("visit", "visits",
              ref("doctor", "doctors"),
              ref("patient", "patients"),
              date("visit_date", 2021, 2023),
              real("cost", 30, 400)),
        queries=[
            ("b", "List the name and birth date of the patients in the city 'Lisbon' who were "
             "born before 1990-01-01, oldest first.",
             "SELECT name, birth_date FROM patients WHERE city = 'Lisbon' AND birth_date < "
             "'1990-01-01' ORDER BY birth_date;"),
            ("m", "Which different cities do the patients of the doctor 'Dr. Castro' come from?",
             "SELECT DISTINCT patients.city FROM visits JOIN doctors ON visits.doctor_id = "
             "doctors.id JOIN patients ON visits.patient_id = patients.id WHERE doctors.name = "
             "'Dr. Castro';"),
            ("m", "What is the total cost of the visits for each doctor specialty and patient "
             "city? Give specialty, city and total.",
             "SELECT doctors.specialty, patients.city, SUM(visits.cost) FROM visits JOIN "
             "doctors ON visits.doctor_id = doctors.id JOIN patients ON visits.patient_id = "
             "patients.id GROUP BY doctors.specialty, patients.city;"),
            ("w", "List the patient id, visit date and the date of that patient's previous "
             "visit for every visit.",
             "SELECT patient_id, visit_date, LAG(visit_date) OVER (PARTITION BY patient_id "
             "ORDER BY visit_date) FROM visits;"),
            ("a", "What is the average cost of the visits in the year 2022, rounded to 2 "
             "decimals?",
             "SELECT ROUND(AVG(cost), 2) FROM visits WHERE strftime('%Y', visit_date) = '2022';"),
            ("s", "List the name of every patient who never saw a doctor with the specialty "
             "'Surgery'.",
             "SELECT name FROM patients WHERE id NOT IN (SELECT visits.patient_id FROM visits "
             "JOIN doctors ON visits.doctor_id = doctors.id WHERE doctors.specialty = "
             "'Surgery');"),
            ("b", "List the name and phone of the patients with a phone who live in the city "
             "'Porto'.",
             "SELECT name, phone FROM patients WHERE phone IS NOT NULL AND city = 'Porto';"),
            ("a", "Which doctor ids have at least 2 visits that cost over 150? Give the doctor "
             "id.",
             "SELECT doctor_id FROM visits WHERE cost > 150 GROUP BY doctor_id HAVING COUNT(*) "
             ">= 2;"),
        ],
    ),
    schema(
        "school",
        table("teacher", "teachers",
              label("name", "Mr. Abbott|Ms. Bauer|Mr. Chu|Ms. Dunn|Mr. Evers|Ms. Farah"),
              category("subject", "Maths|Biology|Music")),
        table("course", "courses",
              label("title", "Algebra|Geometry|Cell Life|Choir|Statistics|Botany|Piano"),
              category("level", "beginner|advanced"),
              whole("credits", 2, 8),
              ref("teacher", "teachers")),
        table("grade", "grades",
              category("student", "Alia|Boris|Carla|Dmitri|Elif"),
              ref("course", "courses"),
              whole("score", 40, 100, null=True),
              date("exam_date", 2021, 2022)),
        queries=[
            ("a", "List each student with the average score rounded to 1 decimal, best average "
             "first.",
             "SELECT student, ROUND(AVG(score), 1) FROM grades GROUP BY student ORDER BY "
             "AVG(score) DESC;"),
            ("b", "List the student and score of every grade with a score of 50 or less or of "
             "90 or more.",
             "SELECT student, score FROM grades WHERE score <= 50 OR score >= 90;"),
            ("a", "How many grades of each student are a pass, that is a score of at least 60? "
             "Give the student and the count, zero included.",
             "SELECT student, SUM(CASE WHEN score >= 60 THEN 1 ELSE 0 END) FROM grades GROUP BY "
             "student;"),
            ("m", "List the student and the course title of every grade given in a course of "
             "the teacher subject 'Maths'.",
             "SELECT grades.student, courses.title FROM grades JOIN courses ON grades.course_id "
             "= courses.id JOIN teachers ON courses.teacher_id = teachers.id WHERE "
             "teachers.subject = 'Maths';"),
            ("j", "For each course level, give the level and the highest and lowest score.",
             "SELECT courses.level, MAX(grades.score), MIN(grades.score) FROM grades JOIN "
             "courses ON grades.course_id = courses.id GROUP BY courses.level;"),
            ("j", "List the name of each teacher and the total credits of their courses, 0 for "
             "teachers without courses.",
             "SELECT teachers.name, COALESCE(SUM(courses.credits), 0) FROM teachers LEFT JOIN "
             "courses ON courses.teacher_id = teachers.id GROUP BY teachers.name;"),
            ("o", "Which students have a grade above 80 but no grade below 60?",
             "SELECT student FROM grades WHERE score > 80 EXCEPT SELECT student FROM grades "
             "WHERE score < 60;"),
            ("b", "List the title of the courses with more than 3 credits, most credits first "
             "and ties by title.",
             "SELECT title FROM courses WHERE credits > 3 ORDER BY credits DESC, title;"),
        ],
    ),
    schema(
        "airline",
        table("airport", "airports",
              label("code", "LUN|MAR|OST|POR|QUI|RIM"),
              label("city", "Lunden|Marvik|Oster|Portel|Quill|Rimsa"),
              category("country", "Norland|Sudia|Estavia"),
              whole("runways", 1, 5)),
        table("flight", "flights",
              label("flight_number", "TA101|TA102|TA215|TA220|TA307|TA318|TA404|TA411|TA502|"
                                     "TA519|TA600|TA623"),
              ref("airport", "airports"),
              date("departure_date", 2023, 2023),
              whole("seats", 80, 320),
              whole("delay_minutes", 0, 90, null=True)),
        queries=[
            ("a", "For each month of the departure date, as a two-digit number, give the month "
             "and the number of flights, in month order.",
             "SELECT strftime('%m', departure_date), COUNT(*) FROM flights GROUP BY "
             "strftime('%m', departure_date) ORDER BY strftime('%m', departure_date);"),
            ("b", "List the flight number and delay minutes of the flights with a known delay, "
             "longest delay first and ties by flight number.",
             "SELECT flight_number, delay_minutes FROM flights WHERE delay_minutes IS NOT NULL "
             "ORDER BY delay_minutes DESC, flight_number;"),
            ("a", "What share of the flights with a known delay was delayed by more than 15 "
             "minutes? Give a fraction between 0 and 1.",
             "SELECT AVG(delay_minutes > 15) FROM flights;"),
            ("j", "List the flight number and airport city of the flights to an airport in the "
             "country 'Norland' or 'Sudia' with over 100 seats.",
             "SELECT flights.flight_number, airports.city FROM flights JOIN airports ON "
             "flights.airport_id = airports.id WHERE airports.country IN ('Norland', 'Sudia') "
             "AND flights.seats > 100;"),
            ("s", "List the flight number of the flights that have more seats than every flight "
             "to the airport with code 'MAR'.",
             "SELECT flight_number FROM flights WHERE seats > (SELECT MAX(flights.seats) FROM "
             "flights JOIN airports ON flights.airport_id = airports.id WHERE airports.code = "
             "'MAR');"),
            ("b", "List the city and code of each airport as one text, the city followed by a "
             "space and the code.",
             "SELECT city || ' ' || code FROM airports;"),
            ("a", "How many flights depart from 2023-03-01 to 2023-09-30 with fewer than 250 "
             "seats?",
             "SELECT COUNT(*) FROM flights WHERE departure_date BETWEEN '2023-03-01' AND "
             "'2023-09-30' AND seats < 250;"),
            ("j", "Which airports have no flight with more than 150 seats? Give the city.",
             "SELECT airports.city FROM airports LEFT JOIN flights ON flights.airport_id = "
             "airports.id AND flights.seats > 150 WHERE flights.id IS NULL;"),
        ],
    ),
    schema(
        "bank",
        table("customer", "customers",
              label("name", "Paula Fry|Kofi Mensah|Lars Holm|Rita Sosa|Jun Park|Ella Moss|Adam "
                            "Wolf|Sana Iqbal"),
              category("city", "Oslo|Bergen|Narvik"),
              date("joined_date", 2012, 2020)),
        table("account", "accounts",
              ref("customer", "customers"),
              category("type", "savings|checking|loan"),
              real("balance", -500, 9000)),
        table("payment", "payments",
              ref("account", "accounts"),
              real("amount", 5, 900),
              date("payment_date", 2022, 2023),
              category("note", "rent|food|travel", null=True)),
        queries=[
            ("a", "What is the sum of the positive balances per account type? Give type and sum.",
             "SELECT type, SUM(balance) FROM accounts WHERE balance > 0 GROUP BY type;"),
            ("b", "List the id and type of the accounts with a balance below 0.",
             "SELECT id, type FROM accounts WHERE balance < 0;"),
            ("m", "List each customer name and the total amount paid from all their accounts, "
             "for customers with payments.",
             "SELECT customers.name, SUM(payments.amount) FROM payments JOIN accounts ON "
             "payments.account_id = accounts.id JOIN customers ON accounts.customer_id = "
             "customers.id GROUP BY customers.name;"),
            ("w", "List the payment date, the amount and the running total of the amount of all "
             "payments in order of payment date.",
             "SELECT payment_date, amount, SUM(amount) OVER (ORDER BY payment_date) FROM "
             "payments;"),
            ("a", "What is the total amount of the payments with the note 'rent' and the total "
             "of those with the note 'food', as two columns?",
             "SELECT SUM(CASE WHEN note = 'rent' THEN amount END), SUM(CASE WHEN note = 'food' "
             "THEN amount END) FROM payments;"),
            ("s", "List the name of the customers who have an account of type 'savings' and "
             "also one of type 'loan'.",
             "SELECT name FROM customers WHERE id IN (SELECT customer_id FROM accounts WHERE "
             "type = 'savings') AND id IN (SELECT customer_id FROM accounts WHERE type = "
             "'loan');"),
            ("a", "List each note, with 'none' for a missing one, and its number of payments.",
             "SELECT COALESCE(note, 'none'), COUNT(*) FROM payments GROUP BY COALESCE(note, "
             "'none');"),
            ("b", "List the amount and payment date of the 4 latest payments, newest first.",
             "SELECT amount, payment_date FROM payments ORDER BY payment_date DESC LIMIT 4;"),
        ],
    ),
    schema(
        "museum",
        table("artist", "artists",
              label("name", "Vera Stahl|Pio Nandi|Greta Hume|Tadeo Ruiz|Anouk Leroy|Bram Visser|"
                            "Suki Mori"),
              category("country", "Spain|Netherlands|Japan"),
              whole("death_year", 1890, 1990, null=True)),
        table("painting", "paintings",
              label("title", "Blue Barn|Evening Market|Two Herons|The Ladder|Red Field|Harbor "
                             "Fog|The Violinist|Orange Peel|Snow Gate|Still Water|Lemon Tree"),
              ref("artist", "artists"),
              whole("year_painted", 1860, 1960),
              real("height_cm", 20, 220),
              real("width_cm", 20, 220),
              category("room", "East|West|North", null=True)),
        queries=[
            ("b", "List the title and area, height times width in cm, of every painting.",
             "SELECT title, height_cm * width_cm FROM paintings;"),
            ("b", "List the title of the paintings that are wider than they are high.",
             "SELECT title FROM paintings WHERE width_cm > height_cm;"),
            ("j", "List the title of each painting made after the death year of its artist.",
             "SELECT paintings.title FROM paintings JOIN artists ON paintings.artist_id = "
             "artists.id WHERE paintings.year_painted > artists.death_year;"),
            ("a", "For each decade, the year painted rounded down to a multiple of 10, give the "
             "decade and the number of paintings.",
             "SELECT year_painted / 10 * 10, COUNT(*) FROM paintings GROUP BY year_painted / 10 "
             "* 10;"),
            ("a", "Which rooms hold more than 1 painting higher than 60 cm? Give the room and "
             "the count, known rooms only.",
             "SELECT room, COUNT(*) FROM paintings WHERE room IS NOT NULL AND height_cm > 60 "
             "GROUP BY room HAVING COUNT(*) > 1;"),
            ("s", "List the title and year painted of the oldest painting of each artist.",
             "SELECT title, year_painted FROM paintings AS p WHERE year_painted = (SELECT "
             "MIN(year_painted) FROM paintings WHERE artist_id = p.artist_id);"),
            ("b", "List the name of the artists whose name has the letters 'ra' in it or whose "
             "death year is unknown.",
             "SELECT name FROM artists WHERE name LIKE '%ra%' OR death_year IS NULL;"),
            ("j", "What is the average height in cm of the paintings of each artist, rounded to "
             "1 decimal? Give artist name and average, tallest average first.",
             "SELECT artists.name, ROUND(AVG(paintings.height_cm), 1) FROM paintings JOIN "
             "artists ON paintings.artist_id = artists.id GROUP BY artists.name ORDER BY "
             "AVG(paintings.height_cm) DESC;"),
        ],
    ),
    schema(
        "football",
        table("team", "teams",
              label("name", "Red Foxes|Harbor City|North End|Iron Bridge|Lake United|Valley "
                            "Stars"),
              category("city", "Leeds|Hull|York"),
              whole("founding_year", 1880, 1975)),
        table("player", "players",
              label("name", "Ade Cole|Ben Frost|Caio Lima|Dan Nagy|Eric Thorn|Finn Ward|Gus "
                            "Horn|Hal Price|Iker Sanz|Jon Blake|Kai Muir|Lee Park"),
              ref("team", "teams"),
              category("position", "keeper|defender|forward"),
              whole("age", 18, 36),
              whole("goals", 0, 22, null=True)),
        queries=[
            ("a", "What is the total number of goals per position of the players younger than "
             "30? Give position and total.",
             "SELECT position, SUM(goals) FROM players WHERE age < 30 GROUP BY position;"),
            ("b", "List the name, position and age of the players aged 20 to 30, youngest first "
             "and ties by name.",
             "SELECT name, position, age FROM players WHERE age BETWEEN 20 AND 30 ORDER BY age, "
             "name;"),
            ("j", "List each team name with the average age of its players, only for teams "
             "whose average age is over 25.",
             "SELECT teams.name, AVG(players.age) FROM players JOIN teams ON players.team_id = "
             "teams.id GROUP BY teams.name HAVING AVG(players.age) > 25;"),
            ("w", "List the name and goals of the players who have the most goals within their "
             "position, ties included.",
             "SELECT name, goals FROM (SELECT name, goals, RANK() OVER (PARTITION BY position "
             "ORDER BY goals DESC) AS place FROM players WHERE goals IS NOT NULL) WHERE place = "
             "1;"),
            ("s", "What is the second highest age among the players? Give the age only.",
             "SELECT MAX(age) FROM players WHERE age < (SELECT MAX(age) FROM players);"),
            ("b", "List the name of the players with no goals recorded or with exactly 0 goals, "
             "and their position.",
             "SELECT name, position FROM players WHERE goals IS NULL OR goals = 0;"),
            ("a", "How many players are keepers and how many are forwards? Give the two counts "
             "as two columns.",
             "SELECT SUM(position = 'keeper'), SUM(position = 'forward') FROM players;"),
            ("j", "Which cities have a team with a player of position 'forward' older than 20? "
             "Give each city once, in alphabetical order.",
             "SELECT DISTINCT teams.city FROM players JOIN teams ON players.team_id = teams.id "
             "WHERE players.position = 'forward' AND players.age > 20 ORDER BY teams.city;"),
        ],
    ),
    schema(
        "farm",
        table("field", "fields",
              label("name", "Hill Acre|Long Meadow|River Bend|Oak Plot|Stony Half|South Strip"),
              category("soil", "clay|sand|loam"),
              real("hectares", 1, 18)),
        table("harvest", "harvests",
              ref("field", "fields"),
              category("crop", "wheat|barley|potato"),
              real("tons", 2, 60),
              date("harvest_date", 2020, 2023),
              real("moisture", 8, 22, null=True)),
        queries=[
            ("j", "What is the yield in tons per hectare of each harvest? Give the field name, "
             "crop and the yield.",
             "SELECT fields.name, harvests.crop, harvests.tons / fields.hectares FROM harvests "
             "JOIN fields ON harvests.field_id = fields.id;"),
            ("a", "For each crop, give the crop, the number of harvests and the total tons.",
             "SELECT crop, COUNT(*), SUM(tons) FROM harvests GROUP BY crop;"),
            ("a", "For each year of the harvest date, give the year and the total tons, from "
             "the latest year to the earliest.",
             "SELECT strftime('%Y', harvest_date), SUM(tons) FROM harvests GROUP BY "
             "strftime('%Y', harvest_date) ORDER BY strftime('%Y', harvest_date) DESC;"),
            ("b", "List the crop and tons of the harvests made in July or August.",
             "SELECT crop, tons FROM harvests WHERE strftime('%m', harvest_date) IN ('07', "
             "'08');"),
            ("s", "What is the total tons of the harvests on the field with the most hectares?",
             "SELECT SUM(tons) FROM harvests WHERE field_id = (SELECT id FROM fields ORDER BY "
             "hectares DESC LIMIT 1);"),
            ("j", "List the name and soil of every field with the number of its harvests of the "
             "crop 'wheat', zero included.",
             "SELECT fields.name, fields.soil, COUNT(harvests.id) FROM fields LEFT JOIN "
             "harvests ON harvests.field_id = fields.id AND harvests.crop = 'wheat' GROUP BY "
             "fields.name, fields.soil;"),
            ("o", "Which soils occur on a field above 10 hectares or on a field with a 'barley' "
             "harvest? Give each soil once.",
             "SELECT soil FROM fields WHERE hectares > 10 UNION SELECT fields.soil FROM "
             "harvests JOIN fields ON harvests.field_id = fields.id WHERE harvests.crop = "
             "'barley';"),
            ("a", "What is the difference between the highest and the lowest moisture for each "
             "crop? Give crop and difference.",
             "SELECT crop, MAX(moisture) - MIN(moisture) FROM harvests GROUP BY crop;"),
        ],
    ),
    schema(
        "cinema",
        table("film", "films",
              label("title", "Night Train|Paper Sun|The Orchard|Zero Tide|Hollow Hill|Green "
                             "Card Days|Last Signal|Mirror Lake"),
              category("genre", "Drama|Comedy|Thriller"),
              whole("minutes", 78, 170),
              date("release_date", 2016, 2022)),
        table("screening", "screenings",
              ref("film", "films"),
              category("hall", "Hall A|Hall B|Hall C"),
              date("show_date", 2023, 2023),
              whole("tickets_sold", 10, 180, null=True),
              real("ticket_price", 5, 14)),
        queries=[
            ("j", "What is the total income, tickets sold times ticket price, of each film "
             "title? Give title and income.",
             "SELECT films.title, SUM(screenings.tickets_sold * screenings.ticket_price) FROM "
             "screenings JOIN films ON screenings.film_id = films.id GROUP BY films.title;"),
            ("b", "List the title of each film and its length in hours, minutes divided by 60, "
             "rounded to 1 decimal.",
             "SELECT title, ROUND(minutes / 60.0, 1) FROM films;"),
            ("b", "List the title of every film longer than 100 minutes that is not of the "
             "genre 'Comedy'.",
             "SELECT title FROM films WHERE minutes > 100 AND genre <> 'Comedy';"),
            ("a", "List each hall with its first show date and the number of different films it "
             "showed.",
             "SELECT hall, MIN(show_date), COUNT(DISTINCT film_id) FROM screenings GROUP BY "
             "hall;"),
            ("w", "For each screening give the hall, the show date and a row number within its "
             "hall by show date.",
             "SELECT hall, show_date, ROW_NUMBER() OVER (PARTITION BY hall ORDER BY show_date) "
             "FROM screenings;"),
            ("s", "List the title and release date of the films that were released after the "
             "film 'Zero Tide'.",
             "SELECT title, release_date FROM films WHERE release_date > (SELECT release_date "
             "FROM films WHERE title = 'Zero Tide');"),
            ("a", "What is the average number of tickets sold, counting a missing number as 0?",
             "SELECT AVG(COALESCE(tickets_sold, 0)) FROM screenings;"),
            ("j", "List the film title, hall and show date of the screenings with a ticket "
             "price above 8, by show date.",
             "SELECT films.title, screenings.hall, screenings.show_date FROM screenings JOIN "
             "films ON screenings.film_id = films.id WHERE screenings.ticket_price > 8 ORDER BY "
             "screenings.show_date;"),
        ],
    ),
    schema(
        "hotel",
        table("room", "rooms",
              label("code", "R101|R102|R103|R201|R202|R203|R301|R302"),
              category("type", "single|double|suite"),
              real("night_rate", 45, 260),
              whole("floor", 1, 3)),
        table("booking", "bookings",
              ref("room", "rooms"),
              category("guest", "Ames|Bond|Cruz|Drew|Eden"),
              whole("nights", 1, 12),
              date("arrival_date", 2022, 2023),
              whole("rating", 1, 5, null=True)),
        queries=[
            ("j", "List the guest and the full cost, nights times night rate, of every booking, "
             "most expensive first.",
             "SELECT bookings.guest, bookings.nights * rooms.night_rate FROM bookings JOIN "
             "rooms ON bookings.room_id = rooms.id ORDER BY bookings.nights * rooms.night_rate "
             "DESC;"),
            ("a", "Which guests stayed more than 5 nights in total? Give the guest and the "
             "total nights, in alphabetical order of guest.",
             "SELECT guest, SUM(nights) FROM bookings GROUP BY guest HAVING SUM(nights) > 5 "
             "ORDER BY guest;"),
            ("b", "List the guest and the date 2 days after the arrival date of the bookings "
             "with a stay of over 4 nights.",
             "SELECT guest, date(arrival_date, '+2 days') FROM bookings WHERE nights > 4;"),
            ("s", "List the code of the rooms whose night rate is above the average night rate "
             "of rooms of the type 'double'.",
             "SELECT code FROM rooms WHERE night_rate > (SELECT AVG(night_rate) FROM rooms "
             "WHERE type = 'double');"),
            ("a", "For each rating, without the missing ones, give the rating and the number of "
             "bookings, highest rating first.",
             "SELECT rating, COUNT(*) FROM bookings WHERE rating IS NOT NULL GROUP BY rating "
             "ORDER BY rating DESC;"),
            ("w", "List the code, type, night rate and the difference to the highest night rate "
             "of the same type for every room.",
             "SELECT code, type, night_rate, MAX(night_rate) OVER (PARTITION BY type) - "
             "night_rate FROM rooms;"),
            ("b", "What are the code and floor of the cheapest room by night rate on floor 1 or "
             "2?",
             "SELECT code, floor FROM rooms WHERE floor = 1 OR floor = 2 ORDER BY night_rate "
             "LIMIT 1;"),
            ("j", "What is the average rating of the bookings of each room type, for types with "
             "at least 2 rated bookings? Give type and average.",
             "SELECT rooms.type, AVG(bookings.rating) FROM bookings JOIN rooms ON "
             "bookings.room_id = rooms.id GROUP BY rooms.type HAVING COUNT(bookings.rating) >= "
             "2;"),
        ],
    ),
    schema(
        "restaurant",
        table("dish", "dishes",
              label("name", "Lentil Soup|Fish Stew|Pasta Bake|Garden Salad|Roast Duck|Rice Bowl|"
                            "Plum Tart|Cheese Plate"),
              category("course", "starter|main|dessert"),
              real("price", 5, 32),
              whole("minutes", 5, 60)),
        table("order line", "order lines",
              ref("dish", "dishes"),
              whole("table_number", 1, 6),
              whole("portions", 1, 5),
              date("order_date", 2023, 2023),
              category("comment", "no salt|extra sauce|to go", null=True)),
        queries=[
            ("a", "Which table number ordered the most portions in total? Give the table number "
             "and the total, ties going to the lower table number.",
             "SELECT table_number, SUM(portions) FROM order_lines GROUP BY table_number ORDER "
             "BY SUM(portions) DESC, table_number LIMIT 1;"),
            ("j", "What is the bill, price times portions summed, of the table number 3?",
             "SELECT SUM(dishes.price * order_lines.portions) FROM order_lines JOIN dishes ON "
             "order_lines.dish_id = dishes.id WHERE order_lines.table_number = 3;"),
            ("b", "List the name of the dishes that take at most 40 minutes and cost from 8 to "
             "30.",
             "SELECT name FROM dishes WHERE minutes <= 40 AND price BETWEEN 8 AND 30;"),
            ("s", "Which dishes were ordered at least twice, that is in two or more order "
             "lines? Give the name.",
             "SELECT name FROM dishes WHERE id IN (SELECT dish_id FROM order_lines GROUP BY "
             "dish_id HAVING COUNT(*) >= 2);"),
            ("b", "List the name of each dish in capital letters and its course.",
             "SELECT UPPER(name), course FROM dishes;"),
            ("a", "How many order lines have the comment 'to go' or no comment at all?",
             "SELECT COUNT(*) FROM order_lines WHERE comment = 'to go' OR comment IS NULL;"),
            ("j", "List the dish name and the total portions of the dishes of the course 'main' "
             "that were ordered, most portions first and ties by name.",
             "SELECT dishes.name, SUM(order_lines.portions) FROM order_lines JOIN dishes ON "
             "order_lines.dish_id = dishes.id WHERE dishes.course = 'main' GROUP BY dishes.name "
             "ORDER BY SUM(order_lines.portions) DESC, dishes.name;"),
            ("b", "List each dish's name and a label: 'quick' under 15 minutes, 'normal' up to "
             "30 minutes, otherwise 'slow'.",
             "SELECT name, CASE WHEN minutes < 15 THEN 'quick' WHEN minutes <= 30 THEN 'normal' "
             "ELSE 'slow' END FROM dishes;"),
        ],
    ),
    schema(
        "gym",
        table("member", "members",
              label("name", "Alma Ruiz|Bo Lind|Cem Ates|Dora Vidal|Emil Krog|Faye Moon|Gil "
                            "Navarro|Hana Abe"),
              category("plan", "basic|plus|family"),
              date("join_date", 2019, 2023),
              real("weight_kg", 50, 104, null=True)),
        table("workout", "workouts",
              ref("member", "members"),
              category("activity", "rowing|cycling|yoga|boxing"),
              whole("minutes", 15, 95),
              whole("calories", 80, 900, null=True),
              date("workout_date", 2023, 2023)),
        queries=[
            ("a", "For each activity, give the activity and the calories burned per minute over "
             "all its workouts with known calories.",
             "SELECT activity, SUM(calories) * 1.0 / SUM(minutes) FROM workouts WHERE calories "
             "IS NOT NULL GROUP BY activity;"),
            ("w", "For each workout give the activity, the workout date, the minutes and the "
             "minutes of the workout before it by date.",
             "SELECT activity, workout_date, minutes, LAG(minutes) OVER (ORDER BY workout_date) "
             "FROM workouts;"),
            ("o", "List the name of the members who did both 'rowing' and 'yoga'.",
             "SELECT members.name FROM members JOIN workouts ON workouts.member_id = members.id "
             "WHERE workouts.activity = 'rowing' INTERSECT SELECT members.name FROM members "
             "JOIN workouts ON workouts.member_id = members.id WHERE workouts.activity = 'yoga';"),
            ("b", "List the name and the year of the join date of every member.",
             "SELECT name, strftime('%Y', join_date) FROM members;"),
            ("j", "List the member name and the date of the latest workout, for members with "
             "workouts, latest date first.",
             "SELECT members.name, MAX(workouts.workout_date) FROM workouts JOIN members ON "
             "workouts.member_id = members.id GROUP BY members.name ORDER BY "
             "MAX(workouts.workout_date) DESC;"),
            ("a", "What is the total of the minutes of the activity 'cycling' or 'boxing' in "
             "workouts of at least 30 minutes?",
             "SELECT SUM(minutes) FROM workouts WHERE activity IN ('cycling', 'boxing') AND "
             "minutes >= 30;"),
            ("b", "List the name and plan of the members who joined in the year 2020, 2021 or "
             "2022, by join date.",
             "SELECT name, plan FROM members WHERE strftime('%Y', join_date) IN ('2020', "
             "'2021', '2022') ORDER BY join_date;"),
            ("s", "What is the largest number of workouts that any single member has?",
             "SELECT MAX(total) FROM (SELECT COUNT(*) AS total FROM workouts GROUP BY "
             "member_id);"),
        ],
    ),
    schema(
        "weather",
        table("station", "stations",
              label("name", "Cape Point|Mill Valley|High Ridge|Port Town|Dry Creek|Fox Moor"),
              category("region", "coast|inland"),
              whole("altitude", 2, 1900)),
        table("reading", "readings",
              ref("station", "stations"),
              date("day", 2022, 2022),
              real("high_temp", 2, 38),
              real("low_temp", -12, 16),
              real("rain_mm", 0, 44, null=True),
              category("sky", "clear|cloudy|storm")),
        queries=[
            ("b", "List the day and the range, high temp minus low temp, of every reading, "
             "widest range first.",
             "SELECT day, high_temp - low_temp FROM readings ORDER BY high_temp - low_temp DESC;"),
            ("a", "How many readings had frost, a low temp below 0, for each sky? Give the sky "
             "and the count.",
             "SELECT sky, COUNT(*) FROM readings WHERE low_temp < 0 GROUP BY sky;"),
            ("j", "List each station name and region with its highest high temp and its lowest "
             "low temp.",
             "SELECT stations.name, stations.region, MAX(readings.high_temp), "
             "MIN(readings.low_temp) FROM readings JOIN stations ON readings.station_id = "
             "stations.id GROUP BY stations.name, stations.region;"),
            ("b", "Convert the high temp of every reading to Fahrenheit, times 1.8 plus 32; "
             "give the day and the value.",
             "SELECT day, high_temp * 1.8 + 32 FROM readings;"),
            ("a", "List the number of the months of 2022, such as 05, with more than 20 mm of "
             "rain in total, and the total.",
             "SELECT strftime('%m', day), SUM(rain_mm) FROM readings GROUP BY strftime('%m', "
             "day) HAVING SUM(rain_mm) > 20;"),
            ("s", "List the day of the readings that are hotter by high temp than the average "
             "high temp of their own station.",
             "SELECT day FROM readings AS r WHERE high_temp > (SELECT AVG(high_temp) FROM "
             "readings WHERE station_id = r.station_id);"),
            ("w", "List the day, high temp and the average high temp of that reading and the "
             "two readings before it, in order of day.",
             "SELECT day, high_temp, AVG(high_temp) OVER (ORDER BY day ROWS BETWEEN 2 PRECEDING "
             "AND CURRENT ROW) FROM readings;"),
            ("j", "List the name of the stations with a reading of the sky 'storm' and more "
             "than 1 mm of rain, each name once.",
             "SELECT DISTINCT stations.name FROM readings JOIN stations ON readings.station_id "
             "= stations.id WHERE readings.sky = 'storm' AND readings.rain_mm > 1;"),
        ],
    ),
    schema(
        "music",
        table("band", "bands",
              label("name", "Low Tide|The Pines|Neon Owls|Dust Choir|Marble|Sixth Street|Velvet "
                            "Fox"),
              category("country", "Ireland|Canada|Brazil"),
              whole("formation_year", 1972, 2015)),
        table("album", "albums",
              label("title", "Open Water|Tall Trees|Night Shift|Ash|Marble|Blue Hour|Long Way "
                             "Down|Echo Park|Sundial|Thin Air|Iron Song"),
              ref("band", "bands"),
              whole("release_year", 1980, 2023),
              whole("tracks", 6, 18),
              whole("copies_sold", 2000, 90000, null=True)),
        queries=[
            ("j", "Which albums have the same name as their band? Give the title.",
             "SELECT albums.title FROM albums JOIN bands ON albums.band_id = bands.id AND "
             "albums.title = bands.name;"),
            ("b", "List the title and release year of the albums released in the years 1990 to "
             "2015, newest first and ties by title.",
             "SELECT title, release_year FROM albums WHERE release_year BETWEEN 1990 AND 2015 "
             "ORDER BY release_year DESC, title;"),
            ("b", "List the title of the albums whose title is made of more than one word, that "
             "is, holds a space, with their tracks.",
             "SELECT title, tracks FROM albums WHERE title LIKE '% %' ORDER BY title;"),
            ("a", "What is the total of the copies sold and the number of albums without that "
             "figure?",
             "SELECT SUM(copies_sold), COUNT(*) - COUNT(copies_sold) FROM albums;"),
            ("j", "For each band country, give the country, the number of bands with albums and "
             "the number of albums.",
             "SELECT bands.country, COUNT(DISTINCT bands.id), COUNT(*) FROM albums JOIN bands "
             "ON albums.band_id = bands.id GROUP BY bands.country;"),
            ("j", "List the band name and the years between its forming and each album's "
             "release, with the album title in the middle.",
             "SELECT bands.name, albums.title, albums.release_year - bands.formation_year FROM "
             "albums JOIN bands ON albums.band_id = bands.id;"),
            ("s", "List the name of the bands whose albums all have more than 8 tracks; bands "
             "without albums are left out.",
             "SELECT name FROM bands WHERE id IN (SELECT band_id FROM albums GROUP BY band_id "
             "HAVING MIN(tracks) > 8);"),
            ("o", "List every band name that is not also an album title, in alphabetical order.",
             "SELECT name FROM bands EXCEPT SELECT title FROM albums ORDER BY name;"),
        ],
    ),
    schema(
        "payroll",
        table("department", "departments",
              label("name", "Sales|Finance|Design|Support|Legal|Research"),
              whole("budget", 90000, 600000),
              category("building", "North|South")),
        table("employee", "employees",
              label("name", "Amy Stone|Bill Hart|Cleo Dean|Dev Shah|Edda Moe|Finn Gray|Gia "
                            "Conti|Hank Ito|Ines Faro|Jack Tran|Kim Soto|Liam Voss"),
              ref("department", "departments", null=True),
              whole("salary", 28000, 98000),
              date("hire_date", 2012, 2023),
              whole("manager_id", 1, 4, null=True)),
        queries=[
            ("j", "List the name of every employee with the name of the manager, for employees "
             "with a manager; manager id is an employee id.",
             "SELECT e.name, m.name FROM employees AS e JOIN employees AS m ON e.manager_id = "
             "m.id;"),
            ("j", "List the name of every employee and of the department, also for the "
             "employees without a department.",
             "SELECT employees.name, departments.name FROM employees LEFT JOIN departments ON "
             "employees.department_id = departments.id;"),
            ("s", "Who earns more than the average of their own department? Give the name and "
             "salary.",
             "SELECT name, salary FROM employees AS e WHERE salary > (SELECT AVG(salary) FROM "
             "employees WHERE department_id = e.department_id);"),
            ("s", "List the name of every employee whose id is the manager id of some employee.",
             "SELECT name FROM employees WHERE id IN (SELECT manager_id FROM employees);"),
            ("b", "List the name and monthly pay, salary divided by 12 and rounded to 2 "
             "decimals, of the employees hired before 2019-01-01.",
             "SELECT name, ROUND(salary / 12.0, 2) FROM employees WHERE hire_date < "
             "'2019-01-01';"),
            ("j", "For each department name, give the name, the budget and the budget left "
             "after all its salaries, only for departments with employees.",
             "SELECT departments.name, departments.budget, departments.budget - "
             "SUM(employees.salary) FROM employees JOIN departments ON employees.department_id "
             "= departments.id GROUP BY departments.name, departments.budget;"),
            ("w", "List the name, salary and share of the total salary, as a fraction, of every "
             "employee.",
             "SELECT name, salary, salary * 1.0 / SUM(salary) OVER () FROM employees;"),
            ("a", "How many employees earn under 50000, and how many earn 50000 or more? Give "
             "two columns.",
             "SELECT SUM(salary < 50000), SUM(salary >= 50000) FROM employees;"),
        ],
    ),
    schema(
        "pet_clinic",
        table("owner", "owners",
              label("name", "Alba Roe|Bert Quinn|Cora Lee|Dag Olsen|Ester Pim|Fritz Unger|Gwen "
                            "Tate"),
              category("town", "Ely|Bath|Kent"),
              category("phone", "700-11|700-22|700-33|700-44|700-55", null=True)),
        table("pet", "pets",
              label("name", "Rex|Luna|Milo|Bella|Coco|Nala|Oscar|Ziggy|Pepper|Simba|Tiger"),
              category("species", "dog|cat|rabbit"),
              ref("owner", "owners"),
              real("weight_kg", 1, 38),
              date("birth_date", 2012, 2022, null=True)),
        queries=[
            ("j", "List the owner name and the pet name of every pet that weighs from 4 to 30 "
             "kg, ordered by owner name and then pet name.",
             "SELECT owners.name, pets.name FROM pets JOIN owners ON pets.owner_id = owners.id "
             "WHERE pets.weight_kg BETWEEN 4 AND 30 ORDER BY owners.name, pets.name;"),
            ("b", "List the name of each pet and the length of that name in letters, longest "
             "first and ties by name.",
             "SELECT name, LENGTH(name) FROM pets ORDER BY LENGTH(name) DESC, name;"),
            ("b", "List the name and species of the pets whose name ends with 'a' and that are "
             "not of the species 'rabbit'.",
             "SELECT name, species FROM pets WHERE name LIKE '%a' AND species <> 'rabbit';"),
            ("a", "For each species, give the species, the average weight in kg rounded to 1 "
             "decimal and the number of pets.",
             "SELECT species, ROUND(AVG(weight_kg), 1), COUNT(*) FROM pets GROUP BY species;"),
            ("j", "List the name of every owner with a phone, and the number of their pets, "
             "zero included.",
             "SELECT owners.name, COUNT(pets.id) FROM owners LEFT JOIN pets ON pets.owner_id = "
             "owners.id WHERE owners.phone IS NOT NULL GROUP BY owners.name;"),
            ("s", "List the name of the owners who have a 'dog' but no 'cat'.",
             "SELECT name FROM owners WHERE id IN (SELECT owner_id FROM pets WHERE species = "
             "'dog') AND id NOT IN (SELECT owner_id FROM pets WHERE species = 'cat');"),
            ("w", "List the name, species and weight in kg of the heaviest pet of each species.",
             "SELECT name, species, weight_kg FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY "
             "species ORDER BY weight_kg DESC) AS place FROM pets) WHERE place = 1;"),
            ("a", "What is the average weight in kg of the pets born on or after 2016-01-01?",
             "SELECT AVG(weight_kg) FROM pets WHERE birth_date >= '2016-01-01';"),
        ],
    ),
    schema(
        "car_rental",
        table("car", "cars",
              label("plate", "AB-101|BC-202|CD-303|DE-404|EF-505|FG-606|GH-707|HK-808"),
              category("brand", "Fiat|Volvo|Toyota"),
              real("day_rate", 22, 95),
              whole("seats", 2, 7)),
        table("rental", "rentals",
              ref("car", "cars"),
              category("driver", "Moss|Nunez|Otto|Petit|Quist"),
              date("start_date", 2023, 2023),
              whole("days", 1, 14),
              real("damage_cost", 20, 600, null=True)),
        queries=[
            ("b", "List the plate and brand of the cars that have exactly 5 seats or a day rate "
             "below 30, cheapest first by day rate.",
             "SELECT plate, brand FROM cars WHERE seats = 5 OR day_rate < 30 ORDER BY day_rate;"),
            ("j", "Which driver paid the most, day rate times days summed over the rentals? "
             "Give the driver.",
             "SELECT rentals.driver FROM rentals JOIN cars ON rentals.car_id = cars.id GROUP BY "
             "rentals.driver ORDER BY SUM(cars.day_rate * rentals.days) DESC LIMIT 1;"),
            ("a", "What percentage of the rentals had no damage cost? Give a number from 0 to "
             "100.",
             "SELECT 100.0 * SUM(damage_cost IS NULL) / COUNT(*) FROM rentals;"),
            ("s", "List the plate of the cars that were never rented for more than 7 days.",
             "SELECT plate FROM cars WHERE NOT EXISTS (SELECT 1 FROM rentals WHERE "
             "rentals.car_id = cars.id AND rentals.days > 7);"),
            ("a", "List each driver with more than 10 days in total, the total days and the "
             "longest single rental in days.",
             "SELECT driver, SUM(days), MAX(days) FROM rentals GROUP BY driver HAVING SUM(days) "
             "> 10;"),
            ("j", "List the brand and the average damage cost of its cars' rentals, a missing "
             "damage cost counting as 0.",
             "SELECT cars.brand, AVG(COALESCE(rentals.damage_cost, 0)) FROM rentals JOIN cars "
             "ON rentals.car_id = cars.id GROUP BY cars.brand;"),
            ("w", "List the driver, start date and the place of each rental in the driver's own "
             "order of start date, from 1 up, for drivers 'Moss' and 'Otto'.",
             "SELECT driver, start_date, ROW_NUMBER() OVER (PARTITION BY driver ORDER BY "
             "start_date) FROM rentals WHERE driver IN ('Moss', 'Otto');"),
            ("o", "Make one list of all brands and all drivers, each once, in alphabetical "
             "order.",
             "SELECT brand FROM cars UNION SELECT driver FROM rentals ORDER BY 1;"),
        ],
    ),
    schema(
        "grocery",
        table("supplier", "suppliers",
              label("name", "Fresh Hill|Nordic Foods|Casa Verde|Sun Mill|Blue Cart|Old Dairy"),
              category("country", "Italy|Sweden|Greece")),
        table("product", "products",
              label("name", "Olive Oil|Rye Bread|Oat Milk|Feta|Honey|Black Tea|Tomato Paste|"
                            "Almonds|Rice|Dark Chocolate|Lentils|Apple Juice"),
              ref("supplier", "suppliers"),
              category("category", "bakery|drinks|pantry"),
              real("price", 1, 14),
              whole("stock", 0, 90, null=True)),
        queries=[
            ("b", "List the name and stock value, price times stock, of every product with a "
             "known stock, highest value first.",
             "SELECT name, price * stock FROM products WHERE stock IS NOT NULL ORDER BY price * "
             "stock DESC;"),
            ("a", "For each category, give the category and the number of products priced below "
             "8, as long as there are at least 2 such products.",
             "SELECT category, COUNT(*) FROM products WHERE price < 8 GROUP BY category HAVING "
             "COUNT(*) >= 2;"),
            ("j", "List the name and price of the products of a supplier from 'Italy' or "
             "'Greece', cheapest first.",
             "SELECT products.name, products.price FROM products JOIN suppliers ON "
             "products.supplier_id = suppliers.id WHERE suppliers.country IN ('Italy', "
             "'Greece') ORDER BY products.price;"),
            ("s", "List the category and name of the cheapest product of each category.",
             "SELECT category, name FROM products AS p WHERE price = (SELECT MIN(price) FROM "
             "products WHERE category = p.category);"),
            ("b", "List the name of the products with less than 30 or more than 60 in stock, "
             "but not of the category 'drinks'.",
             "SELECT name FROM products WHERE (stock < 30 OR stock > 60) AND category <> "
             "'drinks';"),
            ("j", "Which suppliers have products in at least 2 different categories? Give the "
             "name.",
             "SELECT suppliers.name FROM products JOIN suppliers ON products.supplier_id = "
             "suppliers.id GROUP BY suppliers.name HAVING COUNT(DISTINCT products.category) >= "
             "2;"),
            ("a", "What would the average price be if every price rose by 0.5?",
             "SELECT AVG(price + 0.5) FROM products;"),
            ("b", "List the second to fourth most expensive products by price: name and price, "
             "skipping 1 and giving 3.",
             "SELECT name, price FROM products ORDER BY price DESC LIMIT 3 OFFSET 1;"),
        ],
    ),
    schema(
        "university",
        table("student", "students",
              label("name", "Anya Popov|Bela Toth|Chen Wu|Dina Saleh|Ezra Cohen|Fred Boyd|Gita "
                            "Rao|Hans Keller"),
              category("major", "Physics|Law|History"),
              whole("entry_year", 2017, 2022)),
        table("seminar", "seminars",
              label("title", "Optics|Roman Law|Cold War|Waves|Contracts|Old Maps"),
              whole("hours", 10, 60),
              category("room", "A1|B2|C3", null=True)),
        table("enrolment", "enrolments",
              ref("student", "students"),
              ref("seminar", "seminars"),
              whole("points", 2, 20, null=True),
              date("signup_date", 2022, 2023)),
        queries=[
            ("m", "List the student name and the total hours of the seminars the student is "
             "enrolled in, most hours first and ties by name.",
             "SELECT students.name, SUM(seminars.hours) FROM enrolments JOIN students ON "
             "enrolments.student_id = students.id JOIN seminars ON enrolments.seminar_id = "
             "seminars.id GROUP BY students.name ORDER BY SUM(seminars.hours) DESC, "
             "students.name;"),
            ("m", "How many enrolments have a student of the major 'Law' and a seminar of more "
             "than 15 hours?",
             "SELECT COUNT(*) FROM enrolments JOIN students ON enrolments.student_id = "
             "students.id JOIN seminars ON enrolments.seminar_id = seminars.id WHERE "
             "students.major = 'Law' AND seminars.hours > 15;"),
            ("j", "For each major, give the major and the number of different seminars its "
             "students are enrolled in.",
             "SELECT students.major, COUNT(DISTINCT enrolments.seminar_id) FROM enrolments JOIN "
             "students ON enrolments.student_id = students.id GROUP BY students.major;"),
            ("s", "List the name of the students enrolled in more seminars than the student "
             "'Gita Rao'.",
             "SELECT students.name FROM enrolments JOIN students ON enrolments.student_id = "
             "students.id GROUP BY students.name HAVING COUNT(*) > (SELECT COUNT(*) FROM "
             "enrolments JOIN students ON enrolments.student_id = students.id WHERE "
             "students.name = 'Gita Rao');"),
            ("a", "For each entry year from 2018 on, give the year and the number of students, "
             "latest year first.",
             "SELECT entry_year, COUNT(*) FROM students WHERE entry_year >= 2018 GROUP BY "
             "entry_year ORDER BY entry_year DESC;"),
            ("b", "List the title, hours and room of the seminars with a room other than 'A1', "
             "shortest first.",
             "SELECT title, hours, room FROM seminars WHERE room <> 'A1' ORDER BY hours;"),
            ("w", "List the student id, points and rank of each enrolment with known points, "
             "rank 1 for the most points and no gaps after ties.",
             "SELECT student_id, points, DENSE_RANK() OVER (ORDER BY points DESC) FROM "
             "enrolments WHERE points IS NOT NULL;"),
            ("a", "Which months of the signup date, written like 2022-05, have more than 1 "
             "enrolment? Give the month and the count.",
             "SELECT strftime('%Y-%m', signup_date), COUNT(*) FROM enrolments GROUP BY "
             "strftime('%Y-%m', signup_date) HAVING COUNT(*) > 1;"),
        ],
    ),
    schema(
        "real_estate",
        table("agent", "agents",
              label("name", "Petra Lang|Quincy Dale|Rosa Marin|Stan Olek|Tess Hume|Uwe Brand"),
              category("district", "Old Town|Riverside|Hillside")),
        table("house", "houses",
              label("address", "1 Elm St|2 Oak Ave|3 Pine Rd|4 Fir Ln|5 Ash Ct|6 Bay St|7 Hill "
                               "Rd|8 Lake Dr|9 Park Pl|10 Mill Ln|11 Glen St|12 Dock Rd"),
              ref("agent", "agents", null=True),
              whole("bedrooms", 1, 6),
              whole("price", 90000, 780000),
              whole("area_m2", 40, 260),
              date("sold_date", 2021, 2023, null=True)),
        queries=[
            ("b", "List the address and the price per square metre, price divided by area in m2 "
             "as a decimal number, of each house.",
             "SELECT address, price * 1.0 / area_m2 FROM houses;"),
            ("b", "List the address of the unsold houses, those without a sold date, with at "
             "least 2 bedrooms.",
             "SELECT address FROM houses WHERE sold_date IS NULL AND bedrooms >= 2;"),
            ("a", "For each number of bedrooms, give the bedrooms, the number of houses and the "
             "lowest price, by bedrooms from few to many.",
             "SELECT bedrooms, COUNT(*), MIN(price) FROM houses GROUP BY bedrooms ORDER BY "
             "bedrooms;"),
            ("j", "For each agent with sold houses, give the name and the number of houses that "
             "have a sold date.",
             "SELECT agents.name, COUNT(*) FROM houses JOIN agents ON houses.agent_id = "
             "agents.id WHERE houses.sold_date IS NOT NULL GROUP BY agents.name;"),
            ("j", "List every house address with its agent's name, or 'no agent' when it has "
             "none.",
             "SELECT houses.address, COALESCE(agents.name, 'no agent') FROM houses LEFT JOIN "
             "agents ON houses.agent_id = agents.id;"),
            ("s", "Which houses are cheaper than every house with 3 bedrooms? Give address and "
             "price.",
             "SELECT address, price FROM houses WHERE price < (SELECT MIN(price) FROM houses "
             "WHERE bedrooms = 3);"),
            ("w", "List the address and price quarter of each house: split the houses into 4 "
             "equal groups by price, group 1 the cheapest.",
             "SELECT address, NTILE(4) OVER (ORDER BY price) FROM houses;"),
            ("a", "How many houses were sold, by sold date, in 2022 for more than 300000?",
             "SELECT COUNT(*) FROM houses WHERE strftime('%Y', sold_date) = '2022' AND price > "
             "300000;"),
        ],
    ),
    schema(
        "taxi",
        table("driver", "drivers",
              label("name", "Abel Cruz|Bina Das|Carl Egge|Della Ray|Ester Nova|Femi Ade"),
              category("licence", "A|B|C"),
              date("hire_date", 2014, 2021)),
        table("ride", "rides",
              ref("driver", "drivers"),
              real("distance_km", 1, 34),
              real("fare", 4, 70),
              real("tip", 0.5, 9, null=True),
              date("ride_date", 2023, 2023),
              category("zone", "airport|center|suburb")),
        queries=[
            ("a", "What is the average fare per km in each zone, that is total fare over total "
             "distance in km? Give the zone and the figure, highest first.",
             "SELECT zone, SUM(fare) / SUM(distance_km) FROM rides GROUP BY zone ORDER BY "
             "SUM(fare) / SUM(distance_km) DESC;"),
            ("b", "List the ride date and the income, fare plus tip with a missing tip as 0, of "
             "every ride in the zone 'airport'.",
             "SELECT ride_date, fare + COALESCE(tip, 0) FROM rides WHERE zone = 'airport';"),
            ("j", "List the driver name and ride date of the rides with a tip of more than 10 "
             "percent, 0.1 times the fare.",
             "SELECT drivers.name, rides.ride_date FROM rides JOIN drivers ON rides.driver_id = "
             "drivers.id WHERE rides.tip > 0.1 * rides.fare;"),
            ("a", "What is the longest distance in km of a ride without a tip?",
             "SELECT MAX(distance_km) FROM rides WHERE tip IS NULL;"),
            ("s", "How many rides cost more than the average fare of the zone 'center'?",
             "SELECT COUNT(*) FROM rides WHERE fare > (SELECT AVG(fare) FROM rides WHERE zone = "
             "'center');"),
            ("o", "Which zones had a ride in the first half of 2023, before 2023-07-01, and "
             "also one with a fare above 40?",
             "SELECT zone FROM rides WHERE ride_date < '2023-07-01' INTERSECT SELECT zone FROM "
             "rides WHERE fare > 40;"),
            ("w", "List each zone, ride date and fare with the highest fare seen so far in that "
             "zone by ride date.",
             "SELECT zone, ride_date, fare, MAX(fare) OVER (PARTITION BY zone ORDER BY "
             "ride_date) FROM rides;"),
            ("j", "For each licence, give the licence and the number of drivers, and the number "
             "of their rides, zero included.",
             "SELECT drivers.licence, COUNT(DISTINCT drivers.id), COUNT(rides.id) FROM drivers "
             "LEFT JOIN rides ON rides.driver_id = drivers.id GROUP BY drivers.licence;"),
        ],
    ),
    schema(
        "blog",
        table("writer", "writers",
              label("name", "Aya Sato|Ben Cole|Cruz Vega|Dee Park|Eli Hart|Fern Lowe"),
              date("joined_date", 2016, 2021),
              category("bio", "cook|runner|gardener", null=True)),
        table("post", "posts",
              label("title", "Fast Soups|Running Cold|Tiny Gardens|Why Trees|My Bike|Slow "
                             "Sundays|Bread Notes|City Bees|Knife Care|Long Hills|Rain Days"),
              ref("writer", "writers"),
              category("topic", "food|sport|nature"),
              whole("views", 20, 5000),
              date("posted_date", 2021, 2023)),
        table("comment", "comments",
              ref("post", "posts"),
              category("visitor", "jo|max|ria|tim"),
              whole("likes", 0, 40)),
        queries=[
            ("m", "For each writer with comments on their posts, give the name and the total "
             "likes of those comments.",
             "SELECT writers.name, SUM(comments.likes) FROM comments JOIN posts ON "
             "comments.post_id = posts.id JOIN writers ON posts.writer_id = writers.id GROUP BY "
             "writers.name ORDER BY writers.name;"),
            ("m", "List the visitor and post title of the comments on posts by the writer 'Cruz "
             "Vega' or 'Aya Sato' with more than 5 likes.",
             "SELECT comments.visitor, posts.title FROM comments JOIN posts ON comments.post_id "
             "= posts.id JOIN writers ON posts.writer_id = writers.id WHERE writers.name IN "
             "('Cruz Vega', 'Aya Sato') AND comments.likes > 5;"),
            ("j", "List the title and number of comments of every post on the topic 'food', "
             "zero included.",
             "SELECT posts.title, COUNT(comments.id) FROM posts LEFT JOIN comments ON "
             "comments.post_id = posts.id WHERE posts.topic = 'food' GROUP BY posts.title;"),
            ("b", "List the title and posted date of the posts from 2022 with over 500 views, "
             "newest first.",
             "SELECT title, posted_date FROM posts WHERE strftime('%Y', posted_date) = '2022' "
             "AND views > 500 ORDER BY posted_date DESC;"),
            ("w", "List the topic, title and views of the 2 most viewed posts of each topic.",
             "SELECT topic, title, views FROM (SELECT topic, title, views, ROW_NUMBER() OVER "
             "(PARTITION BY topic ORDER BY views DESC) AS place FROM posts) WHERE place <= 2;"),
            ("s", "List the name of the writers without any post on the topic 'sport'.",
             "SELECT name FROM writers WHERE id NOT IN (SELECT writer_id FROM posts WHERE topic "
             "= 'sport');"),
            ("a", "For each topic, list the topic and all its titles joined by commas, titles "
             "in alphabetical order.",
             "SELECT topic, GROUP_CONCAT(title) FROM (SELECT topic, title FROM posts ORDER BY "
             "title) GROUP BY topic;"),
            ("b", "List the title of each post with every space replaced by '-'.",
             "SELECT REPLACE(title, ' ', '-') FROM posts;"),
        ],
    ),
    schema(
        "factory",
        table("machine", "machines",
              label("code", "M-01|M-02|M-03|M-04|M-05|M-06|M-07"),
              category("type", "press|lathe|drill"),
              date("bought_date", 2008, 2019),
              real("power_kw", 3, 48)),
        table("stoppage", "stoppages",
              ref("machine", "machines"),
              category("reason", "jam|power|service"),
              whole("minutes", 3, 240),
              date("stop_date", 2022, 2023),
              whole("cost", 20, 900, null=True)),
        queries=[
            ("a", "How many hours was each reason responsible for, the minutes added up and "
             "divided by 60? Give reason and hours.",
             "SELECT reason, SUM(minutes) / 60.0 FROM stoppages GROUP BY reason;"),
            ("j", "List the code of each machine that stopped, with its total minutes and its "
             "total cost, most minutes first.",
             "SELECT machines.code, SUM(stoppages.minutes), SUM(stoppages.cost) FROM stoppages "
             "JOIN machines ON stoppages.machine_id = machines.id GROUP BY machines.code ORDER "
             "BY SUM(stoppages.minutes) DESC;"),
            ("b", "List the code and type of the machines bought before 2015 with at least 8 kW "
             "of power, oldest first.",
             "SELECT code, type FROM machines WHERE strftime('%Y', bought_date) < '2015' AND "
             "power_kw >= 8 ORDER BY bought_date;"),
            ("a", "What is the average cost of the stoppages whose reason is not 'service' and "
             "that lasted more than 20 minutes?",
             "SELECT AVG(cost) FROM stoppages WHERE reason <> 'service' AND minutes > 20;"),
            ("s", "What is the longest stoppage in minutes of the machine with the most kW of "
             "power?",
             "SELECT MAX(minutes) FROM stoppages WHERE machine_id IN (SELECT id FROM machines "
             "WHERE power_kw = (SELECT MAX(power_kw) FROM machines));"),
            ("w", "List the stop date, minutes and the change in minutes from the stoppage "
             "before it, in order of stop date.",
             "SELECT stop_date, minutes, minutes - LAG(minutes) OVER (ORDER BY stop_date) FROM "
             "stoppages;"),
            ("j", "For each machine type and reason, give the type, the reason and the average "
             "minutes rounded to a whole number.",
             "SELECT machines.type, stoppages.reason, ROUND(AVG(stoppages.minutes)) FROM "
             "stoppages JOIN machines ON stoppages.machine_id = machines.id GROUP BY "
             "machines.type, stoppages.reason;"),
            ("b", "List the stop date and how many days passed from 2022-01-01 to it, for each "
             "stoppage of the reason 'power'.",
             "SELECT stop_date, julianday(stop_date) - julianday('2022-01-01') FROM stoppages "
             "WHERE reason = 'power';"),
        ],
    ),
    schema(
        "election",
        table("party", "parties",
              label("name", "Green Hand|Unity|Free Coast|New Deal|Common Ground|Open List"),
              whole("founding_year", 1920, 2010),
              label("leader", "Ana Bruun|Carl Dorn|Elsa Fink|Gus Haas|Ida Juul|Kaj Lind",
                              null=True)),
        table("result", "results",
              ref("party", "parties"),
              category("county", "Arden|Brook|Calder|Dale"),
              whole("votes", 300, 9000),
              real("turnout", 40, 85, null=True),
              date("poll_date", 2018, 2022)),
        queries=[
            ("j", "What is each party's share of all votes as a percentage from 0 to 100? Give "
             "the party name and the share.",
             "SELECT parties.name, 100.0 * SUM(results.votes) / (SELECT SUM(votes) FROM "
             "results) FROM results JOIN parties ON results.party_id = parties.id GROUP BY "
             "parties.name;"),
            ("s", "List the county, party id and votes of the result with the most votes in "
             "each county.",
             "SELECT county, party_id, votes FROM results AS r WHERE votes = (SELECT MAX(votes) "
             "FROM results WHERE county = r.county) ORDER BY county;"),
            ("j", "List the county and party name of the results with more than 3000 votes, by "
             "county and then most votes first.",
             "SELECT results.county, parties.name FROM results JOIN parties ON results.party_id "
             "= parties.id WHERE results.votes > 3000 ORDER BY results.county, results.votes "
             "DESC;"),
            ("a", "List the county and the average turnout of each county where at least 2 "
             "results have a turnout.",
             "SELECT county, AVG(turnout) FROM results GROUP BY county HAVING COUNT(turnout) >= "
             "2;"),
            ("s", "Which parties took part in the county 'Brook' or were founded before 1960? "
             "Give each name once.",
             "SELECT name FROM parties WHERE founding_year < 1960 OR id IN (SELECT party_id "
             "FROM results WHERE county = 'Brook');"),
            ("a", "How many votes were cast in each year of the poll date in the county 'Dale' "
             "or 'Arden'? Give year and votes.",
             "SELECT strftime('%Y', poll_date), SUM(votes) FROM results WHERE county IN "
             "('Dale', 'Arden') GROUP BY strftime('%Y', poll_date);"),
            ("b", "List the leader and name of the parties founded from 1940 to 2000 that have "
             "a leader.",
             "SELECT leader, name FROM parties WHERE founding_year BETWEEN 1940 AND 2000 AND "
             "leader IS NOT NULL;"),
            ("o", "List the counties where the party with id 1 or 2 has no result.",
             "SELECT county FROM results EXCEPT SELECT county FROM results WHERE party_id IN "
             "(1, 2);"),
        ],
    ),
    schema(
        "zoo",
        table("keeper", "keepers",
              label("name", "Arlo Finch|Bess Crane|Cy Wolfe|Dot Drake|Eve Lamb|Guy Heron"),
              category("shift", "morning|evening")),
        table("animal", "animals",
              label("name", "Kito|Sable|Juno|Bongo|Pip|Tara|Rollo|Misty|Zuri|Otis|Fang"),
              category("species", "lion|zebra|otter|parrot"),
              ref("keeper", "keepers", null=True),
              real("weight_kg", 0.5, 220),
              date("birth_date", 2008, 2022, null=True)),
        queries=[
            ("a", "List the species whose heaviest animal weighs more than 60 kg, with that "
             "weight, heaviest first.",
             "SELECT species, MAX(weight_kg) FROM animals GROUP BY species HAVING "
             "MAX(weight_kg) > 60 ORDER BY MAX(weight_kg) DESC;"),
            ("b", "List the name of the animals whose name starts with the letter 'Z' or ends "
             "with the letter 'o', in alphabetical order.",
             "SELECT name FROM animals WHERE name LIKE 'Z%' OR name LIKE '%o' ORDER BY name;"),
            ("b", "List the name and species of the youngest animal, the one with the latest "
             "birth date.",
             "SELECT name, species FROM animals ORDER BY birth_date DESC LIMIT 1;"),
            ("j", "How many different species does each keeper look after, zero included? Give "
             "the keeper's name and the number.",
             "SELECT keepers.name, COUNT(DISTINCT animals.species) FROM keepers LEFT JOIN "
             "animals ON animals.keeper_id = keepers.id GROUP BY keepers.name;"),
            ("s", "List the name of the animals that have the same keeper as 'Juno', without "
             "'Juno'.",
             "SELECT name FROM animals WHERE keeper_id = (SELECT keeper_id FROM animals WHERE "
             "name = 'Juno') AND name <> 'Juno';"),
            ("a", "How many animals lack a keeper, and how many lack a birth date? Give the two "
             "counts as two columns.",
             "SELECT SUM(keeper_id IS NULL), SUM(birth_date IS NULL) FROM animals;"),
            ("j", "What is the total weight in kg of the animals for each shift of their "
             "keepers? Give shift and total, only totals above 100.",
             "SELECT keepers.shift, SUM(animals.weight_kg) FROM animals JOIN keepers ON "
             "animals.keeper_id = keepers.id GROUP BY keepers.shift HAVING "
             "SUM(animals.weight_kg) > 100;"),
            ("w", "List the name, weight in kg and the difference to the average weight of the "
             "species for every animal.",
             "SELECT name, weight_kg, weight_kg - AVG(weight_kg) OVER (PARTITION BY species) "
             "FROM animals;"),
        ],
    ),
    schema(
        "shipping",
        table("port", "ports",
              label("name", "Aalborg|Bilbao|Catania|Dunkirk|Esbjerg|Fowey"),
              category("region", "north|south")),
        table("ship", "ships",
              label("name", "Aurora|Bellona|Corvus|Delphin|Electra|Falcon|Gannet"),
              category("type", "tanker|ferry|cargo"),
              whole("capacity", 200, 4800),
              whole("build_year", 1985, 2019, null=True)),
        table("arrival", "arrivals",
              ref("ship", "ships"),
              ref("port", "ports"),
              whole("load_tons", 50, 3000),
              date("arrival_date", 2022, 2023)),
        queries=[
            ("m", "List the ship name, port name and load in tons of the arrivals whose load is "
             "more than half, 0.5 times, the ship's capacity.",
             "SELECT ships.name, ports.name, arrivals.load_tons FROM arrivals JOIN ships ON "
             "arrivals.ship_id = ships.id JOIN ports ON arrivals.port_id = ports.id WHERE "
             "arrivals.load_tons > 0.5 * ships.capacity;"),
            ("m", "Which ships of the type 'tanker' or 'cargo' called at a port in the region "
             "'north'? Give each ship name once, in alphabetical order.",
             "SELECT DISTINCT ships.name FROM arrivals JOIN ships ON arrivals.ship_id = "
             "ships.id JOIN ports ON arrivals.port_id = ports.id WHERE ships.type IN ('tanker', "
             "'cargo') AND ports.region = 'north' ORDER BY ships.name;"),
            ("s", "Using a CTE with the number of arrivals of each port id, give the port id "
             "and number of those with at least 3.",
             "WITH calls AS (SELECT port_id, COUNT(*) AS total FROM arrivals GROUP BY port_id) "
             "SELECT port_id, total FROM calls WHERE total >= 3;"),
            ("b", "List the name and the age in 2023, that is 2023 minus the year built, of the "
             "ships whose year built is known.",
             "SELECT name, 2023 - build_year FROM ships WHERE build_year IS NOT NULL;"),
            ("a", "What is the average load in tons per ship id of the arrivals in 2023, for "
             "ship ids with such arrivals? Give ship id and average.",
             "SELECT ship_id, AVG(load_tons) FROM arrivals WHERE strftime('%Y', arrival_date) = "
             "'2023' GROUP BY ship_id;"),
            ("w", "For each arrival give the ship id, the load in tons of that ship's first "
             "arrival by arrival date, and its own load in tons.",
             "SELECT ship_id, FIRST_VALUE(load_tons) OVER (PARTITION BY ship_id ORDER BY "
             "arrival_date), load_tons FROM arrivals;"),
            ("o", "Which port ids took an arrival of over 1500 tons or one in January? Give "
             "each port id once.",
             "SELECT port_id FROM arrivals WHERE load_tons > 1500 UNION SELECT port_id FROM "
             "arrivals WHERE strftime('%m', arrival_date) = '01';"),
            ("j", "List the region and the share of its ports' arrivals with a load of at least "
             "1000 tons, as a fraction.",
             "SELECT ports.region, AVG(arrivals.load_tons >= 1000) FROM arrivals JOIN ports ON "
             "arrivals.port_id = ports.id GROUP BY ports.region;"),
        ],
    ),
    schema(
        "volunteering",
        table("helper", "helpers",
              label("name", "Abby Noor|Bruno Diaz|Celia Ford|Derek Han|Elena Rossi|Frank Osei|"
                            "Greta Blom"),
              category("skill", "cooking|driving|teaching"),
              whole("age", 17, 71, null=True)),
        table("project", "projects",
              label("title", "River Cleanup|Soup Kitchen|Reading Hour|Tree Planting|Food Drive|"
                             "Night Shelter"),
              category("town", "Ulm|Jena"),
              date("start_date", 2021, 2023)),
        table("shift", "shifts",
              ref("helper", "helpers"),
              ref("project", "projects"),
              real("hours", 1, 8),
              date("shift_date", 2023, 2023)),
        queries=[
            ("j", "For each town, give the town and the number of different helpers who worked "
             "a shift there.",
             "SELECT projects.town, COUNT(DISTINCT shifts.helper_id) FROM shifts JOIN projects "
             "ON shifts.project_id = projects.id GROUP BY projects.town ORDER BY projects.town;"),
            ("m", "What is the total of the hours worked by helpers with the skill 'driving' on "
             "projects in the town 'Ulm'?",
             "SELECT SUM(shifts.hours) FROM shifts JOIN helpers ON shifts.helper_id = "
             "helpers.id JOIN projects ON shifts.project_id = projects.id WHERE helpers.skill = "
             "'driving' AND projects.town = 'Ulm';"),
            ("s", "Which helpers worked more hours in total than the average total of all "
             "helpers with shifts? Use a CTE; give the helper id.",
             "WITH totals AS (SELECT helper_id, SUM(hours) AS total FROM shifts GROUP BY "
             "helper_id) SELECT helper_id FROM totals WHERE total > (SELECT AVG(total) FROM "
             "totals);"),
            ("b", "List the name and skill of the helpers older than 30 whose skill is not "
             "'cooking', oldest first and ties by name.",
             "SELECT name, skill FROM helpers WHERE age > 30 AND skill <> 'cooking' ORDER BY "
             "age DESC, name;"),
            ("a", "For each age group, 'young' under 35 and 'older' otherwise, give the group "
             "and the number of helpers with a known age.",
             "SELECT CASE WHEN age < 35 THEN 'young' ELSE 'older' END, COUNT(*) FROM helpers "
             "WHERE age IS NOT NULL GROUP BY CASE WHEN age < 35 THEN 'young' ELSE 'older' END;"),
            ("j", "List the title of each project and the date of its first shift, also for the "
             "projects without shifts.",
             "SELECT projects.title, MIN(shifts.shift_date) FROM projects LEFT JOIN shifts ON "
             "shifts.project_id = projects.id GROUP BY projects.title;"),
            ("o", "Which helper ids worked on the project with id 1 and also on the project "
             "with id 2?",
             "SELECT helper_id FROM shifts WHERE project_id = 1 INTERSECT SELECT helper_id FROM "
             "shifts WHERE project_id = 2;"),
            ("w", "List the shift date, the hours and how many shifts there were up to that "
             "date, that one included, by shift date.",
             "SELECT shift_date, hours, COUNT(*) OVER (ORDER BY shift_date) FROM shifts;"),
        ],
    ),
    schema(
        "recipes",
        table("recipe", "recipes",
              label("title", "Veggie Curry|Corn Bread|Bean Chili|Lemon Pasta|Berry Pie|Egg "
                             "Toast|Miso Soup"),
              category("cuisine", "Indian|American|Italian"),
              whole("minutes", 10, 120),
              whole("servings", 2, 8, null=True)),
        table("ingredient", "ingredients",
              label("name", "flour|beans|lemon|eggs|onion|butter|salt"),
              real("price", 0.5, 6)),
        table("recipe item", "recipe items",
              ref("recipe", "recipes"),
              ref("ingredient", "ingredients"),
              whole("grams", 5, 600)),
        queries=[
            ("m", "List each recipe title with the number of its ingredients that cost more "
             "than 2, for recipes with any such ingredient.",
             "SELECT recipes.title, COUNT(*) FROM recipe_items JOIN recipes ON "
             "recipe_items.recipe_id = recipes.id JOIN ingredients ON "
             "recipe_items.ingredient_id = ingredients.id WHERE ingredients.price > 2 GROUP BY "
             "recipes.title;"),
            ("m", "Which cuisines use the ingredient 'onion' or 'lemon'? Give each cuisine once.",
             "SELECT DISTINCT recipes.cuisine FROM recipe_items JOIN recipes ON "
             "recipe_items.recipe_id = recipes.id JOIN ingredients ON "
             "recipe_items.ingredient_id = ingredients.id WHERE ingredients.name IN ('onion', "
             "'lemon');"),
            ("s", "List the title of the recipes that use no ingredient named 'butter'.",
             "SELECT title FROM recipes WHERE id NOT IN (SELECT recipe_id FROM recipe_items "
             "WHERE ingredient_id = (SELECT id FROM ingredients WHERE name = 'butter'));"),
            ("b", "List the title and minutes per serving, as a decimal number, of the recipes "
             "with known servings, fewest minutes per serving first.",
             "SELECT title, minutes * 1.0 / servings FROM recipes WHERE servings IS NOT NULL "
             "ORDER BY minutes * 1.0 / servings;"),
            ("b", "List the name and price of the ingredients whose letter number 2 of the name "
             "is 'o' or whose price is under 3.",
             "SELECT name, price FROM ingredients WHERE SUBSTR(name, 2, 1) = 'o' OR price < 3;"),
            ("a", "What is the total of the grams used of each ingredient id, only for ids used "
             "at least 2 times? Give ingredient id and total, largest total first.",
             "SELECT ingredient_id, SUM(grams) FROM recipe_items GROUP BY ingredient_id HAVING "
             "COUNT(*) >= 2 ORDER BY SUM(grams) DESC;"),
            ("j", "List the ingredient name and the largest grams it is used with, also for "
             "ingredients that no recipe uses.",
             "SELECT ingredients.name, MAX(recipe_items.grams) FROM ingredients LEFT JOIN "
             "recipe_items ON recipe_items.ingredient_id = ingredients.id GROUP BY "
             "ingredients.name;"),
            ("w", "For each recipe item give the recipe id, the grams and its percentage, from "
             "0 to 100, of the recipe's total grams.",
             "SELECT recipe_id, grams, 100.0 * grams / SUM(grams) OVER (PARTITION BY recipe_id) "
             "FROM recipe_items;"),
        ],
    ),
    schema(
        "software",
        table("developer", "developers",
              label("name", "Ada Orr|Blake Yu|Cass Hill|Dino Sarti|Esme Nair|Fox Lund"),
              category("team", "web|data|mobile"),
              date("start_date", 2015, 2022)),
        table("repo", "repos",
              label("name", "atlas|beacon|cobalt|drift|ember|flint"),
              category("language", "Python|Go|Swift"),
              whole("stars", 0, 900, null=True)),
        table("bug", "bugs",
              ref("repo", "repos"),
              ref("developer", "developers", null=True),
              category("severity", "low|medium|high"),
              real("hours_spent", 0.5, 40, null=True),
              date("opened_date", 2022, 2023)),
        queries=[
            ("m", "List the developer name and repo name of the bugs of the severity 'high', "
             "with 'nobody' where a bug has no developer.",
             "SELECT COALESCE(developers.name, 'nobody'), repos.name FROM bugs JOIN repos ON "
             "bugs.repo_id = repos.id LEFT JOIN developers ON bugs.developer_id = developers.id "
             "WHERE bugs.severity = 'high';"),
            ("m", "For each team and language, give the team, the language and the number of "
             "bugs that have a developer.",
             "SELECT developers.team, repos.language, COUNT(*) FROM bugs JOIN developers ON "
             "bugs.developer_id = developers.id JOIN repos ON bugs.repo_id = repos.id GROUP BY "
             "developers.team, repos.language;"),
            ("a", "List the severities with 'high' in place 1, 'medium' in place 2 and 'low' in "
             "place 3, each with its number of bugs.",
             "SELECT severity, COUNT(*) FROM bugs GROUP BY severity ORDER BY CASE severity WHEN "
             "'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END;"),
            ("s", "List the name of the repos that have bugs of at least 2 different severities.",
             "SELECT name FROM repos WHERE (SELECT COUNT(DISTINCT severity) FROM bugs WHERE "
             "bugs.repo_id = repos.id) >= 2;"),
            ("b", "List the id and severity of the bugs without hours spent that were opened in "
             "2022 or that have no developer.",
             "SELECT id, severity FROM bugs WHERE hours_spent IS NULL AND strftime('%Y', "
             "opened_date) = '2022' OR developer_id IS NULL;"),
            ("j", "What is the average of the hours spent on bugs in repos of the language "
             "'Python' and of the severity 'high' or 'medium'?",
             "SELECT AVG(bugs.hours_spent) FROM bugs JOIN repos ON bugs.repo_id = repos.id "
             "WHERE repos.language = 'Python' AND bugs.severity IN ('high', 'medium');"),
            ("w", "Give the id, the opened date and the days since the bug opened before it, as "
             "a number, for each bug in order of opened date.",
             "SELECT id, opened_date, julianday(opened_date) - julianday(LAG(opened_date) OVER "
             "(ORDER BY opened_date)) FROM bugs;"),
            ("o", "List the developer ids with a bug but none of the severity 'low', ignoring "
             "bugs without a developer.",
             "SELECT developer_id FROM bugs WHERE developer_id IS NOT NULL EXCEPT SELECT "
             "developer_id FROM bugs WHERE severity = 'low';"),
        ],
    ),
    schema(
        "online_store",
        table("buyer", "buyers",
              label("name", "Alan Poe|Betty Wu|Cyrus Dix|Daria Kos|Enzo Gatti|Fiona Ash|Gabe "
                            "Lott"),
              category("country", "Spain|Poland|Canada"),
              date("signup_date", 2018, 2022)),
        table("item", "items",
              label("name", "Desk Lamp|Backpack|Notebook|Headphones|Water Bottle|Umbrella|Phone "
                            "Case"),
              category("category", "home|office|outdoor"),
              real("price", 4, 95)),
        table("order", "orders",
              ref("buyer", "buyers"),
              ref("item", "items"),
              whole("quantity", 1, 6),
              date("order_date", 2022, 2023),
              category("status", "paid|shipped|returned"),
              category("coupon", "SPRING|VIP|NEWS", null=True)),
        queries=[
            ("m", "For each buyer country, give the country and the total of price times "
             "quantity over its orders that are not 'returned'.",
             "SELECT buyers.country, SUM(items.price * orders.quantity) FROM orders JOIN buyers "
             "ON orders.buyer_id = buyers.id JOIN items ON orders.item_id = items.id WHERE "
             "orders.status <> 'returned' GROUP BY buyers.country;"),
            ("m", "Which buyer spent the most, price times quantity summed? Give the name and "
             "the sum.",
             "SELECT buyers.name, SUM(items.price * orders.quantity) FROM orders JOIN buyers ON "
             "orders.buyer_id = buyers.id JOIN items ON orders.item_id = items.id GROUP BY "
             "buyers.name ORDER BY SUM(items.price * orders.quantity) DESC LIMIT 1;"),
            ("s", "List the name of the items that were ordered but never 'returned'.",
             "SELECT name FROM items WHERE id IN (SELECT item_id FROM orders) AND id NOT IN "
             "(SELECT item_id FROM orders WHERE status = 'returned');"),
            ("a", "For each month, written like 2022-03, with more than 3 items ordered in "
             "total, give the month and the sum of the quantity, in order of month.",
             "SELECT strftime('%Y-%m', order_date), SUM(quantity) FROM orders GROUP BY "
             "strftime('%Y-%m', order_date) HAVING SUM(quantity) > 3 ORDER BY strftime('%Y-%m', "
             "order_date);"),
            ("a", "For each status, give the status, the number of orders, the total quantity "
             "and the average quantity.",
             "SELECT status, COUNT(*), SUM(quantity), AVG(quantity) FROM orders GROUP BY status;"),
            ("b", "List the name of the items of the category 'home' or 'office' that cost from "
             "10 to 90, in alphabetical order.",
             "SELECT name FROM items WHERE category IN ('home', 'office') AND price BETWEEN 10 "
             "AND 90 ORDER BY name;"),
            ("w", "For every order give the buyer id, the order date and a number that counts "
             "that buyer's orders by order date, 'paid' orders only.",
             "SELECT buyer_id, order_date, ROW_NUMBER() OVER (PARTITION BY buyer_id ORDER BY "
             "order_date) FROM orders WHERE status = 'paid';"),
            ("o", "Show all buyer names and all item names in one column with a second column "
             "that says 'buyer' or 'item'.",
             "SELECT name, 'buyer' FROM buyers UNION ALL SELECT name, 'item' FROM items;"),
        ],
    ),
    schema(
        "hiking",
        table("trail", "trails",
              label("name", "Eagle Loop|Mossy Path|Summit Way|Creek Walk|Ridge Line|Fern Circle|"
                            "Old Pass|Sunset Trail|Wolf Run|Cedar Track"),
              category("park", "Aspen|Boulder|Canyon"),
              real("length_km", 1, 26),
              whole("climb_m", 10, 1200),
              category("difficulty", "easy|moderate|hard"),
              date("opened_date", 1975, 2015, null=True)),
        queries=[
            ("b", "List the name and climb per km, climb in m divided by length in km and "
             "rounded to a whole number, of each trail, steepest first.",
             "SELECT name, ROUND(climb_m / length_km) FROM trails ORDER BY climb_m / length_km "
             "DESC;"),
            ("b", "List the name, park and difficulty of the trails shorter than 15 km that are "
             "not 'hard'.",
             "SELECT name, park, difficulty FROM trails WHERE length_km < 15 AND difficulty <> "
             "'hard';"),
            ("a", "List each park with the total length in km of its trails and the highest "
             "climb in m, for parks with at least 2 trails.",
             "SELECT park, SUM(length_km), MAX(climb_m) FROM trails GROUP BY park HAVING "
             "COUNT(*) >= 2;"),
            ("s", "List the name of the trails that are longer than all trails of the park "
             "'Aspen' and climb more than 100 m.",
             "SELECT name FROM trails WHERE length_km > (SELECT MAX(length_km) FROM trails "
             "WHERE park = 'Aspen') AND climb_m > 100;"),
            ("w", "List the park, name and length in km of the longest trail of each park, "
             "found with a rank.",
             "WITH ranked AS (SELECT park, name, length_km, RANK() OVER (PARTITION BY park "
             "ORDER BY length_km DESC) AS place FROM trails) SELECT park, name, length_km FROM "
             "ranked WHERE place = 1;"),
            ("o", "Which parks have both an 'easy' and a 'hard' trail, in alphabetical order?",
             "SELECT park FROM trails WHERE difficulty = 'easy' INTERSECT SELECT park FROM "
             "trails WHERE difficulty = 'hard' ORDER BY park;"),
            ("a", "What is the average length in km of the trails that opened before 2000-01-01 "
             "or have no opened date?",
             "SELECT AVG(length_km) FROM trails WHERE opened_date < '2000-01-01' OR opened_date "
             "IS NULL;"),
            ("j", "List every pair of trail names in the same park with the same difficulty, "
             "the first name before the second in the alphabet.",
             "SELECT a.name, b.name FROM trails AS a JOIN trails AS b ON a.park = b.park AND "
             "a.difficulty = b.difficulty WHERE a.name < b.name;"),
        ],
    ),
    schema(
        "countries",
        table("nation", "nations",
              label("name", "Avaria|Belmont|Corsova|Dravia|Elbonia|Fenwick|Galdor|Hestia|"
                            "Istmark|Jorvia|Keldan"),
              category("continent", "Norda|Suda|Westa"),
              whole("population", 200000, 9000000),
              whole("area_km2", 900, 400000),
              category("official_language", "Avari|Bel|Corso"),
              whole("coast_km", 10, 3000, null=True)),
        queries=[
            ("b", "List the name and the population per km2, as a decimal number, of the 5 most "
             "densely populated nations.",
             "SELECT name, population * 1.0 / area_km2 FROM nations ORDER BY population * 1.0 / "
             "area_km2 DESC LIMIT 5;"),
            ("a", "For each continent, give the continent, the number of nations and the number "
             "of different official languages.",
             "SELECT continent, COUNT(*), COUNT(DISTINCT official_language) FROM nations GROUP "
             "BY continent;"),
            ("b", "List the name of the nations without a coast that lie in 'Norda' or 'Suda', "
             "in alphabetical order.",
             "SELECT name FROM nations WHERE coast_km IS NULL AND continent IN ('Norda', "
             "'Suda') ORDER BY name;"),
            ("s", "List the name of the nations with more people than the average and less area "
             "in km2 than the average.",
             "SELECT name FROM nations WHERE population > (SELECT AVG(population) FROM nations) "
             "AND area_km2 < (SELECT AVG(area_km2) FROM nations);"),
            ("w", "List the name, population and the population of all nations on its continent "
             "for each nation, most populous nation first.",
             "SELECT name, population, SUM(population) OVER (PARTITION BY continent) FROM "
             "nations ORDER BY population DESC;"),
            ("a", "Which continent has the largest total area in km2? Give the continent and "
             "the total.",
             "SELECT continent, SUM(area_km2) FROM nations GROUP BY continent ORDER BY "
             "SUM(area_km2) DESC LIMIT 1;"),
            ("s", "Using a CTE of the largest population per continent, list the name of the "
             "nations that reach it.",
             "WITH top AS (SELECT continent, MAX(population) AS most FROM nations GROUP BY "
             "continent) SELECT nations.name FROM nations JOIN top ON nations.continent = "
             "top.continent AND nations.population = top.most;"),
            ("o", "Which official languages are spoken in 'Westa' but not in 'Norda'?",
             "SELECT official_language FROM nations WHERE continent = 'Westa' EXCEPT SELECT "
             "official_language FROM nations WHERE continent = 'Norda';"),
        ],
    ),
    schema(
        "energy",
        table("plant", "plants",
              label("name", "North Dam|Gale Park|Sun Field|Delta One|Breeze Bay|Tall Stack|"
                            "Clear Creek"),
              category("source", "hydro|wind|solar|gas"),
              whole("capacity_mw", 10, 420),
              whole("opening_year", 1968, 2021)),
        table("output", "outputs",
              ref("plant", "plants"),
              date("reading_date", 2023, 2023),
              real("mwh", 500, 9000),
              whole("outage_hours", 1, 60, null=True)),
        queries=[
            ("j", "List the plant name and the output per MW of capacity, mwh divided by "
             "capacity in MW, of each output, for plants with the source 'wind' or 'solar'.",
             "SELECT plants.name, outputs.mwh / plants.capacity_mw FROM outputs JOIN plants ON "
             "outputs.plant_id = plants.id WHERE plants.source IN ('wind', 'solar');"),
            ("j", "For each source, give the source and the total mwh, but only the outputs "
             "with fewer than 30 outage hours or none recorded.",
             "SELECT plants.source, SUM(outputs.mwh) FROM outputs JOIN plants ON "
             "outputs.plant_id = plants.id WHERE outputs.outage_hours < 30 OR "
             "outputs.outage_hours IS NULL GROUP BY plants.source;"),
            ("b", "List the name and opening year of the plants that opened before 1990 or "
             "after 2010, earliest first and ties by name.",
             "SELECT name, opening_year FROM plants WHERE opening_year < 1990 OR opening_year > "
             "2010 ORDER BY opening_year, name;"),
            ("a", "How many outputs of more than 3000 mwh have an outage, that is, known outage "
             "hours?",
             "SELECT COUNT(outage_hours) FROM outputs WHERE mwh > 3000;"),
            ("s", "List the name of the plants with an output above 2 times the average mwh of "
             "all outputs or a capacity above 300 MW.",
             "SELECT name FROM plants WHERE capacity_mw > 300 OR id IN (SELECT plant_id FROM "
             "outputs WHERE mwh > 2 * (SELECT AVG(mwh) FROM outputs));"),
            ("w", "List the reading date and mwh of each output beside the mwh of the next "
             "output by reading date.",
             "SELECT reading_date, mwh, LEAD(mwh) OVER (ORDER BY reading_date) FROM outputs;"),
            ("a", "Give the source, number of plants and average capacity in MW of the sources "
             "with an average capacity in MW above 100, highest average first.",
             "SELECT source, COUNT(*), AVG(capacity_mw) FROM plants GROUP BY source HAVING "
             "AVG(capacity_mw) > 100 ORDER BY AVG(capacity_mw) DESC;"),
            ("j", "List the name of the plants with at least 2 outputs of more than 2000 mwh, "
             "and the number of those outputs.",
             "SELECT plants.name, COUNT(*) FROM outputs JOIN plants ON outputs.plant_id = "
             "plants.id WHERE outputs.mwh > 2000 GROUP BY plants.name HAVING COUNT(*) >= 2;"),
        ],
    ),
)
# fmt: on


# --- Templates: the queries all schemas share ---------------------------------------------------
# Slots of one table: T its SQL name, Ts and To its plural and singular in words, A label,
# C and C2 categories, N a number without NULL, S one that adds up, M any number, D a date, X a
# column with NULLs.
# In joins K is the table that holds the key F of P (and G of Q); KA, PC and so on are columns.
# {N} is a column's name, {N.w} its words, the other attributes are literals (see `Slot`).


@dataclass(frozen=True)
class Template:
    """One intent: complexity letter, weight in the draw, gold, and its wordings."""

    complexity: str
    weight: int
    sql: str
    questions: tuple[str, ...]

    @property
    def slots(self) -> frozenset[str]:
        texts = (self.sql, *self.questions)
        fields = [name for text in texts for _, name, _, _ in string.Formatter().parse(text)]
        return frozenset(name.split(".")[0] for name in fields if name)


def template(complexity: str, weight: int, sql: str, *questions: str) -> Template:
    return Template(complexity, weight, sql, questions)


JOIN = "FROM {K} JOIN {P} ON {K}.{F} = {P}.id"
LEFT = "FROM {P} LEFT JOIN {K} ON {K}.{F} = {P}.id"
BRIDGE = JOIN + " JOIN {Q} ON {K}.{G} = {Q}.id"

# fmt: off
TEMPLATES: tuple[Template, ...] = (
    # reading rows
    template("b", 6, "SELECT {A}, {N} FROM {T};",
             "List the {A.w} and {N.w} of every {To}.",
             "Show each {To} with its {A.w} and {N.w}.",
             "Give me the {A.w} and {N.w} of all {Ts}."),
    template("b", 8, "SELECT {A} FROM {T} WHERE {C} = {C.v};",
             "List the {A.w} of every {To} whose {C.w} is {C.v}.",
             "What is the {A.w} of each {To} with the {C.w} {C.v}?",
             "Which {Ts} have the {C.w} {C.v}? Give the {A.w}."),
    template("b", 8, "SELECT {A} FROM {T} WHERE {M} > {M.mid};",
             "List the {A.w} of every {To} whose {M.w} is above {M.mid}.",
             "Which {Ts} have a {M.w} greater than {M.mid}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} with a {M.w} over {M.mid}."),
    template("b", 6, "SELECT {A}, {M} FROM {T} WHERE {M} < {M.mid};",
             "List the {A.w} and {M.w} of every {To} whose {M.w} is below {M.mid}.",
             "Show the {A.w} and {M.w} of the {Ts} with a {M.w} under {M.mid}.",
             "Which {Ts} have a {M.w} of less than {M.mid}? Give the {A.w} and {M.w}."),
    template("b", 8, "SELECT {N} FROM {T} WHERE {A} = {A.v};",
             "What is the {N.w} of the {To} {A.v}?",
             "Give the {N.w} of the {To} whose {A.w} is {A.v}.",
             "Find the {N.w} for the {To} {A.v}."),
    template("b", 4, "SELECT {C}, {N} FROM {T} WHERE {A} = {A.v};",
             "What are the {C.w} and {N.w} of the {To} {A.v}?",
             "Give the {C.w} and {N.w} of the {To} whose {A.w} is {A.v}.",
             "Look up the {C.w} and the {N.w} of {A.v} among the {Ts}."),
    template("b", 5, "SELECT {A} FROM {T} WHERE {C} = {C.v} AND {N} > {N.mid};",
             "List the {A.w} of every {To} with the {C.w} {C.v} and a {N.w} above {N.mid}.",
             "Which {Ts} have the {C.w} {C.v} and a {N.w} over {N.mid}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} whose {C.w} is {C.v} and whose {N.w} is more than "
             "{N.mid}."),
    template("b", 3, "SELECT {A} FROM {T} WHERE {C} = {C.v} OR {N} > {N.mid};",
             "List the {A.w} of every {To} with the {C.w} {C.v} or a {N.w} above {N.mid}.",
             "Which {Ts} have the {C.w} {C.v} or else a {N.w} over {N.mid}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} whose {C.w} is {C.v} or whose {N.w} is more than "
             "{N.mid}."),
    template("b", 4, "SELECT {A}, {C} FROM {T} WHERE {C} IN ({C.v}, {C.v2});",
             "List the {A.w} and {C.w} of every {To} whose {C.w} is {C.v} or {C.v2}.",
             "Show the {A.w} and {C.w} of the {Ts} with the {C.w} {C.v} or {C.v2}.",
             "Which {Ts} have {C.v} or {C.v2} as {C.w}? Give the {A.w} and {C.w}."),
    template("b", 4, "SELECT {A} FROM {T} WHERE {C} <> {C.v};",
             "List the {A.w} of every {To} whose {C.w} is not {C.v}.",
             "Which {Ts} have a {C.w} other than {C.v}? Give the {A.w}.",
             "Show the {A.w} of all {Ts} except those with the {C.w} {C.v}."),
    template("b", 4, "SELECT {A} FROM {T} WHERE {M} BETWEEN {M.lo} AND {M.hi};",
             "List the {A.w} of every {To} whose {M.w} is between {M.lo} and {M.hi}.",
             "Which {Ts} have a {M.w} from {M.lo} to {M.hi}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} with a {M.w} between {M.lo} and {M.hi}."),
    template("b", 3, "SELECT {A} FROM {T} WHERE {A} LIKE {A.like};",
             "List the {A.w} of every {To} whose {A.w} starts with {A.start}.",
             "Which {Ts} have a {A.w} that begins with {A.start}? Give the {A.w}.",
             "Show each {To} {A.w} beginning with {A.start}."),
    template("b", 5, "SELECT {A} FROM {T} WHERE {X} IS NULL;",
             "List the {A.w} of every {To} that has no {X.w} on record.",
             "Which {Ts} have no {X.w} recorded? Give the {A.w}.",
             "Show the {A.w} of the {Ts} whose {X.w} is missing."),
    template("b", 3, "SELECT {A}, {X} FROM {T} WHERE {X} IS NOT NULL;",
             "List the {A.w} and {X.w} of every {To} that has a {X.w} on record.",
             "Show the {A.w} and {X.w} of the {Ts} whose {X.w} is known.",
             "Which {Ts} have their {X.w} recorded? Give the {A.w} and {X.w}."),
    template("b", 2, "SELECT {A}, COALESCE({X}, 'unknown') FROM {T};",
             "List the {A.w} and {X.w} of every {To}, with 'unknown' where the {X.w} is missing.",
             "Show each {To}'s {A.w} and {X.w}; write 'unknown' when there is no {X.w}.",
             "Give the {A.w} and the {X.w} of all {Ts}, replacing a missing {X.w} by 'unknown'."),
    template("b", 4, "SELECT DISTINCT {C} FROM {T};",
             "What are the different {C.w} values of the {Ts}?",
             "List every distinct {C.w} among the {Ts}.",
             "Show each {C.w} that occurs in the {Ts}, without repeats."),
    template("b", 4, "SELECT {A}, {N} FROM {T} ORDER BY {N} DESC;",
             "List the {A.w} and {N.w} of all {Ts}, highest {N.w} first.",
             "Show every {To}'s {A.w} and {N.w}, sorted by {N.w} from high to low.",
             "Give the {A.w} and {N.w} of the {Ts} in descending order of {N.w}."),
    template("b", 3, "SELECT {A}, {C} FROM {T} ORDER BY {A};",
             "List the {A.w} and {C.w} of all {Ts} in alphabetical order of {A.w}.",
             "Show every {To}'s {A.w} and {C.w}, sorted by {A.w}.",
             "Give the {A.w} and {C.w} of the {Ts}, ordered by {A.w} from A to Z."),
    template("b", 3, "SELECT {A}, {N} FROM {T} WHERE {C} = {C.v} ORDER BY {N} DESC;",
             "List the {A.w} and {N.w} of the {Ts} with the {C.w} {C.v}, highest {N.w} first.",
             "Show the {A.w} and {N.w} of every {To} whose {C.w} is {C.v}, from the highest {N.w} "
             "to the lowest.",
             "For the {C.w} {C.v}, give the {A.w} and {N.w} of the {Ts} in descending order of "
             "{N.w}."),
    template("b", 6, "SELECT {A} FROM {T} ORDER BY {N} DESC LIMIT 1;",
             "Which {To} has the highest {N.w}? Give the {A.w}.",
             "What is the {A.w} of the {To} with the largest {N.w}?",
             "Find the {A.w} of the {To} that has the greatest {N.w}."),
    template("b", 5, "SELECT {A} FROM {T} ORDER BY {N} LIMIT 1;",
             "Which {To} has the lowest {N.w}? Give the {A.w}.",
             "What is the {A.w} of the {To} with the smallest {N.w}?",
             "Find the {A.w} of the {To} that has the least {N.w}."),
    template("b", 4, "SELECT {A}, {N} FROM {T} ORDER BY {N} DESC LIMIT 3;",
             "List the {A.w} and {N.w} of the 3 {Ts} with the highest {N.w}, highest first.",
             "Show the top 3 {Ts} by {N.w}, with {A.w} and {N.w}.",
             "What are the {A.w} and {N.w} of the 3 {Ts} with the largest {N.w}, in descending "
             "order?"),
    template("b", 4, "SELECT {A} FROM {T} WHERE {D} > {D.day};",
             "List the {A.w} of every {To} whose {D.w} is after {D.day}.",
             "Which {Ts} have a {D.w} later than {D.day}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} with a {D.w} after {D.day}."),
    template("b", 4, "SELECT {A}, {D} FROM {T} WHERE strftime('%Y', {D}) = '{D.year}';",
             "List the {A.w} and {D.w} of every {To} whose {D.w} is in {D.year}.",
             "Which {Ts} have a {D.w} in the year {D.year}? Give the {A.w} and {D.w}.",
             "Show the {A.w} and {D.w} of the {Ts} with a {D.w} during {D.year}."),
    template("b", 3, "SELECT {A}, {D} FROM {T} ORDER BY {D} LIMIT 1;",
             "Which {To} has the earliest {D.w}? Give the {A.w} and {D.w}.",
             "What are the {A.w} and {D.w} of the {To} with the earliest {D.w}?",
             "Find the {To} with the first {D.w} and give its {A.w} and {D.w}."),
    template("b", 3, "SELECT {A}, CASE WHEN {N} >= {N.mid} THEN 'high' ELSE 'low' END FROM {T};",
             "List the {A.w} of every {To} and 'high' if its {N.w} is at least {N.mid}, otherwise "
             "'low'.",
             "Show each {To}'s {A.w} with the word 'high' for a {N.w} of {N.mid} or more and 'low' "
             "for less.",
             "For all {Ts}, give the {A.w} and a mark: 'high' when the {N.w} is {N.mid} or more, "
             "else 'low'."),
    # aggregates
    template("a", 4, "SELECT COUNT(*) FROM {T};",
             "How many {Ts} are there?",
             "Count all the {Ts}.",
             "What is the total number of {Ts}?"),
    template("a", 8, "SELECT COUNT(*) FROM {T} WHERE {C} = {C.v};",
             "How many {Ts} have the {C.w} {C.v}?",
             "Count the {Ts} whose {C.w} is {C.v}.",
             "What is the number of {Ts} with the {C.w} {C.v}?"),
    template("a", 5, "SELECT COUNT(*) FROM {T} WHERE {M} >= {M.mid};",
             "How many {Ts} have a {M.w} of at least {M.mid}?",
             "Count the {Ts} whose {M.w} is {M.mid} or more.",
             "What is the number of {Ts} with a {M.w} of {M.mid} or higher?"),
    template("a", 3, "SELECT COUNT(*) FROM {T} WHERE strftime('%Y', {D}) = '{D.year}';",
             "How many {Ts} have a {D.w} in {D.year}?",
             "Count the {Ts} whose {D.w} is in the year {D.year}.",
             "What is the number of {Ts} with a {D.w} during {D.year}?"),
    template("a", 2, "SELECT COUNT(*) FROM {T} WHERE {X} IS NULL;",
             "How many {Ts} have no {X.w} on record?",
             "Count the {Ts} whose {X.w} is missing.",
             "For how many {Ts} is the {X.w} not recorded?"),
    template("a", 2, "SELECT COUNT({X}) FROM {T};",
             "How many {Ts} have a {X.w} on record?",
             "Count the {Ts} whose {X.w} is known.",
             "For how many {Ts} is the {X.w} recorded?"),
    template("a", 6, "SELECT AVG({M}) FROM {T};",
             "What is the average {M.w} of the {Ts}?",
             "Find the mean {M.w} over all {Ts}.",
             "Compute the average {M.w} across the {Ts}."),
    template("a", 5, "SELECT MAX({M}) FROM {T};",
             "What is the highest {M.w} of any {To}?",
             "Find the largest {M.w} among the {Ts}.",
             "Give the maximum {M.w} of the {Ts}."),
    template("a", 4, "SELECT MIN({M}) FROM {T};",
             "What is the lowest {M.w} of any {To}?",
             "Find the smallest {M.w} among the {Ts}.",
             "Give the minimum {M.w} of the {Ts}."),
    template("a", 4, "SELECT MAX({D}) FROM {T};",
             "What is the latest {D.w} of any {To}?",
             "Find the most recent {D.w} among the {Ts}.",
             "Give the last {D.w} of the {Ts}."),
    template("a", 2, "SELECT MIN({N}), MAX({N}) FROM {T};",
             "What are the lowest and the highest {N.w} of the {Ts}?",
             "Give the minimum and maximum {N.w} over all {Ts}.",
             "Find the smallest and then the largest {N.w} among the {Ts}."),
    template("a", 5, "SELECT AVG({M}) FROM {T} WHERE {C} = {C.v};",
             "What is the average {M.w} of the {Ts} with the {C.w} {C.v}?",
             "Find the mean {M.w} of the {Ts} whose {C.w} is {C.v}.",
             "For the {C.w} {C.v}, what is the average {M.w} of the {Ts}?"),
    template("a", 4, "SELECT MAX({M}) FROM {T} WHERE {C} = {C.v};",
             "What is the highest {M.w} among the {Ts} with the {C.w} {C.v}?",
             "Find the largest {M.w} of the {Ts} whose {C.w} is {C.v}.",
             "For the {C.w} {C.v}, give the maximum {M.w} of the {Ts}."),
    template("a", 5, "SELECT SUM({S}) FROM {T};",
             "What is the total {S.w} of all {Ts}?",
             "Find the sum of the {S.w} over all {Ts}.",
             "Add up the {S.w} of every {To}."),
    template("a", 5, "SELECT SUM({S}) FROM {T} WHERE {C} = {C.v};",
             "What is the total {S.w} of the {Ts} with the {C.w} {C.v}?",
             "Add up the {S.w} of every {To} whose {C.w} is {C.v}.",
             "For the {C.w} {C.v}, what is the sum of the {S.w} of the {Ts}?"),
    template("a", 5, "SELECT {C}, SUM({S}) FROM {T} GROUP BY {C};",
             "What is the total {S.w} of the {Ts} for each {C.w}? Give the {C.w} and the total.",
             "List each {C.w} with the sum of the {S.w} of its {Ts}.",
             "Show every {C.w} and the total {S.w} of the {Ts} in it."),
    template("a", 4, "SELECT COUNT(DISTINCT {C}) FROM {T};",
             "How many different {C.w} values do the {Ts} have?",
             "Count the distinct {C.w} values among the {Ts}.",
             "What is the number of different {C.w} values in the {Ts}?"),
    template("a", 8, "SELECT {C}, COUNT(*) FROM {T} GROUP BY {C};",
             "How many {Ts} are there for each {C.w}? Give the {C.w} and the count.",
             "List each {C.w} with its number of {Ts}.",
             "Count the {Ts} per {C.w}, giving the {C.w} and the count."),
    template("a", 5, "SELECT {C}, AVG({M}) FROM {T} GROUP BY {C};",
             "What is the average {M.w} of the {Ts} for each {C.w}? Give the {C.w} and the "
             "average.",
             "List each {C.w} with the mean {M.w} of its {Ts}.",
             "Show every {C.w} and the average {M.w} of the {Ts} in it."),
    template("a", 4, "SELECT {C}, MAX({M}) FROM {T} GROUP BY {C};",
             "What is the highest {M.w} of the {Ts} for each {C.w}? Give the {C.w} and the "
             "maximum.",
             "List each {C.w} with the largest {M.w} among its {Ts}.",
             "Show every {C.w} and the maximum {M.w} of the {Ts} in it."),
    template("a", 3, "SELECT {C}, COUNT(*) FROM {T} GROUP BY {C} ORDER BY COUNT(*) DESC, {C};",
             "List each {C.w} with its number of {Ts}, largest number first and ties by {C.w}.",
             "Count the {Ts} per {C.w}; give {C.w} and count, sorted by count from high to low, "
             "then by {C.w}.",
             "Show every {C.w} and how many {Ts} it has, in descending order of the count and then "
             "alphabetically by {C.w}."),
    template("a", 2, "SELECT {C}, {C2}, COUNT(*) FROM {T} GROUP BY {C}, {C2};",
             "How many {Ts} are there for each {C.w} and {C2.w}? Give {C.w}, {C2.w} and count.",
             "List every pair of {C.w} and {C2.w} with its number of {Ts}.",
             "Count the {Ts} per {C.w} and {C2.w}, giving {C.w}, {C2.w} and the count."),
    template("a", 4, "SELECT {C}, COUNT(*) FROM {T} GROUP BY {C} HAVING COUNT(*) > {C.n};",
             "Which {C.w} values have more than {C.n} {Ts}? Give the {C.w} and the count.",
             "List each {C.w} that occurs in more than {C.n} {Ts}, with its number of {Ts}.",
             "Show every {C.w} with over {C.n} {Ts} and how many it has."),
    template("a", 2, "SELECT {C} FROM {T} GROUP BY {C} HAVING AVG({N}) > {N.mid};",
             "Which {C.w} values have {Ts} with an average {N.w} above {N.mid}?",
             "List each {C.w} whose {Ts} have a mean {N.w} of more than {N.mid}.",
             "For which {C.w} is the average {N.w} of the {Ts} greater than {N.mid}?"),
    template("a", 3, "SELECT {C} FROM {T} GROUP BY {C} ORDER BY COUNT(*) DESC LIMIT 1;",
             "Which {C.w} has the most {Ts}?",
             "What is the most common {C.w} among the {Ts}?",
             "Find the {C.w} with the largest number of {Ts}."),
    template("a", 3, "SELECT strftime('%Y', {D}), COUNT(*) FROM {T} GROUP BY strftime('%Y', {D});",
             "How many {Ts} are there for each year of {D.w}? Give the year and the count.",
             "Count the {Ts} per year of their {D.w}, giving year and count.",
             "List each year of {D.w} with the number of {Ts}."),
    # joins
    template("j", 7, "SELECT {K}.{KA}, {P}.{PA} " + JOIN + ";",
             "List the {KA.w} of every {Ko} and the {PA.w} of its {Po}.",
             "Show each {Ko}'s {KA.w} together with its {Po}'s {PA.w}.",
             "Give the {KA.w} of all {Ks} with the {PA.w} of the {Po} they belong to."),
    template("j", 7, "SELECT {K}.{KA} " + JOIN + " WHERE {P}.{PA} = {PA.v};",
             "List the {KA.w} of every {Ko} whose {Po} is {PA.v}.",
             "Which {Ks} belong to the {Po} {PA.v}? Give the {KA.w}.",
             "Show the {KA.w} of the {Ks} of the {Po} {PA.v}."),
    template("j", 5, "SELECT {K}.{KA} " + JOIN + " WHERE {P}.{PC} = {PC.v};",
             "List the {KA.w} of every {Ko} whose {Po} has the {PC.w} {PC.v}.",
             "Which {Ks} belong to a {Po} with the {PC.w} {PC.v}? Give the {KA.w}.",
             "Show the {KA.w} of the {Ks} whose {Po}'s {PC.w} is {PC.v}."),
    template("j", 6, "SELECT {P}.{PA}, {K}.{KN} " + JOIN + ";",
             "List the {Po} {PA.w} and the {KN.w} of every {Ko}.",
             "Show, for each {Ko}, its {Po}'s {PA.w} and its {KN.w}.",
             "Give the {PA.w} of the {Po} and the {KN.w} for all {Ks}."),
    template("j", 5, "SELECT COUNT(*) " + JOIN + " WHERE {P}.{PA} = {PA.v};",
             "How many {Ks} does the {Po} {PA.v} have?",
             "Count the {Ks} of the {Po} {PA.v}.",
             "What is the number of {Ks} whose {Po} is {PA.v}?"),
    template("j", 4, "SELECT COUNT(*) " + JOIN + " WHERE {P}.{PC} = {PC.v};",
             "How many {Ks} have a {Po} with the {PC.w} {PC.v}?",
             "Count the {Ks} whose {Po}'s {PC.w} is {PC.v}.",
             "What is the number of {Ks} that belong to a {Po} with the {PC.w} {PC.v}?"),
    template("j", 4, "SELECT SUM({K}.{KS}) " + JOIN + " WHERE {P}.{PA} = {PA.v};",
             "What is the total {KS.w} of the {Ks} of the {Po} {PA.v}?",
             "Add up the {KS.w} of every {Ko} whose {Po} is {PA.v}.",
             "Find the sum of {KS.w} over the {Ks} that belong to the {Po} {PA.v}."),
    template("j", 3, "SELECT AVG({K}.{KM}) " + JOIN + " WHERE {P}.{PC} = {PC.v};",
             "What is the average {KM.w} of the {Ks} whose {Po}'s {PC.w} is {PC.v}?",
             "Find the mean {KM.w} of the {Ks} that belong to a {Po} with the {PC.w} {PC.v}.",
             "For a {Po} {PC.w} of {PC.v}, compute the average {KM.w} of the {Ks}."),
    template("j", 6, "SELECT {P}.{PA}, COUNT(*) " + JOIN + " GROUP BY {P}.{PA};",
             "For each {Po} with at least one {Ko}, give the {PA.w} and the number of {Ks}.",
             "Count the {Ks} per {Po}, giving the {Po}'s {PA.w} and the count; leave out those "
             "with "
             "none.",
             "List the {PA.w} of every {Po} that has any {Ks}, with how many it has."),
    template("j", 4, "SELECT {P}.{PA}, SUM({K}.{KS}) " + JOIN + " GROUP BY {P}.{PA};",
             "For each {Po} with at least one {Ko}, give the {PA.w} and the total {KS.w} of its "
             "{Ks}.",
             "List the {PA.w} of every {Po} that has any {Ks}, with the sum of their {KS.w}.",
             "Add up the {KS.w} of the {Ks} per {Po}, giving the {Po}'s {PA.w} and the total; "
             "leave "
             "out those with none."),
    template("j", 3, "SELECT {P}.{PA}, MAX({K}.{KN}) " + JOIN + " GROUP BY {P}.{PA};",
             "For each {Po} with at least one {Ko}, give the {PA.w} and the highest {KN.w} of its "
             "{Ks}.",
             "List the {PA.w} of every {Po} that has any {Ks}, with the largest {KN.w} among them.",
             "Show, per {Po} that has {Ks}, the {PA.w} and the maximum {KN.w}."),
    template("j", 3, "SELECT {P}.{PC}, COUNT(*) " + JOIN + " GROUP BY {P}.{PC};",
             "How many {Ks} are there for each {Po} {PC.w}? Give the {PC.w} and the count.",
             "Count the {Ks} per {PC.w} of their {Po}, giving {PC.w} and count.",
             "List each {PC.w} of the {Ps} with the number of {Ks} that belong to it."),
    template("j", 4, "SELECT {P}.{PA}, COUNT({K}.id) " + LEFT + " GROUP BY {P}.{PA};",
             "How many {Ks} does every {Po} have, zero included? Give the {PA.w} and the count.",
             "List the {PA.w} of all {Ps} with their number of {Ks}, also those with none.",
             "For every {Po}, even without any {Ks}, give the {PA.w} and the number of {Ks}."),
    template("j", 3, "SELECT {P}.{PA}, COUNT(*) " + JOIN
             + " GROUP BY {P}.{PA} HAVING COUNT(*) > {F.n};",
             "Which {Ps} have more than {F.n} {Ks}? Give the {PA.w} and the count.",
             "List the {PA.w} of every {Po} with over {F.n} {Ks}, and how many it has.",
             "Show the {PA.w} and number of {Ks} of the {Ps} that have more than {F.n}."),
    template("j", 3, "SELECT {P}.{PA} " + JOIN
             + " GROUP BY {P}.{PA} ORDER BY COUNT(*) DESC LIMIT 1;",
             "Which {Po} has the most {Ks}? Give the {PA.w}.",
             "What is the {PA.w} of the {Po} with the largest number of {Ks}?",
             "Find the {PA.w} of the {Po} that has the most {Ks}."),
    template("j", 2, "SELECT {P}.{PA} " + JOIN
             + " GROUP BY {P}.{PA} ORDER BY SUM({K}.{KS}) DESC LIMIT 1;",
             "Which {Po} has the highest total {KS.w} over its {Ks}? Give the {PA.w}.",
             "What is the {PA.w} of the {Po} whose {Ks} add up to the largest {KS.w}?",
             "Find the {PA.w} of the {Po} with the greatest sum of {KS.w}."),
    template("j", 4, "SELECT {K}.{KA}, {P}.{PA} " + JOIN + " WHERE {K}.{KN} > {KN.mid};",
             "List the {KA.w} and {Po} {PA.w} of every {Ko} with a {KN.w} above {KN.mid}.",
             "Which {Ks} have a {KN.w} over {KN.mid}? Give the {KA.w} and the {Po}'s {PA.w}.",
             "Show the {KA.w} of each {Ko} whose {KN.w} is more than {KN.mid}, and its {Po}'s "
             "{PA.w}."),
    template("j", 3, "SELECT DISTINCT {P}.{PA} " + JOIN + " WHERE {K}.{KC} = {KC.v};",
             "Which {Ps} have a {Ko} with the {KC.w} {KC.v}? Give each {PA.w} once.",
             "List, without repeats, the {PA.w} of the {Ps} that have a {Ko} whose {KC.w} is "
             "{KC.v}.",
             "Show the distinct {PA.w} of every {Po} with any {Ko} of the {KC.w} {KC.v}."),
    # subqueries
    template("s", 4, "SELECT {PA} FROM {P} WHERE id NOT IN (SELECT {F} FROM {K});",
             "Which {Ps} have no {Ks}? Give the {PA.w}.",
             "List the {PA.w} of every {Po} without any {Ks}.",
             "Show the {PA.w} of the {Ps} that do not have a single {Ko}."),
    template("s", 3, "SELECT {PA} FROM {P} WHERE id IN (SELECT {F} FROM {K} WHERE {KC} = {KC.v});",
             "List the {PA.w} of every {Po} that has at least one {Ko} with the {KC.w} {KC.v}.",
             "Which {Ps} appear among the {Ks} whose {KC.w} is {KC.v}? Give the {PA.w}.",
             "Show the {PA.w} of the {Ps} that have some {Ko} of the {KC.w} {KC.v}."),
    template("s", 3, "SELECT {PA} FROM {P} WHERE id IN (SELECT {F} FROM {K} WHERE {KN} > "
                     "{KN.mid});",
             "List the {PA.w} of every {Po} that has at least one {Ko} with a {KN.w} above "
             "{KN.mid}.",
             "Which {Ps} have some {Ko} whose {KN.w} is more than {KN.mid}? Give the {PA.w}.",
             "Show the {PA.w} of the {Ps} with any {Ko} of a {KN.w} over {KN.mid}."),
    template("s", 6, "SELECT {A} FROM {T} WHERE {N} > (SELECT AVG({N}) FROM {T});",
             "List the {A.w} of every {To} whose {N.w} is above the average.",
             "Which {Ts} have a {N.w} higher than the average {N.w}? Give the {A.w}.",
             "Show the {A.w} of the {Ts} with an above-average {N.w}."),
    template("s", 3, "SELECT {A}, {N} FROM {T} WHERE {N} < (SELECT AVG({N}) FROM {T});",
             "List the {A.w} and {N.w} of every {To} whose {N.w} is below the average.",
             "Which {Ts} have a {N.w} lower than the average {N.w}? Give the {A.w} and {N.w}.",
             "Show the {A.w} and {N.w} of the {Ts} with a below-average {N.w}."),
    template("s", 3, "SELECT {A}, {M} FROM {T} WHERE {M} = (SELECT MAX({M}) FROM {T});",
             "List the {A.w} and {M.w} of all {Ts} that share the highest {M.w}.",
             "Give the {A.w} and {M.w} of every {To} whose {M.w} equals the maximum.",
             "Which {Ts} have the maximum {M.w}, ties included? Give the {A.w} and {M.w}."),
    template("s", 2, "SELECT {PA}, (SELECT COUNT(*) FROM {K} WHERE {K}.{F} = {P}.id) FROM {P};",
             "For every {Po}, give the {PA.w} and, from a subquery, its number of {Ks}.",
             "Using a subquery, show the {PA.w} of all {Ps} and how many {Ks} each has, zero "
             "included.",
             "List all {Ps} by {PA.w}, each with a subquery that counts its {Ks}."),
    template("s", 3, "SELECT {PA} FROM {P} WHERE NOT EXISTS (SELECT 1 FROM {K} WHERE {K}.{F} = "
                     "{P}.id "
             "AND {K}.{KC} = {KC.v});",
             "Which {Ps} have no {Ko} with the {KC.w} {KC.v}? Give the {PA.w}.",
             "List the {PA.w} of every {Po} without any {Ko} whose {KC.w} is {KC.v}.",
             "Show the {PA.w} of the {Ps} that do not have a {Ko} of the {KC.w} {KC.v}."),
    template("s", 3, "SELECT {A}, {N} FROM {T} AS t WHERE {N} = (SELECT MAX({N}) FROM {T} WHERE "
                     "{C} = "
             "t.{C});",
             "List the {A.w} and {N.w} of every {To} that has the highest {N.w} of its {C.w}.",
             "Which {Ts} have the largest {N.w} within their {C.w}? Give the {A.w} and {N.w}.",
             "For each {C.w}, find the {To} with the maximum {N.w}; give its {A.w} and {N.w}."),
    template("s", 2, "WITH totals AS (SELECT {C}, SUM({S}) AS total FROM {T} GROUP BY {C}) "
             "SELECT {C}, total FROM totals WHERE total > (SELECT AVG(total) FROM totals);",
             "Which {C.w} values have a total {S.w} above the average of the totals? Give the "
             "{C.w} "
             "and its total.",
             "Add up the {S.w} of the {Ts} per {C.w}; list each {C.w} and total that lies over the "
             "mean total.",
             "Show every {C.w} whose {Ts} have a total {S.w} higher than the average {C.w} total, "
             "and that total."),
    # window functions
    template("w", 3, "SELECT {A}, {N}, RANK() OVER (ORDER BY {N} DESC) FROM {T};",
             "List the {A.w}, {N.w} and rank of every {To}, rank 1 being the highest {N.w}.",
             "Rank the {Ts} by {N.w} from high to low; give {A.w}, {N.w} and rank.",
             "Show each {To}'s {A.w} and {N.w} with its rank by descending {N.w}."),
    template("w", 3, "SELECT {A}, {C}, RANK() OVER (PARTITION BY {C} ORDER BY {N} DESC) FROM {T};",
             "List the {A.w}, {C.w} and rank of every {To} within its {C.w}, highest {N.w} first.",
             "Rank the {Ts} within each {C.w} by {N.w} from high to low; give {A.w}, {C.w} and "
             "rank.",
             "Show each {To}'s {A.w} and {C.w} with its rank by descending {N.w} inside that "
             "{C.w}."),
    template("w", 3, "SELECT {A}, {N}, AVG({N}) OVER (PARTITION BY {C}) FROM {T};",
             "List the {A.w} and {N.w} of every {To} beside the average {N.w} of its {C.w}.",
             "Show each {To}'s {A.w}, its {N.w} and the mean {N.w} of all {Ts} with the same "
             "{C.w}.",
             "For all {Ts}, give the {A.w}, the {N.w} and the average {N.w} within the {C.w}."),
    # set operations
    template("o", 4, "SELECT {C} FROM {T} WHERE {N} > {N.hi} INTERSECT SELECT {C} FROM {T} WHERE "
                     "{N} "
             "< {N.lo};",
             "Which {C.w} values have both {Ts} with a {N.w} above {N.hi} and {Ts} with a {N.w} "
             "below {N.lo}?",
             "List each {C.w} that has a {To} with a {N.w} over {N.hi} and also one under {N.lo}.",
             "Find the {C.w} values found among the {Ts} with a {N.w} above {N.hi} as well as "
             "those below {N.lo}."),
    template("o", 4, "SELECT {C} FROM {T} EXCEPT SELECT {C} FROM {T} WHERE {N} > {N.hi};",
             "Which {C.w} values have no {To} with a {N.w} above {N.hi}?",
             "List each {C.w} of the {Ts}, except those with a {To} whose {N.w} is over {N.hi}.",
             "Find the {C.w} values for which none of the {Ts} has a {N.w} of more than {N.hi}."),
    template("o", 4, "SELECT {PA} FROM {P} UNION SELECT {KA} FROM {K};",
             "Make one list without repeats of every {Po} {PA.w} and every {Ko} {KA.w}.",
             "List the {PA.w} of all {Ps} together with the {KA.w} of all {Ks} in one column.",
             "Combine the {PA.w} of each {Po} and the {KA.w} of each {Ko} into a single list."),
    # two joins
    template("m", 6, "SELECT {P}.{PA}, {Q}.{QA} " + BRIDGE + ";",
             "List the {Po} {PA.w} and the {Qo} {QA.w} of every {Ko}.",
             "Show, for each {Ko}, its {Po}'s {PA.w} and its {Qo}'s {QA.w}.",
             "Give the {PA.w} of the {Po} and the {QA.w} of the {Qo} for all {Ks}."),
    template("m", 6, "SELECT {Q}.{QA} " + BRIDGE + " WHERE {P}.{PA} = {PA.v};",
             "List the {Qo} {QA.w} of every {Ko} of the {Po} {PA.v}.",
             "For each {Ko} whose {Po} is {PA.v}, give the {QA.w} of the {Qo}.",
             "Show the {QA.w} of the {Qo} for all {Ks} that belong to the {Po} {PA.v}."),
    template("m", 4, "SELECT {P}.{PA}, {Q}.{QA}, {K}.{KN} " + BRIDGE + " WHERE {K}.{KN} > "
                                                                       "{KN.mid};",
             "List the {Po} {PA.w}, {Qo} {QA.w} and {KN.w} of every {Ko} with a {KN.w} above "
             "{KN.mid}.",
             "For each {Ko} whose {KN.w} is over {KN.mid}, give the {Po}'s {PA.w}, the {Qo}'s "
             "{QA.w} and the {KN.w}.",
             "Show the {Ks} with a {KN.w} of more than {KN.mid}: {Po} {PA.w}, {Qo} {QA.w} and "
             "{KN.w}."),
)
# fmt: on


# --- Rows ---------------------------------------------------------------------------------------

Value = str | int | float | None
Rows = dict[str, list[list[Value]]]


def draw_value(column: Column, rng: random.Random) -> Value:
    """One value of a category, number or date column."""
    low, high = int(column.low), int(column.high)
    if column.kind == "category":
        return rng.choice(column.pool)
    if column.kind == "whole":
        return rng.randint(low, high)
    if column.kind == "real":
        return round(rng.uniform(column.low, column.high), 1)
    return f"{rng.randint(low, high)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def draw_column(column: Column, count: int, keys: int, rng: random.Random) -> list[Value]:
    """`count` values; numbers get a tie half of the time, nullable columns one to three NULLs.

    `keys` is the number of rows in the table a ref column points to.
    """
    if column.kind == "label":
        values: list[Value] = list(rng.sample(column.pool, count))
    elif column.kind == "ref":  # one or two keys stay unused, for outer joins and NOT IN
        used = rng.sample(range(1, keys + 1), max(2, keys - rng.choice((1, 2))))
        values = [rng.choice(used) for _ in range(count)]
    else:
        values = [draw_value(column, rng) for _ in range(count)]
    if column.kind in ("whole", "real") and rng.random() < 0.5:
        first, second = rng.sample(range(count), 2)
        values[first] = values[second]
    if column.null:
        for place in rng.sample(range(count), rng.randint(1, 3)):
            values[place] = None
    return values


def draw_rows(schema: Schema, rng: random.Random) -> Rows:
    sizes = {table.name: table.rows for table in schema.tables}
    rows: Rows = {}
    for table in schema.tables:
        columns = [
            draw_column(c, table.rows, sizes[c.pool[0]] if c.kind == "ref" else 0, rng)
            for c in table.columns
        ]
        rows[table.name] = [[i + 1, *values] for i, values in enumerate(zip(*columns, strict=True))]
    return rows


def literal(value: Value) -> str:
    if value is None:
        return "NULL"
    return f"'{value}'" if isinstance(value, str) else str(value)


def context_of(schema: Schema, rows: Rows) -> str:
    """The CREATE statements, then one INSERT a table."""
    creates, inserts = [], []
    for table in schema.tables:
        columns = "".join(f", {column.name} {column.sql_type}" for column in table.columns)
        creates.append(f"CREATE TABLE {table.name} (id INTEGER PRIMARY KEY{columns});")
        values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows[table.name])
        inserts.append(f"INSERT INTO {table.name} VALUES {values};")
    return " ".join(creates + inserts)


# --- Running and judging a gold -----------------------------------------------------------------


class Judge:
    """Says what is wrong with a gold, given a schema's rows.

    Three databases hold the same rows in different stored orders (the key's constraint is left
    out of the last two), so a gold that leans on the stored order is seen.
    """

    def __init__(self, schema: Schema, rows: Rows) -> None:
        shuffled = {name: random.Random(1).sample(r, len(r)) for name, r in rows.items()}
        backwards = {name: r[::-1] for name, r in rows.items()}
        contexts = [context_of(schema, order) for order in (rows, backwards, shuffled)]
        contexts[1:] = [context.replace(" PRIMARY KEY", "") for context in contexts[1:]]
        self.databases = [sqlite3.connect(":memory:") for _ in contexts]
        for database, context in zip(self.databases, contexts, strict=True):
            database.executescript(context)

    def results(self, sql: str) -> list[list[tuple[Value, ...]]]:
        return [result_of(database, sql) for database in self.databases]

    def problem(self, sql: str) -> str:
        """Why the gold should not be used; empty when it may be."""
        try:
            first, *others = self.results(sql)
        except sqlite3.Error as error:
            return f"does not run: {error}"
        if all(value in (None, 0) for row in first for value in row):
            return "returns nothing, or only NULL and 0"
        if any(other != first for other in others):
            return "depends on the stored order"
        for clause, changed in without_a_clause(sql):
            try:
                if result_of(self.databases[0], changed) == first:
                    return f"{clause} changes nothing"
            except sqlite3.Error:  # what is left is not a query; nothing to learn from it
                continue
        return ""


def result_of(database: sqlite3.Connection, sql: str) -> list[tuple[Value, ...]]:
    """Rows with rounded floats; sorted where the query leaves the order open."""
    rows = [
        tuple(round(value, 6) if isinstance(value, float) else value for value in row)
        for row in database.execute(sql)
    ]
    outside = re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", sql))
    return rows if " ORDER BY " in outside else sorted(rows, key=repr)


def without_a_clause(sql: str) -> Iterator[tuple[str, str]]:
    """(clause, the query without it) for each clause that ought to matter."""
    changes = (
        ("WHERE", r" WHERE .*?(?= GROUP BY| ORDER BY| INTERSECT| EXCEPT| UNION|;)", ""),
        ("HAVING", r" HAVING .*?(?= ORDER BY|;)", ""),
        ("LIMIT", r" LIMIT \d+(?=;)", ""),
        ("DISTINCT", r"DISTINCT ", ""),
        ("LEFT", r"LEFT JOIN", "JOIN"),
        ("ORDER BY", r" DESC\b", ""),
    )
    for clause, pattern, replacement in changes:
        if clause == "WHERE" and "(SELECT" in sql:
            continue
        changed = re.sub(pattern, replacement, sql, count=1)
        if changed != sql:
            yield clause, changed


# --- Filling templates --------------------------------------------------------------------------


@dataclass
class Slot:
    """A column in a template: formats as its name, offers its words and literals of its rows."""

    name: str
    words: str
    literals: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def __getattr__(self, key: str) -> str:
        literals: dict[str, str] = self.__dict__.get("literals", {})
        if key in literals:
            return literals[key]
        raise AttributeError(key)

    @property
    def w(self) -> str:
        return self.words


Slots = dict[str, object]


def words_of(name: str) -> str:
    """A column's name as a person says it: `weight_kg` is the weight in kg."""
    head, _, last = name.rpartition("_")
    unit = {"mw": "MW"}.get(last, last)
    units = ("kg", "km", "cm", "m", "mm", "km2", "m2", "mw", "kw", "tons")
    return (
        f"{head} in {unit}".replace("_", " ") if head and last in units else name.replace("_", " ")
    )


def threshold(values: Sequence[float], share: float) -> str:
    """A plain number with about `share` of the values below it."""
    ordered = sorted(values)
    value = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
    if isinstance(value, int):
        return str(round(value, -1) if value >= 150 else value)
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"


def slot_of(column: Column, values: Sequence[Value], rng: random.Random) -> Slot:
    """A column's slot, with literals chosen among its values."""
    present = [value for value in values if value is not None]
    slot = Slot(column.name, words_of(column.name), {"n": str(rng.randint(2, 3))})
    if column.kind in ("whole", "real"):
        numbers = [value for value in present if not isinstance(value, str)]
        for key, low, high in (("mid", 0.35, 0.65), ("lo", 0.2, 0.45), ("hi", 0.55, 0.8)):
            slot.literals[key] = threshold(numbers, rng.uniform(low, high))
    elif column.kind == "date":
        day = str(rng.choice(sorted(map(str, present))[2:-2]))
        slot.literals.update(day=f"'{day[:8]}01'", year=day[:4])
    elif column.kind in ("label", "category"):
        distinct = sorted({str(value) for value in present})
        pair = rng.sample(distinct, 2) if len(distinct) > 1 else distinct * 2
        slot.literals.update(v=f"'{pair[0]}'", v2=f"'{pair[1]}'")
        slot.literals.update(like=f"'{pair[0][0]}%'", start=f"'{pair[0][0]}'")
    return slot


def table_slots(table: Table, rows: Rows, prefix: str, rng: random.Random) -> Slots:
    """Slots of one table; the columns' names get `prefix` (K, P, Q, or nothing for T)."""
    values = dict(
        zip(
            [c.name for c in table.columns],
            list(zip(*rows[table.name], strict=True))[1:],
            strict=True,
        )
    )
    name = prefix or "T"
    slots: Slots = {name: table.name, f"{name}s": table.many, f"{name}o": table.one}
    kinds: dict[str, Callable[[Column], bool]] = {
        "A": lambda c: c.kind == "label" and not c.null,
        "C": lambda c: c.kind == "category" and not c.null,
        "N": lambda c: c.kind in ("whole", "real") and not c.null,
        "S": lambda c: c.kind in ("whole", "real") and not c.null and c.adds_up,
        "M": lambda c: c.kind in ("whole", "real"),
        "D": lambda c: c.kind == "date" and not c.null,
        "X": lambda c: c.null and c.kind != "ref",
    }
    for key, fits in kinds.items():
        columns = [column for column in table.columns if fits(column)]
        rng.shuffle(columns)
        for number, column in enumerate(columns[:2]):
            slot = slot_of(column, values[column.name], rng)
            slots[f"{prefix}{key}{number + 1 if number else ''}"] = slot
    return slots


def bind(schema: Schema, rows: Rows, template: Template, rng: random.Random) -> Slots | None:
    """Slots for a template drawn from a schema's tables, or None where they do not fit."""
    tables = {table.name: table for table in schema.tables}
    if "T" in template.slots:
        slots = table_slots(rng.choice(schema.tables), rows, "", rng)
    else:
        children = [t for t in schema.tables if any(c.kind == "ref" for c in t.columns)]
        if not children:
            return None
        child = rng.choice(children)
        refs = [column for column in child.columns if column.kind == "ref"]
        rng.shuffle(refs)
        slots = table_slots(child, rows, "K", rng)
        for parent, key, column in zip("PQ", "FG", refs, strict=False):
            slots |= table_slots(tables[column.pool[0]], rows, parent, rng)
            slots[key] = slot_of(column, [], rng)
    return slots if template.slots <= slots.keys() else None


def polish(question: str, slots: Sequence[Slot]) -> str:
    """Articles and verbs that agree with the column's words: `pages are`, `an age`."""
    for slot in slots:
        words = slot.words.split(" in ")[0].split()
        if any(re.search(r"[^s]s$", word) and word not in NOT_PLURAL for word in words):
            question = question.replace(f" a {slot.words} ", f" {slot.words} ")
            question = question.replace(f" {slot.words} is ", f" {slot.words} are ")
    return re.sub(r"\b([Aa]) (?=[aeio]|un(?!i))", r"\1n ", question)


def fill(
    schema: Schema, rows: Rows, template: Template, judge: Judge, rng: random.Random
) -> Query | None:
    """A query made from a template that the judge accepts; None when twenty draws found none."""
    for _ in range(20):
        slots = bind(schema, rows, template, rng)
        if slots is None:
            continue
        sql = template.sql.format(**slots)
        question = rng.choice(template.questions).format(**slots)
        question = polish(question, [slot for slot in slots.values() if isinstance(slot, Slot)])
        if not judge.problem(sql) and not missing_literals(question, sql):
            return Query(template.complexity, question, sql)
    return None


# --- Wording ------------------------------------------------------------------------------------


def reword(question: str, rng: random.Random) -> str:
    """The same question with another opening, so that one intent is not always asked one way."""
    if question.startswith("List "):
        return rng.choice(("List", "Show", "Give", "Find", "Return")) + question[4:]
    one_sentence = question.endswith("?") and question.count("?") == 1 and ". " not in question
    if one_sentence and question.startswith("What is the "):
        start = rng.choice(("What is the ", "Give the ", "Find the "))
        return start + question[12:-1] + ("?" if start[0] == "W" else ".")
    return question


NUMBER_WORDS = dict(enumerate("zero one two three four five".split()))
MONTHS = (
    "January February March April May June July August September October November December".split()
)


def missing_literals(question: str, sql: str) -> list[str]:
    """Literals of the gold that a reader of the question cannot know."""
    missing = []
    for text in re.findall(r"'([^']*)'", sql):
        plain = text.strip("%+ ").removesuffix(" days")
        month = plain.isdigit() and len(plain) == 2 and 1 <= int(plain) <= 12
        named = month and MONTHS[int(plain) - 1] in question
        date_format = re.match(r"%[Ymd]", text)
        if not (date_format or named or plain in question):
            missing.append(text)
    bare = re.sub(r"'[^']*'", "", sql)
    bare = re.sub(r" (LIMIT|OFFSET) 1\b|CAST\(|ROUND\(", " ", bare)
    for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", bare):
        number = number.removesuffix(".0")
        words = NUMBER_WORDS.get(int(float(number)), number)
        if number not in ("0", "1", "100") and not re.search(
            rf"(?<![\d.]){re.escape(number)}(?!\d)|\b{words}\b", question
        ):
            missing.append(number)
    return missing


def explain(sql: str, schema: Schema) -> str:
    """One short sentence on what a gold does, from its clauses."""
    used = [table.name for table in schema.tables if re.search(rf"\b{table.name}\b", sql)]
    names = " and ".join(used)
    steps = [
        f"joins {', '.join(used[:-1])} and {used[-1]}"
        if " JOIN " in sql and len(used) > 1
        else f"reads {names}"
    ]
    facts = (
        (r" WHERE ", "keeps the rows that match"),
        (r"\(SELECT ", "compares with a subquery"),
        (r" GROUP BY ", "groups them"),
        (r" HAVING ", "keeps the groups that match"),
        (r" OVER ", "computes over a window"),
        (r" (UNION|INTERSECT|EXCEPT) ", "combines two results"),
        (r"\b(COUNT|SUM|AVG|MIN|MAX)\(", "aggregates"),
        (r" LIMIT ", "returns the first in order"),
    )
    steps += [step for pattern, step in facts if re.search(pattern, sql)]
    text = ", ".join(steps[:-1]) + f" and {steps[-1]}" if len(steps) > 1 else steps[0]
    return f"The query {text}."


# --- The sample ---------------------------------------------------------------------------------


def rows_for(schema: Schema, seed: int) -> tuple[Rows, Judge]:
    """Rows on which each query written for the schema is accepted. Raises SystemExit if none."""
    problems: Counter[str] = Counter()
    for attempt in range(MAX_ATTEMPTS):
        rows = draw_rows(schema, random.Random(f"{seed}/{schema.domain}/{attempt}"))
        judge = Judge(schema, rows)
        wrong = next(((q, p) for q in schema.queries if (p := judge.problem(q.sql))), None)
        if wrong is None:
            return rows, judge
        problems[f"{wrong[1]}: {wrong[0].sql}"] += 1
    worst = "\n".join(f"  {n} times {text}" for text, n in problems.most_common(5))
    raise SystemExit(f"{schema.domain}: no rows suit all of its queries\n{worst}")


def sample_row(schema: Schema, context: str, query: Query) -> dict[str, str]:
    return {
        "sql_prompt": query.question,
        "sql_context": context,
        "sql": query.sql,
        "sql_explanation": explain(query.sql, schema),
        "domain": schema.domain,
        "sql_complexity": COMPLEXITY[query.complexity],
        "sql_task_type": "analytics and reporting",
    }


def schema_rows(schema: Schema, seed: int, used: Counter[str]) -> list[dict[str, str]]:
    """A schema's rows: its own queries, then templates drawn by weight, each at most once.

    `used` counts the skeletons so far, so that none passes its share of the whole.
    """
    rows, judge = rows_for(schema, seed)
    context = context_of(schema, rows)
    rng = random.Random(f"{seed}/{schema.domain}/questions")
    queries = [Query(q.complexity, reword(q.question, rng), q.sql) for q in schema.queries]
    used.update(skeleton(query.sql) for query in queries)
    weights = {t: t.weight * EASY_WEIGHT.get(t.complexity, 1) for t in TEMPLATES}
    order = sorted(TEMPLATES, key=lambda t: rng.random() ** (1 / weights[t]), reverse=True)
    for template in order:
        if len(queries) == ROWS_PER_SCHEMA:
            break
        query = fill(schema, rows, template, judge, rng)
        shape = skeleton(query.sql) if query else ""
        if query and used[shape] < MAX_SKELETON_SHARE * MIN_ROWS:
            used[shape] += 1
            queries.append(query)
    rng.shuffle(queries)
    return [sample_row(schema, context, query) for query in queries]


def make_sample(seed: int) -> list[dict[str, str]]:
    """All rows of the sample, schema by schema."""
    used: Counter[str] = Counter()
    return [row for schema in SCHEMAS for row in schema_rows(schema, seed, used)]


# --- Checks -------------------------------------------------------------------------------------


def unseen_elsewhere(rows: Sequence[dict[str, str]], held: Sequence[str]) -> int:
    """How many skeletons the held-apart schemas have that occur in no other schema."""
    inside = {skeleton(row["sql"]) for row in rows if row["domain"] in held}
    outside = {skeleton(row["sql"]) for row in rows if row["domain"] not in held}
    return len(inside - outside)


def check_sample(rows: Sequence[dict[str, str]], seed: int) -> list[str]:
    """The requirements that the whole sample does not meet."""
    shapes = Counter(skeleton(row["sql"]) for row in rows)
    domains = Counter(row["domain"] for row in rows)
    questions = Counter((row["domain"], row["sql_prompt"]) for row in rows)
    golds = Counter((row["domain"], row["sql"]) for row in rows)
    top, most = shapes.most_common(1)[0]
    rng = random.Random(seed)
    unseen = min(unseen_elsewhere(rows, rng.sample(sorted(domains), 3)) for _ in range(50))
    blind = [
        (row["sql_prompt"], lost)
        for row in rows
        if (lost := missing_literals(row["sql_prompt"], row["sql"]))
    ]
    rules = [
        (len(rows) >= MIN_ROWS, f"{len(rows)} rows, fewer than {MIN_ROWS}"),
        (len(domains) >= MIN_SCHEMAS, f"{len(domains)} schemas, fewer than {MIN_SCHEMAS}"),
        (min(domains.values()) >= ROWS_PER_SCHEMA - 4, f"a schema is too small: {domains}"),
        (len(shapes) >= MIN_SKELETONS, f"{len(shapes)} skeletons, fewer than {MIN_SKELETONS}"),
        (most <= MAX_SKELETON_SHARE * len(rows), f"{most} rows share one skeleton: {top}"),
        (unseen >= MIN_UNSEEN, f"three schemas have only {unseen} skeletons to themselves"),
        (max(questions.values()) == 1, f"asked twice: {questions.most_common(1)}"),
        (max(golds.values()) <= 2, f"gold used too often: {golds.most_common(1)}"),
        (not blind, f"literals missing from questions: {blind}"),
        (all(re.match(r"SELECT|WITH", row["sql"]) for row in rows), "a gold is not a SELECT"),
        (all(len(t.questions) >= 3 for t in TEMPLATES), "a template has fewer than 3 wordings"),
        (not re.search(r"(?i)'now'|current_", " ".join(r["sql"] for r in rows)), "uses the clock"),
    ]
    return [message for met, message in rules if not met]


def summarize(rows: Sequence[dict[str, str]]) -> str:
    """Counts for a person to read."""
    shapes: dict[str, set[str]] = {}
    for row in rows:
        shapes.setdefault(skeleton(row["sql"]), set()).add(row["domain"])
    own = Counter(next(iter(domains)) for domains in shapes.values() if len(domains) == 1)
    most, top = max((n, s) for s, n in Counter(skeleton(r["sql"]) for r in rows).items())
    words = sorted(len(TOKEN.findall(row["sql"])) for row in rows)
    shared = sum(len(shapes[skeleton(row["sql"])]) > 1 for row in rows)
    few = {row["domain"]: own[row["domain"]] for row in rows if own[row["domain"]] < 6}
    return "\n".join(
        (
            f"rows {len(rows)}, schemas {len(own)}, skeletons {len(shapes)}",
            f"complexity {dict(Counter(row['sql_complexity'] for row in rows).most_common())}",
            f"commonest skeleton {most} rows ({most / len(rows):.1%}): {top}",
            f"rows with a skeleton that another schema has {shared / len(rows):.1%}",
            f"skeletons of one schema only: {min(own.values())} to {max(own.values())} a schema; "
            f"fewer than 6 in {few}",
            f"gold length in lexical tokens: median {words[len(words) // 2]}, 90th percentile "
            f"{words[len(words) * 9 // 10]}, longest {words[-1]}",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the bundled text-to-SQL sample.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("data/sample_sql.jsonl"))
    options = parser.parse_args(argv)
    rows = make_sample(options.seed)
    print(summarize(rows))
    if problems := check_sample(rows, options.seed):
        raise SystemExit("\n".join(problems))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
