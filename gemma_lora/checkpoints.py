"""What a run leaves on disk, how it is resumed, and how it makes room for the next."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from gemma_lora.adapters import AdapterConfig, check_shapes
from gemma_lora.cli import UserError
from gemma_lora.files import DAMAGE, load_tensors, save_tensors, write_atomic
from gemma_lora.models import named_arrays

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn

# What may differ between a run and its resumption; all else must stay as it was.
FREE_ON_RESUME = {
    "adapter_path", "data", "early_stopping_patience", "epochs", "export_gguf", "gguf_type",
    "iters", "min_delta", "overwrite", "processes", "report_to", "resume", "sample_every_eval",
    "save_every", "save_total_limit", "steps_per_report",
}  # fmt: skip
# In the order in which they are moved aside: a run moved in part is not resumed, and its adapter
# stays with its configuration.
RUN_FILES = (
    "resume.safetensors", "last_adapters.safetensors", "training_config.txt", "metrics.jsonl",
    "loss_curve.png", "README.md", "evaluation.json", "evaluation.md", "evaluation.html",
    "evaluation_samples.jsonl", "benchmark.json", "benchmark-new.json", "benchmark.md",
    "benchmark.png", "confidence.json",
    "adapter_config.json", "adapters.safetensors",
)  # fmt: skip
# The folder that goes to the hub, made of an adapter and the reports about it: never without them.
PUBLISHED = "publish"
PUBLISHED_FILES = {*RUN_FILES, "NOTICE", "chat_template.jinja"}
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


class Outcome(TypedDict):
    """How a run went: its Progress, why it stopped before the end, and what it came to."""

    step: int
    trained_tokens: int
    first_val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    evals_since_best: int
    last_val_loss: float | None
    stopped: str | None
    full_val_loss_best: NotRequired[float | None]  # on all validation rows; None: not measured
    full_val_loss_last: NotRequired[float | None]
    seconds: NotRequired[float]


class ResumeRecord(TypedDict):
    """What resume.safetensors says of its run, beside the tensors."""

    config: dict[str, Any]  # settings, paths as text
    progress: dict[str, Any]  # the fields of Progress
    data_sha256: dict[str, str]
    base_fingerprint: str
    versions: dict[str, str]


@dataclass(frozen=True)
class RunRecord:
    """What is written about a run besides its progress."""

    settings: dict[str, Any]  # of TrainingConfig, paths as text
    adapter_config: AdapterConfig  # without what the run has yet to find out
    data_sha256: dict[str, str]  # of train and valid

    @property
    def base_fingerprint(self) -> str:
        """What tells the base model from another."""
        return self.adapter_config["base_fingerprint"]

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what decides the numbers."""
        return self.adapter_config["versions"]


@dataclass(frozen=True)
class Checkpointer:
    """Writes what a run leaves in its folder, and goes back to it."""

    folder: Path
    model: nn.Module
    optimizer: Any
    record: RunRecord
    keep: Literal["best", "last"]
    save_total_limit: int | None

    def weights(self) -> dict[str, mx.array]:
        """The trained weights as they are now."""
        return named_arrays(self.model.trainable_parameters())

    def save_adapter(self, name: str, step: int) -> None:
        """Write the trained weights as a file of this name."""
        save_tensors(self.folder / name, self.weights(), {"format": "mlx", "step": str(step)})

    def save(self, progress: Progress, numbered: bool) -> None:
        """Write a checkpoint. resume.safetensors comes last: it alone says how far the run is."""
        if numbered:
            self.save_adapter(f"{progress.step:07d}_adapters.safetensors", progress.step)
            history = sorted(self.folder.glob(NUMBERED))
            if self.save_total_limit is not None:
                for path in history[: len(history) - self.save_total_limit]:
                    path.unlink(missing_ok=True)
        self.save_adapter("last_adapters.safetensors", progress.step)
        if self.keep == "last" or progress.best_step is None:
            self.save_adapter("adapters.safetensors", progress.step)
        state = {f"optimizer.{k}": v for k, v in named_arrays(self.optimizer.state).items()}
        weights = {f"model.{k}": v for k, v in self.weights().items()}
        run = {
            "config": self.record.settings,
            "progress": asdict(progress),
            "data_sha256": self.record.data_sha256,
            "base_fingerprint": self.record.base_fingerprint,
            "versions": self.record.versions,
        }
        self.write_adapter_config(progress)
        save_tensors(self.folder / "resume.safetensors", weights | state, {"run": json.dumps(run)})

    def write_adapter_config(self, progress: Progress) -> None:
        """Write adapter_config.json: mlx-lm's keys, and where the adapter comes from."""
        found = {
            "best_step": progress.best_step,
            "best_val_loss": progress.best_val_loss,
            "base_val_loss": progress.first_val_loss,
            "trained_steps": progress.step,
        }
        write_atomic(
            self.folder / "adapter_config.json",
            json.dumps({**self.record.adapter_config, **found}, indent=2) + "\n",
        )

    def write_description(self, header: Sequence[str]) -> None:
        """Write training_config.txt: every setting, the data's hashes, the versions."""
        record = self.record
        lines = [*header, "", "settings", *(f"  {k} = {v}" for k, v in record.settings.items())]
        lines += ["", "data (sha256)"]
        lines += [f"  {k}.jsonl {v}" for k, v in record.data_sha256.items()]
        lines += ["", "versions", *(f"  {k} {v}" for k, v in record.versions.items())]
        lines += [f"  machine {platform.platform()}"]
        write_atomic(self.folder / "training_config.txt", "\n".join(lines) + "\n")

    def restore(self, config_class: type, say: Callable[[str], None]) -> Progress:
        """Go back to the state in resume.safetensors; refuses when what matters has changed."""
        from mlx.utils import tree_unflatten

        tensors, run = read_resume(self.folder, config_class)
        if changed := self.changes_since(run):
            raise UserError(f"cannot resume, because {changed[0]}: undo that, or start anew")
        if run["versions"] != self.record.versions:
            say("note: other library versions than before; the result may differ a little")
        path = self.folder / "resume.safetensors"
        weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        check_shapes(path, weights, {n: w.shape for n, w in self.weights().items()})
        self.model.load_weights(list(weights.items()), strict=False)
        state = {k[10:]: v for k, v in tensors.items() if k.startswith("optimizer.")}
        self.optimizer.init(self.model.trainable_parameters())
        fresh = {n: w.shape for n, w in named_arrays(self.optimizer.state).items()}
        check_shapes(path, state, fresh)
        self.optimizer.state = tree_unflatten(list(state.items()))
        return Progress(**run["progress"])

    def changes_since(self, run: ResumeRecord) -> list[str]:
        """What differs from the run in a checkpoint though it should not, in words."""
        changed = [
            f"--{name.replace('_', '-')} was {run['config'].get(name)!r}, is {value!r}"
            for name, value in self.record.settings.items()
            if name not in FREE_ON_RESUME and run["config"].get(name, value) != value
        ]
        if run["data_sha256"] != self.record.data_sha256:
            changed.append("the data changed since")
        if run["base_fingerprint"] != self.record.base_fingerprint:
            changed.append("the base changed since")
        return changed


