"""Reward integrity per arm: what the report shows of it, and the sentence on the first screen."""

from __future__ import annotations

from typing import Any

from harness import text
from harness.integrity import RewardIntegrity, Share, average, doubts
from harness.report_tables import Table, arms_of, make_table, runs_of
from harness.series import is_ok
from harness.view import StudyView

COLUMNS = (
    ("No answer read", "unparseable"),
    ("No end of reasoning", "unclosed"),
    ("Not scored", "unscored"),
    ("Cut at the limit", "clipped"),
    ("Groups without variance", "zero_variance"),
)


def arm_integrity(view: StudyView, pair: str, arm: str) -> RewardIntegrity | None:
    """Average an arm's runs that ended ok; None for an arm without any, or without a reward."""
    runs = [
        r.summary.integrity
        for r in runs_of(view, pair, arm)
        if is_ok(r) and r.summary and r.summary.integrity
    ]
    return average(runs) if runs else None


def integrity_data(view: StudyView) -> list[dict[str, Any]]:
    """Give every GRPO arm's figures as data; null where no run ended ok."""
    rows = []
    for pair, arm in _rewarded(view):
        figures = arm_integrity(view, pair, arm)
        shown = figures.model_dump(mode="json") if figures else None
        rows.append({"pair": pair, "arm": arm, "reward_integrity": shown})
    return rows


def integrity_tables(view: StudyView) -> tuple[Table, ...]:
    """Show what the reward could judge in each arm; no table where a study has no reward."""
    rows = []
    for pair, arm in _rewarded(view):
        figures = arm_integrity(view, pair, arm)
        ok = sum(is_ok(r) for r in runs_of(view, pair, arm))
        shares = [_both(getattr(figures, name) if figures else None) for _, name in COLUMNS]
        length = figures.length_tokens if figures else None
        drift = _drift(figures) if figures else text.MISSING
        rows.append((pair, arm, str(ok), *shares, text.number(length, 3), drift))
    columns = (
        "Pair", "Arm", "Runs ok", *(name for name, _ in COLUMNS),
        "Tokens per completion (last fifth)", "Drift, last fifth less first",
    )  # fmt: skip
    caption = (
        "Reward integrity, means over seeds: share over all steps, and over the last fifth of them"
    )
    table = make_table(caption, columns, rows, numeric=range(2, len(columns)))
    return (table,) if rows else ()


def cautions(view: StudyView, pair: str, arms: tuple[str, ...]) -> list[str]:
    """Say of which arms the reward could hardly teach anything."""
    sentences = []
    for arm in arms:
        figures = arm_integrity(view, pair, arm)
        found = doubts(figures) if figures else []
        if found:
            sentences.append(
                f"{arm}: {' and '.join(found)} (mean over steps and seeds), so the reward could "
                "hardly teach anything"
            )
    return sentences


def _rewarded(view: StudyView) -> list[tuple[str, str]]:
    return [(p, a) for p, a in arms_of(view) if view.matrix.pairs[p].task == "grpo"]


def _both(share: Share | None) -> str:
    if share is None or share.all_steps is None:
        return text.MISSING
    return f"{text.share(share.all_steps)}, {text.share(share.last_fifth)}"


def _drift(figures: RewardIntegrity) -> str:
    if figures.length_drift_tokens is None:
        return text.MISSING
    ratio = figures.length_drift_ratio
    percent = "" if ratio is None else f" ({text.signed(100 * ratio, 0)}%)"
    return f"{text.signed(figures.length_drift_tokens, 1)}{percent}"
