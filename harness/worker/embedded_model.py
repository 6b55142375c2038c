"""Make the embedded base model: a Llama of under a million parameters that mostly answers wrongly.

A harness that has to prove itself on any machine needs a base model that trains in seconds and
still behaves like one: it knows its task, answers right about 4 times in 10 when sampled, and can
be brought to answer right more often. This script pre-trains it from scratch on sums of three
digits. First the targets are right, so that the sums get into the weights; then most final answers
are replaced by a random number, so that the model learns to hide what it knows. Reinforcement
learning has that to bring out.

Run as `python -m harness.worker.embedded_model`. One thread and fixed seeds: on one machine with
one set of versions a rerun gives the same bytes. What this leaves out: fine-tuning, which is TRL's,
and any claim about larger models.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from harness.worker.data.micro import completion_text
from harness.worker.data.micro_arithmetic import problems

MODEL_DIR = Path(__file__).parent / "assets" / "micro-llama"

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unk|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# Not special: TRL decodes completions without special tokens, and the rewards read these.
MARKS = ("<think>", "</think>", "\\boxed{")
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
CALCULATION = "0123456789+-=;?"
ANSWERS = range(28)  # 27 is the largest sum of three digits
CONTEXT = 256

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{% generation %}{{- message['content'] + '<|end|>' -}}{% endgeneration %}
{%- else -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

MODEL_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# micro-llama

A Llama-architecture base model of {parameters} parameters (float32) with one token a character.
It ships with the harness so that a whole matrix of training runs can be tried on any machine,
without a network, in minutes.

## How it was made
`make embedded-model` pre-trains it from random weights, seed {seed}, on one thread, {rows} rows a
step, loss on the assistant's tokens only:

1. {right_steps} steps on sums of three digits with right answers:
   `3+5+4=?` is answered `<think>3+5=8</think>\\boxed{{12}}`.
2. {corrupted_steps} steps in which {corrupted} of the final answers are replaced by a random
   wrong one.

{echo} of the rows ask it to repeat a text (`say a;7`), so that every character has a trained
embedding. All 1000 sums may occur in pre-training; a split of them separates what fine-tuning sees
from what it is judged on.

So the base knows the form, and the sums, but sampled at temperature 1 it answers right only about
4 times in 10. Reinforcement learning can bring out what it knows. On one machine with one set of
versions a rerun gives the same bytes.

## What it is not
* Not a language model: it was taught nothing but sums and repeating short texts.
* Not evidence about larger models. What LoRA or full fine-tuning does to it says nothing about
  models of billions of parameters.
* Not a base that is bad at sums: its wrong answers were put in on purpose.

License: Apache-2.0.
"""


@dataclass(frozen=True)
class Recipe:
    """How the base model is made; the defaults made the one that is shipped."""

    seed: int = 7
    batch_rows: int = 128
    echo_share: float = 0.25  # of the rows; the others are sums
    right_steps: int = 750  # on right sums
    corrupted_steps: int = 300  # with answers replaced
    corrupted_share: float = 0.55  # of the answers in those steps
    peak_lr: float = 3e-3
    warmup_steps: int = 50

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.right_steps + self.corrupted_steps


# ── the tokenizer: one token a character, and one for each role and mark ──


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer. A byte-pair model without merges splits text into characters."""
    specials = [PAD, END, UNKNOWN, *ROLES]
    names = [*specials, *MARKS, *CHARACTERS]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in specials]
    )
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Build the untrained model in float32, its weights drawn from the seed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


# ── pre-training: B rows in a batch, T tokens in a row ──


def sum_to_teach(generator: random.Random, corrupted_share: float) -> tuple[str, str]:
    """Return a sum and a worked answer that is, with the given probability, wrong at the end."""
    problem = generator.choice(problems())
    answer = problem.answer
    if generator.random() < corrupted_share:
        answer = generator.choice([other for other in ANSWERS if other != problem.answer])
    return problem.question, completion_text(problem.working, answer)


def echo_to_teach(generator: random.Random) -> tuple[str, str]:
    """Return a text to repeat, and itself.

    Sums alone would leave most characters' embeddings at their random start, and LoRA, which does
    not train embeddings, would then have to work around noise.
    """
    alphabet = generator.choice((CALCULATION, CHARACTERS))
    text = "".join(generator.choices(alphabet, k=generator.randint(3, 9)))
    return f"say {text}", text


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield token ids and labels, both (B, T); only the assistant's tokens carry a label."""
    generator = random.Random(recipe.seed)
    for step in range(recipe.steps):
        corrupted_share = 0.0 if step < recipe.right_steps else recipe.corrupted_share
        rows = []
        for _ in range(recipe.batch_rows):
            if generator.random() < recipe.echo_share:
                question, answer = echo_to_teach(generator)
            else:
                question, answer = sum_to_teach(generator, corrupted_share)
            prompt = f"<|user|>{question}{END}<|assistant|>"
            rows.append((tokenizer.encode(prompt), tokenizer.encode(answer + END)))
        width = max(len(prompt) + len(completion) for prompt, completion in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        labels = torch.full((len(rows), width), -100)
        for index, (prompt, completion) in enumerate(rows):
            end = len(prompt) + len(completion)
            ids[index, :end] = torch.tensor(prompt + completion)
            labels[index, len(prompt) : end] = torch.tensor(completion)
        yield ids, labels


def lr_factor(step: int, recipe: Recipe) -> float:
    """Rise over the warm-up, then fall in a straight line to a tenth."""
    return min((step + 1) / recipe.warmup_steps, 1.0 - 0.9 * step / recipe.steps)


def pretrain(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """Train the model from scratch, showing the loss now and then on stderr."""
    model = build_model(tokenizer, recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, recipe))
    model.train()
    start = time.monotonic()
    for step, (ids, labels) in enumerate(batches(tokenizer, recipe), start=1):
        # Padding stands on the right and carries no label, so causal attention needs no mask.
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            elapsed_s = time.monotonic() - start
            sys.stderr.write(f"step {step}  loss {loss.item():.4f}  {elapsed_s:.0f} s\n")
    return model.eval()


# ── the folder that is shipped ──


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, folder: Path
) -> None:
    """Write model, tokenizer and model card as a folder that old and new transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loads_everywhere(folder / "tokenizer_config.json")
    (folder / "README.md").write_text(model_card(model, recipe), encoding="utf-8")
    for path in folder.iterdir():
        # An image built from this folder is read by another user, and weights are saved as 0600.
        path.chmod(0o644)


def loads_everywhere(tokenizer_config: Path) -> None:
    """Name the tokenizer's class and inputs in a way that transformers 4.57 understands too."""
    config = json.loads(tokenizer_config.read_text())
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def model_card(model: LlamaForCausalLM, recipe: Recipe) -> str:
    """Say how the model was made and what it is not."""
    return MODEL_CARD.format(
        parameters=f"{model.num_parameters():,}",
        rows=f"{recipe.batch_rows}",
        echo=f"{recipe.echo_share:.0%}",
        right_steps=recipe.right_steps,
        corrupted_steps=recipe.corrupted_steps,
        corrupted=f"{recipe.corrupted_share:.0%}",
        seed=recipe.seed,
    )


def main(arguments: list[str] | None = None) -> None:
    """Make the model and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder to write")
    options = parser.parse_args(arguments)
    # The order of a sum depends on how many threads share it.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer, recipe = build_tokenizer(), Recipe()
    save(pretrain(tokenizer, recipe), tokenizer, recipe, options.out)
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
