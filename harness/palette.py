"""The few colours of the figures, by name, each with its counterpart in the dark.

A style sheet swaps them by attribute (`[stroke="#b5541c"]`), so that one SVG serves both themes.
"""

from __future__ import annotations

from harness.traces import ALTERNATING

INK, FAINT, GRID, PAPER = "#4a515c", "#8a919c", "#e4e1db", "#fffefc"
# Baseline first. Apart in hue and in lightness; the dash and the legend tell them apart as well.
ARM_COLORS = ("#b5541c", "#16708c", "#7a4f9a", "#5f7a1f", "#a33a5e", "#3f5fa8")
ARM_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 4], [10, 4])
PHASE_COLORS = {
    "load": "#a9b0b8",
    "build": "#c3b7a2",
    "evaluate": "#7fa8c9",
    "train": "#d9a441",
    "generate": "#86b187",
    ALTERNATING: "#d9a441",
    "weight_sync": "#c07f95",
    "save": "#9c8bb5",
}
# Of what a peak is made of: memory that a method chooses in strong colours, the rest in quiet ones.
PART_COLORS = {
    "held before the run": "#c9ccd1",
    "other processes": "#cf8f83",
    "context and libraries": "#a9b0b8",
    "weights": "#7fa8c9",
    "reference model": "#a9c4dc",
    "optimizer state": "#d9a441",
    "gradients": "#c07f95",
    "vLLM pool": "#86b187",
    "fragmentation": "#c3b7a2",
    "activations, as forecast": "#9c8bb5",
    "logits, as forecast": "#c2a5cf",
    "temporaries and others, as forecast": "#b9bfae",
    "activations and everything else in use": "#8f86a8",
}
# Light → dark, swapped by CSS on the SVG's own attributes; colours of phases and parts serve both.
DARK = {
    INK: "#c4cad3",
    FAINT: "#8e96a3",
    GRID: "#30363f",
    PAPER: "#15181d",
    **dict(
        zip(
            ARM_COLORS,
            ("#f0935a", "#57b9d6", "#bd95e0", "#a9c763", "#e5819f", "#8fabee"),
            strict=True,
        )
    ),
}
