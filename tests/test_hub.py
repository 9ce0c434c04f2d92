"""The hub's libraries for real: data set, model and token against a small hub on 127.0.0.1.

Whole runs are the scripts as commands. The many faults of a hub run one after another in one
process (`DRIVER`), which pays for the imports once, with a clock that adds up the libraries'
pauses between two tries in place of waiting for them. Every fault has a repository of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, made_up_rows, run_command, run_script
from hub_server import COMMIT, Fault, Hub

TOKEN, STRANGER, UNKNOWN = (f"hf_{secrets.token_hex(17)}" for _ in range(3))
NOBODY = "http://127.0.0.1:9"  # a port that nothing listens on
FILES = r".*\.(safetensors|parquet)$"
LIMIT = {"Retry-After": "1"}
TRAIN = (
    "--iters", 1, "--batch-size", 2, "--num-layers", 2, "--rank", 2, "--warmup", 1,
    "--steps-per-eval", 1, "--overwrite",
)  # fmt: skip
DRIVER = """
import collections, json, os, pathlib, sys, tempfile, threading, time, traceback

ordinary, slept, found = time.sleep, collections.Counter(), []

def sleep(seconds):
    slept[threading.get_ident()] += seconds
    ordinary(min(seconds, 0.01))

time.sleep = sleep
import dataset, train
from gemma_lora.cli import parse_config, run_script
from gemma_lora.device import prepare_process
from gemma_lora.lengths import find_ruler
from gemma_lora.models import load_base

def rows(given):
    config = parse_config(dataset.DatasetConfig, ["--dataset-name", *given.split()], None)
    found.append(len(list(dataset.open_source(config).rows)))

def ruler(name):
    found.append(find_ruler(name).name)

def load(name):
    prepare_process()
    found.append(str(load_base(name)[2] / "model.safetensors"))

def run(script, name):
    if script == "dataset.py":
        return dataset.main(["--dataset-name", *name.split(), "--output-dir", "unused"])
    if script == "train.py":
        return train.main(["--model", name, "--data", sys.argv[2]])
    action = {"rows": rows, "load": load, "ruler": ruler}[script]
    return run_script(lambda: action(name))

def captured(script, name):
    slept.clear()
    found.clear()
    with tempfile.TemporaryFile("w+") as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            status = run(script, name)
        except BaseException:
            status = traceback.print_exc()
        sys.stderr.flush()
        os.dup2(kept, 2)
        said.seek(0)
        said = {"status": status, "stderr": said.read(), "found": [*found]}
    return said | {"waited": max(slept.values(), default=0)}

for script, name, token in json.load(open(sys.argv[1])):
    os.environ["HF_TOKEN"] = token or ""
    result = captured(script, name)
    cache = pathlib.Path(os.environ["HF_HOME"], "hub").glob(f"*--{name.replace('/', '--')}")
    left = [path for folder in cache for path in folder.rglob("*") if path.is_file()]
    result["left"] = [str(path) for path in left]
    print("\\n" + json.dumps(result), flush=True)
