"""Tests of test_finetuned.py: scoring, statistics, generation, the report, files and the chat."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import io
import json
import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
import test_finetuned as evaluation
from gemma_lora import (
    adapters,
    cli,
    comparison,
    device,
    files,
    generation,
    sandbox,
    sql_text,
    statistics,
    verdicts,
)
from gemma_lora.chat import take_line
from gemma_lora.cli import UserError
from gemma_lora.conversation import Chat, ChatSettings, Reply, stream_answer
from gemma_lora.figures import TUNED, summarize
from gemma_lora.generation import Generation
from gemma_lora.prompts import encode, render_chat, render_prompt
from gemma_lora.report import make_console, show_report, summary_notes
from gemma_lora.text_scores import chrf, repetition_rate, rouge_l

settings.register_profile("no deadline", deadline=None)  # first calls import libraries
settings.load_profile("no deadline")
ROOT = Path(__file__).resolve().parent.parent
PETS = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT, age INTEGER);
INSERT INTO pets VALUES (1, 'Rex', 'dog', 3), (2, 'Tom', 'cat', NULL), (3, 'Odd', 'cat', 9);"""

values = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from(["a", "b", "1"]), st.floats(-3, 3, width=16)
)
tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[values] * width), min_size=1, max_size=6)
)


# --- An adapter for the tiny model, and data ------------------------------------------------


def build_adapter(folder: Path, base: Path, kind: str) -> None:
    """Write an adapter with random weights, as train.py would."""
    import mlx.core as mx

    folder.mkdir(parents=True)
    lora = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.up_proj"]}
    sizes = {"self_attn.q_proj": (64, 64), "mlp.up_proj": (64, 128)}
    weights = {}
    for layer in range(2):
        for name, (width, height) in sizes.items():
            prefix = f"model.layers.{layer}.{name}"
            weights[f"{prefix}.lora_a"] = 0.3 * mx.random.normal((width, 4))
            weights[f"{prefix}.lora_b"] = 0.3 * mx.random.normal((4, height))
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {
        "fine_tune_type": "lora", "num_layers": 2, "lora_parameters": lora, "model": str(base),
        "base_model_path": str(base), "dataset_type": kind, "seed": 1,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Rows as dataset.py writes them."""
    config = dataset.DatasetConfig(type=kind, dataset_name="sample")  # type: ignore[arg-type]
    rows = []
    for n in range(count):
        if kind == "sql":
            fields = {
                "sql_prompt": f"Which pets are older than {n}?",
                "sql": f"SELECT name FROM pets WHERE age > {n}",
                "sql_context": PETS,
                "complexity": "basic" if n % 2 else "hard",
            }
        else:
            fields = {
                "instruction": f"Count to {n + 1}.",
                "output": " ".join(map(str, range(n + 1))),
            }
        rows.append(dataset.make_row(fields, config))
    return rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are kept where no other test, and no user, finds them."""
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with an adapter of each type and data for both."""
    folder = tmp_path_factory.mktemp("evaluation")
    for kind in ("sql", "alpaca"):
        build_adapter(folder / kind, tiny_model, kind)
        for split, count in (("train", 6), ("valid", 4), ("test", 8)):
            lines = "".join(files.json_lines(make_rows(kind, count)))
            files.write_atomic(folder / f"{kind}-data" / f"{split}.jsonl", lines)
        files.write_atomic(folder / f"{kind}-data" / "manifest.json", json.dumps({"type": kind}))
    return folder


@pytest.fixture(scope="session")
def tuned(home: Path) -> Any:
    """The tiny model with its adapter."""

    return adapters.load_finetuned(home / "sql")


@pytest.fixture(scope="module")
def worker() -> Iterator[sandbox.SqlWorker]:
    with sandbox.SqlWorker() as one:
        yield one


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script's main in this process: seconds less for every call."""
    argv = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = evaluation.main(argv)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


# --- Reading SQL --------------------------------------------------------------------------------


def test_normal_sql_sees_through_spelling_only() -> None:
    same = sql_text.normal_sql('select "Name"  from Pets -- all\nwhere age>3;')
    assert same == sql_text.normal_sql("SELECT name FROM pets WHERE age > 3")
    assert same != sql_text.normal_sql("SELECT name FROM pets WHERE age > 4")
    assert sql_text.normal_sql("SELECT 'A'") != sql_text.normal_sql("SELECT 'a'")
    assert sql_text.normal_sql("not sql  AT ALL") == "not sql at all"


@pytest.mark.parametrize("text", ["hello", "", "SELECT FROM WHERE", "42", "sql query"])
def test_prose_is_not_valid_sql(text: str) -> None:
    assert sql_text.parse_sql(text) is None


@pytest.mark.parametrize(
    ("sql", "columns", "order"),
    [
        ("SELECT a, b FROM t", ["a", "b"], None),
        ("SELECT a, b FROM t ORDER BY b DESC", ["a", "b"], (1,)),
        ("SELECT t.a, b FROM t ORDER BY t.a", ["a", "b"], (0,)),
        ("SELECT a, b FROM t ORDER BY 2, 1", ["a", "b"], (1, 0)),
        ("SELECT a FROM t ORDER BY c", ["a"], (0,)),
        ("SELECT a, COUNT(*) FROM t GROUP BY a ORDER BY COUNT(*)", ["a", "COUNT(*)"], (1,)),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", ["a"], None),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY 1", ["a"], (0,)),
        ("DELETE FROM t", [], None),
    ],
)
def test_only_a_top_level_order_by_orders(sql: str, columns: list[str], order: Any) -> None:
    assert sql_text.order_columns(sql, columns) == order


