"""Constitutions as files: what is in them, and what is told of one that is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rlaif_lab.config import config_dir
from rlaif_lab.instructions.constitution import Constitution

GOOD = """\
name: mine
principles:
  - id: kind
    compare: Which one is kinder?
    critique: Where is it unkind?
    revise: Make it kinder.
  - id: short
    compare: Which one is shorter?
    critique: Where is it too long?
    revise: Make it shorter.
"""


def constitution(tmp_path: Path, text: str) -> Constitution:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return Constitution.load(str(path))


@pytest.mark.parametrize("file", sorted((Path(config_dir()) / "constitution").glob("*.yaml")), ids=lambda f: f.stem)
def test_what_is_shipped_loads(file: Path) -> None:
    found = Constitution.load(file.stem)
    assert found.name == file.stem
    assert len(found.principles) >= 5
    assert all(p.compare.endswith("?") and "?" in p.critique and p.revise.endswith(".") for p in found.principles)


def test_the_general_one_has_sixteen_principles() -> None:
    assert len(Constitution.load("general").principles) == 16


def test_principles_are_drawn_evenly_by_identity_alone() -> None:
    general = Constitution.load("general")
    drawn = [general.draw("judge", 0, f"prompt {i}").id for i in range(3200)]
    counts = Counter(drawn)
    assert len(counts) == 16
    assert all(140 < count < 270 for count in counts.values()), counts  # 200 expected, standard deviation 14
    assert drawn == [general.draw("judge", 0, f"prompt {i}").id for i in range(3200)]
    assert drawn != [general.draw("judge", 1, f"prompt {i}").id for i in range(3200)]


def test_identity_is_the_content_without_the_name(tmp_path: Path) -> None:
    first = constitution(tmp_path, GOOD)
    assert constitution(tmp_path, GOOD.replace("mine", "yours")).identity() == first.identity()
    assert constitution(tmp_path, GOOD.replace("kinder?", "kindest?")).identity() != first.identity()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("principles: []", ["line 1", "at least one principle"]),
        ("name: x\nprinciples:", ["line 2", "at least one principle"]),
        ("name: x", ["'principles' is missing"]),
        (GOOD.replace("id: short", "id: kind"), ["line 7", "the id 'kind' is taken by the principle of line 3"]),
        (GOOD.replace("    revise: Make it shorter.\n", ""), ["line 7", "revise of principle 'short' is missing"]),
        (GOOD.replace("Make it shorter.", "''"), ["line 7", "revise of principle 'short' must be a text"]),
        (GOOD.replace("Which one is kinder?", "3"), ["line 3", "compare of principle 'kind' must be a text; got 3"]),
        (GOOD + "    weight: 2\n", ["line 11", "unknown key 'weight'"]),
        (GOOD + "  - just a sentence\n", ["line 11", "must be a mapping"]),
        (GOOD + "  - id: [\n", ["not valid YAML"]),
        ("", ["must be a mapping"]),
        (GOOD + "autor: me\n", ["line 11", "unknown key 'autor'"]),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        constitution(tmp_path, text)
    assert str(tmp_path / "c.yaml") in str(error.value)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no constitution 'genral' \(did you mean 'general'\?\)"):
        Constitution.load("genral")
