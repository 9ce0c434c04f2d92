"""Processes that share a batch: the same as one alone, shares in balance, cores as they are."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.nn as nn
import numpy as np
import pytest
from conftest import ROOT, tiny_config
from hypothesis import given
from hypothesis import strategies as st
from test_training import adapted_model, arrays, metrics, resume_record, some_examples

import train
from gemma_lora import models, ranks
from gemma_lora.batches import EMPTY, Example, balanced_shares, batch_iterator, rank_share
from gemma_lora.loss import supervised_loss
from gemma_lora.splits import read_split
from gemma_lora.workload import MANY_EPOCHS, Workload, steps_of


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6), count=st.integers(1, 3))
def test_shares_hold_every_row_once_and_weigh_alike(lengths: list[int], count: int) -> None:
    shares = balanced_shares(lengths, count)
    assert sorted(i for share in shares for i in share) == list(range(len(lengths)))
    assert len(shares) == count
    assert sum(map(bool, shares)) == min(count, len(lengths))
    best = min(
        max(sum(n for n, k in zip(lengths, owners, strict=True) if k == share) for share in owners)
        for owners in product(range(count), repeat=len(lengths))
    )
    assert max(sum(lengths[i] for i in share) for share in shares) <= 4 / 3 * best


def test_a_rank_without_rows_gets_an_empty_one(tiny_model: Path, tiny_data: Path) -> None:
    examples = some_examples(tiny_data, models.load_base(str(tiny_model))[1], 3)
    shares = [rank_share([0, 1, 2], examples, rank, 4) for rank in range(4)]
    assert sorted(len(share) for share in shares) == [1, 1, 1, 1]
    assert sum(len(row.ids) > row.offset for share in shares for row in share) == 3


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_ranks_gives_the_same_gradients(
    tiny_model: Path, tiny_data: Path, kind: str, count: int
) -> None:
    model, tokenizer = adapted_model(tiny_model, kind)
    examples = some_examples(tiny_data, tokenizer, 5)
    model.train()

    def gradients(rank: int, size: int) -> tuple[float, dict[str, Any]]:
        world = SimpleNamespace(rank=lambda: rank, size=lambda: size)
        batch = next(batch_iterator(3)(examples, 5, 512, loop=True, comm_group=world))
        (loss, _), found = nn.value_and_grad(model, supervised_loss)(model, *batch)
        return loss.item() / size, {k: v / size for k, v in arrays(found).items()}

    loss, wanted = gradients(0, 1)
    parts = [gradients(rank, count) for rank in range(count)]
    assert sum(p[0] for p in parts) == pytest.approx(loss, rel=1e-5)
    for name, gradient in wanted.items():
        got = sum(p[1][name] for p in parts)
        size = np.linalg.norm(gradient)
        assert np.linalg.norm(got - gradient) <= 1e-4 * size != 0, name


def run_train(*flags: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """train.py as a command."""
    command = [sys.executable, str(ROOT / "train.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def small_run(tiny_model: Path, tiny_data: Path, folder: Path) -> list[object]:
    """The flags of a short training."""
    return [
        "--model", tiny_model, "--data", tiny_data, "--adapter-path", folder, "--iters", 4,
        "--rank", 2, "--num-layers", -1, "--steps-per-report", 1, "--steps-per-eval", 2,
    ]  # fmt: skip


def test_a_run_in_three_processes_ends_where_one_alone_does_and_is_resumed_alike(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for number in (1, 3):
        flags = small_run(tiny_model, tiny_data, tmp_path / str(number))
        done = run_train(*flags, "--processes", number)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        assert ("each of 3 processes" in done.stdout) == (number == 3)
        assert len(re.findall("trains    lora", done.stdout)) == 1  # rank 0 alone speaks
    one, three = (metrics(tmp_path / name) for name in "13")
    for ours, theirs in zip(three, one, strict=True):
        for name in ours.keys() & {"train_loss", "val_loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), ours["step"]
    whole = run_train(*small_run(tiny_model, tiny_data, tmp_path / "6"), "--iters", 6,
                      "--processes", 3)  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "stopped"
    flags = [*small_run(tiny_model, tiny_data, folder), "--processes", 3, "--iters", 6]
    assert run_until(flags, '"step": 2', signal.SIGINT, folder)[0] == 130
    again = run_train("--adapter-path", folder, "--resume")
    assert again.returncode == 0, again.stderr
    assert "each of 3 processes" in again.stdout
    assert resume_record(folder)["config"]["processes"] == 3
    weights = [(tmp_path / n / "last_adapters.safetensors").read_bytes() for n in ("6", "stopped")]
    assert weights[0] == weights[1]


def run_until(
    flags: Sequence[object],
    line: str,
    number: int,
    folder: Path,
    helper: bool = False,
    again: bool = False,
) -> tuple[int, str, list[int]]:
    """Start train.py and send it, or its helper, a signal once its metrics hold a line; or two.

    As a terminal does, to its whole process group. Returns its status, what it said on
    stderr, and the processes that it had started.
    """
    command = [sys.executable, str(ROOT / "train.py"), *map(str, flags), "--save-every", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        log = folder / "metrics.jsonl"
        end = time.monotonic() + 60
        while not (log.exists() and line in log.read_text()):
            assert time.monotonic() < end and run.poll() is None
            time.sleep(0.01)
        found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for _ in range(1 + again):
            os.kill(int(found[0]), number) if helper else os.killpg(run.pid, number)
        _, said = run.communicate(timeout=60)
    return run.returncode, said, [int(pid) for pid in found]


@pytest.mark.skipif(sys.platform != "linux", reason="the children are read from /proc")
@pytest.mark.parametrize("helper", [False, True], ids=["the run", "a helper"])
def test_no_process_outlives_the_others(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, helper: bool
) -> None:
    flags = [*small_run(tiny_model, tiny_data, tmp_path), "--processes", 2, "--iters", 20_000]
    status, said, helpers = run_until(flags, '"step": 3', signal.SIGKILL, tmp_path, helper)
    if helper:
        assert status == 1
        said = said.strip().splitlines()[-1]  # MLX tells of the connection before that
        assert "error: another process of this run ended by signal 9; " in said
        assert "--resume" in said
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the children are read from /proc")
def test_two_interrupts_end_a_run_at_once_and_quietly(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = [*small_run(tiny_model, tiny_data, tmp_path), "--processes", 2, "--iters", 20_000]
    status, said, _ = run_until(flags, '"step": 3', signal.SIGINT, tmp_path, again=True)
    assert status == 130
    assert said.strip() in ("", "train.py: interrupted")  # it may be done with the step by then


def test_processes_by_cores_memory_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLX_HOSTFILE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranks, "usable_cores", lambda: 4)
    monkeypatch.setattr(ranks, "free_memory_bytes", lambda: 10e9)
    plan = ranks.plan_processes
    assert [plan(rows, 2.0) for rows in (1, 2, 8)] == [1, 2, 4]
    assert [plan(8, gb) for gb in (0.1, 3.0, 6.0, 50.0)] == [1, 3, 1, 1]
    assert [plan(4, 0.1, given) for given in (1, 3, 9)] == [1, 3, 4]
    monkeypatch.setenv("MLX_HOSTFILE", "hosts.json")  # one of several already
    assert [plan(8, 2.0), plan(8, 2.0, 3)] == [1, 3]
    monkeypatch.delenv("MLX_HOSTFILE")

    def forbidden(*_: Any) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(ranks.socket, "socket", forbidden)
        assert plan(8, 2.0) == 1
    monkeypatch.setattr(ranks, "on_gpu", lambda: True)
    assert plan(8, 2.0, 4) == 1


def test_free_memory_is_what_the_system_and_its_groups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ranks.free_memory_bytes()
    assert 1e8 < whole <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory.max").write_text("90000000\n")
    (tmp_path / "memory.current").write_text("50000000\n")
    monkeypatch.setattr(ranks, "cgroup_folders", lambda *_: [tmp_path])
    assert ranks.free_memory_bytes() == 40_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert ranks.free_memory_bytes() > 1e8


def test_ranks_of_this_machine_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.local_ranks() == 1
    hosts = [["10.0.0.1:5000"], ["10.0.0.2:5000"], ["10.0.0.1:5001"]]
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    for rank, expected in enumerate([2, 1, 2]):
        monkeypatch.setenv("MLX_RANK", str(rank))
        assert ranks.local_ranks() == expected


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
    assert ranks.cgroup_cores(tmp_path / "self", tmp_path / "root") == cores
    assert ranks.cgroup_cores(tmp_path / "none", tmp_path / "root") == math.inf


@pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is for Linux")
@pytest.mark.parametrize("given", [None, "", "2"])
def test_processes_leave_each_other_a_share_of_the_blas(given: str | None) -> None:
    """A user's own number stays; an empty one is none."""
    code = (
        "import ctypes; from gemma_lora import device, ranks; path = device.use_openblas();"
        "ranks.share_blas(ranks.usable_cores()); import mlx.core;"
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
        "from gemma_lora.ranks import usable_cores; print(usable_cores())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "1"


def test_every_row_is_in_one_share(tiny_model: Path, tiny_data: Path) -> None:
    _, tokenizer = adapted_model(tiny_model, "lora")
    examples = some_examples(tiny_data, tokenizer, 7)
    worlds = [SimpleNamespace(rank=lambda r=r: r, size=lambda: 2) for r in (0, 1)]

    def rows(batch: tuple[Any, ...]) -> list[list[int]]:
        return [[t for t in row if t] for row in batch[0].tolist() if sum(row) > EMPTY[0]]

    alone = islice(batch_iterator(5)(examples, 4, 512, loop=True), 6)
    shared = [
        islice(batch_iterator(5)(examples, 4, 512, loop=True, comm_group=w), 6) for w in worlds
    ]
    for one, *both in zip(alone, *shared, strict=True):
        assert sorted(rows(one)) == sorted(row for batch in both for row in rows(batch))
        trained = [sum((b[2] >= 0).sum().item() for b in side) for side in ([one], both)]
        assert trained[0] == trained[1]


@pytest.mark.parametrize("times", [0.05, 1, MANY_EPOCHS, MANY_EPOCHS + 1])
def test_a_run_that_sees_its_rows_too_rarely_or_too_often_says_so(times: float) -> None:
    rows = [Example(np.arange(9), 4)] * 40
    notes = " ".join(Workload(rows, round(times * 10), 4, 0).notes_on_epochs())
    assert ("less than a tenth" in notes) == (times < 0.1)
    assert ("by heart: --epochs 3 would take 30 steps" in notes) == (times > MANY_EPOCHS)


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
    assert "by heart" not in said
    command = [sys.executable, str(ROOT / "train.py"), "--iters", "3", "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give one of --iters, --epochs" in done.stderr
