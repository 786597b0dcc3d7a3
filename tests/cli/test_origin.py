"""A run that is resumed from elsewhere prints commands that work where they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_lab.cli.origin import Origin, go_back
from rlaif_lab.store.outcome import Shell, shown_path


def test_folders_are_shown_as_the_user_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shell, "folder", None)
    monkeypatch.setattr(Shell, "gone_to", None)
    started, here = tmp_path / "started", tmp_path / "here"
    (started / "outputs" / "run").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    assert shown_path(here / "outputs") == "outputs"

    go_back(Origin(started))
    assert Path.cwd() == started
    assert shown_path(Path("outputs/run")) == str(started / "outputs" / "run")
    assert shown_path(here / "outputs") == "outputs"

    monkeypatch.chdir(tmp_path)  # somewhere else again: what was kept no longer holds
    assert shown_path(started) == "started"
