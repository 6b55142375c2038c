"""What a matrix asks of a machine, from the same figures as `harness plan`.

Nothing is downloaded and no network is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.catalog import MODELS
from harness.doctor_check import gigabytes
from harness.downloads import CacheSize, Repository, list_repositories
from harness.outlook import ArmOutlook, Ground, outlook
from harness.plan import Request, resolve
from harness.sizes import count_lora
from harness.slots import processes
from harness.spec import Matrix, RunSpec

ADAPTER_BYTES = 4  # of a weight: adapters are trained and saved in float32
STUDY_BYTES = 2_000_000_000  # a study of real models stays far below it, adapters left out
EMBEDDED_STUDY_BYTES = 250_000_000


@dataclass(frozen=True)
class Needs:
    """A matrix resolved, and what its runs need."""

    matrix: Matrix
    specs: tuple[RunSpec, ...]
    repositories: tuple[Repository, ...]
    maps: Mapping[str, str]  # folders that take a repository's place
    arms: tuple[ArmOutlook, ...]
    output_dir: Path  # of its study, unless told otherwise
    has_gpu: bool  # CUDA would show one here
    named: str  # the matrix, as commands are given it

    @property
    def uses_gpu(self) -> bool:
        """Whether its runs go to a GPU here, or would if there was one."""
        return self.matrix.device == "gpu" or (self.matrix.device == "auto" and self.has_gpu)

    @property
    def processes(self) -> int:
        """Processes of its largest run."""
        return max((processes(spec) for spec in self.specs), default=1)

    @property
    def gpus(self) -> int:
        """GPUs of its largest run; 0 on the CPU."""
        return self.processes if self.uses_gpu else 0

    @property
    def gpu_bytes(self) -> int | None:
        """Memory that the largest arm takes of each of its GPUs; None: unknown, or on the CPU."""
        known = [arm.memory.total_bytes for arm in self.arms if arm.memory]
        return max(known, default=None) if self.uses_gpu else None

    @property
    def gpu_hours(self) -> float | None:
        """All runs, at the rate card's assumptions; None if the price of one is unknown."""
        costs = [arm.cost.gpu_hours * arm.runs if arm.cost else None for arm in self.arms]
        known = [c for c in costs if c is not None]
        return sum(known) if self.uses_gpu and len(known) == len(costs) else None

    @property
    def from_hub(self) -> tuple[Repository, ...]:
        """Repositories of which something is still to fetch."""
        return tuple(r for r in self.repositories if r.place == "hub")

    @property
    def download_bytes(self) -> int:
        """What is to fetch, as far as sizes are known."""
        return sum(r.download_bytes or 0 for r in self.from_hub)

    @property
    def unsized(self) -> int:
        """Repositories to fetch whose size nobody knows beforehand."""
        return sum(r.download_bytes is None for r in self.from_hub)

    @property
    def results_bytes(self) -> int:
        """What its study takes on disk, adapters included where the matrix keeps them."""
        each = EMBEDDED_STUDY_BYTES if self.matrix.scale == "embedded" else STUDY_BYTES
        return each + sum(_adapter_bytes(spec) for spec in self.specs)

    @property
    def host_bytes(self) -> int:
        """Bytes that the weights of the largest catalogued model take while they are loaded."""
        sizes = [
            facts.parameters * (4 if spec.model.dtype == "float32" else 2)
            for spec in self.specs
            if (facts := MODELS.get(spec.model.source))
        ]
        return max(sizes, default=0)


def needs_of(
    request: Request, ground: Ground, cached_bytes: CacheSize, *, has_token: bool
) -> Needs:
    """Resolve a matrix, or the runs chosen of it, and reckon what they need.

    Raises: ConfigError if the matrix is unknown or wrong, or has none of what is chosen.
    """
    found = resolve(request)
    matrix = found.loaded.matrix
    repositories = list_repositories(found.specs, request.maps, cached_bytes, has_token=has_token)
    missing = {
        c: f"{r.name} {r.needs_access}" for r in repositories if r.needs_access for c in r.cells
    }
    arms = outlook(found.specs, ground, matrix.device, missing)
    return Needs(
        matrix,
        found.specs,
        tuple(repositories),
        request.maps,
        tuple(arms),
        output_dir=found.output_dir,
        has_gpu=bool(ground.here),
        named=found.loaded.named,
    )


def names(arms: Sequence[ArmOutlook]) -> str:
    """Arms as a sentence names them: three, and how many more."""
    shown = [f"{arm.pair}.{arm.arm}" for arm in arms[:3]]
    return ", ".join(shown) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")


def download_text(known_bytes: int, unsized: int) -> str:
    """What is still to fetch, in a sentence; `unsized` counts repositories of unknown size."""
    if not unsized:
        return gigabytes(known_bytes) if known_bytes else "nothing"
    things = "1 repository" if unsized == 1 else f"{unsized} repositories"
    unknown = f"{things} of unknown size"
    return f"{gigabytes(known_bytes)} and {unknown}" if known_bytes else unknown


def _adapter_bytes(spec: RunSpec) -> int:
    facts = MODELS.get(spec.model.source)
    if not spec.keeps_adapter or spec.lora is None or facts is None:
        return 0
    return ADAPTER_BYTES * count_lora(facts, spec.lora.r, spec.lora.target_modules)
