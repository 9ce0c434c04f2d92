"""Tests of benchmark.py: its arithmetic as laws, its reports and files on a tiny real model."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import one_line_error, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

import benchmark
from benchmark import TUNED, BenchmarkConfig
from gemma_lora import adapters, benchmark_report, cli, files, models, timing
from gemma_lora.adapters import PACKAGED_MODEL, hub_model
from gemma_lora.benchmark_report import BASE
from gemma_lora.card import make_card, read_evaluation
from gemma_lora.statistics import describe_values, paired_ratio

positive = st.floats(min_value=1e-3, max_value=1e6)
many = st.lists(positive, min_size=1, max_size=40)
SMALL: dict[str, Any] = {
    "num_samples": 3, "prompt_tokens": 12, "generation_tokens": 4, "batch_size": 2,
    "max_tokens": 4, "warmup": 0, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, tiny_adapter: Path, tiny_data: Path
) -> tuple[dict[str, Any], Path]:
    """Result and folder of one run with every variant."""
    folder = tmp_path_factory.mktemp("bench") / "checkpoints"
    shutil.copytree(tiny_adapter, folder)
    config = BenchmarkConfig(
        adapter_path=folder, data=tiny_data, compare=True, variants="fused,4bit", **SMALL
    )
    return benchmark.benchmark(config), folder


# --- Laws ---------------------------------------------------------------------------------------


@settings(deadline=None)  # numpy is imported at the first call
@given(many)
def test_percentiles_rise_between_the_extremes_and_the_50th_is_the_median(
    values: list[float],
) -> None:
    found = describe_values(values)
    told = [found[k] for k in ("min", "p10", "p50", "p90", "p99", "max")]
    assert all(a <= b or math.isclose(a, b) for a, b in pairwise(told))
    assert found["p50"] == pytest.approx(statistics.median(values))


@given(many)
def test_describe_orders_its_percentiles(values: list[float]) -> None:
    told = describe_values(values)
    order = [told[k] for k in ("min", "p10", "p50", "p90", "p99", "max")]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(order))
    assert told["n"] == len(values) and told["std"] >= 0


@settings(deadline=None)  # the first one imports scipy
@given(st.lists(positive, min_size=5, max_size=12), st.floats(min_value=0.2, max_value=5))
def test_a_constant_ratio_is_found_exactly(values: list[float], factor: float) -> None:
    told = paired_ratio([v * factor for v in values], values, True)
    assert told["ratio"] == pytest.approx(factor)
    assert told["ci"] == pytest.approx([factor, factor])


def test_ratio_says_when_a_difference_is_noise_and_when_runs_are_too_few() -> None:
    noisy = paired_ratio([9, 11, 8, 12, 10, 10.5], [10] * 6, True)
    assert noisy["verdict"] == "within the noise" and noisy["ci"][0] < 1 < noisy["ci"][1]
    assert paired_ratio([8, 8.1, 7.9, 8, 8.05], [10] * 5, True)["verdict"] == "worse"
    assert paired_ratio([8, 8.1, 7.9, 8, 8.05], [10] * 5, False)["verdict"] == "better"
    assert paired_ratio([8, 8, 8], [10] * 3, True)["verdict"] == "too few runs to say"


@pytest.mark.parametrize(("value", "text"), [
    (1234.4, "1,234"), (99.6, "100"), (12.34, "12.3"), (0.5, "0.500"), (0.001, "0.0010"), (0, "0"),
])  # fmt: skip
def test_compact_shows_three_figures(value: float, text: str) -> None:
    assert benchmark_report.compact(value) == text


def result_with(speed: float, std: float = 0.1) -> dict[str, Any]:
    stats = describe_values([speed]) | {"std": std, "n": 5}
    return {"figures": {TUNED: {"pp8+tg4": {"generation_tps": stats}}}}


def test_baseline_flags_only_what_is_worse_by_more_than_tolerance_and_noise() -> None:
    def judged(now: dict[str, Any], before: dict[str, Any]) -> list[bool]:
        return [
            f["regression"]
            for f in benchmark.compare_with_baseline(now["figures"], before["figures"], 0.1)
        ]

    assert judged(result_with(8), result_with(10)) == [True]
    assert judged(result_with(9.5), result_with(10)) == [False]
    assert judged(result_with(20), result_with(10)) == [False]
    assert judged(result_with(8), result_with(10, std=5)) == [False]


def test_busy_machine_is_named_by_its_spread() -> None:
    assert benchmark.busy_notes(result_with(10, std=0.5)["figures"], 0.1) == []
    (note,) = benchmark.busy_notes(result_with(10, std=3)["figures"], 2.5)
    assert "busy" in note and "30%" in note and "2.5" in note


def test_batched_shape_shares_out_the_prompt_tokens() -> None:
    work = timing.shape_work(64, 8, 4, 300, seed=1)
    assert work.name == "pp16+tg8 x4" and [len(p) for p in work.prompts] == [16] * 4
    assert work == timing.shape_work(64, 8, 4, 300, seed=1)
    assert all(2 <= token < 300 for row in work.prompts for token in row)


def test_limits_of_the_270m() -> None:
    from mlx_lm.models.gemma3_text import ModelArgs

    args = ModelArgs(
        "gemma3_text", hidden_size=640, num_hidden_layers=18, intermediate_size=2048,
        num_attention_heads=4, head_dim=256, num_key_value_heads=1, sliding_window=512,
    )  # fmt: skip
    assert timing.layer_products(args) == 18 * (640 * (2 * 1024 + 2 * 256) + 3 * 640 * 2048)
    short, long = (timing.cache_bytes(args, n, 4) for n in (100, 10_000))
    assert short == 18 * 2 * 256 * 100 * 4
    assert long == 2 * 256 * 4 * (3 * 10_000 + 15 * 512)


# --- One run with everything --------------------------------------------------------------------


def test_result_holds_what_another_machine_needs(compared: Any) -> None:
    result, folder = compared
    written = json.loads((folder / "benchmark.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert set(written) == {
        "format", "made", "machine", "settings", "shape", "model", "definitions", "load", "limits",
        "variants", "figures", "comparisons", "quality", "notes", "baseline", "samples",
    }  # fmt: skip
    assert {"chip", "cores", "memory_gb", "os", "versions", "git_commit"} <= set(result["machine"])
    assert set(timing.METRICS) <= set(result["definitions"])
    assert list(result["figures"]) == [BASE, TUNED, "fused", "4bit"]


def test_every_variant_does_the_same_work(compared: Any) -> None:
    samples = compared[0]["samples"]
    shapes = [s for s in samples if s["work"] != "prompts"]
    assert {s["work"] for s in shapes} == {"pp12+tg4", "pp6+tg2 x2"}
    assert {s["generation_tokens"] for s in shapes if s["work"] == "pp12+tg4"} == {4}
    assert all(len(s["tpot_sec"]) == s["generation_tokens"] - 1 for s in samples)
    seen = {}
    for s in samples:
        seen.setdefault(s["variant"], []).append((s["run"], s["work"], s["row"]))
    assert all(sorted(v, key=str) == sorted(seen[BASE], key=str) for v in seen.values())
    assert sum(s["work"] == "prompts" and s["variant"] == BASE for s in samples) == 3


def test_variants_alternate_their_order(compared: Any) -> None:
    first = [
        next(s["variant"] for s in compared[0]["samples"] if s["run"] == run) for run in (0, 1)
    ]
    assert first == [BASE, "4bit"]


def test_decode_speed_leaves_the_first_token_out(compared: Any) -> None:
    for s in compared[0]["samples"]:
        rows = 2 if s["work"].endswith("x2") else 1
        if s["tpot_sec"]:
            speed = rows * (s["generation_tokens"] - 1) / (s["end_to_end_sec"] - s["ttft_sec"])
            assert s["generation_tps"] == pytest.approx(speed)
        assert s["prompt_tps"] == pytest.approx(s["prompt_tokens"] / s["ttft_sec"])


def test_fusing_keeps_the_quality_and_drops_the_adapter(compared: Any) -> None:
    result, _ = compared
    loss = result["quality"]["val_loss"]
    assert loss["fused"] == pytest.approx(loss[TUNED], rel=1e-3) and loss[TUNED] < loss[BASE]
    size = {name: v["weights_gb"] for name, v in result["variants"].items()}
    assert size["fused"] == size[BASE] < size[TUNED] and size["4bit"] < size[BASE] / 2
    assert result["quality"]["evaluation"]["models"][TUNED]["execution_accuracy"]["n"] > 0
    assert "first look" in (compared[1] / "benchmark.md").read_text()


def test_picture_and_tables(compared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result, folder = compared
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    slow = copy.deepcopy(result)  # with times as wide as the real model's on a CPU
    for works in slow["figures"].values():
        for figures in works.values():
            figures["tpot_sec"] |= {"p50": 0.256, "p90": 0.991, "p99": 1.595}
            figures["ttft_sec"] |= {"mean": 11.249, "std": 1.1249}
    for told in (result, slow):
        benchmark_report.show_benchmark(told, "Benchmark")
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80 and not [line for line in lines if "…" in line]


def test_card_is_valid_and_complete(compared: Any) -> None:
    from huggingface_hub import ModelCard

    card: Any = ModelCard.load(compared[1] / "README.md")
    told = card.data.to_dict()
    assert told["library_name"] == "mlx" and told["license"] == "gemma"
    metrics = {e.metric_type: e.metric_value for e in card.data.eval_results}
    assert {"loss", "execution_accuracy", "test_suite_accuracy"} <= set(metrics)
    for part in ("loss_curve.png", "benchmark.png", "mlx_lm.generate", "## Limits", "| base |"):
        assert part in card.text, part


@pytest.mark.parametrize(("model", "hub"), [
    ("packaged", PACKAGED_MODEL), ("google/gemma-3-270m-it", "google/gemma-3-270m-it"),
    ("/some/folder", None), ("model.gguf", None),
])  # fmt: skip
def test_card_names_the_base_by_its_place_on_the_hub(model: str, hub: str | None) -> None:
    assert hub_model({"model": model}) == hub


def test_card_shows_the_evaluation_only_of_this_very_adapter(
    compared: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, folder = compared
    config = adapters.read_adapter_config(folder)
    shutil.copy(folder / "adapters.safetensors", tmp_path)
    same = files.sha256_of(folder / "adapters.safetensors")
    run: Any = {"split": "test", "n": 60, "seed": 1, "adapter": {"sha256": same}}
    report = {"format": 2, "summary": result["quality"]["evaluation"], "run": run}
    assert read_evaluation(tmp_path) == (None, None)
    loss = {"best_val_loss": config["best_val_loss"]}
    for wrong, said in (
        ({"run": run | {"adapter": loss | {"sha256": "0" * 64}}}, "made with other weights"),
        ({"run": run | {"adapter": loss}}, "is damaged"),
        ({"format": 1}, "has format 1, not 2"),
    ):
        (tmp_path / "evaluation.json").write_text(json.dumps(report | wrong))
        capsys.readouterr()
        assert "60 rows of the test split" not in make_card(result, config, {}, tmp_path)
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and said in told[0] and "run test_finetuned.py again" in told[0]
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    assert "60 rows of the test split" in make_card(result, config, {}, tmp_path)
    with (tmp_path / "adapters.safetensors").open("ab") as file:
        file.write(b" ")
    assert read_evaluation(tmp_path)[0] is None


# --- The command --------------------------------------------------------------------------------


def flags(adapter: Path, data: Path, *more: object) -> list[str]:
    small = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    return [f"--adapter-path={adapter}", f"--data={data}", *small, *map(str, more)]


def test_baseline_json_status_and_a_card_of_ones_own(
    adapter_copy: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(flags(adapter_copy, tiny_data, "--quick", "--json")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result["figures"]) == [TUNED] and result["settings"]["runs"] == 3
    assert not (adapter_copy / "README.md").exists()
    stats = result["figures"][TUNED]["pp12+tg4"]["generation_tps"]
    stats.update(median=stats["median"] * 100, std=0.0)
    before = adapter_copy / "before.json"
    before.write_text(json.dumps(result))
    again = flags(adapter_copy, tiny_data, "--quick", f"--baseline={before}")
    assert benchmark.main(again) == 0
    assert "REGRESSION" in capsys.readouterr().out
    (adapter_copy / "README.md").write_text("mine")
    assert benchmark.main([*again, "--fail-on-regression", "--compare"]) == 3
    assert (adapter_copy / "README.md").read_text() == "mine"


def test_a_baseline_is_never_written_to(
    adapter_copy: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the run after a regression would be compared with the regression, and pass."""
    assert benchmark.main(flags(adapter_copy, tiny_data, "--quick")) == 0
    record = adapter_copy / "benchmark.json"
    fast = json.loads(record.read_text())
    stats = fast["figures"][TUNED]["pp12+tg4"]["generation_tps"]
    stats.update(median=stats["median"] * 100, std=0.0)
    record.write_text(json.dumps(fast))
    gate = flags(adapter_copy, tiny_data, "--quick", f"--baseline={record}", "--fail-on-regression")
    for _ in range(2):
        assert benchmark.main(gate) == 3
        assert json.loads(record.read_text()) == fast
    assert "benchmark-new.json" in capsys.readouterr().err
    new = json.loads((adapter_copy / "benchmark-new.json").read_text())
    assert new["baseline"]["file"] == str(record)


