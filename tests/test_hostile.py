"""Hostile input of every kind ends in success or in one clear line, in time, leaving no trace.

SQL from hostile_sql.py, adapters, base models, data files and GGUFs as an enemy would make them.
tests/soak_hostile.py does more of the same for longer.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import hostile_sql as hostile
import pytest
import soak_hostile as soak
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
import train
from gemma_lora import (
    adapters,
    cli,
    files,
    gguf_models,
    models,
    neighbours,
    prompts,
    replies,
    sandbox,
    sources,
    splits,
    sql_text,
    tables,
)
from gemma_lora.chat import use_schema
from gemma_lora.cli import UserError
from gemma_lora.database import DatabaseFile

posix_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
DEEP = '{"a":' * 100_000


def failure(capsys: Any, action: Callable[[], Any], status: int = 1) -> str:
    """Run a script's action that must fail; returns the one line it says, "loading" lines aside."""
    capsys.readouterr()
    assert cli.run_script(action) == status
    said = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("loading ")]
    assert len(said) == 1 and ": error: " in said[0], said
    return said[0]


# --- SQL ----------------------------------------------------------------------------------------

# Those that go on until the clock stops them: the soak runs them all, here one in four.
SLOW = ("time", "growing", "memory", "wide or long", "trigger")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the canary and a user's database, and must go on to hold just these."""
    folder = tmp_path_factory.mktemp("watched")
    hostile.lay_bait(folder)
    return folder


def test_there_are_many_attacks_of_many_kinds() -> None:
    found, kinds = hostile.attacks(), hostile.kinds()
    assert len(found) == len(set(found)) >= 800 and len(kinds) >= 30