# --- Comparing results --------------------------------------------------------------------------


@given(tables, st.randoms())
def test_unordered_results_match_in_any_order(rows: list[tuple[Any, ...]], draw: Any) -> None:
    shuffled = list(rows)
    draw.shuffle(shuffled)
    assert comparison.compare_rows(rows, shuffled) == "match"
    ordered = comparison.compare_rows(rows, rows, range(len(rows[0])))
    assert ordered == "match"


@given(tables, tables)
def test_comparison_is_symmetric_in_place(
    a: list[tuple[Any, ...]], b: list[tuple[Any, ...]]
) -> None:
    assert comparison.same_bag(a, b) == comparison.same_bag(b, a)
    assert (comparison.compare_rows(a, b) == "match") == (comparison.compare_rows(b, a) == "match")


@given(tables)
def test_duplicates_count(rows: list[tuple[Any, ...]]) -> None:
    assert comparison.compare_rows(rows, [*rows, rows[0]]) == "wrong rows"


@pytest.mark.parametrize(
    ("gold", "predicted", "order", "said"),
    [
        ([(None,)], [(None,)], None, "match"),
        ([(1,)], [(1.0,)], None, "match"),
        ([(1,)], [("1",)], None, "wrong rows"),
        ([(None,)], [(0,)], None, "wrong rows"),
        ([("a",)], [("A",)], None, "wrong rows"),
        ([(0.1 + 0.2,)], [(0.3,)], None, "match"),
        ([(1.0,)], [(1.01,)], None, "wrong rows"),
        ([(10_000_001,)], [(10_000_002,)], None, "wrong rows"),
        ([(1,), (2,)], [(2,), (1,)], (0,), "wrong order"),
        ([("a", 1), ("b", 1)], [("b", 1), ("a", 1)], (1,), "match"),
        ([("a", 2), ("b", 1)], [(1, "b"), (2, "a")], (1,), "wrong order"),
        ([("a", 2), ("b", 1)], [(2, "a"), (1, "b")], (1,), "match"),
        ([(1, 2), (2, 1)], [(2, 1), (1, 2)], None, "match"),
        ([(1, 2), (2, 1), (1, 3)], [(2, 1), (1, 2), (3, 1)], None, "match"),
        ([(1, 2), (2, 1), (1, 1)], [(1, 2), (2, 1), (2, 1)], None, "wrong rows"),
        ([(1,)], [(1, 2)], None, "wrong rows"),
        ([(1,)], [], None, "wrong rows"),
        ([(0.3, "b"), (0.1 + 0.2, "a")], [(0.3, "a"), (0.3, "b")], None, "match"),
        ([(b"x",)], [("x",)], None, "wrong rows"),
    ],
)
def test_comparison_cases(gold: Any, predicted: Any, order: Any, said: str) -> None:
    assert comparison.compare_rows(gold, predicted, order) == said


# --- Scoring SQL --------------------------------------------------------------------------------


def score(
    reply: str, gold: str, worker: sandbox.SqlWorker, **row: Any
) -> tuple[Any, dict[str, Any]]:
    """(gold, verdict) of one reply on the pets database."""
    full = {"id": "1", "completion": gold, "context": PETS, "prompt": "Which?"} | row
    finish = row.pop("finish_reason", "stop")
    prepared = verdicts.prepare_gold(full, worker, 42, 1.0)
    answer = Generation(reply, 10, 5, finish, 0.1)
    return prepared, verdicts.score_sql(
        answer.text, answer.finish_reason, prepared, full, worker, 1.0
    )


CATS = "SELECT name FROM pets WHERE kind = 'cat'"


@pytest.mark.parametrize(
    ("reply", "gold", "error"),
    [
        ("SELECT p.name AS n FROM pets p WHERE p.kind = 'cat';", CATS, None),
        ("SELECT name FROM pets WHERE id > 1", CATS, None),
        ("SELECT name FROM pets", CATS, "wrong rows"),
        (
            "SELECT name FROM pets ORDER BY age",
            "SELECT name FROM pets ORDER BY name",
            "wrong order",
        ),
        ("SELECT name FROM dogs", CATS, "no such table"),
        ("SELECT colour FROM pets", CATS, "no such column"),
        ("SELECT name FROM pets WHERE", CATS, "syntax"),
        ("SELECT name FROM pets; SELECT 1", CATS, "several statements"),
        ("I cannot say.", CATS, "no SQL in the reply"),
        ("DROP TABLE pets", CATS, "wrong rows"),
        ("ALTER TABLE pets ADD COLUMN load_extension('x')", CATS, "syntax"),
        ("SELECT load_extension('x')", CATS, "refused by the sandbox"),
        (
            "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
            CATS,
            "timed out",
        ),
        ("DELETE FROM pets WHERE id = 1", "DELETE FROM pets WHERE name = 'Rex'", None),
        ("DELETE FROM pets WHERE id = 2", "DELETE FROM pets WHERE name = 'Rex'", "wrong rows"),
        ("SELECT 1", "DELETE FROM pets WHERE name = 'Rex'", "wrong rows"),
    ],
)
def test_verdicts(reply: str, gold: str, error: str | None, worker: sandbox.SqlWorker) -> None:
    _, out = score(reply, gold, worker)
    assert out["error"] == error
    assert out["match"] is (error is None)