"""


class Case(NamedTuple):
    """One way in which a hub can fail, and a piece of the line that says so."""

    says: str
    token: str | None = TOKEN
    fault: dict[str, Any] | None = None
    served: bool = True
    again: bool = False  # a second run finds the hub well


FAILURES = {
    "unknown": Case("was not found on the hub", served=False),
    "gated-anonymous": Case("is gated: log in", None),
    "gated-stranger": Case("is gated: log in", STRANGER),
    "bad-token": Case("the hub refused the token", UNKNOWN),
    "limited": Case("the hub is limiting requests", fault={"status": 429, "headers": LIMIT}),
    "limited-file": Case(
        "the hub is limiting requests",
        fault={"where": f"GET {FILES}", "status": 429, "headers": LIMIT},
    ),
    "failing": Case("the hub failed (500)", fault={"status": 500}),
    "failing-file": Case(
        "the hub failed (500)",
        fault={"where": f"GET {FILES}", "status": 500, "times": 1},
        again=True,
    ),
    "cut": Case(
        "broke off: try again",
        fault={"where": f"GET {FILES}", "cut_at": 1000, "times": 6},
        again=True,
    ),
    "wrong-length": Case(
        "broke off: try again",
        fault={"where": f"HEAD {FILES}", "length_off": 100, "times": 1},
        again=True,
    ),
    "storage-gone": Case(
        "cannot be reached",
        fault={"where": f"GET {FILES}", "status": 302, "headers": {"Location": NOBODY}},
    ),
    "file-gone": Case(
        "lists 'tiny/", fault={"where": r"/resolve/.*\.(safetensors|parquet)$", "status": 404}
    ),
    "silent-listing": Case("cannot be reached", fault={"where": "/tree/", "delay_sec": 20}),
    # The last one: after it dataset.py asks the hub no more in the same process.
    "silent": Case("cannot be reached", fault={"where": "/api/", "delay_sec": 20}),
}
# What ends well: (fault, seconds that may pass in pauses).
SURVIVED: dict[str, tuple[dict[str, Any], float]] = {
    "slow": ({"delay_sec": 0.2}, 0),
    "limited-once": ({"where": f"GET {FILES}", "status": 429, "headers": LIMIT, "times": 1}, 2),
    "listing-limited-once": ({"where": "/tree/", "status": 429, "headers": LIMIT, "times": 1}, 2),
    "failing-once": ({"where": "/tree/", "status": 500, "times": 1}, 1),
    "head-failing-once": ({"where": f"HEAD {FILES}", "status": 500, "times": 1}, 5),
    "cut-once": ({"where": f"GET {FILES}", "cut_at": 1000, "times": 1}, 1),
    "listed-too-long": ({"where": "/tree/", "length_off": 100}, 0),
}
SCRIPTS = {"train.py": ("models", "load"), "dataset.py": ("datasets", "rows")}


@pytest.fixture(scope="module", autouse=True)
def no_token_of_ours() -> Iterator[None]:
    """The token of who runs the tests stays out of it."""
    names = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    yield
    os.environ.update(before)


@pytest.fixture(scope="module")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set repository: the made-up rows as parquet, and a card."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("served") / "rows"
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(made_up_rows())
    parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nMade-up rows.\n")
    return folder


def settings(hub: str, home: Path, **more: str) -> dict[str, str]:
    """The environment that sends the hub's libraries to `hub` with an empty cache in `home`."""
    return {
        "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "GEMMA_LORA_CACHE": str(home / "models"), "HF_HUB_ETAG_TIMEOUT": "2",
        "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1,localhost",
    } | more  # fmt: skip


