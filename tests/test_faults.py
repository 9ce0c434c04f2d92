"""The four scripts under faults: kill -9, a full disk, a read-only folder, a clock that jumps.

What is killed and what must hold afterwards stands in soak_faults.py, which kills more often.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import script_command
from soak_faults import (
    DATA_FILES,
    TINY_BENCHMARK,
    TINY_EVALUATION,
    Launcher,
    Preparing,
    Stage,
    Training,
    contents,
    kill_many,
    kill_once_at,
    leftovers,
    make_scenes,
)
from test_training import assert_same_run, metrics, wait_for_steps

from gemma_lora import files, splits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, pidfd and capset: Linux")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A tiny model and data, and a process that forks runs of the scripts."""
    with Launcher() as launcher:
        yield Stage(tmp_path_factory.mktemp("stage"), launcher)


@pytest.fixture(scope="module")
def reported(stage: Stage) -> Path:
    """A place with data, an adapter and its reports (read only)."""
    return stage.with_reports()


def commands(stage: Stage, output: Path | None = None) -> dict[str, list[object]]:
    """Flags of a run of each script, over what `reported` holds or into `output`."""
    data = ("--data", stage.data)
    into = ("--output-dir", output) if output else ()
    return {
        "dataset.py": [*stage.preparing(2), *into],
        "train.py": stage.training(*(("--adapter-path", output) if output else ())),
        "test_finetuned.py": [*TINY_EVALUATION, *data, "--num-samples", 4, *into],
        "benchmark.py": [*TINY_BENCHMARK, *data, *into],
    }


# --- Kills --------------------------------------------------------------------------------------


def test_kills_at_any_moment(stage: Stage, reported: Path) -> None:
    """20 kills over the four scripts; the next run of the same command sets everything right."""
    found = list(kill_many(stage, list(make_scenes(stage)), kills=20, seed=5))
    assert not [problem for _, _, problem in found if problem]
    assert len(found) == 20 and len({name for name, _, _ in found}) == 7


def test_a_kill_between_renames_mixes_no_splits(stage: Stage) -> None:
    """Without its manifest, a folder with new training and old test rows is not accepted."""
    start = stage.copy(stage.base / "earlier", "to mix")
    scene = stage.scene(Preparing, "mixing", "dataset.py", stage.preparing(2), start)
    # The folder tried, for each file a folder and a temporary file, the manifest gone, train and
    # valid renamed.
    before_test = 1 + 2 * len(DATA_FILES) + 1 + 2
    place = stage.copy(start, "mixed")
    done = stage.launcher.run(scene.script, scene.flags, place, die_at=before_test)
    assert done.status == -signal.SIGKILL
    rows = {s: list(files.read_json_lines(place / "data" / f"{s}.jsonl")) for s in splits.SPLITS}
    assert {r["text"] for r in rows["train"]} & {r["text"] for r in rows["test"]}  # a real leak
    told = stage.launcher.run("train.py", [*stage.training(), "--data", place / "data"], place)
    assert "manifest.json" in told.line() and "dataset.py" in told.line()
    scored = [*TINY_EVALUATION, "--num-samples", 2, "--data", place / "data"]
    told = stage.launcher.run("test_finetuned.py", scored, stage.copy(stage.with_adapter(), "asks"))
    assert "manifest.json" in told.line()
    assert kill_once_at(stage, scene, {"die_at": before_test + 1}) == "data refused"


def test_a_run_killed_while_it_moves_an_earlier_one(stage: Stage) -> None:
    """The next run completes the move: the earlier run is not torn over two folders."""
    start = stage.with_adapter()
    scene = stage.scene(Training, "moving", "train.py", stage.training(), start)
    # Changes: a lock, a folder, seven files of the run with confidence.json, then its adapter.
    assert kill_once_at(stage, scene, {"die_at": 10}) == "earlier run being moved"
    assert kill_once_at(stage, scene, {"die_at": 12}) == "earlier adapter loads"