def test_luck_does_not_pass_the_suite(worker: sandbox.SqlWorker) -> None:
    _, lucky = score("SELECT name FROM pets WHERE id > 1", CATS, worker)
    _, right = score(CATS, CATS, worker)
    assert lucky["match"] and lucky["suite_match"] is False
    assert right["match"] and right["suite_match"] is True and right["exact_match"]


@pytest.mark.parametrize(
    ("gold", "row", "excluded", "empty"),
    [
        ("SELECT name FROM nothing", {}, "the gold does not run", False),
        ("SELECT date('now')", {}, "the gold reads the clock or random numbers", False),
        (CATS, {"context": None}, "no database", False),
        (CATS, {"context": "CREATE TABLE ("}, verdicts.BAD_CONTEXT, False),
        ("SELECT name FROM pets WHERE age > 99", {}, None, True),
        ("SELECT MAX(age) FROM pets WHERE age > 99", {}, None, True),
        ("DELETE FROM pets WHERE age > 99", {}, None, True),
        ("UPDATE pets SET age = 1 WHERE id = 1", {}, None, False),
        (CATS, {}, None, False),
    ],
)
def test_what_a_gold_is_good_for(
    gold: str, row: dict[str, Any], excluded: str | None, empty: bool, worker: sandbox.SqlWorker
) -> None:
    prepared, _ = score(gold, gold, worker, **row)
    assert (prepared.excluded, prepared.empty) == (excluded, empty)


def test_a_cut_off_query_is_named_so(worker: sandbox.SqlWorker) -> None:
    _, out = score("SELECT name FROM pets WHERE kind =", CATS, worker, finish_reason="length")
    assert out["error"] == "cut off at the length limit"
    _, out = score("SELECT name FROM pets; and so on", CATS, worker, finish_reason="length")
    assert out["error"] == "wrong rows"


# --- Statistics ---------------------------------------------------------------------------------


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(case: tuple[int, int]) -> None:
    k, n = case
    low, high = statistics.wilson(k, n) or (1.0, 0.0)
    assert 0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1
    low2, high2 = statistics.wilson(n - k, n) or (0.0, 0.0)
    assert math.isclose(low, 1 - high2, abs_tol=1e-9) and math.isclose(high, 1 - low2, abs_tol=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric(wins: int, losses: int) -> None:
    p = statistics.mcnemar(wins, losses)
    assert p == statistics.mcnemar(losses, wins) and p is not None and 0 < p <= 1


def test_statistics_known_values() -> None:
    assert statistics.mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert statistics.mcnemar(0, 0) == 1
    assert statistics.wilson(0, 0) is None
    assert statistics.wilson(45, 124) == pytest.approx([0.2835, 0.4504], abs=5e-4)
    assert statistics.rows_needed(5, 5, 20) is None
    small, large = statistics.rows_needed(3, 1, 20), statistics.rows_needed(15, 1, 20)
    assert small and large and small > 20 > large


@given(st.lists(st.floats(-10, 10, width=16), min_size=2, max_size=12))
@settings(max_examples=15)
def test_bootstrap_is_seeded_and_within_the_data(numbers: list[float]) -> None:
    interval = statistics.bootstrap_mean(numbers)
    assert interval == statistics.bootstrap_mean(numbers) and interval
    assert min(numbers) - 1e-9 <= interval[0] <= interval[1] <= max(numbers) + 1e-9


def test_too_few_pairs_say_nothing() -> None:
    for n in range(1, statistics.FEW_PAIRS):
        assert statistics.paired_sum([5.0] * n) == (None, None, False)
    least = statistics.paired_sum([5.0, 5.1, 4.9, 5.0, 5.2, 5.0])
    assert least.p_value == 2 / 2**6 and least.shown
    assert statistics.paired_sum([0.0] * 8).shown is False


@given(st.lists(st.floats(-50, 50, width=16), min_size=6, max_size=11))
@settings(max_examples=25)
def test_sign_flips_know_no_side_and_no_order(numbers: list[float]) -> None:
    test = statistics.paired_sum(numbers)
    other = statistics.paired_sum([-x for x in numbers[::-1]])
    assert test.p_value == other.p_value and test.shown == other.shown
    assert test.p_value is not None and 2 / 2 ** len(numbers) <= test.p_value <= 1
    if test.shown:
        assert test.ci and (test.ci[0] > 0 or test.ci[1] < 0)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        *((shape, (2, 5, 6, 10, 12)) for shape in ("normal", "skewed", "very skewed")),
        ("lognormal 1", (6, 12, 20)),
    ],
)
def test_a_difference_that_is_not_there_is_claimed_in_5_percent(
    shape: str, sizes: tuple[int, ...]
) -> None:
    import numpy as np
    from simulate_verdict import draw_rows

    draws = np.random.default_rng(1)
    for n in sizes:
        claims = sum(statistics.paired_sum(draw_rows(shape, n, draws)[0]).shown for _ in range(400))
        assert claims <= 28, n  # more than 28 of 400 at 5% or less: once in 50 runs at most


