"""The command line, one way for all four scripts: flags from a dataclass, errors of one line.

Owns how a config dataclass becomes flags, `.env`, exit statuses (0 done, 1 a user's mistake, 2 a
bad flag, 130 interrupted) and the one line that a missing optional library costs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from gemma_lora.versions import TRIED, untried_line

Config = TypeVar("Config")

# What an import that fails needs, where that has another name.
INSTALL = {
    "mlx": "mlx  (on Linux: 'mlx[cpu]', or 'mlx[cuda13]' for NVIDIA)",
    "mlx_lm": "mlx-lm",
    "tokenizers": "transformers",
    "safetensors": "transformers",
    "huggingface_hub": "huggingface-hub",
    "pyarrow": "datasets",
    "yaml": "pyyaml",
    "dotenv": "python-dotenv",
}
OURS = {"gemma_lora", "dataset", "train", "test_finetuned", "benchmark"}

_said: set[str] = set()


class UserError(Exception):
    """Something the user can put right; shown as one line on stderr, exit status 1."""


def check(*rules: tuple[bool, str]) -> None:
    """Raise one ValueError that names every rule broken, joined by '; '."""
    problems = [message for holds, message in rules if not holds]
    if problems:
        raise ValueError("; ".join(problems))


def parse_config(
    config_class: type[Config],
    argv: Sequence[str] | None,
    doc: str | None,
    preset: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda given: {},
) -> Config:
    """Read flags into `config_class`. `preset` sees what the user gave and fills in the rest.

    A bad flag or value ends the program with one line on stderr and exit status 2; so does, with
    status 1, a missing transformers.
    """
    load_env()  # huggingface_hub reads its settings when it is imported, with transformers
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else it reports PyTorch missing
    try:
        from transformers import HfArgumentParser
    except ImportError as error:
        say_missing(error)
        raise SystemExit(1) from None

    class OneLineParser(HfArgumentParser):
        def error(self, message: str) -> Any:
            self.exit(2, f"{self.prog}: error: {message} (--help lists every flag)\n")

    parser = OneLineParser(
        config_class,  # type: ignore[arg-type]
        description=(doc or "").split("\n\n")[0],
        epilog="\n\n".join((doc or "").split("\n\n")[1:]),
        formatter_class=type(
            "Formatter",
            (argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter),
            {},
        ),
        allow_abbrev=False,
    )
    # argparse leaves attributes that exist already alone: what is still `unset` was not given.
    unset = object()
    names = [f.name for f in fields(config_class)]  # type: ignore[arg-type]
    blank = argparse.Namespace(**dict.fromkeys(names, unset))
    given = {k: v for k, v in vars(parser.parse_args(argv, blank)).items() if v is not unset}
    try:
        return config_class(**{**preset(given), **given})
    except ValueError as error:
        return parser.error(str(error))


def flags_of(config: Any) -> list[str]:
    """The flags that make `parse_config` give an equal config; a field that is None is left out."""
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def run_script(action: Callable[[], Any]) -> int:
    """Run `action`; a user's mistake becomes one line and status 1, Ctrl-C status 130."""
    name = Path(sys.argv[0]).name
    if line := untried_line():
        print(line, file=sys.stderr)
    try:
        action()
    except UserError as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except ImportError as error:
        say_missing(error)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) went away: nothing is wrong
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the process ends
        return 0
    return 0


def say_missing(error: ImportError) -> None:
    """Say in one line which library to install; raises the error again when it is none's.

    A library that is there and lacks a name is of another version than the one tried.
    """
    package = (error.name or "").split(".")[0]
    if not package or package in OURS or package in sys.stdlib_module_names:
        raise error
    wanted = INSTALL.get(package, package)
    tried = package.replace("_", "-")
    if not isinstance(error, ModuleNotFoundError) and tried in TRIED:
        wanted = f"{tried}=={TRIED[tried]}"
    name = Path(sys.argv[0]).name
    print(f"{name}: error: {error}; run: pip install {wanted}", file=sys.stderr)


def load_env() -> None:
    """Read .env and hand the hub token on under the name that huggingface_hub reads.

    huggingface_hub 2.4 knows HF_TOKEN and HUGGING_FACE_HUB_TOKEN, not HUGGINGFACE_HUB_TOKEN.
    """
    with contextlib.suppress(ImportError):
        from dotenv import load_dotenv

        load_dotenv(Path.cwd() / ".env")
    token = os.environ.get("HUGGINGFACE_HUB_TOKEN")
    if token and not os.environ.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = token
    if not os.environ.get("HF_TOKEN"):
        os.environ.pop("HF_TOKEN", None)  # an empty one makes an illegal request header
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if os.environ.pop("HF_HUB_ENABLE_HF_TRANSFER", None) == "1":  # only warns today
        os.environ.setdefault("HF_XET_HIGH_PERFORMANCE", "1")
    # Its retries are not news, but a wait for the hub's limit can take minutes.
    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub.utils._http").addFilter(
        lambda record: "Rate limited" in record.getMessage()
    )


def optional(module: str, package: str, costs: str) -> Any | None:
    """Import an optional library; without it, say once what is missing and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        say_once(package, f"no {costs}: pip install {package}")
        return None


def say_once(missing: str, note: str) -> None:
    """Say on stderr what it costs that something is missing and how to get it; of each once."""
    if missing not in _said:
        print(note, file=sys.stderr)
        _said.add(missing)