def weights_of_all_ranks(
    folder: Path, weights: Mapping[str, mx.array], world: Any
) -> dict[str, mx.array]:
    """The weights in adapters.safetensors, which is on rank 0's disk, for every rank.

    `weights` tells the other ranks which arrays there are, and of which shapes.
    """
    import mlx.core as mx

    if world.rank() == 0:
        found = load_tensors(folder / "adapters.safetensors")[0]
    else:
        found = {n: mx.zeros_like(w) for n, w in weights.items()}
    if world.size() == 1:
        return found
    return {n: mx.distributed.all_sum(found[n], stream=mx.cpu) for n in sorted(found)}


def read_resume(adapter_path: Path, config_class: type) -> tuple[dict[str, mx.array], ResumeRecord]:
    """Read resume.safetensors: (tensors, what it says of its run); raises UserError."""
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


def saved_settings(adapter_path: Path, config_class: type) -> dict[str, Any]:
    """The flags of the run in `adapter_path`, for --resume; {} when they cannot be read."""
    from safetensors import SafetensorError, safe_open

    path = adapter_path / "resume.safetensors"
    with suppress(*DAMAGE, AttributeError, SafetensorError):
        if path.is_file():  # a device or a pipe has no end
            with safe_open(path, "numpy") as file:
                return settings_of(json.loads(file.metadata()["run"]), config_class)
    return {}


def settings_of(run: ResumeRecord, config_class: type) -> dict[str, Any]:
    """The flags in a checkpoint's "run"; TypeError, ValueError and the like when they are none."""
    known = {f.name: str(f.type) for f in fields(config_class)}
    settings = {
        name: Path(value) if "Path" in known[name] and value is not None else value
        for name, value in run["config"].items()
        if name in known
    }
    config_class(**settings)
    return settings


def move_aside(adapter_path: Path, overwrite: bool) -> None:
    """Make room for a new run: an earlier one goes to previous-N/, or away with `overwrite`.

    What was published of it goes too: it would be taken for the new run's.
    """
    old = [adapter_path / name for name in RUN_FILES if (adapter_path / name).exists()]
    old += sorted(adapter_path.glob(NUMBERED))
    if not any(path.suffix == ".safetensors" for path in old):
        (adapter_path / "metrics.jsonl").unlink(missing_ok=True)  # of a run that saved nothing
        return
    published = adapter_path / PUBLISHED
    if overwrite:
        drop_published(published)
        for path in old:
            path.unlink()
        return
    old = [*([published] if (published / "adapter_config.json").is_file() else []), *old]
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


def drop_published(folder: Path) -> None:
    """Delete what was published, and leave what else someone put there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_file() and path.name in PUBLISHED_FILES:
                path.unlink()
        with suppress(OSError):  # not empty
            folder.rmdir()
