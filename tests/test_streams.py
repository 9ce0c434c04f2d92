"""Streams side by side: the same loss and gradients, shares in balance, cores as they are."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import nullcontext
from itertools import islice, product
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import ROOT, tiny_config
from hypothesis import given
from hypothesis import strategies as st
from test_training import adapted_model, arrays, metrics, resume_record, some_examples

import train
from gemma_lora import device, models, streams
from gemma_lora.batches import balanced_shares, batch_iterator
from gemma_lora.device import current_stream
from gemma_lora.loss import supervised_loss
from gemma_lora.splits import read_split
from gemma_lora.workload import steps_of


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6), count=st.integers(1, 3))
def test_shares_hold_every_row_once_and_weigh_alike(lengths: list[int], count: int) -> None:
    shares = balanced_shares(lengths, count)
    assert sorted(i for share in shares for i in share) == list(range(len(lengths)))
    assert all(shares)
    assert len(shares) == min(count, len(lengths))
    best = min(
        max(sum(n for n, k in zip(lengths, owners, strict=True) if k == share) for share in owners)
        for owners in product(range(count), repeat=len(lengths))
    )
    assert max(sum(lengths[i] for i in share) for share in shares) <= 4 / 3 * best


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_streams_gives_the_same_gradients(
    tiny_model: Path, tiny_data: Path, kind: str, count: int, recompute: bool
) -> None:
    model, tokenizer = adapted_model(tiny_model, kind)
    examples = some_examples(tiny_data, tokenizer, 5)
    model.train()
    found = []
    for number in (1, count):
        batch = next(batch_iterator(3, streams=number)(examples, 5, 512, loop=True))
        assert len(batch) == 3 * number + 1
        with models.recomputed_layers(model) if recompute else nullcontext():
            (loss, tokens), gradients = nn.value_and_grad(model, supervised_loss)(model, *batch)
            mx.eval(loss, tokens, gradients)
        found.append((loss.item(), tokens.item(), arrays(gradients)))
    (loss, tokens, wanted), (shared_loss, shared_tokens, got) = found
    assert shared_tokens == tokens
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in wanted.items():
        size = np.linalg.norm(gradient)
        assert np.linalg.norm(got[name] - gradient) <= 1e-4 * size != 0, name


def test_what_is_recomputed_runs_on_the_stream_of_its_forward_pass(
    tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = adapted_model(tiny_model, "lora")
    block: Any = type(model.layers[0])
    plain, seen = block.__call__, []

    def noted(layer: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(str(current_stream()))
        return plain(layer, *args, **kwargs)

    monkeypatch.setattr(block, "__call__", noted)
    examples = some_examples(tiny_data, tokenizer, 4)
    batch = next(batch_iterator(3, streams=2)(examples, 4, 512, loop=True))
    model.train()
    with models.recomputed_layers(model):
        mx.eval(nn.value_and_grad(model, supervised_loss)(model, *batch))
    first, second = (str(s) for s in streams.share_streams(2))
    assert first != second
    layers = len(model.layers)
    assert seen[: 2 * layers] == [first] * layers + [second] * layers
    assert sorted(seen[2 * layers :]) == sorted(seen[: 2 * layers])


def test_streams_are_made_once() -> None:
    assert streams.share_streams(3)[:2] == streams.share_streams(2)
    assert streams.share_streams(3) is streams.share_streams(3)
    assert str(streams.share_streams(1)[0]) == str(current_stream())


def test_a_run_on_streams_ends_where_one_on_a_single_stream_does(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        config = tiny_config(tiny_model, tiny_data, tmp_path / str(number), streams=number)
        train.train(config)
    one, two = (metrics(tmp_path / name) for name in "12")
    for ours, theirs in zip(two, one, strict=True):
        for name in ours.keys() & {"train_loss", "val_loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), ours["step"]


def test_a_resumed_run_keeps_the_number_that_it_began_with(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ck"
    command = [
        sys.executable, str(ROOT / "train.py"), "--model", str(tiny_model), "--data",
        str(tiny_data), "--adapter-path", str(folder), "--iters", "4", "--rank", "2",
        "--num-layers", "-1", "--streams", "3",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = 3
    assert resume_record(folder)["config"]["streams"] == expected
    assert (f"{expected} streams side by side" in done.stdout) == (expected > 1)
    command = [sys.executable, str(ROOT / "train.py"), "--adapter-path", str(folder), "--resume"]
    subprocess.run([*command, "--iters", "6"], capture_output=True, check=True)
    assert resume_record(folder)["config"]["streams"] == expected


def test_one_stream_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [streams.plan_streams(rows) for rows in (1, 4, 8)] == [1, 1, 1]
    assert [streams.plan_streams(4, given) for given in (1, 3, 9)] == [1, 3, 4]
    monkeypatch.setattr(streams, "on_gpu", lambda: True)
    assert streams.plan_streams(8, 4) == 1


def test_ranks_of_this_machine_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streams.local_ranks() == 1
    hosts = [["10.0.0.1:5000"], ["10.0.0.2:5000"], ["10.0.0.1:5001"]]
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    for rank, expected in enumerate([2, 1, 2]):
        monkeypatch.setenv("MLX_RANK", str(rank))
        assert streams.local_ranks() == expected


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        ("3:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "200000",
                              "cpu/x/cpu.cfs_period_us": "100000"}, 2.0),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:memory:/", {"cpu.max": "1000 100000"}, math.inf),
        ("0::/", {"cpu.max": "what is this"}, math.inf),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_are_read(
    tmp_path: Path, lines: str, files: dict[str, str], cores: float
) -> None:
    (tmp_path / "self").write_text(lines + "\n")
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert streams.cgroup_cores(tmp_path / "self", tmp_path / "root") == cores
    assert streams.cgroup_cores(tmp_path / "none", tmp_path / "root") == math.inf


@pytest.mark.skipif(not device.openblas_path(), reason="cmeel-openblas is not installed")
@pytest.mark.parametrize("given", [None, "", "2"])
def test_streams_leave_each_other_a_share_of_the_blas(given: str | None) -> None:
    """A user's own number stays; an empty one is none."""
    code = (
        "import ctypes; from gemma_lora import device, streams; path = device.use_openblas();"
        "streams.share_blas(streams.usable_cores()); import mlx.core;"
        "print(ctypes.CDLL(path).openblas_get_num_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(ROOT)} | (
        {"OPENBLAS_NUM_THREADS": given} if given is not None else {}
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) == min(int(given or 1), os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no affinity")
def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from gemma_lora.streams import usable_cores; print(usable_cores())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "1"


def test_every_row_is_in_one_share(tiny_model: Path, tiny_data: Path) -> None:
    _, tokenizer = adapted_model(tiny_model, "lora")
    examples = some_examples(tiny_data, tokenizer, 7)
    alone = islice(batch_iterator(5)(examples, 4, 512, loop=True), 6)
    shared = islice(batch_iterator(5, streams=2)(examples, 4, 512, loop=True), 6)

    def rows(arrays: tuple[Any, ...]) -> list[list[int]]:
        return sorted([t for t in row if t] for a in arrays[:-1:3] for row in a.tolist())

    for one, two in zip(alone, shared, strict=True):
        assert rows(one) == rows(two)
        assert one[-1].item() == two[-1].item()
        trained = [sum((a >= 0).sum().item() for a in batch[2:-1:3]) for batch in (one, two)]
        assert trained[0] == trained[1]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 6), (2, 12), (0.5, 3), (0.01, 1), (1.01, 7)])
def test_epochs_become_steps(epochs: float, steps: int) -> None:
    assert steps_of(epochs, 23, 4) == steps


def test_a_run_says_how_much_of_the_rows_it_sees(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = len(read_split(tiny_data, "train"))
    config = tiny_config(tiny_model, tiny_data, tmp_path / "ck", epochs=2)
    steps = 2 * math.ceil(rows / 4)
    assert train.train(config)["step"] == steps
    assert f"{steps} steps of batch 4: {4 * steps / rows:.2f} epochs" in capsys.readouterr().out
    config = tiny_config(tiny_model, tiny_data, tmp_path / "few", iters=1, batch_size=1)
    train.train(config)
    said = capsys.readouterr().out
    assert f"1 steps of batch 1: 1 of {rows} rows, {1 / rows:.2f} epochs" in said
    assert f"less than a tenth of the rows: --epochs 1 would take {rows} steps" in said
    command = [sys.executable, str(ROOT / "train.py"), "--iters", "3", "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give one of --iters, --epochs" in done.stderr
