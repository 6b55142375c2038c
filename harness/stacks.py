"""The software that a command's runs train with: this installation, or an image for each TRL version.

Each version trains the whole matrix into a study folder of its own, so that two versions are two
studies that can be set beside each other. What this leaves out: starting containers (`launch/docker`)
and environments of this machine for other versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.pins import IMAGE

_VERSION = re.compile(r"\d+(\.\d+){1,3}((a|b|rc|\.dev|\.post)\d+)*")
_PLACE = "{trl}"


@dataclass(frozen=True)
class Stack:
    """What one study's runs train with."""

    image: str | None = None  # a container image; None is this installation
    trl: str | None = None  # the release that it has to hold; None is whatever it holds
    output_dir: Path | None = None  # the study's folder; None is the matrix's own

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"TRL {self.trl}" if self.trl else self.image or "this installation"


def find_stacks(
    launcher: str,
    image: str | None,
    versions: Sequence[str],
    output_dir: Path | None,
    matrix_dir: Path,
    has_gpu: bool,
) -> tuple[Stack, ...]:
    """List the stacks of a command, in the order in which it names them.

    `matrix_dir` is where the matrix's own study would be. Raises: ConfigError listing what is wrong.
    """
    problems = _problems(launcher, image, versions)
    if problems:
        raise ConfigError(*problems)
    if launcher != "docker":
        return (Stack(output_dir=output_dir),)
    if not versions:
        return (Stack(image or default_image(has_gpu), None, output_dir),)
    named = image or default_image(has_gpu, _PLACE)
    return tuple(
        Stack(
            named.replace(_PLACE, version),
            version,
            _folder(version, len(versions), output_dir, matrix_dir),
        )
        for version in versions
    )


def default_image(has_gpu: bool, trl: str | None = None) -> str:
    """Return the name under which `make image` or `make image-cpu` builds."""
    variant = "cuda" if has_gpu else "cpu"
    return f"{IMAGE}:{variant}-trl-{trl}" if trl else f"{IMAGE}:{variant}"


def _problems(launcher: str, image: str | None, versions: Sequence[str]) -> list[str]:
    problems = []
    if launcher != "docker":
        given = [("--image", image), ("--trl", versions)]
        problems += [
            f"{option} chooses the image that runs train in; add --launcher docker, or leave it out"
            for option, value in given
            if value
        ]
    wrong = [version for version in versions if not _VERSION.fullmatch(version)]
    problems += [f"--trl {v!r} is not a version; expected one such as 1.14.2" for v in wrong]
    if len(set(versions)) != len(versions):
        problems.append(f"--trl names {', '.join(versions)}; expected each version once")
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


def _folder(version: str, count: int, output_dir: Path | None, matrix_dir: Path) -> Path:
    if output_dir is None:
        return matrix_dir.with_name(f"{matrix_dir.name}-trl-{version}")
    return output_dir / f"trl-{version}" if count > 1 else output_dir
