"""An adapter on its base: put on and off, read and checked, exported for PEFT."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

from gemma_lora.cli import UserError
from gemma_lora.files import DAMAGE, load_tensors, save_tensors, write_atomic
from gemma_lora.models import base_fingerprint, load_base, named_arrays, resolve_model
from gemma_lora.splits import TrainedOn

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

# What the packaged GGUF was made from; cards and files name models by their place on the hub.
PACKAGED_MODEL = "google/gemma-3-270m"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LORA_KEYS = tuple(f"self_attn.{name}_proj" for name in "qkvo") + (
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class LoraParameters(TypedDict):
    """mlx-lm's keys for what an adapter is."""

    rank: int
    scale: float  # multiplies the adapter; PEFT's alpha is scale x rank
    dropout: float
    keys: list[str]


class AdapterConfig(TrainedOn, total=False):
    """adapter_config.json: mlx-lm's keys, where the adapter comes from, and how it went."""

    fine_tune_type: Required[Literal["lora", "dora", "full"]]
    num_layers: Required[int]  # the last so many
    lora_parameters: Required[LoraParameters]
    model: Required[str]  # as it was asked for
    base_model_path: str
    base_fingerprint: str
    quantize: int | None  # bits
    total_layers: int
    dataset_type: str
    max_seq_length: int
    seed: int
    versions: dict[str, str]
    best_step: int | None
    best_val_loss: float | None
    base_val_loss: float | None
    trained_steps: int


def check_base(
    model: nn.Module, fine_tune_type: Literal["lora", "dora", "full"], num_layers: int
) -> None:
    """Raise UserError for what cannot be trained on this base."""
    if num_layers > (layers := len(model.layers)):
        raise UserError(f"--num-layers {num_layers}: the model has {layers}")
    quantized = any(name.endswith(".scales") for name in named_arrays(model.parameters()))
    if fine_tune_type == "full" and quantized:
        raise UserError(
            "--fine-tune-type full cannot train a quantized base: drop --quantize, or use lora"
        )


def add_adapter(model: nn.Module, settings: AdapterConfig) -> None:
    """Freeze the model and make trainable what `settings` (adapter_config.json's keys) ask for."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model.freeze()
    if settings["fine_tune_type"] == "full":
        for layer in model.layers[-settings["num_layers"] :]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(
            model,
            settings["num_layers"],
            dict(settings["lora_parameters"]),
            use_dora=settings["fine_tune_type"] == "dora",
        )


@dataclass
class Finetuned:
    """A base model with an adapter that can be taken off and put on; one base in memory."""

    model: nn.Module
    tokenizer: TokenizerWrapper
    config: AdapterConfig
    folder: Path  # of the base model
    swaps: dict[str, list[tuple[str, Any]]]  # per variant: modules, or weights after `full`

    def use(self, variant: Literal["base", "finetuned"]) -> nn.Module:
        """Switch to a variant and return the model.

        Adapted layers are swapped for the layers they wrap: scale 0 would not be the base under
        DoRA, which also rescales columns.
        """
        from mlx.utils import tree_unflatten

        if self.config["fine_tune_type"] == "full":
            self.model.load_weights(self.swaps[variant], strict=False)
        else:
            self.model.update_modules(tree_unflatten(self.swaps[variant]))
        self.model.eval()
        return self.model


def describes_adapter(config: Any) -> bool:
    """Whether adapter_config.json holds what train.py writes, by type and range."""

    def counts(value: Any) -> bool:
        return type(value) is int and 0 < value < 100_000

    kind, lora = config["fine_tune_type"], config["lora_parameters"]
    adapted = kind in ("lora", "dora") and (
        set(lora.get("keys") or ()) <= set(LORA_KEYS)
        and counts(lora["rank"])
        and 0 < lora["scale"] < math.inf
        and 0 <= lora["dropout"] < 1
    )
    return (
        (adapted or kind == "full")
        and counts(config["num_layers"])
        and counts(config.get("total_layers", 1))
        and isinstance(config["model"], str)
        and config.get("quantize") in (None, 4, 8)
        and isinstance(config.get("versions", {}), dict)
        and isinstance(config.get("best_val_loss"), float | None)
    )


def read_adapter_config(adapter_path: Path) -> AdapterConfig:
    """Read and check adapter_config.json; raises UserError."""
    path = adapter_path / "adapter_config.json"
    weights = adapter_path / "adapters.safetensors"
    for file in (path, weights):
        if not file.is_file():
            raise UserError(
                f"{file} is not there: train first (`python train.py --adapter-path "
                f"{adapter_path}`) or give the right --adapter-path"
            )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = describes_adapter(config)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error!r}): train again") from None
    if not known:
        raise UserError(f"{path} does not describe an adapter of train.py: train again")
    return config


def check_shapes(
    path: Path, weights: Mapping[str, mx.array], names: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise UserError unless the tensors of a file are exactly `names`, of these shapes."""
    problems = [f"{n} is missing" for n in sorted(set(names) - set(weights))]
    problems += [f"{n} is not in the model" for n in sorted(set(weights) - set(names))]
    problems += [
        f"{n} is {tuple(w.shape)}, the model wants {names[n]}"
        for n, w in weights.items()
        if n in names and tuple(w.shape) != names[n]
    ]
    if problems:
        raise UserError(
            f"{path} does not fit the base model: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; it was trained on another one"
        )


