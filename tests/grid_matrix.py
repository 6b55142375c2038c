"""A small matrix with a grid: LoRA's rate is chosen, a twin takes it on other seeds, the rest is fixed."""

from __future__ import annotations

from tests.conftest import MATRIX

GRID = (
    MATRIX.replace("name: tiny", "name: grid")
    .replace("seeds: [0, 1]", "seeds: [0, 1]\nselection: {seeds: [100, 101]}")
    .replace("test_rows: 8}", "test_rows: 8, validation_rows: 4}", 1)
    .replace(
        "lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}",
        "lora: {method: lora, lora: {r: 4}, rates: [1e-4, 1e-3, 1e-2]}\n"
        "      twin: {method: lora, lora: {r: 4}, rate_of: lora, seed_offset: 5000}",
    )
)