@pytest.mark.parametrize("as_context", [False, True])
def test_attacks_leave_no_trace(
    watched: Path, as_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As statements and as contexts: in time, in bounds, no file changed, no secret read."""
    before, found = hostile.files_in(watched), soak.Watch()
    monkeypatch.chdir(watched)
    monkeypatch.setattr(soak, "TIMEOUT_SEC", 0.1)
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, str(watched))
    attacks = [a for i, a in enumerate(hostile.attacks()) if a.kind not in SLOW or i % 4 == 0]
    soak.strike_all(attacks, found, False, as_context)
    assert not found.problems
    assert hostile.files_in(watched) == before
    assert found.peak_bytes < soak.MEMORY_BYTES
    outcomes = {kind: tally.outcomes for kind, tally in found.tallies.items()}
    role = "context: " if as_context else ""
    for kind in ("attach", "vacuum", "virtual table"):
        assert set(outcomes[role + kind]) == {"refused"}, kind
    for kind in ("pragma", "schema write", "call in select", "call in generated"):
        assert "ran" not in outcomes[role + kind], kind


def test_a_leak_would_be_seen(watched: Path) -> None:
    with sandbox.SqlWorker() as worker:
        found = soak.Watch()
        soak.strike(worker, found, "leak", "", f"SELECT '{hostile.SECRET}'")
    assert found.problems == [f"leak: read the secret: \"SELECT '{hostile.SECRET}'\""]


def test_sql_is_read_in_linear_time() -> None:
    """Each took minutes to hours when reading was quadratic."""
    start = time.monotonic()
    assert sql_text.uses_clock("SELECT 1 WHERE 'now' " + "(" * 100_000 + "'now'," * 50_000) is False
    assert sql_text.uses_clock("SELECT date(" + "(" * 1000 + "'now'")
    assert not sql_text.uses_clock("SELECT date(a), 'now'")
    assert len(sql_text.split_statements("'\"/*;" * 100_000)) == 1
    assert sql_text.split_statements("SELECT 1 /* never closed; SELECT 2") == ["SELECT 1"]
    assert time.monotonic() - start < 10


def test_the_deadline_covers_reading_the_statement() -> None:
    with sandbox.SqlWorker() as worker:
        result = worker.run(None, "WITH " + "(" * 900_000, 0.01)
    assert result.status == "timeout"


ODD_SQL = [
    "SELECT SELECT 1\x00; x", "-> 1 CREATE / BEGIN -1 EXPLAIN BEFORE", "INSERT \ud800; x",
    "ANALYZE NOTHING ON ESCAPE DEFAULT VIRTUAL EXCEPT LIMIT random quote", "CREATE TABLE",
    "SELECT " + "(" * 5000, "SELECT " + "CASE WHEN 1 THEN " * 5000, "SELECT 1" + " + 1" * 5000,
    *(soak.soup(random.Random(seed)) for seed in range(300)),
]  # fmt: skip


def test_a_models_answer_is_read_without_a_traceback_or_noise(capfd: Any) -> None:
    pytest.importorskip("sqlglot")
    for sql in ODD_SQL:
        sql_text.parse_sql(sql)
        sql_text.normal_sql(sql)
        sql_text.order_columns(f"{sql} ORDER BY 1", ["a"])
        tables.declared_tables(sql)
        if (tree := neighbours.gold_tree(sql)) is not None:
            neighbours.neighbours(tree, {"t": ["a", "b"]})
        assert isinstance(replies.extract_sql(sql), str)
    assert capfd.readouterr().err == ""


ATTACKS = [attack.sql for attack in hostile.attacks() if len(attack.sql) < 2000]
MADE_UP = st.one_of(
    st.randoms(use_true_random=False).map(soak.soup),
    st.randoms(use_true_random=False).map(lambda draw: soak.mutated(draw, ATTACKS)),
)


@pytest.fixture(scope="module")
def worker() -> Any:
    with sandbox.SqlWorker() as made:
        yield made


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(MADE_UP, MADE_UP), min_size=1, max_size=30))
def test_what_chance_makes_of_sql(
    worker: sandbox.SqlWorker, watched: Path, pairs: list[tuple[str, str]]
) -> None:
    with chdir(watched):
        results = list(worker.run_many(sandbox.SqlJob(*pair, 0.1) for pair in pairs))
    assert len(results) == len(pairs) and not any(map(soak.leaks, results))
    assert all((r.error is None) == (r.status == "ok") for r in results)
    assert {path.name for path in watched.iterdir()} == {hostile.CANARY, hostile.VICTIM}


# --- Adapters -----------------------------------------------------------------------------------

LORA: dict[str, Any] = {
    "rank": ("4", 0, -1, 2**70, 4.0, None, [4], True),
    "scale": ("x", float("nan"), float("inf"), None, -1),
    "dropout": (2, "x", float("nan"), None),
    "keys": ("self_attn.q_proj", [["a"]], 5, ["../x"], ["__class__"]),
}
TOP: dict[str, Any] = {
    "lora_parameters": ([], "x", None),
    "num_layers": (0, -5, True, 10**12, "2", 99),
    "total_layers": ("x", None, 10**12, -1),
    "quantize": ("4", 3.5, -1, 1000, {"a": 1}),
    "fine_tune_type": (["lora"], "../lora", None, 3),
    "model": ("../../../../etc", "/etc/passwd", "a\0b", "x" * 5000, "", 5, None),
    "versions": (5,),
    "best_val_loss": ("x",),
}
TEXTS = {
    "deep": DEEP.encode(), "list": b"[]", "text": b'"x"', "null": b"null", "nan": b"NaN",
    "latin": "é".encode("latin1"), "utf16": "{}".encode("utf-16"), "empty": b"",
    "nul": b"\0" * 99, "digits": b'{"num_layers":' + b"9" * 5000 + b"}",
}  # fmt: skip


def changed_configs(config: dict[str, Any]) -> dict[str, bytes]:
    """{what was done: adapter_config.json with one wrong value}, and files of other kinds."""
    found = dict(TEXTS)
    for group, lora in ((LORA, True), (TOP, False)):
        for key, values in group.items():
            for value in values:
                made = copy.deepcopy(config)
                (made["lora_parameters"] if lora else made)[key] = value
                found[f"{key}: {str(value)[:20]}"] = json.dumps(made).encode()
    return found


def test_a_hostile_adapter_config_is_one_line(
    adapter_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    path = adapter_copy / "adapter_config.json"
    for what, content in changed_configs(json.loads(path.read_text())).items():
        path.write_bytes(content)
        failure(capsys, lambda: adapters.load_finetuned(adapter_copy))
        if not what.startswith("model: "):  # only named in an export
            with pytest.raises(UserError):
                if what != "num_layers: 99":
                    adapters.export_peft(adapter_copy, tmp_path / "peft")
                else:
                    adapters.load_finetuned(adapter_copy)


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def tensor_files(whole: bytes, trap: Path) -> dict[str, bytes]:
    """Files with the name of a safetensors file that are pickles, cut, or lie."""
    (size,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    name = next(key for key in header if key != "__metadata__")

    def lying(**changes: Any) -> bytes:
        text = json.dumps(header | {name: header[name] | changes}).encode()
        return struct.pack("<Q", len(text)) + text + body

    def headed(text: bytes, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(text) if length is None else length) + text

    return {
        "pickle": pickle.dumps(Trap(trap)), "old pickle": pickle.dumps(Trap(trap), 0),
        "zip": b"PK\3\4" + b"\0" * 99, "empty": b"", "zeros": b"\0" * 8, "half": whole[:-90],
        "cut header": whole[:50], "length 2^63": headed(whole[8:], 2**63),
        "length 2^40": headed(whole[8:], 2**40), "length 2^64-1": headed(whole[8:], 2**64 - 1),
        "length 90M": headed(whole[8:], 90_000_000), "list": headed(b"[]"), "text": headed(b"hi"),
        "beyond": lying(data_offsets=[0, 10**12]), "below": lying(data_offsets=[-5, 10]),
        "words": lying(data_offsets=["a", "b"]), "swapped": lying(data_offsets=[100, 0]),
        "few": lying(data_offsets=[0, 4]), "huge": lying(shape=[10**9, 10**9]),
        "negative": lying(shape=[-1, 4]), "shape": lying(shape="x"), "dtype": lying(dtype="F999"),
        "number": lying(dtype=5),
    }  # fmt: skip


def in_the_way(path: Path) -> list[Callable[[], Any]]:
    """A folder, a link to itself and a pipe where a file should be."""
    made: list[Callable[[], Any]] = [path.mkdir, lambda: path.symlink_to(path)]
    return made + [lambda: os.mkfifo(path)] if hasattr(os, "mkfifo") else made


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_hostile_weights_are_one_line_and_never_unpickled(
    adapter_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    path, trap = adapter_copy / "adapters.safetensors", tmp_path / "sprung"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in tensor_files(path.read_bytes(), trap).values():
        path.write_bytes(content)
        failure(capsys, lambda: adapters.load_finetuned(adapter_copy))
    for block in in_the_way(path):
        remove(path)
        block()
        failure(capsys, lambda: adapters.load_finetuned(adapter_copy))
        failure(capsys, lambda: adapters.export_peft(adapter_copy, tmp_path / "peft"))
    assert not trap.exists() and not (tmp_path / "peft").exists()
    unit = 1 if sys.platform == "darwin" else 1024
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit
    assert grown < 1e9, "memory was taken on the word of a header"


def resume_files(path: Path) -> dict[str, bytes]:
    """resume.safetensors with one wrong value in what it says about the run."""
    import mlx.core as mx

    tensors, metadata = files.load_tensors(path)
    run = json.loads(metadata["run"])
    changes: list[dict[str, Any]] = [
        {"config": 5}, {"config": {**run["config"], "iters": "x"}}, {"progress": []},
        {"config": {**run["config"], "data": 5}}, {"progress": {"step": "x"}},
        {"progress": {"nope": 1}}, {"progress": {"step": -3}},
    ]  # fmt: skip
    texts = [json.dumps(run | change) for change in changes] + ["[]", "x", DEEP]
    found = {}
    odd = path.with_name("odd.safetensors")
    for text in texts:
        mx.save_safetensors(str(odd), tensors, {"run": text})
        found[text[-60:]] = odd.read_bytes()
    name = next(n for n in tensors if n.startswith("model."))
    for changed in (tensors[name][:1], mx.zeros((2, 3))):
        mx.save_safetensors(str(odd), tensors | {name: changed}, metadata)
        found[f"shape {changed.shape}"] = odd.read_bytes()
    state = next(n for n in tensors if n.startswith("optimizer.") and tensors[n].ndim == 2)
    mx.save_safetensors(str(odd), tensors | {state: mx.zeros((2, 3))}, metadata)
    found["optimizer's shape"] = odd.read_bytes()
    odd.unlink()
    return found


def test_a_hostile_checkpoint_is_one_line(adapter_copy: Path, tmp_path: Path, capsys: Any) -> None:
    path = adapter_copy / "resume.safetensors"
    whole, trap = path.read_bytes(), tmp_path / "sprung"
    flags = ["--adapter-path", str(adapter_copy), "--resume", "--iters", "12"]
    cases = resume_files(path) | tensor_files(whole, trap)
    for what, content in cases.items():
        path.write_bytes(content)
        capsys.readouterr()
        assert train.main(flags) == 1, what
        assert len(capsys.readouterr().err.strip().splitlines()) == 1, what
    assert not trap.exists()


# --- Base models --------------------------------------------------------------------------------

REMOTE = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}


@pytest.mark.parametrize("place", ["config model_file", "config auto_map", "tokenizer auto_map"])
def test_code_in_a_model_folder_is_never_run(
    place: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when stdin says yes to whoever asks."""
    import io
    import shutil

    folder, trap = Path(shutil.copytree(tiny_model, tmp_path / "model")), tmp_path / "sprung"
    (folder / "evil.py").write_text(
        f"open({str(trap)!r}, 'w')\nclass T: pass\nModel = Config = T\n"
    )
    name, key = place.split()
    file = folder / ("config.json" if name == "config" else "tokenizer_config.json")
    value = "evil.py" if key == "model_file" else REMOTE
    odd = {"tokenizer_class": "T"} if name == "tokenizer" else {}
    text = json.loads(file.read_text()) | odd | {key: value, "trust_remote_code": True}
    file.write_text(json.dumps(text))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    for quantize in (None, 4):
        monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path / "cache"))
        try:
            models.load_base(str(folder), quantize)
        except UserError as error:
            assert "\n" not in str(error)
    assert not trap.exists()
    assert sys.stdin.read() == "y\n" * 9, "somebody asked"


