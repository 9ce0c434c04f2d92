"""Documents, pins and layout that cannot drift from the code."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import ROOT, one_line_error, run_command, run_script
from make_library import make_library

import benchmark
import dataset
import test_finetuned
import train
from gemma_lora import cli, sql_text
from gemma_lora.splits import SPLITS, read_split
from gemma_lora.versions import TRIED

CONFIGS = {
    "dataset.py": dataset.DatasetConfig,
    "train.py": train.TrainingConfig,
    "test_finetuned.py": test_finetuned.EvaluationConfig,
    "benchmark.py": benchmark.BenchmarkConfig,
}
PRESETS = {
    "dataset.py": dataset.preset,
    "train.py": train.preset,
    "test_finetuned.py": test_finetuned.preset,
    "benchmark.py": benchmark.preset,
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
PIPFILE = tomllib.loads((ROOT / "Pipfile").read_text())
# What the four scripts promise to understand.
PROMISED = {
    "dataset.py": "type dataset-name sample-size columns output-dir seed",
    "train.py": "dataset-type model data adapter-path iters batch-size learning-rate "
    "max-seq-length seed quick-test conservative overwrite resume",
    "test_finetuned.py": "adapter-path data split num-samples use-validation interactive "
    "show-base quick-test max-tokens temp seed",
    "benchmark.py": "adapter-path data num-samples compare quick max-tokens seed",
}


def commands_in(text: str) -> list[list[str]]:
    """[script, flag, ...] of every command of the four scripts in a text."""
    found = re.findall(r"python ((?:dataset|train|test_finetuned|benchmark)\.py[^\n`'&#]*)", text)
    return [shlex.split(command) for command in found if "..." not in command]


def flags_of(script: str) -> set[str]:
    return {f.name for f in fields(CONFIGS[script])}


@pytest.mark.parametrize("script", CONFIGS)
def test_promised_flags_exist(script: str) -> None:
    assert {f.replace("-", "_") for f in PROMISED[script].split()} <= flags_of(script)


def docstring(script: str) -> str:
    return (ROOT / script).read_text().split('"""')[1]


def test_documented_commands_are_accepted() -> None:
    texts = [README, PIPFILE["scripts"]["demo"], *map(docstring, CONFIGS)]
    commands = [command for text in texts for command in commands_in(text)]
    assert len(commands) > 30
    for script, *arguments in commands:
        made = cli.parse_config(CONFIGS[script], arguments, None, PRESETS[script])
        assert made, (script, arguments)


# What makes an example of a help text small, and keeps it from the hub; the last value counts.
SMALLER = {
    "dataset.py": ["--workers", "1"],
    "train.py": ["--iters", "4", "--num-layers", "1", "--batch-size", "2", "--warmup", "1"],
    "test_finetuned.py": ["--max-tokens", "4"],
    "benchmark.py": [
        "--runs", "1", "--warmup", "0", "--num-samples", "2", "--max-tokens", "4",
        "--prompt-tokens", "8", "--generation-tokens", "4", "--batch-size", "1",
    ],
}  # fmt: skip


def small(script: str, arguments: list[str], model: Path) -> list[str]:
    """An example's arguments, changed so that it ends soon and asks no hub."""
    made = [*arguments, *SMALLER[script]]
    if script == "dataset.py":
        named = {"--dataset-name", "--db"} & set(arguments)
        made += [] if named else ["--dataset-name", "sample"]
        made += ["--sample-size", "60"] if "--columns" not in arguments else []
    if script == "train.py":
        made += ["--resume", "--iters", "8"] if "--resume" in arguments else ["--overwrite"]
        made += ["--model", str(model)]
    return made