@pytest.mark.parametrize("other", [["--generation-tokens=5"], ["--quick", "--prompt-tokens=9"]])
def test_a_baseline_of_another_shape_is_told_before_measuring(
    other: list[str], compared: Any, tiny_data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _, folder = compared
    before = tmp_path / "before.json"
    shutil.copy(folder / "benchmark.json", before)
    given = flags(folder, tiny_data, *other, "--batch-size=1", f"--baseline={before}",
                  f"--output-dir={tmp_path}")  # fmt: skip
    assert benchmark.main(given) == 1
    said = capsys.readouterr().err
    assert "no figure of the same variant and shape (its shape is pp12+tg4" in said
    assert "warm-up" not in said and "run 1 of" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["before.json"]


def test_a_baseline_without_the_variant_is_refused(compared: Any) -> None:
    result, _ = compared
    shape = benchmark.ScheduledWork(timing.shape_work(12, 4, 1, 300, 0), None)
    config = BenchmarkConfig(baseline=Path("old.json"))
    benchmark.require_comparable(result, [shape], config)
    only_base = {**result, "figures": {BASE: result["figures"][BASE]}}
    with pytest.raises(cli.UserError, match="no figure of the same variant"):
        benchmark.require_comparable(only_base, [shape], config)


def test_help_is_fast_and_needs_no_mlx(tmp_path: Path) -> None:
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "__init__.py").write_text("raise RuntimeError('mlx was imported')")
    start = time.perf_counter()
    done = run_script("benchmark.py", "--help", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and "--fail-on-regression" in done.stdout, done.stderr
    assert time.perf_counter() - start < 15  # about one second on a machine with nothing else to do


@pytest.mark.parametrize(("given", "says"), [
    (["--runs", "0"], "--runs must be 1 or more"),
    (["--variants", "fuzed"], "--variants takes fused and 4bit, not fuzed"),
    (["--fail-on-regression"], "needs --baseline"),
])  # fmt: skip
def test_bad_flags_are_one_line(
    given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(given)
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and says in said and len(said.splitlines()) == 1


def test_missing_adapter_is_one_line(tmp_path: Path) -> None:
    line = one_line_error(run_script("benchmark.py", "--adapter-path", tmp_path / "no"))
    assert "train first" in line


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"figures": 1}'])
def test_damaged_baseline_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(cli.UserError, match="cannot be used"):
        benchmark.read_baseline(path)


@pytest.mark.skipif(
    "BENCHMARK_CHECK" not in os.environ, reason="timed: set BENCHMARK_CHECK to a model's folder"
)
def test_agrees_with_the_benchmark_of_mlx_lm(
    eager: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same shape, same model, taking turns: both medians within 15% of each other."""
    import mlx.core as mx
    from mlx_lm import benchmark as theirs
    from mlx_lm.generate import generation_stream, stream_generate

    def stream_after_waiting(*given: Any, **named: Any) -> Any:
        # A generation leaves one token ahead in the making; on a CPU the next trial's first
        # token waits for it, 20% of this prefill. Ours lets it end before the clock starts.
        mx.synchronize(generation_stream)
        return stream_generate(*given, **named)

    monkeypatch.setattr(theirs, "stream_generate", stream_after_waiting)
    folder, prompt, generated = os.environ["BENCHMARK_CHECK"], 128, 16
    model, tokenizer, path = models.load_base(folder)
    settings = json.loads((path / "config.json").read_text())
    monkeypatch.setattr(theirs, "load", lambda *_, **__: (model, tokenizer, settings))
    flags = ["-p", str(prompt), "-g", str(generated), "-n", "1"]
    monkeypatch.setattr(sys, "argv", ["mlx_lm.benchmark", "--model", folder, *flags])
    work = timing.shape_work(prompt, generated, 1, model.args.vocab_size, seed=0)
    ours = []
    for _ in range(5):
        theirs.main()
        ours.append(timing.time_once(model, work, 0, True))
    said = capsys.readouterr().out
    for key in ("prompt_tps", "generation_tps"):
        told = [float(x) for x in re.findall(rf"Trial .*{key}=([\d.]+)", said)]
        expected = statistics.median(told)
        if key == "generation_tps":  # theirs counts the first token, not the time it took
            expected *= (generated - 1) / generated
        found = statistics.median(s[key] for s in ours)
        print(f"{key}: mlx_lm {expected:.1f}, ours {found:.1f}")
        assert found == pytest.approx(expected, rel=0.15)
