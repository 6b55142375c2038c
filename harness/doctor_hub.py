"""The Hub: is there a token, and what would have to be fetched? The network is not touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.doctor_check import Check, gigabytes, word_if
from harness.doctor_needs import Needs
from harness.downloads import Repository
from harness.hub_token import HubToken
from harness.mapping import missing_files

_PLACES = {
    "folder": "is in a local folder",
    "shipped": "ships with the harness",
    "generated": "is generated here",
}


def check_token(
    needs: Needs, token: HubToken, environ: Mapping[str, str], *, is_container: bool
) -> Check:
    """Say where the token comes from, or why there is none; never its value."""
    gated = [r.name for r in needs.from_hub if r.is_gated]
    value = {"origin": token.origin, "is_found": token.is_found, "gated": gated}
    if token.problem:
        is_needed = bool(gated) or (token.is_fatal and bool(needs.from_hub))
        return Check("hub", "token", word_if(is_needed), token.problem, token.advice, value)
    if not token.is_found:
        text = "none: the Hub is asked anonymously"
        if not gated:
            return Check("hub", "token", "ok", f"{text}, which does for this matrix", value=value)
        advice = (
            "name the token's file with HF_TOKEN_FILE, before `docker compose` or in .env"
            if is_container
            else "`hf auth login`, or put a token into a file and name it with HF_TOKEN_PATH"
        )
        text += f", and {', '.join(gated)} {'is' if len(gated) == 1 else 'are'} gated"
        return Check("hub", "token", "problem", text, advice, value)
    text = f"from {token.origin}"
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        text += ", and HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it from being sent"
        return Check("hub", "token", word_if(bool(gated)), text, "unset that variable", value)
    if token.is_odd:
        text += "; it does not look like one: expected one word that begins with hf_"
        return Check("hub", "token", "note", text, "look at what is in there", value)
    if is_container and "variable" in (token.origin or ""):
        text += ", which `docker inspect` shows to everybody who may ask the engine"
        advice = "name the token's file with HF_TOKEN_FILE in .env instead"
        return Check("hub", "token", "note", text, advice, value)
    return Check("hub", "token", "ok", text, value=value)


def check_repositories(needs: Needs, *, is_offline: bool, is_container: bool) -> list[Check]:
    """Say of each model and dataset where it is, how large, and whether it is gated."""
    return [
        _smollm2(r, is_offline, is_container)
        if r.name == "smollm2" and r.place == "hub"
        else _folder(r, needs.maps[r.name])
        if r.name in needs.maps
        else _repository(r, needs.named, is_offline)
        for r in needs.repositories
    ]


def _repository(repository: Repository, matrix: str, is_offline: bool) -> Check:
    kind, name = repository.kind, repository.name
    value = repository.model_dump(mode="json", exclude={"cells", "needs_access"})
    if repository.place in _PLACES:
        text = f"{name} {_PLACES[repository.place]}"
        return Check("hub", kind, "ok", text, value=value)
    if repository.place == "cache":
        text = f"{name} is in the cache, {gigabytes(repository.bytes or 0)}"
        return Check("hub", kind, "ok", text, value=value)
    text = f"{name} is to be fetched, {_size(repository)}"
    if is_offline:
        text = (
            f"{name} is not in the cache, and offline mode (HF_HUB_OFFLINE) keeps it from the Hub"
        )
        advice = (
            f"`harness fetch --matrix {matrix}` where there is a network, or name a folder that holds it "
            f"with --map {name}=FOLDER"
        )
        return Check("hub", kind, "problem", text, advice, value)
    if repository.is_gated:
        text += f"; it is gated ({repository.licence})"
        advice = f"accept its terms at https://huggingface.co/{name} with the token's account"
        return Check("hub", kind, "note", text, advice, value)
    if repository.is_gated is None:
        text += "; it is not in the catalog, so whether it is gated is not known"
        return Check("hub", kind, "note", text, value=value)
    return Check("hub", kind, "ok", text, value=value)


def _folder(repository: Repository, folder: str) -> Check:
    """Look into the folder that takes a repository's place, as `harness bench` will."""
    kind, name = repository.kind, repository.name
    value = repository.model_dump(mode="json", exclude={"cells", "needs_access"})
    lack = missing_files(kind, Path(folder).expanduser())
    if lack is None:
        return Check("hub", kind, "ok", f"{name} is in the local folder {folder}", value=value)
    advice = f"name the folder that holds it with --map {name}=FOLDER, or leave the option out"
    return Check("hub", kind, "problem", f"{name} is mapped to {folder}: {lack}", advice, value)


def _smollm2(repository: Repository, is_offline: bool, is_container: bool) -> Check:
    text = f"smollm2 is not in the cache, {_size(repository)}"
    command = "python -m harness.worker.smollm2" if is_container else "make smollm2"
    advice = f"run `{command}` once, or each run looks for it on the Hub"
    if is_offline:
        text += "; offline mode (HF_HUB_OFFLINE) keeps it from the Hub"
        advice = f"run `{command}` once where there is a network"
    value = repository.model_dump(mode="json", exclude={"cells", "needs_access"})
    return Check("hub", "model", word_if(is_offline), text, advice, value)


def _size(repository: Repository) -> str:
    whole, left = repository.bytes, repository.download_bytes
    if left is None:
        return "of unknown size"
    if whole is not None and left < whole:
        return f"{gigabytes(left)} of {gigabytes(whole)}"
    return gigabytes(left)
