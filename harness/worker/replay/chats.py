"""Chat templates and tokenisation: what the corpus's conversations and pairs become.

The embedded tokenizer's own template and the harness's two are those that runs go through. The templates
that TRL ships are rendered too, as text: the embedded tokenizer has no tokens for them.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from harness.worker.models import locate
from harness.worker.replay.corpus import Corpus
from harness.worker.replay.items import Items, digest
from harness.worker.templates import TEMPLATES, apply_template, pin_date

MODEL = "embedded:micro-llama"
Message = dict[str, str]
SUFFIX = "_chat_template"
MARK = "generation"


def replay_chats(items: Items, corpus: Corpus) -> None:
    """Render and tokenise every conversation."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MODEL))
    _render_own(items, corpus, tokenizer)
    _tokenize(items, corpus, tokenizer)
    _convert_rows(items, corpus, tokenizer)
    _render_shipped(items, corpus, tokenizer)
    _clone(items, tokenizer)


def _render_own(items: Items, corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> None:
    own = {"micro-llama": tokenizer}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        own[path.stem] = copy.deepcopy(tokenizer)
        apply_template(own[path.stem], path.stem)
    for template, holder in own.items():
        for name, messages in corpus.chats.items():
            group = f"template/{template}"
            items.call(f"{group}/{name}", _rendered(holder, messages))
            items.call(f"{group}/{name}/open", _rendered(holder, messages, is_open=True))
            items.call(f"{group}/{name}/ids", _ids(holder, messages))
            items.call(f"{group}/{name}/answers", _answers(holder, messages))


def _rendered(
    tokenizer: Any, messages: list[Message], is_open: bool = False
) -> Callable[[], object]:
    return lambda: tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=is_open
    )


def _ids(tokenizer: Any, messages: list[Message]) -> Callable[[], object]:
    """Token ids; asked for in a mapping, as transformers 4 and 5 give different things without."""
    return lambda: tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def _answers(tokenizer: Any, messages: list[Message]) -> Callable[[], object]:
    """The mask of what the assistant wrote, which `assistant_only_loss` trains on."""
    return lambda: tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]


def _tokenize(items: Items, corpus: Corpus, tokenizer: Any) -> None:
    for name, messages in corpus.chats.items():
        text = messages[-1]["content"]
        items.call(f"token/ids/{name}", lambda text=text: tokenizer(text)["input_ids"])
    texts = [row.completion for row in corpus.scored]
    items.call("token/batch/completions", lambda: tokenizer(texts)["input_ids"])
    items.call(
        "token/batch/there-and-back",
        lambda: tokenizer.batch_decode(tokenizer(texts)["input_ids"], skip_special_tokens=True),
    )
    some = [messages[-1]["content"] for messages in corpus.chats.values()][:6]
    for side in ("left", "right"):
        items.call(f"token/batch/padded-{side}", lambda side=side: _padded(tokenizer, some, side))
        items.call(f"token/batch/cut-{side}", lambda side=side: _cut(tokenizer, some, side))
    for name in ("eos_token_id", "pad_token_id", "bos_token_id", "model_max_length"):
        items.call(f"token/facts/{name}", lambda name=name: getattr(tokenizer, name))
    items.call("token/facts/vocabulary", lambda: sorted(tokenizer.get_vocab().items()))


def _padded(tokenizer: Any, texts: list[str], side: str) -> object:
    batch = tokenizer(texts, padding=True, padding_side=side)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _cut(tokenizer: Any, texts: list[str], side: str) -> object:
    cutter = copy.deepcopy(tokenizer)
    cutter.truncation_side = side
    return cutter(texts, truncation=True, max_length=8)["input_ids"]


def _convert_rows(items: Items, corpus: Corpus, tokenizer: Any) -> None:
    """TRL's helpers for rows, on conversations in their several forms."""
    forms = _forms(corpus)
    for name in ("apply_chat_template", "maybe_apply_chat_template"):
        if function := items.find(f"trl.data_utils:{name}"):
            for form, row in forms.items():
                items.call(
                    f"data/{name}/{form}",
                    lambda function=function, row=row: function(copy.deepcopy(row), tokenizer),
                )
    forms |= {"text": {"prompt": "1+2=", "completion": "3"}, **_old_forms(corpus)}
    for name in ("is_conversational", "is_conversational_from_value", "maybe_convert_to_chatml"):
        if function := items.find(f"trl.data_utils:{name}"):
            items.call(
                f"data/{name}/all-forms",
                lambda function=function: {f: function(copy.deepcopy(r)) for f, r in forms.items()},
            )


