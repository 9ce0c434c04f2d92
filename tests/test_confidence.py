"""Tests of what an adapter is sure of: its threshold, what a question names, what is counted."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import run_script
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import adapters, confidence, generation
from gemma_lora.batches import tokenize
from gemma_lora.confidence import Read, read_confidence, threshold_of
from gemma_lora.database import DatabaseFile
from gemma_lora.doubt import Named, known_names, mark_sure, omissions
from gemma_lora.figures import TUNED, Sample, summarize
from gemma_lora.omitted_conditions import categories
from gemma_lora.prompts import render_example, render_prompt

KNOWN: confidence.Confidence = {
    "format": 1, "adapter_sha256": "", "threshold": math.log(0.8), "rows": 9, "right": 9,
    "sure": 9, "sure_right": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tiny_adapter: Path) -> Any:
    return adapters.load_finetuned(tiny_adapter)


def row_of(prompt: str, completion: str) -> Any:
    text = render_example(prompt, completion)
    return {"text": text, "prompt": prompt, "completion": completion}


@pytest.mark.parametrize("positions", [2, 64])
def test_one_pass_knows_how_an_answer_begins(
    positions: int, tuned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As decoding says it, where the reference leaves the model's first choice at once or later."""
    import mlx.core as mx

    monkeypatch.setattr(confidence, "POSITIONS", positions)
    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    for prompt in ("Hi", "Name a pet.", "What?" * 9):
        [example] = tokenize([row_of(prompt, "~ a reference")], tokenizer, 2000)
        [read] = confidence.read_rows(model, [example])
        [first] = generation.generate_batch(
            model, tokenizer, [render_prompt(prompt)], 1, likely=True
        )
        assert not read.right and first.text != "~"
        assert read.lowest_logprob == pytest.approx(first.lowest_logprob, abs=1e-3)
        logits = model(mx.array(example.ids[:-2])[None])[0, example.offset - 1 :]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        best = mx.argmax(logprobs, axis=-1)
        targets = example.ids[example.offset : -1].tolist()
        plain = confidence.read_of(best.tolist(), targets, mx.max(logprobs, axis=-1).tolist())
        assert read.right == plain.right
        assert read.lowest_logprob == pytest.approx(plain.lowest_logprob, abs=1e-4)


def test_an_answer_that_is_the_reference_is_right(tuned: Any) -> None:
    """The reference made of the model's own first choices, token after token."""
    import mlx.core as mx
    import numpy as np

    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    head = tokenizer.encode(render_prompt("Hi"), add_special_tokens=False)
    ids = list(head)
    for _ in range(6):
        ids.append(int(mx.argmax(model(mx.array(ids)[None])[0, -1]).item()))
    example = confidence.Example(np.array([*ids, 1]), len(head))
    [read] = confidence.read_rows(model, [example])
    assert read.right
    [made] = generation.generate_batch(model, tokenizer, [render_prompt("Hi")], 6, likely=True)
    assert read.lowest_logprob == pytest.approx(made.lowest_logprob, abs=1e-3)


def test_what_first_choices_say_of_an_answer() -> None:
    assert confidence.read_of([1, 2, 3], [1, 2, 3], [-0.1, -0.4, -0.2]) == Read(True, -0.4)
    assert confidence.read_of([1, 9, 3], [1, 2, 3], [-0.1, -0.4, -2.0]) == Read(False, -0.4)
    assert confidence.read_of([9, 2, 3], [1, 2, 3], [-0.1, -0.4, -2.0]) == Read(False, -0.1)


READS = st.lists(
    st.builds(Read, st.sampled_from((True, True, False)), st.integers(-9, 0).map(lambda n: n / 16)),
    max_size=80,
)


@given(READS)
def test_a_threshold_is_the_least_that_is_right_often_enough(reads: list[Read]) -> None:
    def share(threshold: float) -> float:
        sure = [one.right for one in reads if one.lowest_logprob >= threshold]
        return sum(sure) / len(sure) if len(sure) >= confidence.LEAST_SURE else -1.0

    shares = {one.lowest_logprob: share(one.lowest_logprob) for one in reads}

    def right_and_likely(wanted: float) -> list[float]:
        likely = math.log(wanted)
        return [at for at, held in shares.items() if held >= wanted and at >= likely]

    enough = right_and_likely(confidence.SURE_RIGHT)
    fair = right_and_likely(confidence.FAIRLY_RIGHT)
    assert threshold_of(reads) == min(enough or fair, default=None)


