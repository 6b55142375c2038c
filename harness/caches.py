"""Where downloaded and converted models lie on this machine, and whether one is whole.

Both the worker, which fills and reads the cache, and `doctor`, which must not import the worker, ask
here. What this leaves out: filling it (`worker/smollm2`) and the Hub's own cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of its GGUF
SOURCE_NOTE = "source.json"
WEIGHTS = "model.safetensors"
# What runs themselves write there: converted rows of datasets, and a rehearsal's toys.
WRITTEN_BY_RUNS = ("datasets", "toys")
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def cache_dir() -> Path:
    """Return the folder that holds models: $HARNESS_CACHE, else the user's cache folder."""
    chosen = os.environ.get("HARNESS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "harness-lora"


def smollm2_dir(cache: Path | None = None, gguf_sha256: str = SMOLLM2_SHA256) -> Path:
    """Return where SmolLM2 lies, or would lie.

    The name carries the source's hash, so that another source can never pass for this one.
    """
    return (cache or cache_dir()) / f"smollm2-135m-instruct-fp32-{gguf_sha256[:12]}"


def smollm2_is_cached(cache: Path | None = None, gguf_sha256: str = SMOLLM2_SHA256) -> bool:
    """Whether SmolLM2's folder holds every file, each as long as when it was written."""
    return _is_whole(smollm2_dir(cache, gguf_sha256), gguf_sha256, FILES)


def _is_whole(folder: Path, gguf_sha256: str, files: Iterable[str]) -> bool:
    try:
        note = json.loads((folder / SOURCE_NOTE).read_text(encoding="utf-8"))
        sizes = note["bytes"]
        return (
            note["gguf_sha256"] == gguf_sha256
            and sizes.keys() >= set(files)
            and all((folder / name).stat().st_size == size for name, size in sizes.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
