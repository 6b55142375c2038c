"""Reads YAML into plain data, and says in one sentence what is wrong with it, and in which line.

YAML 1.2 through ruamel's safe loader: `1e-4` is a number, and a tag that would build an object is an
error. A document is checked as a tree of nodes before any value is built from it, because a few lines
of aliases can stand for billions of values. What this leaves out: what a matrix means (`matrix`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from harness.errors import ConfigError, did_you_mean

# A matrix has under ten levels and some hundred values; these leave room and stop a bomb.
MOST_LEVELS = 50
MOST_VALUES = 100_000

Path = tuple[str | int, ...]
_KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}


def read_yaml(text: str, where: str) -> tuple[Any, Node | None]:
    """Return a document's data and its nodes, which know their lines; `where` names it in messages.

    Raises: ConfigError listing everything that makes it unreadable.
    """
    try:
        deep = _too_deep(text)
        if deep is not None:
            raise ConfigError(
                f"{where}:{deep}: is nested deeper than {MOST_LEVELS} levels; write it flatter"
            )
        root = YAML(typ="safe", pure=True).compose(text)
        problems = [f"{where}:{line}: {what}" for line, what in _misshapen(root)]
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        return YAML(typ="safe", pure=True).load(text), root
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(f"{where}{line}: not readable YAML: {what}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # ruamel's own: the 45th of a month, a number of 5000 digits, a malformed tag
        raise ConfigError(f"{where}: not readable YAML: {error}") from None


def as_mapping(data: Any, where: str) -> dict[Any, Any]:
    """Return a document's data as what a file of keys holds. Raises: ConfigError if it is none."""
    if isinstance(data, dict):
        return data
    found = "the file is empty" if data is None else f"found {_KINDS.get(type(data), 'a value')}"
    raise ConfigError(f"{where}: {found}; expected a mapping of keys, `key: value` a line")


def keep_plain(data: Any, path: Path = ()) -> tuple[Any, dict[Path, str]]:
    """Return the part of data that JSON has a form for, and what was wrong with the rest, by path."""
    problems: dict[Path, str] = {}
    if isinstance(data, dict):
        kept: Any = {}
        for key, value in data.items():
            if not isinstance(key, str) or not _is_text(key):
                problems[(*path, str(key))] = (
                    f"found the key {key!r}, expected text; put it in quotes"
                )
                continue
            part, below = keep_plain(value, (*path, key))
            problems |= below
            if (*path, key) not in below:
                kept[key] = part
    elif isinstance(data, list):
        parts = [keep_plain(value, (*path, i)) for i, value in enumerate(data)]
        for _, below in parts:
            problems |= below
        kept = [part for part, _ in parts]
    elif isinstance(data, float) and not math.isfinite(data):
        kept, problems[path] = None, f"found {data!r}, expected a finite number"
    elif isinstance(data, int) and abs(data) >= 2**63:
        kept, problems[path] = None, "found a whole number beyond 64 bits, expected a smaller one"
    elif isinstance(data, str) and not _is_text(data):
        kept, problems[path] = None, f"found {data!r}, expected valid Unicode text"
    elif data is None or isinstance(data, bool | int | float | str):
        kept = data
    else:
        kept = None
        problems[path] = (
            f"found {data!s:.80} ({type(data).__name__}), expected text, a number, a list or a map; "
            "text that looks like something else goes in quotes"
        )
    return kept, problems


def place(path: Iterable[str | int], where: str, root: Node | None) -> str:
    """Name a value: the file, its line, its path."""
    path = tuple(path)
    line = _line(root, path)
    named = f": {'.'.join(map(str, path))}" if path else ""
    return f"{where}{f':{line}' if line else ''}{named}"


def explain_all(
    details: Sequence[Any],
    where: str,
    root: Node | None,
    model: type[BaseModel],
    besides: Iterable[Path] = (),
) -> list[str]:
    """Say every pydantic error of a model in a sentence, but those at or below the paths `besides`.

    Pydantic also calls a list too short if its only item was refused: the item alone is said.
    """
    said = set(besides)
    places = {_walk(model, d["loc"])[0] for d in details}
    lists = {path[:-1] for path in places if path and isinstance(path[-1], int)}
    return [
        explain(detail, where, root, model)
        for detail in details
        if not any(_walk(model, detail["loc"])[0][: len(path)] == path for path in said)
        and not (detail["type"] == "too_short" and _walk(model, detail["loc"])[0] in lists)
    ]


def explain(
    detail: Any,
    where: str,
    root: Node | None,
    model: type[BaseModel],
    kind_of_file: str = "a matrix",
) -> str:
    """Say one pydantic error of a model in a sentence: where, found, expected, what to do."""
    path, holder = _walk(model, detail["loc"])
    at = place(path, where, root)
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _fields(_walk(model, detail["loc"][:-1])[1])
        return f"{at}: is no key of {kind_of_file}{did_you_mean(str(path[-1]), known)}"
    if kind.startswith("union_tag"):
        return _explain_tag(detail, path, where, root, _members(holder))
    if kind == "missing":
        return f"{at}: is missing; add it"
    found = detail.get("input")
    shown = "" if isinstance(found, dict | list) else f"found {found!r}, "
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "too_short":
        message = f"at least {detail['ctx']['min_length']} item"
    return f"{at}: {shown}{'' if kind == 'value_error' else 'expected '}{message}"


