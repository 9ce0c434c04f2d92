"""Kill the four scripts with SIGKILL at seeded moments and look at what they leave.

    python tests/soak_faults.py --kills 200 --seed 0

Works on the tiny model and the made-up rows of the tests. Half of the moments are spread over the
whole life of a process, measured in an uncut run; the other half are aimed at a change in the
output folder: the process kills itself just before it opens a file to write, renames, removes or
makes a folder. After every kill the folder is examined, and the next run of the same command must
end as if nothing had happened. Prints one table, and one line of JSON with the counts.

Importing takes longer than a tiny run: one process imports everything, then forks for each run
(before MLX starts a thread). Linux only, because of pidfd and of forking.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
from gemma_lora import adapters, benchmark_report, checkpoints, device, figures, files, splits  # noqa: E402

IMPORTS = (
    "mlx.core", "mlx.nn", "mlx.optimizers", "mlx_lm.tuner.trainer", "mlx_lm.cli_ui", "transformers",
    "matplotlib.pyplot", "scipy.stats", "sqlglot", "sacrebleu", "rapidfuzz", "rich.progress",
    "huggingface_hub", "test_finetuned", "benchmark",
)  # fmt: skip
PIPE_BYTES = 2**20  # what a run may print before anyone reads it
RUN_SEC = 600  # no tiny run takes this long, even on a busy machine
CHILD_SUBREAPER = 36  # of prctl: orphans of a killed run become ours
CAPABILITIES = 0x20080522  # of capset: version 3 of its structures
WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


@dataclass
class Done:
    """How one run ended."""

    status: int  # exit status, or minus the signal
    out: str
    err: str
    seconds: float
    changes: int | None  # in the watched folder; None when it was killed
    orphans: int  # processes it had started that outlived it by a minute

    def line(self) -> str:
        """The line, after those on its progress, with which a run failed; AssertionError else."""
        assert self.status == 1, (self.status, self.out, self.err)
        assert "Traceback" not in self.out + self.err, self.err
        *progress, last = self.err.strip().splitlines()
        assert " error: " in last and " error: " not in "".join(progress), self.err
        return last


# --- The process that forks ---------------------------------------------------------------------


def drop_root_rights() -> None:
    """Make permissions of files bind for root too, in this process."""
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def jump_clock(hours: float) -> None:
    """Let every second reading of time.time() be off by this much, to and fro."""
    true, calls = time.time, iter(range(10**9))

    def jumping() -> float:
        return true() + (next(calls) % 2) * hours * 3600

    time.time = jumping


def count_changes(folder: str, die_at: int | None) -> list[int]:
    """Count what changes in `folder`, and die just before change number `die_at`."""
    count = [0]

    def watch(event: str, values: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and (values[2] or 0) & WRITING)
        if not changes or isinstance(values[0], int):
            return
        if os.path.abspath(os.fsdecode(values[0])).startswith(folder):
            if count[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1

    sys.addaudithook(watch)
    return count


def run_main(job: dict[str, Any]) -> tuple[int, int]:
    """In the child: set up the faults and run the script's main; (status, changes)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["place"])
    os.environ["TMPDIR"] = tempfile.tempdir = job["place"]
    script = importlib.import_module(job["script"].removesuffix(".py"))
    sys.argv = [job["script"], *job["flags"]]
    sys.modules.update(dict.fromkeys(job.get("without", ())))
    if job.get("unprivileged"):
        drop_root_rights()
    if job.get("clock_hours"):
        jump_clock(job["clock_hours"])
    if job.get("file_bytes") is not None:  # Python ignores SIGXFSZ: a longer file is an OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"],) * 2)
    changes = count_changes(job["watch"], job.get("die_at"))
    try:
        return script.main(job["flags"]), changes[0]
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1, changes[0]
    except BaseException:
        traceback.print_exc()
        return 1, changes[0]


def wait_for_orphans(seconds: float = 60) -> int:
    """Reap what a run left running; returns how many processes had to be killed."""
    deadline, killed = time.monotonic() + seconds, 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if pid == 0 and time.monotonic() > deadline:
            for child in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
                killed += 1
                os.kill(int(child), signal.SIGKILL)
        elif pid == 0:
            time.sleep(0.005)


