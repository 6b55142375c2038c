"""Chat templates of the harness's own, for base models that were never taught a chat.

Both are plain text: no token that a base model has never seen, but for the end-of-sequence token
after an answer, which is how a base ends a text (and its beginning-of-sequence token, where it has
one, since a template's text is fed without adding any).

* `plain`: `Question: …` and `Answer: …`.
* `reasoning`: says that the assistant first thinks in <think> tags and then boxes its answer, and opens its
  turn with `<think>`, as R1-Zero's prompt does. TRL's `reasoning_accuracy_reward` gives 0 to a completion
  without `</think>`, and an untold base model writes none.

An answer stands between generation marks, so `assistant_only_loss` finds it. Text that ends a prompt
is the start of what stands there in a conversation: `Answer:`, and for a turn that begins with
<think> `Assistant: <think>`. So TRL's prompt-completion rows split where the prompt ends.
"""

from __future__ import annotations

import re
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from harness.errors import ConfigError, did_you_mean

# What a turn of the user begins with: text that a base model writes when it goes on by itself.
NEXT_TURN = {"plain": "\n\nQuestion:", "reasoning": "\n\nUser:"}
DATE = "26 Jul 2024"  # what Llama's template falls back to
_TODAY = re.compile(r"strftime_now\([^)]*\)")
TEMPLATES = Path(__file__).parent / "assets" / "templates"


def template_text(name: str) -> str:
    """Return a template of the harness's own.

    Raises: ConfigError if there is none of that name.
    """
    known = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    if name not in known:
        raise ConfigError(
            f"chat template {name!r} does not exist{did_you_mean(name, known)}; expected "
            f"{', '.join(known)}, or null for the tokenizer's own"
        )
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


def apply_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give a tokenizer a template of the harness's own, in place of its own if it has one.

    Raises: ConfigError if there is no such template, or the tokenizer can't end a turn.
    """
    text = template_text(name)
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"chat template {name!r} ends a turn with the end-of-sequence token, found a tokenizer "
            "without one; set eos_token in its tokenizer_config.json"
        )
    tokenizer.chat_template = text


def pin_date(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Have a template write one fixed date where it would write today's; return what a record notes.

    Llama 3.2's and SmolLM3's templates call `strftime_now`: runs of different days, and so arms and
    releases that are compared, would read different prompts.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str) or not _TODAY.search(template):
        return []
    tokenizer.chat_template = _TODAY.sub(f'"{DATE}"', template)
    return [f"The chat template writes today's date into prompts; it is given {DATE} in every run."]


def require_template(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise ConfigError if a tokenizer has no chat template to render a conversation with."""
    if not tokenizer.chat_template:
        raise ConfigError(
            f"model {source!r} has no chat template, as base models don't; its rows are "
            "conversations: set chat_template to 'plain' or 'reasoning' in the pair's model"
        )
