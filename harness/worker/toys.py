"""Toy models for a rehearsal: a catalogued architecture with random weights and a byte tokenizer.

Why: what breaks when TRL, transformers or PEFT changes breaks on a toy as well, in seconds and
without a download. A toy is written to the cache as a real repository looks (config.json, safetensors,
tokenizer files), so that the real loading code reads it. Its tokenizer has a token per byte, so it
takes any text; a base model's has no chat template, as the real one's.

What this leaves out: anything that a real tokenizer or a real checkpoint could break.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from harness.caches import cache_dir
from harness.catalog import MODELS, ModelFacts
from harness.errors import ConfigError, MachineError, did_you_mean
from harness.worker.architectures import toy_config

RECIPE = 1  # counts up when a toy of the same name becomes another
END, TURN_BEGIN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def locate(repository: str) -> Path:
    """Return the folder of a repository's toy, made now if it is not there.

    Raises: ConfigError if the catalog does not know the repository; MachineError if it can't be kept.
    """
    facts = MODELS.get(repository)
    if facts is None:
        raise ConfigError(
            f"there is no toy of {repository!r}{did_you_mean(repository, MODELS)}; expected one of "
            + ", ".join(MODELS)
        )
    # A folder that another transformers wrote may not be readable by this one.
    made_of = f"{RECIPE} {transformers.__version__} {facts.model_dump_json()}"
    name = f"{repository.replace('/', '--')}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    folder = cache_dir() / "toys" / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as scratch:
            whole = Path(scratch) / name
            write(facts, whole)
            _move(whole, folder)
    except OSError as error:
        raise MachineError(
            f"a toy model can't be kept in {folder.parent}: {error.strerror or error}; name a "
            "writable folder with HARNESS_CACHE"
        ) from error
    return folder


def write(facts: ModelFacts, folder: Path) -> None:
    """Write a toy as a repository: always the same bytes."""
    tokenizer = byte_tokenizer(has_template=not facts.is_base)
    config = toy_config(facts, len(tokenizer))
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer(*, has_template: bool) -> PreTrainedTokenizerFast:
    """Build a tokenizer with a token per byte and three special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken(t, special=True) for t in (END, TURN_BEGIN, TURN_END)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built,
        eos_token=TURN_END if has_template else END,
        pad_token=END,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    if has_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _move(whole: Path, folder: Path) -> None:
    """Rename a finished folder to its name; another process may have been first."""
    try:
        whole.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(whole, ignore_errors=True)