def text_samples(gains: list[float], tokens: list[int]) -> list[dict[str, Any]]:
    """Instruction rows whose references cost the base so much more than the fine-tuned model."""
    common = {
        "finish_reason": "stop", "generation_tokens": 3, "rouge_l": 0.1, "chrf": 1.0,
        "length_ratio": 1.0, "repetition_rate": 0.0,
    }  # fmt: skip
    return [
        {
            "type": "alpaca", "context": None, "reference_tokens": count, "question": "q",
            "outputs": {
                "base": common | {"nll": 500.0 + gain}, TUNED: common | {"nll": 500.0},
            },
        }
        for gain, count in zip(gains, tokens, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([9.0, 8.0, 9.0, 7.0, 8.0, 9.0, 8.0], "better"),
        ([-9.0, -8.0, -9.0, -7.0, -8.0, -9.0, -8.0], "worse"),
        ([9.0, -8.0, 9.0, -7.0, 8.0, -9.0, 8.0], "no difference"),
        ([9.0, 8.0, 9.0, 8.0, 9.0], "too few"),
        ([9.0], "too few"),
    ],
)
def test_the_verdict_on_losses(gains: list[float], said: str) -> None:
    (paired,) = summarize(text_samples(gains, [40] * len(gains)))["paired"]
    assert paired["verdict"] == said and f"n = {len(gains)}" in paired["sentence"]
    assert paired["sentence"].startswith("Too few") == (said == "too few")


def test_the_verdict_on_losses_and_perplexity_have_one_sign() -> None:
    gains = [1.0] * 9 + [-30.0]  # per row a gain, per token a loss
    summary = summarize(text_samples(gains, [2] * 9 + [300]))
    (paired,) = summary["paired"]
    perplexity = {
        name: figures["perplexity"]["value"] for name, figures in summary["models"].items()
    }
    assert paired["difference"] < 0 and perplexity[TUNED] > perplexity["base"]
    assert paired["difference"] == pytest.approx(math.log(perplexity["base"] / perplexity[TUNED]))


@given(st.text(max_size=60))
def test_text_metrics_are_bounded(text: str) -> None:
    assert 0 <= repetition_rate(text) < 1
    score = rouge_l("the cat sat", text)
    assert score is None or 0 <= score <= 1


def test_text_metrics_known_values() -> None:
    assert repetition_rate("a b c d " * 10) > 0.8
    assert rouge_l("the cat sat", "The cat sat.") in (None, 1.0)
    if (value := rouge_l("a b c d", "a c x")) is not None:
        assert value == pytest.approx(2 * 2 / 7)
    assert chrf("same", "same") in (None, pytest.approx(100.0))


def fake_samples(pairs: list[tuple[bool, bool]]) -> list[dict[str, Any]]:
    """Samples in which base and fine-tuned are right as told."""
    common = {
        "valid_sql": True, "executes": True, "exact_match": False,
        "finish_reason": "stop", "generation_tokens": 3, "text": "SELECT 1", "sql": "SELECT 1",
    }  # fmt: skip
    return [
        {
            "type": "sql", "context": "x", "excluded": None, "empty_gold": False, "kind": "select",
            "complexity": "basic" if base else "hard", "question": "q", "gold": "g",
            "outputs": {
                "base": common | {
                    "match": base, "suite_match": base, "error": None if base else "wrong rows",
                },
                TUNED: common | {
                    "match": tuned, "suite_match": tuned, "error": None if tuned else "syntax",
                },
            },
            "suite": {"databases": 6, "neighbours": 9, "told_apart": 9},
        }
        for base, tuned in pairs
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(False, True)] * 12, "better"),
        ([(True, False)] * 12, "worse"),
        ([(False, True)] * 3 + [(True, True)] * 9, "no difference"),
        ([(True, True)] * 5, "no difference"),
    ],
)
def test_one_plain_sentence(pairs: list[tuple[bool, bool]], said: str) -> None:
    (paired,) = summarize(fake_samples(pairs))["paired"]
    assert paired["verdict"] == said
    assert f"n = {len(pairs)}" in paired["sentence"]
    if said == "no difference":
        assert paired["sentence"].startswith("No difference")
        assert ("would be needed" in paired["sentence"]) == (paired["wins"] != paired["losses"])


def test_rows_that_prove_nothing_stay_out_of_the_headline() -> None:
    samples = fake_samples([(False, True)] * 4)
    samples[0]["empty_gold"] = True
    samples[1]["excluded"] = "the gold does not run"
    figures = summarize(samples)
    for metric in ("execution_accuracy", "test_suite_accuracy"):
        assert figures["models"][TUNED][metric]["n"] == 2
    assert figures["models"][TUNED]["empty_results"] == {"n": 1, "matches": 1}
    assert figures["excluded"] == {"the gold does not run": 1}