def fork_run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, run a script in the child, kill it after `kill_after` seconds; a Done as a dict."""
    pipes = {name: os.pipe() for name in ("out", "err", "report")}
    for _, end in pipes.values():
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        for number, name in enumerate(("out", "err"), 1):
            os.dup2(pipes[name][1], number)
        status, changes = run_main(job)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(pipes["report"][1], str(changes).encode())
        os._exit(status)
    watched = os.pidfd_open(pid)
    for _, end in pipes.values():
        os.close(end)
    if not select.select([watched], [], [], job.get("kill_after", RUN_SEC))[0]:
        signal.pidfd_send_signal(watched, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.perf_counter() - begun
    orphans = wait_for_orphans()
    os.close(watched)
    texts = {name: read_all(start) for name, (start, _) in pipes.items()}
    report = texts.pop("report")
    return texts | {
        "status": status, "seconds": seconds, "changes": int(report) if report else None,
        "orphans": orphans,
    }  # fmt: skip


def read_all(pipe: int) -> str:
    """What is in a pipe that no one writes to any more."""
    with open(pipe, "rb") as file:
        return file.read().decode(errors="replace")


def draw_once() -> None:
    """Let matplotlib find its fonts here, not in every fork."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(layout="constrained")
    axes.plot([1, 2], label="a line")
    axes.legend()
    figure.savefig(io.BytesIO(), dpi=120)
    plt.close(figure)


def serve() -> None:
    """Answer runs, one JSON line each, until stdin ends."""

    device.prepare_process()
    for name in IMPORTS:
        importlib.import_module(name)
    draw_once()
    gc.freeze()  # what is here stays: the forks need not look through it
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        print(json.dumps(fork_run(json.loads(line))), flush=True)


class Launcher:
    """Runs the scripts in forks of one process that has imported everything."""

    def __init__(self) -> None:
        # Without a main file: the process that runs SQL is spawned, and would import it again.
        code = f"import sys; sys.path[:0] = {sys.path[:2]!r}; import soak_faults as s; s.serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, script: str, flags: Sequence[object], place: Path, **faults: Any) -> Done:
        """Run a script in `place` to its end, or to its death; see `run_main` for the faults."""
        job = {"script": script, "flags": [str(f) for f in flags], "place": str(place)}
        job |= {"watch": str(place)} | faults
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Done(**json.loads(self.process.stdout.readline()))


# --- What is killed, and what must be true afterwards -------------------------------------------

TINY_RUN = (
    "--num-layers", 2, "--rank", 4, "--iters", 5, "--steps-per-eval", 3, "--save-every", 2,
    "--warmup", 1, "--learning-rate", 5e-3,
)  # fmt: skip
TINY_EVALUATION = ("--split", "test", "--max-tokens", 6)
TINY_BENCHMARK = (
    "--num-samples", 2, "--prompt-tokens", 8, "--generation-tokens", 3, "--batch-size", 1,
    "--max-tokens", 3, "--warmup", 0, "--runs", 1,
)  # fmt: skip
DATA_FILES = ("train.jsonl", "valid.jsonl", "test.jsonl", "manifest.json")


