"""What two stacks make of the frozen corpus, set side by side: text exactly, numbers up to rounding.

A difference is told once a function, with the first rows that show it. What a release has that the other
lacks is shown and changes nothing; but an evaluation that one side lacks can't be set beside the other.
What no run of the harness goes through (`UNUSED`: TRL's own chat templates, helpers for other trainers) is
shown too and changes nothing here, though it may for whoever uses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.compare.model import Difference, Kind, Word
from harness.probe import Value
from harness.text import plural

CORPUS = "corpus/sha256"
SHOWN = 3  # rows of a function that are shown
WIDTH = 60  # characters of a text that are shown
KINDS: dict[str, Kind] = {"reward": "reward", "loss": "loss", "evaluation": "evaluation"}
# Largest relative difference that is rounding. Scores and token ids have none to speak of; what is computed
# in float32 differs by that much between releases that train the same.
TOLERANCES: dict[Kind, float] = {"loss": 1e-5, "evaluation": 1e-5}
EXACT = 1e-9
COARSE = 2.0**-7  # of bfloat16
_SHORTENED = " characters, sha256 "
COARSE_SIGN = "/bfloat16/"
UNUSED = (
    "shipped/",
    *("data/clone_chat_template/", "data/flush_left/", "data/truncate_dataset/"),
    *("data/is_conversational_from_value/", "data/maybe_convert_to_chatml/"),
)


def replay_differences(
    base: Mapping[str, Value], candidate: Mapping[str, Value]
) -> tuple[Difference, ...]:
    """List in what two replays differ, a function at a time; nothing if neither side has a replay."""
    if not base and not candidate:
        return ()
    if not base or not candidate:
        return (_no_replay("candidate" if base else "base"),)
    if base.get(CORPUS) != candidate.get(CORPUS):
        return (_other_corpus(base, candidate),)
    found: list[Difference] = []
    for group, names in _groups([*base, *(n for n in candidate if n not in base)]).items():
        if lost := [n for n in names if n not in candidate]:
            found.append(_missing(group, lost, base, "base"))
        if gained := [n for n in names if n not in base]:
            found.append(_missing(group, gained, candidate, "candidate"))
        both = [n for n in names if n in base and n in candidate]
        if apart := [n for n in both if base[n] != candidate[n]]:
            found.append(_difference(group, apart, len(both), base, candidate))
    return tuple(found)


def evaluation_changed(differences: Iterable[Difference]) -> bool:
    """Whether the same checkpoint evaluates otherwise: final metrics can't be told from training then."""
    return any(d.kind == "evaluation" and d.word == "changed" for d in differences)


def kind_of(name: str) -> Kind:
    """Return what an item is about."""
    return KINDS.get(name.partition("/")[0], "data")


def is_used(name: str) -> bool:
    """Whether runs of the harness go through what an item looks at."""
    return not name.startswith(UNUSED)


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their first two parts: what is looked at, and which function or template."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if name != CORPUS:
            groups.setdefault("/".join(name.split("/")[:2]), []).append(name)
    return groups


def _relative(one: Value, other: Value) -> float | None:
    """How far apart two numbers are; None if one is none."""
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return None
    scale = max(abs(one), abs(other))
    size = abs(one - other) / scale if scale else 0.0
    return size if math.isfinite(size) else None


def _tolerance(name: str) -> float:
    return COARSE if COARSE_SIGN in name else TOLERANCES.get(kind_of(name), EXACT)


def _difference(
    group: str,
    names: Sequence[str],
    looked_at: int,
    base: Mapping[str, Value],
    candidate: Mapping[str, Value],
) -> Difference:
    sizes = {name: _relative(base[name], candidate[name]) for name in names}
    changed = [n for n, size in sizes.items() if size is None or size > _tolerance(n)]
    # What a reader can read first: a number, a short text, and then what only a hash stands for.
    changed.sort(key=lambda name: isinstance(base[name], str) + (_SHORTENED in str(base[name])))
    word: Word = ("changed" if is_used(f"{group}/") else "same") if changed else "rounding"
    shown = (changed or list(names))[:SHOWN]
    known = [size for size in sizes.values() if size is not None]
    return Difference(
        layer="replay",
        kind=kind_of(group),
        what=group,
        word=word,
        base={name: base[name] for name in shown},
        candidate={name: candidate[name] for name in shown},
        relative=max(known, default=None),
        sentence=_sentence(group, changed or names, looked_at, word, base, candidate),
    )


def _sentence(
    group: str,
    names: Sequence[str],
    looked_at: int,
    word: Word,
    base: Mapping[str, Value],
    candidate: Mapping[str, Value],
) -> str:
    how = "differs by rounding" if word == "rounding" else "differs"
    rows = "; ".join(
        f"{name.removeprefix(group).lstrip('/') or group}: {_became(base[name], candidate[name])}"
        for name in names[:SHOWN]
    )
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    unused = "" if is_used(f"{group}/") else " (no run of the harness goes through it)"
    return f"{group} {how} in {len(names)} of {plural(looked_at, 'item')}{unused}: {rows}{more}"


def _became(one: Value, other: Value) -> str:
    """Both values; of long texts the part where they part."""
    if isinstance(one, str) and isinstance(other, str):
        pairs = zip(one, other, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        begin = max(0, at - WIDTH // 3)
        return f"{_part(one, begin)} became {_part(other, begin)}"
    return f"{one!r} became {other!r}"


def _part(text: str, begin: int) -> str:
    before = "…" if begin else ""
    after = "…" if len(text) > begin + WIDTH else ""
    return repr(before + text[begin : begin + WIDTH] + after)


def _missing(
    group: str, names: Sequence[str], values: Mapping[str, Value], side: str
) -> Difference:
    """What one side alone has; with more or fewer functions a release trains the same with the others."""
    shown = {name: values[name] for name in names[:SHOWN]}
    rows = ", ".join(name.removeprefix(group).lstrip("/") or group for name in shown)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return Difference(
        layer="missing",
        kind=kind_of(group),
        what=group,
        word="not comparable" if kind_of(group) == "evaluation" else "same",
        base=shown if side == "base" else None,
        candidate=shown if side == "candidate" else None,
        sentence=f"{group}: only the {side} has {rows}{more}",
    )


def _no_replay(side: str) -> Difference:
    return Difference(
        layer="missing",
        kind="missing",
        what="replay",
        word="not comparable",
        sentence=f"the {side} has no replay of the frozen corpus, by which rewards, templates and "
        "evaluation are compared; run one matrix with `replays: true` on both, outside containers",
    )


def _other_corpus(base: Mapping[str, Value], candidate: Mapping[str, Value]) -> Difference:
    return Difference(
        layer="missing",
        kind="data",
        what="corpus",
        word="not comparable",
        base=base.get(CORPUS),
        candidate=candidate.get(CORPUS),
        sentence="the two sides played back different corpora: run the older study's matrix again with "
        "this harness",
    )
