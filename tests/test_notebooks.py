"""The notebooks as they are kept: without output, and without logic of their own. tests/end_to_end runs them."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
SHOWS = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
"""What a cell may consist of: it imports, names and shows."""
LOGIC = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp, ast.BinOp, ast.Compare)


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_read_a_sweep",
        "02_read_from_wandb",
        "03_anatomy_of_a_round",
        "04_in_process",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_output(path: Path) -> None:
    content = nbformat.read(path, 4)
    nbformat.validate(content)
    for cell in content.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_no_logic_of_its_own(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells
    for source in cells:
        plain = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        tree = ast.parse(plain)
        assert all(isinstance(statement, SHOWS) for statement in tree.body), source
        assert not [node for node in ast.walk(tree) if isinstance(node, LOGIC)], source
