"""An adapter folder of train.py into one GGUF file and the Modelfile that runs it in Ollama.

The base may be of any kind that train.py takes (hub, folder, packaged, .gguf, quantized), the
adapter of any kind that it writes (LoRA, DoRA, full). Both are fused in float32, tensor by tensor,
and then stored as asked. Nothing is downloaded besides a base that is not here yet.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_lora.adapters import Finetuned, hub_model, load_finetuned
from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject, write_atomic
from gemma_lora.gguf_models import CHAT_TEMPLATE, GEMMA_NOTICE
from gemma_lora.gguf_writer import GgufModel, GgufType, require_gguf, write_gguf
from gemma_lora.models import named_arrays
from gemma_lora.prompts import END_OF_TURN, EOS, START_OF_TURN
from gemma_lora.vocabulary import read_pieces

if TYPE_CHECKING:
    import mlx.core as mx

MODELFILE = "Modelfile"
MODELFILE_MARK = "# written by train.py --export-gguf; without this line the file is left alone"


def export_gguf(adapter_path: Path, target: Path, kind: GgufType = "bf16") -> dict[str, int]:
    """Write the GGUF `target` and a Modelfile beside it; returns {tensor: bytes}.

    Raises UserError, and leaves nothing behind, for an adapter, base or place that will not do.
    """
    modelfile = target.with_name(MODELFILE)
    require_ours(modelfile)
    require_gguf(target)  # before minutes may go into fetching a base
    start = time.perf_counter()
    model, weights = fused(load_finetuned(adapter_path), target.stem)
    sizes = write_gguf(target, model, weights, kind)
    write_atomic(modelfile, modelfile_text(target.name))
    seconds = time.perf_counter() - start
    print(
        f"wrote {target} ({kind}, {target.stat().st_size / 1e6:,.0f} MB) and {modelfile} in "
        f"{seconds:.1f} s. In Ollama:\n"
        f"ollama create {ollama_name(target.stem)} -f {shlex.quote(str(modelfile))}"
    )
    return sizes


def fused(tuned: Finetuned, name: str) -> tuple[GgufModel, dict[str, mx.array]]:
    """What a file says of the model and its weights with the adapter in them, not computed yet.

    The model of `tuned` is changed for good, and should go when this returns.
    """
    from mlx_lm.utils import dequantize_model

    model = gguf_model(tuned, name)
    fuse_adapter(tuned)
    return model, named_arrays(dequantize_model(tuned.model).parameters())


def fuse_adapter(tuned: Finetuned) -> None:
    """Put the adapter's weights into the layers that it wraps, in float32 on every device."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    tuned.use("finetuned")
    tuned.model.set_dtype(mx.float32)  # in bfloat16 the sum would be rounded before it is stored
    if tuned.config["fine_tune_type"] != "full":
        adapted = tuned.swaps["finetuned"]
        whole = [(name, module.fuse(dequantize=True)) for name, module in adapted]
        tuned.model.update_modules(tree_unflatten(whole))


def gguf_model(tuned: Finetuned, name: str) -> GgufModel:
    """Settings, vocabulary and template of a base, and where the adapter came from."""
    config = model_config(tuned)
    how = (
        f"{tuned.config['fine_tune_type']} fine-tune, {tuned.config.get('dataset_type', '?')} rows"
    )
    restored = ", base restored from Q4_K_M" if tuned.config["model"] == "packaged" else ""
    return GgufModel(
        config=config,
        pieces=read_pieces(tuned.folder / "tokenizer.json", config["vocab_size"]),
        chat_template=chat_template(tuned.folder),
        name=name,
        base_model=hub_model(tuned.config),
        description=f"Gemma 3, {how}{restored}",
    )


def model_config(tuned: Finetuned) -> JsonObject:
    """config.json with what mlx-lm takes for each setting that it leaves out."""
    written = json.loads((tuned.folder / "config.json").read_text(encoding="utf-8"))
    return written | asdict(tuned.model.args)


def chat_template(folder: Path) -> str:
    """The template of a model folder, in its own file or in the tokenizer's settings.

    A base that was never tuned to chat has none: it gets ours, which renders as training did.
    """
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    template = found.get("chat_template")
    if isinstance(template, list):  # several with names
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template or CHAT_TEMPLATE


def modelfile_text(file_name: str) -> str:
    """A Modelfile that renders as training did and stops where training's answers end.

    Ollama adds <bos> by itself. Its own default punishes repetition, which SQL is full of.
    """
    turn = f"{END_OF_TURN}\n{START_OF_TURN}model\n"
    return f'''{MODELFILE_MARK}
FROM ./{file_name}
TEMPLATE """{START_OF_TURN}user
{{{{ if .System }}}}{{{{ .System }}}}

{{{{ end }}}}{{{{ .Prompt }}}}{turn}{{{{ .Response }}}}{END_OF_TURN}
"""
PARAMETER stop "{END_OF_TURN}"
PARAMETER stop "{EOS}"
PARAMETER temperature 0
PARAMETER repeat_penalty 1
LICENSE """{GEMMA_NOTICE.strip()}"""
'''


def require_ours(modelfile: Path) -> None:
    """Raise UserError when the Modelfile that would be replaced was written by someone else."""
    if not modelfile.exists():
        return
    try:
        ours = modelfile.read_text(encoding="utf-8", errors="replace").startswith(MODELFILE_MARK)
    except OSError as error:
        raise UserError(f"{modelfile} cannot be read: {error.strerror}") from None
    if not ours:
        raise UserError(
            f"{modelfile} was not written by train.py: move it, or export to another folder"
        )


def ollama_name(stem: str) -> str:
    """A name that Ollama takes: lower case, and nothing that it reads as a place or version."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "my-gemma"
