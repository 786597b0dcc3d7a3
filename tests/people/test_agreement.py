"""Agreement: known values, and what a simulation puts in comes out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif_lab.people.agreement import agreement, alpha, disagreements, error_of, noise
from rlaif_lab.people.queue import Item, Label, LabelQueue, Said, check_of, item_of
from rlaif_lab.records import Comparison, Prompt


def made(count: int) -> list[Item]:
    return [item_of(Comparison(Prompt(f"p{i}", "q"), "a", "b")) for i in range(count)]


def said(item: Item, name: str, choice: str) -> Label:
    return Label(item.id, name, choice, False, 1.0)  # type: ignore[arg-type]


def test_alpha_of_a_table_by_hand() -> None:
    """Two coders, four items, one disagreement: D_o = 2/8, D_e = 2 * 3 * 5 / (8 * 7)."""
    table = [[2, 0, 0], [0, 0, 2], [0, 0, 2], [1, 0, 1]]
    assert alpha(table) == pytest.approx(1.0 - (2 / 8) / (2 * 3 * 5 / (8 * 7)))
    assert alpha([[2, 0, 0]]) == 1.0
    assert math.isnan(alpha([[1, 0, 0], [0, 0, 1]]))


def test_only_real_items_and_real_labels_count_and_the_ai_is_one_more_coder(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    items = [replace(item, ai=0.9, needed=2) for item in made(4)]
    check = check_of(Comparison(Prompt("c", "q"), "a", "b"), 1.0)
    queue.add([*items[:3], check])
    for item in (*items[:3], check):
        for name in ("ada", "ben"):
            queue.label(said(item, name, "first"))
    queue.label(said(items[0], "cy", "skip"))
    found = agreement(queue.said())
    assert (found.alpha, found.alpha_with_ai, found.items) == (1.0, 1.0, 3)
    assert queue.checks() == {"ada": (1, 1), "ben": (1, 1)}
    assert disagreements([Said("x", 1, 0, 1, None), Said("y", 2, 0, 0, None), Said("z", 0, 1, 1, None)]) == ["x", "z"]


def test_a_shared_error_rate_is_recovered_from_disagreements() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.5
    first = np.sum([truth ^ (rng.random(20_000) < 0.15) for _ in range(3)], axis=0)
    counted = [Said(str(i), int(n), 0, 3 - int(n), None) for i, n in enumerate(first)]
    assert noise(counted) == pytest.approx(0.15, abs=0.01)
    assert math.isnan(noise([Said("x", 1, 0, 0, None), Said("y", 1, 5, 0, None)]))
    assert (error_of(0.0), error_of(0.5), error_of(0.9)) == (0.0, 0.5, 0.5)