@pytest.mark.parametrize("script", CONFIGS)
def test_examples_of_the_help_run(
    script: str, tiny_model: Path, data_copy: Path, adapter_copy: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)  # holds data/ and checkpoints/
    lines = [f"How many in {i}?,SELECT COUNT(*) FROM t WHERE a = {i}" for i in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    (tmp_path / "old.json").write_text("{}")
    make_library(tmp_path / "shop.sqlite")
    answered = {"question": "How many?", "context": None, "gold": "SELECT 1", "answers": {"a": ""}}
    (tmp_path / "replies.jsonl").write_text(json.dumps(answered))
    main = sys.modules[Path(script).stem].main  # type: ignore[attr-defined]
    examples = commands_in(docstring(script))
    assert len(examples) >= 4
    for _, *arguments in examples:
        monkeypatch.setattr("sys.stdin", io.StringIO("How many cities are there?\n"))
        status = main(small(script, arguments, tiny_model))
        assert status in ((0, 3) if "--fail-on-regression" in arguments else (0,)), arguments
        if script == "benchmark.py":
            shutil.copyfile(adapter_copy / "benchmark.json", tmp_path / "old.json")


def joined_sources() -> str:
    """Scripts and rooms with texts that are split over lines put together again."""
    files = [ROOT / script for script in CONFIGS] + sorted((ROOT / "gemma_lora").glob("*.py"))
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_error_texts_in_the_readme_exist() -> None:
    section = README.split("## When something goes wrong")[1].split("\n## ")[0]
    texts = re.findall(r"^\| `(.+?)` \|", section, re.M)
    assert len(texts) >= 7
    for text in texts:
        # What the text names (a model, a file, a type) varies: its longest fixed part must exist.
        parts = re.split(r"'[^']*'|\bdata/train\.jsonl|\b(?:alpaca|sql|data)\b", text)
        longest = max(parts, key=len).strip(" ,")
        assert len(longest) >= 8 and longest in joined_sources(), text


def test_files_named_in_the_readme_exist() -> None:
    pattern = r"[\w./-]+\.(?:jsonl|json|md|png|txt|safetensors|toml|sh|py)\b"
    examples = {
        "hosts.json",
        "own.jsonl",
        "ROWS.jsonl",
        "replies.jsonl",
        "llama.cpp/convert_hf_to_gguf.py",
    }
    for name in set(re.findall(pattern, README)) - examples:
        known = (ROOT / name).exists() or Path(name).name in joined_sources()
        assert known, name


def test_blocks_of_the_readme_are_drawn_from_the_kept_figures() -> None:
    import update_readme

    figures = json.loads(update_readme.FIGURES.read_text())
    pages = [page.read_text() for page in update_readme.PAGES]
    assert [update_readme.redraw(page, figures) for page in pages] == pages
    drawn = {match[2] for page in pages for match in update_readme.BLOCK.finditer(page)}
    assert drawn == set(figures)
    for name, made in figures.items():
        assert {"machine", "command"} <= made.keys(), name


def test_flags_in_the_readme_exist() -> None:
    known = set().union(*(flags_of(script) for script in CONFIGS))
    foreign = {
        "backend", "hostfile", "save_path", "python", "prompt", "train", "mask_prompt", "help",
        "version", "rounds", "steps", "jobs", "rows", "tokens", "types", "hub_tokenizer",
    }  # fmt: skip
    named = {f.replace("-", "_") for f in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", README)}
    assert named - foreign <= known, named - foreign - known


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 250


def test_modes_in_the_readme_are_those_of_the_code() -> None:
    standard = train.TrainingConfig()
    rows = {
        "`--quick-test`": train.QUICK_TEST,
        "standard": {},
        "`--conservative`": train.CONSERVATIVE,
        "of `--db`": train.OWN_DATABASE,
    }
    for name, preset in rows.items():
        line = next(x for x in README.splitlines() if x.startswith(f"| {name} |"))
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        for cell, key in zip(cells[1:], ("iters", "batch_size", "learning_rate"), strict=False):
            value = preset.get(key, getattr(standard, key))
            assert float(cell) == value, (name, key)
    assert 50 <= train.QUICK_TEST["iters"] <= 100
    assert 1500 <= standard.iters <= 2000
    assert 600 <= train.CONSERVATIVE["iters"] <= 800


def test_pins_agree() -> None:
    """What is packaged needs gguf too, and may be installed without the rest."""
    assert PIPFILE["packages"]["gguf"] == PIPFILE["packaged"]["gguf"]
    files = {"packages": "requirements.txt", "packaged": "requirements-packaged.txt",
             "dev-packages": "requirements-dev.txt"}  # fmt: skip
    for section, name in files.items():
        pinned = dict(
            line.split(" ;")[0].strip().split("==")
            for line in (ROOT / name).read_text().splitlines()
            if "==" in line.split(" ;")[0]
        )
        for package, wanted in PIPFILE[section].items():
            version = wanted if isinstance(wanted, str) else wanted["version"]
            assert version == f"=={pinned[package]}", package
    assert "mlx-cpu" in (ROOT / "requirements.txt").read_text()  # the extra, resolved
    assert "source" not in PIPFILE


def test_the_versions_tried_are_those_pinned_and_those_told() -> None:
    for package, version in TRIED.items():
        pin = PIPFILE["packages"][package]
        assert (pin if isinstance(pin, str) else pin["version"]) == f"=={version}"
        assert re.search(rf"{package}\s+{re.escape(version)}\b", README), package
    line = next(x for x in README.splitlines() if "pip install mlx mlx-lm" in x)
    assert set(line.split("pip install ")[1].split()) == TRIED.keys()


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ({}, None),
        ({"mlx": "0.32.9", "transformers": "5.40.1", "mlx-lm": "0.32.4.dev1"}, None),
        (
            {"mlx-lm": "0.33.0"},
            "not tried with mlx-lm 0.33.0; if something fails: pip install mlx-lm==0.32.2",
        ),
        (
            {"transformers": "6.0.0rc1", "mlx": "1.0"},
            "not tried with mlx 1.0, transformers 6.0.0rc1; if something fails: pip install "
            "mlx==0.32.4 transformers==5.23.0",
        ),
        ({"datasets": None, "pandas": "2.2.3"}, "not tried with pandas 2.2.3;"),
    ],
)
def test_untried_versions_are_told_in_one_line(
    installed: dict[str, str | None], says: str | None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def version(name: str) -> str:
        if (found := (TRIED | installed)[name]) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert cli.run_script(lambda: None) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [] if says is None else len(lines) == 1 and says in lines[0]


@pytest.mark.parametrize("script", CONFIGS)
@pytest.mark.parametrize("arguments", [["--help"], ["--seed", "1"]])
def test_without_transformers_one_line_says_so(script: str, arguments: list[str]) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['{script}', *{arguments}]\n"
        "sys.modules['transformers'] = None\n"
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    line = one_line_error(run_command([sys.executable, "-c", code]))
    assert line.startswith(f"{script}: error: ") and line.endswith("pip install transformers")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("No module named 'rich'", name="rich.table"), "pip install rich"),
        (ModuleNotFoundError("No module named 'mlx_lm'", name="mlx_lm"), "pip install mlx-lm"),
        (ImportError("cannot import name 'x' from 'mlx_lm.a'", name="mlx_lm.a"), "mlx-lm==0.32.2"),
    ],
)
def test_a_missing_library_is_one_line(
    error: ImportError, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    assert cli.run_script(fails) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and str(error) in line


def test_an_import_of_our_own_that_fails_is_a_bug_and_shows() -> None:
    def fails() -> None:
        raise ImportError("cannot import name 'x'", name="gemma_lora.cli")

    with pytest.raises(ImportError):
        cli.run_script(fails)


def test_ci_runs_the_readmes_test_command() -> None:
    commands = [line.strip() for line in README.splitlines() if line.startswith("    python3.11")]
    assert len(commands) == 2
    assert commands[0].endswith("run demo")
    assert commands[1].endswith("run test")
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("script", CONFIGS)
def test_help_needs_no_mlx_and_ends_with_commands(script: str) -> None:
    done = run_script(script, "--help", timeout=60)
    assert done.returncode == 0
    assert f"python {script}" in done.stdout
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('mlx', 'mlx_lm', 'datasets')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip().splitlines()[-1] == "[]", out.stdout[-500:]


@pytest.mark.parametrize("script", CONFIGS)
def test_scripts_import_where_linux_packages_are_missing(script: str) -> None:
    """As on a Mac: another platform name, none of the Linux-only packages, no /proc."""
    code = (
        "import sys; sys.platform = 'darwin'\n"
        "for name in ('scipy_openblas32', 'mlx_cpu'): sys.modules[name] = None\n"
        f"import {Path(script).stem} as module\n"
        "from gemma_lora.device import use_openblas\n"
        "assert use_openblas() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_test_split_of_the_sample_is_no_memory_test(tmp_path: Path) -> None:
    from make_sample_sql import skeleton

    dataset.prepare(dataset.DatasetConfig(dataset_name="sample", output_dir=tmp_path, workers=1))
    splits = {name: read_split(tmp_path, name) for name in SPLITS}
    schemas = {n: {sql_text.schema_key(r["context"]) for r in rows} for n, rows in splits.items()}
    assert len(splits["test"]) >= 60
    assert not schemas["test"] & (schemas["train"] | schemas["valid"])
    known = {skeleton(row["completion"]) for row in splits["train"]}
    fresh = {skeleton(row["completion"]) for row in splits["test"]} - known
    assert len(fresh) >= 15


def test_static_checks_are_clean() -> None:
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout[-2000:]