def test_answers_to_easy_rows_are_not_sure_at_any_probability() -> None:
    easy = [Read(True, math.log(0.3))] * 90 + [Read(True, math.log(0.9))] * 30
    assert threshold_of(easy) == math.log(0.9)
    assert threshold_of(easy[:90]) is None


def test_a_threshold_is_bound_to_its_weights(
    tuned: Any, adapter_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = adapter_copy / "adapters.safetensors"
    made = read_confidence(adapter_copy)  # by train.py
    assert made and made["threshold"] is None
    examples = tokenize([row_of("Hi", "yes")] * 3, tuned.tokenizer, 2000)
    model = tuned.use("finetuned")
    said = confidence.keep_confidence(model, examples, adapter_copy)  # too few are right
    assert said.startswith("it cannot tell when it is right: 0 of 3 validation rows")
    found = read_confidence(adapter_copy)
    assert found and found["threshold"] is None and found["sure"] == 0
    monkeypatch.setattr(confidence, "read_rows", lambda _, rows: [Read(True, -0.2)] * 40)
    said = confidence.keep_confidence(model, examples, adapter_copy)
    assert "82%" in said and "40 of 40" in said
    found = read_confidence(adapter_copy)
    assert found and found["threshold"] == -0.2
    path = adapter_copy / "confidence.json"
    for damaged in ("{", "[]", json.dumps({**found, "threshold": 1.0}), json.dumps({})):
        path.write_text(damaged)
        assert read_confidence(adapter_copy) is None, damaged
    confidence.write_confidence(adapter_copy, found)
    weights.write_bytes(weights.read_bytes() + b" ")
    assert read_confidence(adapter_copy) is None


# --- What a question names -----------------------------------------------------------------------


def named(*texts: str) -> list[Named]:
    from gemma_lora.schema_prompt import words_of

    return [Named(text, frozenset(words_of(text))) for text in texts]


@pytest.mark.parametrize(
    ("question", "sql", "left_out"),
    [
        ("poetry books with their prices", "SELECT title FROM books", ["price"]),
        ("poetry books with their prices", "SELECT title, price FROM books", []),
        ("students in town", "SELECT name FROM members", ["Student"]),
        ("students", "SELECT name FROM members WHERE kind = 'student'", []),
        ("which opened first?", "SELECT name FROM branches", []),
        ("first names", "SELECT last_name FROM members", ["first_name"]),
        ("due dates", "SELECT due_date FROM loans", []),
        ("over 500 of 1960", "SELECT 1 WHERE a > 500", ["1960"]),
        ("at 2.5", "SELECT 2.5", []),
        ("since 5 March 2024", "SELECT 1 WHERE a >= '2024-03-05'", []),
        (
            "since 5 March 2024",
            "SELECT 1 WHERE substr(a, 7, 4) || substr(a, 4, 2) > '20240305'",
            [],
        ),
        ("before March 2024", "SELECT 1 WHERE substr(a, 4, 4) || substr(a, 1, 2) < '202403'", []),
        ("since 6 March 2024", "SELECT 1 WHERE a >= '2024-03-05'", ["6"]),
        ("over 500,000", "SELECT 1 WHERE a > 500000", []),
        ("over 1.5 million", "SELECT 1 WHERE a > 1500000", []),
        ("over 2 million", "SELECT 1 WHERE a > 2000", ["2000000"]),
        ("over 5 minutes", "SELECT 1 WHERE a > 300000", []),
        ("over 5 minutes", "SELECT 1 WHERE a > 5000", ["5"]),
        ("over 5 people", "SELECT 1 WHERE a > 300000", ["5"]),
        ("under 1 hour, 2kg", "SELECT 1 WHERE a < 3600 AND b = 2000", []),
        ("in Q3 2024", "SELECT 1 WHERE a >= '2024-07-01' AND a < '2024-10-01'", []),
    ],
)
def test_what_is_named_and_not_said(question: str, sql: str, left_out: list[str]) -> None:
    known = named("price", "Student", "first_name", "last_name", "due_date", "books")
    assert omissions(question, sql, known) == left_out


def test_names_of_a_database(tmp_path: Path) -> None:
    path = tmp_path / 'a "b".sqlite'
    rows = "".join(f"INSERT INTO pets VALUES ({i}, 'pet {i}', 'cat', x'00');" for i in range(90))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            'CREATE TABLE pets (id INTEGER, "pet\'s ""name""" TEXT, kind TEXT, photo BLOB);'
            f"{rows} CREATE VIEW slow AS SELECT COUNT(*) AS c FROM pets;"
            "CREATE VIRTUAL TABLE docs USING fts5(body);"
        )
    before = path.read_bytes()
    with DatabaseFile(path) as database:
        texts = {one.text for one in known_names(database)}
    assert texts == {"pets", "id", 'pet\'s "name"', "kind", "photo", "cat", "docs", "body"}
    assert path.read_bytes() == before


