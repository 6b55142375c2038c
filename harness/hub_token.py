"""Where the token for the Hub comes from, and what is wrong with that place; never its value.

The order is huggingface_hub's (`utils/_auth.py`, 1.x): an OIDC exchange, a variable, a file. Its
`get_token` is not asked, because it may go to the network and raises where the file is a folder,
which is what Docker makes of a secret whose file is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PATH_VARIABLE = "HF_TOKEN_PATH"


@dataclass(frozen=True)
class HubToken:
    """A token's place: found, not there, or one that can't be read."""

    origin: str | None = None  # where a token was found; None is anonymous
    problem: str | None = None  # what is wrong with the place it was looked for in
    advice: str = ""
    is_fatal: bool = False  # huggingface_hub raises there, even for what needs no token
    is_odd: bool = False  # it is not one word that begins with hf_

    @property
    def is_found(self) -> bool:
        """Whether there is a token to show the Hub."""
        return self.origin is not None


def find_token(environ: Mapping[str, str] | None = None, path: Path | None = None) -> HubToken:
    """Find the token as huggingface_hub would; `path` is the file it reads where no variable is set."""
    environ = os.environ if environ is None else environ
    if environ.get("HF_OIDC_RESOURCE"):
        return HubToken("an exchange with the CI provider (HF_OIDC_RESOURCE), not made here")
    name = next((name for name in VARIABLES if environ.get(name)), None)
    token = _clean(environ[name]) if name else ""
    if token:
        return HubToken(f"the variable {name}", is_odd=_is_odd(token))
    return _in_file(path or token_path(), PATH_VARIABLE if environ.get(PATH_VARIABLE) else "")


def token_path() -> Path:
    """Return the file that huggingface_hub reads (HF_TOKEN_PATH, else in HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_TOKEN_PATH)


def _in_file(path: Path, variable: str) -> HubToken:
    named = f"{variable} names {path}" if variable else f"the token's file {path}"
    which = f"{named}, which" if variable else named
    try:
        token = _clean(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not variable:
            return HubToken()
        return HubToken(
            problem=f"{which} is not there",
            advice=f"put the token in that file, or unset {variable}",
        )
    except IsADirectoryError:
        return HubToken(
            problem=f"{which} is a folder, and every request to the Hub fails on it; Docker makes one "
            "where the file of a secret is missing",
            advice="remove that folder on the host (`rmdir`) and put a file in its place, an empty one "
            "to stay anonymous",
            is_fatal=True,
        )
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        return HubToken(
            problem=f"{which} can't be read by user {os.geteuid()}: {why}",
            advice="let that user read it (chown or chmod on the host; a secret keeps its file's mode)",
            is_fatal=True,
        )
    return HubToken(f"the file {path}", is_odd=_is_odd(token)) if token else HubToken()


def _clean(text: str) -> str:
    return text.replace("\r", "").replace("\n", "").strip()


def _is_odd(token: str) -> bool:
    return not token.startswith("hf_") or any(c in token for c in " \t='\"")