def _forms(corpus: Corpus) -> dict[str, dict[str, Any]]:
    """The corpus as rows of a data set: a conversation, a prompt alone, a prompt and its completion."""
    forms: dict[str, dict[str, Any]] = {
        f"messages-{name}": {"messages": messages} for name, messages in corpus.chats.items()
    }
    for name, pair in corpus.pairs.items():
        forms[f"pair-{name}"] = dict(pair)
    prompts = {"user": corpus.pairs["sum"]["prompt"], "answered": corpus.chats["answered"]}
    for name, messages in prompts.items():
        forms[f"prompt-{name}"] = {"prompt": messages}
    return forms


def _old_forms(corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Conversations in `from` and `value`, as older data sets write them."""
    return {
        f"from-value-{name}": {
            "conversations": [{"from": m["role"], "value": m["content"]} for m in messages]
        }
        for name, messages in list(corpus.chats.items())[:4]
    }


def _render_shipped(items: Items, corpus: Corpus, tokenizer: Any) -> None:
    """The templates that TRL ships, all conversations in one value: each by its name and a hash."""
    for template, text in sorted(shipped_templates().items()):
        holder = copy.deepcopy(tokenizer)
        # Any token: several templates begin with one.
        holder.bos_token = tokenizer.pad_token
        holder.chat_template = text
        pin_date(holder)
        kinds: dict[str, Callable[..., Callable[[], object]]] = {"rendered": _rendered}
        if MARK in text:
            kinds["answers"] = _answers
        for kind, make in kinds.items():
            items.put(
                f"shipped/template-{kind}/{template}",
                _join({n: _outcome(make(holder, m)) for n, m in corpus.chats.items()}),
            )
        if patch := items.find("trl.chat_template_utils:get_training_chat_template"):
            items.call(
                f"shipped/training-template/{template}",
                lambda patch=patch, holder=holder: _named(patch(holder)),
            )


def shipped_templates() -> dict[str, str]:
    """Return the templates that the installed TRL ships, by their names there."""
    try:
        module = import_module("trl.chat_template_utils")
    except ImportError:
        return {}
    return {
        name.removesuffix(SUFFIX): value
        for name, value in vars(module).items()
        if name.endswith(SUFFIX) and isinstance(value, str)
    }


def _named(template: str | None) -> str | None:
    known = {text: name for name, text in shipped_templates().items()}
    return template if template is None else known.get(template, template)


def _outcome(function: Callable[[], object]) -> str:
    try:
        return digest(str(function()))[:6]
    except Exception as error:  # noqa: BLE001 - templates refuse conversations in their own ways
        return f"raises {type(error).__name__}"


def _join(outcomes: Mapping[str, str]) -> str:
    """Write a hash of all outcomes, and how many conversations a template refuses."""
    refused = sum(text.startswith("raises") for text in outcomes.values())
    whole = digest(" ".join(f"{name}:{text}" for name, text in outcomes.items()))
    return f"{len(outcomes)} conversations, {refused} refused, sha256 {whole}"


def _clone(items: Items, tokenizer: Any) -> None:
    """Give the embedded model another tokenizer's template and one token more."""
    clone = items.find("trl:clone_chat_template", "trl.chat_template_utils:clone_chat_template")
    if clone is None:
        return
    source, target = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    apply_template(source, "plain")
    source.add_tokens(["<|extra|>"])
    model = AutoModelForCausalLM.from_pretrained(locate(MODEL), use_safetensors=True)
    with tempfile.TemporaryDirectory() as folder:
        source.save_pretrained(folder)
        items.call(
            "data/clone_chat_template/added", lambda: clone(model, target, str(Path(folder)))[2]
        )
    items.call("data/clone_chat_template/template", lambda: target.chat_template)
    items.call("data/clone_chat_template/rows", lambda: model.get_input_embeddings().num_embeddings)
    items.call("data/clone_chat_template/end", lambda: model.generation_config.eos_token_id)
