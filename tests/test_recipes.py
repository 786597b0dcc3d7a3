"""The recipe of one round runs, and the policy is better after it."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "one_round.py"


def test_one_round_teaches_the_policy_what_its_judge_knows(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = runpy.run_path(str(RECIPE))["main"]()
    assert 0.2 < before < after - 0.05
    assert "true quality on held-out prompts" in capsys.readouterr().out


def test_it_is_short_and_needs_none_of_the_machinery() -> None:
    text = RECIPE.read_text()
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module}
    assert len(text.splitlines()) <= 125
    assert not [name for name in imported if name.startswith(("rlaif_lab.loop", "rlaif_lab.store", "hydra", "pytorch"))]
