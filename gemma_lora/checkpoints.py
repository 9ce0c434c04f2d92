"""What a run leaves on disk, how it is resumed, and how it makes room for the next."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_lora.cli import UserError
from gemma_lora.files import DAMAGE, Row, load_tensors

if TYPE_CHECKING:
    import mlx.core as mx


# What may differ between a run and its resumption; all else must stay as it was.
FREE_ON_RESUME = {
    "adapter_path", "data", "early_stopping_patience", "iters", "min_delta", "overwrite",
    "report_to", "resume", "sample_every_eval", "save_every", "save_total_limit",
    "steps_per_report",
}  # fmt: skip
# In the order in which they are moved aside: a run moved in part is not resumed, and its adapter
# stays with its configuration.
RUN_FILES = (
    "resume.safetensors", "last_adapters.safetensors", "training_config.txt", "metrics.jsonl",
    "loss_curve.png", "README.md", "evaluation.json", "evaluation.md", "evaluation_samples.jsonl",
    "benchmark.json", "benchmark.md", "benchmark.png", "adapter_config.json",
    "adapters.safetensors",
)  # fmt: skip
NUMBERED = "[0-9]" * 7 + "_adapters.safetensors"


@dataclass
class Progress:
    """Where a run stands; saved with the weights, so that a resumed run goes on from here."""

    step: int = 0
    trained_tokens: int = 0
    first_val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    evals_since_best: int = 0
    last_val_loss: float | None = None


def read_resume(adapter_path: Path, config_class: type) -> tuple[dict[str, mx.array], Row]:
    """Read resume.safetensors: (tensors, {"config", "progress", "data", "base", "versions"})."""

    path = adapter_path / "resume.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is not there: nothing to resume; start without --resume")
    try:
        tensors, metadata = load_tensors(path)
        run = json.loads(metadata["run"])
        if settings_of(run, config_class)["iters"] < 1 or Progress(**run["progress"]).step < 0:
            raise ValueError("its counters are below 0")
        return tensors, run
    except (*DAMAGE, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): start without --resume") from None


def saved_settings(adapter_path: Path, config_class: type) -> Row:
    """The flags of the run in `adapter_path`, for --resume; {} when they cannot be read."""
    import struct

    path = adapter_path / "resume.safetensors"
    with suppress(*DAMAGE, AttributeError, struct.error), path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if path.is_file() and size < 10**8:  # no longer one is read by MLX, which is not needed
            run = json.loads(json.loads(file.read(size))["__metadata__"]["run"])
            return settings_of(run, config_class)
    return {}


def settings_of(run: Row, config_class: type) -> Row:
    """The flags in a checkpoint's "run"; TypeError, ValueError and the like when they are none."""
    known = {f.name: str(f.type) for f in fields(config_class)}
    settings: Row = {
        name: Path(value) if "Path" in known[name] and value is not None else value
        for name, value in run["config"].items()
        if name in known
    }
    config_class(**settings)
    return settings


def move_aside(adapter_path: Path, overwrite: bool) -> None:
    """Make room for a new run: an earlier one goes to previous-N/, or away with `overwrite`."""
    old = [adapter_path / name for name in RUN_FILES if (adapter_path / name).exists()]
    old += sorted(adapter_path.glob(NUMBERED))
    if not any(path.suffix == ".safetensors" for path in old):
        (adapter_path / "metrics.jsonl").unlink(missing_ok=True)  # of a run that saved nothing
        return
    if overwrite:
        for path in old:
            path.unlink()
        return
    number = 1
    while (place := adapter_path / f"previous-{number}").exists():
        number += 1
    latest = adapter_path / f"previous-{number - 1}"
    if latest.exists() and not any((latest / path.name).exists() for path in old):
        place = latest  # the rest of a run whose move was cut short by a kill
    place.mkdir(exist_ok=True)
    for path in old:
        os.replace(path, place / path.name)
    print(f"the earlier run in {adapter_path} was moved to {place}")
