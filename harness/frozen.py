"""What every model of the house is built from: immutable values, safe names, and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# A name that is safe as a folder name and in a selector.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


def absent(default: object) -> Callable[[object], bool]:
    """Leave a field out of a dump while it holds its default (`Field(exclude_if=…)`).

    For fields that joined after studies were made: a hash taken without them stays true.
    """
    return lambda value: value == default


class Frozen(BaseModel):
    """A value: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def canonical_json(value: BaseModel | object) -> str:
    """Write a value as JSON with sorted keys and no spaces: equal values give equal text."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_hash(value: BaseModel | object) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
