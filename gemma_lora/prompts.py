"""The rendering rule and the prompts: the only place that spells a control token.

    <bos><start_of_turn>user
    {prompt}<end_of_turn>
    <start_of_turn>model
    {response}<end_of_turn><eos>

Text is rendered first and tokenized with `add_special_tokens=False`: Gemma's tokenizer would put
a second <bos> in front.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

BOS, EOS = "<bos>", "<eos>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
STOP_TOKENS = (EOS, END_OF_TURN)  # id 107, the newline after a turn, is not one of them
# Text from outside that spells one of these would become the real control token.
SPECIAL_TOKEN = re.compile(
    r"<(?=(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|image)|image_soft_token|unused\d+)>)"
)
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def neutralize(text: str) -> str:
    """Break up control tokens spelt in user text ('<start_of_turn>' -> '< start_of_turn>')."""
    return SPECIAL_TOKEN.sub("< ", text)


def render_chat(turns: Sequence[tuple[str, str]], system: str | None = None) -> str:
    """Render turns (('user', text), ('model', text), ...) up to where the model speaks next.

    Gemma has no system role: system text leads the first user turn, followed by a blank line.
    Content is trimmed and turns are separated as in the model's own chat template, so that both
    give the same ids (a test compares them).
    """
    text = BOS
    for index, (role, content) in enumerate(turns):
        lead = f"{neutralize(system).strip()}\n\n" if system and index == 0 else ""
        body = f"{lead}{neutralize(content).strip()}"
        text += f"{START_OF_TURN}{role}\n{body}{END_OF_TURN}\n"
    return f"{text}{START_OF_TURN}model\n"


def render_prompt(prompt: str, system: str | None = None) -> str:
    """Render one user turn and open the model's turn."""
    return render_chat([("user", prompt)], system)


def render_example(prompt: str, completion: str) -> str:
    """Render a whole training example; its ids begin with the ids of `render_prompt(prompt)`."""
    return f"{render_prompt(prompt)}{neutralize(completion).strip()}{END_OF_TURN}{EOS}"


def sql_prompt(question: str, schema: str | None, twice: bool = True) -> str:
    """The user turn of a text-to-SQL example: the schema between the question and the question.

    A causal model reads a schema without what comes after it; with the question ahead of it too it
    knows what to look for (re-reading: Xu et al., arXiv:2309.06275). `twice=False`: as adapters of
    before were trained. Without a schema the question stands alone.
    """
    if not (schema and schema.strip()):
        return f"Write a SQLite query that answers the question.\n\nQuestion: {question}"
    ahead = f"question: {question}" if twice else "question."
    return (
        f"Write a SQLite query that answers the {ahead}\n\nSchema:\n{schema.strip()}"
        f"\n\nQuestion: {question}"
    )


def values_prompt(question: str, lines: str) -> str:
    """The same where the prompt says in which columns the texts stand that the question names."""
    values = f"Values:\n{lines}\n\n" if lines else ""
    return f"Write a SQLite query that answers the question.\n\n{values}Question: {question}"


def alpaca_prompt(instruction: str, input: str | None = None) -> str:
    """The user turn of an instruction example."""
    return f"{instruction}\n\n{input}" if input and input.strip() else instruction


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text. It holds its own <bos>; the tokenizer must not add a second."""
    return list(tokenizer.encode(text, add_special_tokens=False))