def test_rows_without_a_suite_are_counted_apart() -> None:
    samples = fake_samples([(False, True)] * 4)
    samples[0]["suite"] = None
    for out in samples[0]["outputs"].values():
        out["suite_match"] = None
    summary = summarize(samples)
    assert summary["headline"] == "test_suite_accuracy"
    assert summary["models"][TUNED]["execution_accuracy"]["n"] == 3
    assert summary["models"][TUNED]["without_suite"] == {"n": 1, "matches": 1}
    notes = summary_notes(summary)
    [apart] = [n for n in notes if "no test suite for 1 row" in n]
    assert "1 rows" not in apart and "base 0, fine-tuned 1" in apart


def test_without_any_suite_execution_leads_and_says_so() -> None:
    samples = fake_samples([(False, True)] * 4)
    for sample in samples:
        sample["suite"] = None
        for out in sample["outputs"].values():
            out["suite_match"] = None
    summary = summarize(samples)
    assert summary["headline"] == "execution_accuracy"
    assert summary["models"][TUNED]["execution_accuracy"]["n"] == 4
    assert summary["models"][TUNED]["test_suite_accuracy"]["n"] == 0
    assert any("execution_accuracy is the headline" in line for line in summary_notes(summary))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_the_suite_never_counts_more_than_execution(rows: list[tuple[bool, bool, bool]]) -> None:
    samples = fake_samples([(False, match) for match, _, _ in rows])
    for sample, (match, passes, suited) in zip(samples, rows, strict=True):
        sample["outputs"][TUNED]["suite_match"] = (match and passes) if suited else None
        sample["suite"] = sample["suite"] if suited else None
    figures = summarize(samples)["models"][TUNED]
    suite, plain = figures["test_suite_accuracy"], figures["execution_accuracy"]
    if suite["n"]:
        assert suite["n"] == plain["n"] and suite["value"] <= plain["value"]
        assert figures["without_suite"]["n"] + suite["n"] == len(rows)


def test_without_databases_exact_match_leads_and_says_so() -> None:
    samples = fake_samples([(False, True)] * 4)
    for sample in samples:
        sample |= {"context": None, "excluded": "no database"}
    summary = summarize(samples)
    assert summary["headline"] == "exact_match"
    assert any("exact_match is the headline" in line for line in summary_notes(summary))


@pytest.mark.parametrize("width", [80, 160])
def test_report_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, width=width, highlight=False)
    monkeypatch.setattr("gemma_lora.report.make_console", lambda: console)
    samples = fake_samples([(False, True), (True, False), (True, True)])
    samples[0]["outputs"][TUNED]["sql"] = "SELECT " + ", ".join(f"column_{i}" for i in range(60))
    show_report("title", summarize(samples), samples, 3)
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert shown.index("an answer before and after") < shown.index("test suite")
    for text in ("question", "right", "wrong: syntax", "No difference", "base", TUNED):
        assert text in shown