def drive(
    runs: list[tuple[str, str, str | None]], folder: Path, data: Path, env: dict[str, str]
) -> list[dict[str, Any]]:
    """Run (script or action, repository, token) one after another: what became of each."""
    folder.mkdir(exist_ok=True)
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, "-c", DRIVER, str(folder / "runs.json"), str(data)]
    done = run_command(command, env, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"status"')]


# --- From the hub to an evaluation --------------------------------------------------------------


class Journey(NamedTuple):
    """A working folder after dataset.py, train.py and test_finetuned.py, all from the hub."""

    folder: Path
    home: Path
    requests: list[Any]
    said: list[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def journey(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_folder: Path
) -> Journey:
    """Gated model and data set; the token only in a .env made from .env.example."""
    folder = tmp_path_factory.mktemp("journey")
    home = tmp_path_factory.mktemp("home")
    example = (ROOT / ".env.example").read_text()
    name = "HUGGINGFACE_HUB_TOKEN="
    (folder / ".env").write_text(example.replace(f"\n{name}\n", f"\n{name}{TOKEN}\n"))
    repositories = ({"tiny/gemma": tiny_model}, {"tiny/sql": rows_folder})
    with Hub(*repositories, gated={"tiny/gemma", "tiny/sql"}, token=TOKEN) as hub:
        how: dict[str, Any] = {"cwd": folder, "env": settings(hub.url, home)}
        said = [
            run_script("dataset.py", "--dataset-name", "tiny/sql", "--model", "tiny/gemma",
                       "--workers", 1, **how),
            run_script("train.py", "--model", "tiny/gemma", *TRAIN, **how),
            run_script("test_finetuned.py", "--split", "test", "--num-samples", 1,
                       "--max-tokens", 4, **how),
        ]  # fmt: skip
        return Journey(folder, home, hub.requests, said)


def test_from_the_hub_to_an_evaluation(journey: Journey, tiny_model: Path) -> None:
    for done in journey.said:
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert journey.said[0].stderr == "loading tiny/sql from the hub ...\n"
    assert journey.said[1].stderr == "loading tiny/gemma from the hub ...\n"
    manifest = json.loads((journey.folder / "data" / "manifest.json").read_text())
    origin = {"name": "tiny/sql", "revision": COMMIT, "licence": "apache-2.0"}
    assert manifest["source"] == origin
    assert manifest["counts"]["rows"]["read"] == len(made_up_rows())
    assert "tokenizer of tiny/gemma" in journey.said[0].stdout
    (weights,) = journey.home.rglob("snapshots/*/model.safetensors")
    assert weights.read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    evaluation = json.loads((journey.folder / "checkpoints" / "evaluation.json").read_text())
    assert evaluation["run"]["split"] == "test"


def test_the_token_is_sent_and_never_written(journey: Journey) -> None:
    files = [r for r in journey.requests if "/resolve/" in r.line]
    assert len(files) > 10
    assert {r.token for r in files} == {TOKEN}
    said = "".join(done.stdout + done.stderr for done in journey.said)
    assert TOKEN[3:] not in said
    written = [
        path
        for folder in (journey.folder, journey.home)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".env"
    ]
    assert {"manifest.json", "adapter_config.json", "evaluation.json"} <= {p.name for p in written}
    assert [p for p in written if TOKEN[3:].encode() in p.read_bytes()] == []


@pytest.mark.parametrize("away", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOBODY}])
def test_a_second_run_needs_no_hub(
    away: dict[str, str], journey: Journey, tmp_path: Path, tiny_model: Path
) -> None:
    env = settings(NOBODY, journey.home) | away
    runs = [("rows", "tiny/sql", None), ("load", "tiny/gemma", None)]
    rows, model = drive(runs, tmp_path / "run", journey.folder / "data", env)
    assert (rows["status"], model["status"]) == (0, 0), (rows["stderr"], model["stderr"])
    assert rows["found"] == [len(made_up_rows())]
    served = tiny_model / "model.safetensors"
    assert Path(model["found"][0]).read_bytes() == served.read_bytes()
    assert rows["waited"] < 5 and model["waited"] == 0
    assert "error" not in rows["stderr"] and not model["stderr"]


# --- A hub that fails ---------------------------------------------------------------------------


def named(script: str, case: str) -> str:
    return f"tiny/{Path(script).stem}-{case}"


