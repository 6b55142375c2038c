"""Reading everything that `docker save` writes: each layer's file names, and where texts stand."""

from __future__ import annotations

import json
import posixpath
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from tests.containers.engine import Engine

CHUNK = 2**20


@dataclass
class Saved:
    """An image as it was saved."""

    layers: list[str] = field(default_factory=list)  # from the base upwards
    names: dict[str, list[str]] = field(default_factory=dict)  # layer → its files
    found: dict[str, list[str]] = field(default_factory=dict)  # text → the files that hold it


def read_image(engine: Engine, image: str, texts: Sequence[str]) -> Saved:
    """Save an image and look for texts in all of it: configuration and every file of every layer."""
    saved, aliases = Saved(found={text: [] for text in texts}), dict[str, str]()
    command = [engine.client, "save", image]
    with subprocess.Popen(command, env=engine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    _read_part(member.name, content, saved)
                elif member.issym():  # a layer that equals another
                    target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                    aliases[member.name] = posixpath.normpath(target)
    assert process.returncode == 0, "docker save failed"
    saved.names |= {alias: saved.names[target] for alias, target in aliases.items()}
    return saved


def _read_part(name: str, content: IO[bytes], saved: Saved) -> None:
    head = content.read(CHUNK)
    if name == "manifest.json":
        saved.layers = json.loads(head)[0]["Layers"]
    rest = _Again(head, content)
    if not head.strip(b"\0"):  # a layer in which nothing changed
        saved.names[name] = []
    elif head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":  # a layer, compressed or not
        with tarfile.open(fileobj=rest, mode="r|*") as layer:  # type: ignore[call-overload]
            saved.names[name] = names = list[str]()
            for member in layer:
                if not member.isdir():  # a build's mount points stay as empty folders
                    names.append(member.name.removeprefix("./"))
                file = layer.extractfile(member) if member.isreg() else None
                if file is not None:
                    _search(f"{name}:{member.name}", file, saved)
    else:
        _search(name, rest, saved)


def _search(name: str, content: IO[bytes] | _Again, saved: Saved) -> None:
    overlap = max(len(text) for text in saved.found)
    tail = b""
    while chunk := content.read(CHUNK):
        text = tail + chunk
        for wanted, places in saved.found.items():
            if wanted.encode() in text and name not in places:
                places.append(name)
        tail = text[-overlap:]


class _Again:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> bytes:
        """Read on, the first bytes first."""
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._rest.read(size)