def test_missing_optional_package_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("scipy.stats", "sqlglot"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(cli, "_said", set())
    samples = fake_samples([(False, True)] * 4)
    summary = summarize(samples)
    assert sql_text.normal_sql("SELECT  1") == "select 1"
    show_report("title", summary, samples, 1)
    shown = capsys.readouterr()
    assert summary["models"][TUNED]["execution_accuracy"] == {"value": 1.0, "n": 4, "ci": None}
    assert sorted(line.split(": ")[1] for line in shown.err.splitlines()) == [
        "pip install scipy", "pip install sqlglot",
    ]  # fmt: skip
    assert "fine-tuned" in shown.out


# --- Generating ---------------------------------------------------------------------------------


def one_by_one(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> tuple[str, str]:
    """mlx-lm's own single generation under greedy decoding."""
    from mlx_lm.generate import stream_generate

    tokenizer.eos_token_ids = generation.stop_ids(tokenizer)
    ids, parts = encode(tokenizer, prompt), []
    for part in stream_generate(model, tokenizer, ids, max_tokens=max_tokens):
        parts.append(part.text)
    return "".join(parts), part.finish_reason


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("which", ["base", "finetuned"])
def test_batches_say_what_single_prompts_say(shots: int, which: Any, tuned: Any) -> None:
    model = tuned.use(which)
    earlier = [("user", "say a" * 20), ("model", "a")] * shots
    asked = ["Hi", "Name a pet.", "What?" * 9, "x", "Tell me more about this one, please."]
    prompts = [render_chat([*earlier, ("user", text)]) for text in asked]
    made = generation.generate_batch(model, tuned.tokenizer, prompts, 24, batch_size=3)
    for prompt, answer in zip(prompts, made, strict=True):
        text, reason = one_by_one(model, tuned.tokenizer, prompt, 24)
        assert (answer.text, answer.finish_reason) == (text, reason)
        assert answer.prompt_tokens == len(encode(tuned.tokenizer, prompt))
        assert 1 <= answer.generation_tokens <= 24


def test_the_cache_is_no_longer_than_its_rows(tuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows come and go in a batch, and however wide the model's window is."""
    model, sizes, steps = tuned.use("base"), [], generation.generation_steps
    monkeypatch.setattr(model.args, "sliding_window", 512)

    def watched(generator: Any) -> Any:
        for told in steps(generator):
            sizes.append(generator.prompt_cache_nbytes)
            yield told

    monkeypatch.setattr(generation, "generation_steps", watched)
    prompts = [render_prompt("x" * (i % 9)) for i in range(40)]
    generation.generate_batch(model, tuned.tokenizer, prompts, 24, batch_size=3)
    longest = max(len(encode(tuned.tokenizer, p)) for p in prompts) + 24
    args = model.args
    position = 2 * 4 * args.num_hidden_layers * args.num_key_value_heads * args.head_dim
    assert len(sizes) > 100
    assert max(sizes) <= 3 * (longest + device.CACHE_STEP) * position


def test_generation_ends_at_both_stop_tokens(tuned: Any) -> None:
    assert generation.stop_ids(tuned.tokenizer) == {1, 106}


def test_sampling_is_seeded(tuned: Any) -> None:
    prompts = [render_prompt("Hi")] * 3

    def texts(seed: int) -> list[str]:
        model, tokenizer = tuned.use("base"), tuned.tokenizer
        made = generation.generate_batch(model, tokenizer, prompts, 12, temp=1.0, seed=seed)
        return [answer.text for answer in made]

    assert texts(1) == texts(1) != texts(2)


@given(st.integers(0, 262_143), st.floats(-20, 20), st.floats(0, 30))
@settings(max_examples=12, deadline=None)
def test_greedy_head_carries_every_id_exactly_and_its_probability(
    best: int, level: float, margin: float
) -> None:
    import mlx.core as mx

    plain = mx.full((262_144,), level)
    plain[best] = level + margin + 0.01
    packed = generation.GreedyHead.packed(plain[None], True)
    logprobs = packed - mx.logsumexp(packed, axis=-1, keepdims=True)
    assert generation.GreedyHead.sample(logprobs).tolist() == [best]
    exact = margin + 0.01 - math.log(262_143 + math.exp(margin + 0.01))
    assert generation.GreedyHead.logprob(best, logprobs[0]) == pytest.approx(exact, abs=3e-4)
    known = (plain[best] - mx.logsumexp(plain)).item()
    assert generation.GreedyHead.logprob(best, plain - mx.logsumexp(plain)) == min(0.0, known)


@pytest.mark.parametrize("temp", [0.0, 1.0])
def test_an_answer_knows_how_likely_it_is(temp: float, tuned: Any) -> None:
    import mlx.core as mx

    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    prompts = [render_prompt(text) for text in ("Hi", "What is a pet?", "x" * 60)]
    made = generation.generate_batch(model, tokenizer, prompts, 10, temp=temp, seed=3, likely=True)
    assert temp or [
        (a.text, a.lowest_logprob) for a in generation.generate_batch(model, tokenizer, prompts, 10)
    ] == [(a.text, None) for a in made]
    for prompt, answer in zip(prompts, made, strict=True):
        if answer.finish_reason == "stop":
            continue  # which of the two stop tokens it was is not kept
        head, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + answer.text)
        if len(whole) != len(head) + answer.generation_tokens:
            continue  # bytes that are no text
        logits = model(mx.array([whole[:-1]]))[0, len(head) - 1 :]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        each = [logprobs[i, token].item() for i, token in enumerate(whole[len(head) :])]
        assert answer.logprob == pytest.approx(sum(each), abs=0.02)
        assert answer.lowest_logprob == pytest.approx(min(each), abs=0.01)


def test_a_draw_hangs_on_seed_row_and_number_alone(tuned: Any) -> None:
    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    prompts = [render_prompt(text) for text in ("Hi", "Name a pet.", "What?" * 9)]

    def texts(rows: list[int], seed: int, size: int, wanted: int = 3) -> list[list[str]]:
        made = generation.generate_several(
            model, tokenizer, [prompts[row] for row in rows], rows, wanted, 12, 1.0, seed, size
        )
        return [[answer.text for answer in answers] for answers in made]

    all_rows = texts([0, 1, 2], 5, 16)
    assert len({text for answers in all_rows for text in answers}) == 9
    assert texts([0, 1, 2], 5, 1) == texts([0, 1, 2], 5, 4) == all_rows
    assert texts([2], 5, 4) == all_rows[2:]
    assert texts([1], 5, 4, wanted=2) == [all_rows[1][:2]]
    assert texts([0, 1, 2], 6, 16) != all_rows

    def batch(size: int) -> list[str]:
        made = generation.generate_batch(
            model, tokenizer, prompts, 12, temp=1.0, seed=5, batch_size=size
        )
        return [answer.text for answer in made]

    assert batch(1) == batch(2) == batch(16)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=90), min_size=1, max_size=5))
def test_shared_prefix_leaves_every_row_something(ids: list[list[int]]) -> None:
    head = [7] * 60
    shared = generation.shared_prefix([head + row for row in ids])
    assert all(row[:shared] == (head + ids[0])[:shared] for row in (head + r for r in ids))
    assert all(shared < len(head + row) for row in ids)
    assert shared >= 48 or len(ids) == 1


@given(st.lists(st.integers(1, 2000), max_size=30))
def test_loss_blocks_hold_every_row_once_and_few_tokens(lengths: list[int]) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    blocks = list(generation.loss_blocks(order, lengths))
    assert [i for block in blocks for i in block] == order
    sizes = [len(block) * max(lengths[i] for i in block) for block in blocks]
    assert all(
        size <= generation.LOSS_TOKENS or len(block) == 1
        for size, block in zip(sizes, blocks, strict=True)
    )