def contents(folder: Path) -> dict[str, bytes]:
    """{path below the folder: bytes} of all files that are not hidden."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def leftovers(place: Path) -> list[str]:
    """Temporary files and folders below a place."""
    found = [p for p in place.rglob(".*") if p.name != ".lock"] + list(place.glob("tmp*"))
    return sorted(str(p.relative_to(place)) for p in found)


def refusal(action: Callable[[], Any]) -> str | None:
    """The message of the UserError that an action raises, None when it raises none."""
    from gemma_lora.cli import UserError

    try:
        action()
    except UserError as error:
        return str(error)
    return None


def check_tensors(folder: Path) -> None:
    """Every safetensors file that is not a temporary one can be read to its end."""

    for path in folder.rglob("*.safetensors"):
        if not path.name.startswith("."):
            files.load_tensors(path)


@dataclass
class Scene:
    """A script, run in a copy of `start`; `reference` is what it leaves when it is not killed."""

    name: str
    script: str
    flags: Sequence[object]
    start: Path
    reference: Path
    seconds: float = 0.0
    changes: int = 0

    def examine(self, place: Path) -> str:
        """Check what a kill left; returns in a word or two what that was."""
        raise NotImplementedError

    def again(self, place: Path, draw: random.Random) -> Sequence[object]:
        """The flags of the run after the kill."""
        return self.flags

    def check_end(self, place: Path, done: Done) -> None:
        """Check what the run after the kill left."""
        assert done.status == 0, done
        assert contents(place) == contents(self.reference)


class Preparing(Scene):
    """dataset.py: the splits are the earlier ones or the new ones, or are not accepted."""

    def examine(self, place: Path) -> str:

        data = place / "data"
        for path in data.glob("*.jsonl"):
            list(files.read_json_lines(path))
        now = {name: text for name, text in contents(place).items() if "lengths" not in name}
        for state, folder in (("earlier data", self.start), ("new data", self.reference)):
            wanted = {n: t for n, t in contents(folder).items() if "lengths" not in n}
            if wanted and now == wanted:
                assert not splits.edited_files(data)
                return state
        said = refusal(lambda: splits.read_training_data(data, None, 1))
        assert said is not None and "dataset.py" in said, sorted(now)
        return "data refused"


class Training(Scene):
    """train.py: an earlier run is whole, in the folder or beside it, and the new one goes on."""

    def examine(self, place: Path) -> str:

        folder, now = place / "checkpoints", contents(place)
        check_tensors(folder)
        earlier = contents(self.start)
        moved = {n: n.replace("checkpoints/", "checkpoints/previous-1/") for n in earlier}
        for name, text in earlier.items():
            assert text in (now.get(name), now.get(moved[name])), name
        for candidate, state in ((folder, "adapter loads"), (folder / "previous-1", "earlier")):
            if refusal(lambda path=candidate: adapters.load_finetuned(path)) is None:
                return state if state != "earlier" else "earlier adapter loads"
        assert not earlier or any(n in now for n in moved.values())  # killed while it moved them
        return "earlier run being moved" if earlier else "no adapter yet"

    def is_ours(self, folder: Path) -> bool:
        """Whether the folder holds the killed run's own resume state, not an earlier run's."""
        import train

        return (
            checkpoints.saved_settings(folder, train.TrainingConfig).get("seed")
            == train.TrainingConfig.seed
        )

    def again(self, place: Path, draw: random.Random) -> Sequence[object]:
        resume = ["--adapter-path", place / "checkpoints", "--resume"]
        return resume if self.is_ours(place / "checkpoints") and draw.random() < 0.7 else self.flags

    def check_end(self, place: Path, done: Done) -> None:
        from test_training import assert_same_run

        if done.status:
            assert "is at its end" in done.line()
        folder = place / "checkpoints"
        assert_same_run(folder, self.reference / "checkpoints")
        adapters.load_finetuned(folder)
        settled = contents(folder)
        for name, text in contents(self.start / "checkpoints").items():
            assert settled[f"previous-1/{name}"] == text, name


class Resuming(Training):
    """train.py --resume: the state to resume from and the adapter are there at any moment."""

    def examine(self, place: Path) -> str:
        import train

        folder = place / "checkpoints"
        check_tensors(folder)
        adapters.load_finetuned(folder)
        step = checkpoints.read_resume(folder, train.TrainingConfig)[1]["progress"]["step"]
        earlier = self.start / "checkpoints"
        started = checkpoints.read_resume(earlier, train.TrainingConfig)[1]["progress"]["step"]
        assert step >= started
        return "adapter loads"

    def again(self, place: Path, draw: random.Random) -> Sequence[object]:
        return self.flags

    def check_end(self, place: Path, done: Done) -> None:
        from test_training import assert_same_run

        if done.status:
            assert "is at its end" in done.line()
        assert_same_run(place / "checkpoints", self.reference / "checkpoints")


class Reporting(Scene):
    """test_finetuned.py and benchmark.py: a report is of one run, and the adapter untouched."""

    def untouched(self, place: Path) -> dict[str, bytes]:
        """The files below a place that are no reports."""
        ours = ("evaluation", "benchmark", "README")
        return {
            n: t
            for n, t in contents(place).items()
            if not Path(n).name.startswith(ours) and "publish" not in Path(n).parts
        }

    def examine(self, place: Path) -> str:
        assert self.untouched(place) == self.untouched(self.start)
        return self.examine_report(place / "checkpoints")

    def examine_report(self, folder: Path) -> str:
        """Check that the report's files belong together; returns whose they are."""
        raise NotImplementedError

    def check_end(self, place: Path, done: Done) -> None:
        assert done.status == 0, done
        assert contents(place).keys() == contents(self.reference).keys()
        assert self.untouched(place) == self.untouched(self.start)
        assert self.examine_report(place / "checkpoints") == "new report"


