"""What the Hub refused, in a sentence with the steps to get it.

Built from our own words and the kind of error, never from its text: that may hold a signed address.
A token is never shown. What this leaves out: asking (`hub`, `publish`).
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

from harness.hub_token import find_token
from harness.sources import Need

LOG_IN = "`hf auth login`, or set HF_TOKEN, or HF_TOKEN_PATH to a file that holds the token"
AGAIN = "then run the same command again"


class Unreachable(Exception):  # noqa: N818 - it says what happened
    """The Hub does not answer at all: asking for the next repository is no use."""


def hub_errors() -> tuple[type[Exception], ...]:
    """What asking the Hub may raise: no connection, a refusal, a full disk, an answer of another."""
    import httpx

    return (httpx.HTTPError, OSError, ValueError)


def is_offline() -> bool:
    """Whether the Hub must not be asked (HF_HUB_OFFLINE, which `--offline` sets)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    """The Hub or mirror that is asked (HF_ENDPOINT), a name and password in it left out."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def page(need: Need) -> str:
    """The address of a repository's page."""
    folder = "datasets/" if need.kind == "dataset" else ""
    return f"{endpoint()}/{folder}{need.repository}"


def explain(error: Exception, need: Need, revision: str) -> str:
    """Say in a sentence what kept a repository from being read, and what to do.

    Raises: Unreachable if the Hub did not answer.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, HFValidationError):
        return f"{need.named}: expected OWNER/NAME, or a folder that exists, and there is no such folder"
    if isinstance(error, GatedRepoError):
        return _gated(need)
    if isinstance(error, RepositoryNotFoundError):
        return _not_found(need)
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{need.named} has no revision {revision!r} at {endpoint()}; expected a branch, a tag or "
            "a commit"
        )
    if isinstance(error, HfHubHTTPError):
        return _refused(need, error.response.status_code)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{need.named} can't be written to the cache: {error.strerror}; make room, or set HF_HOME"
    raise Unreachable(type(error).__name__) from error


def unreachable(why: str, left: list[Need]) -> str:
    """Say that the Hub does not answer, and what can be done without it."""
    return (
        f"no answer from {endpoint()} ({why}), which {', '.join(n.named for n in left)} would come "
        "from; connect to the network, or use what is in the cache with --offline, folders of your "
        "own with --map REPOSITORY=FOLDER, or try every run without it with --rehearse"
    )


def not_cached(need: Need, revision: str) -> str:
    """Say that a repository is not here while the network must not be used."""
    return (
        f"{need.named} at {revision} is not in the cache, or not whole, and offline mode keeps it from "
        "the Hub; run `harness fetch` with the same --matrix where there is a network, or name a "
        f"folder that holds it with --map {need.repository}=FOLDER"
    )


def has_token() -> bool:
    """Whether there is a token to show the Hub."""
    return find_token().is_found


def _gated(need: Need) -> str:
    whose = "the account of your token has no access" if has_token() else "no token was found"
    return (
        f"{need.named} is gated and {whose}: open {page(need)}, log in and accept its terms (some are "
        f"granted by hand, which takes a while), give the account's token with {LOG_IN}, {AGAIN}; or "
        f"name a folder that holds it with --map {need.repository}=FOLDER"
    )


def _not_found(need: Need) -> str:
    known = (
        "the account of your token may not see it"
        if has_token()
        else "it is private, for which a token is needed and none was found"
    )
    return (
        f"{need.named} does not exist at {endpoint()}, or {known}: check the name; for a private one "
        f"use {LOG_IN}, {AGAIN}"
    )


def _refused(need: Need, status: int) -> str:
    if status == 401:
        what = (
            f"your token is not valid (401): get one at {endpoint()}/settings/tokens, use {LOG_IN}"
        )
    elif status == 403:
        what = (
            f"your token may not read it (403): give it that right at {endpoint()}/settings/tokens"
        )
    elif status == 429:
        what = "too many requests (429): wait a few minutes, or log in for a higher limit"
    else:
        what = f"{endpoint()} answered {status}: wait a little"
    return f"{need.named}: {what}, {AGAIN}"