@pytest.fixture(scope="module")
def failures(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path, rows_folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """What each script said of each failure, and of a second try: {repository: results}."""
    served = {"models": tiny_model, "datasets": rows_folder}
    repositories: dict[str, dict[str, Path]] = {"models": {}, "datasets": {}}
    runs, faults, gated = [], [], []
    for script, (kind, action) in SCRIPTS.items():
        for label, case in FAILURES.items():
            name = named(script, label)
            if case.served:
                repositories[kind][name] = served[kind]
            if label.startswith("gated"):
                gated.append(name)
            if case.fault:
                faults.append(Fault(name, **case.fault))
            runs.append((script, name, case.token))
            if case.again:
                runs.append((action, name, case.token))
    home = tmp_path_factory.mktemp("home")
    with Hub(**repositories, gated=gated, token=TOKEN, stranger=STRANGER) as hub:
        hub.faults = faults
        results = drive(runs, home / "run", tiny_data, settings(hub.url, home))
    assert len(results) == len(runs)
    told: dict[str, list[dict[str, Any]]] = {}
    for (_, name, _), result in zip(runs, results, strict=True):
        told.setdefault(name, []).append(result)
    return told


@pytest.mark.parametrize("label", FAILURES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_failing_hub_is_told_in_one_line(
    script: str, label: str, failures: dict[str, list[dict[str, Any]]]
) -> None:
    name, case = named(script, label), FAILURES[label]
    first, *second = failures[name]
    assert first["status"] == 1, first["stderr"]
    lines = [x for x in first["stderr"].splitlines() if not x.startswith("Rate limited. Waiting")]
    assert lines[0] == f"loading {name} from the hub ..."
    assert len(lines) == 2, first["stderr"]
    assert "error: " in lines[1] and case.says in lines[1] and name in lines[1]
    assert not any(token[3:] in first["stderr"] for token in (TOKEN, STRANGER, UNKNOWN))
    assert first["waited"] <= 25  # the hub library's six tries of a failing request
    if case.fault and FILES in case.fault.get("where", ""):
        assert not [p for p in first["left"] if p.endswith((".safetensors", ".incomplete"))]
    if case.again:
        assert [result["status"] for result in second] == [0], second[0]["stderr"]


def test_after_a_broken_download_the_weights_are_whole(
    failures: dict[str, list[dict[str, Any]]], tiny_model: Path
) -> None:
    for label, case in FAILURES.items():
        if case.again:
            _, second = failures[named("train.py", label)]
            served = tiny_model / "model.safetensors"
            assert Path(second["found"][0]).read_bytes() == served.read_bytes(), label


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_hub_gets_over(
    script: str, tmp_path: Path, tiny_model: Path, tiny_data: Path, rows_folder: Path
) -> None:
    """Passing faults; and weights kept by another host, which must not see the token."""
    kind, action = SCRIPTS[script]
    folder = {"models": tiny_model, "datasets": rows_folder}[kind]
    names = {label: named(script, label) for label in (*SURVIVED, "moved")}
    repositories: dict[str, dict[str, Path]] = {"models": {}, "datasets": {}}
    repositories[kind] = dict.fromkeys(names.values(), folder)
    file = next(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".parquet"})
    with Hub(**repositories, token=TOKEN) as storage, Hub(**repositories, token=TOKEN) as hub:
        path = f"{'datasets/' if kind == 'datasets' else ''}{names['moved']}/resolve/main/"
        location = f"http://localhost:{storage.server_port}/{path}{file.relative_to(folder)}"
        headers = {
            "Location": location, "X-Linked-Size": str(file.stat().st_size),
            "X-Linked-Etag": '"kept-elsewhere"',
        }  # fmt: skip
        hub.faults = [Fault(names[label], **fault) for label, (fault, _) in SURVIVED.items()]
        hub.faults.append(Fault(names["moved"], FILES, status=302, headers=headers))
        env = settings(hub.url, tmp_path / "home")
        runs = [(action, name, TOKEN) for name in names.values()]
        results = dict(zip(names, drive(runs, tmp_path / "run", tiny_data, env), strict=True))
    for label, result in results.items():
        assert result["status"] == 0, (label, result["stderr"])
        assert result["waited"] <= SURVIVED.get(label, ({}, 0))[1], (label, result["waited"])
        used = [fault.times for fault in hub.faults if fault.repository == names[label]]
        assert used in ([], [0]) or used[0] > 1, (label, used)
        if kind == "models":
            assert Path(result["found"][0]).read_bytes() == file.read_bytes(), label
        else:
            assert result["found"] == [len(made_up_rows())], label
    elsewhere = storage.asked("/resolve/")
    assert elsewhere and {request.token for request in elsewhere} == {None}
    assert {request.token for request in hub.asked("/resolve/")} == {TOKEN}


# --- Configurations, splits, revisions ----------------------------------------------------------


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, dict[str, Any]]:
    """What dataset.py said of sets that want a choice: {flags: result}."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("choices")
    table = pyarrow.Table.from_pylist(made_up_rows())
    for path, count in (("many/easy/train-0", 30), ("many/hard/train-0", 40),
                        ("late/data/test-00000-of-00001", 50),
                        ("late/data/validation-00000-of-00001", 60)):  # fmt: skip
        file = folder / f"{path}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table.slice(0, count), file)
    configs = "".join(
        f"- config_name: {name}\n  data_files: {name}/train-*\n" for name in ("easy", "hard")
    )
    (folder / "many" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    sets = {"tiny/many": folder / "many", "tiny/late": folder / "late"}
    runs = [("dataset.py", given, None) for given in CHOOSING] + [
        ("rows", given, None) for given in CHOSEN
    ]
    with Hub({}, sets) as hub:
        env = settings(hub.url, folder / "home")
        results = drive(runs, folder / "run", tiny_data, env)
    return dict(zip((given for _, given, _ in runs), results, strict=True))


CHOOSING = {
    "tiny/many": "has more than one configuration: say which with --config: easy, hard",
    "tiny/many --config odd": "has no configuration 'odd': say which with --config: easy, hard",
    "tiny/late": "has no split 'train': say which with --split: ",
    "tiny/late --split dev": "has no split 'dev': say which with --split: ",
    "tiny/late --revision v9": "has no revision 'v9': give --revision a branch",
}
CHOSEN = {
    "tiny/many --config hard": 40,
    "tiny/late --split test": 50,
    "tiny/late --split validation": 60,
    "tiny/late --split validation --revision main": 60,
}


@pytest.mark.parametrize("given", CHOOSING)
def test_choices_are_listed(given: str, choices: dict[str, dict[str, Any]]) -> None:
    result = choices[given]
    assert result["status"] == 1
    (line,) = [x for x in result["stderr"].splitlines() if not x.startswith("loading ")]
    assert "error: " in line and CHOOSING[given] in line
    assert (
        "late" not in given
        or "revision" in given
        or {"test", "validation"} <= set(line.rpartition(": ")[2].split(", "))
    )


@pytest.mark.parametrize("given", CHOSEN)
def test_choices_are_taken(given: str, choices: dict[str, dict[str, Any]]) -> None:
    result = choices[given]
    assert (result["status"], result["found"]) == (0, [CHOSEN[given]]), result["stderr"]


# --- The tokenizer that measures lengths --------------------------------------------------------


def test_a_tokenizer_that_can_be_fetched_is_fetched(
    tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    """On an open mirror without any token; of a gated model when `hf auth login` left a token."""
    models = dict.fromkeys(("tiny/open", "tiny/gated"), tiny_model)
    exact = "tokenizer of tiny/"
    with Hub(models, {}, gated={"tiny/gated"}, token=TOKEN) as hub:
        env = settings(hub.url, tmp_path / "home")
        runs = [("ruler", "tiny/open", None), ("ruler", "tiny/gated", None),
                ("ruler", "tiny/none", None)]  # fmt: skip
        results = drive(runs, tmp_path / "run", tiny_data, env)
        assert [r["found"] for r in results] == [
            [f"{exact}open"], ["estimate from characters"], ["estimate from characters"]
        ]  # fmt: skip
        (tmp_path / "home" / "token").write_text(TOKEN)  # where `hf auth login` puts it
        (after,) = drive([("ruler", "tiny/gated", None)], tmp_path / "run", tiny_data, env)
        assert after["found"] == [f"{exact}gated"], after["stderr"]
    away = settings(NOBODY, tmp_path / "home")
    runs = [("ruler", "tiny/gated", None), ("ruler", "tiny/never", None)]
    kept, never = drive(runs, tmp_path / "run", tiny_data, away)
    assert kept["found"] == [f"{exact}gated"] and never["found"] == ["estimate from characters"]
    assert never["waited"] < 1  # not the 20 s of a download that is tried again
    assert not kept["stderr"] and not never["stderr"]