def read_tensors(path: Path, names: Mapping[str, tuple[int, ...]]) -> list[tuple[str, mx.array]]:
    """Load a safetensors file that must hold exactly `names`, of these shapes, all finite."""
    import mlx.core as mx

    try:
        weights = load_tensors(path)[0]
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or cut short ({error}): train again") from None
    check_shapes(path, weights, names)
    broken = [n for n, w in weights.items() if not mx.isfinite(w).all().item()]
    if broken:
        raise UserError(f"{path}: {broken[0]} holds NaN or infinite values: train again")
    return list(weights.items())


def load_finetuned(adapter_path: Path, model: str | None = None) -> Finetuned:
    """Load the base that adapter_config.json names (or `model`) and the adapter on top of it.

    Raises UserError when a file is missing, damaged or made for another base.
    """

    config = read_adapter_config(adapter_path)
    loaded, tokenizer, folder = load_base(model or config["model"], config.get("quantize"))
    fingerprint = base_fingerprint(loaded)
    if config.get("base_fingerprint", fingerprint) != fingerprint:
        raise UserError(
            f"the adapter in {adapter_path} was trained on {config['model']}, and "
            f"{model or folder} is another model: leave --model out, or train again"
        )
    if config["num_layers"] > len(loaded.layers):
        raise UserError(
            f"the adapter in {adapter_path} covers {config['num_layers']} layers, the model has "
            f"{len(loaded.layers)}: it was trained on another one"
        )
    base = named_arrays(loaded.parameters())
    add_adapter(loaded, config)
    names = {n: tuple(w.shape) for n, w in named_arrays(loaded.trainable_parameters()).items()}
    weights = read_tensors(adapter_path / "adapters.safetensors", names)
    if config["fine_tune_type"] == "full":
        kept = [(n, w) for n, w in base.items() if n in names]
        swaps: dict[str, list[tuple[str, Any]]] = {"base": kept, "finetuned": weights}
    else:
        loaded.load_weights(weights, strict=False)
        adapted = [(n, m) for n, m in loaded.named_modules() if "lora_a" in m]
        swaps = {"base": [(n, m.linear) for n, m in adapted], "finetuned": adapted}
    tuned = Finetuned(loaded, tokenizer, config, folder, swaps)
    tuned.use("finetuned")
    return tuned


def hub_model(config: AdapterConfig) -> str | None:
    """The base model's name on the hub, None for a folder or file of one's own."""
    name = config["model"]
    if name == "packaged":
        return PACKAGED_MODEL
    return name if HUB_ID.fullmatch(name) and not Path(name).exists() else None


def peft_settings(config: AdapterConfig) -> dict[str, Any]:
    """PEFT's adapter_config.json for what adapter_config.json says."""
    lora, base, total = config["lora_parameters"], config["model"], config["total_layers"]
    if base == "packaged" or Path(base).expanduser().exists():  # else a hub id, which PEFT knows
        base = str(resolve_model(base))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora["rank"],
        "lora_alpha": lora["scale"] * lora["rank"],
        "lora_dropout": lora["dropout"],
        "target_modules": sorted(key.split(".")[-1] for key in lora["keys"]),
        "layers_to_transform": list(range(total - config["num_layers"], total)),
        "layers_pattern": "layers",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def export_peft(adapter_path: Path, target: Path) -> None:
    """Write a LoRA adapter in PEFT's format: its names, transposed, alpha = scale x rank."""
    import mlx.core as mx

    config = read_adapter_config(adapter_path)
    if config["fine_tune_type"] != "lora":
        raise UserError(
            f"only a lora adapter can go to PEFT, this one is {config['fine_tune_type']}: "
            "make a whole model of it with mlx_lm.fuse"
        )
    covered = config.get("total_layers", 0) >= config["num_layers"]
    if not config["lora_parameters"].get("keys") or not covered:
        raise UserError(f"{adapter_path}/adapter_config.json was not written by train.py")
    try:
        tensors = load_tensors(adapter_path / "adapters.safetensors")[0]
    except DAMAGE as error:
        raise UserError(f"{adapter_path}/adapters.safetensors is damaged ({error})") from None
    weights = {
        f"base_model.model.{name}".replace(".lora_a", ".lora_A.weight").replace(
            ".lora_b", ".lora_B.weight"
        ): mx.contiguous(value.T)
        for name, value in tensors.items()
    }
    settings = peft_settings(config)
    save_tensors(target / "adapter_model.safetensors", weights, {"format": "pt"})
    write_atomic(target / "adapter_config.json", json.dumps(settings, indent=2) + "\n")
    print(f"wrote {target}/: load it with peft.PeftModel.from_pretrained(base, '{target}')")


def adapter_kind(tuned: Finetuned) -> str:
    """The type of data the adapter was trained on; one that does not say is taken for SQL."""
    return tuned.config.get("dataset_type") or "sql"