# --- A full disk --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "file", "without"),
    [
        ("dataset.py", "data/train.jsonl", ()),
        ("dataset.py", "data/lengths.png", ()),
        ("test_finetuned.py", "checkpoints/evaluation_samples.jsonl", ("matplotlib",)),
        ("benchmark.py", "checkpoints/benchmark.json", ("matplotlib",)),
    ],
)
def test_a_full_disk_keeps_the_earlier_files(
    stage: Stage, reported: Path, script: str, file: str, without: tuple[str, ...]
) -> None:
    """The file named cannot be written whole; what was there before is as it was."""
    start = stage.base / "earlier" if script == "dataset.py" else reported
    place = stage.copy(start, f"full {file.replace('/', ' ')}")
    before = contents(place)
    limit = len(before[file]) * 3 // 4
    few = ("--sample-size", 14) if file == "data/lengths.png" else ()
    flags = [*commands(stage)[script], *few]
    done = stage.launcher.run(script, flags, place, file_bytes=limit, without=without)
    assert Path(file).name in done.line() and "File too large" in done.line()
    now = contents(place)
    if file == "data/lengths.png":  # comes after the data, which are new and whole
        assert splits.edited_files(place / "data") == [] and now[file] == before[file]
    else:
        assert now == before
    assert not leftovers(place)


@pytest.mark.parametrize(
    ("file", "of_its_size", "without"),
    [
        ("training_config.txt", 0.5, ()),
        ("metrics.jsonl", 0, ("matplotlib",)),
        ("loss_curve.png", 0.3, ()),
        ("adapters.safetensors", 0.9, ("matplotlib",)),
        ("resume.safetensors", 0.9, ()),
    ],
)
def test_a_full_disk_ends_training_with_one_line(
    stage: Stage, file: str, of_its_size: float, without: tuple[str, ...]
) -> None:
    start = stage.with_adapter()
    earlier = contents(start / "checkpoints")
    place = stage.copy(start, f"full {file}")
    config = len(earlier["training_config.txt"])
    limit = int(of_its_size * len(earlier[file])) or config + 300
    more = ("--iters", 60, "--steps-per-eval", 60, "--save-every", 60)
    flags = stage.training(*(more if file == "metrics.jsonl" else ()))
    done = stage.launcher.run("train.py", flags, place, file_bytes=limit, without=without)
    assert file in done.line()
    now = contents(place / "checkpoints")
    assert {f"previous-1/{name}": text for name, text in earlier.items()}.items() <= now.items()
    assert not leftovers(place)
    for path in (place / "checkpoints").glob("*.safetensors"):
        files.load_tensors(path)
    if file == "metrics.jsonl":
        assert "--resume" in done.line()
        stage.must_run("train.py", stage.training(), place)


@pytest.mark.parametrize("name", ["manifest.json", "test.jsonl"])
def test_a_file_that_cannot_be_replaced(stage: Stage, name: str) -> None:
    """What stands in the way of a rename is named; the message says what was replaced."""
    place = stage.copy(stage.base / "earlier", f"in the way, {name}")
    (place / "data" / name).unlink()
    (place / "data" / name).mkdir()
    before = contents(place)
    line = stage.launcher.run("dataset.py", stage.preparing(2), place).line()
    assert name in line and not leftovers(place)
    if name == "manifest.json":
        assert "nothing was replaced" in line and contents(place) == before
        return
    assert "manifest.json was removed" in line
    assert stage.launcher.run("train.py", stage.training("--data", "data"), place).line()


# --- A folder that cannot be written to ---------------------------------------------------------