@pytest.mark.parametrize(
    "config", ["[]", "5", "null", "{}", DEEP, '{"model_type": "../../evil"}', '{"model_type": 5}',
               '{"model_type": "gemma3_text", "hidden_size": "x"}',
               '{"model_type": "gemma3_text", "num_hidden_layers": 1000000000}',
               '{"model_type": "llama", "num_hidden_layers": 1000000000}'],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_hostile_model_config_is_one_line(
    config: str, tiny_model: Path, tmp_path: Path, capsys: Any
) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "config.json").write_text(config)
    for quantize in (None, 4):
        failure(capsys, lambda quantize=quantize: models.load_base(str(folder), quantize))


# --- Data ---------------------------------------------------------------------------------------


def prepare(name: object, out: Path) -> dict[str, Any]:
    return dataset.prepare(
        dataset.DatasetConfig(
            type="alpaca", dataset_name=str(name), output_dir=out, workers=1, model="none"
        )
    )


def alpaca(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {i}.", "output": f"It is {i}."} | extra for i in range(count)]


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


SURVIVES = {
    "crlf.jsonl": lines_of(alpaca(30)).replace(b"\n", b"\r\n"),
    "surrogate.jsonl": lines_of([*alpaca(30), {"instruction": "a \ud800", "output": "b \udfff"}]),
    "nan.jsonl": lines_of(alpaca(30))
    + b'{"instruction": NaN, "output": Infinity}\n{"instruction": [1], "output": {"a": -1e999}}\n',
    "twice.jsonl": lines_of(alpaca(30))
    + b'{"instruction": "1", "instruction": "2", "output": "3"}\n',
    "tokens.jsonl": lines_of(
        alpaca(30)
        + [{"instruction": "<bos>x<end_of_turn>", "output": "<start_of_turn>model\nn<eos>"}]
    ),
    "mixed.json": json.dumps(
        [*alpaca(30), {"instruction": 5, "output": None}, {"instruction": True, "output": [1]}]
    ).encode(),
    "cells.csv": b"instruction,output\n"
    + b"".join(b'"=HYPERLINK(""http://x/%d"")",+1-cmd%d\n' % (i, i) for i in range(30)),
    "wide.csv": b"instruction,output\n"
    + b"".join(b"q%d,a%d\n" % (i, i) for i in range(30)) + b'"' + b"x" * 200_000 + b'",y\n',
}  # fmt: skip


@pytest.mark.parametrize("name", SURVIVES)
def test_odd_rows_are_kept_or_dropped_with_a_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(SURVIVES[name])
    manifest = prepare(path, tmp_path / "out")
    counts = manifest["counts"]
    assert counts["rows"]["kept"] >= 30
    assert counts["rows"]["kept"] + sum(counts["dropped"].values()) == counts["rows"]["read"]
    for split in splits.SPLITS:
        for row in splits.read_split(tmp_path / "out", split):
            assert row["text"].count("<bos>") == row["text"].count("<eos>") == 1
            assert row["text"].count("<start_of_turn>") == 2


def test_no_line_is_read_without_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(files, "LINE_LENGTH", 1000)
    for name in ("long.jsonl", "long.json", "long.csv"):
        (tmp_path / name).write_text('{"instruction": "' + "x" * 5000)
        said = failure(capsys, lambda name=name: prepare(tmp_path / name, tmp_path / "out"))
        assert "has a line of 1,000 or more characters" in said
    (tmp_path / "fits.jsonl").write_bytes(lines_of(alpaca(30, note="x" * 800)))
    assert prepare(tmp_path / "fits.jsonl", tmp_path / "out")["counts"]["rows"]["kept"] == 30


def test_no_list_is_read_without_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sources, "LIST_BYTES", 1000)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(alpaca(30)))
    said = failure(capsys, lambda: prepare(path, tmp_path / "out"))
    assert f"is one list of {path.stat().st_size:,} bytes, more than 1,000" in said


