"""``rlaif-export``: what it writes, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from export.conftest import CONFIG, METRICS, write_run

from rlaif_lab.cli.export import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence on stderr of a call that exits with 2."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rlaif-export: ") and err.count("\n") == 1
    return err


def test_writes_data_sets_and_cards(addition_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(addition_run)])
    assert capsys.readouterr().out.splitlines() == [
        str(addition_run / "export"),
        str(addition_run / "policy" / "README.md"),
    ]
    files = {file.name for file in (addition_run / "export").iterdir()}
    assert files == {
        "README.md",
        "preferences.parquet",
        "preferences.jsonl",
        "reward_data.parquet",
        "reward_data.jsonl",
        "generations.parquet",
        "ties.jsonl",
        "unpaired.parquet",
        "failures.jsonl",
    }
    assert (addition_run / "policy" / "curve.png").is_file()


def test_a_run_that_goes_on_has_no_model_card_yet(odd_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(odd_run)])
    assert "has not saved its policy yet" in capsys.readouterr().out
    assert not (odd_run / "policy").exists()


def test_wrong_folders_are_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in said(capsys, str(tmp_path / "nowhere"))
    assert "no config.json" in said(capsys, str(tmp_path))
    write_run(tmp_path / "b", CONFIG, METRICS)
    assert f"e.g. {str(tmp_path / 'b')!r}" in said(capsys, str(tmp_path))
    assert "no round with generations yet" in said(capsys, str(tmp_path / "b"))
    (tmp_path / "b" / "config.json").write_text("{")
    assert "config.json' is corrupt" in said(capsys, str(tmp_path / "b"))


def test_damaged_files_are_named(odd_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = odd_run / "round_000" / "judgements.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert str(broken) in said(capsys, str(odd_run))
    assert not (odd_run / "export").exists()


def test_a_file_in_the_way_is_told(odd_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (odd_run / "export").write_text("")
    assert str(odd_run / "export") in said(capsys, str(odd_run))