@pytest.mark.parametrize("tokens", [20, 1024])
def test_reference_loss_is_the_plain_one(
    tokens: int, tuned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlx.core as mx
    import mlx.nn as nn

    monkeypatch.setattr(generation, "LOSS_TOKENS", tokens)
    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    prompts = [render_prompt(text) for text in ("Hi", "A longer prompt than that.")]
    answers = ["yes", "a longer answer, of more characters than one chunk of the head holds"]
    found = generation.reference_losses(model, tokenizer, prompts, answers)
    for prompt, answer, (loss, count) in zip(prompts, answers, found, strict=True):
        head = encode(tokenizer, prompt)
        whole = encode(tokenizer, f"{prompt}{answer}<end_of_turn>")
        logits = model(mx.array([whole[:-1]]))[0, len(head) - 1 :]
        plain = nn.losses.cross_entropy(logits, mx.array(whole[len(head) :]), reduction="sum")
        assert count == len(answer) + 1
        assert loss == pytest.approx(plain.item(), rel=1e-4)


def test_a_prompt_that_does_not_fit_is_one_line(tuned: Any) -> None:
    prompt = render_prompt("x" * 3000)
    with pytest.raises(UserError, match=r"do not fit the model's 2,048"):
        generation.generate_batch(tuned.use("base"), tuned.tokenizer, [prompt], 8)


# --- The command line ---------------------------------------------------------------------------


def test_scored_run_writes_figures_that_can_be_recomputed(home: Path) -> None:
    arguments = ["--adapter-path", home / "sql", "--data", home / "sql-data", "--max-tokens", 12]
    done = run_script(
        "test_finetuned.py",
        *arguments,
        "--num-samples",
        5,
        "--shots",
        2,
        "--output-dir",
        home / "out",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((home / "out" / "evaluation.json").read_text())
    lines = (home / "out" / "evaluation_samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert summarize(samples) == report["summary"]
    assert list(report["summary"]["models"]) == ["base, 0 shots", "base, 2 shots", TUNED]
    assert report["summary"]["n"] == len(samples) == 5
    assert report["run"]["split"] == "test" and report["run"]["seed"] == 42
    data = (home / "sql-data" / "test.jsonl").read_bytes()
    assert report["run"]["data_sha256"] == hashlib.sha256(data).hexdigest()
    assert "split test" in done.stderr and "test suite" in done.stdout
    assert (home / "out" / "evaluation.md").read_text().startswith("# Evaluation")
    page = (home / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert report["summary"]["paired"][0]["sentence"].split("(")[0] in page
    assert page.count("<figure>") >= 2
    assert done.stderr.rstrip().endswith("evaluation.html")


def test_a_scored_run_needs_no_optional_package(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scipy.stats", "sqlglot", "sacrebleu", "rapidfuzz.distance"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(cli, "_said", set())
    for kind in ("sql", "alpaca"):
        done = run(
            "--adapter-path", home / kind, "--data", home / f"{kind}-data", "--split", "test",
            "--num-samples", 2, "--max-tokens", 4, "--output-dir", tmp_path / kind,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert re.search(rf"{TUNED} +│ +2 │", done.stdout)
        figures = json.loads((tmp_path / kind / "evaluation.json").read_text())["summary"]
        assert figures["paired"][0]["n"] == 2
    assert cli._said == {"scipy", "sqlglot", "sacrebleu", "rapidfuzz"}


def test_validation_rows_are_said_to_have_chosen_the_checkpoint(home: Path) -> None:
    done = run(
        "--adapter-path", home / "alpaca", "--data", home / "alpaca-data", "--max-tokens", 8,
        "--use-validation", "--num-samples", 3, "--check-forgetting",
        "--output-dir", home / "forgot",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "chose the checkpoint" in done.stdout
    report = json.loads((home / "forgot" / "evaluation.json").read_text())
    figures = report["summary"]["models"][TUNED]
    assert report["run"]["rows_chose_the_checkpoint"] is True
    assert figures["perplexity"]["value"] > 1 and figures["perplexity"]["n"] == 3
    lines = (home / "forgot" / "evaluation_samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    for name, key in (("main", "summary"), ("forgetting", "forgetting")):
        part = [{k: v for k, v in s.items() if k != "set"} for s in samples if s["set"] == name]
        assert summarize(part) == report[key]
    assert report["forgetting"]["type"] == "sql"


@pytest.mark.parametrize("kind", ["sql", "alpaca"])
def test_default_prompts_are_shown_and_nothing_is_written(kind: str, home: Path) -> None:
    before = sorted(path.name for path in (home / kind).iterdir())
    done = run("--adapter-path", home / kind, "--quick-test", "--max-tokens", 8)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("question: ") == 3 and done.stdout.count(f"{TUNED}: ") == 3
    assert sorted(path.name for path in (home / kind).iterdir()) == before


def test_default_sql_prompts_can_be_scored(worker: sandbox.SqlWorker) -> None:
    for row in evaluation.default_rows("sql", quick=False):
        gold = verdicts.prepare_gold(row, worker, 42, 2.0)
        assert gold.excluded is None and not gold.empty and gold.suite is not None
    assert len(evaluation.default_rows("alpaca", quick=False)) >= 5


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--num-samples", "0"], 2, "--num-samples must be 1 or more"),
        (["--temp", "9", "--shots", "99"], 2, "; --shots"),
        (["--split", "test", "--use-validation"], 2, "give one"),
        (["--db", "x.sqlite"], 2, "--interactive"),
        (["--adapter-path", "{home}/none"], 1, "none"),
        (["--adapter-path", "{home}/sql", "--split", "test", "--data", "no"], 1, "dataset.py"),
        (
            ["--adapter-path", "{home}/sql", "--num-samples", "2", "--data", "{home}/alpaca-data"],
            1,
            "holds alpaca rows",
        ),
        (
            ["--adapter-path", "{home}/sql", "--split", "test", "--data", "{home}/sql-data",
             "--shots", "9"],
            1,
            "--shots 9 is more than the 6 rows",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(arguments: list[str], status: int, said: str, home: Path) -> None:
    done = run(*(text.format(home=home) for text in arguments))
    assert done.returncode == status
    last = done.stderr.splitlines()[-1]
    assert said in last and "Traceback" not in done.stderr


def test_help_is_fast_and_needs_no_mlx() -> None:
    code = (
        "import sys, test_finetuned as t\n"
        "try: t.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'mlx', 'mlx.core', 'datasets', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--use-validation" in done.stdout


def test_pytest_cannot_mistake_the_script_for_tests() -> None:
    tree = ast.parse((ROOT / "test_finetuned.py").read_text())
    names = [getattr(node, "name", "") for node in ast.walk(tree)]
    assert not [name for name in names if name and name.startswith(("test_", "Test"))]


# --- The chat -----------------------------------------------------------------------------------


@pytest.fixture
def pets_file(tmp_path: Path) -> Path:
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PETS)
    return path


def test_chat_from_a_pipe(home: Path, pets_file: Path, tmp_path: Path) -> None:
    before = pets_file.read_bytes()
    lines = [
        "/help", "How many cats?", "/temp much", "/temp 0.5", "/max-tokens 4", "/nonsense",
        "/system Be brief.", "And dogs?", "/example", f"/save {tmp_path}/chat.md", "/reset",
        f"/schema {tmp_path}/none.sql", "/quit", "never reached",
    ]  # fmt: skip
    done = run_script(
        "test_finetuned.py",
        "--adapter-path", home / "sql", "--data", home / "sql-data", "--interactive", "--show-base",
        "--db", pets_file, "--max-tokens", 6, stdin="\n".join(lines),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "asking about" in done.stdout and "reference: SELECT" in done.stdout
    assert done.stdout.count("base> ") == done.stdout.count(f"{TUNED}> ") == 3
    assert done.stdout.count("tokens/s") == 6
    errors = done.stderr.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    assert "How many cats?" in (tmp_path / "chat.md").read_text()
    assert pets_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat.md", "pets.sqlite"]


@pytest.fixture
def chat(tuned: Any, home: Path, worker: sandbox.SqlWorker) -> Any:
    settings = ChatSettings(0.0, 1.0, 8, 42, show_base=False, sql_timeout=2.0)
    return Chat(tuned, settings, make_console(), worker, dict)


def test_both_models_answer_side_by_side_on_a_wide_terminal(chat: Any) -> None:
    from rich.console import Console

    screen = io.StringIO()
    chat.console = Console(file=screen, force_terminal=True, width=160)
    chat.settings = dataclasses.replace(chat.settings, show_base=True)
    take_line(chat, "Hi")
    header = next(line for line in screen.getvalue().splitlines() if TUNED in line)
    assert "base" in header
    assert list(chat.history) == ["base", TUNED]


def test_ctrl_c_keeps_what_was_said(chat: Any) -> None:
    pieces: list[str] = []

    def show(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    said = stream_answer(chat, "finetuned", [("user", "Hi")], show)
    assert said.text == "".join(pieces) and said.facts.endswith("interrupted")


def test_each_question_stands_alone_unless_history_is_on(
    chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[str, str]]] = []

    def answer(_: Any, which: str, turns: Any, show: Any) -> Reply:
        seen.append(list(turns))
        return Reply("SELECT 1", "facts", "stop")

    monkeypatch.setattr("gemma_lora.conversation.stream_answer", answer)
    for line in ("one", "two", "/history on", "three", "four", "/reset", "five"):
        take_line(chat, line)
    assert [[role for role, _ in turns] for turns in seen] == [
        ["user"], ["user"], ["user"], ["user", "model", "user"], ["user"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "command", "said"),
    [
        ("a.sqlite", b"not a database at all" * 100, "/db", "cannot read the database"),
        ("b.sqlite", None, "/db", "cannot read the database"),
        ("c.sql", b"SELECT 1;", "/schema", "no CREATE statement"),
        ("d.sql", b"CREATE TABLE t (;", "/schema", "does not load"),
        ("e.sql", b"\xff\xfe", "/schema", "cannot read the schema"),
        ("f.sql", b"-- x\n" * 2_500_000, "/schema", "cut it down"),
        ("g.sql", b"CREATE TABLE t (%s);" % b",".join(b"column_%d INT" % i for i in range(200)),
         "/schema", "tokens; the model reads 2,048"),
    ],
)  # fmt: skip
def test_bad_databases_are_one_line(
    name: str, content: bytes | None, command: str, said: str, chat: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    take_line(chat, f"{command} {path}")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert chat.database is None and chat.relations == []
    assert path.exists() == (content is not None)
