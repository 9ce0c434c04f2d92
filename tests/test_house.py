"""The house as CONTRIBUTING.md draws it, held against the code: rooms, imports, sizes, homes."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_command, run_script

SCRIPTS = ["dataset", "train", "test_finetuned", "benchmark"]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| `(\w+)` \| .+ \|$", PAGE, re.M)
FILES = {name: ROOT / f"{name}.py" for name in SCRIPTS} | {
    path.stem: path for path in sorted((ROOT / "gemma_lora").glob("*.py")) if path.stem[0] != "_"
}
SCRIPT_LINES, ROOM_LINES, FUNCTION_LINES, CLASS_LINES, CONFIG_LINES = 700, 400, 45, 150, 170


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at any depth, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "rooms are named in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST) -> set[str]:
    """The scripts and rooms that are imported."""
    rooms = {n.removeprefix("gemma_lora.") for n in imports(tree) if n.startswith("gemma_lora.")}
    return (rooms & FILES.keys()) | (set(imports(tree)) & set(SCRIPTS))


def test_the_table_names_every_room_and_no_other() -> None:
    assert sorted(TABLE) == sorted(FILES.keys() - set(SCRIPTS))
    assert {path.stem for path in ROOT.glob("*.py")} == set(SCRIPTS)
    assert not [path for path in (ROOT / "gemma_lora").glob("*/") if any(path.glob("*.py"))]


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name: str) -> None:
    order = [*TABLE, *SCRIPTS]
    above = set(order[: order.index(name)])
    assert ours(ast.parse(FILES[name].read_text())) <= above, name


@pytest.mark.parametrize("name", FILES)
def test_only_the_standard_library_and_rooms_are_imported_at_module_level(name: str) -> None:
    for node in ast.parse(FILES[name].read_text()).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for module in imports(node):
                top = module.split(".")[0]
                assert top in {*SCRIPTS, "gemma_lora", *sys.stdlib_module_names}, module


@pytest.mark.parametrize("name", FILES)
def test_nothing_grows_beyond_its_size(name: str) -> None:
    text = FILES[name].read_text()
    assert len(text.splitlines()) <= (SCRIPT_LINES if name in SCRIPTS else ROOM_LINES)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            size = (node.end_lineno or 0) - node.lineno + 1
            limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            if node.name.endswith("Config"):  # as long as its flags
                limit = CONFIG_LINES
            assert size <= limit, (node.name, size)


def test_the_scripts_run_from_any_folder_and_any_path(tmp_path: Path, tiny_model: Path) -> None:
    """A clone under a path with spaces, started from elsewhere, finds rooms, sample and .env."""
    clone = tmp_path / "a clone with spaces"
    clone.mkdir()
    for script in SCRIPTS:
        shutil.copy(ROOT / f"{script}.py", clone)
    shutil.copytree(ROOT / "gemma_lora", clone / "gemma_lora")
    shutil.copytree(ROOT / "data", clone / "data", ignore=lambda _, names: [
        name for name in names if not name.startswith("sample_")
    ])  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text(f"GEMMA_LORA_CACHE={tmp_path / 'cache of .env'}\n")
    prepare = [sys.executable, str(clone / "dataset.py"), "--dataset-name", "sample", "--model",
               str(tiny_model), "--sample-size", "60", "--workers", "1"]  # fmt: skip
    train = [sys.executable, str(clone / "train.py"), "--model", str(tiny_model), "--iters", "2",
             "--batch-size", "2", "--num-layers", "2", "--max-seq-length", "2000",
             "--quantize", "4", "--val-batches", "1"]  # fmt: skip
    for command in (prepare, train):
        done = run_command(command, env={"PYTHONPATH": ""}, cwd=elsewhere)
        assert done.returncode == 0, done.stderr
    assert (elsewhere / "data/train.jsonl").is_file()
    assert (elsewhere / "checkpoints/adapters.safetensors").is_file()
    assert list((tmp_path / "cache of .env").iterdir())  # the quantized base went where .env says


def test_a_worker_imports_nothing_heavy() -> None:
    """What a spawned process imports with the main script and the room of its function."""
    code = (
        "import sys, dataset, test_finetuned, gemma_lora.confinement\n"
        "heavy = {'numpy', 'mlx', 'mlx_lm', 'sqlglot', 'rich', 'transformers', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = run_command([sys.executable, "-c", code], cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_from_another_folder_too(script: str, tmp_path: Path) -> None:
    assert run_script(f"{script}.py", "--help", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the slow BLAS is that of Linux")
def test_loading_a_model_in_an_unprepared_process_warns_once(tiny_model: Path) -> None:
    code = (
        "import sys, mlx.nn; from gemma_lora import device, models\n"
        "theirs = mlx.nn.gelu_approx\n"
        "if sys.argv[1] == 'prepared': device.prepare_process()\n"
        f"models.load_base({str(tiny_model)!r})\n"
        f"models.load_base({str(tiny_model)!r})\n"
        "print(mlx.nn.gelu_approx is theirs)"  # loading itself changes nothing
    )
    for how, warnings, unchanged in (("as it is", 1, "True"), ("prepared", 0, "False")):
        done = run_command([sys.executable, "-c", code, how], cwd=ROOT)
        assert done.stderr.count("prepare_process") == warnings, done.stderr
        assert done.stdout.strip() == unchanged
