"""Fixtures that every test file shares: a tiny real model, data prepared for it, an adapter.

The model is a real 2-layer gemma3_text of about 370 KB with random weights and a byte-level
tokenizer that has Gemma's special tokens under Gemma's ids, so that loading, training, saving
and generating are the real thing. What is session-scoped is read only: tests that change files
ask for the copies (`adapter_copy`, `data_copy`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # tiny matrices: threads only wait
    os.environ.setdefault(variable, "1")

import train  # noqa: E402
from gemma_lora import device, prompts  # noqa: E402
from gemma_lora.database_files import read_only  # noqa: E402
from gemma_lora.models import named_arrays  # noqa: E402
from gemma_lora.questions import Question, make_questions  # noqa: E402
from gemma_lora.schema_reading import DatabaseReading, read_database  # noqa: E402

device.prepare_process()  # before anything imports mlx.core

import dataset  # noqa: E402

ROOT = Path(train.__file__).resolve().parent
TINY_SETTINGS: dict[str, Any] = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 64,
    "sliding_window_pattern": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "pad_token_id": 0,
}
SPECIAL_IDS = {
    "<pad>": 0, prompts.EOS: 1, prompts.BOS: 2, "<unk>": 3,
    prompts.START_OF_TURN: 105, prompts.END_OF_TURN: 106,
}  # fmt: skip
# The words of Gemma's template, which `render_chat` renders without a tokenizer.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set lead = messages[0]['content'] | trim + '\n\n' if messages[0]['role'] == 'system' "
    "else '' -%}"
    "{%- set turns = messages[1:] if lead else messages -%}"
    "{%- for turn in turns -%}"
    "{{ '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\n' }}"
    "{{ (lead if loop.first else '') + turn['content'] | trim + '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{{ '<start_of_turn>model\n' if add_generation_prompt else '' }}"
)
# Tables whose rows make questions whose answers are sure: (table, columns, rows).
TABLES = (
    ("pets", "name TEXT, age INT", (("Rex", 3), ("Tom", 5), ("Ada", 9))),
    ("cars", "maker TEXT, price INT", (("Fiat", 9), ("Audi", 30), ("Opel", 12))),
    ("towns", "town TEXT, people INT", (("Ulm", 126), ("Jena", 110), ("Bonn", 330))),
    ("books", "title TEXT, pages INT", (("Emma", 474), ("Ivanhoe", 519), ("Kim", 368))),
    ("teas", "sort TEXT, grams INT", (("Assam", 100), ("Sencha", 50), ("Oolong", 75))),
    ("ships", "ship TEXT, crew INT", (("Argo", 50), ("Beagle", 74), ("Fram", 13))),
    ("lakes", "lake TEXT, depth INT", (("Como", 425), ("Garda", 346), ("Iseo", 251))),
    ("songs", "song TEXT, seconds INT", (("Help", 139), ("Yesterday", 125), ("Girl", 150))),
    ("trees", "tree TEXT, height INT", (("Oak", 30), ("Elm", 28), ("Fir", 55))),
    ("staff", "person TEXT, salary INT", (("Bo", 1200), ("Li", 3400), ("Max", 2100))),
)


def tiny_tokenizer() -> Any:
    """A byte-level tokenizer with Gemma's special tokens under Gemma's ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = dict(SPECIAL_IDS)
    free = (i for i in range(1000) if i not in set(SPECIAL_IDS.values()))
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = next(free)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_IDS]
    )
    # As Gemma's: asked to add special tokens, it puts a <bos> in front of the one in the text.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{prompts.BOS} $A", special_tokens=[(prompts.BOS, SPECIAL_IDS[prompts.BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=prompts.BOS, eos_token=prompts.EOS,
        pad_token="<pad>", unk_token="<unk>", chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_tiny_model(folder: Path, seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """Write a tiny gemma3_text model with random weights; `changes` go over TINY_SETTINGS."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.models.gemma3_text import Model, ModelArgs

    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    settings = TINY_SETTINGS | {"vocab_size": len(tokenizer)} | changes
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(settings))
    model.pop("lm_head")
    model.tie_word_embeddings = True
    # Norms that differ from the identity, so that forgetting one would be noticed.
    weights = tree_map(
        lambda w: w if w.ndim > 1 else 0.1 * mx.random.normal(w.shape), model.parameters()
    )
    model.update(weights)
    model.set_dtype(getattr(mx, dtype))
    mx.save_safetensors(
        str(folder / "model.safetensors"), named_arrays(model.parameters()), {"format": "mlx"}
    )
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    return folder


def made_up_rows() -> list[dict[str, str]]:
    """70 text-to-SQL rows over ten schemas, in gretel's columns; every answer returns rows."""
    rows = []
    for table, columns, values in TABLES:
        text, number = (column.split()[0] for column in columns.split(", "))
        literals = ", ".join(f"('{a}', {b})" for a, b in values)
        context = f"CREATE TABLE {table} ({columns}); INSERT INTO {table} VALUES {literals};"
        (first, low), *_ = values
        for question, sql in (
            (f"How many {table}?", f"SELECT COUNT(*) FROM {table}"),
            (f"Sum of {number} in {table}?", f"SELECT SUM({number}) FROM {table}"),
            (f"Largest {number} of {table}?", f"SELECT MAX({number}) FROM {table}"),
            (f"List each {text}, sorted.", f"SELECT {text} FROM {table} ORDER BY {text}"),
            (f"The {number} of {first}?", f"SELECT {number} FROM {table} WHERE {text} = '{first}'"),
            (
                f"Which {text} has {number} of {low} or more?",
                f"SELECT {text} FROM {table} WHERE {number} >= {low} ORDER BY {number} DESC",
            ),
            (f"Everything about {table} by {number}.", f"SELECT * FROM {table} ORDER BY {number}"),
        ):
            rows.append({"sql_prompt": question, "sql": sql, "sql_context": context,
                         "sql_complexity": "basic SQL", "domain": table})  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model (read only)."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Folder that dataset.prepare wrote from the made-up rows (read only)."""
    folder = tmp_path_factory.mktemp("data")
    source = folder / "made_up.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in made_up_rows()))
    config = dataset.DatasetConfig(
        dataset_name=str(source), output_dir=folder / "data", model=str(tiny_model), workers=1,
        valid_fraction=0.15, test_fraction=0.15, seed=1,
    )  # fmt: skip
    dataset.prepare(config)
    return config.output_dir


def tiny_config(model: Path, data: Path, adapter: Path, **changes: Any) -> train.TrainingConfig:
    """Settings of a run of a second or so on the tiny model."""
    settings: dict[str, Any] = {
        "model": str(model), "data": data, "adapter_path": adapter, "iters": 10, "batch_size": 4,
        "num_layers": 2, "rank": 4, "learning_rate": 5e-3, "warmup": 2, "steps_per_eval": 5,
        "save_every": 5,
    }  # fmt: skip
    return train.TrainingConfig(**(settings | changes))


@pytest.fixture(scope="session")
def tiny_adapter(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path
) -> Path:
    """Folder that train.train wrote in 10 steps on the tiny model and data (read only)."""
    folder = tmp_path_factory.mktemp("adapter") / "checkpoints"
    train.train(tiny_config(tiny_model, tiny_data, folder))
    return folder


@pytest.fixture
def data_copy(tmp_path: Path, tiny_data: Path) -> Path:
    """A copy of `tiny_data` that a test may change."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def adapter_copy(tmp_path: Path, tiny_adapter: Path) -> Path:
    """A copy of `tiny_adapter` that a test may change."""
    return Path(shutil.copytree(tiny_adapter, tmp_path / "checkpoints"))


@pytest.fixture(scope="session")
def eager() -> Iterator[None]:
    """MLX without compilation, as load_base leaves it on a CPU."""
    import mlx.core as mx

    mx.disable_compile()
    yield


def script_command(script: str, *flags: object) -> list[str]:
    """The command line of one of the four scripts."""
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def run_command(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture what it says; `env` adds to this process's."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        list(command), env={**os.environ, **(env or {})}, cwd=cwd, timeout=timeout, text=True,
        capture_output=True, **given,
    )  # fmt: skip


def run_script(script: str, *flags: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the four scripts with flags; `how` goes to `run_command`."""
    return run_command(script_command(script, *flags), **how)


def one_line_error(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """Check that a script failed with one line on stderr and no traceback; returns the line."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr.strip()


@pytest.fixture
def script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_script` as a fixture, for files that import nothing from here."""
    return run_script


@pytest.fixture(scope="module")
def reading(file: Path) -> DatabaseReading:
    """How the database of a test file's own fixture `file` is read."""
    return read_database(file)


def questions_of(path: Path, wanted: int, seed: int) -> list[Question]:
    """Questions made from a database."""
    with read_only(path) as connection:
        return list(make_questions(connection, read_database(path), wanted, seed))