def _too_deep(text: str) -> int | None:
    """The line in which nesting passes the limit; read as events, which need no recursion."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS:
                return int(event.start_mark.line) + 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
    return None


def _misshapen(root: Node | None) -> Iterator[tuple[int, str]]:
    """Find keys that stand twice, an alias inside of itself, and aliases that stand for too much."""
    # Node → values and levels that it expands to; None while the walk is inside of it.
    seen: dict[int, tuple[int, int] | None] = {}

    def walk(node: Node) -> Iterator[tuple[int, str]]:
        seen[id(node)] = None
        values, levels = 1, 1
        for child in _children(node):
            if id(child) not in seen:
                yield from walk(child)
            below = seen[id(child)]
            if below is None:
                yield _line_of(child), "an alias stands inside of what it names; write it out"
            else:
                values, levels = values + below[0], max(levels, below[1] + 1)
        if values > MOST_VALUES:
            yield _line_of(node), f"aliases stand for more than {MOST_VALUES:,} values; use fewer"
            values = 0  # said once; what holds this node is not blamed again
        if levels > MOST_LEVELS:
            yield _line_of(node), f"aliases nest deeper than {MOST_LEVELS} levels; use fewer"
            levels = 0
        seen[id(node)] = values, levels
        if isinstance(node, MappingNode):
            yield from _twice(node)

    if root is not None:
        yield from walk(root)


def _twice(node: MappingNode) -> Iterator[tuple[int, str]]:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, ScalarNode) and key.value in first:
            line = first[key.value]
            yield _line_of(key), f"the key {key.value!r} stands already in line {line}; keep one"
        elif isinstance(key, ScalarNode):
            first[key.value] = _line_of(key)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _line_of(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _is_text(value: str) -> bool:
    """Whether it can be written to a file: half of a surrogate pair can't."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(node: Node | None, path: Sequence[Any]) -> int | None:
    line = None
    for part in path:
        if isinstance(node, MappingNode):
            pair = next(((k, v) for k, v in node.value if str(k.value) == str(part)), None)
            if pair is None:
                break
            line, node = _line_of(pair[0]), pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _line_of(node)
    return line


def _explain_tag(
    detail: Any, path: Path, where: str, root: Node | None, known: Iterable[str]
) -> str:
    """Say that the key by which models are told apart is missing, or names none of them."""
    key = detail["ctx"]["discriminator"].strip("'")
    expected = f"expected one of {', '.join(known)}"
    if detail["type"] == "union_tag_not_found":
        return f"{place(path, where, root)}: has no `{key}`; {expected}"
    found = detail["ctx"]["tag"]
    at = place((*path, key), where, root)
    return f"{at}: found {found!r}{did_you_mean(found, known)}, {expected}"


def _walk(model: type[BaseModel], loc: Iterable[str | int]) -> tuple[Path, Any]:
    """Follow pydantic's place of an error: its path in the file, and the type that stands there.

    Where models are told apart by a key, pydantic's place holds the key's value too; the file's doesn't.
    """
    kind: Any = model
    path: list[str | int] = []
    for part in loc:
        members = _members(kind) | _branches(kind)
        if part in members:
            kind = members[str(part)]
        elif part != "[key]":
            path.append(part)
            kind = _below(kind, part)
    return tuple(path), kind


def _below(kind: Any, part: str | int) -> Any:
    """The type of a value that stands in another under a key."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        kind = field.annotation if field else None
    elif get_origin(kind) is dict:
        kind = get_args(kind)[1]
    if get_origin(kind) in (dict, Annotated):
        return kind
    options = [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)]
    return options[0] if options else kind


def _members(kind: Any) -> dict[str, type[BaseModel]]:
    """The models of a union by the value of the key that tells them apart; none of any other type."""
    if get_origin(kind) is not Annotated:
        return {}
    union, info = get_args(kind)[:2]
    key = getattr(info, "discriminator", None)
    if not isinstance(key, str):
        return {}
    return {
        tag: model
        for model in get_args(union)
        for tag in get_args(model.model_fields[key].annotation)
    }


def _branches(kind: Any) -> dict[str, Any]:
    """The types of a union that a tag in pydantic's place tells apart, by their tags."""
    found = [get_args(a) for a in get_args(kind) if get_origin(a) is Annotated]
    return {part.tag: kind for kind, *rest in found for part in rest if isinstance(part, Tag)}


def _fields(kind: Any) -> list[str]:
    """The keys that a model takes, for did-you-mean."""
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