@pytest.mark.parametrize("script", ["dataset.py", "train.py", "test_finetuned.py", "benchmark.py"])
def test_a_read_only_folder(stage: Stage, reported: Path, tmp_path: Path, script: str) -> None:
    """One line for a folder without write permission, and for one below a file."""
    place, closed = stage.copy(reported, f"read only, {script}"), tmp_path / "closed"
    closed.mkdir(mode=0o555)
    (tmp_path / "file").write_text("in the way")
    slow = script == "benchmark.py"
    for output in (closed, tmp_path / "file" / "below")[: 1 if slow else 2]:
        done = stage.launcher.run(script, commands(stage, output)[script], place, unprivileged=True)
        assert str(output) in done.line()
        assert "denied" in done.line() or "directory" in done.line()
        assert (
            "answers:" not in done.err and "warm-up" not in done.err
        )  # before the work, not after
    assert os.listdir(closed) == [] and contents(place) == contents(reported)


def test_a_read_only_folder_for_the_peft_adapter(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    flags = ["--export-peft", tmp_path / "file" / "below"]
    done = stage.launcher.run("train.py", flags, stage.with_adapter())
    assert str(tmp_path / "file") in done.line()


# --- Two at once --------------------------------------------------------------------------------


def test_two_trainings_in_one_folder(stage: Stage, tmp_path: Path) -> None:
    """The second is refused; once the first was killed, a new one starts."""
    folder = tmp_path / "checkpoints"
    flags = stage.training("--iters", 100_000, "--adapter-path", folder)
    first = subprocess.Popen(
        script_command("train.py", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        wait_for_steps(folder, first, 6)
        first.send_signal(signal.SIGSTOP)
        before = contents(folder)
        second = stage.launcher.run("train.py", stage.training(), tmp_path)
        assert "another training is writing to" in second.line()
        assert contents(folder) == before
    finally:
        first.kill()
        first.communicate()
    stage.must_run("train.py", stage.training(), tmp_path)
    assert len(metrics(folder)) == len(metrics(stage.with_adapter() / "checkpoints"))
    assert (folder / "previous-1" / "resume.safetensors").exists()


# --- A clock that jumps -------------------------------------------------------------------------


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """(key, number) of every number in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name} {key}")
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, value


def assert_sane(records: Any, longest: float) -> int:
    """Durations lie between 0 and the run's own, speeds above 0; returns how many there were."""
    count = 0
    for name, value in numbers(records):
        if "per_second" in name or "tps" in name:
            assert 0 <= value < 1e9, (name, value)
            count += 1
        elif "_sec" in name and not name.endswith(" n"):
            assert 0 <= value <= longest, (name, value)
            count += 1
    return count


def test_a_clock_that_jumps_falsifies_nothing(stage: Stage, reported: Path) -> None:
    """Every second reading of the wall clock is hours off, and all files are from the future."""
    place = stage.copy(reported, "clock")
    for path in [*place.rglob("*"), place]:
        os.utime(path, (time.time() + 1e5, time.time() + 1e5))

    def run(script: str, flags: Sequence[object]) -> float:
        done = stage.launcher.run(script, flags, place, clock_hours=5)
        assert done.status == 0, done
        return done.seconds

    evaluation = json.loads((reported / "checkpoints" / "evaluation.json").read_text())
    folder, wanted = place / "checkpoints", commands(stage)
    wanted["test_finetuned.py"][-1] = evaluation["run"]["n"]
    seconds = run("test_finetuned.py", wanted["test_finetuned.py"])
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["summary"] == evaluation["summary"]
    assert assert_sane(report["run"]["speed"], seconds)
    seconds = run("benchmark.py", wanted["benchmark.py"])
    result = json.loads((folder / "benchmark.json").read_text())
    assert assert_sane([result["figures"], result["samples"], result["load"]], seconds)
    seconds = run("train.py", stage.training("--seed", 1))
    assert_same_run(folder, reported / "checkpoints")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert assert_sane(lines, seconds) == 8
    run("dataset.py", stage.preparing(1))
    now, before = contents(place / "data"), contents(stage.data)
    assert now == before