@given(st.lists(st.sampled_from([None, 1, "a", "b", "x" * 60, b"c"]), max_size=40))
def test_values_that_sort_are_few_short_texts(values: list[Any]) -> None:
    found = set(categories(values))
    assert found <= {"a", "b"} and len(found) <= len(values) / 2


# --- What is counted -----------------------------------------------------------------------------


def sample(
    probability: float, match: bool, rows: Any, sql: str = "SELECT 1", **more: Any
) -> Sample:
    out = {
        "sql": sql, "lowest_logprob": math.log(probability), "match": match,
        "result": None if rows is None else {"rows": rows},
        "suite_match": None, "error": None, "exact_match": False, "valid_sql": True,
        "executes": True, "finish_reason": "stop", "generation_tokens": 3, **more,
    }  # fmt: skip
    other = {**out, "match": False}
    return cast(Sample, {
        "type": "sql", "question": "the price?", "context": "x", "excluded": None,
        "empty_gold": False, "suite": None, "outputs": {"base": other, TUNED: out},
    })  # fmt: skip


def test_sure_answers_are_counted_apart() -> None:
    price = "SELECT price"
    samples = [
        sample(0.9, True, [[1]], price),
        sample(0.81, False, [[1]], price),
        sample(0.7, True, [[1]], price),
        sample(0.9, False, [], price),
        sample(0.9, False, [[None]], price),
        sample(0.9, True, [[1]], "SELECT cost"),
        sample(0.9, True, [[1]], price, candidate=2),
        sample(0.9, False, None, price),
    ]
    mark_sure(samples, KNOWN, named("price"))
    assert [s["outputs"][TUNED]["sure"] for s in samples] == [True, True] + [False] * 6
    assert "sure" not in samples[0]["outputs"]["base"]
    figures = summarize(samples)["models"][TUNED]
    assert figures["coverage"]["value"] == 2 / 8
    assert (figures["sure_accuracy"]["value"], figures["sure_accuracy"]["n"]) == (0.5, 2)
    assert "coverage" not in summarize(samples)["models"]["base"]
    untold = sample(0.9, True, [[1]], price)
    mark_sure([untold], {**KNOWN, "threshold": None}, named("price"))
    assert "sure" not in untold["outputs"][TUNED]
    assert "coverage" not in summarize([untold])["models"][TUNED]


def test_a_run_with_a_threshold_says_how_sure_it_was(
    adapter_copy: Path, tiny_data: Path, tmp_path: Path
) -> None:
    found = {**KNOWN, "adapter_sha256": confidence.sha256_of(adapter_copy / "adapters.safetensors")}
    confidence.write_confidence(adapter_copy, cast(confidence.Confidence, found))
    done = run_script(
        "test_finetuned.py", "--adapter-path", adapter_copy, "--data", tiny_data, "--num-samples",
        3, "--max-tokens", 4, "--output-dir", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{TUNED} is sure of 0.0%" in " ".join(done.stdout.split())
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    lines = (tmp_path / "out" / "evaluation_samples.jsonl").read_text().splitlines()
    assert summarize([json.loads(line) for line in lines]) == report["summary"]
