"""What a model is asked when no rows are given: questions on two small databases, instructions."""

from __future__ import annotations

SHOP = """CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total REAL, ordered_on TEXT);
INSERT INTO customers VALUES (1, 'Ada', 'Leeds'), (2, 'Ben', 'York'), (3, 'Cleo', 'Leeds'),
(4, 'Dan', 'Hull');
INSERT INTO orders VALUES (1, 1, 30.0, '2024-01-05'), (2, 1, 45.5, '2024-02-11'),
(3, 2, 12.0, '2024-02-14'), (4, 3, 80.0, '2024-03-02'), (5, 3, 5.0, '2024-03-09');"""
SCHOOL = """CREATE TABLE teachers (id INTEGER PRIMARY KEY, name TEXT, subject TEXT, salary INTEGER);
INSERT INTO teachers VALUES (1, 'Ito', 'physics', 4100), (2, 'Mbeki', 'history', 3600),
(3, 'Ruiz', 'physics', 3900), (4, 'Lund', 'music', 3600), (5, 'Okafor', NULL, 4500);"""

# (question, database, gold)
SQL_PROMPTS = (
    (
        "How many customers live in Leeds?",
        SHOP,
        "SELECT COUNT(*) FROM customers WHERE city = 'Leeds'",
    ),
    (
        "List the names of all physics teachers.",
        SCHOOL,
        "SELECT name FROM teachers WHERE subject = 'physics'",
    ),
    (
        "What is the total amount each customer has spent? Show name and total.",
        SHOP,
        "SELECT c.name, SUM(o.total) FROM customers c JOIN orders o ON o.customer_id = c.id "
        "GROUP BY c.id, c.name",
    ),
    (
        "Which teacher earns the most?",
        SCHOOL,
        "SELECT name FROM teachers ORDER BY salary DESC LIMIT 1",
    ),
    (
        "Which customers have never placed an order?",
        SHOP,
        "SELECT name FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)",
    ),
    (
        "What is the average salary per subject, highest first?",
        SCHOOL,
        "SELECT subject, AVG(salary) AS pay FROM teachers GROUP BY subject ORDER BY pay DESC",
    ),
)
# (instruction, input)
ALPACA_PROMPTS: tuple[tuple[str, str | None], ...] = (
    ("Name three things that plants need to grow.", None),
    ("Rewrite the sentence so that it is polite.", "Give me the report now."),
    ("Explain in two sentences why the moon has phases.", None),
    ("Classify each animal as a mammal or a bird.", "bat, penguin, whale, owl"),
    ("Write a short thank-you note to a neighbour who watered your garden.", None),
    ("What is the sum of 17 and 26? Show the steps.", None),
)
