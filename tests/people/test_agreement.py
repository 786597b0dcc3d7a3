"""Agreement: known values, and what a simulation puts in comes out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rlaif_lab.people.agreement import agreement, alpha, annotator_error, checks, disagreements
from rlaif_lab.people.queue import Item, Label, item_of
from rlaif_lab.records import Comparison, Prompt


def made(count: int) -> list[Item]:
    return [item_of(Comparison(Prompt(f"p{i}", "q"), "a", "b")) for i in range(count)]


def said(item: Item, name: str, choice: str) -> Label:
    return Label(item.id, name, choice, False, 1.0)  # type: ignore[arg-type]


def test_alpha_of_a_table_by_hand() -> None:
    """Two coders, four items, one disagreement: D_o = 2/8, D_e = 2 * 3 * 5 / (8 * 7)."""
    table = [{"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0}]
    assert alpha(table) == pytest.approx(1.0 - (2 / 8) / (2 * 3 * 5 / (8 * 7)))
    assert alpha([{"a": 1.0, "b": 1.0}]) == 1.0
    assert math.isnan(alpha([{"a": 1.0}, {"b": 0.0}]))


def test_only_real_items_and_real_labels_count_and_the_ai_is_one_more_coder() -> None:
    items = [replace(item, ai=0.9) for item in made(4)]
    items[3] = replace(items[3], gold="first")
    labels = [said(item, name, "first") for item in items for name in ("ada", "ben")]
    labels.append(said(items[0], "cy", "skip"))
    found = agreement(items, labels)
    assert (found.alpha, found.alpha_with_ai, found.items) == (1.0, 1.0, 3)
    assert checks(items, labels) == {"ada": (1, 1), "ben": (1, 1)}
    assert disagreements(items, [*labels[:1], said(items[0], "ben", "second")])[0][0] == items[0]


def test_a_shared_error_rate_is_recovered_from_disagreements() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.5
    one, two = (truth ^ (rng.random(20_000) < 0.15) for _ in range(2))
    assert annotator_error(list(zip(one.astype(float), two.astype(float), strict=True))) == pytest.approx(
        0.15, abs=0.01
    )
    assert math.isnan(annotator_error([]))
