"""The software that a command's runs train with: this installation, an environment, or an image.

Each stack trains the whole matrix into a study folder of its own, so that two of them are two studies that
can be set beside each other. What this leaves out: starting containers (`launch/docker`) and making
environments (`environments`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from harness.errors import ConfigError
from harness.packages import CURRENT, Package, read_trl, read_with
from harness.pins import IMAGE

_VERSION = re.compile(r"\d+(\.\d+){1,3}((a|b|rc|\.dev|\.post)\d+)*")
_PLACE = "{trl}"
T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """What one study's runs train with."""

    image: str | None = None  # a container image; None is a process of this machine
    trl: str | None = None  # the release that it has to hold; None is whatever it holds
    output_dir: Path | None = None  # the study's folder; None is the matrix's own
    packages: tuple[Package, ...] = ()  # what its environment changes; none: this installation
    label: str | None = None  # what study.json calls its environment

    @property
    def name(self) -> str:
        """How messages call it."""
        told = f"TRL {self.trl}" if self.trl else None
        return self.label or told or self.image or "this installation"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of its packages."""
        return tuple(
            f"{p.given} does not say its version of {p.name}; taken for {p.version}, which is installed "
            "here"
            for p in self.packages
            if p.is_assumed
        )


@dataclass(frozen=True)
class Asked:
    """The options that choose stacks, as they were given."""

    launcher: str = "local"
    image: str | None = None
    trl: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()  # --with


def find_stacks(
    asked: Asked,
    output_dir: Path | None,
    matrix_dir: Path,
    *,
    has_gpu: bool,
    here: Mapping[str, str],
) -> tuple[Stack, ...]:
    """List the stacks of a command, in the order in which it names them.

    `matrix_dir` is where the matrix's own study would be; `here` has the versions that are installed.
    Raises: ConfigError listing what is wrong.
    """
    if asked.launcher != "docker":
        return _environments(asked, output_dir, matrix_dir, here)
    problems = _image_problems(asked)
    if problems:
        raise ConfigError(*problems)
    image, versions = asked.image, asked.trl
    if not versions:
        return (Stack(image or default_image(has_gpu), None, output_dir),)
    named = image or default_image(has_gpu, _PLACE)
    return tuple(
        Stack(
            named.replace(_PLACE, version),
            version,
            _folder(f"trl-{version}", len(versions), output_dir, matrix_dir),
        )
        for version in versions
    )


def default_image(has_gpu: bool, trl: str | None = None) -> str:
    """Return the name under which `make image` or `make image-cpu` builds."""
    variant = "cuda" if has_gpu else "cpu"
    return f"{IMAGE}:{variant}-trl-{trl}" if trl else f"{IMAGE}:{variant}"


def _environments(
    asked: Asked, output_dir: Path | None, matrix_dir: Path, here: Mapping[str, str]
) -> tuple[Stack, ...]:
    problems = list[str]()
    if asked.image:
        problems.append(
            "--image chooses the image that runs train in; add --launcher docker, or leave it out"
        )
    releases = list(_read_all(asked.trl, lambda text: read_trl(text, here), problems))
    extras = list(_read_all(asked.extras, lambda text: read_with(text, here), problems))
    problems += _repeated("--with", [p.name for p in extras], "package")
    told = [p.slug if p else CURRENT for p in releases]
    problems += _repeated("--trl", told, "version")
    if problems:
        raise ConfigError(*problems)
    chosen = [(*((p,) if p else ()), *extras) for p in releases or [None]]
    return tuple(
        Stack(
            trl=next((p.version for p in packages if p.name == "trl"), None),
            output_dir=_folder(_slug(packages), len(chosen), output_dir, matrix_dir)
            if packages or len(chosen) > 1
            else output_dir,
            packages=packages,
            label=_label(packages, here) if packages else None,
        )
        for packages in chosen
    )


def _read_all(texts: Sequence[str], read: Callable[[str], T], problems: list[str]) -> Iterator[T]:
    for text in texts:
        try:
            yield read(text)
        except ConfigError as error:
            problems += error.problems


def _repeated(option: str, names: Sequence[str], what: str) -> list[str]:
    twice = [name for name, same in groupby(sorted(names)) if len(list(same)) > 1]
    return [f"{option} names {', '.join(twice)} twice; expected each {what} once"] if twice else []


def _label(packages: Sequence[Package], here: Mapping[str, str]) -> str:
    labels = {p.name: p.label for p in packages}
    trl = labels.pop("trl", None) or here.get("trl", "(none)")
    return ", ".join([f"TRL {trl}", *(f"{name} {label}" for name, label in labels.items())])


def _slug(packages: Sequence[Package]) -> str:
    return "-".join(p.slug for p in packages) or f"trl-{CURRENT}"


def _image_problems(asked: Asked) -> list[str]:
    image, versions = asked.image, asked.trl
    wrong = [version for version in versions if not _VERSION.fullmatch(version)]
    problems = [f"--trl {v!r} is not a version; expected one such as 1.14.2" for v in wrong]
    if asked.extras:
        problems.append(
            f"--with {asked.extras[0]}: an image holds its releases; build one with them (`make image-cpu "
            "TRL=… TRANSFORMERS=… PEFT=…`), or leave --launcher docker out"
        )
    problems += _repeated("--trl", versions, "version")
    if image is not None and _PLACE in image and not versions:
        problems.append(
            f"--image {image} leaves a place for a version; add --trl, e.g. --trl 1.14.2"
        )
    if image is not None and _PLACE not in image and len(versions) > 1:
        problems.append(
            f"--image {image} is one image for {len(versions)} versions of TRL; put {_PLACE} where "
            f"its name tells them apart, e.g. {default_image(False, _PLACE)}"
        )
    return problems


def _folder(slug: str, count: int, output_dir: Path | None, matrix_dir: Path) -> Path:
    if output_dir is None:
        return matrix_dir.with_name(f"{matrix_dir.name}-{slug}")
    return output_dir / slug if count > 1 else output_dir
