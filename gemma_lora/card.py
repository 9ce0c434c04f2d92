"""The model card: what is published about an adapter, in the words of the hub's own classes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

from gemma_lora.adapters import HUB_ID, AdapterConfig, hub_model
from gemma_lora.benchmark_report import BenchmarkResult, Quality, benchmark_markdown
from gemma_lora.cli import UserError
from gemma_lora.figures import EVALUATION_FORMAT, TUNED, EvaluationReport, Summary
from gemma_lora.files import sha256_of
from gemma_lora.prompts import BOS, render_prompt, sql_prompt
from gemma_lora.report import (
    SQL_COLUMNS,
    TEXT_COLUMNS,
    markdown_table,
    summary_cells,
    summary_notes,
)
from gemma_lora.splits import Manifest, form_of
from gemma_lora.statistics import Figure

# By type of data: what the adapter is for, what it does, what its reader should mind.
CARD_WORDS = {
    "sql": (
        "write SQL",
        "writes SQLite queries from a question and a schema",
        "Try a query read-only before it runs on data that matter.",
    ),
    "alpaca": ("follow instructions", "follows instructions", "Check facts."),
}
UNKNOWN_BASE = "PATH_OF_THE_BASE_MODEL"
CARD_MARK = "<!-- written by benchmark.py; without this line the file is left alone -->"


def read_evaluation(folder: Path) -> tuple[EvaluationReport | None, str | None]:
    """(evaluation.json of the folder's very adapter, in words why the one there is left out)."""
    path, again = folder / "evaluation.json", "left out; run test_finetuned.py again"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"{path} cannot be read ({error}): {again}"
    found = report.get("format", 1) if isinstance(report, dict) else "unknown"
    if found != EVALUATION_FORMAT:
        return None, f"{path} has format {found}, not {EVALUATION_FORMAT}: {again}"
    try:
        same = report["run"]["adapter"]["sha256"] == sha256_of(folder / "adapters.safetensors")
        if same and report["summary"]["models"]:
            return report, None
    except (KeyError, TypeError):
        return None, f"{path} is damaged: {again}"
    return None, f"{path} was made with other weights than adapters.safetensors: {again}"


class CardScores(NamedTuple):
    """The scores that the card shows, and of which rows they are."""

    summary: Summary
    split: str
    rows: str  # in words


def card_scores(quality: Quality, scored: EvaluationReport | None) -> CardScores:
    """The evaluation's scores where there are some, else those of the benchmark's few rows."""
    if scored is None or scored["summary"] is None:
        rows = f"only {quality['n']} rows of the validation split, which chose the checkpoint"
        return CardScores(quality["evaluation"], quality["split"], rows)
    run = scored["run"]
    rows = f"{run['n']} rows of the {run['split']} split, seed {run['seed']}"
    return CardScores(scored["summary"], str(run["split"]), rows)


def card_metrics(
    quality: Quality, config: AdapterConfig, scores: CardScores, source: str | None
) -> list[Any]:
    """The card's metrics as the hub's own class holds them."""
    from huggingface_hub import EvalResult

    kind = config["dataset_type"]
    about: dict[str, Any] = {
        "task_type": "text-generation",
        "task_name": "text to SQL" if kind == "sql" else "instruction following",
        "dataset_type": source or "custom",
        "dataset_name": source or f"{kind} rows prepared by dataset.py",
    }
    figures = cast("dict[str, Figure]", scores.summary["models"].get(TUNED, {}))
    keys = (
        "test_suite_accuracy", "execution_accuracy", "exact_match", "valid_sql_rate", "perplexity",
        "rouge_l",
    )  # fmt: skip
    columns = {**SQL_COLUMNS, **TEXT_COLUMNS}
    found = [
        EvalResult(
            **about, dataset_split=scores.split, metric_type=key,
            metric_value=round(share["value"], 4), metric_name=f"{columns[key]} (n = {share['n']})",
        )
        for key in keys
        if (share := figures.get(key)) and share["value"] is not None
    ]  # fmt: skip
    loss, n = config.get("best_val_loss"), ""
    if loss is None:
        loss, n = quality["val_loss"][TUNED], f" (n = {quality['n']})"
    found.append(
        EvalResult(
            **about, dataset_split="valid", metric_type="loss", metric_value=round(loss, 4),
            metric_name=f"validation loss{n}",
        )
    )  # fmt: skip
    return found


def training_section(config: AdapterConfig, folder: Path) -> str:
    """How the adapter was trained, from adapter_config.json."""
    lora = config.get("lora_parameters") or {}
    how = f"{config['fine_tune_type']} adapter, rank {lora.get('rank')}, scale {lora.get('scale')}"
    if config["fine_tune_type"] == "full":
        how = "all weights"
    losses = [
        f"{label} {loss:.4f}"
        for loss, label in (
            (config.get("base_val_loss"), "before"),
            (config.get("best_val_loss"), "at the best step"),
        )
        if isinstance(loss, float)
    ]
    lines = [
        f"{how}, on {config['num_layers']} layers",
        f"{config.get('trained_steps', '?')} steps, best at step {config.get('best_step', '?')}; "
        f"sequences of at most {config.get('max_seq_length', '?')} tokens; "
        f"seed {config.get('seed', '?')}",
        f"validation loss in nats per token: {', '.join(losses) or 'not recorded'}",
        f"versions: {', '.join(f'{k} {v}' for k, v in config.get('versions', {}).items())}",
    ]
    if config["model"] == "packaged":
        lines.append("the base's weights were restored from a Q4_K_M quantization of it")
    curve = "\n\n![loss curve](loss_curve.png)" if (folder / "loss_curve.png").exists() else ""
    return (
        "\n".join(f"- {line}" for line in lines) + "\n\nEvery setting and the data's hashes are in "
        "`training_config.txt`, each step in `metrics.jsonl`." + curve
    )


def model_flag(config: AdapterConfig) -> str:
    """The base as mlx-lm's programs are told it; of a quantized one, what `usage_section` makes."""
    bits = config.get("quantize")
    return f"base-{bits}bit" if bits else hub_model(config) or UNKNOWN_BASE


def usage_section(config: AdapterConfig) -> str:
    """Commands that answer a prompt with the adapter.

    The prompt is rendered: a base that was never tuned to chat has no template to do it. mlx-lm
    puts the <bos> in front. An adapter of a quantized base wants it quantized in the same way.
    """
    pets, bits = "CREATE TABLE pets (name TEXT, age INT);", config.get("quantize")
    sql = config["dataset_type"] == "sql"
    asked = sql_prompt("How many pets are there?", pets, form_of(config).twice)
    prompt = asked if sql else "Name three plants."
    prompt = render_prompt(prompt).removeprefix(BOS)
    convert = (
        f"mlx_lm.convert --model {hub_model(config) or UNKNOWN_BASE} --mlx-path base-{bits}bit "
        f"-q --q-bits {bits}\n"
    )
    return f"""In the folder of this card:

```sh
pip install mlx-lm
{convert if bits else ""}mlx_lm.generate --model {model_flag(config)} --adapter-path . \\
  --extra-eos-token "<end_of_turn>" --ignore-chat-template --prompt {shlex.quote(prompt)}
```

An answer ends at `<end_of_turn>` or `<eos>`. The prompt is one user turn, written as above."""


def card_text(
    result: BenchmarkResult,
    config: AdapterConfig,
    scores: CardScores,
    base: str | None,
    folder: Path,
) -> str:
    """The card's text below its YAML head."""
    name = base or "Gemma 3"
    purpose, task, care = CARD_WORDS["sql" if config["dataset_type"] == "sql" else "alpaca"]
    return f"""# {name} fine-tuned to {purpose}

An MLX adapter for {name} that {task}.

## How it was trained

{training_section(config, folder)}

## Evaluation

On {scores.rows}; 95% intervals in brackets.

{markdown_table(*summary_cells(scores.summary))}

{chr(10).join(f"- {note}" for note in summary_notes(scores.summary))}

## Benchmark

{benchmark_markdown(result)}
![benchmark](benchmark.png)

## How to use

{usage_section(config)}

## Limits

- A model of 270 million parameters: it makes mistakes that larger ones do not.
- {care}
- Speeds hold for the machine named above; scores hold for rows like those scored.
- Use is subject to the Gemma terms of use (https://ai.google.dev/gemma/terms).

{CARD_MARK}
"""


def make_card(
    result: BenchmarkResult, config: AdapterConfig, manifest: Manifest, folder: Path
) -> str:
    """The model card, read back through huggingface_hub's classes; raises UserError.

    `result` must be of a comparison, for the card shows its quality.
    """
    from huggingface_hub import ModelCard, ModelCardData

    base, quality = hub_model(config), result["quality"]
    assert quality is not None, "only a comparison measures quality"
    name = manifest["source"]["name"] if "source" in manifest else ""
    source = name if HUB_ID.fullmatch(name) and not Path(name).exists() else None
    scored, left_out = read_evaluation(folder)
    if left_out:
        print(left_out, file=sys.stderr)
    scores = card_scores(quality, scored)
    sql = config["dataset_type"] == "sql"
    data = ModelCardData(
        model_name=f"{(base or 'gemma-3').split('/')[-1]}-{config['dataset_type']}",
        language="en",
        license="gemma",
        library_name="mlx",
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation="adapter" if base else None,
        datasets=[source] if source else None,
        tags=[
            "mlx",
            config["fine_tune_type"],
            "gemma3",
            "text-to-sql" if sql else "instruction-following",
        ],
        eval_results=card_metrics(quality, config, scores, source),
        ignore_metadata_errors=False,
    )
    content = f"---\n{data.to_yaml()}\n---\n\n{card_text(result, config, scores, base, folder)}"
    try:
        again: Any = ModelCard(content).data
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the model card is not valid ({error}); please report it") from None
    if len(again.eval_results or []) != len(data.eval_results or []):
        raise UserError("the model card lost metrics when read back; please report it")
    return content