class Evaluating(Reporting):
    """test_finetuned.py: evaluation.json can be computed from evaluation_samples.jsonl."""

    def examine_report(self, folder: Path) -> str:

        if not (folder / "evaluation.json").exists():
            return "no report"
        report = json.loads((folder / "evaluation.json").read_text())
        samples = list(files.read_json_lines(folder / "evaluation_samples.jsonl"))
        assert json.loads(json.dumps(figures.summarize(samples))) == report["summary"]
        reference = json.loads((self.reference / "checkpoints" / "evaluation.json").read_text())
        return "new report" if report["run"]["n"] == reference["run"]["n"] else "earlier report"


class Measuring(Reporting):
    """benchmark.py: benchmark.md is the table of benchmark.json."""

    def examine_report(self, folder: Path) -> str:

        if not (folder / "benchmark.json").exists():
            return "no report"
        result = json.loads((folder / "benchmark.json").read_text())
        assert benchmark_report.benchmark_markdown(result) == (folder / "benchmark.md").read_text()
        reference = json.loads((self.reference / "checkpoints" / "benchmark.json").read_text())
        ours = result["settings"]["seed"] == reference["settings"]["seed"]
        return "new report" if ours else "earlier report"


# --- Setting the scenes -------------------------------------------------------------------------


@dataclass
class Stage:
    """A folder with a tiny model and rows, in which scenes are set."""

    base: Path
    launcher: Launcher
    model: Path = field(init=False)
    source: Path = field(init=False)

    def __post_init__(self) -> None:
        from conftest import build_tiny_model, made_up_rows

        self.model = build_tiny_model(self.base / "model")
        self.source = self.base / "made_up.jsonl"
        self.source.write_text("".join(json.dumps(row) + "\n" for row in made_up_rows()))
        (self.base / "earlier").mkdir()
        self.must_run("dataset.py", self.preparing(1), self.base / "earlier")
        (self.base / "nothing").mkdir()

    @property
    def data(self) -> Path:
        """The folder of prepared data."""
        return self.base / "earlier" / "data"

    def preparing(self, seed: int) -> list[object]:
        """Flags of dataset.py."""
        return [
            "--dataset-name", self.source, "--model", self.model, "--workers", 1, "--seed", seed,
            "--valid-fraction", 0.15, "--test-fraction", 0.15,
        ]  # fmt: skip

    def training(self, *more: object) -> list[object]:
        """Flags of train.py."""
        return ["--model", self.model, "--data", self.data, *TINY_RUN, *more]

    def must_run(self, script: str, flags: Sequence[object], place: Path) -> Done:
        """Run a script that must succeed."""
        done = self.launcher.run(script, flags, place)
        assert done.status == 0, done
        return done

    def copy(self, start: Path, name: str) -> Path:
        """A fresh copy of a place."""
        return Path(shutil.copytree(start, self.base / name))

    def scene(
        self, kind: type[Scene], name: str, script: str, flags: Sequence[object], start: Path
    ) -> Scene:
        """A scene with its uncut run done and measured."""
        reference = self.copy(start, f"{name}, uncut")
        done = self.must_run(script, flags, reference)
        assert done.changes
        return kind(name, script, flags, start, reference, done.seconds, done.changes)

    def with_adapter(self) -> Path:
        """A place where a run of train.py has ended; its seed is not the default one."""
        place = self.base / "trained"
        if not place.exists():
            place.mkdir()
            self.must_run("train.py", self.training("--seed", 1), place)
        return place

    def cut_training(self, changes: int) -> Path:
        """A place where a run of train.py was killed after three fifths of its changes."""
        place = self.copy(self.base / "nothing", "cut")
        self.launcher.run("train.py", self.training(), place, die_at=changes * 3 // 5)
        assert (place / "checkpoints" / "resume.safetensors").exists()
        return place

    def with_reports(self) -> Path:
        """A place with an adapter, an evaluation and a benchmark."""
        place = self.base / "reported"
        if place.exists():
            return place
        self.copy(self.with_adapter(), place.name)
        data = ("--data", self.data)
        self.must_run("test_finetuned.py", [*TINY_EVALUATION, *data, "--num-samples", 3], place)
        self.must_run("benchmark.py", [*TINY_BENCHMARK, *data, "--seed", 1], place)
        return place


def make_scenes(stage: Stage) -> Iterator[Scene]:
    """Every script, on nothing and over an earlier result."""
    nothing, reported, data = stage.base / "nothing", stage.with_reports(), ("--data", stage.data)
    yield stage.scene(
        Preparing, "dataset.py over data", "dataset.py", stage.preparing(2),
        stage.copy(stage.base / "earlier", "prepared"),
    )  # fmt: skip
    yield stage.scene(Preparing, "dataset.py", "dataset.py", stage.preparing(2), nothing)
    over = stage.training()
    yield stage.scene(Training, "train.py over a run", "train.py", over, stage.with_adapter())
    fresh = stage.scene(Training, "train.py", "train.py", stage.training(), nothing)
    yield fresh
    cut = stage.cut_training(fresh.changes)
    yield stage.scene(Resuming, "train.py --resume", "train.py", ["--resume"], cut)
    yield stage.scene(
        Evaluating, "test_finetuned.py", "test_finetuned.py",
        [*TINY_EVALUATION, *data, "--num-samples", 4], reported,
    )  # fmt: skip
    yield stage.scene(
        Measuring, "benchmark.py", "benchmark.py", [*TINY_BENCHMARK, *data, "--compare"], reported
    )


# --- The kills ----------------------------------------------------------------------------------


def kill_once_at(
    stage: Stage, scene: Scene, fault: dict[str, Any], draw: random.Random | None = None
) -> str | None:
    """Kill one run, examine, run again, examine; None when it ended before the kill came."""
    draw = draw or random.Random(0)
    place = stage.copy(scene.start, f"kill-{draw.getrandbits(64):016x}")
    try:
        done = stage.launcher.run(scene.script, scene.flags, place, **fault)
        assert done.orphans == 0, "processes it had started live on"
        if done.status == 0:
            return None
        assert done.status == -signal.SIGKILL, done
        state = scene.examine(place)
        again = stage.launcher.run(scene.script, scene.again(place, draw), place)
        scene.check_end(place, again)
        if again.status == 0:  # else it had nothing to do
            assert not leftovers(place), leftovers(place)
    except Exception as error:
        raise AssertionError(f"{scene.name}, {fault}: {error!r}") from error
    finally:
        shutil.rmtree(place)
    return state


def kill_once(stage: Stage, scene: Scene, draw: random.Random) -> str | None:
    """Kill one run at a drawn moment, just before a change of a file or at any time."""
    if draw.random() < 0.5:
        fault = {"die_at": draw.randrange(scene.changes)}
    else:
        fault = {"kill_after": draw.uniform(0.01, scene.seconds)}
    return kill_once_at(stage, scene, fault, draw)


def kill_many(
    stage: Stage, scenes: Sequence[Scene], kills: int, seed: int
) -> Iterator[tuple[str, str, str | None]]:
    """Kill `kills` times, the scenes in turn; yields (scene, what was found, what is wrong)."""
    done = number = 0
    while done < kills:
        scene = scenes[done % len(scenes)]
        draw = random.Random(f"{seed} {number}")
        number += 1
        try:
            state = kill_once(stage, scene, draw)
        except AssertionError as error:
            done += 1
            yield scene.name, "FAILED", str(error)
            continue
        if state is not None:
            done += 1
            yield scene.name, state, None


def show(counts: dict[str, Counter[str]]) -> None:
    """Print a table: a line a scene and state."""
    print(f"{'killed':24} {'found':24} {'times':>5}")
    for name, states in counts.items():
        for state, times in sorted(states.items()):
            print(f"{name:24} {state:24} {times:5}")


def main() -> int:
    """Kill as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="stop then, however many")
    arguments = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    begun, failed = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = Stage(base, stack.enter_context(Launcher()))
        scenes = list(make_scenes(stage))
        for name, state, problem in kill_many(stage, scenes, arguments.kills, arguments.seed):
            counts.setdefault(name, Counter())[state] += 1
            failed += [problem] if problem else []
            if time.monotonic() - begun > arguments.minutes * 60:
                break
    show(counts)
    total = sum(sum(states.values()) for states in counts.values())
    print(json.dumps({
        "kills": total, "seed": arguments.seed, "seconds": round(time.monotonic() - begun),
        "failed": failed, "found": counts,
    }))  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