def test_a_parquet_file_cut_anywhere_is_one_line(tmp_path: Path, capsys: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(alpaca(30)), path)
    whole = path.read_bytes()
    for size in (0, 4, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        failure(capsys, lambda: prepare(path, tmp_path / "out"))
    damaged = bytearray(whole)
    draw = random.Random(0)
    for _ in range(10):
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            prepare(path, tmp_path / "out")
        except UserError as error:
            assert len(str(error)) < 2000


@posix_pipes
def test_what_is_no_file_is_not_read(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for name in ("folder.jsonl", "pipe.jsonl", "zero.jsonl", "loop.jsonl"):
        failure(capsys, lambda name=name: prepare(tmp_path / name, tmp_path / "out"))
    failure(capsys, lambda: prepare("/dev/zero", tmp_path / "out"))
    failure(capsys, lambda: prepare("/" + "x" * 5000, tmp_path / "out"))
    nobody: Any = None
    for name in ("pipe.jsonl", "zero.jsonl"):
        path = tmp_path / name
        failure(capsys, lambda path=path: DatabaseFile(path).relations())
        failure(capsys, lambda path=path: use_schema(nobody, str(path)))


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"rows\xff.jsonl")
    path.write_bytes(lines_of(alpaca(30)))
    assert prepare(path, tmp_path / "out")["source"]["name"] == "rows?.jsonl"


@pytest.mark.parametrize(
    "manifest", [b"[]", b"5", DEEP.encode(), b"\xff", b'{"files": 5}', b'{"files": {"a": 3}}',
                 b'{"files": {"../../etc/passwd": {"sha256": 5}}}'],
    ids=lambda text: repr(text[:30]),
)  # fmt: skip
def test_a_hostile_manifest_is_one_line(manifest: bytes, data_copy: Path, capsys: Any) -> None:
    (data_copy / "manifest.json").write_bytes(manifest)
    failure(capsys, lambda: splits.edited_files(data_copy))


@pytest.mark.parametrize(
    "change", [{"prompt": "a \ud800"}, {"prompt": "a \0"}, {"type": 5}, {"type": ["sql"]},
               {"context": 5}, {"context": {"a": 1}}, {"completion": "x<eos>"}, {"text": DEEP}],
    ids=lambda change: str(change)[:30],
)  # fmt: skip
def test_a_hostile_split_is_one_line(change: dict[str, Any], data_copy: Path, capsys: Any) -> None:
    path = data_copy / "valid.jsonl"
    first, *rest = path.read_text().splitlines()
    row = json.loads(first) | change
    if "text" not in change and "completion" not in change:
        row["text"] = prompts.render_example(row["prompt"], row["completion"])
    path.write_text("\n".join([json.dumps(row), *rest]) + "\n")
    failure(capsys, lambda: splits.read_split(data_copy, "valid"))


# --- GGUF ---------------------------------------------------------------------------------------


def packed(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def nested_arrays(depth: int) -> bytes:
    """One value: an array of one array of one array ..."""
    return packed(9, 4) + (packed(9, 4) + packed(1)) * depth + packed(4, 4) + packed(0)


def test_a_gguf_that_lies_is_one_line(tmp_path: Path) -> None:
    """Lengths of 2^60, arrays in arrays, codes of no type, names twice, tensors far away."""
    pytest.importorskip("gguf")
    name = packed(1) + b"a"
    tensor = packed(6) + b"a.weig" + packed(1, 4) + packed(2**40) + packed(0, 4) + packed(2**50)
    bodies = [
        packed(0) + packed(1) + packed(2**60), packed(0) + packed(1) + name + packed(99, 4),
        packed(0) + packed(1) + name + packed(8, 4) + packed(2**60),
        packed(0) + packed(1) + name + nested_arrays(3),
        packed(0) + packed(1) + name + nested_arrays(50_000),
        packed(0) + packed(2) + (name + packed(4, 4) + packed(1, 4)) * 2,
        packed(1) + packed(0) + tensor, packed(2) + packed(0) + tensor * 2,
        packed(1) + packed(0) + name + packed(2**31, 4), packed(2**63) + packed(0) + tensor * 9,
        packed(1) + packed(0) + name + packed(1, 4) + packed(32) + packed(77, 4) + packed(0),
    ]  # fmt: skip
    path, start = tmp_path / "lying.gguf", time.monotonic()
    for version in (0, 2, 3, 2**31):
        for body in bodies:
            path.write_bytes(b"GGUF" + packed(version, 4) + body)
            with pytest.raises(UserError) as caught:
                gguf_models.convert_gguf(path, tmp_path / "model", "float32")
            assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["lying.gguf"]


def test_flipped_bits_of_a_gguf_header(tmp_path: Path) -> None:
    """Only UserError or success, within bounds of time and memory."""
    pytest.importorskip("gguf")
    from test_gguf import write_gguf

    path = write_gguf(tmp_path / "tiny.gguf")
    whole, draw, start = path.read_bytes(), random.Random(0), time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = {"refused": 0, "read": 0}
    for case in range(90):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange((600, 3000, 20_000)[case % 3])] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            gguf_models.convert_gguf(path, tmp_path / f"model{case}", "float32")
            ended["read"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            ended["refused"] += 1
    unit = 1 if sys.platform == "darwin" else 1024
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit
    assert ended["refused"] > 20 and grown < 1e9 and time.monotonic() - start < 60
