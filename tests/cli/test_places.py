"""YAML files of a user's own: one of a few kB does not keep the check busy."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_lab.config.places import check_sizes

NINE = ",".join(["*a{}"] * 9)
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{NINE.replace('{}', str(i - 1))}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [BOMB, "x: &x {y: *x}\n", "x: &x [*x]\n", f"x: {'[' * 3000}{']' * 3000}\n", f"x: {'{a: ' * 100}1{'}' * 100}\n"],
    ids=["aliases of aliases", "a mapping in itself", "a list in itself", "deep lists", "deep mappings"],
)
def test_what_would_not_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: comes to more than 20000 values, or is nested too deeply"):
        check_sizes([tmp_path])


@pytest.mark.parametrize("text", ["", "a: 1\n", "a: &a {b: 1}\nc: *a\nd: *a\n", "a: [\n", "a: !!python/name:os.x\n"])
def test_others_are_left_to_hydra(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    check_sizes([tmp_path])
